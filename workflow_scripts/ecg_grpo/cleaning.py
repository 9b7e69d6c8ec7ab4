"""What is wrong with raw texts, and what is done about it: repaired where that is certain, quarantined where it is not."""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

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


class _Broken(Exception):
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
        except _Broken as broken:
            evidence = f"{record.source_file}: row {record.source_row}: {name}: {broken.evidence}"
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
    turns = []
    for turn in record.history:
        try:
            question, answer = (clean_text(text, record.patient_numbers)[0] for text in turn)
        except _Broken:
            continue
        if question and answer:
            turns.append((question, answer))
    return tuple(turns)


def _storable(record: Record) -> Record:
    """The record without what the quarantine cannot hold: enormous texts, NUL characters."""
    texts = {name: getattr(record, name) for name in ("context", "question", "answer", "subject")}
    texts = {name: text[:2000] if len(text) > LONGEST_TEXT else text for name, text in texts.items()}
    return replace(record, **{name: text.replace("\0", "␀") for name, text in texts.items()}, history=_clean_history(record))


def clean_text(text: str, patient_numbers: Sequence[str] = ()) -> tuple[str, list[Repair]]:
    """A text without what does not belong into it, and what was done to get there.

    Raises:
        _Broken: it is too long, holds control characters, or bytes of it are lost.
    """
    if len(text) > LONGEST_TEXT:
        raise _Broken("text too long", f"{len(text)} characters (at most {LONGEST_TEXT}): {text[:60]!r}")
    if not _SUSPECT.search(text):
        return text, []
    if found := _CONTROL.search(text):
        raise _Broken("control character", f"U+{ord(found[0]):04X} in {_around(text, found.start())!r}")
    repairs: list[Repair] = []
    for kind, repair in _REPAIRS:
        repaired = repair(text)
        if repaired is None:
            found = _NOT_ENGLISH.search(text)
            raise _Broken("mojibake", _around(text, found.start()))
        if repaired != text:
            repairs.append(Repair(kind, *_where_they_differ(text, repaired)))
            text = repaired
    neutral = hide_patient_numbers(text, patient_numbers)
    if neutral != text:
        # The number itself is not repeated in a report about its removal.
        repairs.append(Repair("patient number", "(not shown)", _where_they_differ(text, neutral)[1]))
    return neutral, repairs


# Whatever any repair looks for; most texts have nothing of it.
_SUSPECT = re.compile(r"[^ !-%'-;=?-~]|  |^ | $|\d{6}|2[12]\d\d-")
_CONTROL = re.compile("[\0-\x08\x0e-\x1f\x7f]")
_NOT_ENGLISH = re.compile("[\u2e80-\u9fff\uac00-\ud7af\ue000-\uf8ff\uff00-\uffef\ufffd]")
_FULL_WIDTH = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)} | {0x3000: " ", 0x3001: ",", 0x3002: "."}
_QUOTES = str.maketrans({"‘": "'", "’": "'", "‚": "'", "‛": "'", "“": '"', "”": '"', "„": '"', "‟": '"'})
_BLOCK_TAG = re.compile(r"</?(?:br|p|div|h[1-6]|hr|li|ol|ul|table|tbody|thead|td|th|tr|pre)\b[^<>]*/?>", re.IGNORECASE)
_INLINE_TAG = re.compile(r"</?(?:a|b|i|u|em|strong|span|sub|sup|font|code|small|mark|img)\b[^<>]*/?>|<!--.*?-->", re.IGNORECASE)
_INVISIBLE = re.compile("[\u200b-\u200f\u2060\ufeff\u00ad]")
_ENTITY = re.compile(r"&(?:#\d{1,7}|#x[0-9a-f]{1,6}|[a-z][a-z0-9]{1,30});", re.IGNORECASE)


def repair_mojibake(text: str) -> str | None:
    """UTF-8 that was once read as GBK, turned back.

    Returns:
        The text itself if nothing is wrong with it, the repaired text, or None if a byte was lost: then the original
        (often a "≥" in front of a threshold) cannot be known and must not be guessed.
    """
    if not _NOT_ENGLISH.search(text):
        return text
    try:
        repaired = text.encode("gb18030").decode("utf-8")
    except UnicodeError:
        # Punctuation of a Chinese keyboard is no mojibake.
        return text if not _NOT_ENGLISH.search(text.translate(_FULL_WIDTH)) else None
    return None if _NOT_ENGLISH.search(repaired) else repaired


def _without_html(text: str) -> str:
    """Text without tags and entities. `<` before a number or an unknown word is a comparison and stays."""
    if "<" in text:
        text = _INLINE_TAG.sub("", _BLOCK_TAG.sub("\n", text))
    return _ENTITY.sub(lambda entity: html.unescape(entity[0]), text) if "&" in text else text


def _single_spaces(text: str) -> str:
    """Single spaces, lines without spaces at their ends, at most one empty line, no invisible characters."""
    lines = [" ".join(line.split()) for line in _INVISIBLE.sub("", text).splitlines()]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()


_REPAIRS: tuple[tuple[str, Callable[[str], str | None]], ...] = (
    ("mojibake", repair_mojibake),
    ("full-width punctuation", lambda text: text.translate(_FULL_WIDTH)),
    ("html", _without_html),
    ("unicode form", lambda text: unicodedata.normalize("NFC", text)),
    ("curly quotes", lambda text: text.translate(_QUOTES)),
    ("spaces", _single_spaces),
)

_NUMBER_OF_PATIENT = re.compile(
    r"(?P<the>\bthe\s+)?(?:\bpatient\s+(?:with\s+)?[(\[]?)?\b(?:patient|subject|case|MRN|ID)(?:'s)?\s*"
    r"[(\[]?\s*(?:ID|identifier|number|no\.?|#)?(?:\s+(?:is|of|number))?\s*[:#=]?\s*\d{6,10}\b[)\]]?",
    re.IGNORECASE,
)
_NUMBER_OF_RECORDING = re.compile(
    r"(?P<the>\bthe\s+)?\b(?:study|recording|ECG|cart)\s*[(\[]?\s*(?:ID|identifier|number|no\.?|#)?\s*[:#=]?\s*\d{6,10}\b[)\]]?",
    re.IGNORECASE,
)
_SHIFTED_DATE = re.compile(r"\b2[12]\d\d-[01]\d-[0-3]\d(?:[T ][0-2]\d:[0-5]\d(?::[0-5]\d(?:\.\d+)?)?)?")


def hide_patient_numbers(text: str, own: Sequence[str] = ()) -> str:
    """A text in which the numbers of patients and recordings, and dates shifted into the future, are neutral phrases.

    Args:
        text: any text.
        own: the record's own numbers, replaced wherever they stand.
    """
    if not re.search(r"\d{6}|\b2[12]\d\d-", text):
        return text
    text = _NUMBER_OF_PATIENT.sub(lambda found: _neutral("the patient", found), text)
    text = _NUMBER_OF_RECORDING.sub(lambda found: _neutral("the recording", found), text)
    for number in own:
        text = re.sub(rf"(?<!\d){number}(?!\d)", "the patient", text)
    return _SHIFTED_DATE.sub("the recorded date", text)


def _neutral(phrase: str, found: re.Match[str]) -> str:
    return phrase[0].upper() + phrase[1:] if found[0][0].isupper() else phrase


_CLOSED = re.compile(r"[.!?:;%)\]}'\"…*_`|°²³]$|-{3,}$")
_OPEN_WORD = re.compile(
    r"(?:[,(\[\-–—/&+=<>≥≤]|\b(?:a|an|and|as|at|because|but|by|for|from|if|in|including|into|is|are|nor|of|on|or|such as|than|"
    r"that|the|their|to|was|were|when|which|while|who|with))$",
    re.IGNORECASE,
)
_LIST_ITEM = re.compile(r"\s*(?:[-*•–#|>]|\d{1,2}[.)])")


def is_truncated(answer: str, prose: bool) -> bool:
    """Whether an answer was cut off.

    Args:
        answer: a cleaned, non-empty answer.
        prose: whether it must consist of whole sentences. If not, a label ("sinus tachycardia"), a list item or a line of a
            table may end without a full stop; a word that cannot be the last one, or a sentence after other sentences that
            has no end, still shows a cut.
    """
    if _CLOSED.search(answer):
        return False
    if prose or _OPEN_WORD.search(answer):
        return True
    last = answer.rsplit("\n", 1)[-1]
    if _LIST_ITEM.match(last):
        return False
    sentences = re.split(r"(?<=[a-z)]{2}[.!?])\s+(?=[A-Z])", last)
    return len(sentences) > 1 and len(sentences[-1].split()) > 3


def _where_they_differ(before: str, after: str, width: int = 30) -> tuple[str, str]:
    """Both texts around the first place where they differ."""
    start = next((i for i, (one, other) in enumerate(zip(before, after, strict=False)) if one != other), None)
    start = min(len(before), len(after)) if start is None else start
    return _around(before, start, width), _around(after, start, width)


def _around(text: str, position: int, width: int = 30) -> str:
    return text[max(0, position - width) : position + width]
