"""Progress: a bar in a terminal, a line a step in the log, and neither in the other's place."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

from conftest import ROOT

PROGRAM = """
from ecg_grpo.progress import StageProgress
from ecg_grpo.stage import StageParser


def example(arguments, stage):
    with StageProgress(stage, 3) as progress:
        for step in range(1, 4):
            print("noise of a library")
            progress.step(step, f"loss {1 / step:.2f}")


StageParser("example", None).run(example)
"""


def run(tmp_path: Path, terminal: int) -> None:
    subprocess.run(
        [sys.executable, "-c", PROGRAM, "--log", "log.txt"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT / "workflow_scripts"), "TERM": "xterm", "COLUMNS": "100"},
        stdout=terminal,
        stderr=terminal,
        check=True,
    )


def check_log(tmp_path: Path) -> None:
    lines = (tmp_path / "log.txt").read_text().splitlines()
    assert [line.split("  ")[:2] for line in lines if line.startswith("example")] == [
        ["example 1/3", "loss 1.00"],
        ["example 2/3", "loss 0.50"],
        ["example 3/3", "loss 0.33"],
    ]
    assert lines.count("noise of a library") == 3


def test_in_a_terminal(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    run(tmp_path, theirs)
    os.close(theirs)
    shown = b""
    while True:
        try:
            shown += os.read(ours, 65536)
        except OSError:  # the other end is closed and everything is read
            break
    os.close(ours)
    assert b"3/3" in shown
    assert b"loss 0.33" in shown
    assert b"noise" not in shown
    check_log(tmp_path)


def test_without_a_terminal(tmp_path: Path) -> None:
    with (tmp_path / "output.txt").open("w") as output:
        run(tmp_path, output.fileno())
    assert (tmp_path / "output.txt").read_text() == ""
    check_log(tmp_path)
