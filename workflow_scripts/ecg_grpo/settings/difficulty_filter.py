"""`difficulty_filter:` which training prompts GRPO leaves out because the SFT model's samples would teach nothing."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from ecg_grpo.settings.section import Precision, Section


class DifficultyFilterSettings(Section):
    """Section `difficulty_filter`.

    A group of equal rewards has no advantage and gives no gradient (DAPO, arXiv 2503.14476, section 3.2); prompts between
    the extremes teach most (Bae et al. 2025, arXiv 2504.03380). Rewards are those of section `reward`.

    The default range is wide on purpose. With the default reward the reference answer of another question of the task scores
    0.01 to 0.15 on the sample data (median 0.04) and an empty text 0, so that a mean below 0.02 means texts that are hardly
    answers, and one above 0.9 texts that are all but the reference.
    """

    enabled: bool = Field(False, description="Whether GRPO trains on the filtered prompts instead of the whole training split.")
    samples: int = Field(
        4, ge=2, description="Completions sampled for each prompt; grpo.num_generations would measure GRPO's very groups."
    )
    min_reward: float = Field(
        0.02, ge=0, le=1, description="Smallest mean reward of a prompt's samples, 0 to 1; below it the prompt is too hard."
    )
    max_reward: float = Field(
        0.9, ge=0, le=1, description="Largest mean reward of a prompt's samples, 0 to 1; above it the prompt is too easy."
    )
    min_spread: float = Field(
        0.005,
        ge=0,
        le=0.5,
        description="Smallest standard deviation of a prompt's rewards, 0 to 0.5; below it the samples are as good as equal. "
        "GRPO divides by this deviation (scale_rewards: group), which would blow such differences up to full size.",
    )
    temperature: float = Field(1.0, gt=0, description="Sampling temperature; that of grpo samples what GRPO will sample.")
    max_completion_length: int = Field(256, ge=1, description="Longest completion in tokens; better that of grpo.")
    engine: Literal["transformers", "vllm"] = Field(
        "transformers", description="The engine that samples; vllm needs the environment envs/train_vllm.yaml."
    )
    batch_size: int = Field(
        16, ge=1, description="Prompts sampled at once, each `samples` times; read by transformers, vllm batches by itself."
    )
    gpu_memory_utilization: float = Field(
        0.9, gt=0, lt=1, description="Share of the GPU's memory that vllm takes; not read on a processor."
    )
    precision: Precision = Field("auto", description="Number format of the weights while sampling.")
    seed: int = Field(0, ge=0, description="Seed of the sampling.")

    def unread(self) -> set[str]:
        return {"batch_size"} if self.engine == "vllm" else {"gpu_memory_utilization"}

    @model_validator(mode="after")
    def _range_is_not_empty(self) -> Self:
        if self.min_reward >= self.max_reward:
            raise ValueError(f"min_reward ({self.min_reward:g}) must be less than max_reward ({self.max_reward:g})")
        return self
