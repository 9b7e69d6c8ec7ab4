"""The configuration: typos and impossible values are refused with their key; the files in the repository are valid."""

from __future__ import annotations

import json
import re
from operator import attrgetter
from typing import Any, get_args

import pytest
import yaml
from conftest import ROOT
from hypothesis import example, given
from hypothesis import strategies as st
from snakemake.io import apply_wildcards
from snakemake.utils import update_config

from ecg_grpo.errors import InputError
from ecg_grpo.further_scores import FURTHER_SCORES
from ecg_grpo.metrics import METRICS
from ecg_grpo.model_rewards import MODEL_REWARDS
from ecg_grpo.rewards import REWARDS
from ecg_grpo.settings.evaluation import ScoreName
from ecg_grpo.settings.grpo import GRPOSettings, MetricName
from ecg_grpo.settings.reward import RewardInUse, RewardName, RewardSettings
from ecg_grpo.settings.run import Settings, load_settings
from ecg_grpo.settings.section import Section, rule_parameter
from ecg_grpo.settings.sft import SFTSettings
from ecg_grpo.settings.training import LaunchSettings
from write_config_schema import SCHEMA, config_schema

ZERO2 = "config/deepspeed/zero2.json"
OVERLAYS = sorted(file for file in (ROOT / "config").glob("*.yaml") if file.name != "config.yaml")


def demo() -> dict:
    return yaml.safe_load((ROOT / "config/config.yaml").read_text())


def sections(model: type[Section]) -> list[type[Section]]:
    found = [model]
    for field in model.model_fields.values():
        for part in parts(field.annotation):
            if isinstance(part, type) and issubclass(part, Section):
                found += sections(part)
    return found


def parts(annotation: object) -> list[object]:
    """An annotation and everything that it is made of."""
    return [annotation, *(part for argument in get_args(annotation) for part in parts(argument))]


def judge(**changes: object) -> dict:
    return {"evaluation": {"judge": {"endpoint": {"base_url": "http://h/v1", "model": "m"}} | changes}}


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
    assert set(get_args(RewardName)) == {*REWARDS, *MODEL_REWARDS}


def test_null_takes_a_part_of_the_reward_out_and_weight_0_only_logs_it() -> None:
    settings = RewardSettings(weights={"concept_f1": 1, "chrf": 0, "rouge_l": None}, gates={"length": None, "numbers": 1.0})
    assert settings.parts() == ["chrf", "concept_f1", "numbers"]
    assert settings.trained_on() == ["concept_f1"]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"grpo": {"learnin_rate": 1}}, "grpo.learnin_rate: no such key"),
        ({"extra": 1}, "extra: no such key"),
        ({"run": "../elsewhere"}, "run: "),
        ({"sft": {"lora": {"r": 0}}}, "sft.lora.r: "),
        ({"reward": {"weights": {"rouge": 1.0}}}, "reward.weights.rouge"),
        ({"reward": {"weights": {"concept_f1": 0, "chrf": None}}}, "at least one reward function with a weight above 0"),
        ({"reward": {"weights": {"chrf": -1}}}, "what is to be punished is a gate"),
        ({"reward": {"weights": {"length": 1}}}, "length is a gate and has a weight"),
        ({"reward": {"weights": {"judge": 1}}}, "reward.judge names nobody to ask"),
        ({"reward": {"judge": {"endpoint": {"base_url": "http://a:b@c/v1", "model": "m"}}}}, "must hold no password"),
        ({"reward": {"gates": {"length": 1.5}}}, "gates.length must be from 0 to 1"),
        ({"grpo": {"num_generations": 7}}, "no multiple of num_generations (7)"),
        ({"grpo": {"loss_type": "gspo"}}, "grpo.loss_type"),
        ({"grpo": {"num_iterations": 2, "save_steps": 3}}, "must be a multiple of num_iterations (2)"),
        ({"sft": {"max_length": 100}}, "more than sft.max_length (100)"),
        ({"base_model": {"source": "hub"}}, "base_model.hub must be given"),
        ({"base_model": {"source": "hub", "hub": {"repository": "a/b", "revision": "main"}}}, "base_model.hub.revision"),
        ({"data": {"test_fraction": 0.95}}, "must be less than 1"),
        ({"grpo": {"rollout": "vllm-colocate", "launch": {"deepspeed": ZERO2}}}, "Two ways are safe"),
        ({"grpo": {"rollout": "vllm-colocate", "lora": {"load_in_4bit": True}}}, "quantizes them anew"),
        ({"grpo": {"lora": {"load_in_4bit": True}, "launch": {"deepspeed": ZERO2}}}, "cannot be sharded"),
        ({"sft": {"lora": {"load_in_4bit": True}, "launch": {"deepspeed": ZERO2}}}, "cannot be sharded"),
        ({"grpo": {"loss_type": "cispo"}}, "set it above 1"),
        ({"grpo": {"loss_type": "luspo"}}, "needs importance_sampling_level sequence"),
        ({"grpo": {"loss_type": "vespo", "rollout": "vllm-colocate"}}, "token_truncate or token_mask"),
        ({"grpo": {"delta": 1.2}}, "delta must be above 1 + epsilon_high"),
        ({"grpo": {"sync_ref_model": True, "lora": None}}, "needs beta above 0"),
        ({"grpo": {"sync_ref_model": True, "beta": 0.1}}, "needs lora: null"),
        ({"grpo": {"lora": {"target_modules": ".*(q_proj|lm_head)"}}}, "must leave lm_head out"),
        ({"grpo": {"top_p": 0.9}}, "grpo.top_p: no such key"),
        ({"grpo": {"top_k": 50}}, "grpo.top_k: no such key"),
        ({"grpo": {"min_p": 0.1}}, "grpo.min_p: no such key"),
        ({"grpo": {"epsilon": 1.0}}, "grpo.epsilon"),
        ({"grpo": {"temperature": 0}}, "grpo.temperature"),
        ({"grpo": {"vllm_tensor_parallel_size": 2, "rollout": "vllm-colocate"}}, "multiple of vllm_tensor_parallel_size"),
        ({"grpo": {"vllm_server_base_url": "http://user:secret@host:1"}}, "grpo.vllm_server_base_url"),
        ({"grpo": {"deliver": "best"}}, "deliver: best needs validation"),
        ({"grpo": {"deliver": "best", "validation": {"eval_steps": 2}}}, "set validation.eval_steps (2) and save_steps (3)"),
        ({"grpo": {"validation": {"metric": "concept_f1"}}}, "concept_f1 is part of the reward"),
        ({"grpo": {"validation": {"metric": "numbers"}}}, "grpo.validation.metric"),
        ({"evaluation": {"models": {"sft": "/models/x"}}}, "sft is a name of the workflow's own"),
        ({"evaluation": {"models": {"A model": "/models/x"}}}, "evaluation.models"),
        ({"evaluation": {"models": {"a": 3}}}, "evaluation.models.a"),
        ({"evaluation": {"models": {"a": {"base_url": "ftp://h", "model": "m"}}}}, "must begin with http:// or https://"),
        ({"evaluation": {"models": {"a": {"base_url": "http://h", "mdel": "m"}}}}, "models.a.endpoint.mdel: no such key"),
        ({"evaluation": {"judge": {"endpoint": {"base_url": "http://h"}}}}, "evaluation.judge.endpoint.model"),
        (judge(pairs=[["grpo", "grpo"]]), "cannot be held against itself"),
        (judge(pairs=[["grpo", "sft"], ["sft", "grpo"]]), "one is named twice"),
        (judge(pairs=[["grpo", "best"]]), "judge.pairs: best is none of echo"),
        (judge(rubric={"accuracy": ""}), "evaluation.judge.rubric.accuracy"),
        (judge(rubric={"style": "x"}), "evaluation.judge.rubric.style: no such key"),
        ({"evaluation": {"require": ["grpo beats sft"]}}, "`grpo beats sft` is not of the form"),
        ({"evaluation": {"require": ["grpo.rouge_l >= sft.meteor"]}}, "compares two different metrics"),
        ({"evaluation": {"require": ["grpo.rouge >= 0.1"]}}, "names no score"),
        ({"evaluation": {"require": ["grpo.rouge_l >= best.rouge_l"]}}, "best is none of echo"),
        ({"evaluation": {"require": ["grpo.rating >= 0.5"]}}, "without evaluation.ratings nothing measures it"),
        ({"evaluation": {"require": ["grpo.judge_clarity >= 0.5"]}}, "without evaluation.judge nothing measures it"),
        ({"evaluation": {"require": ["grpo.bertscore >= 0.5"], "meaning": None}}, "without evaluation.meaning nothing"),
        (
            {"evaluation": {"require": ["grpo.reference_loss <= 2"], "reference_loss": None}},
            "without evaluation.reference_loss",
        ),
        ({"resources": {"train_sft": {"gpu": 2}}}, "resources.train_sft.gpu is 2, but the training takes 1"),
        (
            {"resources": {"train_grpo": {"gpu": 4}}, "grpo": {"launch": {"processes": 8}}},
            "resources.train_grpo.gpu is 4, but the training takes 8",
        ),
        (
            {"resources": {"train_grpo": {"gpu": 1}}, "grpo": {"rollout": "vllm-server", "vllm_tensor_parallel_size": 2}},
            "resources.train_grpo.gpu is 1, but the training takes 3",
        ),
        (
            {"grpo": {"dynamic_sampling": "redraw", "gradient_accumulation_steps": 1, "launch": {"processes": 2}}},
            "whole groups",
        ),
        ({"grpo": {"launch": {"processes": 3, "machines": 2}}}, "must be a multiple of machines"),
        ({"difficulty_filter": {"min_reward": 0.9}}, "must be less than max_reward"),
        ({"reasoning": "on"}, "reasoning: "),  # quoted; unquoted it is YAML's true
        ({"reasoning": True}, "+ 37 for the tags is 517, more than sft.max_length (384)"),
        ({"bootstrap_reasoning": {"filter": {"min_words": 200}}}, "bootstrap_reasoning.filter"),
        ({"bootstrap_reasoning": {"sampling": {"samples": 1}}}, "bootstrap_reasoning.sampling.samples"),
        ({"reward": {"min_reasoning_words": 21}}, "reward.min_reasoning_words"),
    ],
)
def test_what_cannot_work_is_refused_with_its_key(change: dict, expected: str) -> None:
    configuration = demo()
    update_config(configuration, change)
    with pytest.raises(InputError) as caught:
        load_settings(configuration, ["my.yaml"])
    assert str(caught.value).startswith("my.yaml: ")
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        {"resources": {"train_grpo": {"gpu": 16}}, "grpo": {"launch": {"processes": 16, "machines": 2}}},
        {"resources": {"train_grpo": {"gpu": 0}}, "grpo": {"launch": {"processes": 2}}},
        {"resources": {"train_grpo": {"gpu": 2}}, "grpo": {"rollout": "vllm-server"}},
        {"evaluation": {"require": ["grpo.embedding >= sft.embedding - 0.1", "grpo.rating >= 0.5"], "ratings": ["a.csv"]}},
    ],
    ids=["two machines", "processors only", "a server of its own", "scores that are measured"],
)
def test_what_belongs_together_is_accepted(change: dict) -> None:
    configuration = demo()
    update_config(configuration, change)
    load_settings(configuration, ["my.yaml"])


def test_a_section_survives_the_command_line_and_does_not_depend_on_key_order() -> None:
    settings = RewardSettings(weights={"chrf": 1.0, "concept_f1": 0.5})
    assert RewardSettings.from_json(settings.as_json()) == settings
    assert settings.as_json() == RewardSettings(weights={"concept_f1": 0.5, "chrf": 1.0}).as_json()
    with pytest.raises(InputError, match="learning_rate"):
        GRPOSettings.from_json('{"learning_rate": -1}')


def test_what_the_stages_are_given_follows_from_one_key() -> None:
    configuration = demo()
    off = load_settings(configuration, [])
    assert off.system_prompt == "resources/prompts/system.txt"
    assert off.reward_in_use.demanded_reasoning_words == 0
    update_config(configuration, {"reasoning": True, "sft": {"max_length": 640}})
    on = load_settings(configuration, [])
    assert on.system_prompt == "resources/prompts/system_reasoning.txt"
    assert on.reward_in_use.demanded_reasoning_words == 8
    assert RewardInUse.from_json(on.reward_in_use.as_json()) == on.reward_in_use


@pytest.mark.parametrize(
    ("section", "unread", "with_it"),
    [
        ("base_model", {"path": "/models/mine"}, {"source": "path"}),
        ("reward", {"embedding": {"batch_size": 7}}, {"weights": {"embedding": 0.0}}),
        ("reward", {"judge": {"endpoint": {"base_url": "http://127.0.0.1:9/v1", "model": "m"}}}, {"gates": {"judge": 1.0}}),
        ("grpo", {"vllm_gpu_memory_utilization": 0.5}, {"rollout": "vllm-colocate"}),
        ("grpo", {"dynamic_sampling_rounds": 3}, {"dynamic_sampling": "redraw"}),
        ("grpo", {"entropy_target": 0.5}, {"use_adaptive_entropy": True}),
        ("grpo", {"ref_model_sync_steps": 3}, {"sync_ref_model": True, "beta": 0.1, "lora": None}),
        ("difficulty_filter", {"gpu_memory_utilization": 0.5}, {"engine": "vllm"}),
        ("reward_audit.generation", {"gpu_memory_utilization": 0.5}, {"engine": "vllm"}),
        ("bootstrap_reasoning", {"generation": {"gpu_memory_utilization": 0.5}}, {"generation": {"engine": "vllm"}}),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else value,
)
def test_a_stage_is_told_only_what_it_reads(section: str, unread: dict, with_it: dict) -> None:
    def told(*changes: dict) -> str:
        configuration = demo()
        for change in changes:
            for key in reversed(section.split(".")):
                change = {key: change}
            update_config(configuration, change)
        settings: Any = load_settings(configuration, [])
        settings = settings.reward_in_use if section == "reward" else attrgetter(section)(settings)
        assert settings.from_json(settings.as_json()).as_json() == settings.as_json()
        return settings.as_json()

    assert told(unread) == told()
    assert told(unread, with_it) != told()
    if section != "base_model":  # without a path there is nothing to read
        needed = {"judge": {"endpoint": {"base_url": "http://127.0.0.1:9/v1", "model": "other"}}} if "judge" in unread else {}
        assert told(unread, with_it) != told(needed, with_it)


def test_the_words_of_reasoning_count_only_with_reasoning() -> None:
    def told(**changes: Any) -> str:
        configuration = demo()
        update_config(configuration, {"sft": {"max_length": 640}} | changes)
        return load_settings(configuration, []).reward_in_use.as_json()

    assert told(reward={"min_reasoning_words": 9}) == told()
    assert told(reward={"min_reasoning_words": 9}, reasoning=True) != told(reasoning=True)


@example({"layers.[0-9]{1,2}": ["{word}", "\\{word}", '"{word}', "{word,a|b}"]})
@given(st.recursive(st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_snakemake_leaves_a_parameter_as_it_is(value: object) -> None:
    text = rule_parameter(value)
    assert json.loads(text) == value
    assert apply_wildcards(text, {}) == text


def test_the_launch_command() -> None:
    assert LaunchSettings().command() == "python"
    assert LaunchSettings(deepspeed=ZERO2).command() == "python"
    assert LaunchSettings(deepspeed=ZERO2).files() == [ZERO2]
    assert LaunchSettings().files() == []
    here = LaunchSettings(processes=2).command()
    # Without --multi_gpu, accelerate starts one process on a machine without a GPU and says nothing.
    assert " accelerate launch --multi_gpu --num_processes 2 --num_machines 1 " in here
    assert "srun" not in here
    assert LaunchSettings().launcher_log("a b.log") == ""
    assert LaunchSettings(processes=2).launcher_log("a b.log") == "2> 'a b.log'"
    everywhere = LaunchSettings(processes=4, machines=2).command()
    assert " srun --nodes 2 --ntasks 2 --ntasks-per-node 1 " in everywhere
    assert "--gpus-per-node" not in everywhere
    assert ' --cpus-per-task "$OMP_NUM_THREADS" --gpus-per-node 2 ' in LaunchSettings(processes=4, machines=2).command(2)
    assert "on_this_machine.sh accelerate launch --multi_gpu --num_processes 4 --num_machines 2" in everywhere


def test_metrics_that_choose_a_checkpoint_are_no_rewards() -> None:
    graded = {name for name, metric in METRICS.items() if metric.is_quality} - {"exact_match", "polarity", "numbers"}
    assert set(get_args(MetricName)) == graded
    for metric in set(get_args(MetricName)) & set(REWARDS):
        configuration = demo()
        update_config(configuration, {"reward": {"weights": {metric: 1.0}}, "grpo": {"validation": {"metric": metric}}})
        with pytest.raises(InputError, match=f"{metric} is part of the reward"):
            load_settings(configuration, ["my.yaml"])


def test_what_can_be_required_is_what_is_measured() -> None:
    assert get_args(ScoreName) == (*METRICS, "truncated", "empty", "malformed", "copied", *FURTHER_SCORES, "reasoned")


def test_the_readmes_example_is_valid_and_drops_the_demo_models_tokens() -> None:
    (example,) = re.findall(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.S)
    configuration = demo()
    update_config(configuration, yaml.safe_load(example))
    base_model = load_settings(configuration, ["README.md"]).base_model
    assert base_model.source == "path"
    assert (base_model.eos_token, base_model.pad_token) == (None, None)
