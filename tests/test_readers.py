"""Every raw shape becomes records; no shape ends in a traceback and no row is lost."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from raw_shapes import ROWS, SUMMARY, write_raw_files

from ecg_grpo.errors import InputError
from ecg_grpo.raw_files import BY_CODE, RAW_FILES, find_raw_files, git_blob_sha1, in_reading_order
from ecg_grpo.readers import ENTITY_QUESTION, RISK_QUESTION, read_records
from ecg_grpo.records import Quarantined, Record

CONTEXT = f"Patient's ECG summary: {SUMMARY}"


def read(folder: Path, code: str, rows: list) -> list:
    return read_records(write_raw_files(folder, **{code: rows}) / BY_CODE[code].name)


def test_eleven_shapes_are_known() -> None:
    assert [raw.code for raw in RAW_FILES] == list(ROWS)
    assert len({raw.git_blob for raw in RAW_FILES}) == len(RAW_FILES) == 11


@pytest.mark.parametrize("code", ["EBK", "CK", "CD", "PP", "PRTK"])
def test_knowledge_files(code: str, tmp_path: Path) -> None:
    (found,) = read(tmp_path, code, ROWS[code])
    row = ROWS[code][0]
    assert (found.id, found.task, found.source_row, found.turn) == (f"{code}-00000", code, 0, None)
    assert (found.question, found.answer) == tuple(list(row.values())[-2:])
    assert found.context == {"CD": "Disease: Chagas Cardiomyopathy", "PP": f"Medical advice: {row.get('medical_advice')}"}.get(
        code, ""
    )
    assert found.subject == ("disease:chagas cardiomyopathy" if code == "CD" else "")
    assert found.stands_alone


def test_cross_modal_swaps_question_and_answer_and_gives_the_report(tmp_path: Path) -> None:
    (found,) = read(tmp_path, "CMD", ROWS["CMD"])
    assert found.question == "What does this ECG show?"
    assert found.answer == "Sinus rhythm with left axis deviation."
    assert found.context == (
        "ECG report:\n- Sinus rhythm\n- Left axis deviation\n- Abnormal ECG\n"
        "Measurements: RR interval 857 ms; P onset 40 ms; P end 150 ms; QRS onset 194 ms; QRS end 298 ms; P axis 51 degrees; "
        "QRS axis -38 degrees\n"
        "Recording: bandwidth 0.005-150 Hz; filtering 60 Hz notch Baseline filter"
    )
    assert found.patient_numbers == ("10099991", "40000017", "6848296")
    assert "10099991" not in found.subject
    assert not found.stands_alone


def test_dialogues_become_a_record_a_turn_with_the_earlier_turns(tmp_path: Path) -> None:
    found = read(tmp_path, "MROD", ROWS["MROD"])
    assert [record.id for record in found] == ["MROD-00000-00", "MROD-00000-01", "MROD-00001-00", "MROD-00001-01"]
    assert all(record.context == CONTEXT for record in found)
    assert found[0].history == ()
    assert found[1].history == (("Why do I feel dizzy?", "Your heart beats slowly, 48 times a minute."),)
    assert found[1].question == "Is that dangerous?"
    assert found[3].history == (("What delays the beat?", "The AV node conducts it late."),)
    assert found[3].answer == "Not while you have no syncope."
    assert found[0].subject == found[1].subject != found[2].subject


def test_an_unusable_turn_is_not_part_of_the_history(tmp_path: Path) -> None:
    turns = [{"Q": "", "A": "An answer to nothing."}, {"Q": 5, "A": "x"}, {"Q": "Is it severe?", "A": "No, it is mild."}]
    empty, unreadable, last = read(tmp_path, "MROD", [{"subject_id": 1, "result": SUMMARY, "QA": turns}])
    assert isinstance(empty, Record)
    assert isinstance(unreadable, Quarantined)
    assert unreadable.evidence == f"{BY_CODE['MROD'].name}: row 0: key 'QA[1]': key 'Q': must be text, found int"
    assert last.history == ()
    assert last.id == "MROD-00000-02"


def test_long_texts(tmp_path: Path) -> None:
    (found,) = read(tmp_path, "LTD", ROWS["LTD"])
    assert (found.question, found.answer, found.context) == ("Which diagnosis fits?", "Sinus node disease is likely.", CONTEXT)
    same = read(tmp_path, "LTD", [ROWS["LTD"][0] | {"subject_id": 10099994}])[0]
    assert same.subject == found.subject


def test_memory_correction_has_a_record_for_each_answer_of_the_doctor(tmp_path: Path) -> None:
    first, second = read(tmp_path, "MC", ROWS["MC"])
    assert first.context == f"{CONTEXT}\n\nThe doctor begins: Good morning, what brings you here?"
    assert first.question == "I fainted on Monday.\nDaughter: It was Tuesday."
    assert first.answer == "On Tuesday, then. Did your heart race?"
    assert (second.question, second.answer) == ("No, it felt slow.", "I correct my note: slow, not fast.")
    assert second.history == ((first.question, first.answer),)


def test_a_question_that_nobody_answers_is_kept_to_be_quarantined(tmp_path: Path) -> None:
    talk = {"visit": [{"Patient": "Am I well?"}, {"AI Assistant": "You are."}, {"Patient": "Thank you."}]}
    answered, open_end = read(tmp_path, "MC", [{"subject_id": 1, "result": SUMMARY, "Conversation": talk}])
    assert answered.answer == "You are."
    assert (open_end.question, open_end.answer) == ("Thank you.", "")


def test_reports_and_entities_get_a_question(tmp_path: Path) -> None:
    (report,) = read(tmp_path, "GRA", ROWS["GRA"])
    assert (report.question, report.context) == (RISK_QUESTION, CONTEXT)
    listed, written = read(tmp_path, "MEE", ROWS["MEE"])
    assert listed.question == ENTITY_QUESTION
    assert listed.answer == written.answer == "sinus bradycardia, first-degree AV block"


@pytest.mark.parametrize(
    ("code", "change", "expected"),
    [
        ("EBK", {"A": None}, "row 0: key 'A': must be text, found NoneType"),
        ("EBK", {"A": ["b"]}, "row 0: key 'A': must be text, found list"),
        ("EBK", {"A": "\ud800"}, "row 0: key 'A': holds half a character"),
        ("CMD", {"rr_interval": "fast"}, "row 0: key 'rr_interval': must be a number, found 'fast'"),
        ("CMD", {"report_1": {"x": 1}}, "row 0: key 'report_1': must be text, found dict"),
        ("MROD", {"subject_id": None}, "row 0: key 'subject_id': is not a patient's number"),
        ("MROD", {"QA": 7}, "row 0: key 'QA': must be a question with its answer, found int"),
        ("MROD", {"QA": []}, "row 0: the row: holds no question"),
        ("LTD", {"QA": {"diagnosis": {"Question": "Q?"}}}, "row 0: key 'QA.diagnosis': key 'A': is missing"),
        ("MC", {"Conversation": "talk"}, "row 0: key 'Conversation': must be phases of turns, found str"),
        ("MC", {"Conversation": {"a": [{"Patient": "Help"}]}}, "nobody in it answers"),
        (
            "MC",
            {"Conversation": {"a": [{"Doctor": 5}]}},
            "row 0: key 'Conversation.a[0]': key 'Doctor': must be text, found int",
        ),
        ("GRA", {"RA": True}, "row 0: key 'RA': must be text, found bool"),
        ("MEE", {"keywords": [float("nan")]}, "row 0: key 'keywords[0]': must be text, found float"),
        ("MROD", {"subject_id": "nan"}, "row 0: key 'subject_id': is not a patient's number"),
        ("LTD", {"QA": {"a\nb": 5}}, "row 0: key 'QA.a\\nb': must be a question"),
        ("MEE", {"keywords": [["x"]]}, "row 0: key 'keywords[0]': must be text, found list"),
    ],
)
def test_a_bad_row_is_quarantined_with_file_row_and_key(code: str, change: dict, expected: str, tmp_path: Path) -> None:
    good = ROWS[code][0]
    found = read(tmp_path, code, [good | change, good, good])
    bad = [entry for entry in found if isinstance(entry, Quarantined)]
    assert len(bad) == 1
    assert bad[0].reason == "unreadable"
    assert bad[0].evidence.startswith(f"{BY_CODE[code].name}: row 0: ")
    assert expected in bad[0].evidence
    assert bad[0].raw
    assert "\n" not in bad[0].evidence
    assert not re.search(r"\d{6}", bad[0].raw), "a patient's number"


def test_a_repeated_key_is_not_read_as_its_last_value(tmp_path: Path) -> None:
    file = write_raw_files(tmp_path) / BY_CODE["LTD"].name
    pair = '{"Question": "Which?", "Answer": "That one."}'
    rows = [
        f'{{"subject_id": {number}, "result": "R", "QA": {{"a": {pair}, "{key}": {pair}}}}}'
        for number, key in ((1, "a"), (2, "b"))
    ]
    file.write_text(f"[{', '.join(rows)}]")
    bad, *good = read_records(file)
    assert bad.evidence.endswith("row 0: key 'QA': must be a question with its answer, found an object with key 'a' twice")
    assert len(good) == 2


@pytest.mark.parametrize("names", [("Chagas’ disease", "Chagas' disease"), ("Chagas&#39; Disease", "Chagas'  disease")])
def test_one_disease_is_one_subject_however_it_is_written(names: tuple[str, str], tmp_path: Path) -> None:
    one, other = read(tmp_path, "CD", [ROWS["CD"][0] | {"Disease": name} for name in names])
    assert one.subject == other.subject == "disease:chagas' disease"


@pytest.mark.parametrize("number", [10099994, 10099994.0, "10099994", "10099994.0", " 10099994 "])
def test_one_patient_is_one_subject_however_the_number_is_written(number: object, tmp_path: Path) -> None:
    (found,) = read(tmp_path, "LTD", [ROWS["LTD"][0] | {"subject_id": number}])
    assert found.subject == read(tmp_path, "LTD", ROWS["LTD"])[0].subject
    assert found.patient_numbers == ("10099994",)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ('[{"Q": "a", "A": "b"}, {"Q": "c"', "not valid JSON at line 1, column"),
        ('{"Q": "a"}', "expected a JSON array of records, found dict"),
        ('["text"]', "row 0: the row: must be an object, found str (1 of 1 records cannot be read)"),
        ('[{"q": "a", "a": "b"}, {"q": "a", "a": "b"}]', "row 0: key 'Q': is missing (found: 'q', 'a') (2 of 2"),
        ('[{"Q": "a\0", "A": "b"}]', "not valid JSON"),
        ('[{"Q": ' + "9" * 5000 + "}]", "not readable JSON"),
        ("", "not valid JSON"),
        ("[" * 100_000, "JSON"),
    ],
)
def test_a_file_of_another_shape_is_refused(tmp_path: Path, content: str, expected: str) -> None:
    file = tmp_path / RAW_FILES[0].name
    file.write_text(content)
    with pytest.raises(InputError) as caught:
        read_records(file)
    assert str(file) in str(caught.value)
    assert expected in str(caught.value)
    assert caught.value.mend


@pytest.mark.parametrize("encoding", ["utf-16", "gb18030", "latin-1"])
def test_another_encoding_is_refused_with_the_place(tmp_path: Path, encoding: str) -> None:
    file = tmp_path / RAW_FILES[0].name
    file.write_bytes('[{"Q": "Größe der Welle?", "A": "Klein – ½."}]'.replace("–", "-").encode(encoding))
    with pytest.raises(InputError, match=r"not UTF-8 \(byte \d+\)"):
        read_records(file)


def test_a_byte_order_mark_is_no_problem(tmp_path: Path) -> None:
    file = tmp_path / RAW_FILES[0].name
    file.write_text(json.dumps(ROWS["EBK"]), encoding="utf-8-sig")
    assert len(read_records(file)) == 1


def test_the_folder_is_searched_for_known_names_and_no_others(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="none of the raw files"):
        find_raw_files(tmp_path)
    write_raw_files(tmp_path)
    assert [file.name for file in find_raw_files(tmp_path)] == [raw.name for raw in RAW_FILES]
    (tmp_path / BY_CODE["EBK"].name).unlink()
    assert len(find_raw_files(tmp_path)) == 10
    (tmp_path / "ECG knowledge.json").write_text("[]")
    with pytest.raises(InputError, match=r"ECG knowledge\.json: not a file of ECG-Expert-QA"):
        find_raw_files(tmp_path)
    with pytest.raises(InputError, match="not a file of ECG-Expert-QA"):
        read_records(tmp_path / "ECG knowledge.json")
    with pytest.raises(InputError, match="not a file of ECG-Expert-QA"):
        in_reading_order([tmp_path / "ECG knowledge.json"])


def test_files_are_read_in_one_order(tmp_path: Path) -> None:
    files = [tmp_path / raw.name for raw in RAW_FILES]
    assert in_reading_order(files[::-1]) == files
    with pytest.raises(InputError, match="there is another file of this name"):
        in_reading_order([*files, tmp_path / "folder" / RAW_FILES[0].name])


def test_git_blob_hash_is_git_s(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"what is up, doc?")
    assert git_blob_sha1(tmp_path / "file") == "bd9dbf5aae1a3862dd1526723246b20206e5fc37"  # the example of the Git book


KEYS = sorted({key for rows in ROWS.values() for row in rows for key in row} | {"Patient", "Doctor", "x", "report_99", "a\nb"})
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.sampled_from(["", "\ud800", "\0"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=3), inner, max_size=4),
    max_leaves=10,
)


def near_shapes(code: str) -> st.SearchStrategy:
    """Rows of the right shape in which some values are anything."""
    row = ROWS[code][0]
    return st.lists(
        st.fixed_dictionaries({}, optional={key: JSON | st.just(value) for key, value in row.items()}) | JSON, max_size=4
    )


@pytest.mark.parametrize("code", ROWS)
def test_arbitrary_json_ends_in_records_quarantine_or_one_clear_error(code: str, tmp_path: Path) -> None:
    file = tmp_path / BY_CODE[code].name

    @given(rows=near_shapes(code) | JSON)
    @settings(max_examples=150, deadline=None)
    def check(rows: object) -> None:
        file.write_text(json.dumps(rows))
        try:
            found = read_records(file)
        except InputError as error:
            assert file.name in str(error)
            assert "\n" not in str(error)
        else:
            assert {(entry.record if isinstance(entry, Quarantined) else entry).source_row for entry in found} == set(
                range(len(rows))
            )
            ids = [(entry.record if isinstance(entry, Quarantined) else entry).id for entry in found]
            assert len(set(ids)) == len(ids)

    check()


@given(data=st.binary(max_size=200))
@settings(deadline=None)
def test_any_bytes_end_in_records_or_one_clear_error(data: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    file = tmp_path_factory.getbasetemp() / RAW_FILES[0].name
    file.write_bytes(data)
    try:
        read_records(file)
    except InputError as error:
        assert file.name in str(error)
