"""chrF as sacrebleu computes it, five times as fast: a reward is computed for every completion of a training."""

from __future__ import annotations

from functools import lru_cache
from operator import truediv
from typing import NamedTuple

import numpy as np

_ORDER = 6
_BETA_SQUARED = 4.0
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # odd and large, so that n-grams of 64-bit arithmetic do not meet
_ORDER_BITS = np.uint64(7)
_ORDERS = np.arange(_ORDER, dtype=np.uint64)


class _NGrams(NamedTuple):
    keys: np.ndarray
    """Hashes of the distinct n-grams of all orders, ascending (uint64); the lowest three bits are the order less one."""
    counts: np.ndarray
    totals: list[int]
    """How many n-grams there are of each order that has any."""


def sentence_chrf(prediction: str, reference: str) -> float:
    """Character n-gram F-score (chrF2, Popović 2015) of two texts, from 0 to 1; white space does not count.

    Equal to `sacrebleu.metrics.CHRF().sentence_score` over 100, whose Python loops take most of a reward's time.
    """
    given, expected = _character_ngrams(prediction), _character_ngrams(reference)
    orders = min(len(given.totals), len(expected.totals))
    if not orders:
        return 0.0
    place = expected.keys.searchsorted(given.keys)
    shared = np.flatnonzero(expected.keys.take(place, mode="clip") == given.keys)
    matches = np.minimum(given.counts.take(shared), expected.counts.take(place.take(shared)))
    order_of = (given.keys.take(shared) & _ORDER_BITS).astype(np.intp)
    by_order = np.bincount(order_of, weights=matches, minlength=_ORDER).tolist()[:orders]
    precision = sum(map(truediv, by_order, given.totals)) / orders
    recall = sum(map(truediv, by_order, expected.totals)) / orders
    if precision + recall == 0:
        return 0.0
    return (1 + _BETA_SQUARED) * precision * recall / (_BETA_SQUARED * precision + recall)


@lru_cache(maxsize=1_000)  # for the answers of a group, held against one reference; some 50 kB each
def _character_ngrams(text: str) -> _NGrams:
    signs = "".join(text.split()).encode("utf-32-le", "surrogatepass")
    codes = np.frombuffer(signs, dtype=np.uint32).astype(np.uint64) + np.uint64(1)
    totals = [codes.size - order for order in range(min(_ORDER, codes.size))]
    keys = np.empty(sum(totals), dtype=np.uint64)
    hashes, end = np.zeros(codes.size + 1, dtype=np.uint64), 0
    for order, total in enumerate(totals):
        hashes = hashes[:-1] * _MULTIPLIER + codes[order:]
        keys[end : end + total] = hashes
        end += total
    keys *= _MULTIPLIER
    keys &= ~_ORDER_BITS
    keys |= np.repeat(_ORDERS[: len(totals)], totals)
    keys.sort()
    is_first = np.ones(keys.size, dtype=bool)
    np.not_equal(keys[1:], keys[:-1], out=is_first[1:])
    starts = np.flatnonzero(is_first)  # of runs of equal n-grams
    counts = np.append(starts[1:], keys.size)[: starts.size] - starts
    return _NGrams(keys[starts], counts, totals)
