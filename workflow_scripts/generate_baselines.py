"""Answers that need no model: the question itself, one answer for each task, and that of the most similar training question.

They stand beside the models in every table, since a metric says little until one knows what it gives for nothing. What it gives
at best is shown by second references: other reference answers to the same question, where the split has them.
"""

from __future__ import annotations

import argparse

from ecg_grpo.baselines import most_frequent_answers, nearest_training_answers, second_references
from ecg_grpo.stage import Stage, StageParser
from ecg_grpo.tables import ANSWERS, read_rows, write_table

parser = StageParser("generate_baselines", __doc__)
parser.add_input("--train", help="training split (parquet)")
parser.add_input("--questions", help="split to answer (parquet)")
parser.add_output("--echo", help="each question as its own answer, to write (parquet)")
parser.add_output("--constant", help="the most frequent training answer of each task, to write (parquet)")
parser.add_output("--nearest", help="the nearest training answers, to write (parquet)")
parser.add_output("--second-references", help="other reference answers to the same questions, to write (parquet)")


def generate_baselines(arguments: argparse.Namespace, stage: Stage) -> None:
    """Answers without a model, writes in the models' format."""
    train = read_rows(arguments.train, "task", "context", "question", "answer")
    records = read_rows(arguments.questions, "id", "task", "cluster", "context", "question", "answer", "prompt")
    frequent = most_frequent_answers((row["task"], row["answer"]) for row in train)
    systems = {
        "echo": [record["question"] for record in records],
        "constant": [frequent.get(record["task"], "") for record in records],
        "nearest": nearest_training_answers(train, records),
        "second_references": second_references(records),
    }
    for name, texts in systems.items():
        rows = [
            {**record, "completion": text, "prediction": text, "is_well_formed": bool(text), "finish_reason": "stop"}
            for record, text in zip(records, texts, strict=True)
            if text is not None
        ]
        write_table(getattr(arguments, name), rows, ANSWERS, {})


if __name__ == "__main__":
    parser.run(generate_baselines)
