"""Checks a folder that export_ecg_bench.py wrote, wherever it has been moved.

    python workflow_scripts/check_ecg_bench_export.py results/demo/export/ecg_bench

Every file is compared with the hash in its manifest; then everything is looked at that ECG-Bench and ECG-Language-Models rely
on. All that is wrong stands in one line, and the exit status is 1.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ecg_grpo.errors import InputError

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("folder", type=Path, help="the export")

if __name__ == "__main__":
    try:
        folder = parser.parse_args().folder
        from ecg_grpo.ecg_bench_check import validate

        validate(folder)
        print(f"{folder}: as ECG-Bench and ECG-Language-Models take it")
    except InputError as error:
        sys.exit(f"check_ecg_bench_export: error: {error}")
