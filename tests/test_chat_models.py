"""Models that write while somebody reads: as in the evaluation, to be stopped at any moment, local or served."""

from __future__ import annotations

import threading
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from chat_server import ChatServer, echo, running

from ecg_grpo.chat_models import ChatModel, ChatSampling, load
from ecg_grpo.errors import InputError
from ecg_grpo.generation import Generation, complete_all
from ecg_grpo.trained_models import find_model

MESSAGES = [{"role": "system", "content": "You are a cardiologist."}, {"role": "user", "content": "What is a P wave?"}]


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> ChatModel:
    return load(find_model(str(tiny_model), None), threads=1)


def text_of(model: ChatModel, sampling: ChatSampling) -> tuple[str, str]:
    stream = model.write(MESSAGES, sampling)
    return "".join(stream), stream.finish_reason


def test_at_temperature_0_it_is_what_the_evaluation_reads(model: ChatModel, tiny_model: Path) -> None:
    generation = Generation(torch.float32, max_new_tokens=40, batch_size=1)
    ((expected,),) = complete_all(tiny_model, [MESSAGES], generation, lambda *_: None)
    assert text_of(model, ChatSampling(max_new_tokens=40)) == (expected.text, expected.finish_reason)
    assert expected.text


def test_a_seed_gives_the_same_text_again_and_another_seed_another_one(model: ChatModel) -> None:
    drawn = ChatSampling(temperature=1.0, max_new_tokens=24, seed=1)
    assert text_of(model, drawn) == text_of(model, drawn)
    assert text_of(model, drawn) != text_of(model, replace(drawn, seed=2))


def test_closing_it_stops_the_model(model: ChatModel) -> None:
    stream = model.write(MESSAGES, ChatSampling(max_new_tokens=1500))
    started = time.monotonic()
    with closing(iter(stream)) as pieces:
        next(pieces)
    stopped = time.monotonic() - started
    assert stream.finish_reason == "stopped"
    assert not [thread for thread in threading.enumerate() if "generate" in thread.name]
    text_of(model, ChatSampling(max_new_tokens=1500))
    assert stopped < (time.monotonic() - started - stopped) / 4, "as long as a whole text"


def test_a_conversation_that_does_not_fit_is_refused(model: ChatModel) -> None:
    with pytest.raises(InputError, match="more than the 2048"):
        text_of(model, ChatSampling(max_new_tokens=2048))


def test_a_served_model_writes_piece_by_piece() -> None:
    with running(ChatServer()) as server:
        served = load(find_model(server.url, None), threads=1)
        stream = served.write(MESSAGES, ChatSampling(temperature=0.5, max_new_tokens=9, seed=4))
        pieces = list(stream)
        assert "".join(pieces) == echo("What is a P wave?")
        assert len(pieces) > 5
        assert stream.finish_reason == "stop"
        ((_, payload),) = server.requests
        assert payload == {
            "model": "cardio-1",
            "messages": MESSAGES,
            "temperature": 0.5,
            "seed": 4,
            "max_tokens": 9,
            "stream": True,
        }


@pytest.mark.parametrize(
    ("behaviour", "message"),
    [
        ("cut", "broke off"),
        ("drop", "no reply"),
        ("status 500", "answers 500"),
        ("status 404 - {}", "no such address"),
        ("body <html>", "broke off, or is no stream"),
        ("body data: {}", "no chat completion"),
    ],
)
def test_a_server_that_misbehaves_is_one_message(behaviour: str, message: str) -> None:
    with running(ChatServer(behaviours=[behaviour])) as server:
        served = load(find_model(server.url, None), threads=1)
        with pytest.raises(InputError, match=message):
            list(served.write(MESSAGES, ChatSampling()))
