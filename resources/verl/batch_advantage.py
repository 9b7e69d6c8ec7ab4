"""`grpo.scale_rewards: batch` for verl, which has only a group's spread or none: the advantage estimator `grpo_batch_std`.

launch.sh has verl import this file in each of its processes; verl.yaml says whether the estimator is used.
"""

import torch
from verl.trainer.ppo.core_algos import register_adv_est


@register_adv_est("grpo_batch_std")
def grpo_batch_std(token_level_rewards, response_mask, index, config=None, epsilon=1e-4, **_):
    """Rewards less their group's mean, over the standard deviation of all rewards of the batch.

    Args:
        token_level_rewards: (completions, tokens); a completion's sum is its reward.
        response_mask: (completions, tokens), 1 for tokens of the completion.
        index: the prompt of each completion.
        config: verl's, not used.
        epsilon: added to the standard deviation, as TRL does.

    Returns:
        Advantages and returns, the same tensor, of the shape of the mask.
    """
    with torch.no_grad():
        rewards = token_level_rewards.sum(dim=-1)
        numbers: dict = {}
        group = torch.tensor([numbers.setdefault(prompt, len(numbers)) for prompt in index], device=rewards.device)
        sums = torch.zeros(len(numbers), dtype=rewards.dtype, device=rewards.device)
        means = sums.index_add(0, group, rewards) / sums.index_add(0, group, torch.ones_like(rewards))
        advantages = (rewards - means[group]) / (rewards.std() + epsilon)
        advantages = advantages.unsqueeze(-1) * response_mask
    return advantages, advantages
