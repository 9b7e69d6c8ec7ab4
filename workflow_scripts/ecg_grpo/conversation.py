"""A conversation with a model: its turns, how an answer arrives, and how it is saved."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

from ecg_grpo.chat_models import ChatModel, ChatSampling
from ecg_grpo.files import new_file
from ecg_grpo.prompts import Message, build_prompt, take_apart
from ecg_grpo.trained_models import TrainedModel

DISCLAIMER = (
    "Research software, not a medical device. What these models write can be wrong or dangerous and must not be used for "
    "diagnosis or treatment."
)

Part = Literal["reasoning", "answer"]


class Piece(NamedTuple):
    """Some characters of a text that is being written, and what they are part of."""

    part: Part
    text: str


_TAGS: dict[str, Part | None] = {"<think>": "reasoning", "</think>": "answer", "<answer>": "answer", "</answer>": None}
_MAY_BECOME_A_TAG = re.compile(r"<(?:/?[a-z]{0,6})?\Z")
_TAG = re.compile("|".join(map(re.escape, _TAGS)))


class PartsOfAText:
    """Tells a text's reasoning from its answer while it is being written.

    Of a well-formed text the pieces add up to what `prompts.take_apart` finds in the whole; of others they are what can be said
    before the end is known.
    """

    def __init__(self) -> None:
        self._part: Part | None = "answer"
        self._held = ""
        self._has_begun = False

    def feed(self, text: str) -> Iterator[Piece]:
        """The pieces that are certain once these characters have come."""
        self._held += text
        while found := _TAG.search(self._held):
            yield from self._release(self._held[: found.start()].rstrip())
            self._held = self._held[found.end() :]
            self._part, self._has_begun = _TAGS[found[0]], False
        beginning = _MAY_BECOME_A_TAG.search(self._held)
        certain = len(self._held[: beginning.start() if beginning else None].rstrip())  # spaces before a tag are not shown
        yield from self._release(self._held[:certain])
        self._held = self._held[certain:]

    def end(self) -> Iterator[Piece]:
        """What was held back, when nothing more comes."""
        yield from self._release(self._held.rstrip())
        self._held = ""

    def _release(self, text: str) -> Iterator[Piece]:
        if not self._has_begun:
            text = text.lstrip()
        if text and self._part is not None:
            self._has_begun = True
            yield Piece(self._part, text)


@dataclass(frozen=True)
class Turn:
    """One question and one model's answer.

    Attributes:
        model: which one answered.
        prompt: the messages that it saw.
        completion: its text.
        prediction, reasoning: the text taken apart (`prompts.take_apart`).
        sampling: how it was drawn.
        finish_reason: `stop`, `length` (cut off), or `stopped` by the reader.
        seconds, seconds_to_first_piece: from the question on; None for the latter where nothing came.
    """

    model: TrainedModel
    prompt: list[Message]
    completion: str
    prediction: str
    reasoning: str | None
    sampling: ChatSampling
    finish_reason: str
    seconds: float
    seconds_to_first_piece: float | None

    @property
    def question(self) -> str:
        """What was asked."""
        return self.prompt[-1]["content"]


@dataclass
class Conversation:
    """Questions and answers under one system prompt, rendered as in training."""

    system_prompt: str
    turns: list[Turn] = field(default_factory=list)

    def messages(self, question: str) -> list[Message]:
        """What a model sees: of earlier answers their answer part, as training's dialogues have it; not those without one."""
        history = [(turn.question, turn.prediction) for turn in self.turns if turn.prediction]
        return build_prompt(self.system_prompt, "", question, history)

    def ask(self, question: str, model: TrainedModel, writer: ChatModel, sampling: ChatSampling) -> Iterator[Piece]:
        """Asks, and adds the turn when the answer is at an end; closing the iterator, or Ctrl-C, stops the model and keeps what
        there is.

        Args:
            question: what is asked.
            model, writer: which model it is, and itself.
            sampling: how its answer is drawn.

        Yields:
            The answer as it arrives.

        Raises:
            InputError: the model fails; then there is no turn.
        """
        answer = Answering(self.messages(question), model, writer, sampling)
        try:
            yield from answer
        except (GeneratorExit, KeyboardInterrupt):
            self.turns.append(answer.turn())
            raise
        self.turns.append(answer.turn())

    def as_json_lines(self) -> str:
        """A line for each turn, with all that is needed to ask again."""
        lines = []
        for turn in self.turns:
            row = {name: value for name, value in vars(turn).items() if name not in ("model", "sampling")}
            row |= {"model": turn.model.name, "model_identity": turn.model.identity, **vars(turn.sampling)}
            lines.append(json.dumps(row, ensure_ascii=False, sort_keys=True) + "\n")
        return "".join(lines)

    def as_markdown(self) -> str:
        """The conversation to be read; models' texts are quoted literally."""
        blocks = [f"# Conversation\n\n> {DISCLAIMER}", f"System prompt:\n\n{_literal(self.system_prompt)}"]
        for number, turn in enumerate(self.turns, 1):
            blocks.append(f"## {number}. Question\n\n{_literal(turn.question)}")
            if turn.reasoning:
                blocks.append(f"Reasoning of {turn.model.name}:\n\n{_literal(turn.reasoning)}")
            note = {"length": ", cut off", "stopped": ", stopped"}.get(turn.finish_reason, "")
            blocks.append(f"Answer of {turn.model.name} ({turn.model.identity[:12]}{note}):\n\n{_literal(turn.prediction)}")
        return "\n\n".join(blocks) + "\n"

    def save(self, file: Path) -> list[Path]:
        """Writes both forms beside each other.

        Args:
            file: name without its ending.

        Returns:
            The Markdown file and the JSON Lines file.
        """
        written = []
        for ending, text in ((".md", self.as_markdown()), (".jsonl", self.as_json_lines())):
            target = file.with_name(file.name + ending)
            with new_file(target) as partial:
                partial.write_text(text, encoding="utf-8", errors="backslashreplace")
            written.append(target)
        return written


class Answering:
    """An answer on its way: iterated, its pieces; afterwards, the turn."""

    def __init__(self, messages: list[Message], model: TrainedModel, writer: ChatModel, sampling: ChatSampling) -> None:
        """
        Args:
            messages: the prompt.
            model, writer: which model answers, and itself.
            sampling: how its answer is drawn.
        """
        self._messages, self._model, self._writer, self._sampling = messages, model, writer, sampling
        self._text, self._finish_reason = "", "stopped"
        self._started, self._first = time.monotonic(), None

    def __iter__(self) -> Iterator[Piece]:
        self._started = time.monotonic()
        parts, stream = PartsOfAText(), self._writer.write(self._messages, self._sampling)
        with closing(iter(stream)) as pieces:
            for piece in pieces:
                if self._first is None:
                    self._first = time.monotonic() - self._started
                self._text += piece
                yield from parts.feed(piece)
        self._finish_reason = stream.finish_reason
        yield from parts.end()

    def turn(self) -> Turn:
        """What has come of it so far."""
        answer = take_apart(self._text)
        return Turn(
            model=self._model,
            prompt=self._messages,
            completion=self._text,
            prediction=answer.prediction,
            reasoning=answer.reasoning,
            sampling=self._sampling,
            finish_reason=self._finish_reason,
            seconds=round(time.monotonic() - self._started, 3),
            seconds_to_first_piece=self._first and round(self._first, 3),
        )


def _literal(text: str) -> str:
    """A text as a Markdown code block, whatever is in it."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{text}\n{fence}"
