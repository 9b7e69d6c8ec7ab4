"""Text files that are written from Jinja templates."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined


def render_text(template: Path, **variables: Any) -> str:
    """A text file's content; nothing is escaped.

    Args:
        template: its Jinja template.
        variables: what the template names; one that is missing is an error.
    """
    environment = Environment(
        loader=FileSystemLoader(template.parent),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(template.name).render(**variables)
