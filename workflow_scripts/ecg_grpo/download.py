"""A file from a server, whole and checked, however often the transfer breaks off."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path

import httpx

from ecg_grpo.errors import InputError
from ecg_grpo.raw_files import git_blob_sha1
from ecg_grpo.retry_after import seconds_to_wait
from ecg_grpo.settings.raw_data import RawDataSettings

LONGEST_DELAY = 30.0
"""Seconds; neither doubling nor a server's Retry-After makes a wait longer."""

_SECONDS_BETWEEN_NOTES = 1.0
_BY_HAND = "or put the file into a folder of your own and name that in data.raw_dir"


class _Interrupted(Exception):
    """The attempt failed in a way that another one may not; `wait` is how many seconds the server asked for."""

    def __init__(self, reason: str, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.wait = wait


def new_client(settings: RawDataSettings) -> httpx.Client:
    """Connections for `download`: no login, redirects followed, files as they are.

    Compressed content would make ranges and lengths mean something other than the file's bytes.
    """
    return httpx.Client(headers={"Accept-Encoding": "identity"}, timeout=settings.timeout, follow_redirects=True)


def download(
    client: httpx.Client,
    url: str,
    partial: Path,
    git_blob: str,
    settings: RawDataSettings,
    on_progress: Callable[[str], None],
) -> int:
    """Brings a file to `partial`.

    What `partial` holds already, from an earlier attempt or an earlier run, is not fetched again; it stays there when
    this fails, unless it is wrong.

    Args:
        client: from `new_client`.
        url: the file's address.
        partial: where to write; the name is the file's original name.
        git_blob: git blob SHA-1 that the file must have.
        settings: section `raw_data`, for retries and delays.
        on_progress: called about once a second, and before each wait, with a note.

    Returns:
        How many requests it took; 0 if the whole file was there.

    Raises:
        InputError: the server does not have the file, did not deliver it in all attempts, or has another one.
    """
    if partial.is_file() and git_blob_sha1(partial) == git_blob:
        return 0
    requests, failures, delay = 0, 0, min(settings.first_delay, LONGEST_DELAY)
    while True:
        requests += 1
        try:
            is_fresh = _transfer(client, url, partial, on_progress)
        except (httpx.UnsupportedProtocol, httpx.TooManyRedirects, httpx.InvalidURL) as error:
            raise InputError(url, f"{partial.name} cannot be fetched ({error})", f"Mend raw_data.url, {_BY_HAND}.") from None
        except (httpx.TransportError, _Interrupted) as error:
            reason = str(error) or type(error).__name__
            failures += 1
            if failures > settings.retries:
                raise InputError(
                    url,
                    f"{partial.name} could not be fetched in {failures} attempts (the last one: {reason})",
                    f"Run again to go on at byte {_size(partial)}, raise raw_data.retries, {_BY_HAND}.",
                ) from None
            wait = min(max(delay, getattr(error, "wait", 0.0)), LONGEST_DELAY)
            on_progress(f"{reason}; attempt {failures + 1} of {settings.retries + 1} in {wait:.0f} s")
            time.sleep(wait)
            delay = min(2 * delay, LONGEST_DELAY)
            continue
        found = git_blob_sha1(partial)
        if found == git_blob:
            return requests
        partial.unlink()
        if is_fresh:
            raise InputError(
                url,
                f"the file is not the one this project was made for: the git blob of {partial.name} is {found}, "
                f"not the expected {git_blob}",
                f"Mend raw_data.url and raw_data.commit, {_BY_HAND}.",
            )
        on_progress("the part from before does not fit; from the start again")


def _transfer(client: httpx.Client, url: str, partial: Path, on_progress: Callable[[str], None]) -> bool:
    """One request, after which `partial` is as long as the server says.

    Returns:
        Whether every byte is from this request.
    """
    have = _size(partial)
    with client.stream("GET", url, headers={"Range": f"bytes={have}-"} if have else {}) as response:
        status = response.status_code
        if status != 200 and not (have and status in (206, 416)):
            raise _refusal(response, url, partial.name)
        if status == 416 or (status == 206 and _first_byte(response) != have):
            return False  # the part is the whole file or of no use; its hash will tell
        encoding = response.headers.get("Content-Encoding", "identity")
        if encoding != "identity":
            raise InputError(
                url, f"the server sends {partial.name} only as {encoding}", f"Set raw_data.url to another server, {_BY_HAND}."
            )
        if status == 200:
            have = 0
        total = have + int(response.headers.get("Content-Length", 0))
        noted = time.monotonic()
        with partial.open("ab" if status == 206 else "wb") as stream:
            # In pieces as they arrive: in larger ones, the last before a broken connection would be lost. If fewer come
            # than Content-Length says, httpx raises RemoteProtocolError.
            for block in response.iter_raw():
                stream.write(block)
                have += len(block)
                if time.monotonic() - noted >= _SECONDS_BETWEEN_NOTES:
                    noted = time.monotonic()
                    on_progress(f"{have / 1e6:.1f} of {total / 1e6:.1f} MB" if total >= have else f"{have / 1e6:.1f} MB")
        return status == 200


def _refusal(response: httpx.Response, url: str, name: str) -> Exception:
    """What an answer without the file means."""
    status = f"{response.status_code} {response.reason_phrase}".strip()
    if response.status_code == 429 or response.status_code >= 500:
        return _Interrupted(f"the server answers {status}", seconds_to_wait(response.headers.get("Retry-After", "")))
    if response.status_code == 404:
        return InputError(
            url, f"the server has no file {name!r} there (404)", f"Mend raw_data.url and raw_data.commit, {_BY_HAND}."
        )
    return InputError(url, f"the server does not give {name!r} ({status})", f"Mend raw_data.url, {_BY_HAND}.")


def _first_byte(response: httpx.Response) -> int | None:
    """Where the part that a 206 answer holds begins in the file."""
    found = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    return int(found.group(1)) if found else None


def _size(partial: Path) -> int:
    """Bytes that are there already."""
    return partial.stat().st_size if partial.is_file() else 0
