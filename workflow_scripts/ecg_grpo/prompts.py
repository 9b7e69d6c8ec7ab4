"""The one place where a record becomes a prompt; training, rollouts, evaluation and chat all take it from here."""

from __future__ import annotations

from typing import TypedDict


class Message(TypedDict):
    """One turn of a chat."""

    role: str
    content: str


def build_prompt(system_prompt: str, context: str, question: str) -> list[Message]:
    """The messages that ask a question.

    Args:
        system_prompt: who the model is and how it answers.
        context: what has to be known for the question to be answerable; empty for none.
        question: the question.

    Returns:
        A system and a user message. No date, no few-shot examples: whoever renders them adds nothing.
    """
    user = f"{context}\n\n{question}" if context else question
    return [{"role": "system", "content": system_prompt}, {"role": "user", "content": user}]


def extract_prediction(completion: str) -> str:
    """The answer part of a model's text. Without reasoning that is all of it, spaces at both ends taken off."""
    return completion.strip()
