"""How often a reward model prefers the better of two answers, beside rules that look at the length alone."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from statistics import NormalDist, correlation, fmean
from typing import Any

CONFIDENCE = 0.95


def wilson_interval(share: float, observations: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Wilson's score interval of a share (Wilson 1927); it has a width at 0 and 1 too.

    Args:
        share: in [0, 1].
        observations: number of independent observations, at least 1.
        confidence: level, in (0, 1).
    """
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    middle = share + z * z / (2 * observations)
    spread = z * math.sqrt(share * (1 - share) / observations + z * z / (4 * observations * observations))
    scale = 1 + z * z / observations
    return max(0.0, (middle - spread) / scale), min(1.0, (middle + spread) / scale)


def accuracy_report(pairs: Sequence[Mapping[str, Any]], chosen: Sequence[float], rejected: Sequence[float]) -> dict[str, Any]:
    """The figures of `accuracy.json`.

    Args:
        pairs: rows with `cluster`, `kind`, `task`, `paraphrased`, `chosen`, `rejected`.
        chosen: the score of each better answer, before the sigmoid.
        rejected: the score of each worse one.

    Returns:
        `all`, and `kinds`, `tasks`, `paraphrased` by name, each with `pairs`, `clusters`; `accuracy` with the ends `low` and
        `high` of its 95 % interval; `longer_wins`, `shorter_wins`: how often a rule would be right that takes the text with
        more or with fewer words; `mean_margin`, the mean difference of scores. Equal scores, or lengths, count half.

        Pairs of one near-duplicate group are not independent: Wilson's interval takes the groups, not the pairs, as its
        observations, which is wide rather than narrow.

        `score_and_length`: correlations of score and number of words over all texts, the better and the worse ones; null where
        one of the two is constant.
    """
    words = [(len(pair["chosen"].split()), len(pair["rejected"].split())) for pair in pairs]
    rows = [
        {
            "cluster": pair["cluster"],
            "accuracy": _preferred(one, other),
            "longer_wins": _preferred(*lengths),
            "shorter_wins": 1 - _preferred(*lengths),
            "mean_margin": one - other,
        }
        for pair, one, other, lengths in zip(pairs, chosen, rejected, words, strict=True)
    ]

    def parts(name: Callable[[Mapping[str, Any]], str]) -> dict[str, Any]:
        found = defaultdict(list)
        for pair, row in zip(pairs, rows, strict=True):
            found[name(pair)].append(row)
        return {part: _figures(of_part) for part, of_part in sorted(found.items())}

    of_chosen, of_rejected = [one for one, _ in words], [other for _, other in words]
    return {
        "confidence": CONFIDENCE,
        "all": _figures(rows),
        "kinds": parts(lambda pair: pair["kind"]),
        "tasks": parts(lambda pair: pair["task"]),
        "paraphrased": parts(lambda pair: pair["paraphrased"]),
        "score_and_length": {
            "all": _correlations([*chosen, *rejected], [*of_chosen, *of_rejected]),
            "chosen": _correlations(chosen, of_chosen),
            "rejected": _correlations(rejected, of_rejected),
        },
    }


def _preferred(one: float, other: float) -> float:
    return float(one > other) + (one == other) / 2


def _figures(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    clusters = len({row["cluster"] for row in rows})
    accuracy = fmean(row["accuracy"] for row in rows)
    low, high = wilson_interval(accuracy, clusters)
    means = {name: fmean(row[name] for row in rows) for name in ("longer_wins", "shorter_wins", "mean_margin")}
    return {"pairs": len(rows), "clusters": clusters, "accuracy": accuracy, "low": low, "high": high, **means}


def _correlations(scores: Sequence[float], lengths: Sequence[float]) -> dict[str, float | int | None]:
    found: dict[str, float | int | None] = {"texts": len(scores), "pearson": None, "spearman": None}
    if len(set(scores)) > 1 and len(set(lengths)) > 1:
        found |= {"pearson": correlation(scores, lengths), "spearman": correlation(_ranks(scores), _ranks(lengths))}
    return found


def _ranks(values: Sequence[float]) -> list[float]:
    """Ranks from 1; equal values share their mean rank."""
    ordered = sorted(values)
    return [(bisect_left(ordered, value) + 1 + bisect_right(ordered, value)) / 2 for value in values]
