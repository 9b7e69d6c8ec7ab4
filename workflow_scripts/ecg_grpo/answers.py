"""A system's answer as a row of `answers.parquet`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from ecg_grpo.prompts import take_apart

QUESTION_COLUMNS = ("id", "task", "cluster", "context", "question", "answer", "prompt")
"""What a row takes over from the record."""


class ModelText(Protocol):
    """A model's text for one prompt, whatever computed it; see `tables.ANSWERS`."""

    @property
    def text(self) -> str: ...
    @property
    def finish_reason(self) -> str: ...
    @property
    def prompt_tokens(self) -> int | None: ...
    @property
    def completion_tokens(self) -> int | None: ...
    @property
    def seconds(self) -> float: ...


def answer_row(record: Mapping[str, Any], completion: ModelText) -> dict[str, Any]:
    """One row of `tables.ANSWERS`.

    Args:
        record: QUESTION_COLUMNS of the question.
        completion: what the model said.
    """
    answer = take_apart(completion.text)
    return {
        **record,
        "completion": completion.text,
        "prediction": answer.prediction,
        "reasoning": answer.reasoning,
        "is_well_formed": answer.is_well_formed,
        "finish_reason": completion.finish_reason,
        "prompt_tokens": completion.prompt_tokens,
        "completion_tokens": completion.completion_tokens,
        "seconds": completion.seconds,
    }
