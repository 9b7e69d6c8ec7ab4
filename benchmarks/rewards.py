"""Seconds that the reward of 10,000 completions of 60 words takes on one core.

    python benchmarks/rewards.py --data results/demo/data/train.parquet

Completions are runs of 60 words out of the references, all different; eight for each question, as GRPO samples them, scored
against two references in a row, which is as long. Caches are empty at the start. Times are of the processor.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WORDS, GROUP = 60, 8

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"


def main() -> None:
    """Makes the texts, times the mix and each of its parts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT / "results/demo/data/train.parquet", help="a split (parquet)")
    parser.add_argument("--completions", type=int, default=10_000, help="how many (default: 10000)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where the figures go as JSON")
    options = parser.parse_args()
    sys.path.insert(0, str(ROOT / "workflow_scripts"))
    from ecg_grpo.errors import InputError
    from ecg_grpo.prompts import take_apart
    from ecg_grpo.rewards import REWARDS, Case, RewardMix
    from ecg_grpo.settings.reward import RewardSettings
    from ecg_grpo.tables import read_rows

    if not options.data.is_file():
        parser.exit(1, f"{options.data} is missing: name a split with --data or run `snakemake --cores all data`\n")
    try:
        rows = read_rows(options.data, "question", "answer")
    except InputError as error:
        parser.exit(1, f"{error}\n")
    words = " ".join(row["answer"] for row in rows).split()
    generator = random.Random(0)
    cases = []
    for index in range(options.completions):
        row, other = rows[index // GROUP % len(rows)], rows[(index // GROUP + 1) % len(rows)]
        start = generator.randrange(len(words) - WORDS)
        cases.append(Case(" ".join(words[start : start + WORDS]), f"{row['answer']} {other['answer']}", row["question"]))

    settings = RewardSettings()
    mix = RewardMix(settings.weighted(), settings.gating())
    started = time.process_time()
    mix.rewards(cases)
    seconds = {"mix": time.process_time() - started}
    fresh = [case._replace(completion=f"{case.completion} once") for case in cases]  # nothing of it is remembered
    for name, reward in REWARDS.items():
        started = time.process_time()
        for case in fresh:
            reward(take_apart(case.completion), case.reference, case.question)
        seconds[name] = time.process_time() - started
    for name, value in seconds.items():
        print(f"{name:12} {value:6.2f} s   {1e6 * value / len(cases):7.1f} microseconds a completion")
    if options.json:
        options.json.write_text(json.dumps({"completions": len(cases), "seconds": seconds}, indent=2) + "\n")


if __name__ == "__main__":
    main()
