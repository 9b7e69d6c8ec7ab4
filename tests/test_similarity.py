"""Similar pairs: found without comparing all with all, and what follows in a list has no say in what came before."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, SAMPLE
from hypothesis import given, settings
from hypothesis import strategies as st

from ecg_grpo.errors import InputError
from ecg_grpo.leakage import nearest_training_questions
from ecg_grpo.raw_files import find_raw_files
from ecg_grpo.readers import read_records
from ecg_grpo.similarity import TextSimilarity

SIMILARITY = TextSimilarity(ROOT / "resources/similarity/common_ngrams.tsv")
QUESTIONS = [record.question for file in find_raw_files(SAMPLE) for record in read_records(file)]


def variants(seed: int) -> list[str]:
    """Sample questions, some of them again with a word changed, left out or doubled."""
    generator = random.Random(seed)
    texts = list(QUESTIONS)
    for _ in range(400):
        words = generator.choice(QUESTIONS).split()
        place = generator.randrange(len(words))
        words[place : place + 1] = generator.choice([[], [words[place]] * 2, ["rather"], [words[place].upper()]])
        texts.insert(generator.randrange(len(texts) + 1), " ".join(words))
    return texts


def connected(pairs: set[tuple[int, int]], size: int) -> list[int]:
    leader = list(range(size))

    def find(index: int) -> int:
        while leader[index] != index:
            index = leader[index]
        return index

    for one, other in pairs:
        leader[find(one)] = find(other)
    return [find(index) for index in range(size)]


@pytest.mark.parametrize("seed", range(3))
def test_nothing_that_an_exhaustive_comparison_finds_is_torn_apart(seed: int) -> None:
    texts = variants(seed)
    found = {tuple(pair) for pair in SIMILARITY.pairs(texts, 0.72).tolist()}
    grams = [
        {f" {word} "[at : at + 4] for word in text.casefold().split() for at in range(max(1, len(word) - 1))} for text in texts
    ]
    weight = {gram: SIMILARITY.weight(gram) ** 2 for text in grams for gram in text}
    norms = [sum(weight[gram] for gram in text) ** 0.5 for text in grams]
    group = connected(found, len(texts))
    near = 0
    for one in range(len(texts)):
        for other in range(one + 1, len(texts)):
            cosine = sum(weight[gram] for gram in grams[one] & grams[other]) / (norms[one] * norms[other])
            if cosine >= 0.75:
                near += 1
                assert group[one] == group[other], (texts[one], texts[other], cosine)
            elif cosine < 0.71:
                assert (one, other) not in found
    assert near > 300


def test_later_texts_change_nothing() -> None:
    texts = variants(7)
    before = SIMILARITY.pairs(texts, 0.72)
    after = SIMILARITY.pairs([*texts, texts[3], "An unrelated sentence.", texts[5] + " indeed"], 0.72)
    assert np.array_equal(after[after[:, 1] < len(texts)], before)
    assert [3, len(texts)] in after.tolist()


@given(texts=st.lists(st.text(max_size=12), max_size=12), threshold=st.sampled_from([0.5, 0.8, 1.0]))
@settings(max_examples=60, deadline=None)
def test_any_texts(texts: list[str], threshold: float) -> None:
    pairs = SIMILARITY.pairs(texts, threshold)
    assert pairs.shape == (len(pairs), 2)
    assert (pairs[:, 0] < pairs[:, 1]).all()
    found = {tuple(pair) for pair in pairs.tolist()}
    for other, text in enumerate(texts):
        first = [one for one in range(other) if texts[one].casefold() == text.casefold()]
        assert not first or (first[0], other) in found


@pytest.mark.parametrize("line", ["abcd", "abcd\t0", "abcd\t2", "abcd\tx", "# nothing else"])
def test_a_broken_table_is_refused(line: str, tmp_path: Path) -> None:
    (tmp_path / "grams.tsv").write_text(line + "\n")
    with pytest.raises(InputError, match=r"grams\.tsv"):
        TextSimilarity(tmp_path / "grams.tsv")


def test_the_nearest_training_question() -> None:
    train = ["What is the PR interval?", "Which drug slows the AV node?", "Why?"]
    nearest, cosines = nearest_training_questions(train, ["what is the pr interval?", "Which drugs slow the AV node?", ""])
    assert nearest[:2].tolist() == [0, 1]
    assert cosines[0] == pytest.approx(1, abs=1e-6)
    assert 0.5 < cosines[1] < 1
    assert cosines[2] == 0
    assert nearest_training_questions([], ["x"])[1].tolist() == [0]
    assert nearest_training_questions(["x"], [])[1].tolist() == []
