"""Systems that answer without a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer


def nearest_training_answers(train: Sequence[Mapping[str, str]], asked: Sequence[Mapping[str, str]]) -> list[str]:
    """For each question the reference answer of the training question most like it.

    Likeness is the TF-IDF cosine of context and question together (character 3- to 5-grams inside words); of several
    equally near ones the first.

    Args:
        train: training records with `context`, `question`, `answer`.
        asked: records with `context` and `question`.
    """
    vectors = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 5), sublinear_tf=True)
    known = vectors.fit_transform(f"{record['context']} {record['question']}" for record in train)
    wanted = vectors.transform(f"{record['context']} {record['question']}" for record in asked)
    nearest = np.asarray((wanted @ known.T).argmax(axis=1)).ravel()
    return [train[index]["answer"] for index in nearest]
