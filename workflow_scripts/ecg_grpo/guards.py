"""Stops a training run that has gone wrong and says why.

    guards = Guards(settings.guards)  # Guards(None) for SFT: only numbers that are not finite stop it
    warnings = guards.replay(kept_lines)  # a resumed run
    warnings = guards.check(line)  # every further line of the training log; raises TrainingStopped

The result depends on the lines alone, so every process of a run comes to the same one, and a run that was killed and
resumed stops at the same step as one that never was.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ecg_grpo.errors import InputError
from ecg_grpo.settings.guards import GuardSettings

ALWAYS_FINITE = ("loss", "grad_norm", "reward")
"""Metrics that stop every run, SFT too, at the first NaN or infinity."""

SYNC_PATIENCE = 2
"""Steps in a row with weights out of sync: every one trains on samples of another model, so there is nothing to wait for."""

HEALTHY_BELOW = {"completions/clipped_ratio": 0.3, "frac_reward_zero_std": 0.8, "kl": 0.5}
"""Metric → end of its healthy range in Axolotl's guide (see `ecg_grpo.settings.guards`); at or above it is a warning."""

_LENGTH = "completions/mean_length"
_VALUES_SHOWN = 5


@dataclass(frozen=True)
class Guard:
    """One way in which a run goes wrong.

    Attributes:
        key: the threshold's field in GuardSettings.
        metric: name in the training log.
        is_maximum: whether values at or above the threshold are wrong, or those at or below it.
        meaning: what it means for the run, as a clause.
        mend: what to look at or to change.
        times_sft_length: whether the threshold is a multiple of the SFT model's mean length.
        most_patience: steps in a row that are enough, however patient the settings are.
    """

    key: str
    metric: str
    is_maximum: bool
    meaning: str
    mend: str
    times_sft_length: bool = False
    most_patience: float = math.inf


# In the order in which they are reported. Truncation stands before entropy: with mask_truncated_completions a batch of
# truncated completions has no token left, and TRL logs an entropy of 0 for it.
GUARDS = (
    Guard(
        "max_sampling_logp_difference",
        "sampling/sampling_logp_difference/mean",
        True,
        "the sampler's weights are not the trainer's",
        "Sample with grpo.rollout: transformers, or look for a failed weight synchronisation of vLLM in the log",
        most_patience=SYNC_PATIENCE,
    ),
    Guard(
        "max_clipped_ratio",
        "completions/clipped_ratio",
        True,
        "completions are cut off before they end",
        "Raise grpo.max_completion_length, or train SFT longer so that the model learns to end its answers",
    ),
    Guard(
        "max_frac_reward_zero_std",
        "frac_reward_zero_std",
        True,
        "the completions of a prompt all get the same reward, so there is nothing to learn",
        "Look at the sampled completions and reward; raise grpo.temperature, grpo.num_generations or the prompts a step",
    ),
    Guard(
        "min_length_ratio",
        _LENGTH,
        False,
        "the answers shrink away",
        "Look at the sampled completions: the reward pays for short answers; lower grpo.learning_rate or raise grpo.beta",
        times_sft_length=True,
    ),
    Guard(
        "max_length_ratio",
        _LENGTH,
        True,
        "the answers grow without end",
        "Look at the sampled completions: the reward pays for long answers; lower grpo.learning_rate or raise grpo.beta",
        times_sft_length=True,
    ),
    Guard(
        "max_kl",
        "kl",
        True,
        "the model has drifted far from the SFT model",
        "Lower grpo.learning_rate or raise grpo.beta",
    ),
    Guard(
        "min_entropy",
        "entropy",
        False,
        "the model writes the same answer every time",
        "Lower grpo.learning_rate, raise grpo.temperature or grpo.epsilon_high",
    ),
    Guard(
        "max_entropy",
        "entropy",
        True,
        "the model writes noise",
        "Lower grpo.learning_rate, or train SFT longer if its own answers are noise already",
    ),
)


class TrainingStopped(InputError):
    """A guard stopped the training.

    Attributes:
        step: optimizer step at which it did.
        metric: name in the training log.
        values: the metric at the steps that count, the last one at `step`.
        threshold: what the values reached, in the metric's unit; None for numbers that are not finite.
        key: the threshold's key in the configuration; None for numbers that are not finite.
    """

    def __init__(
        self,
        step: int,
        metric: str,
        values: Sequence[float],
        what: str,
        mend: str,
        threshold: float | None = None,
        key: str | None = None,
    ) -> None:
        super().__init__(f"training step {step}", what, mend)
        self.step, self.metric, self.values = step, metric, tuple(values)
        self.threshold, self.key = threshold, key


class Guards:
    """Watches a training log, one line after the other.

    Attributes:
        warnings: the texts that `check` and `replay` have returned so far.
    """

    def __init__(self, settings: GuardSettings | None) -> None:
        """
        Args:
            settings: the thresholds of GRPO; None leaves only the check for numbers that are not finite.
        """
        self.warnings: list[str] = []
        self._watches_health = settings is not None
        self._warned: set[str] = set()
        self._sft_length: float | None = None
        self._limits: dict[Guard, float] = {}
        self._reached: dict[Guard, deque[float]] = {}
        for guard in GUARDS if settings is not None else ():
            limit = getattr(settings, guard.key)
            if limit is not None:
                self._limits[guard] = limit
                self._reached[guard] = deque(maxlen=int(min(settings.patience, guard.most_patience)))

    def check(self, entry: Mapping[str, Any]) -> list[str]:
        """Takes the next line of the training log.

        Args:
            entry: `step` and metrics by name. A line without `loss` is a validation. A metric that is absent, None or
                (unless it is one of ALWAYS_FINITE) NaN was not measured at this step.

        Returns:
            Warnings, each only once in a run: a metric left the published healthy range.

        Raises:
            TrainingStopped: a threshold was reached for so many steps in a row, or a number is not finite.
        """
        warnings, stop = self._take(entry)
        if stop is not None:
            raise stop
        return warnings

    def replay(self, entries: Iterable[Mapping[str, Any]]) -> list[str]:
        """Takes the lines that a resumed run kept, in order, as `check` does; never stops the run.

        Returns:
            The warnings of those lines, for a log that begins anew.
        """
        return [warning for entry in entries for warning in self._take(entry)[0]]

    def _take(self, entry: Mapping[str, Any]) -> tuple[list[str], TrainingStopped | None]:
        step = entry["step"]
        if "loss" not in entry:
            if step == 0:
                self._learn_sft_length(entry.get(f"eval_{_LENGTH}"))
            return [], None
        if step == 1:
            self._learn_sft_length(entry.get(_LENGTH))
        # All windows move before anything is reported: they must not depend on which guard comes first.
        stops = [_not_finite(step, entry), *(self._watch(guard, step, entry) for guard in self._limits)]
        return self._new_warnings(step, entry), next((stop for stop in stops if stop is not None), None)

    def _learn_sft_length(self, value: float | None) -> None:
        if self._sft_length is None and value is not None and 0 < value < math.inf:
            self._sft_length = value

    def _watch(self, guard: Guard, step: int, entry: Mapping[str, Any]) -> TrainingStopped | None:
        value, reached = _measured(entry, guard.metric), self._reached[guard]
        if value is None or (guard.times_sft_length and self._sft_length is None):
            return None
        threshold = self._limits[guard] * (self._sft_length if guard.times_sft_length else 1)
        if not (value >= threshold if guard.is_maximum else value <= threshold):
            reached.clear()
            return None
        reached.append(value)
        if len(reached) < reached.maxlen:
            return None
        side = "at or above" if guard.is_maximum else "at or below"
        against = f"{threshold:.4g}"
        if guard.times_sft_length:
            against += f" tokens, {self._limits[guard]:g} times the SFT model's {self._sft_length:.4g},"
        key = f"grpo.guards.{guard.key}"
        return TrainingStopped(
            step,
            guard.metric,
            reached,
            f"{guard.metric} was {side} {against} for {_steps(len(reached))} ({_listed(reached)}): {guard.meaning}",
            f"{guard.mend}. The threshold is {key} ({self._limits[guard]:g}; null switches it off).",
            threshold,
            key,
        )

    def _new_warnings(self, step: int, entry: Mapping[str, Any]) -> list[str]:
        if not self._watches_health:
            return []
        found = {}
        for metric, bound in HEALTHY_BELOW.items():
            value = _measured(entry, metric)
            if value is not None and value >= bound:
                found[metric] = f"training step {step}: {metric} is {value:.4g}; healthy is below {bound:g}"
        if self._sft_length is None and (lengths := [guard.key for guard in self._limits if guard.times_sft_length]):
            found[_LENGTH] = (
                f"training step {step}: the SFT model's mean length is not known, since the log has neither a validation "
                f"at step 0 nor {_LENGTH} at step 1; without effect: {', '.join(f'grpo.guards.{key}' for key in lengths)}"
            )
        new = [text for metric, text in found.items() if metric not in self._warned]
        self._warned |= found.keys()
        self.warnings += new
        return new


def _measured(entry: Mapping[str, Any], metric: str) -> float | None:
    value = entry.get(metric)
    return None if value is None or math.isnan(value) else value


def _not_finite(step: int, entry: Mapping[str, Any]) -> TrainingStopped | None:
    for metric in ALWAYS_FINITE:
        value = entry.get(metric)
        if value is not None and not math.isfinite(value):
            return TrainingStopped(
                step,
                metric,
                [value],
                f"{metric} is {value}, and a step with such a number can ruin the weights",
                "Lower learning_rate, or train with precision: float32; the lines before this one in the training log "
                "show how it came. No key switches this guard off.",
            )
    return None


def _steps(count: int) -> str:
    return "1 step" if count == 1 else f"{count} steps in a row"


def _listed(values: Sequence[float]) -> str:
    shown = ", ".join(f"{value:.4g}" for value in list(values)[-_VALUES_SHOWN:])
    return f"… {shown}" if len(values) > _VALUES_SHOWN else shown
