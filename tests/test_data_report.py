"""The page about the prepared data: its numbers, its list of what to know, and that no record's text runs on it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import CORES, ROOT

from ecg_grpo.baselines import most_frequent_answers, nearest_training_answers, random_training_places
from ecg_grpo.data_statistics import (
    LENGTHS,
    RULES,
    SplitColumns,
    answer_histograms,
    evenly_spread,
    histogram,
    length_table,
    quantiles,
    rounded,
    score_baselines,
    share_table,
    shortened,
    task_order,
    what_to_know,
    yes_no_table,
)
from ecg_grpo.errors import InputError
from ecg_grpo.tables import QUARANTINE, RECORDS, write_table
from make_data_report import rows_at, thinned


def columns(*rows: tuple[str, int, str | None]) -> SplitColumns:
    """A split of (task, length, polarity); every length of a record is the same."""
    task, length, side = zip(*rows, strict=True) if rows else ((), (), ())
    lengths = {name: np.array(length, dtype=np.int64) for name in LENGTHS}
    return SplitColumns(np.array(task, dtype=object), lengths, np.array(side, dtype=object))


def test_quantiles_are_lengths_that_occur() -> None:
    assert quantiles(np.arange(1, 101)) == {"min": 1, "p5": 5, "p50": 50, "p95": 95, "p99": 99, "max": 100}
    assert quantiles(np.array([7])) == {"min": 7, "p5": 7, "p50": 7, "p95": 7, "p99": 7, "max": 7}
    assert quantiles(np.array([10, 20]))["p50"] == 10, "not 15, which is no record's length"


def test_length_table_has_a_row_for_what_has_records() -> None:
    splits = {"train": columns(("EBK", 3, None), ("EBK", 5, None), ("CD", 9, None)), "test": columns(("EBK", 4, None))}
    table = length_table(splits, ["EBK", "CD"])
    assert [(row["task"], row["split"], row["records"]) for row in table] == [
        ("EBK", "train", 2),
        ("EBK", "test", 1),
        ("CD", "train", 1),
    ]
    assert (table[0]["answer_words"]["min"], table[0]["answer_words"]["max"]) == (3, 5)


def test_histogram_widths_are_1_2_5_and_the_last_bin_holds_the_rest() -> None:
    assert histogram({"train": np.arange(10)}, most_bins=10) == {"start": 0, "width": 1, "counts": {"train": [1] * 10}}
    eleven = histogram({"train": np.arange(11), "test": np.array([4])}, most_bins=10)
    assert eleven == {"start": 0, "width": 2, "counts": {"train": [2, 2, 2, 2, 2, 1], "test": [0, 0, 1, 0, 0, 0]}}
    assert histogram({"train": np.arange(50, 60)}, most_bins=10)["start"] == 50
    tail = histogram({"train": np.array([4] * 99 + [5] * 99 + [1000])}, most_bins=10)
    assert tail == {"start": 4, "width": 1, "counts": {"train": [99, 100]}}


def test_answer_histograms_leave_out_tasks_without_records() -> None:
    splits = {"train": columns(("EBK", 3, None)), "validation": columns(), "test": columns()}
    found = answer_histograms(splits, ["EBK", "CD"])
    assert found == {"EBK": {"start": 3, "width": 1, "counts": {"train": [1], "validation": [0], "test": [0]}}}


def test_yes_no_shares() -> None:
    train = columns(("EBK", 1, "yes"), ("EBK", 1, "yes"), ("EBK", 1, "no"), ("EBK", 1, None))
    table = yes_no_table({"train": train, "test": columns(("EBK", 1, "yes"), ("CD", 1, None))}, ["EBK", "CD"])
    found = {(row["task"], row["split"]): row for row in table}
    assert found["EBK", "all"] == {
        "task": "EBK",
        "split": "all",
        "records": 5,
        "yes": 3,
        "no": 1,
        "share": 0.8,
        "yes_share": 0.75,
    }
    assert found["EBK", "train"]["yes_share"] == pytest.approx(2 / 3)
    assert found["CD", "all"]["yes_share"] is None
    assert ("CD", "train") not in found


def test_shares_and_their_differences_in_points() -> None:
    counts = {"train": {"EBK": 80}, "validation": {"EBK": 8}, "test": {"EBK": 12}}
    full, empty = rounded(share_table(counts, {"validation": 0.1, "test": 0.1}, ["EBK", "CD"]))
    assert full["records"] == 100
    assert full["splits"]["train"] == {"records": 80, "share": 0.8, "asked": 0.8, "difference": 0.0}
    assert full["splits"]["validation"]["difference"] == -2.0
    assert full["splits"]["test"]["difference"] == 2.0
    assert empty["splits"]["test"] == {"records": 0, "share": None, "asked": 0.1, "difference": None}


def test_small_functions() -> None:
    assert evenly_spread(3, 5) == [0, 1, 2]
    assert evenly_spread(10, 4) == [0, 2, 5, 7]
    assert shortened("abcdef", 6) == "abcdef"
    assert shortened("abcdefg", 6) == "abcde…"
    assert rounded({"a": [0.123456, 1, "0.123456", None, True]}) == {"a": [0.1235, 1, "0.123456", None, True]}
    assert task_order({"read": {"PRTK": 1, "EBK": 2, "other": 3}}) == ["EBK", "PRTK", "other"]


def test_the_constant_answer_is_the_most_frequent_then_the_shortest_then_the_first() -> None:
    answers = [
        ("A", "often, and long"),
        ("A", "x"),
        ("A", "often, and long"),
        ("B", "bb"),
        ("B", "aaa"),
        ("C", "z"),
        ("C", "b"),
    ]
    assert most_frequent_answers(answers) == {"A": "often, and long", "B": "bb", "C": "b"}


def test_random_answers_are_of_the_task_and_follow_the_seed() -> None:
    train, asked = ["A", "B"] * 50, ["A", "C", *["B"] * 30]
    places = random_training_places(train, asked, seed=1)
    assert places == random_training_places(train, asked, seed=1)
    assert places != random_training_places(train, asked, seed=2)
    assert places[1] is None
    assert [train[place] for place in places if place is not None] == ["A", *["B"] * 30]
    assert len(set(places)) > 10


def test_nearest_answers_are_the_same_in_blocks_of_any_size() -> None:
    topics = ["atrial fibrillation", "long QT interval", "bundle branch block", "ST elevation", "paced rhythm"]
    train = [{"context": "", "question": f"What is {topic}?", "answer": topic} for topic in topics]
    asked = [{"context": "", "question": f"Tell me about {topic}"} for topic in reversed(topics)]
    expected = list(reversed(topics))
    assert nearest_training_answers(train, asked) == expected
    assert nearest_training_answers(train, asked, most_products=1) == expected, "one question at a time"
    assert nearest_training_answers(train, asked, most_products=11) == expected, "two, two, one"


def test_baseline_scores_by_hand() -> None:
    records = [
        {"task": "A", "question": "", "answer": "wide QRS"},
        {"task": "A", "question": "", "answer": "wide QRS"},
        {"task": "B", "question": "", "answer": "sinus rhythm"},
    ]
    scores = score_baselines(records, {"one": ["wide QRS", "nothing", None], "none": [None] * 3})
    assert scores["one"]["overall"]["records"] == 2
    assert scores["one"]["overall"]["rouge_l"] == 0.5
    assert scores["one"]["by_task"]["A"]["token_f1"] == 0.5
    assert scores["one"]["by_task"]["B"] is None
    assert scores["none"] == {"overall": None, "by_task": {"A": None, "B": None}}


def test_rows_are_found_in_any_order_and_batch(tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": list(range(25_000)), "other": [0] * 25_000}), tmp_path / "rows.parquet")
    places = [24_999, 0, 10_000, 0, 9_999]
    assert rows_at(tmp_path / "rows.parquet", places, "id") == [{"id": place} for place in places]
    with pytest.raises(InputError, match="no column absent"):
        rows_at(tmp_path / "rows.parquet", places, "absent")


def test_long_texts_are_thinned_evenly() -> None:
    records = [{"context": "c" * 60, "question": "q" * 40, "id": number} for number in range(10)]
    assert thinned(records, most=1000) == records
    assert [record["id"] for record in thinned(records, most=500)] == [0, 2, 4, 6, 8]


def clean_report() -> dict:
    """A report that no rule finds anything in."""
    counts = {"train": {"EBK": 800}, "validation": {"EBK": 100}, "test": {"EBK": 100}}
    scores = {"records": 100, "rouge_l": 0.5}
    return {
        "tasks": ["EBK"],
        "records": {"read": 1000, "kept": 1000, "quarantined": 0, "dropped": 0},
        "raw_files": [{"task": "EBK", "as_published": True}],
        "absent_files": [],
        "quarantined": {},
        "contradictions": [],
        "splits": counts,
        "yes_no": [{"task": "EBK", "split": "all", "yes": 80, "no": 20}],
        "shares": rounded(share_table(counts, {"validation": 0.1, "test": 0.1}, ["EBK"])),
        "clusters": {"largest": [{"cluster": "EBK-1", "records": 50}]},
        "leakage": {"at_0.8": 0, "shared_answers": 0, "shared_subjects": 0, "audited": 200, "held_out_questions": 200},
        "baselines": {"systems": {"echo": {"overall": scores, "by_task": {"EBK": scores}}}},
    }


def share_of_test(records: int) -> Callable[[dict], None]:
    """Gives the test split so many of 1,000 records; 100 were asked for."""

    def change(report: dict) -> None:
        report["splits"] = {"train": {"EBK": 900 - records}, "validation": {"EBK": 100}, "test": {"EBK": records}}
        report["shares"] = rounded(share_table(report["splits"], {"validation": 0.1, "test": 0.1}, ["EBK"]))

    return change


@pytest.mark.parametrize(
    ("kind", "change", "text"),
    [
        ("not published", lambda r: r["raw_files"][0].update(as_published=False), "1 raw file is not the published one: EBK."),
        ("absent", lambda r: r["absent_files"].append("x.json"), "1 of 11 raw files is absent"),
        (
            "quarantined",
            lambda r: r["quarantined"].update({"mojibake": {"EBK": 1, "CD": 1}, "cut": {"EBK": 3}}),
            "5 records are kept apart and not trained on: 3 cut, 2 mojibake.",
        ),
        (
            "contradiction",
            lambda r: r["contradictions"].append({"yes": ["a", "b"], "no": ["c"]}),
            "1 question is answered both with yes and with no (3 records",
        ),
        ("one-sided", lambda r: r["yes_no"][0].update(yes=81, no=19), "most say yes: 81 % of 100 in EBK."),
        ("one-sided", lambda r: r["yes_no"][0].update(yes=3, no=17), "most say no: 85 % of 20 in EBK."),
        ("missing task", lambda r: r["tasks"].append("CD"), "The train split has no record of CD."),
        ("small test", lambda r: r["splits"]["test"].update(EBK=29), "EBK (29)"),
        ("share", share_of_test(121), "The train split has 77.9 % of EBK; 80 % of each task was asked for."),
        ("share", share_of_test(79), "The train split has 82.1 % of EBK; 80 % of each task was asked for."),
        ("large group", lambda r: r["clusters"]["largest"][0].update(records=51), "51 records (5.1 %)"),
        ("leakage", lambda r: r["leakage"].update({"at_0.8": 1}), "1 held-out question is rather like one in training"),
        ("leakage", lambda r: r["leakage"].update(shared_answers=2), "2 answers stand in training"),
        ("leakage", lambda r: r["leakage"].update(shared_subjects=1), "1 subject is in training"),
        ("leakage", lambda r: r["leakage"].update(audited=199), "199 of 200"),
        (
            "strong baseline",
            lambda r: r["baselines"]["systems"]["echo"].update(overall={"records": 100, "rouge_l": 0.5001}),
            "ROUGE-L of 0.50 overall: the question itself.",
        ),
    ],
)
def test_what_to_know_beyond_the_border(kind: str, change: Callable[[dict], None], text: str) -> None:
    report = clean_report()
    change(report)
    found = what_to_know(report)
    assert {entry["kind"] for entry in found} == {kind}
    assert kind in RULES
    assert text in found[0]["text"]


@pytest.mark.parametrize(
    "change",
    [
        lambda report: report,  # 80 % of 100 say yes, a group of 5 %, a baseline at 0.5
        lambda r: r["yes_no"][0].update(yes=19, no=0),
        lambda r: r["yes_no"][0].update(yes=20, no=80),
        lambda r: r["yes_no"].append({"task": "EBK", "split": "test", "yes": 100, "no": 0}),
        lambda r: r["splits"]["test"].update(EBK=30),
        share_of_test(120),
        share_of_test(80),
        lambda r: r["baselines"]["systems"]["echo"].update(overall=None),
    ],
)
def test_what_to_know_at_the_border(change: Callable[[dict], None]) -> None:
    report = clean_report()
    change(report)
    assert what_to_know(report) == []


ATTACK = "</p></table><script>alert(1)</script><img src=x onerror='alert(2)'> \"q\" {{ 7 * 7 }} \u202e \u05d0\u05d1\u05d2"


def record(number: int, task: str, split: str, question: str, answer: str) -> dict:
    """A prepared record, hostile in every text."""
    return {
        "id": f"{task}-{number} {ATTACK}",
        "task": task,
        "source_file": ATTACK,
        "source_row": number,
        "turn": None,
        "subject": ATTACK,
        "context": ATTACK,
        "history": [],
        "question": question,
        "answer": answer,
        "prompt": [],
        "split": split,
        "cluster": f"group {ATTACK}",
        "prompt_tokens": 50 + number,
        "answer_tokens": 10 + number,
        "flags": [ATTACK],
        "reason": ATTACK,
        "evidence": ATTACK,
        "raw": ATTACK,
    }


def account(tasks: dict[str, dict[str, int]], hostile_task: str) -> dict:
    """What prepare_data would have written for these counts (split → task → records), hostile in every text."""
    names = sorted({task for counts in tasks.values() for task in counts})
    pair = {"id": ATTACK, "question": ATTACK, "training_id": ATTACK, "training_question": ATTACK, "cosine": 0.812345}
    return {
        "records": {"read": 28, "kept": 21, "quarantined": 6, "dropped": 1},
        "read": dict.fromkeys(names, 7),
        "splits": tasks,
        "quarantined": {ATTACK: {hostile_task: 6}},
        "dropped": {ATTACK: {hostile_task: 1}},
        "repaired": {ATTACK: {"records": {hostile_task: 1}, "examples": [{"id": ATTACK, "before": ATTACK, "after": ATTACK}]}},
        "contradictions": [{"question": ATTACK, "yes": [ATTACK] * 7, "no": [ATTACK], "answer_yes": ATTACK, "answer_no": ATTACK}]
        * 25,
        "clusters": {
            "number": 5,
            "largest": [{"cluster": f"group {ATTACK}", "records": 21}],
            "by_size": {"1": 0, "2": 0, "3-5": 4, "6-20": 0, "21 and more": 1},
        },
        "leakage": {
            "held_out_questions": 9,
            "audited": 9,
            "at_0.8": 1,
            "removed": 0,
            "highest": 0.812345,
            "shared_answers": 1,
            "shared_subjects": 1,
            "nearest": [pair],
        },
        "raw_files": [
            {"task": name, "name": ATTACK, "title": ATTACK, "sha256": "0" * 64, "as_published": False} for name in names
        ],
        "absent_files": [ATTACK],
        "budget": {"prompt": 1024, "answer": 1024},
        "asked": {"validation": 0.1, "test": 0.1},
    }


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[bytes, str]]:
    """Runs the program on hostile records; gives the JSON's bytes and the page."""
    folder = tmp_path_factory.mktemp("data_report")
    hostile_task = f"T {ATTACK}"
    splits = {
        "train": [
            record(i, hostile_task, "train", f"{ATTACK} {i}", "Yes, it is." if i < 2 else f"No. {ATTACK}") for i in range(12)
        ],
        "validation": [record(20, hostile_task, "validation", ATTACK, ATTACK)],
        "test": [record(30 + i, hostile_task, "test", f"{ATTACK} {i}", "Yes, it is.") for i in range(6)]
        + [record(40 + i, "PP", "test", ATTACK, "A wide QRS.") for i in range(2)],
    }
    for name, rows in splits.items():
        write_table(folder / f"{name}.parquet", rows, RECORDS, {})
    quarantined = [record(50 + i, hostile_task, "", "" if i == 0 else ATTACK, ATTACK) for i in range(6)]
    write_table(folder / "quarantine.parquet", quarantined, QUARANTINE, {})
    write_table(folder / "dropped.parquet", quarantined[-1:], QUARANTINE, {})
    counts = {name: {} for name in splits}
    for name, rows in splits.items():
        for row in rows:
            counts[name][row["task"]] = counts[name].get(row["task"], 0) + 1
    (folder / "account.json").write_text(json.dumps(account(counts, hostile_task)))

    def build(name: str) -> tuple[bytes, str]:
        inputs = [*splits, "quarantine", "dropped"]
        subprocess.run(
            [
                *(
                    sys.executable,
                    "workflow_scripts/make_data_report.py",
                    "--run",
                    ATTACK,
                    "--account",
                    folder / "account.json",
                ),
                *(text for split in inputs for text in (f"--{split}", folder / f"{split}.parquet")),
                *("--template", "resources/report/data.html.j2", "--style", "resources/report/style.css"),
                *("--scripts", "resources/report/charts.js"),
                *("--report", folder / f"{name}.json", "--page", folder / f"{name}.html"),
                *("--threads", CORES),
            ],
            cwd=ROOT,
            check=True,
            capture_output=True,
        )
        return (folder / f"{name}.json").read_bytes(), (folder / f"{name}.html").read_text()

    return build


@pytest.fixture(scope="module")
def first(built: Callable[[str], tuple[bytes, str]]) -> tuple[bytes, str]:
    return built("first")


class Tags(HTMLParser):
    """Elements that are open, all attributes, and a failure where a tag closes what is not open."""

    VOID = frozenset({"meta", "br", "img", "input", "hr", "link"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag


def body_without_scripts(page: str) -> str:
    return re.sub(r"<script.*?</script>", "", page[page.index("<body>") :], flags=re.S)


def test_no_text_of_a_record_is_markup(first: tuple[bytes, str]) -> None:
    page = first[1]
    assert "<script>alert" not in page
    body = body_without_scripts(page)
    assert "onerror='" not in body
    assert "<img" not in body
    assert "alert(" in body, "the attack is shown"
    assert body.count("&lt;script&gt;alert(1)&lt;/script&gt;") > 60
    assert "{{ 7 * 7 }}" in body
    tags = Tags()
    tags.feed(page)
    assert not tags.open
    assert not [attributes for _, attributes in tags.seen if any(name.startswith("on") for name in attributes)]
    assert sum(attributes.get("class") == "written" for _, attributes in tags.seen) > 20
    assert all(attributes.get("dir") == "auto" for _, attributes in tags.seen if attributes.get("class") == "written")


def test_the_page_asks_nobody_for_anything(first: tuple[bytes, str]) -> None:
    tags = Tags()
    tags.feed(first[1])
    assert not {tag for tag, _ in tags.seen} & {"link", "iframe", "img", "object", "form"}
    addresses = [value for _, attributes in tags.seen for name, value in attributes.items() if name in ("href", "src")]
    anchors = {attributes["id"] for _, attributes in tags.seen if "id" in attributes}
    assert {address for address in addresses if not address.startswith("#")} == {"data_report.json"}
    assert {address[1:] for address in addresses if address.startswith("#")} <= anchors
    assert "default-src 'none'" in first[1]


def test_the_numbers_of_the_report(first: tuple[bytes, str]) -> None:
    report = json.loads(first[0])
    task = f"T {ATTACK}"
    (train,) = [row for row in report["lengths"] if row["task"] == task and row["split"] == "train"]
    assert train["records"] == 12
    assert train["prompt_tokens"] == {"min": 50, "p5": 50, "p50": 55, "p95": 61, "p99": 61, "max": 61}
    assert sum(report["histograms"][task]["counts"]["test"]) == 6
    (yes_no,) = [row for row in report["yes_no"] if row["task"] == task and row["split"] == "train"]
    assert (yes_no["yes"], yes_no["no"], yes_no["yes_share"]) == (2, 10, 0.1667)
    (group,) = report["clusters"]["largest"]
    assert group["splits"] == ["train", "validation", "test"]
    assert group["questions"] == [f"{ATTACK} {i}" for i in range(3)]
    assert len(report["examples"]["quarantine"][ATTACK]) == 5
    assert report["examples"]["quarantine"][ATTACK][0]["question"] == ATTACK, "a row without a question shows its raw text"
    assert report["leakage"]["highest"] == 0.8123

    baselines = report["baselines"]
    assert (baselines["scored"], baselines["test_records"], baselines["compared"]) == (8, 8, 12)
    assert baselines["constant_answers"] == {task: f"No. {ATTACK}"}, "ten records have it, two the other"
    systems = baselines["systems"]
    assert systems["constant"]["by_task"]["PP"] is None
    assert systems["random"]["by_task"]["PP"] is None
    assert systems["random"]["overall"]["records"] == 6
    assert systems["nearest"]["by_task"]["PP"]["records"] == 2
    # The training questions 0 and 1 stand among the test questions 0 to 5, and their answers are the references.
    assert systems["nearest"]["by_task"][task]["rouge_l"] >= 0.3333
    kinds = {entry["kind"] for entry in report["to_know"]}
    assert {"not published", "quarantined", "contradiction", "missing task", "large group", "leakage"} <= kinds


def test_the_page_says_what_the_report_says(first: tuple[bytes, str]) -> None:
    text = " ".join(re.sub(r"<[^>]+>", " ", body_without_scripts(first[1])).split())
    assert "28 records were read." in text
    assert "21 + 6 + 1 = 28" in text
    assert "The first 20 of 25; all are in data_report.json." in text
    assert "They are scores on all 8 test records." in text
    assert "and 2 more" in text
    assert "Research data, not for diagnosis." in text


def test_the_report_is_the_same_on_every_run(built: Callable[[str], tuple[bytes, str]], first: tuple[bytes, str]) -> None:
    assert built("second") == first
