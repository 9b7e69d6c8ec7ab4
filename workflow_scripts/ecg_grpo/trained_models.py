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
from ecg_grpo.lineage import trace
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
        system_prompt: that of the records of the run that it is of; of others that of the run that was asked about, else the
            project's own.
    """

    name: str
    source: Path | EndpointSettings
    identity: str
    system_prompt: str


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
    """Which of `STAGES` a run has finished; of a sweep's run some are another run's."""
    return [stage for stage in STAGES if _file_of(run, f"{stage}_model/{MANIFEST}")]


def records_of(run: Path, split: str = "train") -> Path | None:
    """The records of a split with which a run was trained; None where it has none yet.

    Args:
        run: the run's folder; of a sweep's run the records are another run's.
        split: `train` or `validation`.
    """
    return _file_of(run, f"data/{split}.parquet")


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
        return _served(choice, served_name, api_key_env, _system_prompt(run))
    if choice in STAGES:
        run = run or newest_run()
        manifest = _file_of(run, f"{choice}_model/{MANIFEST}")
        if manifest is None:
            raise InputError(run / f"{choice}_model", f"this run has no {choice} model yet", "Run snakemake to its end.")
        directory = check_weights(model_directory(manifest, *_FEW))
        return TrainedModel(choice, directory, sha256_of(manifest), _system_prompt(run))
    directory = Path(choice)
    if not directory.is_dir():
        raise InputError(choice, "is no model", f"Name one of {', '.join(STAGES)}, a model directory, or a server's address.")
    if (directory / "adapter_config.json").is_file():
        raise InputError(directory, "is an adapter and answers nothing by itself", "Name the merged model's directory.")
    check_weights(check_model_directory(directory, "--model"))
    manifest = directory / MANIFEST
    identity = sha256_of(manifest if manifest.is_file() else directory / "config.json")
    return TrainedModel(choice, directory, identity, _system_prompt(_owner(directory) or run))


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


def _file_of(run: Path, name: str) -> Path | None:
    """A file of a run, or, of a sweep's run, the one of another run that its GRPO model came from."""
    if (run / name).is_file():
        return run / name
    try:
        jobs = trace(run / "grpo_model" / MANIFEST).jobs
    except InputError:  # no GRPO model yet, or none that the workflow made
        return None
    files = (file for job in jobs for file in (*job.inputs, *job.outputs))
    return next((file for file in files if file.parts[2:] == Path(name).parts and file.is_file()), None)


def _owner(directory: Path) -> Path | None:
    """The folder of the run that a model's directory is in, as the workflow names it where it is one of this project's."""
    folder = directory.resolve().parent
    if not any((folder / name).is_dir() for name in ("data", "provenance")):
        return None
    return folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder


def _system_prompt(run: Path | None) -> str:
    records = records_of(run) if run else None
    return system_prompt_of(records) if records else SYSTEM_PROMPT.read_text(encoding="utf-8").strip()


def _served(address: str, name: str | None, api_key_env: str | None, system_prompt: str) -> TrainedModel:
    section = {"base_url": address, "model": name or "?", "api_key_env": api_key_env, "retries": 0}
    settings = EndpointSettings.from_json(json.dumps(section), "--model")
    if name is None:
        with Endpoint(settings, max_new_tokens=1, on_note=lambda _: None) as endpoint:
            settings = settings.model_copy(update={"model": endpoint.first_model()})
    return TrainedModel(address, settings, f"{settings.base_url} {settings.model}", system_prompt)
