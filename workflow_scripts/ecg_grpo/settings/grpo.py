"""`grpo:` reinforcement learning from the merged SFT model."""

from __future__ import annotations

import math
from typing import Literal, Self

from pydantic import Field, model_validator

from ecg_grpo.settings.section import Precision, Section
from ecg_grpo.settings.training import LaunchSettings, LoraSettings

RewardName = Literal["concept_f1", "chrf", "length_agreement"]
"""The reward functions of `ecg_grpo.rewards.REWARDS`; a test holds the two lists equal."""


class GRPOSettings(Section):
    """Section `grpo`; names and meanings are those of TRL's GRPOConfig (Shao et al. 2024, arXiv 2402.03300)."""

    num_train_epochs: float = Field(1, gt=0, description="Passes over the training prompts, unless max_steps is set.")
    max_steps: int = Field(-1, ge=-1, description="Optimizer steps; -1 leaves it to num_train_epochs.")
    per_device_train_batch_size: int = Field(8, ge=1, description="Completions in one backward pass of one process.")
    gradient_accumulation_steps: int = Field(8, ge=1, description="Backward passes for one optimizer step.")
    num_generations: int = Field(8, ge=2, description="Completions sampled for each prompt: the group.")
    num_iterations: int = Field(1, ge=1, description="Optimizer passes over one batch of completions.")
    learning_rate: float = Field(1e-6, gt=0, description="Peak learning rate; about 1e-6 full, 1e-5 with LoRA.")
    lr_scheduler_type: Literal["linear", "cosine", "constant", "constant_with_warmup"] = Field(
        "constant_with_warmup", description="How the learning rate falls."
    )
    warmup_steps: float = Field(0.05, ge=0, description="Steps in which the learning rate rises; below 1 a share of all.")
    max_grad_norm: float = Field(1.0, gt=0, description="Gradients are clipped to this norm.")
    max_completion_length: int = Field(256, ge=1, description="Longest completion in tokens.")
    temperature: float = Field(1.0, gt=0, description="Sampling temperature of the rollouts.")
    beta: float = Field(0.0, ge=0, description="Weight of the KL penalty towards the SFT model; 0 leaves it out.")
    epsilon: float = Field(0.2, gt=0, description="Lower clip range of the importance ratio.")
    epsilon_high: float | None = Field(None, gt=0, description="Upper clip range; null takes epsilon (DAPO: 0.28).")
    loss_type: Literal["grpo", "dr_grpo", "dapo", "bnpo", "cispo", "sapo", "luspo", "vespo"] = Field(
        "dapo", description="How token losses are averaged."
    )
    scale_rewards: Literal["group", "batch", "none"] = Field("group", description="What the rewards' spread is divided by.")
    mask_truncated_completions: bool = Field(
        False, description="Leave completions that hit max_completion_length out of the loss."
    )
    rewards: dict[RewardName, float] = Field(
        default_factory=lambda: {"concept_f1": 1.0, "chrf": 0.5, "length_agreement": 0.5},
        description="Reward functions and their weights in the sum. A file given with --configfile adds to this map; "
        "weight 0 takes one out of the sum and only logs it.",
    )
    lora: LoraSettings | None = Field(
        default_factory=LoraSettings, description="Train an adapter; null trains every parameter."
    )
    rollout: Literal["transformers", "vllm-colocate"] = Field(
        "transformers", description="The engine that samples completions."
    )
    vllm_gpu_memory_utilization: float = Field(
        0.3, gt=0, lt=1, description="Share of the GPU's memory that a colocated vLLM engine takes."
    )
    precision: Precision = Field("auto", description="Number format of the weights while training.")
    gradient_checkpointing: bool = Field(
        False, description="Recompute activations in the backward pass: less memory, about a third more time."
    )
    save_steps: int = Field(10, ge=1, description="A checkpoint to resume from every so many steps.")
    seed: int = Field(42, ge=0, description="Seed of sampling, of the adapter's first weights and of the order.")
    launch: LaunchSettings = Field(default_factory=LaunchSettings, description="How the program is started.")

    @property
    def completions_per_step(self) -> int:
        """Completions, over all processes, for one optimizer step."""
        return self.per_device_train_batch_size * self.gradient_accumulation_steps * self.launch.processes

    @property
    def prompts_per_step(self) -> int:
        """Prompts, over all processes, for one optimizer step."""
        return self.completions_per_step // self.num_generations

    def on_plain_python(self) -> bool:
        """Whether neither DeepSpeed nor vLLM is needed."""
        return self.launch.accelerate_config is None and self.rollout == "transformers"

    def steps(self, prompts: int) -> int:
        """Optimizer steps for so many training prompts; a last batch that is not full is left out by the trainer."""
        if self.max_steps > 0:
            return self.max_steps
        return math.ceil(self.num_train_epochs * (prompts // self.prompts_per_step) * self.num_iterations)

    @model_validator(mode="after")
    def _sizes_fit(self) -> Self:
        if self.completions_per_step % self.num_generations:
            raise ValueError(
                f"per_device_train_batch_size x gradient_accumulation_steps x launch.processes is "
                f"{self.completions_per_step} completions a step, which is no multiple of num_generations "
                f"({self.num_generations})"
            )
        if self.max_steps == 0:
            raise ValueError("max_steps must be -1 or at least 1")
        if self.save_steps % self.num_iterations:
            raise ValueError(
                f"save_steps ({self.save_steps}) must be a multiple of num_iterations ({self.num_iterations}): a run "
                "resumed between two passes over one batch of completions would not repeat the unbroken one"
            )
        if len(self.rewards) < 1 or not any(self.rewards.values()):
            raise ValueError("rewards must name at least one reward function with a weight other than 0")
        if self.lora is not None and self.launch.accelerate_config and self.rollout != "transformers":
            raise ValueError(
                "LoRA with DeepSpeed and vLLM rollouts lets the base weights drift, since every synchronisation merges "
                "and unmerges the adapter in bfloat16; train every parameter (lora: null), or leave "
                "launch.accelerate_config out"
            )
        return self
