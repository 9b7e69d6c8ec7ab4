"""Pairs of a better and a worse answer: what each kind makes, what is never a pair, and that a seed decides everything."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any, get_args

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import ROOT, SAMPLE
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ecg_grpo.counterfactuals import COUNTERFACTUALS, Counterfactual, paraphrase
from ecg_grpo.errors import InputError
from ecg_grpo.preference_pairs import (
    LIKENESS,
    PREFERENCE_PAIRS,
    SAME_ANSWER,
    Sample,
    _shared_words,
    account,
    as_statement,
    fragment,
    normal,
    preference_pairs,
    read_samples,
    repetition,
)
from ecg_grpo.rewards import Case
from ecg_grpo.settings.reward_model import NegativeKind, PairSettings
from ecg_grpo.tables import RECORDS, SAMPLED_ANSWERS, read_rows, write_table

ALL = PairSettings()


def replacing(old: str, new: str) -> Counterfactual:
    """A counterfactual that replaces one text."""

    def change(answer: str, question: str) -> str | None:
        return answer.replace(old, new) if old in answer else None

    return Counterfactual("", change, "")


CHANGES = dict.fromkeys(COUNTERFACTUALS, replacing("nothing has this word", ""))
CHANGES |= {"polarity": replacing("Yes", "No"), "numbers": replacing("120", "300")}


def reworded(answer: str, question: str) -> str | None:
    return f"In short: {answer}" if answer else None


def unchanged(answer: str, question: str) -> str | None:
    return None


def record(id: str, question: str, answer: str, task: str = "EBK", cluster: str = "") -> dict[str, Any]:
    prompt = [{"role": "system", "content": "Answer."}, {"role": "user", "content": question}]
    rest = {"task": task, "cluster": cluster or id, "context": "", "prompt": prompt}
    return {"id": id, "question": question, "answer": answer, **rest}


RECORD_LIST = [
    record("A", "Is a QRS of 140 ms wide?", "Yes, it is longer than 120 ms. Bundle branch block is one cause of that."),
    record("B", "Is a QRS of 150 ms wide?", "Yes, it is longer than 120 ms. Paced beats are wide too.", cluster="A"),
    record("C", "Is a QRS of 90 ms wide?", "No, that is narrow. The ventricles are activated through both bundles."),
    record("D", "What does a P wave show?", "Depolarisation of the atria. It comes before the QRS complex."),
    record("E", "May I drive?", "Ask your doctor first. The rules differ between countries.", task="PRTK"),
]


def pairs_of(records: list[dict], settings: PairSettings = ALL, **options: Any) -> list[dict]:
    return preference_pairs(records, settings, **{"counterfactuals": CHANGES, "paraphrases": unchanged, **options})


def made(records: list[dict], kind: str, **options: Any) -> dict[str, str]:
    """Worse answers of a kind by record id."""
    settings = PairSettings(kinds=[kind], paraphrase_share=0)
    return {pair["id"]: pair["rejected"] for pair in pairs_of(records, settings, **options)}


def test_the_kinds_are_those_of_the_counterfactuals_and_our_own() -> None:
    own = {"other_answer", "echo", "fragment", "fluent_nonsense", "repetition", "sft_sample"}
    assert set(get_args(NegativeKind)) == {*COUNTERFACTUALS, *own}
    assert not own & set(COUNTERFACTUALS)


@pytest.mark.parametrize(
    ("question", "statement"),
    [
        ("What is the normal PR interval?", "The normal PR interval."),
        (
            "Does a stable blood pressure exclude ventricular tachycardia?",
            "A stable blood pressure exclude ventricular tachycardia.",
        ),
        ("Which leads view the inferior wall? ", "Leads view the inferior wall."),
        ("Isolated T-wave inversion in V1", "Isolated T-wave inversion in V1."),
        ("Why?", "Why."),
        ("What is", "Is."),
        ("?", ""),
    ],
)
def test_an_echo_is_the_question_as_a_statement(question: str, statement: str) -> None:
    assert as_statement(question) == statement


def test_a_fragment_is_the_first_words_of_a_long_enough_answer() -> None:
    assert fragment("one two three four, five six seven eight", 4) == "one two three four"
    assert fragment("one two three four five six seven", 4) is None


def test_a_repetition_loops() -> None:
    assert repetition("a b c d e f", 1) == "a b a b a b"
    assert repetition("a b c d e f", 1.5) == "a b a b a b a b a"
    assert repetition("a", 1) == "a a a"
    assert repetition(" ", 1) is None


def test_counterfactuals_turn_a_fact() -> None:
    assert made(RECORD_LIST, "polarity") == {
        "A": "No, it is longer than 120 ms. Bundle branch block is one cause of that.",
        "B": "No, it is longer than 120 ms. Paced beats are wide too.",
    }
    assert set(made(RECORD_LIST, "numbers")) == {"A", "B"}


def test_another_answer_is_the_most_similar_questions_outside_the_group() -> None:
    answers = {row["id"]: row["answer"] for row in RECORD_LIST}
    found = made(RECORD_LIST, "other_answer")
    assert found["A"] == found["B"] == answers["C"], "B is A's near-duplicate, D is less like it"
    assert "E" not in found, "no other record of its task"


def test_another_answer_that_says_the_same_is_passed_over() -> None:
    records = [*RECORD_LIST, record("F", "Is a QRS of 140 ms wide enough?", RECORD_LIST[0]["answer"].lower())]
    assert made(records, "other_answer")["A"] == RECORD_LIST[2]["answer"]


def test_fluent_nonsense_stitches_sentences_of_other_groups() -> None:
    records = [*RECORD_LIST, record("F", "What is a U wave?", "A small wave after the T wave. It is seen at slow rates.")]
    found = made(records, "fluent_nonsense")
    for id, text in found.items():
        cluster = next(row["cluster"] for row in records if row["id"] == id)
        sources = [row for row in records if any(part in text for part in row["answer"].split(". "))]
        assert len(sources) > 1
        assert not [row for row in sources if row["cluster"] == cluster or row["task"] != "EBK"], id
    assert set(found) >= {"A", "B"}
    assert "E" not in found


def test_weak_samples_only_and_without_their_reasoning() -> None:
    samples = {
        "A": [Sample("Yes, quite right.", 0.9), Sample("<think>hm</think><answer>Maybe.</answer>", 0.2)],
        "B": [Sample("Yes, quite right.", 0.9)],
        "C": [Sample(" ", 0.0), Sample("no, that is narrow. The ventricles are  activated through both bundles.", 0.1)],
        "unknown": [Sample("No.", 0.0)],
    }
    assert made(RECORD_LIST, "sft_sample", samples=samples) == {"A": "Maybe."}
    assert made(RECORD_LIST, "sft_sample") == {}


def test_texts_that_differ_in_case_space_or_quotes_alone_are_no_pair() -> None:
    for changed in ("yes, it's a “U”  wave", 'Yes, it’s a "U" wave'):
        changes = {"polarity": replacing('Yes, it\'s a "U" wave', changed)}
        assert made([record("A", "Is it?", 'Yes, it\'s a "U" wave')], "polarity", counterfactuals=changes) == {}
    assert normal("“Yes” it’s\n SO") == normal('"yes" it\'s so') == '"yes" it\'s so'


def test_a_worse_answer_that_is_the_paraphrase_is_no_pair() -> None:
    changes = {"polarity": replacing("Yes", "In short: Yes")}
    records = [record("A", "Is it?", "Yes, it is.")]
    for share in (0, 1):
        settings = PairSettings(kinds=["polarity"], paraphrase_share=share)
        found = pairs_of(records, settings, counterfactuals=changes, paraphrases=reworded)
        assert all(pair["rejected"] != "In short: Yes, it is." for pair in found)


def test_a_worse_answer_that_is_the_reference_is_no_pair() -> None:
    settings = PairSettings(kinds=["sft_sample"], paraphrase_share=1)
    records, samples = [record("A", "Is it?", "Yes, it is.")], {"A": [Sample("YES, it is.", 0.3)]}
    assert pairs_of(records, settings, samples=samples, paraphrases=reworded) == []


def test_paraphrases_stand_on_both_sides() -> None:
    records = [record(f"R{number}", f"Is it {number}?", f"Yes, it is {number} of them.") for number in range(200)]
    settings = PairSettings(kinds=["polarity", "echo"], paraphrase_share=0.3)
    found = pairs_of(records, settings, paraphrases=reworded)
    turned = Counter(pair["paraphrased"] for pair in found if pair["kind"] == "polarity")
    assert 0.2 < (turned["chosen"] + turned["both"]) / 200 < 0.4
    assert 0.2 < (turned["rejected"] + turned["both"]) / 200 < 0.4
    assert {pair["paraphrased"] for pair in found if pair["kind"] == "echo"} == {"none", "chosen"}
    for pair in found:
        assert pair["chosen"].startswith("In short") == (pair["paraphrased"] in ("chosen", "both"))
        assert pair["rejected"].startswith("In short: No") == (pair["paraphrased"] in ("rejected", "both"))
    assert all(
        pair["paraphrased"] == "none" for pair in pairs_of(records, PairSettings(paraphrase_share=0), paraphrases=reworded)
    )


def test_the_cap_holds_and_rare_kinds_come_first() -> None:
    records = [record(f"R{number}", f"Is it {number}?", f"It is {number} of all of those many waves.") for number in range(90)]
    records += [
        record(f"S{number}", f"Is it {number}?", f"Yes it is {number} of all those many waves.") for number in range(10)
    ]
    settings = PairSettings(kinds=["polarity", "echo", "fragment", "repetition"], max_negatives=1)
    found = pairs_of(records, settings)
    assert Counter(pair["id"] for pair in found) == Counter(row["id"] for row in records)
    rare = [pair["kind"] for pair in found if pair["id"].startswith("S")]
    assert rare.count("polarity") >= 6, "a kind that ten of a hundred records allow is drawn ten times as readily"
    assert len(pairs_of(records, settings, held_out=True)) == 3 * 100 + 10


def test_what_is_drawn_depends_on_seed_and_id_not_on_the_order() -> None:
    records = [record(f"R{number}", f"Is it {number}?", f"Yes, the {number} waves. They are wide.") for number in range(30)]
    settings = PairSettings(max_negatives=2)
    expected = pairs_of(records, settings, paraphrases=reworded)
    assert pairs_of(records, settings, paraphrases=reworded) == expected
    shuffled = random.Random(0).sample(records, len(records))

    def by_id(pairs: list[dict]) -> list[str]:
        return sorted(json.dumps(pair) for pair in pairs)

    assert by_id(pairs_of(shuffled, settings, paraphrases=reworded)) == by_id(expected)
    assert by_id(pairs_of(records, PairSettings(max_negatives=2, seed=1), paraphrases=reworded)) != by_id(expected)


words = st.sampled_from("Yes No 120 ms wave QRS the is Why ? . “it” IT's".split())
texts = st.lists(words, max_size=12).map(" ".join)


@given(st.lists(st.tuples(texts, texts, st.sampled_from("AB"), st.integers(0, 3)), max_size=8), st.data())
def test_pairs_of_any_records(rows: list[tuple[str, str, str, int]], data: st.DataObject) -> None:
    records = [
        record(f"{task}-{index}", question, answer, task, f"{task}{group}")
        for index, (question, answer, task, group) in enumerate(rows)
    ]
    settings = PairSettings(
        max_negatives=data.draw(st.integers(1, 13)),
        paraphrase_share=data.draw(st.floats(0, 1)),
        seed=data.draw(st.integers(0, 9)),
    )
    samples = {row["id"]: [Sample("No.", 0.1)] for row in records}
    options = {"samples": samples, "paraphrases": data.draw(st.sampled_from([reworded, unchanged]))}
    drawn, every = pairs_of(records, settings, **options), pairs_of(records, settings, held_out=True, **options)
    assert [pair for pair in every if pair in drawn] == drawn, "the cap only leaves out"
    assert len({(pair["id"], pair["kind"]) for pair in every}) == len(every)
    allowed = Counter(pair["id"] for pair in every)
    assert Counter(pair["id"] for pair in drawn) == {id: min(number, settings.max_negatives) for id, number in allowed.items()}
    of = {row["id"]: row for row in records}
    for pair in every:
        row = of[pair["id"]]
        assert normal(pair["rejected"]) not in ("", normal(pair["chosen"]), normal(row["answer"]))
        assert pair["chosen"] in (row["answer"], reworded(row["answer"], ""))
        assert normal(pair["chosen"])
        assert {name: pair[name] for name in ("task", "cluster", "prompt")} == {
            name: row[name] for name in ("task", "cluster", "prompt")
        }
        if pair["kind"] == "other_answer":
            sources = [other for other in records if other["answer"] == pair["rejected"] and other["task"] == row["task"]]
            assert any(other["cluster"] != row["cluster"] for other in sources)
            assert _shared_words(pair["rejected"], row["answer"]) < SAME_ANSWER
    counted = account(every, len(records))
    assert counted["all"]["pairs"] == len(every) == sum(kind["pairs"] for kind in counted["kinds"].values())
    assert pa.Table.from_pylist(every, schema=PREFERENCE_PAIRS).to_pylist() == every


def test_the_account_says_how_long_the_texts_are() -> None:
    rows = [("fragment", "a b c d", "a b"), ("fragment", "a b", "a"), ("echo", "a", "b"), ("echo", "a", "b c d")]
    pairs = [
        {"id": "A", "kind": kind, "paraphrased": "none", "chosen": chosen, "rejected": rejected}
        for kind, chosen, rejected in rows
    ]
    counted = account(pairs, 3)
    assert counted["records_without_a_pair"] == 2
    assert counted["kinds"] == {
        "echo": {"pairs": 2, "mean_words_chosen": 1, "mean_words_rejected": 2, "chosen_is_longer": 0.25},
        "fragment": {"pairs": 2, "mean_words_chosen": 3, "mean_words_rejected": 1.5, "chosen_is_longer": 1},
    }
    assert counted["all"] == {"pairs": 4, "mean_words_chosen": 2, "mean_words_rejected": 1.75, "chosen_is_longer": 0.625}
    assert account([], 0)["all"] == {"pairs": 0}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"kinds": []}, "kinds"),
        ({"kinds": ["echo", "echo"]}, "kinds names one kind twice"),
        ({"kinds": ["lies"]}, "kinds"),
        ({"max_negatives": 0}, "max_negatives"),
        ({"paraphrase_share": 1.1}, "paraphrase_share"),
        ({"max_sample_reward": -0.1}, "max_sample_reward"),
    ],
)
def test_settings_that_cannot_work_are_refused(change: dict, expected: str) -> None:
    with pytest.raises(ValidationError, match=expected):
        PairSettings.model_validate(change)


def split_rows(count: int) -> list[dict[str, Any]]:
    """Rows as `prepare_data` writes them, of the sample data."""
    pairs = json.loads((SAMPLE / "ECG Knowledge (Basic Q&A).json").read_text())[:count]
    more = {"source_file": "ECG Knowledge (Basic Q&A).json", "source_row": 0, "history": [], "split": "train", "flags": []}
    return [record(f"EBK-{index:05d}", pair["Q"], pair["A"]) | more for index, pair in enumerate(pairs)]


def run(folder: Path, name: str, *options: str, **settings: object) -> subprocess.CompletedProcess[str]:
    """Runs the program on `<folder>/train.parquet`; results go to `<folder>/<name>/`."""
    files = {"records": folder / "train.parquet", "pairs": folder / name / "pairs.parquet"}
    files |= {key: folder / name / f"{key}.json" for key in ("account", "provenance")}
    arguments = [str(part) for key, file in files.items() for part in (f"--{key}", file)]
    program = [sys.executable, "workflow_scripts/make_preference_pairs.py", *arguments, "--settings", json.dumps(settings)]
    return subprocess.run([*program, *options], cwd=ROOT, capture_output=True, text=True, check=False)


def test_the_program_writes_the_same_bytes_twice(tmp_path: Path) -> None:
    write_table(tmp_path / "train.parquet", split_rows(40), RECORDS, {})
    write_table(
        tmp_path / "samples.parquet", sampled(split_rows(2), "Quite so.", "It is a", cut="It is a"), SAMPLED_ANSWERS, {}
    )
    for name in ("one", "two"):
        ended = run(tmp_path, name, "--samples", str(tmp_path / "samples.parquet"), max_negatives=13)
        assert ended.returncode == 0, ended.stderr
    assert (tmp_path / "one/pairs.parquet").read_bytes() == (tmp_path / "two/pairs.parquet").read_bytes()
    pairs = read_rows(tmp_path / "one/pairs.parquet")
    assert pq.read_schema(tmp_path / "one/pairs.parquet").remove_metadata().equals(PREFERENCE_PAIRS)
    assert [pair["rejected"] for pair in pairs if pair["kind"] == "sft_sample"] == ["Quite so."] * 2
    counted = json.loads((tmp_path / "one/account.json").read_text())
    assert counted["records"] == 40
    assert counted["records_with_samples"] == 2
    assert counted["all"]["pairs"] == len(pairs)
    assert {"echo", "fragment", "fluent_nonsense", "other_answer", "repetition", "numbers"} <= counted["kinds"].keys()
    assert json.loads((tmp_path / "one/provenance.json").read_text())["facts"]["pairs"] == dict(
        Counter(pair["kind"] for pair in pairs)
    )


def test_held_out_pairs_have_no_cap(tmp_path: Path) -> None:
    write_table(tmp_path / "train.parquet", split_rows(10), RECORDS, {})
    for name, options in (("capped", ()), ("all", ("--held-out",))):
        assert run(tmp_path, name, *options, max_negatives=1).returncode == 0
    assert len(read_rows(tmp_path / "capped/pairs.parquet")) == 10
    assert len(read_rows(tmp_path / "all/pairs.parquet")) > 40


def test_no_pair_at_all_is_refused(tmp_path: Path) -> None:
    write_table(tmp_path / "train.parquet", split_rows(3), RECORDS, {})
    ended = run(tmp_path, "none", kinds=["sft_sample"])
    assert ended.returncode == 1
    assert "train.parquet: no preference pair can be made of it. Name more reward_model.pairs.kinds" in ended.stderr
    assert not (tmp_path / "none").exists()


def sampled(rows: list[dict[str, Any]], *completions: str, cut: str | None = None) -> list[dict[str, Any]]:
    """Rows as `sample_answers` writes them, the same completions to every question; one may have been cut off."""
    return [
        row | {"completion": text, "sample": sample, "finish_reason": "length" if text == cut else "stop"}
        for row in rows
        for sample, text in enumerate(completions)
    ]


def test_a_samples_likeness_is_that_of_its_content(tmp_path: Path) -> None:
    (row,) = [record("A", "Is a QRS of 140 ms wide?", "Yes, it is longer than 120 ms.")]
    texts = [row["answer"], "No, it is longer than 120 ms.", "Yes, it is longer than 300 ms.", "Magnesium is given.", "Yes, it"]
    write_table(tmp_path / "samples.parquet", sampled([row], *texts, cut="Yes, it"), SAMPLED_ANSWERS, {})
    (found,) = read_samples([tmp_path / "samples.parquet"]).values()
    assert [sample.completion for sample in found] == texts[:-1], "what was cut off is left out"
    right, turned, miscounted, other = (sample.likeness for sample in found)
    assert right == pytest.approx(1)
    assert other < 0.2
    assert turned <= ALL.max_sample_reward
    assert turned < miscounted < right


def test_every_paraphrase_is_more_like_the_reference_than_a_wrong_sample_may_be() -> None:
    """So that no right answer in other words is called wrong."""
    rows = [
        pair for file in sorted(SAMPLE.glob("*.json")) for pair in json.loads(file.read_text()) if {"Q", "A"} <= pair.keys()
    ]
    said = [(text, row) for row in rows if (text := paraphrase(row["A"], row["Q"])) is not None]
    likeness = LIKENESS.rewards([Case(text, row["A"], row["Q"]) for text, row in said])
    assert len(said) > 100
    assert min(likeness) > ALL.max_sample_reward


def test_a_table_that_lacks_a_column_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist([{"id": "A", "completion": "x"}]), tmp_path / "samples.parquet")
    with pytest.raises(InputError, match=r"samples.parquet: not a readable parquet file"):
        read_samples([tmp_path / "samples.parquet"])
