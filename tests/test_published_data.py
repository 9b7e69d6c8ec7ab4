"""What the published files of ECG-Expert-QA give. They have no license and are not here: set ECG_EXPERT_QA to their folder.

ECG_EXPERT_QA=/data/ECG-Expert-QA python -m pytest tests/test_published_data.py
"""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from test_preparation import NAMES, SPLITS, manifest, prepare, rows  # noqa: F401 (a fixture)

from ecg_grpo.raw_files import BY_CODE, find_raw_files

FOLDER = os.environ.get("ECG_EXPERT_QA")
pytestmark = pytest.mark.skipif(not FOLDER, reason="ECG_EXPERT_QA does not name a folder with the published files")


@pytest.fixture(scope="module")
def prepared(manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:  # noqa: F811
    folder = tmp_path_factory.mktemp("published")
    prepare(find_raw_files(FOLDER), manifest, folder, max_prompt_tokens=10**6, max_answer_tokens=10**6)
    return folder


@pytest.fixture(scope="module")
def account(prepared: Path) -> dict:
    return json.loads((prepared / "account.json").read_text())


def test_the_files_are_the_published_ones_and_every_record_is_read(account: dict) -> None:
    assert all(file["as_published"] for file in account["raw_files"])
    knowledge = {task: number for task, number in account["read"].items() if not BY_CODE[task].about_patients}
    assert knowledge == {task: BY_CODE[task].records for task in knowledge}


@pytest.mark.parametrize(
    ("task", "quarantined", "repaired", "dropped", "truncated"),
    [
        ("EBK", 12, 8, 0, []),
        ("CK", 5, 27, 0, ["CK-00016", "CK-00028", "CK-00528", "CK-01176"]),
        ("PRTK", 0, 0, 30, ["PRTK-00053"]),
    ],
)
def test_defects(
    prepared: Path, account: dict, task: str, quarantined: int, repaired: int, dropped: int, truncated: list
) -> None:
    if task not in account["read"]:
        pytest.skip(f"{task} is not in the folder")
    assert account["quarantined"].get("mojibake", {}).get(task, 0) == quarantined
    assert account["repaired"].get("mojibake", {"records": {}})["records"].get(task, 0) == repaired
    assert account["dropped"].get("exact duplicate", {}).get(task, 0) == dropped
    found = [row["id"] for row in rows(prepared, "quarantine") if row["reason"] == "truncated answer" and row["task"] == task]
    assert found == truncated


def test_contradiction_in_prtk(prepared: Path) -> None:
    flags = {row["id"]: row["flags"] for row in rows(prepared, *SPLITS) if row["flags"]}
    assert flags["PRTK-00090"] == ["contradicts PRTK-00636"]
    assert flags["PRTK-00636"] == ["contradicts PRTK-00090"]


def test_exhaustive_check_of_the_splits(prepared: Path) -> None:
    tables = {name: [row for row in rows(prepared, name) if not BY_CODE[row["task"]].about_patients] for name in SPLITS}
    questions = [row["question"].lower() for name in SPLITS for row in tables[name]]
    vectors = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 5), sublinear_tf=True)
    matrix = vectors.fit_transform(questions)
    train = len(tables["train"])
    highest = (matrix[train:] @ matrix[:train].T).max(axis=1).toarray().ravel()
    assert highest.max() < 0.9
    assert (highest >= 0.8).mean() <= 0.005
    answers = {name: {row["answer"].casefold() for row in tables[name]} for name in SPLITS}
    assert not answers["train"] & (answers["test"] | answers["validation"])
    assert not answers["validation"] & answers["test"]


def test_task_shares(prepared: Path) -> None:
    counts = Counter((row["task"], name) for name in SPLITS for row in rows(prepared, name))
    for task in {task for task, _ in counts}:
        total = sum(counts[task, name] for name in SPLITS)
        for name in ("validation", "test"):
            assert counts[task, name] / total == pytest.approx(0.1, abs=0.02), (task, name)


def test_sum(prepared: Path, account: dict) -> None:
    assert sum(pq.read_metadata(prepared / f"{name}.parquet").num_rows for name in NAMES) == account["records"]["read"]
