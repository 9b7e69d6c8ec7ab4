"""One page about a whole run: verdict, scores with intervals, training and reward curves, answers side by side, and what
made all of it. The page is a single file that opens without a network; model text is escaped wherever it stands. Its figures,
without any text of data or models, stand in a Markdown file beside it, to be kept or published.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from ecg_grpo.errors import InputError
from ecg_grpo.files import read_json
from ecg_grpo.further_scores import read_scores
from ecg_grpo.settings.report import ReportSettings
from ecg_grpo.stage import Stage, StageParser
from ecg_grpo.tables import evenly, read_rows

parser = StageParser("make_report", __doc__)
parser.add_input("--summary-template", help="the Markdown file's Jinja template")
parser.add_input("--summary-macros", help="the Jinja template of its tables")
parser.add_input("--comparison", help="comparison.json")
parser.add_input("--contamination", help="contamination.json")
parser.add_input("--data-report", help="data_report.json")
parser.add_input("--ecg-bench", help="ecg_bench.json")
parser.add_input("--judge", nargs="*", default=[], metavar="JSON", help="judge.json, if a language model judged the answers")
parser.add_input("--samples", nargs="*", default=[], metavar="JSON", help="samples.json, if answers were drawn too")
parser.add_input("--audit", help="audit of the reward (audit.json)")
parser.add_input(
    "--reward-accuracy", nargs="*", default=[], metavar="JSON", help="the reward model's accuracy.json, if one was trained"
)
parser.add_input(
    "--reasonings", nargs="*", default=[], metavar="JSON", help="accounts of the reasonings that SFT learned, if any"
)
parser.add_input("--answers", nargs="+", metavar="PARQUET", help="answers of each model; its folder's name is its name")
parser.add_input("--scores", nargs="+", metavar="PARQUET", help="scores of each model, further ones after the first")
parser.add_input("--sft-log", help="training log of SFT (JSON lines)")
parser.add_input("--grpo-log", help="training log of GRPO (JSON lines)")
parser.add_input("--completions", help="GRPO's sampled completions (parquet)")
parser.add_input("--stages", nargs="+", metavar="JSON", help="provenance of every stage, in order")
parser.add_page("index.html")
parser.add_output("--summary", help="summary.md to write")
parser.add_argument("--run", required=True, help="name of the run")
parser.add_argument("--split", default="test", choices=("test", "validation", "train"), help="the questions that were answered")
parser.add_settings("report")


def make_report(arguments: argparse.Namespace, stage: Stage) -> None:
    """Reads everything, renders, writes."""
    from ecg_grpo.pages import write_markdown, write_page

    settings = ReportSettings.from_json(arguments.settings)
    comparison = read_json(arguments.comparison)
    answers = {file.parent.name: read_rows(file) for file in arguments.answers}
    scores = read_scores(arguments.scores)
    models = list(answers)
    stages = [read_stage(file) for file in arguments.stages]
    values = {
        "settings": settings,
        "run": arguments.run,
        "split": arguments.split,
        "comparison": comparison,
        "contamination": read_json(arguments.contamination),
        "data": read_json(arguments.data_report),
        "ecg_bench": read_json(arguments.ecg_bench),
        "judge": next(map(read_json, arguments.judge), None),
        "samples": next(map(read_json, arguments.samples), None),
        "audit": read_json(arguments.audit),
        "reward_model": next(map(read_json, arguments.reward_accuracy), None),
        "reasonings": {file.stem: read_json(file) for file in arguments.reasonings},
        "models": models,
        "pairs": pairs_of(models),
        "baseline_pairs": [(model, other) for model in models for other in comparison["order"] if other not in models],
        "quality": claimed(comparison),
        "verdicts": {(entry["system"], entry["other"]): entry["text"] for entry in comparison["verdicts"]},
        "stages": stages,
        "grpo_facts": next((entry["facts"] for entry in stages if entry["stage"] == "train_grpo"), {}),
        **training(read_json_lines(arguments.sft_log), read_json_lines(arguments.grpo_log), claimed(comparison)),
        **comparison_charts(comparison, scores, models),
    }
    completions = read_rows(arguments.completions)
    limit, most_answers, most_rollouts = settings.max_megabytes * 2**20, settings.max_answers, settings.max_rollouts
    while True:
        browsed = browser_data(comparison, answers, scores, completions, most_answers, most_rollouts)
        write_page(arguments.page, arguments.template, arguments.style, arguments.scripts, values | browsed)
        size = arguments.page.stat().st_size
        if size <= limit:
            break
        if browsed["shown"] <= 1:
            arguments.page.unlink()
            megabytes = math.ceil(size / 2**20)
            raise InputError("report.max_megabytes", "not even one record fits on the page", f"Set it to {megabytes} or more.")
        most_answers, most_rollouts = browsed["shown"] * 3 // 4, most_rollouts * 3 // 4
    write_markdown(arguments.summary, arguments.summary_template, values, arguments.summary_macros)
    stage.facts |= {"answers_shown": browsed["shown"], "bytes": size}


def pairs_of(models: Sequence[str]) -> list[tuple[str, str]]:
    """(later, earlier) model of every pair, the most telling ones last."""
    return [(later, earlier) for earlier, later in combinations(models, 2)]


def claimed(comparison: dict) -> dict[str, str]:
    """Labels of the metrics of which a verdict may speak."""
    return {entry["name"]: entry["label"] for entry in comparison["metrics"] if entry["claimed"]}


def training(sft_log: list[dict], grpo_log: list[dict], quality: dict[str, str]) -> dict[str, Any]:
    """What the page shows of both trainings."""
    from ecg_grpo import charts
    from ecg_grpo.pages import chart

    validation = charts.validation_chart(grpo_log, quality)
    return {
        "losses": [entry["validation_loss"] for entry in sft_log if "validation_loss" in entry],
        "sft_chart": chart(charts.sft_chart(sft_log), "chart-sft"),
        "reward_chart": chart(charts.reward_chart(grpo_log), "chart-reward"),
        "length_chart": chart(charts.length_chart(grpo_log), "chart-length"),
        "health_chart": chart(charts.health_chart(grpo_log), "chart-health"),
        "validation_chart": validation and chart(validation, "chart-validation"),
    }


def comparison_charts(comparison: dict, scores: dict[str, list[dict]], models: list[str]) -> dict[str, Any]:
    """Differences, differences by task, and scores against length."""
    from ecg_grpo import charts
    from ecg_grpo.pages import chart

    quality, pairs, names = claimed(comparison), pairs_of(models), comparison["names"]
    main = next(iter(quality))
    forest = charts.difference_chart(comparison["differences"], quality, pairs, names)
    heat = charts.task_chart(comparison["slices"]["task"], quality, pairs[::-1], names)
    lengths = charts.score_by_length_chart(
        {model: [(row["words"], row[main]) for row in scores[model]] for model in models}, quality[main], names
    )
    return {
        "difference_chart": chart(forest, "chart-differences"),
        "task_chart": chart(heat, "chart-tasks"),
        "score_by_length_chart": chart(lengths, "chart-score-by-length"),
    }


def browser_data(
    comparison: dict,
    answers: dict[str, list[dict]],
    scores: dict[str, list[dict]],
    completions: list[dict],
    most_answers: int,
    most_rollouts: int,
) -> dict[str, Any]:
    """The two browsers' data, as the page holds them, and how many records are `shown`."""
    from ecg_grpo.answer_browser import answer_columns, rollout_columns
    from ecg_grpo.pages import packed

    metrics = [
        {"name": entry["name"], "label": entry["label"], "reward": entry["is_reward"], "less": entry["less_is_better"]}
        for entry in comparison["metrics"]
        if entry["about"] not in ("share", "length")  # nobody wins by length
    ]
    models = list(answers)
    names = [entry["name"] for entry in metrics]
    columns = answer_columns(
        {model: evenly(rows, most_answers) for model, rows in answers.items()},
        {model: evenly(rows, most_answers) for model, rows in scores.items()},
        names,
    )
    columns |= {
        "metrics": metrics,
        "names": {model: comparison["names"][model] for model in models},
        "pairs": pairs_of(models)[::-1],
    }
    schema = ("step", "id", "question", "answer", "completion", "prediction", "advantage")
    rewards = [name for name in completions[0] if name not in schema] if completions else []
    rollouts = rollout_columns(completions, rewards, most_rollouts)
    return {
        "shown": len(columns["records"]["id"]),
        "answers_data": packed(columns),
        "rollouts_data": packed(rollouts),
    }


def read_json_lines(file: Path) -> list[dict]:
    """The entries of a training log."""
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def read_stage(file: Path) -> dict:
    """A stage's provenance; `details` is what the page folds away, as readable JSON."""
    entry = read_json(file)
    shown = ("facts", "inputs", "outputs", "packages", "python", "machine", "threads")
    details = {"settings": json.loads(entry["settings"])} | {key: entry[key] for key in shown}
    return entry | {"details": json.dumps(details, indent=2, ensure_ascii=False)}


if __name__ == "__main__":
    parser.run(make_report)
