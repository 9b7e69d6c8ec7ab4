"""Where an unfinished training keeps what it needs to go on after a death."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

from ecg_grpo.files import sha256_of
from ecg_grpo.fingerprint import code_fingerprint


def scratch_directory(root: Path, program: str | Path, settings: str, dtype: str, inputs: list[Path]) -> Path:
    """The directory for the checkpoints of exactly this training.

    Its name holds a hash of the settings, the code, the number format and the inputs: the same training finds its own
    checkpoints again, a changed one starts anew and removes what the other one left. It lies outside every declared
    output, since Snakemake deletes those before a job.

    Args:
        root: folder for unfinished work of one run.
        program: the program that trains.
        settings: its settings as JSON with sorted keys.
        dtype: the number format that was chosen on this machine.
        inputs: the files that it reads.
    """
    parts = [code_fingerprint(program), settings, dtype, *(sha256_of(file) for file in inputs)]
    key = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
    directory = root / f"{Path(program).stem}-{key}"
    for other in root.glob(f"{Path(program).stem}-*"):
        if other != directory:
            shutil.rmtree(other, ignore_errors=True)
    directory.mkdir(parents=True, exist_ok=True)
    return directory
