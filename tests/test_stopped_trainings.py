"""Guards in real runs: a training that has gone wrong ends with one line that says why, and delivers nothing."""

from __future__ import annotations

import json

import pytest
from conftest import Project

pytestmark = pytest.mark.pipeline

GRPO = "results/demo/grpo/checkpoint/manifest.json"
SFT = "results/demo/sft/checkpoint/manifest.json"


@pytest.mark.parametrize(
    ("target", "settings", "expected"),
    [
        (GRPO, {"grpo": {"lora": None, "learning_rate": 1e30, "max_grad_norm": 1e30}}, "is nan, and"),
        (SFT, {"sft": {"lora": None, "learning_rate": 1e30, "max_grad_norm": 1e30}}, "is nan, and"),
        (
            GRPO,
            {"grpo": {"max_steps": 4, "guards": {"max_clipped_ratio": 0.5, "patience": 2}}},
            "grpo.guards.max_clipped_ratio",
        ),
        (GRPO, {"grpo": {"guards": {"max_entropy": 6.0, "patience": 1}}}, "grpo.guards.max_entropy"),
        (
            GRPO,
            {"grpo": {"guards": {"max_entropy": 6.0, "patience": 1}, "launch": {"processes": 2}}},
            "grpo.guards.max_entropy",
        ),
    ],
    ids=["grpo nan", "sft nan", "truncated", "entropy", "entropy, two processes"],
)
def test_a_guard_stops_the_run(finished_copy: Project, target: str, settings: dict, expected: str) -> None:
    finished_copy.configure(**settings)
    run = finished_copy.snakemake(target, check=False)
    assert run.returncode != 0
    (line,) = [line for line in run.stderr.splitlines() if line.startswith("train_") and "error:" in line]
    assert expected in line
    assert "Traceback" not in run.stderr
    assert not (finished_copy.folder / target).exists()
    for file in finished_copy.results().glob("scratch/*/training_log.jsonl"):
        for entry in file.read_text().splitlines():
            json.loads(entry, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def test_validation_chooses_what_is_delivered(finished_copy: Project) -> None:
    """The log and the provenance say which checkpoint it is, and it is that checkpoint's weights."""
    finished_copy.configure(
        grpo={
            "max_steps": 4,
            "save_steps": 1,
            "validation": {"eval_steps": 1, "prompts": 8, "per_device_eval_batch_size": 8, "metric": "bleu_1"},
            "deliver": "best",
        }
    )
    finished_copy.snakemake(GRPO)
    lines = (finished_copy.results() / "grpo/training_log.jsonl").read_text().splitlines()
    measured = {entry["step"]: entry["eval_bleu_1"] for entry in map(json.loads, lines) if "eval_bleu_1" in entry}
    assert list(measured) == [0, 1, 2, 3, 4], "once before the first step, then after every one"
    facts = json.loads((finished_copy.results() / "provenance/train_grpo.json").read_text())["facts"]
    best = int(facts["delivered"].removeprefix("checkpoint-"))
    assert measured[best] == facts["eval_bleu_1"] == max(value for step, value in measured.items() if step)
    assert facts["sft_eval_bleu_1"] == measured[0]
    assert f"checkpoint-{best}" in (finished_copy.results() / "logs/train_grpo.log").read_text()
