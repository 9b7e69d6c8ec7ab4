"""The page about the parquet files: columns and types of every schema, and what its docstring says."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pyarrow as pa

from ecg_grpo import tables
from ecg_grpo.metrics import METRICS
from ecg_grpo.reference_pages.markup import code, heading, page, paragraphs, table
from ecg_grpo.reference_pages.rules import rule_files

_INTRODUCTION = """All tables are parquet files with zstd compression; the same rows and settings give the same bytes.
[From raw JSON to splits](../data.md), [Evaluation](../evaluation.md) and [SFT and GRPO](../training.md) say how they come
about."""

_SYSTEMS = ("reference", "echo", "constant", "nearest", "base", "sft", "grpo")
_EXAMPLES = {"metrics": tuple(METRICS), "systems": _SYSTEMS}
"""What a schema that depends on something is shown for."""


def formats_page(root: Path) -> str:
    """All tables; those of `ecg_grpo.tables` first.

    Args:
        root: the project's folder.
    """
    parts = []
    for name, schema, documentation, module in schemas(root):
        parts += [heading(2, code(name), name.lower()), paragraphs(documentation)]
        if rules := _written_by(root, name):
            parts.append(f"Written by {', '.join(f'[{code(rule)}](rules.md#rule-{rule})' for rule in rules)}.")
        rows = [(code(column.name), code(_type_name(column.type))) for column in schema]
        parts += [table(("column", "type"), rows), f"In the code: {code(f'{module.__name__}.{name}')}."]
    return page("# File formats", _INTRODUCTION, *parts)


def schemas(root: Path) -> Iterator[tuple[str, pa.Schema, str, ModuleType]]:
    """Every schema of the library: name, columns, docstring, module."""
    files = (root / "workflow_scripts" / "ecg_grpo").glob("*.py")
    named = sorted(file.stem for file in files if "pa.schema(" in file.read_text(encoding="utf-8") and file.stem != "tables")
    for module in [tables, *(import_module(f"ecg_grpo.{name}") for name in named)]:
        documented = _documented(inspect.getsource(module))
        for name, value in vars(module).items():
            if isinstance(value, pa.Schema) and name in documented:
                yield name, value, documented[name], module
            elif inspect.isfunction(value) and value.__module__ == module.__name__ and name.endswith("_schema"):
                arguments = [_EXAMPLES[parameter] for parameter in inspect.signature(value).parameters]
                documentation = re.split(r"\n+Args:", inspect.getdoc(value) or "")[0]
                yield name, value(*arguments), documentation, module


def _documented(source: str) -> dict[str, str]:
    """The names that a module assigns, with the string after the assignment."""
    body = ast.parse(source).body
    found = {}
    for statement, following in zip(body, [*body[1:], None], strict=True):
        if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
            documentation = ""
            if isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant):
                documentation = str(following.value.value)
            found[statement.targets[0].id] = documentation
    return found


def _written_by(root: Path, schema: str) -> list[str]:
    """Rules whose program names the schema; what only reads a table names columns."""
    programs = {
        file.stem
        for file in (root / "workflow_scripts").glob("*.py")
        if re.search(rf"\b{schema}\b", file.read_text(encoding="utf-8"))
    }
    return [rule.name for _, _, rules in rule_files(root) for rule in rules if programs & set(rule.programs)]


def _type_name(kind: pa.DataType) -> str:
    """A type as people say it."""
    if pa.types.is_list(kind):
        return f"list of {_type_name(kind.value_type)}"
    if pa.types.is_struct(kind):
        return "{" + ", ".join(f"{one.name}: {_type_name(one.type)}" for one in kind) + "}"
    return str(kind)
