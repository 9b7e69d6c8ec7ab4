"""What SFT and GRPO training have in common: number format, weights, log."""

from __future__ import annotations

import json
import shutil
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
import trl.trainer.utils
from peft import LoraConfig
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from ecg_grpo.files import new_file, write_json
from ecg_grpo.progress import StageProgress
from ecg_grpo.settings.training import LoraSettings
from ecg_grpo.stage import Stage

TRAINING_LOG = "training_log.jsonl"


def project_only_scored_tokens() -> None:
    """Lets TRL compute logits on a processor, as it does on a GPU, only where the loss needs them.

    TRL 1.16 projects every position, prompts and padding too, wherever Triton does not run, because changing shapes make
    some accelerators compile anew. A processor has nothing to compile; the values are the same, a step takes a quarter less.
    """
    if not torch.cuda.is_available():
        # The one use of this name in that module is the choice between all positions and the scored ones.
        assert hasattr(trl.trainer.utils, "_use_triton"), "TRL has changed: see whether this is still needed"
        trl.trainer.utils._use_triton = lambda _device: True


def load_for_training(
    model: Path, dtype: torch.dtype, full_parameter: bool
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, dict[str, Any]]:
    """Model, tokenizer, and the trainer arguments that fit the number format.

    Frozen weights (LoRA) are held in `dtype`; the adapter itself is in float32. Weights that are trained themselves are
    held in float32 and computed with in `dtype`, since updates would be lost in bfloat16's eight bits.

    Args:
        model: model directory.
        dtype: what `device.choose_dtype` said.
        full_parameter: every parameter is trained.
    """
    held = torch.float32 if full_parameter else dtype
    project_only_scored_tokens()
    loaded = AutoModelForCausalLM.from_pretrained(model, dtype=held)
    tokenizer = AutoTokenizer.from_pretrained(model)
    arguments = {
        "use_cpu": not torch.cuda.is_available(),
        "bf16": full_parameter and dtype == torch.bfloat16,
        "disable_tqdm": True,
        "report_to": "none",
        "logging_steps": 1,
        "save_total_limit": 2,
        "dataloader_pin_memory": torch.cuda.is_available(),
    }
    return loaded, tokenizer, arguments


def lora_config(settings: LoraSettings) -> LoraConfig:
    """PEFT's configuration of the adapter."""
    return LoraConfig(task_type="CAUSAL_LM", bias="none", **settings.model_dump())


def resume_point(scratch: Path, steps: int, stage: Stage) -> str | None:
    """The checkpoint from which a killed run of the same training goes on.

    A checkpoint that the kill left half-written is removed, and so is one at the training's end: the trainer would go on
    past it, where the unbroken run stopped. The one before serves then.

    Args:
        scratch: directory with the checkpoints.
        steps: the training's optimizer steps.
        stage: the running stage.
    """
    checkpoints = {int(folder.name.rsplit("-", 1)[1]): folder for folder in scratch.glob("checkpoint-*")}
    for step, folder in sorted(checkpoints.items(), reverse=True):
        try:
            # The trainer writes this file last.
            whole = json.loads((folder / "trainer_state.json").read_text())["global_step"] == step
        except (OSError, ValueError, KeyError):
            whole = False
        if whole and step < steps:
            stage.say(f"resuming from {folder}")
            stage.facts["resumed_from_step"] = step
            return str(folder)
        shutil.rmtree(folder)
    return None


class TrainingLog(TrainerCallback):
    """Writes one JSON line a step and shows the step's figures.

    Every line has `step` and `seconds` (since training began, over all sittings); a training step has `loss`,
    `learning_rate` and `tokens`, a validation has `validation_loss`, and whatever else the trainer measures keeps its
    name. A resumed run keeps the lines up to its checkpoint.
    """

    def __init__(self, stage: Stage, scratch: Path, figures: dict[str, str]) -> None:
        """
        Args:
            stage: the running stage.
            scratch: where the growing log is kept.
            figures: what is shown of a step: name in the log → label.
        """
        self._stage, self._file, self._figures = stage, scratch / TRAINING_LOG, figures
        self._progress: StageProgress | None = None
        self._started = time.monotonic()

    @property
    def file(self) -> Path:
        """The growing log."""
        return self._file

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        if not state.is_world_process_zero:
            return
        kept = [line for line in self._lines() if line["step"] <= state.global_step] if state.global_step else []
        self._file.write_text("".join(json.dumps(line) + "\n" for line in kept))
        self._started = time.monotonic() - (kept[-1]["seconds"] if kept else 0)
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
        names = {"num_tokens": "tokens", "eval_loss": "validation_loss"}
        entry: dict[str, Any] = {"step": state.global_step, "seconds": round(time.monotonic() - self._started, 2)}
        entry |= {names.get(name, name): value for name, value in logs.items()}
        with self._file.open("a") as stream:
            stream.write(json.dumps(entry) + "\n")
        shown = [f"{label} {entry[name]:.4g}" for name, label in self._figures.items() if entry.get(name) is not None]
        self._progress.step(state.global_step, "  ".join(shown))

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        if self._progress is not None:
            self._progress.__exit__(None, None, None)

    def _lines(self) -> list[dict[str, Any]]:
        entries = []
        for line in self._file.read_text().splitlines() if self._file.exists() else []:
            with suppress(ValueError):  # a kill may have torn the last line
                entries.append(json.loads(line))
        return entries


def deliver_adapter_config(source: Path, target: Path) -> None:
    """Writes PEFT's adapter configuration with its modules in order; PEFT writes a set, in another order every time."""
    configuration = json.loads(source.read_text())
    if isinstance(configuration["target_modules"], list):
        configuration["target_modules"].sort()
    write_json(target, configuration)


def deliver(source: Path, target: Path) -> None:
    """Copies a finished file out of the scratch folder; it appears whole or not at all."""
    with new_file(target) as partial:
        shutil.copyfile(source, partial)
