"""Fails unless the comparison meets every requirement of `evaluation.require`; says each figure either way."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from typing import Any

from ecg_grpo.errors import InputError
from ecg_grpo.files import read_json, write_json
from ecg_grpo.requirements import judge, parse_requirement
from ecg_grpo.stage import Stage, StageParser

parser = StageParser("check_requirements", __doc__)
parser.add_input("--comparison", help="comparison.json")
parser.add_output("--requirements", help="the requirements with their figures, to write (JSON) if all are met")
parser.add_argument("--require", required=True, metavar="JSON", help="list of requirements, as in `evaluation.require`")


def check_requirements(arguments: argparse.Namespace, stage: Stage) -> None:
    """Judges each one, then fails or writes."""
    comparison = read_json(arguments.comparison)
    results = [judge(parse_requirement(text), comparison) for text in json.loads(arguments.require)]
    for result in results:
        stage.say(("met: " if result["met"] else "NOT met: ") + explain(result, comparison["confidence"]))
    missed = [explain(result, comparison["confidence"]) for result in results if not result["met"]]
    if missed:
        raise InputError(
            "evaluation.require",
            f"{len(missed)} of {len(results)} not met: {'; '.join(missed)}",
            "The report shows where it falls short. Train a better model or change the requirement.",
        )
    write_json(arguments.requirements, {"confidence": comparison["confidence"], "requirements": results})


def explain(result: Mapping[str, Any], confidence: float) -> str:
    """The requirement and the figures that decided."""
    if result["mean"] is None:
        return f"{result['text']} (nothing was measured)"
    about = "the difference is" if result["is_difference"] else "it is"
    interval = f"{result['low']:.4f} to {result['high']:.4f}"
    return f"{result['text']} ({about} {result['mean']:.4f}, {100 * confidence:g} % interval {interval})"


if __name__ == "__main__":
    parser.run(check_requirements)
