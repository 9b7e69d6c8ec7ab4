"""Replies of a served model, each kept as soon as it has arrived."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from pathlib import Path

from ecg_grpo.endpoint import Endpoint, Reply
from ecg_grpo.journal import Journal
from ecg_grpo.progress import StageProgress
from ecg_grpo.prompts import Message
from ecg_grpo.settings.endpoint import EndpointSettings
from ecg_grpo.stage import Stage

_SECONDS_BETWEEN_STEPS = 1.0


def kept_replies(root: Path | None, stage: str, settings: EndpointSettings, max_new_tokens: int) -> Replies:
    """What a model has said to a stage before. The file stays: whoever asks the same of the same model gets it without asking.

    Args:
        root: folder for unfinished work of one run; None keeps nothing.
        stage: who asks.
        settings: whom.
        max_new_tokens: longest reply.
    """
    if root is None:
        return Replies(None)
    asked = hashlib.sha256(f"{settings.identity()} {max_new_tokens}".encode()).hexdigest()[:16]
    root.mkdir(parents=True, exist_ok=True)
    return Replies(root / f"{stage}-{asked}.jsonl")


def name_of(prompt: list[Message]) -> str:
    """A prompt's name: one prompt, one reply."""
    return hashlib.sha256(json.dumps(prompt, sort_keys=True).encode()).hexdigest()


class Replies:
    """Replies by the name of their prompt.

    Attributes:
        found: those of an earlier run and of this one.
    """

    def __init__(self, file: Path | None) -> None:
        """
        Args:
            file: what an earlier run may have left; None keeps nothing on disk.
        """
        self._journal = Journal(file)
        self.found = {entry["prompt"]: Reply(**entry["reply"]) for entry in self._journal.entries}

    def add(self, name: str, reply: Reply) -> None:
        """Keeps one more reply.

        Raises:
            InputError: it cannot be written.
        """
        self._journal.add({"prompt": name, "reply": vars(reply)})
        self.found[name] = reply


def ask_for_all(endpoint: Endpoint, prompts: Mapping[str, list[Message]], replies: Replies, stage: Stage) -> None:
    """Asks for every reply that is not there yet, and shows how far it is.

    Args:
        endpoint: whom to ask.
        prompts: messages by a name of the prompt; the name decides which earlier reply stands for it.
        replies: what was found; grows.
        stage: for the log, and for the provenance: `asked`, `answered_before`, `failed_attempts`.

    Raises:
        InputError: see `Endpoint.ask_all`.
    """
    missing = {name: messages for name, messages in prompts.items() if name not in replies.found}
    before = len(prompts) - len(missing)
    if before:
        stage.say(f"{stage.name}: {before} of {len(prompts)} prompts were answered before; going on")
    stage.facts |= {"asked": len(missing), "answered_before": before}
    done, tokens, shown = before, 0, float("-inf")
    with StageProgress(stage, len(prompts), before) as progress:
        for name, reply in endpoint.ask_all(missing):
            replies.add(name, reply)
            done, tokens = done + 1, tokens + (reply.completion_tokens or 0)
            if time.monotonic() - shown >= _SECONDS_BETWEEN_STEPS or done == len(prompts):
                progress.step(done, f"{tokens} tokens")
                shown = time.monotonic()
    stage.facts["failed_attempts"] = endpoint.failed_attempts
