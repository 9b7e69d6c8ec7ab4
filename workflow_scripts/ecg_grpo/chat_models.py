"""Models that write an answer piece by piece while somebody reads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from jinja2 import TemplateError
from transformers import AutoModelForCausalLM, AutoTokenizer, StoppingCriteria, TextIteratorStreamer

from ecg_grpo.device import choose_dtype, set_up_processor
from ecg_grpo.endpoint import Endpoint
from ecg_grpo.errors import InputError
from ecg_grpo.generation import generation_config
from ecg_grpo.prompts import Message
from ecg_grpo.sampling import fast_sampling
from ecg_grpo.settings.endpoint import EndpointSettings
from ecg_grpo.trained_models import TrainedModel

_ONE_AT_A_TIME = threading.Lock()
"""Sampling changes functions of torch while it runs; and one device writes two answers faster one after the other."""


@dataclass(frozen=True)
class ChatSampling:
    """How an answer is drawn.

    Attributes:
        temperature: 0 takes the likeliest token each time, as the evaluation does.
        max_new_tokens: longest answer, at least 1.
        seed: the same seed and settings give the same answer; without effect at temperature 0.
    """

    temperature: float = 0.0
    max_new_tokens: int = 256
    seed: int = 0


class StreamedText:
    """Pieces of a model's text, to be iterated once. Closing the iterator stops the model.

    Attributes:
        finish_reason: `stop` if the model ended the text, `length` if it was cut off, `stopped` while it is not at an end.
    """

    def __init__(self, pieces: Generator[str, None, str]) -> None:
        self._pieces = pieces
        self.finish_reason = "stopped"

    def __iter__(self) -> Iterator[str]:
        self.finish_reason = yield from self._pieces


class ChatModel(Protocol):
    """Whatever answers in a chat."""

    def write(self, messages: Sequence[Message], sampling: ChatSampling) -> StreamedText:
        """The text that follows the messages.

        Raises:
            InputError: while iterating: the messages do not fit, or a server fails.
        """
        ...


def load(model: TrainedModel, threads: int) -> ChatModel:
    """The model, ready to write.

    Args:
        model: which one.
        threads: of the processor.

    Raises:
        InputError: transformers cannot load it.
    """
    if isinstance(model.source, EndpointSettings):
        return _ServedModel(model.source)
    set_up_processor(threads)
    return _LocalModel(model.source)


class LoadedModels:
    """Models by the word that names one; each is found and loaded when it is first asked for, and kept."""

    def __init__(self, find: Callable[[str], TrainedModel], threads: int) -> None:
        """
        Args:
            find: a word → the model, as `trained_models.find_model`.
            threads: of the processor.
        """
        self._find, self._threads = find, threads
        self._loaded: dict[str, tuple[TrainedModel, ChatModel]] = {}
        self._lock = threading.Lock()

    def __contains__(self, choice: str) -> bool:
        return choice in self._loaded

    def __getitem__(self, choice: str) -> tuple[TrainedModel, ChatModel]:
        """The model, and what writes its answers.

        Raises:
            InputError: there is no such model, or it cannot be loaded.
        """
        with self._lock:
            if choice not in self._loaded:
                found = self._find(choice)
                self._loaded[choice] = found, load(found, self._threads)
            return self._loaded[choice]


class _ServedModel:
    def __init__(self, settings: EndpointSettings) -> None:
        self._settings = settings

    def write(self, messages: Sequence[Message], sampling: ChatSampling) -> StreamedText:
        return StreamedText(self._pieces(messages, sampling))

    def _pieces(self, messages: Sequence[Message], sampling: ChatSampling) -> Generator[str, None, str]:
        with Endpoint(self._settings, sampling.max_new_tokens, on_note=lambda _: None) as endpoint:
            return (yield from endpoint.stream(list(messages), sampling.temperature, sampling.seed))


class _LocalModel:
    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(directory)
            model = AutoModelForCausalLM.from_pretrained(directory, dtype=choose_dtype("auto"))
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            reason = str(error).strip().splitlines()[0]
            raise InputError(directory, f"transformers cannot load this model ({reason})", "Name another model.") from None
        if not self._tokenizer.chat_template:
            raise InputError(directory, "the tokenizer has no chat template", "Name an instruction-tuned model.")
        self._model = model.to(self._device).eval()

    def write(self, messages: Sequence[Message], sampling: ChatSampling) -> StreamedText:
        return StreamedText(self._pieces(messages, sampling))

    def _pieces(self, messages: Sequence[Message], sampling: ChatSampling) -> Generator[str, None, str]:
        tokenizer = self._tokenizer
        try:
            rendered = tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True)
        except TemplateError as error:  # some families know no system message
            what = f"its chat template cannot render this conversation ({error})"
            raise InputError(self._directory, what, "Name a model whose template can.") from None
        inputs = tokenizer(rendered, return_tensors="pt", add_special_tokens=False).to(self._device)
        self._check_room(inputs.input_ids.shape[1], sampling.max_new_tokens)
        config = generation_config(tokenizer, sampling.max_new_tokens, sampling.temperature)
        streamer = TextIteratorStreamer(tokenizer, skip_prompt=True, skip_special_tokens=True)
        stop, rows, failures = threading.Event(), [], []

        def generate() -> None:
            try:
                with _ONE_AT_A_TIME, torch.inference_mode(), fast_sampling(self._model):
                    if stop.is_set():
                        return
                    torch.manual_seed(sampling.seed)
                    rows.append(
                        self._model.generate(
                            inputs.input_ids,
                            inputs.attention_mask,
                            generation_config=config,
                            streamer=streamer,
                            stopping_criteria=[_Stop(stop)],
                        )
                    )
            except Exception as error:  # the reader's thread reports it
                failures.append(error)
            finally:
                streamer.end()

        thread = threading.Thread(target=generate, daemon=True)
        thread.start()
        try:
            yield from filter(None, streamer)
        finally:
            stop.set()
            thread.join()
        if failures:
            if isinstance(failures[0], torch.OutOfMemoryError):
                raise InputError(self._directory, "the device has too little memory", "Name a smaller model.") from None
            raise failures[0]
        return "stop" if tokenizer.eos_token_id in rows[0][0, inputs.input_ids.shape[1] :] else "length"

    def _check_room(self, prompt_tokens: int, max_new_tokens: int) -> None:
        most = self._model.config.get_text_config().max_position_embeddings
        if prompt_tokens + max_new_tokens > most:
            raise InputError(
                "conversation",
                f"its {prompt_tokens} tokens and an answer of {max_new_tokens} are more than the {most} that this model reads",
                "Begin a new one, or ask for shorter answers.",
            )


class _Stop(StoppingCriteria):
    """Ends a text when somebody asks for it."""

    def __init__(self, stop: threading.Event) -> None:
        self._stop = stop

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **options: object) -> torch.Tensor:
        return torch.full((input_ids.shape[0],), self._stop.is_set(), dtype=torch.bool, device=input_ids.device)
