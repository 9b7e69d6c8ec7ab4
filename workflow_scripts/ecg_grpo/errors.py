"""The one exception whose text a user is meant to read, and the one cause of others that any stage can meet: a full disk."""

from __future__ import annotations

import errno
import os
from pathlib import Path

_WANT_OF_ROOM = (errno.ENOSPC, errno.EDQUOT)


class InputError(Exception):
    """Something the user gave cannot be used.

    The text is one message in three parts: where (file, row, key), what is wrong, what to do. Programs print it
    without a traceback and exit with status 1.
    """

    def __init__(self, where: str | Path, what: str, mend: str) -> None:
        super().__init__(f"{where}: {what}. {mend}")
        self.where, self.what, self.mend = str(where), what, mend


def want_of_room(error: BaseException | None) -> str | None:
    """How the system names it if something could not be written because a disk is full or a quota used up; None otherwise.

    Not every library raises an OSError for it; the text is the system's all the same. The errors that led to this one count.
    """
    while error is not None:
        for number in _WANT_OF_ROOM:
            if (isinstance(error, OSError) and error.errno == number) or os.strerror(number) in str(error):
                return os.strerror(number)
        error = error.__cause__ or error.__context__
    return None


def check_range(where: str, number: float, least: float, most: float) -> None:
    """Refuses a number that is out of bounds, or none.

    Raises:
        InputError: it is; names where it stands, and the bounds.
    """
    if not least <= number <= most:
        raise InputError(where, f"{number:g} is not from {least:,g} to {most:,}", "Say another number.")
