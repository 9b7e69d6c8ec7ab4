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
_COMPARED = 4
_BLOCK = 2000


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

        A text is compared with earlier ones only, so that what follows in `texts` has no say in what is found before. Of pairs
        at the threshold 0.72 some 0.1 % are missed, of pairs at 0.8 one in a million, unless many texts are alike: each is
        then compared with a few of the others, which is enough to connect them all.

        Args:
            texts: any number of texts.
            threshold: cosine in (0, 1].

        Returns:
            Shape (pairs, 2), int64: indices i < j, sorted by j and then i.
        """
        first: dict[str, int] = {}
        same = [(first.setdefault(text.casefold(), index), index) for index, text in enumerate(texts)]
        pairs = [np.array([(one, other) for one, other in same if one != other], dtype=np.int64).reshape(-1, 2)]
        distinct = np.array(list(first.values()), dtype=np.int64)
        grams = _hashing().transform(first or [""])
        has_grams = np.flatnonzero(np.diff(grams.indptr))
        grams, distinct = grams[has_grams], distinct[has_grams]
        if len(distinct) > 1:
            candidates = _candidates(self._signatures(grams), threshold)
            grams = csr_matrix((self._weights[grams.indices], grams.indices, grams.indptr), shape=grams.shape)
            norms = np.sqrt(np.asarray(grams.multiply(grams).sum(axis=1)).ravel())
            for start in range(0, len(candidates), 20_000):
                one, other = candidates[start : start + 20_000].T
                products = np.asarray(grams[one].multiply(grams[other]).sum(axis=1)).ravel()
                # float32 sums of equal sets differ in the last digits
                close = products >= (threshold - 1e-6) * norms[one] * norms[other]
                pairs.append(distinct[np.stack([one[close], other[close]], axis=1)])
        found = np.concatenate(pairs)
        return found[np.lexsort((found[:, 0], found[:, 1]))]

    def _signatures(self, grams: csr_matrix) -> np.ndarray:
        """Weighted MinHash, shape (texts, `_HASHES`), float32.

        Every gram has for every hash an exponential variable whose rate is its squared weight; the smallest one of a text's
        grams is the text's. Two texts share it with the probability of their weighted Jaccard similarity.
        """
        occurs = np.zeros(_FEATURES, dtype=bool)
        occurs[grams.indices] = True
        used, place = np.flatnonzero(occurs), np.cumsum(occurs) - 1
        variables = np.empty((len(used), _HASHES), dtype=np.float32)
        for start in range(0, len(used), _BLOCK):
            rows = used[start : start + _BLOCK].astype(np.uint64)
            uniform = _uniform(rows[:, None] * np.uint64(_HASHES) + np.arange(_HASHES, dtype=np.uint64))
            variables[start : start + _BLOCK] = -np.log(uniform) / self._weights[rows, None].astype(np.float64) ** 2
        signatures = np.empty((grams.shape[0], _HASHES), dtype=np.float32)
        for start in range(0, grams.shape[0], _BLOCK):
            begin, *ends = grams.indptr[start : start + _BLOCK + 1]
            of_block = variables[place[grams.indices[begin : ends[-1]]]]
            firsts = np.array([begin, *ends[:-1]]) - begin
            signatures[start : start + _BLOCK] = np.minimum.reduceat(of_block, firsts, axis=0)
        return signatures


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
    """Pairs that share a band and about enough of their signatures, shape (pairs, 2)."""
    # Of two texts with cosine c the weighted Jaccard similarity is at least c² (when one holds the other); four standard
    # deviations of its estimate are left as room.
    agreement = threshold**2 - 4 * math.sqrt(0.25 / _HASHES)
    codes = np.empty(0, dtype=np.int64)
    for pairs in _pairs_in_bands(signatures):
        fresh = np.setdiff1d(pairs[:, 0] * len(signatures) + pairs[:, 1], codes)
        one, other = np.divmod(fresh, len(signatures))
        near = np.concatenate(
            [np.empty(0, dtype=bool)]
            + [
                (signatures[one[at : at + 50_000]] == signatures[other[at : at + 50_000]]).mean(axis=1) >= agreement
                for at in range(0, len(fresh), 50_000)
            ]
        )
        codes = np.union1d(codes, fresh[near])
    return np.stack(np.divmod(codes, len(signatures)), axis=1)


def _pairs_in_bands(signatures: np.ndarray) -> Iterator[np.ndarray]:
    """For every band the pairs of texts that agree in it: each with the band's first and with its latest earlier texts."""
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
        found = []
        for distance in range(_COMPARED):
            late = np.flatnonzero(place - begin > distance)
            found.append(np.stack([order[begin[late] + distance], order[late]], axis=1))
            found.append(np.stack([order[late - distance - 1], order[late]], axis=1))
        yield np.concatenate(found)
