"""The reward functions of a run with the default reward, under names that TRL's command line can import.

--reward_funcs training_rewards.concept_f1 training_rewards.chrf ... --reward_weights ...
"""

from __future__ import annotations

from ecg_grpo.model_rewards import load_mix
from ecg_grpo.rewards import trl_rewards
from ecg_grpo.settings.reward import RewardSettings

FUNCTIONS = {function.__name__: (function, weight) for function, weight in trl_rewards(load_mix(RewardSettings()))}
globals().update({name: function for name, (function, _) in FUNCTIONS.items()})
