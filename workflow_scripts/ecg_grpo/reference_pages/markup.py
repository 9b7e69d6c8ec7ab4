"""Text that Markdown must show as it is, and the few forms that the reference pages are made of."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

_CODE = re.compile(r"``(.+?)``|`([^`\n]+)`")
_MARKUP = re.compile(r"[\\`*_{}\[\]()#+!|~^=:<>&.-]")


def plain(text: str) -> str:
    """A text of which no character is markup, on one line."""
    return _MARKUP.sub(lambda sign: f"&#{ord(sign[0])};", " ".join(text.split()))


def code(text: str) -> str:
    """A text as code, on one line."""
    text = " ".join(text.split())
    ticks = "`" * (max((len(found) for found in re.findall("`+", text)), default=0) + 1)
    space = " " * (text.startswith("`") or text.endswith("`"))
    return f"{ticks}{space}{text}{space}{ticks}"


def prose(text: str) -> str:
    """A docstring's or a description's paragraph: what stands between backticks is code, nothing else is markup."""
    shown, end = [], 0
    for match in _CODE.finditer(text):
        shown += [_plain_within(text[end : match.start()]), code(match[1] or match[2])]
        end = match.end()
    return "".join([*shown, _plain_within(text[end:])]).strip()


def _plain_within(text: str) -> str:
    """`plain`, with the spaces that separate it from what stands beside it."""
    left, right = " " * text[:1].isspace(), " " * text[-1:].isspace()
    return f"{left}{plain(text)}{right}" if text.strip() else left


def paragraphs(text: str) -> str:
    """A docstring: its paragraphs as prose, what is indented as it stands."""
    parts = []
    for part in re.split(r"\n\s*\n", text.strip("\n")):
        lines = part.splitlines()
        if all(line.startswith("    ") for line in lines):
            parts.append(block("\n".join(line[4:] for line in lines)))
        elif lines[0].lstrip().startswith("- "):
            items = re.split(r"^\s*- ", part, flags=re.MULTILINE)[1:]
            parts.append("\n".join(f"- {prose(item)}" for item in items))
        else:
            parts.append(prose(part))
    return "\n\n".join(parts)


def block(text: str) -> str:
    """Lines as they stand."""
    fence = "`" * max([3, *(len(found) + 1 for found in re.findall("`+", text))])
    return f"{fence}text\n{text}\n{fence}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of cells that are Markdown already."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def heading(level: int, text: str, anchor: str) -> str:
    """A heading, Markdown already, with the anchor that it keeps."""
    return f"{'#' * level} {text} {{ #{anchor} }}"


def page(*parts: str) -> str:
    """A page of parts."""
    return "\n\n".join(part for part in parts if part) + "\n"
