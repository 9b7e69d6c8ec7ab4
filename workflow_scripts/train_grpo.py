"""Reinforcement learning with GRPO, from the merged SFT model, on the same prompts as SFT.

For every prompt a group of completions is sampled and scored against the reference answer; what scores above its group's
mean becomes more likely (Shao et al. 2024, arXiv 2402.03300). TRL trains; vLLM or transformers samples; DeepSpeed shards
when the launch configuration says so. Every sampled completion is kept with its rewards.

    python workflow_scripts/train_grpo.py --help
    accelerate launch --multi_gpu --num_processes 8 workflow_scripts/train_grpo.py ...
"""

from __future__ import annotations

import argparse
import shutil
from contextlib import nullcontext
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from ecg_grpo.batches import require_one_grpo_batch
from ecg_grpo.checkpoints import scratch_directory
from ecg_grpo.files import model_directory
from ecg_grpo.fingerprint import code_fingerprint
from ecg_grpo.reward_arguments import add_reward_arguments, load_configured_mix
from ecg_grpo.settings.grpo import GRPOSettings
from ecg_grpo.stage import Stage, StageParser
from ecg_grpo.tables import evenly, read_rows

if TYPE_CHECKING:
    from transformers import TrainerState

parser = StageParser("train_grpo", __doc__)
parser.add_input("--train", help="prompts to train on (parquet)")
parser.add_input("--validation", help="validation split (parquet)")
parser.add_input("--sft-model", help="manifest.json of the merged SFT model")
parser.add_input("--launch-files", nargs="*", default=[], metavar="FILE", help="configuration of DeepSpeed, if any")
parser.add_output("--checkpoint", help="manifest.json in the checkpoint directory to write")
parser.add_output("--training-log", help="JSON lines to write, one a step")
parser.add_output("--completions", help="every sampled completion with its rewards (parquet) to write")
parser.add_argument("--scratch", type=Path, required=True, help="folder for checkpoints to resume from")
parser.add_argument("--tensorboard", type=Path, help="folder for TensorBoard's event files")
add_reward_arguments(parser)
parser.add_settings("grpo")

ROLLOUTS: dict[str, dict[str, object]] = {
    "transformers": {"use_vllm": False},
    "vllm-colocate": {"use_vllm": True, "vllm_mode": "colocate"},
    "vllm-server": {"use_vllm": True, "vllm_mode": "server"},
}

METRICS_MODULE = Path(__file__).parent / "ecg_grpo" / "metrics.py"

SAMPLED_FROM_THE_POLICY = {"top_p": 1.0, "top_k": 0, "min_p": None, "repetition_penalty": 1.0}
"""Stated, since a model's generation_config.json decides wherever nothing is said; anything else biases the ratio."""


def train_grpo(arguments: argparse.Namespace, stage: Stage) -> None:
    """Trains from the last checkpoint, if there is one, and delivers checkpoint, log and completions."""
    from ecg_grpo.rollouts import prepare_rollouts, vllm_server
    from ecg_grpo.training import leave_processes, refuse_missing_packages

    settings = GRPOSettings.from_json(arguments.settings)
    refuse_missing_packages(settings)
    prepare_rollouts(settings)
    rows = read_rows(arguments.train, "id", "prompt", "question", "answer", "prompt_tokens")
    require_one_grpo_batch(arguments.train, len(rows), settings.prompts_per_step)
    longest = max(row.pop("prompt_tokens") for row in rows) + settings.max_completion_length
    model = model_directory(arguments.sft_model)
    own_server = settings.rollout == "vllm-server" and settings.vllm_server_base_url is None and stage.is_first_process
    with vllm_server(model, settings, longest) if own_server else nullcontext(settings.vllm_server_base_url) as server:
        _train(arguments, stage, settings, model, rows, {"vllm_max_model_length": longest, "vllm_server_base_url": server})
    if not settings.uses_vllm:
        leave_processes()


def what_it_is_told(arguments: argparse.Namespace, settings: GRPOSettings) -> str:
    """Section, reward and, if it validates, the metrics' code: what checkpoints belong to besides inputs and own code."""
    measured_by = code_fingerprint(METRICS_MODULE, METRICS_MODULE.parents[1]) if settings.validation else ""
    return arguments.settings + arguments.reward + measured_by


def _train(
    arguments: argparse.Namespace, stage: Stage, settings: GRPOSettings, start: Path, rows: list[dict], vllm: dict[str, object]
) -> None:
    from datasets import Dataset
    from trl import GRPOConfig

    from ecg_grpo.completions import gather_completions
    from ecg_grpo.device import prepare_device
    from ecg_grpo.guards import Guards
    from ecg_grpo.model_rewards import ReferenceProbabilityReward
    from ecg_grpo.policy_trainer import PolicyTrainer
    from ecg_grpo.rewards import trl_rewards
    from ecg_grpo.training import (
        deliver,
        deliver_checkpoint,
        join_processes,
        load_for_training,
        lora_config,
        run_trainer,
        trainer_arguments,
    )
    from ecg_grpo.training_log import TrainingLog

    dtype = prepare_device(settings.precision, stage)
    inputs = [arguments.train, arguments.validation, arguments.sft_model, *arguments.launch_files, *arguments.reward_model]
    inputs += arguments.embedding_model_files
    mix = load_configured_mix(arguments, stage, arguments.sft_model)
    scratch = scratch_directory(arguments.scratch, __file__, what_it_is_told(arguments, settings), str(dtype), inputs)
    validation, evaluated, metric = settings.validation, None, None
    while_training: dict[str, object] = {"eval_strategy": "no"}
    if validation is not None:
        # By name, so that a change of the metrics' code is a change of the training only where it is used; see the rule.
        metric = (validation.metric, import_module("ecg_grpo.metrics").METRICS[validation.metric].score)
        batch = validation.per_device_eval_batch_size
        available = read_rows(arguments.validation, "id", "prompt", "question", "answer")
        evaluated = Dataset.from_list(evenly(available, validation.prompts, batch * settings.launch.processes))
        while_training = {
            "eval_strategy": "steps",
            "eval_steps": validation.eval_steps,
            "eval_on_start": True,
            "per_device_eval_batch_size": batch,
            "num_generations_eval": 1,
            "load_best_model_at_end": settings.deliver == "best",
            "metric_for_best_model": f"eval_{validation.metric}",
            "greater_is_better": True,
        }
    rewards = trl_rewards(mix, metric)
    shown = {f"rewards/{name}/mean": name for name in mix.parts}
    log = TrainingLog(
        stage,
        scratch,
        # The most telling first: a narrow terminal cuts the rest off, the log has all.
        {"reward": "reward", "completions/mean_length": "length", "kl": "KL", "entropy": "entropy"}
        | {"tokens_per_second": "tokens/s"}
        | shown
        | ({} if validation is None else {f"eval_{validation.metric}": f"validation {validation.metric}"}),
        Guards(settings.guards),
        arguments.tensorboard,
    )
    join_processes(settings)
    trainer_config = GRPOConfig(
        **trainer_arguments(settings, scratch, dtype),
        **while_training,
        **ROLLOUTS[settings.rollout],
        **vllm,
        **SAMPLED_FROM_THE_POLICY,
        reward_weights=[weight for _, weight in rewards],
        log_completions=True,
        num_completions_to_print=0,
    )
    model, tokenizer = load_for_training(start, dtype, settings)
    trainer = PolicyTrainer(
        model=model,
        processing_class=tokenizer,
        peft_config=lora_config(settings.lora),
        reward_funcs=[function for function, _ in rewards],
        train_dataset=Dataset.from_list(rows),
        eval_dataset=evaluated,
        callbacks=[log],
        args=trainer_config,
        dynamic_sampling=settings.dynamic_sampling,
        rounds=settings.dynamic_sampling_rounds,
    )
    for part in mix.models.values():
        if isinstance(part, ReferenceProbabilityReward):
            part.follow(trainer.reference_probabilities)
    steps = settings.steps(len(rows))
    final = run_trainer(trainer, scratch, steps, stage)
    if trainer.is_world_process_zero():
        stage.facts |= delivered(settings, trainer.state, steps)
        stage.say(f"delivering the {settings.deliver} checkpoint: {stage.facts}")
        deliver(log.file, arguments.training_log)
        gather_completions(scratch / "completions", mix.parts, settings.num_iterations, arguments.completions)
        deliver_checkpoint(final, arguments.checkpoint)
        shutil.rmtree(scratch)


def delivered(settings: GRPOSettings, state: TrainerState, steps: int) -> dict[str, object]:
    """Which checkpoint the stage delivers, and how it stands to the SFT model if that was measured."""
    if settings.validation is None:
        return {"delivered": f"checkpoint-{steps}"}
    metric = f"eval_{settings.validation.metric}"
    measured = {entry["step"]: entry[metric] for entry in state.log_history if metric in entry}
    step = steps
    if settings.deliver == "best":
        step = int(str(state.best_model_checkpoint).rsplit("-", 1)[1])
    return {"delivered": f"checkpoint-{step}", metric: measured.get(step), f"sft_{metric}": measured.get(0)}


if __name__ == "__main__":
    parser.run(train_grpo)
