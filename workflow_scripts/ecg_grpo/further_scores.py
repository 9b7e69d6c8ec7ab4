"""Scores that no function of two texts gives: models, judges and people are asked, each by a stage of its own.

Their tables have the record's id and the columns below; a system or a record that was not asked about has no score.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ecg_grpo.errors import InputError
from ecg_grpo.tables import read_rows


@dataclass(frozen=True)
class FurtherScore:
    """How a column is read; see `metrics.Metric`.

    Attributes:
        label: its name in tables.
        about: what it measures: likeness of meaning, an opinion, the model's own loss, or the length of what comes before the
            answer. No verdict speaks of any of them.
        note: what a reader has to know of it, one sentence without a full stop.
    """

    label: str
    about: Literal["meaning", "opinion", "loss", "length"]
    note: str

    @property
    def less_is_better(self) -> bool:
        """Whether the lower of two values wins."""
        return self.about == "loss"


FURTHER_SCORES: dict[str, FurtherScore] = {
    "embedding": FurtherScore("Embedding", "meaning", "cosine of sentence embeddings; an echoed question scores high"),
    "bertscore": FurtherScore("BERTScore", "meaning", "F1 of matched token embeddings; a negation hardly shows"),
    "judge_accuracy": FurtherScore("Judge: accuracy", "opinion", "what a language model thinks, from 0 to 1"),
    "judge_completeness": FurtherScore("Judge: completeness", "opinion", "likewise"),
    "judge_clarity": FurtherScore("Judge: clarity", "opinion", "likewise"),
    "rating": FurtherScore("Rating", "opinion", "what people think, from 0 wrong to 1 right, of the answers that were rated"),
    "reference_loss": FurtherScore(
        "Loss", "loss", "nats a token that the reference costs the model, after its own reasoning if it reasons; less is better"
    ),
    "reasoning_words": FurtherScore("Words of reasoning", "length", "mean of the answers that have a reasoning"),
}
"""Every further column, in the order of tables."""


def read_scores(files: Iterable[Path]) -> dict[str, list[dict[str, Any]]]:
    """The scores of every system, further ones joined to the first table by record.

    Args:
        files: tables of scores; the name of a table's folder is its system's. The first one of a system says which records
            there are.

    Returns:
        system → one row a record; a column that a system has no table for is absent.

    Raises:
        InputError: a table cannot be read, or is about other records.
    """
    systems: dict[str, list[dict[str, Any]]] = {}
    for file in files:
        rows = read_rows(file)
        system = file.parent.name
        if system not in systems:
            systems[system] = rows
            continue
        known = systems[system]
        if [row["id"] for row in known] != [row["id"] for row in rows]:
            raise InputError(file, "is not about the same questions in the same order", "Delete it and run snakemake again.")
        for row, more in zip(known, rows, strict=True):
            row.update({name: value for name, value in more.items() if name in FURTHER_SCORES})
    return systems


def present(systems: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[str]:
    """The further scores that some system has for some record, in the order of tables."""
    found = {name for rows in systems.values() for row in rows for name in FURTHER_SCORES if row.get(name) is not None}
    return [name for name in FURTHER_SCORES if name in found]
