"""The project's reward functions under names that TRL's command line can import: --reward_funcs training_rewards.chrf"""

from __future__ import annotations

from ecg_grpo.rewards import trl_rewards

concept_f1, chrf, length_agreement = trl_rewards(["concept_f1", "chrf", "length_agreement"])
