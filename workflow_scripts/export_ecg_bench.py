"""A run's model and data for ECG-Bench and its successor ECG-Language-Models: a folder that stands for itself.

It holds the merged model, its system prompt, an entry for the projects' table of models, the training and the test split as
datasets of theirs, and a README with the commands. The folder is checked before it takes its place (check_ecg_bench_export.py).
"""

from __future__ import annotations

import argparse

from ecg_grpo.ecg_bench_export import (
    BENCHMARKS,
    DATASET,
    ENTRY,
    MODEL,
    README,
    SIGNAL_SAMPLES,
    SYSTEM_PROMPT,
    entry,
    link_model,
    refuse_if_unfit,
    refuse_other_prompts,
    rewritten,
    write_datasets,
    write_facts,
)
from ecg_grpo.files import model_directory, new_file, new_model_directory
from ecg_grpo.prompts import has_tag
from ecg_grpo.stage import Stage, StageParser
from ecg_grpo.tables import read_rows, system_prompt_of
from ecg_grpo.templates import render_text

parser = StageParser("export_ecg_bench", __doc__)
parser.add_input("--base-model", help="manifest.json of the base model")
parser.add_input("--model", help="manifest.json of the merged model to export")
parser.add_input("--train", help="training split (parquet)")
parser.add_input("--test", help="test split (parquet)")
parser.add_input("--readme-template", help="the README's Jinja template")
parser.add_input("--entry-template", help="the Jinja template of the entry in HF_LLMS")
parser.add_output("--manifest", help="manifest.json in the folder to write")
parser.add_argument("--of", default="grpo", choices=("grpo", "sft"), help="which of the run's models it is (default: grpo)")
parser.add_argument(
    "--fold", type=int, default=1, metavar="K", help="number of the splits, foldK_train and foldK_test (default: 1)"
)
parser.add_argument("--run", required=True, help="name of the run")
parser.add_argument(
    "--split", default="test", choices=("test", "validation", "train"), help="split that the run's models answered"
)
parser.add_argument("--max-new-tokens", type=int, required=True, help="longest answer in the run's own evaluation, in tokens")


def export_ecg_bench(arguments: argparse.Namespace, stage: Stage) -> None:
    """Refuses what the projects cannot load, writes, checks."""
    from ecg_grpo.ecg_bench_check import validate

    refuse_if_unfit(arguments.model)
    model, base = model_directory(arguments.model), model_directory(arguments.base_model)
    splits = {name: read_rows(getattr(arguments, name), "id", "prompt", "answer") for name in ("train", "test")}
    system_prompt = system_prompt_of(arguments.train)
    for name, rows in splits.items():
        refuse_other_prompts(rows, system_prompt, getattr(arguments, name))
    run, of, fold = arguments.run, arguments.of, arguments.fold
    variables = entry(model, run, of)
    with new_model_directory(arguments.manifest.parent) as folder:
        link_model(model, folder / MODEL)
        write_datasets(folder, splits, fold)
        write_facts(folder, base, run, of, fold, system_prompt)
        readme = {
            "run": run,
            "of": of,
            "fold": fold,
            "folder": arguments.manifest.parent,
            "key": variables["key"],
            "dataset": DATASET,
            "benchmarks": BENCHMARKS,
            "samples": SIGNAL_SAMPLES,
            "records": {name: len(rows) for name, rows in splits.items()},
            "dialogues": sum(len(row["prompt"]) > 2 for row in splits["test"]),
            "rewritten": rewritten(splits["test"]),
            "reasons": has_tag(system_prompt),
            "split": arguments.split,
            "max_new_tokens": arguments.max_new_tokens,
        }
        for name, text in {
            SYSTEM_PROMPT: system_prompt,
            ENTRY: render_text(arguments.entry_template, **variables, run=run, of=of),
            README: render_text(arguments.readme_template, **readme),
        }.items():
            with new_file(folder / name) as partial:
                partial.write_text(text, encoding="utf-8")
        validate(folder)
    stage.facts["records"] = readme["records"]
    stage.say(f"exported the {of.upper()} model as {variables['key']}: {readme['records']}")


if __name__ == "__main__":
    parser.run(export_ecg_bench)
