"""A model answers the questions of a split, and a killed run goes on after the last batch that was finished."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ecg_grpo.generation import Batch, Completion, Generation, complete, generated_tokens
from ecg_grpo.journal import Journal
from ecg_grpo.progress import StageProgress
from ecg_grpo.stage import Stage


def answer_questions(
    directory: Path, records: Sequence[Mapping[str, Any]], generation: Generation, scratch: Path | None, stage: Stage
) -> Batch:
    """The completions of every question.

    Args:
        directory: model and tokenizer.
        records: with `prompt`.
        generation: how.
        scratch: folder of exactly this work, to go on from and to keep finished batches in; None keeps nothing. Remove it when
            what came out is written.
        stage: gets the progress, and facts on tokens and seconds.

    Raises:
        InputError: a finished batch cannot be kept.
    """
    answers = FinishedBatches(scratch and scratch / "answers.jsonl")
    if answers.batches:
        stage.say(f"{stage.name}: {len(answers.found)} of {len(records)} questions were answered before; going on")
        stage.facts["answered_before"] = len(answers.found)
    with StageProgress(stage, len(records), len(answers.found)) as progress:
        for batch in complete(directory, [record["prompt"] for record in records], generation, answers.batches):
            answers.add(batch)
            progress.step(len(answers.found), f"{generated_tokens(answers.found)} tokens")
    stage.facts["generated_tokens"] = generated_tokens(answers.found)
    seconds = [completion.seconds for group in answers.found.values() for completion in group]
    stage.facts["generation_seconds"] = round(sum(seconds), 1)
    return answers.found


def forget(scratch: Path | None) -> None:
    """Removes what a killed run would have needed."""
    if scratch is not None:
        shutil.rmtree(scratch)


class FinishedBatches:
    """Completions, kept in a file batch by batch."""

    def __init__(self, file: Path | None) -> None:
        """
        Args:
            file: what an earlier run may have left; None keeps nothing.
        """
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
