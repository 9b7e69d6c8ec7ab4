"""Splits without leakage: records that say nearly the same stay together."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

import numpy as np
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components
from sklearn.feature_extraction.text import TfidfVectorizer

SPLITS = ("train", "validation", "test")


def similar_pairs(texts: Sequence[str], threshold: float, block: int = 512) -> Iterator[tuple[int, int]]:
    """Every pair of texts whose TF-IDF cosine reaches a threshold, compared exhaustively.

    Lower-cased character 3- to 5-grams inside word boundaries with sublinear term frequency, fitted on the texts.

    Args:
        texts: any number of texts.
        threshold: cosine in (0, 1].
        block: rows compared at a time; bounds the memory.

    Yields:
        (i, j) with i < j.
    """
    if len(texts) < 2:
        return
    vectors = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 5), sublinear_tf=True, dtype=np.float32)
    matrix = vectors.fit_transform(text.casefold() or " " for text in texts)
    transposed = matrix.T.tocsr()
    for start in range(0, matrix.shape[0], block):
        cosines = (matrix[start : start + block] @ transposed).tocoo()
        # float32 sums of a text with itself reach 1 - 1e-6, so the threshold gets that much room
        close = (cosines.data >= threshold - 1e-6) & (cosines.row + start < cosines.col)
        yield from zip((cosines.row[close] + start).tolist(), cosines.col[close].tolist(), strict=True)


def near_duplicate_groups(
    questions: Sequence[str],
    answers: Sequence[str],
    subjects: Sequence[str],
    question_similarity: float,
    answer_similarity: float,
) -> list[int]:
    """Groups of records that must not be torn apart by a split.

    Two records are linked when their questions or their answers are similar enough, or when they share a non-empty
    subject; a group is everything that links connect.

    Returns:
        For each record the index of the first record of its group.
    """
    links = list(similar_pairs(questions, question_similarity)) + list(similar_pairs(answers, answer_similarity))
    first_of: dict[str, int] = {}
    for index, subject in enumerate(subjects):
        if subject:
            links.append((first_of.setdefault(subject, index), index))
    size = len(questions)
    rows, columns = zip(*links, strict=True) if links else ((), ())
    graph = csr_matrix((np.ones(len(rows), dtype=bool), (rows, columns)), shape=(size, size))
    _, labels = connected_components(graph, directed=False)
    first: dict[int, int] = {}
    return [first.setdefault(int(label), index) for index, label in enumerate(labels)]


def split_of_group(key: str, seed: int, validation_fraction: float, test_fraction: float) -> str:
    """The split that a group belongs to, by a stable hash of its key: other groups have no say in it."""
    digest = hashlib.sha256(f"{seed}\0{key}".encode()).digest()
    position = int.from_bytes(digest[:8], "big") / 2**64
    if position < test_fraction:
        return "test"
    return "validation" if position < test_fraction + validation_fraction else "train"
