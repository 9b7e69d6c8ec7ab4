"""The evaluated questions as a task of lm-evaluation-harness: a folder with task, questions, scores and command."""

from __future__ import annotations

import argparse

from ecg_grpo.files import new_file
from ecg_grpo.lm_eval_task import QUESTIONS, render
from ecg_grpo.settings.generation import GenerationSettings
from ecg_grpo.stage import Stage, StageParser
from ecg_grpo.tables import read_rows, write_table

parser = StageParser("write_lm_eval_task", __doc__)
parser.add_input("--questions", help="split that the models answer (parquet)")
parser.add_input("--task-template", help="the task's Jinja template (YAML)")
parser.add_input("--readme-template", help="the README's Jinja template")
parser.add_input("--code", help="prompts and scores for lm-eval (Python), copied as it is")
parser.add_output("--task", help="the task to write (YAML)")
parser.add_output("--task-questions", help="its questions, to write (parquet)")
parser.add_output("--task-code", help="its prompts and scores, to write (Python)")
parser.add_output("--readme", help="the README to write")
parser.add_argument("--run", required=True, help="name of the run")
parser.add_argument("--split", default="test", choices=("test", "validation", "train"), help="the split's name")
parser.add_settings("evaluation.generation")


def write_lm_eval_task(arguments: argparse.Namespace, stage: Stage) -> None:
    """Reads the questions, writes the folder."""
    settings = GenerationSettings.from_json(arguments.settings)
    records = read_rows(arguments.questions, "id", "prompt", "answer")
    folder = arguments.task.parent
    variables = {
        "run": arguments.run,
        "split": arguments.split,
        "records": len(records),
        "settings": settings,
        "dtype": "float32" if settings.precision == "auto" else settings.precision,
        "folder": folder,
        "results": folder.parent,
    }
    write_table(arguments.task_questions, records, QUESTIONS, {})
    for file, text in {
        arguments.task_code: arguments.code.read_text(encoding="utf-8"),
        arguments.readme: render(arguments.readme_template, **variables),
        arguments.task: render(arguments.task_template, **variables),
    }.items():
        with new_file(file) as partial:
            partial.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    parser.run(write_lm_eval_task)
