"""`resources:` what jobs of a rule ask of the machine or the cluster."""

from __future__ import annotations

from pydantic import Field

from ecg_grpo.settings.section import Section


class ResourceSettings(Section):
    """An entry of section `resources`; what is null stays as the rule has it."""

    mem_mb: int | None = Field(
        None,
        ge=1,
        description="Main memory in MB; a second attempt gets twice as much, a third three times, as far as a partition goes.",
    )
    runtime: int | None = Field(None, ge=1, description="Minutes; grows with the attempts as well.")
    gpu: int | None = Field(None, ge=0, description="GPUs for the job alone.")
