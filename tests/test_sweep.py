"""Sweeps: which runs they are, what those share, and the page that compares them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from conftest import CORES, ROOT, Project, stand_in_for_programs
from hypothesis import given
from hypothesis import strategies as st

from ecg_grpo.errors import InputError
from ecg_grpo.sweep import PARTS, runs_of, shared

CONFIGURATION = yaml.safe_load((ROOT / "config/config.yaml").read_text())


def swept(**changes: object) -> dict:
    return CONFIGURATION | {"sweep": {"grpo.learning_rate": [1e-5, 2e-5], "grpo.seed": [1, 2, 3]}} | changes


def test_every_combination_is_a_run() -> None:
    runs = runs_of(swept())
    assert len(runs) == 6
    assert [tuple(run.values.values()) for run in runs.values()] == [
        (rate, seed) for rate in (1e-5, 2e-5) for seed in (1, 2, 3)
    ]
    for name, run in runs.items():
        assert run.configuration["run"] == name
        assert name.startswith("demo-")
        assert run.configuration["grpo"] == CONFIGURATION["grpo"] | {
            "learning_rate": run.values["grpo.learning_rate"],
            "seed": run.values["grpo.seed"],
        }
        assert run.configuration["sweep"] == {}
        assert run.configuration["evaluation"]["split"] == "validation"
    assert CONFIGURATION["evaluation"]["split"] == "test", "the sweep's own configuration is as it was"


def test_a_section_is_merged_as_a_configuration_file_would() -> None:
    (run,) = runs_of(swept(sweep={"reward.weights": [{"chrf": None, "rouge_l": 1.0}]})).values()
    assert run.configuration["reward"]["weights"] == {"concept_f1": 1.0, "chrf": None, "rouge_l": 1.0}


@given(st.lists(st.integers(), min_size=1, max_size=6, unique=True), st.integers())
def test_a_value_added_later_leaves_the_other_runs_as_they_are(seeds: list[int], added: int) -> None:
    before = runs_of(swept(sweep={"grpo.seed": seeds}))
    after = runs_of(swept(sweep={"grpo.seed": list(dict.fromkeys([*seeds, added]))}))
    assert list(after)[: len(before)] == list(before)
    assert all(after[name] == before[name] for name in before)
    assert {name: shared(after)[name] for name in before} == shared(before)


@pytest.mark.parametrize(
    ("sweep", "message"),
    [
        (["grpo.seed"], "sweep: is not a mapping"),
        ({"grpo.seed": 1}, "sweep.grpo.seed: is not a list"),
        ({"grpo.seed": []}, "sweep.grpo.seed: is not a list"),
        ({"grpo.seed": [1, 1]}, "sweep.grpo.seed: has a value twice"),
        ({"gpro.seed": [1]}, "sweep.gpro.seed: its section is not in the configuration"),
        ({"run": ["a"]}, "sweep.run: cannot differ"),
        ({"resources.train_grpo": [{}]}, "sweep.resources.train_grpo: cannot differ"),
        ({"evaluation.split": ["test", "validation"]}, "sweep.evaluation.split: cannot differ"),
        ({"evaluation": [{"split": "train"}, {"split": "test"}]}, "sweep.evaluation: evaluation.split cannot differ"),
        ({1: [1, 2]}, "sweep.1: is not the path to a setting"),
        (
            {"base_model.chat_date": [date(2024, 7, 26), date(2024, 7, 27)]},
            "sweep.base_model.chat_date: has a value that no setting can have (Object of type date is not JSON serializable)",
        ),
        ({"evaluation.models": [{1: "a", "b": "c"}]}, "sweep.evaluation.models: has a value that no setting can have"),
        ({"grpo.seed": list(range(40)), "sft.seed": list(range(40))}, "sweep: stands for 1600 runs"),
    ],
)
def test_what_cannot_be_swept_is_refused(sweep: object, message: str) -> None:
    with pytest.raises(InputError) as refused:
        runs_of(swept(sweep=sweep))
    assert str(refused.value).startswith(message)


def test_runs_share_what_comes_before_the_first_difference() -> None:
    one, other = shared(runs_of(swept(sweep={"grpo.seed": [1, 2]}))).values()
    assert one.moved == {}
    assert one.left_out == []
    assert set(other.left_out) == {rule for part in PARTS.values() for rule in part.rules}
    _, other = shared(runs_of(swept(sweep={"sft.seed": [1, 2]}))).values()
    assert set(other.left_out) == {*PARTS["base model"].rules, *PARTS["data"].rules, *PARTS["answers without a model"].rules}
    _, other = shared(runs_of(swept(sweep={"data.seed": [1, 2]}))).values()
    assert other.left_out == ["fetch_base_model"]
    _, other = shared(runs_of(swept(sweep={"base_model.dtype": ["float32", "bfloat16"]}))).values()
    assert other.left_out == [], "the data were made for the base model's tokenizer"


def planned(project: Project) -> dict[str, int]:
    """How many jobs of each rule a dry run would run."""
    plan = project.snakemake("--dry-run", "--quiet", "host").stdout.split("Job stats:")[1]
    return {words[0]: int(words[1]) for line in plan.splitlines() if len(words := line.split()) == 2 and words[1].isdigit()}


@pytest.mark.pipeline
def test_the_workflow_computes_what_is_shared_once(project: Project, tmp_path: Path) -> None:
    def jobs(rule: str) -> int:
        return sum(count for name, count in stats.items() if name.endswith(f"_{rule}"))

    project.configure(sweep={"grpo.learning_rate": [1e-5, 2e-5], "sft.seed": [1, 2]})
    stats = planned(project)
    assert jobs("fetch_base_model") == jobs("prepare_data") == jobs("make_data_report") == jobs("generate_baselines") == 1
    assert jobs("train_sft") == jobs("merge_sft_adapter") == jobs("sample_for_audit") == 2
    assert jobs("train_grpo") == jobs("merge_grpo_checkpoint") == jobs("make_report") == 4
    assert jobs("generate_answers") == 1 + 2 + 4
    assert stats["compare_runs"] == 1
    environment = stand_in_for_programs(tmp_path / "bin")
    project.snakemake(environment=environment)
    assert "Nothing to be done" in project.snakemake("--dry-run").stdout
    project.configure(sweep={"grpo.learning_rate": [1e-5, 2e-5, 3e-5]})
    stats = planned(project)
    assert jobs("train_grpo") == 2, "of the new rate; the others are as they were"
    assert jobs("train_sft") == 0


@pytest.mark.pipeline
def test_a_sweep_asks_for_all_that_a_run_alone_does(project: Project, tmp_path: Path) -> None:
    project.configure(sweep={"grpo.seed": [1]})
    project.snakemake(environment=stand_in_for_programs(tmp_path / "bin"))
    (run,) = project.results().parent.glob("demo-*")
    for lost in ("grpo/completions.parquet", "lm_eval/ecg_expert_qa.yaml", "data/quarantine.parquet"):
        (run / lost).unlink()
        assert project.jobs() != set(), lost
        project.snakemake(environment=stand_in_for_programs(tmp_path / "bin"))


@pytest.mark.pipeline
def test_the_workflow_compares_the_runs_by_their_values(finished: Project, project: Project, tmp_path: Path) -> None:
    """Braces and all: Snakemake takes `{word}` in a parameter for a wildcard."""
    swept_values = {"grpo.seed": [1, 2], "report.title": ["a {model}'s {1,2} words"]}
    project.configure(sweep=swept_values)
    project.snakemake(environment=stand_in_for_programs(tmp_path / "bin"))
    for run in project.results().parent.glob("demo-*"):
        for name in ("comparison.json", "grpo/scores.parquet"):
            made = (run / "evaluation" / name).stat()
            shutil.copy(finished.results() / "evaluation" / name, run / "evaluation" / name)
            os.utime(run / "evaluation" / name, ns=(made.st_atime_ns, made.st_mtime_ns))
    page = project.results() / "sweep/index.html"
    page.unlink()
    project.snakemake("results/demo/sweep/index.html", "--rerun-triggers", "mtime")
    assert "not a medical device" in page.read_text()
    runs = json.loads((page.parent / "sweep.json").read_text())["runs"]
    (title,) = swept_values["report.title"]
    assert [run["values"] for run in runs] == [{"grpo.seed": seed, "report.title": title} for seed in (1, 2)]


@pytest.mark.pipeline
def test_two_runs_are_computed_at_once_by_a_snakemake_each(project: Project, tmp_path: Path) -> None:
    environment = stand_in_for_programs(tmp_path / "bin")
    commands = {name: ["snakemake", "--cores", CORES, "--config", f"run={name}"] for name in ("one", "other")}
    running = {
        name: subprocess.Popen(command, cwd=project.folder, env=environment, stderr=subprocess.PIPE, text=True)
        for name, command in commands.items()
    }
    for name, process in running.items():
        _, printed = process.communicate(timeout=600)
        assert process.returncode == 0, printed
        assert (project.results(name) / "report/index.html").is_file()


@pytest.mark.pipeline
def test_a_wrong_value_is_named(project: Project) -> None:
    project.configure(sweep={"grpo.learning_rat": [1, 2]})
    run = project.snakemake("--dry-run", check=False)
    assert run.returncode == 1
    assert "configuration error: " in run.stderr
    assert "grpo.learning_rat" in run.stderr
    assert "Traceback" not in run.stderr


@pytest.mark.pipeline
@pytest.mark.parametrize(
    ("sections", "expected"),
    [
        ({"evaluation": None}, "config/config.yaml: evaluation: "),
        (
            {"evaluation": {"comparison": {"confidence": 2, "resamples": "abc"}}},
            "config/config.yaml: evaluation.comparison.confidence: ",
        ),
        ({"base_model": {"chat_date": date(2024, 7, 26)}}, "config/config.yaml: base_model.chat_date: "),
    ],
    ids=["no section", "two wrong values", "a date"],
)
def test_what_is_wrong_beside_the_sweep_is_one_line(project: Project, sections: dict, expected: str) -> None:
    project.configure(sweep={"grpo.seed": [1, 2]}, **sections)
    run = project.snakemake("--dry-run", check=False)
    assert run.returncode == 1
    assert run.stderr.splitlines()[-1].startswith(f"configuration error: {expected}")
    assert run.stderr.count("configuration error") == 1
    assert "Traceback" not in run.stderr


@pytest.fixture(scope="module")
def compared(finished: Project, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page's folder for three runs: the finished one, itself again, and one whose every answer has a lower score."""
    folder = tmp_path_factory.mktemp("sweep")
    runs = {name: folder / "results" / name for name in ("first", "same", "worse")}
    table = pq.read_table(finished.results() / "evaluation/grpo/scores.parquet")
    for name, run in runs.items():
        (run / "evaluation/grpo").mkdir(parents=True)
        shutil.copy(finished.results() / "evaluation/comparison.json", run / "evaluation/comparison.json")
        rows = table.to_pylist()
        if name == "worse":
            for number, row in enumerate(rows):
                row["rouge_l"] -= 0.05 + 0.01 * (number % 3)
        pq.write_table(pa.Table.from_pylist(rows, table.schema), run / "evaluation/grpo/scores.parquet")
    compare(folder, list(runs))
    return folder / "results/sweep/sweep"


def compare(folder: Path, runs: list[str]) -> None:
    settings = json.dumps(CONFIGURATION["evaluation"]["comparison"] | {"resamples": 200, "permutations": 1000})
    files = {
        name: [str(folder / "results" / run / "evaluation" / name) for run in runs] for name in ("comparison.json", "grpo")
    }
    values = {run: {"grpo.seed": number, "title": "</script><b>"} for number, run in enumerate(runs)}
    subprocess.run(
        [
            *(sys.executable, "workflow_scripts/compare_runs.py", "--values", json.dumps(values)),
            *("--comparisons", *files["comparison.json"], "--scores", *(f"{file}/scores.parquet" for file in files["grpo"])),
            *("--template", "resources/report/sweep.html.j2", "--style", "resources/report/style.css"),
            *("--scripts", "resources/report/charts.js", "--page", folder / "results/sweep/sweep/index.html"),
            *("--summary", folder / "results/sweep/sweep/sweep.json", "--settings", settings, "--threads", "1"),
            *("--log", folder / "log.txt", "--provenance", folder / "provenance.json"),
        ],
        cwd=ROOT,
        check=True,
    )


@pytest.mark.pipeline
def test_runs_are_compared_in_pairs(compared: Path) -> None:
    summary = json.loads((compared / "sweep.json").read_text())
    assert [run["name"] for run in summary["runs"]] == ["first", "same", "worse"]
    assert summary["differences"].keys() == {"same", "worse"}
    same, worse = (summary["differences"][name]["rouge_l"] for name in ("same", "worse"))
    assert same["mean"] == same["low"] == same["high"] == 0
    assert worse["high"] < 0
    assert worse["p_holm"] < 0.05
    assert "concept_f1" not in summary["claimed"], "the reward makes no claim"


@pytest.mark.pipeline
def test_the_page_shows_every_run_and_escapes(compared: Path) -> None:
    page = (compared / "index.html").read_text()
    for name in ("first", "same", "worse"):
        assert f'<a href="../../{name}/report/index.html">{name}</a>' in page
    assert "not a medical device" in page
    assert "looks better than it is" in page
    assert "</script><b>" not in page
    assert "&lt;/script&gt;&lt;b&gt;" in page


@pytest.mark.pipeline
def test_runs_with_other_questions_are_not_paired(compared: Path, tmp_path: Path) -> None:
    shutil.copytree(compared.parents[1], tmp_path / "results")
    file = tmp_path / "results/worse/evaluation/grpo/scores.parquet"
    pq.write_table(pq.read_table(file).slice(1), file)
    compare(tmp_path, ["first", "worse"])
    summary = json.loads((tmp_path / "results/sweep/sweep/sweep.json").read_text())
    assert summary["differences"] == {}
    assert len(summary["runs"]) == 2
