"""Talks to a trained model in the terminal.

    python workflow_scripts/chat.py                          # the GRPO model of the newest finished run
    python workflow_scripts/chat.py --model sft --run mine   # or base, sft of a run
    python workflow_scripts/chat.py --model /models/llama    # a model directory
    python workflow_scripts/chat.py --model http://127.0.0.1:8000/v1
    echo "What does a prolonged QT interval mean?" | python workflow_scripts/chat.py   # the answer alone

System prompt and rendering are those of the training. /help lists the commands.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ecg_grpo.errors import InputError, check_range

if TYPE_CHECKING:
    from ecg_grpo.trained_models import TrainedModel

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--model", default="grpo", help="base, sft, grpo, a model directory or a server's address (default: grpo)")
parser.add_argument("--run", help="name of the run (default: the one that was finished last)")
parser.add_argument("--served-model", metavar="NAME", help="what the server calls the model (default: the first it lists)")
parser.add_argument("--api-key-env", metavar="NAME", help="environment variable with the server's key")
parser.add_argument("--system-prompt", type=Path, metavar="FILE", help="another system prompt than that of the training")
parser.add_argument("--temperature", type=float, default=0.0, help="0, the default, takes the likeliest token each time")
parser.add_argument("--max-new-tokens", type=int, default=256, help="longest answer in tokens (default: 256)")
parser.add_argument("--seed", type=int, default=0, help="of drawn answers (default: 0)")
parser.add_argument("--threads", type=int, default=os.cpu_count(), help="processor threads to use (default: all)")


def chat(arguments: argparse.Namespace) -> None:
    """Loads the model and talks, or answers what was piped in."""
    check_range("--temperature", arguments.temperature, 0, 5)
    check_range("--max-new-tokens", arguments.max_new_tokens, 1, 100_000)
    check_range("--seed", arguments.seed, 0, 2**31 - 1)
    check_range("--threads", arguments.threads, 1, 1024)

    from ecg_grpo.trained_models import RESULTS, find_model, models_of, named_run, newest_run

    run = named_run(arguments.run) if arguments.run else None
    if run is None and (arguments.model in ("base", "sft", "grpo") or any(RESULTS.glob("[!.]*/grpo_model/manifest.json"))):
        run = newest_run()

    def find(choice: str) -> TrainedModel:
        if choice == arguments.model:
            return find_model(choice, run, arguments.served_model, arguments.api_key_env)
        return find_model(choice, run)  # another server is not told the first one's key

    find(arguments.model)  # what cannot answer is said before anything is loaded
    prompt = _read(arguments.system_prompt) if arguments.system_prompt else None
    os.environ["TRANSFORMERS_VERBOSITY"] = "error"
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"

    from rich.console import Console

    from ecg_grpo.chat_models import ChatSampling, LoadedModels
    from ecg_grpo.conversation import DISCLAIMER, Conversation
    from ecg_grpo.terminal_chat import TerminalChat, printable

    models = LoadedModels(find, arguments.threads)
    sampling = ChatSampling(arguments.temperature, arguments.max_new_tokens, arguments.seed)
    if not sys.stdin.isatty():
        question = _question()
        model, writer = models[arguments.model]
        conversation = Conversation(prompt or model.system_prompt)
        for _ in conversation.ask(question, model, writer, sampling):
            pass
        print(f"{model.name}: {DISCLAIMER}", file=sys.stderr)
        print(printable(conversation.turns[0].prediction))
        return

    side_by_side = models_of(run) if run else [arguments.model]
    folder = (run or RESULTS) / "chat"
    terminal = TerminalChat(arguments.model, models, side_by_side, prompt, sampling, folder, Console())
    terminal.run(_history())


def _question() -> str:
    """What was piped in."""
    try:
        question = sys.stdin.buffer.read().decode("utf-8").strip()
    except UnicodeDecodeError as error:
        raise InputError("standard input", f"is no UTF-8 text ({error.reason})", "Pipe one in.") from None
    if not question:
        raise InputError("standard input", "holds no question", "Pipe one in.")
    return question


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(file, getattr(error, "strerror", None) or str(error), "Name a text file.") from None


def _history() -> Path | None:
    """The file of the questions that were typed; None where there can be none."""
    file = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state") / "ecg-grpo" / "questions"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.open("ab").close()
    except OSError:
        return None
    return file


if __name__ == "__main__":
    try:
        chat(parser.parse_args())
    except InputError as error:
        sys.exit(f"chat: error: {error}")
    except OSError as error:
        sys.exit(f"chat: error: {error.filename or 'file system'}: {error.strerror or error}")
    except KeyboardInterrupt:
        sys.exit(130)
