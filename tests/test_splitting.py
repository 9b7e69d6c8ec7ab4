"""Groups stay whole, shares come out as asked for, and adding a record changes the split of no other."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from dataclasses import replace

import pytest
from conftest import ROOT

from ecg_grpo.records import Record
from ecg_grpo.similarity import TextSimilarity
from ecg_grpo.splitting import SETTLED, Splits, split_records

SIMILARITY = TextSimilarity(ROOT / "resources/similarity/common_ngrams.tsv")
SYLLABLES = (
    "car",
    "di",
    "o",
    "my",
    "val",
    "ven",
    "tri",
    "cle",
    "ta",
    "chy",
    "bra",
    "dy",
    "pa",
    "thy",
    "sten",
    "lo",
    "gra",
    "mur",
)


def made_up_records(sizes: dict[str, int], seed: int = 0) -> list[Record]:
    """Records of random words: some repeat an earlier question with a word more; CD has ten a disease."""
    generator = random.Random(seed)

    def words(number: int) -> str:
        return " ".join("".join(generator.choices(SYLLABLES, k=generator.randint(2, 4))) for _ in range(number))

    records: list[Record] = []
    for task, size in sizes.items():
        for row in range(size):
            question = f"What is {words(6)}?"
            if row % 10 and generator.random() < 0.2:
                question = f"{generator.choice(records[-(row % 10) :]).question[:-1]} {words(1)}?"
            records.append(
                Record(
                    *(f"{task}-{row:05d}", task, row, question, f"It is {words(12)}."),
                    subject=f"disease:{row // 10}" if task == "CD" else "",
                )
            )
    return records


def split(records: list[Record], **changes: object) -> Splits:
    settings = {
        "question_similarity": 0.72,
        "answer_similarity": 0.8,
        "validation_fraction": 0.1,
        "test_fraction": 0.15,
        "seed": 0,
    }
    return split_records(records, SIMILARITY, **(settings | changes))


def by_content(records: list[Record], splits: Splits) -> dict[tuple[str, str], str]:
    return {(record.question, record.answer): name for record, name in zip(records, splits.split, strict=True)}


RECORDS = made_up_records({"EBK": 700, "CD": 530, "PRTK": 120})


def test_no_pair_that_belongs_together_is_torn_apart() -> None:
    splits = split(RECORDS)
    placed = splits.split
    for one, other in SIMILARITY.pairs([record.question for record in RECORDS], 0.72).tolist():
        assert placed[one] == placed[other] or "" in (placed[one], placed[other])
    of_disease = defaultdict(set)
    for record, name in zip(RECORDS, placed, strict=True):
        if record.subject and name:
            of_disease[record.subject].add(name)
    assert all(len(names) == 1 for names in of_disease.values())
    assert len(splits.held_out) < 0.02 * len(RECORDS)
    assert all(not placed[index] for index in splits.held_out)


def test_shares_of_every_task_are_those_asked_for() -> None:
    placed = split(RECORDS).split
    counts = Counter((record.task, name) for record, name in zip(RECORDS, placed, strict=True))
    for task in ("EBK", "CD", "PRTK"):
        total = sum(record.task == task for record in RECORDS)
        assert counts[task, "test"] / total == pytest.approx(0.15, abs=0.02)
        assert counts[task, "validation"] / total == pytest.approx(0.1, abs=0.02)


def added(kind: str, number: int) -> Record:
    row = sum(record.task == "EBK" for record in RECORDS)
    twin = RECORDS[(37 * number) % 1300]
    question = {
        "unrelated": f"Which garden number {number} grows tomatoes in winter?",
        "near-duplicate": f"{twin.question[:-1]} now?",
        "same question": twin.question,
        "bridge": f"{twin.question} {RECORDS[(91 * number) % 1300].question}",
    }[kind]
    return Record(f"EBK-{row:05d}", "EBK", row, question, f"Answer number {number} is a new one.")


@pytest.mark.parametrize("kind", ["unrelated", "near-duplicate", "same question", "bridge"])
def test_a_record_added_at_the_end_of_a_file_changes_the_split_of_no_other(kind: str) -> None:
    before = by_content(RECORDS, split(RECORDS))
    end = sum(record.task == "EBK" for record in RECORDS)
    for number in range(8):
        records = [*RECORDS[:end], added(kind, number), *RECORDS[end:]]
        after = by_content(records, split(records))
        assert {key: after[key] for key in before} == before


@pytest.mark.parametrize("place", [0, 300, 699])
def test_a_record_put_between_others_changes_the_split_of_hardly_any(place: int) -> None:
    before = by_content(RECORDS, split(RECORDS))
    moved = [
        replace(record, source_row=record.source_row + (record.task == "EBK" and record.source_row >= place))
        for record in RECORDS
    ]
    records = [*moved[:place], replace(added("unrelated", 1), source_row=place), *moved[place:]]
    after = by_content(records, split(records))
    assert sum(after[key] != before[key] for key in before) <= 0.01 * len(RECORDS)


def test_a_late_record_near_to_two_splits_is_held_out() -> None:
    records = made_up_records({"EBK": SETTLED}, seed=3)
    placed = split(records).split
    train, test = (next(index for index, name in enumerate(placed) if name == wanted) for wanted in ("train", "test"))
    late = Record("EBK-00256", "EBK", SETTLED, records[train].question, records[test].answer)
    splits = split([*records, late])
    assert splits.split == [*placed, ""]
    assert set(splits.held_out[SETTLED]) == {records[train].id, records[test].id}


def test_a_subject_stays_whole_when_its_first_record_is_held_out() -> None:
    records = made_up_records({"CD": SETTLED}, seed=3)
    placed = split(records).split
    train, test = (next(index for index, name in enumerate(placed) if name == wanted) for wanted in ("train", "test"))
    bridge = Record("CD-00256", "CD", SETTLED, records[train].question, records[test].answer, subject="disease:new")
    rest = [
        replace(record, source_row=SETTLED + 1 + row, subject="disease:new")
        for row, record in enumerate(made_up_records({"CD": 40}, 9))
    ]
    splits = split([*records, bridge, *rest]).split
    assert splits[SETTLED] == ""
    assert len(set(splits[SETTLED + 1 :])) == 1


def test_short_answers_do_not_tie_records_together() -> None:
    records = [
        replace(record, answer=("Yes.", "No.")[index % 2]) for index, record in enumerate(made_up_records({"PRTK": 300}))
    ]
    splits = split(records)
    assert len(set(splits.cluster)) > 200
    assert Counter(splits.split)["test"] == pytest.approx(45, abs=4)


def test_a_record_added_to_one_file_moves_no_late_record_of_another() -> None:
    records = made_up_records({"EBK": 60, "CK": 50, "PP": 55})
    before = by_content(records, split(records))
    for twin in range(60, 165, 7):
        new = Record("EBK-00060", "EBK", 60, records[twin].question, "Something else is the answer here.")
        after = by_content([*records[:60], new, *records[60:]], split([*records[:60], new, *records[60:]]))
        assert {key: after[key] for key in before} == before


def test_a_dialogue_added_for_a_known_patient_moves_nothing() -> None:
    def dialogue(task: str, patient: int, row: int) -> Record:
        return Record(
            f"{task}-{row:05d}-00",
            task,
            row,
            f"{task} {patient}?",
            "It is.",
            context=f"{task} {patient}",
            turn=0,
            subject=f"patient:{patient}",
        )

    records = [dialogue("MROD", patient, patient) for patient in range(60)] + [
        dialogue("LTD", 100 + row, row) for row in range(40)
    ]
    before = by_content(records, split(records))
    for patient in range(100, 140, 4):
        after = by_content(grown := [*records, dialogue("MROD", patient, 60)], split(grown))
        assert {key: after[key] for key in before} == before


def test_patients_stay_whole_and_repeated_prompts_are_held_out() -> None:
    generator = random.Random(5)
    records = [
        Record(
            *(f"MROD-{patient:05d}-{turn:02d}", "MROD", patient, f"What about {turn}?", "Yes."),
            context=f"Summary {generator.randint(0, 60)}",
            turn=turn,
            subject=f"patient:{patient}",
        )
        for patient in range(200)
        for turn in range(4)
    ]
    splits = split(records)
    of_patient, of_prompt = defaultdict(set), defaultdict(set)
    for record, name in zip(records, splits.split, strict=True):
        if name:
            of_patient[record.subject].add(name)
            of_prompt[record.context, record.question].add(name)
    assert all(len(names) == 1 for names in [*of_patient.values(), *of_prompt.values()])
    assert splits.held_out
    assert len(set(splits.split) - {""}) == 3


def test_the_seed_decides_and_nothing_else_does() -> None:
    assert split(RECORDS) == split(RECORDS)
    first, second = split(RECORDS).split, split(RECORDS, seed=1).split
    assert sum(one != other for one, other in zip(first, second, strict=True)) > 0.2 * len(RECORDS)


@pytest.mark.parametrize("size", [0, 1, 2])
def test_hardly_any_records(size: int) -> None:
    records = made_up_records({"EBK": size}) if size else []
    assert len(split(records).split) == size
