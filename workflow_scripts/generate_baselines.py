"""Answers that need no model: the question itself, and the answer of the most similar training question.

They stand beside the models in every table, since a metric says little until one knows what it gives for nothing.
"""

from __future__ import annotations

import argparse

from ecg_grpo.baselines import nearest_training_answers
from ecg_grpo.stage import Stage, StageParser
from ecg_grpo.tables import ANSWERS, read_rows, write_table

parser = StageParser("generate_baselines", __doc__)
parser.add_input("--train", help="training split (parquet)")
parser.add_input("--questions", help="split to answer (parquet)")
parser.add_output("--echo", help="each question as its own answer, to write (parquet)")
parser.add_output("--nearest", help="the nearest training answers, to write (parquet)")


def generate_baselines(arguments: argparse.Namespace, stage: Stage) -> None:
    """Answers without a model, writes in the models' format."""
    train = read_rows(arguments.train, "context", "question", "answer")
    records = read_rows(arguments.questions, "id", "task", "cluster", "context", "question", "answer", "prompt")
    systems = {
        "echo": [record["question"] for record in records],
        "nearest": nearest_training_answers(train, records),
    }
    for name, texts in systems.items():
        rows = [
            {**record, "completion": text, "prediction": text, "finish_reason": "stop"}
            for record, text in zip(records, texts, strict=True)
        ]
        write_table(getattr(arguments, name), rows, ANSWERS, {})


if __name__ == "__main__":
    parser.run(generate_baselines)
