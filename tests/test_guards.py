"""Guards: every one stops a run that goes wrong at the right step and says why, stays quiet otherwise, survives a resume."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from ecg_grpo.errors import InputError
from ecg_grpo.guards import GUARDS, HEALTHY_BELOW, Guards, TrainingStopped
from ecg_grpo.settings.guards import GuardSettings

LENGTH, GAP = "completions/mean_length", "sampling/sampling_logp_difference/mean"
CLIPPED, SAME = "completions/clipped_ratio", "frac_reward_zero_std"
HEALTHY = {"loss": 0.1, "grad_norm": 0.3, "reward": 0.5, GAP: 0.001, CLIPPED: 0.1, SAME: 0.0, LENGTH: 40.0, "entropy": 2.0}
SFT_LENGTH = 40.0

# key, metric, a value that reaches the threshold, one that just does not, the threshold as the message shows it, steps
CASES = [
    ("max_sampling_logp_difference", GAP, 0.1, 0.0999, "0.1", 2),
    ("max_clipped_ratio", CLIPPED, 1.0, 0.9999, "1", 5),
    ("max_frac_reward_zero_std", SAME, 1.0, 0.9999, "1", 5),
    ("min_length_ratio", LENGTH, 12.0, 12.01, "12 tokens, 0.3 times the SFT model's 40,", 5),
    ("max_length_ratio", LENGTH, 120.0, 119.9, "120 tokens, 3 times the SFT model's 40,", 5),
    ("max_kl", "kl", 2.0, 1.999, "2", 5),
    ("min_entropy", "entropy", 0.05, 0.0501, "0.05", 5),
    ("max_entropy", "entropy", 6.0, 5.999, "6", 5),
]
each_guard = pytest.mark.parametrize(
    ("key", "metric", "wrong", "quiet", "limit", "steps"), CASES, ids=[case[0] for case in CASES]
)


def line(step: int, **metrics: float | None) -> dict[str, Any]:
    return {"step": step, **HEALTHY, **metrics}


def lines(metric: str, values: Iterable[float | None], first: int = 2) -> list[dict[str, Any]]:
    """A healthy step 1, then steps with these values."""
    return [line(1)] + [line(step, **{metric: value}) for step, value in enumerate(values, first)]


def stop_of(guards: Guards, entries: Iterable[dict[str, Any]]) -> TrainingStopped | None:
    for entry in entries:
        try:
            guards.check(entry)
        except TrainingStopped as stop:
            return stop
    return None


def default_guards(**changed: float | None) -> Guards:
    return Guards(GuardSettings(**changed))


def test_every_threshold_has_a_guard_and_a_case() -> None:
    keys = set(GuardSettings.model_fields) - {"patience"}
    assert {guard.key for guard in GUARDS} == keys
    assert {case[0] for case in CASES} == keys


def test_a_healthy_run_is_left_alone() -> None:
    guards = default_guards()
    assert stop_of(guards, [line(step) for step in range(1, 50)]) is None
    assert guards.warnings == []


@each_guard
def test_a_threshold_reached_long_enough_stops_the_run_and_says_why(key, metric, wrong, quiet, limit, steps) -> None:
    stop = stop_of(default_guards(), lines(metric, [wrong] * 20))
    assert stop is not None
    assert (stop.step, stop.metric, stop.key) == (1 + steps, metric, f"grpo.guards.{key}")
    assert stop.values == (wrong,) * steps
    assert stop.threshold == pytest.approx(wrong)
    assert isinstance(stop, InputError)
    assert stop.where == f"training step {1 + steps}"
    side = "at or above" if key.startswith("max") else "at or below"
    shown = ", ".join([f"{wrong:.4g}"] * steps)
    assert f"{metric} was {side} {limit} for {steps} steps in a row ({shown}): " in str(stop)
    assert f"The threshold is grpo.guards.{key} (" in str(stop)


@each_guard
def test_just_inside_a_threshold_is_quiet(key, metric, wrong, quiet, limit, steps) -> None:
    assert stop_of(default_guards(), lines(metric, [quiet] * 20)) is None


@each_guard
def test_null_switches_a_guard_off_and_no_other(key, metric, wrong, quiet, limit, steps) -> None:
    assert stop_of(default_guards(**{key: None}), lines(metric, [wrong] * 20)) is None
    for other, other_metric, other_wrong, *_ in CASES:
        if other != key:
            stop = stop_of(default_guards(**{key: None}), lines(other_metric, [other_wrong] * 20))
            assert stop is not None
            assert stop.key == f"grpo.guards.{other}"


@each_guard
def test_a_step_inside_the_threshold_begins_the_count_anew(key, metric, wrong, quiet, limit, steps) -> None:
    almost = [wrong] * (steps - 1) + [quiet]
    assert stop_of(default_guards(), lines(metric, almost * 10)) is None
    stop = stop_of(default_guards(), lines(metric, almost + [wrong] * steps))
    assert stop is not None
    assert stop.step == 1 + 2 * steps


@each_guard
@pytest.mark.parametrize("nothing", [None, math.nan])
def test_a_step_without_the_metric_neither_counts_nor_interrupts(key, metric, wrong, quiet, limit, steps, nothing) -> None:
    values = [wrong] * (steps - 1) + [nothing] * 10
    assert stop_of(default_guards(), lines(metric, values)) is None
    stop = stop_of(default_guards(), lines(metric, [*values, wrong]))
    assert stop is not None
    assert stop.step == 1 + steps + 10


@each_guard
def test_patience_is_the_steps_in_a_row(key, metric, wrong, quiet, limit, steps) -> None:
    impatient = stop_of(default_guards(patience=1), lines(metric, [wrong]))
    assert impatient is not None
    assert impatient.step == 2
    assert "for 1 step (" in str(impatient)
    patient = stop_of(default_guards(patience=8), lines(metric, [wrong] * 20))
    assert patient is not None
    assert patient.step == 1 + (8 if steps == 5 else steps)


def test_a_long_window_is_shown_by_its_last_values() -> None:
    stop = stop_of(default_guards(patience=7), lines("kl", [2, 3, 4, 5, 6, 7, 8]))
    assert stop is not None
    assert "for 7 steps in a row (… 4, 5, 6, 7, 8): " in str(stop)


@pytest.mark.parametrize("metric", ["loss", "grad_norm", "reward"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("guards", [Guards(None), default_guards(patience=50)], ids=["sft", "grpo"])
def test_a_number_that_is_not_finite_stops_every_run_at_once(metric, value, guards) -> None:
    stop = stop_of(guards, [line(1), line(2, **{metric: value}), line(3)])
    assert stop is not None
    assert (stop.step, stop.metric, stop.key, stop.threshold) == (2, metric, None, None)
    assert f"{metric} is {value}" in str(stop)


@pytest.mark.parametrize("metric", ["loss", "grad_norm", "reward"])
def test_none_is_a_number_that_was_not_measured(metric) -> None:
    assert stop_of(Guards(None), [line(1, **{metric: None})]) is None


def test_infinity_is_beyond_a_maximum() -> None:
    stop = stop_of(default_guards(), lines("kl", [math.inf] * 5))
    assert stop is not None
    assert stop.metric == "kl"


def test_without_settings_only_finite_numbers_matter() -> None:
    guards = Guards(None)
    bad = {case[1]: case[2] for case in CASES}
    assert stop_of(guards, [line(step, **bad) for step in range(5, 30)]) is None
    assert guards.warnings == []


def test_validations_do_not_count_as_steps() -> None:
    validation = {f"eval_{case[1]}": case[2] for case in CASES} | {case[1]: case[2] for case in CASES} | {"reward": math.nan}
    entries = [entry for step in range(1, 20) for entry in (line(step), {"step": step, "validation_loss": 1, **validation})]
    assert stop_of(default_guards(), entries) is None


def test_the_sft_model_s_length_is_the_validation_s_before_training() -> None:
    before = [{"step": 0, "eval_loss": 0.0, f"eval_{LENGTH}": 100.0}]
    later = [{"step": 1, f"eval_{LENGTH}": 10.0}]
    stop = stop_of(default_guards(), [*before, line(1), *later, *lines(LENGTH, [30.0] * 9)[1:]])
    assert stop is not None
    assert (stop.step, stop.threshold) == (6, pytest.approx(30))


def test_only_step_1_stands_in_for_the_validation_before_training() -> None:
    grown = [line(1), line(2, **{LENGTH: 4000.0}), *(line(step, **{LENGTH: 60.0}) for step in range(3, 20))]
    assert stop_of(default_guards(), grown) is None
    lost = default_guards()
    lost.check({"step": 6, f"eval_{LENGTH}": 40.0})
    assert stop_of(lost, [line(step, **{LENGTH: length}) for step, length in enumerate([40] + [400] * 9, 7)]) is None
    assert len(lost.warnings) == 1
    assert "training step 7: the SFT model's mean length is not known" in lost.warnings[0]
    assert "grpo.guards.min_length_ratio, grpo.guards.max_length_ratio" in lost.warnings[0]


def test_the_unknown_length_matters_to_no_one_without_length_guards() -> None:
    guards = default_guards(min_length_ratio=None, max_length_ratio=None)
    assert stop_of(guards, [line(7), line(8)]) is None
    assert guards.warnings == []


@pytest.mark.parametrize(("metric", "bound"), HEALTHY_BELOW.items())
def test_leaving_the_published_healthy_range_is_a_warning_once(metric, bound) -> None:
    guards = default_guards()
    assert guards.check(line(1, **{metric: bound - 0.001})) == []
    (warning,) = guards.check(line(2, **{metric: bound}))
    assert warning == f"training step 2: {metric} is {bound:g}; healthy is below {bound:g}"
    assert guards.check(line(3, **{metric: bound})) == []
    assert guards.warnings == [warning]


def test_a_resumed_run_hears_the_warnings_of_the_lines_it_kept_but_not_twice() -> None:
    guards = default_guards()
    assert len(guards.replay([line(1), line(2, **{CLIPPED: 0.5})])) == 1
    assert guards.check(line(3, **{CLIPPED: 0.5})) == []
    assert len(guards.warnings) == 1


def test_replay_never_stops() -> None:
    guards = default_guards()
    guards.replay([*lines(CLIPPED, [1.0] * 9), line(11, loss=math.nan, **{CLIPPED: 1.0})])
    stop = stop_of(guards, [line(12, **{CLIPPED: 1.0})])
    assert stop is not None
    assert stop.step == 12


def test_a_line_that_would_stop_the_run_counts_for_the_other_guards_too() -> None:
    guards = default_guards()
    guards.replay([*lines(CLIPPED, [1.0] * 3), line(5, loss=math.nan, **{CLIPPED: 1.0})])
    stop = stop_of(guards, [line(6, **{CLIPPED: 1.0})])
    assert stop is not None
    assert stop.step == 6


MEASURED = {
    "loss": [0.1, 0.1, 0.1, None, math.nan],
    "reward": [0.5, 0.5, 0.5, None, math.inf],
    GAP: [0.001, 0.3, 0.3, None],
    CLIPPED: [0.1, 0.5, 1.0, None],
    SAME: [0.0, 0.9, 1.0, None],
    LENGTH: [40.0, 1.0, 400.0, None],
    "kl": [0.01, 5.0, None, math.nan],
    "entropy": [2.0, 0.001, 9.0, None],
}


@st.composite
def training_logs(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Logs in which some metrics are wrong for stretches, with validations in between."""
    kinds = {metric: draw(st.sampled_from([values[:1], values, values[1:]])) for metric, values in MEASURED.items()}
    kinds["loss"] = draw(st.sampled_from([MEASURED["loss"][:1], MEASURED["loss"][:1], MEASURED["loss"]]))
    kinds["reward"] = draw(st.sampled_from([MEASURED["reward"][:1], MEASURED["reward"][:1], MEASURED["reward"]]))
    log: list[dict[str, Any]] = []
    if draw(st.booleans()):
        log.append({"step": 0, f"eval_{LENGTH}": draw(st.sampled_from([None, 40.0, 4.0]))})
    for step in range(1, draw(st.integers(1, 14)) + 1):
        log.append({"step": step, **{metric: draw(st.sampled_from(values)) for metric, values in kinds.items()}})
        if draw(st.integers(0, 3)) == 0:
            log.append({"step": step, "validation_loss": 1.0, f"eval_{LENGTH}": 400.0})
    return log


@given(log=training_logs(), patience=st.integers(1, 4), data=st.data())
@settings(max_examples=400, deadline=None)
def test_a_killed_and_resumed_run_stops_where_the_unbroken_one_does(log, patience, data) -> None:
    chosen = GuardSettings(patience=patience)
    unbroken = Guards(chosen)
    stop = stop_of(unbroken, log)
    lasted = len(log) if stop is None else next(n for n, entry in enumerate(log) if entry["step"] == stop.step)
    cut = data.draw(st.integers(0, lasted), label="lines kept")
    event("stops" if stop else "goes through")
    # As the lines come back: through the JSON of the log file.
    kept = [json.loads(json.dumps(entry)) for entry in log[:cut]]
    resumed = Guards(chosen)
    resumed.replay(kept)
    again = stop_of(resumed, log[cut:])
    assert str(again) == str(stop)
    assert (again and again.step) == (stop and stop.step)
    assert resumed.warnings == unbroken.warnings


@pytest.mark.parametrize("key", [key for key in GuardSettings.model_fields if key != "patience"])
@pytest.mark.parametrize("value", [0, -0.1, math.nan, math.inf])
def test_impossible_thresholds_are_refused(key, value) -> None:
    with pytest.raises(InputError, match=rf"^--settings \(GuardSettings\): {key}: .*{value}"):
        GuardSettings.from_json(json.dumps({key: value}))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("patience", 0),
        ("patience", None),
        ("max_clipped_ratio", 1.01),
        ("max_frac_reward_zero_std", 1.01),
        ("min_length_ratio", 1),
        ("max_length_ratio", 1),
        ("max_seconds", 1),
    ],
)
def test_values_out_of_range_are_refused_with_their_key(key, value) -> None:
    with pytest.raises(InputError, match=rf"\(GuardSettings\): {key}: "):
        GuardSettings.from_json(json.dumps({key: value}))


@pytest.mark.parametrize(("low", "high"), [(2, 2), (3, 2), (0.05, 0.01)])
def test_an_empty_range_of_entropy_is_refused(low, high) -> None:
    message = rf"min_entropy \({low}\) must be less than max_entropy \({high}\)"
    with pytest.raises(InputError, match=message):
        GuardSettings.from_json(json.dumps({"min_entropy": low, "max_entropy": high}))
    with pytest.raises(InputError, match="must be less than max_entropy"):
        GuardSettings.from_json(json.dumps({"min_entropy": 6}))


def test_a_guard_that_is_off_leaves_the_other_end_free() -> None:
    assert GuardSettings(min_entropy=9, max_entropy=None).min_entropy == 9
    assert GuardSettings(min_entropy=None, max_entropy=0.01).max_entropy == 0.01


def test_every_threshold_can_be_null_and_is_described_with_its_source() -> None:
    keys = [key for key in GuardSettings.model_fields if key != "patience"]
    nothing = GuardSettings(**dict.fromkeys(keys))
    bad = {case[1]: case[2] for case in CASES}
    assert stop_of(Guards(nothing), [line(1)] + [line(step, **bad) for step in range(2, 30)]) is None
    for key in keys:
        description = GuardSettings.model_fields[key].description
        assert "null switches the guard off." in description
        assert "Axolotl" in description or "Ours" in description
