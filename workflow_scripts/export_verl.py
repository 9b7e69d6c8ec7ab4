"""A run's GRPO for verl: the prompts, the reward and the configuration, in a folder with the command that trains.

verl reads a setting that it does not know and says nothing, so what has no counterpart there is refused here.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import yaml

from ecg_grpo.batches import require_one_grpo_batch
from ecg_grpo.errors import InputError
from ecg_grpo.files import model_directory, new_file, read_json, sha256_of
from ecg_grpo.pages import write_markdown
from ecg_grpo.settings.grpo import GRPOSettings
from ecg_grpo.settings.reward import RewardInUse
from ecg_grpo.stage import Stage, StageParser
from ecg_grpo.tables import evenly, read_rows, write_table
from ecg_grpo.verl_export import (
    COLUMNS,
    VERL_ROWS,
    VERSION,
    Place,
    Prompts,
    differences,
    verl_configuration,
    verl_rows,
    without_counterpart,
)

parser = StageParser("export_verl", __doc__)
parser.add_input("--train", help="prompts to train on (parquet)")
parser.add_input("--validation", help="validation split (parquet)")
parser.add_input("--sft-model", help="manifest.json of the merged SFT model, where the training starts")
parser.add_input("--launch-files", nargs="*", default=[], metavar="FILE", help="configuration of DeepSpeed, if any")
parser.add_input("--programs", nargs="+", metavar="FILE", help="files of the folder that are copied as they are")
parser.add_input("--readme-template", help="the README's Jinja template")
parser.add_output("--verl-train", help="the training prompts for verl (parquet) to write")
parser.add_output("--verl-validation", help="the validation prompts for verl (parquet) to write")
parser.add_output("--configuration", help="verl's configuration (YAML) to write")
parser.add_output("--copies", nargs="+", metavar="FILE", help="where the copied files go, in the same order")
parser.add_output("--readme", help="the README to write")
parser.add_argument("--run", required=True, help="name of the run")
parser.add_argument(
    "--reward", default="{}", metavar="JSON", help="section `reward` of the configuration and its key `reasoning`, as JSON"
)
parser.add_settings("grpo")

HEADER = (
    "# verl {version}: GRPO of run {run}. README.md beside this file has the command. Overrides on the command line are safer\n"
)
HEADER += "# than edits: there Hydra refuses a key that does not exist.\n"


def export_verl(arguments: argparse.Namespace, stage: Stage) -> None:
    """Refuses what verl cannot do, reads the prompts, writes the folder."""
    grpo = GRPOSettings.from_json(arguments.settings)
    reward = RewardInUse.from_json(arguments.reward, "--reward")
    if missing := without_counterpart(grpo, reward):
        raise InputError(
            "configuration",
            f"verl {VERSION} has no counterpart of {'; '.join(missing)}",
            "Change it for this run, or train with the workflow itself.",
        )
    train = read_rows(arguments.train, *COLUMNS)
    validation = read_rows(arguments.validation, *COLUMNS)
    require_one_grpo_batch(arguments.train, len(train), grpo.prompts_per_step)
    if grpo.validation is not None:  # those that the workflow's own training validates with
        at_once = grpo.validation.per_device_eval_batch_size * grpo.launch.processes
        validation = evenly(validation, grpo.validation.prompts, at_once)
    model = model_directory(arguments.sft_model)
    inputs = [arguments.train, arguments.validation, arguments.sft_model]
    place = Place(
        folder=arguments.configuration.resolve().parent,
        model=model.resolve(),
        scripts=Path(__file__).resolve().parent,
        inputs=[sha256_of(file) for file in inputs],
    )
    prompts = Prompts(len(train), max(row["prompt_tokens"] for row in (*train, *validation)))
    offload = any(map(offloads_the_optimizer, arguments.launch_files))
    configuration = verl_configuration(grpo, reward, prompts, place, arguments.run, offload)

    write_table(arguments.verl_train, verl_rows(train, "train"), VERL_ROWS, {})
    write_table(arguments.verl_validation, verl_rows(validation, "validation"), VERL_ROWS, {})
    for source, copy in zip(arguments.programs, arguments.copies, strict=True):
        with new_file(copy) as partial:
            shutil.copy(source, partial)
    with new_file(arguments.configuration) as partial:
        text = yaml.safe_dump(configuration, sort_keys=False, width=1_000_000)
        partial.write_text(HEADER.format(version=VERSION, run=arguments.run) + text, encoding="utf-8")
    trainer = configuration["trainer"]
    facts = {
        "prompts": len(train),
        "validation_prompts": len(validation),
        "steps": trainer["total_training_steps"],
        "checkpoints": Path(trainer["default_local_dir"]).relative_to(place.folder),
    }
    values = facts | {
        "version": VERSION,
        "run": arguments.run,
        "grpo": grpo,
        "folder": arguments.configuration.parent,
        "sft_model": arguments.sft_model,
        "validation_split": arguments.validation,
        "differences": differences(grpo, offload),
    }
    write_markdown(arguments.readme, arguments.readme_template, values)
    stage.facts |= facts | {"checkpoints": str(facts["checkpoints"]), "reward": json.loads(arguments.reward)}


def offloads_the_optimizer(launch_file: Path) -> bool:
    """Whether a configuration of DeepSpeed puts the optimizer's state into main memory."""
    return "offload_optimizer" in read_json(launch_file).get("zero_optimization", {})


if __name__ == "__main__":
    parser.run(export_verl)
