"""The runs of a sweep side by side: what each GRPO model scores, whether it beats its SFT model, and, where all answered the
same questions, its paired difference from the first run's.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ecg_grpo.comparison import Resampling, Scores, compare
from ecg_grpo.errors import InputError
from ecg_grpo.files import read_json, write_json
from ecg_grpo.settings.scoring import ComparisonSettings
from ecg_grpo.stage import Stage, StageParser
from ecg_grpo.tables import read_rows

SYSTEM = "grpo"
SHOWN = ("rouge_l", "concept_f1", "polarity", "length_ratio", "truncated")
"""Columns of the page's table; the file has every metric."""

parser = StageParser("compare_runs", __doc__)
parser.add_input("--comparisons", nargs="+", metavar="JSON", help="comparison.json of each run")
parser.add_input("--scores", nargs="+", metavar="PARQUET", help="scores of each run's GRPO model, in the same order")
parser.add_page("index.html")
parser.add_output("--summary", help="its figures, to write (JSON)")
parser.add_argument("--values", required=True, metavar="JSON", help="name of each run, and its values by dotted key")
parser.add_settings("evaluation.comparison")


def compare_runs(arguments: argparse.Namespace, stage: Stage) -> None:
    """Reads, compares, writes."""
    from ecg_grpo.charts import run_chart
    from ecg_grpo.pages import chart, write_page

    settings = ComparisonSettings.from_json(arguments.settings)
    values = json.loads(arguments.values)
    comparisons = dict(zip(values, map(read_json, arguments.comparisons), strict=True))
    runs = [describe(name, values[name], comparisons[name]) for name in values]
    metrics = next(iter(comparisons.values()))["metrics"]
    rewarded = {metric["name"] for found in comparisons.values() for metric in found["metrics"] if metric["is_reward"]}
    metrics = [metric | {"is_reward": metric["name"] in rewarded} for metric in metrics]
    claimed = {metric["name"]: metric["label"] for metric in metrics if metric["claimed"] and metric["name"] not in rewarded}
    differences = paired_differences(dict(zip(values, arguments.scores, strict=True)), list(claimed), settings)
    summary = {
        "confidence": settings.confidence,
        "keys": list(next(iter(values.values()))),
        "metrics": metrics,
        "claimed": claimed,
        "runs": runs,
        "first": next(iter(values)),
        "differences": differences,
    }
    write_json(arguments.summary, summary)
    shown = [metric for metric in metrics if metric["name"] in SHOWN]
    charts = {
        "from_sft": chart(
            run_chart({run["name"]: run["from_sft"] for run in runs}, claimed, "GRPO − SFT of the same run"), "sft"
        )
    }
    if differences:
        charts["from_first"] = chart(run_chart(differences, claimed, "difference from the first run"), "first")
    page = {"title": arguments.summary.parent.parent.name, "shown": shown, "charts": charts, **summary}
    write_page(arguments.page, arguments.template, arguments.style, arguments.scripts, page)
    stage.facts |= {"runs": len(runs), "paired": bool(differences)}


def describe(name: str, values: Mapping[str, Any], comparison: Mapping[str, Any]) -> dict[str, Any]:
    """What a run's comparison says of its GRPO model."""
    verdict = next(entry for entry in comparison["verdicts"] if (entry["system"], entry["other"]) == (SYSTEM, "sft"))
    return {
        "name": name,
        "values": dict(values),
        "records": comparison["records"],
        "scores": comparison["systems"][SYSTEM],
        "from_sft": {
            entry["metric"]: entry
            for entry in comparison["differences"]
            if (entry["system"], entry["other"]) == (SYSTEM, "sft")
        },
        "better": verdict["better"],
        "worse": verdict["worse"],
        "open": verdict["open"],
        "verdict": verdict["text"],
    }


def paired_differences(
    scores: Mapping[str, Path], claimed: Sequence[str], settings: ComparisonSettings
) -> dict[str, dict[str, dict[str, Any]]]:
    """For each run but the first, its GRPO model's difference from the first's on every claimed metric.

    Args:
        scores: tables of scores by run.
        claimed: metrics.
        settings: how intervals and p-values are computed; p-values are corrected over the metrics of a run, not over the runs.

    Returns:
        Run → metric → entry of a comparison; nothing where the runs answered different questions, as after other splits.

    Raises:
        InputError: a table lacks a metric.
    """
    tables = {name: read_rows(file) for name, file in scores.items()}
    first = next(iter(tables))
    ids = [row["id"] for row in tables[first]]
    if len(tables) == 1 or any([row["id"] for row in rows] != ids for rows in tables.values()):
        return {}
    for name, rows in tables.items():
        if missing := [metric for metric in claimed if metric not in rows[0]]:
            raise InputError(str(scores[name]), f"has no {', '.join(missing)}", "Run snakemake again.")
    matrices = {
        name: np.array([[row[metric] for metric in claimed] for row in rows], dtype=float).reshape(len(ids), len(claimed))
        for name, rows in tables.items()
    }
    gathered = Scores(np.array([row["cluster"] for row in tables[first]]), {}, matrices, tuple(claimed))
    resampling = Resampling(settings.confidence, settings.resamples, settings.permutations, settings.seed)
    pairs = [(name, first) for name in tables if name != first]
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for entry in compare(gathered, claimed, pairs, [], resampling)["differences"]:
        found.setdefault(entry["system"], {})[entry["metric"]] = entry
    return found


if __name__ == "__main__":
    parser.run(compare_runs)
