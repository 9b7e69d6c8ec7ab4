"""Steps and batches of both trainings, worked out before either of them starts.

A split too small for one GRPO batch would end in no step and no error hours later; it is refused here.
"""

from __future__ import annotations

import argparse

from ecg_grpo.files import write_json
from ecg_grpo.settings.grpo import GRPOSettings
from ecg_grpo.settings.sft import SFTSettings
from ecg_grpo.stage import Stage, StageParser
from ecg_grpo.tables import read_rows
from ecg_grpo.training_plan import grpo_steps, sft_steps

parser = StageParser("check_training_plan", __doc__)
parser.add_input("--train", help="training split (parquet)")
parser.add_output("--plan", help="the plan (JSON)")
parser.add_argument("--sft", default="{}", metavar="JSON", help="the sizes in section `sft` of the configuration")
parser.add_argument("--grpo", default="{}", metavar="JSON", help="the sizes in section `grpo` of the configuration")


def check_training_plan(arguments: argparse.Namespace, stage: Stage) -> None:
    """Counts, checks, writes."""
    sft, grpo = SFTSettings.from_json(arguments.sft), GRPOSettings.from_json(arguments.grpo)
    records = len(read_rows(arguments.train, "id"))
    plan = {
        "training_records": records,
        "sft": {"steps": sft_steps(records, sft)},
        "grpo": {
            "steps": grpo_steps(records, grpo),
            "prompts_per_step": grpo.prompts_per_step,
            "completions_per_step": grpo.completions_per_step,
        },
    }
    write_json(arguments.plan, plan)
    stage.facts["plan"] = plan


if __name__ == "__main__":
    parser.run(check_training_plan)
