"""Attacks the reward before GRPO trains on it: does an echo, a list of keywords or a fragment earn what a right answer earns?

On every record of the validation split the reward of the reference, of a paraphrase, of more than twenty attacks and of the SFT
model's own samples is computed. The table says of each attack how often it earns as much as an honest answer.

    python workflow_scripts/audit_reward.py --help
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path

from ecg_grpo.files import write_json
from ecg_grpo.reward_arguments import add_reward_arguments, load_configured_mix
from ecg_grpo.settings.reward_audit import AuditSettings
from ecg_grpo.stage import Stage, StageParser
from ecg_grpo.tables import read_rows

parser = StageParser("audit_reward", __doc__)
parser.add_input("--train", help="training split (parquet)")
parser.add_input("--validation", help="validation split (parquet)")
parser.add_input("--samples", nargs="*", default=[], help="completions of the SFT model to the validation questions (parquet)")
parser.add_input(
    "--policy", nargs="*", default=[], metavar="JSON", help="manifest.json of the SFT model, if its probabilities are rewarded"
)
parser.add_output("--audit", help="the audit to write (JSON)")
parser.add_argument("--scratch", type=Path, help="folder in which a judge's replies are kept (default: none)")
add_reward_arguments(parser)
parser.add_settings("reward_audit.audit")


def audit_reward(arguments: argparse.Namespace, stage: Stage) -> None:
    """Makes the attacks, scores everything, writes."""
    from ecg_grpo.attacks import Target, usual_beginning
    from ecg_grpo.baselines import most_frequent_answers, nearest_training_answers
    from ecg_grpo.reward_audit import audit

    settings = AuditSettings.from_json(arguments.settings)
    mix = load_configured_mix(arguments, stage, next(iter(arguments.policy), None))
    train = read_rows(arguments.train, "task", "context", "question", "answer")
    records = read_rows(arguments.validation, "id", "task", "cluster", "context", "question", "answer", "prompt")
    completions: dict[str, list[str]] = defaultdict(list)
    for file in arguments.samples:
        for row in read_rows(file, "id", "completion"):
            completions[row["id"]].append(row["completion"])
    frequent = most_frequent_answers((row["task"], row["answer"]) for row in train)
    phrase = usual_beginning(row["answer"] for row in train)
    targets = [
        Target(row["question"], row["answer"], nearest, frequent.get(row["task"], ""), phrase, row["prompt"])
        for row, nearest in zip(records, nearest_training_answers(train, records), strict=True)
    ]
    found = audit(mix, targets, [row["cluster"] for row in records], [completions[row["id"]] for row in records], settings)
    for failure in found["failures"]:
        stage.say(failure)
    stage.facts |= {"records": found["records"], "failures": len(found["failures"])}
    write_json(arguments.audit, found)


if __name__ == "__main__":
    parser.run(audit_reward)
