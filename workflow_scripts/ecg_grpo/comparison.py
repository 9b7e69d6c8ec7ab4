"""Means and paired differences of systems, each with a bootstrap interval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np


@dataclass(frozen=True)
class Estimate:
    """A mean with its interval."""

    mean: float
    low: float
    high: float


class ClusterBootstrap:
    """Percentile intervals of means over records that come in groups.

    Records of one near-duplicate group are not independent, so whole groups are drawn with replacement (Cameron, Gelbach
    & Miller 2008; Miller 2024, arXiv 2411.00640). All estimates of one object use the same draws.
    """

    def __init__(self, clusters: Sequence[str], resamples: int, confidence: float, seed: int) -> None:
        """
        Args:
            clusters: the group of each record.
            resamples: number of draws.
            confidence: level of the interval, e.g. 0.95.
            seed: seed of the draws.
        """
        _, self._group = np.unique(list(clusters), return_inverse=True)
        self.groups = int(self._group.max()) + 1
        generator = np.random.default_rng(seed)
        self._draws = generator.multinomial(self.groups, np.full(self.groups, 1 / self.groups), size=resamples)
        self._sizes = np.bincount(self._group, minlength=self.groups)
        self._tail = (1 - confidence) / 2

    def mean(self, values: Sequence[float] | np.ndarray) -> Estimate:
        """Mean of one value a record, with its interval."""
        values = np.asarray(values, dtype=float)
        sums = np.bincount(self._group, weights=values, minlength=self.groups)
        means = (self._draws @ sums) / (self._draws @ self._sizes)
        low, high = np.quantile(means, [self._tail, 1 - self._tail])
        return Estimate(float(values.mean()), float(low), float(high))


def compare(
    scores: Mapping[str, Sequence[Mapping[str, object]]],
    metrics: Sequence[str],
    pairs: Sequence[tuple[str, str]],
    resamples: int,
    confidence: float,
    seed: int,
) -> dict[str, object]:
    """The comparison of systems that answered the same questions.

    Args:
        scores: for each system its rows of `scores.parquet`, in the same order of ids.
        metrics: columns to compare.
        pairs: (system, other) whose difference system − other is estimated.
        resamples, confidence, seed: see `ClusterBootstrap`.

    Returns:
        `systems`: system → metric → estimate, with the shares of truncated and empty answers; `by_task`: task → system →
        metric → estimate; `differences`: one entry a pair and metric, with estimate, wins, ties and losses.

    Raises:
        ValueError: the systems did not answer the same questions.
    """
    first = next(iter(scores.values()))
    ids = [row["id"] for row in first]
    for system, rows in scores.items():
        if [row["id"] for row in rows] != ids:
            raise ValueError(f"{system} did not answer the same questions in the same order")
    values = {
        system: {metric: np.array([row[metric] for row in rows], dtype=float) for metric in metrics}
        for system, rows in scores.items()
    }
    clusters = np.array([row["cluster"] for row in first])
    bootstrap = ClusterBootstrap(clusters, resamples, confidence, seed)
    tasks = np.array([row["task"] for row in first])
    parts = {task: ClusterBootstrap(clusters[tasks == task], resamples, confidence, seed) for task in np.unique(tasks)}
    return {
        "records": len(ids),
        "clusters": bootstrap.groups,
        "systems": {
            system: {
                "metrics": {metric: asdict(bootstrap.mean(values[system][metric])) for metric in metrics},
                "truncated": asdict(bootstrap.mean([row["finish_reason"] == "length" for row in rows])),
                "empty": asdict(bootstrap.mean([row["words"] == 0 for row in rows])),
            }
            for system, rows in scores.items()
        },
        "by_task": {
            str(task): {
                "records": int((tasks == task).sum()),
                "systems": {
                    system: {metric: asdict(part.mean(values[system][metric][tasks == task])) for metric in metrics}
                    for system in scores
                },
            }
            for task, part in parts.items()
        },
        "differences": [
            {"system": one, "other": other, "metric": metric, **_difference(values, one, other, metric, bootstrap)}
            for one, other in pairs
            for metric in metrics
        ],
    }


def _difference(
    values: Mapping[str, Mapping[str, np.ndarray]], one: str, other: str, metric: str, bootstrap: ClusterBootstrap
) -> dict[str, float | int]:
    differences = values[one][metric] - values[other][metric]
    return {
        **asdict(bootstrap.mean(differences)),
        "wins": int((differences > 0).sum()),
        "ties": int((differences == 0).sum()),
        "losses": int((differences < 0).sum()),
    }


def verdict(comparison: Mapping[str, object], metrics: Sequence[str], one: str, other: str) -> str:
    """One sentence about two systems that says no more than the intervals.

    A metric counts as better (worse) if its interval of the paired difference lies above (below) zero. The intervals are
    not corrected for the number of metrics.
    """
    better, worse = [], []
    for entry in comparison["differences"]:
        if (entry["system"], entry["other"]) != (one, other) or entry["metric"] not in metrics:
            continue
        if entry["low"] > 0:
            better.append(entry["metric"])
        elif entry["high"] < 0:
            worse.append(entry["metric"])
    if not better and not worse:
        return f"{one} and {other} cannot be told apart on any of {len(metrics)} metrics"
    parts = [f"better than {other} on {len(better)}" if better else "", f"worse on {len(worse)}" if worse else ""]
    if not better:
        parts = [f"worse than {other} on {len(worse)}"]
    undecided = len(metrics) - len(better) - len(worse)
    tail = f", undecided on {undecided}" if undecided else ""
    return f"{one} is {' and '.join(filter(None, parts))} of {len(metrics)} metrics{tail}"
