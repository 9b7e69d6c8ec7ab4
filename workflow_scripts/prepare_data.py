"""Raw ECG-Expert-QA JSON becomes training, validation and test records.

Every record ends in exactly one place: a split, the quarantine (with the reason) or, if it is an exact duplicate, it
is dropped and counted. The data report holds the sums, and the program fails if they do not add up.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter

from ecg_grpo.errors import InputError
from ecg_grpo.files import model_directory, sha256_of, write_json
from ecg_grpo.prompts import build_prompt
from ecg_grpo.records import RAW_FILES, Quarantined, Record, clean_record, read_records
from ecg_grpo.settings.data import DataSettings
from ecg_grpo.splitting import SPLITS, near_duplicate_groups, split_of_group
from ecg_grpo.stage import Stage, StageParser
from ecg_grpo.tables import QUARANTINE, RECORDS, write_table
from ecg_grpo.token_budget import count_tokens

parser = StageParser("prepare_data", __doc__)
parser.add_input("--raw", nargs="+", metavar="JSON", help="files of ECG-Expert-QA")
parser.add_input("--system-prompt", help="text file with the system prompt")
parser.add_input("--base-model", help="manifest.json of the model whose tokenizer measures the lengths")
for split in SPLITS:
    parser.add_output(f"--{split}", help=f"the {split} split (parquet)")
parser.add_output("--quarantine", help="records that are kept apart (parquet)")
parser.add_output("--report", help="counts of everything that happened (JSON)")
parser.add_settings("data")


def prepare_data(arguments: argparse.Namespace, stage: Stage) -> None:
    """Reads, cleans, measures, groups, splits, writes."""
    settings = DataSettings.from_json(arguments.settings)
    system_prompt = arguments.system_prompt.read_text(encoding="utf-8").strip()
    if not system_prompt:
        raise InputError(arguments.system_prompt, "the system prompt is empty", "Write one.")

    read = [record for file in arguments.raw for record in read_records(file)]
    records, quarantined, repairs = clean(read)
    records, dropped = drop_exact_duplicates(records)
    prompts = [build_prompt(system_prompt, record.context, record.question) for record in records]
    lengths = count_tokens(model_directory(arguments.base_model), prompts, [record.answer for record in records])
    clusters = group(records, settings)

    rows: dict[str, list[dict]] = {name: [] for name in SPLITS}
    for record, prompt, (prompt_tokens, answer_tokens), cluster in zip(records, prompts, lengths, clusters, strict=True):
        if prompt_tokens > settings.max_prompt_tokens:
            evidence = f"{prompt_tokens} tokens, data.max_prompt_tokens is {settings.max_prompt_tokens}"
            quarantined.append(Quarantined(record, "prompt too long", evidence))
        elif answer_tokens > settings.max_answer_tokens:
            evidence = f"{answer_tokens} tokens, data.max_answer_tokens is {settings.max_answer_tokens}"
            quarantined.append(Quarantined(record, "answer too long", evidence))
        else:
            split = split_of_group(cluster, settings.seed, settings.validation_fraction, settings.test_fraction)
            rows[split].append({**as_row(record), "prompt": prompt, "split": split, "cluster": cluster})

    for name in SPLITS:
        if not rows[name]:
            raise InputError(
                ", ".join(map(str, arguments.raw)),
                f"{len(read)} records leave the {name} split empty",
                "Give more records, another data.seed, or larger fractions in the configuration's data section.",
            )
    kept = sum(len(rows[name]) for name in SPLITS)
    if len(read) != kept + len(quarantined) + len(dropped):
        raise AssertionError(f"{len(read)} records in, but {kept} + {len(quarantined)} + {len(dropped)} out")

    hashes = {file.name: sha256_of(file) for file in arguments.raw}
    metadata = {"settings": arguments.settings, "raw_files": json.dumps(hashes, sort_keys=True)}
    for name in SPLITS:
        write_table(getattr(arguments, name), rows[name], RECORDS, metadata)
    quarantine_rows = [{**as_row(entry.record), "reason": entry.reason, "evidence": entry.evidence} for entry in quarantined]
    write_table(arguments.quarantine, quarantine_rows, QUARANTINE, metadata)
    report = {
        "raw_files": hashes,
        "absent_files": [raw.name for raw in RAW_FILES if raw.name not in hashes],
        "read": count_by_task(read),
        "repaired": {kind: count_by_task(found) for kind, found in sorted(repairs.items())},
        "quarantined": dict(sorted(Counter(entry.reason for entry in quarantined).items())),
        "dropped_exact_duplicates": count_by_task(dropped),
        "splits": {name: dict(sorted(Counter(row["task"] for row in rows[name]).items())) for name in SPLITS},
        "clusters": len(set(clusters)),
        "largest_cluster": max(Counter(clusters).values()),
        "longest_prompt_tokens": max(prompt for prompt, _ in lengths),
        "longest_answer_tokens": max(answer for _, answer in lengths),
    }
    write_json(arguments.report, report)
    stage.facts["records"] = {"read": len(read), "quarantined": len(quarantined), "dropped": len(dropped)} | {
        name: len(rows[name]) for name in SPLITS
    }
    stage.say(json.dumps(report, indent=2, ensure_ascii=False))


def clean(read: list[Record]) -> tuple[list[Record], list[Quarantined], dict[str, list[Record]]]:
    """Usable records, quarantined ones, and what was repaired in which."""
    records: list[Record] = []
    quarantined: list[Quarantined] = []
    repaired: dict[str, list[Record]] = {}
    for record in read:
        result, kinds = clean_record(record)
        if isinstance(result, Quarantined):
            quarantined.append(result)
            continue
        records.append(result)
        for kind in kinds:
            repaired.setdefault(kind, []).append(result)
    return records, quarantined, repaired


def drop_exact_duplicates(records: list[Record]) -> tuple[list[Record], list[Record]]:
    """The first of every (context, question, answer), and the repetitions."""
    seen: set[tuple[str, str, str]] = set()
    kept: list[Record] = []
    dropped: list[Record] = []
    for record in records:
        key = (record.context.casefold(), record.question.casefold(), record.answer.casefold())
        (dropped if key in seen else kept).append(record)
        seen.add(key)
    return kept, dropped


def group(records: list[Record], settings: DataSettings) -> list[str]:
    """For each record the id of the first record of its near-duplicate group."""
    first = near_duplicate_groups(
        [record.question for record in records],
        [record.answer for record in records],
        [record.subject for record in records],
        settings.question_similarity,
        settings.answer_similarity,
    )
    return [records[index].id for index in first]


def as_row(record: Record) -> dict[str, object]:
    """The columns that every table about records begins with."""
    names = ("id", "task", "source_file", "source_row", "context", "question", "answer")
    return {name: getattr(record, name) for name in names}


def count_by_task(records: list[Record]) -> dict[str, int]:
    """How many records of each task."""
    return dict(sorted(Counter(record.task for record in records).items()))


if __name__ == "__main__":
    parser.run(prepare_data)
