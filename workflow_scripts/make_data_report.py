"""A page about the prepared data, before anything is trained on it: what was read, repaired and kept apart, how the splits came
out, whether anything leaks, and what a metric gives to answers that need no model. The page is a single file that opens
without a network; every text of a record is escaped.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ecg_grpo.baselines import most_frequent_answers, nearest_training_answers, random_training_places
from ecg_grpo.data_statistics import (
    BASELINES,
    LENGTHS,
    QUALITY,
    RULES,
    SplitColumns,
    answer_histograms,
    evenly_spread,
    examples_by,
    length_table,
    rounded,
    score_baselines,
    share_table,
    shortened,
    task_order,
    what_to_know,
    yes_no_table,
)
from ecg_grpo.errors import InputError
from ecg_grpo.files import read_json, write_json
from ecg_grpo.polarity import yes_or_no
from ecg_grpo.records import SPLITS
from ecg_grpo.stage import Stage, StageParser

parser = StageParser("make_data_report", __doc__)
parser.add_input("--account", help="account.json, written by prepare_data")
for split in SPLITS:
    parser.add_input(f"--{split}", help=f"the {split} split (parquet)")
parser.add_input("--quarantine", help="records that are kept apart (parquet)")
parser.add_input("--dropped", help="records that repeat others word for word (parquet)")
parser.add_output("--report", help="data_report.json to write")
parser.add_page("data_report.html")
parser.add_argument("--run", required=True, help="name of the run")

MOST_SCORED = 1000
"""Test records that the baselines answer."""

MOST_COMPARED = 200_000
"""Training questions among which the nearest one is looked for."""

MOST_CHARACTERS = 50_000_000
"""Characters of these questions with their contexts; their n-grams take some 60 bytes a character."""

EXAMPLES = 5
"""Examples of each reason why records are kept apart."""

QUESTIONS = 3
"""Example questions of each of the largest groups."""

SEED = 0
"""Seed of the random baseline."""


def make_data_report(arguments: argparse.Namespace, stage: Stage) -> None:
    """Reads, counts, scores, writes both files."""
    from ecg_grpo.pages import write_page

    account = read_json(arguments.account)
    tasks = task_order(account)
    files = {split: getattr(arguments, split) for split in SPLITS}
    splits = {split: read_split(file) for split, file in files.items()}
    stage.say(", ".join(f"{split} {len(columns.task):,}" for split, columns in splits.items()))
    report = account | {
        "tasks": tasks,
        "raw_files": sorted(account["raw_files"], key=lambda entry: [*tasks, entry["task"]].index(entry["task"])),
        "lengths": length_table(splits, tasks),
        "histograms": answer_histograms(splits, tasks),
        "yes_no": yes_no_table(splits, tasks),
        "shares": share_table(account["splits"], account["asked"], tasks),
        "clusters": account["clusters"] | {"largest": with_questions(account["clusters"]["largest"], files)},
        "baselines": baselines(files["train"], files["test"], splits),
        "examples": {name: read_examples(getattr(arguments, name)) for name in ("quarantine", "dropped")},
    }
    report = rounded(report)
    report["to_know"] = what_to_know(report)
    write_json(arguments.report, report)
    write_page(arguments.page, arguments.template, arguments.style, arguments.scripts, shown(arguments.run, report))
    for entry in report["to_know"]:
        stage.say(entry["text"])


def read_batches(file: Path, *columns: str) -> Iterator[list[dict[str, Any]]]:
    """The rows of a parquet file, some thousands at a time.

    Raises:
        InputError: the file cannot be read or lacks a column.
    """
    try:
        with pq.ParquetFile(file) as table:
            if absent := [name for name in columns if name not in table.schema_arrow.names]:
                raise InputError(file, f"no column {absent[0]}", "Delete it and run snakemake again.")
            for batch in table.iter_batches(10_000, columns=list(columns)):
                yield batch.to_pylist()
    except (OSError, pa.ArrowException) as error:
        raise InputError(file, f"not a readable parquet file ({error})", "Delete it and run snakemake again.") from None


def rows_at(file: Path, places: Sequence[int], *columns: str) -> list[dict[str, Any]]:
    """The rows at these places, in their order; a place may come twice. Only these rows are held."""
    wanted = np.unique(np.asarray(places, dtype=np.int64))
    found: dict[int, dict[str, Any]] = {}
    start = 0
    for rows in read_batches(file, *columns):
        low, high = np.searchsorted(wanted, [start, start + len(rows)])
        found.update((place, rows[place - start]) for place in wanted[low:high].tolist())
        start += len(rows)
    return [found[place] for place in places]


def read_split(file: Path) -> SplitColumns:
    """The columns of a split that statistics need; its texts are not kept."""
    tasks: list[str] = []
    sides: list[str | None] = []
    lengths: dict[str, list[int]] = {name: [] for name in LENGTHS}
    for rows in read_batches(file, "task", "answer", "prompt_tokens", "answer_tokens"):
        tasks += [row["task"] for row in rows]
        sides += [yes_or_no(row["answer"]) for row in rows]
        lengths["answer_words"] += [len(row["answer"].split()) for row in rows]
        for name in ("prompt_tokens", "answer_tokens"):
            lengths[name] += [row[name] for row in rows]
    return SplitColumns(
        task=np.array(tasks, dtype=object),
        lengths={name: np.array(values, dtype=np.int64) for name, values in lengths.items()},
        polarity=np.array(sides, dtype=object),
    )


def with_questions(clusters: Sequence[Mapping[str, Any]], files: Mapping[str, Path]) -> list[dict[str, Any]]:
    """The largest groups, each with its split and its first questions."""
    found: dict[str, dict[str, Any]] = {entry["cluster"]: {"splits": [], "questions": []} for entry in clusters}
    for split, file in files.items():
        for rows in read_batches(file, "cluster", "question"):
            for row in rows:
                if (entry := found.get(row["cluster"])) is None:
                    continue
                if split not in entry["splits"]:
                    entry["splits"].append(split)
                question = shortened(row["question"])
                if len(entry["questions"]) < QUESTIONS and question not in entry["questions"]:
                    entry["questions"].append(question)
    return [{**entry, **found[entry["cluster"]]} for entry in clusters]


def baselines(train: Path, test: Path, splits: Mapping[str, SplitColumns]) -> dict[str, Any]:
    """What answers without a model score on test records, and how many records that is about."""
    known = splits["train"].task
    asked = rows_at(test, evenly_spread(len(splits["test"].task), MOST_SCORED), "task", "context", "question", "answer")
    compared = rows_at(train, evenly_spread(len(known), MOST_COMPARED), "context", "question", "answer")
    compared = thinned(compared)
    constant = most_frequent_answers(
        (row["task"], row["answer"]) for rows in read_batches(train, "task", "answer") for row in rows
    )
    places = random_training_places(known.tolist(), [record["task"] for record in asked], SEED)
    drawn = iter(rows_at(train, [place for place in places if place is not None], "answer"))
    answers = {
        "echo": [record["question"] for record in asked],
        "nearest": nearest_training_answers(compared, asked) if compared else [None] * len(asked),
        "constant": [constant.get(record["task"]) for record in asked],
        "random": [None if place is None else next(drawn)["answer"] for place in places],
    }
    return {
        "test_records": len(splits["test"].task),
        "scored": len(asked),
        "training_records": len(known),
        "compared": len(compared),
        "metrics": {name: metric.label for name, metric in QUALITY.items()},
        "constant_answers": {task: shortened(answer) for task, answer in constant.items()},
        "systems": score_baselines(asked, answers),
    }


def thinned(records: Sequence[Mapping[str, str]], most: int = MOST_CHARACTERS) -> list[Mapping[str, str]]:
    """The records, or so many evenly spread ones that questions and contexts have about `most` characters."""
    characters = sum(len(record["context"]) + len(record["question"]) for record in records)
    if characters <= most:
        return list(records)
    return [records[place] for place in evenly_spread(len(records), max(1, len(records) * most // characters))]


def read_examples(file: Path) -> dict[str, list[Mapping[str, str]]]:
    """The first records of each reason in a quarantine's file; a row that could not be read stands for its question."""
    rows = (
        {name: row[name] for name in ("id", "task", "reason", "evidence")} | {"question": row["question"] or row["raw"] or ""}
        for batch in read_batches(file, "id", "task", "reason", "evidence", "question", "raw")
        for row in batch
    )
    return {
        reason: [{name: shortened(text) for name, text in row.items()} for row in examples]
        for reason, examples in examples_by(rows, "reason", EXAMPLES).items()
    }


def shown(run: str, report: Mapping[str, Any]) -> dict[str, Any]:
    """What the page shows; everything on it is in the report."""
    from ecg_grpo import charts
    from ecg_grpo.pages import chart

    baseline_chart = charts.baseline_chart(report["baselines"]["systems"], report["baselines"]["metrics"], BASELINES)
    # The names of elements are numbered: a task's name comes from a file.
    figures = {
        "shares": chart(charts.share_chart(report["shares"]), "chart-shares"),
        "baselines": chart(baseline_chart, "chart-baselines"),
        "lengths": {
            task: chart(charts.answer_length_chart(entry), f"chart-length-{number}")
            for number, (task, entry) in enumerate(report["histograms"].items())
        },
    }
    return {"run": run, "data": report, "systems": BASELINES, "rules": RULES, "charts": figures}


if __name__ == "__main__":
    parser.run(make_data_report)
