"""`evaluation:` how answers are generated, scored and compared."""

from __future__ import annotations

from typing import Annotated, Literal, Self, get_args

from pydantic import Discriminator, Field, StringConstraints, Tag, model_validator

from ecg_grpo.requirements import Requirement, parse_requirement
from ecg_grpo.settings.endpoint import EndpointSettings
from ecg_grpo.settings.generation import GenerationSettings, SamplingSettings
from ecg_grpo.settings.judge import JudgeSettings
from ecg_grpo.settings.scoring import ComparisonSettings, MeaningSettings, ReferenceLossSettings
from ecg_grpo.settings.section import Section

ScoreName = Literal[
    "rouge_l", "rouge_1", "rouge_2", "bleu_1", "bleu_4", "meteor", "chrf", "token_f1", "exact_match",
    "concept_f1", "polarity", "numbers", "words", "length_ratio", "truncated", "empty", "malformed", "copied",
    "embedding", "bertscore", "judge_accuracy", "judge_completeness", "judge_clarity", "rating", "reference_loss",
    "reasoning_words", "reasoned",
]  # fmt: skip
"""What can be measured of an answer: `metrics.METRICS`, `further_scores.FURTHER_SCORES` and five shares; a test holds it."""

SystemName = Literal["echo", "constant", "nearest", "base", "sft", "grpo"]
"""What answers the questions: three systems without a model, and the three models."""


ModelName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,30}$")]

OtherModel = Annotated[
    Annotated[str, Tag("directory")] | Annotated[EndpointSettings, Tag("endpoint")],
    # Without it a wrong key of an endpoint would be reported as a directory that is no text, too.
    Discriminator(lambda value: "directory" if isinstance(value, str) else "endpoint"),
]
"""A model directory, or a model that a server answers for."""


class EvaluationSettings(Section):
    """Section `evaluation`."""

    split: Literal["test", "validation", "train"] = Field(
        "test",
        description="The questions that are answered. Claims are made on `test`; the others show what was learned by heart.",
    )

    generation: GenerationSettings = Field(
        default_factory=GenerationSettings, description="How the models answer the test questions."
    )
    sampling: SamplingSettings | None = Field(
        None, description="Answers that are drawn instead of greedy ones, beside these, to see what a seed decides; null: none."
    )
    comparison: ComparisonSettings = Field(default_factory=ComparisonSettings, description="How the systems are compared.")
    meaning: MeaningSettings | None = Field(
        default_factory=MeaningSettings,
        description="Likeness of meaning beside likeness of words; null leaves it out.",
    )
    reference_loss: ReferenceLossSettings | None = Field(
        default_factory=ReferenceLossSettings,
        description="How likely the models find the reference answers; null leaves it out.",
    )
    models: dict[ModelName, OtherModel] = Field(
        {},
        description="Other models to compare: a name, and a Hugging Face model directory with safetensors and tokenizer, or "
        "the section of an OpenAI-compatible endpoint.",
    )
    judge: JudgeSettings | None = Field(None, description="A language model that judges the answers; null: none does.")
    ratings: list[str] = Field(
        [], description="CSV files with people's ratings, exported from the report's page; several files are several people."
    )
    require: list[str] = Field(
        [],
        description="What the run must reach, or the workflow fails after the report: `grpo.rouge_l >= sft.rouge_l - 0.01` or "
        "`grpo.truncated <= 0.05`. The whole interval must lie on the right side.",
    )

    @model_validator(mode="after")
    def _names_are_free(self) -> Self:
        taken = sorted(self.models.keys() & {*get_args(SystemName), "reference", "second_references"})
        if taken:
            raise ValueError(f"models: {', '.join(taken)} is a name of the workflow's own; choose another")
        return self

    @model_validator(mode="after")
    def _pairs_are_systems(self) -> Self:
        systems = (*get_args(SystemName), *self.models)
        for system in (system for pair in (self.judge and self.judge.pairs) or [] for system in pair):
            if system not in systems:
                raise ValueError(f"judge.pairs: {system} is none of {', '.join(systems)}")
        return self

    @model_validator(mode="after")
    def _requirements_can_be_judged(self) -> Self:
        systems = (*get_args(SystemName), *self.models)
        for requirement in self.requirements():
            if requirement.metric not in get_args(ScoreName):
                raise ValueError(f"require: `{requirement.text}` names no score; there are {', '.join(get_args(ScoreName))}")
            for system in (requirement.system, requirement.other):
                if system is not None and system not in systems:
                    raise ValueError(f"require: `{requirement.text}`: {system} is none of {', '.join(systems)}")
            for section, measured in (
                ("meaning", ("embedding", "bertscore")),
                ("reference_loss", ("reference_loss",)),
                ("judge", ("judge_accuracy", "judge_completeness", "judge_clarity")),
                ("ratings", ("rating",)),
            ):
                if requirement.metric in measured and not getattr(self, section):
                    raise ValueError(f"require: `{requirement.text}`: without evaluation.{section} nothing measures it")
        return self

    def model_directories(self) -> dict[str, str]:
        """The other models that are directories, by name."""
        return {name: model for name, model in self.models.items() if isinstance(model, str)}

    def endpoints(self) -> dict[str, EndpointSettings]:
        """The other models that a server answers for, by name."""
        return {name: model for name, model in self.models.items() if not isinstance(model, str)}

    def requirements(self) -> list[Requirement]:
        """The requirements, read.

        Raises:
            ValueError: one is not of the form.
        """
        return [parse_requirement(text) for text in self.require]
