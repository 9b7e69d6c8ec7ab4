"""Seconds until a loaded model has written the first word of an answer, as a person in the chat waits for it.

    python benchmarks/chat.py                    # the GRPO model of the newest finished run
    python benchmarks/chat.py --model sft --rounds 20 --threads 2

Each round asks a question of the validation split in a new conversation, greedily, and stops the answer after its first word.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "workflow_scripts"))

from ecg_grpo.chat_models import ChatSampling, load
from ecg_grpo.conversation import Conversation
from ecg_grpo.errors import InputError
from ecg_grpo.tables import read_rows
from ecg_grpo.trained_models import find_model, newest_run


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="grpo", help="base, sft, grpo or a model directory (default: grpo)")
    parser.add_argument("--rounds", type=int, default=20, help="questions (default: 20)")
    parser.add_argument("--threads", type=int, default=2, help="of the processor (default: 2)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where the figures go as JSON")
    options = parser.parse_args()
    try:
        run = newest_run()
        model = find_model(options.model, run)
    except InputError as error:
        parser.exit(1, f"{error}\n")
    started = time.perf_counter()
    writer = load(model, options.threads)
    loading = time.perf_counter() - started
    questions = [row["question"] for row in read_rows(run / "data/validation.parquet", "question")][: options.rounds]
    seconds = []
    for question in questions:
        conversation = Conversation(model.system_prompt)
        pieces = conversation.ask(question, model, writer, ChatSampling())
        next(pieces, None)
        pieces.close()
        seconds.append(conversation.turns[0].seconds_to_first_piece)
    figures = {
        "loading": round(loading, 2),
        "median": statistics.median(seconds),
        "longest": max(seconds),
    }
    print(f"{model.name}: loaded in {figures['loading']} s; {len(seconds)} questions on {options.threads} threads")
    print(f"first word after {figures['median']:.2f} s in the middle, {figures['longest']:.2f} s at most")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
