"""Near-duplicates stay together, and a split does not depend on what else is there."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from sklearn.feature_extraction.text import TfidfVectorizer

from ecg_grpo.splitting import near_duplicate_groups, similar_pairs, split_of_group

TEXTS = st.lists(st.text(alphabet="abc QRS", max_size=20), max_size=25)


@given(texts=TEXTS, threshold=st.sampled_from([0.5, 0.8, 1.0]), block=st.integers(1, 30))
def test_pairs_are_those_of_an_exhaustive_comparison(texts: list[str], threshold: float, block: int) -> None:
    if not any(len(text.split()) for text in texts):
        return
    found = set(similar_pairs(texts, threshold, block))
    if len(texts) < 2:
        assert not found
        return
    vectors = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 5), sublinear_tf=True)
    matrix = vectors.fit_transform([text.casefold() or " " for text in texts]).toarray()
    cosines = matrix @ matrix.T
    for one in range(len(texts)):
        for other in range(one + 1, len(texts)):
            if abs(cosines[one, other] - threshold) > 1e-4:
                assert ((one, other) in found) == (cosines[one, other] > threshold)


def test_groups_follow_questions_answers_and_subjects() -> None:
    questions = [
        "What is the normal PR interval on an ECG?",
        "What is the normal PR interval in an ECG?",
        "Name a beta blocker.",
        "Why use digoxin?",
        "Who?",
    ]
    answers = [
        "One.",
        "Two things.",
        "It slows the AV node and is renally cleared.",
        "It slows the AV node, is renally cleared.",
        "Nobody.",
    ]
    assert near_duplicate_groups(questions, answers, [""] * 5, 0.8, 0.8) == [0, 0, 2, 2, 4]
    assert near_duplicate_groups(questions, answers, ["", "x", "", "", "x"], 0.8, 0.8) == [0, 0, 2, 2, 0]


def test_splits_have_the_shares_asked_for() -> None:
    splits = [split_of_group(f"EBK-{row:05d}", 0, 0.1, 0.2) for row in range(5000)]
    assert abs(splits.count("test") / 5000 - 0.2) < 0.02
    assert abs(splits.count("validation") / 5000 - 0.1) < 0.02


@given(key=st.text(), seed=st.integers(0, 5))
def test_a_larger_test_share_only_adds_to_the_test_split(key: str, seed: int) -> None:
    if split_of_group(key, seed, 0.1, 0.1) == "test":
        assert split_of_group(key, seed, 0.1, 0.3) == "test"


def test_seed_changes_the_split() -> None:
    keys = [str(number) for number in range(200)]
    first, second = ([split_of_group(key, seed, 0.2, 0.2) for key in keys] for seed in (0, 1))
    assert np.mean([one == other for one, other in zip(first, second, strict=True)]) < 0.8
