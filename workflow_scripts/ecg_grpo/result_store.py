"""Results that several runs have in common are computed once: a folder of finished results, found by what they depend on."""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import metadata
from pathlib import Path
from typing import Any

from ecg_grpo.errors import InputError
from ecg_grpo.files import MANIFEST, link, model_directory, read_json, sha256_of, write_json

_CONTENTS = "contents.json"
_PARTIAL = ".partial-"


def result_key(code: str, settings: str, parameters: dict[str, Any], inputs: list[Path]) -> str:
    """What a result depends on, as one hash: code, settings, parameters, the inputs' names and contents, packages.

    Which folders they lie in is left out. Their names tell the raw files apart.

    Args:
        code: the program's fingerprint.
        settings: its settings as JSON with sorted keys.
        parameters: its other arguments that are no files.
        inputs: the files that it reads, in the order of its arguments.

    Returns:
        64 hexadecimal digits.
    """
    packages = sorted({f"{package.name} {package.version}" for package in metadata.distributions()})
    parts = [
        code,
        settings,
        json.dumps(parameters, sort_keys=True),
        *(f"{file.name} {sha256_of(file)}" for file in inputs),
        *packages,
    ]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


class ResultStore:
    """Where one job looks for its results before it computes them, and leaves them afterwards.

    Files are copied out, so that each run's have a time of their own: Snakemake runs a stage again whose input is newer than
    its output. The files of a model, for which its manifest stands, are hard links: they take no room twice.
    """

    def __init__(self, root: Path, key: str) -> None:
        """
        Args:
            root: folder of all results.
            key: of this one, from `result_key`.
        """
        self._folder = root / key[:32]

    def fetch(self, outputs: dict[str, Path]) -> dict[str, Any] | None:
        """Puts the results where they belong, if they are there and undamaged.

        Args:
            outputs: where each goes, by the name of the program's argument.

        Returns:
            The facts that were left with them, or None: there is nothing.
        """
        facts = self._facts(outputs)
        try:
            for name, path in outputs.items() if facts is not None else ():
                _place(self._folder / name / path.name, path)
        except (InputError, KeyError, OSError):  # somebody deletes the store
            return None
        return facts

    def _facts(self, outputs: dict[str, Path]) -> dict[str, Any] | None:
        """The facts left with the results; None if these are not there or damaged."""
        try:
            contents = read_json(self._folder / _CONTENTS)
            for name, path in outputs.items():
                file = self._folder / name / path.name
                if sha256_of(file) != contents["files"][name]:
                    return None
                if file.name == MANIFEST:
                    model_directory(file)
            return contents["facts"]
        except (InputError, KeyError, TypeError, OSError):
            return None

    def keep(self, outputs: dict[str, Path], facts: dict[str, Any]) -> None:
        """Leaves finished results for other runs; what cannot be kept (a full disk) is simply not.

        Another run may have computed the same meanwhile and left it: then that is not touched, somebody may be reading it.
        """
        if self._facts(outputs) is not None:
            return
        with suppress(OSError):
            root = self._folder.parent
            root.mkdir(parents=True, exist_ok=True)
            with (
                _keeping(root),
                tempfile.TemporaryDirectory(prefix=_PARTIAL, dir=root, ignore_cleanup_errors=True) as name,
            ):
                partial = Path(name) / "result"
                for output, path in outputs.items():
                    _place(path, partial / output / path.name)
                hashes = {output: sha256_of(path) for output, path in outputs.items()}
                write_json(partial / _CONTENTS, {"files": hashes, "facts": facts})
                if self._facts(outputs) is None:  # nobody left it meanwhile
                    shutil.rmtree(self._folder, ignore_errors=True)  # a damaged one
                    partial.rename(self._folder)


@contextmanager
def _keeping(root: Path) -> Iterator[None]:
    """Holds a lock that those who leave something in the store share; who finds it free removes what killed ones left half."""
    with (root / ".lock").open("a") as lock:
        with suppress(OSError):  # somebody else leaves something, or a file system without locks
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for abandoned in root.glob(f"{_PARTIAL}*"):
                shutil.rmtree(abandoned, ignore_errors=True)
        with suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_SH)
        yield


def _place(file: Path, target: Path) -> None:
    """Copies a file and, if it is a model's manifest, links the model's files beside it."""
    if file.name == MANIFEST:
        shutil.rmtree(target.parent, ignore_errors=True)  # files of an earlier model that this one does not have
    target.parent.mkdir(parents=True, exist_ok=True)
    if file.name == MANIFEST:
        for name in read_json(file)["files"]:
            link(file.parent / name, target.parent / name)
    partial = target.with_name(f".{target.name}.partial")
    with suppress(FileNotFoundError):
        partial.unlink()
    shutil.copyfile(file, partial)
    partial.replace(target)
