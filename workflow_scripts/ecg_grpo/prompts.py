"""The one place where a record becomes a prompt; training, rollouts, evaluation and chat all take it from here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict


class Message(TypedDict):
    """One turn of a chat."""

    role: str
    content: str


def build_prompt(system_prompt: str, context: str, question: str, history: Sequence[tuple[str, str]] = ()) -> list[Message]:
    """The messages that ask a question.

    Args:
        system_prompt: who the model is and how it answers.
        context: what has to be known for the question to be answerable; empty for none. It stands before the first question.
        question: the question.
        history: earlier turns of the dialogue, oldest first, as (question, answer).

    Returns:
        A system message, then user and assistant in turn, the user last. No date, no few-shot examples: whoever renders them
        adds nothing.
    """
    messages: list[Message] = [{"role": "system", "content": system_prompt}]
    for asked, answered in history:
        messages += [{"role": "user", "content": asked}, {"role": "assistant", "content": answered}]
    messages.append({"role": "user", "content": question})
    if context:
        messages[1]["content"] = f"{context}\n\n{messages[1]['content']}"
    return messages


def extract_prediction(completion: str) -> str:
    """The answer part of a model's text. Without reasoning that is all of it, spaces at both ends taken off."""
    return completion.strip()
