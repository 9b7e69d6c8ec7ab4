"""The configuration: typos and impossible values are refused with their key; the files in the repository are valid."""

from __future__ import annotations

import re
from typing import get_args

import pytest
import yaml
from conftest import ROOT
from snakemake.utils import update_config

from ecg_grpo.errors import InputError
from ecg_grpo.rewards import REWARDS
from ecg_grpo.settings.grpo import GRPOSettings, RewardName
from ecg_grpo.settings.run import Settings, load_settings
from ecg_grpo.settings.section import Section
from ecg_grpo.settings.sft import SFTSettings
from ecg_grpo.settings.training import LaunchSettings
from write_config_schema import SCHEMA, config_schema

OVERLAYS = sorted(file for file in (ROOT / "config").glob("*.yaml") if file.name != "config.yaml")


def demo() -> dict:
    return yaml.safe_load((ROOT / "config/config.yaml").read_text())


def sections(model: type[Section]) -> list[type[Section]]:
    found = [model]
    for field in model.model_fields.values():
        for part in (field.annotation, *get_args(field.annotation)):
            if isinstance(part, type) and issubclass(part, Section):
                found += sections(part)
    return found


@pytest.mark.parametrize("file", OVERLAYS, ids=lambda file: file.name)
def test_overlays_are_valid(file) -> None:
    configuration = demo()
    update_config(configuration, yaml.safe_load(file.read_text()))
    assert load_settings(configuration, [file.name]).run == file.stem


def test_the_demo_names_every_key() -> None:
    configuration = load_settings(demo(), ["config.yaml"]).model_dump(mode="json")
    named = demo()

    def missing(full: object, given: object, path: str) -> list[str]:
        if not isinstance(full, dict) or not isinstance(given, dict):
            return []
        return [f"{path}{key}" for key in full if key not in given] + [
            entry for key in full if key in given for entry in missing(full[key], given[key], f"{path}{key}.")
        ]

    assert missing(configuration, named, "") == []


def test_the_schema_for_editors_is_current() -> None:
    assert SCHEMA.read_text() == config_schema(), "run `make schema`"


def test_every_field_is_described() -> None:
    for model in sections(Settings):
        for name, field in model.model_fields.items():
            assert field.description, f"{model.__name__}.{name}"
            assert field.description.endswith("."), f"{model.__name__}.{name}"


def test_the_production_defaults_of_sft() -> None:
    settings = SFTSettings()
    effective = settings.per_device_train_batch_size * settings.gradient_accumulation_steps
    assert (settings.num_train_epochs, settings.per_device_train_batch_size, effective) == (1, 4, 16)
    assert (settings.learning_rate, settings.max_length, settings.lora.r, settings.lora.lora_alpha) == (2e-4, 2048, 16, 32)


def test_reward_names_are_the_reward_functions() -> None:
    assert set(get_args(RewardName)) == set(REWARDS)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"grpo": {"learnin_rate": 1}}, "grpo.learnin_rate: no such key"),
        ({"extra": 1}, "extra: no such key"),
        ({"run": "../elsewhere"}, "run: "),
        ({"sft": {"lora": {"r": 0}}}, "sft.lora.r: "),
        ({"grpo": {"rewards": {"rouge": 1.0}}}, "grpo.rewards.rouge"),
        ({"grpo": {"rewards": {"concept_f1": 0, "chrf": 0, "length_agreement": 0}}}, "at least one reward function"),
        ({"grpo": {"num_generations": 7}}, "no multiple of num_generations (7)"),
        ({"grpo": {"loss_type": "gspo"}}, "grpo.loss_type"),
        ({"grpo": {"num_iterations": 2, "save_steps": 3}}, "must be a multiple of num_iterations (2)"),
        ({"sft": {"max_length": 100}}, "more than sft.max_length (100)"),
        ({"base_model": {"source": "hub"}}, "base_model.hub must be given"),
        ({"base_model": {"source": "hub", "hub": {"repository": "a/b", "revision": "main"}}}, "base_model.hub.revision"),
        ({"data": {"test_fraction": 0.95}}, "must be less than 1"),
        (
            {"grpo": {"rollout": "vllm-colocate", "launch": {"accelerate_config": "config/accelerate/zero2_offload.yaml"}}},
            "lets the base weights drift",
        ),
    ],
)
def test_what_cannot_work_is_refused_with_its_key(change: dict, expected: str) -> None:
    configuration = demo()
    update_config(configuration, change)
    with pytest.raises(InputError) as caught:
        load_settings(configuration, ["my.yaml"])
    assert str(caught.value).startswith("my.yaml: ")
    assert expected in str(caught.value)


def test_a_section_survives_the_command_line_and_does_not_depend_on_key_order() -> None:
    settings = GRPOSettings(rewards={"chrf": 1.0, "concept_f1": 0.5})
    assert GRPOSettings.from_json(settings.as_json()) == settings
    assert settings.as_json() == GRPOSettings(rewards={"concept_f1": 0.5, "chrf": 1.0}).as_json()
    with pytest.raises(InputError, match="learning_rate"):
        GRPOSettings.from_json('{"learning_rate": -1}')


def test_the_launch_command() -> None:
    assert LaunchSettings().command() == "python"
    assert LaunchSettings(processes=2).command() == "accelerate launch --num_processes 2"
    with_file = LaunchSettings(accelerate_config="a z.yaml")
    assert with_file.command() == "accelerate launch --num_processes 1 --config_file 'a z.yaml'"
    assert with_file.files() == ["a z.yaml"]
    assert LaunchSettings().files() == []


def test_the_readmes_example_is_valid_and_drops_the_demo_models_tokens() -> None:
    (example,) = re.findall(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.S)
    configuration = demo()
    update_config(configuration, yaml.safe_load(example))
    base_model = load_settings(configuration, ["README.md"]).base_model
    assert base_model.source == "path"
    assert (base_model.eos_token, base_model.pad_token) == (None, None)
