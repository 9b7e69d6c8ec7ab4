"""Makes a run's model ready for the Hugging Face Hub, with a card of the run's own figures, and uploads it if told to.

    python workflow_scripts/publish.py --license apache-2.0 --data-license "none stated" --base-model OWNER/NAME
    python workflow_scripts/publish.py … --upload OWNER/NAME             # a private repository
    python workflow_scripts/publish.py … --upload OWNER/NAME --public

Without --upload it opens no connection: it writes results/<run>/export/hub/merged and, where the run trained adapters,
results/<run>/export/hub/adapter, and lists what would go. The merged model goes to OWNER/NAME, the adapters to
OWNER/NAME-adapter. The token is that of HF_TOKEN or `hf auth login`.
"""

from __future__ import annotations

import argparse
import os
import sys

from ecg_grpo.errors import InputError
from ecg_grpo.resources import resource

TEMPLATE, MACROS = resource("publish/model_card.md.j2"), resource("report/figures.md.j2")

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--run", help="name of the run (default: the one that was finished last)")
parser.add_argument("--license", metavar="ID", help="the model's license as the Hub names it, e.g. apache-2.0 or llama3.2")
parser.add_argument("--data-license", metavar="TEXT", help="what you state about the training data's license")
parser.add_argument("--base-model", metavar="OWNER/NAME", help="the base model on the Hub")
parser.add_argument("--only", choices=("merged", "adapter"), help="one of the two (default: what there is)")
parser.add_argument("--upload", metavar="OWNER/NAME", help="upload to this repository (default: upload nothing)")
parser.add_argument("--public", action="store_true", help="with --upload: anyone may read it (default: a private repository)")


def publish(arguments: argparse.Namespace) -> None:
    """Checks, prepares, lists, and uploads if a repository is named."""
    os.environ["TRANSFORMERS_VERBOSITY"] = "error"
    if not sys.stderr.isatty():
        os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"

    from ecg_grpo.finished_run import read_finished_run, refuse_if_changed, refuse_if_untrained
    from ecg_grpo.model_card import check_repository, read_statement, refuse_if_another_base
    from ecg_grpo.publishing import listed, parts_of, prepare, require_token, upload
    from ecg_grpo.trained_models import named_run, newest_run

    statement = read_statement(arguments.license, arguments.data_license, arguments.base_model)
    if arguments.public and not arguments.upload:
        raise InputError("--public", "says nothing without --upload", "Name the repository with --upload OWNER/NAME.")
    if arguments.upload:
        check_repository(arguments.upload, "--upload")
        require_token()
    run = read_finished_run(named_run(arguments.run) if arguments.run else newest_run())
    parts = parts_of(run, arguments.only)
    refuse_if_another_base(run, statement)
    refuse_if_changed(run)
    refuse_if_untrained(run)

    folders = {}
    for part in parts:
        repository = arguments.upload and f"{arguments.upload}{'-adapter' if part == 'adapter' else ''}"
        folder = prepare(run, part, statement, TEMPLATE, MACROS, repository, run.folder / "export/hub")
        folders[repository or part] = folder
        files = listed(folder)
        print(f"{folder}: {len(files)} files, {sum(size for size, _ in files.values()):,} bytes")
        for name, (size, digest) in files.items():
            print(f"  {digest}  {size:>14,}  {name}")
    if not arguments.upload:
        print("Nothing was uploaded. Read each README.md, then name a repository with --upload OWNER/NAME.")
        return
    for repository, commit in upload(folders, arguments.public, f"GRPO model of run {run.folder.name}").items():
        print(f"{repository}: {commit}")


if __name__ == "__main__":
    try:
        publish(parser.parse_args())
    except InputError as error:
        sys.exit(f"publish: error: {error}")
    except OSError as error:
        sys.exit(f"publish: error: {error.filename or 'file system'}: {error.strerror or error}")
    except KeyboardInterrupt:
        sys.exit(130)
