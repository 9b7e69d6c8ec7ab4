"""`merge:` how an adapter and its base become one model."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ecg_grpo.settings.section import Section


class MergeSettings(Section):
    """Section `merge`."""

    dtype: Literal["float32", "bfloat16"] = Field(
        "bfloat16",
        description="Number format of the merged weights on disk; the merge itself is in float32. A merge whose rounding "
        "outweighs the training is refused.",
    )
    tolerance: float = Field(
        1e-3,
        gt=0,
        description="Largest accepted difference between the merged model and base + adapter: mean absolute logit "
        "difference divided by the mean absolute logit, in float32, before rounding to `dtype`.",
    )
