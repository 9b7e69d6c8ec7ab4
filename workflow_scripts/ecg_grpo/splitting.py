"""Splits without leakage that adding records does not reshuffle.

Records that must not be torn apart form a group: the same patient, the same disease, a question or answer that says nearly
the same. Groups go to test and validation in the order of a hash of their content, each only as long as it fits into what is
still missing of every task, so the shares come out as asked for and very large groups end up in training.

Which groups there are and how much is missing is worked out from the settled rows of each file, those up to the last
multiple of `SETTLED`. The rows after that are late: one after the other, each joins the group that it is near to, or opens a
group of its own in the split that its own hash draws, unless another one lacks records of its task. A late record that is near
to groups in two splits has no place in any and is held out. So a record that is added at the end of a file changes the split
of no other, with two exceptions: it completes a block of `SETTLED` rows, which then settle; or it says nearly the same as a
record that is later still, in another file.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from ecg_grpo.records import SPLITS, Record
from ecg_grpo.similarity import TextSimilarity

SETTLED = 256
TELLING = 5
"""Words from which an answer says what was asked; "Yes." and "Sinus rhythm." do not make two records one."""


@dataclass
class Splits:
    """Where every record belongs.

    Attributes:
        split: `train`, `validation` or `test` for each record; empty if it is held out.
        cluster: for each record the id of the first record of its group; records of one cluster are not independent.
        held_out: for a record's index the ids of two records of different splits to which it is near.
    """

    split: list[str]
    cluster: list[str]
    held_out: dict[int, tuple[str, str]] = field(default_factory=dict)


def split_records(
    records: Sequence[Record],
    similarity: TextSimilarity,
    question_similarity: float,
    answer_similarity: float,
    validation_fraction: float,
    test_fraction: float,
    seed: int,
) -> Splits:
    """Assigns every record to a split.

    Args:
        records: in the order of their files and rows.
        similarity: measures texts.
        question_similarity: questions at or above this cosine, of records that stand alone, belong together.
        answer_similarity: the same for answers.
        validation_fraction: share of each task's records for validation.
        test_fraction: share for test.
        seed: another seed, other splits.
    """
    rows = Counter[str]()
    for record in records:
        rows[record.task] = max(rows[record.task], record.source_row + 1)
    is_settled = np.array([record.source_row < rows[record.task] // SETTLED * SETTLED for record in records], dtype=bool)
    # Settled first: what comes late has no say in what was found before. Late ones by their distance from what is settled,
    # so that the latest of one file come after most of the others.
    distance = [0 if done else record.source_row % SETTLED for record, done in zip(records, is_settled, strict=True)]
    order = np.lexsort((np.arange(len(records)), distance, ~is_settled))
    ordered = [records[index] for index in order]
    settled = int(is_settled.sum())
    links = _links(ordered, similarity, question_similarity, answer_similarity)
    share = {"test": test_fraction, "validation": validation_fraction}
    share["train"] = 1 - sum(share.values())
    found = _place_settled(ordered[:settled], links[links[:, 1] < settled], share, seed)
    _place_late(ordered, links[links[:, 1] >= settled], share, seed, found)
    _hold_out_repeated_prompts(ordered, found)
    place = np.empty(len(records), dtype=np.int64)
    place[order] = np.arange(len(records))
    return Splits(
        split=[found.split[index] for index in place],
        cluster=[found.cluster[index] for index in place],
        held_out={int(order[index]): near for index, near in found.held_out.items()},
    )


def _links(
    records: Sequence[Record], similarity: TextSimilarity, question_similarity: float, answer_similarity: float
) -> np.ndarray:
    """Pairs i < j that belong together, shape (pairs, 2), sorted by j."""
    alone = np.array([index for index, record in enumerate(records) if record.stands_alone], dtype=np.int64)
    telling = alone[[len(records[index].answer.split()) >= TELLING for index in alone]]
    links = [
        alone[similarity.pairs([records[index].question for index in alone], question_similarity)],
        telling[similarity.pairs([records[index].answer for index in telling], answer_similarity)],
    ]
    first: dict[str, int] = {}
    of_subject = [(first.setdefault(record.subject, index), index) for index, record in enumerate(records) if record.subject]
    links.append(np.array([pair for pair in of_subject if pair[0] != pair[1]], dtype=np.int64).reshape(-1, 2))
    found = np.unique(np.concatenate(links), axis=0)
    return found[np.argsort(found[:, 1], kind="stable")]


def _place_settled(records: Sequence[Record], links: np.ndarray, share: dict[str, float], seed: int) -> Splits:
    """Groups are everything that links connect; they fill test, then validation, in the order of their hashes."""
    size = len(records)
    graph = coo_matrix((np.ones(len(links), dtype=bool), (links[:, 0], links[:, 1])), shape=(size, size))
    _, labels = connected_components(graph, directed=False)
    members: dict[int, list[int]] = defaultdict(list)
    for index, label in enumerate(labels.tolist()):
        members[label].append(index)
    content = [_hash(record) for record in records]
    key = {label: min(content[index] for index in group) for label, group in members.items()}
    tasks = {label: Counter(records[index].task for index in group) for label, group in members.items()}
    of_task = Counter(record.task for record in records)
    split_of = dict.fromkeys(members, "train")
    for split in ("test", "validation"):
        missing = {task: round(share[split] * number) for task, number in of_task.items()}
        # Another order for each split: moving the end of one does not move the beginning of the other.
        for label in sorted(members, key=lambda label: _position(seed, split, key[label])):
            fits = all(number <= missing[task] for task, number in tasks[label].items())
            if split_of[label] == "train" and fits:
                split_of[label] = split
                for task, number in tasks[label].items():
                    missing[task] -= number
    return Splits(
        split=[split_of[label] for label in labels.tolist()],
        cluster=[records[members[label][0]].id for label in labels.tolist()],
    )


def _place_late(records: Sequence[Record], links: np.ndarray, share: dict[str, float], seed: int, found: Splits) -> None:
    """Places, one after the other, the records that are not placed yet."""
    earlier: dict[int, list[int]] = defaultdict(list)
    for one, late in links.tolist():
        earlier[late].append(one)
    placed = Counter((record.task, split) for record, split in zip(records, found.split, strict=False))
    of_subject = {record.subject: index for index, record in enumerate(records[: len(found.split)]) if record.subject}
    same = dict[str, str]()  # clusters that a late record joined
    for index in range(len(found.split), len(records)):
        record = records[index]
        near = [one for one in earlier[index] if found.split[one]]
        if record.subject in of_subject:
            near.append(of_subject[record.subject])
        first = {found.split[one]: one for one in sorted(near, reverse=True)}
        if len(first) > 1:
            found.held_out[index] = tuple(records[one].id for one in sorted(first.values())[:2])
            found.split.append("")
            found.cluster.append(record.id)
            continue
        split, cluster = _choose(record, placed, share, seed), record.id
        if near:
            split, cluster = found.split[near[0]], found.cluster[min(near)]
            for other in {_root(same, found.cluster[one]) for one in near} - {_root(same, cluster)}:
                same[other] = _root(same, cluster)
        if record.subject:
            of_subject.setdefault(record.subject, index)
        found.split.append(split)
        found.cluster.append(cluster)
        placed[record.task, split] += 1
    found.cluster = [_root(same, cluster) for cluster in found.cluster]


def _root(same: dict[str, str], cluster: str) -> str:
    while cluster in same:
        cluster = same[cluster]
    return cluster


def _choose(record: Record, placed: Counter[tuple[str, str]], share: dict[str, float], seed: int) -> str:
    """The split that the record's hash draws, unless that would leave another one lacking more than a few records."""
    number = sum(placed[record.task, split] for split in SPLITS) + 1
    lacks = {split: share[split] * number - placed[record.task, split] for split in SPLITS}
    allowed = 1 + 0.005 * number
    most = max(SPLITS, key=lambda split: lacks[split])
    if lacks[most] > allowed:
        return most
    drawn = _position(seed, "late", record.subject or _hash(record))
    for split in reversed(SPLITS):
        drawn -= share[split]
        if drawn < 0:
            return split if lacks[split] > -allowed else most
    return most


def _hold_out_repeated_prompts(records: Sequence[Record], found: Splits) -> None:
    """Two patients with the same summary, asked the same: the later record is held out if they are in two splits."""
    first: dict[bytes, int] = {}
    for index, record in enumerate(records):
        if record.stands_alone or not found.split[index]:
            continue
        one = first.setdefault(hashlib.blake2b(record.asked().casefold().encode(), digest_size=16).digest(), index)
        if found.split[one] != found.split[index]:
            found.held_out[index] = (records[one].id, f"the patient of {found.cluster[index]}")
            found.split[index] = ""


def _hash(record: Record) -> int:
    """64 bits of what a record says, whatever its row."""
    content = "\0".join((record.task, record.context, record.question, record.answer))
    return int.from_bytes(hashlib.blake2b(content.encode(), digest_size=8).digest(), "big")


def _position(seed: int, purpose: str, key: int | str) -> float:
    """A stable pseudo-random number in [0, 1)."""
    digest = hashlib.blake2b(f"{seed}\0{purpose}\0{key}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64
