"""Reward functions: a model's text in, a number from 0 to 1 out; and their combination, gates times a weighted sum.

Each is pure, deterministic, defined for every text, and never raises. They are trained on, so none of them is a headline
metric of the evaluation. TRL calls them through `trl_rewards`; `audit_reward.py` attacks the combination beforehand.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from ecg_grpo.chrf import sentence_chrf
from ecg_grpo.concepts import concept_f1
from ecg_grpo.polarity import stances
from ecg_grpo.prompts import Answer, Message, take_apart
from ecg_grpo.quantities import number_agreement
from ecg_grpo.repetition import distinct_share
from ecg_grpo.rouge import rouge_l_f1

_LENGTH_TOLERATED = 1.3
_DISTINCT_TOLERATED = 0.9


def well_formed(answer: Answer, reference: str, question: str) -> float:
    """1 for an answer without tags, or for `<think>…</think><answer>…</answer>` and nothing else; else, and for nothing, 0.

    With `reasoning: on` only for the latter, with `reward.min_reasoning_words` different words of reasoning.

    Gamed by: any text without tags; or so many words between them, whatever they say.
    """
    return float(answer.is_well_formed)


def concepts_named(answer: Answer, reference: str, question: str) -> float:
    """F1 of the clinical concepts that the question did not give; `concepts.concept_f1` says how, and how it is gamed."""
    return concept_f1(answer.prediction, reference, question)


def chrf(answer: Answer, reference: str, question: str) -> float:
    """Character n-gram F-score of answer and reference (chrF2, Popović 2015).

    Gamed by: long answers that cover many n-grams, since it weighs recall twice as much as precision; echoing a question
    whose words the reference repeats.
    """
    return sentence_chrf(answer.prediction, reference)


def rouge_l(answer: Answer, reference: str, question: str) -> float:
    """F1 of the longest common subsequence of stemmed words (ROUGE-L, Lin 2004).

    Gamed by: echoing the question. It is the yardstick of most published comparisons: trained on, it is none any more.
    """
    return rouge_l_f1(answer.prediction, reference)


def polarity(answer: Answer, reference: str, question: str) -> float:
    """How far the answer takes the reference's sides (yes or no, indicated or contraindicated, normal or abnormal, …).

    Mean over the sides that the reference takes: 1 for the same, 0.5 for none or both, 0 for the opposite. An answer of Yes
    to a No, or the reverse, is 0 whatever else it says. Where the reference takes no side there is nothing to contradict: 1.

    Gamed by: saying nothing definite, for half of it.
    """
    expected, given = stances(reference), stances(answer.prediction)
    if not answer.prediction:
        return 0.0
    if not expected:
        return 1.0
    if given.get("answer") == -expected.get("answer", 0) != 0:
        return 0.0
    return sum((1 + side * given.get(name, 0)) / 2 for name, side in expected.items()) / len(expected)


def numbers(answer: Answer, reference: str, question: str) -> float:
    """F1 of numbers and ranges with unit and direction of comparison; 0.12 s is 120 ms. 1 if the reference names none.

    Gamed by: naming the right numbers of the wrong things.
    """
    agreement = number_agreement(answer.prediction, reference)
    return float(bool(answer.prediction)) if agreement is None else agreement


def length(answer: Answer, reference: str, question: str) -> float:
    """1 within 30 % of the reference's number of words, shorter or longer; beyond it the ratio, times or over 1.3.

    It stands against the collapse into fragments and the growth into lists to which overlap alone drives a policy: half the
    reference's words earn 0.65, a tenth 0.13, ten times as many 0.13.

    Gamed by: any text of the right length.
    """
    given, expected = len(answer.prediction.split()), len(reference.split())
    if not given or not expected:
        return 0.0
    return min(1.0, _LENGTH_TOLERATED * min(given, expected) / max(given, expected))


def repetition(answer: Answer, reference: str, question: str) -> float:
    """Share of the answer's three-word sequences that are distinct, over 0.9 or the reference's share if less; at most 1.

    Of single words where there are fewer than four (distinct-n, Li et al. 2016).

    Gamed by: any text that says everything once.
    """
    share = distinct_share(answer.prediction)
    return min(1.0, share / (min(_DISTINCT_TOLERATED, distinct_share(reference)) or _DISTINCT_TOLERATED))


RewardFunction = Callable[[Answer, str, str], float]
"""(a model's text taken apart, reference, question) → reward in [0, 1]."""

REWARDS: dict[str, RewardFunction] = {
    "format": well_formed,
    "concept_f1": concepts_named,
    "polarity": polarity,
    "numbers": numbers,
    "chrf": chrf,
    "rouge_l": rouge_l,
    "length": length,
    "repetition": repetition,
}
"""Every reward function by the name that the configuration uses."""


class Case(NamedTuple):
    """A model's text, and what it is held against.

    Attributes:
        completion: the text as the model wrote it.
        reference: the reference answer.
        question: the question.
        prompt: the messages that asked; only models that read them need any.
    """

    completion: str
    reference: str
    question: str
    prompt: Sequence[Message] = ()


ModelReward = Callable[[Sequence[Case]], list[float | None]]
"""A reward that a model computes, for many texts at once; None where it could not say (a judge that did not answer)."""

Values = Mapping[str, float | None]
"""The value of every part of a mix, each in [0, 1] and as it is: not weighted, not gated."""


@dataclass(frozen=True)
class RewardMix:
    """The reward of a run: the product of its gates times the weighted mean of its other parts.

    A gate does not add to a reward, it takes away: an answer that fails it cannot make up for that elsewhere.

    Attributes:
        weights: name of a reward function → its weight, 0 or more; at least one above 0.
        gates: name of a reward function → what is left of the reward where its value is 0; in between linearly.
        models: those of its parts that are no function of `REWARDS` but need a model (`model_rewards.load_mix`).
        min_reasoning_words: what a well-formed text must have of reasoning (`prompts.take_apart`); 0 with `reasoning: off`.
    """

    weights: Mapping[str, float]
    gates: Mapping[str, float]
    models: Mapping[str, ModelReward] = field(default_factory=dict)
    min_reasoning_words: int = 0

    @property
    def parts(self) -> list[str]:
        """Names of all reward functions of the mix, gates last."""
        return [*self.weights, *self.gates]

    @property
    def shares(self) -> dict[str, float]:
        """The weights, brought to the sum of 1."""
        total = math.fsum(self.weights.values())
        return {name: weight / total for name, weight in self.weights.items()}

    def values(self, cases: Sequence[Case]) -> list[Values]:
        """The values of every part for many texts."""
        by_model = {name: self.models[name](cases) for name in self.parts if name in self.models}
        found = []
        for index, case in enumerate(cases):
            answer = take_apart(case.completion, self.min_reasoning_words)
            found.append(
                {
                    name: by_model[name][index] if name in by_model else REWARDS[name](answer, case.reference, case.question)
                    for name in self.parts
                }
            )
        return found

    def factor(self, values: Values) -> float:
        """The product of the gates, in [0, 1]; a gate without a value is open."""
        known = ((floor, values[name]) for name, floor in self.gates.items())
        return math.prod(floor + (1 - floor) * value for floor, value in known if value is not None)

    def contributions(self, values: Values) -> dict[str, float]:
        """What every weighted part adds to the reward, before its weight: its value times the gates.

        The weights of parts without a value are shared out among the others.
        """
        factor = self.factor(values)
        known = math.fsum(share for name, share in self.shares.items() if values[name] is not None)
        return {name: factor * (values[name] or 0.0) / known if known else 0.0 for name in self.weights}

    def total(self, values: Values) -> float:
        """The reward of a text with these values, in [0, 1]."""
        added = self.contributions(values)
        return min(1.0, math.fsum(share * added[name] for name, share in self.shares.items()))

    def rewards(self, cases: Sequence[Case]) -> list[float]:
        """The rewards of models' texts, each in [0, 1]."""
        return [self.total(values) for values in self.values(cases)]


def trl_rewards(
    mix: RewardMix, metric: tuple[str, Callable[[str, str, str], float | None]] | None = None
) -> list[tuple[Callable[..., list[float | None]], float]]:
    """The mix as TRL takes it: functions and their weights, whose weighted sum is the mix's reward.

    Every part with a weight is handed over times the gates; every gate by itself with weight 0, so that it is logged.
    TRL hands over `completions` (each a list with one assistant message) and the columns of the data set; `answer` is the
    reference. The first function also puts the record's id and texts beside each logged completion, and logs the mean of
    an evaluation metric, which is no reward.

    Args:
        mix: the reward.
        metric: its name, and (prediction, reference, question) → value; None for none.
    """

    values = _Remembering(mix)
    weighted = [
        (_trl_reward(name, values, metric if index == 0 else None, index == 0), share)
        for index, (name, share) in enumerate(mix.shares.items())
    ]
    return weighted + [(_trl_reward(name, values, None, False), 0.0) for name in mix.gates]


class _Remembering:
    """The values of a mix, computed once although every function of a step asks for them."""

    def __init__(self, mix: RewardMix) -> None:
        self.mix = mix
        self._cases: list[Case] = []
        self._values: list[Values] = []

    def __call__(self, cases: list[Case]) -> list[Values]:
        if cases != self._cases:
            self._cases, self._values = cases, _alike_in_groups(cases, self.mix.values(cases))
        return self._values


def _alike_in_groups(cases: Sequence[Case], values: Sequence[Values]) -> list[Values]:
    """The values without those of parts that say nothing of some text of the same question.

    Completions of a question are compared with one another. Where a judge answered for some of them only, the others would lose
    or win by its silence, since the parts that are left have another level.
    """
    silent: dict[tuple[str, str], set[str]] = {}
    for case, found in zip(cases, values, strict=True):
        silent.setdefault((case.question, case.reference), set()).update(name for name, value in found.items() if value is None)
    return [
        {name: None if name in silent[case.question, case.reference] else value for name, value in found.items()}
        for case, found in zip(cases, values, strict=True)
    ]


def _trl_reward(
    name: str, values: _Remembering, metric: tuple[str, Callable[[str, str, str], float | None]] | None, is_first: bool
) -> Callable[..., list[float | None]]:
    def score(prompts, completions, question, answer, id, log_extra=None, log_metric=None, **_: object) -> list[float | None]:
        texts = (completion[0]["content"] for completion in completions)
        cases = [Case(*case) for case in zip(texts, answer, question, prompts, strict=True)]
        if is_first and log_extra is not None:
            for column, entries in (("id", id), ("question", question), ("answer", answer)):
                log_extra(column, list(entries))
        if metric is not None and log_metric is not None:
            label, measure = metric
            for case in cases:
                log_metric(label, measure(take_apart(case.completion).prediction, case.reference, case.question))
        found = values(cases)
        if name in values.mix.gates:
            return [one[name] for one in found]
        return [values.mix.contributions(one)[name] for one in found]

    score.__name__ = name
    return score
