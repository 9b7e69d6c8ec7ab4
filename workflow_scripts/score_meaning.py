"""Every system's answers are scored by how near they are in meaning to the reference, with a model that lies on disk.

An empty answer scores 0 and stays. Nothing is fetched: without the model on disk the stage says so and ends.
"""

from __future__ import annotations

import argparse
import os

from ecg_grpo.errors import InputError
from ecg_grpo.files import sha256_of
from ecg_grpo.progress import StageProgress
from ecg_grpo.sentence_model import sentence_model_directory, sentence_model_files
from ecg_grpo.settings.scoring import MeaningSettings
from ecg_grpo.stage import Stage, StageParser
from ecg_grpo.tables import MEANING, read_rows, write_table

parser = StageParser("score_meaning", __doc__)
parser.add_input("--answers", nargs="+", metavar="PARQUET", help="answers of each system; its folder's name is its name")
parser.add_input("--model-files", nargs="*", default=[], metavar="FILE", help="files of a model that is no package")
parser.add_output("--meaning", nargs="+", metavar="PARQUET", help="scores of each system, to write, in the same order")
parser.add_settings("evaluation.meaning")


def score_meaning(arguments: argparse.Namespace, stage: Stage) -> None:
    """Loads the model once, scores the answers of all systems, writes."""
    os.environ["HF_HUB_OFFLINE"] = "1"  # read when huggingface_hub is imported
    if arguments.settings == "null":
        raise InputError("evaluation.meaning", "it is null, so there is no model", "Name one in the configuration.")
    settings = MeaningSettings.from_json(arguments.settings)
    if len(arguments.meaning) != len(arguments.answers):
        raise InputError("--meaning", "there must be as many files as of --answers", "Name one for each system.")
    directory = sentence_model_directory(settings.model)
    tables = [read_rows(file, "id", "prediction", "answer") for file in arguments.answers]

    from ecg_grpo.device import prepare_device
    from ecg_grpo.meaning import Likeness, Pair, likeness
    from ecg_grpo.sentence_embedding import SentenceModel

    prepare_device("float32", stage)
    model = SentenceModel(directory, settings.max_tokens)
    pairs = list(dict.fromkeys((row["prediction"], row["answer"]) for rows in tables for row in rows))
    texts = list(dict.fromkeys(text for pair in pairs for text in pair))
    stage.facts["weights"] = {
        str(file.relative_to(directory)): sha256_of(file)
        for file in sentence_model_files(directory)
        if file.suffix == ".safetensors"
    }
    stage.facts |= {"max_tokens": model.max_tokens, "texts": len(texts), "cut_texts": model.count_cut(texts)}
    if stage.facts["cut_texts"]:
        stage.say(f"{stage.name}: {stage.facts['cut_texts']} texts are cut after {model.max_tokens} tokens")
    found: dict[Pair, Likeness] = {}
    with StageProgress(stage, len(pairs)) as progress:
        for chunk in likeness(model, pairs, settings.batch_size):
            found |= chunk
            progress.step(len(found), "pairs")
    for file, rows in zip(arguments.meaning, tables, strict=True):
        scored = ({"id": row["id"], **vars(found[row["prediction"], row["answer"]])} for row in rows)
        write_table(file, scored, MEANING, {"settings": arguments.settings})


if __name__ == "__main__":
    parser.run(score_meaning)
