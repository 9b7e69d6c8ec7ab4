"""Answers of a model to many prompts, greedy or sampled, by transformers or by vLLM."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, PreTrainedTokenizerBase

from ecg_grpo.prompts import Message
from ecg_grpo.sampling import fast_sampling
from ecg_grpo.vllm_on_cpu import import_vllm

Engine = Literal["transformers", "vllm"]

# vLLM batches by itself and only wants many prompts at once; between calls the progress is shown and kept.
_VLLM_PROMPTS_A_CALL = 1024


@dataclass(frozen=True)
class Completion:
    """A model's text for one prompt.

    Attributes:
        text: without the end token.
        finish_reason: `stop` if the model ended it, `length` if it was cut off.
        prompt_tokens: length of the rendered prompt.
        completion_tokens: length of the text, end token included.
        seconds: its share of the time that its batch took.
    """

    text: str
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    seconds: float


@dataclass(frozen=True)
class Sampling:
    """How completions are drawn from the model's own distribution; nothing else (top-k, top-p, penalties) bends it.

    Attributes:
        temperature: above 0; or 0, which takes the likeliest token each time.
        samples: completions of each prompt; 1 if the temperature is 0.
        seed: the same seed, engine, batch size and machine give the same completions.
    """

    temperature: float
    samples: int
    seed: int


GREEDY = Sampling(temperature=0.0, samples=1, seed=0)


@dataclass(frozen=True)
class Generation:
    """How completions are computed.

    Attributes:
        dtype: number format of the weights.
        max_new_tokens: longest completion.
        batch_size: prompts answered at once by transformers; vLLM chooses by itself.
        engine: what computes them. The engines draw different samples from one distribution.
        sampling: how the completions are drawn.
        gpu_memory_utilization: share of the GPU's memory that vLLM takes; unused otherwise.
    """

    dtype: torch.dtype
    max_new_tokens: int
    batch_size: int = 32
    engine: Engine = "transformers"
    sampling: Sampling = GREEDY
    gpu_memory_utilization: float = 0.9

    @property
    def prompts_a_batch(self) -> int:
        """Prompts that are handed over at once."""
        return _VLLM_PROMPTS_A_CALL if self.engine == "vllm" else self.batch_size


Batch = dict[int, list[Completion]]
"""Completions of some prompts, by the prompt's index."""


def complete(
    model_directory: Path, prompts: Sequence[list[Message]], generation: Generation, finished: int = 0
) -> Iterator[Batch]:
    """Completions of every prompt, batch by batch.

    Prompts are answered longest first, so that a batch holds prompts of like length and the largest comes first. A batch
    depends on no other: whoever kept the first ones goes on with the next and gets what an unbroken run would have given.

    Args:
        model_directory: model and tokenizer.
        prompts: messages of each prompt.
        generation: how.
        finished: batches at the beginning that are left out.

    Yields:
        `generation.sampling.samples` completions for each prompt of a batch.

    Raises:
        InputError: the engine is vLLM and vLLM is not installed.
    """
    tokenizer = AutoTokenizer.from_pretrained(model_directory, padding_side="left")
    rendered, token_ids = _render(tokenizer, prompts)
    order = sorted(range(len(prompts)), key=lambda index: (-len(token_ids[index]), index))
    size = generation.prompts_a_batch
    batches = [order[start : start + size] for start in range(0, len(order), size)]
    if finished >= len(batches):
        return
    if generation.engine == "vllm":
        answer = _vllm_engine(model_directory, tokenizer, token_ids, generation)
    else:
        answer = _transformers_engine(model_directory, tokenizer, rendered, token_ids, generation)
    for number in range(finished, len(batches)):
        started = time.monotonic()
        groups = answer(number, batches[number])
        seconds = (time.monotonic() - started) / sum(map(len, groups))
        yield {
            index: [_completion(tokenizer, ids, len(token_ids[index]), round(seconds, 4)) for ids in group]
            for index, group in zip(batches[number], groups, strict=True)
        }


def complete_all(
    model_directory: Path,
    prompts: Sequence[list[Message]],
    generation: Generation,
    on_progress: Callable[[int, str], None],
) -> list[list[Completion]]:
    """The completions of every prompt, in the order of the prompts.

    Args:
        model_directory, prompts, generation: see `complete`.
        on_progress: called after each batch with the number of prompts done and a note.
    """
    found: Batch = {}
    for batch in complete(model_directory, prompts, generation):
        found |= batch
        on_progress(len(found), f"{generated_tokens(found)} tokens")
    return [found[index] for index in range(len(prompts))]


def generated_tokens(batch: Batch) -> int:
    """Tokens of all completions."""
    return sum(completion.completion_tokens for group in batch.values() for completion in group)


_Engine = Callable[[int, list[int]], list[list[list[int]]]]
"""(number of the batch, indices of its prompts) → for each prompt the token ids of its completions."""


def _transformers_engine(
    model_directory: Path,
    tokenizer: PreTrainedTokenizerBase,
    rendered: list[str],
    token_ids: list[list[int]],
    generation: Generation,
) -> _Engine:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = AutoModelForCausalLM.from_pretrained(model_directory, dtype=generation.dtype).to(device).eval()
    sampling = generation.sampling
    config = generation_config(tokenizer, generation.max_new_tokens, sampling.temperature)
    model.generation_config = config

    def answer(number: int, batch: list[int]) -> list[list[list[int]]]:
        torch.manual_seed(random.Random(f"{sampling.seed}/{number}").getrandbits(63))
        texts = [rendered[index] for index in batch for _ in range(sampling.samples)]
        inputs = tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False).to(device)
        with torch.inference_mode(), fast_sampling(model):
            output = model.generate(inputs.input_ids, inputs.attention_mask, generation_config=config)
        rows = output[:, inputs.input_ids.shape[1] :].tolist()
        return [rows[start : start + sampling.samples] for start in range(0, len(rows), sampling.samples)]

    return answer


def generation_config(tokenizer: PreTrainedTokenizerBase, max_new_tokens: int, temperature: float) -> GenerationConfig:
    """How transformers decodes: greedily at temperature 0, else from the model's own distribution.

    Stated in full, since a model directory's own file may hold penalties and cut-offs.
    """
    return GenerationConfig(
        max_new_tokens=max_new_tokens,
        do_sample=temperature > 0,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        **({"temperature": temperature, "top_k": 0} if temperature > 0 else {}),  # unset, top_k is 50
    )


def _vllm_engine(
    model_directory: Path, tokenizer: PreTrainedTokenizerBase, token_ids: list[list[int]], generation: Generation
) -> _Engine:
    sampling, on_cpu = generation.sampling, not torch.cuda.is_available()
    # A prompt that is read in parts winds its random numbers back, which a processor's generator cannot do.
    in_parts = not (on_cpu and sampling.temperature > 0)
    vllm = import_vllm(key_value_gib=2)
    engine = vllm.LLM(
        model=str(model_directory),
        dtype=str(generation.dtype).removeprefix("torch."),
        generation_config="vllm",  # the directory's own file may hold penalties and cut-offs
        max_model_len=max(map(len, token_ids), default=0) + generation.max_new_tokens,
        gpu_memory_utilization=generation.gpu_memory_utilization,
        seed=sampling.seed,
        enforce_eager=on_cpu,  # a processor would wait for a compiler
        enable_chunked_prefill=in_parts,
        enable_prefix_caching=True,  # the system prompt is read once
        **(_on_cpu(in_parts) if on_cpu else {}),
    )

    def answer(_: int, batch: list[int]) -> list[list[list[int]]]:
        options = [
            vllm.SamplingParams(
                n=sampling.samples,
                temperature=sampling.temperature,
                top_p=1.0,
                top_k=0,
                min_p=0.0,
                # Sample i of a prompt draws with the prompt's seed + i; one seed for all would draw alike for every prompt.
                seed=random.Random(f"{sampling.seed}/{index}").getrandbits(48),
                max_tokens=generation.max_new_tokens,
                detokenize=False,
            )
            for index in batch
        ]
        # Token ids, since vLLM would put a second start token before a text.
        texts = [{"prompt_token_ids": token_ids[index]} for index in batch]
        found = engine.generate(texts, options, use_tqdm=False)
        return [[list(output.token_ids) for output in sorted(one.outputs, key=lambda output: output.index)] for one in found]

    return answer


def _on_cpu(in_parts: bool) -> dict[str, Any]:
    """vLLM's settings for throughput on a processor; `benchmarks/evaluation.py` measures them."""
    settings: dict[str, Any] = {
        "block_size": 32,  # the smallest: shares more of a common beginning, and wastes less of the cache
        "compilation_config": {"custom_ops": ["all"]},  # without a compiler the fused kernels must be asked for
    }
    # A layer's intermediate values then stay in the processor's cache.
    return settings | ({"max_num_batched_tokens": 512} if in_parts else {})


def _render(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[list[Message]]) -> tuple[list[str], list[list[int]]]:
    """Each prompt as the chat template writes it, as text and as token ids."""
    rendered = tokenizer.apply_chat_template(list(prompts), tokenize=False, add_generation_prompt=True)
    return rendered, tokenizer(rendered, add_special_tokens=False)["input_ids"]


def _completion(tokenizer: PreTrainedTokenizerBase, ids: list[int], prompt_tokens: int, seconds: float) -> Completion:
    """A completion out of generated token ids, which padding may follow."""
    ended = tokenizer.eos_token_id in ids
    tokens = ids[: ids.index(tokenizer.eos_token_id) + 1] if ended else ids
    return Completion(
        text=tokenizer.decode(tokens, skip_special_tokens=True),
        finish_reason="stop" if ended else "length",
        prompt_tokens=prompt_tokens,
        completion_tokens=len(tokens),
        seconds=seconds,
    )
