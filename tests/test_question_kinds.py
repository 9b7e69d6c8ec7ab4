"""Kinds of questions and lengths of references, by which scores are broken down."""

from __future__ import annotations

import pytest

from ecg_grpo.question_kinds import kind_of, length_of


@pytest.mark.parametrize(
    ("question", "answer", "kind"),
    [
        ("Is it wide?", "Yes, it is wider than 120 ms.", "yes/no"),
        ("How wide is a normal QRS?", "Less than 120 ms.", "numeric"),
        ("What is the normal PR interval?", "From 120 to 200 ms.", "numeric"),
        ("Beyond what PR interval is first-degree block diagnosed?", "A PR interval above 200 ms.", "numeric"),
        ("How many leads are there?", "There are many of them.", "explanation"),
        ("Which leads show inferior infarction?", "II, III and aVF.", "list"),
        ("Name causes of ST elevation.", "Infarction, pericarditis, or early repolarisation.", "list"),
        ("What should be done?", "1. Call for help. 2. Start compressions. 3. Attach pads.", "list"),
        ("Why is the QRS wide?", "One ventricle is activated late, through muscle.", "explanation"),
        ("Why?", "Because of A, B and C.", "explanation"),
        ("Which lead is it?", "Lead II. It looks at the heart from below, along the axis, and from the left.", "explanation"),
    ],
)
def test_kinds(question: str, answer: str, kind: str) -> None:
    assert kind_of(question, answer) == kind


@pytest.mark.parametrize(
    ("words", "expected"),
    [(1, "1 to 10 words"), (10, "1 to 10 words"), (11, "11 to 25 words"), (50, "26 to 50 words"), (51, "over 50 words")],
)
def test_lengths(words: int, expected: str) -> None:
    assert length_of("word " * words) == expected
