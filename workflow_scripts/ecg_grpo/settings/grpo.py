"""`grpo:` reinforcement learning from the merged SFT model."""

from __future__ import annotations

import math
from typing import Literal, Self

from pydantic import Field, model_validator

from ecg_grpo.settings.guards import GuardSettings
from ecg_grpo.settings.section import Section
from ecg_grpo.settings.training import TrainingSettings

MetricName = Literal[
    "rouge_l", "rouge_1", "rouge_2", "bleu_1", "bleu_4", "meteor", "chrf", "token_f1", "concept_f1"
]  # fmt: skip
"""The quality metrics of `ecg_grpo.metrics.METRICS` that grade every answer by degrees; a test holds the two lists equal."""


class ValidationSettings(Section):
    """How the policy is validated while it trains: greedy answers to prompts of the validation split."""

    eval_steps: int = Field(50, ge=1, description="Optimizer steps between two validations; one comes before the first step.")
    prompts: int = Field(
        64, ge=1, description="Prompts of the validation split, evenly over it; fewer if they do not fill the last batch."
    )
    per_device_eval_batch_size: int = Field(16, ge=1, description="Prompts answered at once by one process.")
    metric: MetricName = Field(
        "rouge_l", description="What decides which checkpoint is best: an evaluation metric, never the reward."
    )


class GRPOSettings(TrainingSettings):
    """Section `grpo`; names and meanings are those of TRL's GRPOConfig (Shao et al. 2024, arXiv 2402.03300).

    top_p, top_k, min_p and repetition_penalty are missing on purpose: samples must come from the policy itself, or the
    importance ratio is wrong.
    """

    NOT_THE_TRAINERS = TrainingSettings.NOT_THE_TRAINERS | {
        *("rollout", "validation", "deliver", "guards", "dynamic_sampling", "dynamic_sampling_rounds")
    }

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
    max_completion_length: int = Field(256, ge=1, description="Longest completion in tokens.")
    temperature: float = Field(1.0, gt=0, description="Sampling temperature of the rollouts.")
    beta: float = Field(0.0, ge=0, description="Weight of the KL penalty towards the SFT model; 0 leaves it out.")
    epsilon: float = Field(0.2, gt=0, lt=1, description="Lower clip range of the importance ratio.")
    epsilon_high: float | None = Field(
        None, gt=0, description="Upper clip range; null takes epsilon (DAPO: 0.28; cispo: the largest ratio itself, 5)."
    )
    delta: float | None = Field(
        None, gt=0, description="Upper bound of the ratio for negative advantages too (INTELLECT-2, arXiv 2505.07291)."
    )
    loss_type: Literal["grpo", "dr_grpo", "dapo", "bnpo", "cispo", "sapo", "luspo", "vespo"] = Field(
        "dapo", description="How token losses are averaged. GSPO is grpo with importance_sampling_level sequence."
    )
    importance_sampling_level: Literal["token", "sequence"] = Field(
        "token", description="One importance ratio a token, or one a completion (GSPO, arXiv 2507.18071)."
    )
    scale_rewards: Literal["group", "batch", "none"] = Field("group", description="What the rewards' spread is divided by.")
    multi_objective_aggregation: Literal["sum_then_normalize", "normalize_then_sum"] = Field(
        "sum_then_normalize", description="Rewards are summed and then normalized, or the other way round (GDPO)."
    )
    mask_truncated_completions: bool = Field(
        False, description="Leave completions that hit max_completion_length out of the loss."
    )
    top_entropy_quantile: float = Field(
        1.0, gt=0, le=1, description="Share of tokens, those of highest entropy, that the loss covers (arXiv 2506.01939)."
    )
    entropy_coef: float = Field(0.0, ge=0, description="Weight of the entropy bonus.")
    use_adaptive_entropy: bool = Field(False, description="Move entropy_coef towards entropy_target (arXiv 2505.22312).")
    entropy_target: float = Field(0.2, ge=0, description="Entropy in nats per token below which the bonus grows.")
    sync_ref_model: bool = Field(False, description="Let the reference model follow the policy (TR-DPO); needs beta > 0.")
    ref_model_mixup_alpha: float = Field(0.6, gt=0, le=1, description="The policy's share in a new reference model.")
    ref_model_sync_steps: int = Field(512, ge=1, description="Steps between two new reference models.")
    dynamic_sampling: Literal["redraw", "replace"] | None = Field(
        None,
        description="What becomes of groups whose rewards have no spread: null trains on them in vain, redraw samples their "
        "prompts again, replace samples other prompts in their place (DAPO, arXiv 2503.14476).",
    )
    dynamic_sampling_rounds: int = Field(2, ge=1, description="How often at most a batch of completions is mended.")
    rollout: Literal["transformers", "vllm-colocate", "vllm-server"] = Field(
        "transformers",
        description="The engine that samples: the model itself, vLLM in the training processes, or a vLLM server with "
        "GPUs of its own.",
    )
    vllm_gpu_memory_utilization: float = Field(
        0.3, gt=0, lt=1, description="Share of a GPU's memory that the vLLM engine takes, weights and cache."
    )
    vllm_tensor_parallel_size: int = Field(1, ge=1, description="GPUs that share one vLLM engine.")
    vllm_enable_sleep_mode: bool = Field(False, description="Colocated vLLM gives its memory up while the policy trains.")
    vllm_importance_sampling_mode: Literal["token_truncate", "token_mask", "sequence_truncate", "sequence_mask"] = Field(
        "sequence_mask", description="How the difference between vLLM's and the trainer's probabilities is made up for."
    )
    vllm_importance_sampling_clip_max: float = Field(3.0, gt=1, description="Largest ratio of the two probabilities.")
    vllm_server_base_url: str | None = Field(
        None,
        pattern=r"^http://[^/@\s]+$",
        description="A running server (`http://host:port`); null starts one on this machine's GPUs after the training's.",
    )
    validation: ValidationSettings | None = Field(
        None, description="Validate while training; null leaves it to the evaluation at the end."
    )
    deliver: Literal["last", "best"] = Field(
        "last", description="The checkpoint that the stage delivers; `best` by validation.metric."
    )
    guards: GuardSettings = Field(default_factory=GuardSettings, description="What stops a run early.")

    def unread(self) -> set[str]:
        """Of GRPO's training; the export to verl takes the whole section."""
        found = set() if self.uses_vllm else {name for name in type(self).model_fields if name.startswith("vllm_")}
        found |= set() if self.sync_ref_model else {"ref_model_mixup_alpha", "ref_model_sync_steps"}
        found |= set() if self.use_adaptive_entropy else {"entropy_target"}
        return found | (set() if self.dynamic_sampling else {"dynamic_sampling_rounds"})

    @property
    def completions_per_step(self) -> int:
        """Completions, over all processes, for one optimizer step."""
        return self.sequences_per_step

    @property
    def prompts_per_step(self) -> int:
        """Prompts, over all processes, for one optimizer step."""
        return self.completions_per_step // self.num_generations

    @property
    def uses_vllm(self) -> bool:
        """Whether vLLM samples the completions."""
        return self.rollout != "transformers"

    @property
    def gpus(self) -> int:
        """GPUs of one machine that the stage takes where there are any."""
        own_server = self.rollout == "vllm-server" and self.vllm_server_base_url is None
        return self.launch.processes // self.launch.machines + (self.vllm_tensor_parallel_size if own_server else 0)

    def needs_gpu_packages(self) -> bool:
        """Whether DeepSpeed, bitsandbytes or vLLM is needed."""
        return super().needs_gpu_packages() or self.uses_vllm

    def steps(self, prompts: int) -> int:
        """Optimizer steps for so many training prompts; a last batch that is not full is left out by the trainer."""
        if self.max_steps > 0:
            return self.max_steps
        return math.ceil(self.num_train_epochs * (prompts // self.prompts_per_step) * self.num_iterations)

    @model_validator(mode="after")
    def _sizes_fit(self) -> Self:
        sizes = "per_device_train_batch_size x gradient_accumulation_steps"
        if self.completions_per_step % self.num_generations:
            raise ValueError(
                f"{sizes} x launch.processes is {self.completions_per_step} completions a step, which is no multiple of "
                f"num_generations ({self.num_generations})"
            )
        in_one_process = self.completions_per_step // self.launch.processes
        if self.dynamic_sampling and in_one_process % self.num_generations:
            raise ValueError(
                f"dynamic_sampling needs whole groups in every process, but {sizes} is {in_one_process}, which is no "
                f"multiple of num_generations ({self.num_generations})"
            )
        if self.max_steps == 0:
            raise ValueError("max_steps must be -1 or at least 1")
        if self.save_steps % self.num_iterations:
            raise ValueError(
                f"save_steps ({self.save_steps}) must be a multiple of num_iterations ({self.num_iterations}): a run "
                "resumed between two passes over one batch of completions would not repeat the unbroken one"
            )
        return self

    @model_validator(mode="after")
    def _loss_is_one_that_trains(self) -> Self:
        if self.loss_type == "cispo" and (self.epsilon_high or 0) <= 1:
            raise ValueError("loss_type cispo takes epsilon_high as the largest ratio: set it above 1, e.g. to 5")
        if self.loss_type == "luspo" and self.importance_sampling_level != "sequence":
            raise ValueError("loss_type luspo needs importance_sampling_level sequence")
        if self.loss_type == "vespo" and self.uses_vllm and not self.vllm_importance_sampling_mode.startswith("token"):
            raise ValueError("loss_type vespo needs vllm_importance_sampling_mode token_truncate or token_mask")
        if self.delta is not None and self.delta <= 1 + (self.epsilon_high or self.epsilon):
            raise ValueError("delta must be above 1 + epsilon_high, or it clips what the other bound lets through")
        if self.sync_ref_model and self.beta == 0:
            raise ValueError("sync_ref_model needs beta above 0: without it there is no reference model")
        if self.sync_ref_model and self.lora is not None:
            raise ValueError("sync_ref_model needs lora: null; with an adapter the reference is the SFT model itself")
        if self.lora is not None and "lm_head" in self.lora.target_modules:
            raise ValueError("lora.target_modules must leave lm_head out: its adapter would never be trained")
        return self

    @model_validator(mode="after")
    def _rollouts_come_from_the_policy(self) -> Self:
        if self.lora is not None and self.launch.deepspeed and self.uses_vllm and self.precision != "float32":
            raise ValueError(
                "LoRA with DeepSpeed in bfloat16 and vLLM rollouts lets the base weights drift, since every "
                "synchronisation merges and unmerges the adapter in bfloat16. Two ways are safe: train every parameter "
                "(lora: null), or leave DeepSpeed out (launch.deepspeed: null), which keeps the base in float32"
            )
        if self.lora is not None and self.lora.load_in_4bit and self.uses_vllm:
            raise ValueError(
                "lora.load_in_4bit with vLLM rollouts lets the base weights drift, since every synchronisation "
                "quantizes them anew; set rollout: transformers"
            )
        if self.rollout == "vllm-colocate" and self.launch.processes % self.vllm_tensor_parallel_size:
            raise ValueError(
                f"launch.processes ({self.launch.processes}) must be a multiple of vllm_tensor_parallel_size "
                f"({self.vllm_tensor_parallel_size})"
            )
        return self

    @model_validator(mode="after")
    def _the_best_checkpoint_can_be_known(self) -> Self:
        if self.deliver == "best" and self.validation is None:
            raise ValueError("deliver: best needs validation")
        if self.deliver == "best" and self.validation is not None and self.validation.eval_steps != self.save_steps:
            raise ValueError(
                f"deliver: best needs a checkpoint for every validation: set validation.eval_steps "
                f"({self.validation.eval_steps}) and save_steps ({self.save_steps}) equal"
            )
        return self
