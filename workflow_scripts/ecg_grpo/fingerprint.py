"""What a stage's code is, as one hash: the reason for which Snakemake runs the stage again."""

from __future__ import annotations

import ast
import hashlib
import json
import subprocess
from functools import cache
from modulefinder import Module, ModuleFinder
from pathlib import Path
from typing import NamedTuple, TextIO

from ecg_grpo.files import sha256_of


def code_fingerprint(program: str | Path) -> str:
    """SHA-256 over `code_files`, 64 hexadecimal digits: another one means that the stage must run again."""
    return hashlib.sha256(json.dumps(code_files(program), sort_keys=True).encode()).hexdigest()


def code_files(program: str | Path) -> dict[str, str]:
    """What a program's result depends on: itself, every module beside it that it imports, directly or not, and their resources.

    Comments, docstrings, help texts, descriptions and the layout of the source do not count, nor does the time at
    which a file was written. Imports inside functions count. So does every file that a module names by a call of
    `ecg_grpo.resources.resource`, as it is.

    Args:
        program: path of the program; modules are looked for in its folder, resources in `resources/` beside that.

    Returns:
        Path from the folder above the program's, and SHA-256 of what the file means.

    Raises:
        SyntaxError: a module does not parse.
    """
    program = Path(program).resolve()
    project = program.parents[1]
    sources = {program: _source(program, program.parent, program.stat().st_mtime_ns)}
    unread = [program]
    while unread:
        for file in sources[unread.pop()].imports - sources.keys():
            sources[file] = _source(file, program.parent, file.stat().st_mtime_ns)
            unread.append(file)
    found = {str(file.relative_to(project)): source.meaning for file, source in sources.items()}
    for name in {name for source in sources.values() for name in source.resources}:
        found[f"resources/{name}"] = sha256_of(project / "resources" / name)
    return found


def git_commit(folder: Path) -> str | None:
    """The commit that a folder's files are of, with `+` where tracked files differ from it; None outside a git checkout."""
    ask = ["git", "-C", str(folder), "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty=+"]
    try:
        return subprocess.run(ask, capture_output=True, text=True, check=True, timeout=60).stdout.strip() or None
    except (OSError, subprocess.SubprocessError):
        return None


class _Source(NamedTuple):
    """What is known of one source file.

    Attributes:
        meaning: SHA-256 of what it means to the interpreter.
        imports: files below the program's folder that it imports itself, those of their packages included.
        resources: files below resources/ that it names.
    """

    meaning: str
    imports: frozenset[Path]
    resources: tuple[str, ...]


@cache
def _source(file: Path, folder: Path, _mtime: int) -> _Source:
    """Reads a source file once, until it is written again: thirty programs share most of their modules."""
    meaning = _Meaning()
    tree = meaning.visit(ast.parse(file.read_bytes()))
    finder = _DirectImports(path=[str(folder)])
    finder.run_script(str(file))
    imports = frozenset(Path(module.__file__) for module in finder.modules.values() if module.__file__) - {file}
    return _Source(hashlib.sha256(_written(tree).encode()).hexdigest(), imports, tuple(meaning.resources))


def _written(node: object) -> str:
    """A syntax tree as text; unlike `ast.dump`'s it is the same for every version of Python that knows the same syntax."""
    if isinstance(node, list):
        return f"[{','.join(map(_written, node))}]"
    if not isinstance(node, ast.AST):
        return repr(node)
    filled = ((name, value) for name, value in ast.iter_fields(node) if value is not None and value != [])
    return f"{type(node).__name__}({','.join(f'{name}={_written(value)}' for name, value in filled)})"


class _DirectImports(ModuleFinder):
    """Finds what one file imports, and does not look into what it found."""

    def load_module(self, fqname: str, fp: TextIO | None, pathname: str, file_info: tuple[str, str, int]) -> Module:
        if fp is None or fqname == "__main__":  # a package's folder, or the file itself
            return super().load_module(fqname, fp, pathname, file_info)
        module = self.add_module(fqname)
        module.__file__ = pathname
        return module


class _Meaning(ast.NodeTransformer):
    """Takes out what people read and the interpreter does not act on, and notes the resources that are named."""

    def __init__(self) -> None:
        self.resources: list[str] = []

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        if isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            return None
        return self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        node.keywords = [keyword for keyword in node.keywords if keyword.arg not in ("description", "help")]
        if isinstance(node.func, ast.Name) and node.func.id == "resource":
            self.resources.append(node.args[0].value)
        return self.generic_visit(node)
