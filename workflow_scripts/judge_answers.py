"""A language model judges answers: grades by a rubric, and pairs of answers in both orders.

A judge is a model too: what it says is an opinion with errors and leanings of its own, which the summary counts as far as they
can be counted. Every reply is kept as soon as it has arrived; a killed run, and one in which only some answers are new, asks
for nothing again that it knows.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from ecg_grpo.endpoint import Endpoint
from ecg_grpo.errors import InputError
from ecg_grpo.files import sha256_of, write_json
from ecg_grpo.judging import (
    CRITERIA,
    PAIR_TEXTS,
    RUBRIC_TEXTS,
    JudgePrompt,
    outcome,
    read_grades,
    read_verdict,
    same_model,
    scaled,
    summarize,
)
from ecg_grpo.prompts import Message, conversation
from ecg_grpo.replies import ask_for_all, kept_replies, name_of
from ecg_grpo.settings.judge import JudgeSettings
from ecg_grpo.stage import Stage, StageParser
from ecg_grpo.tables import JUDGE_GRADES, JUDGE_PAIRS, JUDGE_REPLIES, evenly, read_rows, write_table

parser = StageParser("judge_answers", __doc__)
parser.add_input("--answers", nargs="+", metavar="PARQUET", help="answers of each system; its folder's name is its name")
parser.add_input("--rubric-prompt", help="prompt for grading one answer")
parser.add_input("--pair-prompt", help="prompt for comparing two answers")
parser.add_output("--grades", nargs="+", metavar="PARQUET", help="grades of each system, to write, in the order of --answers")
parser.add_output("--pairs", help="verdicts on pairs, to write (parquet)")
parser.add_output("--replies", help="everything that the judge said, to write (parquet)")
parser.add_output("--summary", help="what it comes to, to write (JSON)")
parser.add_argument("--compared", nargs="*", default=[], metavar="SYSTEM:OTHER", help="pairs of systems")
parser.add_argument("--model-names", default="{}", metavar="JSON", help="what the answering models are called, by system")
parser.add_argument("--scratch", type=Path, help="folder in which replies are kept (default: none, every run asks anew)")
parser.add_settings("evaluation.judge")

COLUMNS = ("id", "cluster", "prompt", "answer", "prediction")
NOTE = "Opinions of a language model, not of experts; it may lean to an order, a length, a style, or its own kind."


def judge_answers(arguments: argparse.Namespace, stage: Stage) -> None:
    """Reads, asks, reads the replies, writes."""
    settings = JudgeSettings.from_json(arguments.settings)
    criteria = settings.rubric.model_dump()
    rubric = JudgePrompt(arguments.rubric_prompt, RUBRIC_TEXTS, criteria)
    pair = JudgePrompt(arguments.pair_prompt, PAIR_TEXTS, criteria)
    tables = {file.parent.name: read_rows(file, *COLUMNS) for file in arguments.answers}
    compared = [read_pair(text, tables) for text in arguments.compared]
    first = same_questions(tables)
    judged = [row["index"] for row in evenly([{"index": index} for index in range(len(first))], settings.max_records)]

    prompts: dict[tuple[str, str, str | None], list[Message]] = {}  # by id, system that stands first, system that stands second
    for index in judged:
        row = first[index]
        texts = {"question": conversation(row["prompt"]), "reference": row["answer"]}
        for system, rows in tables.items():
            prompts[row["id"], system, None] = rubric.messages(**texts, answer=rows[index]["prediction"])
        for system, other in compared:
            answers = {name: tables[name][index]["prediction"] for name in (system, other)}
            for a, b in ((system, other), (other, system)):
                prompts[row["id"], a, b] = pair.messages(**texts, answer_a=answers[a], answer_b=answers[b])

    names = {key: name_of(messages) for key, messages in prompts.items()}
    replies = kept_replies(arguments.scratch, "judge_answers", settings.endpoint, settings.max_new_tokens)
    with Endpoint(settings.endpoint, settings.max_new_tokens, stage.say) as endpoint:
        ask_for_all(endpoint, {names[key]: messages for key, messages in prompts.items()}, replies, stage)
    said = {key: replies.found[name] for key, name in names.items()}

    systems = {}
    for (system, rows), file in zip(tables.items(), arguments.grades, strict=True):
        grades = {rows[index]["id"]: read_grades(said[rows[index]["id"], system, None].text) for index in judged}
        write_table(file, (grades_row(row["id"], grades.get(row["id"])) for row in rows), JUDGE_GRADES, {})
        read = [entry for entry in grades.values() if entry is not None]
        means = {name: sum(scaled(entry[name]) for entry in read) / len(read) if read else None for name in CRITERIA}
        systems[system] = {"judged": len(read), "unreadable": len(grades) - len(read), "means": means}
    verdicts = []
    for system, other in compared:
        for index in judged:
            identity = first[index]["id"]
            both = [read_verdict(said[identity, *order].text) for order in ((system, other), (other, system))]
            row = {"id": identity, "cluster": first[index]["cluster"], "system": system, "other": other}
            verdicts.append(row | {"first": both[0], "second": both[1], "outcome": outcome(*both)})
    write_table(arguments.pairs, verdicts, JUDGE_PAIRS, {})
    columns = ("id", "system", "other")
    write_table(
        arguments.replies,
        (
            dict(zip(columns, key, strict=True)) | {"reply": reply.text, "finish_reason": reply.finish_reason}
            for key, reply in said.items()
        ),
        JUDGE_REPLIES,
        {},
    )
    pairs = []
    for system, other in compared:
        of_the_pair = [row for row in verdicts if (row["system"], row["other"]) == (system, other)]
        pairs.append({"system": system, "other": other} | summarize(of_the_pair))
    unread_grades = sum(entry["unreadable"] for entry in systems.values())
    unread_verdicts = sum(row[order] is None for row in verdicts for order in ("first", "second"))
    alike = [name for name, model in json.loads(arguments.model_names).items() if same_model(model, settings.endpoint.model)]
    summary = {
        "note": NOTE,
        "judge": {"model": settings.endpoint.model, "base_url": settings.endpoint.base_url},
        "criteria": criteria,
        "prompts": {"rubric": sha256_of(arguments.rubric_prompt), "pair": sha256_of(arguments.pair_prompt)},
        "records": len(judged),
        "records_of_the_split": len(first),
        "systems": systems,
        "pairs": pairs,
        "position_bias": {
            key: value for key, value in summarize(verdicts).items() if key in ("inconsistent_rate", "first_position_rate")
        },
        "replies": len(said),
        "unreadable_replies": unread_grades + unread_verdicts,
        "cut_off_replies": sum(reply.finish_reason == "length" for reply in said.values()),
        "self_preference": [name for name in alike if name in tables],
    }
    summary["warnings"] = warnings(summary)
    write_json(arguments.summary, summary)
    for warning in summary["warnings"]:
        stage.say(f"{stage.name}: warning: {warning}")


def read_pair(text: str, tables: dict[str, Any]) -> tuple[str, str]:
    """The two systems of `SYSTEM:OTHER`.

    Raises:
        InputError: it is no pair of systems with answers.
    """
    system, _, other = text.partition(":")
    if system not in tables or other not in tables or system == other:
        raise InputError(f"--compared {text}", "names no two systems with answers", f"There are {', '.join(tables)}.")
    return system, other


def same_questions(tables: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """The first system's rows, which stand for the questions of all.

    Raises:
        InputError: the systems did not answer the same questions.
    """
    first = next(iter(tables.values()))
    for system, rows in tables.items():
        if [row["id"] for row in rows] != [row["id"] for row in first]:
            raise InputError(
                f"evaluation/{system}",
                "is not about the same questions in the same order",
                "Answer one split with all systems.",
            )
    return first


def grades_row(identity: str, grades: dict[str, int] | None) -> dict[str, Any]:
    """One row of the grades; nulls where there are none."""
    return {"id": identity} | {f"judge_{name}": scaled(grades[name]) if grades else None for name in CRITERIA}


def warnings(summary: dict[str, Any]) -> list[str]:
    """What a reader of the figures has to know, in sentences."""
    found = []
    if summary["self_preference"]:
        found.append(
            f"the judge {summary['judge']['model']} has the name of the model behind {', '.join(summary['self_preference'])}: "
            "models tend to prefer their own answers"
        )
    if summary["unreadable_replies"] > 0.05 * summary["replies"]:
        found.append(
            f"{summary['unreadable_replies']} of {summary['replies']} replies could not be read, {summary['cut_off_replies']} "
            "were cut off: what is left may be no fair sample"
        )
    first = summary["position_bias"]["first_position_rate"]
    if first["of"] and not first["low"] <= 0.5 <= first["high"]:
        found.append(
            f"of the verdicts that named an answer, {first['share']:.0%} named the one that stood first "
            f"({first['low']:.0%} to {first['high']:.0%}): the judge leans to a position"
        )
    return found


if __name__ == "__main__":
    parser.run(judge_answers)
