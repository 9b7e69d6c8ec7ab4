"""Raw ECG-Expert-QA JSON becomes training, validation and test records.

Every record ends in exactly one place: a split, the quarantine (with the reason) or, if it repeats another one word for
word, among the dropped. The account holds the sums, and the program fails if they do not add up.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

from ecg_grpo.errors import InputError
from ecg_grpo.files import model_directory, sha256_of, write_json
from ecg_grpo.preparation import Preparation, by_reason, by_task, record_columns
from ecg_grpo.progress import StageProgress
from ecg_grpo.raw_files import BY_NAME, RAW_FILES, git_blob_sha1, in_reading_order
from ecg_grpo.records import SPLITS, Quarantined
from ecg_grpo.settings.data import DataSettings
from ecg_grpo.similarity import TextSimilarity
from ecg_grpo.stage import Stage, StageParser
from ecg_grpo.tables import QUARANTINE, RECORDS, write_table
from ecg_grpo.token_budget import TokenCounter

parser = StageParser("prepare_data", __doc__)
parser.add_input("--raw", nargs="+", metavar="JSON", help="files of ECG-Expert-QA")
parser.add_input("--system-prompt", help="text file with the system prompt")
parser.add_input("--ngrams", help="weights of text similarity (resources/similarity/common_ngrams.tsv)")
parser.add_input("--base-model", help="manifest.json of the model whose tokenizer measures the lengths")
for split in SPLITS:
    parser.add_output(f"--{split}", help=f"the {split} split (parquet)")
parser.add_output("--quarantine", help="records that are kept apart (parquet)")
parser.add_output("--dropped", help="records that repeat others word for word (parquet)")
parser.add_output("--account", help="what became of every record (JSON)")
parser.add_settings("data")
parser.add_store()


def prepare_data(arguments: argparse.Namespace, stage: Stage) -> None:
    """Reads, cleans, groups, splits, audits, measures, writes."""
    settings = DataSettings.from_json(arguments.settings)
    system_prompt = arguments.system_prompt.read_text(encoding="utf-8").strip()
    if not system_prompt:
        raise InputError(arguments.system_prompt, "the system prompt is empty", "Write one.")
    raw_files = in_reading_order(arguments.raw)
    absent = [raw.name for raw in RAW_FILES if raw.name not in {file.name for file in raw_files}]

    data = Preparation()
    data.read_and_clean(raw_files)
    for raw in RAW_FILES:
        stage.say(f"absent: {raw.name}" if raw.name in absent else f"{data.read[raw.code]} records: {raw.name}")
    stage.say(f"read {sum(data.read.values())}, usable {len(data.records)}")
    data.find_contradictions()
    data.assign_splits(settings, TextSimilarity(arguments.ngrams))
    data.audit_leakage()
    stage.say("split and audited")
    counter = TokenCounter(model_directory(arguments.base_model, "*.json", "*.jinja", "tokenizer*"))
    with StageProgress(stage, len(data.records)) as progress:
        data.measure(
            lambda size, pair: counter.count(size, pair, lambda done: progress.step(done, "records measured")),
            counter.special_tokens,
            system_prompt,
            settings,
        )
    for name in SPLITS:
        if not data.of_split(name):
            reasons = ", ".join(f"{sum(tasks.values())} {reason}" for reason, tasks in by_reason(data.quarantined).items())
            raise InputError(
                raw_files[0].parent,
                f"{sum(data.read.values())} records leave the {name} split empty (quarantined: {reasons or 'none'})",
                "Give more records, or change the fractions or token limits in the configuration's data section.",
            )
    data.check_sum()

    hashes = {file.name: sha256_of(file) for file in raw_files}
    metadata = {
        "settings": arguments.settings,
        "raw_files": json.dumps(hashes, sort_keys=True),
        "system_prompt": system_prompt,
        "versions": json.dumps({name: version(name) for name in ("pyarrow", "scikit-learn", "tokenizers", "transformers")}),
    }
    for name in SPLITS:
        write_table(getattr(arguments, name), rows_of_split(data, name, system_prompt), RECORDS, metadata)
    for name in ("quarantine", "dropped"):
        entries = data.quarantined if name == "quarantine" else data.dropped
        write_table(getattr(arguments, name), map(quarantine_row, entries), QUARANTINE, metadata)
    account = account_of(data) | {
        "raw_files": [
            {
                "task": BY_NAME[file.name].code,
                "name": file.name,
                "title": BY_NAME[file.name].title,
                "sha256": hashes[file.name],
                "as_published": git_blob_sha1(file) == BY_NAME[file.name].git_blob,
            }
            for file in raw_files
        ],
        "absent_files": absent,
        "budget": {"prompt": settings.max_prompt_tokens, "answer": settings.max_answer_tokens},
        "asked": {"validation": settings.validation_fraction, "test": settings.test_fraction},
    }
    write_json(arguments.account, account)
    stage.facts["records"] = account["records"]
    stage.say(json.dumps(account["records"], indent=2))


def rows_of_split(data: Preparation, split: str, system_prompt: str) -> Iterator[dict[str, Any]]:
    """The rows of a split's parquet file."""
    for index in data.of_split(split):
        record = data.records[index]
        yield record_columns(record) | {
            "prompt": data.prompt(index, system_prompt),
            "split": split,
            "cluster": data.cluster[index],
            "prompt_tokens": data.lengths[index][0],
            "answer_tokens": data.lengths[index][1],
            "flags": data.flags[index],
        }


def quarantine_row(entry: Quarantined) -> dict[str, Any]:
    """A row of the quarantine's parquet file."""
    return record_columns(entry.record) | {"reason": entry.reason, "evidence": entry.evidence, "raw": entry.raw}


def account_of(data: Preparation) -> dict[str, Any]:
    """The sums, and examples of everything that was done."""
    sizes = Counter(data.cluster)
    return {
        "records": {
            "read": sum(data.read.values()),
            "kept": len(data.records),
            "quarantined": len(data.quarantined),
            "dropped": len(data.dropped),
        },
        "read": dict(data.read),
        "splits": {name: by_task(data.records[index] for index in data.of_split(name)) for name in SPLITS},
        "quarantined": by_reason(data.quarantined),
        "dropped": by_reason(data.dropped),
        "repaired": {kind: data.repairs[kind] for kind in sorted(data.repairs)},
        "contradictions": data.contradictions,
        "clusters": {
            "number": len(sizes),
            "largest": [{"cluster": cluster, "records": number} for cluster, number in sizes.most_common(10)],
            "by_size": {
                label: sum(low <= number <= high for number in sizes.values())
                for label, low, high in (("1", 1, 1), ("2", 2, 2), ("3-5", 3, 5), ("6-20", 6, 20), ("21 and more", 21, 10**9))
            },
        },
        "leakage": data.leakage,
    }


if __name__ == "__main__":
    parser.run(prepare_data)
