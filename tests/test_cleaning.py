"""Texts are repaired where that is certain and quarantined where it is not; nothing is guessed."""

from __future__ import annotations

import re
import time
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecg_grpo.cleaning import LONGEST_TEXT, clean_record, clean_text, hide_patient_numbers, is_truncated, repair_mojibake
from ecg_grpo.records import Quarantined, Record


def record(**changes: object) -> Record:
    fields = {
        "id": "EBK-00000",
        "task": "EBK",
        "source_row": 0,
        "question": "What is the PR interval?",
        "answer": "The time from the start of P to the start of QRS.",
    }
    return Record(**(fields | changes))


@pytest.mark.parametrize(
    ("raw", "cleaned", "kinds"),
    [
        ("QRS < 120 ms and PR > 200 ms", "QRS < 120 ms and PR > 200 ms", []),
        ("III<I but II>III, a<b and c>d", "III<I but II>III, a<b and c>d", []),
        ('<span class="x">QRS</span> <a href=x>wide</a>', "QRS wide", ["html"]),
        ("a&#x2265;b", "a≥b", ["html"]),
        ("㎜Hg【1】", "mmHg[1]", ["full-width punctuation"]),
        ("<b>QRS</b>&nbsp;≥ 120 ms", "QRS ≥ 120 ms", ["html", "spaces"]),
        ("CHA<sub>2</sub>DS<sub>2</sub>-VASc", "CHA2DS2-VASc", ["html"]),
        ("one<br/>two<p>three</p>", "one\ntwo\nthree", ["html", "spaces"]),
        ("R&amp;D", "R&D", ["html"]),
        ("AT&T; P&L", "AT&T; P&L", []),
        ("the patient’s “wide”  QRS ", 'the patient\'s "wide" QRS', ["curly quotes", "spaces"]),
        ("e\u0301lan", "élan", ["unicode form"]),
        ("（QRS）：wide，tall", "(QRS):wide,tall", ["full-width punctuation"]),
        ("a\u200bb\ufeff", "ab", ["spaces"]),
        ("one\r\n\r\n\r\n\r\ntwo", "one\n\ntwo", ["spaces"]),
        ("axis -45掳 to", "axis -45° to", ["mojibake"]),
        ("the patient鈥檚 heart", "the patient's heart", ["mojibake", "curly quotes"]),
    ],
)
def test_repairs(raw: str, cleaned: str, kinds: list[str]) -> None:
    text, repairs = clean_text(raw)
    assert text == cleaned
    assert [repair.kind for repair in repairs] == kinds


@given(text=st.text())
def test_cleaning_twice_is_cleaning_once(text: str) -> None:
    try:
        once, _ = clean_text(text)
    except Exception as error:
        assert type(error).__name__ == "BrokenText"
        return
    assert once == once.strip()
    assert "  " not in once
    if "<" not in once and "&" not in once:  # what an entity unfolds to may be another one
        assert clean_text(once) == (once, [])


@given(text=st.text(alphabet=st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="&<"), min_size=1))
def test_plain_text_is_left_alone(text: str) -> None:
    if not any(digit in text for digit in "0123456789"):
        assert clean_text(text) == (text, [])


@given(text=st.text(alphabet=st.sampled_from("QRS ≥≤–°µ'é120ms "), min_size=1))
def test_mojibake_is_repaired_exactly_or_not_at_all(text: str) -> None:
    broken = text.encode("utf-8").decode("gb18030", errors="replace")
    repaired = repair_mojibake(broken)
    if "\ufffd" in broken:  # a byte is lost
        assert repaired is None
    elif broken != text:
        assert repaired in (text, None) or repaired == broken
        assert repaired != broken or not re.search("[\u4e00-\u9fff]", broken)


def test_a_lost_byte_is_quarantined_not_guessed() -> None:
    assert repair_mojibake("ST elevation ≥1 mm") == "ST elevation ≥1 mm"
    lost = "ST elevation 鈮? mm."
    assert repair_mojibake(lost) is None
    result, _ = clean_record(record(answer=lost))
    assert isinstance(result, Quarantined)
    assert result.reason == "mojibake"
    assert result.evidence == "ECG Knowledge (Basic Q&A).json: row 0: answer: ST elevation 鈮? mm."


@pytest.mark.parametrize(
    ("raw", "neutral"),
    [
        ("Patient 10012345 shows sinus rhythm.", "The patient shows sinus rhythm."),
        ("The patient (ID: 10000032) has AF.", "The patient has AF."),
        ("For the patient with subject ID 10000032 we advise rest.", "For the patient we advise rest."),
        ("Subject ID: 10000032.", "The patient."),
        ("In study 40689238 the axis is normal.", "In the recording the axis is normal."),
        ("Recorded 2180-07-23 08:44:00 at rest.", "Recorded the recorded date at rest."),
        ("Number 77000123 came late.", "Number the patient came late."),
        ("The patient took 12500 steps; QRS 120 ms.", "The patient took 12500 steps; QRS 120 ms."),
        ("Guidelines of 2018-2020 apply.", "Guidelines of 2018-2020 apply."),
        ("subject_id: 10000032, study_id 40689238", "the patient, the recording"),
        ("Patients 10012345 and 10012346 rest.", "The patient and the patient rest."),
        ("ECG of 2180/07/23 and July 23, 2180", "ECG of the recorded date and the recorded date"),
        ("In this case 100000 IU of heparin", "In this case 100000 IU of heparin"),
        ("In a patient 1500000 IU of streptokinase", "In a patient 1500000 IU of streptokinase"),
        ("In one study 250000 patients were seen", "In one study 250000 patients were seen"),
    ],
)
def test_patient_numbers_become_neutral(raw: str, neutral: str) -> None:
    assert hide_patient_numbers(raw, ["77000123"]) == neutral


def test_the_account_of_a_removed_number_does_not_repeat_it() -> None:
    result, repairs = clean_record(record(answer="Patient 10012345’s ECG rests."))
    assert result.answer == "The patient's ECG rests."
    assert [repair.kind for repair in repairs] == ["curly quotes", "patient number"]
    assert "10012345" not in str(repairs)


@pytest.mark.parametrize("answer", ["Patient 10012345 has 鈮? mm", "Patient 10012345\0"])
def test_the_quarantine_holds_no_patient_s_number(answer: str) -> None:
    result, _ = clean_record(record(answer=answer, context="Subject 77000123.", patient_numbers=("77000123",)))
    assert isinstance(result, Quarantined)
    assert not re.search(r"\d{6}", str(replace(result.record, patient_numbers=())) + result.evidence)


@pytest.mark.parametrize("text", ["&#0;", "&#xFFFD;", "a &#x94c1; b", "the 模 pattern"])
def test_what_an_entity_or_a_guess_would_bring_in_is_quarantined(text: str) -> None:
    result, _ = clean_record(record(question=text))
    assert isinstance(result, Quarantined)
    assert result.reason in ("control character", "mojibake")


@pytest.mark.parametrize("piece", ["-", "<!--", "<a ", "a<b x=", "ID ", "patient ", "&#", "patient ID 1", "   ", "1234567"])
def test_no_text_takes_long(piece: str) -> None:
    for text in (piece * (100_000 // len(piece)), piece * (100_000 // len(piece)) + "x 123456"):
        started = time.process_time()
        clean_record(record(answer=text, question=text))
        is_truncated(text, False)
        assert time.process_time() - started < 2


@pytest.mark.parametrize(
    ("answer", "prose", "cut"),
    [
        ("You can demand it.", True, False),
        ('He said "yes."', True, False),
        ("You can demand that your results be excluded", True, True),
        ("Sinus tachycardia", False, False),
        ("Yes", True, False),
        ("Causes include:\n- ischemia\n- drugs", True, False),
        ("The causes are:", True, True),
        ("severe AS", False, False),
        ("Sinus rhythm. Possible left atrial enlargement", False, False),
        ("It is due to paroxysmal AT", False, False),
        ("Sinus tachycardia with", False, True),
        ("Sinus rhythm, left axis,", False, True),
        ("The rhythm is regular. The patient should therefore stay under", False, True),
        ("The rhythm is regular. Rate 60", False, False),
        ("Plan:\n- repeat the ECG\n- stop the drug. Then call the cardiologist again", False, False),
    ],
)
def test_truncation(answer: str, prose: bool, cut: bool) -> None:
    assert is_truncated(answer, prose) is cut


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"question": " \u00a0 "}, "empty question"),
        ({"answer": "<br>"}, "empty answer"),
        ({"answer": "You have the right to demand that your results be excluded"}, "truncated answer"),
        ({"question": "What is\0 it?"}, "control character"),
        ({"context": "a" * (LONGEST_TEXT + 1)}, "text too long"),
    ],
)
def test_unusable_records_are_quarantined_with_reason_and_place(changes: dict, reason: str) -> None:
    result, _ = clean_record(record(**changes))
    assert isinstance(result, Quarantined)
    assert result.reason == reason
    assert result.evidence.startswith("ECG Knowledge (Basic Q&A).json: row 0")
    assert len(result.record.context) <= 2100


def test_a_hundred_megabytes_in_one_string_are_refused_at_once() -> None:
    result, _ = clean_record(record(answer="heart " * 17_000_000))
    assert isinstance(result, Quarantined)
    assert result.reason == "text too long"
    assert "102000000 characters" in result.evidence


def test_history_is_cleaned_too_and_broken_turns_are_left_out() -> None:
    turns = (
        ("Is it  wide?", "Yes, the patient’s QRS."),
        ("Axis?", "鈮? degrees"),
        ("Why?", "The patient was told to stop the drug and"),
        ("Rate?", "60."),
    )
    result, _ = clean_record(record(history=turns))
    assert result.history == (("Is it wide?", "Yes, the patient's QRS."), ("Rate?", "60."))


@given(question=st.text(), answer=st.text(), context=st.text())
def test_a_record_is_either_clean_or_quarantined(question: str, answer: str, context: str) -> None:
    result, _ = clean_record(record(question=question, answer=answer, context=context))
    if isinstance(result, Record):
        assert result.question
        assert result.answer
    else:
        assert result.reason
