"""Numbers, units, ranges and comparisons are read as a cardiologist reads them."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecg_grpo.quantities import UNITS, number_agreement, quantities


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The PR interval is 120 to 200 ms.", [(120, 200, "=", "ms")]),
        ("0.12–0.20 s", [(120, 200, "=", "ms")]),
        ("at least 120 ms", [(120, 120, ">", "ms")]),
        ("QRS ≥ 0.12 s", [(120, 120, ">", "ms")]),
        ("120 ms or more", [(120, 120, ">", "ms")]),
        ("greater than or equal to 120 ms", [(120, 120, ">", "ms")]),
        ("below 60 bpm", [(60, 60, "<", "bpm")]),
        ("no more than 2.5 mm tall", [(Fraction(5, 2), Fraction(5, 2), "<", "mm")]),
        ("60-100 beats per minute", [(60, 100, "=", "bpm")]),
        ("60 -100 bpm", [(60, 100, "=", "bpm")]),
        ("between 30 and 60 minutes", [(1_800_000, 3_600_000, "=", "ms")]),
        ("-30° to +90°", [(-30, 90, "=", "°")]),
        ("axis from -30 to 90 degrees", [(-30, 90, "=", "°")]),
        ("a resting potential of -90 mV", [(-90, -90, "=", "mV")]),
        ("more than 2 mm in V2 and V3", [(2, 2, ">", "mm")]),
        ("1,200 mg a day", [(1200, 1200, "=", "mg")]),
        ("three to five days", [(259_200_000, 432_000_000, "=", "ms")]),
        ("25 mm/s and 10 mm/mV", [(25, 25, "=", "mm/s"), (10, 10, "=", "mm/mV")]),
        ("1 mm (0.1 mV)", [(1, 1, "=", "mm"), (Fraction(1, 10), Fraction(1, 10), "=", "mV")]),
        ("2:1 block", [(2, 1, "=", ":")]),
        ("65 years and older", [(780, 780, ">", "month")]),
        ("5.5 mmol/L", [(Fraction(11, 2), Fraction(11, 2), "=", "mmol/L")]),
        ("QTc above 500", [(500, 500, ">", "")]),
        ("QTc>500ms", [(500, 500, ">", "ms")]),
        ("LVEF≤35%", [(35, 35, "<", "%")]),
        ("QRS ⩾ 120 ms", [(120, 120, ">", "ms")]),
        ("< ~120 ms", [(120, 120, "<", "ms")]),
        ("more than about 120 ms", [(120, 120, ">", "ms")]),
        ("does not exceed 200 ms", [(200, 200, "<", "ms")]),
        ("shouldn't exceed 200 ms", [(200, 200, "<", "ms")]),
        ("must not be above 200 ms", [(200, 200, "<", "ms")]),
        ("without exceeding 6 mg", [(6, 6, "<", "mg")]),
        ("never less than 60 bpm", [(60, 60, ">", "bpm")]),
        ("no longer than 120 ms", [(120, 120, "<", "ms")]),
        ("not less than 2.5 mm", [(Fraction(5, 2), Fraction(5, 2), ">", "mm")]),
        ("moreover 5 mm", [(5, 5, "=", "mm")]),
        ("a pressure below 130/80 mmHg", [(130, 80, "<", "/")]),
        ("on 12/05/2024, and/or 3/x", []),
        ("75 kg and 10 ng/L", [(75_000_000, 75_000_000, "=", "mg"), (10, 10, "=", "ng/L")]),
        ("leads V1 to V3, a 12-lead ECG, S1Q3T3, CHA2DS2-VASc, P2Y12 and the 2nd degree", []),
        ("one of the leads", []),
    ],
)
def test_reads(text: str, expected: list[tuple]) -> None:
    assert [(found.low, found.high, found.direction, found.unit) for found in quantities(text)] == expected


@pytest.mark.parametrize(
    ("prediction", "reference", "score"),
    [
        ("0.12 s", "120 ms", 1),
        ("≥ 120 ms", "at least 0.12 seconds", 1),
        ("≥ 120 ms", "≤ 120 ms", 0),
        ("120 ms", "≥ 120 ms", 0),
        ("60 to 100", "60–100 bpm", 1),
        ("60 to 110 bpm", "60–100 bpm", 0),
        ("120 ms", "120 mV", 0),
        ("120 and 140 and 160 ms", "120 ms", 0.5),
        ("It is wide.", "120 ms", 0),
        ("two of 120 ms, 120 ms", "120 ms", 2 / 3),
        ("3:1", "2:1 conduction", 0),
        ("180/110 mmHg", "130/80 mm Hg", 0),
        ("130/80", "130/80 mm Hg", 1),
        ("QTc<500 ms", "QTc>500 ms", 0),
        ("5 mL", "5 mg", 0),
    ],
)
def test_agreement(prediction: str, reference: str, score: float) -> None:
    assert number_agreement(prediction, reference) == pytest.approx(score)


def test_no_quantity_in_the_reference_is_no_score() -> None:
    assert number_agreement("120 ms", "Wide.") is None


@given(st.integers(1, 5000), st.sampled_from(sorted(UNITS)))
def test_every_unit_is_read_and_equals_itself_in_its_base(number: int, unit: str) -> None:
    base, factor = UNITS[unit]
    (found,) = quantities(f"about {number} {unit} in all")
    assert (found.unit, found.low) == (base, number * factor)


@given(st.text(alphabet=st.sampled_from("0123456789 .,:-–/%+()≥<msVto and"), max_size=60))
@settings(max_examples=500, deadline=None)
def test_any_text_is_read_without_an_error(text: str) -> None:
    for found in quantities(text):
        assert found.unit in {":", "/"} or found.low <= found.high


@pytest.mark.parametrize("text", ["1 mſ", "5 mın", "273 K", "9" * 5000, "1." + "9" * 5000 + " ms", "9" * 5000 + ":1", "4 µV"])
def test_letters_that_only_fold_to_a_unit_and_endless_numbers_raise_nothing(text: str) -> None:
    assert len(quantities(text)) <= 1
    number_agreement(text, "at least 1 ms")
