"""Questions that the data answers both with yes and with no."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence

from ecg_grpo.polarity import yes_or_no
from ecg_grpo.records import Record


def contradictory_answers(records: Sequence[Record]) -> list[tuple[list[int], list[int]]]:
    """Records that answer one question with yes, and those that answer it with no.

    One question: equal in context, earlier turns and words, whatever the case and punctuation; comparisons and signs count.

    Returns:
        For every contradiction the indices of either side, in the order of first appearance.
    """
    sides: dict[str, dict[str, list[int]]] = defaultdict(lambda: {"yes": [], "no": []})
    for index, record in enumerate(records):
        if side := yes_or_no(record.answer):
            words = re.findall(r"\w+|[<>≤≥=+\-−%]", record.asked().casefold())
            sides[" ".join(words)][side].append(index)
    return [(side["yes"], side["no"]) for side in sides.values() if side["yes"] and side["no"]]
