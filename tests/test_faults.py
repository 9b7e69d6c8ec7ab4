"""Kills, full disks and lost files at any moment: snakemake again, and the results are those of the unbroken run."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import CORES, REPRODUCIBLE, SYSTEMS, Project

from ecg_grpo.files import sha256_of

pytestmark = [pytest.mark.pipeline, pytest.mark.timeout(3000)]

KILLS = int(os.environ.get("KILLS", "30"))
PARTS = {
    "evaluation": "evaluation",
    "grpo_model": "results/demo/grpo_model/manifest.json",
    "grpo": "results/demo/grpo/checkpoint/manifest.json",
    "reward_audit": "results/demo/reward_audit/passed.json",
    "sft_model": "results/demo/sft_model/manifest.json",
    "sft": "results/demo/sft/checkpoint/manifest.json",
    "data": "data",
}
"""Folders of the results, the last one first, and what is asked for to have each again."""
MEAN_SECONDS = 5
"""Between the start of a job and a kill; exponentially distributed, so that long stages are hit late too."""

TARGETS = ["evaluation", "data"]
DISK_MIB = 100
"""Room enough for all results of the tiny pipeline."""

READABLE = """
import json, sys
from pathlib import Path
import pyarrow.parquet as pq
for file in Path(sys.argv[1]).rglob("*"):
    if "scratch" in file.parts or file.name.startswith("."):
        continue
    if file.suffix == ".json":
        json.loads(file.read_text())
    elif file.suffix == ".parquet":
        pq.read_table(file)
"""
"""Every result that is there must be whole; unfinished work has hidden names or is in `scratch`."""


def same_as(finished: Project, project: Project) -> None:
    for name in REPRODUCIBLE:
        assert sha256_of(project.results() / name) == sha256_of(finished.results() / name), name
    for system in SYSTEMS:
        tables = [pq.read_table(one.results() / f"evaluation/{system}/answers.parquet") for one in (finished, project)]
        assert tables[0].drop_columns("seconds").equals(tables[1].drop_columns("seconds")), system
    assert not list(project.results().rglob("*.partial*"))
    assert not list((project.results() / "scratch").iterdir())


def members(group: int) -> list[int]:
    """Processes of a process group that have not ended."""
    listed = subprocess.run(["ps", "-e", "-o", "pid=,pgid=,stat="], capture_output=True, text=True, check=True)
    rows = map(str.split, listed.stdout.splitlines())
    return [int(pid) for pid, of, state, *_ in rows if int(of) == group and not state.startswith("Z")]


def programs(group: int) -> dict[int, str]:
    """Those of them that are stages, with their names."""
    found = {}
    for pid in members(group):
        with suppress(OSError):
            words = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
            started = [word for word in words[:5] if word.startswith("workflow_scripts/")]
            found |= {pid: Path(started[0]).stem} if started else {}
    return found


def wait_for_a_random_moment(running: subprocess.Popen[bytes], chance: random.Random) -> None:
    """One time in ten while Snakemake still plans, else some seconds after its first job has started."""
    if chance.random() < 0.1:
        time.sleep(chance.uniform(0.5, 2))
        return
    while running.poll() is None and not programs(running.pid):
        time.sleep(0.05)
    with suppress(subprocess.TimeoutExpired):
        running.wait(timeout=min(chance.expovariate(1 / MEAN_SECONDS), 30))


def test_killed_at_random_moments(finished: Project, finished_copy: Project) -> None:
    """Snakemake, a job or the whole process group is killed again and again, in every part: the same artifacts.

    Every part is lost and made again in turn, the last one first, so that kills hit late stages as often as early ones; in
    the end everything has been made anew.
    """
    project = finished_copy
    chance = random.Random(0)
    happened: Counter[str] = Counter()
    stages: Counter[str] = Counter()
    running = None
    while happened.total() < KILLS:
        if running is None:
            part, target = list(PARTS.items())[happened.total() * len(PARTS) // KILLS]
            project.forget(part)
            running = subprocess.Popen(
                ["snakemake", "--cores", CORES, target],
                cwd=project.folder,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        wait_for_a_random_moment(running, chance)
        jobs = programs(running.pid)
        whom = chance.choice(["snakemake", "job", "group"]) if jobs else "group"
        if running.poll() is not None:  # it was done, or a job of it had been killed
            running = None
            continue
        happened[whom] += 1
        stages.update(jobs.values())
        if whom == "job":  # Snakemake lives on, ends what else runs and says what failed
            with suppress(ProcessLookupError):
                os.kill(chance.choice(sorted(jobs)), signal.SIGKILL)
            continue
        if whom == "snakemake":
            running.kill()
        else:
            os.killpg(running.pid, signal.SIGKILL)
        running.wait()
        deadline = time.monotonic() + 300
        while members(running.pid):  # jobs whose Snakemake is gone go on to their end
            assert time.monotonic() < deadline, "a job does not end"
            time.sleep(0.1)
        running = None
        project.snakemake("--unlock")
        subprocess.run([sys.executable, "-c", READABLE, project.results()], check=True)
    if running:
        running.wait(timeout=600)
    project.snakemake(*TARGETS)
    same_as(finished, project)
    print(f"killed: {dict(happened)}, while these ran: {dict(stages)}")
    assert min(happened[whom] for whom in ("snakemake", "job", "group")) >= KILLS // 10
    assert len(stages) >= KILLS // 7, "the kills did not spread over the pipeline"


class SmallDisk:
    """A real file system for a project's results, which commands run by it see, and which can be filled up.

    Attributes:
        project: the project with these results, as it is seen from outside.
    """

    def __init__(self, project: Project, in_own_mounts: list[str]) -> None:
        self._folder = project.folder
        mount = f"mount -t tmpfs -o size={DISK_MIB}m none results && echo mounted && exec sleep infinity"
        self._holder = subprocess.Popen([*in_own_mounts, "sh", "-c", mount], cwd=self._folder, stdout=subprocess.PIPE)
        assert self._holder.stdout
        assert self._holder.stdout.readline() == b"mounted\n"
        self.project = Project(Path(f"/proc/{self._holder.pid}/root{self._folder}"))
        self._filler = self.project.folder / "results/.filler"

    def leave(self, pages: int) -> None:
        """Fills it up to this many pages of 4 KiB."""
        with suppress(OSError), self._filler.open("wb", buffering=0) as filler:
            while True:
                filler.write(bytes(4096))
        os.truncate(self._filler, self._filler.stat().st_size - 4096 * pages)

    def make_room(self) -> None:
        """Undoes `leave`."""
        self._filler.unlink()

    def snakemake(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Runs snakemake in the project, with this disk."""
        enter = ["nsenter", "--target", str(self._holder.pid), "--user", "--mount", "--preserve-credentials"]
        there = ["sh", "-c", 'cd "$0" && exec snakemake "$@"', str(self._folder), "--cores", CORES]
        return subprocess.run([*enter, *there, *arguments], capture_output=True, text=True, check=False)

    def close(self) -> None:
        """Ends it, with all that it holds."""
        self._holder.kill()
        self._holder.communicate()


@pytest.fixture
def small_disk(project: Project, in_own_mounts: list[str]) -> Iterator[SmallDisk]:
    """The results of a fresh project on a disk of their own."""
    disk = SmallDisk(project, in_own_mounts)
    yield disk
    disk.close()


def test_a_disk_that_is_full_in_every_stage(finished: Project, small_disk: SmallDisk) -> None:
    """Each stage meets a disk with no room for all that it writes, says so in one line, and is made when there is room.

    Of the stages that are ready, the first one finds room for its log and one page more, the others for less.
    """
    failed: list[str] = []
    while True:
        small_disk.leave(pages=2)
        run = small_disk.snakemake("--keep-going")
        small_disk.make_room()
        if run.returncode == 0:
            break
        lines = [line for line in run.stderr.splitlines() if ": error: " in line]
        outputs = re.findall(r"^Error in rule \w+:\n(?:    .*\n)*?    output: (.*)", run.stderr, flags=re.MULTILINE)
        assert "Traceback" not in run.stderr
        assert len(lines) == len(outputs) > 0, run.stderr
        for line in lines:
            assert "No space left" in line or "no room" in line, line
            assert "Make room and run snakemake again" in line, line
        subprocess.run([sys.executable, "-c", READABLE, small_disk.project.results()], check=True)
        wanted = [name for names in outputs for name in names.split(", ")]
        assert not [name for name in wanted if (small_disk.project.folder / name).exists()]
        failed += [Path(name).stem for name in wanted if "/provenance/" in name]
        made = small_disk.snakemake(*wanted)
        assert made.returncode == 0, made.stderr
    assert sorted(failed) == sorted(file.stem for file in (finished.results() / "provenance").glob("*.json"))
    same_as(finished, small_disk.project)


@pytest.mark.parametrize(
    "lost",
    [
        ["grpo_model/manifest.json", "evaluation/sft/scores.parquet"],
        ["data/validation.parquet"],
    ],
    ids=lambda lost: lost[0].split("/")[0],
)
def test_lost_results_are_made_again(finished: Project, finished_copy: Project, lost: list[str]) -> None:
    for name in lost:
        (finished_copy.results() / name).unlink()
    finished_copy.snakemake()
    same_as(finished, finished_copy)


def test_a_model_with_other_bytes_is_refused_and_made_again_where_it_is_deleted(
    finished: Project, finished_copy: Project
) -> None:
    weights = finished_copy.results() / "grpo_model/model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    finished_copy.forget("evaluation/grpo")
    assert finished_copy.jobs(*TARGETS) == set()  # what was made of them is there
    scores = "results/demo/evaluation/grpo/scores.parquet"
    run = finished_copy.snakemake(scores, check=False)
    assert run.returncode != 0
    assert "grpo_model/model.safetensors" in run.stderr
    assert "not the one that the manifest lists" in run.stderr
    finished_copy.forget("grpo_model")
    finished_copy.snakemake(scores)
    finished_copy.snakemake(*TARGETS)
    same_as(finished, finished_copy)


def test_what_cannot_be_read_is_not_a_result(tmp_path: Path) -> None:
    """The check above finds a torn file."""
    pq.write_table(pa.table({"a": [1]}), tmp_path / "whole.parquet")
    (tmp_path / ".hidden.json").write_text("{")
    subprocess.run([sys.executable, "-c", READABLE, tmp_path], check=True)
    (tmp_path / "torn.json").write_text('{"a": 1')
    assert subprocess.run([sys.executable, "-c", READABLE, tmp_path], capture_output=True, check=False).returncode == 1
