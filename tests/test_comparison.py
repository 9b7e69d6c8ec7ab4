"""Intervals and tests hold what they promise, by simulation; the verdict says no more than they do."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from ecg_grpo.comparison import (
    ClusterBootstrap,
    GroupSums,
    Resampling,
    Scores,
    compare,
    holm,
    permutation_p_values,
    verdict,
    verdict_text,
)

QUICK = Resampling(confidence=0.95, resamples=200, permutations=1000, seed=0)


def clustered(generator: np.random.Generator, groups: int, size: int, effect: float) -> tuple[list[str], np.ndarray]:
    """Differences of records in groups whose records move together; their mean has variance (1 + 0.09 / size) / groups."""
    shared = np.repeat(generator.normal(size=groups), size)
    return [str(index // size) for index in range(groups * size)], effect + shared + 0.3 * generator.normal(size=groups * size)


def test_over_500_null_comparisons_intervals_exclude_zero_in_3_to_7_percent() -> None:
    generator = np.random.default_rng(2026)
    excluded = significant = 0
    for trial in range(500):
        clusters, differences = clustered(generator, groups=150, size=2, effect=0)
        estimate = ClusterBootstrap(clusters, 1000, 0.95, trial).mean(differences)
        excluded += not estimate.low <= 0 <= estimate.high
        significant += permutation_p_values(differences[:, None], clusters, 1000, trial)[0] <= 0.05
    assert 0.03 <= excluded / 500 <= 0.07
    assert 0.03 <= significant / 500 <= 0.07


def test_a_real_effect_is_found_as_often_as_the_power_says() -> None:
    groups, size, effect = 100, 3, 0.25
    spread = np.sqrt((1 + 0.09 / size) / groups)
    power = stats.norm.sf(stats.norm.isf(0.025) - effect / spread) + stats.norm.cdf(-stats.norm.isf(0.025) - effect / spread)
    assert 0.6 < power < 0.8, "neither certain nor hopeless"
    generator, found = np.random.default_rng(1), 0
    for trial in range(300):
        clusters, differences = clustered(generator, groups, size, effect)
        p_value = permutation_p_values(differences[:, None], clusters, 1000, trial)[0]
        estimate = ClusterBootstrap(clusters, 500, 0.95, trial).mean(differences)
        found += p_value <= 0.05 and estimate.low > 0
    assert found / 300 == pytest.approx(power, abs=3 * np.sqrt(power * (1 - power) / 300))


def test_records_of_one_group_count_as_one_observation() -> None:
    values = np.repeat(np.random.default_rng(0).normal(size=50), 4)
    alone = ClusterBootstrap([str(index) for index in range(200)], 2000, 0.95, 0).mean(values)
    grouped = ClusterBootstrap([str(index // 4) for index in range(200)], 2000, 0.95, 0).mean(values)
    assert (grouped.high - grouped.low) / (alone.high - alone.low) == pytest.approx(2, rel=0.15)


def test_a_single_group_and_a_constant_have_no_spread() -> None:
    assert ClusterBootstrap(["x"] * 5, 100, 0.95, 0).mean([1, 2, 3, 4, 5]).low == 3
    estimate = ClusterBootstrap(["a", "b", "c"], 100, 0.95, 0).mean([0.5] * 3)
    assert (estimate.low, estimate.high) == (0.5, 0.5)


def test_scores_that_are_missing_are_left_out_and_counted() -> None:
    values = np.array([[1.0, np.nan, np.nan], [np.nan, 0.5, np.nan], [3.0, 0.7, np.nan]])
    first, second, third = ClusterBootstrap(["a", "b", "b"], 500, 0.95, 0).means(values)
    assert (first.mean, first.low, first.high, first.records) == (2.0, 1.0, 3.0, 2)
    assert (second.mean, second.records) == (pytest.approx(0.6), 2)
    assert (third.mean, third.low, third.high, third.records) == (None, None, None, 0)


def test_a_bootstrap_agrees_with_scipys() -> None:
    values = np.random.default_rng(3).gamma(2, size=200)
    ours = ClusterBootstrap([str(index) for index in range(200)], 20_000, 0.95, 0).mean(values)
    scipys = stats.bootstrap((values,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(0))
    assert (ours.low, ours.high) == pytest.approx(tuple(scipys.confidence_interval), abs=0.01)


def test_few_groups_get_wider_intervals_which_hold_their_level() -> None:
    generator, excluded = np.random.default_rng(7), {True: 0, False: 0}
    for trial in range(1000):
        values = generator.normal(size=8)
        estimate = ClusterBootstrap([str(index) for index in range(8)], 500, 0.95, trial).mean(values)
        excluded[True] += not estimate.low <= 0 <= estimate.high
        plain = np.quantile(generator.choice(values, size=(500, 8)).mean(axis=1), [0.025, 0.975])
        excluded[False] += not plain[0] <= 0 <= plain[1]
    assert excluded[False] / 1000 > 0.08, "plain percentiles exclude too often"
    assert 0.03 <= excluded[True] / 1000 <= 0.075


def test_p_values_agree_with_scipys_and_with_counting() -> None:
    differences = np.random.default_rng(5).normal(0.3, size=60)
    clusters = [str(index) for index in range(60)]
    scipys = stats.permutation_test(
        (differences, np.zeros(60)), lambda x, y, axis: np.mean(x - y, axis=axis), permutation_type="samples",
        vectorized=True, n_resamples=20_000, rng=np.random.default_rng(0),
    )  # fmt: skip
    assert permutation_p_values(differences[:, None], clusters, 20_000, 0)[0] == pytest.approx(scipys.pvalue, abs=0.015)
    # Three groups: of the eight signs only the observed ones and their opposite reach the sum.
    three = np.array([[1.0], [2.0], [2.0], [4.0]])
    assert permutation_p_values(three, ["a", "b", "b", "c"], 50_000, 0)[0] == pytest.approx(2 / 8, abs=0.01)


def test_no_difference_at_all_has_p_1_and_none_has_p_0() -> None:
    columns = np.stack([np.zeros(40), np.ones(40)], axis=1)
    none, clear = permutation_p_values(columns, [str(index) for index in range(40)], 999, 0)
    assert none == 1
    assert clear == 1 / 1000


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1, 1]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_never_lowers_a_p_value_and_keeps_their_order(p_values: list[float]) -> None:
    corrected = holm(p_values)
    assert all(p <= c <= 1 for p, c in zip(p_values, corrected, strict=True))
    order = np.argsort(p_values, kind="stable")
    assert (np.diff(np.array(corrected)[order]) >= 0).all()


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.integers(-9, 9)), min_size=1, max_size=30))
def test_group_sums(rows: list[tuple[str, int]]) -> None:
    sums = GroupSums([group for group, _ in rows]).of(np.array([[value, 1] for _, value in rows]))
    expected = {group: [sum(v for g, v in rows if g == group), sum(g == group for g, _ in rows)] for group, _ in rows}
    assert sums.tolist() == [expected[group] for group in sorted(expected)]


def scores(tasks: Sequence[str] | None = None, **values: Sequence[float]) -> Scores:
    number = len(next(iter(values.values())))
    return Scores(
        clusters=np.array([str(index) for index in range(number)]),
        slices={"task": np.array(tasks or ["EBK"] * number)},
        values={system: np.array(column, dtype=float)[:, None] for system, column in values.items()},
        metrics=("m",),
    )


def test_differences_are_paired_and_counted() -> None:
    table = scores(base=[0.1, 0.2, 0.3, 0.4], sft=[0.2, 0.2, 0.1, np.nan])
    result = compare(table, ["m"], [("sft", "base")], [("sft", "base")], QUICK)
    (difference,) = result["differences"]
    assert difference["mean"] == pytest.approx(-0.1 / 3)
    assert (difference["wins"], difference["ties"], difference["losses"], difference["records"]) == (1, 1, 1, 3)
    assert difference["p_holm"] == difference["p"], "one metric needs no correction"
    assert (result["records"], result["clusters"]) == (4, 4)


def test_only_claimed_metrics_are_corrected_and_count() -> None:
    generator = np.random.default_rng(0)
    base = generator.normal(size=(80, 3))
    better = base + [0.0, 1.0, 1.0] + 0.1 * generator.normal(size=(80, 3))
    table = Scores(np.arange(80).astype(str), {}, {"base": base, "sft": better}, ("a", "b", "reward"))
    differences = compare(table, ["a", "b"], [("sft", "base")], [], QUICK)["differences"]
    assert [entry["p_holm"] is None for entry in differences] == [False, False, True]
    assert differences[1]["p_holm"] == pytest.approx(2 * differences[1]["p"])
    found = verdict(differences, "sft", "base", 0.95)
    assert (found.better, found.worse, found.open) == (("b",), (), ("a",))


def test_slices_have_their_own_intervals_and_differences() -> None:
    table = scores(["EBK", "EBK", "EBK", "CK"], base=[0.1, 0.2, 0.3, 0.9], sft=[0.2, 0.3, 0.4, 0.4])
    result = compare(table, ["m"], [("sft", "base")], [("sft", "base")], QUICK)["slices"]["task"]
    assert result["CK"]["records"] == 1
    assert result["CK"]["systems"]["base"]["m"] == {"mean": 0.9, "low": 0.9, "high": 0.9, "records": 1}
    assert result["CK"]["differences"][0]["mean"] == pytest.approx(-0.5)
    estimate = result["EBK"]["systems"]["base"]["m"]
    assert estimate["mean"] == pytest.approx(0.2)
    assert 0.1 <= estimate["low"] < 0.2 < estimate["high"] <= 0.3 + 1e-9
    assert "p" not in result["EBK"]["differences"][0]


def test_the_same_comparison_twice_is_the_same() -> None:
    table = scores(base=[0.1, 0.5, 0.3], sft=[0.2, 0.2, 0.9])
    assert compare(table, ["m"], [("sft", "base")], [], QUICK) == compare(table, ["m"], [("sft", "base")], [], QUICK)


LABELS = {"a": "A", "b": "B", "c": "C"}


@pytest.mark.parametrize(
    ("intervals", "expected"),
    [
        ([(0.1, 0.2, 0.01), (0.1, 0.3, 0.01)], "sft is better than base on A and B; worse on none of 2 metrics"),
        ([(0.1, 0.2, 0.01), (-0.1, 0.3, 0.4)], "sft is better than base on A; worse on none; open on 1 of 2 metrics"),
        ([(0.1, 0.2, 0.01), (-0.3, -0.1, 0.01)], "sft is better than base on A; worse on B of 2 metrics"),
        ([(-0.2, -0.1, 0.01), (-0.3, 0.1, 0.3)], "sft is worse than base on A; better on none; open on 1 of 2 metrics"),
        ([(-0.2, 0.1, 0.5), (-0.3, 0.1, 0.5)], "sft and base cannot be told apart on any of 2 metrics"),
        # An interval above zero is not enough, nor is a small p-value.
        ([(0.1, 0.2, 0.06), (-0.1, 0.3, 0.01)], "sft and base cannot be told apart on any of 2 metrics"),
    ],
)
def test_the_verdict_follows_from_intervals_and_p_values(intervals: list[tuple[float, float, float]], expected: str) -> None:
    differences = [
        {"system": "sft", "other": "base", "metric": name, "low": low, "high": high, "p_holm": p}
        for name, (low, high, p) in zip("ab", intervals, strict=False)
    ]
    differences.append({"system": "sft", "other": "base", "metric": "c", "low": 9, "high": 9, "p_holm": None})
    assert verdict_text(verdict(differences, "sft", "base", 0.95), "sft", "base", LABELS) == expected
