"""How hard a prompt is for a policy, judged by the rewards of several samples, and whether GRPO can learn from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median, stdev
from typing import Literal, get_args

import pyarrow as pa

from ecg_grpo.errors import InputError
from ecg_grpo.settings.difficulty_filter import DifficultyFilterSettings

Reason = Literal["kept", "too_easy", "too_hard", "no_spread"]

DIFFICULTY = pa.schema(
    [
        ("id", pa.string()),
        ("mean_reward", pa.float64()),
        ("spread", pa.float64()),
        ("mean_length", pa.float64()),
        ("kept", pa.bool_()),
        ("reason", pa.string()),
    ]
)
"""One row for every training prompt: mean and standard deviation of its samples' rewards (0 to 1), their mean length in
tokens, and why it was kept or dropped (one of `Reason`)."""


@dataclass(frozen=True)
class Difficulty:
    """What the samples of one prompt say about it.

    Attributes:
        mean_reward: mean of the samples' rewards, 0 to 1.
        spread: their standard deviation, with n - 1 as GRPO's trainer takes it; 0 to 0.71.
        reason: `kept`, or why the prompt is dropped; the mean is looked at before the spread.
    """

    mean_reward: float
    spread: float
    reason: Reason


def difficulty_of(rewards: Sequence[float], settings: DifficultyFilterSettings) -> Difficulty:
    """Judges a prompt by the rewards (0 to 1) of its samples, two or more. The bounds themselves are still kept."""
    mean, spread = fmean(rewards), stdev(rewards)
    reason: Reason = "kept"
    if mean > settings.max_reward:
        reason = "too_easy"
    elif mean < settings.min_reward:
        reason = "too_hard"
    elif spread < settings.min_spread:
        reason = "no_spread"
    return Difficulty(mean, spread, reason)


def count_reasons(judged: Sequence[Difficulty]) -> dict[Reason, int]:
    """How many prompts there are of each reason, in the order of `Reason`; together they are all prompts."""
    return {reason: sum(entry.reason == reason for entry in judged) for reason in get_args(Reason)}


def require_enough_prompts(train: Path, judged: Sequence[Difficulty], prompts_per_step: int) -> None:
    """Refuses a filter that leaves too few prompts for one GRPO step: the trainer would end at once, successfully.

    Args:
        train: the training split, for the message.
        judged: every prompt's difficulty, at least one.
        prompts_per_step: how many prompts one step takes.

    Raises:
        InputError: there are too few; says how many were dropped for which reason and where the rewards lie.
    """
    counts = count_reasons(judged)
    if counts["kept"] >= max(1, prompts_per_step):
        return
    means = [entry.mean_reward for entry in judged]
    raise InputError(
        train,
        f"the difficulty filter leaves {counts['kept']} of {len(judged)} prompts ({counts['too_hard']} too hard, "
        f"{counts['too_easy']} too easy, {counts['no_spread']} without spread; mean rewards from "
        f"{min(means):.2f} to {max(means):.2f}, median {median(means):.2f}), one GRPO step takes {prompts_per_step}",
        "Widen difficulty_filter.min_reward and max_reward, lower difficulty_filter.min_spread, make GRPO's batch smaller, "
        "or set difficulty_filter.enabled to false.",
    )
