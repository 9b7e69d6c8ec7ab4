"""Text files that are written from Jinja templates."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined


def render_text(template: Path, *imported: Path, **variables: Any) -> str:
    """A text file's content; nothing is escaped.

    Args:
        template: its Jinja template.
        imported: templates from which it imports macros.
        variables: what the template names; one that is missing is an error.
    """
    environment = Environment(
        loader=FileSystemLoader([template.parent, *(file.parent for file in imported)]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(template.name).render(**variables)
