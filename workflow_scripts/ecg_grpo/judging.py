"""What a judge is asked, how its replies are read, and what follows from two verdicts on one pair.

A language model as a judge follows Zheng et al. 2023, "Judging LLM-as-a-Judge with MT-Bench and Chatbot Arena"
(arXiv 2306.05685): grades of single answers with a reference, and pairs in both orders, where an answer wins only if it does
in both.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from string import Template
from typing import Any, Literal

from ecg_grpo.errors import InputError
from ecg_grpo.prompts import Message

CRITERIA = ("accuracy", "completeness", "clarity")
"""What a single answer is graded by, from 1 to 5."""

Verdict = Literal["A", "B", "tie"]
Outcome = Literal["win", "tie", "loss", "inconsistent"]

RUBRIC_TEXTS = ("question", "reference", "answer")
PAIR_TEXTS = ("question", "reference", "answer_a", "answer_b")
"""The texts that each prompt shows, as its placeholders name them."""

_MARKS = str.maketrans({"⟦": "[", "⟧": "]", "〚": "[", "〛": "]"})
_TAG_BEGINS = re.compile(r"<(?=[|｜/!A-Za-z_])|\[(?=/?[A-Z_]+\])")
_THOUGHTS = re.compile(r"\s*<think>.*?</think>", re.DOTALL)
_FENCED = re.compile(r"```(?:json)?\s*\n(.*)\n\s*```", re.DOTALL)


def neutralized(text: str) -> str:
    """A text that nobody vouches for, so that it can neither end its block nor begin a turn of the chat.

    The brackets of the delimiters become plain ones. `<` before a letter, a bar or a slash, and `[` of a capitalized tag, get
    a space behind them: some servers take `<|im_end|>`, `</s>` or `[INST]` for the special token also where a user wrote it.
    `< 120 ms` stays as it is. Control and format characters, which a reader would not see, vanish.
    """
    text = text.translate(_MARKS)
    text = "".join(character for character in text if character in "\n\t" or unicodedata.category(character)[0] != "C")
    return _TAG_BEGINS.sub(lambda found: f"{found[0]} ", text)


class JudgePrompt:
    """A prompt with placeholders for criteria and texts."""

    def __init__(self, file: Path, texts: Collection[str], criteria: Mapping[str, str]) -> None:
        """
        Args:
            file: the prompt, with `$name` for each criterion and text and `$code` for the code of the delimiters.
            texts: names of the texts.
            criteria: their definitions by name.

        Raises:
            InputError: a placeholder is missing or unknown.
        """
        content = file.read_text(encoding="utf-8")
        self._template, self._criteria = Template(content), dict(criteria)
        expected = {"code", *texts, *criteria}
        found = set(self._template.get_identifiers())
        if not self._template.is_valid() or found != expected:
            wrong = [f"lacks ${name}" for name in sorted(expected - found)]
            wrong += [f"has an unknown ${name}" for name in sorted(found - expected)]
            raise InputError(file, ", ".join(wrong) or "has a lone $", "Mend the prompt; $$ writes a dollar sign.")

    def messages(self, **texts: str) -> list[Message]:
        """The messages that ask the judge.

        Each text stands between two delimiters with a code that is a hash of all texts: an answer that was to hold it would
        have to contain its own hash. The same texts give the same messages.

        Args:
            texts: by name; they may hold anything.
        """
        shown = {name: neutralized(text).strip() or "(empty)" for name, text in texts.items()}
        code = hashlib.sha256(json.dumps(texts, sort_keys=True).encode()).hexdigest()[:12]
        blocks = {name: f"⟦BEGIN {_title(name)} {code}⟧\n{text}\n⟦END {_title(name)} {code}⟧" for name, text in shown.items()}
        # In one pass: a `$answer` in a text stays what it is.
        return [{"role": "user", "content": self._template.substitute(self._criteria, code=code, **blocks).strip()}]


def _title(name: str) -> str:
    return name.replace("_", " ").upper()


def read_grades(text: str) -> dict[str, int] | None:
    """The grades of a reply, 1 to 5 by criterion; None if it is not exactly what was asked for."""
    content = _read_object(text)
    if content is None or content.keys() != {*CRITERIA, "why"} or not isinstance(content["why"], str):
        return None
    grades = {name: content[name] for name in CRITERIA}
    if any(type(grade) is not int or not 1 <= grade <= 5 for grade in grades.values()):  # True is no grade
        return None
    return grades


def read_verdict(text: str) -> Verdict | None:
    """The verdict of a reply; None if it is not exactly what was asked for."""
    content = _read_object(text)
    if content is None or content.keys() != {"verdict", "why"} or not isinstance(content["why"], str):
        return None
    return content["verdict"] if content["verdict"] in ("A", "B", "tie") else None


def _read_object(text: str) -> dict[str, Any] | None:
    """The one JSON object that a reply is, behind `<think>…</think>` or fenced, if need be; None for anything else."""
    text = _THOUGHTS.sub("", text, count=1) if _THOUGHTS.match(text) else text
    text = text.strip()
    fenced = _FENCED.fullmatch(text)
    try:
        content = json.loads(fenced[1] if fenced else text, object_pairs_hook=_each_key_once)
    except (ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def _each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) < len(pairs):
        raise ValueError("a key stands there twice")
    return dict(pairs)


def scaled(grade: int) -> float:
    """A grade from 1 to 5 as a score from 0 to 1."""
    return (grade - 1) / 4


def outcome(first: Verdict | None, second: Verdict | None) -> Outcome | None:
    """What two verdicts on a system's answer and another's come to.

    Args:
        first: the verdict when the system's answer stood first, as A.
        second: when it stood second, as B.

    Returns:
        `win`, `loss` or `tie` if both say so, `inconsistent` if they disagree (it counts as a tie), None if one was unreadable.
    """
    if first is None or second is None:
        return None
    agreed: dict[tuple[Verdict, Verdict], Outcome] = {("A", "B"): "win", ("B", "A"): "loss", ("tie", "tie"): "tie"}
    return agreed.get((first, second), "inconsistent")


def proportion(count: int, of: int) -> dict[str, float | int | None]:
    """A share with its 95 % interval (Wilson 1927).

    Returns:
        `share`, `low`, `high`, from 0 to 1, and `of`; the first three are None where there is nothing to take a share of.
    """
    if not of:
        return {"share": None, "low": None, "high": None, "of": 0}
    from scipy.stats import binomtest

    interval = binomtest(count, of).proportion_ci(0.95, method="wilson")
    return {"share": count / of, "low": float(interval.low), "high": float(interval.high), "of": of}


def summarize(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the verdicts on pairs of answers come to.

    Args:
        rows: `first`, `second` and `outcome` of each record.

    Returns:
        records: with two readable verdicts; `unreadable` are the others.
        wins, ties, losses: of these records; `ties` holds the `inconsistent` ones.
        win_rate, loss_rate, inconsistent_rate: shares of these records.
        same_position: records in which one position won in both orders, by position.
        first_position_rate: of all verdicts that named an answer, the share that named the one that stood first. Without
            position bias it is one half, whatever the answers are. Its interval takes the two verdicts of a record for
            independent.
    """
    judged = [row for row in rows if row["outcome"] is not None]
    outcomes = Counter(row["outcome"] for row in judged)
    verdicts = [verdict for row in judged for verdict in (row["first"], row["second"]) if verdict != "tie"]
    both = Counter((row["first"], row["second"]) for row in judged)
    return {
        "records": len(judged),
        "unreadable": len(rows) - len(judged),
        "wins": outcomes["win"],
        "ties": outcomes["tie"] + outcomes["inconsistent"],
        "losses": outcomes["loss"],
        "inconsistent": outcomes["inconsistent"],
        "win_rate": proportion(outcomes["win"], len(judged)),
        "loss_rate": proportion(outcomes["loss"], len(judged)),
        "inconsistent_rate": proportion(outcomes["inconsistent"], len(judged)),
        "same_position": {"first": both["A", "A"], "second": both["B", "B"]},
        "first_position_rate": proportion(verdicts.count("A"), len(verdicts)),
    }


def same_model(one: str, other: str) -> bool:
    """Whether two names are one model's, whoever it is published or wherever it is stored by."""
    return one.rstrip("/").rsplit("/", 1)[-1].casefold() == other.rstrip("/").rsplit("/", 1)[-1].casefold()
