"""One page about a whole run: verdict, scores with intervals, training and reward curves, answers side by side, and what
made all of it. The page is a single file that opens without a network; model text is escaped wherever it stands.
"""

from __future__ import annotations

import argparse
import json
from itertools import combinations
from pathlib import Path

from ecg_grpo.files import new_file, read_json
from ecg_grpo.settings.report import ReportSettings
from ecg_grpo.stage import Stage, StageParser
from ecg_grpo.tables import evenly, read_rows

parser = StageParser("make_report", __doc__)
parser.add_input("--template", help="the page's Jinja template")
parser.add_input("--style", help="the page's style sheet")
parser.add_input("--comparison", help="comparison.json")
parser.add_input("--contamination", help="contamination.json")
parser.add_input("--data-report", help="data_report.json")
parser.add_input("--answers", nargs="+", metavar="PARQUET", help="answers of each model; its folder's name is its name")
parser.add_input("--scores", nargs="+", metavar="PARQUET", help="scores of each model, in the same order")
parser.add_input("--sft-log", help="training log of SFT (JSON lines)")
parser.add_input("--grpo-log", help="training log of GRPO (JSON lines)")
parser.add_input("--completions", help="GRPO's sampled completions (parquet)")
parser.add_input("--stages", nargs="+", metavar="JSON", help="provenance of every stage, in order")
parser.add_output("--page", help="index.html to write")
parser.add_argument("--run", required=True, help="name of the run")
parser.add_argument("--split", default="test", choices=("test", "validation", "train"), help="the questions that were answered")
parser.add_settings("report")


def make_report(arguments: argparse.Namespace, stage: Stage) -> None:
    """Reads everything, renders, writes."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    from ecg_grpo import charts

    settings = ReportSettings.from_json(arguments.settings)
    comparison = read_json(arguments.comparison)
    sft_log, grpo_log = read_json_lines(arguments.sft_log), read_json_lines(arguments.grpo_log)
    models = [file.parent.name for file in arguments.answers]
    quality = {entry["name"]: entry["label"] for entry in comparison["metrics"] if entry["claimed"]}
    pairs = [(later, earlier) for earlier, later in combinations(models, 2)]
    losses = [entry["validation_loss"] for entry in sft_log if "validation_loss" in entry]
    stages = [read_stage(file) for file in arguments.stages]
    validation = charts.validation_chart(grpo_log, quality)
    environment = Environment(loader=FileSystemLoader(arguments.template.parent), autoescape=True, undefined=StrictUndefined)
    page = environment.get_template(arguments.template.name).render(
        settings=settings,
        style=arguments.style.read_text(encoding="utf-8"),
        run=arguments.run,
        split=arguments.split,
        comparison=comparison,
        contamination=read_json(arguments.contamination),
        models=models,
        pairs=pairs,
        baseline_pairs=[(model, baseline) for model in models for baseline in comparison["order"] if baseline not in models],
        quality=quality,
        verdicts={(entry["system"], entry["other"]): entry["text"] for entry in comparison["verdicts"]},
        losses=losses,
        data=read_json(arguments.data_report),
        records=side_by_side(arguments.answers, arguments.scores, settings.max_answers),
        rollouts=evenly(read_rows(arguments.completions), settings.max_rollouts),
        reward_names=sorted(
            {
                name.split("/")[1]
                for entry in grpo_log
                for name in entry
                if name.startswith("rewards/") and name.endswith("/mean")
            }
        ),
        stages=stages,
        grpo_facts=next((entry["facts"] for entry in stages if entry["stage"] == "train_grpo"), {}),
        plotly_script=charts.plotly_script(),
        charts={
            "differences": charts.as_div(
                charts.difference_chart(comparison["differences"], quality, pairs), "chart-differences"
            ),
            "sft": charts.as_div(charts.sft_chart(sft_log), "chart-sft"),
            "reward": charts.as_div(charts.reward_chart(grpo_log), "chart-reward"),
            "length": charts.as_div(charts.length_chart(grpo_log), "chart-length"),
            "health": charts.as_div(charts.health_chart(grpo_log), "chart-health"),
            "validation": validation and charts.as_div(validation, "chart-validation"),
        },
    )
    with new_file(arguments.page) as partial:
        # Lone surrogates in a model's text cannot be encoded; they are shown as escapes.
        partial.write_text(page, encoding="utf-8", errors="backslashreplace")


def read_json_lines(file: Path) -> list[dict]:
    """The entries of a training log."""
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def read_stage(file: Path) -> dict:
    """A stage's provenance; `details` is what the page folds away, as readable JSON."""
    entry = read_json(file)
    shown = ("facts", "inputs", "outputs", "packages", "python", "machine", "threads")
    details = {"settings": json.loads(entry["settings"])} | {key: entry[key] for key in shown}
    return entry | {"details": json.dumps(details, indent=2, ensure_ascii=False)}


def side_by_side(answers: list[Path], scores: list[Path], most: int) -> list[dict]:
    """Test records, each with every model's answer and its scores."""
    records: dict[str, dict] = {}
    for answer_file, score_file in zip(answers, scores, strict=True):
        model = answer_file.parent.name
        for row, score in zip(read_rows(answer_file), read_rows(score_file), strict=True):
            record = records.setdefault(
                row["id"], {key: row[key] for key in ("id", "task", "context", "question", "answer")} | {"models": {}}
            )
            record["models"][model] = {
                "prediction": row["prediction"],
                "truncated": row["finish_reason"] == "length",
                "score": score["rouge_l"],
            }
    return evenly(list(records.values()), most)


if __name__ == "__main__":
    parser.run(make_report)
