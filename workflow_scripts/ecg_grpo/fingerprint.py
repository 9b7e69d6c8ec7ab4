"""What a stage's code is, as one hash: the reason for which Snakemake runs the stage again."""

from __future__ import annotations

import ast
import hashlib
import subprocess
from functools import cache
from modulefinder import ModuleFinder
from pathlib import Path


def code_fingerprint(program: str | Path) -> str:
    """SHA-256 over a program and every module beside it that it imports, directly or not.

    Comments, docstrings, help texts, descriptions and the layout of the source do not count, nor does the time at
    which a file was written. Imports inside functions count. So does every file that a module names by a call of
    `ecg_grpo.resources.resource`, as it is.

    Args:
        program: path of the program; modules are looked for in its folder.

    Returns:
        64 hexadecimal digits.

    Raises:
        SyntaxError: a module does not parse.
    """
    program = Path(program).resolve()
    finder = ModuleFinder(path=[str(program.parent)])
    finder.run_script(str(program))
    files = {program} | {Path(module.__file__) for module in finder.modules.values() if module.__file__}
    digest = hashlib.sha256()
    for file in sorted(files):
        digest.update(f"{file.relative_to(program.parent)}\0".encode())
        meaning, resources = _meaning(file, file.stat().st_mtime_ns)
        digest.update(meaning)
        for name in resources:
            digest.update(f"{name}\0".encode())
            digest.update((program.parents[1] / "resources" / name).read_bytes())
    return digest.hexdigest()


def git_commit(folder: Path) -> str | None:
    """The commit that a folder's files are of, with `+` where tracked files differ from it; None outside a git checkout."""
    ask = ["git", "-C", str(folder), "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty=+"]
    try:
        return subprocess.run(ask, capture_output=True, text=True, check=True, timeout=60).stdout.strip() or None
    except (OSError, subprocess.SubprocessError):
        return None


@cache
def _meaning(file: Path, _mtime: int) -> tuple[bytes, tuple[str, ...]]:
    """SHA-256 of what a source file means, and the resources that it names; cached until the file is written again."""
    tree = _Meaning().visit(ast.parse(file.read_bytes()))
    named = (
        node.args[0].value
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "resource"
    )
    return hashlib.sha256(ast.dump(tree).encode()).digest(), tuple(sorted(named))


class _Meaning(ast.NodeTransformer):
    """Takes out what people read and the interpreter does not act on."""

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        if isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            return None
        return self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        node.keywords = [keyword for keyword in node.keywords if keyword.arg not in ("description", "help")]
        return self.generic_visit(node)
