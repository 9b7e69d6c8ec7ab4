"""Where an unfinished training keeps what it needs to go on after a death."""

from __future__ import annotations

import hashlib
from pathlib import Path

from ecg_grpo.files import sha256_of
from ecg_grpo.fingerprint import code_fingerprint


def scratch_directory(root: Path, program: str | Path, settings: str, inputs: list[Path]) -> Path:
    """The directory for the checkpoints of exactly this training.

    Its name holds a hash of the settings, the code and the inputs: the same training finds its own checkpoints again,
    a changed one starts anew. It lies outside every declared output, since Snakemake deletes those before a job.

    Args:
        root: folder for unfinished work.
        program: the program that trains.
        settings: its settings as JSON with sorted keys.
        inputs: the files that it reads.
    """
    parts = [code_fingerprint(program), settings, *(sha256_of(file) for file in inputs)]
    key = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
    directory = root / f"{Path(program).stem}-{key}"
    directory.mkdir(parents=True, exist_ok=True)
    return directory
