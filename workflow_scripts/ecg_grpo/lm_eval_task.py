"""The evaluation as a task of lm-evaluation-harness (Gao et al., https://github.com/EleutherAI/lm-evaluation-harness)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa

from ecg_grpo.tables import MESSAGES
from ecg_grpo.templates import render_text

VERSION = "0.4.13"
"""lm-eval's, with which the task is tested; a test holds it equal to the lock."""

SCORES = ("rouge_l", "rouge_1", "rouge_2", "bleu_1", "bleu_4")
"""What the task reports: the scores of `ecg_grpo.metrics` that need no module of this project."""

QUESTIONS = pa.schema([("id", pa.string()), ("prompt", MESSAGES), ("answer", pa.string())])
"""One row a record: the messages of its prompt, system message first, and its reference."""


def render(template: Path, **variables: Any) -> str:
    """A file of the task's folder.

    Args:
        template: its Jinja template.
        variables: what the template names; one that is missing is an error.
    """
    return render_text(template, version=VERSION, metrics=SCORES, **variables)
