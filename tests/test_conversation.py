"""A conversation: what of an answer is reasoning while it arrives, what the next question sees, what is saved."""

from __future__ import annotations

import json
from collections.abc import Generator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecg_grpo.chat_models import ChatSampling, StreamedText
from ecg_grpo.conversation import DISCLAIMER, Conversation, PartsOfAText
from ecg_grpo.errors import InputError
from ecg_grpo.prompts import has_tag, take_apart, write_reasoned
from ecg_grpo.trained_models import TrainedModel

MODEL = TrainedModel("grpo", Path("model"), "c0ffee" * 10, "You are a cardiologist.")
WORDS = st.text(alphabet="ab <>/think\n", max_size=40).filter(lambda text: not has_tag(text))


def parts_of(chunks: list[str]) -> dict[str, str]:
    parts, found = PartsOfAText(), {"reasoning": "", "answer": ""}
    for chunk in chunks:
        for piece in parts.feed(chunk):
            found[piece.part] += piece.text
    for piece in parts.end():
        found[piece.part] += piece.text
    return found


@given(reasoning=WORDS, answer=WORDS, sizes=st.lists(st.integers(1, 7), min_size=1))
def test_the_parts_are_those_of_the_whole_text_however_it_arrives(reasoning: str, answer: str, sizes: list[int]) -> None:
    text = write_reasoned(reasoning, answer)
    if any(has_tag(part.strip()) for part in (reasoning, answer)):
        return
    chunks, start = [], 0
    while start < len(text):
        size = sizes[len(chunks) % len(sizes)]
        chunks.append(text[start : start + size])
        start += size
    whole = take_apart(text)
    assert parts_of(chunks) == {"reasoning": whole.reasoning, "answer": whole.prediction}
    assert parts_of(list(answer)) == {"reasoning": "", "answer": answer.strip()}


def test_nothing_is_held_back_longer_than_a_tag_could_be() -> None:
    parts = PartsOfAText()
    assert "".join(piece.text for piece in parts.feed("QRS < 120 ms is normal")) == "QRS < 120 ms is normal"
    assert list(parts.feed(" <thi")) == []
    assert [piece.text for piece in parts.feed("s is no tag")] == [" <this is no tag"]


class Writer:
    """Writes what it was given, a word at a time."""

    def __init__(self, *texts: str, failure: Exception | None = None) -> None:
        self.texts, self.failure, self.asked, self.written = list(texts), failure, [], 0

    def write(self, messages: list, sampling: ChatSampling) -> StreamedText:
        self.asked.append(messages)
        return StreamedText(self._pieces(self.texts.pop(0)))

    def _pieces(self, text: str) -> Generator[str, None, str]:
        for word in text.split(" "):
            self.written += 1
            yield word + " "
        if self.failure:
            raise self.failure
        return "stop"


def test_the_next_question_sees_the_answers_and_not_the_reasoning() -> None:
    writer = Writer("<think>A thought.</think><answer>Yes.</answer>", "No.")
    conversation = Conversation("You are a cardiologist.")
    first, *_ = list(conversation.ask("First?", MODEL, writer, ChatSampling()))
    assert first.part == "reasoning"
    list(conversation.ask("Second?", MODEL, writer, ChatSampling()))
    assert writer.asked[1] == [
        {"role": "system", "content": "You are a cardiologist."},
        {"role": "user", "content": "First?"},
        {"role": "assistant", "content": "Yes."},
        {"role": "user", "content": "Second?"},
    ]
    assert [turn.reasoning for turn in conversation.turns] == ["A thought.", None]
    assert conversation.turns[0].seconds_to_first_piece is not None


def test_a_stopped_answer_stops_the_model_and_is_kept_and_a_failed_one_leaves_no_turn() -> None:
    writer = Writer("one two three four five", "six", failure=InputError("server", "is gone", "Ask again."))
    conversation = Conversation("")
    pieces = conversation.ask("Count.", MODEL, writer, ChatSampling())
    assert next(pieces).text == "one"
    pieces.close()
    (turn,) = conversation.turns
    assert (turn.finish_reason, turn.prediction) == ("stopped", "one")
    assert writer.written == 1, "the model went on"
    with pytest.raises(InputError):
        list(conversation.ask("Again?", MODEL, writer, ChatSampling()))
    assert len(conversation.turns) == 1


def test_a_saved_conversation_holds_what_is_needed_to_ask_again_and_quotes_texts_literally(tmp_path: Path) -> None:
    hostile = "```\n# Not a heading\n<script>alert(1)</script>"
    writer = Writer(f"<think>Why.</think><answer>{hostile}</answer>")
    conversation = Conversation("System.")
    list(conversation.ask("Question?", MODEL, writer, ChatSampling(0.7, 32, 5)))
    markdown, lines = conversation.save(tmp_path / "kept" / "talk")
    (row,) = map(json.loads, lines.read_text().splitlines())
    assert row["prompt"] == writer.asked[0]
    assert (row["prediction"], row["reasoning"]) == (hostile, "Why.")
    assert (row["temperature"], row["max_new_tokens"], row["seed"]) == (0.7, 32, 5)
    assert (row["model"], row["model_identity"]) == ("grpo", MODEL.identity)
    text = markdown.read_text()
    assert DISCLAIMER in text
    assert f"````text\n{hostile}\n````" in text, "the fence is longer than any run of backticks in the text"
    assert [file.name for file in sorted((tmp_path / "kept").iterdir())] == ["talk.jsonl", "talk.md"]
