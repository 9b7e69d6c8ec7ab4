"""A live line in a terminal and a plain line in the log for every step of a long stage."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ecg_grpo.stage import Stage


class StageProgress:
    """Shows how far a stage is. In a terminal a bar with the time that is left; in the log one line a step."""

    def __init__(self, stage: Stage, total: int, done: int = 0) -> None:
        self._stage, self._total, self._done_before = stage, total, done
        self._started = time.monotonic()
        console = Console(file=stage.terminal, force_terminal=stage.terminal.isatty())
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            console=console,
            transient=True,
            redirect_stdout=False,  # what is printed belongs into the log, not above the bar
            redirect_stderr=False,
            disable=not stage.terminal.isatty(),
        )
        self._task = self._bar.add_task(stage.name, total=total, completed=done, note="")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        self._bar.stop()

    def step(self, done: int, note: str) -> None:
        """`done` of the total are finished; `note` holds the figures of the moment."""
        self._bar.update(self._task, completed=done, note=note)
        elapsed = time.monotonic() - self._started
        fresh = done - self._done_before
        left = elapsed / fresh * (self._total - done) if fresh > 0 else 0.0
        self._stage.say(f"{self._stage.name} {done}/{self._total}  {note}  elapsed {elapsed:.0f} s, left {left:.0f} s")
