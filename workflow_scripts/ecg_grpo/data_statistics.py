"""Numbers about the prepared records, and what follows from them for whoever trains on them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ecg_grpo.metrics import METRICS
from ecg_grpo.raw_files import BY_CODE, RAW_FILES

QUANTILES = {"p5": 0.05, "p50": 0.5, "p95": 0.95, "p99": 0.99}
LENGTHS = ("answer_tokens", "answer_words", "prompt_tokens")
QUALITY = {name: METRICS[name] for name in ("rouge_l", "bleu_1", "meteor", "token_f1")}

BASELINES = {
    "echo": "the question itself",
    "nearest": "answer of the nearest training question",
    "constant": "one answer for the whole task",
    "random": "random training answer of the task",
}
"""Systems that need no model, in the order of tables."""

ONE_SIDED = 0.8
FEWEST_YES_NO = 20
STRONG_BASELINE = 0.5
SHARE_OFF = 2.0
LARGE_GROUP = 0.05
SMALL_TEST = 30

RULES = {
    "not published": "A raw file is not byte for byte the published one.",
    "absent": f"Any of the {len(RAW_FILES)} raw files is absent.",
    "quarantined": "Any record is kept apart.",
    "contradiction": "Any question is answered both with yes and with no.",
    "one-sided": f"More than {100 * ONE_SIDED:g} % of a task's answers that begin with yes or no begin with the same one "
    f"(tasks with at least {FEWEST_YES_NO} such answers).",
    "missing task": "A task has no record in a split.",
    "small test": f"A task has fewer than {SMALL_TEST} records in the test split, but has some.",
    "share": f"A task's share in a split is more than {SHARE_OFF:g} percentage points from the one asked for, but not zero.",
    "large group": f"A near-duplicate group holds more than {100 * LARGE_GROUP:g} % of all records that were kept.",
    "leakage": "A held-out question has a cosine of 0.8 or more with a training question, or training and a held-out split "
    "share an answer or a subject, or the audit took a sample of the held-out questions.",
    "strong baseline": f"An answer without a model scores more than {STRONG_BASELINE:g} ROUGE-L, overall or on a task.",
}
"""What a reader must know before training: each kind with the rule by which it is listed."""


@dataclass(frozen=True)
class SplitColumns:
    """What the statistics need of a split, one entry a record.

    Attributes:
        task: the task's code.
        lengths: for each name in `LENGTHS` the lengths.
        polarity: `yes`, `no` or None, as the answer begins.
    """

    task: np.ndarray
    lengths: Mapping[str, np.ndarray]
    polarity: np.ndarray


def evenly_spread(size: int, most: int) -> list[int]:
    """At most `most` indices below `size`, evenly spread, in order."""
    return list(range(size)) if size <= most else [place * size // most for place in range(most)]


def shortened(text: str, most: int = 600) -> str:
    """A text of at most `most` characters; one that was cut ends with an ellipsis."""
    return text if len(text) <= most else text[: most - 1] + "…"


def rounded(value: Any) -> Any:
    """The same structure with every float at 4 digits."""
    if isinstance(value, float):
        return round(value, 4)
    if isinstance(value, Mapping):
        return {key: rounded(entry) for key, entry in value.items()}
    return [rounded(entry) for entry in value] if isinstance(value, list | tuple) else value


def task_order(account: Mapping[str, Any]) -> list[str]:
    """The tasks of which something was read: knowledge first, then patients, as `RAW_FILES` has them."""
    return [task for task in BY_CODE if task in account["read"]] + sorted(account["read"].keys() - BY_CODE.keys())


def quantiles(values: np.ndarray) -> dict[str, int]:
    """Smallest, largest and the quantiles between; each is a length that occurs (inverted CDF)."""
    found = np.quantile(values, list(QUANTILES.values()), method="inverted_cdf")
    return {"min": int(values.min()), **dict(zip(QUANTILES, map(int, found), strict=True)), "max": int(values.max())}


def length_table(splits: Mapping[str, SplitColumns], tasks: Sequence[str]) -> list[dict[str, Any]]:
    """For every task and split that has records: how many, and the quantiles of each length."""
    return [
        {"task": task, "split": name, "records": int(chosen.sum())}
        | {length: quantiles(split.lengths[length][chosen]) for length in LENGTHS}
        for task in tasks
        for name, split in splits.items()
        if (chosen := split.task == task).any()
    ]


def histogram(values: Mapping[str, np.ndarray], most_bins: int = 30) -> dict[str, Any]:
    """Counts in bins of one width, the same for each group of values; the last bin also holds all that is longer.

    The width is 1, 2 or 5 times a power of ten, the smallest with which `most_bins` reach the 99th percentile of all.

    Args:
        values: lengths, by group; at least one in all.
        most_bins: at most so many bins.

    Returns:
        `start` of the first bin, `width`, and `counts` by group.
    """
    together = np.concatenate(list(values.values()))
    lowest, top = int(together.min()), int(np.quantile(together, 0.99, method="inverted_cdf"))
    widths = (digit * 10**power for power in range(12) for digit in (1, 2, 5))
    width = next(width for width in widths if top // width - lowest // width < most_bins)
    first, last = lowest // width, top // width
    return {
        "start": first * width,
        "width": width,
        "counts": {
            name: np.bincount(np.minimum(group // width, last) - first, minlength=last - first + 1).tolist()
            for name, group in values.items()
        },
    }


def answer_histograms(splits: Mapping[str, SplitColumns], tasks: Sequence[str]) -> dict[str, dict[str, Any]]:
    """For every task that has records the histogram of its answers' tokens, by split."""
    found = {}
    for task in tasks:
        values = {name: split.lengths["answer_tokens"][split.task == task] for name, split in splits.items()}
        if any(len(group) for group in values.values()):
            found[task] = histogram(values)
    return found


def yes_no_table(splits: Mapping[str, SplitColumns], tasks: Sequence[str]) -> list[dict[str, Any]]:
    """For every task, in each split and in `all`: how many answers begin with yes or no, and how many of these with yes.

    `share` and `yes_share` are in [0, 1]; `yes_share` is None where no answer begins with either.
    """
    table = []
    for task in tasks:
        sides = {name: split.polarity[split.task == task] for name, split in splits.items()}
        for name, side in (("all", np.concatenate(list(sides.values()))), *sides.items()):
            if not len(side):
                continue
            yes, no = int((side == "yes").sum()), int((side == "no").sum())
            entry = {"task": task, "split": name, "records": len(side), "yes": yes, "no": no, "share": (yes + no) / len(side)}
            table.append(entry | {"yes_share": yes / (yes + no) if yes + no else None})
    return table


def share_table(
    counts: Mapping[str, Mapping[str, int]], asked: Mapping[str, float], tasks: Sequence[str]
) -> list[dict[str, Any]]:
    """How much of each task went to each split, beside what was asked for.

    Args:
        counts: split → task → records.
        asked: the shares of `validation` and `test`, in (0, 1); training has the rest.
        tasks: the tasks to list.

    Returns:
        For every task `records` and by split `records`, `share` and `asked` in [0, 1] and `difference` in percentage points;
        the last two are None for a task of which no record was kept.
    """
    asked = {"train": 1 - sum(asked.values()), **asked}
    table = []
    for task in tasks:
        total = sum(counts[split].get(task, 0) for split in counts)
        entry: dict[str, Any] = {"task": task, "records": total, "splits": {}}
        for split in counts:
            number = counts[split].get(task, 0)
            share = number / total if total else None
            difference = None if share is None else 100 * (share - asked[split])
            entry["splits"][split] = {"records": number, "share": share, "asked": asked[split], "difference": difference}
        table.append(entry)
    return table


def score_baselines(
    records: Sequence[Mapping[str, str]], answers: Mapping[str, Sequence[str | None]]
) -> dict[str, dict[str, Any]]:
    """Mean quality scores of each system, over all records and by task.

    Args:
        records: records with `task`, `question` and `answer`, the reference.
        answers: for each system its answer to each record, None where it has none.

    Returns:
        system → `overall` and `by_task` (task → …): `records` that it answered and the mean of each metric in [0, 1]; None
        where it answered none.
    """
    return {system: _score(records, given) for system, given in answers.items()}


def _score(records: Sequence[Mapping[str, str]], answers: Sequence[str | None]) -> dict[str, Any]:
    by_task: dict[str, list[list[float]]] = {record["task"]: [] for record in records}
    for record, answer in zip(records, answers, strict=True):
        if answer is not None:
            by_task[record["task"]].append(
                [metric.score(answer, record["answer"], record["question"]) for metric in QUALITY.values()]
            )
    return {
        "overall": _means([scores for task in by_task.values() for scores in task]),
        "by_task": {task: _means(scores) for task, scores in by_task.items()},
    }


def _means(scores: Sequence[Sequence[float]]) -> dict[str, float] | None:
    if not scores:
        return None
    return {"records": len(scores)} | dict(zip(QUALITY, np.mean(scores, axis=0).tolist(), strict=True))


def counted(number: int, noun: str, plural: str = "") -> str:
    """`1 record`, `2 records`, `12,000 records`."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def what_to_know(report: Mapping[str, Any]) -> list[dict[str, str]]:
    """What a reader must know before training, by `RULES` and in their order: `kind` and `text` of each finding.

    Args:
        report: the account with `tasks`, `yes_no`, `shares` and `baselines`.
    """
    found = {
        "not published": _not_published(report),
        "absent": _absent(report),
        "quarantined": _quarantined(report),
        "contradiction": _contradictions(report),
        "one-sided": _one_sided(report),
        "missing task": _missing_tasks(report),
        "small test": _small_test(report),
        "share": _shares_off(report),
        "large group": _large_groups(report),
        "leakage": _leakage(report),
        "strong baseline": _strong_baselines(report),
    }
    return [{"kind": kind, "text": text} for kind in RULES for text in found[kind]]


def _not_published(report: Mapping[str, Any]) -> list[str]:
    names = [entry["task"] for entry in report["raw_files"] if not entry["as_published"]]
    if not names:
        return []
    files = counted(len(names), "raw file is not the published one", "raw files are not the published ones")
    return [f"{files}: {', '.join(names)}."]


def _absent(report: Mapping[str, Any]) -> list[str]:
    names = report["absent_files"]
    if not names:
        return []
    are = "is" if len(names) == 1 else "are"
    return [f"{len(names)} of {len(RAW_FILES)} raw files {are} absent: all numbers are about the rest."]


def _quarantined(report: Mapping[str, Any]) -> list[str]:
    reasons = {reason: sum(tasks.values()) for reason, tasks in report["quarantined"].items()}
    if not reasons:
        return []
    parts = ", ".join(
        f"{number:,} {reason}" for reason, number in sorted(reasons.items(), key=lambda item: (-item[1], item[0]))
    )
    return [f"{counted(sum(reasons.values()), 'record is', 'records are')} kept apart and not trained on: {parts}."]


def _contradictions(report: Mapping[str, Any]) -> list[str]:
    entries = report["contradictions"]
    if not entries:
        return []
    records = sum(len(entry["yes"]) + len(entry["no"]) for entry in entries)
    questions = counted(len(entries), "question is", "questions are")
    return [f"{questions} answered both with yes and with no ({records:,} records, flagged but not removed)."]


def _one_sided(report: Mapping[str, Any]) -> list[str]:
    texts = []
    for side in ("yes", "no"):
        tasks = []
        for entry in report["yes_no"]:
            number = entry["yes"] + entry["no"]
            if entry["split"] == "all" and number >= FEWEST_YES_NO and entry[side] / number > ONE_SIDED:
                tasks.append(f"{percent(entry[side] / number)} of {number:,} in {entry['task']}")
        if tasks:
            texts.append(
                f"Of the answers that begin with yes or no, most say {side}: {', '.join(tasks)}. "
                f"A model that always says {side} is right that often."
            )
    return texts


def percent(share: float) -> str:
    """`97.4 %`; rounds neither up to 100 nor down to 0."""
    return f"{min(max(100 * share, 0.1), 99.9) if 0 < share < 1 else 100 * share:.1f}".removesuffix(".0") + " %"


def _missing_tasks(report: Mapping[str, Any]) -> list[str]:
    texts = []
    for split, counts in report["splits"].items():
        absent = [task for task in report["tasks"] if not counts.get(task)]
        if absent:
            texts.append(f"The {split} split has no record of {', '.join(absent)}.")
    return texts


def _small_test(report: Mapping[str, Any]) -> list[str]:
    small = {task: number for task in report["tasks"] if 0 < (number := report["splits"]["test"].get(task, 0)) < SMALL_TEST}
    if not small:
        return []
    listed = ", ".join(f"{task} ({number})" for task, number in small.items())
    return [f"Scores of single tasks will be uncertain; few test records: {listed}."]


def _shares_off(report: Mapping[str, Any]) -> list[str]:
    texts = []
    for split in report["splits"]:
        off = [
            f"{percent(share['share'])} of {entry['task']}"
            for entry in report["shares"]
            if (share := entry["splits"][split])["records"] and abs(share["difference"]) > SHARE_OFF
        ]
        if off:
            asked = percent(report["shares"][0]["splits"][split]["asked"])
            texts.append(f"The {split} split has {', '.join(off)}; {asked} of each task was asked for.")
    return texts


def _large_groups(report: Mapping[str, Any]) -> list[str]:
    kept = report["records"]["kept"]
    return [
        f"{entry['records']:,} records ({percent(entry['records'] / kept)}) are one near-duplicate group ({entry['cluster']})."
        for entry in report["clusters"]["largest"]
        if entry["records"] / kept > LARGE_GROUP
    ]


def _leakage(report: Mapping[str, Any]) -> list[str]:
    leakage, texts = report["leakage"], []
    if leakage["at_0.8"]:
        questions = counted(leakage["at_0.8"], "held-out question is", "held-out questions are")
        texts.append(f"{questions} rather like one in training (cosine from 0.8 to 0.9) and stay in validation or test.")
    if leakage["shared_answers"]:
        texts.append(
            f"{counted(leakage['shared_answers'], 'answer stands', 'answers stand')} in training and in a held-out split."
        )
    if leakage["shared_subjects"]:
        texts.append(
            f"{counted(leakage['shared_subjects'], 'subject is', 'subjects are')} in training and in a held-out split."
        )
    if leakage["audited"] < leakage["held_out_questions"]:
        texts.append(
            f"The leakage audit looked at {leakage['audited']:,} of {leakage['held_out_questions']:,} held-out questions."
        )
    return texts


def _strong_baselines(report: Mapping[str, Any]) -> list[str]:
    texts = []
    for system, scores in report["baselines"]["systems"].items():
        places = {"overall": scores["overall"]} | {f"on {task}": entry for task, entry in scores["by_task"].items()}
        strong = [
            f"{entry['rouge_l']:.2f} {place}" for place, entry in places.items() if entry and entry["rouge_l"] > STRONG_BASELINE
        ]
        if strong:
            texts.append(f"No model needed for a ROUGE-L of {', '.join(strong)}: {BASELINES[system]}.")
    return texts


def examples_by(rows: Iterable[Mapping[str, str]], key: str, most: int) -> dict[str, list[Mapping[str, str]]]:
    """The first rows of each value of a column, at most so many."""
    found: dict[str, list[Mapping[str, str]]] = defaultdict(list)
    for row in rows:
        if len(found[row[key]]) < most:
            found[row[key]].append(row)
    return dict(found)
