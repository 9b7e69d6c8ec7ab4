"""Systems that answered the same questions, compared: means, paired differences, and what may be said of them.

Records of one near-duplicate group are not independent, so every interval and every test treats a group as one observation
(Miller 2024, arXiv 2411.00640). A score may be missing (NaN) where a metric has nothing to say about a record.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from scipy import stats

_BLOCK = 250
"""Resamples or permutations that are held at a time."""


@dataclass(frozen=True)
class Estimate:
    """A mean with its interval, and over how many records it goes; the figures are None where there is no record."""

    mean: float | None
    low: float | None
    high: float | None
    records: int


class ClusterBootstrap:
    """Expanded percentile intervals of means over records that come in groups.

    Whole groups are drawn with replacement (Cameron, Gelbach & Miller 2008). Plain percentiles are too narrow for few groups,
    as if a normal quantile stood in Student's place; the ends are therefore taken further out (Hesterberg 2015, The American
    Statistician 69:371). All estimates of one object use the same draws.
    """

    def __init__(self, clusters: Sequence[str], resamples: int, confidence: float, seed: int) -> None:
        """
        Args:
            clusters: the group of each record.
            resamples: number of draws.
            confidence: level of the interval, e.g. 0.95.
            seed: seed of the draws.
        """
        self._sums = GroupSums(clusters)
        self._resamples, self._confidence, self._seed = resamples, confidence, seed

    def means(self, values: np.ndarray) -> list[Estimate]:
        """Means of several columns, each with its interval.

        Args:
            values: one row a record, one column a quantity, NaN where there is none; shape (records, columns).
        """
        sums, counts = self._sums.of(np.nan_to_num(values)), self._sums.of(~np.isnan(values))
        groups = len(sums)
        generator = np.random.default_rng(self._seed)
        drawn = []
        for number in _blocks(self._resamples):
            draws = generator.multinomial(groups, np.full(groups, 1 / groups), size=number).astype(np.float64)
            with np.errstate(invalid="ignore"):
                drawn.append((draws @ sums) / (draws @ counts))
        means = np.concatenate(drawn)
        estimates = []
        for column, records in enumerate(counts.sum(axis=0).astype(int)):
            # A draw that happens to hold no group with a value says nothing about the mean.
            of_column = means[~np.isnan(means[:, column]), column]
            if not records:
                estimates.append(Estimate(None, None, None, 0))
                continue
            tail = _tail(int((counts[:, column] > 0).sum()), self._confidence)
            low, high = np.quantile(of_column, [tail, 1 - tail])
            estimates.append(Estimate(float(np.nanmean(values[:, column])), float(low), float(high), int(records)))
        return estimates

    def mean(self, values: Sequence[float] | np.ndarray) -> Estimate:
        """Mean of one value a record, with its interval."""
        return self.means(np.asarray(values, dtype=float)[:, None])[0]


def _tail(groups: int, confidence: float) -> float:
    """Share of the draws beyond each end of an interval."""
    if groups < 2:
        return (1 - confidence) / 2
    quantile = stats.t.isf((1 - confidence) / 2, groups - 1)
    return float(stats.norm.sf(quantile * np.sqrt(groups / (groups - 1))))


class GroupSums:
    """Sums over each group of records."""

    def __init__(self, clusters: Sequence[str]) -> None:
        names, group = np.unique(np.asarray(clusters, dtype=object), return_inverse=True)
        self._order = np.argsort(group, kind="stable")
        self._begins = np.searchsorted(group[self._order], np.arange(len(names)))

    def __len__(self) -> int:
        return len(self._begins)

    def of(self, values: np.ndarray) -> np.ndarray:
        """Sums of columns, shape (groups, columns), of values of shape (records, columns)."""
        return np.add.reduceat(values[self._order].astype(np.float64), self._begins, axis=0)


def permutation_p_values(differences: np.ndarray, clusters: Sequence[str], permutations: int, seed: int) -> np.ndarray:
    """How often a mean difference at least as large would come about if each group's sign were a coin's toss.

    The paired permutation test (Fisher 1935; Good 2005, ch. 3), two-sided, with groups as what is exchanged. The observed signs
    count as one of the permutations, so that no p-value is 0 (Phipson & Smyth 2010).

    Args:
        differences: one row a record, one column a metric, NaN where there is none; shape (records, columns).
        clusters: the group of each record.
        permutations: number of random signs; the smallest p-value is one over one more.
        seed: seed of the signs.

    Returns:
        A p-value in (0, 1] for each column; 1 where all differences are 0.
    """
    sums = GroupSums(clusters).of(np.nan_to_num(differences))
    observed = np.abs(sums.sum(axis=0))
    reached = np.ones(len(observed))
    generator = np.random.default_rng(seed)
    for number in _blocks(permutations):
        signs = generator.integers(0, 2, size=(number, len(sums)), dtype=np.int8).astype(np.float64) * 2 - 1
        # Sums of equal magnitude in another order differ in their last digits.
        reached += (np.abs(signs @ sums) >= observed * (1 - 1e-9) - 1e-12).sum(axis=0)
    return reached / (permutations + 1)


def _blocks(total: int) -> Iterator[int]:
    for start in range(0, total, _BLOCK):
        yield min(_BLOCK, total - start)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected for their number so that the chance of any false claim among them is kept (Holm 1979)."""
    order = np.argsort(p_values, kind="stable")
    steps = np.array(p_values, dtype=float)[order] * (len(order) - np.arange(len(order)))
    corrected = np.empty(len(order))
    corrected[order] = np.minimum(1, np.maximum.accumulate(steps)) if len(order) else []
    return corrected.tolist()


@dataclass(frozen=True)
class Resampling:
    """How intervals and p-values are computed.

    Attributes:
        confidence: level of every interval; a claim needs a corrected p-value of at most one minus it.
        resamples: bootstrap draws.
        permutations: random signs.
        seed: of both.
    """

    confidence: float
    resamples: int
    permutations: int
    seed: int


@dataclass(frozen=True)
class Scores:
    """What several systems scored on the same records.

    Attributes:
        clusters: near-duplicate group of each record.
        slices: names of parts, e.g. `task`, and for each record which one it belongs to.
        values: for each system one row a record and one column a metric; NaN where a metric does not apply.
        metrics: names of the columns.
        less_is_better: those of them where the lower value wins.
    """

    clusters: np.ndarray
    slices: Mapping[str, np.ndarray]
    values: Mapping[str, np.ndarray]
    metrics: tuple[str, ...]
    less_is_better: Collection[str] = ()


def compare(
    scores: Scores,
    claimed: Sequence[str],
    pairs: Sequence[tuple[str, str]],
    sliced_pairs: Sequence[tuple[str, str]],
    resampling: Resampling,
) -> dict[str, Any]:
    """The comparison of systems that answered the same questions.

    Args:
        scores: of every system.
        claimed: metrics of which a verdict may speak: p-values are corrected over these, for each pair by itself.
        pairs: (system, other) whose difference system − other is estimated.
        sliced_pairs: those that are estimated in every slice too.
        resampling: how.

    Returns:
        `records` and `clusters` (how many); `systems`: system → metric → estimate; `differences`: one entry a pair and metric,
        with estimate, `p`, `p_holm` (None outside `claimed`), wins, ties and losses; `slices`: name → part → `records`,
        `systems`, and `differences` without p-values.
    """
    return {
        "records": len(scores.clusters),
        "clusters": len(GroupSums(scores.clusters)),
        "systems": _means(scores, resampling),
        "differences": _differences(scores, claimed, pairs, resampling),
        "slices": {
            name: {
                part: {
                    "records": int((labels == part).sum()),
                    "systems": _means(chosen := _part(scores, labels == part), resampling),
                    "differences": _differences(chosen, None, sliced_pairs, resampling),
                }
                for part in sorted(set(labels))
            }
            for name, labels in scores.slices.items()
        },
    }


def _part(scores: Scores, chosen: np.ndarray) -> Scores:
    values = {system: values[chosen] for system, values in scores.values.items()}
    return replace(scores, clusters=scores.clusters[chosen], slices={}, values=values)


def _means(scores: Scores, resampling: Resampling) -> dict[str, dict[str, dict[str, float]]]:
    bootstrap = ClusterBootstrap(scores.clusters, resampling.resamples, resampling.confidence, resampling.seed)
    estimates = iter(bootstrap.means(np.concatenate(list(scores.values.values()), axis=1)))
    return {system: {metric: asdict(next(estimates)) for metric in scores.metrics} for system in scores.values}


def _differences(
    scores: Scores, claimed: Sequence[str] | None, pairs: Sequence[tuple[str, str]], resampling: Resampling
) -> list[dict[str, Any]]:
    if not pairs:
        return []
    columns = np.concatenate([scores.values[one] - scores.values[other] for one, other in pairs], axis=1)
    bootstrap = ClusterBootstrap(scores.clusters, resampling.resamples, resampling.confidence, resampling.seed)
    estimates = bootstrap.means(columns)
    p_values = None
    if claimed is not None:
        p_values = permutation_p_values(columns, scores.clusters, resampling.permutations, resampling.seed)
    entries = []
    for place, (one, other) in enumerate(pairs):
        for number, metric in enumerate(scores.metrics):
            column = place * len(scores.metrics) + number
            differences = -columns[:, column] if metric in scores.less_is_better else columns[:, column]
            entry = {"system": one, "other": other, "metric": metric, **asdict(estimates[column])}
            if p_values is not None:
                entry |= {"p": float(p_values[column]), "p_holm": None}
            entry |= {
                "wins": int((differences > 0).sum()),
                "ties": int((differences == 0).sum()),
                "losses": int((differences < 0).sum()),
            }
            entries.append(entry)
        if claimed is not None:
            family = [entry for entry in entries[-len(scores.metrics) :] if entry["metric"] in claimed and entry["records"]]
            for entry, corrected in zip(family, holm([entry["p"] for entry in family]), strict=True):
                entry["p_holm"] = corrected
    return entries


@dataclass(frozen=True)
class Verdict:
    """What may be said of two systems.

    Attributes:
        better, worse, open: metrics on which the first is better, is worse, or cannot be told from the other.
    """

    better: tuple[str, ...]
    worse: tuple[str, ...]
    open: tuple[str, ...]


def verdict(differences: Sequence[Mapping[str, Any]], one: str, other: str, confidence: float) -> Verdict:
    """Sorts the claimed metrics of a pair.

    The rule: a metric is better (worse) if the interval of its paired difference lies wholly above (below) zero, and the
    permutation test's p-value, Holm-corrected over the metrics, is at most one minus the confidence. Everything else is open.
    """
    found: dict[str, list[str]] = {"better": [], "worse": [], "open": []}
    for entry in differences:
        if (entry["system"], entry["other"]) != (one, other) or entry["p_holm"] is None:
            continue
        shown = entry["p_holm"] <= 1 - confidence + 1e-12
        side = "better" if shown and entry["low"] > 0 else "worse" if shown and entry["high"] < 0 else "open"
        found[side].append(entry["metric"])
    return Verdict(**{side: tuple(metrics) for side, metrics in found.items()})


def verdict_text(found: Verdict, one: str, other: str, labels: Mapping[str, str]) -> str:
    """The verdict as a sentence without its full stop; metrics are named by their labels."""

    def named(metrics: Sequence[str]) -> str:
        words = [labels[metric] for metric in metrics]
        return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"

    total = len(found.better) + len(found.worse) + len(found.open)
    if not found.better and not found.worse:
        return f"{one} and {other} cannot be told apart on any of {total} metrics"
    if found.better:
        text = f"{one} is better than {other} on {named(found.better)}"
        text += f"; worse on {named(found.worse)}" if found.worse else "; worse on none"
    else:
        text = f"{one} is worse than {other} on {named(found.worse)}; better on none"
    return text + (f"; open on {len(found.open)} of {total} metrics" if found.open else f" of {total} metrics")
