"""`evaluation.generation` and `evaluation.sampling`: how models answer."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ecg_grpo.settings.section import Precision, Section


class GenerationSettings(Section):
    """Section `evaluation.generation`: greedy answers of every model to every question of the split."""

    engine: Literal["transformers", "vllm"] = Field("transformers", description="What computes the answers.")
    max_new_tokens: int = Field(256, ge=1, description="Longest answer in tokens; longer ones count as truncated.")
    batch_size: int = Field(64, ge=1, description="Prompts answered at once by transformers.")
    gpu_memory_utilization: float = Field(0.9, gt=0, le=1, description="Share of the GPU's memory that vLLM takes.")
    precision: Precision = Field("auto", description="Number format of the weights while answering.")

    def unread(self) -> set[str]:
        return {"batch_size"} if self.engine == "vllm" else {"gpu_memory_utilization"}


class SamplingSettings(Section):
    """Section `evaluation.sampling`: several drawn answers to every question, to see what a seed decides."""

    samples: int = Field(5, ge=2, description="Answers to each question; each draw is scored like a run of its own.")
    temperature: float = Field(1.0, gt=0, description="Of the distribution that they are drawn from.")
    seed: int = Field(0, ge=0, description="The same seed, engine, batch size and machine give the same answers.")
