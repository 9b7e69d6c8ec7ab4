"""A file's history: from its sources on, with every hash compared, and what would run again."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import ROOT, Project

PROGRAM = """
import argparse
from ecg_grpo.files import new_model_directory
from ecg_grpo.stage import StageParser
from words import ADDED

parser = StageParser("{name}", __doc__)
parser.add_input("--read", nargs="+")
parser.add_output("--write")
parser.add_argument("--title", default="a title")
parser.add_settings("section")


def stage(arguments, stage):
    text = "".join(file.read_text() for file in arguments.read) + ADDED
    if arguments.write.name == "manifest.json":
        with new_model_directory(arguments.write.parent) as folder:
            (folder / "weights").write_text(text)
    else:
        arguments.write.write_text(text)
    stage.facts["letters"] = len(text)


parser.run(stage)
"""


class Made:
    """A project of two stages, with programs of its own: one model is made of two sources, and one answer of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        scripts = folder / "workflow_scripts"
        scripts.mkdir()
        (scripts / "ecg_grpo").symlink_to(ROOT / "workflow_scripts" / "ecg_grpo")
        (scripts / "words.py").write_text('ADDED = "!"\n')
        (scripts / "explain.py").write_text((ROOT / "workflow_scripts/explain.py").read_text())
        for name in ("train", "answer"):
            (scripts / f"{name}.py").write_text(PROGRAM.replace("{name}", name))
        (folder / "one.txt").write_text("one")
        (folder / "two.txt").write_text("two")
        self.model, self.answer = Path("results/r/model/manifest.json"), Path("results/r/answer.txt")
        self.run("train", ["one.txt", "two.txt"], self.model)
        self.run("answer", [str(self.model), "one.txt"], self.answer)

    def run(self, stage: str, read: list[str], write: Path, of: str = "r") -> None:
        (self.folder / write).parent.mkdir(parents=True, exist_ok=True)
        self._python(
            f"workflow_scripts/{stage}.py",
            *("--read", *read, "--write", str(write), "--provenance", f"results/{of}/provenance/{stage}.json"),
            *("--settings", '{"seed": 7}'),
        ).check_returncode()

    def explain(self, file: Path | str, *options: str) -> subprocess.CompletedProcess[str]:
        return self._python("workflow_scripts/explain.py", str(file), "--no-snakemake", *options)

    def _python(self, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, *command], cwd=self.folder, capture_output=True, text=True, check=False)


@pytest.fixture
def made(tmp_path: Path) -> Made:
    return Made(tmp_path)


def test_what_a_run_took_from_another_is_followed_there(made: Made) -> None:
    answer = Path("results/s/answer.txt")
    made.run("answer", [str(made.model)], answer, of="s")
    run = made.explain(answer)
    assert run.returncode == 0, run.stderr
    assert "was made by 2 jobs from 2 source files" in run.stdout
    assert "1. r/train" in run.stdout
    assert "2. answer" in run.stdout
    (made.folder / "one.txt").write_text("another")
    changed = made.explain(answer)
    assert changed.returncode == 1
    assert "one.txt" in changed.stdout.split("not as recorded: 1")[1]


def test_the_chain_begins_with_the_sources_and_ends_with_the_file(made: Made) -> None:
    run = made.explain(made.answer)
    assert run.returncode == 0, run.stderr
    assert "was made by 2 jobs from 2 source files" in run.stdout
    places = [run.stdout.index(text) for text in ("one.txt", "1. train", str(made.model), "2. answer", "not as recorded: 0")]
    assert places == sorted(places)
    assert "seed      7" in run.stdout
    assert "letters   7" in run.stdout
    assert "packages" not in run.stdout
    full = made.explain(made.folder / made.answer, "--full").stdout
    assert "packages  Python 3" in full
    assert "title     a title" in full
    assert made.explain(made.model).stdout.count("\n1. train") == 1, "of the answer it says nothing"


@pytest.mark.parametrize(
    ("file", "content", "expected"),
    [
        ("two.txt", "too", "two.txt: was changed since it was read"),
        ("two.txt", None, "two.txt: is missing"),
        ("results/r/answer.txt", "edited", "results/r/answer.txt: was changed since answer wrote it"),
        ("results/r/model/weights", "onetwo?", "results/r/model/weights: was changed since train wrote it"),
        ("results/r/model/weights", None, "results/r/model/weights: is missing"),
    ],
)
def test_a_file_that_is_not_the_recorded_one_is_named(made: Made, file: str, content: str | None, expected: str) -> None:
    if content is None:
        (made.folder / file).unlink()
    else:
        (made.folder / file).write_text(content)
    run = made.explain(made.answer)
    assert run.returncode == 1
    assert f"not as recorded: 1\n  {expected}\n" in run.stdout


def test_an_input_that_was_made_anew_is_told_from_the_one_that_was_read(made: Made) -> None:
    (made.folder / "two.txt").write_text("2")
    made.run("train", ["one.txt", "two.txt"], made.model)
    run = made.explain(made.answer)
    assert run.returncode == 1
    assert f"{made.model}: answer read another version than train wrote last" in run.stdout


def test_changed_code_is_named_and_comments_are_not(made: Made) -> None:
    words = made.folder / "workflow_scripts/words.py"
    words.write_text('# louder\nADDED = "!"\n')
    assert "code has changed" not in made.explain(made.answer).stdout
    words.write_text('ADDED = "!!"\n')
    run = made.explain(made.answer)
    assert run.returncode == 0, "the files are what they were"
    for stage in ("train", "answer"):
        assert f"{stage}: its code has changed (workflow_scripts/words.py)" in run.stdout


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("one.txt", "no folder above it has provenance"),
        ("results/r/other.txt", "no finished stage of this run wrote it. Beside it are results/r/answer.txt."),
    ],
)
def test_a_file_without_a_history_is_one_line(made: Made, file: str, message: str) -> None:
    run = made.explain(file)
    assert run.returncode == 1
    assert message in run.stderr
    assert run.stderr.count("\n") == 1


def test_damaged_provenance_is_one_line(made: Made) -> None:
    (made.folder / "results/r/provenance/train.json").write_text('{"stage": "train"}')
    run = made.explain(made.answer)
    assert run.returncode == 1
    assert "train.json: not what this version writes as provenance. Run snakemake again." in run.stderr


@pytest.mark.pipeline
def test_a_whole_run_is_explained_and_snakemake_asked(finished_copy: Project) -> None:
    def explain(file: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "workflow_scripts/explain.py", file]
        return subprocess.run(command, cwd=finished_copy.folder, capture_output=True, text=True, check=False)

    run = explain("results/demo/report/index.html")
    assert run.returncode == 0, run.stdout + run.stderr
    for stage in ("fetch_base_model", "prepare_data", "train_sft", "train_grpo", "generate_answers.grpo", "make_report"):
        assert f". {stage}\n" in run.stdout
    assert "resources/sample/" in run.stdout
    assert "Snakemake would run none of these jobs again." in run.stdout
    finished_copy.configure(grpo={"learning_rate": 3e-5})
    changed = explain("results/demo/grpo_model/manifest.json").stdout
    assert "train_grpo: params changed" in changed.lower() or "train_grpo: params" in changed.lower(), changed
    assert "train_sft:" not in changed


def test_configuration_files_may_be_named_before_the_file(made: Made) -> None:
    for names in (["one.yaml"], ["one.yaml", "two.yaml"]):
        run = made.explain("--no-snakemake", "--configfile", *names, str(made.answer))
        assert run.returncode == 0, run.stderr
        assert run.stdout.startswith(f"{made.answer}\n")
    run = made.explain("--no-snakemake", "--configfile", "one.yaml")
    assert run.returncode == 2
    assert "the file to explain is missing" in run.stderr


def test_configuration_files_are_handed_to_snakemake(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    import explain
    from ecg_grpo.lineage import trace

    monkeypatch.chdir(made.folder)
    asked = []
    monkeypatch.setattr(
        explain.subprocess, "run", lambda command, **_: asked.append(command) or SimpleNamespace(returncode=0, stdout="")
    )
    explain._would_run_again(trace(made.answer), ["one.yaml", "two.yaml"], ["--sdm", "conda"])
    assert asked[0][-5:] == ["--sdm", "conda", "--configfile", "one.yaml", "two.yaml"]
