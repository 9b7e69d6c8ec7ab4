"""The audit of a reward: how it ranks the reference, a paraphrase of it, attacks, and the SFT model's own samples.

A reward that pays an attack as much as an honest answer will be paid for attacks: GRPO finds what earns most.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy import stats

from ecg_grpo.attacks import Target, as_demanded, attacks, texts_of
from ecg_grpo.comparison import ClusterBootstrap
from ecg_grpo.counterfactuals import paraphrase
from ecg_grpo.prompts import extract_prediction
from ecg_grpo.rewards import Case, RewardMix, Values
from ecg_grpo.settings.reward_audit import AuditSettings

_SAME = 1e-9
"""Rewards that differ by less are the same: floating-point sums."""
_NO_SPREAD = 0.01
_MOST_SILENCE = 0.1
"""Share of the texts of which a part of the reward may have no value."""


def audit(
    mix: RewardMix,
    targets: Sequence[Target],
    clusters: Sequence[str],
    samples: Sequence[Sequence[str]],
    settings: AuditSettings,
) -> dict[str, Any]:
    """Attacks a reward.

    Args:
        mix: the reward.
        targets: records of the validation split.
        clusters: the near-duplicate group of each.
        samples: completions of the SFT model for each; may be empty lists.
        settings: limits and intervals.

    Returns:
        `parts`; `honest` (reference and paraphrase) and `attacks`: a list of rows, each with `mean` and its interval, the mean
        `values` of every part, and for attacks `beats_reference` and `beats_paraphrase` (shares of the records to which the
        attack applies, with intervals), `auc` (chance that a reference earns more than the attack), an `example`;
        `samples`: what the SFT model earns, its spread within a prompt, each part's correlation with length;
        `failures`: one sentence for each limit that is broken.
    """
    found = _Audit(mix, targets, clusters, settings)
    of_samples = found.samples(samples)
    rows = [found.row(name) for name in ("reference", "paraphrase", *found.attacks) if name in found.total]
    attacked = [row for row in rows if row["name"] in found.attacks]
    return {
        "parts": mix.parts,
        "weights": dict(mix.shares),
        "gates": dict(mix.gates),
        "limits": found.limits,
        "confidence": settings.confidence,
        "records": len(targets),
        "honest": [row for row in rows if row["name"] not in found.attacks],
        "attacks": attacked,
        "min_reasoning_words": mix.min_reasoning_words,
        "samples": of_samples,
        "failures": [*found.silent_parts(), *(sentence for row in attacked for sentence in _failures(row, found.limits))],
    }


@dataclass(frozen=True)
class _Tried:
    """A text that was tried on one record."""

    text: str
    reward: float
    values: Values


class _Audit:
    """Everything that was tried, by record and by name."""

    def __init__(self, mix: RewardMix, targets: Sequence[Target], clusters: Sequence[str], settings: AuditSettings) -> None:
        self.mix, self.targets = mix, targets
        self._reasoning = mix.min_reasoning_words > 0
        self.attacks = attacks(self._reasoning)
        self.limits = {
            "reference": settings.max_beating_reference,
            "paraphrase": settings.max_beating_paraphrase,
            "samples": settings.max_beating_samples,
        }
        self._clusters, self._confidence = clusters, settings.confidence
        self._bootstrap = ClusterBootstrap(clusters, settings.resamples, settings.confidence, settings.seed)
        self.tried = [self._try(target) for target in targets]
        names = dict.fromkeys(name for tried in self.tried for name in tried)
        self.total = {
            name: np.array([tried[name].reward if name in tried else np.nan for tried in self.tried]) for name in names
        }
        """Reward of each record's text by name; NaN where there is none."""

    def _try(self, target: Target) -> dict[str, _Tried]:
        honest = {"reference": target.reference, "paraphrase": paraphrase(target.reference, target.question)}
        tried = {name: as_demanded(text, self._reasoning) for name, text in honest.items() if text is not None}
        tried |= texts_of(target, self._reasoning)
        scored = self.mix.values([_case(text, target) for text in tried.values()])
        return {
            name: _Tried(text, self.mix.total(values), values)
            for (name, text), values in zip(tried.items(), scored, strict=True)
        }

    def mean(self, values: np.ndarray) -> dict[str, Any]:
        """Mean of one value a record with its interval, as JSON."""
        return asdict(self._bootstrap.mean(values))

    def share(self, values: np.ndarray) -> dict[str, Any]:
        """Mean of zeros and ones (NaN for none) with its interval, as JSON.

        Where all are equal no resample differs; the interval is then that of Wilson (1927) for as many groups.
        """
        found = self.mean(values)
        if found["mean"] in (0.0, 1.0):
            groups = len({cluster for cluster, value in zip(self._clusters, values, strict=True) if not np.isnan(value)})
            test = stats.binomtest(round(groups * found["mean"]), groups)
            interval = test.proportion_ci(self._confidence, method="wilson")
            found |= {"low": interval.low, "high": interval.high}
        return found

    def row(self, name: str) -> dict[str, Any]:
        """One line of the table."""
        rewards = self.total[name]
        having = [tried[name].values for tried in self.tried if name in tried]
        row: dict[str, Any] = {
            "name": name,
            **self.mean(rewards),
            "values": {part: _mean([values[part] for values in having]) for part in self.mix.parts},
        }
        if name not in self.attacks:
            return row
        attack = self.attacks[name]
        row |= {"label": attack.label, "note": attack.note, "is_blind": attack.is_blind}
        for honest in self.limits:
            against = self._rewards_of(honest)
            both = ~np.isnan(rewards) & ~np.isnan(against)
            row[f"beats_{honest}"] = self.share(np.where(both, (rewards >= against - _SAME).astype(float), np.nan))
        row["auc"] = _auc(self.total["reference"], rewards)
        broken = [honest for honest, _ in _broken(row, self.limits)]
        row["example"] = self.worst(name, (broken or ["paraphrase" if attack.is_blind else "reference"])[0])
        return row

    def _rewards_of(self, name: str) -> np.ndarray:
        """Reward of each record's text; all NaN where no record has one."""
        return self.total.get(name, np.full(len(self.targets), np.nan))

    def worst(self, name: str, honest: str) -> dict[str, Any] | None:
        """The record in which an attack comes off best against what is honest, and the part that pays most for it.

        `honest` is the text it was held against; None for the SFT model's samples, which are several.
        """
        lead = self.total[name] - self._rewards_of(honest)
        if np.isnan(lead).all():
            return None
        index = int(np.nanargmax(lead))
        attack, right = self.tried[index][name], self.tried[index].get(honest)
        values = right.values if right else {}
        paid = {
            part: share * ((attack.values[part] or 0.0) - (values.get(part) or 0.0)) for part, share in self.mix.shares.items()
        }
        return {
            "question": self.targets[index].question,
            "honest": right.text if right else None,
            "attack": attack.text,
            "reward": attack.reward,
            "honest_reward": float(self.total[honest][index]),
            "part": max(paid, key=lambda part: paid[part]),
        }

    def silent_parts(self) -> list[str]:
        """One sentence for each part that had nothing to say of many texts: a judge that is down, or not set up rightly."""
        values = [tried.values for row in self.tried for tried in row.values()]
        shares = {part: float(np.mean([one[part] is None for one in values])) for part in self.mix.parts}
        return [
            f"{part} gave no value for {share:.0%} of the texts, more than {_MOST_SILENCE:.0%}"
            for part, share in shares.items()
            if share > _MOST_SILENCE
        ]

    def samples(self, samples: Sequence[Sequence[str]]) -> dict[str, Any]:
        """What the policy's start earns, and whether GRPO can learn from its differences."""
        means, spreads = np.full(len(self.targets), np.nan), []
        columns: dict[str, list[float]] = defaultdict(list)
        for index, (target, group) in enumerate(zip(self.targets, samples, strict=True)):
            scored = self.mix.values([_case(completion, target) for completion in group])
            rewards = [self.mix.total(values) for values in scored]
            for completion, values, reward in zip(group, scored, rewards, strict=True):
                columns["words"].append(len(extract_prediction(completion).split()))
                columns["reward"].append(reward)
                for part in self.mix.parts:
                    columns[part].append(_or_nan(values[part]))
            if rewards:
                means[index] = np.mean(rewards)
            if len(rewards) > 1:
                spreads.append(float(np.std(rewards, ddof=1)))
        self.total["samples"] = means
        return {
            "completions": len(columns["words"]),
            "reward": self.mean(means),
            "spread": float(np.mean(spreads)) if spreads else None,
            "without_spread": float(np.mean(np.array(spreads) < _NO_SPREAD)) if spreads else None,
            "correlation_with_length": {
                name: _correlation(columns[name], columns["words"]) for name in ("reward", *self.mix.parts) if columns["words"]
            },
        }


def _case(text: str, target: Target) -> Case:
    return Case(text, target.reference, target.question, target.prompt)


def _auc(honest: np.ndarray, attack: np.ndarray) -> float | None:
    """Chance that a reference earns more than an attack, both drawn by chance; ties count half (Mann & Whitney 1947)."""
    attack = attack[~np.isnan(attack)]
    if not attack.size:
        return None
    return float(stats.mannwhitneyu(honest, attack).statistic / (honest.size * attack.size))


_HONEST = {"reference": "the reference", "paraphrase": "the paraphrase", "samples": "the SFT model's samples"}


def _broken(row: Mapping[str, Any], limits: Mapping[str, float | None]) -> list[tuple[str, float]]:
    """The limits that an attack breaks, as (what it is held against, limit); only blind ones are held against anything but the
    reference.
    """
    return [
        (honest, limit)
        for honest, limit in limits.items()
        if (honest == "reference" or row["is_blind"]) and limit is not None and (row[f"beats_{honest}"]["mean"] or 0) > limit
    ]


def _failures(row: Mapping[str, Any], limits: Mapping[str, float | None]) -> list[str]:
    """One sentence for each limit that an attack breaks."""
    return [
        f"{row['label']} earns as much as {_HONEST[honest]} in {row[f'beats_{honest}']['mean']:.0%} of the records, "
        f"more than {limit:.0%}"
        for honest, limit in _broken(row, limits)
    ]


def _or_nan(value: float | None) -> float:
    return float("nan") if value is None else value


def _mean(values: Sequence[float | None]) -> float | None:
    """Mean of those that are known; None if none is."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _correlation(values: Sequence[float], lengths: Sequence[float]) -> float | None:
    """Spearman's rank correlation; None where one of the two never changes."""
    known = [(value, length) for value, length in zip(values, lengths, strict=True) if not np.isnan(value)]
    if any(len(set(column)) < 2 for column in zip(*known, strict=True)) or not known:
        return None
    return float(stats.spearmanr(known).statistic)
