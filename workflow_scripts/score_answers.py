"""Every answer of a system is scored against its reference; an empty answer scores 0 and stays."""

from __future__ import annotations

import argparse

import pyarrow as pa

from ecg_grpo.metrics import METRICS
from ecg_grpo.stage import Stage, StageParser
from ecg_grpo.tables import read_rows, write_table

SCORES = pa.schema(
    [("id", pa.string()), ("task", pa.string()), ("cluster", pa.string()), ("finish_reason", pa.string())]
    + [(name, pa.float64()) for name in METRICS]
)

parser = StageParser("score_answers", __doc__)
parser.add_input("--answers", help="answers of one system (parquet)")
parser.add_output("--scores", help="their scores, to write (parquet)")


def score_answers(arguments: argparse.Namespace, stage: Stage) -> None:
    """Reads, scores, writes."""
    rows = read_rows(arguments.answers, "id", "task", "cluster", "finish_reason", "prediction", "answer")
    scored = [
        {
            **{column: row[column] for column in ("id", "task", "cluster", "finish_reason")},
            **{name: metric.score(row["prediction"], row["answer"]) for name, metric in METRICS.items()},
        }
        for row in rows
    ]
    write_table(arguments.scores, scored, SCORES, {})


if __name__ == "__main__":
    parser.run(score_answers)
