"""Programs: help, one line for a bad input, a log that catches everything, files that are whole or absent."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT

from ecg_grpo.errors import InputError
from ecg_grpo.files import model_directory, new_file, new_model_directory, sha256_of

PROGRAMS = sorted((ROOT / "workflow_scripts").glob("*.py"))

EXAMPLE = """
import os, sys, time
from ecg_grpo.errors import InputError
from ecg_grpo.stage import StageParser

parser = StageParser("example", __doc__)
parser.add_input("--in")
parser.add_output("--out")
parser.add_argument("--how")


def example(arguments, stage):
    print("printed")
    os.write(2, b"from a library\\n")
    if arguments.how == "input":
        raise InputError("file.json: row 3", "key 'A' is missing", "Mend the row.")
    if arguments.how == "defect":
        raise ZeroDivisionError("oops")
    if arguments.how.startswith("prints "):
        print("x" * 5000, flush=arguments.how == "prints now")
    if arguments.how == "no room elsewhere":
        os.write(2, b"x" * 5000)
        raise OSError(28, "No space left on device")
    if arguments.how == "quota":
        raise OSError(122, "Disk quota exceeded", "table.parquet")
    if arguments.how == "quota in a library's words":
        raise RuntimeError("Error while serializing: I/O error: Disk quota exceeded (os error 122)")
    if arguments.how == "full below another error":
        raise KeyError("lost") from OSError(28, "No space left on device")
    if arguments.how == "a library's own":
        raise OSError("The server cannot be reached. Start it.")
    if arguments.how == "long":
        time.sleep(60)
    if arguments.how == "other input":
        getattr(arguments, "in").write_text("other")
    if arguments.how == "other code":
        with open("example.py", "a") as program:
            program.write("edited = True\\n")
    arguments.out.write_text("result")
    stage.facts["answer"] = 42


parser.run(example)
"""


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda file: file.stem)
def test_every_program_explains_itself_without_loading_anything_heavy(program: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-X", "importtime", program, "--help"], capture_output=True, text=True, check=True, timeout=60
    )
    assert "usage:" in run.stdout
    assert len(run.stdout.splitlines()) > 5
    assert not any(line.endswith((" torch", " transformers")) for line in run.stderr.splitlines())


def example(tmp_path: Path, how: str) -> dict[str, object]:
    """The command of the example and where it runs, for `subprocess`."""
    (tmp_path / "example.py").write_text(EXAMPLE)
    (tmp_path / "in.txt").write_text("in")
    return {
        "args": [
            *(sys.executable, "example.py", "--in", "in.txt", "--out", "out.txt", "--how", how),
            *("--log", "logs/log.txt", "--provenance", "provenance.json", "--threads", "1"),
        ],
        "cwd": tmp_path,
        "env": {"PYTHONPATH": str(ROOT / "workflow_scripts"), "PATH": "/usr/bin"},
    }


SNAKEFILE = """
rule example:
    input: "in.txt"
    output: "out.txt"
    log: "logs/log.txt"
    params: how=config["how"]
    shell: "{config[python]} example.py --in {input} --out {output} --how {params.how} --log {log}"
"""


def run_example(tmp_path: Path, how: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(**example(tmp_path, how), capture_output=True, text=True, check=False)


def test_a_good_run_is_quiet_logged_and_traced(tmp_path: Path) -> None:
    run = run_example(tmp_path, "well")
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")
    assert set((tmp_path / "logs/log.txt").read_text().split("\n")) >= {"printed", "from a library"}
    provenance = json.loads((tmp_path / "provenance.json").read_text())
    assert provenance["inputs"] == {"in.txt": sha256_of(tmp_path / "in.txt")}
    assert provenance["outputs"] == {"out.txt": sha256_of(tmp_path / "out.txt")}
    assert provenance["facts"] == {"answer": 42}
    assert provenance["commit"] is None, "it is no git checkout"


def test_code_that_is_edited_while_it_runs_did_not_make_the_result(tmp_path: Path) -> None:
    def codes(how: str) -> tuple[str, dict]:
        assert run_example(tmp_path, how).returncode == 0
        provenance = json.loads((tmp_path / "provenance.json").read_text())
        return provenance["code"], provenance["code_files"]

    assert codes("well") == codes("other code")


def test_an_input_that_changes_while_it_is_read_is_refused(tmp_path: Path) -> None:
    run = run_example(tmp_path, "other input")
    assert run.returncode == 1
    assert run.stderr == "example: error: in.txt: changed while this stage ran. Run snakemake again.\n"
    assert not (tmp_path / "provenance.json").exists()


def test_bad_input_is_one_line_and_status_1(tmp_path: Path) -> None:
    run = run_example(tmp_path, "input")
    assert run.returncode == 1
    assert run.stderr == "example: error: file.json: row 3: key 'A' is missing. Mend the row.\n"
    assert not (tmp_path / "provenance.json").exists()


def test_a_defect_is_one_line_too_and_its_traceback_is_in_the_log(tmp_path: Path) -> None:
    run = run_example(tmp_path, "defect")
    assert run.returncode == 1
    assert run.stderr.count("\n") == 1
    assert "ZeroDivisionError: oops" in run.stderr
    assert "Traceback" in (tmp_path / "logs/log.txt").read_text()


@pytest.mark.parametrize(
    ("options", "how"),
    [
        ("size=4k,nr_inodes=1", "well"),
        ("size=4k", "well"),
        ("size=8k", "prints now"),
        ("size=8k", "prints later"),
        ("size=8k", "no room elsewhere"),
    ],
    ids=["no log", "an empty log", "the log fills up", "the log fills up at the end", "no room for anything"],
)
def test_a_disk_without_room_for_the_log_is_one_line_too(
    tmp_path: Path, in_own_mounts: list[str], options: str, how: str
) -> None:
    run = example(tmp_path, how)
    (tmp_path / "logs").mkdir()
    mount = f'mount -t tmpfs -o {options} none logs; head -c 4096 /dev/zero 2>/dev/null >logs/other; exec "$@"'
    run["args"] = [*in_own_mounts, "bash", "-c", mount, "bash", *run["args"]]
    ended = subprocess.run(**run, capture_output=True, text=True, check=False)
    assert ended.returncode != 0
    assert "No space left on device. Make room and run snakemake again." in ended.stderr
    assert ended.stderr.startswith("example: error: ")
    assert ended.stderr.count("\n") == 1, ended.stderr


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("quota", "table.parquet: Disk quota exceeded. Make room and run snakemake again."),
        ("quota in a library's words", "file system: Disk quota exceeded. Make room and run snakemake again."),
        ("full below another error", "file system: No space left on device. Make room and run snakemake again."),
        ("a library's own", "The server cannot be reached. Start it."),
    ],
)
def test_what_the_system_or_a_library_says_is_told_as_it_is(tmp_path: Path, how: str, expected: str) -> None:
    run = run_example(tmp_path, how)
    assert (run.returncode, run.stderr) == (1, f"example: error: {expected}\n")


def test_a_stage_that_still_runs_is_not_started_beside_itself(tmp_path: Path) -> None:
    """As after a SIGKILL of Snakemake, which leaves its jobs running."""
    with subprocess.Popen(**example(tmp_path, "long")) as earlier:
        while not (tmp_path / "logs/log.txt").exists():
            time.sleep(0.05)
        second = run_example(tmp_path, "well")
        earlier.kill()
    assert second.returncode == 1
    assert second.stderr.count("\n") == 1
    assert f"an earlier process of this stage still runs and writes to it (process {earlier.pid} on " in second.stderr
    assert not (tmp_path / "out.txt").exists()
    assert run_example(tmp_path, "well").returncode == 0, "now it is gone"


def test_a_second_snakemake_does_not_start_a_job_that_still_runs(tmp_path: Path) -> None:
    """Snakemake deletes a job's log before the job, and what holds the log with it."""
    (tmp_path / "Snakefile").write_text(SNAKEFILE)
    run = {name: value for name, value in example(tmp_path, "").items() if name != "args"}
    run["env"] = os.environ | run["env"] | {"PATH": os.environ["PATH"]}

    def snakemake(*arguments: str) -> list[str]:
        return ["snakemake", "--cores", "1", *arguments, "--config", f"python={sys.executable}"]

    first = subprocess.Popen(
        [*snakemake(), "how=long"], **run, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        log = tmp_path / "logs/log.txt"
        while not log.exists() or "from a library" not in log.read_text():
            assert first.poll() is None
            time.sleep(0.05)
        first.kill()
        first.wait()
        subprocess.run([*snakemake("--unlock"), "how=well"], **run, capture_output=True, check=True)
        second = subprocess.run([*snakemake(), "how=well"], **run, capture_output=True, text=True, check=False)
        assert second.returncode == 1
        assert "logs/log.txt: an earlier process of this stage still runs" in second.stderr
        assert "from a library" in log.read_text(), "the log of what still runs is in its place"
    finally:
        os.killpg(first.pid, signal.SIGKILL)
    assert not (tmp_path / "out.txt").exists()
    subprocess.run([*snakemake(), "how=well"], **run, capture_output=True, check=True)
    assert (tmp_path / "out.txt").read_text() == "result"


def test_a_log_that_was_copied_is_made_anew(tmp_path: Path) -> None:
    """A copy of a run's folder has the log and its hidden name as two files, or only one of them."""
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs/log.txt").write_text("copied\n")
    (tmp_path / "logs/.log.txt.lock").write_text("copied\n")
    for _ in range(2):
        assert run_example(tmp_path, "well").returncode == 0
        lines = (tmp_path / "logs/log.txt").read_text().splitlines()
        assert lines[0].startswith("process ")
        assert sorted(lines[1:]) == ["from a library", "printed"]


def test_a_file_is_whole_or_not_there(tmp_path: Path) -> None:
    target = tmp_path / "folder" / "file.txt"
    with pytest.raises(RuntimeError), new_file(target) as partial:
        partial.write_text("half")
        raise RuntimeError
    assert not list((tmp_path / "folder").iterdir())
    with new_file(target) as partial:
        partial.write_text("whole")
    assert target.read_text() == "whole"


def test_a_model_directory_is_replaced_as_a_whole_and_checked(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    with new_model_directory(folder) as partial:
        (partial / "weights").write_text("one")
    with pytest.raises(RuntimeError), new_model_directory(folder) as partial:
        (partial / "weights").write_text("two")
        raise RuntimeError
    assert (folder / "weights").read_text() == "one"
    assert model_directory(folder / "manifest.json") == folder
    (folder / "weights").write_text("0ne")
    with pytest.raises(InputError, match="not the one that the manifest lists"):
        model_directory(folder / "manifest.json")
    (folder / "weights").unlink()
    with pytest.raises(InputError, match="missing from the model"):
        model_directory(folder / "manifest.json")
    assert [file.name for file in tmp_path.iterdir()] == ["model"]
