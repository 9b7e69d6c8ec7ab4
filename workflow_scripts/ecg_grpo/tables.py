"""The columns of every parquet file that the workflow writes, and how they are written and read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ecg_grpo.errors import InputError
from ecg_grpo.files import new_file

MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))

_RECORD = [
    ("id", pa.string()),
    ("task", pa.string()),
    ("source_file", pa.string()),
    ("source_row", pa.int32()),
    ("context", pa.string()),
    ("question", pa.string()),
    ("answer", pa.string()),
]
RECORDS = pa.schema([*_RECORD, ("prompt", MESSAGES), ("split", pa.string()), ("cluster", pa.string())])
"""Prepared records: one row a question, `answer` is the reference, `cluster` the id of its group's first record."""

QUARANTINE = pa.schema([*_RECORD, ("reason", pa.string()), ("evidence", pa.string())])
"""Records that are kept apart, and why."""

ANSWERS = pa.schema(
    [
        ("id", pa.string()),
        ("task", pa.string()),
        ("cluster", pa.string()),
        ("context", pa.string()),
        ("question", pa.string()),
        ("answer", pa.string()),
        ("prompt", MESSAGES),
        ("completion", pa.string()),
        ("prediction", pa.string()),
        ("finish_reason", pa.string()),
        ("prompt_tokens", pa.int32()),
        ("completion_tokens", pa.int32()),
    ]
)
"""What a system answered: `completion` is its text, `prediction` the answer part of it, `finish_reason` `stop` or
`length` (cut off). Times are not here but in the stage's provenance, so that equal answers are equal files."""


def write_table(file: Path, rows: Sequence[Mapping[str, Any]], schema: pa.Schema, metadata: dict[str, str]) -> None:
    """Writes rows as zstd parquet. The same rows and metadata give the same bytes."""
    table = pa.Table.from_pylist(list(rows), schema=schema.with_metadata(metadata))
    with new_file(file) as partial:
        pq.write_table(table, partial, compression="zstd")


def read_rows(file: Path, *columns: str) -> list[dict[str, Any]]:
    """The rows of a parquet file, all columns or those named.

    Raises:
        InputError: the file cannot be read or lacks a column.
    """
    try:
        return pq.read_table(file, columns=list(columns) or None).to_pylist()
    except (OSError, pa.ArrowException, KeyError) as error:
        raise InputError(file, f"not a readable parquet file ({error})", "Delete it and run snakemake again.") from None
