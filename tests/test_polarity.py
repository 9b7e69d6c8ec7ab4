"""Which side a text takes, and whether two texts take the same."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecg_grpo.polarity import OPPOSITES, polarity_agreement, stances, yes_or_no


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Yes, it is.", "yes"),
        ("No. It is not.", "no"),
        ("“No”, says the guideline", "no"),
        ("No one knows.", None),
        ("Nodal rhythm.", None),
        ("Not always", None),
        ("No-reflow occurs.", None),
    ],
)
def test_yes_or_no_is_the_first_word(text: str, expected: str | None) -> None:
    assert yes_or_no(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Beta blockers are contraindicated.", {"indication": -1}),
        ("Beta blockers are not indicated.", {"indication": -1}),
        ("It is not contraindicated.", {"indication": 1}),
        ("The axis is normal.", {"normality": 1}),
        ("It isn’t normal", {"normality": -1}),
        ("Not in athletes. It is normal.", {"normality": 1}),
        ("No, the PR interval is prolonged.", {"answer": -1, "duration": 1}),
        ("No ST elevation.", {"answer": -1, "level": -1}),
        ("Normal or abnormal.", {}),
        ("P waves are absent", {"presence": -1}),
        ("The rate didn't increase.", {"level": -1}),
        ("It wouldn’t be safe", {"safety": -1}),
        ("Troponin is not only elevated but rising", {"level": 1}),
        ("It is no longer safe.", {"safety": -1}),
        ("No", {"answer": -1}),
        ("No-reflow is common", {}),
    ],
)
def test_stances(text: str, expected: dict[str, int]) -> None:
    assert stances(text) == expected


@pytest.mark.parametrize(
    ("prediction", "reference", "score"),
    [
        ("Yes.", "Yes, it is prolonged.", 0.5),
        ("Yes, prolonged.", "Yes, it is prolonged.", 1),
        ("No, it is shortened.", "Yes, it is prolonged.", 0),
        ("It is not indicated.", "It is contraindicated.", 1),
        ("yes no normal abnormal", "It is normal.", 0),
        ("", "It is normal.", 0),
    ],
)
def test_agreement(prediction: str, reference: str, score: float) -> None:
    assert polarity_agreement(prediction, reference) == score


def test_a_reference_without_a_side_is_no_score() -> None:
    assert polarity_agreement("Yes", "Leads II, III and aVF.") is None


def test_no_word_stands_on_both_sides() -> None:
    words = [word for sides in OPPOSITES.values() for side in sides for word in side.split("|")]
    assert len(words) == len(set(words))


@pytest.mark.parametrize("pair", OPPOSITES.values(), ids=OPPOSITES)
def test_the_opposite_word_turns_the_score(pair: tuple[str, str]) -> None:
    one, other = (side.split("|")[0] for side in pair)
    assert polarity_agreement(f"It is {one}.", f"This is {one}.") == 1
    assert polarity_agreement(f"It is {other}.", f"This is {one}.") == 0
    assert polarity_agreement(f"It is not {one}.", f"This is {one}.") == 0


@given(st.text(max_size=80), st.text(max_size=80))
@settings(deadline=None)
def test_any_texts_get_a_score_from_0_to_1(prediction: str, reference: str) -> None:
    score = polarity_agreement(prediction, reference)
    assert score is None or 0 <= score <= 1
