"""The one exception whose text a user is meant to read."""

from __future__ import annotations

from pathlib import Path


class InputError(Exception):
    """Something the user gave cannot be used.

    The text is one message in three parts: where (file, row, key), what is wrong, what to do. Programs print it
    without a traceback and exit with status 1.
    """

    def __init__(self, where: str | Path, what: str, mend: str) -> None:
        super().__init__(f"{where}: {what}. {mend}")
        self.where, self.what, self.mend = str(where), what, mend
