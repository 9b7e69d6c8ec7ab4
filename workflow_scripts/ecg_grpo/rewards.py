"""Reward functions: the text of an answer in, a number from 0 to 1 out.

Each is pure, deterministic, defined for every text, and never raises. They are trained on, so none of them is a headline
metric of the evaluation. TRL calls them through `trl_rewards`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import cache

from nltk.stem import PorterStemmer
from sacrebleu.metrics import CHRF

from ecg_grpo.prompts import extract_prediction

RewardFunction = Callable[[str, str, str], float]
"""(prediction, reference, question) → reward in [0, 1]."""

_WORD = re.compile(r"[a-z]+|\d+(?:\.\d+)?|[<>≤≥]")
# Words without a content of their own. Direction (above, below, before, after), amount (more, less, two), and negation are
# none of them, which is why no library's list serves.
_FUNCTION_WORDS = frozenset(
    "a an the this that these those it its they their them he she his her you your we our i my who whom whose which what "
    "when where why how there here is are was were be been being am do does did done have has had having can could may "
    "might will would shall should must of to in on at by for from with as and or but if than then so such also too very "
    "into about because while during through s t".split()
)
_CHRF = CHRF()


def concept_f1(prediction: str, reference: str, question: str) -> float:
    """How well the answer's content words agree with the reference's, apart from those that the question gave.

    F1 of two sets: stems of content words, numbers and comparison signs. Words of the question earn nothing on either
    side, so that echoing it scores 0, unless the reference says nothing else. After SQuAD's F1 (Rajpurkar et al. 2016).

    Gamed by: naming the right words in a wrong sentence; word order and negation scope are not seen.
    """
    asked = _concepts(question)
    expected, given = _concepts(reference) - asked, _concepts(prediction) - asked
    if not expected:  # the reference says nothing that the question did not: compare all of it
        expected, given = _concepts(reference), _concepts(prediction)
    shared = len(expected & given)
    return 2 * shared / (len(expected) + len(given)) if shared else 0.0


def chrf(prediction: str, reference: str, question: str) -> float:
    """Character n-gram F-score of answer and reference (chrF2, Popović 2015; sacrebleu's implementation), over 100.

    Gamed by: long answers that cover many n-grams, since it weighs recall twice as much as precision; echoing a question
    whose words the reference repeats.
    """
    return _CHRF.sentence_score(prediction, [reference]).score / 100 if prediction.strip() else 0.0


def length_agreement(prediction: str, reference: str, question: str) -> float:
    """Shorter over longer of the two word counts: 1 at the reference's length, 0 for an empty answer.

    It stands against the collapse into fragments and the growth into lists to which overlap alone drives a policy.

    Gamed by: any text of the right length.
    """
    given, expected = len(prediction.split()), len(reference.split())
    return min(given, expected) / max(given, expected) if given and expected else 0.0


REWARDS: dict[str, RewardFunction] = {
    "concept_f1": concept_f1,
    "chrf": chrf,
    "length_agreement": length_agreement,
}
"""Every reward function by the name that the configuration uses."""


def trl_rewards(names: Iterable[str], metric: tuple[str, RewardFunction] | None = None) -> list[Callable[..., list[float]]]:
    """The named reward functions as TRL calls them.

    TRL hands over `completions` (each a list with one assistant message) and the columns of the data set; `answer` is the
    reference. The first function also puts the record's id and texts beside each logged completion, and logs the mean of
    an evaluation metric, which is no reward.

    Args:
        names: keys of `REWARDS`.
        metric: its name, and (prediction, reference, question) → value; None for none.
    """
    return [_trl_reward(name, REWARDS[name], index == 0, metric) for index, name in enumerate(names)]


def _trl_reward(
    name: str, reward: RewardFunction, is_first: bool, metric: tuple[str, RewardFunction] | None
) -> Callable[..., list[float]]:
    def score(completions, question, answer, id, log_extra=None, log_metric=None, **_: object) -> list[float]:
        predictions = [extract_prediction(completion[0]["content"]) for completion in completions]
        if is_first and log_extra is not None:
            for column, values in (("id", id), ("question", question), ("answer", answer)):
                log_extra(column, list(values))
        if is_first and log_metric is not None and metric is not None:
            label, measure = metric
            for texts in zip(predictions, answer, question, strict=True):
                log_metric(label, measure(*texts))
        return [reward(*texts) for texts in zip(predictions, answer, question, strict=True)]

    score.__name__ = name
    return score


@cache
def _stem(word: str) -> str:
    return PorterStemmer().stem(word)


@cache
def _concepts(text: str) -> frozenset[str]:
    return frozenset(_stem(word) for word in _WORD.findall(text.lower()) if word not in _FUNCTION_WORDS)
