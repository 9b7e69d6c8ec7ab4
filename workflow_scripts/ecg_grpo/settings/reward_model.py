"""`reward_model:` a model that tells right answers from wrong ones, trained on pairs made from the references."""

from __future__ import annotations

import math
from typing import Literal, Self, get_args

from pydantic import Field, model_validator

from ecg_grpo.settings.generation import GenerationSettings, SamplingSettings
from ecg_grpo.settings.section import Section
from ecg_grpo.settings.training import TrainingSettings

NegativeKind = Literal[
    "polarity",
    "numbers",
    "direction",
    "side",
    "lead",
    "drug",
    "disease",
    "other_answer",
    "echo",
    "fragment",
    "fluent_nonsense",
    "repetition",
    "sft_sample",
]
"""Kinds of wrong answers; `ecg_grpo.preference_pairs` says what each is."""


class PairSettings(Section):
    """Which pairs of a better and a worse answer are made of a record."""

    kinds: list[NegativeKind] = Field(
        list(get_args(NegativeKind)), min_length=1, description="Kinds of wrong answers that may be made."
    )
    max_negatives: int = Field(
        6,
        ge=1,
        description="Most pairs of one training record. Kinds that few records allow are drawn first. Held-out pairs are of "
        "every kind that applies.",
    )
    paraphrase_share: float = Field(
        0.3,
        ge=0,
        le=1,
        description="Share of the pairs whose better answer is a paraphrase of the reference, and of the changed answers that "
        "are made from one; without it the reference's wording alone would tell.",
    )
    fragment_words: int = Field(4, ge=1, description="Words of a fragment; only answers of twice as many words are cut.")
    max_sample_reward: float = Field(
        0.5,
        ge=0,
        le=1,
        description="A completion of the SFT model counts as wrong up to this likeness to the reference, 0 to 1; the reference "
        "has 1.",
    )
    seed: int = Field(0, ge=0, description="Seed of all that is drawn.")

    @model_validator(mode="after")
    def _no_kind_twice(self) -> Self:
        if len(set(self.kinds)) != len(self.kinds):
            raise ValueError("kinds names one kind twice")
        return self

    def needs_samples(self) -> bool:
        """Whether the SFT model is asked for wrong answers."""
        return "sft_sample" in self.kinds


class SampledAnswersSettings(Section):
    """Section `reward_model.samples`."""

    questions: int = Field(256, ge=1, description="Most questions of each split that are answered, spread evenly over it.")
    sampling: SamplingSettings = Field(
        default_factory=lambda: SamplingSettings(samples=2), description="How its completions are drawn."
    )
    generation: GenerationSettings = Field(default_factory=GenerationSettings, description="How they are computed.")


class RewardTrainingSettings(TrainingSettings):
    """How the reward model is trained; names and meanings are those of TRL's RewardConfig."""

    NOT_THE_TRAINERS = TrainingSettings.NOT_THE_TRAINERS | {"evaluations", "validation_pairs"}

    max_steps: int = Field(-1, ge=-1, description="Optimizer steps; -1 leaves it to num_train_epochs.")
    learning_rate: float = Field(1e-4, gt=0, description="Peak learning rate of AdamW.")
    max_length: int = Field(
        2048, ge=2, description="Longest text in tokens, prompt and answer together; a longer one is refused, never left out."
    )
    center_rewards_coefficient: float | None = Field(
        0.01,
        gt=0,
        description="Weight of the term that keeps scores around 0 (Eisenstein et al. 2023, arXiv 2312.09244, eq. 2), where "
        "their sigmoid tells most; null for none.",
    )
    train_sampling_strategy: Literal["group_by_length", "random"] = Field(
        "group_by_length", description="Pairs of like length share a batch, which saves padding; or any order."
    )
    evaluations: int = Field(
        2, ge=1, description="How often the held-out pairs are judged, besides once before the first step."
    )
    validation_pairs: int = Field(
        256, ge=1, description="Most held-out pairs that are judged while training, spread evenly; all are judged afterwards."
    )

    def steps(self, pairs: int) -> int:
        """Optimizer steps for so many training pairs; the last step of an epoch may be smaller."""
        if self.max_steps > 0:
            return self.max_steps
        batches = math.ceil(pairs / (self.per_device_train_batch_size * self.launch.processes))
        return math.ceil(self.num_train_epochs * math.ceil(batches / self.gradient_accumulation_steps))

    @model_validator(mode="after")
    def _some_step(self) -> Self:
        if self.max_steps == 0:
            raise ValueError("max_steps must be -1 or at least 1")
        return self


class RewardModelSettings(Section):
    """Section `reward_model`."""

    enabled: bool = Field(
        False,
        description="Whether the reward model is trained along with the report. As a part of the reward it is anyway.",
    )
    pairs: PairSettings = Field(default_factory=PairSettings, description="What it is trained and judged on.")
    samples: SampledAnswersSettings = Field(
        default_factory=SampledAnswersSettings, description="Completions of the SFT model, where pairs.kinds has `sft_sample`."
    )
    training: RewardTrainingSettings = Field(default_factory=RewardTrainingSettings, description="How it is trained.")
