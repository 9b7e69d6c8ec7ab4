"""The run's reward as verl calls it: `compute_score`, for one completion at a time.

verl executes this file once in each of its reward workers, does not put it into `sys.modules`, and calls from several threads
at once. What it is to compute stands in verl.yaml, in `reward.custom_reward_function.reward_kwargs`.
"""

import sys
import threading
from functools import cache

_LOADING = threading.Lock()


@cache
def _load(scripts, settings, metric):
    """The mix of rewards, and the validation metric or None."""
    if scripts not in sys.path:
        sys.path.insert(0, scripts)
    from ecg_grpo.metrics import METRICS
    from ecg_grpo.rewards import Case, RewardMix
    from ecg_grpo.settings.reward import RewardInUse

    reward = RewardInUse.from_json(settings, "reward_kwargs.settings")
    mix = RewardMix(reward.weighted(), reward.gating(), min_reasoning_words=reward.demanded_reasoning_words)
    mix.rewards([Case("Sinus rhythm.", "Sinus rhythm, 60/min.", "Which rhythm?")])  # word lists are read here, by one thread
    return mix, None if metric is None else METRICS[metric].score


def compute_score(data_source, solution_str, ground_truth, extra_info, *, scripts, settings, metric, **_):
    """The reward of one completion, and what verl logs beside it: the same keys with every call, all of them numbers.

    Args:
        data_source: the data set's name, not used.
        solution_str: the completion, special tokens taken out.
        ground_truth: the reference answer.
        extra_info: the row's; `question` is the question.
        scripts: the project's folder workflow_scripts.
        settings: section `reward` and the key `reasoning`, as JSON.
        metric: the validation metric, or None.

    Returns:
        `score` is what is trained on, 0 to 1; `part_<name>` are its parts before weights and gates, 0 to 1; `acc` is the
        validation metric, which is no reward, and which verl shows first.
    """
    with _LOADING:
        mix, measure = _load(scripts, settings, metric)
    from ecg_grpo.prompts import take_apart
    from ecg_grpo.rewards import Case

    question = extra_info["question"]
    values = mix.values([Case(solution_str, ground_truth, question)])[0]
    found = {"score": mix.total(values)} | {f"part_{name}": float(value) for name, value in values.items()}
    if measure is not None:
        found["acc"] = float(measure(take_apart(solution_str).prediction, ground_truth, question))
    return found
