"""Which of a model's reasonings are worth learning: the cold start for `reasoning: on`.

ECG-Expert-QA has answers without reasonings. A model that is shown question and answer writes the steps that lead there
(rationalization, Zelikman et al. 2022, STaR, arXiv 2203.14465). It is tempted to say the answer in other words, and such a
"reasoning" would make every answer certain and teach nothing but to answer twice. So a reasoning must keep off the reference,
have a sensible form, and still make the reference more probable, to the model itself, than no reasoning does, and than words
that say nothing or the reasoning about another record do: any fluent text makes any answer more probable than none.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from statistics import fmean, median
from string import Template
from typing import Any, Literal, get_args

import pyarrow as pa

from ecg_grpo.concepts import concepts
from ecg_grpo.errors import InputError
from ecg_grpo.prompts import EMPTY_WORDS, Message, conversation, has_tag
from ecg_grpo.quantities import quantities
from ecg_grpo.repetition import distinct_share
from ecg_grpo.settings.bootstrap_reasoning import ReasoningFilterSettings

Refusal = Literal[
    "cut_off",
    "tags",
    "too_short",
    "too_long",
    "repeats_itself",
    "echoes_the_question",
    "speaks_of_the_answer",
    "quotes_the_prompt",
    "quotes_the_answer",
    "no_gain",
]
"""Why a reasoning is refused, in the order in which it is looked at."""

Outcome = Literal["kept", "second_best"] | Refusal
"""What became of a sample; of a record's good ones only that of the highest gain is kept."""

REASONINGS = pa.schema([("id", pa.string()), ("reasoning", pa.string()), ("gain", pa.float64())])
"""One row for every record with a kept reasoning, in the split's order; see `Sample` for `gain`."""

BEATEN = ("no_reasoning", "empty_words", "a_stranger_s")
"""What the `texts_to_beat` of a record are, in their order."""

_WORD = re.compile(r"\w+|[<>≤≥=%]")
_OF_THE_ANSWER = re.compile(
    r"\b(?:answer|repl(?:y|ies|ied)\b|responses?\b(?= (?:is|was|says|states|above))|the cardiologist\b)", re.IGNORECASE
)
"""The answer, or other words for it and its author. Patients respond too."""
_EXAMPLES = 3


class BootstrapPrompt:
    """What asks for the steps from a question to its answer."""

    def __init__(self, file: Path) -> None:
        """
        Args:
            file: text with `$question` and `$answer`.

        Raises:
            InputError: a placeholder is missing or unknown.
        """
        self._template = Template(file.read_text(encoding="utf-8").strip())
        if not self._template.is_valid() or set(self._template.get_identifiers()) != {"question", "answer"}:
            raise InputError(file, "must have $question and $answer and no other placeholder", "$$ writes a dollar sign.")

    @property
    def request(self) -> str:
        """Its own words, without question and answer."""
        return self._template.substitute(question="", answer="")

    def messages(self, prompt: Sequence[Message], reference: str) -> list[Message]:
        """The messages for a record.

        Args:
            prompt: the record's; its system prompt is left out.
            reference: its answer.
        """
        # In one pass: a `$answer` in a question stays what it is.
        content = self._template.substitute(question=conversation(prompt), answer=reference)
        return [{"role": "user", "content": content}]


def refusal(
    reasoning: str, ended: bool, question: str, reference: str, settings: ReasoningFilterSettings, request: str = ""
) -> Refusal | None:
    """Why a reasoning is refused before a model is asked how much it helps; None if it is not.

    Args:
        reasoning: what the model wrote.
        ended: whether the model ended it.
        question: context and question.
        reference: the reference answer.
        settings: the bounds.
        request: the words that asked for the reasoning.
    """
    words = len(reasoning.split())
    if not ended:
        return "cut_off"
    if has_tag(reasoning):
        return "tags"
    if words < settings.min_words:
        return "too_short"
    if words > settings.max_words:
        return "too_long"
    if 1 - distinct_share(reasoning) > settings.max_repetition:
        return "repeats_itself"
    if echoed_share(reasoning, question) > settings.max_echoed_share:
        return "echoes_the_question"
    if _OF_THE_ANSWER.search(reasoning):
        return "speaks_of_the_answer"  # which whoever reasons does not know yet
    if quotes(reasoning, question, request, settings.max_quoted_words):
        return "quotes_the_prompt"  # nobody will have asked for it when the model has learned it
    if quotes(reasoning, question, reference, settings.max_quoted_words) or names_a_number(reasoning, question, reference):
        return "quotes_the_answer"
    if named_share(reasoning, question, reference) > settings.max_named_share:
        return "quotes_the_answer"
    return None


def echoed_share(reasoning: str, question: str) -> float:
    """Share of a reasoning's clinical concepts that the question has already; 1 where it has none at all."""
    said = concepts(reasoning)
    return len(said & concepts(question)) / len(said) if said else 1.0


def names_a_number(reasoning: str, question: str, reference: str) -> bool:
    """Whether a reasoning has a number that the reference has and the question has not: few words, but all of the answer.

    In whichever unit it is written (`quantities`), as the bound of a range or of a comparison too.
    """
    told = _numbers(reference) - _numbers(question)
    return any(size == other and (unit == of or "" in (unit, of)) for size, unit in told for other, of in _numbers(reasoning))


def quotes(reasoning: str, question: str, reference: str, longest: int) -> bool:
    """Whether a reasoning has more than so many words in a row of the reference or another text, or all of a shorter one.

    What the question says too is no quotation.
    """
    expected = _words(reference)
    size = min(longest + 1, len(expected))
    return bool(size and _runs(_words(reasoning), size) & (_runs(expected, size) - _runs(_words(question), size)))


def named_share(reasoning: str, question: str, reference: str) -> float:
    """Share of the reference's clinical concepts (`concepts.concepts`) that the question has not and the reasoning has.

    It sees an answer that is told in other words and another order. 0 where the question has all of them.
    """
    expected = concepts(reference) - concepts(question)
    return len(expected & concepts(reasoning)) / len(expected) if expected else 0.0


@dataclass(frozen=True)
class Sample:
    """A reasoning that a model wrote, and what became of it.

    Attributes:
        record: place of its record.
        text: the reasoning, spaces at both ends taken off.
        outcome: see `Outcome`; None while it is open.
        gain: mean log-probability of the reference's tokens after it, less the highest of those after `texts_to_beat`, in nats;
            None where something else decided.
    """

    record: int
    text: str
    outcome: Outcome | None = None
    gain: float | None = None


def texts_to_beat(samples: Sequence[Sample]) -> dict[int, tuple[str, ...]]:
    """For every record with an open sample the texts that must help its reference less: none, empty words, a stranger's.

    The stranger is the record that is half of all away, where neighbours may ask the same; its first open sample counts. A
    single record has none, and empty words once more.
    """
    first: dict[int, str] = {}
    for sample in samples:
        if sample.outcome is None:
            first.setdefault(sample.record, sample.text)
    records = list(first)
    away = len(records) // 2
    strangers = records[away:] + records[:away]
    return {
        record: ("", EMPTY_WORDS, first[stranger] if stranger != record else EMPTY_WORDS)
        for record, stranger in zip(records, strangers, strict=True)
    }


def choose(samples: Sequence[Sample], gains: Mapping[int, float], min_gain: float) -> list[Sample]:
    """Decides on the samples that are open.

    Args:
        samples: of all records.
        gains: of the open ones, by their places.
        min_gain: a gain must be more.

    Returns:
        The samples in the same order, each with its outcome: for every record at most one is `kept`, the first with the
        highest gain.
    """
    best: dict[int, int] = {}
    for place, gain in sorted(gains.items()):
        record = samples[place].record
        if gain > min_gain and (record not in best or gain > gains[best[record]]):
            best[record] = place
    decided = list(samples)
    for place, gain in gains.items():
        sample = samples[place]
        outcome: Outcome = "no_gain"
        if gain > min_gain:
            outcome = "kept" if best[sample.record] == place else "second_best"
        decided[place] = replace(sample, outcome=outcome, gain=gain)
    return decided


def account(samples: Sequence[Sample], records: Sequence[Mapping[str, Any]], in_split: int) -> dict[str, Any]:
    """What was kept and refused.

    Args:
        samples: decided.
        records: those that were asked about, with `id`, `question`, `answer`.
        in_split: records of the split.

    Returns:
        `records`: `in_split`, `asked`, `kept`; `samples`: how many there are of each outcome, which are all of them; `gain`:
        mean, median, least and greatest of those that were scored and of the kept ones; `words`: mean number of the kept
        ones'; `examples`: some of each outcome, from different records.
    """
    outcomes = get_args(Literal["kept", "second_best"]) + get_args(Refusal)
    kept = [sample for sample in samples if sample.outcome == "kept"]
    examples: dict[str, list[dict[str, Any]]] = {outcome: [] for outcome in outcomes}
    shown: set[tuple[Outcome | None, int]] = set()
    for sample in samples:
        if (sample.outcome, sample.record) in shown or len(examples[str(sample.outcome)]) == _EXAMPLES:
            continue
        shown.add((sample.outcome, sample.record))
        record = {name: records[sample.record][name] for name in ("id", "question", "answer")}
        examples[str(sample.outcome)].append(record | {"reasoning": sample.text, "gain": sample.gain})
    return {
        "records": {"in_split": in_split, "asked": len(records), "kept": len(kept)},
        "samples": {outcome: sum(sample.outcome == outcome for sample in samples) for outcome in outcomes},
        "gain": {"scored": _summary([sample.gain for sample in samples]), "kept": _summary([sample.gain for sample in kept])},
        "words": fmean(len(sample.text.split()) for sample in kept) if kept else None,
        "examples": {outcome: found for outcome, found in examples.items() if found},
    }


def _summary(values: Sequence[float | None]) -> dict[str, float] | None:
    known = [value for value in values if value is not None]
    if not known:
        return None
    return {"mean": fmean(known), "median": median(known), "least": min(known), "greatest": max(known)}


def _numbers(text: str) -> set[tuple[Fraction, str]]:
    return {(bound, quantity.unit) for quantity in quantities(text) for bound in (quantity.low, quantity.high)}


def _words(text: str) -> list[str]:
    return _WORD.findall(text.casefold())


def _runs(words: Sequence[str], size: int) -> set[tuple[str, ...]]:
    return {tuple(words[start : start + size]) for start in range(len(words) - size + 1)}
