"""An independent check of the splits: every held-out question against every training question."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer

_BLOCK = 2000
"""Training questions compared at a time; bounds the memory."""


def nearest_training_questions(train: Sequence[str], held_out: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """For each held-out question the training question most like it.

    Likeness is the cosine of TF-IDF vectors (lower-cased, character 3- to 5-grams inside words, sublinear), fitted on all
    questions given. It is another measure than the one that made the groups, and the comparison leaves no pair out.

    Returns:
        Index into `train` and cosine in [0, 1], one of each for every held-out question.
    """
    if not train or not held_out:
        return np.zeros(len(held_out), dtype=np.int64), np.zeros(len(held_out))
    vectors = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 5), sublinear_tf=True, dtype=np.float32)
    try:
        matrix = vectors.fit_transform([*held_out, *train])
    except ValueError:  # no question has a character n-gram
        return np.zeros(len(held_out), dtype=np.int64), np.zeros(len(held_out))
    asked, known = matrix[: len(held_out)].T.tocsr(), matrix[len(held_out) :]
    nearest, cosines = np.zeros(len(held_out), dtype=np.int64), np.zeros(len(held_out), dtype=np.float32)
    for start in range(0, len(train), _BLOCK):
        block = (known[start : start + _BLOCK] @ asked).tocsc()
        highest = block.max(axis=0).toarray().ravel()
        nearer = highest > cosines
        nearest[nearer] = np.asarray(block.argmax(axis=0)).ravel()[nearer] + start
        cosines = np.maximum(cosines, highest)
    return nearest, np.minimum(1.0, cosines.astype(np.float64))
