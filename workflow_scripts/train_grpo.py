"""Reinforcement learning with GRPO, from the merged SFT model, on the same prompts as SFT.

For every prompt a group of completions is sampled and scored against the reference answer; what scores above its group's
mean becomes more likely (Shao et al. 2024, arXiv 2402.03300). TRL trains; vLLM or transformers samples; DeepSpeed shards
when the launch configuration says so. Every sampled completion is kept with its rewards.

    python workflow_scripts/train_grpo.py --help
    accelerate launch --config_file config/accelerate/zero2_offload.yaml workflow_scripts/train_grpo.py ...
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from ecg_grpo.batches import require_one_grpo_batch
from ecg_grpo.checkpoints import scratch_directory
from ecg_grpo.files import model_directory, new_model_directory
from ecg_grpo.settings.grpo import GRPOSettings
from ecg_grpo.stage import Stage, StageParser
from ecg_grpo.tables import read_rows

parser = StageParser("train_grpo", __doc__)
parser.add_input("--train", help="training split (parquet)")
parser.add_input("--sft-model", help="manifest.json of the merged SFT model")
parser.add_input(
    "--launch-files", nargs="*", default=[], metavar="FILE", help="configuration of accelerate and DeepSpeed, if any"
)
parser.add_output("--checkpoint", help="manifest.json in the checkpoint directory to write")
parser.add_output("--training-log", help="JSON lines to write, one a step")
parser.add_output("--completions", help="every sampled completion with its rewards (parquet) to write")
parser.add_argument("--scratch", type=Path, required=True, help="folder for checkpoints to resume from")
parser.add_settings("grpo")

ROLLOUTS: dict[str, dict[str, object]] = {
    "transformers": {"use_vllm": False},
    "vllm-colocate": {"use_vllm": True, "vllm_mode": "colocate"},
}


def train_grpo(arguments: argparse.Namespace, stage: Stage) -> None:
    """Trains from the last checkpoint, if there is one, and delivers checkpoint, log and completions."""
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    from ecg_grpo.completions import gather_completions
    from ecg_grpo.device import prepare_device
    from ecg_grpo.rewards import trl_rewards
    from ecg_grpo.training import TrainingLog, deliver, deliver_adapter_config, load_for_training, lora_config, resume_point

    settings = GRPOSettings.from_json(arguments.settings)
    rows = read_rows(arguments.train, "id", "prompt", "question", "answer")
    require_one_grpo_batch(arguments.train, len(rows), settings.prompts_per_step)
    dtype = prepare_device(settings.precision, stage)
    inputs = [arguments.train, arguments.sft_model, *arguments.launch_files]
    scratch = scratch_directory(arguments.scratch, __file__, arguments.settings, str(dtype), inputs)
    model, tokenizer, machine_arguments = load_for_training(
        model_directory(arguments.sft_model), dtype, full_parameter=settings.lora is None
    )
    log = TrainingLog(stage, scratch, {"reward": "reward", "completions/mean_length": "length", "kl": "KL"})
    trainer = GRPOTrainer(
        model=model,
        processing_class=tokenizer,
        peft_config=lora_config(settings.lora) if settings.lora else None,
        reward_funcs=trl_rewards(settings.rewards),
        train_dataset=Dataset.from_list(rows),
        callbacks=[log],
        args=GRPOConfig(
            output_dir=str(scratch),
            reward_weights=list(settings.rewards.values()),
            log_completions=True,
            num_completions_to_print=0,
            **ROLLOUTS[settings.rollout],
            **settings.model_dump(exclude={"rewards", "lora", "rollout", "precision", "launch"}, exclude_none=True),
            **machine_arguments,
        ),
    )
    trainer.train(resume_from_checkpoint=resume_point(scratch, settings.steps(len(rows)), stage))
    final = scratch / "final"
    trainer.save_model(str(final))
    if trainer.is_world_process_zero():
        deliver(log.file, arguments.training_log)
        gather_completions(scratch / "completions", list(settings.rewards), settings.num_iterations, arguments.completions)
        with new_model_directory(arguments.checkpoint.parent) as directory:
            for file in final.iterdir():
                if file.name == "adapter_config.json":
                    deliver_adapter_config(file, directory / file.name)
                elif file.suffix in (".json", ".safetensors"):
                    shutil.copyfile(file, directory / file.name)
        shutil.rmtree(scratch)


if __name__ == "__main__":
    parser.run(train_grpo)
