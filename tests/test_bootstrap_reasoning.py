"""The reference's probability after a reasoning, the stage that keeps what raises it, and a run in which models reason."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from conftest import ROOT, Project

from ecg_grpo.errors import InputError
from ecg_grpo.prompts import EMPTY_WORDS, build_prompt, take_apart, write_reasoned
from ecg_grpo.tables import RECORDS, read_rows, write_table

QUESTIONS = [
    ("Is the QRS wide?", "Yes, it is above 120 ms."),
    ("Name the rhythm.", "Atrial fibrillation: irregularly irregular, without P waves, at some 110 beats per minute."),
    ("Which leads show ST elevation? " * 4, "II, III and aVF."),
    ("Is the axis normal?", "answer"),  # as in the tag
    ("What is the rate?", "≈ 75 beats, as 75 beats"),
    ("Is this a U wave?", "No."),
]
REASONINGS = [
    "",
    "Count the small squares.",
    "P waves are missing and intervals differ. " * 3,
    "Look at I and aVF.",
    "x",
    "<answer>",
]
LOOSE = {
    "min_words": 1,
    "max_words": 1000,
    "max_repetition": 1,
    "max_echoed_share": 1,
    "max_named_share": 1,
    "max_quoted_words": 50,
}
"""Random weights write no sentences and stop by chance."""


@pytest.fixture(scope="module")
def loaded(tiny_model: Path):
    import torch

    torch.set_num_threads(1)
    from ecg_grpo.reference_probability import Thought, load_scorer

    thoughts = [
        Thought(build_prompt("You read ECGs.", "", question), reasoning, answer)
        for (question, answer), reasoning in zip(QUESTIONS, REASONINGS, strict=True)
    ]
    return *load_scorer(tiny_model, torch.float32), thoughts


def probabilities(loaded, batch_size: int, finished: int = 0) -> dict:
    from ecg_grpo.reference_probability import reference_probabilities

    return {index: one for batch in reference_probabilities(*loaded, batch_size, finished) for index, one in batch.items()}


def test_it_is_the_plain_model_s_on_the_reference_s_tokens_alone(loaded) -> None:
    import torch

    model, tokenizer, thoughts = loaded
    found = probabilities(loaded, 4)
    assert len(found) == len(thoughts)
    for index, thought in enumerate(thoughts):
        before = "".join(f"<|start|>{turn['role']}\n{turn['content']}<|end|>\n" for turn in thought.prompt)
        before += "<|start|>assistant\n" + write_reasoned(thought.reasoning, thought.reference).removesuffix(
            f"{thought.reference}\n</answer>"
        )
        texts = (before, before + thought.reference, before + thought.reference + "\n</answer><|end|>\n")
        begin, end, ids = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts)
        assert ids[: len(end)] == end, "or a token joins reference and tag"
        with torch.no_grad():
            logits = model(torch.tensor([ids])).logits[0]
        expected = logits.log_softmax(dim=-1)[range(len(begin) - 1, len(end) - 1), ids[len(begin) : len(end)]]
        assert found[index].tokens == len(end) - len(begin)
        assert found[index].mean_log_probability == pytest.approx(expected.mean().item(), abs=1e-4)
        assert found[index].mean_probability == pytest.approx(expected.exp().mean().item(), abs=1e-6)


def test_batches_change_nothing_and_the_first_ones_can_be_left_out(loaded) -> None:
    one, many, rest = probabilities(loaded, 1), probabilities(loaded, 64), probabilities(loaded, 4, finished=1)
    for index, found in one.items():
        assert found.mean_log_probability == pytest.approx(many[index].mean_log_probability, abs=1e-5)
    assert len(rest) == len(one) - 4
    assert rest == {index: probabilities(loaded, 4)[index] for index in rest}


def test_a_template_that_drops_reasoning_is_refused(loaded) -> None:
    from transformers import AutoTokenizer

    from ecg_grpo.reference_probability import reference_probabilities

    model, tokenizer, thoughts = loaded
    other = AutoTokenizer.from_pretrained(tokenizer.name_or_path)
    other.chat_template = other.chat_template.replace("message['content']", "message['content'].split('</think>')[-1]")
    with pytest.raises(InputError, match="`<think>` or `<answer>` is missing"):
        next(reference_probabilities(model, other, thoughts, 4))


@pytest.fixture
def records(tmp_path: Path) -> Path:
    rows = [
        {"id": f"X-{number}", "question": question, "answer": answer, "prompt": build_prompt("Think first.", "", question)}
        for number, (question, answer) in enumerate(QUESTIONS)
    ]
    write_table(tmp_path / "train.parquet", rows, RECORDS, {})
    return tmp_path / "train.parquet"


def command(model: Path, records: Path, folder: Path, settings: dict, *more: str) -> list[str]:
    program = str(ROOT / "workflow_scripts/bootstrap_reasoning.py")
    return [
        *(sys.executable, program, "--records", str(records), "--model", *map(str, sorted(model.iterdir()))),
        *("--prompt", str(ROOT / "resources/prompts/bootstrap_reasoning.txt"), "--threads", "1"),
        *("--reasonings", str(folder / "train.parquet"), "--account", str(folder / "train.json")),
        *("--settings", json.dumps(settings), *more),
    ]


def settings(samples: int = 6, **bounds: float) -> dict:
    generation = {"max_new_tokens": 300, "batch_size": 12, "precision": "float32"}
    sampling = {"samples": samples, "temperature": 1.0}
    return {"generation": generation, "sampling": sampling, "filter": LOOSE | bounds, "scoring": {"batch_size": 4}}


def test_every_sample_is_counted_and_gains_are_what_the_model_says(
    loaded, tiny_model: Path, records: Path, tmp_path: Path
) -> None:
    provenance = tmp_path / "provenance.json"
    subprocess.run(
        command(tiny_model, records, tmp_path / "a", settings(min_gain=-50), "--provenance", str(provenance)), check=True
    )
    kept, counted = read_rows(tmp_path / "a/train.parquet"), json.loads((tmp_path / "a/train.json").read_text())
    assert sum(counted["samples"].values()) == 6 * len(QUESTIONS)
    assert counted["records"] == {"in_split": len(QUESTIONS), "asked": len(QUESTIONS), "kept": len(kept)}
    assert counted["samples"]["kept"] == len(kept) > 0
    assert counted["samples"]["cut_off"] > 0
    assert all(mean < 0 for mean in counted["to_beat"].values())
    assert json.loads(provenance.read_text())["facts"]["samples"] == counted["samples"]

    from ecg_grpo.reference_probability import Thought, reference_probabilities

    model, tokenizer, _ = loaded
    rows = {row["id"]: row for row in read_rows(records, "id", "prompt", "answer")}
    exact = 0
    for row in kept:
        record = rows[row["id"]]
        thoughts = [Thought(record["prompt"], text, record["answer"]) for text in (row["reasoning"], "", EMPTY_WORDS)]
        found = {index: one for batch in reference_probabilities(model, tokenizer, thoughts, 1) for index, one in batch.items()}
        with_it, *without = (found[index].mean_log_probability for index in range(3))
        assert row["gain"] <= with_it - max(without) + 1e-4, "a stranger's may have been harder to beat"
        exact += row["gain"] == pytest.approx(with_it - max(without), abs=1e-4)
    assert exact, "for some record a stranger's was not what had to be beaten"


def test_if_nothing_is_good_enough_the_stage_says_what_was_wrong(tiny_model: Path, records: Path, tmp_path: Path) -> None:
    refused = subprocess.run(
        command(tiny_model, records, tmp_path / "a", settings(2, min_gain=50.0)), capture_output=True, text=True, check=False
    )
    assert refused.returncode == 1
    last = refused.stderr.splitlines()[-1]
    assert last.startswith("bootstrap_reasoning: error: ")
    assert f"not one of {2 * len(QUESTIONS)} reasonings was good enough" in last
    assert "'cut_off': " in last
    assert not list((tmp_path / "a").glob("*"))


def test_a_killed_bootstrap_goes_on_and_gives_what_an_unbroken_one_gives(
    tiny_model: Path, records: Path, tmp_path: Path
) -> None:
    scratch = tmp_path / "scratch"
    subprocess.run(command(tiny_model, records, tmp_path / "whole", settings()), check=True)
    resumed = command(tiny_model, records, tmp_path / "resumed", settings(), "--scratch", str(scratch))
    running = subprocess.Popen(resumed)
    deadline = time.monotonic() + 120
    while sum(file.read_bytes().count(b"\n") for file in scratch.glob("*/answers.jsonl")) < 1:
        assert running.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(running.pid, signal.SIGKILL)
    running.wait()
    assert not (tmp_path / "resumed").exists()
    provenance = tmp_path / "provenance.json"
    subprocess.run([*resumed, "--provenance", str(provenance)], check=True)
    assert json.loads(provenance.read_text())["facts"]["answered_before"] >= 2
    assert not list(scratch.iterdir()), "nothing unfinished is left"
    for name in ("train.parquet", "train.json"):
        assert (tmp_path / "resumed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.fixture(scope="module")
def reasoned(finished: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A run to the report in which models reason, as far as random weights can."""
    import shutil

    folder = tmp_path_factory.mktemp("reasoned") / "project"
    shutil.copytree(finished.folder, folder, symlinks=True)
    project = Project(folder)
    loose = settings(2, min_gain=-50.0)
    project.configure(
        reasoning=True,
        bootstrap_reasoning=loose | {"max_records": 60, "generation": loose["generation"] | {"batch_size": 64}},
        sft={"max_length": 1400, "per_device_train_batch_size": 8, "num_train_epochs": 1},
        # Random weights write no tags: a gate that is never shut lets them earn something, so that GRPO has something to do.
        reward={
            "weights": {"concept_f1": None, "reference_probability": 0},
            "gates": {"format": 0.5, "repetition": None, "length": None},
        },
        reward_audit={"audit": {"max_beating_reference": 1.0, "max_beating_paraphrase": 1.0}},
        evaluation={"reference_loss": {"batch_size": 16}},
    )
    project.snakemake()
    return project


@pytest.mark.pipeline
def test_sft_learns_the_kept_reasonings(reasoned: Project) -> None:
    facts = json.loads((reasoned.results() / "provenance/train_sft.json").read_text())["facts"]
    for split in ("train", "validation"):
        kept = read_rows(reasoned.results() / f"reasoning/{split}.parquet")
        rows = {row["id"]: row for row in read_rows(reasoned.results() / f"data/{split}.parquet", "id", "prompt")}
        assert facts[f"{split}_records_without_reasoning"] == len(rows) - len(kept)
        system = (reasoned.folder / "resources/prompts/system_reasoning.txt").read_text().strip()
        assert {row["prompt"][0]["content"] for row in rows.values()} == {system}
        assert {row["id"] for row in kept} <= rows.keys()


@pytest.mark.pipeline
def test_grpo_and_the_audit_demand_reasoning(reasoned: Project) -> None:
    for row in read_rows(reasoned.results() / "grpo/completions.parquet"):
        assert row["format"] == float(take_apart(row["completion"], 8).is_well_formed)
        assert row["format"] == 0, "random weights write no tags"
        assert row["reference_probability"] == 0, "nor any reasoning"
    audit = json.loads((reasoned.results() / "reward_audit/audit.json").read_text())
    rows = {row["name"]: row for row in audit["attacks"]}
    assert rows["no_reasoning"]["mean"] == pytest.approx(0.5)
    assert rows["empty_reasoning"]["mean"] == pytest.approx(0.5)
    assert audit["honest"][0]["mean"] == pytest.approx(1)


@pytest.mark.pipeline
def test_the_evaluation_scores_the_answer_and_reports_the_reasoning_apart(reasoned: Project) -> None:
    results = reasoned.results()
    for system in ("base", "sft", "grpo", "echo"):
        scores = pq.read_table(results / f"evaluation/{system}/scores.parquet").to_pylist()
        answers = pq.read_table(results / f"evaluation/{system}/answers.parquet").to_pylist()
        for score, answer in zip(scores, answers, strict=True):
            words = len((answer["reasoning"] or "").split())
            assert score["reasoned"] == (words > 0)
            assert score["reasoning_words"] == (words or None)
    assert "Reasonings that SFT learned" in (results / "report/index.html").read_text()
    losses = pq.read_table(results / "evaluation/base/reference_loss.parquet")["reference_loss"].to_pylist()
    assert all(loss > 0 for loss in losses)
    assert reasoned.jobs() == set()
