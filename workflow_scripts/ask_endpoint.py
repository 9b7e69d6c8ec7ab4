"""A model behind an OpenAI-compatible server answers every question of a split, greedily; answers are all kept.

A killed run goes on with the questions that have no answer yet. The key is taken from the environment variable that the
settings name, and is written nowhere.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from ecg_grpo.answers import QUESTION_COLUMNS, answer_row
from ecg_grpo.checkpoints import scratch_directory
from ecg_grpo.endpoint import Endpoint, finish_reasons
from ecg_grpo.replies import Replies, ask_for_all
from ecg_grpo.settings.endpoint import EndpointSettings
from ecg_grpo.stage import Stage, StageParser
from ecg_grpo.tables import ANSWERS, read_rows, write_table

parser = StageParser("ask_endpoint", __doc__)
parser.add_input("--questions", help="split to answer (parquet)")
parser.add_output("--answers", help="answers to write (parquet)")
parser.add_argument("--max-new-tokens", type=int, default=256, help="longest answer in tokens")
parser.add_argument("--scratch", type=Path, help="folder for answers to go on from (default: none, a killed run starts anew)")
parser.add_settings("evaluation.models.<name>")


def ask_endpoint(arguments: argparse.Namespace, stage: Stage) -> None:
    """Reads, asks, writes."""
    settings = EndpointSettings.from_json(arguments.settings)
    records = read_rows(arguments.questions, *QUESTION_COLUMNS)
    scratch = None
    if arguments.scratch is not None:
        asked = f"{settings.identity()} {arguments.max_new_tokens}"
        name = f"ask_endpoint.{arguments.answers.parent.name}"
        scratch = scratch_directory(arguments.scratch, __file__, asked, "", [arguments.questions], name)
    replies = Replies(scratch and scratch / "replies.jsonl")
    with Endpoint(settings, arguments.max_new_tokens, stage.say) as endpoint:
        ask_for_all(endpoint, {str(index): record["prompt"] for index, record in enumerate(records)}, replies, stage)
    found = replies.found
    stage.facts["generated_tokens"] = sum(reply.completion_tokens or 0 for reply in found.values())
    stage.facts["finish_reasons"] = finish_reasons(found)
    rows = [answer_row(record, found[str(index)]) for index, record in enumerate(records)]
    write_table(arguments.answers, rows, ANSWERS, {"settings": arguments.settings})
    if scratch is not None:
        shutil.rmtree(scratch)


if __name__ == "__main__":
    parser.run(ask_endpoint)
