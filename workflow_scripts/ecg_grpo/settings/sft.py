"""`sft:` supervised fine-tuning of a LoRA adapter on the reference answers."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field

from ecg_grpo.settings.section import Precision, Section
from ecg_grpo.settings.training import LaunchSettings, LoraSettings


class SFTSettings(Section):
    """Section `sft`; names and meanings are those of TRL's SFTConfig, defaults are the production run's."""

    num_train_epochs: float = Field(1, gt=0, description="Passes over the training split.")
    per_device_train_batch_size: int = Field(4, ge=1, description="Records in one forward pass of one process.")
    gradient_accumulation_steps: int = Field(4, ge=1, description="Forward passes for one optimizer step.")
    learning_rate: float = Field(2e-4, gt=0, description="Peak learning rate of AdamW.")
    lr_scheduler_type: Literal["linear", "cosine", "constant", "constant_with_warmup"] = Field(
        "cosine", description="How the learning rate falls."
    )
    warmup_steps: float = Field(0.03, ge=0, description="Steps in which the learning rate rises; below 1 a share of all.")
    weight_decay: float = Field(0.0, ge=0, description="AdamW's weight decay.")
    max_grad_norm: float = Field(1.0, gt=0, description="Gradients are clipped to this norm.")
    max_length: int = Field(2048, ge=2, description="Longest record in tokens, prompt and answer together.")
    lora: LoraSettings = Field(default_factory=LoraSettings, description="The adapter.")
    precision: Precision = Field("auto", description="Number format of the frozen weights while training.")
    gradient_checkpointing: bool = Field(
        False, description="Recompute activations in the backward pass: less memory, about a third more time."
    )
    evaluations: int = Field(
        4, ge=1, description="How often the validation loss is measured, besides once before the first step."
    )
    save_steps: int = Field(50, ge=1, description="A checkpoint to resume from every so many steps.")
    seed: int = Field(42, ge=0, description="Seed of the adapter's first weights and of the order of records.")
    launch: LaunchSettings = Field(default_factory=LaunchSettings, description="How the program is started.")

    def on_plain_python(self) -> bool:
        """Whether neither DeepSpeed nor vLLM is needed."""
        return self.launch.accelerate_config is None

    def steps(self, records: int) -> int:
        """Optimizer steps for so many training records; the last step of an epoch may be smaller."""
        batches = math.ceil(records / (self.per_device_train_batch_size * self.launch.processes))
        return math.ceil(self.num_train_epochs * math.ceil(batches / self.gradient_accumulation_steps))
