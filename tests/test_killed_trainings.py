"""SIGKILL at any moment: snakemake again, and the result is the unbroken run's, bit for bit."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest
from conftest import CORES, Project

from ecg_grpo.files import sha256_of

pytestmark = pytest.mark.pipeline

KILLS = int(os.environ.get("KILLS", "3"))
STEPS = 8
SETTINGS = {
    "sft": {"num_train_epochs": 1, "per_device_train_batch_size": 8, "save_steps": 2},
    "grpo": {"max_steps": STEPS, "save_steps": 2, "num_iterations": 2},
}


def lines(project: Project, stage: str) -> int:
    """Lines of the growing training log; 0 before training begins."""
    return sum(len(file.read_text().splitlines()) for file in project.results().glob(f"scratch/train_{stage}-*/*.jsonl"))


def start(project: Project, stage: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        ["snakemake", "--cores", CORES, f"results/demo/{stage}/checkpoint/manifest.json"],
        cwd=project.folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def outcome(project: Project, stage: str) -> list[object]:
    """Everything that must be equal: weights, losses and rewards of every step, and GRPO's completions."""
    folder = project.results() / stage
    entries = [json.loads(line) for line in (folder / "training_log.jsonl").read_text().splitlines()]
    figures = [[entry.get(name) for name in ("step", "loss", "grad_norm", "validation_loss", "reward")] for entry in entries]
    files = [folder / "checkpoint/manifest.json", *folder.glob("completions.parquet")]
    return [*figures, *map(sha256_of, files)]


@pytest.mark.timeout(3000)
@pytest.mark.parametrize("stage", ["sft", "grpo"])
def test_killed_at_random_moments(finished_copy: Project, stage: str) -> None:
    finished_copy.configure(**{stage: SETTINGS[stage]})
    finished_copy.forget(stage)
    began = time.monotonic()
    finished_copy.snakemake(f"results/demo/{stage}/checkpoint/manifest.json")
    seconds = time.monotonic() - began
    expected = outcome(finished_copy, stage)
    steps = len(expected) - 1
    chance, resumed_from = random.Random(f"{stage} 0"), []
    for kill in range(KILLS):
        finished_copy.forget(stage)
        running = start(finished_copy, stage)
        # One kill before training begins, the others anywhere in it: after some line of its log and a part of a step.
        wanted = 0 if kill == 0 else chance.randrange(1, steps)
        pause = chance.uniform(0, seconds / 4) if kill == 0 else chance.uniform(0, 0.4)
        while lines(finished_copy, stage) < wanted:
            assert running.poll() is None, "the run ended before it could be killed"
            time.sleep(0.01)
        time.sleep(pause)
        ended_before = running.poll() is not None
        os.killpg(running.pid, signal.SIGKILL)
        running.wait()
        assert not ended_before, "the run ended before it could be killed"
        finished_copy.snakemake("--unlock")
        finished_copy.snakemake(f"results/demo/{stage}/checkpoint/manifest.json")
        facts = json.loads((finished_copy.results() / f"provenance/train_{stage}.json").read_text())["facts"]
        resumed_from.append(facts.get("resumed_from_step", 0))
        found = outcome(finished_copy, stage)
        differing = [(one, other) for one, other in zip(found, expected, strict=True) if one != other]
        how = f"kill {kill} after line {wanted} and {pause:.2f} s, resumed from {resumed_from[-1]} of {steps}"
        assert not differing, f"{how}: {len(differing)} entries differ, first {differing[0]}, last {differing[-1]}"
    print(f"{stage}: {KILLS} of {KILLS} equal; resumed from steps {resumed_from}")
    assert len(set(resumed_from)) > min(2, KILLS // 3), "the kills did not spread over the training"


@pytest.mark.timeout(600)
def test_a_full_disk_ends_in_one_line_and_the_earlier_checkpoint_stays(
    finished_copy: Project, tmp_path: Path, in_own_mounts: list[str]
) -> None:
    """A real file system with too little room, in a mount namespace of its own."""
    finished_copy.configure(sft={"save_steps": 2, "lora": None, "learning_rate": 0.001})
    finished_copy.forget("sft")
    target = "results/demo/sft/checkpoint/manifest.json"
    commands = f"""
        mkdir -p results/demo/scratch
        mount -t tmpfs -o size=9m none results/demo/scratch
        snakemake --cores {CORES} {target} 2> {tmp_path}/first
        echo $? > {tmp_path}/status
        ls results/demo/scratch/*/checkpoint-*/complete.json > {tmp_path}/complete
        mount -o remount,size=100m results/demo/scratch
        snakemake --cores {CORES} {target} 2> {tmp_path}/second
    """
    subprocess.run([*in_own_mounts, "bash", "-c", commands], cwd=finished_copy.folder, check=False)
    first = (tmp_path / "first").read_text()
    assert (tmp_path / "status").read_text().strip() != "0"
    assert "no room for a checkpoint" in first, first
    assert "Traceback" not in first
    assert len((tmp_path / "complete").read_text().split()) >= 1
    facts = json.loads((finished_copy.results() / "provenance/train_sft.json").read_text())["facts"]
    assert facts["resumed_from_step"] >= 2
