"""A model answers every question of a split several times, drawn from its distribution: what another seed would have said.

A killed run goes on after the last batch that was finished.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ecg_grpo.answers import QUESTION_COLUMNS, answer_row
from ecg_grpo.checkpoints import scratch_directory
from ecg_grpo.files import model_directory
from ecg_grpo.settings.generation import GenerationSettings, SamplingSettings
from ecg_grpo.stage import Stage, StageParser
from ecg_grpo.tables import SAMPLED_ANSWERS, evenly, read_rows, write_table

parser = StageParser("sample_answers", __doc__)
parser.add_input("--model", nargs="+", metavar="FILE", help="the model's manifest.json, or all files of its directory")
parser.add_input("--questions", help="split to answer (parquet)")
parser.add_output("--answers", help="answers to write (parquet)")
parser.add_argument("--scratch", type=Path, help="folder for answers to go on from (default: none, a killed run starts anew)")
parser.add_argument(
    "--most-questions", type=int, metavar="N", help="answer at most so many questions, spread evenly over them (default: all)"
)
parser.add_argument("--sampling", required=True, metavar="JSON", help="how answers are drawn, as `evaluation.sampling`")
parser.add_settings("evaluation.generation")


def sample_answers(arguments: argparse.Namespace, stage: Stage) -> None:
    """Loads the model, draws, writes."""
    from ecg_grpo.answering import answer_questions, forget
    from ecg_grpo.device import prepare_device
    from ecg_grpo.generation import Generation, Sampling

    settings, sampling = GenerationSettings.from_json(arguments.settings), SamplingSettings.from_json(arguments.sampling)
    records = read_rows(arguments.questions, *QUESTION_COLUMNS)
    if arguments.most_questions is not None:
        records = evenly(records, arguments.most_questions)
    (first, *others) = arguments.model
    directory = first.parent if others else model_directory(first)
    dtype = prepare_device(settings.precision, stage)
    generation = Generation(
        dtype,
        settings.max_new_tokens,
        max(1, settings.batch_size // sampling.samples),  # as many rows as when there is one answer a question
        settings.engine,
        Sampling(sampling.temperature, sampling.samples, sampling.seed),
        settings.gpu_memory_utilization,
    )
    scratch = None
    if arguments.scratch is not None:
        name = f"sample_answers.{arguments.answers.parent.name}.{arguments.answers.stem}"
        how = f"{arguments.settings}{arguments.sampling}{arguments.most_questions}"
        inputs = [*arguments.model, arguments.questions]
        scratch = scratch_directory(arguments.scratch, __file__, how, str(dtype), inputs, name)
    stage.facts["sampling"] = sampling.model_dump()
    found = answer_questions(directory, records, generation, scratch, stage)
    rows = (
        answer_row(record, completion) | {"sample": sample}
        for index, record in enumerate(records)
        for sample, completion in enumerate(found[index])
    )
    write_table(arguments.answers, rows, SAMPLED_ANSWERS, {"settings": arguments.settings, "sampling": arguments.sampling})
    forget(scratch)


if __name__ == "__main__":
    parser.run(sample_answers)
