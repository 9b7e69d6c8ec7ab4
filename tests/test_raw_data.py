"""Fetching the raw files from a server on this machine that breaks off, repeats itself, refuses and lies."""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import re
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import get_args
from urllib.parse import unquote

import pytest
from conftest import ROOT
from pydantic import ValidationError

from ecg_grpo.download import download, new_client
from ecg_grpo.errors import InputError
from ecg_grpo.raw_files import BY_CODE, BY_NAME, RAW_FILES
from ecg_grpo.settings.raw_data import RawDataSettings, RawFileCode
from ecg_grpo.stage import Stage
from fetch_raw_data import fetch_raw_data

NAME = BY_CODE["EBK"].name
DATA = random.Random(0).randbytes(200_000).replace(b"\n", b"\r\n")


def git_blob(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


@dataclass
class Home:
    """A server with some files.

    Attributes:
        url: the template for section `raw_data`.
        files: what it has, by name.
        behaviours: what it does with its first requests, one after the other; then it behaves well.
        requests: of each request the file's name and the headers.
        sent: bytes of files that it sent.
        over: set when the test is over.
    """

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    behaviours: list[str] = field(default_factory=list)
    requests: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    sent: int = 0
    over: threading.Event = field(default_factory=threading.Event)

    def names(self) -> list[str]:
        """The files that were asked for, in order."""
        return [name for name, _ in self.requests]

    def ranges(self) -> list[str | None]:
        """The Range header of each request."""
        return [headers.get("range") for _, headers in self.requests]


class Handler(BaseHTTPRequestHandler):
    """Does what its home's next behaviour says."""

    home: Home

    def do_GET(self) -> None:
        name = unquote(self.path.rsplit("/", 1)[-1])
        self.home.requests.append((name, {key.lower(): value for key, value in self.headers.items()}))
        behaviour, _, value = (self.home.behaviours.pop(0) if self.home.behaviours else "well").partition(" ")
        data = self.home.files.get(name)
        if behaviour == "drop":
            return
        if behaviour == "status":
            code, _, retry_after = value.partition(" ")
            self._send(int(code), b"busy", **({"Retry-After": retry_after} if retry_after else {}))
        elif behaviour == "redirect":
            self._send(302, b"", Location=f"/elsewhere{self.path}")
        elif data is None:
            self._send(404, b"nothing here")
        elif behaviour == "gzip":
            self._send(200, data, **{"Content-Encoding": "gzip"})
        else:
            asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
            start = int(asked.group(1)) if asked and behaviour != "whole" else 0
            if start >= len(data):
                self._send(416, b"")
            elif start:
                first = start + 7 if behaviour == "shifted" else start
                self._send(206, data[first:], behaviour, **{"Content-Range": f"bytes {first}-{len(data) - 1}/{len(data)}"})
            else:
                self._send(200, data, behaviour)

    def _send(self, status: int, body: bytes, behaviour: str = "well", **headers: str) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if behaviour in ("cut", "shifted", "stall"):
            body = body[: len(body) // 2]
        self.home.sent += len(body) if status in (200, 206) else 0
        self.wfile.write(body)
        if behaviour == "stall":
            self.wfile.flush()
            self.home.over.wait(10)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def home() -> Iterator[Home]:
    """A server with every file of the data set, the content of each made up."""
    home = Home(files={raw.name: raw.code.encode() + DATA for raw in RAW_FILES})
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("HomeHandler", (Handler,), {"home": home}))
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    home.url = f"http://127.0.0.1:{server.server_port}/data/{{commit}}/{{file}}"
    yield home
    home.over.set()
    server.shutdown()
    server.server_close()


@pytest.fixture
def partial(tmp_path: Path) -> Path:
    return tmp_path / NAME


def fetch(home: Home, partial: Path, content: bytes | None = None, **changes: object) -> tuple[int, list[str]]:
    """Downloads one file; its requests and the notes."""
    settings = RawDataSettings(url=home.url, **{"first_delay": 0} | changes)
    notes: list[str] = []
    expected = git_blob(home.files[NAME] if content is None else content)
    with new_client(settings) as client:
        return download(client, settings.url_of(NAME), partial, expected, settings, notes.append), notes


def test_a_file_comes_byte_for_byte_and_uncompressed(home: Home, partial: Path) -> None:
    home.files[NAME] = b"{\r\n\xff\x00\r}\n\r\n"
    assert fetch(home, partial) == (1, [])
    assert partial.read_bytes() == home.files[NAME]
    ((name, headers),) = home.requests
    assert (name, headers["accept-encoding"]) == (NAME, "identity")
    assert "authorization" not in headers
    assert fetch(home, partial) == (0, [])
    assert len(home.requests) == 1


def test_an_interrupted_transfer_goes_on_where_it_stopped(home: Home, partial: Path) -> None:
    home.behaviours = ["cut"]
    attempts, (note,) = fetch(home, partial)
    assert attempts == 2
    assert "attempt 2 of 6 in 0 s" in note
    size = len(home.files[NAME])
    assert home.ranges() == [None, f"bytes={size // 2}-"]
    assert home.sent == size < 2 * size
    assert partial.read_bytes() == home.files[NAME]


def test_a_server_that_falls_silent_counts_as_interrupted(home: Home, partial: Path) -> None:
    home.behaviours = ["stall"]
    attempts, (note,) = fetch(home, partial, timeout=2)
    assert attempts == 2
    assert note.startswith("timed out; ")
    assert home.ranges()[1] is not None
    assert partial.read_bytes() == home.files[NAME]


@pytest.mark.parametrize(
    ("behaviours", "requests"),
    [
        (["cut", "whole"], 2),  # the server ignores Range
        (["cut", "shifted"], 3),  # it answers with another range, and none of that may stay
        (["redirect"], 1),
        (["redirect", "cut", "redirect"], 2),
    ],
)
def test_servers_that_answer_otherwise(home: Home, partial: Path, behaviours: list[str], requests: int) -> None:
    home.behaviours = behaviours
    assert fetch(home, partial)[0] == requests
    assert partial.read_bytes() == home.files[NAME]


def test_notes_tell_how_much_is_there(home: Home, partial: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ecg_grpo.download._SECONDS_BETWEEN_NOTES", 0)
    home.behaviours = ["cut", "cut", "whole"]
    _, notes = fetch(home, partial)
    waits = [place for place, note in enumerate(notes) if "attempt" in note]
    assert [notes[place - 1] for place in waits] + notes[-1:] == ["0.1 of 0.2 MB", "0.2 of 0.2 MB", "0.2 of 0.2 MB"]


@pytest.mark.parametrize(
    "left", [b"altered", DATA + b"longer than the file", b"x" * (len(DATA) + 3)], ids=["short", "too long", "as long"]
)
def test_a_part_that_does_not_fit_is_dropped(home: Home, partial: Path, left: bytes) -> None:
    partial.write_bytes(left)
    attempts, (note,) = fetch(home, partial, retries=0)
    assert (attempts, note) == (2, "the part from before does not fit; from the start again")
    assert home.ranges() == [f"bytes={len(left)}-", None]
    assert partial.read_bytes() == home.files[NAME]


def test_another_file_is_refused_with_both_hashes(home: Home, partial: Path) -> None:
    with pytest.raises(InputError, match="not the one this project was made for") as caught:
        fetch(home, partial, b"the right one")
    assert git_blob(home.files[NAME]) in str(caught.value)
    assert git_blob(b"the right one") in str(caught.value)
    assert len(home.requests) == 1
    assert not partial.exists()


@pytest.mark.parametrize("broken", [1, 2, 3])
def test_dropped_connections_up_to_the_limit(home: Home, partial: Path, broken: int) -> None:
    home.behaviours = ["cut", "drop", "cut"][:broken]
    if broken <= 2:
        assert fetch(home, partial, retries=2)[0] == broken + 1
    else:
        with pytest.raises(InputError, match="could not be fetched in 3 attempts") as caught:
            fetch(home, partial, retries=2)
        size = len(home.files[NAME])
        kept = size // 2 + (size - size // 2) // 2
        assert f"go on at byte {kept}" in str(caught.value)
        assert partial.stat().st_size == kept
        assert fetch(home, partial)[0] == 1
        assert home.ranges()[-1] == f"bytes={kept}-"
        assert home.sent == size
    assert partial.read_bytes() == home.files[NAME]


def test_a_server_out_of_reach(home: Home, partial: Path) -> None:
    home.url = "http://127.0.0.1:9/{file}"
    with pytest.raises(InputError, match="could not be fetched in 2 attempts"):
        fetch(home, partial, retries=1)
    home.url = "http://127.0.0.1:port/{file}"
    with pytest.raises(InputError, match="cannot be fetched"):
        fetch(home, partial)


IN_AN_HOUR = format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)


@pytest.mark.parametrize(
    ("behaviours", "waits"),
    [
        (["status 503"], [2]),
        (["status 500", "drop", "status 502", "status 503", "drop"], [2, 4, 8, 16, 30]),
        (["status 429 5"], [5]),
        (["status 429 1"], [2]),
        (["status 429 3600"], [30]),
        ([f"status 503 {IN_AN_HOUR}"], [30]),
        (["status 429 soon"], [2]),
    ],
)
def test_it_waits_longer_each_time_or_as_long_as_the_server_asks(
    home: Home, partial: Path, behaviours: list[str], waits: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []
    monkeypatch.setattr("ecg_grpo.download.time.sleep", waited.append)
    home.behaviours = behaviours
    assert fetch(home, partial, first_delay=2)[0] == len(waits) + 1
    assert waited == waits
    assert partial.read_bytes() == home.files[NAME]


@pytest.mark.parametrize(
    ("behaviour", "expected"),
    [
        ("status 404", "the server has no file 'ECG Knowledge (Basic Q&A).json' there (404). Mend raw_data.url"),
        ("status 403", "the server does not give 'ECG Knowledge (Basic Q&A).json' (403 Forbidden)"),
        ("status 204", "(204 No Content)"),
        ("status 416", "(416 Requested Range Not Satisfiable)"),
        ("gzip", "only as gzip"),
    ],
)
def test_what_another_attempt_cannot_mend(home: Home, partial: Path, behaviour: str, expected: str) -> None:
    home.behaviours = [behaviour]
    with pytest.raises(InputError) as caught:
        fetch(home, partial)
    assert str(caught.value).startswith(home.url.split("{")[0])
    assert expected in str(caught.value)
    assert len(home.requests) == 1
    assert not partial.exists()


@dataclass
class Place:
    """Where the program writes to."""

    home: Home
    folder: Path

    def files(self, *codes: str) -> list[Path]:
        return [self.folder / "raw" / BY_CODE[code].name for code in codes]

    def fetch(self, *codes: str, **changes: object) -> dict[str, int]:
        """Runs the stage in this process; the attempts for each file."""
        settings = RawDataSettings(url=self.home.url, **{"first_delay": 0} | changes)
        arguments = argparse.Namespace(
            files=self.files(*codes), scratch=self.folder / "scratch", settings=settings.as_json(), threads=1
        )
        stage = Stage("fetch_raw_data", 1)
        fetch_raw_data(arguments, stage)
        facts = stage.facts["files"]
        for file in arguments.files:
            assert file.read_bytes() == self.home.files[file.name]
            assert facts[file.name]["bytes"] == len(self.home.files[file.name])
            assert facts[file.name]["git_blob"] == git_blob(self.home.files[file.name])
        assert not list(arguments.scratch.iterdir())
        return {BY_NAME[name].code: fact["attempts"] for name, fact in facts.items()}


@pytest.fixture
def place(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """A place for files that have the made-up content's hashes."""
    for raw in RAW_FILES:
        monkeypatch.setitem(BY_NAME, raw.name, replace(raw, git_blob=git_blob(home.files[raw.name])))
    return Place(home, tmp_path)


def test_every_name_arrives_as_it_is(place: Place) -> None:
    codes = [raw.code for raw in RAW_FILES]
    assert place.fetch(*codes) == dict.fromkeys(codes, 1)
    assert place.home.names() == [raw.name for raw in RAW_FILES]
    assert sorted(file.name for file in (place.folder / "raw").iterdir()) == sorted(raw.name for raw in RAW_FILES)


def test_files_in_place_are_kept_and_wrong_ones_replaced(place: Place) -> None:
    place.fetch("EBK", "CK", "PRTK")
    before = place.files("EBK")[0].stat().st_mtime_ns
    place.files("CK")[0].write_bytes(b"altered")
    assert place.fetch("EBK", "CK", "PRTK") == {"EBK": 0, "CK": 1, "PRTK": 0}
    assert place.files("EBK")[0].stat().st_mtime_ns == before
    assert place.home.names()[3:] == [BY_CODE["CK"].name]


def test_a_run_that_died_keeps_what_it_had(place: Place) -> None:
    place.home.behaviours = ["well", "well", "cut", "status 404"]
    with pytest.raises(InputError, match="no file"):
        place.fetch("EBK", "CK", "CD", "PP")
    assert not (place.folder / "raw").exists()
    died_at = len(place.home.requests)
    assert place.fetch("EBK", "CK", "CD", "PP") == {"EBK": 0, "CK": 0, "CD": 1, "PP": 1}
    assert place.home.names()[died_at:] == [BY_CODE["CD"].name, BY_CODE["PP"].name]
    assert place.home.ranges()[died_at] is not None
    assert place.home.sent == sum(len(place.home.files[BY_CODE[code].name]) for code in ("EBK", "CK", "CD", "PP"))


def test_a_run_that_died_while_putting_files_into_place_fetches_nothing_again(place: Place) -> None:
    blocked = place.files("CK")[0]
    blocked.mkdir(parents=True)
    with pytest.raises(IsADirectoryError):
        place.fetch("EBK", "CK")
    blocked.rmdir()
    place.files("EBK")[0].unlink()  # as Snakemake does with a failed job's outputs
    assert place.fetch("EBK", "CK") == {"EBK": 0, "CK": 0}
    assert len(place.home.requests) == 2
    assert sorted(file.name for file in blocked.parent.iterdir()) == sorted(BY_CODE[code].name for code in ("EBK", "CK"))


def run_program(folder: Path, settings: dict, *names: str, before: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            *before,
            *(sys.executable, ROOT / "workflow_scripts/fetch_raw_data.py", "--files", *(f"raw/{name}" for name in names)),
            *("--scratch", "scratch", "--settings", json.dumps(settings), "--log", "log.txt", "--provenance", "facts.json"),
        ],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (NAME, f"not the expected {BY_CODE['EBK'].git_blob}"),  # the made-up content is not the real file's
        (
            "ECG Knowledge.json",
            f"raw/ECG Knowledge.json: not a file of ECG-Expert-QA. Give it its original name or move it out of "
            f"the folder. Known names: {NAME}; ",
        ),
    ],
    ids=["another content", "another name"],
)
def test_the_program_refuses_in_one_line(home: Home, tmp_path: Path, name: str, expected: str) -> None:
    run = run_program(tmp_path, {"url": home.url}, name)
    assert run.returncode == 1
    assert run.stderr.count("\n") == 1, run.stderr
    assert expected in run.stderr
    assert not (tmp_path / "raw").exists()
    assert not (tmp_path / "facts.json").exists()


def test_a_disk_that_fills_up_is_one_line(home: Home, tmp_path: Path, in_own_mounts: list[str]) -> None:
    (tmp_path / "scratch").mkdir()
    small_disk = [*in_own_mounts, "bash", "-c", 'mount -t tmpfs -o size=64k none scratch; exec "$@"', "bash"]
    run = run_program(tmp_path, {"url": home.url}, NAME, before=small_disk)
    assert run.returncode == 1
    assert run.stderr.count("\n") == 1, run.stderr
    assert "No space left on device. Make room and run snakemake again." in run.stderr
    assert len(home.requests) == 1


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"url": "ftp://server/{file}"}, "must begin with http"),
        ({"url": "https:///{file}"}, "name a server"),
        ({"url": "https://[server/{file}"}, "Invalid IPv6 URL"),
        ({"url": "https://server/file.json"}, "must contain {file}"),
        ({"url": "https://server/{revision}/{file}"}, "no placeholders but"),
        ({"commit": "main"}, "commit"),
        ({"commit": "8EFF3B4"}, "commit"),
        ({"files": []}, "files"),
        ({"files": ["EBK", "CK", "EBK"]}, "named more than once: EBK"),
        ({"files": ["ECG"]}, "files.0"),
        ({"retries": -1}, "retries"),
        ({"timeout": 0}, "timeout"),
        ({"first_delay": -1}, "first_delay"),
    ],
)
def test_settings_that_cannot_work(change: dict, expected: str) -> None:
    with pytest.raises(ValidationError) as caught:
        RawDataSettings(**change)
    assert expected in str(caught.value)


def test_a_password_in_the_address_is_refused_and_not_shown() -> None:
    with pytest.raises(InputError, match="user name or password") as caught:
        RawDataSettings.from_json('{"url": "https://me:secret@server/{file}"}')
    assert "secret" not in str(caught.value)


def test_settings_name_the_data_sets_files() -> None:
    assert list(get_args(RawFileCode)) == [raw.code for raw in RAW_FILES] == RawDataSettings().files


def test_a_mirror_needs_no_commit() -> None:
    assert RawDataSettings(url="https://mirror/{file}").url_of("a b&c.json") == "https://mirror/a%20b%26c.json"
    assert "/8eff3b4/Patient%27s%20right%20to%20know.json" in RawDataSettings().url_of("Patient's right to know.json")
