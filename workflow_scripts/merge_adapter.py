"""The model that a training ended with: its base and its adapter merged, or its full checkpoint, checked and saved.

The merge checks itself: weights differ from the base, logits equal those of base + adapter, tied embeddings stay tied,
and the saved files, read again, give the same logits.
"""

from __future__ import annotations

import argparse

from ecg_grpo.errors import InputError
from ecg_grpo.files import MANIFEST, model_directory, new_model_directory
from ecg_grpo.settings.merge import MergeSettings
from ecg_grpo.stage import Stage, StageParser
from ecg_grpo.tables import read_rows

PROMPTS = 8

parser = StageParser("merge_adapter", __doc__)
parser.add_input("--base-model", help="manifest.json of the model that the training started from")
parser.add_input(
    "--checkpoint",
    help="manifest.json of the adapter, or of a full checkpoint; of another trainer's its adapter_config.json or config.json",
)
parser.add_input("--validation", help=f"validation split (parquet); its first {PROMPTS} prompts serve the checks")
parser.add_output("--manifest", help="manifest.json in the model directory to write")
parser.add_settings("merge")


def merge_adapter(arguments: argparse.Namespace, stage: Stage) -> None:
    """Merges, checks, writes."""
    from ecg_grpo.device import prepare_device
    from ecg_grpo.merging import merge

    settings = MergeSettings.from_json(arguments.settings)
    prepare_device("float32", stage)
    base = model_directory(arguments.base_model)
    checkpoint = arguments.checkpoint
    if not checkpoint.is_file():
        raise InputError(checkpoint, "there is no such file", "Name a file of the checkpoint's directory.")
    directory_of_checkpoint = model_directory(checkpoint) if checkpoint.name == MANIFEST else checkpoint.parent
    prompts = [row["prompt"] for row in read_rows(arguments.validation, "prompt")[:PROMPTS]]
    with new_model_directory(arguments.manifest.parent) as directory:
        checks = merge(base, directory_of_checkpoint, directory, prompts, settings)
    stage.facts["checks"] = checks
    stage.say(str(checks))


if __name__ == "__main__":
    parser.run(merge_adapter)
