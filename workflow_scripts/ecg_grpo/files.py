"""Files that are either whole or not there, and the manifest that stands for a model directory."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from ecg_grpo.errors import InputError

MANIFEST = "manifest.json"


def sha256_of(file: Path) -> str:
    """SHA-256 of a file's bytes, 64 hexadecimal digits."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextmanager
def new_file(file: Path) -> Iterator[Path]:
    """A path to write to, which becomes `file` when the block ends without an error and vanishes otherwise."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f".{file.name}.partial")
    try:
        yield partial
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def new_model_directory(directory: Path) -> Iterator[Path]:
    """An empty directory to write a model to, which takes the place of `directory` when the block ends well.

    A manifest is written last. A model that stood there before stays until then.
    """
    directory.parent.mkdir(parents=True, exist_ok=True)
    for abandoned in directory.parent.glob(f".{directory.name}.partial-*"):  # by a run that was killed
        shutil.rmtree(abandoned, ignore_errors=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{directory.name}.partial-", dir=directory.parent))
    try:
        yield partial
        _write_manifest(partial)
        partial.chmod(0o755)
        for file in partial.rglob("*"):
            file.chmod(0o755 if file.is_dir() else 0o644)  # some writers leave weights readable by their owner only
        if directory.exists():
            shutil.rmtree(directory)
        partial.replace(directory)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def link(file: Path, target: Path) -> None:
    """Makes `target` a hard link to a file that nobody writes to any more, or a copy on another file system."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    try:
        os.link(file, target)
    except OSError:
        shutil.copyfile(file, target)


def write_json(file: Path, content: Any) -> None:
    """Writes readable JSON with sorted keys; the file is whole or not there."""
    with new_file(file) as partial:
        partial.write_text(json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")


def read_json(file: Path) -> Any:
    """The content of a JSON file.

    Raises:
        InputError: the file is missing or cut short; names the line.
    """
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(file, error.strerror or str(error), "Build it again with snakemake.") from None
    except ValueError as error:
        raise InputError(file, f"not valid JSON ({error})", "Delete it and run snakemake again.") from None


def _write_manifest(directory: Path) -> None:
    files = sorted(file for file in directory.rglob("*") if file.is_file())
    listed = {str(file.relative_to(directory)): {"bytes": file.stat().st_size, "sha256": sha256_of(file)} for file in files}
    write_json(directory / MANIFEST, {"files": listed})


def model_directory(manifest: Path, *patterns: str) -> Path:
    """The directory of a manifest, after every file was compared with its hash.

    Args:
        manifest: the model's manifest.json.
        patterns: if given, only files whose names match one of them are compared (`tokenizer*`); weights take seconds.

    Raises:
        InputError: a file of the model is missing or was changed.
    """
    for name, expected in read_json(manifest)["files"].items():
        if patterns and not any(fnmatch(name, pattern) for pattern in patterns):
            continue
        file = manifest.parent / name
        if not file.is_file():
            raise InputError(file, "the file is missing from the model", f"Delete {manifest} and run snakemake again.")
        if file.stat().st_size != expected["bytes"] or sha256_of(file) != expected["sha256"]:
            raise InputError(
                file, "the file is not the one that the manifest lists", f"Delete {manifest} and run snakemake again."
            )
    return manifest.parent
