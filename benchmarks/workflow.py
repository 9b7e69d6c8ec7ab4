"""Seconds until `snakemake -n` has said what there is to do, and what of them Snakemake needs by itself.

    python benchmarks/workflow.py                                   # of the run that config.yaml describes
    python benchmarks/workflow.py --configfile config/mine.yaml     # further options are Snakemake's
    python benchmarks/workflow.py --rounds 1 --sweep 100            # besides: of a sweep of 100 seeds of GRPO

Minimum and median of several rounds, in which the three commands take turns: the dry run; a dry run of one rule without a
configuration, in an empty folder; the fingerprints of all programs.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ALONE = 'rule alone:\n    output: "one"\n    shell: "touch {output}"\n'
FINGERPRINTS = """
from pathlib import Path
from ecg_grpo.fingerprint import code_fingerprint
for program in Path().glob("*.py"):
    code_fingerprint(program)
"""


def main() -> None:
    """Times each command in turn and prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="how often each command runs (default: 5)")
    parser.add_argument("--sweep", type=int, default=0, metavar="RUNS", help="time a sweep of so many runs too")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where the figures go as JSON")
    options, for_snakemake = parser.parse_known_args()
    dry_run = [sys.executable, "-m", "snakemake", "--dry-run", "--cores", "2"]
    with tempfile.TemporaryDirectory() as empty:
        (Path(empty) / "Snakefile").write_text(ALONE)
        commands = {
            "dry run": ([*dry_run, *for_snakemake], ROOT),
            "snakemake alone": (dry_run, Path(empty)),
            "fingerprints": ([sys.executable, "-c", FINGERPRINTS], ROOT / "workflow_scripts"),
        }
        if options.sweep:
            seeds = json.dumps({"grpo.seed": list(range(options.sweep))})
            name = f"sweep of {options.sweep}"
            commands[name] = ([*dry_run, "--quiet", "all", *for_snakemake, "--config", f"sweep={seeds}"], ROOT)
        seconds: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(options.rounds):
            for name, (command, folder) in commands.items():
                started = time.perf_counter()
                run = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
                seconds[name].append(time.perf_counter() - started)
                if run.returncode:
                    sys.exit(run.stderr[-2000:])
                if name == "dry run":
                    finished = "Nothing to be done" in run.stdout + run.stderr
    figures = {name: {"min": min(times), "median": statistics.median(times)} for name, times in seconds.items()}
    print(f"the run is {'finished' if finished else 'not finished'}")
    for name, figure in figures.items():
        print(f"{name:<16} {figure['min']:5.2f} s at least, {figure['median']:5.2f} s in the middle of {options.rounds}")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
