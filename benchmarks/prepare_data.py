"""How time and memory of workflow_scripts/prepare_data.py grow with the number of records.

    python benchmarks/prepare_data.py --sizes 10000 100000 1000000
    python benchmarks/prepare_data.py --knowledge-only --json knowledge.json

For every size, raw files are made in a temporary folder (TMPDIR; a million records need about 1 GB), which is not timed, and
the program runs on them as the workflow runs it. What it prints is stamped with the time, so below each row stands which part
took how long and how much memory had been needed by its end. `alone` is the share of records that are a group of their own,
`largest` the share of the largest group: records that all hang together would be no realistic measure.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from synthetic_records import write_raw_files

ROOT = Path(__file__).resolve().parent.parent
PROGRAM = ROOT / "workflow_scripts" / "prepare_data.py"
SETTINGS = {"max_prompt_tokens": 8192, "max_answer_tokens": 8192}
"""Limits that leave hardly a record out."""

PHASES = {
    "read ": "read and clean",
    "split and audited": "split and audit",
    "prepare_data ": "measure",
    "{": "write",
}
"""How the line begins with which the program ends a part of its work. Start-up counts to the first part."""


class RunFailed(Exception):
    """The program ended with an error."""


def run(raw: Path, out: Path, model: Path, settings: dict[str, Any], threads: int) -> dict[str, Any]:
    """Runs the program on a folder's raw files.

    Returns:
        `seconds`, `peak_gib`, `phases` (of each its `seconds` and the `peak_gib` until its end), `records` (how many were
        read, kept, quarantined and dropped), and of the records that were kept `alone`, the share that is a group of its own,
        and `largest_group`, the share of the largest one.

    Raises:
        RunFailed: it ended with an error.
    """
    command = [sys.executable, PROGRAM, "--raw", *sorted(raw.glob("*.json"))]
    command += ["--system-prompt", ROOT / "resources/prompts/system.txt"]
    command += ["--ngrams", ROOT / "resources/similarity/common_ngrams.tsv", "--base-model", model]
    for name in ("train", "validation", "test", "quarantine", "dropped"):
        command += [f"--{name}", out / f"{name}.parquet"]
    command += ["--account", out / "account.json", "--settings", json.dumps(settings), "--threads", str(threads)]
    started = before = time.monotonic()
    process = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    phases: dict[str, dict[str, float]] = {}
    printed: list[str] = []
    for line in process.stdout:
        now = time.monotonic()
        printed.append(line)
        for beginning, name in PHASES.items():
            if line.startswith(beginning):
                phase = phases.setdefault(name, {"seconds": 0.0, "peak_gib": 0.0})
                phase["seconds"] += now - before
                phase["peak_gib"] = _peak_so_far(process.pid) or phase["peak_gib"]
                before = now
    # Not process.wait(): only wait4 tells what this child alone has used.
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.monotonic() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RunFailed(f"{PROGRAM} ended with {process.returncode}:\n{''.join(printed[-15:])}")
    account = json.loads((out / "account.json").read_text(encoding="utf-8"))
    kept = account["records"]["kept"]
    return {
        "seconds": seconds,
        "peak_gib": usage.ru_maxrss / 2**20,
        "phases": phases,
        "records": account["records"],
        "alone": account["clusters"]["by_size"]["1"] / kept,
        "largest_group": account["clusters"]["largest"][0]["records"] / kept,
    }


def _peak_so_far(process: int) -> float:
    """GiB that a running process has had at most; 0 if the system does not say."""
    try:
        status = Path(f"/proc/{process}/status").read_text(encoding="utf-8")
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 2**20 for line in status.splitlines() if line.startswith("VmHWM:")), 0.0)


def row(size: int, figures: dict[str, Any]) -> str:
    """The table's row of one size, and a line with what stands behind it."""
    records = figures["records"]
    parts = "; ".join(f"{name} {part['seconds']:.1f} s, {part['peak_gib']:.2f} GiB" for name, part in figures["phases"].items())
    counts = "".join(f"{records[name]:13,}" for name in ("kept", "quarantined", "dropped"))
    per_thousand = 1000 * figures["seconds"] / size
    return (
        f"{size:10,}{figures['seconds']:10.1f}{per_thousand:14.3f}{figures['peak_gib']:10.2f}{counts}"
        f"{figures['alone']:8.1%}{figures['largest_group']:8.1%}\n{'':10}  {parts}"
    )


def growth(found: dict[int, dict[str, Any]]) -> dict[str, dict[int, float]]:
    """Time per record of every size, of the whole and of each part, divided by that of the first size."""
    seconds = {size: {"all": figures["seconds"]} for size, figures in found.items()}
    for size, figures in found.items():
        seconds[size] |= {name: part["seconds"] for name, part in figures["phases"].items()}
    first = next(iter(seconds))
    return {
        name: {size: (parts[name] / size) / (seconds[first][name] / first) for size, parts in seconds.items()}
        for name in seconds[first]
    }


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000, 1_000_000], help="numbers of records")
    parser.add_argument("--knowledge-only", action="store_true", help="only the five files of single questions")
    parser.add_argument("--model", type=Path, default=ROOT / "results/demo/base_model/manifest.json", help="whose tokenizer")
    parser.add_argument(
        "--settings", type=json.loads, default="{}", metavar="JSON", help=f"settings of section `data` beside {SETTINGS}"
    )
    parser.add_argument("--threads", type=int, default=2, help="processor threads (default: 2)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the records (default: 0)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where the figures go as JSON")
    arguments = parser.parse_args()
    if min(arguments.sizes) < 1:
        parser.error("--sizes must be at least 1")
    if not arguments.model.is_file():
        parser.exit(1, f"{arguments.model} is missing: snakemake --cores all results/demo/base_model/manifest.json makes it\n")
    settings = SETTINGS | arguments.settings

    heads = {"records": 10, "seconds": 10, "s per 1,000": 14, "peak GiB": 10, "kept": 13, "quarantined": 13, "dropped": 13}
    print("".join(f"{head:>{width}}" for head, width in (heads | {"alone": 8, "largest": 8}).items()), flush=True)
    found: dict[int, dict[str, Any]] = {}
    for size in arguments.sizes:
        with tempfile.TemporaryDirectory(prefix="prepare_data_") as folder:
            raw, out = Path(folder) / "raw", Path(folder) / "out"
            write_raw_files(raw, size, arguments.seed, arguments.knowledge_only)
            try:
                found[size] = run(raw, out, arguments.model, settings, arguments.threads)
            except RunFailed as failure:
                parser.exit(1, f"{failure}\n")
        print(row(size, found[size]), flush=True)
    ratios = growth(found)
    print("\ntime per record against the first size, start-up included:")
    for name, by_size in ratios.items():
        print(f"  {name:16}" + "".join(f"{ratio:8.2f} ({size:,})" for size, ratio in by_size.items()))
    if arguments.json:
        figures = {
            "machine": platform.platform(),
            "processors": os.cpu_count(),
            "python": platform.python_version(),
            "threads": arguments.threads,
            "knowledge_only": arguments.knowledge_only,
            "seed": arguments.seed,
            "settings": settings,
            "sizes": [{"size": size} | found[size] for size in found],
            "time_per_record_against_first": ratios,
        }
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
