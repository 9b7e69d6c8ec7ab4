"""The whole pipeline on a tiny model: what the artifacts hold."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import SAMPLE, SYSTEMS, Project
from safetensors.numpy import load_file

from ecg_grpo.files import model_directory, sha256_of
from ecg_grpo.metrics import METRICS
from ecg_grpo.question_kinds import kind_of
from ecg_grpo.settings.grpo import GRPOSettings
from ecg_grpo.settings.reward import RewardSettings
from ecg_grpo.settings.sft import SFTSettings

pytestmark = pytest.mark.pipeline


def rows(file: Path) -> list[dict]:
    return pq.read_table(file).to_pylist()


def log(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def provenance(project: Project, stage: str) -> dict:
    return json.loads((project.results() / "provenance" / f"{stage}.json").read_text())


def test_every_record_of_the_sample_is_in_exactly_one_place(finished: Project) -> None:
    data = finished.results() / "data"
    names = ("train", "validation", "test", "quarantine", "dropped")
    found = [row["id"] for name in names for row in rows(data / f"{name}.parquet")]
    report = json.loads((data / "data_report.json").read_text())
    read = sum(len(json.loads(file.read_text())) for file in SAMPLE.glob("*.json"))
    assert len(found) == len(set(found)) == read == report["records"]["read"]


def test_groups_are_not_torn_apart(finished: Project) -> None:
    splits: dict[str, set[str]] = {}
    for name in ("train", "validation", "test"):
        for row in rows(finished.results() / "data" / f"{name}.parquet"):
            assert row["split"] == name
            splits.setdefault(row["cluster"], set()).add(name)
    assert all(len(names) == 1 for names in splits.values())


def test_the_prompt_is_system_prompt_context_and_question(finished: Project) -> None:
    system = (finished.folder / "resources/prompts/system.txt").read_text().strip()
    for row in rows(finished.results() / "data" / "train.parquet"):
        expected = f"{row['context']}\n\n{row['question']}" if row["context"] else row["question"]
        assert row["prompt"] == [{"role": "system", "content": system}, {"role": "user", "content": expected}]
        assert row["task"] not in ("CD", "PP") or row["context"]


def test_sft_lowers_the_validation_loss_and_logs_every_step(finished: Project) -> None:
    entries = log(finished.results() / "sft" / "training_log.jsonl")
    validation = [(entry["step"], entry["validation_loss"]) for entry in entries if "validation_loss" in entry]
    steps = [entry["step"] for entry in entries if "loss" in entry]
    settings = SFTSettings.from_json(provenance(finished, "train_sft")["settings"])
    expected = settings.steps(len(rows(finished.results() / "data" / "train.parquet")))
    assert steps == list(range(1, expected + 1))
    assert validation[0][0] == 0
    assert validation[-1][0] == expected
    assert validation[-1][1] < validation[0][1] - 0.1
    for entry in entries:
        assert entry["seconds"] >= 0
        if "loss" in entry:
            assert {"learning_rate", "tokens"} <= entry.keys()


def test_the_sft_loss_covers_the_answer_and_nothing_else(finished: Project) -> None:
    """The base model's validation loss, worked out here without a trainer, once on the answers and once on everything."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = finished.results() / "base_model"
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    settings = SFTSettings.from_json(provenance(finished, "train_sft")["settings"])
    answers, everything = [], []
    for row in rows(finished.results() / "data" / "validation.parquet"):
        asked = tokenizer.apply_chat_template(row["prompt"], add_generation_prompt=True, return_dict=True)["input_ids"]
        messages = [*row["prompt"], {"role": "assistant", "content": row["answer"]}]
        ids = torch.tensor([tokenizer.apply_chat_template(messages, return_dict=True)["input_ids"]])
        assert ids[0, : len(asked)].tolist() == asked
        with torch.inference_mode():
            losses = torch.nn.functional.cross_entropy(model(ids).logits[0, :-1], ids[0, 1:], reduction="none")
        answers.append(losses[len(asked) - 1 :])
        everything.append(losses)

    def as_the_trainer_averages(losses: list[torch.Tensor]) -> float:
        size = settings.per_device_train_batch_size
        batches = [losses[start : start + size] for start in range(0, len(losses), size)]
        return sum(float(torch.cat(batch).mean()) * len(batch) for batch in batches) / len(losses)

    logged = log(finished.results() / "sft" / "training_log.jsonl")[0]["validation_loss"]
    assert logged == pytest.approx(as_the_trainer_averages(answers), abs=1e-3)
    assert logged != pytest.approx(as_the_trainer_averages(everything), abs=1e-2)


def test_models_are_whole_and_differ(finished: Project) -> None:
    weights = {}
    for name in ("base", "sft", "grpo"):
        folder = model_directory(finished.results() / f"{name}_model" / "manifest.json")
        assert {"config.json", "model.safetensors", "tokenizer.json", "generation_config.json"} <= {
            file.name for file in folder.iterdir()
        }
        weights[name] = load_file(folder / "model.safetensors")
        assert "lm_head.weight" not in weights[name], "tied embeddings are stored once"
    for one, other in (("base", "sft"), ("sft", "grpo")):
        projections = [key for key in weights[one] if key.endswith("_proj.weight")]
        assert projections
        assert all(not np.array_equal(weights[one][key], weights[other][key]) for key in projections)
        assert np.array_equal(weights[one]["model.embed_tokens.weight"], weights[other]["model.embed_tokens.weight"])


def test_the_merge_checked_itself(finished: Project) -> None:
    for stage in ("merge_sft_adapter", "merge_grpo_checkpoint"):
        checks = provenance(finished, stage)["facts"]["checks"]
        assert checks["changed_weights"] > 0
        assert checks["merge_difference"] < 1e-4
        assert checks["tied_embeddings"] is True


def test_grpo_started_from_sft_and_kept_every_completion(finished: Project) -> None:
    results = finished.results()
    manifest = "results/demo/sft_model/manifest.json"
    assert provenance(finished, "train_grpo")["inputs"][manifest] == sha256_of(finished.folder / manifest)
    completions = rows(results / "grpo" / "completions.parquet")
    settings = GRPOSettings.from_json(provenance(finished, "train_grpo")["settings"])
    assert len(completions) == 3 * settings.completions_per_step
    train = {row["id"]: row for row in rows(results / "data" / "train.parquet")}
    for row in completions:
        assert row["question"] == train[row["id"]]["question"]
        assert row["answer"] == train[row["id"]]["answer"]
        for part in RewardSettings().parts():
            assert 0 <= row[part] <= 1
    entries = [entry for entry in log(results / "grpo" / "training_log.jsonl") if "reward" in entry]
    assert [entry["step"] for entry in entries] == [1, 2, 3]
    first = [row for row in completions if row["step"] == 1]
    expected = np.mean([(2 * row["concept_f1"] + row["chrf"]) / 3 for row in first])
    assert entries[0]["reward"] == pytest.approx(expected, abs=1e-5)


def test_every_system_answered_every_test_question(finished: Project) -> None:
    results = finished.results()
    test = rows(results / "data" / "test.parquet")
    for system in SYSTEMS:
        answers = rows(results / "evaluation" / system / "answers.parquet")
        assert [row["id"] for row in answers] == [row["id"] for row in test]
        assert [row["prompt"] for row in answers] == [row["prompt"] for row in test]
        for row in answers:
            assert row["prediction"] == row["completion"].strip() or system in SYSTEMS[:3]
            assert row["finish_reason"] in ("stop", "length")
        scores = rows(results / "evaluation" / system / "scores.parquet")
        for answer, score in zip(answers, scores, strict=True):
            for name, metric in METRICS.items():
                assert score[name] == metric.score(answer["prediction"], answer["answer"], answer["question"])
            assert score["kind"] == kind_of(answer["question"], answer["answer"])
            assert score["truncated"] == (answer["finish_reason"] == "length")
            assert score["empty"] == (not answer["prediction"].strip())


def test_the_comparison_follows_from_the_scores(finished: Project) -> None:
    results = finished.results()
    comparison = json.loads((results / "evaluation" / "comparison.json").read_text())
    scores = {system: rows(results / "evaluation" / system / "scores.parquet") for system in comparison["order"]}
    assert comparison["order"] == SYSTEMS
    copied = rows(results / "evaluation" / "contamination.parquet")
    measured = (*METRICS, "truncated", "empty", "malformed", "copied")
    for system, table in scores.items():
        for row, near in zip(table, copied, strict=True):
            row["copied"] = near[f"copied_{system}"]
        for metric in measured:
            estimate = comparison["systems"][system][metric]
            values = [row[metric] for row in table if row[metric] is not None]
            assert estimate["records"] == len(values)
            if not values:  # no answer is long enough for a run of words
                assert (metric, estimate["mean"]) == ("copied", None)
                continue
            assert estimate["mean"] == pytest.approx(np.mean(values))
            assert estimate["low"] <= estimate["mean"] + 1e-12
            assert estimate["mean"] <= estimate["high"] + 1e-12
    for entry in comparison["differences"]:
        pairs = zip(*([row[entry["metric"]] for row in scores[entry[key]]] for key in ("system", "other")), strict=True)
        differences = [one - other for one, other in pairs if one is not None and other is not None]
        assert entry["records"] == entry["wins"] + entry["ties"] + entry["losses"] == len(differences)
        if differences:
            assert entry["mean"] == pytest.approx(np.mean(differences))
        trained = entry["metric"] in RewardSettings().trained_on()
        quality = entry["metric"] in METRICS and METRICS[entry["metric"]].is_quality
        assert (entry["p_holm"] is None) == (trained or not quality or not differences)
    assert len(comparison["differences"]) == 15 * len(measured)
    tasks = comparison["slices"]["task"]
    assert sum(part["records"] for part in tasks.values()) == comparison["records"]


def test_the_nearest_training_answer_is_seen_to_be_copied(finished: Project) -> None:
    results = finished.results()
    summary = json.loads((results / "evaluation" / "contamination.json").read_text())
    assert summary["copied"]["nearest"]["mean"] == 1
    assert summary["copied"]["nearest"]["half_or_more"] == summary["copied"]["nearest"]["answers"]
    assert summary["copied"]["reference"]["half_or_more"] == 0, "the sample has no copied answers"
    assert [entry["same"] for entry in summary["stages"].values()] == [0, 0]
    train = {row["id"]: row["answer"] for row in rows(results / "data" / "train.parquet")}
    nearest = rows(results / "evaluation" / "nearest" / "answers.parquet")
    for row, answer in zip(rows(results / "evaluation" / "contamination.parquet"), nearest, strict=True):
        assert row["copied_from_nearest"] is None or train[row["copied_from_nearest"]] == answer["prediction"]


def test_the_report_is_one_file_with_the_runs_own_figures(finished: Project) -> None:
    results = finished.results()
    page = (results / "report" / "index.html").read_text()
    comparison = json.loads((results / "evaluation" / "comparison.json").read_text())
    for system in comparison["order"]:
        assert f"{comparison['systems'][system]['rouge_l']['mean']:.3f}" in page
    for entry in comparison["differences"]:
        if entry["system"] in ("sft", "grpo") and entry["other"] in ("base", "sft") and entry["metric"] == "meteor":
            assert f"{entry['mean']:+.3f}" in page
    losses = [e["validation_loss"] for e in log(results / "sft" / "training_log.jsonl") if "validation_loss" in e]
    assert f"from {losses[0]:.3f} (base model) to {losses[-1]:.3f}" in page
    assert "must not be used for diagnosis" in page
    assert sha256_of(results / "data" / "train.parquet") in page
    own = page.replace(page[page.index("<script>") : page.index("</script>")], "")  # without plotly itself
    assert "src=" not in own
    assert not re.search(r"https?:", own)


def test_the_summary_holds_the_reports_figures_and_no_texts(finished: Project) -> None:
    results = finished.results()
    summary = (results / "report" / "summary.md").read_text()
    comparison = json.loads((results / "evaluation" / "comparison.json").read_text())
    tables = [line.strip("|").split("|") for line in summary.splitlines() if line.startswith("|")]
    by_label = {
        row[0].strip(" †"): [cell.strip() for cell in row[1:]] for row in tables if len(row) == len(comparison["order"]) + 1
    }
    for metric in comparison["metrics"]:
        if metric["about"] != "share" and metric["name"] != "words":
            means = [
                comparison["systems"][system].get(metric["name"], {"mean": None})["mean"] for system in comparison["order"]
            ]
            assert [cell.split()[0] for cell in by_label[metric["label"]]] == ["–" if m is None else f"{m:.3f}" for m in means]
    for verdict in comparison["verdicts"][-3:]:
        assert f"- {verdict['text']}." in summary
    for file in (results / "provenance").iterdir():
        if file.stem != "make_report" and (stage := json.loads(file.read_text()))["stage"] == "train_grpo":
            assert f"`{stage['code'][:12]}`" in summary
            assert stage["facts"]["reward"]["weights"] == {"chrf": 0.5, "concept_f1": 1.0}
            assert '"weights": {"chrf": 0.5, "concept_f1": 1.0}' in summary
    assert "not a medical device" in summary
    texts = {
        row[key] for row in rows(results / "evaluation" / "grpo" / "answers.parquet") for key in ("question", "prediction")
    }
    assert not [text for text in texts if len(text) > 20 and text in summary]


def test_nothing_unfinished_is_left(finished: Project) -> None:
    assert not list(finished.folder.rglob("*.partial*"))
    assert not list((finished.results() / "scratch").iterdir())


def test_grpo_without_an_adapter_trains_every_parameter(finished_copy: Project) -> None:
    finished_copy.configure(grpo={"lora": None, "max_steps": 2})
    finished_copy.snakemake("grpo")
    sft, grpo = (load_file(finished_copy.results() / f"{name}_model" / "model.safetensors") for name in ("sft", "grpo"))
    assert sft.keys() == grpo.keys()
    for name in ("model.embed_tokens.weight", "model.norm.weight", "model.layers.0.self_attn.q_proj.weight"):
        assert not np.array_equal(sft[name], grpo[name]), name
    assert not (finished_copy.results() / "grpo/checkpoint/adapter_config.json").exists()
