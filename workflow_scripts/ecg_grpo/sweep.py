"""A sweep: one configuration that stands for several runs, and what those have in common."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping
from itertools import product
from typing import Any, NamedTuple

from ecg_grpo.errors import InputError

MOST_RUNS = 1000
_NOT_SWEPT = ("run", "sweep", "resources", "evaluation.split")


class SweptRun(NamedTuple):
    """One run of a sweep.

    Attributes:
        values: what it has instead of the sweep's own configuration, by dotted key.
        configuration: all of its configuration.
    """

    values: dict[str, Any]
    configuration: dict[str, Any]


def runs_of(configuration: Mapping[str, Any]) -> dict[str, SweptRun]:
    """The runs of a sweep: every combination of the values in `sweep:`.

    A run's name is that of the sweep and a hash of its values, so a value added later leaves the other runs as they are. Runs
    answer the validation split where the configuration says `test`: what is chosen by its score on the test split has no honest
    score there any more.

    Args:
        configuration: with `run` and `sweep`, a mapping of dotted keys to lists of values. A value that is a mapping is merged
            into the section that stands there, as a configuration file's would be.

    Returns:
        Runs by name, the last key's values changing fastest.

    Raises:
        InputError: a key that does not lead anywhere, no values, one that is no JSON, the same value twice, or more than
            MOST_RUNS runs.
    """
    swept = configuration["sweep"]
    if not isinstance(swept, Mapping):
        raise InputError(
            "sweep", "is not a mapping of keys to lists of values", "For example grpo.learning_rate: [1.0e-5, 2.0e-5]"
        )
    count = 1
    for key, values in swept.items():
        if not isinstance(key, str):
            raise InputError(f"sweep.{key}", "is not the path to a setting", "For example grpo.seed.")
        if not isinstance(values, list) or not values:
            raise InputError(f"sweep.{key}", "is not a list of values", "For example [1, 2]; take the key out to sweep less.")
        for section in _NOT_SWEPT:
            within = section.removeprefix(f"{key}.")
            if f"{key}.".startswith(f"{section}."):
                raise InputError(f"sweep.{key}", "cannot differ between the runs of a sweep", "Take it out.")
            if within != section and any(_get(value, within) is not None for value in values):
                raise InputError(f"sweep.{key}", f"{section} cannot differ between the runs of a sweep", "Take it out.")
        try:
            written = [json.dumps(value, sort_keys=True) for value in values]
        except TypeError as error:
            raise InputError(
                f"sweep.{key}", f"has a value that no setting can have ({error})", "Put text that looks like a date in quotes."
            ) from None
        if len(set(written)) < len(written):
            raise InputError(f"sweep.{key}", "has a value twice", "Take one out.")
        count *= len(values)
    if count > MOST_RUNS:
        raise InputError("sweep", f"stands for {count} runs, more than {MOST_RUNS}", "Take values out.")
    runs = {}
    for combination in product(*swept.values()):
        values = dict(zip(swept, combination, strict=True))
        name = f"{configuration['run']}-{_hash(values)[:6]}"
        of_run = copy.deepcopy(dict(configuration)) | {"run": name, "sweep": {}}
        for key, value in values.items():
            _put(of_run, key, value)
        evaluation = of_run["evaluation"]
        if isinstance(evaluation, dict) and evaluation.get("split") == "test":
            evaluation["split"] = "validation"
        if name in runs:
            raise InputError("sweep", f"two runs have the name {name}", "Change a value by a little.")
        runs[name] = SweptRun(values, of_run)
    return runs


def _put(configuration: dict[str, Any], key: str, value: Any) -> None:
    *path, last = key.split(".")
    section: Any = configuration
    for part in path:
        section = section.get(part) if isinstance(section, dict) else None
    if not isinstance(section, dict):
        raise InputError(f"sweep.{key}", "its section is not in the configuration", "config/config.yaml names every section.")
    section[last] = _merged(section.get(last), value)


def _merged(old: Any, new: Any) -> Any:
    if not isinstance(old, dict) or not isinstance(new, dict):
        return copy.deepcopy(new)
    return old | {key: _merged(old.get(key), value) for key, value in new.items()}


class Part(NamedTuple):
    """Results that two runs have in common if their configurations agree.

    Attributes:
        sections: the configuration that they depend on, besides that of the parts before.
        after: parts that they are made from.
        results: how their paths below results/<run>/ begin.
        rules: those that make them and nothing else; only one of the runs has them.
    """

    sections: tuple[str, ...]
    after: tuple[str, ...]
    results: tuple[str, ...]
    rules: tuple[str, ...] = ()


def _answers_of(system: str) -> tuple[str, ...]:
    stages = ("generate_answers", "score_answers", "score_references")
    tables = ("answers", "scores", "reference_loss")
    return (
        *(f"evaluation/{system}/{table}.parquet" for table in tables),
        *(f"provenance/{stage}.{system}.json" for stage in stages),
    )


_ANSWERING = ("evaluation.split", "evaluation.generation", "evaluation.reference_loss")
_WITHOUT_A_MODEL = ("echo", "constant", "nearest", "second_references")

PARTS = {
    "base model": Part(
        sections=("base_model",),
        after=(),
        results=("base_model/", "provenance/fetch_base_model."),
        rules=("fetch_base_model",),
    ),
    "data": Part(
        sections=("raw_data", "data", "reasoning"),
        after=("base model",),
        results=(
            "raw/",
            "data/",
            *(f"provenance/{stage}." for stage in ("fetch_raw_data", "prepare_data", "make_data_report")),
        ),
        rules=("fetch_raw_data", "prepare_data", "make_data_report"),
    ),
    "SFT": Part(
        sections=("bootstrap_reasoning", "sft", "merge"),
        after=("data",),
        results=(
            *("reasoning/", "sft/", "sft_model/"),
            *(f"provenance/{stage}." for stage in ("bootstrap_reasoning", "train_sft", "merge_sft_adapter")),
        ),
        rules=("bootstrap_reasoning", "train_sft", "merge_sft_adapter"),
    ),
    "samples for the audit": Part(
        sections=("reward_audit.sampling", "reward_audit.generation"),
        after=("SFT",),
        results=("reward_audit/samples.parquet", "provenance/sample_for_audit."),
        rules=("sample_for_audit",),
    ),
    "reward model": Part(
        sections=("reward_model",),
        after=("SFT",),
        results=(
            "reward_model/",
            *(f"provenance/{stage}." for stage in ("sample_for_reward_model", "make_preference_pairs", "train_reward_model")),
        ),
        rules=("sample_for_reward_model", "make_preference_pairs", "train_reward_model"),
    ),
    "answers without a model": Part(
        sections=("evaluation.split",),
        after=("data",),
        results=(
            *(f"evaluation/{system}/{table}.parquet" for system in _WITHOUT_A_MODEL for table in ("answers", "scores")),
            *("provenance/generate_baselines.", *(f"provenance/score_answers.{system}." for system in _WITHOUT_A_MODEL)),
        ),
        rules=("generate_baselines",),
    ),
    "answers of the base model": Part(sections=_ANSWERING, after=("data",), results=_answers_of("base")),
    "answers of the SFT model": Part(sections=_ANSWERING, after=("SFT",), results=_answers_of("sft")),
}
"""In the order in which they are made. `tests/test_sweep.py` holds their sections to the table in docs/rebuild.md."""


class Shared(NamedTuple):
    """What a run takes from runs before it.

    Attributes:
        moved: beginnings of its own paths, and what they begin with instead.
        left_out: rules that it does not need.
    """

    moved: dict[str, str]
    left_out: list[str]


def shared(runs: Mapping[str, SweptRun]) -> dict[str, Shared]:
    """For each run, what it has in common with a run before it.

    Args:
        runs: by name, with their configurations.
    """
    owners: dict[str, str] = {}
    found = {}
    for name, run in runs.items():
        moved, left_out, keys = {}, [], {}
        for part, entry in PARTS.items():
            values = [_get(run.configuration, section) for section in entry.sections]
            keys[part] = _hash([part, values, [keys[before] for before in entry.after]])
            owner = owners.setdefault(keys[part], name)
            if owner != name:
                moved |= {f"results/{name}/{path}": f"results/{owner}/{path}" for path in entry.results}
                left_out += entry.rules
        found[name] = Shared(moved, left_out)
    return found


def _get(configuration: Any, key: str) -> Any:
    value = configuration
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
