"""What models and people say of answers joins the comparison, drawn answers are compared, and all of it is on the page."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import ROOT, Project

from ecg_grpo.answer_browser import answer_digest
from ecg_grpo.errors import InputError
from ecg_grpo.further_scores import present, read_scores
from ecg_grpo.metrics import METRICS
from ecg_grpo.tables import SAMPLED_ANSWERS, write_table

MODELS = ("base", "sft", "grpo")


def table(file: Path, **columns: list) -> Path:
    file.parent.mkdir(exist_ok=True)
    pq.write_table(pa.table(columns), file)
    return file


def test_further_tables_are_joined_by_record(tmp_path: Path) -> None:
    files = [
        table(tmp_path / "sft/scores.parquet", id=["a", "b"], rouge_l=[0.1, 0.2]),
        table(tmp_path / "echo/scores.parquet", id=["a", "b"], rouge_l=[0.3, 0.4]),
        table(tmp_path / "sft/ratings.parquet", id=["a", "b"], rating=[None, 1.0], unknown=[1, 2]),
    ]
    systems = read_scores(files)
    assert systems["sft"] == [{"id": "a", "rouge_l": 0.1, "rating": None}, {"id": "b", "rouge_l": 0.2, "rating": 1.0}]
    assert systems["echo"] == [{"id": "a", "rouge_l": 0.3}, {"id": "b", "rouge_l": 0.4}]
    assert present(systems) == ["rating"]


def test_a_table_about_other_records_is_refused(tmp_path: Path) -> None:
    files = [
        table(tmp_path / "sft/scores.parquet", id=["a", "b"], rouge_l=[0.1, 0.2]),
        table(tmp_path / "sft/ratings.parquet", id=["b", "a"], rating=[0.0, 1.0]),
    ]
    with pytest.raises(InputError, match=r"ratings\.parquet.*not about the same questions"):
        read_scores(files)


def test_every_draw_is_scored_like_a_run_of_its_own(tmp_path: Path) -> None:
    """Exact match of two questions in three draws, counted by hand: SFT 0, 1 and 2 of 2; GRPO 1, 1 and 2."""
    right = {"sft": [(), (0,), (0, 1)], "grpo": [(1,), (1,), (0, 1)]}
    for model, draws in right.items():
        rows = [
            {"id": str(question), "question": "Which rhythm?", "answer": "sinus rhythm", "sample": sample}
            | {"prediction": "Sinus rhythm." if question in found else "Flutter."}
            for question in range(2)
            for sample, found in enumerate(draws)
        ]
        (tmp_path / model).mkdir()
        write_table(tmp_path / model / "samples.parquet", rows, SAMPLED_ANSWERS, {})
    subprocess.run(
        [
            *(sys.executable, ROOT / "workflow_scripts/compare_samples.py", "--summary", tmp_path / "samples.json"),
            *("--answers", *(tmp_path / model / "samples.parquet" for model in right), "--settings", '{"samples": 3}'),
        ],
        check=True,
    )
    summary = json.loads((tmp_path / "samples.json").read_text())
    assert summary["models"]["sft"]["exact_match"] == {"mean": 0.5, "sd": 0.5, "low": 0.0, "high": 1.0, "ahead": 2}
    (pair,) = summary["pairs"]
    assert (pair["system"], pair["other"]) == ("grpo", "sft")
    assert pair["metrics"]["exact_match"] == pytest.approx(
        {"mean": 1 / 6, "sd": 0.5 / 3**0.5, "low": 0.0, "high": 0.5, "ahead": 1}
    )
    assert pair["metrics"]["numbers"] is None, "no reference has a number"


@pytest.mark.pipeline
@pytest.mark.timeout(600)
def test_ratings_losses_and_draws_reach_the_comparison_and_the_page(finished_copy: Project) -> None:
    results = finished_copy.results()
    answers = pq.read_table(results / "evaluation/grpo/answers.parquet").to_pylist()
    lines = [f'"{row["id"]}","grpo","{answer_digest(row["completion"])}",{place % 2}' for place, row in enumerate(answers[:8])]
    (finished_copy.folder / "ratings.csv").write_text("\r\n".join(["id,system,answer,rating", *lines]))
    finished_copy.configure(
        evaluation={
            "ratings": ["ratings.csv"],
            "reference_loss": {"batch_size": 16},
            "sampling": {"samples": 2, "temperature": 1.0, "seed": 3},
        }
    )
    asked = {"read_ratings", "score_references", "sample_answers", "compare_samples", "compare_models", "make_report"}
    assert finished_copy.jobs() == asked
    finished_copy.snakemake()
    assert finished_copy.jobs() == set()
    comparison = json.loads((results / "evaluation/comparison.json").read_text())
    rated = comparison["systems"]["grpo"]["rating"]
    assert (rated["mean"], rated["records"]) == (0.5, 8)
    assert comparison["systems"]["sft"]["rating"]["mean"] is None
    assert comparison["systems"]["echo"]["reference_loss"]["mean"] is None
    losses = pq.read_table(results / "evaluation/sft/reference_loss.parquet")["reference_loss"].to_pylist()
    assert comparison["systems"]["sft"]["reference_loss"]["mean"] == pytest.approx(np.mean(losses))
    assert {entry["name"]: entry["claimed"] for entry in comparison["metrics"]}["rating"] is False
    drawn = pq.read_table(results / "evaluation/sft/samples.parquet").to_pylist()
    assert [(row["id"], row["sample"]) for row in drawn] == [(row["id"], draw) for row in answers for draw in (0, 1)]
    summary = json.loads((results / "evaluation/samples.json").read_text())
    words = [np.mean([len(row["prediction"].split()) for row in drawn if row["sample"] == draw]) for draw in (0, 1)]
    assert summary["models"]["sft"]["words"]["mean"] == pytest.approx(np.mean(words))
    assert set(summary["models"]["sft"]) == set(METRICS)
    page = (results / "report/index.html").read_text()
    for text in ("Another draw, another story?", ">Rating</th>", ">Loss</th>", "As ECG-Bench scores"):
        assert text in page
    provenance = json.loads((results / "provenance/read_ratings.json").read_text())
    assert provenance["facts"] == {"rated": 8, "of_other_answers": 0}


def test_a_requirement_on_a_score_that_nobody_measures_is_not_met() -> None:
    from ecg_grpo.requirements import judge, parse_requirement

    comparison = {"systems": {"grpo": {"rouge_l": {"mean": 1.0, "low": 1.0, "high": 1.0}}}, "differences": []}
    for text in ("grpo.rating >= 0.5", "grpo.embedding >= sft.embedding - 0.1"):
        found = judge(parse_requirement(text), comparison)
        assert not found["met"]
        assert found["mean"] is None
