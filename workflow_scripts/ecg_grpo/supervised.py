"""A record as supervised fine-tuning learns it; the reference's loss is measured on the same."""

from __future__ import annotations

from typing import TypedDict

from ecg_grpo.prompts import Message


class Example(TypedDict):
    """A prompt and the answer that is to be given, both as messages."""

    prompt: list[Message]
    completion: list[Message]


def supervised_example(prompt: list[Message], answer: str) -> Example:
    """The example that the trainer renders with the chat template, end token included."""
    return {"prompt": prompt, "completion": [{"role": "assistant", "content": answer}]}
