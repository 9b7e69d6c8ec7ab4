"""Supervised fine-tuning: an adapter, or the whole model, learns the reference answers.

The loss covers the answer and its end token, never the prompt. Before the first step the validation loss is measured
once: with a fresh adapter that is the base model's own. TRL trains, PEFT adapts, DeepSpeed shards when the launch
configuration says so.

    python workflow_scripts/train_sft.py --help
    accelerate launch --multi_gpu --num_processes 8 workflow_scripts/train_sft.py ...
"""

from __future__ import annotations

import argparse
import math
import shutil
from pathlib import Path

from ecg_grpo.batches import require_one_grpo_batch
from ecg_grpo.checkpoints import scratch_directory
from ecg_grpo.errors import InputError
from ecg_grpo.files import model_directory
from ecg_grpo.settings.sft import SFTSettings
from ecg_grpo.stage import Stage, StageParser
from ecg_grpo.supervised import Example, reasoned_examples, supervised_example
from ecg_grpo.tables import read_rows

parser = StageParser("train_sft", __doc__)
parser.add_input("--train", help="training split (parquet)")
parser.add_input("--validation", help="validation split (parquet)")
parser.add_input("--base-model", help="manifest.json of the base model")
parser.add_input(
    "--reasonings",
    nargs="*",
    default=[],
    metavar="FILE",
    help="kept reasonings of both splits, training first (parquet), if any",
)
parser.add_input("--launch-files", nargs="*", default=[], metavar="FILE", help="configuration of DeepSpeed, if any")
parser.add_output("--checkpoint", help="manifest.json in the directory of the adapter, or whole model, to write")
parser.add_output("--training-log", help="JSON lines to write, one a step")
parser.add_argument("--scratch", type=Path, required=True, help="folder for checkpoints to resume from")
parser.add_argument("--tensorboard", type=Path, help="folder for TensorBoard's event files")
parser.add_argument(
    "--grpo-prompts-per-step", type=int, default=0, help="refuse a training split that GRPO could not use afterwards"
)
parser.add_settings("sft")


def train_sft(arguments: argparse.Namespace, stage: Stage) -> None:
    """Trains from the last checkpoint, if there is one, and delivers the adapter or the model."""
    from datasets import Dataset
    from trl import SFTConfig

    from ecg_grpo.device import prepare_device
    from ecg_grpo.guards import Guards
    from ecg_grpo.length_grouping import LengthGroupedSFTTrainer
    from ecg_grpo.training import (
        deliver,
        deliver_checkpoint,
        join_processes,
        leave_processes,
        load_for_training,
        lora_config,
        refuse_missing_packages,
        run_trainer,
        trainer_arguments,
    )
    from ecg_grpo.training_log import TrainingLog

    settings = SFTSettings.from_json(arguments.settings)
    refuse_missing_packages(settings)
    require_one_grpo_batch(arguments.train, len(read_rows(arguments.train, "id")), arguments.grpo_prompts_per_step)
    dtype = prepare_device(settings.precision, stage)
    inputs = [arguments.train, arguments.validation, arguments.base_model, *arguments.reasonings, *arguments.launch_files]
    scratch = scratch_directory(arguments.scratch, __file__, arguments.settings, str(dtype), inputs)
    splits = read_examples(arguments, settings, stage)
    steps = settings.steps(len(splits["train"]))
    join_processes(settings)
    trainer_config = SFTConfig(
        **trainer_arguments(settings, scratch, dtype),
        completion_only_loss=True,
        packing=False,  # without FlashAttention, records in one row would see each other
        per_device_eval_batch_size=settings.per_device_train_batch_size,
        eval_on_start=True,
        eval_strategy="steps",
        eval_steps=math.ceil(steps / settings.evaluations),
    )
    model, tokenizer = load_for_training(model_directory(arguments.base_model), dtype, settings)
    shown = {"loss": "loss", "validation_loss": "validation loss", "tokens_per_second": "tokens/s"}
    log = TrainingLog(stage, scratch, shown, Guards(None), arguments.tensorboard)
    trainer = LengthGroupedSFTTrainer(
        model=model,
        processing_class=tokenizer,
        peft_config=lora_config(settings.lora),
        train_dataset=Dataset.from_list(splits["train"]),
        eval_dataset=Dataset.from_list(splits["validation"]),
        callbacks=[log],
        args=trainer_config,
    )
    for name, dataset in (("train", trainer.train_dataset), ("validation", trainer.eval_dataset)):
        if len(dataset) != len(splits[name]):
            raise InputError(
                getattr(arguments, name),
                f"the trainer kept {len(dataset)} of {len(splits[name])} records: some prompts fill sft.max_length",
                "Raise sft.max_length or lower data.max_prompt_tokens.",
            )
    final = run_trainer(trainer, scratch, steps, stage)
    if trainer.is_world_process_zero():
        deliver(log.file, arguments.training_log)
        deliver_checkpoint(final, arguments.checkpoint)
        shutil.rmtree(scratch)
    leave_processes()


def read_examples(arguments: argparse.Namespace, settings: SFTSettings, stage: Stage) -> dict[str, list[Example]]:
    """What is learned and what the loss is measured on: all records, or with reasonings those that have one.

    Raises:
        InputError: too few have one.
    """
    files = {"train": arguments.train, "validation": arguments.validation}
    splits = {name: read_rows(file, "id", "prompt", "answer") for name, file in files.items()}
    if not arguments.reasonings:
        return {name: [supervised_example(row["prompt"], row["answer"]) for row in rows] for name, rows in splits.items()}
    fewest = {"train": settings.sequences_per_step, "validation": 1}
    examples = {}
    for (name, rows), file in zip(splits.items(), arguments.reasonings, strict=True):
        found = {row["id"]: row["reasoning"] for row in read_rows(file, "id", "reasoning")}
        examples[name] = reasoned_examples(file, rows, found, fewest[name])
        stage.facts[f"{name}_records_without_reasoning"] = len(rows) - len(examples[name])
        stage.say(
            f"{stage.name}: {len(examples[name])} of {len(rows)} {name} records have a reasoning; the others are left out"
        )
    return examples


if __name__ == "__main__":
    parser.run(train_sft)
