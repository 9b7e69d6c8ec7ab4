"""The completions that GRPO sampled, as one table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from ecg_grpo.files import new_file
from ecg_grpo.prompts import extract_prediction


def gather_completions(folder: Path, rewards: Sequence[str], iterations: int, target: Path) -> None:
    """Writes one parquet file from those that TRL wrote, one for each step.

    Of several optimizer passes over one batch of completions only the first counts: TRL writes the batch at each.

    Columns: step, id, question, answer (the reference), completion, prediction, one column for each reward function, and
    advantage.
    """
    steps = [pd.read_parquet(file) for file in sorted(folder.glob("completions_*.parquet"))]
    table = pd.concat(steps, ignore_index=True)
    table = table[(table["step"] - 1) % iterations == 0].reset_index(drop=True)
    table["completion"] = [messages[0]["content"] for messages in table["completion"]]
    table["prediction"] = [extract_prediction(text) for text in table["completion"]]
    columns = ["step", "id", "question", "answer", "completion", "prediction", *rewards, "advantage"]
    with new_file(target) as partial:
        table[columns].to_parquet(partial, compression="zstd", index=False)
