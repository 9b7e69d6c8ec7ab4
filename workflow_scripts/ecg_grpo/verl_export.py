"""A run as verl trains it (Sheng et al. 2024, arXiv 2409.19256; https://github.com/verl-project/verl): rows and configuration.

Names on the left of each mapping are verl's, values are the run's. What TRL has and verl has not is refused where it changes
what is learned (`without_counterpart`), and named where it does not (`differences`).
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from ecg_grpo.rewards import REWARDS
from ecg_grpo.settings.grpo import GRPOSettings
from ecg_grpo.settings.reward import RewardInUse
from ecg_grpo.tables import MESSAGES

VERSION = "0.9.1"
"""verl's, against which the export is tested; a test holds it equal to envs/requirements_verl.lock."""

VERL_ROWS = pa.schema(
    [
        ("data_source", pa.string()),
        ("prompt", MESSAGES),
        ("ability", pa.string()),
        ("reward_model", pa.struct([("style", pa.string()), ("ground_truth", pa.string())])),
        (
            "extra_info",
            pa.struct([("index", pa.int64()), ("split", pa.string()), ("id", pa.string()), ("question", pa.string())]),
        ),
    ]
)
"""One row a prompt, the same for both splits. verl hands the reward `reward_model.ground_truth` and `extra_info`."""

COLUMNS = ("id", "prompt", "question", "answer", "prompt_tokens")
"""What is read of a prepared record."""

_ADVANTAGES = {"group": "grpo", "batch": "grpo_batch_std", "none": "grpo"}
_POLICY_LOSSES = {"cispo": "cispo", "sapo": "sapo"}
_AVERAGES = {
    "dapo": "token-mean",
    "cispo": "token-mean",
    "grpo": "seq-mean-token-mean",
    "sapo": "seq-mean-token-mean",
    "dr_grpo": "seq-mean-token-sum-norm",
}
_NO_UPPER_BOUND = 1.0e9
_NEVER = -1


@dataclass(frozen=True)
class Place:
    """Where things lie on the machine that trains; all paths are absolute.

    Attributes:
        folder: the exported folder.
        model: directory of the SFT model.
        scripts: the project's folder workflow_scripts.
        inputs: SHA-256 of what is trained from and on; checkpoints of another training are not resumed from.
    """

    folder: Path
    model: Path
    scripts: Path
    inputs: Sequence[str] = ()


@dataclass(frozen=True)
class Prompts:
    """What is known of the exported prompts.

    Attributes:
        number: of the training split.
        longest: tokens of the longest in either split, chat template included.
    """

    number: int
    longest: int


def verl_rows(records: Sequence[Mapping[str, Any]], split: str) -> Iterator[dict[str, Any]]:
    """The rows of a split.

    Args:
        records: prepared records with `COLUMNS`.
        split: `train` or `validation`.
    """
    for index, record in enumerate(records):
        yield {
            "data_source": "ecg_expert_qa",  # one for all: verl's validation means are by data source
            "prompt": record["prompt"],
            "ability": "cardiology",
            "reward_model": {"style": "rule", "ground_truth": record["answer"]},
            "extra_info": {"index": index, "split": split, "id": record["id"], "question": record["question"]},
        }


def without_counterpart(grpo: GRPOSettings, reward: RewardInUse) -> list[str]:
    """The settings that change what is learned and that verl cannot be told of, each as `key: value`."""
    lora = grpo.lora
    found = [
        (grpo.loss_type not in _AVERAGES, "grpo.loss_type", grpo.loss_type),
        (grpo.lr_scheduler_type == "linear", "grpo.lr_scheduler_type", "linear"),
        (grpo.multi_objective_aggregation != "sum_then_normalize", "grpo.multi_objective_aggregation", "normalize_then_sum"),
        (grpo.mask_truncated_completions, "grpo.mask_truncated_completions", "true"),
        (grpo.top_entropy_quantile < 1, "grpo.top_entropy_quantile", f"{grpo.top_entropy_quantile:g}"),
        (grpo.use_adaptive_entropy, "grpo.use_adaptive_entropy", "true"),
        (grpo.sync_ref_model, "grpo.sync_ref_model", "true"),
        (grpo.dynamic_sampling == "redraw", "grpo.dynamic_sampling", "redraw"),
        (grpo.precision == "float32", "grpo.precision", "float32"),
        (lora and lora.lora_dropout, "grpo.lora.lora_dropout", f"{lora.lora_dropout:g}" if lora else ""),
        (lora and lora.load_in_4bit, "grpo.lora.load_in_4bit", "true"),
        *(
            # verl's loss with one ratio a completion is GSPO's own, whatever the other keys say.
            (
                grpo.importance_sampling_level == "sequence" and other,
                f"grpo.importance_sampling_level sequence with {key}",
                value,
            )
            for other, key, value in (
                (grpo.loss_type in _AVERAGES and grpo.loss_type != "grpo", "grpo.loss_type", grpo.loss_type),
                (grpo.delta is not None, "grpo.delta", f"{grpo.delta}"),
            )
        ),
        # They would be loaded by every reward worker, or need the policy itself.
        *((True, "reward", f"{name} (it needs a model)") for name in reward.parts() if name not in REWARDS),
    ]
    return [f"{key}: {value}" for is_set, key, value in found if is_set]


def differences(grpo: GRPOSettings, optimizer_offload: bool) -> list[tuple[str, str]]:
    """What verl does otherwise with these settings although nothing is refused: (the run's key, what verl does)."""
    launch, validation = grpo.launch, grpo.validation
    found = [
        (True, "guards", "No guard stops the training. Watch `response_length/mean`, `response_length/clip_ratio`, "
         "`actor/entropy` and the gap of the rollout's probabilities yourself."),
        (grpo.rollout != "vllm-colocate", f"rollout: {grpo.rollout}", "vLLM samples, on the GPUs that train."),
        (launch.deepspeed, f"launch.deepspeed: {launch.deepspeed}", "FSDP shards; the optimizer lies "
         + ("in main memory, as in that file." if optimizer_offload else "on the GPUs.")),
        (grpo.precision == "auto", "precision: auto", "bfloat16."),
        (True, "weights", "float32, computed with in bfloat16."),
        (grpo.deliver == "best", "deliver: best", "Every checkpoint is kept, and you choose by the validation's `acc`."),
        (validation is None, "validation: null", "Nothing is validated while training."),
        (grpo.dynamic_sampling, "dynamic_sampling_rounds", "Prompts are drawn until the batch is full, however many it takes."),
        (grpo.scale_rewards == "group", "scale_rewards: group", "1e-6 and not 1e-4 is added to the spread."),
        (grpo.num_iterations > 1, "num_iterations", "verl's steps are batches: each has that many optimizer steps, and the "
         "numbers of steps in verl.yaml are divided by it."),
        (grpo.loss_type == "cispo", "epsilon", "Not used, as by TRL."),
        (True, "seed", "The prompts come in another order, the completions differ."),
    ]  # fmt: skip
    return [(key, text) for applies, key, text in found if applies]


def verl_configuration(
    grpo: GRPOSettings, reward: RewardInUse, prompts: Prompts, place: Place, run: str, optimizer_offload: bool = False
) -> dict[str, Any]:
    """verl.yaml: what a run's training has of verl's configuration; the rest is verl's `ppo_trainer`, which it begins with.

    Args:
        grpo: section `grpo`, of which nothing is without counterpart.
        reward: section `reward` and `reasoning`.
        prompts: of the exported files.
        place: where things lie.
        run: name of the run.
        optimizer_offload: whether the optimizer's state lies in main memory.

    Returns:
        Nested mappings of strings, numbers, lists and nulls.
    """
    validation = grpo.validation
    configuration = {
        "algorithm": _algorithm(grpo),
        "data": {
            "train_files": str(place.folder / "train.parquet"),
            "val_files": str(place.folder / "validation.parquet"),
            "train_batch_size": grpo.prompts_per_step,
            "max_prompt_length": prompts.longest,
            "max_response_length": grpo.max_completion_length,
            "filter_overlong_prompts": True,
            "truncation": "error",
            "shuffle": True,
            "seed": grpo.seed,
        },
        "actor_rollout_ref": {
            "model": {
                "path": str(place.model),
                "enable_gradient_checkpointing": grpo.gradient_checkpointing,
                "lora_rank": 0,
                # flash-attn need not be installed; the packing of sequences that needs it goes too
                "use_remove_padding": False,
                "override_config": {"attn_implementation": "sdpa"},
            },
            "actor": _actor(grpo, prompts, optimizer_offload),
            "ref": {"log_prob_micro_batch_size_per_gpu": grpo.per_device_train_batch_size},
            "rollout": _rollout(grpo),
        },
        "reward": {
            "custom_reward_function": {
                "path": str(place.folder / "reward_function.py"),
                "name": "compute_score",
                "reward_kwargs": {
                    "scripts": str(place.scripts),
                    "settings": reward.as_json(),
                    "metric": None if validation is None else validation.metric,
                },
            },
            "reward_manager": {"source": "register", "name": "naive"},
        },
        "trainer": _trainer(grpo, prompts, run),
    }
    if grpo.lora is not None:
        configuration["actor_rollout_ref"]["model"] |= {
            "lora_rank": grpo.lora.r,
            "lora_alpha": grpo.lora.lora_alpha,
            "target_modules": grpo.lora.target_modules,
        }
    named = json.dumps([configuration, list(place.inputs)], sort_keys=True)
    checkpoints = place.folder / "checkpoints" / hashlib.sha256(named.encode()).hexdigest()[:12]
    configuration["trainer"]["default_local_dir"] = str(checkpoints)
    # pkg:// finds verl's own files wherever it is installed; _self_ comes last, so that this file decides.
    return {"hydra": {"searchpath": ["pkg://verl.trainer.config"]}, "defaults": ["ppo_trainer", "_self_"]} | configuration


def _steps(grpo: GRPOSettings, prompts: Prompts) -> int:
    """verl's steps: batches of completions."""
    return math.ceil(grpo.steps(prompts.number) / grpo.num_iterations)


def _algorithm(grpo: GRPOSettings) -> dict[str, Any]:
    level, _, what = grpo.vllm_importance_sampling_mode.partition("_")
    cap = grpo.vllm_importance_sampling_clip_max
    return {
        "adv_estimator": _ADVANTAGES[grpo.scale_rewards],
        "norm_adv_by_std_in_grpo": grpo.scale_rewards == "group",
        "use_kl_in_reward": False,
        "filter_groups": {"enable": grpo.dynamic_sampling == "replace", "metric": "reward"},
        "rollout_correction": {
            "rollout_is": level,
            # One number cuts. Of two, what lies outside becomes 0; no ratio that verl lets through lies below this lower one.
            "rollout_is_threshold": f"1e-9_{cap}" if what == "mask" else cap,
            "bypass_mode": False,
        },
    }


def _actor(grpo: GRPOSettings, prompts: Prompts, optimizer_offload: bool) -> dict[str, Any]:
    high = grpo.epsilon if grpo.epsilon_high is None else grpo.epsilon_high
    is_cispo = grpo.loss_type == "cispo"
    per_sequence = grpo.importance_sampling_level == "sequence"
    steps = grpo.steps(prompts.number)
    warmup = int(grpo.warmup_steps) if grpo.warmup_steps >= 1 else math.ceil(grpo.warmup_steps * steps)
    return {
        "ppo_mini_batch_size": grpo.prompts_per_step,
        "ppo_micro_batch_size_per_gpu": grpo.per_device_train_batch_size,
        "ppo_epochs": grpo.num_iterations,
        "policy_loss": {"loss_mode": "gspo" if per_sequence else _POLICY_LOSSES.get(grpo.loss_type, "vanilla")},
        "clip_ratio": grpo.epsilon,
        # cispo: TRL bounds the ratio by epsilon_high itself, and from below not at all.
        "clip_ratio_low": 1.0 if is_cispo else grpo.epsilon,
        "clip_ratio_high": high - 1 if is_cispo else high,
        "clip_ratio_c": grpo.delta or _NO_UPPER_BOUND,  # null would be verl's own 3
        "loss_agg_mode": _AVERAGES[grpo.loss_type],
        "loss_scale_factor": grpo.max_completion_length if grpo.loss_type == "dr_grpo" else None,
        "entropy_coeff": grpo.entropy_coef,
        "calculate_entropy": True,
        "use_kl_loss": grpo.beta > 0,
        "kl_loss_coef": grpo.beta,
        "kl_loss_type": "low_var_kl",
        "data_loader_seed": grpo.seed,
        "optim": {
            "lr": grpo.learning_rate,
            "lr_scheduler_type": "cosine" if grpo.lr_scheduler_type == "cosine" else "constant",
            "lr_warmup_steps": 0 if grpo.lr_scheduler_type == "constant" else warmup // grpo.num_iterations,
            "weight_decay": grpo.weight_decay,
            "clip_grad": grpo.max_grad_norm,
        },
        # In bfloat16 verl would cast an adapter too.
        "fsdp_config": {
            "model_dtype": "fp32",
            "dtype": "bfloat16",
            "optimizer_offload": optimizer_offload,
            "seed": grpo.seed,
        },
    }


def _rollout(grpo: GRPOSettings) -> dict[str, Any]:
    return {
        "name": "vllm",
        "n": grpo.num_generations,
        "temperature": grpo.temperature,
        "top_p": 1.0,
        "top_k": -1,
        "seed": grpo.seed,
        "gpu_memory_utilization": grpo.vllm_gpu_memory_utilization,
        "tensor_model_parallel_size": grpo.vllm_tensor_parallel_size,
        "free_cache_engine": grpo.vllm_enable_sleep_mode,
        "load_format": "safetensors",
        "calculate_log_probs": True,
        "log_prob_micro_batch_size_per_gpu": grpo.per_device_train_batch_size,
        "val_kwargs": {"n": 1, "do_sample": False, "temperature": 0},
    }


def _trainer(grpo: GRPOSettings, prompts: Prompts, run: str) -> dict[str, Any]:
    steps = _steps(grpo, prompts)
    validation = grpo.validation
    return {
        "project_name": "ecg-grpo",
        "experiment_name": run,
        "logger": ["console", "tensorboard", *grpo.report_to],
        "nnodes": grpo.launch.machines,
        "n_gpus_per_node": grpo.launch.processes // grpo.launch.machines,
        "total_training_steps": steps,
        "total_epochs": math.ceil(steps / (prompts.number // grpo.prompts_per_step)),
        "save_freq": grpo.save_steps // grpo.num_iterations,
        "max_actor_ckpt_to_keep": None if grpo.deliver == "best" else 2,
        "val_before_train": validation is not None,
        "test_freq": _NEVER if validation is None else max(1, validation.eval_steps // grpo.num_iterations),
    }
