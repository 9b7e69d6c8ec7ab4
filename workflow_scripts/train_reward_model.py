"""Trains a reward model: of two answers to a question, the better one is to have the higher score.

The head gives one number for prompt and answer; the loss is that of Bradley and Terry, -log sigmoid(score of the better - score
of the worse). The adapter, or the whole model, starts from the base model. TRL trains, PEFT adapts. The result is one
sequence-classification model in float32, and a file that says how often it is right on pairs that it has not seen.

    python workflow_scripts/train_reward_model.py --help
"""

from __future__ import annotations

import argparse
import math
import shutil
from pathlib import Path

from ecg_grpo.checkpoints import scratch_directory
from ecg_grpo.errors import InputError
from ecg_grpo.files import model_directory, new_model_directory, write_json
from ecg_grpo.settings.reward_model import RewardTrainingSettings
from ecg_grpo.stage import Stage, StageParser
from ecg_grpo.tables import evenly, read_rows

CHECKED = 8
"""Held-out texts on which the saved model is compared with base and adapter."""

parser = StageParser("train_reward_model", __doc__)
parser.add_input("--train", help="pairs to train on (parquet)")
parser.add_input("--validation", help="held-out pairs (parquet)")
parser.add_input("--base-model", help="manifest.json of the base model")
parser.add_input("--launch-files", nargs="*", default=[], metavar="FILE", help="configuration of DeepSpeed, if any")
parser.add_output("--model", help="manifest.json in the directory of the reward model to write")
parser.add_output("--accuracy", help="accuracy on the held-out pairs to write (JSON)")
parser.add_output("--training-log", help="JSON lines to write, one a step")
parser.add_argument("--scratch", type=Path, required=True, help="folder for checkpoints to resume from")
parser.add_argument("--tensorboard", type=Path, help="folder for TensorBoard's event files")
parser.add_settings("reward_model.training")


def train_reward_model(arguments: argparse.Namespace, stage: Stage) -> None:
    """Trains from the last checkpoint, if there is one, delivers the model and measures it."""
    from trl import RewardConfig

    from ecg_grpo.device import prepare_device
    from ecg_grpo.guards import Guards
    from ecg_grpo.reward_accuracy import accuracy_report
    from ecg_grpo.reward_model import RewardModel
    from ecg_grpo.reward_training import LengthGroupedRewardTrainer, preference_dataset, require_all, save_reward_model
    from ecg_grpo.training import (
        deliver,
        join_processes,
        leave_processes,
        load_for_training,
        lora_config,
        refuse_missing_packages,
        run_trainer,
        trainer_arguments,
    )
    from ecg_grpo.training_log import TrainingLog

    settings = RewardTrainingSettings.from_json(arguments.settings)
    refuse_missing_packages(settings)
    pairs = {name: read_rows(getattr(arguments, name)) for name in ("train", "validation")}
    for name, rows in pairs.items():
        if not rows:
            raise InputError(
                getattr(arguments, name), "there is no pair", "Name more reward_model.pairs.kinds, or add records."
            )
    base = model_directory(arguments.base_model)
    dtype = prepare_device(settings.precision, stage)
    inputs = [arguments.train, arguments.validation, arguments.base_model, *arguments.launch_files]
    scratch = scratch_directory(arguments.scratch, __file__, arguments.settings, str(dtype), inputs)
    steps = settings.steps(len(pairs["train"]))
    judged = evenly(pairs["validation"], settings.validation_pairs)
    join_processes(settings)
    trainer_config = RewardConfig(
        **trainer_arguments(settings, scratch, dtype, scores=True),
        disable_dropout=False,  # lora_dropout says how much there is
        per_device_eval_batch_size=settings.per_device_train_batch_size,
        eval_on_start=True,
        eval_strategy="steps",
        eval_steps=math.ceil(steps / settings.evaluations),
    )
    model, tokenizer = load_for_training(base, dtype, settings, scores=True)
    shown = {
        "loss": "loss",
        "accuracy": "accuracy",
        "validation_loss": "validation loss",
        "eval_accuracy": "validation accuracy",
    }
    log = TrainingLog(stage, scratch, shown, Guards(None), arguments.tensorboard)
    trainer = LengthGroupedRewardTrainer(
        model=model,
        processing_class=tokenizer,
        peft_config=lora_config(settings.lora, scores=True),
        train_dataset=preference_dataset(pairs["train"]),
        eval_dataset=preference_dataset(judged),
        callbacks=[log],
        args=trainer_config,
    )
    require_all(arguments.train, len(trainer.train_dataset), len(pairs["train"]))
    require_all(arguments.validation, len(trainer.eval_dataset), len(judged))
    final = run_trainer(trainer, scratch, steps, stage)
    delivers = trainer.is_world_process_zero()
    trainer.accelerator.free_memory()  # what follows loads the model twice more
    del model, trainer
    if delivers:
        held_out = pairs["validation"]
        checked = [(pair["prompt"], pair[name]) for pair in evenly(held_out, CHECKED // 2) for name in ("chosen", "rejected")]
        with new_model_directory(arguments.model.parent) as directory:
            stage.facts["checks"] = save_reward_model(base, final, directory, checked)
        reward_model = RewardModel(arguments.model.parent, 2 * settings.per_device_train_batch_size)
        prompts = [pair["prompt"] for pair in held_out]
        scores = {name: reward_model.raw_scores(prompts, [pair[name] for pair in held_out]) for name in ("chosen", "rejected")}
        report = accuracy_report(held_out, **scores)
        stage.facts["held_out"] = {name: report["all"][name] for name in ("pairs", "accuracy", "low", "high", "longer_wins")}
        stage.say(f"{stage.name}: {stage.facts['held_out']}")
        write_json(arguments.accuracy, report)
        deliver(log.file, arguments.training_log)
        shutil.rmtree(scratch)
    leave_processes()


if __name__ == "__main__":
    parser.run(train_reward_model)
