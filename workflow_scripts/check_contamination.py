"""Is a good answer memory or knowledge? Test questions against the questions that were trained on, answers against the training
answers.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

from ecg_grpo.errors import InputError
from ecg_grpo.files import write_json
from ecg_grpo.leakage import nearest_training_questions
from ecg_grpo.memorization import NGRAM, TrainingAnswers
from ecg_grpo.stage import Stage, StageParser
from ecg_grpo.tables import contamination_schema, read_rows, write_table

NEAR = ((0.5, "below 0.5"), (0.7, "0.5 to 0.7"), (0.9, "0.7 to 0.9"))
"""Cosines of a test question and its nearest training question, in bins."""
NEAREST = "0.9 and above"

parser = StageParser("check_contamination", __doc__)
parser.add_input("--train", help="training split (parquet): what SFT trained on")
parser.add_input("--grpo-prompts", help="prompts that GRPO drew from (parquet)")
parser.add_input("--questions", help="questions that were answered (parquet)")
parser.add_input("--answers", nargs="+", metavar="PARQUET", help="answers of each system; its folder's name is its name")
parser.add_output("--records", help="one row a question, to write (parquet)")
parser.add_output("--summary", help="the figures, to write (JSON)")


def check_contamination(arguments: argparse.Namespace, stage: Stage) -> None:
    """Reads, compares, writes."""
    train = read_rows(arguments.train, "id", "context", "question", "answer")
    records = read_rows(arguments.questions, "id", "context", "question", "answer")
    prompted = {row["id"] for row in read_rows(arguments.grpo_prompts, "id")}
    asked = [_asked(record) for record in records]
    used = {"sft": train, "grpo": [row for row in train if row["id"] in prompted]}
    nearest = {
        stage_name: nearest_training_questions([_asked(row) for row in rows], asked) for stage_name, rows in used.items()
    }
    known = TrainingAnswers([row["answer"] for row in train])
    systems = {file.parent.name: read_rows(file, "id", "prediction") for file in arguments.answers}
    for name, answers in systems.items():
        if [row["id"] for row in answers] != [record["id"] for record in records]:
            raise InputError(name, "did not answer the questions of this split", "Delete its answers and run snakemake again.")
    copies = {"reference": [known.copied_by(record["answer"]) for record in records]} | {
        name: [known.copied_by(row["prediction"]) for row in answers] for name, answers in systems.items()
    }
    places, cosines = nearest["sft"][0], nearest["sft"][1].tolist()
    rows = [
        {
            "id": record["id"],
            "nearest_id": train[places[index]]["id"] if train else None,
            "cosine": cosines[index],
            "nearness": nearness(cosines[index]),
            "grpo_cosine": float(nearest["grpo"][1][index]),
            **{f"copied_{name}": found[index].share for name, found in copies.items()},
            **{
                f"copied_from_{name}": None if found[index].place is None else train[found[index].place]["id"]
                for name, found in copies.items()
            },
        }
        for index, record in enumerate(records)
    ]
    write_table(arguments.records, rows, contamination_schema(copies), {})
    write_json(arguments.summary, summary(rows, used, asked, list(copies)))


def _asked(record: Mapping[str, str]) -> str:
    return f"{record['context']} {record['question']}".strip()


def nearness(cosine: float) -> str:
    """The bin of a cosine."""
    return next((name for below, name in NEAR if cosine < below), NEAREST)


def summary(
    rows: Sequence[Mapping[str, Any]], used: Mapping[str, Sequence[Mapping[str, str]]], asked: Sequence[str], systems: list[str]
) -> dict[str, Any]:
    """The figures over all questions.

    Returns:
        `questions`; by stage `used` (training questions), `same` (test questions that are among them word for word,
        whatever the case), `from_0.9` (with a cosine of at least 0.9) and the `highest` cosine; by system `copied`: how many
        answers have at least half of their runs of words from one training answer, and the mean share.
    """
    figures: dict[str, Any] = {"questions": len(rows), "words_in_a_row": NGRAM, "stages": {}, "copied": {}}
    for stage_name, column in (("sft", "cosine"), ("grpo", "grpo_cosine")):
        texts = {" ".join(_asked(row).casefold().split()) for row in used[stage_name]}
        figures["stages"][stage_name] = {
            "used": len(used[stage_name]),
            "same": sum(" ".join(text.casefold().split()) in texts for text in asked),
            "from_0.9": sum(row[column] >= 0.9 for row in rows),
            "highest": max((row[column] for row in rows), default=None),
        }
    for name in systems:
        shares = [row[f"copied_{name}"] for row in rows if row[f"copied_{name}"] is not None]
        figures["copied"][name] = {
            "answers": len(shares),
            "half_or_more": sum(share >= 0.5 for share in shares),
            "mean": sum(shares) / len(shares) if shares else None,
        }
    return figures


if __name__ == "__main__":
    parser.run(check_contamination)
