"""One small reader for each shape in which ECG-Expert-QA keeps its records.

A reader turns one row of a raw file into records, texts unchanged. A row or a turn that cannot be read becomes a quarantined
record that names file, row and key: no row disappears.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ecg_grpo.cleaning import BrokenText, clean_text, hide_patient_numbers
from ecg_grpo.errors import InputError
from ecg_grpo.raw_files import RawFile, raw_file_named
from ecg_grpo.records import MOST_RAW, Quarantined, Record

Row = Mapping[str, Any]
Read = Record | Quarantined

ENTITY_QUESTION = "List the medical entities (findings, diagnoses, measurements) in this patient's ECG summary."
RISK_QUESTION = "Write a cardiac risk assessment report for this patient."
"""Two files hold answers without a question; these stand in for it."""


class _Unreadable(Exception):
    """A row or turn of another shape; `key` is where, `what` is the problem."""

    def __init__(self, key: str, what: str) -> None:
        super().__init__(f"{key}: {what}")


def read_records(file: Path) -> list[Read]:
    """Everything that one raw file holds, in order.

    Raises:
        InputError: not one of the known files, not JSON, not an array, or more than half of it cannot be read, which is
            another shape and not a few bad rows.
    """
    raw = raw_file_named(file)
    found: list[Read] = []
    for row, item in enumerate(_load_array(file)):
        found += _read_row(raw, row, item)
    unreadable = [entry for entry in found if isinstance(entry, Quarantined)]
    if len(unreadable) > len(found) / 2:
        raise InputError(
            f"{file}: row {unreadable[0].record.source_row}",
            f"{unreadable[0].evidence.split(': ', 2)[-1]} ({len(unreadable)} of {len(found)} records cannot be read)",
            "This is not the file's original shape; take a fresh copy.",
        )
    return found


def _load_array(file: Path) -> list[Any]:
    mend = "The file may be cut short or was edited; take a fresh copy."
    try:
        content = json.loads(file.read_bytes().decode("utf-8-sig"), object_pairs_hook=_object)
    except OSError as error:
        raise InputError(file, error.strerror or "cannot be read", "Check the path and its permissions.") from None
    except UnicodeDecodeError as error:
        raise InputError(file, f"not UTF-8 (byte {error.start})", mend) from None
    except json.JSONDecodeError as error:
        raise InputError(file, f"not valid JSON at line {error.lineno}, column {error.colno} ({error.msg})", mend) from None
    except RecursionError:
        raise InputError(file, "JSON nested too deeply", mend) from None
    except ValueError as error:  # an integer with more digits than Python reads
        raise InputError(file, f"not readable JSON ({error})", mend) from None
    if not isinstance(content, list):
        raise InputError(file, f"expected a JSON array of records, found {_kind(content)}", mend)
    return content


class _RepeatedKey(str):
    """Stands for an object in which a key stands twice: JSON would keep one of the two values in silence."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any] | _RepeatedKey:
    values = dict(pairs)
    if len(values) == len(pairs):
        return values
    keys = [key for key, _ in pairs]
    return _RepeatedKey(next(key for key in keys if keys.count(key) > 1))


def _kind(value: Any) -> str:
    return f"an object with key {value[:80]!r} twice" if isinstance(value, _RepeatedKey) else type(value).__name__


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and not isinstance(value, _RepeatedKey)


def _read_row(raw: RawFile, row: int, item: Any) -> list[Read]:
    try:
        if not isinstance(item, dict):
            raise _Unreadable("the row", f"must be an object, found {_kind(item)}")
        found = list(_READERS[raw.code](raw, row, item))
        if not found:
            raise _Unreadable("the row", "holds no question")
    except _Unreadable as problem:
        return [_unreadable(raw, row, None, item, problem)]
    return found


def _unreadable(raw: RawFile, row: int, turn: int | None, item: Any, problem: _Unreadable) -> Quarantined:
    record = Record(id=_id(raw, row, turn), task=raw.code, source_row=row, turn=turn, question="", answer="")
    evidence = f"{raw.name}: row {row}: {problem}".encode("utf-8", errors="backslashreplace").decode()
    return Quarantined(record, "unreadable", evidence, _as_json(item))


def _as_json(item: Any) -> str:
    try:
        text = json.dumps(item, ensure_ascii=True)  # ASCII: half a character must not reach the parquet file
    except RecursionError:
        text = "(nested too deeply to be shown)"
    numbers = re.findall(r'"(?:subject|study|cart)_id": "?(\d{5,})', text)
    text = re.sub(r'("(?:subject|study|cart)_id": )[^,}]+', r'\1"(hidden)"', text)
    text = hide_patient_numbers(text, numbers)
    return text if len(text) <= MOST_RAW else f"{text[:MOST_RAW]}… ({len(text)} characters)"


def _id(raw: RawFile, row: int, turn: int | None) -> str:
    return f"{raw.code}-{row:05d}" if turn is None else f"{raw.code}-{row:05d}-{turn:02d}"


def _text(row: Row, key: str) -> str:
    """The text under a key.

    Raises:
        _Unreadable: it is missing or something else.
    """
    if key not in row:
        raise _Unreadable(f"key {key!r}", f"is missing (found: {', '.join(map(repr, list(row)[:20])) or 'none'})")
    if not _is_text(row[key]):
        raise _Unreadable(f"key {key!r}", f"must be text, found {_kind(row[key])}")
    return _whole(row[key], f"key {key!r}")


def _whole(text: str, key: str) -> str:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise _Unreadable(key, "holds half a character (a lone surrogate)") from None
    return text


def _text_or_list(row: Row, key: str, separator: str) -> str:
    """The text under a key that some rows keep as a list of texts or as labelled texts."""
    value = row.get(key)
    if isinstance(value, list):
        parts = [_scalar(part, f"key {f'{key}[{index}]'!r}") for index, part in enumerate(value)]
    elif isinstance(value, dict):
        parts = [
            f"{label}: {text}"
            for label, part in value.items()
            if (text := _scalar(part, f"key {f'{key}.{label}'[:80]!r}").strip())
        ]
    else:
        return _text(row, key)
    return _whole(separator.join(part.strip() for part in parts if part.strip()), f"key {key!r}")


def _scalar(value: Any, key: str) -> str:
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not is_number and not _is_text(value):
        raise _Unreadable(key, f"must be text, found {_kind(value)}")
    return str(value)


# Knowledge: one question, one answer, no patient.


def _read_question(raw: RawFile, row: int, item: Row) -> Iterator[Read]:
    yield Record(_id(raw, row, None), raw.code, row, _text(item, "Q"), _text(item, "A"))


def _read_right_to_know(raw: RawFile, row: int, item: Row) -> Iterator[Read]:
    yield Record(_id(raw, row, None), raw.code, row, _text(item, "Question"), _text(item, "Answer"))


def _read_disease(raw: RawFile, row: int, item: Row) -> Iterator[Read]:
    disease = _text(item, "Disease")
    yield Record(
        *(_id(raw, row, None), raw.code, row, _text(item, "Q"), _text(item, "A")),
        context=f"Disease: {disease}" if disease.strip() else "",
        subject=f"disease:{_comparable(disease)}" if disease.strip() else "",
    )


def _comparable(text: str) -> str:
    """A name whatever its case, quotes and spaces; one that cannot be cleaned is itself, and its record is quarantined."""
    try:
        return clean_text(text)[0].casefold()
    except BrokenText:
        return text[:200]


def _read_prognosis(raw: RawFile, row: int, item: Row) -> Iterator[Read]:
    advice = _text(item, "medical_advice")
    yield Record(
        *(_id(raw, row, None), raw.code, row, _text(item, "Q"), _text(item, "A")),
        context=f"Medical advice: {advice}" if advice.strip() else "",
    )


# Patients.


def _patient(item: Row) -> dict[str, Any]:
    """What ties a record to its patient: a hashed subject, and the numbers that must not be in its texts."""
    numbers = {}
    for key in ("subject_id", "study_id", "cart_id"):
        value = item.get(key)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        is_number = isinstance(value, int) and not isinstance(value, bool)
        text = str(value).strip() if is_number or _is_text(value) else ""
        numbers[key] = "" if text.casefold() in ("nan", "none", "null") else re.sub(r"^(\d+)\.0+$", r"\1", text)
    if not numbers["subject_id"]:
        problem = "is not a patient's number" if "subject_id" in item else "is missing"
        raise _Unreadable("key 'subject_id'", problem)
    digest = hashlib.sha256(numbers["subject_id"].encode("utf-8", errors="backslashreplace")).hexdigest()[:16]
    return {
        "subject": f"patient:{digest}",
        "patient_numbers": tuple(number for number in numbers.values() if re.fullmatch(r"\d{6,}", number)),
    }


_MEASUREMENTS = {
    "rr_interval": ("RR interval", "ms"),
    "p_onset": ("P onset", "ms"),
    "p_end": ("P end", "ms"),
    "qrs_onset": ("QRS onset", "ms"),
    "qrs_end": ("QRS end", "ms"),
    "t_end": ("T end", "ms"),
    "p_axis": ("P axis", "degrees"),
    "qrs_axis": ("QRS axis", "degrees"),
    "t_axis": ("T axis", "degrees"),
}
_NOT_MEASURED = 29999
"""What the recorders of MIMIC-IV-ECG write for a value that they could not measure."""


def _read_cross_modal(raw: RawFile, row: int, item: Row) -> Iterator[Read]:
    """The question stands under `A`, the answer under `Q`, and the question is about the report and the measurements."""
    reports = sorted((int(match[1]), key) for key in item if (match := re.fullmatch(r"report_(\d{1,4})", key)))
    lines = []
    for _, key in reports:
        if item[key] is not None and item[key] == item[key]:  # a missing line is null or NaN
            line = _whole(_scalar(item[key], f"key {key!r}"), f"key {key!r}").strip()
            lines += [f"- {line}"] if line else []
    context = ["ECG report:", *lines] if lines else []
    measured = [text for key in _MEASUREMENTS if (text := _measurement(item, key))]
    if measured:
        context.append(f"Measurements: {'; '.join(measured)}")
    recorded = []
    for key in ("bandwidth", "filtering"):
        if item.get(key) is not None and item[key] == item[key]:
            text = _whole(_scalar(item[key], f"key {key!r}"), f"key {key!r}").strip()
            recorded += [f"{key} {text}"] if text else []
    if recorded:
        context.append(f"Recording: {'; '.join(recorded)}")
    yield Record(
        *(_id(raw, row, None), raw.code, row, _text(item, "A"), _text(item, "Q")),
        context="\n".join(context),
        **_patient(item),
    )


def _measurement(item: Row, key: str) -> str:
    """`QRS axis 60 degrees`, or nothing where it was not measured."""
    value = item.get(key)
    if _is_text(value):
        try:
            value = float(value) if value.strip() else None
        except ValueError:
            raise _Unreadable(f"key {key!r}", f"must be a number, found {value[:40]!r}") from None
    if value is None or value != value:
        return ""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _Unreadable(f"key {key!r}", f"must be a number, found {_kind(value)}")
    if abs(value) >= _NOT_MEASURED:
        return ""
    label, unit = _MEASUREMENTS[key]
    return f"{label} {value:g} {unit}"


def _read_dialogue(raw: RawFile, row: int, item: Row) -> Iterator[Read]:
    """`QA` is a list of {Q, A} or a dict of {type: {Question, Answer}}; every turn becomes a record."""
    context, patient = _summary(item), _patient(item)
    if "QA" not in item:
        raise _Unreadable("key 'QA'", "is missing")
    history: list[tuple[str, str]] = []
    for turn, (key, pair) in enumerate(_pairs(item["QA"], "QA")):
        try:
            question, answer = _question_and_answer(pair, key)
        except _Unreadable as problem:
            yield _unreadable(raw, row, turn, pair, problem)
            continue
        yield Record(
            *(_id(raw, row, turn), raw.code, row, question, answer),
            context=context,
            history=tuple(history),
            turn=turn,
            **patient,
        )
        if question.strip() and answer.strip():
            history.append((question, answer))


_QUESTION_KEYS, _ANSWER_KEYS = ("Q", "Question"), ("A", "Answer")


def _pairs(value: Any, key: str, depth: int = 0) -> Iterator[tuple[str, Any]]:
    """Every question-answer pair in a list or a dict of them, with the place where it stands."""
    names = (*_QUESTION_KEYS, *_ANSWER_KEYS)
    if isinstance(value, dict) and any(name in value and not isinstance(value[name], list | dict) for name in names):
        yield key, value
    elif isinstance(value, list | dict) and depth < 3:
        places = enumerate(value) if isinstance(value, list) else value.items()
        for place, inner in places:
            yield from _pairs(inner, f"{key}[{place}]" if isinstance(value, list) else f"{key}.{place}", depth + 1)
    else:
        yield key, value


def _question_and_answer(pair: Any, key: str) -> tuple[str, str]:
    if not isinstance(pair, dict):
        raise _Unreadable(f"key {key[:80]!r}", f"must be a question with its answer, found {_kind(pair)}")
    found = []
    for names in (_QUESTION_KEYS, _ANSWER_KEYS):
        present = [name for name in names if name in pair]
        name = next((name for name in present if pair[name] not in ("", None)), [*present, names[0]][0])
        try:
            found.append(_text(pair, name))
        except _Unreadable as problem:
            raise _Unreadable(f"key {key[:80]!r}", str(problem)) from None
    return found[0], found[1]


def _summary(item: Row) -> str:
    """The patient's ECG summary as context."""
    summary = _text_or_list(item, "result", "\n")
    return f"Patient's ECG summary: {summary}" if summary.strip() else ""


_ANSWERING = {
    *("doctor", "dr", "physician", "cardiologist", "clinician", "practitioner", "specialist", "consultant", "expert"),
    *("assistant", "ai", "model", "bot", "chatbot"),
}
_ASKING = {"patient", "user", "human"}


def _read_memory_correction(raw: RawFile, row: int, item: Row) -> Iterator[Read]:
    """`Conversation` is {phase: [{role: text}, …]}; every turn in which the doctor answers becomes a record."""
    context, patient = _summary(item), _patient(item)
    if "Conversation" not in item:
        raise _Unreadable("key 'Conversation'", "is missing")
    speeches = list(_speeches(item["Conversation"], "Conversation"))
    if not any(answers for answers, _ in speeches):
        raise _Unreadable("key 'Conversation'", "nobody in it answers as a doctor or an assistant does")
    if speeches[0][0]:
        context = f"{context}\n\nThe doctor begins: {speeches.pop(0)[1]}".strip()
    history: list[tuple[str, str]] = []
    for turn in range((len(speeches) + 1) // 2):
        question = speeches[2 * turn][1]
        answer = speeches[2 * turn + 1][1] if 2 * turn + 1 < len(speeches) else ""
        yield Record(
            *(_id(raw, row, turn), raw.code, row, question, answer),
            context=context,
            history=tuple(history),
            turn=turn,
            **patient,
        )
        history.append((question, answer))


def _speeches(conversation: Any, key: str) -> Iterator[tuple[bool, str]]:
    """Who speaks (True: the answering side) and what, both sides in turn: what one side says in a row is one speech."""
    speaking: bool | None = None
    said: list[str] = []
    for role, text in _roles_and_texts(conversation, key):
        named = [word for word in re.findall(r"[a-z]+", role.split("(")[0].casefold()) if word in _ANSWERING | _ASKING]
        answers = named[-1:] != [] and named[-1] in _ANSWERING  # "AI-simulated patient" asks
        spoken = text.strip() if named else f"{role}: {text.strip()}"
        if not text.strip():
            continue
        if speaking is not None and answers != speaking:
            yield speaking, "\n".join(said)
            said = []
        speaking = answers
        said.append(spoken)
    if speaking is not None:
        yield speaking, "\n".join(said)


def _roles_and_texts(conversation: Any, key: str) -> Iterator[tuple[str, str]]:
    if isinstance(conversation, list):
        phases: Sequence[tuple[str, Any]] = [(key, conversation)]
    elif isinstance(conversation, dict):
        phases = [(f"{key}.{phase}", turns) for phase, turns in conversation.items()]
    else:
        raise _Unreadable(f"key {key[:80]!r}", f"must be phases of turns, found {_kind(conversation)}")
    for phase, turns in phases:
        if not isinstance(turns, list):
            raise _Unreadable(f"key {phase[-80:]!r}", f"must be a list of turns, found {_kind(turns)}")
        for index, turn in enumerate(turns):
            if not isinstance(turn, dict):
                raise _Unreadable(f"key {f'{phase}[{index}]'[-80:]!r}", f"must be a role with its text, found {_kind(turn)}")
            for role in turn:
                try:
                    yield _whole(role, "the role"), _text(turn, role)
                except _Unreadable as problem:
                    raise _Unreadable(f"key {f'{phase}[{index}]'[-80:]!r}", str(problem)) from None


def _read_risk_assessment(raw: RawFile, row: int, item: Row) -> Iterator[Read]:
    yield Record(
        *(_id(raw, row, None), raw.code, row, RISK_QUESTION, _text_or_list(item, "RA", "\n\n")),
        context=_summary(item),
        **_patient(item),
    )


def _read_entities(raw: RawFile, row: int, item: Row) -> Iterator[Read]:
    yield Record(
        *(_id(raw, row, None), raw.code, row, ENTITY_QUESTION, _text_or_list(item, "keywords", ", ")),
        context=_summary(item),
        **_patient(item),
    )


_READERS: dict[str, Callable[[RawFile, int, Row], Iterator[Read]]] = {
    "EBK": _read_question,
    "CK": _read_question,
    "CD": _read_disease,
    "PP": _read_prognosis,
    "PRTK": _read_right_to_know,
    "CMD": _read_cross_modal,
    "MROD": _read_dialogue,
    "LTD": _read_dialogue,
    "MC": _read_memory_correction,
    "GRA": _read_risk_assessment,
    "MEE": _read_entities,
}
