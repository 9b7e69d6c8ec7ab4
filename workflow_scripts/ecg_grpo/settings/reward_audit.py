"""`reward_audit:` how the reward is attacked before GRPO trains on it, and when the pipeline stops there."""

from __future__ import annotations

from pydantic import Field

from ecg_grpo.settings.generation import GenerationSettings, SamplingSettings
from ecg_grpo.settings.section import Section


class AuditSettings(Section):
    """Section `reward_audit`, apart from what the SFT model is asked."""

    max_beating_reference: float = Field(
        0.05,
        ge=0,
        le=1,
        description="Share of the records in which an attack may earn at least as much as the reference answer.",
    )
    max_beating_paraphrase: float = Field(
        0.15,
        ge=0,
        le=1,
        description="Share of the records in which a blind attack may earn at least as much as the reference in other words.",
    )
    max_beating_samples: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Share of the records in which a blind attack may earn at least as much as the SFT model's samples do on "
        "average; null only reports it. A weak model earns so little that many attacks pass it.",
    )
    confidence: float = Field(0.95, gt=0, lt=1, description="Confidence level of the intervals.")
    resamples: int = Field(2000, ge=100, description="Bootstrap resamples of the near-duplicate groups.")
    seed: int = Field(0, ge=0, description="Seed of the resampling.")


class RewardAuditSettings(Section):
    """Section `reward_audit`."""

    audit: AuditSettings = Field(default_factory=AuditSettings, description="What is computed, and when the pipeline stops.")
    sampling: SamplingSettings = Field(
        default_factory=lambda: SamplingSettings(samples=4),
        description="Completions of the SFT model to every question of the validation split.",
    )
    generation: GenerationSettings = Field(default_factory=GenerationSettings, description="How the SFT model answers.")
