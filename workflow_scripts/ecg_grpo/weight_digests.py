"""What a model's weights are, tensor by tensor: enough to see whether two models differ, when only one of them is there."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import safe_open

if TYPE_CHECKING:
    import torch


def tensor_formats(directory: Path) -> dict[str, torch.dtype]:
    """The number format of every tensor in a directory's safetensors files, by name."""
    found = {}
    for file in sorted(directory.glob("*.safetensors")):
        with safe_open(file, "pt") as stream:
            found |= {name: stream.get_tensor(name).dtype for name in stream.keys()}  # noqa: SIM118, not a dictionary
    return found


def tensor_digests(directory: Path, formats: dict[str, torch.dtype]) -> dict[str, str]:
    """SHA-256 of every tensor, rounded first to another model's number format; a tensor at a time is in memory.

    Args:
        directory: with safetensors files.
        formats: of the other model, by the tensor's name; tensors that it does not have are left out.
    """
    import torch

    found = {}
    for file in sorted(directory.glob("*.safetensors")):
        with safe_open(file, "pt") as stream:
            for name in formats.keys() & set(stream.keys()):
                rounded = stream.get_tensor(name).to(formats[name]).contiguous().flatten()
                found[name] = hashlib.sha256(rounded.view(torch.uint8).numpy()).hexdigest()
    return dict(sorted(found.items()))
