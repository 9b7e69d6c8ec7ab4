"""`sft:` supervised fine-tuning on the reference answers."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field

from ecg_grpo.settings.training import TrainingSettings


class SFTSettings(TrainingSettings):
    """Section `sft`; names and meanings are those of TRL's SFTConfig, defaults are the production run's."""

    NOT_THE_TRAINERS = TrainingSettings.NOT_THE_TRAINERS | {"evaluations"}

    max_length: int = Field(2048, ge=2, description="Longest record in tokens, prompt and answer together.")
    train_sampling_strategy: Literal["group_by_length", "random"] = Field(
        "group_by_length", description="Records of like length share a batch, which saves padding; or any order."
    )
    evaluations: int = Field(
        4, ge=1, description="How often the validation loss is measured, besides once before the first step."
    )

    def steps(self, records: int) -> int:
        """Optimizer steps for so many training records; the last step of an epoch may be smaller."""
        batches = math.ceil(records / (self.per_device_train_batch_size * self.launch.processes))
        return math.ceil(self.num_train_epochs * math.ceil(batches / self.gradient_accumulation_steps))
