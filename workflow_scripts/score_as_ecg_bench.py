"""Every system's answers are scored as ECG-Bench and its successor ECG-Language-Models score, for tables beside theirs."""

from __future__ import annotations

import argparse

from ecg_grpo.ecg_bench_metrics import PROFILES, Answered
from ecg_grpo.files import write_json
from ecg_grpo.prompts import take_apart
from ecg_grpo.stage import Stage, StageParser
from ecg_grpo.tables import read_rows

parser = StageParser("score_as_ecg_bench", __doc__)
parser.add_input("--answers", nargs="+", metavar="PARQUET", help="answers of each system; its folder's name is its name")
parser.add_output("--figures", help="the figures, to write (JSON)")


def score_as_ecg_bench(arguments: argparse.Namespace, stage: Stage) -> None:
    """Reads, scores, writes."""
    systems = {file.parent.name: read_rows(file, "prediction", "reasoning", "answer") for file in arguments.answers}
    answers = {system: [answered(**row) for row in rows] for system, rows in systems.items()}
    figures = {
        name: {
            "source": profile.source,
            "note": profile.note,
            "metrics": profile.labels,
            "systems": {system: profile.figures(given) for system, given in answers.items()},
        }
        for name, profile in PROFILES.items()
    }
    write_json(arguments.figures, figures)
    for name, profile in figures.items():
        for system, found in profile["systems"].items():
            values = ", ".join(f"{metric} {found[metric]:.4f}" for metric in profile["metrics"])
            stage.say(f"{name} {system}: {found['records']} records, {found['dropped']} dropped, {values}")


def answered(prediction: str, reasoning: str | None, answer: str) -> Answered:
    """One row of the answers; a reference may hold reasoning too."""
    reference = take_apart(answer)
    return Answered(prediction, reference.prediction, reasoning or "", reference.reasoning or "")


if __name__ == "__main__":
    parser.run(score_as_ecg_bench)
