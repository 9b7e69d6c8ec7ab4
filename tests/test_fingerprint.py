"""The code fingerprint sees what the interpreter sees, of the program and of all that it imports."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from conftest import ROOT

from ecg_grpo.fingerprint import code_fingerprint, git_commit

PROGRAM = (
    '"""A program."""\nfrom package.one import f\n\n\ndef main():\n    from package.two import g\n\n    return f() + g()\n'
)


@pytest.fixture
def program(tmp_path: Path) -> Path:
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").write_text("")
    (tmp_path / "package" / "one.py").write_text('"""One."""\n\n\ndef f():\n    """Doc."""\n    return 1  # one\n')
    (tmp_path / "package" / "two.py").write_text("def g():\n    return 2\n")
    (tmp_path / "package" / "unused.py").write_text("x = 1\n")
    (tmp_path / "program.py").write_text(PROGRAM)
    return tmp_path / "program.py"


@pytest.mark.parametrize(
    ("file", "content", "changes"),
    [
        ("package/one.py", '"""Uno."""\n# why\ndef f():\n    """Other."""\n\n    return 1\n', False),
        ("package/unused.py", "x = 2\n", False),
        ("package/one.py", "def f():\n    return 3\n", True),
        ("package/two.py", "def g():\n    return 3\n", True),  # imported inside a function
        ("program.py", PROGRAM + "\n\nmain()\n", True),
    ],
)
def test_it_changes_with_meaning_only(program: Path, file: str, content: str, changes: bool) -> None:
    before = code_fingerprint(program)
    (program.parent / file).write_text(content)
    assert (code_fingerprint(program) != before) is changes


def test_modules_are_looked_for_in_the_folder_that_is_named(program: Path) -> None:
    module = program.parent / "package/one.py"
    module.write_text("from package.two import g\n")
    before = code_fingerprint(module, program.parent)
    (program.parent / "package/two.py").write_text("def g():\n    return 3\n")
    assert code_fingerprint(module, program.parent) != before


def test_help_texts_and_descriptions_do_not_count(program: Path) -> None:
    program.write_text('f(x, help="a", description="b")\n')
    before = code_fingerprint(program)
    program.write_text('f(x, help="c", description="d")\n')
    assert code_fingerprint(program) == before
    program.write_text('f(y, help="c", description="d")\n')
    assert code_fingerprint(program) != before


def test_files_that_a_module_names_as_its_resources_count(tmp_path: Path) -> None:
    (tmp_path / "resources").mkdir()
    (tmp_path / "scripts").mkdir()
    program = tmp_path / "scripts" / "program.py"
    program.write_text('f(resource("words.txt"))\n')
    words = tmp_path / "resources" / "words.txt"
    words.write_text("one\n")
    before = code_fingerprint(program)
    words.write_text("two\n")
    after = code_fingerprint(program)
    assert after != before
    (tmp_path / "resources" / "other.txt").write_text("three\n")
    assert code_fingerprint(program) == after


def test_the_commit_is_named_and_marked_where_files_differ_from_it(tmp_path: Path) -> None:
    assert git_commit(tmp_path) is None, "no checkout"
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@example.org"]
    (tmp_path / "file").write_text("one\n")
    for command in (["init", "-q"], ["add", "file"], ["commit", "-qm", "first"]):
        subprocess.run([*git, *command], check=True)
    commit = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    (tmp_path / "result").write_text("not tracked\n")
    assert git_commit(tmp_path) == commit
    (tmp_path / "file").write_text("two\n")
    assert git_commit(tmp_path) == f"{commit}+"


def test_no_stage_imports_another_stages_settings() -> None:
    from modulefinder import ModuleFinder

    own = {
        "fetch_base_model": {"base_model"},
        "fetch_raw_data": {"raw_data"},
        "prepare_data": {"data"},
        "make_data_report": set(),
        "bootstrap_reasoning": {"bootstrap_reasoning", "generation"},
        "train_sft": {"sft", "guards"},
        "merge_adapter": {"merge"},
        "filter_prompts": {"difficulty_filter", "reward", "judge", "endpoint"},
        "audit_reward": {"reward_audit", "generation", "reward", "judge", "endpoint"},
        "train_grpo": {"grpo", "guards", "reward", "judge", "endpoint"},
        "make_preference_pairs": {"reward_model", "generation"},
        "train_reward_model": {"reward_model", "generation", "guards"},
        "generate_answers": {"generation"},
        "ask_endpoint": {"endpoint"},
        "judge_answers": {"judge", "endpoint"},
        "generate_baselines": set(),
        "score_answers": set(),
        "score_as_ecg_bench": set(),
        "score_meaning": {"scoring"},
        "score_references": {"scoring"},
        "check_contamination": set(),
        "check_requirements": set(),
        "compare_models": {"scoring"},
        "sample_answers": {"generation"},
        "compare_samples": {"generation"},
        "write_lm_eval_task": {"generation"},
        "make_report": {"report"},
        "export_verl": {"grpo", "guards", "reward", "judge", "endpoint"},
    }
    for program, sections in own.items():
        finder = ModuleFinder(path=[str(ROOT / "workflow_scripts")])
        finder.run_script(str(ROOT / "workflow_scripts" / f"{program}.py"))
        found = {name.rsplit(".", 1)[1] for name in finder.modules if name.startswith("ecg_grpo.settings.")}
        assert found - {"section", "training"} == sections, program
        assert "snakemake" not in finder.modules
