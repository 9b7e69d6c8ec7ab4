"""A record as supervised fine-tuning learns it; the reference's loss is measured on the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

from ecg_grpo.errors import InputError
from ecg_grpo.prompts import Message, write_reasoned


class Example(TypedDict):
    """A prompt and the answer that is to be given, both as messages."""

    prompt: list[Message]
    completion: list[Message]


def supervised_example(prompt: list[Message], answer: str, reasoning: str | None = None) -> Example:
    """The example that the trainer renders with the chat template, end token included.

    Args:
        prompt: what was asked.
        answer: what is to be answered.
        reasoning: what is to be reasoned before; None for an answer without tags.
    """
    content = answer if reasoning is None else write_reasoned(reasoning, answer)
    return {"prompt": prompt, "completion": [{"role": "assistant", "content": content}]}


def reasoned_examples(
    file: Path, records: Sequence[Mapping[str, Any]], reasonings: Mapping[str, str], fewest: int
) -> list[Example]:
    """The examples of the records that have a reasoning; the others are left out.

    Args:
        file: where the reasonings are from, for the message.
        records: of a split, with `id`, `prompt`, `answer`.
        reasonings: by the record's id.
        fewest: examples to train or measure on at all.

    Raises:
        InputError: there are fewer.
    """
    examples = [
        supervised_example(record["prompt"], record["answer"], reasonings[record["id"]])
        for record in records
        if record["id"] in reasonings
    ]
    if len(examples) < fewest:
        raise InputError(
            file,
            f"{len(examples)} of {len(records)} records have a reasoning, at least {fewest} must",
            "Widen bootstrap_reasoning.filter, draw more samples, name a larger bootstrap_reasoning.model, or make SFT's batch "
            "smaller.",
        )
    return examples
