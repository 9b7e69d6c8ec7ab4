"""What a training says of itself: JSON lines, TensorBoard, the terminal; and the guards that read it."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ecg_grpo.guards import Guards
from ecg_grpo.progress import StageProgress
from ecg_grpo.stage import Stage

TRAINING_LOG = "training_log.jsonl"

NAMES = {"num_tokens": "tokens", "eval_loss": "validation_loss"}
"""The trainer's names of what the log calls otherwise."""


class TrainingLog(TrainerCallback):
    """Writes one JSON line a step, shows the step's figures, and lets the guards stop the run.

    Every line has `step` and `seconds` (since training began, over all sittings); a training step has `loss`,
    `learning_rate`, `tokens` (so far) and `tokens_per_second`, a validation of SFT has `validation_loss`, and whatever else
    the trainer measures keeps its name, a validation's with `eval_` before it. What is not a number is null. A resumed run
    keeps the lines up to its checkpoint.
    """

    def __init__(
        self, stage: Stage, scratch: Path, figures: Mapping[str, str], guards: Guards, tensorboard: Path | None = None
    ) -> None:
        """
        Args:
            stage: the running stage.
            scratch: where the growing log is kept.
            figures: what is shown of a step: name in the log → label.
            guards: what stops the run.
            tensorboard: folder for TensorBoard's event files.
        """
        self._stage, self._file, self._figures, self._guards = stage, scratch / TRAINING_LOG, figures, guards
        self._tensorboard_folder, self._tensorboard = tensorboard, None
        self._progress: StageProgress | None = None
        self._started = time.monotonic()
        self._last = (0.0, 0.0)  # tokens and seconds at the step before

    @property
    def file(self) -> Path:
        """The growing log."""
        return self._file

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        if not state.is_world_process_zero:
            return
        kept = [line for line in self._lines() if line["step"] <= state.global_step] if state.global_step else []
        self._file.write_text("".join(json.dumps(line) + "\n" for line in kept))
        for warning in self._guards.replay(kept):
            self._stage.say(f"warning: {warning}")
        self._started = time.monotonic() - (kept[-1]["seconds"] if kept else 0)
        self._last = next(
            ((line["tokens"], line["seconds"]) for line in reversed(kept) if "tokens_per_second" in line), self._last
        )
        if self._tensorboard_folder is not None:
            self._tensorboard = SummaryWriter(str(self._tensorboard_folder), purge_step=state.global_step + 1)
        self._progress = StageProgress(self._stage, state.max_steps, state.global_step)
        self._progress.__enter__()

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **_: object,
    ) -> None:
        if not state.is_world_process_zero or self._progress is None or not logs or "train_runtime" in logs:
            return
        entry: dict[str, Any] = {"step": state.global_step, "seconds": round(time.monotonic() - self._started, 2)}
        entry |= {NAMES.get(name, name): value for name, value in logs.items()}
        if "tokens" in entry and "loss" in entry:  # a second pass over the same completions has seen no new ones
            tokens, seconds = entry["tokens"] - self._last[0], entry["seconds"] - self._last[1]
            self._last = (entry["tokens"], entry["seconds"])
            if seconds > 0:
                entry["tokens_per_second"] = round(tokens / seconds, 1)
        with self._file.open("a") as stream:
            stream.write(json.dumps({name: _finite(value) for name, value in entry.items()}, allow_nan=False) + "\n")
        if self._tensorboard is not None:
            for name, value in entry.items():
                if name != "step" and isinstance(value, (int, float)):
                    self._tensorboard.add_scalar(name, value, state.global_step)
            self._tensorboard.flush()
        shown = [f"{label} {_short(entry[name])}" for name, label in self._figures.items() if entry.get(name) is not None]
        self._progress.step(state.global_step, "  ".join(shown))
        for warning in self._guards.check(entry):
            self._stage.say(f"warning: {warning}")

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the display; what was written stays."""
        if self._progress is not None:
            self._progress.__exit__(None, None, None)
        if self._tensorboard is not None:
            self._tensorboard.close()

    def _lines(self) -> list[dict[str, Any]]:
        entries = []
        for line in self._file.read_text().splitlines() if self._file.exists() else []:
            with suppress(ValueError):  # a kill may have torn the last line
                entries.append(json.loads(line))
        return entries


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _short(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
