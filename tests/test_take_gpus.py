"""Jobs on one machine never share a GPU, wait for one that is taken, and never get more than there are."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from conftest import ROOT, RULE_FILES

SCRIPT = ROOT / "workflow_scripts" / "take_gpus.sh"


class Machine:
    """A machine whose driver shows some GPUs."""

    def __init__(self, folder: Path, gpus: int) -> None:
        (folder / "bin").mkdir()
        driver = folder / "bin" / "nvidia-smi"
        driver.write_text("#!/bin/sh\n" + "".join(f"echo {gpu}\n" for gpu in range(gpus)))
        driver.chmod(0o755)
        self.environment = {"PATH": f"{folder / 'bin'}:/usr/bin:/bin", "TMPDIR": str(folder)}

    def start(self, gpus: int | str, command: str, **environment: str) -> subprocess.Popen[str]:
        """A rule's shell command, as Snakemake starts it."""
        return subprocess.Popen(
            ["bash", "-c", f"set -euo pipefail; . {SCRIPT} {gpus}; {command}"],
            env=self.environment | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, gpus: int | str, command: str = 'echo "${CUDA_VISIBLE_DEVICES:-none}"', **environment: str) -> str:
        output, errors = self.start(gpus, command, **environment).communicate(timeout=30)
        return output.strip() + errors.strip()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path, gpus=3)


def test_a_job_sees_as_many_as_it_asked_for(machine: Machine) -> None:
    assert [machine.run(number) for number in (1, 2, 3)] == ["0", "0,1", "0,1,2"], "those of a finished job are free again"


def test_jobs_at_once_have_different_ones(machine: Machine) -> None:
    log = Path(machine.environment["TMPDIR"]) / "log"
    note = 'echo "$1 $CUDA_VISIBLE_DEVICES" >> ' + str(log)
    command = f"note() {{ {note}; }}; note start; sleep 0.3; note end"
    jobs = [machine.start(1 + number % 2, command) for number in range(8)]
    for job in jobs:
        assert job.wait(timeout=60) == 0
    held: set[str] = set()
    most = 0
    for line in log.read_text().splitlines():
        what, gpus = line.split()
        ids = set(gpus.split(","))
        if what == "start":
            assert not held & ids, f"{ids} taken twice"
            held |= ids
        else:
            held -= ids
        most = max(most, len(held))
    assert most > 1, "or they ran one after the other and nothing was shown"
    assert len(log.read_text().splitlines()) == 16


def test_what_a_killed_job_held_is_free_once_all_of_it_is_gone(machine: Machine) -> None:
    holder = machine.start(3, "sleep 60 & echo started; wait")
    assert holder.stdout is not None
    assert holder.stdout.readline() == "started\n"
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    waiting = machine.start(1, "echo $CUDA_VISIBLE_DEVICES")
    time.sleep(1)
    assert waiting.poll() is None, "the killed job's child still computes on it"
    os.killpg(holder.pid, signal.SIGKILL)
    output, errors = waiting.communicate(timeout=30)
    assert (output, errors) == ("0\n", "waiting for 1 free GPUs of 3\n")


def test_more_than_there_are_is_one_line(machine: Machine, tmp_path: Path) -> None:
    job = machine.start(4, "echo never")
    output, errors = job.communicate(timeout=30)
    assert (job.returncode, output) == (1, "")
    assert errors.startswith("error: resource gpu: the rule asks for 4 GPUs and this machine has 3.")
    assert errors.count("\n") == 1
    (tmp_path / "bin" / "nvidia-smi").unlink()
    assert "this machine has 0" in machine.run(1)


def test_what_a_broken_driver_says_is_no_gpu(machine: Machine, tmp_path: Path) -> None:
    (tmp_path / "bin" / "nvidia-smi").write_text("#!/bin/sh\necho No devices were found\nexit 6\n")
    assert "this machine has 0" in machine.run(1)


def test_a_slice_of_a_gpu_can_be_taken(machine: Machine) -> None:
    assert machine.run(1, CUDA_VISIBLE_DEVICES="MIG-GPU-5c89/1/0,MIG-GPU-5c89/2/0") == "MIG-GPU-5c89/1/0"


def test_only_those_that_the_user_left_visible_are_given(machine: Machine) -> None:
    assert machine.run(1, CUDA_VISIBLE_DEVICES="2") == "2"
    assert "this machine has 1" in machine.run(2, CUDA_VISIBLE_DEVICES="2")

    assert "this machine has 0" in machine.run(1, CUDA_VISIBLE_DEVICES="")


def test_without_a_need_nothing_is_touched(machine: Machine) -> None:
    assert machine.run(0) == "none"
    assert machine.run(0, CUDA_VISIBLE_DEVICES="5") == "5"


def test_a_slurm_job_has_what_slurm_gave_it(machine: Machine) -> None:
    assert machine.run(2, SLURM_JOB_ID="7", CUDA_VISIBLE_DEVICES="0,1") == "0,1"
    assert machine.run("4 2", SLURM_JOB_ID="7", CUDA_VISIBLE_DEVICES="0,1") == "0,1", "the others are on the other machine"
    assert "asks for 2 GPUs and this machine has 1" in machine.run("4 2", SLURM_JOB_ID="7", CUDA_VISIBLE_DEVICES="0")
    assert "asks for 4 GPUs and this machine has 2" in machine.run(4, SLURM_JOB_ID="7", CUDA_VISIBLE_DEVICES="0,1")


@pytest.mark.parametrize(("each", "first", "second"), [(1, "4", "5"), (2, "4,5", "4,5")])
def test_jobs_in_one_allocation_share_its_gpus_out(machine: Machine, each: int, first: str, second: str) -> None:
    allocation = {"SLURM_JOB_ID": "7", "CUDA_VISIBLE_DEVICES": "4,5"}
    holder = machine.start(each, "echo $CUDA_VISIBLE_DEVICES; sleep 60", **allocation)
    assert holder.stdout is not None
    assert holder.stdout.readline() == f"{first}\n"
    other = machine.start(each, "echo $CUDA_VISIBLE_DEVICES", **allocation)
    if first == second:
        time.sleep(1)
        assert other.poll() is None, "none is free"
    else:
        assert other.wait(timeout=30) == 0
    assert machine.run(each, **(allocation | {"SLURM_JOB_ID": "8"})) == first, "of another allocation, and another GPU"
    os.killpg(holder.pid, signal.SIGKILL)
    holder.wait()
    assert other.communicate(timeout=30)[0] == f"{second}\n"


def test_every_rule_that_can_use_gpus_takes_them_so() -> None:
    for file in RULE_FILES:
        rules = file.read_text().split("\nrule ")[1:]
        for rule in rules:
            starts_processes = "machines(" in rule
            assert starts_processes == ("take_gpus.sh {resources.gpu} {resources.nodes}; " in rule), (
                f"{file.name}: {rule.split(':')[0]}"
            )
            assert ("gpu=" in rule) == (". workflow_scripts/take_gpus.sh {resources.gpu}" in rule), (
                f"{file.name}: {rule.split(':')[0]}"
            )
