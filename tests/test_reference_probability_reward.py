"""The reward of a reasoning that makes the reference more probable: against its definition, and with a live policy."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from conftest import ROOT

from ecg_grpo.errors import InputError
from ecg_grpo.files import new_model_directory
from ecg_grpo.model_rewards import ReferenceProbabilityReward, Surroundings, load_mix
from ecg_grpo.prompts import build_prompt, write_reasoned
from ecg_grpo.rewards import Case
from ecg_grpo.settings.reward import RewardInUse
from ecg_grpo.settings.run import load_settings

QUESTION, REFERENCE = "Is the QRS wide?", "Yes, it is above 120 ms."
PROMPT = build_prompt("Think first.", "", QUESTION)


def case(completion: str) -> Case:
    return Case(completion, REFERENCE, QUESTION, PROMPT)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    directory = tmp_path_factory.mktemp("policy") / "model"
    with new_model_directory(directory) as partial:
        for file in tiny_model.iterdir():
            shutil.copy(file, partial)
    return directory / "manifest.json"


@pytest.fixture(scope="module")
def reward(manifest: Path) -> ReferenceProbabilityReward:
    return ReferenceProbabilityReward(manifest)


def mean_probability(directory: Path, reasoning: str) -> float:
    """As its definition says, one text at a time, from all logits."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, tokenizer = AutoModelForCausalLM.from_pretrained(directory), AutoTokenizer.from_pretrained(directory)
    written = write_reasoned(reasoning, REFERENCE)
    text = tokenizer.apply_chat_template([*PROMPT, {"role": "assistant", "content": written}], tokenize=False)
    begin = text.rindex(written) + written.rindex(REFERENCE)
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, return_tensors="pt")
    with torch.inference_mode():
        probabilities = model(encoded["input_ids"]).logits[0].softmax(dim=-1)
    of_reference = [
        probabilities[place - 1, encoded["input_ids"][0, place]].item()
        for place, (start, stop) in enumerate(encoded["offset_mapping"][0].tolist())
        if start < begin + len(REFERENCE) and stop > begin
    ]
    return sum(of_reference) / len(of_reference)


def test_it_is_what_the_reasoning_adds(reward: ReferenceProbabilityReward, tiny_model: Path) -> None:
    reasonings = ["Count the squares.", "three small squares are 120 ms", "Yes, it is above 120 ms. Yes, it is above 120 ms."]
    without = mean_probability(tiny_model, "")
    expected = [max(0.0, mean_probability(tiny_model, reasoning) - without) for reasoning in reasonings]
    found = reward([case(write_reasoned(reasoning, "No.")) for reasoning in reasonings])
    assert found == pytest.approx(expected, abs=1e-6)
    assert any(expected), "else nothing was compared"


@pytest.mark.parametrize("completion", ["", "Yes.", "<think>\n\n</think>\n<answer>\nYes.\n</answer>", "</think>", "\ud800"])
def test_a_text_without_reasoning_earns_nothing(reward: ReferenceProbabilityReward, completion: str) -> None:
    assert reward([case(completion)]) == [0.0]


def test_it_asks_the_policy_that_it_follows(manifest: Path) -> None:
    from ecg_grpo.reference_probability import ReferenceProbability

    reward, asked = ReferenceProbabilityReward(manifest), []

    def score(thoughts):
        asked.extend(thought.reasoning for thought in thoughts)
        return [ReferenceProbability(1, 0.0, 0.75 if thought.reasoning else 0.5) for thought in thoughts]

    reward.follow(score)
    assert reward([case(write_reasoned("Because.", "No.")), case("No.")]) == [0.25, 0.0]
    assert asked == ["Because.", "", "", ""], "as many for a text without reasoning: processes compute in step"


def test_it_is_refused_where_models_do_not_reason_or_none_is_given() -> None:
    weights = {"reference_probability": 1.0}
    configuration = yaml.safe_load((ROOT / "config/config.yaml").read_text())
    configuration["reward"]["weights"] |= weights
    with pytest.raises(InputError, match="set `reasoning: on`"):
        load_settings(configuration, ["config.yaml"])
    load_settings(configuration | {"reasoning": True, "sft": configuration["sft"] | {"max_length": 1000}}, ["config.yaml"])
    with pytest.raises(InputError, match="no model is given"):
        load_mix(RewardInUse(weights=weights, reasoning=True), Surroundings())


def test_alone_it_does_not_pass_the_audit(manifest: Path) -> None:
    from ecg_grpo.attacks import Target
    from ecg_grpo.reward_audit import audit
    from ecg_grpo.settings.reward_audit import AuditSettings

    settings = RewardInUse(weights={"reference_probability": 1.0, "concept_f1": None, "chrf": None}, gates={}, reasoning=True)
    mix = load_mix(settings, Surroundings(policy=manifest))
    targets = [Target(QUESTION, REFERENCE, "Sinus rhythm.", "Yes.", "It is", PROMPT) for _ in range(3)]
    found = audit(mix, targets, ["a", "b", "c"], [[], [], []], AuditSettings(resamples=100))
    assert any("echo" in failure.lower() for failure in found["failures"]), "it never reads the answer"


def test_a_live_policy_says_what_its_files_would_say_and_goes_on_training(manifest: Path) -> None:
    import torch
    from accelerate import Accelerator

    from ecg_grpo.policy_trainer import PolicyTrainer
    from ecg_grpo.reference_probability import Thought, load_scorer, reference_probabilities

    model, tokenizer = load_scorer(manifest.parent, torch.float32)
    trainer = PolicyTrainer.__new__(PolicyTrainer)  # what GRPO builds besides is not asked
    trainer.model, trainer._tokenizer, trainer.accelerator = model.train(), tokenizer, Accelerator(cpu=True)
    trainer.args = SimpleNamespace(per_device_train_batch_size=2)
    thoughts = [Thought(PROMPT, text, REFERENCE) for text in ("Count the squares.", "", "Three small squares are 120 ms.")]
    found = trainer.reference_probabilities(thoughts)
    assert model.training
    (expected,) = reference_probabilities(model.eval(), tokenizer, thoughts, 3)
    for index, one in enumerate(found):
        assert one.mean_probability == pytest.approx(expected[index].mean_probability, abs=1e-6)
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(2)
    assert trainer.reference_probabilities(thoughts) != found, "it follows the policy as it changes"
