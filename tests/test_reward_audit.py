"""The audit passes a sound reward and stops one that pays for echoes or for lists of keywords."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, SAMPLE

from ecg_grpo import rewards
from ecg_grpo.attacks import ATTACKS, REASONING_ATTACKS, Target, usual_beginning
from ecg_grpo.baselines import most_frequent_answers, nearest_training_answers
from ecg_grpo.concepts import concepts
from ecg_grpo.model_rewards import load_mix
from ecg_grpo.raw_files import find_raw_files
from ecg_grpo.readers import read_records
from ecg_grpo.reward_audit import audit
from ecg_grpo.rewards import RewardMix
from ecg_grpo.settings.reward import RewardInUse, RewardSettings
from ecg_grpo.settings.reward_audit import AuditSettings

QUICK = AuditSettings(resamples=100)
RECORDS = [
    {"task": file.name, "context": "", "question": record.question, "answer": record.answer}
    for file in find_raw_files(SAMPLE)
    for record in read_records(file)
]


def targets(records: list[dict], train: list[dict]) -> list[Target]:
    frequent = most_frequent_answers((row["task"], row["answer"]) for row in train)
    phrase = usual_beginning(row["answer"] for row in train)
    return [
        Target(row["question"], row["answer"], nearest, frequent[row["task"]], phrase)
        for row, nearest in zip(records, nearest_training_answers(train, records), strict=True)
    ]


VALIDATION = targets(RECORDS[::5], [row for index, row in enumerate(RECORDS) if index % 5])


def audited(mix: RewardMix, settings: AuditSettings = QUICK) -> dict:
    """The audit of a mix on a part of the sample; retrieved answers, one of them cut short, stand for the SFT model's."""
    samples = [[target.nearest, " ".join(target.nearest.split()[:20])] for target in VALIDATION]
    return audit(mix, VALIDATION, [str(index) for index in range(len(VALIDATION))], samples, settings)


def failing(found: Mapping) -> set[str]:
    return {
        row["name"] for row in found["attacks"] if any(text.startswith(f"{row['label']} earns") for text in found["failures"])
    }


@pytest.fixture(scope="module")
def default() -> dict:
    return audited(load_mix(RewardSettings()))


def test_with_the_default_reward_every_attack_earns_less_than_the_reference_in_95_percent(default: dict) -> None:
    assert default["failures"] == []
    for row in default["attacks"]:
        if row["records"]:
            assert row["beats_reference"]["mean"] <= 0.05, row["name"]
            assert row["auc"] >= 0.9, row["name"]
    assert {row["name"] for row in default["attacks"] if row["records"]} == set(ATTACKS)


def test_with_reasoning_answers_earn_what_they_earn_without_and_reasoning_cannot_be_feigned(default: dict) -> None:
    found = audited(load_mix(RewardInUse(reasoning=True)))
    assert found["failures"] == []
    rows = {row["name"]: row for row in found["attacks"] + found["honest"]}
    for row in default["attacks"] + default["honest"]:
        assert rows[row["name"]]["mean"] == row["mean"], row["name"]
    for name in ("no_reasoning", "empty_reasoning", "one_word_reasoning"):
        assert rows[name]["mean"] == 0
    assert rows["reasoned_echo"]["mean"] == pytest.approx(rows["echo"]["mean"])
    assert {row["name"] for row in found["attacks"]} == ATTACKS.keys() | REASONING_ATTACKS.keys()


def test_a_reward_that_does_not_demand_the_form_is_stopped_where_reasoning_is_on() -> None:
    settings = RewardInUse(reasoning=True, gates={"format": None, "length": 0.0, "repetition": 0.0, "polarity": 0.2})
    assert failing(audited(load_mix(settings))) >= {"no_reasoning", "empty_reasoning"}


def test_the_reference_earns_1_and_a_paraphrase_more_than_blind_attacks(default: dict) -> None:
    reference, paraphrase = default["honest"]
    assert reference["mean"] == pytest.approx(1)
    assert paraphrase["records"] >= 0.9 * len(VALIDATION)
    for row in default["attacks"]:
        if row["is_blind"]:
            assert row["mean"] < paraphrase["mean"], row["name"]


RESTATING = [
    (
        "What does ST elevation in leads II, III, aVF indicate?",
        "ST elevation in leads II, III, aVF indicates inferior infarction.",
    ),
    ("Can a beta blocker be given in third degree AV block?", "No, a beta blocker can not be given in third degree AV block."),
    (
        "What is the normal range of the PR interval?",
        "The normal range of the PR interval is 120 to 200 ms.",
    ),
    ("May I see my own ECG and its report?", "Yes, you may see your own ECG and its report."),
    ("Which artery supplies the AV node in most people?", "The right coronary artery supplies the AV node in most people."),
    (
        "What is the first treatment of torsades?",
        "The first treatment of torsades is intravenous magnesium.",
    ),
    ("Is a delta wave a sign of pre-excitation?", "Yes, a delta wave is a sign of pre-excitation by an accessory pathway."),
    ("What does a U wave after the T wave suggest?", "A U wave after the T wave suggests hypokalemia."),
]
"""Answers that say the question again, as those of published data mostly do."""


def test_plain_rouge_l_pays_for_an_echo_where_answers_restate_the_question() -> None:
    records = [Target(question, answer, "It is normal.", "It is.", "It is the") for question, answer in RESTATING]
    clusters = [str(index) for index in range(len(records))]
    found = audit(RewardMix({"rouge_l": 1.0}, {}), records, clusters, [[]] * len(records), QUICK)
    assert "echo" in failing(found)
    assert any(text.startswith("Echo earns as much as the paraphrase in") for text in found["failures"])
    sound = audit(load_mix(RewardSettings()), records, clusters, [[]] * len(records), QUICK)
    assert "echo" not in failing(sound)


def test_plain_rouge_l_pays_an_echo_as_much_as_retrieved_answers() -> None:
    limited = QUICK.model_copy(update={"max_beating_samples": 0.2})
    found = audited(RewardMix({"rouge_l": 1.0}, {}), limited)
    assert "Echo earns as much as the SFT model's samples" in " ".join(found["failures"])
    assert "echo" not in failing(audited(load_mix(RewardSettings()), limited))


def test_recall_of_keywords_pays_for_the_lexicon(monkeypatch: pytest.MonkeyPatch) -> None:
    def recall(answer, reference: str, question: str) -> float:
        expected = {concept for concept in concepts(reference) if concept.startswith("c_")} or {"nothing"}
        return len(expected & concepts(answer.prediction)) / len(expected)

    monkeypatch.setitem(rewards.REWARDS, "concept_f1", recall)
    found = audited(RewardMix({"concept_f1": 1.0}, {}))
    assert "lexicon" in failing(found)


def test_without_a_length_gate_repetition_and_fragments_are_paid_better(default: dict) -> None:
    gateless = audited(RewardMix({"concept_f1": 1.0, "chrf": 0.5}, {}))
    mean = {
        (name, row["name"]): row["mean"]
        for name, found in (("with", default), ("without", gateless))
        for row in found["attacks"]
    }
    for attack in ("repeated", "fragment", "reference_and_dump"):
        assert mean["with", attack] < 0.8 * mean["without", attack]


def test_what_the_samples_say(default: dict) -> None:
    samples = default["samples"]
    assert samples["completions"] == 2 * len(VALIDATION)
    assert 0 < samples["spread"] < 1
    assert 0 <= samples["without_spread"] <= 1
    assert set(samples["correlation_with_length"]) == {"reward", *default["parts"]}
    assert all(value is None or -1 <= value <= 1 for value in samples["correlation_with_length"].values())


def test_without_samples_nothing_is_said_of_them() -> None:
    found = audit(load_mix(RewardSettings()), VALIDATION[:5], list("abcde"), [[]] * 5, QUICK)
    assert found["samples"]["completions"] == 0
    assert found["samples"]["spread"] is None


def test_a_share_is_that_of_the_records_to_which_the_attack_applies() -> None:
    found = audited(RewardMix({"chrf": 1.0}, {}))
    row = next(row for row in found["attacks"] if row["name"] == "drug")
    assert 0 < row["records"] < len(VALIDATION)
    assert row["beats_reference"]["records"] == row["records"]


def test_a_share_of_none_has_an_interval_that_says_how_many_were_looked_at(default: dict) -> None:
    echo = next(row for row in default["attacks"] if row["name"] == "echo")["beats_reference"]
    assert echo["mean"] == echo["low"] == 0
    assert echo["high"] == pytest.approx(1.96**2 / (len(VALIDATION) + 1.96**2), rel=1e-3)  # Wilson's bound for none of n


def test_the_auc_of_what_always_earns_less_is_1() -> None:
    found = audited(load_mix(RewardSettings()))
    assert next(row["auc"] for row in found["attacks"] if row["name"] == "empty") == 1
    assert not np.isnan([row["auc"] for row in found["attacks"] if row["auc"] is not None]).any()


def run_program(program: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, ROOT / "workflow_scripts" / program, *arguments]
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)


def test_an_unsound_reward_stops_the_pipeline_with_attack_part_and_example(tmp_path: Path) -> None:
    file = tmp_path / "audit.json"
    file.write_text(json.dumps(audited(RewardMix({"rouge_l": 1.0}, {}), QUICK.model_copy(update={"max_beating_samples": 0.2}))))
    run = run_program(
        "require_sound_reward.py", "--audit", file, "--passed", tmp_path / "passed.json", "--log", tmp_path / "log"
    )
    assert run.returncode == 1
    assert not (tmp_path / "passed.json").exists()
    said = run.stderr + (tmp_path / "log").read_text()
    assert "Echo earns as much as the SFT model's samples in" in said
    assert "mostly by rouge_l" in said
    assert "Traceback" not in said


def test_the_example_is_one_of_the_limit_that_is_broken(tmp_path: Path) -> None:
    """Also where no record has a paraphrase that an attack could be held against."""
    targets = [replace(target, reference="Le segment est normal.") for target in VALIDATION[:4]]
    found = audit(
        RewardMix({"length": 1.0}, {}),
        targets,
        list("abcd"),
        [["Non."]] * 4,
        QUICK.model_copy(update={"max_beating_samples": 0.1}),
    )
    file = tmp_path / "audit.json"
    file.write_text(json.dumps(found))
    run = run_program("require_sound_reward.py", "--audit", file, "--passed", tmp_path / "passed.json")
    assert run.returncode == 1
    assert "Traceback" not in run.stderr
    assert "earns as much as the SFT model's samples" in run.stderr
    for row in found["attacks"]:
        if row["is_blind"] and row["beats_samples"]["mean"] > 0.1:
            assert row["example"]["reward"] >= row["example"]["honest_reward"]


def test_a_sound_one_passes(tmp_path: Path, default: dict) -> None:
    file = tmp_path / "audit.json"
    file.write_text(json.dumps(default))
    run = run_program("require_sound_reward.py", "--audit", file, "--passed", tmp_path / "passed.json")
    assert run.returncode == 0, run.stderr
    assert json.loads((tmp_path / "passed.json").read_text())["records"] == len(VALIDATION)


def test_the_counts_of_terms_are_those_of_the_sample(tmp_path: Path) -> None:
    counts = tmp_path / "counts.tsv"
    run = run_program("count_terms.py", "--raw", *find_raw_files(SAMPLE), "--counts", counts)
    assert run.returncode == 0, run.stderr
    assert counts.read_bytes() == (ROOT / "resources/lexicon/term_counts.tsv").read_bytes()
