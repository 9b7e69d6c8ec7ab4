"""What a finished run has to show for its model: the jobs behind it, its figures, and whether all is as recorded."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import safe_open

from ecg_grpo.errors import InputError
from ecg_grpo.files import MANIFEST, read_json
from ecg_grpo.lineage import Job, Lineage, find_problems, trace

_ADAPTER = "adapter_config.json"


@dataclass(frozen=True)
class Training:
    """One training and the merge after it.

    Attributes:
        name: `sft` or `grpo`.
        job: the training.
        merge: the job that made a model of it.
        start: manifest of the model that it began with.
        checkpoint: manifest of the adapter, or of all weights.
        model: manifest of the merged model.
    """

    name: str
    job: Job
    merge: Job
    start: Path
    checkpoint: Path
    model: Path

    @property
    def settings(self) -> dict[str, Any]:
        """Its section of the configuration."""
        return json.loads(self.job.record["settings"])

    @property
    def is_adapter(self) -> bool:
        """Whether it trained an adapter; else it trained all weights."""
        return (self.checkpoint.parent / _ADAPTER).is_file()

    @property
    def log(self) -> list[dict[str, Any]]:
        """The entries of its training log."""
        file = next(output for output in self.job.outputs if output.name == "training_log.jsonl")
        return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


@dataclass(frozen=True)
class FinishedRun:
    """A run whose GRPO model was evaluated.

    Attributes:
        folder: `results/<run>`.
        lineage: every job behind the model and its figures, each after those whose files it read.
        trainings: SFT and GRPO, in this order; of a sweep's run the first may be another run's.
        comparison, contamination, audit, account: the content of the files of these names.
        limits: what the audit allowed.
    """

    folder: Path
    lineage: Lineage
    trainings: tuple[Training, ...]
    comparison: dict[str, Any]
    contamination: dict[str, Any]
    audit: dict[str, Any]
    account: dict[str, Any]
    limits: dict[str, float | None]

    @property
    def model(self) -> Path:
        """Manifest of the model that GRPO ended with."""
        return self.trainings[-1].model

    @property
    def base_model(self) -> Path:
        """Manifest of the model that SFT began with."""
        return self.trainings[0].start

    @property
    def records_folder(self) -> Path:
        """The folder of the run that prepared the records."""
        return _output(self.lineage, "account.json").parent.parent

    def jobs(self, stage: str) -> list[Job]:
        """The jobs of a stage."""
        return [job for job in self.lineage.jobs if job.record["stage"] == stage]

    def maker(self, file: Path) -> Job:
        """The job that wrote a file."""
        return _makers(self.lineage)[file]


def read_finished_run(folder: Path) -> FinishedRun:
    """Reads what a run has to show; nothing is compared with its hash yet (`refuse_if_changed`).

    Args:
        folder: `results/<run>`, relative to the folder in which Snakemake runs.

    Raises:
        InputError: the run is not finished, or the audit of its reward did not pass.
    """
    audit_file, passed = folder / "reward_audit/audit.json", folder / "reward_audit/passed.json"
    wanted = [
        folder / f"grpo_model/{MANIFEST}",
        folder / "evaluation/comparison.json",
        folder / "evaluation/contamination.json",
    ]
    for file in [*wanted, audit_file]:
        if not file.is_file():
            raise InputError(file, "is missing: the run is not finished", "Run snakemake to its end.")
    audit = read_json(audit_file)
    if audit["failures"] or not passed.is_file():
        found = "; ".join(audit["failures"]) or f"there is no {passed}"
        raise InputError(audit_file, f"the audit of the reward did not pass ({found})", "Change the reward and train again.")
    lineages = [trace(file) for file in (*wanted, passed)]
    jobs = {job.name: job for lineage in lineages for job in lineage.jobs}
    sources = {file: digest for lineage in lineages for file, digest in lineage.sources.items()}
    lineage = Lineage(wanted[0], list(jobs.values()), sources)
    return FinishedRun(
        folder=folder,
        lineage=lineage,
        trainings=_trainings(lineage),
        comparison=read_json(wanted[1]),
        contamination=read_json(wanted[2]),
        audit=audit,
        account=read_json(_output(lineage, "account.json")),
        limits=read_json(passed)["limits"],
    )


def refuse_if_changed(run: FinishedRun) -> None:
    """Compares every file behind the model and its figures with its recorded hash; weights take seconds.

    Raises:
        InputError: a file is not the one that was written or read.
    """
    if problems := find_problems(run.lineage):
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise InputError(run.folder, f"is not as its provenance says: {problems[0]}{more}", "Run snakemake again.")


def refuse_if_untrained(run: FinishedRun) -> None:
    """Compares the model's weights with those of the models that it came from.

    Raises:
        InputError: they are the same.
    """
    from ecg_grpo.merging import changed_weights

    for training in run.trainings:
        if not changed_weights(training.start.parent, run.model.parent):
            raise InputError(
                run.model.parent, f"has the weights of {training.start.parent}", "There is nothing to publish; train again."
            )


def describe_weights(directory: Path) -> dict[str, Any]:
    """`parameters` and `dtypes` of a model's safetensors, read from their headers."""
    parameters, dtypes = 0, set()
    for file in sorted(directory.glob("*.safetensors")):
        with safe_open(file, framework="numpy") as weights:
            for name in weights.keys():  # noqa: SIM118, not a dictionary
                part = weights.get_slice(name)
                parameters += math.prod(part.get_shape())
                dtypes.add(part.get_dtype())
    return {"parameters": parameters, "dtypes": sorted(dtypes)}


def _makers(lineage: Lineage) -> dict[Path, Job]:
    return {output: job for job in lineage.jobs for output in job.outputs}


def _output(lineage: Lineage, name: str) -> Path:
    return next(output for output in _makers(lineage) if output.name == name)


def _trainings(lineage: Lineage) -> tuple[Training, ...]:
    """From the model back to the base model, the first training first."""
    makers, model = _makers(lineage), lineage.file
    found: list[Training] = []
    while makers[model].record["stage"] == "merge_adapter":
        merge = makers[model]
        manifests = [file for file in merge.inputs if file.name == MANIFEST]
        checkpoint = next(file for file in manifests if file.parent.name == "checkpoint")
        start = next(file for file in manifests if file != checkpoint)
        job = makers[checkpoint]
        found.insert(0, Training(job.record["stage"].removeprefix("train_"), job, merge, start, checkpoint, model))
        model = start
    return tuple(found)
