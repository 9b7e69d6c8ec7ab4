"""Every answer of a system is scored against its reference, whatever was reasoned before it; an empty answer scores 0 and
stays, a metric that has nothing to say about a record (numbers, where the reference has none) is left empty there.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from ecg_grpo.metrics import METRICS
from ecg_grpo.question_kinds import kind_of, length_of
from ecg_grpo.stage import Stage, StageParser
from ecg_grpo.tables import read_rows, scores_schema, write_table

parser = StageParser("score_answers", __doc__)
parser.add_input("--answers", help="answers of one system (parquet)")
parser.add_output("--scores", help="their scores, to write (parquet)")


def score_answers(arguments: argparse.Namespace, stage: Stage) -> None:
    """Reads, scores, writes."""
    columns = ("id", "task", "cluster", "finish_reason", "is_well_formed", "question", "prediction", "reasoning", "answer")
    rows = read_rows(arguments.answers, *columns)
    workers = min(stage.threads, 1 + len(rows) // 500)
    if workers == 1:
        scored = map(score, rows)
        write_table(arguments.scores, scored, scores_schema(METRICS), {})
        return
    with ProcessPoolExecutor(workers) as pool:
        scored = pool.map(score, rows, chunksize=250)
        write_table(arguments.scores, scored, scores_schema(METRICS), {})


def score(row: Mapping[str, Any]) -> dict[str, Any]:
    """One row of the scores."""
    reasoning_words = len((row["reasoning"] or "").split())
    return {
        **{column: row[column] for column in ("id", "task", "cluster")},
        "kind": kind_of(row["question"], row["answer"]),
        "length": length_of(row["answer"]),
        **{name: metric.score(row["prediction"], row["answer"], row["question"]) for name, metric in METRICS.items()},
        "truncated": float(row["finish_reason"] == "length"),
        "empty": float(not row["prediction"].strip()),
        "malformed": float(not row["is_well_formed"]),
        "reasoned": float(reasoning_words > 0),
        "reasoning_words": float(reasoning_words) if reasoning_words else None,
    }


if __name__ == "__main__":
    parser.run(score_answers)
