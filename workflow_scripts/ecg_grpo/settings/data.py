"""`data:` which raw files are read and how they become training, validation and test records."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from ecg_grpo.settings.section import Section


class DataSettings(Section):
    """Section `data`."""

    raw_dir: str | None = Field(
        None,
        description="Folder with ECG-Expert-QA's JSON files; some are enough. null: they are fetched as `raw_data` says.",
    )
    system_prompt: str = Field("resources/prompts/system.txt", description="Text file with the system prompt of every stage.")
    reasoning_system_prompt: str = Field(
        "resources/prompts/system_reasoning.txt",
        description="The same with `reasoning: on`; it asks for `<think>…</think>` and then `<answer>…</answer>`.",
    )
    validation_fraction: float = Field(0.1, gt=0, lt=1, description="Share of each task's records for validation.")
    test_fraction: float = Field(0.1, gt=0, lt=1, description="Share of each task's records for the test split.")
    question_similarity: float = Field(
        0.72,
        ge=0.5,
        le=1,
        description="Questions at or above this weighted 4-gram cosine belong to one group. 0.72 covers every pair at a TF-IDF "
        "cosine of 0.9 and nearly every pair at 0.8.",
    )
    answer_similarity: float = Field(
        0.8, ge=0.5, le=1, description="Answers at or above this weighted 4-gram cosine belong to one group."
    )
    max_prompt_tokens: int = Field(
        1024, ge=1, description="Longest prompt in tokens, chat template included; longer records are quarantined."
    )
    max_answer_tokens: int = Field(
        1024, ge=1, description="Longest reference answer in tokens; longer records are quarantined."
    )
    seed: int = Field(0, description="Decides, with a stable hash, which group goes to which split.")

    def unread(self) -> set[str]:
        return {"system_prompt", "reasoning_system_prompt"}  # the rule's input is the one of them that is used

    @model_validator(mode="after")
    def _something_is_left_to_train_on(self) -> Self:
        if self.validation_fraction + self.test_fraction >= 1:
            raise ValueError("validation_fraction + test_fraction must be less than 1")
        return self
