"""`report:` what the page shows."""

from __future__ import annotations

from pydantic import Field

from ecg_grpo.settings.section import Section


class ReportSettings(Section):
    """Section `report`."""

    title: str = Field("ECG question answering: base, SFT and GRPO", description="Heading of the page.")
    max_answers: int = Field(
        10_000, ge=1, description="Records whose answers can be browsed; of a larger split some are taken evenly."
    )
    max_rollouts: int = Field(
        1000, ge=0, description="Sampled GRPO completions that can be browsed: whole steps, evenly over the run."
    )
    max_megabytes: float = Field(15, gt=0, description="Largest page; if it would be larger, fewer records are shown.")
