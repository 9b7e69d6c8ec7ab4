"""A model behind an OpenAI-compatible server answers every question of a split, greedily; answers are all kept.

A killed run goes on with the questions that have no answer yet. The key is taken from the environment variable that the
settings name, and is written nowhere.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ecg_grpo.answers import QUESTION_COLUMNS, answer_row
from ecg_grpo.endpoint import Endpoint, finish_reasons
from ecg_grpo.replies import ask_for_all, kept_replies, name_of
from ecg_grpo.settings.endpoint import EndpointSettings
from ecg_grpo.stage import Stage, StageParser
from ecg_grpo.tables import ANSWERS, read_rows, write_table

parser = StageParser("ask_endpoint", __doc__)
parser.add_input("--questions", help="split to answer (parquet)")
parser.add_output("--answers", help="answers to write (parquet)")
parser.add_argument("--max-new-tokens", type=int, default=256, help="longest answer in tokens")
parser.add_argument("--scratch", type=Path, help="folder in which replies are kept (default: none, every run asks anew)")
parser.add_settings("evaluation.models.<name>")


def ask_endpoint(arguments: argparse.Namespace, stage: Stage) -> None:
    """Reads, asks, writes."""
    settings = EndpointSettings.from_json(arguments.settings)
    records = read_rows(arguments.questions, *QUESTION_COLUMNS)
    name = f"ask_endpoint.{arguments.answers.parent.name}"
    replies = kept_replies(arguments.scratch, name, settings, arguments.max_new_tokens)
    names = [name_of(record["prompt"]) for record in records]
    with Endpoint(settings, arguments.max_new_tokens, stage.say) as endpoint:
        prompts = {name: record["prompt"] for name, record in zip(names, records, strict=True)}
        ask_for_all(endpoint, prompts, replies, stage)
    found = {name: replies.found[name] for name in names}
    stage.facts["max_new_tokens"] = arguments.max_new_tokens
    stage.facts["generated_tokens"] = sum(reply.completion_tokens or 0 for reply in found.values())
    stage.facts["finish_reasons"] = finish_reasons(found)
    rows = [answer_row(record, found[name]) for name, record in zip(names, records, strict=True)]
    write_table(arguments.answers, rows, ANSWERS, {"settings": arguments.settings})


if __name__ == "__main__":
    parser.run(ask_endpoint)
