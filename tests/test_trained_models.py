"""Which model answers in a chat: of a run, of a directory, of a server; what is not whole is refused in one line."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from chat_server import ChatServer, running
from conftest import Project

from ecg_grpo.errors import InputError
from ecg_grpo.files import MANIFEST, new_model_directory, sha256_of
from ecg_grpo.resources import resource
from ecg_grpo.tables import MESSAGES, system_prompt_of
from ecg_grpo.trained_models import find_model, models_of, named_run, newest_run, records_of


@pytest.fixture
def results(tmp_path: Path, tiny_model: Path) -> Path:
    """Two runs with models; the one called `older` was finished before the other."""
    for name, stages in (("older", ("base", "sft", "grpo")), ("newer", ("base", "grpo"))):
        for stage in stages:
            with new_model_directory(tmp_path / "results" / name / f"{stage}_model") as partial:
                shutil.copytree(tiny_model, partial, dirs_exist_ok=True)
    os.utime(tmp_path / "results/older/grpo_model" / MANIFEST, (1, 1))
    (tmp_path / "results/.store/grpo_model").mkdir(parents=True)
    (tmp_path / "results/.store/grpo_model" / MANIFEST).write_text("{}")
    return tmp_path / "results"


def test_the_newest_finished_run_is_found(results: Path) -> None:
    assert newest_run(results) == results / "newer"
    assert models_of(results / "newer") == ["base", "grpo"]
    assert named_run("older", results) == results / "older"
    with pytest.raises(InputError, match="newer, older"):
        named_run("mine", results)
    with pytest.raises(InputError, match="no finished run"):
        newest_run(results / "newer")


def test_a_model_of_a_run_is_named_by_its_manifest(results: Path) -> None:
    model = find_model("grpo", results / "newer")
    assert model.source == results / "newer/grpo_model"
    assert model.identity == sha256_of(results / "newer/grpo_model" / MANIFEST)
    with pytest.raises(InputError, match="no sft model yet"):
        find_model("sft", results / "newer")


def test_a_directory_and_what_is_none(results: Path, tiny_model: Path, tmp_path: Path) -> None:
    assert find_model(str(tiny_model), None).source == tiny_model
    with pytest.raises(InputError, match="is no model"):
        find_model("gpro", None)
    with pytest.raises(InputError, match=r"config\.json"):
        find_model(str(tmp_path), None)
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(InputError, match="is an adapter"):
        find_model(str(tmp_path), None)


@pytest.mark.parametrize("of_a_run", [True, False], ids=["of a run", "directory"])
def test_weights_that_were_cut_short_are_refused(results: Path, tiny_model: Path, tmp_path: Path, of_a_run: bool) -> None:
    folder = results / "newer/grpo_model" if of_a_run else Path(shutil.copytree(tiny_model, tmp_path / "half"))
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    with pytest.raises(InputError, match=r"model\.safetensors: is not whole"):
        find_model("grpo", results / "newer") if of_a_run else find_model(str(folder), None)


def test_a_missing_part_of_the_weights_is_named(tiny_model: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_model, tmp_path / "half"))
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    parts = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": parts}))
    with pytest.raises(InputError, match="model-00002-of-00002"):
        find_model(str(folder), None)


def test_a_tokenizer_that_was_changed_is_refused(results: Path) -> None:
    file = results / "newer/grpo_model/tokenizer.json"
    file.write_text(file.read_text() + " ")
    with pytest.raises(InputError, match="not the one that the manifest lists"):
        find_model("grpo", results / "newer")


def test_the_system_prompt_is_that_of_the_runs_records(results: Path) -> None:
    project = resource("prompts/system.txt").read_text().strip()
    assert find_model("grpo", results / "newer").system_prompt == project, "no records yet"
    for name, text in (("newer", "Of the newer run."), ("older", "Of the older run.")):
        prompts = [[{"role": "system", "content": text}, {"role": "user", "content": "?"}]]
        (results / name / "data").mkdir()
        pq.write_table(pa.table({"prompt": pa.array(prompts, MESSAGES)}), results / name / "data/train.parquet")
    assert find_model("grpo", results / "newer").system_prompt == "Of the newer run."
    older = find_model(str(results / "older/sft_model"), results / "newer")
    assert older.system_prompt == "Of the older run.", "a directory belongs to the run around it"
    with running(ChatServer()) as server:
        assert find_model(server.url, results / "newer").system_prompt == "Of the newer run."
        assert find_model(server.url, None).system_prompt == project


@pytest.mark.pipeline
def test_of_a_sweeps_run_what_it_shares_is_another_runs(finished_copy: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(finished_copy.folder)
    shared, second = Path("results/demo"), Path("results/second")
    for name in ("grpo_model", "provenance"):
        shutil.copytree(shared / name, second / name)
    for file in (second / "provenance").glob("*.json"):
        if file.stem in ("merge_grpo_checkpoint", "train_grpo"):
            record = json.loads(file.read_text())
            outputs = {name.replace("results/demo/", "results/second/"): digest for name, digest in record["outputs"].items()}
            inputs = {name.replace("demo/grpo/", "second/grpo/"): digest for name, digest in record["inputs"].items()}
            file.write_text(json.dumps(record | {"outputs": outputs, "inputs": inputs}))
        else:
            file.unlink()
    assert models_of(second) == ["base", "sft", "grpo"]
    assert records_of(second) == shared / "data/train.parquet"
    assert find_model("sft", second).source == shared / "sft_model"
    prompt = system_prompt_of(shared / "data/train.parquet")
    assert {find_model(name, second).system_prompt for name in ("base", "grpo", "results/second/grpo_model")} == {prompt}


def test_a_served_model_is_the_named_or_the_first_one() -> None:
    with running(ChatServer()) as server:
        model = find_model(server.url, None)
        assert (model.source.model, model.identity) == ("cardio-1", f"{server.url} cardio-1")
        assert find_model(server.url, None, served_name="other").source.model == "other"
        server.model = ""
        with pytest.raises(InputError, match="lists no model"):
            find_model(server.url, None)
        url = server.url
    with pytest.raises(InputError, match="no server answers"):
        find_model(url, None)
