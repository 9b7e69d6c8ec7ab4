"""A file of finished work that only grows, so that a killed run goes on where it stopped."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from ecg_grpo.errors import InputError


class Journal:
    """Entries, each a line of JSON; a kill can only cut the last line, and that one is dropped.

    Attributes:
        entries: what was kept, by an earlier run and by this one, in the order in which it was added.
    """

    def __init__(self, file: Path | None) -> None:
        """
        Args:
            file: what an earlier run may have left; None keeps nothing on disk.

        Raises:
            InputError: a whole line is no JSON.
        """
        self._file = file
        self.entries: list[Any] = []
        if file is None or not file.exists():
            return
        whole = file.read_bytes().rpartition(b"\n")[0]
        for number, line in enumerate(whole.splitlines(), 1):
            try:
                self.entries.append(json.loads(line))
            except ValueError:
                raise InputError(f"{file}, line {number}", "is no JSON", "Delete the line, or the file.") from None
        file.write_bytes(whole + b"\n" if whole else b"")

    def add(self, entry: Any) -> None:
        """Keeps one more entry.

        Raises:
            InputError: it cannot be written.
        """
        self.entries.append(entry)
        if self._file is None:
            return
        size = self._file.stat().st_size if self._file.exists() else 0
        try:
            with self._file.open("ab") as stream:
                stream.write(json.dumps(entry).encode() + b"\n")
        except OSError as error:
            with suppress(OSError):  # half a line would spoil the next one
                os.truncate(self._file, size)
            raise InputError(
                self._file, f"cannot be written ({error.strerror})", "Make room and run snakemake again."
            ) from None
