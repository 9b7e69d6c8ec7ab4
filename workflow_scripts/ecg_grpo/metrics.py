"""Scores of an answer against its reference, each by a library that the field trusts.

None of them is a training reward. Every one is a sentence score averaged over records, so that differences can be paired.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from nltk.translate.meteor_score import meteor_score
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics import BLEU

_BLEU_1 = BLEU(max_ngram_order=1, effective_order=True)
_ROUGE = RougeScorer(["rougeL"], use_stemmer=True)
_ARTICLE = re.compile(r"\b(a|an|the)\b")
_WORD = re.compile(r"\w+")


class _NoSynonyms:
    """Stands for WordNet, which no package carries: METEOR then matches words and stems alone."""

    @staticmethod
    def synsets(_word: str) -> list:
        return []


def bleu_1(prediction: str, reference: str) -> float:
    """Sentence BLEU of order 1 with brevity penalty, over 100 (Papineni et al. 2002; sacrebleu)."""
    return _BLEU_1.sentence_score(prediction, [reference]).score / 100


def rouge_l(prediction: str, reference: str) -> float:
    """F1 of the longest common subsequence of stemmed words (Lin 2004; rouge-score)."""
    return _ROUGE.score(reference, prediction)["rougeL"].fmeasure


def meteor(prediction: str, reference: str) -> float:
    """METEOR with exact and stem matches (Banerjee & Lavie 2005; nltk). Without synonyms it is below the full one."""
    words = (_WORD.findall(text.lower()) for text in (reference, prediction))
    expected, given = words
    return float(meteor_score([expected], given, wordnet=_NoSynonyms())) if given else 0.0


def token_f1(prediction: str, reference: str) -> float:
    """F1 of two bags of words, lower-cased, without punctuation and articles (SQuAD, Rajpurkar et al. 2016)."""
    given, expected = Counter(_squad_tokens(prediction)), Counter(_squad_tokens(reference))
    shared = (given & expected).total()
    return 2 * shared / (given.total() + expected.total()) if shared else 0.0


def _squad_tokens(text: str) -> list[str]:
    plain = text.lower().translate(str.maketrans("", "", string.punctuation))
    return _ARTICLE.sub(" ", plain).split()


def words(prediction: str, reference: str) -> float:
    """Number of words of the answer."""
    return float(len(prediction.split()))


def length_ratio(prediction: str, reference: str) -> float:
    """Words of the answer over words of the reference; 1 is the reference's length."""
    return len(prediction.split()) / max(1, len(reference.split()))


@dataclass(frozen=True)
class Metric:
    """A score and how it is read.

    Attributes:
        label: its name in tables.
        score: (prediction, reference) → value.
        is_quality: larger is better and it counts as a claim about quality; lengths only describe.
    """

    label: str
    score: Callable[[str, str], float]
    is_quality: bool = True


METRICS: dict[str, Metric] = {
    "rouge_l": Metric("ROUGE-L", rouge_l),
    "bleu_1": Metric("BLEU-1", bleu_1),
    "meteor": Metric("METEOR (exact + stem)", meteor),
    "token_f1": Metric("Token F1", token_f1),
    "words": Metric("Words", words, is_quality=False),
    "length_ratio": Metric("Length ratio", length_ratio, is_quality=False),
}
"""Every metric by its column in `scores.parquet`, in the order of tables."""
