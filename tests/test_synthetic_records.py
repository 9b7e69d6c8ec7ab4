"""The benchmarks' made-up records have the original files' shapes, proportions and defects."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from ecg_grpo.preparation import Preparation
from ecg_grpo.raw_files import BY_CODE, RAW_FILES
from ecg_grpo.readers import read_records
from ecg_grpo.records import Record
from ecg_grpo.similarity import TextSimilarity

ORIGINAL = dict(
    zip(
        ("EBK", "CK", "CD", "PP", "PRTK", "CMD", "MROD", "LTD", "MC", "GRA", "MEE"),
        (2247, 2592, 1931, 1164, 1357, 20032, 28308, 8789, 7905, 2931, 2621),
        strict=True,
    )
)
KNOWLEDGE = ("EBK", "CK", "CD", "PP", "PRTK")


def generate(out: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "benchmarks" / "synthetic_records.py"), "--out", str(out), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def content(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def rows(folder: Path, code: str) -> list[dict]:
    return json.loads((folder / BY_CODE[code].name).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("synthetic") / "raw"
    done = generate(folder, "--records", "2000")
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def prepared(raw: Path) -> Preparation:
    data = Preparation()
    data.read_and_clean([raw / file.name for file in RAW_FILES])
    return data


def test_the_seed_decides_every_byte(raw: Path, tmp_path: Path) -> None:
    generate(tmp_path / "again", "--records", "2000", "--seed", "0")
    generate(tmp_path / "other", "--records", "2000", "--seed", "1")
    again, other = content(tmp_path / "again"), content(tmp_path / "other")
    assert again == content(raw)
    assert all(again[name] != other[name] for name in again)


@pytest.mark.parametrize("code", ORIGINAL)
def test_every_file_is_readable_and_has_its_share_of_turns(raw: Path, code: str) -> None:
    found = read_records(raw / BY_CODE[code].name)
    assert all(isinstance(entry, Record) for entry in found)
    assert abs(len(found) - 2000 * ORIGINAL[code] / 79_877) <= 1


def test_the_sum_is_the_number_asked_for(prepared: Preparation, tmp_path: Path) -> None:
    assert sum(prepared.read.values()) == 2000
    for records in (1, 7, 130):
        generate(tmp_path / str(records), "--records", str(records))
        found = [read_records(tmp_path / str(records) / raw.name) for raw in RAW_FILES]
        assert sum(map(len, found)) == records


def test_keys_stand_where_the_original_has_them(raw: Path) -> None:
    assert list(rows(raw, "EBK")[0]) == list(rows(raw, "CK")[0]) == ["Q", "A"]
    assert list(rows(raw, "CD")[0]) == ["Disease", "Q", "A"]
    assert list(rows(raw, "PP")[0]) == ["medical_advice", "Q", "A"]
    assert list(rows(raw, "PRTK")[0]) == ["Question", "Answer"]
    assert np.mean([row["A"].endswith("?") for row in rows(raw, "CMD")]) > 0.8
    assert not any(row["Q"].endswith("?") for row in rows(raw, "CMD"))
    assert all({"subject_id", "study_id", "report_0", "report_2", "qrs_axis"} <= set(row) for row in rows(raw, "CMD"))
    for code in ("MROD", "LTD"):
        assert {type(row["QA"]) for row in rows(raw, code)} == {list, dict}
    assert {type(row["keywords"]) for row in rows(raw, "MEE")} == {list, str}
    phases = [phase for row in rows(raw, "MC") for phase in row["Conversation"].values()]
    assert {role for phase in phases for turn in phase for role in turn} == {"patient", "doctor"}


def test_defects_end_in_the_quarantine_and_among_the_repairs(prepared: Preparation) -> None:
    reasons = Counter(entry.reason for entry in prepared.quarantined)
    assert set(reasons) == {"empty question", "truncated answer", "mojibake"}  # sound texts are never taken for damaged
    assert 15 <= reasons["empty question"] <= 28
    assert reasons["truncated answer"] == 1
    assert any("鈮" in entry.record.answer for entry in prepared.quarantined)  # what is left of "≥"
    repaired = {kind: sum(entry["records"].values()) for kind, entry in prepared.repairs.items()}
    assert {"curly quotes", "html", "mojibake", "patient number"} <= set(repaired)
    assert repaired["curly quotes"] >= 40
    assert prepared.dropped


def test_dialogues_have_30_turns_a_patient(prepared: Preparation) -> None:
    turns = Counter(record.subject for record in prepared.records if record.task in ("MROD", "LTD", "MC"))
    assert 25 <= np.mean(list(turns.values())) <= 31
    assert max(record.turn for record in prepared.records if record.task == "MROD") >= 5


def test_lengths_are_realistic(prepared: Preparation) -> None:
    words = {
        (code, name): [len(getattr(record, name).split()) for record in prepared.records if record.task == code]
        for code in ("EBK", "GRA")
        for name in ("question", "answer")
    }
    assert 12 <= np.median(words["EBK", "question"]) <= 18
    assert 20 <= np.median(words["EBK", "answer"]) <= 45
    assert min(words["GRA", "answer"]) >= 300
    assert max(words["GRA", "answer"]) <= 1800


def test_texts_are_alike_as_questions_are(tmp_path: Path) -> None:
    generate(tmp_path, "--records", "3000", "--knowledge-only")
    assert {file.name for file in tmp_path.iterdir()} == {BY_CODE[code].name for code in KNOWLEDGE}
    records = [record for code in KNOWLEDGE for record in read_records(tmp_path / BY_CODE[code].name)]
    questions = [record.question for record in records if record.question]
    pairs = TextSimilarity(ROOT / "resources" / "similarity" / "common_ngrams.tsv").pairs(questions, 0.72)
    assert 0.35 <= len(set(pairs.ravel().tolist())) / len(questions) <= 0.6
    graph = coo_matrix((np.ones(len(pairs)), pairs.T), shape=(len(questions), len(questions)))
    _, groups = connected_components(graph, directed=False)
    assert np.bincount(groups).max() <= 0.06 * len(questions)
    answered = {(record.question, record.answer) for record in records if record.question}
    assert 0.005 <= 1 - len(answered) / len(questions) <= 0.02
    assert len(set(questions)) < 0.93 * len(answered)  # the same question with another answer


def test_the_vocabulary_grows_slower_than_the_text(raw: Path, tmp_path: Path) -> None:
    generate(tmp_path, "--records", "8000")
    number = {}
    for folder in (raw, tmp_path):
        words = [word for file in content(folder).values() for word in re.findall(r"[a-z]{3,}", file.decode().lower())]
        number[folder] = (len(set(words)), len(words))
    (few, short), (many, long) = number[raw], number[tmp_path]
    assert 0.2 <= np.log(many / few) / np.log(long / short) <= 0.7


def test_impossible_sizes_are_refused(tmp_path: Path) -> None:
    done = generate(tmp_path / "none", "--records", "0")
    assert done.returncode == 2
    assert "at least 1" in done.stderr
    assert not (tmp_path / "none").exists()


def benchmark(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "benchmarks" / "prepare_data.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.pipeline
def test_the_benchmark_says_where_time_goes(tiny_model: Path, tmp_path: Path) -> None:
    manifest = shutil.copytree(tiny_model, tmp_path / "model") / "manifest.json"
    manifest.write_text('{"files": {}}', encoding="utf-8")
    done = benchmark("--sizes", "400", "800", "--model", str(manifest), "--json", str(tmp_path / "figures.json"))
    assert done.returncode == 0, done.stderr
    figures = json.loads((tmp_path / "figures.json").read_text())
    for expected, found in zip((400, 800), figures["sizes"], strict=True):
        assert found["size"] == found["records"]["read"] == expected
        assert list(found["phases"]) == ["read and clean", "split and audit", "measure", "write"]
        parts = sum(part["seconds"] for part in found["phases"].values())
        assert 0.5 * found["seconds"] <= parts <= found["seconds"]
        assert 0 < found["phases"]["read and clean"]["peak_gib"] <= found["peak_gib"] + 0.01
    assert "against the first size" in done.stdout
    assert figures["time_per_record_against_first"]["all"]["400"] == 1


def test_the_benchmark_says_how_to_get_a_model(tmp_path: Path) -> None:
    done = benchmark("--model", str(tmp_path / "manifest.json"))
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "snakemake --cores all results/demo/base_model/manifest.json" in done.stderr
