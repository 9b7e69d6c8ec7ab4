"""What people think of answers in a chat, kept as pairs of a better and a worse answer that the reward model can train on."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ecg_grpo.conversation import Turn
from ecg_grpo.errors import InputError
from ecg_grpo.journal import Journal
from ecg_grpo.preference_pairs import PREFERENCE_PAIRS
from ecg_grpo.tables import write_table


class Votes:
    """Votes in a file, one a line, and beside it the pairs that follow from them."""

    def __init__(self, folder: Path) -> None:
        """
        Args:
            folder: where `votes.jsonl` and `preference_pairs.parquet` are, or will be.

        Raises:
            InputError: the votes that are there cannot be read.
        """
        self._journal = Journal(folder / "votes.jsonl")
        self._pairs = folder / "preference_pairs.parquet"
        self._votes: dict[tuple[str, str], dict[str, Any]] = {}
        for vote in self._journal.entries:
            self._count(vote)

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
        self._journal.add(vote)
        self._count(vote)
        pairs = self.pairs()
        try:
            write_table(self._pairs, pairs, PREFERENCE_PAIRS, {"source": "votes"})
        except OSError as error:
            raise InputError(self._pairs, error.strerror or str(error), "Make room and vote again.") from None
        return len(pairs)

    def pairs(self) -> list[dict[str, Any]]:
        """Every liked answer with every disliked one to the same prompt, as `preference_pairs.PREFERENCE_PAIRS`; as everywhere
        the reward model reads answers without their reasoning.
        """
        by_prompt: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for (prompt, _), vote in self._votes.items():
            by_prompt[prompt].append(vote)
        pairs = []
        for prompt, votes in by_prompt.items():
            name = f"chat-{hashlib.sha256(prompt.encode()).hexdigest()[:12]}"
            for better in (vote for vote in votes if vote["liked"] is True):
                for worse in (vote for vote in votes if vote["liked"] is False):
                    texts = {"chosen": better["prediction"], "rejected": worse["prediction"]}
                    pairs.append(
                        {"id": name, "task": "chat", "cluster": name, "prompt": better["prompt"], "kind": "vote"}
                        | {"paraphrased": "none"}
                        | texts
                    )
        return pairs

    def _count(self, vote: dict[str, Any]) -> None:
        self._votes[json.dumps(vote["prompt"], sort_keys=True), vote["prediction"]] = vote
