"""Prints how a file came about: every job from the raw files to it, with hashes, settings, code, versions, machine and time.

    python workflow_scripts/explain.py results/demo/report/summary.md
    python workflow_scripts/explain.py results/mine/grpo_model/manifest.json --configfile config/mine.yaml

Every file is compared with the hash that the provenance has of it, those of models included. Then Snakemake says which of the
jobs it would run again, and why. Other options than those below are Snakemake's. The exit status is 1 if a
file is not the one that was made or read; that a job would run again is no fault.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

from ecg_grpo.errors import InputError
from ecg_grpo.lineage import Job, Lineage, changed_code, find_problems, run_folder, trace

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("file", type=Path, nargs="?", help="a file below results/, as `snakemake` names it")
parser.add_argument(
    "--configfile", "--configfiles", nargs="+", default=[], metavar="FILE", help="configuration files, as snakemake takes them"
)
parser.add_argument("--full", action="store_true", help="show settings, whole hashes and the versions of all packages too")
parser.add_argument("--no-snakemake", action="store_true", help="do not ask Snakemake what it would run again")


def explain(arguments: argparse.Namespace, snakemake: list[str]) -> bool:
    """Prints the lineage of a file; whether every file is as recorded."""
    file = arguments.file
    if file is None:  # written last, it looks like one more configuration file
        if len(arguments.configfile) < 2:
            parser.error("the file to explain is missing")
        file = Path(arguments.configfile.pop())
    if file.is_absolute() and file.is_relative_to(Path.cwd()):
        file = file.relative_to(Path.cwd())
    lineage = trace(file)
    print(f"{file}\nwas made by {len(lineage.jobs)} jobs from {len(lineage.sources)} source files.\n")
    for digest, source in sorted((digest, str(source)) for source, digest in lineage.sources.items()):
        print(f"  {_short(digest, arguments.full)}  {source}")
    for number, job in enumerate(lineage.jobs, 1):
        print(f"\n{number}. {job.name}")
        for line in _about(job, lineage, arguments.full):
            print(f"   {line}")
    problems = find_problems(lineage)
    print(f"\nFiles that are not as recorded: {len(problems)}")
    for problem in problems:
        print(f"  {problem}")
    print("\nA job runs again when a file that it reads, its settings, its code or its environment changes.")
    for job in lineage.jobs:
        if changed := changed_code(job, Path(__file__).parent):
            print(f"  {job.name}: its code has changed ({', '.join(changed)})")
    if not arguments.no_snakemake:
        print(_would_run_again(lineage, arguments.configfile, snakemake))
    return not problems


def _about(job: Job, lineage: Lineage, full: bool) -> list[str]:
    record = job.record
    settings = json.loads(record["settings"]) or {}
    lines = [
        f"at        {record['finished']}, {record['seconds']:g} s, {record['threads']} threads, {record['machine']}",
        f"program   {record['program']}, commit {record['commit'] or 'unknown'}, code {_short(record['code'], full)}",
    ]
    lines += [f"{name:<9} {record[key]}" for name, key in (("GPUs", "visible_gpus"), ("Slurm job", "slurm_job")) if record[key]]
    if full:
        lines += [f"settings  {json.dumps(settings, sort_keys=True)}"]
        lines += [f"{name:<9} {value}" for name, value in record["parameters"].items()]
    elif "seed" in settings:
        lines += [f"seed      {settings['seed']}"]
    facts = {name: value for name, value in record["facts"].items() if full or not isinstance(value, dict)}
    lines += [f"{name:<9} {json.dumps(value)}" for name, value in facts.items()]
    if full:
        lines += [
            f"packages  Python {record['python']}, "
            + ", ".join(f"{name} {version}" for name, version in record["packages"].items())
        ]
    lines += [f"read      {_short(digest, full)}  {file}" for file, digest in job.inputs.items() if file not in lineage.sources]
    lines += [f"wrote     {_short(digest, full)}  {file}" for file, digest in job.outputs.items()]
    return lines


def _short(digest: str, full: bool) -> str:
    return digest if full else digest[:12]


def _would_run_again(lineage: Lineage, files: list[str], options: list[str]) -> str:
    """What `snakemake --summary` says of the files in the chain."""
    run = run_folder(lineage.file).name
    if not files and (overlay := Path(f"config/{run}.yaml")).is_file():
        files = [str(overlay)]
    if files:
        options = [*options, "--configfile", *files]
    command = [sys.executable, "-m", "snakemake", str(lineage.file), "--summary", "--nolock", *options]
    asked = subprocess.run(command, capture_output=True, text=True, check=False)
    if asked.returncode:
        return f"  Snakemake could not say what it would run again: {asked.stderr.strip().splitlines()[-1]}"
    rows = [line.split("\t") for line in asked.stdout.splitlines()[1:]]
    status = {Path(row[0]): (row[-2], row[-1]) for row in rows}
    reasons = {}
    for job in lineage.jobs:
        for output in job.outputs:
            if (state := status.get(output)) and state[1] != "no update":
                reasons.setdefault(job.name, state[0])
    unknown = not any(output in status for output in lineage.jobs[-1].outputs)
    if unknown:
        return f"  Snakemake does not make this file with these settings (run {run}); name its --configfile."
    if not reasons:
        return "  Snakemake would run none of these jobs again."
    lines = [f"  {name}: {'follows from the above' if reason == 'ok' else reason}" for name, reason in reasons.items()]
    return "Snakemake would run again:\n" + "\n".join(lines)


if __name__ == "__main__":
    try:
        sys.exit(0 if explain(*parser.parse_known_args()) else 1)
    except InputError as error:
        sys.exit(f"explain: error: {error}")
