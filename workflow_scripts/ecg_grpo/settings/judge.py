"""`evaluation.judge:` a language model that judges answers."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from ecg_grpo.settings.endpoint import EndpointSettings
from ecg_grpo.settings.section import Section


class RubricSettings(Section):
    """Section `evaluation.judge.rubric`: what each criterion means; every one is graded from 1 to 5."""

    accuracy: str = Field(
        "Is what the answer says medically correct, and does it agree with the reference answer? 5: no error. 3: the main "
        "statement is right, a detail is wrong. 1: the main statement is wrong, or following it would harm a patient.",
        min_length=1,
        description="Definition of accuracy.",
    )
    completeness: str = Field(
        "Does the answer say what the reference answer says that matters for the question? 5: every point. 3: about half. "
        "1: none. Correct additions neither gain nor lose anything.",
        min_length=1,
        description="Definition of completeness.",
    )
    clarity: str = Field(
        "Can a clinician read the answer once and understand it? 5: direct, precise terms, no word too many. 3: understandable "
        "but wordy, repetitive or vague. 1: incoherent, cut off before its point, or no answer to the question. Length is no "
        "merit.",
        min_length=1,
        description="Definition of clarity.",
    )


class JudgeSettings(Section):
    """Section `evaluation.judge`: grades by a rubric, and pairs of answers in both orders."""

    endpoint: EndpointSettings = Field(description="The model that judges.")
    rubric: RubricSettings = Field(default_factory=RubricSettings, description="What each of the three criteria means.")
    pairs: list[tuple[str, str]] | None = Field(
        None, description="Pairs of systems whose answers are held against each other; null: every pair of models."
    )
    max_records: int = Field(
        200, ge=1, description="Records of the split that are judged, sampled evenly; the same ones for every system."
    )
    max_new_tokens: int = Field(
        512, ge=1, description="Longest reply of the judge in tokens; one that is cut off counts as unreadable."
    )

    @model_validator(mode="after")
    def _each_pair_once(self) -> Self:
        pairs = [frozenset(pair) for pair in self.pairs or []]
        if any(len(pair) == 1 for pair in pairs):
            raise ValueError("pairs: a system cannot be held against itself")
        if len(set(pairs)) < len(pairs):
            raise ValueError("pairs: one is named twice; both orders are asked anyway")
        return self
