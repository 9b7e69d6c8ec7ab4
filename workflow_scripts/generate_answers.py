"""A model answers every question of a split, greedily; prompts are those of the training, answers are all kept.

A killed run goes on after the last batch that was finished.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from ecg_grpo.answers import QUESTION_COLUMNS, answer_row
from ecg_grpo.checkpoints import scratch_directory
from ecg_grpo.files import model_directory
from ecg_grpo.journal import Journal
from ecg_grpo.progress import StageProgress
from ecg_grpo.settings.evaluation import GenerationSettings
from ecg_grpo.stage import Stage, StageParser
from ecg_grpo.tables import ANSWERS, read_rows, write_table

if TYPE_CHECKING:
    from ecg_grpo.generation import Batch

parser = StageParser("generate_answers", __doc__)
parser.add_input("--model", nargs="+", metavar="FILE", help="the model's manifest.json, or all files of its directory")
parser.add_input("--questions", help="split to answer (parquet)")
parser.add_output("--answers", help="answers to write (parquet)")
parser.add_argument("--scratch", type=Path, help="folder for answers to go on from (default: none, a killed run starts anew)")
parser.add_settings("evaluation.generation")


def generate_answers(arguments: argparse.Namespace, stage: Stage) -> None:
    """Loads the model, answers, writes."""
    from ecg_grpo.device import prepare_device
    from ecg_grpo.generation import Generation, complete, generated_tokens

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
    answers = FinishedBatches(scratch and scratch / "answers.jsonl")
    if answers.batches:
        stage.say(f"{stage.name}: {len(answers.found)} of {len(records)} questions were answered before; going on")
        stage.facts["answered_before"] = len(answers.found)
    with StageProgress(stage, len(records), len(answers.found)) as progress:
        for batch in complete(directory, [record["prompt"] for record in records], generation, answers.batches):
            answers.add(batch)
            progress.step(len(answers.found), f"{generated_tokens(answers.found)} tokens")
    found = answers.found
    stage.facts["generated_tokens"] = generated_tokens(found)
    stage.facts["generation_seconds"] = round(sum(group[0].seconds for group in found.values()), 1)
    rows = [answer_row(record, *found[index]) for index, record in enumerate(records)]
    write_table(arguments.answers, rows, ANSWERS, {"settings": arguments.settings})
    if scratch is not None:
        shutil.rmtree(scratch)


class FinishedBatches:
    """Completions, kept in a file batch by batch."""

    def __init__(self, file: Path | None) -> None:
        """
        Args:
            file: what an earlier run may have left; None keeps nothing.
        """
        from ecg_grpo.generation import Completion

        self._journal = Journal(file)
        self.found: Batch = {}
        for entry in self._journal.entries:
            self.found |= {int(index): [Completion(**completion) for completion in group] for index, group in entry.items()}

    @property
    def batches(self) -> int:
        """How many were kept."""
        return len(self._journal.entries)

    def add(self, batch: Batch) -> None:
        """Keeps one more batch.

        Raises:
            InputError: it cannot be written.
        """
        self.found |= batch
        self._journal.add({index: [vars(completion) for completion in group] for index, group in batch.items()})


if __name__ == "__main__":
    parser.run(generate_answers)
