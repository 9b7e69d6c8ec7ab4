"""A model answers every question of a split, greedily; prompts are those of the training, answers are all kept.

A killed run goes on after the last batch that was finished.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ecg_grpo.answers import QUESTION_COLUMNS, answer_row
from ecg_grpo.checkpoints import scratch_directory
from ecg_grpo.files import model_directory
from ecg_grpo.settings.generation import GenerationSettings
from ecg_grpo.stage import Stage, StageParser
from ecg_grpo.tables import ANSWERS, read_rows, write_table

parser = StageParser("generate_answers", __doc__)
parser.add_input("--model", nargs="+", metavar="FILE", help="the model's manifest.json, or all files of its directory")
parser.add_input("--questions", help="split to answer (parquet)")
parser.add_output("--answers", help="answers to write (parquet)")
parser.add_argument("--scratch", type=Path, help="folder for answers to go on from (default: none, a killed run starts anew)")
parser.add_settings("evaluation.generation")


def generate_answers(arguments: argparse.Namespace, stage: Stage) -> None:
    """Loads the model, answers, writes."""
    from ecg_grpo.answering import answer_questions, forget
    from ecg_grpo.device import prepare_device
    from ecg_grpo.generation import Generation

    settings = GenerationSettings.from_json(arguments.settings)
    records = read_rows(arguments.questions, *QUESTION_COLUMNS)
    (first, *others) = arguments.model
    directory = first.parent if others else model_directory(first)
    dtype = prepare_device(settings.precision, stage)
    generation = Generation(
        dtype,
        settings.max_new_tokens,
        settings.batch_size,
        settings.engine,
        gpu_memory_utilization=settings.gpu_memory_utilization,
    )
    scratch = None
    if arguments.scratch is not None:
        inputs = [*arguments.model, arguments.questions]
        name = f"generate_answers.{arguments.answers.parent.name}"
        scratch = scratch_directory(arguments.scratch, __file__, arguments.settings, str(dtype), inputs, name)
    found = answer_questions(directory, records, generation, scratch, stage)
    rows = [answer_row(record, *found[index]) for index, record in enumerate(records)]
    write_table(arguments.answers, rows, ANSWERS, {"settings": arguments.settings})
    forget(scratch)


if __name__ == "__main__":
    parser.run(generate_answers)
