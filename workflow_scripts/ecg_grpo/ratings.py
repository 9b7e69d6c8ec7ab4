"""People's judgements of answers: right, partly right or wrong."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ecg_grpo.answer_browser import answer_digest
from ecg_grpo.errors import InputError

COLUMNS = ("id", "system", "answer", "rating")


@dataclass(frozen=True)
class Rating:
    """One person's judgement.

    Attributes:
        place: file and line, for messages.
        record: the question's id.
        system: whose answer it is about.
        digest: which answer, see `answer_browser.answer_digest`.
        value: 1 right, 0.5 partly right, 0 wrong.
    """

    place: str
    record: str
    system: str
    digest: str
    value: float


def read_ratings(file: Path) -> list[Rating]:
    """The ratings of one exported file.

    Raises:
        InputError: it cannot be read, has other columns, or a rating is no number from 0 to 1.
    """
    export = "Export the ratings from the report's page again."
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream)
            if absent := [name for name in COLUMNS if name not in (reader.fieldnames or [])]:
                raise InputError(file, f"no column {absent[0]}", export)
            rows = [(reader.line_num, row) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(file, f"not a readable CSV file ({error})", export) from None
    ratings = []
    for line, row in rows:
        place = f"{file}, line {line}"
        try:
            value = float(row["rating"] or "")
        except ValueError:
            value = -1.0
        if not 0 <= value <= 1:
            raise InputError(place, f"rating {row['rating']!r} is no number from 0 to 1", "Correct it or remove the line.")
        ratings.append(Rating(place, row["id"], row["system"], row["answer"] or "", value))
    return ratings


def mean_ratings(
    people: Sequence[Sequence[Rating]], answers: Mapping[str, Sequence[Mapping[str, Any]]]
) -> tuple[dict[str, dict[str, float]], int]:
    """What people think of each answer, on average; one person's last rating of an answer counts.

    Args:
        people: each one's ratings.
        answers: system → rows with `id` and `completion`.

    Returns:
        system → record → mean rating from 0 to 1, and how many ratings are of answers that have changed since.

    Raises:
        InputError: a rating names a record or a system that there is not.
    """
    digests = {system: {row["id"]: answer_digest(row["completion"]) for row in rows} for system, rows in answers.items()}
    values: dict[tuple[str, str], list[float]] = defaultdict(list)
    changed = 0
    for ratings in people:
        last: dict[tuple[str, str], float] = {}
        for rating in ratings:
            if rating.system not in digests:
                raise InputError(rating.place, f"there is no model {rating.system!r}", f"There are {', '.join(digests)}.")
            if rating.record not in digests[rating.system]:
                raise InputError(rating.place, f"there is no record {rating.record!r}", "Is this the same run's file?")
            if digests[rating.system][rating.record] == rating.digest:
                last[rating.system, rating.record] = rating.value
            else:
                changed += 1
        for key, value in last.items():
            values[key].append(value)
    found: dict[str, dict[str, float]] = {system: {} for system in answers}
    for (system, record), given in values.items():
        found[system][record] = sum(given) / len(given)
    return found, changed
