"""Base, SFT, GRPO and the baselines side by side: means, paired differences, an interval on each, and what follows from it."""

from __future__ import annotations

import argparse
from itertools import combinations
from typing import Any

import numpy as np

from ecg_grpo.comparison import ClusterBootstrap, Resampling, Scores, compare, verdict, verdict_text
from ecg_grpo.errors import InputError
from ecg_grpo.files import write_json
from ecg_grpo.further_scores import FURTHER_SCORES, present, read_scores
from ecg_grpo.metrics import METRICS
from ecg_grpo.settings.scoring import ComparisonSettings
from ecg_grpo.stage import Stage, StageParser
from ecg_grpo.tables import SHARES, read_rows

NAMES = {
    "echo": "echo of the question",
    "constant": "one answer for each task",
    "nearest": "nearest training answer",
    "base": "base model",
    "sft": "SFT",
    "grpo": "GRPO",
}
"""Systems as they are named in sentences and tables."""

BASELINES = ("echo", "constant", "nearest")
SLICES = {
    "task": "task",
    "kind": "kind of question",
    "length": "length of the reference",
    "nearness": "nearest training question",
}

parser = StageParser("compare_models", __doc__)
parser.add_input(
    "--scores",
    nargs="+",
    metavar="PARQUET",
    help="scores of each system, further ones after the first; its folder's name is its name",
)
parser.add_input("--second-references", help="scores of second reference answers to the same questions (parquet)")
parser.add_input("--contamination", help="how near each question and answer is to the training data (parquet)")
parser.add_output("--comparison", help="the comparison, to write (JSON)")
parser.add_argument("--rewards", nargs="*", default=[], metavar="NAME", help="rewards that GRPO trained on")
parser.add_settings("evaluation.comparison")


def compare_models(arguments: argparse.Namespace, stage: Stage) -> None:
    """Reads, compares, writes."""
    settings = ComparisonSettings.from_json(arguments.settings)
    resampling = Resampling(settings.confidence, settings.resamples, settings.permutations, settings.seed)
    tables = read_scores(arguments.scores)
    near = read_rows(arguments.contamination)
    further = present(tables)
    scores = gather(tables, near, further)
    described = describe(arguments.rewards, further)
    claimed = [entry["name"] for entry in described if entry["claimed"]]
    # The later system of a pair is the one that claims to be better: (sft, base), (grpo, sft), …
    pairs = [(later, earlier) for earlier, later in combinations(tables, 2)]
    comparison = compare(scores, claimed, pairs, [pair for pair in pairs if not set(pair) & set(BASELINES)], resampling)
    labels = {entry["name"]: entry["label"] for entry in described}
    verdicts = []
    for one, other in pairs:
        found = verdict(comparison["differences"], one, other, settings.confidence)
        text = verdict_text(found, NAMES.get(one, one), NAMES.get(other, other), labels)
        verdicts.append(
            {"system": one, "other": other, "better": found.better, "worse": found.worse, "open": found.open} | {"text": text}
        )
    comparison |= {
        "confidence": settings.confidence,
        "resamples": settings.resamples,
        "permutations": settings.permutations,
        "metrics": described,
        "slice_names": SLICES,
        "order": list(tables),
        "names": {system: NAMES.get(system, system) for system in tables},
        "verdicts": verdicts,
        "ceiling": ceiling(scores, [row["id"] for row in near], read_rows(arguments.second_references), resampling),
    }
    write_json(arguments.comparison, comparison)
    for entry in verdicts:
        stage.say(entry["text"])


def describe(rewards: list[str], further: list[str]) -> list[dict[str, Any]]:
    """Every column of the comparison: `name`, `label`, `note`, `about`, `is_reward`, `less_is_better`, and whether a verdict
    may speak of it (`claimed`).
    """
    metrics = [
        {"name": name, "label": metric.label, "note": metric.note, "about": metric.about, "is_reward": name in rewards}
        | {"claimed": metric.is_quality and name not in rewards, "less_is_better": False}
        for name, metric in METRICS.items()
    ]
    for name in further:
        score = FURTHER_SCORES[name]
        entry = {"name": name, "label": score.label, "note": score.note, "about": score.about}
        metrics.append(entry | {"is_reward": False, "claimed": False, "less_is_better": score.less_is_better})
    shares = [
        ("truncated", "Cut off", "the answer hit the token limit"),
        ("empty", "Empty", "nothing was answered, or the reasoning never ended"),
        ("malformed", "Malformed", "empty, or tags of reasoning and answer out of order"),
        ("reasoned", "Reasoned", "something stands in the reasoning"),
        ("copied", "Copied", "share of the answer's runs of five words that stand in one training answer"),
    ]
    measured = shares_of(further)
    return metrics + [
        {"name": name, "label": label, "note": note, "about": "share", "is_reward": False, "claimed": False}
        | {"less_is_better": name != "reasoned"}
        for name, label, note in shares
        if name in measured
    ]


def shares_of(further: list[str]) -> tuple[str, ...]:
    """The shares that are compared; where nobody reasons nothing is said of it."""
    return tuple(name for name in (*SHARES, "copied") if name != "reasoned" or "reasoning_words" in further)


def gather(tables: dict[str, list[dict[str, Any]]], near: list[dict[str, Any]], further: list[str]) -> Scores:
    """All scores as matrices.

    Raises:
        InputError: the systems did not answer the same questions.
    """
    first = next(iter(tables.values()))
    ids = [row["id"] for row in first]
    for system, rows in {**tables, "contamination": near}.items():
        if [row["id"] for row in rows] != ids:
            raise InputError(
                f"evaluation/{system}",
                "is not about the same questions in the same order",
                "Answer one split with all systems.",
            )
    shares = shares_of(further)
    metrics = (*METRICS, *further, *shares)
    values = {
        system: np.array(
            [
                [*(row.get(metric) for metric in metrics[:-1]), neighbour.get(f"copied_{system}")]
                for row, neighbour in zip(rows, near, strict=True)
            ],
            dtype=float,
        ).reshape(len(ids), len(metrics))
        for system, rows in tables.items()
    }
    slices = {name: np.array([row[name] for row in first]) for name in ("task", "kind", "length")}
    slices["nearness"] = np.array([row["nearness"] for row in near])
    less = {*shares, *(name for name in further if FURTHER_SCORES[name].less_is_better)} - {"reasoned"}
    return Scores(np.array([row["cluster"] for row in first]), slices, values, metrics, less)


def ceiling(scores: Scores, ids: list[str], second: list[dict[str, Any]], resampling: Resampling) -> dict[str, Any] | None:
    """What a second reference scores against the first, and what the systems score on the same questions.

    Returns:
        `records`, `reference` (metric → estimate) and `systems` (system → metric → estimate); None where no question has two
        references.
    """
    if not second:
        return None
    place = {record: index for index, record in enumerate(ids)}
    chosen = [place[row["id"]] for row in second]
    bootstrap = ClusterBootstrap(scores.clusters[chosen], resampling.resamples, resampling.confidence, resampling.seed)
    names = [name for name in scores.metrics if name in METRICS]
    columns = [scores.metrics.index(name) for name in names]

    def estimates(values: np.ndarray) -> dict[str, Any]:
        return {name: vars(estimate) for name, estimate in zip(names, bootstrap.means(values), strict=True)}

    return {
        "records": len(second),
        "reference": estimates(np.array([[row[name] for name in names] for row in second], dtype=float)),
        "systems": {system: estimates(values[chosen][:, columns]) for system, values in scores.values.items()},
    }


if __name__ == "__main__":
    parser.run(compare_models)
