"""The whole configuration, as the Snakefile reads it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Self

import yaml
from pydantic import Field, ValidationError, model_validator

from ecg_grpo.errors import InputError
from ecg_grpo.prompts import TAGS
from ecg_grpo.settings.base_model import BaseModelSettings
from ecg_grpo.settings.bootstrap_reasoning import BootstrapSettings
from ecg_grpo.settings.data import DataSettings
from ecg_grpo.settings.difficulty_filter import DifficultyFilterSettings
from ecg_grpo.settings.evaluation import EvaluationSettings
from ecg_grpo.settings.grpo import GRPOSettings
from ecg_grpo.settings.merge import MergeSettings
from ecg_grpo.settings.raw_data import RawDataSettings
from ecg_grpo.settings.report import ReportSettings
from ecg_grpo.settings.resources import ResourceSettings
from ecg_grpo.settings.reward import RewardInUse, RewardSettings
from ecg_grpo.settings.reward_audit import RewardAuditSettings
from ecg_grpo.settings.reward_model import RewardModelSettings
from ecg_grpo.settings.section import Section, explain
from ecg_grpo.settings.sft import SFTSettings


class Settings(Section):
    """The configuration file."""

    run: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="Results go to `results/<run>/`.")
    reasoning: bool = Field(
        False,
        strict=True,
        description="`on`: models learn to reason in `<think>…</think>` before they answer; `off`: they answer at once.",
    )
    base_model: BaseModelSettings = Field(description="The model that everything starts from.")
    raw_data: RawDataSettings = Field(
        default_factory=RawDataSettings, description="Where ECG-Expert-QA is fetched from if `data.raw_dir` is null."
    )
    data: DataSettings = Field(default_factory=DataSettings, description="Raw files, splits, lengths.")
    bootstrap_reasoning: BootstrapSettings = Field(
        default_factory=BootstrapSettings, description="Where the first reasonings come from; read only with `reasoning: on`."
    )
    sft: SFTSettings = Field(default_factory=SFTSettings, description="Supervised fine-tuning.")
    merge: MergeSettings = Field(default_factory=MergeSettings, description="Adapter and base become one model.")
    reward: RewardSettings = Field(default_factory=RewardSettings, description="What GRPO pays for.")
    reward_audit: RewardAuditSettings = Field(
        default_factory=RewardAuditSettings, description="How the reward is attacked before it is trained on."
    )
    difficulty_filter: DifficultyFilterSettings = Field(
        default_factory=DifficultyFilterSettings, description="Which training prompts GRPO leaves out."
    )
    reward_model: RewardModelSettings = Field(
        default_factory=RewardModelSettings, description="A model that tells right answers from wrong ones."
    )
    grpo: GRPOSettings = Field(default_factory=GRPOSettings, description="Reinforcement learning.")
    evaluation: EvaluationSettings = Field(default_factory=EvaluationSettings, description="Answers and comparison.")
    report: ReportSettings = Field(default_factory=ReportSettings, description="The page at the end.")
    resources: dict[str, ResourceSettings] = Field(
        default_factory=dict,
        description="What jobs of a rule need, by the rule's name, where it is not what suits the demo. A change runs nothing "
        "again.",
    )
    container: str | None = Field(
        None,
        description="An image with all conda environments, made from `envs/Dockerfile`: a file (`.sif`) or an address "
        "(`docker://…`). Used with `--sdm conda apptainer` (docs/cluster.md).",
    )
    sweep: dict[str, list[Any]] = Field(
        default_factory=dict,
        description="Dotted keys and the values that each is to have: every combination becomes a run (docs/sweeps.md).",
    )

    def resources_of(self, rule: str) -> dict[str, int]:
        """What the configuration says of a rule's needs; nothing, if it does not name the rule."""
        return self.resources[rule].model_dump(exclude_none=True) if rule in self.resources else {}

    def trains_reward_model(self) -> bool:
        """Whether a run to the report needs the reward model: for itself, or as a part of the reward."""
        return self.reward_model.enabled or self.reward.needs_reward_model()

    @model_validator(mode="after")
    def _nothing_is_truncated(self) -> Self:
        longest = learned = self.data.max_prompt_tokens + self.data.max_answer_tokens
        terms = "data.max_prompt_tokens + data.max_answer_tokens"
        if self.reasoning:
            # A tokenizer gives a tag's characters a token each at most.
            learned += self.bootstrap_reasoning.generation.max_new_tokens + len(TAGS)
            terms += f" + bootstrap_reasoning.generation.max_new_tokens + {len(TAGS)} for the tags"
        if learned > self.sft.max_length:
            raise ValueError(
                f"{terms} is {learned}, more than sft.max_length ({self.sft.max_length}): training would cut such records "
                "silently"
            )
        sampled = self.reward_model.samples.generation.max_new_tokens if self.reward_model.pairs.needs_samples() else 0
        longest = self.data.max_prompt_tokens + max(2 * self.data.max_answer_tokens, sampled)
        if self.trains_reward_model() and longest > self.reward_model.training.max_length:
            raise ValueError(
                f"data.max_prompt_tokens + 2 x data.max_answer_tokens, or reward_model.samples.generation.max_new_tokens, is "
                f"{longest}, more than reward_model.training.max_length ({self.reward_model.training.max_length}): some wrong "
                "answers are twice as long as the right one"
            )
        return self

    @model_validator(mode="after")
    def _the_best_checkpoint_is_not_the_best_gamed(self) -> Self:
        validation = self.grpo.validation
        if validation is not None and validation.metric in self.reward.trained_on():
            raise ValueError(
                f"grpo.validation.metric {validation.metric} is part of the reward, which rises when the reward is gamed; "
                "choose a metric that is not trained on"
            )
        return self

    @model_validator(mode="after")
    def _what_is_rewarded_is_there(self) -> Self:
        if self.reward.needs_policy() and not self.reasoning:
            raise ValueError(
                "reward: reference_probability is what a reasoning adds to that of the reference: set `reasoning: on`, or take "
                "it out with null"
            )
        return self

    @model_validator(mode="after")
    def _a_training_sees_a_gpu_for_each_process(self) -> Self:
        taken = {
            "train_sft": self.sft.launch.processes,
            "train_reward_model": self.reward_model.training.launch.processes,
            "train_grpo": self.grpo.gpus * self.grpo.launch.machines,
        }
        for rule, gpus in taken.items():
            if (asked := self.resources_of(rule).get("gpu", 0)) and asked != gpus:
                raise ValueError(
                    f"resources.{rule}.gpu is {asked}, but the training takes {gpus}: one for each of launch.processes, and "
                    "those of a vLLM server of its own; set them equal"
                )
        return self

    @property
    def system_prompt(self) -> str:
        """The text file with the system prompt of every stage."""
        return self.data.reasoning_system_prompt if self.reasoning else self.data.system_prompt

    def named_files(self) -> list[tuple[str, str]]:
        """Every single file that the run reads because the configuration names it, with the key that does."""
        prompt = "reasoning_system_prompt" if self.reasoning else "system_prompt"
        launches = {
            "sft": self.sft.launch,
            "reward_model.training": self.reward_model.training.launch,
            "grpo": self.grpo.launch,
        }
        return [
            (f"data.{prompt}", self.system_prompt),
            *[("base_model.chat_template", file) for file in [self.base_model.chat_template] if file],
            *[(f"{section}.launch.deepspeed", file) for section, launch in launches.items() for file in launch.files()],
            *[("evaluation.ratings", file) for file in self.evaluation.ratings],
        ]

    @property
    def reward_in_use(self) -> RewardInUse:
        """What GRPO pays for, as the stages that compute it are given it."""
        return RewardInUse(**self.reward.model_dump(), reasoning=self.reasoning)


@cache
def refuse_repeated_keys(file: str) -> None:
    """Refuses a configuration file in which a mapping has a key twice: YAML would take the last one and say nothing.

    Raises:
        InputError: names the file, the key and both lines.
    """
    try:
        _refuse_repeated_keys(file, yaml.compose(Path(file).read_text(encoding="utf-8")), "")
    except yaml.YAMLError:  # JSON with tabs, which Snakemake has read
        return


def _refuse_repeated_keys(file: str, node: yaml.Node | None, section: str) -> None:
    if isinstance(node, yaml.SequenceNode):
        for entry in node.value:
            _refuse_repeated_keys(file, entry, section)
    if not isinstance(node, yaml.MappingNode):
        return
    lines: dict[str, int] = {}
    for name, value in node.value:
        key, line = f"{section}{name.value}", name.start_mark.line + 1
        if key in lines:
            what = f"the key is in line {lines[key]} and again in line {line}, which would replace it"
            raise InputError(f"{file}: {key}", what, "Make one of the two.")
        lines[key] = line
        _refuse_repeated_keys(file, value, f"{key}.")


def load_settings(configuration: Mapping[str, Any], files: list[str]) -> Settings:
    """The validated configuration.

    Args:
        configuration: what Snakemake merged from the configuration files.
        files: those files' names, for the message.

    Raises:
        InputError: one message that names every wrong key.
    """
    try:
        return Settings.model_validate(dict(configuration))
    except ValidationError as error:
        raise InputError(
            " + ".join(files), explain(error), "config/config.schema.json describes every key; mend the file."
        ) from None
