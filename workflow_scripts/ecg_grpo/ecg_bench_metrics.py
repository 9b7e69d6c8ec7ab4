"""Figures of a system as two published benchmarks of ECG language models compute them, for tables beside theirs.

`ecg_bench`             github.com/willxxy/ECG-Bench b115bc4, ecg_bench/runners/elm_evaluator.py
`ecg_language_models`   github.com/ELM-Research/ECG-Language-Models 26c2d54, src/elm/evaluation/evaluator.py

Each figure is one of the system and not a mean of comparable scores (BLEU is the corpus's), so none is tested here; that is
what `metrics` is for. All are from 0 to 1; both benchmarks print them times 100.
"""

from __future__ import annotations

import string
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from statistics import fmean
from typing import Any

from nltk.translate.bleu_score import SmoothingFunction, corpus_bleu
from rouge_score.rouge_scorer import RougeScorer

from ecg_grpo.meteor import meteor_exact_and_stem

Pair = tuple[str, str]
"""(prediction, reference), spaces at both ends taken off."""

_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ROUGE_L = RougeScorer(["rougeL"], use_stemmer=True)


@dataclass(frozen=True)
class Answered:
    """One answer and its reference, as the profiles need them.

    Attributes:
        prediction: the answer.
        reference: the reference's answer.
        reasoning: what the system reasoned; empty for nothing.
        reference_reasoning: what the reference reasons; empty for nothing, as in ECG-Expert-QA.
    """

    prediction: str
    reference: str
    reasoning: str = ""
    reference_reasoning: str = ""


def accuracy(pairs: Sequence[Pair]) -> float:
    """Share of answers that are the reference, character by character."""
    return fmean(prediction == reference for prediction, reference in pairs)


def bleu(pairs: Sequence[Pair]) -> float:
    """BLEU-4 of the corpus (Papineni et al. 2002; nltk), words split at spaces, smoothed by Chen & Cherry's first method."""
    references = [[reference.split()] for _, reference in pairs]
    predictions = [prediction.split() for prediction, _ in pairs]
    return float(corpus_bleu(references, predictions, smoothing_function=SmoothingFunction().method1))


def meteor(pairs: Sequence[Pair]) -> float:
    """Mean METEOR of words split at spaces, punctuation and all; exact and stem matches only."""
    return fmean(meteor_exact_and_stem(prediction.split(), reference.split()) for prediction, reference in pairs)


def token_f1(pairs: Sequence[Pair]) -> float:
    """Mean F1 of two bags of words, lower-cased, without punctuation, articles kept; two empty bags are alike."""
    return fmean(_token_f1(*pair) for pair in pairs)


def _token_f1(prediction: str, reference: str) -> float:
    given, expected = (Counter(text.lower().translate(_NO_PUNCTUATION).split()) for text in (prediction, reference))
    if not given or not expected:
        return float(given == expected)
    return 2 * (given & expected).total() / (given.total() + expected.total())


def rouge_l(pairs: Sequence[Pair]) -> float:
    """Mean F1 of the longest common subsequence of stemmed words (Lin 2004; rouge-score)."""
    return fmean(_ROUGE_L.score(reference, prediction)["rougeL"].fmeasure for prediction, reference in pairs)


def set_rouge_1(pairs: Sequence[Pair]) -> float:
    """Mean F of words, as the package `rouge` defines it."""
    return fmean(_set_rouge_n(*pair, 1) for pair in pairs)


def set_rouge_2(pairs: Sequence[Pair]) -> float:
    """Mean F of pairs of neighbouring words, as the package `rouge` defines it."""
    return fmean(_set_rouge_n(*pair, 2) for pair in pairs)


def set_rouge_l(pairs: Sequence[Pair]) -> float:
    """Mean F of longest common subsequences, as the package `rouge` defines it."""
    return fmean(_set_rouge_l(*pair) for pair in pairs)


def _sentences(text: str) -> list[list[str]]:
    """Words of each sentence: full stops end sentences, spaces end words, nothing is stemmed or lower-cased.

    A part of spaces alone is a sentence of one empty word, as in that package.
    """
    return [" ".join(part.split()).split(" ") for part in text.split(".") if part]


def _set_rouge_n(prediction: str, reference: str, order: int) -> float:
    """F of two *sets* of n-grams: what stands twice counts once. N-grams reach over the ends of sentences."""
    given, expected = (
        {tuple(words[start : start + order]) for start in range(len(words) - order + 1)}
        for words in (list(chain(*_sentences(text))) for text in (prediction, reference))
    )
    return _f(len(given & expected), len(given), len(expected))


def _set_rouge_l(prediction: str, reference: str) -> float:
    """F of sets of words: those in the longest common subsequence of any two sentences, over all that there are."""
    given, expected = _sentences(prediction), _sentences(reference)
    shared = {word for one in expected for other in given for word in _longest_common_subsequence(one, other)}
    return _f(len(shared), len(set(chain(*given))), len(set(chain(*expected))))


def _f(shared: int, given: int, expected: int) -> float:
    """F as the package `rouge` computes it; its 1e-8 keeps a perfect answer a hair below 1."""
    precision, recall = shared / max(1, given), shared / max(1, expected)
    return 2 * precision * recall / (precision + recall + 1e-8)


def _longest_common_subsequence(one: Sequence[str], other: Sequence[str]) -> list[str]:
    """A longest common subsequence; of several, the one that steps back in `other` first."""
    lengths = [[0] * (len(other) + 1)]
    for word in one:
        above, row = lengths[-1], [0]
        for place, candidate in enumerate(other):
            row.append(above[place] + 1 if word == candidate else max(above[place + 1], row[place]))
        lengths.append(row)
    found, i, j = [], len(one), len(other)
    while i and j:
        if one[i - 1] == other[j - 1]:
            found.append(one[i - 1])
            i, j = i - 1, j - 1
        elif lengths[i - 1][j] > lengths[i][j - 1]:
            i -= 1
        else:
            j -= 1
    return found[::-1]


@dataclass(frozen=True)
class Profile:
    """How a benchmark scores.

    Attributes:
        source: repository, commit and file in which the definitions stand.
        note: what a reader has to know before comparing.
        labels: name → how the figure is called in tables.
        measures: name → (pairs) → value.
        keeps_empty: whether an empty prediction counts; otherwise its pair is left out.
        has_thinking: whether reasoning is scored against the reference's reasoning.
    """

    source: str
    note: str
    labels: dict[str, str]
    measures: dict[str, Callable[[Sequence[Pair]], float]]
    keeps_empty: bool
    has_thinking: bool

    def figures(self, answers: Sequence[Answered]) -> dict[str, Any]:
        """`records` that were scored, `dropped` ones that were not, and each measure; and `thinking`, if the profile has it.

        As in both sources, every measure is 0 if no record is left. `thinking` is null where no reference reasons.
        """
        found = self._measured([(answer.prediction.strip(), answer.reference.strip()) for answer in answers])
        if self.has_thinking:
            thinking = [
                (answer.reasoning.strip(), answer.reference_reasoning.strip())
                for answer in answers
                if answer.reference_reasoning.strip()
            ]
            found["thinking"] = self._measured(thinking) if thinking else None
        return found

    def _measured(self, pairs: Sequence[Pair]) -> dict[str, Any]:
        kept = [pair for pair in pairs if pair[1] and (pair[0] or self.keeps_empty)]
        values = {name: measure(kept) if kept else 0.0 for name, measure in self.measures.items()}
        return {"records": len(kept), "dropped": len(pairs) - len(kept), **values}


_METEOR = "METEOR matches words and stems but no synonyms, for want of WordNet, and is below the published one."

PROFILES: dict[str, Profile] = {
    "ecg_bench": Profile(
        source="github.com/willxxy/ECG-Bench b115bc4, ecg_bench/runners/elm_evaluator.py",
        note="Records with an empty answer are dropped, which favours a system that leaves questions out. ROUGE is that of the "
        "package rouge, computed here after its definition: sets of words, case and punctuation kept, no stems; an answer of "
        f"full stops alone, at which that package ends with an error, scores 0. {_METEOR} BERTScore is left out: theirs uses "
        "roberta-large, which no package carries.",
        labels={
            "accuracy": "Accuracy (equal strings)",
            "bleu": "BLEU-4 (corpus)",
            "meteor": "METEOR (exact + stem)",
            "rouge_1": "ROUGE-1 F (as package rouge)",
            "rouge_2": "ROUGE-2 F (as package rouge)",
            "rouge_l": "ROUGE-L F (as package rouge)",
        },
        measures={
            "accuracy": accuracy,
            "bleu": bleu,
            "meteor": meteor,
            "rouge_1": set_rouge_1,
            "rouge_2": set_rouge_2,
            "rouge_l": set_rouge_l,
        },
        keeps_empty=False,
        has_thinking=False,
    ),
    "ecg_language_models": Profile(
        source="github.com/ELM-Research/ECG-Language-Models 26c2d54, src/elm/evaluation/evaluator.py",
        note=f"Empty answers count. {_METEOR} Reasoning and answer are told apart as everywhere in this project: reasoning "
        "that never ended is no answer. `thinking` is null where no reference reasons.",
        labels={
            "accuracy": "Accuracy (equal strings)",
            "f1": "Token F1 (articles kept)",
            "bleu_4": "BLEU-4 (corpus)",
            "rouge_l": "ROUGE-L F (stemmed)",
            "meteor": "METEOR (exact + stem)",
        },
        measures={"accuracy": accuracy, "f1": token_f1, "bleu_4": bleu, "rouge_l": rouge_l, "meteor": meteor},
        keeps_empty=True,
        has_thinking=True,
    ),
}
"""Both benchmarks, in the order of tables."""
