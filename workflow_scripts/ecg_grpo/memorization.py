"""How much of an answer stands word for word in one training answer: memory is not knowledge."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

NGRAM = 5
"""Words in a row. References of different records share one in a hundred of them, so that chance is no explanation."""

_WORD = re.compile(r"\w+|[<>≤≥=%]")


@dataclass(frozen=True)
class Copy:
    """What an answer has from a training answer.

    Attributes:
        share: share of the answer's runs of `NGRAM` words that stand in that training answer, 0 to 1; None for an answer
            that is shorter than that.
        place: index of the training answer that has most of them, the first of equals; None if none has any.
    """

    share: float | None
    place: int | None


class TrainingAnswers:
    """Finds training answers by runs of words.

    Args:
        answers: the reference answers that were trained on.
    """

    def __init__(self, answers: Sequence[str]) -> None:
        self._places: dict[tuple[str, ...], list[int]] = defaultdict(list)
        for place, answer in enumerate(answers):
            for gram in set(_grams(answer)):
                self._places[gram].append(place)

    def copied_by(self, answer: str) -> Copy:
        """How much of an answer stands in the training answer that it has most of."""
        grams = list(_grams(answer))
        if not grams:
            return Copy(None, None)
        found = Counter(place for gram in grams for place in self._places.get(gram, ()))
        if not found:
            return Copy(0.0, None)
        place, number = max(found.items(), key=lambda item: (item[1], -item[0]))
        return Copy(number / len(grams), place)


def _grams(text: str) -> Iterable[tuple[str, ...]]:
    words = _WORD.findall(text.lower())
    return zip(*(words[start:] for start in range(NGRAM)), strict=False)
