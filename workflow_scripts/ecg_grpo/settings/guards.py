"""`grpo.guards:` when a GRPO run is stopped early.

"Axolotl's guide" is its page "Training Stability & Debugging" (docs/training_stability.qmd in the repository
axolotl-ai-cloud/axolotl), which gives healthy ranges and red flags for the metrics that TRL's GRPO trainer logs. Every
field says whether its default is from there, measured, or ours.
"""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from ecg_grpo.settings.section import Section

_NULL = "null switches the guard off."


class GuardSettings(Section):
    """Section `grpo.guards`. A maximum is reached by a value at or above it, a minimum by one at or below it."""

    patience: int = Field(
        5,
        ge=1,
        description="So many steps in a row must reach a threshold before the run stops; a step at which the metric was "
        "not measured neither counts nor interrupts. Ours: one bad batch is noise. Weights out of sync stop a run after "
        "two steps, a loss, gradient norm or reward that is no finite number at once.",
    )
    max_sampling_logp_difference: float | None = Field(
        0.1,
        gt=0,
        allow_inf_nan=False,
        description="Weights out of sync: sampling/sampling_logp_difference/mean, the mean of |log p(trainer) - "
        "log p(sampler)| over the sampled tokens, in nats; only vLLM rollouts have it. Healthy in Axolotl's guide: < 0.1. "
        "Measured with this workflow: about 0.001 in sync, 0.27 to 0.45 by step 2 without synchronisation. " + _NULL,
    )
    max_clipped_ratio: float | None = Field(
        1.0,
        gt=0,
        le=1,
        description="Truncation: completions/clipped_ratio, the share of completions that hit max_completion_length. "
        "Healthy in Axolotl's guide: < 0.3, which is a warning here; its red flag is > 0.8. Ours is 1, no completion "
        "that ends by itself, since a lower share can still be learnt from. " + _NULL,
    )
    max_frac_reward_zero_std: float | None = Field(
        1.0,
        gt=0,
        le=1,
        description="No learning signal: frac_reward_zero_std, the share of prompts whose completions all have the same "
        "reward and so no advantage. Healthy in Axolotl's guide: < 0.8, which is a warning here; its red flag is 1 on "
        "every step. With one or two prompts a step take more patience. " + _NULL,
    )
    min_length_ratio: float | None = Field(
        0.3,
        gt=0,
        lt=1,
        description="Length collapse: completions/mean_length (tokens) as a multiple of the SFT model's own, which is "
        "the validation's at step 0 or else that of step 1, sampled before the first update. Ours: no published figure "
        "found. " + _NULL,
    )
    max_length_ratio: float | None = Field(
        3.0,
        gt=1,
        allow_inf_nan=False,
        description="Length explosion: the same multiple of the SFT model's own mean length. Ours: no published figure "
        "found (Axolotl's guide calls a growth up to the limit reward hacking). Out of reach if max_completion_length is "
        "less than so many SFT answers: then max_clipped_ratio sees it. " + _NULL,
    )
    max_kl: float | None = Field(
        2.0,
        gt=0,
        allow_inf_nan=False,
        description="Drift: kl, the estimated divergence from the SFT model in nats per token; only logged with beta > 0. "
        "Healthy in Axolotl's guide: 0 to 0.5, above which is a warning here; its red flag is > 2. " + _NULL,
    )
    min_entropy: float | None = Field(
        0.05,
        gt=0,
        allow_inf_nan=False,
        description="Entropy collapse: entropy of the sampling distribution in nats per token. Healthy in Axolotl's "
        "guide: 0.05 to 0.5, and < 0.01 is mode collapse. Ours is the healthy range's lower end, since GRPO has nothing "
        "to compare in a group of near-equal completions. " + _NULL,
    )
    max_entropy: float | None = Field(
        6.0,
        gt=0,
        allow_inf_nan=False,
        description="Entropy explosion: the same entropy, in nats per token. Ours: e^6 is about 400 equally likely tokens, "
        "and 6 about half of ln(vocabulary), 11.9 for 151,936 tokens, which is what noise has. Answers in free text have "
        "1 to 3, the demo's small model 3.5 to 3.9; Axolotl's range up to 0.5 does not fit free text. " + _NULL,
    )

    @model_validator(mode="after")
    def _entropy_has_a_range(self) -> Self:
        # The length ratios need no such check: one is below 1 and the other above.
        if self.min_entropy is not None and self.max_entropy is not None and self.min_entropy >= self.max_entropy:
            raise ValueError(
                f"min_entropy ({self.min_entropy:g}) must be less than max_entropy ({self.max_entropy:g}): every value "
                "would stop the run"
            )
        return self
