"""What the two training sections, `sft` and `grpo`, have in common."""

from __future__ import annotations

import shlex
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from ecg_grpo.settings.section import Precision, Section

Tracker = Literal["wandb", "trackio", "mlflow"]


class LoraSettings(Section):
    """A low-rank adapter (Hu et al. 2021, arXiv 2106.09685); field names are PEFT's."""

    r: int = Field(16, ge=1, description="Rank of the update.")
    lora_alpha: int = Field(32, ge=1, description="Scale: the update is multiplied by lora_alpha / r.")
    lora_dropout: float = Field(0.0, ge=0, lt=1, description="Dropout on the adapter's input.")
    target_modules: str = Field(
        "all-linear", description="Modules that get an adapter: `all-linear` or a regular expression over names."
    )
    load_in_4bit: bool = Field(
        False,
        description="QLoRA (Dettmers et al. 2023, arXiv 2305.14314): the frozen weights in 4-bit NormalFloat. Needs "
        "bitsandbytes and a CUDA GPU.",
    )


class LaunchSettings(Section):
    """How a training program is started."""

    processes: int = Field(1, ge=1, description="Training processes over all machines; one for each GPU.")
    machines: int = Field(
        1, ge=1, description="Machines; more than one are those of a Slurm job, each with an equal share of the processes."
    )
    deepspeed: str | None = Field(
        None, description="DeepSpeed configuration file, e.g. config/deepspeed/zero2.json; null trains without DeepSpeed."
    )

    @model_validator(mode="after")
    def _machines_share_the_processes(self) -> Self:
        if self.processes % self.machines:
            raise ValueError(f"processes ({self.processes}) must be a multiple of machines ({self.machines})")
        return self

    def command(self, gpus: int = 0) -> str:
        """What stands in front of the program's name in a shell command.

        Args:
            gpus: of each machine for this training; 0: it computes without. Only several machines need to know.
        """
        if self.processes == 1:
            return "python"
        # What the launcher says of a failure stands in a file of its own; the programs' one line reaches the terminal past it.
        terminal = "exec 9>&2; ECG_GRPO_TERMINAL=/proc/$$/fd/9"
        words = ["accelerate", "launch", "--multi_gpu", "--num_processes", str(self.processes)]
        # Stated, because accelerate warns of each that is not; the number format is the program's affair.
        words += ["--num_machines", str(self.machines), "--mixed_precision", "no", "--dynamo_backend", "no"]
        if self.machines == 1:
            return f"{terminal} {shlex.join([*words, '--main_process_port', '0'])}"
        # All stated: by itself a job step gets one processor for each task, and of its job's GPUs not always all.
        # Snakemake sets OMP_NUM_THREADS to the rule's threads.
        per_machine = f"srun --nodes {self.machines} --ntasks {self.machines} --ntasks-per-node 1 --kill-on-bad-exit=1"
        per_machine += ' --cpus-per-task "$OMP_NUM_THREADS"' + (f" --gpus-per-node {gpus}" if gpus else "")
        return f"{terminal} {per_machine} workflow_scripts/on_this_machine.sh {shlex.join(words)}"

    def launcher_log(self, file: str) -> str:
        """What stands behind the program's arguments in a shell command: nothing, or where the launcher's own output goes."""
        return "" if self.processes == 1 else f"2> {shlex.quote(file)}"

    def files(self) -> list[str]:
        """The files that the training reads: an edit of one is a change of the training."""
        return [] if self.deepspeed is None else [self.deepspeed]


class TrainingSettings(Section):
    """What every training has; names and meanings are those of transformers' TrainingArguments."""

    num_train_epochs: float = Field(1, gt=0, description="Passes over the training split.")
    per_device_train_batch_size: int = Field(4, ge=1, description="Sequences in one backward pass of one process.")
    gradient_accumulation_steps: int = Field(4, ge=1, description="Backward passes for one optimizer step.")
    learning_rate: float = Field(2e-4, gt=0, description="Peak learning rate of AdamW.")
    lr_scheduler_type: Literal["linear", "cosine", "constant", "constant_with_warmup"] = Field(
        "cosine", description="How the learning rate falls."
    )
    warmup_steps: float = Field(0.03, ge=0, description="Steps in which the learning rate rises; below 1 a share of all.")
    weight_decay: float = Field(0.0, ge=0, description="AdamW's weight decay.")
    max_grad_norm: float = Field(1.0, gt=0, description="Gradients are clipped to this norm.")
    lora: LoraSettings | None = Field(
        default_factory=LoraSettings, description="Train an adapter; null trains every parameter."
    )
    precision: Precision = Field("auto", description="Number format of the weights while training.")
    gradient_checkpointing: bool = Field(
        False, description="Recompute activations in the backward pass: less memory, about a third more time."
    )
    save_steps: int = Field(50, ge=1, description="A checkpoint to resume from every so many steps.")
    seed: int = Field(42, ge=0, description="Seed of sampling, of the adapter's first weights and of the order.")
    report_to: list[Tracker] = Field(
        [], description="Trackers besides TensorBoard and the training log, which are always written; each needs its package."
    )
    launch: LaunchSettings = Field(default_factory=LaunchSettings, description="How the program is started.")

    def needs_gpu_packages(self) -> bool:
        """Whether DeepSpeed or bitsandbytes is needed."""
        return self.launch.deepspeed is not None or (self.lora is not None and self.lora.load_in_4bit)

    @property
    def sequences_per_step(self) -> int:
        """Sequences, over all processes, for one optimizer step."""
        return self.per_device_train_batch_size * self.gradient_accumulation_steps * self.launch.processes

    NOT_THE_TRAINERS: ClassVar[frozenset[str]] = frozenset({"lora", "precision", "report_to", "launch"})
    """Fields that the trainer does not take under the same name."""

    def trainer_arguments(self) -> dict[str, Any]:
        """The values that the trainer takes under the same names."""
        return self.model_dump(include=set(type(self).model_fields) - self.NOT_THE_TRAINERS, exclude_none=True)

    @model_validator(mode="after")
    def _four_bits_are_on_one_device(self) -> Self:
        if self.lora is not None and self.lora.load_in_4bit and self.launch.deepspeed is not None:
            raise ValueError("lora.load_in_4bit cannot be sharded by DeepSpeed: set launch.deepspeed to null")
        return self
