"""Answers: every question once, the prompt of the training, and the same after a kill as without one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from conftest import Project

from ecg_grpo.answering import FinishedBatches
from ecg_grpo.generation import Completion

pytestmark = pytest.mark.pipeline


def test_finished_batches_survive_and_half_a_line_does_not(tmp_path: Path) -> None:
    file = tmp_path / "answers.jsonl"
    batches = [{3: [Completion("über ≥ 120 ms", "stop", 5, 7, 0.25)], 1: [Completion("", "length", 4, 8, 0.5)]}, {}]
    batches[1] = {0: [Completion("b", "stop", 3, 1, 0.125)]}
    kept = FinishedBatches(file)
    for batch in batches:
        kept.add(batch)
    assert FinishedBatches(file).found == batches[0] | batches[1]
    file.write_bytes(file.read_bytes()[:-9])
    again = FinishedBatches(file)
    assert (again.found, again.batches) == (batches[0], 1)
    again.add(batches[1])
    assert FinishedBatches(file).found == batches[0] | batches[1]


def command(project: Project, answers: Path, scratch: Path, settings: dict) -> list[str]:
    results = project.results()
    return [
        *(sys.executable, "workflow_scripts/generate_answers.py", "--model", str(results / "sft_model/manifest.json")),
        *("--questions", str(results / "data/test.parquet"), "--answers", str(answers), "--scratch", str(scratch)),
        *("--settings", json.dumps(settings), "--threads", "1"),
    ]


def test_killed_answers_go_on_where_they_stopped(finished: Project, tmp_path: Path) -> None:
    settings = {"batch_size": 2, "max_new_tokens": 24, "precision": "float32"}
    whole, resumed, scratch = tmp_path / "a/answers.parquet", tmp_path / "b/answers.parquet", tmp_path / "scratch"
    subprocess.run(command(finished, whole, tmp_path / "other", settings), cwd=finished.folder, check=True)
    assert not list((tmp_path / "other").iterdir()), "nothing unfinished is left"

    running = subprocess.Popen(command(finished, resumed, scratch, settings), cwd=finished.folder)
    deadline = time.monotonic() + 120
    while sum(file.read_bytes().count(b"\n") for file in scratch.glob("*/answers.jsonl")) < 2:
        assert running.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(running.pid, signal.SIGKILL)
    running.wait()
    assert not resumed.exists()
    (kept,) = scratch.glob("*/answers.jsonl")
    before = kept.read_text().splitlines()[:2]

    provenance = tmp_path / "provenance.json"
    again = [*command(finished, resumed, scratch, settings), "--provenance", str(provenance)]
    subprocess.run(again, cwd=finished.folder, check=True)
    facts = json.loads(provenance.read_text())["facts"]
    assert facts["answered_before"] >= 4
    tables = [pq.read_table(file).drop_columns("seconds") for file in (whole, resumed)]
    assert tables[0].equals(tables[1])
    seconds = pq.read_table(resumed)["seconds"].to_pylist()
    assert all(value > 0 for value in seconds)
    earlier = [entry for line in before for group in json.loads(line).values() for entry in group]
    assert {entry["seconds"] for entry in earlier} <= set(seconds), "what was answered before was not answered again"


def test_other_settings_start_anew(finished: Project, tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    stale = scratch / "generate_answers.b-0123456789abcdef"
    stale.mkdir(parents=True)
    (stale / "answers.jsonl").write_text("{}\n" * 500)
    other = scratch / "generate_answers.base-0123456789abcdef"
    other.mkdir()
    answers = tmp_path / "b/answers.parquet"
    settings = {"batch_size": 32, "max_new_tokens": 4, "precision": "float32"}
    subprocess.run(command(finished, answers, scratch, settings), cwd=finished.folder, check=True)
    assert pq.read_table(answers).num_rows == pq.read_table(finished.results() / "data/test.parquet").num_rows
    assert list(scratch.iterdir()) == [other], "what another job left is not touched"


def test_the_split_is_a_setting(finished_copy: Project) -> None:
    finished_copy.configure(evaluation={"split": "validation"})
    jobs = finished_copy.jobs()
    assert {"generate_answers", "generate_baselines", "check_contamination"} <= jobs
    assert not jobs & {"train_sft", "train_grpo"}
    finished_copy.snakemake("results/demo/evaluation/sft/answers.parquet")
    asked = pq.read_table(finished_copy.results() / "data/validation.parquet")["id"]
    assert pq.read_table(finished_copy.results() / "evaluation/sft/answers.parquet")["id"].equals(asked)


def test_another_model_is_compared_with_the_runs_own(finished_copy: Project, tiny_model: Path) -> None:
    finished_copy.configure(
        evaluation={"models": {"another": str(tiny_model)}, "require": ["another.words >= grpo.words - 1000"]}
    )
    assert finished_copy.jobs() == {
        *("generate_answers", "score_answers", "score_as_ecg_bench", "check_contamination", "compare_models", "make_report"),
        "check_requirements",
    }
    finished_copy.snakemake()
    results = finished_copy.results()
    comparison = json.loads((results / "evaluation/comparison.json").read_text())
    assert comparison["order"][-2:] == ["grpo", "another"]
    # It is the base model itself, and answers as that does.
    tables = [
        pq.read_table(results / f"evaluation/{name}/answers.parquet").drop_columns("seconds") for name in ("base", "another")
    ]
    assert tables[0].equals(tables[1])
    (same,) = [entry for entry in comparison["verdicts"] if (entry["system"], entry["other"]) == ("another", "base")]
    assert "cannot be told apart" in same["text"]
    assert 'class="name-another"' in (results / "report/index.html").read_text()
    inputs = json.loads((results / "provenance/generate_answers.another.json").read_text())["inputs"]
    assert str(tiny_model / "model.safetensors") in inputs


def test_a_model_that_is_none_is_refused_with_its_key(project: Project, tmp_path: Path) -> None:
    project.configure(evaluation={"models": {"another": str(tmp_path)}})
    refused = project.snakemake("-n", check=False)
    assert refused.returncode
    assert "has no config.json" in refused.stdout + refused.stderr
    assert "evaluation.models.another" in refused.stdout + refused.stderr
