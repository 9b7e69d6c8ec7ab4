"""What a run must reach: requirements such as `grpo.rouge_l >= sft.rouge_l - 0.01`, judged by intervals."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_NUMBER = r"\d+(?:\.\d+)?|\.\d+"
_TERM = r"(?P<{0}>[a-z][a-z0-9_-]*)\.(?P<{0}_metric>[a-z0-9_]+)"
_FORM = re.compile(
    rf"\s*{_TERM.format('left')}\s*(?P<relation>>=|≥|<=|≤)\s*"
    rf"(?:{_TERM.format('right')}(?:\s*(?P<sign>[-−+])\s*(?P<margin>{_NUMBER}))?|(?P<number>[-−]?(?:{_NUMBER})))\s*"
)


@dataclass(frozen=True)
class Requirement:
    """One condition.

    Attributes:
        text: as it stands in the configuration.
        system, metric: what is judged.
        other: system that it is compared with; None for a fixed number.
        at_least: whether it must not fall below, or not rise above, the bound.
        bound: number that the metric, or its difference from the other system's, is held against.
    """

    text: str
    system: str
    metric: str
    other: str | None
    at_least: bool
    bound: float


def parse_requirement(text: str) -> Requirement:
    """Reads `system.metric >= system.metric - 0.01`, `system.metric <= 0.2` and their like.

    Raises:
        ValueError: another form, or two different metrics.
    """
    found = _FORM.fullmatch(text)
    if not found:
        raise ValueError(f"`{text}` is not of the form `grpo.rouge_l >= sft.rouge_l - 0.01` or `grpo.truncated <= 0.05`")
    if found["right"] and found["right_metric"] != found["left_metric"]:
        raise ValueError(f"`{text}` compares two different metrics")
    if found["right"] == found["left"]:
        raise ValueError(f"`{text}` compares {found['left']} with itself")
    if found["right"]:
        bound = float(found["margin"] or 0) * (1 if found["sign"] == "+" else -1)
    else:
        bound = float(found["number"].replace("−", "-"))
    at_least = found["relation"] in {">=", "≥"}
    return Requirement(text.strip(), found["left"], found["left_metric"], found["right"], at_least, bound + 0.0)


NOT_MEASURED = {"mean": None}
"""The estimate of a score that no stage of this run computes."""


def judge(requirement: Requirement, comparison: Mapping[str, Any]) -> dict[str, Any]:
    """Whether a comparison meets a requirement: the whole interval must lie on the right side of the bound.

    Returns:
        `text`, `is_difference`, `met`, and the `mean`, `low` and `high` that decided; these are None, and it is not met,
        where nothing was measured.
    """
    if requirement.other is None:
        estimate = comparison["systems"][requirement.system].get(requirement.metric, NOT_MEASURED)
        turned = 1
    else:
        pairs = {
            (entry["system"], entry["other"]): entry
            for entry in comparison["differences"]
            if entry["metric"] == requirement.metric
        }
        turned = 1 if (requirement.system, requirement.other) in pairs else -1
        estimate = pairs.get((requirement.system, requirement.other)[::turned], NOT_MEASURED)
    judged = {"text": requirement.text, "is_difference": requirement.other is not None}
    if estimate["mean"] is None:
        return judged | {"met": False, "mean": None, "low": None, "high": None}
    low, high = sorted((turned * estimate["low"], turned * estimate["high"]))
    met = low >= requirement.bound if requirement.at_least else high <= requirement.bound
    return judged | {"met": bool(met), "mean": turned * estimate["mean"], "low": low, "high": high}
