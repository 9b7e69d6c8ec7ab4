"""The training question that is most like another one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer


class QuestionIndex:
    """Training questions, to be looked up by likeness: the TF-IDF cosine of context and question together (character 3- to
    5-grams inside words).
    """

    def __init__(self, train: Sequence[Mapping[str, str]]) -> None:
        """
        Args:
            train: records with `context` and `question`; at least one.
        """
        self._vectors = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 5), sublinear_tf=True)
        self._known = self._vectors.fit_transform(map(_asked, train)).T.tocsr()

    def nearest(self, asked: Sequence[Mapping[str, str]], most_products: int = 16_000_000) -> tuple[list[int], list[float]]:
        """The place of the nearest training record of each question, of several equally near ones the first, and its cosine.

        Args:
            asked: records with `context` and `question`.
            most_products: cosines that are held at a time, about 12 bytes each; memory grows with the texts alone.
        """
        block = max(1, most_products // self._known.shape[1])
        places: list[int] = []
        cosines: list[float] = []
        for start in range(0, len(asked), block):
            products = self._vectors.transform(map(_asked, asked[start : start + block])) @ self._known
            places += np.asarray(products.argmax(axis=1)).ravel().tolist()
            cosines += products.max(axis=1).toarray().ravel().tolist()
        return places, cosines


def _asked(record: Mapping[str, str]) -> str:
    return f"{record['context']} {record['question']}"
