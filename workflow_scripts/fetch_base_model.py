"""The base model, from a package, the hub or a folder, as a directory that transformers and vLLM load.

Whatever its source, the result has safetensors weights, a tokenizer with distinct end and padding tokens, a chat
template without today's date, greedy generation defaults, and a manifest with the SHA-256 of every file.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from ecg_grpo.base_model import fetch_source, save_base_model
from ecg_grpo.checkpoints import scratch_directory
from ecg_grpo.errors import InputError
from ecg_grpo.files import new_model_directory
from ecg_grpo.settings.base_model import BaseModelSettings
from ecg_grpo.stage import Stage, StageParser

parser = StageParser("fetch_base_model", __doc__)
parser.add_input("--source", nargs="*", default=[], metavar="FILE", help="files of a model folder, if the settings name one")
parser.add_input("--chat-template", nargs="*", default=[], metavar="FILE", help="chat template, if the settings name one")
parser.add_output("--manifest", help="manifest.json in the model directory to write")
parser.add_argument("--scratch", type=Path, required=True, help="folder for unfinished downloads; emptied at the end")
parser.add_settings("base_model")
parser.add_store()


def fetch_base_model(arguments: argparse.Namespace, stage: Stage) -> None:
    """Fetches, converts, writes."""
    settings = BaseModelSettings.from_json(arguments.settings)
    if [str(file) for file in arguments.chat_template] != [name for name in [settings.chat_template] if name is not None]:
        raise InputError("--chat-template", "not the file that base_model.chat_template names", "Give that file.")
    # Of the settings only what is downloaded: a token that is mended does not fetch the model again.
    downloaded = settings.model_dump_json(include={"source", settings.source})
    downloads = scratch_directory(arguments.scratch, __file__, downloaded, "any", [])
    try:
        source = fetch_source(settings, downloads, stage.terminal)
        stage.say(f"taken from {settings.source}: {source.name}")
        with new_model_directory(arguments.manifest.parent) as directory:
            save_base_model(source, settings, directory, next(iter(arguments.chat_template), None))
    except InputError:
        if settings.source != "hub":  # whose library alone goes on with what it has
            shutil.rmtree(downloads)
        raise
    shutil.rmtree(downloads)


if __name__ == "__main__":
    parser.run(fetch_base_model)
