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


def check_range(where: str, number: float, least: float, most: float) -> None:
    """Refuses a number that is out of bounds, or none.

    Raises:
        InputError: it is; names where it stands, and the bounds.
    """
    if not least <= number <= most:
        raise InputError(where, f"{number:g} is not from {least:,g} to {most:,}", "Say another number.")
