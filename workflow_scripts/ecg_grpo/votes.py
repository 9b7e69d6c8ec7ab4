"""What people think of answers in a chat, kept as pairs of a better and a worse answer that the reward model can train on."""

from __future__ import annotations

import fcntl
import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ecg_grpo.conversation import Turn
from ecg_grpo.errors import InputError
from ecg_grpo.journal import Journal
from ecg_grpo.preference_pairs import PREFERENCE_PAIRS
from ecg_grpo.tables import write_table


class Votes:
    """Votes in a file, one a line, and beside it the pairs that follow from them. Several pages may vote at once."""

    def __init__(self, folder: Path) -> None:
        """
        Args:
            folder: where `votes.jsonl` and `preference_pairs.parquet` are, or will be.

        Raises:
            InputError: the votes that are there cannot be read.
        """
        self._file = folder / "votes.jsonl"
        self._pairs = folder / "preference_pairs.parquet"
        self._journal()

    def add(self, turn: Turn, liked: bool | None) -> int:
        """Keeps one more vote on an answer; a later one on the same answer takes the place of an earlier one.

        Args:
            turn: the answer.
            liked: None takes the vote back.

        Returns:
            How many pairs there are now.

        Raises:
            InputError: it cannot be written.
        """
        vote = {
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "prompt": turn.prompt,
            "completion": turn.completion,
            "prediction": turn.prediction,
            "liked": liked,
            "model": turn.model.name,
            "model_identity": turn.model.identity,
            **vars(turn.sampling),
        }
        try:
            with self._file.open("ab") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                journal = self._journal()  # with what other pages have added
                journal.add(vote)
                pairs = pairs_of(journal.entries)
                write_table(self._pairs, pairs, PREFERENCE_PAIRS, {"source": "votes"})
        except OSError as error:
            file = error.filename or self._pairs
            raise InputError(file, error.strerror or str(error), "Make room and vote again.") from None
        return len(pairs)

    def _journal(self) -> Journal:
        journal = Journal(self._file)
        for number, vote in enumerate(journal.entries, 1):
            if not isinstance(vote, dict) or not vote.keys() >= {"prompt", "prediction", "liked"}:
                raise InputError(f"{self._file}, line {number}", "is no vote", "Delete the line, or the file.")
        return journal


def pairs_of(votes: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Every liked answer with every disliked one to the same prompt, as `preference_pairs.PREFERENCE_PAIRS`; as everywhere the
    reward model reads answers without their reasoning.

    Args:
        votes: in the order in which they were given; the last one on an answer counts.
    """
    last = {(json.dumps(vote["prompt"], sort_keys=True), vote["prediction"]): vote for vote in votes}
    by_prompt: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for (prompt, _), vote in last.items():
        by_prompt[prompt].append(vote)
    pairs = []
    for prompt, given in by_prompt.items():
        name = f"chat-{hashlib.sha256(prompt.encode()).hexdigest()[:12]}"
        for better in (vote for vote in given if vote["liked"] is True):
            for worse in (vote for vote in given if vote["liked"] is False):
                texts = {"chosen": better["prediction"], "rejected": worse["prediction"]}
                pairs.append(
                    {"id": name, "task": "chat", "cluster": name, "prompt": better["prompt"], "kind": "vote"}
                    | {"paraphrased": "none"}
                    | texts
                )
    return pairs
