"""The workflow on a real Slurm of one machine: to the report, through every way in which a job can die, and on two GPUs."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT, Project, copy_project, tiny_settings

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(1800)]

CLUSTER = ROOT / "tests" / "slurm" / "cluster.sh"
OPTIONS = [
    *("--profile", "slurm", "--max-threads", "1", "--slurm-init-seconds-before-status-checks", "7"),
    *("--latency-wait", "10", "--slurm-partition-config", "partitions.yaml"),
]
"""The profile as it is, but for what a machine of two cores has not and what a test does not wait for. One thread for each job,
since other tests run beside these. Most jobs end within seven seconds; the plugin asks again ten seconds later than before."""
MOST = "max_threads: 64, max_mem_mb: 12000, max_runtime: 2000"
PARTITIONS = f"partitions:\n  cpu: {{{MOST}}}\n  gpu: {{{MOST}, max_gpu: 2}}\n  pair: {{{MOST}, max_gpu: 4}}\n"
"""Less than twice what GRPO asks for at first."""
CHECKPOINT = "results/demo/grpo/checkpoint/manifest.json"
SFT = "results/demo/sft/checkpoint/manifest.json"


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A cluster that runs."""
    if os.geteuid() != 0 or shutil.which("sbatch") is None:
        pytest.skip("needs root and Slurm (`make test-slurm`)")
    folder = tmp_path_factory.mktemp("slurm")
    try:
        subprocess.run([CLUSTER, "start", folder], check=True)
        yield
    finally:
        subprocess.run([CLUSTER, "stop", folder], check=True)


@pytest.fixture(scope="module")
def reported(slurm: None, tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Project:
    """A run that went through Slurm to its report."""
    project = copy_project(tmp_path_factory.mktemp("reported") / "project")
    project.configure(**tiny_settings(tiny_model))
    project.configure(grpo={"max_steps": 8})
    (project.folder / "partitions.yaml").write_text(PARTITIONS)
    project.snakemake(*OPTIONS)
    return project


@pytest.fixture
def before_grpo(reported: Project, tmp_path: Path) -> Project:
    """The same, with GRPO still to be run."""
    shutil.copytree(reported.folder, tmp_path / "copy", symlinks=True)
    project = Project(tmp_path / "copy")
    project.forget("grpo")
    return project


def provenance(project: Project, stage: str) -> dict:
    return json.loads((project.results() / "provenance" / f"{stage}.json").read_text())


def training_log(project: Project, stage: str) -> list[dict]:
    return [json.loads(line) for line in (project.results() / stage / "training_log.jsonl").read_text().splitlines()]


def queue() -> list[str]:
    """Numbers of the jobs that wait or run."""
    return subprocess.run(["squeue", "--noheader", "--format", "%i"], check=True, capture_output=True, text=True).stdout.split()


def asked_for(job: str) -> tuple[str, str]:
    """Memory and time that a job was given; Slurm remembers it for some minutes."""
    shown = subprocess.run(["scontrol", "show", "job", job], check=True, capture_output=True, text=True).stdout
    words = dict(word.split("=", 1) for word in shown.split() if "=" in word)
    return words["MinMemoryNode"], words["TimeLimit"]


def start(project: Project) -> subprocess.Popen[str]:
    log = (project.folder / "snakemake.log").open("w")
    command = ["snakemake", *OPTIONS, CHECKPOINT]
    heed = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)  # noqa: E731 what a shell runs in the background ignores it
    return subprocess.Popen(
        command, cwd=project.folder, stdout=log, stderr=log, text=True, start_new_session=True, preexec_fn=heed
    )


def wait_for_checkpoint(project: Project, running: subprocess.Popen[str]) -> str:
    """Waits until GRPO has a checkpoint; the number of its job."""
    deadline = time.monotonic() + 300
    while not list(project.results().glob("scratch/train_grpo-*/checkpoint-2/complete.json")):
        assert running.poll() is None, (project.folder / "snakemake.log").read_text()[-3000:]
        assert time.monotonic() < deadline, "no checkpoint appeared"
        time.sleep(0.05)
    (job,) = queue()
    return job


def start_at_once(job: str) -> None:
    """Spares a requeued job the two minutes for which Slurm holds it back, once Slurm has put it back in the queue."""
    deadline = time.monotonic() + 60
    while subprocess.run(["scontrol", "update", f"JobId={job}", "StartTime=now"], check=False, capture_output=True).returncode:
        assert time.monotonic() < deadline, "the job is not in the queue again"
        time.sleep(0.5)


def weights(project: Project) -> str:
    files = json.loads((project.folder / CHECKPOINT).read_text())["files"]
    return files["adapter_model.safetensors"]["sha256"]


def test_it_runs_to_the_report_and_every_stage_is_a_job(reported: Project) -> None:
    assert (reported.results() / "report" / "index.html").is_file()
    stages = [json.loads(file.read_text()) for file in (reported.results() / "provenance").glob("*.json")]
    jobs = [stage["slurm_job"] for stage in stages]
    assert all(jobs)
    assert len(set(jobs)) == len(jobs) > 20
    assert queue() == []


@pytest.mark.parametrize("command", [["scancel"], ["scontrol", "requeue"]], ids=lambda words: words[-1])
def test_a_job_that_is_cancelled_or_requeued_is_finished_from_its_checkpoint(
    reported: Project, before_grpo: Project, command: list[str]
) -> None:
    running = start(before_grpo)
    job = wait_for_checkpoint(before_grpo, running)
    subprocess.run([*command, job], check=True)
    if command[0] == "scontrol":
        start_at_once(job)
    assert running.wait(timeout=600) == 0, (before_grpo.folder / "snakemake.log").read_text()[-3000:]
    finished = provenance(before_grpo, "train_grpo")
    assert finished["facts"]["resumed_from_step"] >= 2
    assert (finished["slurm_job"] == job) == (command[0] == "scontrol"), "a requeued job keeps its number"
    assert asked_for(finished["slurm_job"]) == (
        ("8000M", "1-00:00:00") if command[0] == "scontrol" else ("12000M", "1-09:20:00")
    )
    assert weights(before_grpo) == weights(reported)


def test_ctrl_c_leaves_no_job_behind(before_grpo: Project) -> None:
    running = start(before_grpo)
    wait_for_checkpoint(before_grpo, running)
    os.killpg(running.pid, signal.SIGINT)
    assert running.wait(timeout=120) != 0
    deadline = time.monotonic() + 30
    while queue():
        assert time.monotonic() < deadline, "a job is left"
        time.sleep(0.5)
    assert not (before_grpo.folder / CHECKPOINT).exists()


def test_a_rule_that_asks_for_two_gpus_gets_two_and_starts_two_processes_once(before_grpo: Project) -> None:
    before_grpo.configure(
        grpo={"launch": {"processes": 2}, "gradient_accumulation_steps": 2}, resources={"train_grpo": {"gpu": 2}}
    )
    before_grpo.snakemake(*OPTIONS, CHECKPOINT)
    assert provenance(before_grpo, "train_grpo")["visible_gpus"] == "0,1"
    logs = sorted(file.name for file in (before_grpo.results() / "logs").glob("train_grpo*.log"))
    assert logs == ["train_grpo.launcher.log", "train_grpo.log", "train_grpo.rank1.log"]
    assert [entry["step"] for entry in training_log(before_grpo, "grpo")] == list(range(1, 9)), "or the rule ran twice"


def test_a_training_over_two_machines(before_grpo: Project) -> None:
    """One process on each: the losses of one machine with all of the batch."""
    before_grpo.configure(sft={"gradient_accumulation_steps": 1, "train_sampling_strategy": "random"})
    before_grpo.snakemake(*OPTIONS, SFT)
    one = training_log(before_grpo, "sft")
    before_grpo.configure(sft={"per_device_train_batch_size": 8, "launch": {"processes": 2, "machines": 2}})
    plan = before_grpo.snakemake("--dry-run", "-p", *OPTIONS, SFT).stdout
    assert "srun --nodes 2 --ntasks 2 --ntasks-per-node 1" in plan
    before_grpo.snakemake(*OPTIONS, "--set-resources", "train_sft:slurm_partition=pair", "--", SFT)
    two = training_log(before_grpo, "sft")
    assert [entry["step"] for entry in two] == [entry["step"] for entry in one]
    assert two[-1]["validation_loss"] == pytest.approx(one[-1]["validation_loss"], rel=0.02)
    assert (before_grpo.results() / "logs/train_sft.rank1.log").is_file()


def test_grpo_over_two_machines_with_gpus(before_grpo: Project) -> None:
    """Two of each machine: without being told, Slurm gives the share of a machine only in part to its processes. A group of
    completions is spread over two processes.
    """
    before_grpo.configure(
        grpo={"launch": {"processes": 4, "machines": 2}, "per_device_train_batch_size": 4, "gradient_accumulation_steps": 1},
        resources={"train_grpo": {"gpu": 4}},
    )
    before_grpo.snakemake(*OPTIONS, CHECKPOINT)
    assert [entry["step"] for entry in training_log(before_grpo, "grpo")] == list(range(1, 9))
    assert provenance(before_grpo, "train_grpo")["visible_gpus"] == "0,1"
    logs = {file.name for file in (before_grpo.results() / "logs").glob("train_grpo*.log")}
    assert logs == {"train_grpo.launcher.log", "train_grpo.log", *(f"train_grpo.rank{rank}.log" for rank in (1, 2, 3))}
