"""ROUGE-L as rouge-score computes it, some fifty times as fast: a reward is computed for every completion of a training."""

from __future__ import annotations

import re
from functools import cache, lru_cache

from nltk.stem import PorterStemmer

_TOKEN = re.compile(r"[a-z0-9]+")
_SHORTEST_STEMMED = 4
_STEMMER = PorterStemmer()


def rouge_l_f1(prediction: str, reference: str) -> float:
    """F1 of the longest common subsequence of stemmed words (ROUGE-L, Lin 2004), from 0 to 1.

    Equal to rouge-score's `rougeL` with its stemmer. The subsequence's length is found by bits of one large integer (Hyyrö
    2004, "Bit-parallel LCS-length computation revisited").
    """
    given, expected = _tokens(prediction), _tokens(reference)
    if not given or not expected:
        return 0.0
    places: dict[str, int] = {}
    for place, token in enumerate(expected):
        places[token] = places.get(token, 0) | 1 << place
    everywhere = (1 << len(expected)) - 1
    open_places = everywhere
    for token in given:
        found = open_places & places.get(token, 0)
        open_places = ((open_places + found) | (open_places - found)) & everywhere
    common = len(expected) - open_places.bit_count()
    return 2 * common / (len(given) + len(expected))


@lru_cache(maxsize=20_000)
def _tokens(text: str) -> list[str]:
    return [_stem(token) for token in _TOKEN.findall(text.lower())]


@cache
def _stem(token: str) -> str:
    return _STEMMER.stem(token) if len(token) >= _SHORTEST_STEMMED else token
