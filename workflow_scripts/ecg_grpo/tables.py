"""The columns of every parquet file that the workflow writes, and how they are written and read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice
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
    ("turn", pa.int32()),
    ("subject", pa.string()),
    ("context", pa.string()),
    ("history", MESSAGES),
    ("question", pa.string()),
    ("answer", pa.string()),
]
RECORDS = pa.schema(
    [
        *_RECORD,
        ("prompt", MESSAGES),
        ("split", pa.string()),
        ("cluster", pa.string()),
        ("prompt_tokens", pa.int32()),
        ("answer_tokens", pa.int32()),
        ("flags", pa.list_(pa.string())),
    ]
)
"""Prepared records: one row a question, `answer` is the reference, `cluster` the id of its group's first record, `turn` null
outside dialogues, `flags` what a reader of the record should know (`contradicts PRTK-00636`)."""

QUARANTINE = pa.schema([*_RECORD, ("reason", pa.string()), ("evidence", pa.string()), ("raw", pa.string())])
"""Records that are kept apart or dropped, and why; `raw` is the row as JSON where it could not be read."""

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
        ("reasoning", pa.string()),
        ("is_well_formed", pa.bool_()),
        ("finish_reason", pa.string()),
        ("prompt_tokens", pa.int32()),
        ("completion_tokens", pa.int32()),
        ("seconds", pa.float64()),
    ]
)
"""What a system answered: `completion` is its text, `prediction`, `reasoning` and `is_well_formed` what `prompts.take_apart`
makes of it, `finish_reason` `stop` or `length` (cut off), `seconds` its share of its batch's time. Tokens and seconds are null
for systems that are no model."""


SAMPLED_ANSWERS = ANSWERS.append(pa.field("sample", pa.int32()))
"""Several answers to each question; `sample` is the draw's number from 0."""

RATINGS = pa.schema([("id", pa.string()), ("rating", pa.float64())])
"""What people think of a model's answers: 1 right, 0 wrong, null where nobody said."""


SHARES = ("truncated", "empty", "malformed", "reasoned")
"""What is 1 or 0 of an answer, whatever it says."""


def scores_schema(metrics: Iterable[str]) -> pa.Schema:
    """Scores of a system's answers: `kind` and `length` are the question's, a metric is null where it does not apply, and so
    is `reasoning_words` where nothing was reasoned.

    Args:
        metrics: names of their columns.
    """
    texts = [(name, pa.string()) for name in ("id", "task", "cluster", "kind", "length")]
    return pa.schema(texts + [(name, pa.float64()) for name in (*metrics, *SHARES, "reasoning_words")])


JUDGE_GRADES = pa.schema(
    [("id", pa.string()), *((f"judge_{name}", pa.float64()) for name in ("accuracy", "completeness", "clarity"))]
)
"""A judge's grades of a system's answers, 0 to 1; null where the record was not judged or the reply could not be read."""

JUDGE_PAIRS = pa.schema([(name, pa.string()) for name in ("id", "cluster", "system", "other", "first", "second", "outcome")])
"""A judge's verdicts on two systems' answers: `A`, `B` or `tie` when `system` stood first (as A) and when it stood second (as
B); `outcome` is `win`, `tie`, `loss` of `system`, or `inconsistent`; null where a reply could not be read."""

JUDGE_REPLIES = pa.schema([(name, pa.string()) for name in ("id", "system", "other", "reply", "finish_reason")])
"""What a judge said of `system`'s answer, or of those of `system`, which stood first, and of `other`, as it came."""
MEANING = pa.schema([("id", pa.string()), ("embedding", pa.float64()), ("bertscore", pa.float64())])
"""How near in meaning each answer of a system is to its reference; see `ecg_grpo.meaning.Likeness`."""

REFERENCE_LOSS = pa.schema([("id", pa.string()), ("reference_loss", pa.float64())])
"""A model's mean negative log-likelihood per token of each reference answer, in nats."""


def contamination_schema(systems: Iterable[str]) -> pa.Schema:
    """How near each question is to the training data.

    `nearest_id` and `cosine` are the nearest training question's, `nearness` is the cosine's bin, `grpo_cosine` the highest
    among GRPO's prompts; for each system stand the share of its answer that one training answer has, and which.

    Args:
        systems: names of the systems, `reference` for the reference answers.
    """
    texts = [(name, pa.string()) for name in ("id", "nearest_id", "nearness")]
    numbers = [(name, pa.float64()) for name in ("cosine", "grpo_cosine")]
    copied = [column for name in systems for column in ((f"copied_{name}", pa.float64()), (f"copied_from_{name}", pa.string()))]
    return pa.schema(texts + numbers + copied)


_ROW_GROUP = 20_000


def write_table(file: Path, rows: Iterable[Mapping[str, Any]], schema: pa.Schema, metadata: dict[str, str]) -> None:
    """Writes rows as zstd parquet. The same rows and metadata give the same bytes. Only a row group is held at a time."""
    schema = schema.with_metadata(metadata)
    with new_file(file) as partial, pq.ParquetWriter(partial, schema, compression="zstd") as writer:
        rows = iter(rows)
        while group := list(islice(rows, _ROW_GROUP)):
            writer.write_table(pa.Table.from_pylist(group, schema=schema))


def read_rows(file: Path, *columns: str) -> list[dict[str, Any]]:
    """The rows of a parquet file, all columns or those named.

    Raises:
        InputError: the file cannot be read or lacks a column.
    """
    try:
        return pq.read_table(file, columns=list(columns) or None).to_pylist()
    except (OSError, pa.ArrowException, KeyError) as error:
        raise InputError(file, f"not a readable parquet file ({error})", "Delete it and run snakemake again.") from None


def system_prompt_of(records: Path) -> str:
    """The system prompt of a split's records, which all of a run's records share.

    Raises:
        InputError: the file cannot be read, or holds no record with a prompt.
    """
    try:
        first = next(pq.ParquetFile(records).iter_batches(batch_size=1, columns=["prompt"]))
        return first.column("prompt")[0].as_py()[0]["content"]
    except (OSError, pa.ArrowException, KeyError, StopIteration) as error:
        raise InputError(records, f"has no prompt ({error})", "Delete it and run snakemake again.") from None


def evenly(rows: list[dict[str, Any]], most: int, multiple_of: int = 1) -> list[dict[str, Any]]:
    """At most so many rows, spread evenly over all of them; a full multiple, if there are enough for one.

    In equal batches, the mean over the batches is the mean over the rows.
    """
    number = min(most, len(rows))
    if number > multiple_of:
        number -= number % multiple_of
    return [rows[index * len(rows) // number] for index in range(number)]
