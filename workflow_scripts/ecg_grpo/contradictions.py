"""Questions that the data answers both with yes and with no."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence

from ecg_grpo.records import Record

_FIRST_WORD = re.compile(r"\W*(yes|no)\b(?!\s+(?:one|longer|single|specific)\b)", re.IGNORECASE)


def polarity(answer: str) -> str | None:
    """`yes` or `no` if the answer begins with it, else None."""
    found = _FIRST_WORD.match(answer)
    return found[1].lower() if found else None


def contradictory_answers(records: Sequence[Record]) -> list[tuple[list[int], list[int]]]:
    """Records that answer one question with yes, and those that answer it with no.

    One question: equal in context, earlier turns and words, whatever the case and punctuation; comparisons and signs count.

    Returns:
        For every contradiction the indices of either side, in the order of first appearance.
    """
    sides: dict[str, dict[str, list[int]]] = defaultdict(lambda: {"yes": [], "no": []})
    for index, record in enumerate(records):
        if side := polarity(record.answer):
            words = re.findall(r"\w+|[<>≤≥=+\-−%]", record.asked().casefold())
            sides[" ".join(words)][side].append(index)
    return [(side["yes"], side["no"]) for side in sides.values() if side["yes"] and side["no"]]
