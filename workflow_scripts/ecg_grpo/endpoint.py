"""A client for chat completions of an OpenAI-compatible server, which goes on through whatever another attempt may mend.

The request is that of https://platform.openai.com/docs/api-reference/chat, as vLLM, SGLang, llama.cpp, Ollama,
`transformers serve` and the commercial services take it.
"""

from __future__ import annotations

import json
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from types import TracebackType
from typing import Any, NoReturn, Self

import httpx

from ecg_grpo.errors import InputError
from ecg_grpo.prompts import Message
from ecg_grpo.retry_after import seconds_to_wait
from ecg_grpo.settings.endpoint import EndpointSettings

FIRST_DELAY, LONGEST_DELAY = 1.0, 60.0
"""Seconds before the second attempt, and what doubling ends at."""

LONGEST_RETRY_AFTER = 600.0
"""Seconds; a server that wants to be left alone for longer is not asked again in this run."""

_LARGEST_BODY = 16 * 2**20
_RETRIED = {408, 429}


@dataclass(frozen=True)
class Reply:
    """What a server's model said to one prompt.

    Attributes:
        text: empty if it said nothing.
        finish_reason: `length` if the text was cut off, otherwise `stop`.
        server_finish_reason: as the server named it (`stop`, `length`, `content_filter`, …); None if it did not.
        prompt_tokens, completion_tokens: as the server counted; None if it did not.
        seconds: from sending the request that succeeded to having the reply.
    """

    text: str
    finish_reason: str
    server_finish_reason: str | None
    prompt_tokens: int | None
    completion_tokens: int | None
    seconds: float


class _Interrupted(Exception):
    """The attempt failed in a way that another one may not; `wait` is how many seconds the server asked for."""

    def __init__(self, reason: str, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.wait = wait


def read_key(settings: EndpointSettings) -> str | None:
    """The key, out of the environment; None if none is to be sent.

    Raises:
        InputError: the variable is not set, or holds what no header can; the value is not quoted.
    """
    if settings.api_key_env is None:
        return None
    where = f"environment variable {settings.api_key_env}"
    key = os.environ.get(settings.api_key_env, "").strip()
    if not key:
        raise InputError(where, f"is not set, and {settings.base_url} is to be asked with the key in it", "Export it.")
    if not (key.isascii() and key.isprintable() and " " not in key):
        raise InputError(where, "holds characters that no key has (a line break, a space, a letter with an accent)", "Mend it.")
    return key


class Endpoint:
    """Connections to one served model. Several threads may ask at once."""

    def __init__(
        self,
        settings: EndpointSettings,
        max_new_tokens: int,
        on_note: Callable[[str], None],
        first_delay: float = FIRST_DELAY,
    ) -> None:
        """
        Args:
            settings: where and how.
            max_new_tokens: longest reply.
            on_note: called before each wait, from any thread, with why.
            first_delay: seconds before a second attempt.

        Raises:
            InputError: the key is missing, see `read_key`.
        """
        self._settings, self._max_new_tokens, self._on_note = settings, max_new_tokens, on_note
        self._first_delay = first_delay
        self._key = read_key(settings)
        self._url = f"{settings.base_url}/chat/completions"
        self._stopped = threading.Event()
        self._counting = threading.Lock()
        self.failed_attempts = 0
        self._client = httpx.Client(
            headers={} if self._key is None else {"Authorization": f"Bearer {self._key}"},
            timeout=settings.timeout,
            follow_redirects=False,  # the key and the prompts go nowhere but to the server that was named
            limits=httpx.Limits(max_connections=settings.max_parallel, max_keepalive_connections=settings.max_parallel),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._client.close()

    def ask(self, messages: list[Message]) -> Reply:
        """The likeliest reply (temperature 0) to one prompt.

        Raises:
            InputError: the server refuses, is out of reach in all attempts, or answers something else than a chat completion.
        """
        payload = {
            "model": self._settings.model,
            "messages": messages,
            "temperature": 0,
            "max_tokens": self._max_new_tokens,
            "stream": False,
        }
        failures, delay = 0, self._first_delay
        while True:
            started = time.monotonic()
            try:
                body = self._post(payload)
            except (httpx.UnsupportedProtocol, httpx.InvalidURL, httpx.LocalProtocolError):
                raise InputError(self._url, "cannot be asked: no valid address", "Mend base_url.") from None
            except (httpx.RequestError, _Interrupted) as error:
                reason = self._excerpt(str(error) or type(error).__name__, 200)
                with self._counting:
                    self.failed_attempts += 1
                failures += 1
                asked_for = getattr(error, "wait", 0.0)
                if failures > self._settings.retries or asked_for > LONGEST_RETRY_AFTER:
                    pause = f", and it asks for a pause of {asked_for:.0f} s" if asked_for > LONGEST_RETRY_AFTER else ""
                    raise InputError(
                        self._url,
                        f"no reply in {failures} attempts (the last one: {reason}{pause})",
                        "See that the server runs; lower max_parallel or raise retries or timeout. "
                        "What was answered is kept: run snakemake again to go on.",
                    ) from None
                # Those who were refused together do not come back together.
                seconds = max(delay * random.uniform(0.75, 1.25), asked_for)
                self._on_note(f"{reason}; attempt {failures + 1} of {self._settings.retries + 1} in {seconds:.1f} s")
                if self._stopped.wait(seconds):
                    raise InputError(self._url, f"given up ({reason})", "Run snakemake again to go on.") from None
                delay = min(2 * delay, LONGEST_DELAY)
                continue
            return self._read(body, round(time.monotonic() - started, 4))

    def ask_all(self, prompts: Mapping[str, list[Message]]) -> Iterator[tuple[str, Reply]]:
        """Replies to many prompts as they arrive, `max_parallel` under way at once.

        After a failure nothing new is asked; what is under way is waited for and yielded, since it may be paid for.

        Args:
            prompts: messages by a name of the prompt.

        Yields:
            the prompt's name, its reply.

        Raises:
            InputError: see `ask`; the first one that occurred, after all replies were yielded.
        """
        waiting = iter(prompts.items())
        failure: InputError | None = None
        with ThreadPoolExecutor(self._settings.max_parallel) as pool:
            running: dict[Future[Reply], str] = {}
            try:
                while True:
                    while failure is None and len(running) < self._settings.max_parallel and (entry := next(waiting, None)):
                        running[pool.submit(self.ask, entry[1])] = entry[0]
                    if not running:
                        break
                    for future in wait(running, return_when=FIRST_COMPLETED).done:
                        name = running.pop(future)
                        try:
                            reply = future.result()
                        except InputError as error:
                            failure = failure or error
                            self.stop()
                            continue
                        yield name, reply
            finally:
                self.stop()  # nobody waits for another attempt any more
        self._stopped.clear()
        if failure is not None:
            raise failure

    def stop(self) -> None:
        """Ends all waiting between attempts: whoever is in `ask` gets its InputError, or the reply that is under way."""
        self._stopped.set()

    def first_model(self) -> str:
        """The first model that the server lists.

        Raises:
            InputError: it lists none, refuses, or is out of reach.
        """
        url = f"{self._settings.base_url}/models"
        try:
            response = self._client.get(url)
            if response.status_code == 200:
                return str(response.json()["data"][0]["id"])
        except httpx.HTTPError as error:
            reason = self._excerpt(str(error) or type(error).__name__, 200)
            raise InputError(url, f"no server answers ({reason})", "Start it, or mend the address.") from None
        except (ValueError, LookupError, TypeError):
            raise InputError(url, "the server lists no model", "Name the model.") from None
        raise InputError(url, f"the server answers {response.status_code}", "Mend the address or the key, or name the model.")

    def stream(self, messages: list[Message], temperature: float, seed: int) -> Generator[str, None, str]:
        """The reply to one prompt, piece by piece as the server writes it, in a single attempt. Closing it ends the request.

        Args:
            messages: the prompt.
            temperature: 0 takes the likeliest token each time.
            seed: for servers that heed one.

        Yields:
            Pieces of the text.

        Returns:
            `length` if the text was cut off, otherwise `stop`.

        Raises:
            InputError: the server refuses, is out of reach, or breaks off.
        """
        payload = {
            "model": self._settings.model,
            "messages": messages,
            "temperature": temperature,
            "seed": seed,
            "max_tokens": self._max_new_tokens,
            "stream": True,
        }
        reason = None
        try:
            with self._client.stream("POST", self._url, json=payload) as response:
                if response.status_code != 200:
                    self._refuse(response, response.read().decode(errors="replace"))
                for line in response.iter_lines():
                    if not line.startswith("data:") or line.endswith("[DONE]"):  # server-sent events, as the API sends them
                        continue
                    piece, ends = self._read_piece(line.removeprefix("data:"))
                    reason = ends or reason
                    if piece:
                        yield self._without_key(piece)
        except (httpx.HTTPError, httpx.InvalidURL, _Interrupted) as error:
            said = self._excerpt(str(error) or type(error).__name__, 200)
            raise InputError(self._url, f"no reply ({said})", "See that the server runs, and ask again.") from None
        if reason is None:
            raise InputError(self._url, "the reply broke off, or is no stream of a chat completion", "Ask again.")
        return "length" if reason == "length" else "stop"

    def _read_piece(self, event: str) -> tuple[str, str | None]:
        """Text and finish reason of one event."""
        try:
            choices = json.loads(event)["choices"]
            if not choices:  # the server's count of tokens
                return "", None
            return choices[0]["delta"].get("content") or "", choices[0].get("finish_reason")
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            raise self._not_a_completion(event) from None

    def _post(self, payload: dict[str, Any]) -> str:
        """The body of a good response.

        Raises:
            _Interrupted, httpx.RequestError: another attempt may succeed.
            InputError: none will.
        """
        with self._client.stream("POST", self._url, json=payload) as response:
            body = b""
            for block in response.iter_bytes():
                body += block
                if len(body) > _LARGEST_BODY:
                    raise InputError(self._url, f"the reply is longer than {_LARGEST_BODY:,} bytes", "Mend base_url.")
        text = body.decode(errors="replace")
        if response.status_code != 200:
            self._refuse(response, text)
        return text

    def _refuse(self, response: httpx.Response, text: str) -> NoReturn:
        """What a response other than 200 means.

        Raises:
            _Interrupted: another attempt may succeed.
            InputError: none will.
        """
        status = self._excerpt(f"{response.status_code} {response.reason_phrase}", 60)
        if response.status_code in _RETRIED or response.status_code >= 500:
            raise _Interrupted(f"the server answers {status}", seconds_to_wait(response.headers.get("Retry-After", "")))
        if response.status_code in (401, 403):
            # What the server says about it is left out: some quote parts of the key.
            using = f"the key in {self._settings.api_key_env}" if self._key else "a request without a key"
            raise InputError(self._url, f"the server refuses {using} ({status})", "Mend api_key_env or its value.")
        if response.has_redirect_location:
            raise InputError(self._url, f"the server redirects ({status})", "Set base_url to the address that answers itself.")
        said = self._message(text)
        if response.status_code == 404:
            raise InputError(
                self._url, f"no such address, or no model {self._settings.model!r} ({status}{said})", "Mend base_url or model."
            )
        raise InputError(self._url, f"the server refuses the request ({status}{said})", "Mend what it names.")

    def _read(self, body: str, seconds: float) -> Reply:
        """The reply in a response's body.

        Raises:
            InputError: it is no chat completion.
        """
        try:
            content = json.loads(body)
            choice = content["choices"][0]
            text, reason = choice["message"].get("content"), choice.get("finish_reason")
            usage = content.get("usage") or {}
            prompt_tokens, completion_tokens = usage.get("prompt_tokens"), usage.get("completion_tokens")
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            raise self._not_a_completion(body) from None
        counts_are_right = all(
            count is None or (type(count) is int and 0 <= count < 2**31) for count in (prompt_tokens, completion_tokens)
        )
        if not (isinstance(text, str | None) and isinstance(reason, str | None) and counts_are_right):
            raise self._not_a_completion(body)
        return Reply(
            text=self._without_key(text or "").encode(errors="replace").decode(),  # parquet takes no lone surrogates
            finish_reason="length" if reason == "length" else "stop",
            server_finish_reason=reason and self._without_key(reason)[:40],
            prompt_tokens=prompt_tokens,
            completion_tokens=completion_tokens,
            seconds=seconds,
        )

    def _not_a_completion(self, body: str) -> InputError:
        return InputError(
            self._url,
            f"what the server answers is no chat completion (it begins {self._excerpt(body, 60)!r})",
            "See that base_url is that of an OpenAI-compatible server.",
        )

    def _message(self, body: str) -> str:
        """What a server says about its refusal, `: …`, or nothing."""
        try:
            content = json.loads(body)
            said = content.get("error") or content.get("detail") or content.get("message")
            said = said.get("message") if isinstance(said, dict) else said
        except (ValueError, AttributeError, RecursionError):
            said = body
        return f": {self._excerpt(said, 200)}" if isinstance(said, str) and said.strip() else ""

    def _excerpt(self, text: str, most: int) -> str:
        """The beginning of a server's text on one line, without the key and control characters."""
        shown = "".join(character if character.isprintable() else " " for character in self._without_key(text))
        shown = " ".join(shown.split())
        return shown if len(shown) <= most else f"{shown[:most]}…"

    def _without_key(self, text: str) -> str:
        return text.replace(self._key, "[key]") if self._key else text


def finish_reasons(replies: Mapping[Any, Reply]) -> dict[str, int]:
    """How often the server named which reason, for provenance."""
    return dict(sorted(Counter(str(reply.server_finish_reason) for reply in replies.values()).items()))
