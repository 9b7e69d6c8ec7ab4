"""How the programs that compute a run's reward are told of it; the same for the audit, the difficulty filter and GRPO."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from ecg_grpo.settings.reward import RewardInUse
from ecg_grpo.stage import Stage, StageParser

if TYPE_CHECKING:
    from ecg_grpo.rewards import RewardMix


def add_reward_arguments(parser: StageParser) -> None:
    """`--reward`, `--reward-model` and `--embedding-model-files`."""
    parser.add_argument(
        "--reward", default="{}", metavar="JSON", help="section `reward` of the configuration and its key `reasoning`, as JSON"
    )
    parser.add_input(
        "--reward-model", nargs="*", default=[], metavar="JSON", help="manifest.json of the trained reward model, if it is used"
    )
    parser.add_input(
        "--embedding-model-files",
        nargs="*",
        default=[],
        metavar="FILE",
        help="files of the reward's embedding model, if it is used and is no package",
    )


def load_configured_mix(arguments: argparse.Namespace, stage: Stage, policy: Path | None) -> RewardMix:
    """The mix that the arguments name, its models loaded.

    Args:
        arguments: those of `add_reward_arguments`, and `scratch`: folder in which a judge's replies are kept.
        stage: whose log a judge writes to, and whose provenance names the reward.
        policy: manifest.json of the model whose own probabilities may be rewarded.

    Raises:
        InputError: the settings do not fit, or a model that they need is not there.
    """
    from ecg_grpo.model_rewards import Surroundings, load_mix

    settings = RewardInUse.from_json(arguments.reward, "--reward")
    reward_model = next(iter(arguments.reward_model), None)
    stage.facts["reward"] = json.loads(arguments.reward)
    return load_mix(settings, Surroundings(scratch=arguments.scratch, reward_model=reward_model, policy=policy, say=stage.say))
