"""How many steps a training will take, known before any of them is paid for."""

from __future__ import annotations

import math

from ecg_grpo.errors import InputError
from ecg_grpo.settings.grpo import GRPOSettings
from ecg_grpo.settings.sft import SFTSettings

SFT_SIZES = {"num_train_epochs", "per_device_train_batch_size", "gradient_accumulation_steps", "launch"}
GRPO_SIZES = {
    *("num_train_epochs", "max_steps", "per_device_train_batch_size", "gradient_accumulation_steps"),
    *("num_generations", "num_iterations", "launch"),
}
"""The fields of the two sections that decide the plan, and on which alone it depends."""


def sft_steps(records: int, settings: SFTSettings) -> int:
    """Optimizer steps of SFT; the last step of an epoch may be smaller."""
    batches = math.ceil(records / (settings.per_device_train_batch_size * settings.launch.processes))
    return math.ceil(settings.num_train_epochs * math.ceil(batches / settings.gradient_accumulation_steps))


def grpo_steps(prompts: int, settings: GRPOSettings) -> int:
    """Optimizer steps of GRPO; a last batch of prompts that is not full is left out.

    Raises:
        InputError: there are not even prompts for one step, with which the trainer would end at once and say nothing.
    """
    batches = prompts // settings.prompts_per_step
    if batches < 1:
        raise InputError(
            "grpo",
            f"one step needs {settings.prompts_per_step} prompts ({settings.completions_per_step} completions in groups "
            f"of {settings.num_generations}), the training split has {prompts}",
            "Lower grpo.per_device_train_batch_size or grpo.gradient_accumulation_steps, or give more data.",
        )
    if settings.max_steps > 0:
        return settings.max_steps
    return math.ceil(settings.num_train_epochs * batches * settings.num_iterations)
