"""What is wrong with raw texts, and what is done about it: repaired where that is certain, quarantined where it is not."""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from ecg_grpo.raw_files import BY_CODE
from ecg_grpo.records import Quarantined, Record


@dataclass(frozen=True, slots=True)
class Repair:
    """A text that was changed: which kind of repair, what it was, what it became."""

    kind: str
    before: str
    after: str


LONGEST_TEXT = 200_000
"""Characters above which a text is no question, answer or context (the longest known has 16,960)."""


class BrokenText(Exception):
    """A text that cannot be repaired with certainty."""

    def __init__(self, reason: str, evidence: str) -> None:
        super().__init__(reason)
        self.reason, self.evidence = reason, evidence


def clean_record(record: Record) -> tuple[Record | Quarantined, list[Repair]]:
    """A record ready for use, or the reason why it is not, and what was repaired.

    Reasons: `text too long`, `control character`, `mojibake`, `empty question`, `empty answer`, `truncated answer`.
    """
    repairs: list[Repair] = []
    cleaned: dict[str, str] = {}
    for name in ("context", "question", "answer"):
        try:
            cleaned[name], found = clean_text(getattr(record, name), record.patient_numbers)
        except BrokenText as broken:
            shown = hide_patient_numbers(broken.evidence, record.patient_numbers)
            evidence = f"{record.source_file}: row {record.source_row}: {name}: {shown}"
            return Quarantined(_storable(record), broken.reason, evidence), repairs
        repairs += found
    where = f"{record.source_file}: row {record.source_row}"
    record = replace(record, **cleaned, history=_clean_history(record))
    if not record.question:
        return Quarantined(record, "empty question", where), repairs
    if not record.answer:
        return Quarantined(record, "empty answer", where), repairs
    if is_truncated(record.answer, BY_CODE[record.task].prose):
        return Quarantined(record, "truncated answer", f"{where}: …{record.answer[-60:]}"), repairs
    return record, repairs


def _clean_history(record: Record) -> tuple[tuple[str, str], ...]:
    """Earlier turns, without those that are quarantined themselves."""
    prose = BY_CODE[record.task].prose
    turns = (_clean_turn(question, answer, record.patient_numbers, prose) for question, answer in record.history)
    return tuple(turn for turn in turns if turn)


@lru_cache(maxsize=4096)  # each turn stands in the history of every later one
def _clean_turn(question: str, answer: str, numbers: tuple[str, ...], prose: bool) -> tuple[str, str] | None:
    try:
        question, answer = clean_text(question, numbers)[0], clean_text(answer, numbers)[0]
    except BrokenText:
        return None
    return (question, answer) if question and answer and not is_truncated(answer, prose) else None


def _storable(record: Record) -> Record:
    """The record without what the quarantine must not hold: enormous texts, NUL characters, patients' numbers."""
    texts = {name: getattr(record, name) for name in ("context", "question", "answer", "subject")}
    for name, text in texts.items():
        if len(text) > LONGEST_TEXT:
            text = f"{text[:2000]}… ({len(text)} characters)"
        texts[name] = hide_patient_numbers(text.replace("\0", "␀"), record.patient_numbers)
    return replace(record, **texts, history=_clean_history(record))


def clean_text(text: str, patient_numbers: Sequence[str] = ()) -> tuple[str, list[Repair]]:
    """A text without what does not belong into it, and what was done to get there.

    Raises:
        BrokenText: it is too long, holds control characters, or bytes of it are lost.
    """
    if len(text) > LONGEST_TEXT:
        raise BrokenText("text too long", f"{len(text)} characters (at most {LONGEST_TEXT}): {text[:60]!r}")
    if not _SUSPECT.search(text):
        return text, []
    repairs: list[Repair] = []
    for kind, repair in _REPAIRS:
        repaired = repair(text)
        if repaired != text:
            hidden = (hide_patient_numbers(version, patient_numbers) for version in (text, repaired))
            repairs.append(Repair(kind, *_where_they_differ(*hidden)))
            text = repaired
    neutral = hide_patient_numbers(text, patient_numbers)
    if neutral != text:
        # The number itself is not repeated in a report about its removal.
        repairs.append(Repair("patient number", "(not shown)", _where_they_differ(text, neutral)[1]))
    return neutral, repairs


# Whatever any repair looks for; most texts have nothing of it.
_SUSPECT = re.compile(r"[^ !-%'-;=?-~]|  |^ | $|\d{6}|2[12]\d\d")
_CONTROL = re.compile("[\0-\x08\x0e-\x1b\x7f-\x84\x86-\x9f]")
_NOT_ENGLISH = re.compile("[\u2e80-\u9fff\uac00-\ud7af\ue000-\uf8ff\uff00-\uffef\ufffd]")
# What UTF-8 read as GBK may turn back into: Latin-1, Greek, punctuation, arrows, mathematical signs.
_EXPECTED = re.compile("[\\s\x21-\x7e\xa0-\xff\u0391-\u03c9\u2010-\u203a\u2070-\u2094\u20ac\u2122\u2190-\u22ff]*")
_FULL_WIDTH = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)} | {
    ord(sign): plain
    for sign, plain in zip("\u3000、。【】《》〈〉「」〜㎜㎏", (*' ,.[]""', "<", ">", *'""~', "mm", "kg"), strict=True)
}
_QUOTES = str.maketrans({"‘": "'", "’": "'", "‚": "'", "‛": "'", "“": '"', "”": '"', "„": '"', "‟": '"'})
_ATTRIBUTES = r"""(?:\s+[\w-]+\s?=\s?(?:"[^"<>]*"|'[^'<>]*'|[^\s<>"']+))*\s?/?>"""
_BLOCK_TAG = re.compile(rf"</?(?:br|p|div|h[1-6]|hr|li|ol|ul|table|tbody|thead|td|th|tr|pre){_ATTRIBUTES}", re.IGNORECASE)
_INLINE_TAG = re.compile(rf"</?(?:a|b|i|u|em|strong|span|sub|sup|font|code|small|mark|img){_ATTRIBUTES}", re.IGNORECASE)
_INVISIBLE = re.compile("[\u200b-\u200f\u202a-\u202e\u2060\u2066-\u2069\ufeff\u00ad]")
_ENTITY = re.compile(r"&(?:#\d{1,7}|#x[0-9a-f]{1,6}|[a-z][a-z0-9]{1,30});", re.IGNORECASE)


def repair_mojibake(text: str) -> str | None:
    """UTF-8 that was once read as GBK, turned back.

    Returns:
        The text itself if nothing is wrong with it, the repaired text, or None if a byte was lost: then the original
        (often a "≥" in front of a threshold) cannot be known and must not be guessed.
    """
    if not _NOT_ENGLISH.search(text) or not _NOT_ENGLISH.search(text.translate(_FULL_WIDTH)):
        return text  # punctuation of a Chinese keyboard is no mojibake
    try:
        repaired = text.encode("gb18030").decode("utf-8")
    except UnicodeError:
        return None
    return repaired if _EXPECTED.fullmatch(repaired) else None


def _whole_mojibake(text: str) -> str:
    repaired = repair_mojibake(text)
    if repaired is None:
        raise BrokenText("mojibake", _around(text, _NOT_ENGLISH.search(text).start()))
    return repaired


def _without_control_characters(text: str) -> str:
    if found := _CONTROL.search(text):
        raise BrokenText("control character", f"U+{ord(found[0]):04X} in {_around(text, found.start())!r}")
    return text


def _without_html(text: str) -> str:
    """Text without tags and entities. `<` before a number or an unknown word is a comparison and stays."""
    if "<" in text:
        text = _INLINE_TAG.sub("", _BLOCK_TAG.sub("\n", text))
    return _ENTITY.sub(lambda entity: html.unescape(entity[0]), text) if "&" in text else text


def _single_spaces(text: str) -> str:
    """Single spaces, lines without spaces at their ends, at most one empty line, no invisible characters."""
    lines = [" ".join(line.split()) for line in _INVISIBLE.sub("", text).splitlines()]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()


# Entities first: what they stand for is checked like any other character.
_REPAIRS: tuple[tuple[str, Callable[[str], str]], ...] = (
    ("html", _without_html),
    ("control character", _without_control_characters),
    ("mojibake", _whole_mojibake),
    ("full-width punctuation", lambda text: text.translate(_FULL_WIDTH) if _NOT_ENGLISH.search(text) else text),
    ("unicode form", lambda text: unicodedata.normalize("NFC", text)),
    ("curly quotes", lambda text: text.translate(_QUOTES)),
    ("spaces", _single_spaces),
)

_NUMBER = r"\s?[:#=]?\s?#?\d{6,10}\b[)\]]?"
_ID = (
    r"\s?[(\[]?\s?(?:(?:with|of|subject|patient|study|recording|cart|case)[\s_]){0,3}(?:ID|identifier|number|no\.?|#)(?:\sis)?"
)
_NUMBER_OF_PATIENT = re.compile(rf"\b(?:(?:patients?|subjects?|cases?)(?:'s)?_?{_ID}|MRN|ID){_NUMBER}", re.IGNORECASE)
_NUMBER_OF_RECORDING = re.compile(rf"\b(?:study|studies|recordings?|ECG|cart)_?{_ID}{_NUMBER}", re.IGNORECASE)
# Numbers of MIMIC-IV: patients 1xxxxxxx, studies 4xxxxxxx. With or without the noun before them.
_BARE_NUMBER = re.compile(
    r"(?:\b(?P<patient>patients?|subjects?|cases?)\s|\b(?P<recording>study|recording|ECG)\s)?#?(?<![\d.,])(?P<first>[14])\d{7}(?![\d%]|[.,]\d)",
    re.IGNORECASE,
)
_MONTH = r"(?:Jan|Feb|Mar|Apr|May|June?|July?|Aug|Sept?|Oct|Nov|Dec)[a-z]{0,6}\.?"
_SHIFTED_DATE = re.compile(
    r"\b2[12]\d\d[-/][01]?\d[-/][0-3]?\d(?:[T ][0-2]\d:[0-5]\d(?::[0-5]\d(?:\.\d{1,6})?)?)?"
    rf"|\b{_MONTH} [0-3]?\d(?:st|nd|rd|th)?,? 2[12]\d\d\b|\b[0-3]?\d {_MONTH},? 2[12]\d\d\b"
)


def hide_patient_numbers(text: str, own: Sequence[str] = ()) -> str:
    """A text in which the numbers of patients and recordings, and dates shifted into the future, are neutral phrases.

    Args:
        text: any text.
        own: the record's own numbers, replaced wherever they stand.
    """
    if not re.search(r"\d{6}|\b2[12]\d\d", text):
        return text
    text = _NUMBER_OF_PATIENT.sub(lambda found: _neutral("patient", found), text)
    text = _NUMBER_OF_RECORDING.sub(lambda found: _neutral("recording", found), text)
    text = _BARE_NUMBER.sub(_neutral_bare, text)
    for number in own:
        text = re.sub(rf"(?<!\d){number}(?!\d)", "the patient", text)
    text = re.sub(r"\b(the)\s(?=the (?:patient|recording)\b)", "", text, flags=re.IGNORECASE)
    return _SHIFTED_DATE.sub("the recorded date", text)


def _neutral(noun: str, found: re.Match[str]) -> str:
    before = found.string[: found.start()]
    if re.search(r"\bthe\s$", before[-5:], re.IGNORECASE):
        return noun
    return f"The {noun}" if found[0][0].isupper() and found[0][:2] not in ("EC", "ID", "MR") else f"the {noun}"


def _neutral_bare(found: re.Match[str]) -> str:
    recording = found["recording"] or (found["first"] == "4" and not found["patient"])
    return _neutral("recording" if recording else "patient", found)


_CLOSED = re.compile(r"[.!?;%)\]}'\"…*_`|°²³]$")
_OPEN_WORD = re.compile(
    r"(?:[:,(\[–—/&=<>≥≤]|\b(?:an|and|as|at|because|but|by|for|from|if|in|including|into|is|are|nor|of|on|or|such as|than|that|"
    r"the|their|to|was|were|when|which|while|who|with))$"
)
_LIST_ITEM = re.compile(r"\s*(?:[-*•–#|>]|\d{1,2}[.)])")
_VERB = re.compile(
    r"\b(?:is|are|was|were|be|been|has|have|had|should|shows?|can|could|may|might|must|will|would|indicates?|suggests?)\b"
)


def is_truncated(answer: str, prose: bool) -> bool:
    """Whether an answer was cut off.

    Args:
        answer: a cleaned, non-empty answer.
        prose: whether it must consist of whole sentences. If not, a label ("sinus tachycardia") or a finding may end without a
            full stop; a word that cannot be the last one, or a sentence with a verb after other sentences that has no end,
            still shows a cut. A list item, a line of a table, and an answer of up to three words may always end without one.
    """
    if _CLOSED.search(answer) or answer.endswith("---"):
        return False
    if _OPEN_WORD.search(answer):
        return True
    last = answer.rsplit("\n", 1)[-1]
    if _LIST_ITEM.match(last) or len(answer.split()) <= 3:
        return False
    sentences = re.split(r"(?<=[a-z)]{2}[.!?])\s+(?=[A-Z])", last)
    return prose or (len(sentences) > 1 and _VERB.search(sentences[-1]) is not None)


def _where_they_differ(before: str, after: str, width: int = 30) -> tuple[str, str]:
    """Both texts around the first place where they differ."""
    start = next((i for i, (one, other) in enumerate(zip(before, after, strict=False)) if one != other), None)
    start = min(len(before), len(after)) if start is None else start
    return _around(before, start, width), _around(after, start, width)


def _around(text: str, position: int, width: int = 30) -> str:
    return text[max(0, position - width) : position + width]
