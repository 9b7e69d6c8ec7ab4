"""The raw files of ECG-Expert-QA and what one of their records means.

Public home of the data: Zaozzz/ECG-Expert-QA; paper: arXiv 2502.17475. Each file is one JSON array of flat objects;
the files differ in their keys and in what has to be known for a question to be answerable.
"""

from __future__ import annotations

import html
import json
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from ecg_grpo.errors import InputError


@dataclass(frozen=True)
class RawFile:
    """One of the data set's files: its short code, its name, and the keys of its records."""

    code: str
    name: str
    question: str
    answer: str
    context: str | None = None
    context_label: str = ""
    groups_by_context: bool = False
    """Whether records with one context (one disease) must stay in one split."""


RAW_FILES = (
    RawFile("EBK", "ECG Knowledge (Basic Q&A).json", "Q", "A"),
    RawFile("CK", "Cardiology Knowledge (Basic Knowledge Q&A).json", "Q", "A"),
    RawFile(
        *("CD", "Complex diagnosis (analysis of difficult diseases).json", "Q", "A"),
        context="Disease",
        context_label="Disease",
        groups_by_context=True,
    ),
    RawFile(
        *("PP", "Patient prognosis (prognostic analysis).json", "Q", "A"),
        context="medical_advice",
        context_label="Medical advice",
    ),
    RawFile("PRTK", "Patient's right to know.json", "Question", "Answer"),
)
"""The five knowledge files, in the order in which their records are numbered."""


@dataclass(frozen=True)
class Record:
    """A question with its reference answer.

    Attributes:
        id: file code and 0-based row, e.g. `CD-00012`; the same in every artifact.
        task: the file's code.
        source_file: the file's name.
        source_row: 0-based position in the file's array.
        context: what has to be known to answer; empty for none.
        question: the question, cleaned.
        answer: the reference answer, cleaned.
        subject: records with the same non-empty subject belong in one split.
    """

    id: str
    task: str
    source_file: str
    source_row: int
    context: str
    question: str
    answer: str
    subject: str = ""


@dataclass(frozen=True)
class Quarantined:
    """A record that is kept apart, with the reason and the piece of text that shows it."""

    record: Record
    reason: str
    evidence: str


def find_raw_files(raw_dir: str | Path) -> list[Path]:
    """The knowledge files that a folder holds, in the order of `RAW_FILES`.

    Raises:
        InputError: the folder does not exist or holds none of them.
    """
    raw_dir = Path(raw_dir)
    mend = "Set data.raw_dir in the configuration to a folder with ECG-Expert-QA's JSON files."
    if not raw_dir.is_dir():
        raise InputError(raw_dir, "this raw data folder does not exist", mend)
    found = [raw_dir / raw.name for raw in RAW_FILES if (raw_dir / raw.name).is_file()]
    if not found:
        expected = "; ".join(raw.name for raw in RAW_FILES)
        raise InputError(raw_dir, f"none of the raw files is in this folder (expected one or more of: {expected})", mend)
    return found


def read_records(file: Path) -> Iterator[Record]:
    """The records of one raw file, in order, texts unchanged.

    Raises:
        InputError: not one of the known files, not JSON, or a record of another shape; names file, row and key.
    """
    raw = next((raw for raw in RAW_FILES if raw.name == file.name), None)
    if raw is None:
        known = "; ".join(raw.name for raw in RAW_FILES)
        raise InputError(file, "not a known file of ECG-Expert-QA", f"Known names: {known}.")
    for row, item in enumerate(_load_array(file)):
        where = f"{file}: row {row}"
        if not isinstance(item, dict):
            raise InputError(where, f"expected an object, found {type(item).__name__}", "Mend or remove the row.")
        texts = {}
        for key in filter(None, (raw.context, raw.question, raw.answer)):
            if key not in item:
                raise InputError(
                    where, f"key {key!r} is missing (found: {', '.join(map(repr, item)) or 'none'})", "Mend the row."
                )
            if not isinstance(item[key], str):
                raise InputError(
                    where, f"key {key!r} must be text, found {type(item[key]).__name__}", "Mend or remove the row."
                )
            try:
                item[key].encode("utf-8")
            except UnicodeEncodeError:
                raise InputError(where, f"key {key!r} holds half a character (a lone surrogate)", "Mend the row.") from None
            texts[key] = item[key]
        context = texts.get(raw.context, "")
        yield Record(
            id=f"{raw.code}-{row:05d}",
            task=raw.code,
            source_file=raw.name,
            source_row=row,
            context=f"{raw.context_label}: {context}" if context else "",
            question=texts[raw.question],
            answer=texts[raw.answer],
            subject=f"{raw.code}:{clean_text(context).casefold()}" if raw.groups_by_context else "",
        )


def _load_array(file: Path) -> list:
    mend = "The file may be cut short or was edited; take a fresh copy."
    try:
        content = json.loads(file.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise InputError(file, error.strerror or "cannot be read", "Check the path and its permissions.") from None
    except UnicodeDecodeError as error:
        raise InputError(file, f"not UTF-8 (byte {error.start})", mend) from None
    except json.JSONDecodeError as error:
        raise InputError(file, f"not valid JSON at line {error.lineno}, column {error.colno} ({error.msg})", mend) from None
    except RecursionError:
        raise InputError(file, "JSON nested too deeply", mend) from None
    if not isinstance(content, list):
        raise InputError(file, f"expected a JSON array of records, found {type(content).__name__}", mend)
    return content


_QUOTES = str.maketrans({"‘": "'", "’": "'", "‚": "'", "“": '"', "”": '"', "„": '"', "\u00a0": " "})
_TAG = re.compile(r"</?[a-zA-Z][^<>]*>")
_NOT_FROM_ENGLISH = re.compile("[\u2e80-\u9fff\uac00-\ud7af\ue000-\uf8ff\uff00-\uffef\ufffd]")
_ENDS_WELL = re.compile(r"[.!?:;%)\]'\"]$|[.!?]['\")\]]$")


def clean_text(text: str) -> str:
    """Text in Unicode NFC without HTML tags and entities, with plain quotes and single spaces, stripped."""
    text = unicodedata.normalize("NFC", html.unescape(_TAG.sub(" ", text)))
    return " ".join(text.translate(_QUOTES).split())


def repair_mojibake(text: str) -> str | None:
    """UTF-8 that was once read as GBK, turned back.

    Returns:
        The text itself if nothing is wrong with it, the repaired text, or None if a byte was lost: then the original
        (often a "≥" in front of a threshold) cannot be known and must not be guessed.
    """
    if not _NOT_FROM_ENGLISH.search(text):
        return text
    try:
        repaired = text.encode("gb18030").decode("utf-8")
    except UnicodeError:
        return None
    return None if _NOT_FROM_ENGLISH.search(repaired) else repaired


def clean_record(record: Record) -> tuple[Record | Quarantined, list[str]]:
    """A record ready for use, or the reason why it is not.

    Returns:
        The cleaned record or its quarantine, and what was repaired (`mojibake`, `normalised`).
    """
    repairs: list[str] = []
    for name in ("context", "question", "answer"):
        text = getattr(record, name)
        repaired = repair_mojibake(text)
        if repaired is None:
            found = _NOT_FROM_ENGLISH.search(text)
            return Quarantined(record, "mojibake", f"{name}: {_around(text, found.start())}"), repairs
        if repaired != text:
            repairs.append("mojibake")
        cleaned = clean_text(repaired)
        if cleaned != repaired:
            repairs.append("normalised")
        record = replace(record, **{name: cleaned})
    if not record.question:
        return Quarantined(record, "empty question", ""), repairs
    if not record.answer:
        return Quarantined(record, "empty answer", ""), repairs
    if not _ENDS_WELL.search(record.answer):
        return Quarantined(record, "truncated answer", record.answer[-40:]), repairs
    return record, sorted(set(repairs))


def _around(text: str, position: int, width: int = 20) -> str:
    return text[max(0, position - width) : position + width]
