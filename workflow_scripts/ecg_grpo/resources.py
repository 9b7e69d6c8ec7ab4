"""Files of `resources/` that belong to the code: whoever reads one has it in its fingerprint."""

from __future__ import annotations

from pathlib import Path

RESOURCES = Path(__file__).resolve().parents[2] / "resources"


def resource(name: str) -> Path:
    """The path of a file below `resources/`.

    `code_fingerprint` finds calls of this function in the source and counts the file's content as code; so the name must be
    written out.
    """
    return RESOURCES / name
