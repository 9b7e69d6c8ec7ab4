"""The steps that turn what was read into splits, and the account of every record on the way.

A record that was read ends in exactly one place: a split, the quarantine, or (an exact repetition) among the dropped.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ecg_grpo.cleaning import clean_record
from ecg_grpo.contradictions import contradictory_answers
from ecg_grpo.leakage import nearest_training_questions
from ecg_grpo.prompts import Message, build_prompt
from ecg_grpo.readers import read_records
from ecg_grpo.records import SPLITS, Quarantined, Record
from ecg_grpo.settings.data import DataSettings
from ecg_grpo.similarity import TextSimilarity
from ecg_grpo.splitting import TELLING, split_records

EXAMPLES = 5
"""Examples of each repair, contradiction and near pair that the account keeps."""

MOST_AUDITED = 2500
"""Held-out questions that the leakage audit compares with all of training; of more, so many by a hash of their content."""

LEAKS = 0.9
"""TF-IDF cosine from which a held-out question counts as known from training and is held out of the splits."""


@dataclass
class Preparation:
    """What became of the records.

    Attributes:
        records: those still in use, in the order of their files and rows.
        quarantined: those kept apart, with the reason.
        dropped: exact repetitions, with the record they repeat as evidence.
        read: how many were read, by task.
        repairs: by kind: how many records of each task, and examples.
        split, cluster, flags, lengths: of each record in `records`, after the step that fills them.
    """

    records: list[Record] = field(default_factory=list)
    quarantined: list[Quarantined] = field(default_factory=list)
    dropped: list[Quarantined] = field(default_factory=list)
    read: Counter[str] = field(default_factory=Counter)
    repairs: dict[str, dict[str, Any]] = field(default_factory=dict)
    split: list[str] = field(default_factory=list)
    cluster: list[str] = field(default_factory=list)
    flags: list[list[str]] = field(default_factory=list)
    lengths: list[tuple[int, int]] = field(default_factory=list)
    contradictions: list[dict[str, Any]] = field(default_factory=list)
    leakage: dict[str, Any] = field(default_factory=dict)

    def read_and_clean(self, files: Iterable[Path]) -> None:
        """Reads every file, repairs what can be, quarantines what cannot, drops exact repetitions."""
        seen: dict[bytes, str] = {}
        for file in files:
            for entry in read_records(file):
                record = entry.record if isinstance(entry, Quarantined) else entry
                self.read[record.task] += 1
                if isinstance(entry, Record):
                    entry, repairs = clean_record(entry)
                    self._count_repairs(record, repairs)
                if isinstance(entry, Quarantined):
                    self.quarantined.append(entry)
                    continue
                first = seen.setdefault(_content(entry), entry.id)
                if first == entry.id:
                    self.records.append(entry)
                else:
                    self.dropped.append(Quarantined(entry, "exact duplicate", f"of {first}"))

    def _count_repairs(self, record: Record, repairs: Sequence[Any]) -> None:
        for kind in {repair.kind for repair in repairs}:
            entry = self.repairs.setdefault(kind, {"records": Counter(), "examples": []})
            entry["records"][record.task] += 1
        for repair in repairs:
            examples = self.repairs[repair.kind]["examples"]
            if len(examples) < EXAMPLES and all(example["id"] != record.id for example in examples):
                examples.append({"id": record.id, "before": repair.before, "after": repair.after})

    def find_contradictions(self) -> None:
        """Flags the records that answer one question with yes and with no."""
        self.flags = [[] for _ in self.records]
        for yes, no in contradictory_answers(self.records):
            for side, others in ((yes, no), (no, yes)):
                for index in side:
                    self.flags[index] = [f"contradicts {self.records[other].id}" for other in others[:EXAMPLES]]
            first, other = self.records[yes[0]], self.records[no[0]]
            self.contradictions.append(
                {
                    "question": first.question,
                    "yes": [self.records[index].id for index in yes],
                    "no": [self.records[index].id for index in no],
                    "answer_yes": first.answer,
                    "answer_no": other.answer,
                }
            )

    def assign_splits(self, settings: DataSettings, similarity: TextSimilarity) -> None:
        """Gives every record its split and cluster; quarantines those that are near to two splits."""
        splits = split_records(
            self.records,
            similarity,
            settings.question_similarity,
            settings.answer_similarity,
            settings.validation_fraction,
            settings.test_fraction,
            settings.seed,
        )
        self.split, self.cluster = splits.split, splits.cluster
        for index, near in splits.held_out.items():
            self._quarantine(index, "near to two splits", f"near to {near[0]} and {near[1]}")
        self._keep_where(self.split)

    def audit_leakage(self) -> None:
        """Compares held-out questions with all of training; quarantines those that training gives away."""
        alone = [index for index, record in enumerate(self.records) if record.stands_alone]
        train = [index for index in alone if self.split[index] == "train"]
        held_out = [index for index in alone if self.split[index] != "train"]
        # By content, so that another record replaces at most one of them.
        audited = sorted(sorted(held_out, key=lambda index: _content(self.records[index]))[:MOST_AUDITED])
        nearest, cosines = nearest_training_questions(
            [self.records[index].question for index in train], [self.records[index].question for index in audited]
        )
        for index, place, cosine in zip(audited, nearest, cosines, strict=True):
            if cosine >= LEAKS:
                self._quarantine(index, "too like a training question", f"{self.records[train[place]].id}, cosine {cosine:.3f}")
                self.split[index] = ""
        kept = [
            (float(cosine), index, train[place])
            for cosine, index, place in zip(cosines, audited, nearest, strict=True)
            if cosine < LEAKS
        ]
        kept.sort(key=lambda entry: (-entry[0], entry[1]))
        answers, subjects = ({split: set() for split in ("", *SPLITS)} for _ in range(2))
        for record, split in zip(self.records, self.split, strict=True):
            subjects[split].add(record.subject)
            if record.stands_alone and len(record.answer.split()) >= TELLING:
                answers[split].add(record.answer.casefold())
        self.leakage = {
            "held_out_questions": len(held_out),
            "audited": len(audited),
            "at_0.8": sum(cosine >= 0.8 for cosine, *_ in kept),
            "removed": len(audited) - len(kept),
            "highest": kept[0][0] if kept else 0.0,
            "shared_answers": len(answers["train"] & (answers["validation"] | answers["test"])),
            "shared_subjects": len(subjects["train"] & (subjects["validation"] | subjects["test"]) - {""}),
            "nearest": [
                {
                    "id": self.records[index].id,
                    "question": self.records[index].question,
                    "training_id": self.records[known].id,
                    "training_question": self.records[known].question,
                    "cosine": cosine,
                }
                for cosine, index, known in kept[:EXAMPLES]
            ],
        }
        self._keep_where(self.split)

    def measure(
        self,
        count: Callable[[int, Callable[[int], tuple[list[Message], str]]], Iterator[tuple[int, int]]],
        special: re.Pattern[str],
        system_prompt: str,
        settings: DataSettings,
    ) -> None:
        """Counts tokens; quarantines the records that are too long, or hold a token that would end a turn.

        Args:
            count: `TokenCounter.count` without its last argument.
            special: finds the tokenizer's special tokens.
            system_prompt: the first message of every prompt.
            settings: section `data`.
        """
        self.lengths = list(
            count(len(self.records), lambda index: (self.prompt(index, system_prompt), self.records[index].answer))
        )
        fits = []
        for index, (prompt_tokens, answer_tokens) in enumerate(self.lengths):
            reason, evidence = "", ""
            record = self.records[index]
            if found := special.search(f"{record.asked()}\n{record.answer}"):
                reason, evidence = "special token", f"{record.source_file}: row {record.source_row}: {found[0]}"
            elif prompt_tokens > settings.max_prompt_tokens:
                reason, evidence = (
                    "prompt too long",
                    f"{prompt_tokens} tokens, data.max_prompt_tokens is {settings.max_prompt_tokens}",
                )
            elif answer_tokens > settings.max_answer_tokens:
                reason, evidence = (
                    "answer too long",
                    f"{answer_tokens} tokens, data.max_answer_tokens is {settings.max_answer_tokens}",
                )
            if reason:
                self._quarantine(index, reason, evidence)
            fits.append(not reason)
        self._keep_where(fits)

    def prompt(self, index: int, system_prompt: str) -> list[Message]:
        """The messages that ask a record's question."""
        record = self.records[index]
        return build_prompt(system_prompt, record.context, record.question, record.history)

    def of_split(self, split: str) -> list[int]:
        """Indices of a split's records."""
        return [index for index, name in enumerate(self.split) if name == split]

    def check_sum(self) -> None:
        """Fails if a record was lost or counted twice; that would be a defect of this program."""
        read, out = sum(self.read.values()), len(self.records) + len(self.quarantined) + len(self.dropped)
        if read != out:
            raise AssertionError(
                f"{read} records in, but {len(self.records)} + {len(self.quarantined)} + {len(self.dropped)} out"
            )

    def _quarantine(self, index: int, reason: str, evidence: str) -> None:
        self.quarantined.append(Quarantined(self.records[index], reason, evidence))

    def _keep_where(self, keep: Sequence[object]) -> None:
        """Takes the records out whose entry is empty or false."""
        kept = [index for index, wanted in enumerate(keep) if wanted]
        for name in ("records", "split", "cluster", "flags", "lengths"):
            values = getattr(self, name)
            if values:
                setattr(self, name, [values[index] for index in kept])


def record_columns(record: Record) -> dict[str, Any]:
    """The columns with which every table about records begins."""
    names = ("id", "task", "source_file", "source_row", "turn", "subject", "context", "question", "answer")
    history = [
        {"role": role, "content": text}
        for turn in record.history
        for role, text in zip(("user", "assistant"), turn, strict=True)
    ]
    return {name: getattr(record, name) for name in names} | {"history": history}


def by_task(records: Iterable[Record]) -> dict[str, int]:
    """How many records of each task."""
    return dict(Counter(record.task for record in records))


def by_reason(entries: Iterable[Quarantined]) -> dict[str, dict[str, int]]:
    """How many records of each task, for each reason."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for entry in entries:
        counts[entry.reason][entry.record.task] += 1
    return {reason: dict(counts[reason]) for reason in sorted(counts)}


def _content(record: Record) -> bytes:
    content = "\0".join((record.task, record.asked(), record.answer))
    return hashlib.blake2b(content.encode(), digest_size=16).digest()
