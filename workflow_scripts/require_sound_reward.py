"""Stops the pipeline where the audit found attacks that earn too much; names attack, part of the reward and an example."""

from __future__ import annotations

import argparse

from ecg_grpo.errors import InputError
from ecg_grpo.files import read_json, write_json
from ecg_grpo.stage import Stage, StageParser

parser = StageParser("require_sound_reward", __doc__)
parser.add_input("--audit", help="what audit_reward.py found (JSON)")
parser.add_output("--passed", help="file to write if nothing earns too much (JSON)")

_SHOWN = 160


def require_sound_reward(arguments: argparse.Namespace, stage: Stage) -> None:
    """Passes or fails."""
    found = read_json(arguments.audit)
    if found["failures"]:
        raise InputError(
            "reward",
            f"the audit found what earns too much: {'; '.join(found['failures'])}. {_example(found)}",
            f"Change the weights or gates of reward; {arguments.audit} has every attack. The limits are in reward_audit.audit.",
        )
    write_json(arguments.passed, {"limits": found["limits"], "records": found["records"]})


def _example(found: dict) -> str:
    """The worst attack's text, and which part of the reward pays for it."""
    failing = [row for row in found["attacks"] if any(text.startswith(f"{row['label']} earns") for text in found["failures"])]
    if not failing:
        return "The log of audit_reward says why."
    row = max(failing, key=lambda row: row["example"]["reward"] - row["example"]["honest_reward"])
    example = row["example"]
    text = " ".join(example["attack"].split())
    shown = text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"
    return (
        f'Example: asked "{example["question"]}", {row["label"]} earns {example["reward"]:.2f} against '
        f'{example["honest_reward"]:.2f}, mostly by {example["part"]}: "{shown}"'
    )


if __name__ == "__main__":
    parser.run(require_sound_reward)
