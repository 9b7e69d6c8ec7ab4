"""As much of the Hugging Face Hub as an upload needs, on this machine, which keeps every byte that it gets."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "hf_alettertothehubthatnobodymaysee"


@dataclass
class Repository:
    """What was uploaded to a repository: each file's content by its path, and the messages of its commits."""

    private: bool
    files: dict[str, bytes] = field(default_factory=dict)
    commits: list[str] = field(default_factory=list)


@dataclass
class Hub:
    """The server: its address, its repositories by name, the contents that were sent as LFS, the requests so far, and what it
    has against a card."""

    address: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    large: dict[str, bytes] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    objections: list[str] = field(default_factory=list)


class _Handler(BaseHTTPRequestHandler):
    hub: Hub

    def do_GET(self) -> None:
        self._handle(b"")

    def do_POST(self) -> None:
        self._handle(self._body())

    def do_PUT(self) -> None:
        self._handle(self._body())

    def _handle(self, body: bytes) -> None:
        path, hub = self.path.partition("?")[0], self.hub
        hub.requests.append(f"{self.command} {path}")
        if self.command == "PUT":  # the storage behind the hub, which gets no token
            hub.large[path.removeprefix("/storage/")] = body
            return self._send(200)
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._send(401, {"error": f"Invalid credentials: {self.headers.get('Authorization')}"})
        if path == "/api/repos/create":
            return self._create(json.loads(body))
        if path == "/api/validate-yaml":
            errors = [{"message": objection} for objection in hub.objections]
            return self._send(400 if errors else 200, {"errors": errors, "warnings": []})
        name = "/".join(path.removeprefix("/api/models/").removesuffix(".git/info/lfs/objects/batch").strip("/").split("/")[:2])
        repository = hub.repositories.get(name)
        if repository is None:
            return self._send(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
        if path.endswith("/objects/batch"):
            return self._batch(json.loads(body))
        if "/preupload/" in path:
            modes = [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular",
                    "shouldIgnore": False,
                }
                for file in json.loads(body)["files"]
            ]
            return self._send(200, {"files": modes})
        if "/commit/" in path:
            return self._commit(repository, name, [json.loads(line) for line in body.splitlines()])
        if self.command == "GET":
            siblings = [{"rfilename": file} for file in repository.files]
            return self._send(200, {"id": name, "private": repository.private, "sha": "0" * 40, "siblings": siblings})
        return self._send(404, {"error": path})

    def _create(self, asked: dict[str, Any]) -> None:
        name = "/".join(filter(None, (asked.get("organization"), asked["name"])))
        exists = name in self.hub.repositories
        if not exists:
            self.hub.repositories[name] = Repository(private=asked.get("private", asked.get("visibility") == "private"))
        self._send(409 if exists else 200, {"url": f"{self.hub.address}/{name}"})

    def _batch(self, asked: dict[str, Any]) -> None:
        objects = [
            entry | {"actions": {"upload": {"href": f"{self.hub.address}/storage/{entry['oid']}"}}}
            for entry in asked["objects"]
        ]
        self._send(200, {"transfer": "basic", "objects": objects})

    def _commit(self, repository: Repository, name: str, lines: list[dict[str, Any]]) -> None:
        for line in lines:
            value = line["value"]
            if line["key"] == "header":
                repository.commits.append(value["summary"])
            elif line["key"] == "file":
                repository.files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                content = self.hub.large[value["oid"]]
                assert hashlib.sha256(content).hexdigest() == value["oid"]
                repository.files[value["path"]] = content
        url = f"{self.hub.address}/{name}/commit/{'1' * 40}"
        self._send(200, {"success": True, "commitOid": "1" * 40, "commitUrl": url})

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _send(self, status: int, content: Any = None, headers: dict[str, str] | None = None) -> None:
        body = b"" if content is None else json.dumps(content).encode()
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def hub_server() -> Iterator[Hub]:
    """A hub at 127.0.0.1 for as long as the block runs."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    hub.address = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
