"""The project's own records: enough of them, in the exact shape, varied, and no two alike."""

from __future__ import annotations

import json
import re

import pytest
from conftest import ROOT, SAMPLE

from ecg_grpo.cleaning import clean_record
from ecg_grpo.leakage import nearest_training_questions
from ecg_grpo.raw_files import BY_NAME, find_raw_files
from ecg_grpo.readers import read_records
from ecg_grpo.records import Record
from ecg_grpo.similarity import TextSimilarity

FILES = [BY_NAME[file.name] for file in find_raw_files(SAMPLE)]
RECORDS = {raw.code: read_records(SAMPLE / raw.name) for raw in FILES}
KEYS = {"EBK": "Q A", "CK": "Q A", "CD": "Disease Q A", "PP": "medical_advice Q A", "PRTK": "Question Answer"}
SIMILARITY = TextSimilarity(ROOT / "resources/similarity/common_ngrams.tsv")
ALL = [record for records in RECORDS.values() for record in records]


def test_there_are_at_least_400_and_60_a_file() -> None:
    assert len(ALL) >= 400
    assert all(len(records) >= 60 for records in RECORDS.values())


@pytest.mark.parametrize("raw", FILES, ids=lambda raw: raw.code)
def test_keys_and_their_order_are_the_original_files(raw) -> None:
    for row in json.loads((SAMPLE / raw.name).read_text()):
        assert list(row) == KEYS[raw.code].split()


def test_nothing_needs_repair() -> None:
    for record in ALL:
        result, repairs = clean_record(record)
        assert isinstance(result, Record), record.id
        assert not repairs, record.id


def test_answers_have_one_to_three_sentences_and_a_reasonable_length() -> None:
    for record in ALL:
        text = re.sub(r"\b(e\.g|i\.e|vs|approx)\.", r"\1", record.answer)
        assert 1 <= len(re.findall(r"[.!?](?=\s+[A-Z(]|$)", text)) <= 3, record.id
        assert 8 <= len(record.answer.split()) <= 60, record.id


def test_no_two_questions_or_answers_are_near_duplicates() -> None:
    for texts in ([record.question for record in ALL], [record.answer for record in ALL]):
        for index, text in enumerate(texts[1:], start=1):
            assert text not in texts[:index]
        _, cosines = nearest_training_questions(texts[::2], texts[1::2])
        assert cosines.max() < 0.8
    assert not SIMILARITY.pairs([record.answer for record in ALL], 0.8).size


def test_yes_and_no_are_both_right_sometimes() -> None:
    answers = [record.answer.split()[0].rstrip(",") for record in ALL]
    yes, no = answers.count("Yes"), answers.count("No")
    assert yes + no >= 60
    assert 0.3 <= no / (yes + no) <= 0.7


def test_sources_are_named() -> None:
    text = (SAMPLE / "SOURCES.md").read_text()
    assert "CC BY 4.0" in text
    assert all(raw.code in text or raw.name in text for raw in FILES)
