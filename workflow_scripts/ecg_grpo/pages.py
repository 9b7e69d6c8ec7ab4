"""The project's pages: single files that open without a network and run no script but their own."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from ecg_grpo.files import new_file
from ecg_grpo.templates import render_text


def write_page(page: Path, template: Path, style: Path, scripts: Sequence[Path], values: Mapping[str, Any]) -> None:
    """Renders a template and writes it as one file.

    The page's content security policy names the hashes of its scripts: whatever else a text might smuggle in does not run, and
    nothing is loaded from anywhere.

    Args:
        page: file to write.
        template: Jinja template; it puts `policy`, `style`, `plotly` and `scripts` in their places.
        style: style sheet.
        scripts: the page's own scripts.
        values: what the template shows; all of it is escaped.
    """
    environment = Environment(loader=FileSystemLoader(template.parent), autoescape=True, undefined=StrictUndefined)
    plotly, own = get_plotlyjs(), [script.read_text(encoding="utf-8") for script in scripts]
    hashes = " ".join(f"'sha256-{_sha256(script)}'" for script in (plotly, *own))
    text = environment.get_template(template.name).render(
        policy=Markup(
            "default-src 'none'; base-uri 'none'; form-action 'none'; style-src 'unsafe-inline'; img-src data: blob:; "
            f"script-src {hashes}"
        ),
        style=Markup(style.read_text(encoding="utf-8")),
        plotly=Markup(plotly),
        scripts=[Markup(script) for script in own],
        **values,
    )
    with new_file(page) as partial:
        # Lone surrogates in a model's text cannot be encoded; they are shown as escapes.
        partial.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_markdown(file: Path, template: Path, values: Mapping[str, Any], *imported: Path) -> None:
    """Renders a template of a Markdown file; nothing is escaped, so it must not show what a model wrote.

    Args:
        file: file to write.
        template: Jinja template.
        values: what the template shows.
        imported: templates from which it imports macros.
    """
    with new_file(file) as partial:
        partial.write_text(render_text(template, *imported, **values), encoding="utf-8")


def _sha256(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def chart(figure: go.Figure, name: str) -> Markup:
    """A figure's place in a page and the figure itself as JSON; `charts.js` draws it.

    Args:
        figure: the chart; its layout has a height.
        name: id of its element.
    """
    source = figure.to_json().replace("<", "\\u003c")  # `</script>` in a label must not end the element
    return Markup('<div class="chart" id="{0}" style="height:{1}px"></div>').format(name, figure.layout.height) + Markup(
        f'<script type="application/json" data-chart="{name}">{source}</script>'
    )


def packed(value: Any) -> str:
    """JSON, compressed and in base 64: letters that mean nothing to HTML, whatever text they hold."""
    return base64.b64encode(gzip.compress(json.dumps(value, separators=(",", ":")).encode(), mtime=0)).decode()
