"""Exported ratings are read back: averaged over people, only of answers that are still the same, errors with file and line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from conftest import ROOT

from ecg_grpo.answer_browser import answer_digest
from ecg_grpo.errors import InputError
from ecg_grpo.ratings import mean_ratings, read_ratings

ANSWERS = {
    "sft": [{"id": "EBK-1", "completion": "Sinus rhythm."}, {"id": "EBK-2", "completion": 'He said "no", twice'}],
    "grpo": [{"id": "EBK-1", "completion": "Atrial fibrillation."}, {"id": "EBK-2", "completion": ""}],
}


def line(record: str, system: str, rating: object, completion: str | None = None) -> str:
    if completion is None:
        completion = next(row["completion"] for row in ANSWERS[system] if row["id"] == record)
    return f'"{record}","{system}","{answer_digest(completion)}",{rating}'


def file_of(folder: Path, *lines: str, name: str = "ratings.csv", header: str = "id,system,answer,rating") -> Path:
    file = folder / name
    file.write_text("\r\n".join([header, *lines]) + "\r\n")
    return file


def test_ratings_are_averaged_over_people_and_the_last_word_of_each_counts(tmp_path: Path) -> None:
    one = file_of(tmp_path, line("EBK-1", "sft", 0), line("EBK-1", "sft", 1), line("EBK-2", "grpo", 0.5), name="one.csv")
    other = file_of(tmp_path, line("EBK-1", "sft", 0.5), name="other.csv")
    found, changed = mean_ratings([read_ratings(one), read_ratings(other)], ANSWERS)
    assert found == {"sft": {"EBK-1": 0.75}, "grpo": {"EBK-2": 0.5}}
    assert changed == 0


def test_a_rating_of_an_answer_that_has_changed_is_counted_and_not_used(tmp_path: Path) -> None:
    found, changed = mean_ratings([read_ratings(file_of(tmp_path, line("EBK-1", "sft", 1, "Another answer.")))], ANSWERS)
    assert found == {"sft": {}, "grpo": {}}
    assert changed == 1


@pytest.mark.parametrize(
    ("lines", "header", "said"),
    [
        (['"EBK-1","sft","00000000",2'], "id,system,answer,rating", "line 2: rating '2' is no number from 0 to 1"),
        (['"EBK-1","sft","00000000",'], "id,system,answer,rating", "line 2: rating '' is no number"),
        (['"EBK-1","sft","00000000",nan'], "id,system,answer,rating", "line 2: rating 'nan' is no number"),
        (['"EBK-1","sft","00000000"'], "id,system,answer,rating", "line 2: rating None is no number"),
        (["x"], "id,model,answer,rating", "no column system"),
        (['"EBK-9","sft","00000000",1'], "id,system,answer,rating", "line 2: there is no record 'EBK-9'"),
        (['"EBK-1","dpo","00000000",1'], "id,system,answer,rating", "line 2: there is no model 'dpo'"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, lines: list[str], header: str, said: str) -> None:
    with pytest.raises(InputError, match=said.replace("(", r"\(")):
        mean_ratings([read_ratings(file_of(tmp_path, *lines, header=header))], ANSWERS)


def test_bytes_that_are_no_text_are_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "ratings.csv").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(InputError, match="not a readable CSV file"):
        read_ratings(tmp_path / "ratings.csv")


def test_the_program_writes_one_row_a_record(tmp_path: Path) -> None:
    from ecg_grpo.tables import ANSWERS as SCHEMA
    from ecg_grpo.tables import write_table

    for system, rows in ANSWERS.items():
        (tmp_path / system).mkdir()
        write_table(tmp_path / system / "answers.parquet", rows, SCHEMA, {})
    ratings = file_of(tmp_path, line("EBK-2", "sft", 1))
    subprocess.run(
        [
            *(sys.executable, ROOT / "workflow_scripts/read_ratings.py", "--ratings", ratings),
            *("--answers", *(tmp_path / system / "answers.parquet" for system in ANSWERS)),
            *("--scores", *(tmp_path / system / "ratings.parquet" for system in ANSWERS)),
            *("--provenance", tmp_path / "provenance.json"),
        ],
        check=True,
    )
    tables = {system: pq.read_table(tmp_path / system / "ratings.parquet").to_pylist() for system in ANSWERS}
    assert tables["sft"] == [{"id": "EBK-1", "rating": None}, {"id": "EBK-2", "rating": 1.0}]
    assert {row["rating"] for row in tables["grpo"]} == {None}
    assert json.loads((tmp_path / "provenance.json").read_text())["facts"]["rated"] == 1
