"""The check without which GRPO can end after no step and say nothing."""

from __future__ import annotations

from pathlib import Path

from ecg_grpo.errors import InputError


def require_one_grpo_batch(train: Path, prompts: int, prompts_per_step: int) -> None:
    """Refuses a training split that cannot fill one GRPO step: the trainer would drop it and end at once, successfully.

    Args:
        train: the training split, for the message.
        prompts: how many prompts it has.
        prompts_per_step: how many one step takes.

    Raises:
        InputError: there are too few.
    """
    if prompts < prompts_per_step:
        raise InputError(
            train,
            f"the training split has {prompts} prompts, one GRPO step takes {prompts_per_step}",
            "Lower grpo.per_device_train_batch_size or grpo.gradient_accumulation_steps, or give more data.",
        )
