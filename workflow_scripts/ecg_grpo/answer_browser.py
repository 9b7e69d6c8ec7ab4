"""What the page's browser of answers and of GRPO's rollouts reads: columns of plain values."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

Row = Mapping[str, Any]


def answer_columns(answers: Mapping[str, Sequence[Row]], scores: Mapping[str, Sequence[Row]], metrics: Sequence[str]) -> dict:
    """All models' answers to the same questions, and their scores.

    Args:
        answers: rows of `answers.parquet` of each model, the same questions in the same order.
        scores: rows of scores, likewise.
        metrics: columns of the scores to keep; those without any value are left out.

    Returns:
        `records` (column → values), and for each model `answers` (column → values) and `scores` (metric → values, six
        decimals, None where a metric does not apply). `state` holds letters: t cut off, e empty, m malformed. `raw` is the
        model's whole text where it is not what is shown. `digest` names the answer that a rating is about.
    """
    first = next(iter(answers.values()))
    kinds = [row["kind"] for row in next(iter(scores.values()))]
    records = {name: [row[name] for row in first] for name in ("id", "task", "context", "question", "answer")}
    return {
        "records": records | {"kind": kinds},
        "answers": {
            model: {
                "prediction": [row["prediction"] for row in rows],
                "reasoning": [row["reasoning"] for row in rows],
                "raw": [None if row["is_well_formed"] else row["completion"] for row in rows],
                "state": ["".join(letter for letter, holds in _states(row) if holds) for row in rows],
                "digest": [answer_digest(row["completion"]) for row in rows],
            }
            for model, rows in answers.items()
        },
        "scores": {
            model: {
                metric: [None if (value := row.get(metric)) is None else round(value, 6) for row in rows]
                for metric in metrics
                if any(row.get(metric) is not None for row in rows)
            }
            for model, rows in scores.items()
        },
    }


def _states(row: Row) -> list[tuple[str, bool]]:
    return [("t", row["finish_reason"] == "length"), ("e", not row["prediction"].strip()), ("m", not row["is_well_formed"])]


def answer_digest(completion: str) -> str:
    """What tells an answer from another one to the same question; a spreadsheet does not take it for a number."""
    return "h" + hashlib.sha256(completion.encode(errors="surrogatepass")).hexdigest()[:8]


def rollout_columns(rows: Sequence[Row], rewards: Sequence[str], most: int) -> dict:
    """Completions that GRPO sampled, of whole steps spread evenly over the run.

    Args:
        rows: of `completions.parquet`.
        rewards: columns of the rewards.
        most: completions to keep, but at least one step's.

    Returns:
        `steps` (how many there were), `rewards` (names) and `rows`: one entry a completion.
    """
    steps = sorted({row["step"] for row in rows})
    number = len(steps)
    if len(rows) > most:
        number = max(1, most * len(steps) // len(rows))
    # From the first step to the last: what changed lies between them.
    chosen = {steps[place] for place in np.linspace(0, len(steps) - 1, number).round().astype(int)} if steps else set()
    kept = ("step", "id", "question", "answer", "completion", "advantage")
    return {
        "steps": len(steps),
        "rewards": list(rewards),
        "rows": [
            {name: row[name] for name in kept} | {name: None if row[name] is None else round(row[name], 3) for name in rewards}
            for row in rows
            if row["step"] in chosen
        ],
    }
