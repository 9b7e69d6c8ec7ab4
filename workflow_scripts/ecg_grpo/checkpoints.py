"""Where an unfinished training keeps what it needs to go on after a death."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

from ecg_grpo.files import sha256_of, write_json
from ecg_grpo.fingerprint import code_fingerprint

COMPLETE = "complete.json"
"""The last file of a checkpoint: the size in bytes of every other one."""


def scratch_directory(
    root: Path, program: str | Path, settings: str, dtype: str, inputs: list[Path], name: str | None = None
) -> Path:
    """The directory for the unfinished work of exactly this job.

    Its name holds a hash of the settings, the code, the number format and the inputs: the same job finds its own work again, a
    changed one starts anew and removes what the other one left. It lies outside every declared output, since Snakemake deletes
    those before a job.

    Args:
        root: folder for unfinished work of one run.
        program: the program that trains.
        settings: its settings as JSON with sorted keys.
        dtype: the number format that was chosen on this machine.
        inputs: the files that it reads.
        name: of the job, if the program has several in one run; else the program's.
    """
    name = name or Path(program).stem
    parts = [code_fingerprint(program), settings, dtype, *(sha256_of(file) for file in inputs)]
    key = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
    directory = root / f"{name}-{key}"
    for other in root.glob(f"{name}-*"):
        if other != directory:
            shutil.rmtree(other, ignore_errors=True)
    directory.mkdir(parents=True, exist_ok=True)
    return directory


def mark_complete(checkpoint: Path) -> None:
    """Says of a checkpoint that every process has written all of it."""
    files = sorted(file for file in checkpoint.rglob("*") if file.is_file() and file.name != COMPLETE)
    write_json(checkpoint / COMPLETE, {str(file.relative_to(checkpoint)): file.stat().st_size for file in files})


def is_complete(checkpoint: Path) -> bool:
    """Whether a checkpoint was written to its end and every file still has its size."""
    try:
        sizes = json.loads((checkpoint / COMPLETE).read_text(encoding="utf-8"))
        return all((checkpoint / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError, AttributeError):
        return False


def last_checkpoint(scratch: Path, steps: int) -> Path | None:
    """The checkpoint from which a killed run of the same training goes on; None if there is none.

    A checkpoint that the kill left unfinished or damaged does not count, and neither does one at the training's end: the
    trainer would go on past it, where the unbroken run stopped.

    Args:
        scratch: directory with the checkpoints.
        steps: the training's optimizer steps.
    """
    found = [(step, folder) for step, folder in _checkpoints(scratch) if step < steps and is_complete(folder)]
    return max(found)[1] if found else None


def remove_checkpoints_after(scratch: Path, checkpoint: Path | None) -> None:
    """Removes what a run that goes on from a checkpoint will write again."""
    kept = 0 if checkpoint is None else _step(checkpoint)
    for step, folder in _checkpoints(scratch):
        if step > kept:
            shutil.rmtree(folder)


def _checkpoints(scratch: Path) -> list[tuple[int, Path]]:
    return [(_step(folder), folder) for folder in scratch.glob("checkpoint-*")]


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.rsplit("-", 1)[1])
