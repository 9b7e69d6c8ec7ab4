"""`bootstrap_reasoning:` the first reasonings to learn from, which ECG-Expert-QA does not have."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from ecg_grpo.settings.generation import GenerationSettings, SamplingSettings
from ecg_grpo.settings.section import Section


class ReasoningFilterSettings(Section):
    """Section `bootstrap_reasoning.filter`: which of the sampled reasonings are kept; `ecg_grpo.reasoning` says why.

    The bounds on what is said of the answer were set on the sample data: they refuse every reference in other words and let
    94 % of the answers to the nearest other question pass (docs/reasoning.md).
    """

    min_words: int = Field(12, ge=1, description="Fewest words of a reasoning.")
    max_words: int = Field(120, ge=1, description="Most words of a reasoning.")
    max_repetition: float = Field(
        0.2, ge=0, le=1, description="Largest share of its three-word sequences that may repeat an earlier one, 0 to 1."
    )
    max_echoed_share: float = Field(
        0.7, ge=0, le=1, description="Largest share of its clinical concepts that the question may have already, 0 to 1."
    )
    max_quoted_words: int = Field(
        4, ge=1, description="Longest run of the reference's words that it may have and the question has not."
    )
    max_named_share: float = Field(
        0.4,
        ge=0,
        le=1,
        description="Largest share of the reference's clinical concepts, of those that the question has not, that it may have.",
    )
    min_gain: float = Field(
        0.0,
        allow_inf_nan=False,
        description="A reasoning must raise the mean log-probability of the reference's tokens by more than this, in nats, "
        "against no reasoning, against words that say nothing, and against another record's.",
    )

    @model_validator(mode="after")
    def _lengths_have_a_range(self) -> Self:
        if self.min_words > self.max_words:
            raise ValueError(f"min_words ({self.min_words}) must not be more than max_words ({self.max_words})")
        return self


class ScoringSettings(Section):
    """Section `bootstrap_reasoning.scoring`: how the probability of the references is computed."""

    batch_size: int = Field(32, ge=1, description="Texts scored at once.")


class BootstrapSettings(Section):
    """Section `bootstrap_reasoning`; read only with `reasoning: on`."""

    model: str | None = Field(
        None, description="Directory of a local model that writes and judges the reasonings; null: the run's base model."
    )
    max_records: int | None = Field(
        None, ge=1, description="Most records of a split that are asked about, spread evenly over it; null: all."
    )
    sampling: SamplingSettings = Field(
        default_factory=lambda: SamplingSettings(samples=4, temperature=0.8),
        description="Reasonings drawn for each record, of which at most the best is kept.",
    )
    generation: GenerationSettings = Field(
        default_factory=GenerationSettings, description="How the model writes; a reasoning that is cut off is refused."
    )
    filter: ReasoningFilterSettings = Field(default_factory=ReasoningFilterSettings, description="Which ones are kept.")
    scoring: ScoringSettings = Field(default_factory=ScoringSettings, description="How the references are scored.")
