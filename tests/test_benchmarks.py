"""What the benchmarks say to somebody who has made no run yet."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT


@pytest.mark.parametrize(
    ("program", "option", "remedy"),
    [
        ("rewards", ["--data", "no/train.parquet"], "snakemake --cores all data"),
        ("rewards", ["--data", "text.parquet"], "text.parquet"),
        ("chat", [], "make demo"),
        ("chat", ["--model", "no/model"], "make demo"),
        ("evaluation", ["--results", "no"], "make demo"),
    ],
)
def test_without_a_run_they_end_in_one_line(program: str, option: list[str], remedy: str, tmp_path: Path) -> None:
    (tmp_path / "text.parquet").write_text("no table")
    command = [sys.executable, str(ROOT / f"benchmarks/{program}.py"), *option]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert len(run.stderr.splitlines()) == 1
    assert remedy in run.stderr
