"""Steps are worked out as the trainers count them."""

from __future__ import annotations

from pathlib import Path

import pytest

from ecg_grpo.batches import require_one_grpo_batch
from ecg_grpo.errors import InputError
from ecg_grpo.settings.grpo import GRPOSettings
from ecg_grpo.settings.sft import SFTSettings


@pytest.mark.parametrize(
    ("records", "changes", "steps"),
    [
        (64, {}, 4),
        (65, {}, 5),
        (64, {"num_train_epochs": 2.5}, 10),
        (64, {"launch": {"processes": 2}}, 2),
        (1, {}, 1),
    ],
)
def test_sft_steps(records: int, changes: dict, steps: int) -> None:
    assert SFTSettings.model_validate(changes).steps(records) == steps


@pytest.mark.parametrize(
    ("prompts", "changes", "steps"),
    [
        (80, {}, 10),  # 64 completions a step in groups of 8 are 8 prompts
        (87, {}, 10),  # the last batch is not full
        (80, {"num_iterations": 2}, 20),
        (80, {"num_train_epochs": 0.5}, 5),
        (80, {"max_steps": 3}, 3),
    ],
)
def test_grpo_steps(prompts: int, changes: dict, steps: int) -> None:
    assert GRPOSettings.model_validate(changes).steps(prompts) == steps


def test_too_few_prompts_are_refused() -> None:
    require_one_grpo_batch(Path("train.parquet"), 8, GRPOSettings().prompts_per_step)
    with pytest.raises(InputError, match=r"train.parquet: the training split has 7 prompts, one GRPO step takes 8"):
        require_one_grpo_batch(Path("train.parquet"), 7, GRPOSettings().prompts_per_step)
