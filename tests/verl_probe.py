"""Runs where verl is installed: what verl itself makes of exported folders, and of the run's settings. Prints JSON.

PYTHONPATH=.venv-verl python tests/verl_probe.py folders TEXTS FOLDER...
PYTHONPATH=.venv-verl python tests/verl_probe.py losses SETTINGS
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from tensordict import TensorDict
from verl import DataProto
from verl.utils import hf_tokenizer
from verl.utils.dataset.rl_dataset import collate_fn, get_dataset_class

from ecg_grpo.prompts import EMPTY_WORDS, write_reasoned


def look_at(folder: Path, texts: list[str]) -> dict[str, object]:
    """The data sets, the resolved configuration, and rewards: of each reference, bare, reasoned and cut, and of these texts."""
    with initialize_config_dir(str(folder), version_base=None):
        config = compose("verl")
    tokenizer = hf_tokenizer(config.actor_rollout_ref.model.path)
    make = get_dataset_class(config.data)
    sets = {
        split: make(data_files=config.data[key], tokenizer=tokenizer, processor=None, config=config.data, max_samples=-1)
        for split, key in (("train", "train_files"), ("validation", "val_files"))
    }
    rows = {split: [found[index] for index in range(len(found))] for split, found in sets.items()}
    check_by_verl(config)
    train = rows["train"]
    references = [row["reward_model"]["ground_truth"] for row in train]
    reasoned = [write_reasoned(EMPTY_WORDS, reference) for reference in references]
    parts = [write_reasoned(EMPTY_WORDS, reference[: len(reference) * 3 // 4]) for reference in references]
    asked = [*train, *train, *train, *(train[index % len(train)] for index in range(len(texts)))]
    answers = [*references, *reasoned, *parts, *texts]
    return {
        "prompts": {split: [list(row["raw_prompt"]) for row in found] for split, found in rows.items()},
        "lengths": [
            len(tokenizer.apply_chat_template(row["raw_prompt"], add_generation_prompt=True, tokenize=True, return_dict=False))
            for found in rows.values()
            for row in found
        ],
        "config": OmegaConf.to_container(config, resolve=True),
        "scored": asyncio.run(score(config, tokenizer, asked, answers)),
    }


def check_by_verl(config: OmegaConf) -> None:
    """verl's own checks, and its dataclasses, which convert and refuse."""
    from verl.trainer.ppo.utils import need_critic, need_reference_policy
    from verl.utils.config import omega_conf_to_dataclass, validate_config

    # All that is asked of vLLM here: which ranks it has kernels for. verl's own list of them, for where there is no vLLM.
    package, module = (ModuleType(f"verl.workers.rollout.vllm_rollout{name}") for name in ("", ".utils"))
    package.__path__ = []
    module.get_vllm_max_lora_rank = lambda rank: next(one for one in (1, 8, 16, 32, 64, 128, 256, 320, 512) if rank <= one)
    sys.modules |= {package.__name__: package, module.__name__: module}
    validate_config(config, use_reference_policy=need_reference_policy(config), use_critic=need_critic(config))
    for name in ("actor", "rollout", "model", "actor.optim", "actor.fsdp_config"):
        omega_conf_to_dataclass(OmegaConf.select(config, f"actor_rollout_ref.{name}"))
    omega_conf_to_dataclass(config.algorithm)


async def score(config: OmegaConf, tokenizer, rows: list[dict], texts: list[str]) -> list[dict[str, object]]:
    """Through verl's own worker and manager, all at once: each text as it was decoded, its reward, what is logged."""
    from verl.experimental.reward_loop import RewardLoopWorker

    worker = RewardLoopWorker(config)
    answers = [[*tokenizer(text, add_special_tokens=False).input_ids, tokenizer.eos_token_id] for text in texts]
    width = max(map(len, answers))
    responses = torch.tensor([one + [tokenizer.pad_token_id] * (width - len(one)) for one in answers])
    mask = torch.tensor([[1] * len(one) + [0] * (width - len(one)) for one in answers])
    prompts = torch.ones(len(rows), 3, dtype=torch.long)
    tensors = TensorDict(
        {"prompts": prompts, "responses": responses, "attention_mask": torch.cat([prompts, mask], 1)}, batch_size=len(rows)
    )
    collated = collate_fn(rows)
    collated.pop("dummy_tensor")
    found = await worker.compute_score_batch(DataProto(batch=tensors, non_tensor_batch=collated))
    return [
        {
            "text": tokenizer.decode(ids, skip_special_tokens=True),
            "reference": row["reward_model"]["ground_truth"],
            "question": row["extra_info"]["question"],
            "reward": float(one["reward_score"]),
            "logged": {name: float(value) for name, value in one["reward_extra_info"].items()},
        }
        for ids, row, one in zip(answers, rows, found, strict=True)
    ]


def largest_differences(settings: list[dict]) -> list[dict[str, float]]:
    """verl's loss and advantage under each settings' configuration against TRL's formulas (trl 1.16, grpo_trainer.py)."""
    import batch_advantage  # noqa: F401 registers the estimator
    from verl.trainer.ppo.core_algos import get_adv_estimator_fn, get_policy_loss_fn
    from verl.trainer.ppo.rollout_corr_helper import compute_rollout_correction_weights
    from verl.workers.config import FSDPActorConfig, FSDPEngineConfig
    from verl.workers.config.actor import PolicyLossConfig

    from ecg_grpo.settings.grpo import GRPOSettings
    from ecg_grpo.settings.reward import RewardInUse
    from ecg_grpo.verl_export import Place, Prompts, verl_configuration

    torch.manual_seed(0)
    rows, length = 16, 6
    old = -torch.rand(rows, length)
    new, sampled = old + 0.6 * torch.randn(rows, length), old + 0.5 * torch.randn(rows, length)
    mask = (torch.arange(length)[None] < torch.randint(1, length + 1, (rows, 1))).float()
    rewards = torch.rand(rows)
    found = []
    for one in settings:
        grpo = GRPOSettings.model_validate(one)
        made = verl_configuration(
            grpo, RewardInUse(), Prompts(rows, 9), Place(Path("/folder"), Path("/model"), Path("/scripts")), "a-run"
        )
        written, algorithm = made["actor_rollout_ref"]["actor"], made["algorithm"]
        names = ("clip_ratio", "clip_ratio_low", "clip_ratio_high", "clip_ratio_c", "loss_agg_mode", "loss_scale_factor")
        actor = FSDPActorConfig(
            rollout_n=8,
            ppo_micro_batch_size_per_gpu=4,
            fsdp_config=FSDPEngineConfig(),
            policy_loss=PolicyLossConfig(**written["policy_loss"]),
            **{name: written[name] for name in names},
        )
        actor.global_batch_info.update(
            dp_size=1, batch_num_tokens=int(mask.sum()), global_batch_size=rows, loss_scale_factor=actor.loss_scale_factor
        )
        correction = algorithm["rollout_correction"]
        weights, _ = compute_rollout_correction_weights(
            old - sampled, mask, correction["rollout_is"], correction["rollout_is_threshold"]
        )
        advantages, _ = get_adv_estimator_fn(algorithm["adv_estimator"])(
            token_level_rewards=torch.cat([torch.zeros(rows, length - 1), rewards[:, None]], 1),
            response_mask=mask,
            index=np.array([f"u{index // 8}" for index in range(rows)], dtype=object),
            norm_adv_by_std_in_grpo=algorithm["norm_adv_by_std_in_grpo"],
        )
        loss = get_policy_loss_fn(written["policy_loss"]["loss_mode"])(
            old_log_prob=old,
            log_prob=new,
            advantages=advantages,
            response_mask=mask,
            loss_agg_mode=actor.loss_agg_mode,
            config=actor,
            rollout_is_weights=weights,
        )[0]
        expected = trl_advantages(grpo, rewards)
        found.append(
            {
                "advantage": float((advantages - expected[:, None] * mask).abs().max()),
                "loss": float((loss - trl_loss(grpo, old, new, sampled, mask, advantages)).abs()),
                "size": float(loss.abs()),
            }
        )
    return found


def trl_advantages(grpo, rewards: torch.Tensor) -> torch.Tensor:
    """Rewards less their group's mean, over what `scale_rewards` names."""
    groups = rewards.view(-1, 8)
    centred = rewards - groups.mean(1).repeat_interleave(8)
    spread = {"group": groups.std(1).repeat_interleave(8), "batch": rewards.std(), "none": None}[grpo.scale_rewards]
    return centred if spread is None else centred / (spread + 1e-4)


def trl_loss(grpo, old, new, sampled, mask, advantages: torch.Tensor) -> torch.Tensor:
    """As `GRPOTrainer._compute_loss` writes it."""

    def mean(values: torch.Tensor) -> torch.Tensor:
        return (values * mask).sum(-1, keepdim=True) / mask.sum(-1, keepdim=True)

    log_ratio = mean(new - old) if grpo.importance_sampling_level == "sequence" else new - old
    ratio = torch.exp(log_ratio)
    high = grpo.epsilon if grpo.epsilon_high is None else grpo.epsilon_high
    if grpo.loss_type == "cispo":
        each = -ratio.clamp(max=high) * advantages * new
    elif grpo.loss_type == "sapo":
        slope = torch.where(advantages > 0, 1.0, 1.05)
        each = -torch.sigmoid(slope * (ratio - 1)) * 4 / slope * advantages
    else:
        bounded = ratio if grpo.delta is None else ratio.clamp(max=grpo.delta)
        each = -torch.min(bounded * advantages, ratio.clamp(1 - grpo.epsilon, 1 + high) * advantages)
    level, _, what = grpo.vllm_importance_sampling_mode.partition("_")
    difference = (old - sampled) * mask
    correction = torch.exp(difference.sum(-1, keepdim=True) if level == "sequence" else difference)
    cap = grpo.vllm_importance_sampling_clip_max
    each = each * (correction.masked_fill(correction > cap, 0.0) if what == "mask" else correction.clamp(max=cap))
    if grpo.loss_type in ("grpo", "sapo"):
        return mean(each).mean()
    return (each * mask).sum() / (
        mask.numel() / mask.size(1) * grpo.max_completion_length if grpo.loss_type == "dr_grpo" else mask.sum()
    )


if __name__ == "__main__":
    mode, first, *folders = sys.argv[1:]
    with contextlib.redirect_stdout(io.StringIO()):
        given = json.loads(first)
        answer = largest_differences(given) if mode == "losses" else [look_at(Path(name), given) for name in folders]
    print(json.dumps(answer))
