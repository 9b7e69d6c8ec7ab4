"""prepare_data as a program: every record is accounted for, equal input gives equal bytes, other tools read the result."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import datasets
import duckdb
import pandas as pd
import pyarrow.parquet as pq
import pytest
from conftest import CORES, ROOT, SAMPLE
from raw_shapes import ROWS, write_raw_files

from ecg_grpo.preparation import Preparation
from ecg_grpo.prompts import build_prompt
from ecg_grpo.raw_files import BY_CODE, RAW_FILES
from ecg_grpo.token_budget import TokenCounter

SPLITS = ("train", "validation", "test")
NAMES = (*SPLITS, "quarantine", "dropped")


def prepare(
    raw: list[Path], model: Path, folder: Path, *, check: bool = True, **settings: object
) -> subprocess.CompletedProcess:
    """Runs the program, results into `folder`."""
    outputs = [argument for name in NAMES for argument in (f"--{name}", str(folder / f"{name}.parquet"))]
    run = subprocess.run(
        [
            *(sys.executable, ROOT / "workflow_scripts/prepare_data.py", "--raw", *raw, *outputs),
            *("--account", folder / "account.json", "--base-model", model, "--threads", CORES),
            *("--system-prompt", ROOT / "resources/prompts/system.txt"),
            *("--ngrams", ROOT / "resources/similarity/common_ngrams.tsv"),
            *("--settings", json.dumps({"max_prompt_tokens": 3000, "max_answer_tokens": 3000} | settings)),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert not check or run.returncode == 0, run.stderr
    return run


def patients(number: int) -> dict[str, list[dict]]:
    """The rows about patients, again and again with other patients who differ in their summaries."""
    rows = {}
    for code in ("CMD", "MROD", "LTD", "MC", "GRA", "MEE"):
        rows[code] = []
        for index in range(number):
            row = dict(ROWS[code][index % len(ROWS[code])])
            row["subject_id"] = 10_200_000 + index
            if code == "CMD":
                row["rr_interval"] = 600 + index
            else:
                row["result"] = f"Rate {40 + index} beats per minute. {row['result']}"
            rows[code].append(row)
    return rows


@pytest.fixture(scope="module")
def manifest(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from ecg_grpo.files import write_json

    file = tmp_path_factory.mktemp("model") / "model"
    file.mkdir()
    for source in tiny_model.iterdir():
        (file / source.name).write_bytes(source.read_bytes())
    write_json(file / "manifest.json", {"files": {}})
    return file / "manifest.json"


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """All eleven files: the sample with some defects put in, and 60 patients in each of the other six."""
    folder = write_raw_files(tmp_path_factory.mktemp("raw"), **patients(60))
    for code in ("EBK", "CK", "CD", "PP", "PRTK"):
        rows = json.loads((SAMPLE / BY_CODE[code].name).read_text())
        if code == "EBK":
            rows += [rows[3], {"Q": "Half of", "A": "鈮? mm of it."}, {"Q": "Where is?", "A": 5}, {"Q": "", "A": "Nothing."}]
        if code == "PRTK":
            rows += [
                {"Question": "May I see my tracing?", "Answer": "Yes, at any time."},
                {"Question": "May I see my tracing", "Answer": "No, never."},
            ]
        (folder / BY_CODE[code].name).write_text(json.dumps(rows))
    return [folder / raw.name for raw in RAW_FILES]


@pytest.fixture(scope="module")
def prepared(raw: list[Path], manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prepared")
    prepare(raw, manifest, folder)
    return folder


def rows(folder: Path, *names: str) -> list[dict]:
    return [row for name in names for row in pq.read_table(folder / f"{name}.parquet").to_pylist()]


def test_every_record_is_in_exactly_one_place(prepared: Path) -> None:
    account = json.loads((prepared / "account.json").read_text())
    ids = [row["id"] for row in rows(prepared, *NAMES)]
    assert len(ids) == len(set(ids)) == account["records"]["read"] == sum(account["read"].values())
    assert account["records"]["kept"] == len(rows(prepared, *SPLITS))
    assert account["records"]["quarantined"] == len(rows(prepared, "quarantine"))
    assert account["records"]["dropped"] == len(rows(prepared, "dropped"))
    assert account["absent_files"] == []
    # 60 patients: one record each, but dialogues have two turns each and LTD one
    assert {task: account["read"][task] for task in ("CMD", "MROD", "LTD", "MC", "GRA", "MEE")} == {
        "CMD": 60,
        "MROD": 120,
        "LTD": 60,
        "MC": 120,
        "GRA": 60,
        "MEE": 60,
    }


def test_what_was_left_out_says_why(prepared: Path) -> None:
    reasons = {row["id"]: (row["reason"], row["evidence"], row["raw"]) for row in rows(prepared, "quarantine", "dropped")}
    name, last = BY_CODE["EBK"].name, len(json.loads((SAMPLE / BY_CODE["EBK"].name).read_text()))
    assert reasons[f"EBK-{last:05d}"] == ("exact duplicate", "of EBK-00003", "")
    assert reasons[f"EBK-{last + 1:05d}"] == ("mojibake", f"{name}: row {last + 1}: answer: 鈮? mm of it.", "")
    assert reasons[f"EBK-{last + 2:05d}"] == (
        *("unreadable", f"{name}: row {last + 2}: key 'A': must be text, found int"),
        '{"Q": "Where is?", "A": 5}',
    )
    assert reasons[f"EBK-{last + 3:05d}"][:2] == ("empty question", f"{name}: row {last + 3}")


def test_contradictory_answers_are_flagged_and_in_one_split(prepared: Path) -> None:
    account = json.loads((prepared / "account.json").read_text())
    first = len(json.loads((SAMPLE / BY_CODE["PRTK"].name).read_text()))
    yes, no = f"PRTK-{first:05d}", f"PRTK-{first + 1:05d}"
    assert [(entry["yes"], entry["no"]) for entry in account["contradictions"]] == [([yes], [no])]
    flagged = {row["id"]: (row["flags"], row["split"]) for row in rows(prepared, *SPLITS) if row["flags"]}
    assert flagged == {yes: ([f"contradicts {no}"], flagged[yes][1]), no: ([f"contradicts {yes}"], flagged[yes][1])}


def test_no_patient_disease_or_prompt_is_in_two_splits(prepared: Path) -> None:
    records = rows(prepared, *SPLITS)
    for key in ("subject", "prompt", "cluster"):
        found = {}
        for row in records:
            value = json.dumps(row[key])
            assert not row[key] or found.setdefault(value, row["split"]) == row["split"]
    assert Counter(row["split"] for row in records).keys() == set(SPLITS)
    assert not any("102000" in json.dumps([row["context"], row["prompt"], row["subject"]]) for row in records)


def test_prompts_are_the_one_rendering_with_context_and_history(prepared: Path) -> None:
    system_prompt = (ROOT / "resources/prompts/system.txt").read_text().strip()
    turns = 0
    for row in rows(prepared, *SPLITS):
        history = [
            (one["content"], other["content"]) for one, other in zip(row["history"][::2], row["history"][1::2], strict=True)
        ]
        turns += len(history)
        assert row["prompt"] == build_prompt(system_prompt, row["context"], row["question"], history)
    assert turns


def test_token_counts_are_the_model_s(prepared: Path, manifest: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(manifest.parent)
    for row in rows(prepared, "test")[:20]:
        prompt = tokenizer.apply_chat_template(row["prompt"], add_generation_prompt=True, return_dict=False)
        assert row["prompt_tokens"] == len(prompt)
        assert row["answer_tokens"] == len(tokenizer(row["answer"], add_special_tokens=False)["input_ids"]) + 1
    counted = list(TokenCounter(manifest.parent).count(1, lambda _: (row["prompt"], row["answer"]), lambda _: None))
    assert counted == [(row["prompt_tokens"], row["answer_tokens"])]


def test_datasets_pandas_and_duckdb_read_the_splits(prepared: Path, tmp_path: Path) -> None:
    file = prepared / "train.parquet"
    expected = rows(prepared, "train")
    loaded = datasets.load_dataset("parquet", data_files=str(file), split="train", cache_dir=str(tmp_path))
    assert loaded[0] == expected[0]
    assert len(loaded) == len(expected)
    assert pd.read_parquet(file)["id"].tolist() == [row["id"] for row in expected]
    found = duckdb.sql(f"select count(*), max(prompt_tokens) from '{file}' where answer is not null").fetchall()
    assert found == [(len(expected), max(row["prompt_tokens"] for row in expected))]
    metadata = pq.read_schema(file).metadata
    assert set(json.loads(metadata[b"raw_files"])) == {raw.name for raw in RAW_FILES}
    assert {b"settings", b"versions", b"system_prompt"} <= set(metadata)
    assert pq.ParquetFile(file).metadata.row_group(0).column(0).compression == "ZSTD"


def test_twice_gives_the_same_bytes_and_order_of_files_does_not_matter(
    prepared: Path, raw: list[Path], manifest: Path, tmp_path: Path
) -> None:
    prepare(raw[::-1], manifest, tmp_path)
    for name in (*(f"{name}.parquet" for name in NAMES), "account.json"):
        assert (tmp_path / name).read_bytes() == (prepared / name).read_bytes(), name


def test_an_added_record_moves_no_other(prepared: Path, raw: list[Path], manifest: Path, tmp_path: Path) -> None:
    changed = write_raw_files(tmp_path / "raw")
    for file in raw:
        (changed / file.name).write_bytes(file.read_bytes())
    for code, row in (
        ("CK", {"Q": "Which valve lies between the left chambers?", "A": "The mitral valve, with two leaflets."}),
        ("MROD", ROWS["MROD"][0] | {"subject_id": 10_999_999, "result": "Another patient altogether."}),
    ):
        file = changed / BY_CODE[code].name
        file.write_text(json.dumps([*json.loads(file.read_text()), row]))
    prepare([changed / file.name for file in raw], manifest, tmp_path / "out")
    before = {row["id"]: row["split"] for row in rows(prepared, *SPLITS)}
    after = {row["id"]: row["split"] for row in rows(tmp_path / "out", *SPLITS)}
    assert {id: after[id] for id in before} == before
    assert len(after) == len(before) + 3


def test_some_files_are_enough_and_the_absent_ones_are_said(manifest: Path, tmp_path: Path) -> None:
    run = prepare([SAMPLE / BY_CODE["PP"].name], manifest, tmp_path, max_answer_tokens=120)
    account = json.loads((tmp_path / "account.json").read_text())
    assert account["absent_files"] == [raw.name for raw in RAW_FILES if raw.code != "PP"]
    assert f"absent: {BY_CODE['EBK'].name}" in run.stderr
    assert account["quarantined"]["answer too long"]["PP"] > 0
    assert "data_source" not in rows(tmp_path, "train")[0]
    assert all(row["answer_tokens"] <= 120 for row in rows(tmp_path, *SPLITS))


def test_too_little_data_is_refused_and_leaves_nothing(manifest: Path, tmp_path: Path) -> None:
    file = write_raw_files(tmp_path / "raw") / BY_CODE["EBK"].name
    run = prepare([file], manifest, tmp_path / "out", check=False)
    assert run.returncode == 1
    assert "1 records leave the" in run.stderr
    assert "Traceback" not in run.stderr
    assert not (tmp_path / "out").exists()


def test_a_lost_record_would_be_noticed() -> None:
    data = Preparation()
    data.read_and_clean([SAMPLE / BY_CODE["PP"].name])
    data.check_sum()
    data.records.pop()
    with pytest.raises(AssertionError, match="in, but"):
        data.check_sum()


def test_a_question_that_training_gives_away_is_taken_out() -> None:
    data = Preparation()
    data.read_and_clean([SAMPLE / BY_CODE["PP"].name])
    data.split = ["train" if index % 2 else "test" for index in range(len(data.records))]
    data.cluster = [record.id for record in data.records]
    data.flags = [[] for _ in data.records]
    twin = next(index for index, name in enumerate(data.split) if name == "test")
    data.records[twin + 1] = type(data.records[twin])(
        "PP-99999", "PP", 99999, data.records[twin].question.upper(), "Another answer."
    )
    data.audit_leakage()
    (entry,) = data.quarantined
    assert (entry.reason, entry.evidence) == ("too like a training question", "PP-99999, cosine 1.000")
    assert data.leakage["removed"] == 1
    assert data.leakage["highest"] < 0.9
    data.check_sum()
