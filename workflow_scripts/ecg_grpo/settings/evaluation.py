"""`evaluation:` how answers are generated, scored and compared."""

from __future__ import annotations

from pydantic import Field

from ecg_grpo.settings.section import Precision, Section


class GenerationSettings(Section):
    """Section `evaluation.generation`: greedy answers of every model to every question of the test split."""

    max_new_tokens: int = Field(256, ge=1, description="Longest answer in tokens; longer ones count as truncated.")
    batch_size: int = Field(32, ge=1, description="Prompts answered at once.")
    precision: Precision = Field("auto", description="Number format of the weights while answering.")


class ComparisonSettings(Section):
    """Section `evaluation.comparison`: intervals of the means and of the paired differences."""

    confidence: float = Field(0.95, gt=0, lt=1, description="Confidence level of every interval.")
    resamples: int = Field(2000, ge=100, description="Bootstrap resamples of the near-duplicate groups.")
    seed: int = Field(0, ge=0, description="Seed of the resampling.")


class EvaluationSettings(Section):
    """Section `evaluation`."""

    generation: GenerationSettings = Field(
        default_factory=GenerationSettings, description="How the models answer the test questions."
    )
    comparison: ComparisonSettings = Field(default_factory=ComparisonSettings, description="How the systems are compared.")
