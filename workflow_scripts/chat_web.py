"""Talks to the models of a run on a local page: side by side, with votes and the nearest training record.

    python workflow_scripts/chat_web.py                # the newest finished run, on http://127.0.0.1:7860
    python workflow_scripts/chat_web.py --run mine --port 8080
    python workflow_scripts/chat_web.py --host 0.0.0.0 # for others too: asks for a token, which it prints

Votes go to results/<run>/chat/: votes.jsonl, and preference_pairs.parquet for the reward model.
"""

from __future__ import annotations

import argparse
import os
import secrets
import sys
import threading
from typing import TYPE_CHECKING

from ecg_grpo.errors import InputError, check_range

if TYPE_CHECKING:
    from ecg_grpo.trained_models import TrainedModel

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--run", help="name of the run (default: the one that was finished last)")
parser.add_argument("--model", action="append", metavar="DIR|URL", help="a further model to ask; may be given several times")
parser.add_argument("--served-model", metavar="NAME", help="what a server calls its model (default: the first it lists)")
parser.add_argument("--api-key-env", metavar="NAME", help="environment variable with the server's key")
parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1, this machine alone)")
parser.add_argument("--port", type=int, default=7860, help="port to listen on (default: 7860)")
parser.add_argument(
    "--token-env", metavar="NAME", help="environment variable with the token that others log in with (default: a new one)"
)
parser.add_argument("--max-new-tokens", type=int, default=256, help="longest answer in tokens at first (default: 256)")
parser.add_argument("--threads", type=int, default=os.cpu_count(), help="processor threads to use (default: all)")

USER = "ecg"
"""The name to log in with beside the token."""


def chat_web(arguments: argparse.Namespace) -> None:
    """Serves the page until Ctrl-C."""
    from ecg_grpo.tables import read_rows
    from ecg_grpo.trained_models import find_model, models_of, named_run, newest_run, records_of

    check_range("--port", arguments.port, 0, 65_535)
    check_range("--max-new-tokens", arguments.max_new_tokens, 1, 100_000)
    check_range("--threads", arguments.threads, 1, 1024)
    addresses = [name for name in arguments.model or [] if name.startswith(("http://", "https://"))]
    if len(addresses) > 1 and (arguments.served_model or arguments.api_key_env):
        raise InputError("--served-model, --api-key-env", f"{len(addresses)} servers are named", "Name one of them.")
    run = named_run(arguments.run) if arguments.run else newest_run()
    names = [*(arguments.model or []), *models_of(run)]
    if not names:
        raise InputError(run, "this run has no model yet", "Run snakemake to its end.")

    def find(choice: str) -> TrainedModel:
        return find_model(choice, run, arguments.served_model, arguments.api_key_env)

    for name in names:
        find(name)  # what cannot answer is said now
    records = records_of(run)
    token = _token(arguments)
    os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}

    from ecg_grpo.chat_models import LoadedModels
    from ecg_grpo.votes import Votes
    from ecg_grpo.web_chat import LAUNCH, WebChat

    models = LoadedModels(find, arguments.threads)
    folder = run / "chat"
    folder.mkdir(parents=True, exist_ok=True)
    train = read_rows(records, "id", "context", "question", "answer") if records else []
    chat = WebChat(f"ECG chat: {run.name}", names, models, train, Votes(folder), arguments.max_new_tokens)
    page = chat.page()
    login = {"auth": (USER, token), "auth_message": "Research software, not for diagnosis."} if token else {}
    for variable in ("no_proxy", "NO_PROXY"):  # the page's own library asks it once whether it is there
        os.environ[variable] = ",".join(filter(None, [os.environ.get(variable), "127.0.0.1", "localhost"]))
    try:
        page.launch(server_name=arguments.host, server_port=arguments.port, prevent_thread_lock=True, **login, **LAUNCH)
    except OSError:
        address = f"{arguments.host}:{arguments.port}"
        raise InputError(address, "cannot be listened on", "Something else may be using it; choose another --port.") from None
    print(f"http://{arguments.host}:{arguments.port}" + (f"  user {USER}, token {token}" if token else ""), flush=True)
    print("Ctrl-C ends it.", flush=True)
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        page.close(verbose=False)


def _token(arguments: argparse.Namespace) -> str | None:
    """What others must know; None where only this machine is served."""
    if arguments.token_env is not None:
        token = os.environ.get(arguments.token_env, "")
        if len(token) < 8:
            raise InputError(f"environment variable {arguments.token_env}", "has no token of 8 characters", "Set it.")
        return token
    return None if arguments.host in ("127.0.0.1", "localhost", "::1") else secrets.token_urlsafe(16)


if __name__ == "__main__":
    try:
        chat_web(parser.parse_args())
    except InputError as error:
        sys.exit(f"chat_web: error: {error}")
    except OSError as error:
        sys.exit(f"chat_web: error: {error.filename or 'file system'}: {error.strerror}")
    except KeyboardInterrupt:
        sys.exit(130)
