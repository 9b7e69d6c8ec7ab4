"""Intervals hold what they promise, by simulation; the verdict says no more than they do."""

from __future__ import annotations

import numpy as np
import pytest

from ecg_grpo.comparison import ClusterBootstrap, compare, verdict


def test_intervals_of_no_difference_exclude_zero_about_one_time_in_twenty() -> None:
    generator = np.random.default_rng(0)
    excluded = 0
    for trial in range(400):
        clusters = [str(index // 2) for index in range(120)]
        shared = np.repeat(generator.normal(size=60), 2)  # the two records of a group move together
        estimate = ClusterBootstrap(clusters, 400, 0.95, trial).mean(shared + 0.3 * generator.normal(size=120))
        excluded += not estimate.low <= 0 <= estimate.high
    assert 0.03 <= excluded / 400 <= 0.08


def test_records_of_one_group_count_as_one_observation() -> None:
    values = np.repeat(np.random.default_rng(0).normal(size=50), 4)
    alone = ClusterBootstrap([str(index) for index in range(200)], 2000, 0.95, 0).mean(values)
    grouped = ClusterBootstrap([str(index // 4) for index in range(200)], 2000, 0.95, 0).mean(values)
    assert (grouped.high - grouped.low) / (alone.high - alone.low) == pytest.approx(2, rel=0.15)


def test_a_single_group_and_a_constant_have_no_spread() -> None:
    assert ClusterBootstrap(["x"] * 5, 100, 0.95, 0).mean([1, 2, 3, 4, 5]).low == 3
    estimate = ClusterBootstrap(["a", "b", "c"], 100, 0.95, 0).mean([0.5] * 3)
    assert (estimate.low, estimate.high) == (0.5, 0.5)


def table(values: list[float]) -> list[dict]:
    return [
        {"id": str(i), "task": "EBK", "cluster": str(i), "finish_reason": "stop" if i else "length", "words": i, "m": value}
        for i, value in enumerate(values)
    ]


def test_differences_are_paired_and_counted() -> None:
    result = compare({"base": table([0.1, 0.2, 0.3]), "sft": table([0.2, 0.2, 0.1])}, ["m"], [("sft", "base")], 100, 0.95, 0)
    (difference,) = result["differences"]
    assert difference["mean"] == pytest.approx(-0.1 / 3)
    assert (difference["wins"], difference["ties"], difference["losses"]) == (1, 1, 1)
    assert result["systems"]["base"]["truncated"]["mean"] == pytest.approx(1 / 3)
    assert result["systems"]["base"]["empty"]["mean"] == pytest.approx(1 / 3)


def test_tasks_have_their_own_intervals() -> None:
    rows = table([0.1, 0.2, 0.3, 0.9])
    rows[3]["task"] = "CK"
    result = compare({"base": rows}, ["m"], [], 200, 0.95, 0)["by_task"]
    assert result["CK"] == {"records": 1, "systems": {"base": {"m": {"mean": 0.9, "low": 0.9, "high": 0.9}}}}
    estimate = result["EBK"]["systems"]["base"]["m"]
    assert estimate["mean"] == pytest.approx(0.2)
    assert 0.1 <= estimate["low"] < 0.2 < estimate["high"] <= 0.3 + 1e-9


def test_systems_with_other_questions_are_refused() -> None:
    other = table([0.1, 0.2])
    other[1]["id"] = "elsewhere"
    with pytest.raises(ValueError, match="sft did not answer the same questions"):
        compare({"base": table([0.1, 0.2]), "sft": other}, ["m"], [("sft", "base")], 100, 0.95, 0)


@pytest.mark.parametrize(
    ("intervals", "expected"),
    [
        ([(0.1, 0.2), (0.1, 0.3)], "sft is better than base on 2 of 2 metrics"),
        ([(0.1, 0.2), (-0.1, 0.3)], "sft is better than base on 1 of 2 metrics, undecided on 1"),
        ([(0.1, 0.2), (-0.3, -0.1)], "sft is better than base on 1 and worse on 1 of 2 metrics"),
        ([(-0.2, -0.1), (-0.3, 0.1)], "sft is worse than base on 1 of 2 metrics, undecided on 1"),
        ([(-0.2, 0.1), (-0.3, 0.1)], "sft and base cannot be told apart on any of 2 metrics"),
    ],
)
def test_the_verdict_follows_from_the_intervals(intervals: list[tuple[float, float]], expected: str) -> None:
    differences = [
        {"system": "sft", "other": "base", "metric": f"m{i}", "low": low, "high": high}
        for i, (low, high) in enumerate(intervals)
    ]
    assert verdict({"differences": differences}, ["m0", "m1"], "sft", "base") == expected
