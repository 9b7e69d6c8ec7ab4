"""Which job made a file from which files: a run's provenance, read back and compared with what is on disk."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ecg_grpo.errors import InputError
from ecg_grpo.files import MANIFEST, read_json, sha256_of
from ecg_grpo.fingerprint import code_files


@dataclass(frozen=True)
class Job:
    """One job of a finished stage.

    Attributes:
        name: the stage, with the system or split that the job was for (`score_answers.grpo`); of another run's job that run
            first (`demo-2632e2/train_sft`).
        record: its provenance, as `ecg_grpo.stage` writes it.
    """

    name: str
    record: dict[str, Any]

    @property
    def inputs(self) -> dict[Path, str]:
        """SHA-256 of every file that it read."""
        return {Path(file): digest for file, digest in self.record["inputs"].items()}

    @property
    def outputs(self) -> dict[Path, str]:
        """SHA-256 of every file that it wrote."""
        return {Path(file): digest for file, digest in self.record["outputs"].items()}


@dataclass(frozen=True)
class Lineage:
    """How a file came about.

    Attributes:
        file: the file.
        jobs: those that led to it, each after the ones whose files it read; the last one made the file.
        sources: files that a job read and none made, with the SHA-256 that they had then.
    """

    file: Path
    jobs: list[Job]
    sources: dict[Path, str]


def run_folder(file: Path) -> Path:
    """The folder of the run that a file belongs to: the nearest one above it with a folder `provenance`.

    Raises:
        InputError: there is none.
    """
    found = _run_folder(file)
    if found is None:
        raise InputError(file, "no folder above it has provenance", "Name a file of a run, as results/demo/report/index.html.")
    return found


def _run_folder(file: Path) -> Path | None:
    return next((folder for folder in file.parents if (folder / "provenance").is_dir()), None)


def trace(file: Path) -> Lineage:
    """Follows a file back to its sources, into other runs too where a sweep's run took a file from one of them.

    Args:
        file: path as the workflow names it, relative to the folder in which Snakemake runs.

    Raises:
        InputError: no job of the file's run made it, or a provenance file cannot be read.
    """
    own = run_folder(file)
    makers = _makers(own, own)
    read = {own}
    if file not in makers:
        near = sorted(str(output) for output in makers if output.parent == file.parent)
        advice = f"Beside it are {', '.join(near)}." if near else "Name an output of a finished stage."
        raise InputError(file, "no finished stage of this run wrote it", advice)
    jobs: dict[str, Job] = {}
    sources: dict[Path, str] = {}

    def follow(job: Job) -> None:
        if job.name in jobs:
            return
        for source, digest in job.inputs.items():
            if (run := _run_folder(source)) not in {None, *read}:
                read.add(run)
                makers.update(_makers(run, own))
            if source in makers:
                follow(makers[source])
            else:
                sources[source] = digest
        jobs[job.name] = job

    follow(makers[file])
    return Lineage(file, list(jobs.values()), sources)


def find_problems(lineage: Lineage) -> list[str]:
    """Where files on disk are not those that the provenance speaks of: a sentence each, in the order of the jobs.

    A file must have the hash with which it was written and, if it is a model's manifest, so must the files that it lists; a job
    must have read its inputs as they are now.
    """
    made = {file: (digest, job.name) for job in lineage.jobs for file, digest in job.outputs.items()}
    now = {file: sha256_of(file) if file.is_file() else None for file in [*lineage.sources, *made]}
    problems = []
    for file, digest in lineage.sources.items():
        problems += _changed(file, digest, now[file], "it was read")
    for file, (digest, job) in made.items():
        problems += _changed(file, digest, now[file], f"{job} wrote it")
        if file.name == MANIFEST and now[file] == digest:
            problems += _changed_model_files(file, job)
    for job in lineage.jobs:
        for file, digest in job.inputs.items():
            if file in made and digest != made[file][0]:
                problems.append(f"{file}: {job.name} read another version than {made[file][1]} wrote last")
    return problems


def changed_code(job: Job, scripts: Path) -> list[str]:
    """Files of a job's code that mean something else now, or that have come or gone, below the project's folder.

    Args:
        job: the job.
        scripts: folder of the programs.
    """
    program = scripts / Path(job.record["program"]).name
    then, now = job.record["code_files"], code_files(program) if program.is_file() else {}
    return sorted(file for file in then.keys() | now.keys() if then.get(file) != now.get(file))


def _makers(run: Path, own: Path) -> dict[Path, Job]:
    """The job that made each file of a run; jobs of other runs than `own` have their run in their name."""
    prefix = "" if run == own else f"{run.name}/"
    return {output: job for job in _read_jobs(run / "provenance", prefix) for output in job.outputs}


def _read_jobs(folder: Path, prefix: str) -> list[Job]:
    """Every job of a run, the last one at the end: where a model's answers come from another stage now, that one counts."""
    jobs = []
    for file in sorted(folder.glob("*.json")):
        record = read_json(file)
        if not isinstance(record, dict) or not record.keys() >= {"program", "code_files", "inputs", "outputs", "finished"}:
            raise InputError(file, "not what this version writes as provenance", "Run snakemake again.")
        jobs.append(Job(prefix + file.stem, record))
    return sorted(jobs, key=lambda job: job.record["finished"])


def _changed(file: Path, expected: str, found: str | None, since: str) -> list[str]:
    if found is None:
        return [f"{file}: is missing"]
    return [] if found == expected else [f"{file}: was changed since {since}"]


def _changed_model_files(manifest: Path, job: str) -> list[str]:
    problems = []
    for name, listed in read_json(manifest)["files"].items():
        file = manifest.parent / name
        problems += _changed(file, listed["sha256"], sha256_of(file) if file.is_file() else None, f"{job} wrote it")
    return problems
