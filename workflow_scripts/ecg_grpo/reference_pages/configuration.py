"""The page about the configuration: every key of the settings models, with an anchor that is its dotted name."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from ecg_grpo.reference_pages.markup import code, heading, page, paragraphs, prose
from ecg_grpo.settings.run import Settings

_INTRODUCTION = """`config/config.yaml` holds every key with the demo's value. A file given with `--configfile` names what
differs, and is merged into it, so that a key that it leaves out has the demo's value. The default is what a key has where
neither file names it. After the type stand a value's limits; what must agree between keys is checked as well, before anything
runs."""

_NAMES = {str: "text", int: "integer", float: "number", bool: "`true` or `false`", Any: "anything", NoneType: "`null`"}
_LIMITS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
_NOT_THERE = object()


def configuration_page(root: Path) -> str:
    """All sections and keys, in the order of the models.

    Args:
        root: the project's folder, for the demo's values.
    """
    demo = yaml.safe_load((root / "config" / "config.yaml").read_text(encoding="utf-8"))
    return page("# Configuration", _INTRODUCTION, *_keys(Settings, "", demo))


def _keys(model: type[BaseModel], prefix: str, demo: Any) -> Iterator[str]:
    for name, field in model.model_fields.items():
        key = f"{prefix}{name}"
        value = demo.get(name, _NOT_THERE) if isinstance(demo, dict) else _NOT_THERE
        sections = _sections(field.annotation)
        # Sections are what the table of contents shows; keys are headings too, so that the search finds each.
        level = (2 if not prefix else 3) if sections or not prefix else 4
        yield heading(level, code(key), key)
        yield prose(field.description or "")
        yield _facts(field, value, is_section=any(not infix for _, infix in sections))
        for section, infix in sections:
            yield _documentation(section)
            yield from _keys(section, f"{key}{infix}.", value if not infix else None)


def _documentation(section: type[BaseModel]) -> str:
    """A model's docstring without the name that the heading above it has."""
    text = re.sub(r"^Section `[\w.]+`[.;:]\s*", "", inspect.getdoc(section) or "")
    return paragraphs(text[:1].upper() + text[1:]) if text else ""


def _sections(annotation: Any) -> list[tuple[type[BaseModel], str]]:
    """Models that a value can be, or can hold under names of the user's: `.NAME`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [(annotation, "")]
    if get_origin(annotation) is dict:
        return [(section, f".NAME{infix}") for section, infix in _sections(get_args(annotation)[1])]
    return [
        found for argument in get_args(annotation) if get_origin(annotation) is not Literal for found in _sections(argument)
    ]


def _facts(field: FieldInfo, demo: Any, is_section: bool) -> str:
    """Type, limits, default and the demo's value, one line."""
    facts = [f"Type: {type_name(field.annotation)}{_limits(field.metadata)}"]
    default = field.get_default(call_default_factory=True) if not field.is_required() else PydanticUndefined
    if field.is_required():
        facts.append("must be given")
    elif not isinstance(default, BaseModel):
        facts.append(f"default: {code(_value(default))}")
    if demo is not _NOT_THERE and not (is_section and isinstance(demo, dict)) and demo != default:
        facts.append(f"demo: {code(_value(demo))}")
    return "; ".join(facts) + ".\n{ .facts }"


def _value(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)


def _limits(metadata: list[Any]) -> str:
    found = [f"{word} {getattr(limit, sign)}" for limit in metadata for sign, word in _LIMITS.items() if hasattr(limit, sign)]
    found += [f"of the form {code(limit.pattern)}" for limit in metadata if getattr(limit, "pattern", None)]
    if any(getattr(limit, "min_length", 0) for limit in metadata):
        found.append("not empty")
    return "".join(f", {limit}" for limit in found)


def type_name(annotation: Any) -> str:
    """A type in words, as Markdown."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return type_name(arguments[0]) + _limits(list(arguments[1:]))
    if origin is Literal:
        return _either([code(_value(value)) for value in arguments])
    if origin in (Union, UnionType):
        return _either([type_name(argument) for argument in arguments])
    if origin in (list, tuple):
        return (
            f"list of {type_name(arguments[0])}" if origin is list else f"list of {len(arguments)}: {type_name(arguments[0])}"
        )
    if origin is dict:
        return f"mapping from {type_name(arguments[0])} to {type_name(arguments[1])}"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "section"
    return _NAMES.get(annotation) or code(getattr(annotation, "__name__", str(annotation)))


def _either(names: list[str]) -> str:
    names = list(dict.fromkeys(names))
    return f"{', '.join(names[:-1])} or {names[-1]}" if len(names) > 1 else names[0]
