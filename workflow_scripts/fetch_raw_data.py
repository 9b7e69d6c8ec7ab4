"""The files of ECG-Expert-QA, from their public home at one commit.

Each file is checked by the git blob hash that this project knows, so it is the same everywhere whatever server it came
from. A transfer that breaks off goes on where it stopped, in the same run or in the next one; what was fetched stays in
the scratch folder until all files are there.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from ecg_grpo.download import download, new_client
from ecg_grpo.files import new_file
from ecg_grpo.progress import StageProgress
from ecg_grpo.raw_files import git_blob_sha1, raw_file_named
from ecg_grpo.settings.raw_data import RawDataSettings
from ecg_grpo.stage import Stage, StageParser

parser = StageParser("fetch_raw_data", __doc__)
parser.add_output("--files", nargs="+", metavar="JSON", help="files to write, each under its original name")
parser.add_argument("--scratch", type=Path, required=True, help="folder for unfinished downloads; emptied at the end")
parser.add_settings("raw_data")


def fetch_raw_data(arguments: argparse.Namespace, stage: Stage) -> None:
    """Fetches what is missing, then puts everything into place."""
    settings = RawDataSettings.from_json(arguments.settings)
    raw_files = {file: raw_file_named(file) for file in arguments.files}
    missing = [file for file, raw in raw_files.items() if not file.is_file() or git_blob_sha1(file) != raw.git_blob]
    attempts = dict.fromkeys(raw_files, 0)
    folder = arguments.scratch / "raw_data" / settings.commit
    folder.mkdir(parents=True, exist_ok=True)
    finished = len(raw_files) - len(missing)
    with StageProgress(stage, len(raw_files), finished) as progress, new_client(settings) as client:
        for done, file in enumerate(missing, start=finished):
            attempts[file] = download(
                client,
                settings.url_of(file.name),
                folder / file.name,
                raw_files[file].git_blob,
                settings,
                lambda note, done=done, file=file: progress.step(done, f"{raw_files[file].code}  {note}"),
            )
            progress.step(done + 1, f"{raw_files[file].code}  {(folder / file.name).stat().st_size / 1e6:.1f} MB")
    for file in missing:
        # Copied, not moved: Snakemake deletes the outputs of a run that dies here, and the next one finds them in scratch.
        with new_file(file) as partial:
            shutil.copyfile(folder / file.name, partial)
    shutil.rmtree(folder.parent)
    stage.facts["files"] = {
        file.name: {"bytes": file.stat().st_size, "git_blob": raw.git_blob, "attempts": attempts[file]}
        for file, raw in raw_files.items()
    }


if __name__ == "__main__":
    parser.run(fetch_raw_data)
