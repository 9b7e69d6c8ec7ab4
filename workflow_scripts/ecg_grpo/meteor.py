"""METEOR without WordNet, which no package carries: words match exactly or by their stems."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from nltk.stem import PorterStemmer
from nltk.translate.meteor_score import meteor_score


class _RememberingStemmer(PorterStemmer):
    """nltk's own stemmer, which remembers words: METEOR stems every word of every answer anew."""

    @lru_cache(maxsize=100_000)  # noqa: B019 one object for as long as the program runs
    def stem(self, word: str, to_lowercase: bool = True) -> str:
        return super().stem(word, to_lowercase)


class _NoSynonyms:
    """Stands for WordNet: METEOR then matches words and stems alone."""

    @staticmethod
    def synsets(_word: str) -> list:
        return []


_STEMMER = _RememberingStemmer()


def meteor_exact_and_stem(given: Sequence[str], expected: Sequence[str]) -> float:
    """METEOR with exact and stem matches (Banerjee & Lavie 2005; nltk). Without synonyms it is below the full one.

    Args:
        given: words of the answer; none score 0.
        expected: words of the reference.

    Returns:
        0 to 1.
    """
    return float(meteor_score([expected], given, stemmer=_STEMMER, wordnet=_NoSynonyms())) if given else 0.0
