"""The production configurations: valid, planned as a whole, long enough for the data, small enough for their cards."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from conftest import ROOT, Project, copy_project
from snakemake.utils import update_config

from ecg_grpo.base_model import read_template
from ecg_grpo.settings.grpo import GRPOSettings
from ecg_grpo.settings.run import Settings, load_settings
from ecg_grpo.settings.sft import SFTSettings

ONE, EIGHT, SMALL = "llama-3.2-3b", "llama-3.2-3b-8gpu", "llama-3.2-3b-24gb"
CARD = {ONE: 80e9, EIGHT: 80e9, SMALL: 24e9}
"""Bytes of a card; those sold as 80 and 24 GB have a little more."""

# Llama-3.2-3B, from its config.json.
PARAMETERS = 3_212_749_824
LAYERS, HIDDEN, INTERMEDIATE, KEY_VALUE, VOCABULARY = 28, 3072, 8192, 1024, 128_256
EMBEDDINGS = VOCABULARY * HIDDEN  # tied: they are the output's too
LINEAR = LAYERS * (2 * HIDDEN * HIDDEN + 2 * HIDDEN * KEY_VALUE + 3 * HIDDEN * INTERMEDIATE)
ADAPTER_OF_RANK_1 = LAYERS * (2 * (HIDDEN + HIDDEN) + 2 * (HIDDEN + KEY_VALUE) + 3 * (HIDDEN + INTERMEDIATE))
CACHE_OF_A_TOKEN = LAYERS * 2 * KEY_VALUE * 2  # key and value in bfloat16

LM_HEAD = 3e9  # a tile of 4,096 tokens x 32,768 of the vocabulary in both formats, and the head's gradient in float32
WORKSPACE = 1.5e9  # vLLM: activations of 4,096 tokens, graphs
RUNTIME = 3e9  # CUDA, kernels, fragmentation

LONGEST_PROMPT, LONGEST_ANSWER = 141, 143  # of the five knowledge files in Llama-3 tokens, the end token included
STEPS_OF_AN_EPOCH = 7_800  # training records, about


def configuration(name: str, **changes: object) -> Settings:
    merged = yaml.safe_load((ROOT / "config/config.yaml").read_text())
    update_config(merged, yaml.safe_load((ROOT / f"config/{name}.yaml").read_text()))
    update_config(merged, changes)
    return load_settings(merged, [name])


def weight_bytes(section: SFTSettings | GRPOSettings) -> tuple[float, float]:
    """What a card and the machine's main memory hold of weights, gradients and AdamW's moments; see `card_bytes`."""
    lora, processes = section.lora, section.launch.processes
    if lora is not None:
        base = 2.0 * PARAMETERS
        if isinstance(section, GRPOSettings) and section.uses_vllm:
            base = 4.0 * PARAMETERS
        if lora.load_in_4bit:
            base = 4.127 / 8 * LINEAR + 2 * EMBEDDINGS
        return base + 16 * lora.r * ADAPTER_OF_RANK_1, 0
    if section.launch.deepspeed is None:
        return 16.0 * PARAMETERS, 0
    zero = json.loads((ROOT / section.launch.deepspeed).read_text())["zero_optimization"]
    weights = 2 * PARAMETERS / (processes if zero["stage"] == 3 else 1)
    buckets = 2 * 500_000_000 * 2
    gradients = 2 * PARAMETERS / processes + buckets
    if "offload_optimizer" in zero:
        return weights + gradients, 18.0 * PARAMETERS
    return weights + gradients + (12 + 8) * PARAMETERS / processes, 0


def activation_bytes(section: SFTSettings | GRPOSettings, tokens: int) -> float:
    """What a forward pass over so many tokens keeps for its backward pass, without the LM head."""
    of_a_layer = 2 * (10 * HIDDEN + 4 * INTERMEDIATE) + 4 * 2 * HIDDEN
    if section.lora is not None:
        of_a_layer += 4 * (6 * HIDDEN + INTERMEDIATE)
    if section.gradient_checkpointing:
        return tokens * (LAYERS * 2 * HIDDEN + of_a_layer)
    return tokens * LAYERS * of_a_layer


def card_bytes(section: SFTSettings | GRPOSettings, longest: int, card: float) -> float:
    """An upper bound of what one card holds while it trains, in bytes.

    With N parameters, A of them in the adapter, P processes:

        weights     every parameter, DeepSpeed     2 N; with ZeRO-3 2 N / P
                    every parameter, without       4 N (float32)
                    LoRA                           2 N; 4 N with vLLM (float32); in four bits 0.52 a weight of the linear
                                                   layers (NF4, constants quantized too) and 2 an embedding
        gradients   DeepSpeed                      2 N / P + two buckets of 500 million values in bfloat16
                    without                        4 N
        optimizer   DeepSpeed                      12 N / P (float32 weights, two moments), and for the moment of a step
                                                   8 N / P (float32 gradients, AdamW's own copy)
                    DeepSpeed with offload         0 here; 18 N in main memory (those 12, float32 gradients 4, gradients of
                                                   earlier backward passes 2)
                    without                        8 N
        adapter     weights, gradients, moments    16 A
        reference   beta > 0, every parameter      as the weights
        activations a layer and token              2 (10 h + 4 i) + 8 h, norms in float32; with LoRA 4 (6 h + i) besides,
                                                   its inputs in float32
                    with checkpointing             every layer's input, 2 h, and one layer's activations
        sampling    vLLM in these processes        its share of the card
                    transformers                   the cache of all completions of a step, not at the same time as
                                                   activations; what is larger counts
        and LM_HEAD, RUNTIME as above

    Args:
        section: what trains.
        longest: tokens of the longest sequence, prompt and answer.
        card: bytes of the card.
    """
    weights, _ = weight_bytes(section)
    working = activation_bytes(section, section.per_device_train_batch_size * longest)
    sampling = 0.0
    if isinstance(section, GRPOSettings):
        if section.beta and section.lora is None:
            weights += (2 if section.launch.deepspeed else 4) * PARAMETERS
        if section.rollout == "vllm-colocate":
            sampling = section.vllm_gpu_memory_utilization * card
        if section.rollout == "transformers":
            completions = section.completions_per_step // section.launch.processes
            working = max(working, completions * longest * CACHE_OF_A_TOKEN)
    return weights + working + sampling + LM_HEAD + RUNTIME


def longest_sequence(settings: Settings, stage: str) -> int:
    data = settings.data
    answer = settings.grpo.max_completion_length if stage == "grpo" else data.max_answer_tokens
    return data.max_prompt_tokens + answer


def test_the_parameters_are_those_of_the_published_model() -> None:
    assert LINEAR + EMBEDDINGS + (2 * LAYERS + 1) * HIDDEN == PARAMETERS
    assert 16 * ADAPTER_OF_RANK_1 == 24_313_856


@pytest.mark.parametrize("stage", ["sft", "grpo"])
@pytest.mark.parametrize("name", CARD)
def test_training_fits_the_card(name: str, stage: str) -> None:
    settings = configuration(name)
    needed = card_bytes(getattr(settings, stage), longest_sequence(settings, stage), CARD[name])
    assert needed < CARD[name], f"{needed / 1e9:.1f} GB"


@pytest.mark.parametrize(
    ("name", "changes", "card"),
    [
        (ONE, {"launch": {"deepspeed": "config/deepspeed/zero2.json"}}, 80e9),
        (ONE, {"launch": {"deepspeed": "config/deepspeed/zero2.json"}}, 24e9),
        (ONE, {"launch": {"deepspeed": None}}, 80e9),
        (ONE, {"vllm_gpu_memory_utilization": 0.75}, 80e9),
        (EIGHT, {"launch": {"processes": 1}}, 80e9),
        (EIGHT, {"per_device_train_batch_size": 32, "gradient_checkpointing": False}, 80e9),
        (SMALL, {"lora": None}, 24e9),
        (SMALL, {"per_device_train_batch_size": 64, "gradient_accumulation_steps": 1, "gradient_checkpointing": False}, 24e9),
    ],
    ids=[
        "one card without offload",
        "24 GB without offload",
        "without DeepSpeed",
        "too much for vLLM",
        "nothing to shard over",
        "no checkpointing",
        "24 GB, every parameter",
        "24 GB, no checkpointing",
    ],
)
def test_what_does_not_fit_is_seen_not_to_fit(name: str, changes: dict, card: float) -> None:
    gpus = {"gpu": changes["launch"]["processes"]} if "processes" in changes.get("launch", {}) else {}
    settings = configuration(name, grpo=changes, resources={"train_grpo": gpus})
    assert card_bytes(settings.grpo, longest_sequence(settings, "grpo"), card) > card


def test_the_way_without_deepspeed_fits_the_card_too() -> None:
    """The example of docs/training.md: an adapter on a float32 base."""
    text = (ROOT / "docs/training.md").read_text()
    example = next(block for block in text.split("```yaml\n")[1:] if "deepspeed: null" in block).split("```")[0]
    settings = configuration(ONE, **yaml.safe_load(example))
    assert (settings.grpo.lora.r, settings.grpo.launch.deepspeed, settings.grpo.rollout) == (16, None, "vllm-colocate")
    assert card_bytes(settings.grpo, longest_sequence(settings, "grpo"), 80e9) < 80e9


def test_offloading_needs_the_main_memory_that_is_stated() -> None:
    _, main_memory = weight_bytes(configuration(ONE).grpo)
    assert round(main_memory / 1e9) == 58
    assert "58 GB" in (ROOT / f"config/{ONE}.yaml").read_text()
    assert weight_bytes(configuration(EIGHT).grpo)[1] == 0


@pytest.mark.parametrize("name", [ONE, EIGHT])
def test_vllm_s_share_holds_its_weights_and_every_completion(name: str) -> None:
    settings = configuration(name)
    completions = settings.grpo.completions_per_step // settings.grpo.launch.processes
    cache = completions * longest_sequence(settings, "grpo") * CACHE_OF_A_TOKEN
    assert 2 * PARAMETERS + cache + WORKSPACE < settings.grpo.vllm_gpu_memory_utilization * CARD[name]


@pytest.mark.parametrize("name", CARD)
def test_lengths_fit_the_data(name: str) -> None:
    settings = configuration(name)
    assert settings.data.max_prompt_tokens > 1.5 * LONGEST_PROMPT
    assert settings.data.max_answer_tokens > 1.5 * LONGEST_ANSWER
    for length in (
        settings.grpo.max_completion_length,
        settings.evaluation.generation.max_new_tokens,
        settings.reward_audit.generation.max_new_tokens,
        *([settings.difficulty_filter.max_completion_length] if settings.difficulty_filter.enabled else []),
    ):
        assert length == 256 > 1.5 * LONGEST_ANSWER


@pytest.mark.parametrize("name", CARD)
def test_what_llama_3_2_needs(name: str) -> None:
    base = configuration(name).base_model
    # Numbers 128009 and 128004 in Llama 3's tokenizer.
    assert (base.eos_token, base.pad_token) == ("<|eot_id|>", "<|finetune_right_pad_id|>")
    assert base.dtype == "bfloat16"
    # Its own template writes a date before the system prompt.
    assert base.chat_template == "resources/chat_templates/llama-3.jinja"
    assert "date" not in read_template(ROOT / base.chat_template).partition("-#}")[2]


@pytest.mark.parametrize("name", CARD)
def test_grpo_is_set_up_soundly(name: str) -> None:
    settings = configuration(name)
    grpo = settings.grpo
    assert grpo.temperature == 1.0
    assert grpo.learning_rate == (1e-6 if grpo.lora is None else 1e-5)
    assert grpo.steps(STEPS_OF_AN_EPOCH) >= 4 * grpo.save_steps
    assert grpo.deliver == "best"
    assert grpo.guards == GRPOSettings().guards, "a guard's threshold is changed: justify it in its file"
    processes, batch = grpo.launch.processes, grpo.validation.per_device_eval_batch_size
    assert grpo.validation.prompts % (batch * processes) == 0, "fewer prompts than asked for would be taken"
    assert settings.sft.sequences_per_step == 16
    assert settings.sft.report_to == grpo.report_to == []
    if settings.difficulty_filter.enabled:
        assert settings.difficulty_filter.samples == grpo.num_generations
        assert settings.difficulty_filter.temperature == grpo.temperature


@pytest.mark.parametrize("name", CARD)
def test_every_value_that_differs_from_the_demo_is_one(name: str) -> None:
    """Misread YAML, as `1e-6` (a text) or a null section, would show here."""
    overlay = yaml.safe_load((ROOT / f"config/{name}.yaml").read_text())
    assert all(isinstance(overlay[stage]["learning_rate"], float) for stage in ("sft", "grpo"))
    assert overlay["run"] == name


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return copy_project(tmp_path_factory.mktemp("checkout") / "project")


@pytest.mark.pipeline
@pytest.mark.parametrize("name", CARD)
def test_the_whole_run_is_planned(checkout: Project, name: str) -> None:
    plan = ["--configfile", f"config/{name}.yaml"]
    filtered = {"filter_prompts"} if name == EIGHT else set()
    assert checkout.jobs(*plan) == filtered | {
        *("fetch_base_model", "fetch_raw_data", "prepare_data", "make_data_report", "train_sft", "merge_sft_adapter"),
        *("train_grpo", "merge_grpo_checkpoint", "generate_answers", "generate_baselines", "score_answers"),
        *("score_as_ecg_bench", "score_meaning", "score_references", "check_contamination", "compare_models"),
        *("make_report", "write_lm_eval_task", "sample_for_audit", "audit_reward", "require_sound_reward"),
    }
    commands = checkout.snakemake("grpo", "--dry-run", "--printshellcmds", *plan).stdout
    launched = "accelerate launch --multi_gpu --num_processes 8" in commands
    assert launched == (name == EIGHT)
    for file in configuration(name).grpo.launch.files():
        assert Path(ROOT / file).is_file()
        assert file in commands
