"""What several runs have in common is computed once, and only if it is the same to the last input."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

from ecg_grpo.files import new_model_directory, sha256_of, write_json
from ecg_grpo.result_store import ResultStore

PROGRAM = """
from pathlib import Path
from ecg_grpo.files import new_model_directory
from ecg_grpo.stage import StageParser

parser = StageParser("example", __doc__)
parser.add_input("--read")
parser.add_output("--text")
parser.add_output("--model")
parser.add_argument("--title", default="a title")
parser.add_settings("section")
parser.add_store()


def example(arguments, stage):
    with open("count", "a") as file:
        file.write("x")
    if Path("edit").exists():
        arguments.read.write_text("edited")
    arguments.text.parent.mkdir(parents=True, exist_ok=True)
    arguments.text.write_text(arguments.read.read_text() + arguments.settings)
    with new_model_directory(arguments.model.parent) as folder:
        (folder / "weights").write_text("weights")
    stage.facts["letters"] = 3


parser.run(example)
"""


class Runs:
    """Runs of one program, which counts how often it computes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "example.py").write_text(PROGRAM)
        (folder / "in.txt").write_text("in")

    def run(self, name: str, *options: str) -> dict:
        """The provenance of a run."""
        command = [sys.executable, "example.py", "--read", "in.txt", "--text", f"{name}/text.txt"]
        command += ["--model", f"{name}/model/manifest.json", "--provenance", f"{name}/provenance.json", "--store", ".store"]
        environment = {"PYTHONPATH": str(ROOT / "workflow_scripts"), "PATH": "/usr/bin"}
        subprocess.run([*command, *options], cwd=self.folder, env=environment, check=True, capture_output=True)
        return json.loads((self.folder / name / "provenance.json").read_text())

    @property
    def computed(self) -> int:
        return len((self.folder / "count").read_text())

    def file(self, name: str) -> Path:
        return self.folder / name


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    return Runs(tmp_path)


def test_the_same_is_computed_once(runs: Runs) -> None:
    one, two = runs.run("one"), runs.run("two")
    assert runs.computed == 1
    assert list(one["outputs"].values()) == list(two["outputs"].values())
    assert one["facts"] == {"letters": 3}
    assert two["facts"].keys() == {"letters", "computed_before"}
    assert sha256_of(runs.file("two/text.txt")) == sha256_of(runs.file("one/text.txt"))


def test_models_are_linked_and_what_snakemake_dates_is_copied(runs: Runs) -> None:
    runs.run("one")
    os.utime(runs.file("one/text.txt"), (0, 0))
    runs.run("two")
    assert runs.file("one/model/weights").samefile(runs.file("two/model/weights"))
    for name in ("text.txt", "model/manifest.json"):
        assert not runs.file(f"one/{name}").samefile(runs.file(f"two/{name}"))
    assert runs.file("two/text.txt").stat().st_mtime > 0, "a result is as new as the job that fetched it"


@pytest.mark.parametrize("change", ["input", "input's name", "settings", "parameter", "code"])
def test_what_differs_in_anything_is_computed(runs: Runs, change: str) -> None:
    runs.run("one")
    if change == "input":
        runs.file("in.txt").write_text("other")
    if change == "code":
        runs.file("example.py").write_text(PROGRAM.replace("= 3", "= 4"))
    if change == "input's name":
        runs.file("in.txt").rename(runs.file("other.txt"))
    options = {
        "settings": ["--settings", '{"a": 1}'],
        "parameter": ["--title", "another"],
        "input's name": ["--read", "other.txt"],
    }
    assert "computed_before" not in runs.run("two", *options.get(change, []))["facts"]
    assert runs.computed == 2


@pytest.mark.parametrize("file", ["text/text.txt", "model/weights", "model/manifest.json", "contents.json"])
@pytest.mark.parametrize("damage", ["changed", "removed"])
def test_what_is_damaged_is_computed_again_and_mended(runs: Runs, file: str, damage: str) -> None:
    runs.run("one")
    (kept,) = runs.file(".store").glob("[!.]*")
    (kept / file).unlink()  # and not written over: its links are the runs' own files
    if damage == "changed":
        (kept / file).write_text("{}")
    assert "computed_before" not in runs.run("two")["facts"]
    assert "computed_before" in runs.run("three")["facts"]
    assert runs.computed == 2
    assert runs.file("three/model/weights").read_text() == "weights"


def test_a_result_whose_input_changed_meanwhile_is_not_kept(runs: Runs) -> None:
    runs.file("edit").touch()
    with pytest.raises(subprocess.CalledProcessError):
        runs.run("one")
    assert runs.file("one/text.txt").read_text().startswith("edited")
    runs.file("edit").unlink()
    runs.file("in.txt").write_text("in")
    assert "computed_before" not in runs.run("two")["facts"]
    assert runs.file("two/text.txt").read_text().startswith("in")


def test_a_store_that_is_deleted_while_a_result_is_fetched_is_no_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, outputs = a_model_to_keep(tmp_path)
    store.keep(outputs, {})
    found = ResultStore._facts

    def deleted_afterwards(self: ResultStore, outputs: dict[str, Path]) -> dict | None:
        facts = found(self, outputs)
        shutil.rmtree(tmp_path / "store")
        return facts

    monkeypatch.setattr(ResultStore, "_facts", deleted_afterwards)
    assert store.fetch({"model": tmp_path / "other" / "manifest.json"}) is None


def test_what_another_run_left_meanwhile_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, outputs = a_model_to_keep(tmp_path)
    found = ResultStore._facts

    def left_afterwards(self: ResultStore, outputs: dict[str, Path]) -> dict | None:
        monkeypatch.setattr(ResultStore, "_facts", found)
        facts = found(self, outputs)
        ResultStore(tmp_path / "store", "a" * 64).keep(outputs, {"of": "another"})
        return facts

    monkeypatch.setattr(ResultStore, "_facts", left_afterwards)
    store.keep(outputs, {"of": "this"})
    assert store.fetch({"model": tmp_path / "other" / "manifest.json"}) == {"of": "another"}


def test_a_store_that_cannot_be_written_to_is_no_fault(runs: Runs) -> None:
    runs.file(".store").write_text("a file")
    assert runs.run("one")["facts"] == {"letters": 3}


def a_model_to_keep(folder: Path) -> tuple[ResultStore, dict[str, Path]]:
    with new_model_directory(folder / "run" / "model") as model:
        (model / "weights").write_text("weights")
    return ResultStore(folder / "store", "a" * 64), {"model": folder / "run" / "model" / "manifest.json"}


def test_nothing_half_kept_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, outputs = a_model_to_keep(tmp_path)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("ecg_grpo.result_store.write_json", full)
        store.keep(outputs, {})
    assert [file.name for file in (tmp_path / "store").iterdir()] == [".lock"]
    assert store.fetch(outputs) is None
    store.keep(outputs, {"a": 1})
    assert store.fetch({"model": tmp_path / "other" / "manifest.json"}) == {"a": 1}
    assert (tmp_path / "other" / "weights").read_text() == "weights"


def test_what_killed_runs_left_half_is_removed_unless_somebody_is_at_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text, root = tmp_path / "text.txt", tmp_path / "store"
    text.write_text("text")
    abandoned = root / ".partial-of-a-killed-run"
    abandoned.mkdir(parents=True)
    unfinished = []

    def another_run_keeps_too(*arguments: object) -> None:
        """While the first is at it."""
        monkeypatch.setattr("ecg_grpo.result_store.write_json", write_json)
        unfinished.extend(root.glob(".partial-*"))
        ResultStore(root, "b" * 64).keep({"text": text}, {})
        write_json(*arguments)

    monkeypatch.setattr("ecg_grpo.result_store.write_json", another_run_keeps_too)
    ResultStore(root, "a" * 64).keep({"text": text}, {})
    assert len(unfinished) == 1
    assert abandoned not in unfinished
    assert {file.name for file in root.iterdir()} == {".lock", "a" * 32, "b" * 32}
    for key in "ab":
        assert ResultStore(root, key * 64).fetch({"text": tmp_path / key / "text.txt"}) == {}
