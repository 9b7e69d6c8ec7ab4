"""Base, SFT, GRPO and the baselines side by side: means, paired differences, an interval on each."""

from __future__ import annotations

import argparse
from itertools import combinations
from pathlib import Path

from ecg_grpo.comparison import compare, verdict
from ecg_grpo.errors import InputError
from ecg_grpo.files import write_json
from ecg_grpo.metrics import METRICS
from ecg_grpo.settings.evaluation import ComparisonSettings
from ecg_grpo.stage import Stage, StageParser
from ecg_grpo.tables import read_rows

parser = StageParser("compare_models", __doc__)
parser.add_input("--scores", nargs="+", metavar="PARQUET", help="scores of each system; its folder's name is its name")
parser.add_output("--comparison", help="the comparison, to write (JSON)")
parser.add_settings("evaluation.comparison")


def compare_models(arguments: argparse.Namespace, stage: Stage) -> None:
    """Reads, compares, writes."""
    settings = ComparisonSettings.from_json(arguments.settings)
    scores = {_system(file): read_rows(file) for file in arguments.scores}
    # The later system of a pair is the one that claims to be better: (sft, base), (grpo, sft), …
    pairs = [(later, earlier) for earlier, later in combinations(scores, 2)]
    try:
        comparison = compare(scores, list(METRICS), pairs, settings.resamples, settings.confidence, settings.seed)
    except ValueError as error:
        raise InputError(", ".join(map(str, arguments.scores)), str(error), "Answer one split with all of them.") from None
    quality = [name for name, metric in METRICS.items() if metric.is_quality]
    comparison |= {
        "confidence": settings.confidence,
        "resamples": settings.resamples,
        "metrics": [{"name": name, "label": metric.label, "is_quality": metric.is_quality} for name, metric in METRICS.items()],
        "order": list(scores),
        "verdicts": [{"system": one, "other": other, "text": verdict(comparison, quality, one, other)} for one, other in pairs],
    }
    write_json(arguments.comparison, comparison)
    for entry in comparison["verdicts"]:
        stage.say(entry["text"])


def _system(file: Path) -> str:
    return file.parent.name


if __name__ == "__main__":
    parser.run(compare_models)
