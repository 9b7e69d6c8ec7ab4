"""Scores of an answer against its reference.

Every one is a score of one answer, averaged over records, so that differences can be paired. Those that a run also trains on as
rewards are marked in its comparison and make no claim there.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from rouge_score.rouge_scorer import RougeScorer
from rouge_score.tokenizers import DefaultTokenizer
from sacrebleu.metrics import BLEU

from ecg_grpo.chrf import sentence_chrf
from ecg_grpo.concepts import concept_f1
from ecg_grpo.meteor import meteor_exact_and_stem
from ecg_grpo.polarity import polarity_agreement
from ecg_grpo.quantities import number_agreement


class _RememberingTokenizer(DefaultTokenizer):
    """rouge-score's own tokenizer, which remembers texts: a reference is scored against every system's answer."""

    @lru_cache(maxsize=50_000)  # noqa: B019 one object for as long as the program runs
    def tokenize(self, text: str) -> list[str]:
        return super().tokenize(text)


_BLEU_1 = BLEU(max_ngram_order=1, effective_order=True)
_BLEU_4 = BLEU(max_ngram_order=4, effective_order=True)
_TOKENIZER = _RememberingTokenizer(use_stemmer=True)
_ROUGE = {kind: RougeScorer([kind], tokenizer=_TOKENIZER) for kind in ("rouge1", "rouge2", "rougeL")}
_ARTICLE = re.compile(r"\b(a|an|the)\b")
_WORD = re.compile(r"\w+")


def bleu_1(prediction: str, reference: str, question: str) -> float:
    """Sentence BLEU of order 1 with brevity penalty, over 100 (Papineni et al. 2002; sacrebleu)."""
    return _BLEU_1.sentence_score(prediction, [reference]).score / 100


def bleu_4(prediction: str, reference: str, question: str) -> float:
    """Sentence BLEU of order 4, or of the answer's own order where it is shorter, with exponential smoothing, over 100."""
    return _BLEU_4.sentence_score(prediction, [reference]).score / 100


def rouge_1(prediction: str, reference: str, question: str) -> float:
    """F1 of stemmed words (Lin 2004; rouge-score)."""
    return _ROUGE["rouge1"].score(reference, prediction)["rouge1"].fmeasure


def rouge_2(prediction: str, reference: str, question: str) -> float:
    """F1 of pairs of neighbouring stemmed words (Lin 2004; rouge-score)."""
    return _ROUGE["rouge2"].score(reference, prediction)["rouge2"].fmeasure


def rouge_l(prediction: str, reference: str, question: str) -> float:
    """F1 of the longest common subsequence of stemmed words (Lin 2004; rouge-score)."""
    return _ROUGE["rougeL"].score(reference, prediction)["rougeL"].fmeasure


def meteor(prediction: str, reference: str, question: str) -> float:
    """METEOR with exact and stem matches (Banerjee & Lavie 2005; nltk). Without synonyms it is below the full one."""
    return meteor_exact_and_stem(_WORD.findall(prediction.lower()), _WORD.findall(reference.lower()))


def chrf(prediction: str, reference: str, question: str) -> float:
    """Character n-gram F-score (chrF2, Popović 2015; equal to sacrebleu's)."""
    return sentence_chrf(prediction, reference)


def token_f1(prediction: str, reference: str, question: str) -> float:
    """F1 of two bags of words, lower-cased, without punctuation and articles (SQuAD, Rajpurkar et al. 2016)."""
    given, expected = Counter(_squad_tokens(prediction)), Counter(_squad_tokens(reference))
    shared = (given & expected).total()
    return 2 * shared / (given.total() + expected.total()) if shared else 0.0


def exact_match(prediction: str, reference: str, question: str) -> float:
    """1 if the words are the same, compared as for token F1 (SQuAD), else 0."""
    return float(bool(expected := _squad_tokens(reference)) and _squad_tokens(prediction) == expected)


def _squad_tokens(text: str) -> list[str]:
    plain = text.lower().translate(_NO_PUNCTUATION)
    return _ARTICLE.sub(" ", plain).split()


_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def polarity(prediction: str, reference: str, question: str) -> float | None:
    """Share of the sides taken by the reference (yes or no, normal or abnormal, …) that the answer takes too."""
    return polarity_agreement(prediction, reference)


def numbers(prediction: str, reference: str, question: str) -> float | None:
    """F1 of numbers and ranges with unit and direction of comparison; 0.12 s is 120 ms."""
    return number_agreement(prediction, reference)


def words(prediction: str, reference: str, question: str) -> float:
    """Number of words of the answer."""
    return float(len(prediction.split()))


def length_ratio(prediction: str, reference: str, question: str) -> float:
    """Words of the answer over words of the reference; 1 is the reference's length."""
    return len(prediction.split()) / max(1, len(reference.split()))


@dataclass(frozen=True)
class Metric:
    """A score and how it is read.

    Attributes:
        label: its name in tables.
        score: (prediction, reference, question) → value; None where it does not apply.
        about: what it measures: likeness of words, of content, or the answer's length; only lengths are no quality.
        note: what a reader has to know of it, one sentence without a full stop.
    """

    label: str
    score: Callable[[str, str, str], float | None]
    about: Literal["overlap", "content", "length"]
    note: str

    @property
    def is_quality(self) -> bool:
        """Whether larger is better."""
        return self.about != "length"


METRICS: dict[str, Metric] = {
    "rouge_l": Metric("ROUGE-L", rouge_l, "overlap", "longest common subsequence of stemmed words"),
    "rouge_1": Metric("ROUGE-1", rouge_1, "overlap", "stemmed words in common"),
    "rouge_2": Metric("ROUGE-2", rouge_2, "overlap", "pairs of neighbouring stemmed words in common"),
    "bleu_1": Metric("BLEU-1", bleu_1, "overlap", "words, with brevity penalty"),
    "bleu_4": Metric("BLEU-4", bleu_4, "overlap", "up to four words in a row, with brevity penalty and smoothing"),
    "meteor": Metric("METEOR (exact + stem)", meteor, "overlap", "no synonyms, so it is lower than the full metric"),
    "chrf": Metric("chrF", chrf, "overlap", "character n-grams"),
    "token_f1": Metric("Token F1", token_f1, "overlap", "bag of words without articles"),
    "exact_match": Metric("Exact match", exact_match, "overlap", "the same words in the same order"),
    "concept_f1": Metric("Concept F1", concept_f1, "content", "content words that the question did not give"),
    "polarity": Metric("Polarity", polarity, "content", "sides taken as in the reference; where it takes any"),
    "numbers": Metric("Numbers", numbers, "content", "values, units and directions as in the reference; where it has any"),
    "words": Metric("Words", words, "length", "of the answer"),
    "length_ratio": Metric("Length ratio", length_ratio, "length", "words of the answer over words of the reference"),
}
"""Every metric by its column in `scores.parquet`, in the order of tables. One that has a reward's name is that reward."""
