"""How much the scores of models differ from one draw of answers to the next, and whether a draw turns a comparison round."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from ecg_grpo.errors import InputError
from ecg_grpo.files import write_json
from ecg_grpo.metrics import METRICS
from ecg_grpo.settings.generation import SamplingSettings
from ecg_grpo.stage import Stage, StageParser
from ecg_grpo.tables import read_rows

parser = StageParser("compare_samples", __doc__)
parser.add_input("--answers", nargs="+", metavar="PARQUET", help="sampled answers of each model; its folder's name is its name")
parser.add_output("--summary", help="the spreads, to write (JSON)")
parser.add_settings("evaluation.sampling")


def compare_samples(arguments: argparse.Namespace, stage: Stage) -> None:
    """Reads, scores, writes."""
    settings = SamplingSettings.from_json(arguments.settings)
    models = {file.parent.name: means_of_draws(file) for file in arguments.answers}
    if len({len(draws) for draws in models.values()}) > 1:
        raise InputError("sampled answers", "the models have different numbers of draws", "Run snakemake again.")
    # The later model of a pair is the one that claims to be better.
    pairs = [(later, earlier) for earlier, later in combinations(models, 2)][::-1]
    summary = settings.model_dump() | {
        "models": {model: by_metric(draws) for model, draws in models.items()},
        "pairs": [{"system": one, "other": other, "metrics": by_metric(models[one] - models[other])} for one, other in pairs],
    }
    write_json(arguments.summary, summary)


def means_of_draws(file: Path) -> np.ndarray:
    """Every metric's mean over the questions, for each draw by itself: shape (draws, metrics); NaN where it never applies."""
    draws: dict[int, list[list[float | None]]] = {}
    for row in read_rows(file, "sample", "prediction", "answer", "question"):
        draws.setdefault(row["sample"], []).append(scores_of(row))
    tables = [np.ma.masked_invalid(np.array(rows, dtype=float)) for _, rows in sorted(draws.items())]
    return np.array([table.mean(axis=0).filled(np.nan) for table in tables])


def scores_of(row: Mapping[str, Any]) -> list[float | None]:
    """The scores of one answer, in the order of METRICS."""
    return [metric.score(row["prediction"], row["answer"], row["question"]) for metric in METRICS.values()]


def by_metric(draws: np.ndarray) -> dict[str, dict[str, float | None] | None]:
    """For each metric mean, standard deviation, lowest and highest of the draws, and in how many it is `ahead` of zero.

    Args:
        draws: shape (draws, metrics).

    Returns:
        None for a metric that does not apply.
    """
    return {
        name: None
        if np.isnan(values).any()
        else {"mean": float(values.mean()), "sd": float(values.std(ddof=1)), "low": float(values.min())}
        | {"high": float(values.max()), "ahead": int((values > 0).sum())}
        for name, values in zip(METRICS, draws.T, strict=True)
    }


if __name__ == "__main__":
    parser.run(compare_samples)
