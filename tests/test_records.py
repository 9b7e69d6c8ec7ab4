"""Readers and cleaning: no shape ends in a traceback, no record is lost, nothing is guessed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecg_grpo.errors import InputError
from ecg_grpo.records import (
    RAW_FILES,
    Quarantined,
    Record,
    clean_record,
    clean_text,
    find_raw_files,
    read_records,
    repair_mojibake,
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["Q", "A", "Disease", "x"]), inner, max_size=4),
    max_leaves=12,
)


def record(**changes: object) -> Record:
    fields = {
        "id": "EBK-00000",
        "task": "EBK",
        "source_file": RAW_FILES[0].name,
        "source_row": 0,
        "context": "",
        "question": "What is the PR interval?",
        "answer": "The time from the start of P to the start of QRS.",
    }
    return Record(**(fields | changes))


@pytest.mark.parametrize("raw", RAW_FILES, ids=lambda raw: raw.code)
def test_every_file_is_read_in_its_own_shape(raw, tmp_path: Path) -> None:
    row = {raw.question: "Which lead?", raw.answer: "Lead II."}
    if raw.context:
        row = {raw.context: "Some context"} | row
    (tmp_path / raw.name).write_text(json.dumps([row]))
    (found,) = read_records(tmp_path / raw.name)
    assert (found.id, found.task, found.source_row) == (f"{raw.code}-00000", raw.code, 0)
    assert (found.question, found.answer) == ("Which lead?", "Lead II.")
    assert found.context == (f"{raw.context_label}: Some context" if raw.context else "")
    assert bool(found.subject) == raw.groups_by_context


@given(content=JSON)
@settings(max_examples=300, deadline=None)
def test_any_json_ends_in_records_or_one_clear_error(content, tmp_path_factory: pytest.TempPathFactory) -> None:
    for raw in RAW_FILES[:3]:
        file = tmp_path_factory.getbasetemp() / raw.name
        file.write_text(json.dumps(content))
        try:
            found = list(read_records(file))
        except InputError as error:
            assert raw.name in str(error)
        else:
            assert len(found) == len(content)


@given(data=st.binary(max_size=200))
@settings(deadline=None)
def test_any_bytes_end_in_records_or_one_clear_error(data: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    file = tmp_path_factory.getbasetemp() / RAW_FILES[0].name
    file.write_bytes(data)
    try:
        list(read_records(file))
    except InputError as error:
        assert file.name in str(error)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ('[{"Q": "a", "A": "b"}, {"Q": "c"', "not valid JSON at line 1, column"),
        ('{"Q": "a"}', "expected a JSON array of records, found dict"),
        ('["text"]', "row 0: expected an object, found str"),
        ('[{"Q": "a", "A": "b"}, {"Q": "c"}]', "row 1: key 'A' is missing"),
        ('[{"Q": "a", "A": ["b"]}]', "row 0: key 'A' must be text, found list"),
        ('[{"Q": "a", "A": "\\ud800"}]', "row 0: key 'A' holds half a character"),
        ("", "not valid JSON"),
        ("[" * 100_000, "JSON"),
    ],
)
def test_errors_name_file_place_and_mend(tmp_path: Path, content: str, expected: str) -> None:
    file = tmp_path / RAW_FILES[0].name
    file.write_text(content)
    with pytest.raises(InputError) as caught:
        list(read_records(file))
    assert str(file) in str(caught.value)
    assert expected in str(caught.value)
    assert caught.value.mend


def test_unknown_file_and_empty_folder_are_refused(tmp_path: Path) -> None:
    (tmp_path / "other.json").write_text("[]")
    with pytest.raises(InputError, match="none of the raw files"):
        find_raw_files(tmp_path)
    with pytest.raises(InputError, match="not a known file"):
        list(read_records(tmp_path / "other.json"))


@given(text=st.text())
def test_cleaning_twice_is_cleaning_once_and_leaves_no_runs_of_spaces(text: str) -> None:
    once = clean_text(text)
    assert "  " not in once
    assert once == once.strip()
    if "<" not in text and "&" not in text:  # an entity may unfold to another one
        assert clean_text(once) == once


def test_cleaning_keeps_comparisons_and_drops_markup() -> None:
    assert clean_text("QRS < 120 ms and PR > 200 ms") == "QRS < 120 ms and PR > 200 ms"
    assert clean_text("<b>QRS</b>&nbsp;≥ 120 ms,  “wide”") == 'QRS ≥ 120 ms, "wide"'


@given(text=st.text(alphabet=st.sampled_from("QRS ≥≤–°µ'é120ms "), min_size=1))
def test_mojibake_is_repaired_exactly_or_not_at_all(text: str) -> None:
    broken = text.encode("utf-8").decode("gb18030", errors="replace")
    repaired = repair_mojibake(broken)
    assert repaired in (text, None) or broken == repaired


def test_a_lost_byte_is_quarantined_not_guessed() -> None:
    assert repair_mojibake("ST elevation ≥1 mm") == "ST elevation ≥1 mm"
    lost = "ST elevation 鈮? mm."
    assert repair_mojibake(lost) is None
    result, _ = clean_record(record(answer=lost))
    assert isinstance(result, Quarantined)
    assert result.reason == "mojibake"
    assert "鈮" in result.evidence


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"question": " \u00a0 "}, "empty question"),
        ({"answer": ""}, "empty answer"),
        ({"answer": "You have the right to demand that your results be excluded"}, "truncated answer"),
    ],
)
def test_unusable_records_are_quarantined_with_their_reason(changes: dict, reason: str) -> None:
    result, _ = clean_record(record(**changes))
    assert isinstance(result, Quarantined)
    assert result.reason == reason


@given(question=st.text(), answer=st.text(), context=st.text())
def test_a_record_is_either_clean_or_quarantined(question: str, answer: str, context: str) -> None:
    result, _ = clean_record(record(question=question, answer=answer, context=context))
    if isinstance(result, Record):
        assert result.question
        assert result.answer
    else:
        assert result.reason
