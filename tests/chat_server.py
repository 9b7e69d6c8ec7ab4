"""An OpenAI-compatible server on this machine: deterministic answers, and failures on demand."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


def echo(prompt: str) -> str:
    """Another answer for every prompt."""
    return f"Answer {hashlib.sha256(prompt.encode()).hexdigest()[:8]}: QRS ≥ 120 ms."


@dataclass
class ChatServer:
    """A server that answers `POST /v1/chat/completions`.

    Attributes:
        url: its base_url.
        model: the one model that it has.
        answer: from the last message's text to the reply's.
        key: the key that it asks for; None: none.
        behaviours: what it does with its first requests, one after the other; then it behaves well.
        delay: seconds before each reply, by the number of the request.
        pause: seconds between the pieces of a streamed reply.
        requests: headers and payload of each.
        most_at_once: the most requests that were under way at the same time.
        over: set when the test is over.
    """

    url: str = ""
    model: str = "cardio-1"
    answer: Callable[[str], str] = echo
    key: str | None = None
    behaviours: list[str] = field(default_factory=list)
    delay: Callable[[int], float] = lambda _: 0.0
    pause: float = 0.0
    requests: list[tuple[dict[str, str], dict[str, Any]]] = field(default_factory=list)
    most_at_once: int = 0
    at_once: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)
    over: threading.Event = field(default_factory=threading.Event)

    def settings(self, **changes: object) -> dict[str, Any]:
        """The section that names this server."""
        return {"base_url": self.url, "model": self.model} | changes

    def prompts(self) -> list[str]:
        """The last message of each request."""
        return [payload["messages"][-1]["content"] for _, payload in self.requests]


class Handler(BaseHTTPRequestHandler):
    """Does what its server's next behaviour says."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # head and body are two packets, and the second would wait for the first one's receipt
    chat: ChatServer

    def do_POST(self) -> None:
        payload = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.chat.lock:
            number = len(self.chat.requests)
            self.chat.requests.append(({key.lower(): value for key, value in self.headers.items()}, payload))
            behaviour = self.chat.behaviours.pop(0) if self.chat.behaviours else "well"
            self.chat.at_once += 1
            self.chat.most_at_once = max(self.chat.most_at_once, self.chat.at_once)
        try:
            self._reply(payload, number, *behaviour.split(" ", 1))
        except (BrokenPipeError, ConnectionResetError):  # the client was killed
            self.close_connection = True
        finally:
            with self.chat.lock:
                self.chat.at_once -= 1

    def _reply(self, payload: dict[str, Any], number: int, behaviour: str, value: str = "") -> None:
        time.sleep(self.chat.delay(number))
        content = {
            "id": f"chatcmpl-{number}",
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": self.chat.answer(payload["messages"][-1]["content"])},
                    "finish_reason": "stop",
                }
            ],
            "usage": {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18},
        }
        if self.path != "/v1/chat/completions":
            self._send(404, b'{"detail": "Not Found"}')
        elif self.chat.key is not None and self.headers["Authorization"] != f"Bearer {self.chat.key}":
            self._send(401, json.dumps({"error": {"message": f"Incorrect key: {self.headers['Authorization']}"}}).encode())
        elif payload["model"] != self.chat.model:
            self._send(404, json.dumps({"error": {"message": f"The model {payload['model']} does not exist."}}).encode())
        elif payload["stream"] and behaviour in ("well", "slow", "cut"):
            if behaviour == "slow":
                self.chat.over.wait(float(value))
            self._send_stream(content["choices"][0]["message"]["content"], cut=behaviour == "cut")
        elif behaviour == "drop":
            self.close_connection = True
        elif behaviour == "slow":
            self.chat.over.wait(float(value))
            self._send(200, json.dumps(content).encode())
        elif behaviour == "status":
            code, _, rest = value.partition(" ")
            retry_after, _, body = rest.partition(" ")
            headers = {"Retry-After": retry_after} if retry_after not in ("", "-") else {}
            if code.startswith("3"):
                headers["Location"] = "/v1/elsewhere"
            self._send(int(code), body.encode(), **headers)
        elif behaviour == "line":
            self.wfile.write(f"{value}\r\nContent-Length: 0\r\n\r\n".encode())
            self.close_connection = True
        elif behaviour == "body":
            self._send(200, value.encode())
        elif behaviour == "message":
            content["choices"][0] |= json.loads(value)
            self._send(200, json.dumps(content).encode())
        elif behaviour == "cut":
            self._send(200, json.dumps(content).encode(), cut=True)
        else:
            self._send(200, json.dumps(content).encode())

    def do_GET(self) -> None:
        if self.path == "/v1/models":
            self._send(200, json.dumps({"data": [{"id": self.chat.model}] if self.chat.model else []}).encode())
        else:
            self._send(404, b"{}")

    def _send_stream(self, text: str, cut: bool) -> None:
        """Three characters an event; `cut`: only the first half, and no end."""
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        pieces = [text[start : start + 3] for start in range(0, len(text), 3)]
        for piece in pieces[: len(pieces) // 2] if cut else pieces:
            self._send_event({"choices": [{"index": 0, "delta": {"content": piece}, "finish_reason": None}]})
            time.sleep(self.chat.pause)
        if not cut:
            self._send_event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
            self._send_event({"choices": [], "usage": {"completion_tokens": 7}})
            self.wfile.write(b"data: [DONE]\n\n")
        self.close_connection = True

    def _send_event(self, event: dict[str, Any]) -> None:
        self.wfile.write(f"data: {json.dumps(event)}\n\n".encode())
        self.wfile.flush()

    def _send(self, status: int, body: bytes, cut: bool = False, **headers: str) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if cut else body)
        self.close_connection = self.close_connection or cut

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def running(chat: ChatServer) -> Iterator[ChatServer]:
    """The server, answering."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("ChatHandler", (Handler,), {"chat": chat}))
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    chat.url = f"http://127.0.0.1:{server.server_port}/v1"
    try:
        yield chat
    finally:
        chat.over.set()
        server.shutdown()
        server.server_close()
