"""Supervised fine-tuning: a LoRA adapter learns the reference answers.

The loss covers the answer and its end token, never the prompt. Before the first step the validation loss is measured
once: with a fresh adapter that is the base model's own. TRL trains, PEFT adapts.

    python workflow_scripts/train_sft.py --help
    accelerate launch --num_processes 8 workflow_scripts/train_sft.py ...
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
from ecg_grpo.tables import read_rows

parser = StageParser("train_sft", __doc__)
parser.add_input("--train", help="training split (parquet)")
parser.add_input("--validation", help="validation split (parquet)")
parser.add_input("--base-model", help="manifest.json of the base model")
parser.add_input(
    "--launch-files", nargs="*", default=[], metavar="FILE", help="configuration of accelerate and DeepSpeed, if any"
)
parser.add_output("--adapter", help="adapter_model.safetensors to write")
parser.add_output("--adapter-config", help="adapter_config.json to write")
parser.add_output("--training-log", help="JSON lines to write, one a step")
parser.add_argument("--scratch", type=Path, required=True, help="folder for checkpoints to resume from")
parser.add_argument(
    "--grpo-prompts-per-step", type=int, default=0, help="refuse a training split that GRPO could not use afterwards"
)
parser.add_settings("sft")


def train_sft(arguments: argparse.Namespace, stage: Stage) -> None:
    """Trains from the last checkpoint, if there is one, and delivers the adapter."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    from ecg_grpo.device import prepare_device
    from ecg_grpo.training import TrainingLog, deliver, deliver_adapter_config, load_for_training, lora_config, resume_point

    settings = SFTSettings.from_json(arguments.settings)
    require_one_grpo_batch(arguments.train, len(read_rows(arguments.train, "id")), arguments.grpo_prompts_per_step)
    dtype = prepare_device(settings.precision, stage)
    inputs = [arguments.train, arguments.validation, arguments.base_model, *arguments.launch_files]
    scratch = scratch_directory(arguments.scratch, __file__, arguments.settings, str(dtype), inputs)
    model, tokenizer, machine_arguments = load_for_training(model_directory(arguments.base_model), dtype, full_parameter=False)
    splits = {
        name: [
            {"prompt": row["prompt"], "completion": [{"role": "assistant", "content": row["answer"]}]}
            for row in read_rows(getattr(arguments, name), "prompt", "answer")
        ]
        for name in ("train", "validation")
    }
    steps = settings.steps(len(splits["train"]))
    checkpoint = resume_point(scratch, steps, stage)
    log = TrainingLog(stage, scratch, {"loss": "loss", "validation_loss": "validation loss"})
    trainer = SFTTrainer(
        model=model,
        processing_class=tokenizer,
        peft_config=lora_config(settings.lora),
        train_dataset=Dataset.from_list(splits["train"]),
        eval_dataset=Dataset.from_list(splits["validation"]),
        callbacks=[log],
        args=SFTConfig(
            output_dir=str(scratch),
            completion_only_loss=True,
            packing=False,
            max_length=settings.max_length,
            per_device_eval_batch_size=settings.per_device_train_batch_size,
            eval_on_start=checkpoint is None,
            eval_strategy="steps",
            eval_steps=math.ceil(steps / settings.evaluations),
            save_steps=settings.save_steps,
            **settings.model_dump(
                include={
                    *(
                        "num_train_epochs",
                        "per_device_train_batch_size",
                        "gradient_accumulation_steps",
                        "learning_rate",
                    ),
                    *("lr_scheduler_type", "warmup_steps", "weight_decay", "max_grad_norm", "gradient_checkpointing"),
                    "seed",
                }
            ),
            **machine_arguments,
        ),
    )
    for name, dataset in (("train", trainer.train_dataset), ("validation", trainer.eval_dataset)):
        if len(dataset) != len(splits[name]):
            raise InputError(
                getattr(arguments, name),
                f"the trainer kept {len(dataset)} of {len(splits[name])} records: some prompts fill sft.max_length",
                "Raise sft.max_length or lower data.max_prompt_tokens.",
            )
    trainer.train(resume_from_checkpoint=checkpoint)
    final = scratch / "final"
    trainer.save_model(str(final))
    if trainer.is_world_process_zero():
        deliver(log.file, arguments.training_log)
        deliver_adapter_config(final / "adapter_config.json", arguments.adapter_config)
        deliver(final / "adapter_model.safetensors", arguments.adapter)
        shutil.rmtree(scratch)


if __name__ == "__main__":
    parser.run(train_sft)
