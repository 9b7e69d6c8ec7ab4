"""People's own judgements of answers, as the report's page exports them, become one more score."""

from __future__ import annotations

import argparse
from pathlib import Path

from ecg_grpo.ratings import mean_ratings, read_ratings
from ecg_grpo.stage import Stage, StageParser
from ecg_grpo.tables import RATINGS, read_rows, write_table

parser = StageParser("read_ratings", __doc__)
parser.add_input("--ratings", nargs="+", metavar="CSV", help="exported ratings; several files are several people")
parser.add_input("--answers", nargs="+", metavar="PARQUET", help="answers of each model; its folder's name is its name")
parser.add_output("--scores", nargs="+", metavar="PARQUET", help="for each model the table to write")


def collect_ratings(arguments: argparse.Namespace, stage: Stage) -> None:
    """Reads, averages over people, writes one table a model."""
    answers = {file.parent.name: read_rows(file, "id", "completion") for file in arguments.answers}
    found, of_other_answers = mean_ratings([read_ratings(file) for file in arguments.ratings], answers)
    stage.facts |= {"rated": sum(map(len, found.values())), "of_other_answers": of_other_answers}
    stage.say(f"{stage.facts['rated']} answers are rated; {of_other_answers} ratings are of answers that have changed since")
    for (model, rows), file in zip(answers.items(), arguments.scores, strict=True):
        write_table(Path(file), [{"id": row["id"], "rating": found[model].get(row["id"])} for row in rows], RATINGS, {})


if __name__ == "__main__":
    parser.run(collect_ratings)
