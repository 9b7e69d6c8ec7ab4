"""Pairs of a better and a worse answer to one question, made from the reference answers.

The better one is the reference, or a paraphrase of it. The worse ones are hard on purpose: most have the reference's length,
words and style, and some are shorter, some longer, so that neither length nor form tells them apart.

Kinds of worse answers:
    polarity, numbers, direction, side, lead, drug, disease: the answer with one fact turned (`ecg_grpo.counterfactuals`).
    other_answer: the reference of the most similar question of the same task that lies in another near-duplicate group.
    echo: the question as a statement.
    fragment: the first few words.
    fluent_nonsense: sentences of several other references of the same task, as many as in the reference or one more.
    repetition: the first third of the words, again and again up to once or twice the reference's length.
    sft_sample: a completion of the SFT model that is unlike the reference in content.
"""

from __future__ import annotations

import math
import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pyarrow as pa
from sklearn.feature_extraction.text import TfidfVectorizer

from ecg_grpo.counterfactuals import COUNTERFACTUALS, Change, Counterfactual, paraphrase
from ecg_grpo.errors import InputError
from ecg_grpo.prompts import extract_prediction
from ecg_grpo.rewards import Case, RewardMix
from ecg_grpo.settings.reward_model import PairSettings
from ecg_grpo.tables import MESSAGES, read_rows

PREFERENCE_PAIRS = pa.schema(
    [
        ("id", pa.string()),
        ("task", pa.string()),
        ("cluster", pa.string()),
        ("prompt", MESSAGES),
        ("chosen", pa.string()),
        ("rejected", pa.string()),
        ("kind", pa.string()),
        ("paraphrased", pa.string()),
    ]
)
"""A better and a worse answer to the prompt of record `id`; `paraphrased` says which of them is, or is made from, a paraphrase
of the reference: `none`, `chosen`, `rejected` or `both`."""

RECORD_COLUMNS = ("id", "task", "cluster", "context", "question", "answer", "prompt")
"""What is read of a record."""

LIKENESS = RewardMix({"concept_f1": 1.0, "chrf": 0.5}, {"polarity": 0.2, "numbers": 0.5})
"""How like the reference a completion is in content. Not the run's reward: the reward model may be a part of that, and another
weight there must not train it again."""

SAME_ANSWER = 0.7
"""Another question's answer that shares this much with the reference (F1 of the words) may be right too and is left out."""

_NEIGHBOURS = 8
_MOST_PRODUCTS = 4_000_000
_QUOTES = str.maketrans(dict.fromkeys("“”„‟«»″", '"') | dict.fromkeys("‘’‚‛`´′ʼ", "'"))
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")
_AUXILIARY = (
    "is|are|was|were|does|do|did|can|could|should|would|will|may|might|must|has|have|had|isn't|aren't|doesn't|don't|can't"
)
_ASKING = re.compile(
    rf"^(?:(?:what|which|who|whom|whose|when|where|why|how)(?:(?:'s)?\s+(?:{_AUXILIARY})\b)?|(?:{_AUXILIARY})\b)\s+",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Sample:
    """A sampled completion and its likeness to the reference, 0 to 1."""

    completion: str
    likeness: float


def read_samples(files: Iterable[Path]) -> dict[str, list[Sample]]:
    """Sampled completions by the id of their record. Those that were cut off are left out: a text that breaks off is told from
    a whole one without reading it.

    Args:
        files: tables of `tables.SAMPLED_ANSWERS`.

    Raises:
        InputError: a file is not parquet or lacks a column.
    """
    samples: dict[str, list[Sample]] = defaultdict(list)
    for file in files:
        rows = read_rows(file, "id", "question", "answer", "completion", "finish_reason")
        whole = [row for row in rows if row["finish_reason"] != "length"]
        likeness = LIKENESS.rewards([Case(row["completion"], row["answer"], row["question"]) for row in whole])
        for row, like in zip(whole, likeness, strict=True):
            samples[row["id"]].append(Sample(row["completion"], like))
    return dict(samples)


def normal(text: str) -> str:
    """A text without what does not make an answer another one: case, spaces, the shape of quotation marks."""
    return " ".join(text.translate(_QUOTES).casefold().split())


def preference_pairs(
    records: Sequence[Mapping[str, Any]],
    settings: PairSettings,
    samples: Mapping[str, Sequence[Sample]] | None = None,
    held_out: bool = False,
    counterfactuals: Mapping[str, Counterfactual] = COUNTERFACTUALS,
    paraphrases: Change = paraphrase,
) -> list[dict[str, Any]]:
    """Pairs of every record, in the records' order and in that of `settings.kinds`.

    What is drawn for a record depends on the seed, its id and the other records, never on their order. A pair whose two texts
    are equal but for case, spaces and quotation marks is left out, as is a worse answer that equals the reference.

    Args:
        records: RECORD_COLUMNS of the records of one split.
        settings: section `reward_model.pairs`.
        samples: sampled completions by record id; ids that are not among the records are passed over.
        held_out: every kind that applies, instead of at most `max_negatives` of a record.
        counterfactuals: ways to turn one fact of an answer, by kind.
        paraphrases: says an answer in other words.

    Returns:
        Rows of `PREFERENCE_PAIRS`.
    """
    negatives = _Negatives(records, settings, samples or {}, counterfactuals)
    of_records = []
    for index, record in enumerate(records):
        reworded = paraphrases(record["answer"], record["question"])
        if reworded is not None and normal(reworded) in ("", normal(record["answer"])):
            reworded = None
        pairs = (_pair(negatives, index, kind, reworded, settings) for kind in settings.kinds)
        of_records.append([pair for pair in pairs if pair is not None])
    if not held_out:
        applies = Counter(pair["kind"] for pairs in of_records for pair in pairs)
        of_records = [_drawn(pairs, applies, settings) for pairs in of_records]
    return [pair for pairs in of_records for pair in pairs]


def account(pairs: Sequence[Mapping[str, Any]], records: int) -> dict[str, Any]:
    """What was made, and whether length would give it away.

    Returns:
        `records`, `records_without_a_pair`; `all`, and `kinds`: kind → `pairs`, mean number of words of the better and the
        worse text, share of the pairs whose better text has more words (equal ones count half); `paraphrased`: pairs each.
    """
    kinds: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for pair in pairs:
        kinds[pair["kind"]].append(pair)
    return {
        "records": records,
        "records_without_a_pair": records - len({pair["id"] for pair in pairs}),
        "all": _lengths(pairs),
        "kinds": {kind: _lengths(of_kind) for kind, of_kind in sorted(kinds.items())},
        "paraphrased": dict(sorted(Counter(pair["paraphrased"] for pair in pairs).items())),
    }


def require_pairs(where: Path, pairs: Sequence[Mapping[str, Any]]) -> None:
    """Refuses a split of which no pair could be made.

    Raises:
        InputError: there is none.
    """
    if not pairs:
        raise InputError(where, "no preference pair can be made of it", "Name more reward_model.pairs.kinds, or add records.")


def as_statement(question: str) -> str:
    """The question without its question words, as a sentence that asks nothing: a reply that only echoes."""
    text = question.strip().rstrip("?!. \t\n")
    text = _ASKING.sub("", text, count=1) or text
    return f"{text[:1].upper()}{text[1:]}." if text else ""


def fragment(answer: str, words: int) -> str | None:
    """The first so many words; None if the answer has not twice as many."""
    found = answer.split()
    return " ".join(found[:words]).rstrip(",;:.") if len(found) >= 2 * words else None


def repetition(answer: str, length: float) -> str | None:
    """The first third of the words, again and again.

    Args:
        answer: the text; None comes of one without words.
        length: words of the result, at least three, relative to those of the answer.
    """
    words = answer.split()
    if not words:
        return None
    phrase = words[: math.ceil(len(words) / 3)]
    total = max(3, round(length * len(words)))
    return " ".join(phrase[place % len(phrase)] for place in range(total))


class _Negatives:
    """Worse answers of every kind to the questions of some records."""

    def __init__(
        self,
        records: Sequence[Mapping[str, Any]],
        settings: PairSettings,
        samples: Mapping[str, Sequence[Sample]],
        counterfactuals: Mapping[str, Counterfactual],
    ) -> None:
        self.records, self.counterfactuals = records, counterfactuals
        self._settings, self._samples = settings, samples
        self._of_task: dict[str, list[int]] = defaultdict(list)
        for index in sorted(range(len(records)), key=lambda index: records[index]["id"]):
            self._of_task[records[index]["task"]].append(index)
        self._neighbours = _nearest_others(records, self._of_task) if "other_answer" in settings.kinds else {}

    def make(self, index: int, kind: str, answer: str) -> str | None:
        """A worse answer than `answer`, which is the record's reference or a paraphrase; None where the kind does not apply."""
        record = self.records[index]
        if kind in self.counterfactuals:
            return self.counterfactuals[kind].change(answer, record["question"])
        if kind == "other_answer":
            return self._other_answer(index)
        if kind == "echo":
            return as_statement(record["question"])
        if kind == "fragment":
            return fragment(answer, self._settings.fragment_words)
        if kind == "fluent_nonsense":
            return self._fluent_nonsense(index)
        if kind == "repetition":
            return repetition(answer, 1 + _chance(self._settings.seed, record["id"], kind).random())
        if kind == "sft_sample":
            return self._sample(record["id"])
        raise ValueError(f"no such kind: {kind}")

    def _other_answer(self, index: int) -> str | None:
        reference = self.records[index]["answer"]
        others = (self.records[other]["answer"] for other in self._neighbours.get(index, ()))
        return next((other for other in others if _shared_words(other, reference) < SAME_ANSWER), None)

    def _fluent_nonsense(self, index: int) -> str | None:
        record = self.records[index]
        others = [other for other in self._of_task[record["task"]] if self.records[other]["cluster"] != record["cluster"]]
        chance = _chance(self._settings.seed, record["id"], "fluent_nonsense")
        wanted = max(2, len(_sentences(record["answer"])) + chance.randrange(2))
        if len(others) < wanted:
            return None
        chosen = chance.sample(others, wanted)
        return " ".join(chance.choice(_sentences(self.records[other]["answer"]) or [""]) for other in chosen).strip()

    def _sample(self, id: str) -> str | None:
        weak = sorted(
            {
                text
                for sample in self._samples.get(id, ())
                if sample.likeness <= self._settings.max_sample_reward and (text := extract_prediction(sample.completion))
            }
        )
        return _chance(self._settings.seed, id, "sft_sample").choice(weak) if weak else None


def _pair(negatives: _Negatives, index: int, kind: str, reworded: str | None, settings: PairSettings) -> dict[str, Any] | None:
    """The record's pair of a kind, or None."""
    record = negatives.records[index]
    reference = record["answer"]
    chance = _chance(settings.seed, record["id"], kind, "paraphrase")
    chosen_is_reworded, rejected_is_reworded = (chance.random() < settings.paraphrase_share for _ in range(2))
    paraphrased = []
    chosen, rejected = reference, None
    if reworded is not None and chosen_is_reworded:
        chosen = reworded
        paraphrased.append("chosen")
    # A paraphrase must not be a sign of the better answer, so that facts of paraphrases are turned too.
    if reworded is not None and rejected_is_reworded and kind in negatives.counterfactuals:
        rejected = negatives.make(index, kind, reworded)
        if rejected is not None:
            paraphrased.append("rejected")
    if rejected is None:
        rejected = negatives.make(index, kind, reference)
    right = {normal(reference), normal(chosen), *([] if reworded is None else [normal(reworded)])}
    if rejected is None or normal(rejected) in right | {""} or not normal(chosen):
        return None
    return {
        "id": record["id"],
        "task": record["task"],
        "cluster": record["cluster"],
        "prompt": record["prompt"],
        "chosen": chosen,
        "rejected": rejected,
        "kind": kind,
        "paraphrased": "both" if len(paraphrased) == 2 else "".join(paraphrased) or "none",
    }


def _drawn(pairs: list[dict[str, Any]], applies: Counter[str], settings: PairSettings) -> list[dict[str, Any]]:
    """At most `max_negatives` of a record's pairs, without replacement, weighted by how rare their kind is.

    The keys are those of Efraimidis & Spirakis (2006), https://doi.org/10.1016/j.ipl.2005.11.003.
    """

    def key(pair: dict[str, Any]) -> float:
        # -log(u) / weight with weight 1 / number of records that the kind applies to; the smallest are taken
        return -math.log(1 - _chance(settings.seed, pair["id"], pair["kind"], "draw").random()) * applies[pair["kind"]]

    kept = {pair["kind"] for pair in sorted(pairs, key=key)[: settings.max_negatives]}
    return [pair for pair in pairs if pair["kind"] in kept]


def _nearest_others(records: Sequence[Mapping[str, Any]], of_task: Mapping[str, list[int]]) -> dict[int, list[int]]:
    """For each record those of its task and of other near-duplicate groups whose questions are most like it, nearest first.

    Likeness is the TF-IDF cosine of context and question together (character 3- to 5-grams inside words).
    """
    found: dict[int, list[int]] = {}
    for indices in of_task.values():
        vectors = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 5), sublinear_tf=True)
        try:
            matrix = vectors.fit_transform(f"{records[index]['context']} {records[index]['question']}" for index in indices)
        except ValueError:  # no question has a character n-gram
            continue
        clusters = np.array([records[index]["cluster"] for index in indices], dtype=object)
        block = max(1, _MOST_PRODUCTS // len(indices))
        for start in range(0, len(indices), block):
            cosines = (matrix[start : start + block] @ matrix.T).toarray()
            for row, cosine in enumerate(cosines):
                cosine[clusters == clusters[start + row]] = -1
                nearest = np.argsort(-cosine, kind="stable")[:_NEIGHBOURS]
                found[indices[start + row]] = [indices[place] for place in nearest if cosine[place] >= 0]
    return found


def _shared_words(one: str, other: str) -> float:
    """F1 of the sets of words of two texts; 1 for two without any."""
    words, others = set(re.findall(r"\w+", one.casefold())), set(re.findall(r"\w+", other.casefold()))
    return 2 * len(words & others) / (len(words) + len(others)) if words or others else 1.0


def _sentences(text: str) -> list[str]:
    return [sentence for sentence in _SENTENCE_END.split(text.strip()) if sentence]


def _chance(seed: int, *names: str) -> random.Random:
    return random.Random("\0".join([str(seed), *names]))


def _lengths(pairs: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    counts = [(len(pair["chosen"].split()), len(pair["rejected"].split())) for pair in pairs]
    if not counts:
        return {"pairs": 0}
    return {
        "pairs": len(counts),
        "mean_words_chosen": round(fmean(chosen for chosen, _ in counts), 2),
        "mean_words_rejected": round(fmean(rejected for _, rejected in counts), 2),
        "chosen_is_longer": round(fmean((chosen > rejected) + (chosen == rejected) / 2 for chosen, rejected in counts), 4),
    }
