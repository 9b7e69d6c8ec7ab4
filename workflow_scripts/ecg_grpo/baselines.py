"""Systems that answer without a model."""

from __future__ import annotations

import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

from ecg_grpo.question_index import QuestionIndex

_COUNTS = re.compile(r"\w+|[<>≤≥=+\-−%]")


def nearest_training_answers(
    train: Sequence[Mapping[str, str]], asked: Sequence[Mapping[str, str]], most_products: int = 16_000_000
) -> list[str]:
    """For each question the reference answer of the training question most like it (`QuestionIndex`).

    Args:
        train: training records with `context`, `question`, `answer`; at least one.
        asked: records with `context` and `question`.
        most_products: see `QuestionIndex.nearest`.
    """
    places, _ = QuestionIndex(train).nearest(asked, most_products)
    return [train[place]["answer"] for place in places]


def most_frequent_answers(train: Iterable[tuple[str, str]]) -> dict[str, str]:
    """For each task the answer that most of its training records have, word for word.

    Of several equally frequent answers the shortest counts, of equally short ones the first in the alphabet. Where no answer
    repeats it is therefore the shortest answer of the task.

    Args:
        train: (task, answer) of each training record.
    """
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for task, answer in train:
        counts[task][answer] += 1
    return {
        task: min(answers, key=lambda answer, answers=answers: (-answers[answer], len(answer), answer))
        for task, answers in counts.items()
    }


def second_references(records: Sequence[Mapping[str, str]]) -> list[str | None]:
    """For each record another reference answer to the same question, if the records have one.

    One question: equal in context and words, whatever the case and punctuation; comparisons and signs count. What such an
    answer scores is what a correct answer in other words can reach.

    Args:
        records: records with `context`, `question`, `answer`.

    Returns:
        For each the different answer of the next record that asks the same, of the last one the first one's; None without one.
    """
    same: dict[str, dict[str, str]] = defaultdict(dict)
    asked = [" ".join(_COUNTS.findall(f"{record['context']} {record['question']}".casefold())) for record in records]
    for key, record in zip(asked, records, strict=True):
        same[key].setdefault(_normal(record["answer"]), record["answer"])
    found: list[str | None] = []
    for key, record in zip(asked, records, strict=True):
        answers = list(same[key])
        place = answers.index(_normal(record["answer"]))
        found.append(same[key][answers[(place + 1) % len(answers)]] if len(answers) > 1 else None)
    return found


def _normal(text: str) -> str:
    return " ".join(_COUNTS.findall(text.casefold()))


def random_training_places(train: Sequence[str], asked: Sequence[str], seed: int) -> list[int | None]:
    """For each question a training record of its task, drawn with replacement; None if there is none.

    Args:
        train: the task of each training record.
        asked: the task of each question.
        seed: another seed, other records.
    """
    places: dict[str, list[int]] = defaultdict(list)
    for place, task in enumerate(train):
        places[task].append(place)
    generator = random.Random(seed)
    return [generator.choice(places[task]) if task in places else None for task in asked]
