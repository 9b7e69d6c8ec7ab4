"""The models that a person can talk to: those of a finished run, a directory, a served model."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open

from ecg_grpo.base_model import check_model_directory
from ecg_grpo.endpoint import Endpoint
from ecg_grpo.errors import InputError
from ecg_grpo.files import MANIFEST, model_directory, read_json, sha256_of
from ecg_grpo.resources import resource
from ecg_grpo.settings.endpoint import EndpointSettings
from ecg_grpo.tables import system_prompt_of

STAGES = ("base", "sft", "grpo")
"""The models of a run, in the order in which it makes them."""

RESULTS = Path("results")
SYSTEM_PROMPT = resource("prompts/system.txt")

_INDEX = "model.safetensors.index.json"
_FEW = ("*.json", "*.jinja", "tokenizer*")


@dataclass(frozen=True)
class TrainedModel:
    """A model that answers questions.

    Attributes:
        name: what it is called in a list: `base`, `sft`, `grpo`, or the directory or address that was asked for.
        source: the model's directory, or the section of the server that answers for it.
        identity: what exactly answered, for those who read a saved conversation: the SHA-256 of the model's manifest (of its
            configuration where it has none), or address and name of a served one.
    """

    name: str
    source: Path | EndpointSettings
    identity: str


def newest_run(results: Path = RESULTS) -> Path:
    """The folder of the run whose GRPO model was finished last.

    Raises:
        InputError: no run has one.
    """
    finished = sorted(results.glob(f"[!.]*/grpo_model/{MANIFEST}"), key=lambda manifest: manifest.stat().st_mtime)
    if not finished:
        raise InputError(results, "holds no finished run", "Make one with `make demo`, or name a model with --model.")
    return finished[-1].parent.parent


def named_run(name: str, results: Path = RESULTS) -> Path:
    """The folder of a run.

    Raises:
        InputError: there is none; names those that there are.
    """
    folder = results / name
    if not folder.is_dir():
        there = ", ".join(sorted(run.parent.name for run in results.glob("[!.]*/base_model"))) or "none"
        raise InputError(folder, "there is no such run", f"There are: {there}.")
    return folder


def models_of(run: Path) -> list[str]:
    """Which of `STAGES` a run has finished."""
    return [stage for stage in STAGES if (run / f"{stage}_model" / MANIFEST).is_file()]


def find_model(choice: str, run: Path | None, served_name: str | None = None, api_key_env: str | None = None) -> TrainedModel:
    """The model that a word stands for.

    Args:
        choice: `base`, `sft` or `grpo` of the run, a model directory, or an OpenAI-compatible server's address up to `/v1`.
        run: the run's folder; None: there is none.
        served_name: what the server calls the model; None: the first one that it lists.
        api_key_env: environment variable with the server's key.

    Raises:
        InputError: there is no such model, its files are not whole, or the server is out of reach.
    """
    if choice.startswith(("http://", "https://")):
        return _served(choice, served_name, api_key_env)
    if choice in STAGES:
        manifest = (run or newest_run()) / f"{choice}_model" / MANIFEST
        if not manifest.is_file():
            raise InputError(manifest, f"this run has no {choice} model yet", "Run snakemake to its end.")
        directory = check_weights(model_directory(manifest, *_FEW))
        return TrainedModel(choice, directory, sha256_of(manifest))
    directory = Path(choice)
    if not directory.is_dir():
        raise InputError(choice, "is no model", f"Name one of {', '.join(STAGES)}, a model directory, or a server's address.")
    if (directory / "adapter_config.json").is_file():
        raise InputError(directory, "is an adapter and answers nothing by itself", "Name the merged model's directory.")
    check_weights(check_model_directory(directory, "--model"))
    manifest = directory / MANIFEST
    return TrainedModel(choice, directory, sha256_of(manifest if manifest.is_file() else directory / "config.json"))


def check_weights(directory: Path) -> Path:
    """The directory, if its weights are all there: a download that broke off is found before it is loaded.

    Args:
        directory: a Hugging Face model directory.

    Raises:
        InputError: a file of the weights is missing or cut short.
    """
    mend = "Fetch or build the model again."
    files = sorted(directory.glob("*.safetensors"))
    if (directory / _INDEX).is_file():
        listed = sorted(set(read_json(directory / _INDEX)["weight_map"].values()))
        files = [directory / name for name in listed]
    for file in files:
        if not file.is_file():
            raise InputError(file, "is missing: the model is not whole", mend)
        try:
            with safe_open(file, framework="numpy") as weights:
                weights.keys()
        except SafetensorError as error:
            raise InputError(file, f"is not whole ({error})", mend) from None
    return directory


def trained_system_prompt(model: TrainedModel, run: Path | None) -> str:
    """The system prompt that a model was trained with: that of its run's records, else the project's own.

    Args:
        model: the model; that of a directory below a run's folder belongs to that run.
        run: the run's folder, for models that name none themselves.

    Raises:
        InputError: the run's records cannot be read.
    """
    if isinstance(model.source, Path):
        owner = next((folder for folder in model.source.resolve().parents if (folder / "data/train.parquet").is_file()), None)
        run = owner or run
    records = run and run / "data" / "train.parquet"
    if records is None or not records.is_file():
        return SYSTEM_PROMPT.read_text(encoding="utf-8").strip()
    return system_prompt_of(records)


def _served(address: str, name: str | None, api_key_env: str | None) -> TrainedModel:
    section = {"base_url": address, "model": name or "?", "api_key_env": api_key_env, "retries": 0}
    settings = EndpointSettings.from_json(json.dumps(section), "--model")
    if name is None:
        with Endpoint(settings, max_new_tokens=1, on_note=lambda _: None) as endpoint:
            settings = settings.model_copy(update={"model": endpoint.first_model()})
    return TrainedModel(address, settings, f"{settings.base_url} {settings.model}")
