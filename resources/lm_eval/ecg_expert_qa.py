"""ECG-Expert-QA for lm-evaluation-harness: the prompts, the answers and five of the scores of ecg-grpo's own evaluation.

Needs lm_eval, rouge_score and sacrebleu, and no network: lm-eval's own ROUGE would fetch its code.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import pyarrow.parquet as pq
from lm_eval.api.task import ConfigurableTask
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics import BLEU

ROUGE = RougeScorer(["rougeL", "rouge1", "rouge2"], use_stemmer=True)
BLEU_1 = BLEU(max_ngram_order=1, effective_order=True)
BLEU_4 = BLEU(max_ngram_order=4, effective_order=True)


class ECGExpertQA(ConfigurableTask):
    """Every prompt is the record's own messages, as the model's chat template writes them; nothing is added."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__(config={key: value for key, value in config.items() if key != "class"})

    def doc_to_text(self, doc: Mapping[str, Any], doc_to_text: object = None) -> str:
        """The question alone, for lm-eval's own log."""
        return doc["prompt"][-1]["content"]

    def fewshot_context(
        self,
        doc: Mapping[str, Any],
        num_fewshot: int,
        system_instruction: str | None = None,
        apply_chat_template: bool = False,
        fewshot_as_multiturn: bool = False,
        chat_template: Callable[..., str] | None = None,
        gen_prefix: str | None = None,
    ) -> str:
        """The rendered prompt.

        Raises:
            ValueError: an option would make it another one than that of the training.
        """
        if not apply_chat_template or chat_template is None:
            raise ValueError("ecg_expert_qa: the prompts are chats. Add --apply_chat_template.")
        if num_fewshot or system_instruction:
            raise ValueError("ecg_expert_qa: the prompts are complete. Leave out --num_fewshot and --system_instruction.")
        return chat_template(doc["prompt"], add_generation_prompt=True)


def read_split(**_: object) -> dict[str, datasets.Dataset]:
    """The questions, from the file beside this one."""
    table = pq.read_table(Path(__file__).with_suffix(".parquet"))
    return {"questions": datasets.Dataset.from_list(table.to_pylist())}


def prediction_of(completion: str) -> str:
    """The answer part of a model's text: what follows `<think>…</think>`, inside `<answer>…</answer>` if there is one.

    Reasoning that never ended is no answer.
    """
    _, ended, rest = completion.rpartition("</think>")
    if not ended and "<think>" in completion:
        return ""
    if "<answer>" in rest:
        rest = rest.partition("<answer>")[2]
    return rest.partition("</answer>")[0].strip()


def score(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """Scores of one answer, each from 0 to 1: ROUGE's F1 of stemmed words, BLEU of one sentence."""
    prediction, reference = prediction_of(results[0]), doc["answer"]
    rouge = ROUGE.score(reference, prediction)
    return {
        "rouge_l": rouge["rougeL"].fmeasure,
        "rouge_1": rouge["rouge1"].fmeasure,
        "rouge_2": rouge["rouge2"].fmeasure,
        "bleu_1": BLEU_1.sentence_score(prediction, [reference]).score / 100,
        "bleu_4": BLEU_4.sentence_score(prediction, [reference]).score / 100,
    }
