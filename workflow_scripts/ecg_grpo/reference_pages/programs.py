"""The page about the programs: what the first lines of their `--help` say, and which rules run them."""

from __future__ import annotations

import ast
from pathlib import Path

from ecg_grpo.reference_pages.markup import code, heading, page, paragraphs
from ecg_grpo.reference_pages.rules import rule_files

_INTRODUCTION = """Every stage is a program of its own, which needs no Snakemake. `python workflow_scripts/NAME.py --help` says
all of what stands here, and describes every option."""


def programs_page(root: Path) -> str:
    """All programs, in the order of the alphabet.

    Args:
        root: the project's folder.
    """
    runs: dict[str, list[str]] = {}
    for _, _, rules in rule_files(root):
        for rule in rules:
            for program in rule.programs:
                runs.setdefault(program, []).append(rule.name)
    parts = []
    for program, paragraph in programs(root).items():
        parts += [heading(2, code(f"{program}.py"), program), paragraphs(paragraph)]
        if program in runs:
            named = ", ".join(f"[{code(name)}](rules.md#rule-{name})" for name in runs[program])
            parts.append(f"{'Rule' if len(runs[program]) == 1 else 'Rules'}: {named}.")
    return page("# Programs", _INTRODUCTION, *parts)


def programs(root: Path) -> dict[str, str]:
    """The first paragraph of every program's docstring, which is the description of its `--help`."""
    found = {}
    for file in sorted((root / "workflow_scripts").glob("*.py")):
        documentation = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8")), clean=False)
        if documentation:
            found[file.stem] = documentation.split("\n\n")[0]
    return found
