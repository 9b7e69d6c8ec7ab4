"""Memory is told from knowledge: copied answers, known questions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from check_contamination import nearness, summary
from ecg_grpo.baselines import second_references
from ecg_grpo.memorization import NGRAM, TrainingAnswers

WORDS = st.lists(st.sampled_from("a b c d e f g".split()), max_size=12)


def test_the_answer_that_most_was_copied_from_is_found() -> None:
    known = TrainingAnswers(["one two three four five six", "three four five six seven eight nine", "elsewhere"])
    copy = known.copied_by("Three four five six seven eight, and then nothing more")
    assert (copy.place, copy.share) == (1, 2 / 6)
    assert known.copied_by("one two three four five six").share == 1
    nothing = known.copied_by("entirely other words stand in here")
    assert (nothing.share, nothing.place) == (0, None)
    short = known.copied_by("one two three four")
    assert (short.share, short.place) == (None, None), "too short to tell"


def test_signs_and_numbers_count_as_words_and_case_does_not() -> None:
    known = TrainingAnswers(["a QRS of ≥ 120 ms"])
    assert known.copied_by("A qrs of ≥ 120").share == 1
    assert known.copied_by("A qrs of ≤ 120").share == 0


@given(st.lists(WORDS, max_size=6), WORDS)
def test_the_share_is_that_of_counting(answers: list[list[str]], answer: list[str]) -> None:
    def runs(words: list[str]) -> list[tuple[str, ...]]:
        return [tuple(words[start : start + NGRAM]) for start in range(len(words) - NGRAM + 1)]

    copy = TrainingAnswers([" ".join(words) for words in answers]).copied_by(" ".join(answer))
    if not runs(answer):
        assert copy.share is None
    else:
        counts = [sum(run in runs(words) for run in runs(answer)) for words in answers]
        assert copy.share == max(counts, default=0) / len(runs(answer))
        assert copy.place == (counts.index(max(counts)) if any(counts) else None)


@pytest.mark.parametrize(
    ("cosine", "expected"), [(0.0, "below 0.5"), (0.5, "0.5 to 0.7"), (0.89, "0.7 to 0.9"), (1.0, "0.9 and above")]
)
def test_nearness(cosine: float, expected: str) -> None:
    assert nearness(cosine) == expected


def test_questions_that_were_trained_on_are_counted_for_each_stage() -> None:
    used = {
        "sft": [{"context": "", "question": "What is  ST elevation?"}, {"context": "", "question": "Which leads?"}],
        "grpo": [{"context": "", "question": "Which leads?"}],
    }
    rows = [
        {"cosine": 1.0, "grpo_cosine": 0.2, "copied_base": None},
        {"cosine": 0.95, "grpo_cosine": 0.95, "copied_base": 0.6},
        {"cosine": 0.1, "grpo_cosine": 0.0, "copied_base": 0.2},
    ]
    figures = summary(rows, used, ["what is st elevation?", "Which lead?", "Why?"], ["base"])
    assert figures["stages"]["sft"] == {"used": 2, "same": 1, "from_0.9": 2, "highest": 1.0}
    assert figures["stages"]["grpo"] == {"used": 1, "same": 0, "from_0.9": 1, "highest": 0.95}
    assert figures["copied"]["base"] == {"answers": 2, "half_or_more": 1, "mean": pytest.approx(0.4)}


def test_second_references_are_other_answers_to_the_same_question() -> None:
    def record(question: str, answer: str, context: str = "") -> dict[str, str]:
        return {"context": context, "question": question, "answer": answer}

    records = [
        record("Which leads?", "II and III."),
        record("which leads", "Leads II, III."),
        record("Which leads?", "II and III"),  # the first one again
        record("Which leads?", "V1", context="Anterior."),
        record("How wide is ≥ 2 mm?", "wide"),
        record("How wide is ≤ 2 mm?", "narrow"),
    ]
    assert second_references(records) == ["Leads II, III.", "II and III.", "Leads II, III.", None, None, None]
