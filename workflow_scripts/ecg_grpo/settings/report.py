"""`report:` what the page shows."""

from __future__ import annotations

from pydantic import Field

from ecg_grpo.settings.section import Section


class ReportSettings(Section):
    """Section `report`."""

    title: str = Field("ECG question answering: base, SFT and GRPO", description="Heading of the page.")
    max_answers: int = Field(
        200, ge=1, description="Test records whose answers are shown; a larger test split is sampled evenly."
    )
    max_rollouts: int = Field(60, ge=0, description="Sampled GRPO completions that are shown, evenly over the run.")
