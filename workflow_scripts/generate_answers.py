"""A model answers every question of a split, greedily; prompts are those of the training, answers are all kept.

A killed run goes on after the last batch that was finished.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from ecg_grpo.checkpoints import scratch_directory
from ecg_grpo.errors import InputError
from ecg_grpo.files import model_directory
from ecg_grpo.progress import StageProgress
from ecg_grpo.prompts import take_apart
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
    records = read_rows(arguments.questions, "id", "task", "cluster", "context", "question", "answer", "prompt")
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
    rows = []
    for index, record in enumerate(records):
        (completion,) = found[index]
        answer = take_apart(completion.text)
        rows.append(
            {
                **record,
                "completion": completion.text,
                "prediction": answer.prediction,
                "reasoning": answer.reasoning,
                "is_well_formed": answer.is_well_formed,
                "finish_reason": completion.finish_reason,
                "prompt_tokens": completion.prompt_tokens,
                "completion_tokens": completion.completion_tokens,
                "seconds": completion.seconds,
            }
        )
    write_table(arguments.answers, rows, ANSWERS, {"settings": arguments.settings})
    if scratch is not None:
        shutil.rmtree(scratch)


class FinishedBatches:
    """Completions, kept in a file batch by batch: one line a batch, of which a kill can only cut the last."""

    def __init__(self, file: Path | None) -> None:
        """
        Args:
            file: what an earlier run may have left; None keeps nothing.
        """
        from ecg_grpo.generation import Completion

        self._file = file
        self.found: Batch = {}
        self.batches = 0
        if file is None or not file.exists():
            return
        whole = file.read_bytes().rpartition(b"\n")[0]
        for line in whole.splitlines():
            self.found |= {
                int(index): [Completion(**completion) for completion in group] for index, group in json.loads(line).items()
            }
            self.batches += 1
        file.write_bytes(whole + b"\n" if whole else b"")

    def add(self, batch: Batch) -> None:
        """Keeps one more batch.

        Raises:
            InputError: it cannot be written.
        """
        self.found |= batch
        self.batches += 1
        if self._file is None:
            return
        line = json.dumps({index: [vars(completion) for completion in group] for index, group in batch.items()})
        try:
            with self._file.open("ab") as stream:
                stream.write(line.encode() + b"\n")
        except OSError as error:
            raise InputError(
                self._file, f"cannot be written ({error.strerror})", "Make room and run snakemake again."
            ) from None


if __name__ == "__main__":
    parser.run(generate_answers)
