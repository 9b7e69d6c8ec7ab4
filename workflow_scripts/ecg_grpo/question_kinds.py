"""What kind of answer a question asks for, judged by the question and its reference answer."""

from __future__ import annotations

import re
from typing import Literal, get_args

from ecg_grpo.polarity import yes_or_no
from ecg_grpo.quantities import quantities

Kind = Literal["yes/no", "numeric", "list", "explanation"]
KINDS: tuple[Kind, ...] = get_args(Kind)

_ASKS_FOR_A_NUMBER = re.compile(
    r"\bhow (?:many|much|long|fast|wide|high|tall|often|large|deep|far|old|soon)\b"
    r"|\b(?:at|within|beyond|below|above|under|over) what\b"
    r"|\bwhat(?: is|'s| are| was|) (?:\w+ ){0,4}(?:range|rate|duration|interval|values?|limits?|dose|threshold|voltage"
    r"|amplitude|percentage|proportion|number|speed|width|height|length|cutoff|cut-off|score|angle|axis|frequency)\b",
    re.IGNORECASE,
)
_ASKS_FOR_A_LIST = re.compile(
    r"\b(?:which|what|name|list|give|mention|enumerate|state)\b(?:\W+\w+){0,5}\W+\w{3,}(?:s|ae|ia)\b"
    r"|\bname (?:two|three|four|five)\b",
    re.IGNORECASE,
)
_NUMBERED = re.compile(r"(?:^|\s)(?:\(?\d{1,2}[.)]|[-•*])\s+\S")
_ENUMERATION = re.compile(r"[^,;.:]+(?:[,;][^,;.:]+)+(?:,|;)?\s(?:and|or)\s", re.IGNORECASE)

LENGTHS: tuple[tuple[int, str], ...] = ((10, "1 to 10 words"), (25, "11 to 25 words"), (50, "26 to 50 words"))
LONGEST = "over 50 words"


def kind_of(question: str, answer: str) -> Kind:
    """The kind of a question.

    Args:
        question: its text.
        answer: the reference. It decides: one that begins with yes or no makes a yes/no question, one that names a quantity
            where a number is asked for a numeric one, one that enumerates at least three things where things are asked for a
            list; everything else is an explanation.
    """
    if yes_or_no(answer):
        return "yes/no"
    if _ASKS_FOR_A_NUMBER.search(question) and quantities(answer):
        return "numeric"
    first_sentence = re.split(r"[.!?](?:\s|$)", answer, maxsplit=1)[0]
    if len(_NUMBERED.findall(answer)) >= 3 or (_ASKS_FOR_A_LIST.search(question) and _ENUMERATION.search(first_sentence)):
        return "list"
    return "explanation"


def length_of(answer: str) -> str:
    """The bin of a reference by its number of words."""
    words = len(answer.split())
    return next((name for most, name in LENGTHS if words <= most), LONGEST)
