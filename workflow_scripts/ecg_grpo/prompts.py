"""The one place where a record becomes a prompt; training, rollouts, evaluation and chat all take it from here."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
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


def conversation(prompt: Sequence[Message]) -> str:
    """What was asked, as another model is to read it: the last question, earlier turns of the dialogue before it.

    Args:
        prompt: the messages that a model sees; the system prompt is left out.
    """
    turns = [message for message in prompt if message["role"] != "system"]
    if len(turns) == 1:
        return turns[0]["content"]
    return "\n\n".join(f"{'Doctor' if turn['role'] == 'assistant' else 'User'}: {turn['content']}" for turn in turns)


@dataclass(frozen=True)
class Answer:
    """A model's text, taken apart.

    Attributes:
        prediction: the answer, spaces at both ends taken off; empty where the reasoning never ended.
        reasoning: what stood in `<think>`; None without it.
        is_well_formed: an answer without any tag, or `<think>…</think>` and then `<answer>…</answer>` and nothing else; and not
            empty.
    """

    prediction: str
    reasoning: str | None
    is_well_formed: bool


ANSWER_ENDS = "\n</answer>"
TAGS = f"<think>\n\n</think>\n<answer>\n{ANSWER_ENDS}"
"""What is written around a reasoning and its answer, and what of it follows the answer."""

EMPTY_WORDS = (
    "First I ask what exactly is to be found out here, then which facts bear on it, and last what follows from them for this "
    "case."
)
"""A reasoning that says nothing. Attacks on the reward, and the honest answers that they are held against, get it where
reasoning is demanded, so it has more different words than `reward.min_reasoning_words` may ask for; and a reasoning that is
learned must help more."""

_TAG = re.compile(r"</?(?:think|answer)>")
_WELL_FORMED = re.compile(r"\s*<think>(?P<reasoning>.*?)</think>\s*<answer>(?P<answer>.*?)</answer>\s*", re.DOTALL)


def has_tag(text: str) -> bool:
    """Whether a text holds one of the four tags of reasoning and answer."""
    return _TAG.search(text) is not None


def write_reasoned(reasoning: str, answer: str) -> str:
    """A text that reasons and then answers: what SFT learns with `reasoning: on`, and what `take_apart` undoes.

    Args:
        reasoning, answer: without tags; spaces at both ends are taken off.
    """
    return f"<think>\n{reasoning.strip()}\n</think>\n<answer>\n{answer.strip()}{ANSWER_ENDS}"


def take_apart(completion: str, min_reasoning_words: int = 0) -> Answer:
    """Reasoning and answer of a model's text.

    Args:
        completion: the text.
        min_reasoning_words: fewest different words of the reasoning of a well-formed text; 0 asks for none, and for no tags.

    Reasoning that was not closed is no answer: what a model was still thinking when it was cut off would otherwise be scored.
    A template may have opened `<think>` in the prompt. Without `<answer>` all that follows the reasoning is the answer.
    """
    if not has_tag(completion):
        return Answer(completion.strip(), None, bool(completion.strip()) and not min_reasoning_words)
    found = _WELL_FORMED.fullmatch(completion)
    if found and not has_tag(found["reasoning"] + found["answer"]):
        prediction, reasoning = found["answer"].strip(), found["reasoning"].strip()
        return Answer(prediction, reasoning, bool(prediction) and len(set(reasoning.split())) >= min_reasoning_words)
    reasoning, ends, rest = completion.rpartition("</think>")
    if not ends:
        if "<think>" in completion:
            return Answer("", completion.partition("<think>")[2].strip(), False)
        reasoning, rest = "", completion
    answer = rest.partition("<answer>")[2] if "<answer>" in rest else rest
    answer = answer.partition("</answer>")[0]
    return Answer(answer.strip(), _TAG.sub("", reasoning).strip() if ends else None, False)


def extract_prediction(completion: str) -> str:
    """The answer part of a model's text."""
    return take_apart(completion).prediction
