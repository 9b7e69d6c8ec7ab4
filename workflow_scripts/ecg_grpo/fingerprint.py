"""What a stage's code is, as one hash: the reason for which Snakemake runs the stage again."""

from __future__ import annotations

import ast
import hashlib
import json
import subprocess
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import NamedTuple

from ecg_grpo.files import sha256_of


def code_fingerprint(program: str | Path, folder: str | Path | None = None) -> str:
    """SHA-256 over `code_files`, 64 hexadecimal digits: another one means that the stage must run again."""
    return hashlib.sha256(json.dumps(code_files(program, folder), sort_keys=True).encode()).hexdigest()


def code_files(program: str | Path, folder: str | Path | None = None) -> dict[str, str]:
    """What a program's result depends on: itself, every module beside it that it imports, directly or not, and their resources.

    Comments, docstrings, help texts, descriptions and the layout of the source do not count, nor does the time at
    which a file was written. Imports inside functions count. So does every file that a module names by a call of
    `ecg_grpo.resources.resource`, as it is.

    Args:
        program: path of the program, or of a module of one.
        folder: where modules are looked for, and resources in `resources/` beside it; None: the program's folder.

    Returns:
        Path from the folder above that, and SHA-256 of what the file means.

    Raises:
        SyntaxError: a module does not parse.
    """
    program = Path(program).resolve()
    folder = program.parent if folder is None else Path(folder).resolve()
    project = folder.parent
    sources = {program: _source(program, folder, program.stat().st_mtime_ns)}
    unread = [program]
    while unread:
        for file in sources[unread.pop()].imports - sources.keys():
            sources[file] = _source(file, folder, file.stat().st_mtime_ns)
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
        imports: files below the folder of modules that it imports itself, those of their packages included.
        resources: files below resources/ that it names.
    """

    meaning: str
    imports: frozenset[Path]
    resources: tuple[str, ...]


@cache
def _source(file: Path, folder: Path, _mtime: int) -> _Source:
    """Reads a source file once, until it is written again: thirty programs share most of their modules."""
    reader = _Reader(file, folder)
    text = reader.write(ast.parse(file.read_bytes()))
    meaning = hashlib.sha256(text.encode()).hexdigest()
    return _Source(meaning, frozenset(reader.imports - {file}), tuple(reader.resources))


class _Reader:
    """Writes a syntax tree as text, and notes what it imports and which resources it names.

    The text leaves out what people read and the interpreter does not act on. Unlike that of `ast.dump` it is the same for every
    version of Python that knows the same syntax.
    """

    def __init__(self, file: Path, folder: Path) -> None:
        self._file, self._folder = file, folder
        self.imports: set[Path] = set()
        self.resources: list[str] = []

    def write(self, node: object) -> str:
        if isinstance(node, list):
            return f"[{','.join([self.write(item) for item in node if not _is_for_people(item)])}]"
        if not isinstance(node, ast.AST):
            return repr(node)
        kind = type(node)
        if kind is ast.Call and isinstance(node.func, ast.Name) and node.func.id == "resource":
            self.resources.append(node.args[0].value)
        elif kind is ast.Import:
            self._note(self._folder, [alias.name for alias in node.names])
        elif kind is ast.ImportFrom:
            package = f"{node.module}." if node.module else ""
            start = self._file.parents[node.level - 1] if node.level else self._folder
            self._note(start, [package + alias.name for alias in node.names])
        filled = [(name, value) for name in kind._fields if (value := getattr(node, name, None)) is not None and value != []]
        return f"{kind.__name__}({','.join([f'{name}={self.write(value)}' for name, value in filled])})"

    def _note(self, start: Path, names: Iterable[str]) -> None:
        """The files of modules, and of the packages that they are in. What is no module, but a name in one, has none."""
        for name in names:
            place = start
            for part in name.split("."):
                place /= part
                found = next((file for file in (place.with_suffix(".py"), place / "__init__.py") if file.is_file()), None)
                if found is None:
                    break
                self.imports.add(found)


def _is_for_people(node: object) -> bool:
    """A docstring, or the argument of a call that explains something."""
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    return isinstance(node, ast.keyword) and node.arg in ("description", "help")
