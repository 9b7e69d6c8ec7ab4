"""The reference's loss: that of the plain model one by one, that of SFT's own evaluation, whatever the batch."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from conftest import ROOT, Project

from ecg_grpo.prompts import build_prompt
from ecg_grpo.supervised import supervised_example
from ecg_grpo.tables import RECORDS, write_table

QUESTIONS = [
    ("Is the QRS wide?", "Yes, it is above 120 ms."),
    ("Name the rhythm.", "Atrial fibrillation: irregularly irregular, without P waves, at some 110 beats per minute."),
    ("Which leads show ST elevation? " * 6, "II, III and aVF."),
    ("And now?", ""),
    ("Is the axis normal?", "No."),
]


@pytest.fixture(scope="module")
def examples() -> list:
    return [supervised_example(build_prompt("You read ECGs.", "", question), answer) for question, answer in QUESTIONS]


@pytest.fixture(scope="module")
def losses(tiny_model: Path, examples: list):
    """(batch size) → losses in the examples' order, and the sizes of the batches."""
    import torch

    torch.set_num_threads(1)
    from ecg_grpo.reference_loss import reference_losses

    def compute(batch_size: int):
        batches = list(reference_losses(tiny_model, examples, torch.float32, batch_size))
        found = {index: loss for batch in batches for index, loss in batch.items()}
        return [found[index] for index in range(len(examples))], [len(batch) for batch in batches]

    return compute


def test_it_is_the_plain_model_s_one_by_one(tiny_model: Path, examples: list, losses) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, tokenizer = AutoModelForCausalLM.from_pretrained(tiny_model), AutoTokenizer.from_pretrained(tiny_model)
    found, sizes = losses(3)
    assert sizes == [3, 2]
    for example, (_, answer), loss in zip(examples, QUESTIONS, found, strict=True):
        # As conftest's template writes them; the answer's end token and the line's end are learned, the header is not.
        prompt = "".join(f"<|start|>{turn['role']}\n{turn['content']}<|end|>\n" for turn in example["prompt"])
        prompt += "<|start|>assistant\n"
        before, after = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in (prompt, f"{answer}<|end|>\n"))
        assert tokenizer.eos_token_id in after
        with torch.no_grad():
            logits = model(torch.tensor([before + after])).logits[0, len(before) - 1 : -1]
        negative = -logits.log_softmax(dim=-1)[range(len(after)), after]
        assert loss.tokens == len(after)
        assert loss.mean == pytest.approx(negative.mean().item(), abs=1e-4)
    assert len({round(loss.mean, 3) for loss in found}) > 3, "or the answers show nothing"


def test_the_batch_size_changes_nothing(losses) -> None:
    one, many = losses(1)[0], losses(64)[0]
    assert [loss.tokens for loss in one] == [loss.tokens for loss in many]
    assert [loss.mean for loss in one] == pytest.approx([loss.mean for loss in many], abs=1e-5)


def test_only_scored_positions_are_projected(tiny_model: Path, examples: list, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch
    import trl.trainer.utils

    from ecg_grpo.reference_loss import reference_losses

    kernel, projected = trl.trainer.utils._ChunkedLogProbFunction.apply, []

    def count(hidden: torch.Tensor, *rest: object) -> object:
        projected.append(len(hidden))
        return kernel(hidden, *rest)

    monkeypatch.setattr(trl.trainer.utils._ChunkedLogProbFunction, "apply", count)
    (batch,) = reference_losses(tiny_model, examples, torch.float32, 8)
    assert projected == [sum(loss.tokens for loss in batch.values())]


def test_it_is_what_sft_measures(tiny_model: Path, examples: list, losses, tmp_path: Path) -> None:
    """The trainer's own evaluation, one record a batch; its mean over batches is then the mean over records."""
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    data = Dataset.from_list(examples)
    trainer = SFTTrainer(
        AutoModelForCausalLM.from_pretrained(tiny_model),
        SFTConfig(
            tmp_path, per_device_eval_batch_size=1, completion_only_loss=True, use_cpu=True, bf16=False, report_to="none"
        ),
        train_dataset=data,
        eval_dataset=data,
        processing_class=AutoTokenizer.from_pretrained(tiny_model),
    )
    found, _ = losses(2)
    assert trainer.evaluate()["eval_loss"] == pytest.approx(sum(loss.mean for loss in found) / len(found), abs=1e-4)


def test_no_examples_have_no_losses(tiny_model: Path) -> None:
    import torch

    from ecg_grpo.reference_loss import reference_losses

    assert list(reference_losses(tiny_model, [], torch.float32, 8)) == []


def command(model: list[Path], questions: Path, losses: Path, *more: str) -> list[str]:
    program = str(ROOT / "workflow_scripts/score_references.py")
    files = ["--model", *map(str, model), "--questions", str(questions), "--losses", str(losses)]
    return [sys.executable, program, *files, "--threads", "1", *more]


@pytest.fixture
def questions(examples: list, tmp_path: Path) -> Path:
    rows = [
        {"id": f"X-{number}", "prompt": example["prompt"], "answer": example["completion"][0]["content"]}
        for number, example in enumerate(examples)
    ]
    write_table(tmp_path / "test.parquet", rows, RECORDS, {})
    return tmp_path / "test.parquet"


def test_the_program(tiny_model: Path, questions: Path, losses, tmp_path: Path) -> None:
    table, provenance = tmp_path / "base/reference_loss.parquet", tmp_path / "provenance.json"
    model = sorted(tiny_model.iterdir())
    subprocess.run(
        command(model, questions, table, "--settings", '{"batch_size": 2}', "--provenance", str(provenance)), check=True
    )
    found = pq.read_table(table).to_pydict()
    assert list(found) == ["id", "reference_loss"]
    assert found["id"] == [f"X-{number}" for number in range(len(QUESTIONS))]
    expected, _ = losses(2)
    assert found["reference_loss"] == pytest.approx([loss.mean for loss in expected], abs=1e-5)
    facts = json.loads(provenance.read_text())["facts"]
    mean = sum(found["reference_loss"]) / len(found["reference_loss"])
    tokens = sum(loss.tokens for loss in expected)
    assert facts["mean_of_records"] == pytest.approx(mean, abs=1e-4)
    assert facts["perplexity"] == pytest.approx(math.exp(mean), abs=0.01)
    assert facts["reference_tokens"] == tokens
    assert facts["nats_per_token"] == pytest.approx(sum(loss.tokens * loss.mean for loss in expected) / tokens, abs=1e-4)


def test_a_changed_model_is_refused_in_one_line(questions: Path, tmp_path: Path) -> None:
    manifest = tmp_path / "model/manifest.json"
    manifest.parent.mkdir()
    manifest.write_text('{"files": {"model.safetensors": {"bytes": 1, "sha256": "0"}}}')
    refused = subprocess.run(
        command([manifest], questions, tmp_path / "losses.parquet"), capture_output=True, text=True, check=False
    )
    assert refused.returncode == 1
    assert refused.stderr.startswith("score_references: error:")
    assert "missing from the model" in refused.stderr
    assert not (tmp_path / "losses.parquet").exists()


@pytest.mark.pipeline
def test_the_workflow_scores_references(finished_copy: Project) -> None:
    results = finished_copy.results()
    targets = [f"results/demo/evaluation/{model}/reference_loss.parquet" for model in ("base", "sft")]
    finished_copy.configure(evaluation={"reference_loss": {"batch_size": 16}})
    finished_copy.snakemake(*targets)
    assert finished_copy.jobs(*targets) == set()
    asked = pq.read_table(results / "data/test.parquet")["id"]
    means = {}
    for model in ("base", "sft"):
        table = pq.read_table(results / f"evaluation/{model}/reference_loss.parquet")
        assert table["id"].equals(asked)
        means[model] = sum(table["reference_loss"].to_pylist()) / table.num_rows
    assert means["sft"] < means["base"] - 0.1, "SFT learned on records like these"
    finished_copy.configure(evaluation={"reference_loss": {"batch_size": 3}})
    assert finished_copy.jobs(*targets) == {"score_references"}
