"""chrF as sacrebleu computes it, many times as fast: a reward is computed for every completion of a training."""

from __future__ import annotations

from functools import lru_cache
from operator import truediv
from typing import NamedTuple

import numpy as np

_ORDER = 6
_BETA_SQUARED = 4.0
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # odd and large, so that n-grams of 64-bit arithmetic do not meet
_ORDER_BITS = 3
_ORDERS = np.arange(_ORDER, dtype=np.uint64) << np.uint64(64 - _ORDER_BITS)
_NO_KEY = np.uint64(2**64 - 1)


class _NGrams(NamedTuple):
    """The character n-grams of a text, to hold other texts against."""

    keys: np.ndarray
    """Hashes of the distinct n-grams, ascending (uint64): those of order 1 first, then those of order 2, …; last a key that is
    no n-gram's."""
    counts: np.ndarray
    """How often each stands in the text."""
    starts: list[int]
    """Where the n-grams of each order begin in `keys`."""
    totals: list[int]
    """How many n-grams there are of each order that has any, repetitions included."""
    slots: np.ndarray
    """The lowest 16 bits of a key → the place in `keys` of one that ends in them; that of the last key where there is none."""


def sentence_chrf(prediction: str, reference: str) -> float:
    """Character n-gram F-score (chrF2, Popović 2015) of two texts, from 0 to 1; white space does not count.

    Equal to `sacrebleu.metrics.CHRF().sentence_score` over 100, whose Python loops take most of a reward's time.
    """
    expected = _counted(reference)
    keys, totals = _hashed(prediction)
    orders = min(len(totals), len(expected.totals))
    if not orders:
        return 0.0
    place = expected.slots.take(keys.astype(np.uint16))
    is_found = expected.keys.take(place) == keys
    is_open = ~is_found & (place != expected.counts.size)  # another n-gram ends in the same bits
    others = keys.compress(is_open)
    at = expected.keys.searchsorted(others)
    found = np.concatenate((place.compress(is_found), at.compress(expected.keys.take(at) == others)))
    matches = np.minimum(np.bincount(found, minlength=expected.counts.size), expected.counts)
    by_order = np.add.reduceat(matches, expected.starts).tolist()[:orders]
    precision = sum(map(truediv, by_order, totals)) / orders
    recall = sum(map(truediv, by_order, expected.totals)) / orders
    if precision + recall == 0:
        return 0.0
    return (1 + _BETA_SQUARED) * precision * recall / (_BETA_SQUARED * precision + recall)


@lru_cache(maxsize=100)  # the answers of a group are held against one reference; some 300 kB each
def _counted(text: str) -> _NGrams:
    keys, totals = _hashed(text)
    distinct, counts = np.unique(keys, return_counts=True)
    slots = np.full(1 << 16, distinct.size, dtype=np.int32)
    slots[distinct.astype(np.uint16)] = np.arange(distinct.size)
    starts = distinct.searchsorted(_ORDERS[: len(totals)]).tolist()
    return _NGrams(np.append(distinct, _NO_KEY), counts, starts, totals, slots)


def _hashed(text: str) -> tuple[np.ndarray, list[int]]:
    """A key for each n-gram in the text, of order 1 first; and how many there are of each order."""
    signs = "".join(text.split()).encode("utf-32-le", "surrogatepass")
    codes = np.frombuffer(signs, dtype=np.uint32).astype(np.uint64) + np.uint64(1)
    totals = [codes.size - order for order in range(min(_ORDER, codes.size))]
    keys = np.empty(sum(totals), dtype=np.uint64)
    shorter, end = np.zeros(codes.size + 1, dtype=np.uint64), 0
    for order, total in enumerate(totals):
        hashes = keys[end : end + total]
        np.multiply(shorter[:-1], _MULTIPLIER, out=hashes)
        hashes += codes[order:]
        shorter, end = hashes, end + total
    keys *= _MULTIPLIER
    keys >>= np.uint64(_ORDER_BITS)
    keys |= np.repeat(_ORDERS[: len(totals)], totals)
    return keys, totals
