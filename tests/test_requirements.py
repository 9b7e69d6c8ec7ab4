"""Requirements are read strictly and judged by whole intervals; one that is missed fails the workflow with its figures."""

from __future__ import annotations

import json
from typing import Any

import pytest
from conftest import Project

from ecg_grpo.requirements import Requirement, judge, parse_requirement


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("grpo.rouge_l >= sft.rouge_l - 0.01", ("grpo", "rouge_l", "sft", True, -0.01)),
        ("grpo.rouge_l≥sft.rouge_l", ("grpo", "rouge_l", "sft", True, 0.0)),
        ("grpo.words <= sft.words + 5", ("grpo", "words", "sft", False, 5.0)),
        (" grpo.truncated <= .05 ", ("grpo", "truncated", None, False, 0.05)),
        ("my-model_2.meteor >= 0.3", ("my-model_2", "meteor", None, True, 0.3)),
    ],
)
def test_reads(text: str, expected: tuple[Any, ...]) -> None:
    assert parse_requirement(text) == Requirement(text.strip(), *expected)


@pytest.mark.parametrize(
    "text",
    [
        *("", "grpo.rouge_l", "grpo.rouge_l > 0.1", "grpo.rouge_l >= sft", "grpo.rouge_l >= sft.rouge_l * 2", "rouge_l >= 0.1"),
        *("grpo.rouge_l >= sft.meteor", "grpo.rouge_l >= grpo.rouge_l", "grpo.rouge_l >= 0.1 and more"),
    ],
)
def test_refuses(text: str) -> None:
    with pytest.raises(ValueError, match="`"):
        parse_requirement(text)


COMPARISON = {
    "systems": {"grpo": {"m": {"mean": 0.3, "low": 0.25, "high": 0.35}, "none": {"mean": None, "low": None, "high": None}}},
    "differences": [{"system": "grpo", "other": "sft", "metric": "m", "mean": 0.01, "low": -0.005, "high": 0.025}],
}


@pytest.mark.parametrize(
    ("text", "met"),
    [
        ("grpo.m >= sft.m - 0.01", True),
        ("grpo.m >= sft.m - 0.005", True),
        ("grpo.m >= sft.m", False),  # the mean is above, the interval is not
        ("grpo.m <= sft.m + 0.025", True),
        ("grpo.m <= sft.m + 0.02", False),
        ("sft.m <= grpo.m + 0.005", True),  # the same said from the other side
        ("sft.m >= grpo.m - 0.02", False),
        ("grpo.m >= 0.25", True),
        ("grpo.m >= 0.26", False),
        ("grpo.m <= 0.34", False),
        ("grpo.none >= 0", False),
    ],
)
def test_the_whole_interval_must_lie_on_the_right_side(text: str, met: bool) -> None:
    assert judge(parse_requirement(text), COMPARISON)["met"] is met


@pytest.mark.pipeline
def test_a_missed_requirement_fails_the_workflow_after_the_report(finished_copy: Project) -> None:
    page = finished_copy.results() / "report" / "index.html"
    page.unlink()
    comparison = json.loads((finished_copy.results() / "evaluation" / "comparison.json").read_text())
    length = comparison["systems"]["grpo"]["words"]
    finished_copy.configure(evaluation={"require": ["grpo.words >= 0", "grpo.words >= 100000", "grpo.rouge_l <= 1"]})
    failed = finished_copy.snakemake(check=False)
    assert failed.returncode != 0
    assert page.exists(), "the report shows where it falls short"
    assert not (finished_copy.results() / "evaluation" / "requirements.json").exists()
    said = failed.stdout + failed.stderr
    assert "1 of 3 not met: grpo.words >= 100000 (it is" in said
    assert f"{length['mean']:.4f}, 95 % interval {length['low']:.4f} to {length['high']:.4f}" in said
    assert "Traceback" not in said

    finished_copy.configure(evaluation={"require": ["grpo.words >= 0", "grpo.rouge_l <= 1"]})
    assert finished_copy.jobs() == {"check_requirements"}
    finished_copy.snakemake()
    met = json.loads((finished_copy.results() / "evaluation" / "requirements.json").read_text())
    assert [entry["met"] for entry in met["requirements"]] == [True, True]
