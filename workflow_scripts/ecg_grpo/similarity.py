"""Which texts say nearly the same.

Two texts are as similar as the cosine of their sets of character 4-grams (lower-cased, inside word boundaries), each gram
weighted by how rare it is in English cardiology questions and answers. The weights are a fixed table and not fitted to the
texts at hand, so that the similarity of two texts never depends on a third: adding a record changes no other's group.

Pairs are found by weighted MinHash and banding (Broder 1997; Leskovec, Rajaraman, Ullman, Mining of Massive Datasets, ch. 3)
and then confirmed by the cosine itself, so the cost grows with the number of texts and not with its square.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from scipy.sparse import csr_matrix
from sklearn.feature_extraction.text import HashingVectorizer

from ecg_grpo.errors import InputError

NGRAM = 4
_FEATURES = 2**18
_BAND, _BANDS = 3, 40
_HASHES = _BAND * _BANDS
_COMPARED = 8


class TextSimilarity:
    """Finds pairs of similar texts.

    Args:
        file: table of common 4-grams, tab-separated: a gram (underscores for spaces) and the share of texts that have it, in
            (0, 1]; `#` begins a comment. The weight of a gram is one more than the logarithm of one over its share; a gram
            that is not listed weighs as much as the rarest one that is.

    Raises:
        InputError: a line of another form.
    """

    def __init__(self, file: Path) -> None:
        self._weights = _read_weights(file)

    def weight(self, gram: str) -> float:
        """How much a 4-gram counts, at least 1."""
        return float(self._weights[_hashing(lambda text: [text]).transform([gram]).indices[0]])

    def pairs(self, texts: Sequence[str], threshold: float) -> np.ndarray:
        """Pairs of texts whose similarity reaches a threshold.

        A text is compared with earlier ones only, so that what follows in `texts` has no say in what is found before. A pair at
        the threshold is missed with a probability of some 0.1 %, a closer one less often. Where hundreds of texts share their
        heaviest grams (one template with many fillings), each is compared with a few of them in each band and more is missed:
        of a thousand such pairs some ten.

        Args:
            texts: any number of texts.
            threshold: cosine in (0, 1].

        Returns:
            Shape (pairs, 2), int64: indices i < j, sorted by j and then i.
        """
        first: dict[str, int] = {}
        same = [(first.setdefault(text.casefold(), index), index) for index, text in enumerate(texts)]
        pairs = [np.array([(one, other) for one, other in same if one != other], dtype=np.int64).reshape(-1, 2)]
        grams = _grams_of(list(first))
        has_grams = np.flatnonzero(np.diff(grams.indptr))
        distinct = np.array(list(first.values()), dtype=np.int64)[has_grams]
        if len(distinct) > 1:
            candidates = has_grams[_candidates(self._signatures(grams, has_grams), threshold)]
            work = np.diff(grams.indptr)[candidates].sum(axis=1).cumsum()  # long texts need more memory than short ones
            for block in np.split(candidates, np.searchsorted(work, np.arange(5_000_000, work[-1:].sum(), 5_000_000))):
                close = self._cosines(grams, block) >= threshold - 1e-6  # float32 sums of equal sets differ in the last digits
                pairs.append(distinct[np.searchsorted(has_grams, block[close])])
        found = np.concatenate(pairs)
        return found[np.lexsort((found[:, 0], found[:, 1]))]

    def _cosines(self, grams: csr_matrix, pairs: np.ndarray) -> np.ndarray:
        texts, places = np.unique(pairs, return_inverse=True)
        weighted = grams[texts].astype(np.float32)
        weighted.data = self._weights[weighted.indices]
        norms = np.sqrt(np.asarray(weighted.multiply(weighted).sum(axis=1)).ravel())
        one, other = places.reshape(pairs.shape).T
        products = np.asarray(weighted[one].multiply(weighted[other]).sum(axis=1)).ravel()
        return products / (norms[one] * norms[other])

    def _signatures(self, grams: csr_matrix, rows: np.ndarray) -> np.ndarray:
        """Weighted MinHash of some rows, shape (rows, `_HASHES`), float32.

        Every gram has for every hash an exponential variable whose rate is its squared weight; the smallest one of a text's
        grams is the text's. Two texts share it with the probability of their weighted Jaccard similarity.
        """
        occurs = np.zeros(_FEATURES, dtype=bool)
        occurs[grams.indices] = True
        used, place = np.flatnonzero(occurs), np.cumsum(occurs) - 1
        variables = np.empty((len(used), _HASHES), dtype=np.float32)
        for start in range(0, len(used), 2000):
            features = used[start : start + 2000].astype(np.uint64)
            uniform = _uniform(features[:, None] * np.uint64(_HASHES) + np.arange(_HASHES, dtype=np.uint64))
            variables[start : start + 2000] = -np.log(uniform) / self._weights[features, None].astype(np.float64) ** 2
        signatures = np.empty((len(rows), _HASHES), dtype=np.float32)
        begins, ends = grams.indptr[:-1][rows], grams.indptr[1:][rows]
        for start in range(0, len(rows), 50):  # few at a time: what is gathered then stays in the processor's cache
            block = slice(start, start + 50)
            of_block = variables[place[grams.indices[begins[start] : ends[block][-1]]]]
            signatures[block] = np.minimum.reduceat(of_block, begins[block] - begins[start], axis=0)
        return signatures


def _grams_of(texts: Sequence[str]) -> csr_matrix:
    """Which hashed 4-grams each text has, shape (texts, `_FEATURES`); the values are single bytes to save memory."""
    hashing = _hashing()
    blocks = [hashing.transform(texts[start : start + 20_000]) for start in range(0, len(texts), 20_000)]
    lengths = [np.diff(block.indptr) for block in blocks]
    indices = np.concatenate([np.empty(0, dtype=np.int32), *(block.indices for block in blocks)])
    bounds = np.concatenate([np.zeros(1, dtype=np.int64), *lengths]).cumsum()
    return csr_matrix((np.ones(len(indices), dtype=np.int8), indices, bounds), shape=(len(texts), _FEATURES))


def _uniform(numbers: np.ndarray) -> np.ndarray:
    """A pseudo-random number in (0, 1) for each of some uint64 numbers, always the same (SplitMix64, Steele et al. 2014)."""
    with np.errstate(over="ignore"):
        mixed = (numbers + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        mixed ^= mixed >> np.uint64(31)
    return ((mixed >> np.uint64(11)) + 0.5) / 2**53


def _read_weights(file: Path) -> np.ndarray:
    grams, shares = [], []
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        if line.startswith("#"):
            continue
        try:
            gram, share = line.split("\t")
            shares.append(float(share))
            if not 0 < shares[-1] <= 1:
                raise ValueError
        except ValueError:
            raise InputError(
                f"{file}: line {number}", "must be a 4-gram, a tab and a share in (0, 1]", "Restore the file."
            ) from None
        grams.append(gram.replace("_", " "))
    if not grams:
        raise InputError(file, "lists no 4-gram", "Restore the file.")
    share_of = np.full(_FEATURES, min(shares), dtype=np.float64)
    for feature, share in zip(_hashing(lambda gram: [gram]).transform(grams).indices, shares, strict=True):
        share_of[feature] = max(share_of[feature], share)
    return (1 - np.log(share_of)).astype(np.float32)


def _hashing(analyzer: object = "char_wb") -> HashingVectorizer:
    return HashingVectorizer(
        analyzer=analyzer,
        ngram_range=(NGRAM, NGRAM),
        n_features=_FEATURES,
        norm=None,
        alternate_sign=False,
        binary=True,
        dtype=np.float32,
    )


def _candidates(signatures: np.ndarray, threshold: float) -> np.ndarray:
    """Pairs that share a band and about enough of their signatures, shape (pairs, 2), each once."""
    # Of two texts with cosine c the weighted Jaccard similarity is at least c² (when one holds the other); four standard
    # deviations of its estimate are left as room.
    agreement = threshold**2 - 4 * math.sqrt(0.25 / _HASHES)
    codes = [np.empty(0, dtype=np.int64)]
    for one, other in _pairs_in_bands(signatures):
        for start in range(0, len(one), 10_000):
            block = slice(start, start + 10_000)
            near = (signatures[one[block]] == signatures[other[block]]).mean(axis=1) >= agreement
            codes.append(one[block][near] * len(signatures) + other[block][near])
    found = np.sort(np.concatenate(codes))
    found = found[np.concatenate([np.ones(1, dtype=bool), found[1:] != found[:-1]])] if len(found) else found
    return np.stack(np.divmod(found, len(signatures)), axis=1)


def _pairs_in_bands(signatures: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """For every band the texts that agree in it: each with the band's first and with its latest earlier texts."""
    bits = signatures.view(np.uint32)
    for band in range(_BANDS):
        columns = bits[:, band * _BAND : (band + 1) * _BAND].astype(np.uint64)
        with np.errstate(over="ignore"):
            keys = (columns[:, 0] * np.uint64(0x9E3779B97F4A7C15)) ^ (columns[:, 1] * np.uint64(0xC2B2AE3D27D4EB4F))
            keys ^= columns[:, 2] * np.uint64(0x165667B19E3779F9)
        order = np.argsort(keys, kind="stable")
        ordered = keys[order]
        begins = np.concatenate([[True], ordered[1:] != ordered[:-1]])
        place = np.arange(len(order))
        begin = np.maximum.accumulate(np.where(begins, place, 0))
        for distance in range(_COMPARED):
            later = np.flatnonzero(place - begin > distance)
            yield order[begin[later] + distance], order[later]
            later = np.flatnonzero(place - begin > distance + _COMPARED)  # nearer ones are among the first
            yield order[later - distance - 1], order[later]
