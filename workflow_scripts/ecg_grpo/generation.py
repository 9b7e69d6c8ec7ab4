"""Answers of a model to many prompts, greedy or sampled, by transformers or by vLLM."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, PreTrainedTokenizerBase

from ecg_grpo.prompts import Message
from ecg_grpo.vllm_on_cpu import import_vllm

Engine = Literal["transformers", "vllm"]

# vLLM batches by itself and only wants many prompts at once; between calls the progress is shown.
_VLLM_PROMPTS_A_CALL = 256


@dataclass(frozen=True)
class Completion:
    """A model's text for one prompt.

    Attributes:
        text: without the end token.
        finish_reason: `stop` if the model ended it, `length` if it was cut off.
        prompt_tokens: length of the rendered prompt.
        completion_tokens: length of the text, end token included.
    """

    text: str
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int


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


def generate(
    model_directory: Path,
    prompts: Sequence[list[Message]],
    dtype: torch.dtype,
    batch_size: int,
    max_new_tokens: int,
    on_progress: Callable[[int, str], None],
    engine: Engine = "transformers",
    gpu_memory_utilization: float = 0.9,
) -> list[Completion]:
    """Greedy completions, one for each prompt, in the order of the prompts.

    The arguments are those of `sample`.
    """
    groups = sample(
        model_directory, prompts, dtype, batch_size, max_new_tokens, on_progress, GREEDY, engine, gpu_memory_utilization
    )
    return [completion for (completion,) in groups]


def sample(
    model_directory: Path,
    prompts: Sequence[list[Message]],
    dtype: torch.dtype,
    batch_size: int,
    max_new_tokens: int,
    on_progress: Callable[[int, str], None],
    sampling: Sampling,
    engine: Engine = "transformers",
    gpu_memory_utilization: float = 0.9,
) -> list[list[Completion]]:
    """Completions of every prompt, in the order of the prompts.

    Args:
        model_directory: model and tokenizer.
        prompts: messages of each prompt.
        dtype: number format of the weights.
        batch_size: prompts answered at once; vLLM chooses by itself.
        max_new_tokens: longest completion.
        on_progress: called after each batch with the number of prompts done and a note.
        sampling: how the completions are drawn.
        engine: what computes them. The engines draw different samples from one distribution.
        gpu_memory_utilization: share of the GPU's memory that vLLM takes; unused otherwise.

    Returns:
        `sampling.samples` completions for each prompt.

    Raises:
        InputError: the engine is vLLM and vLLM is not installed.
    """
    if engine == "vllm":
        return _by_vllm(model_directory, prompts, dtype, max_new_tokens, on_progress, sampling, gpu_memory_utilization)
    return _by_transformers(model_directory, prompts, dtype, batch_size, max_new_tokens, on_progress, sampling)


def _by_transformers(
    model_directory: Path,
    prompts: Sequence[list[Message]],
    dtype: torch.dtype,
    batch_size: int,
    max_new_tokens: int,
    on_progress: Callable[[int, str], None],
    sampling: Sampling,
) -> list[list[Completion]]:
    """Prompts are answered longest first, so that a batch holds prompts of like length and the largest comes first."""
    tokenizer = AutoTokenizer.from_pretrained(model_directory, padding_side="left")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = AutoModelForCausalLM.from_pretrained(model_directory, dtype=dtype).to(device).eval()
    options: dict[str, object] = {"do_sample": False}
    if sampling.temperature > 0:
        options = {
            "do_sample": True,
            "temperature": sampling.temperature,
            "top_k": 0,  # unset, transformers takes 50
            "num_return_sequences": sampling.samples,
        }
        # The directory's own file may hold penalties and cut-offs, which would apply beside what is given here.
        model.generation_config = GenerationConfig(
            eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, bos_token_id=tokenizer.bos_token_id
        )
        torch.manual_seed(sampling.seed)
    rendered, token_ids = _render(tokenizer, prompts)
    order = sorted(range(len(prompts)), key=lambda index: (-len(token_ids[index]), index))
    completions: dict[int, list[Completion]] = {}
    generated = 0
    for start in range(0, len(order), batch_size):
        batch = order[start : start + batch_size]
        inputs = tokenizer(
            [rendered[index] for index in batch], return_tensors="pt", padding=True, add_special_tokens=False
        ).to(device)
        with torch.inference_mode():
            output = model.generate(**inputs, max_new_tokens=max_new_tokens, **options)
        rows = output[:, inputs.input_ids.shape[1] :].tolist()
        for place, index in enumerate(batch):
            group = rows[place * sampling.samples : (place + 1) * sampling.samples]
            completions[index] = [_completion(tokenizer, ids, len(token_ids[index])) for ids in group]
            generated += sum(completion.completion_tokens for completion in completions[index])
        on_progress(len(completions), f"{generated} tokens")
    return [completions[index] for index in range(len(prompts))]


def _by_vllm(
    model_directory: Path,
    prompts: Sequence[list[Message]],
    dtype: torch.dtype,
    max_new_tokens: int,
    on_progress: Callable[[int, str], None],
    sampling: Sampling,
    gpu_memory_utilization: float,
) -> list[list[Completion]]:
    vllm = import_vllm()
    tokenizer = AutoTokenizer.from_pretrained(model_directory)
    _, token_ids = _render(tokenizer, prompts)
    on_cpu = not torch.cuda.is_available()
    engine = vllm.LLM(
        model=str(model_directory),
        dtype=str(dtype).removeprefix("torch."),
        generation_config="vllm",  # the directory's own file may hold penalties and cut-offs
        max_model_len=max(map(len, token_ids), default=0) + max_new_tokens,
        gpu_memory_utilization=gpu_memory_utilization,
        seed=sampling.seed,
        enforce_eager=on_cpu,  # a processor would wait for a compiler
        # A prompt that is read in parts winds its random numbers back, which a processor's generator cannot do.
        enable_chunked_prefill=not on_cpu,
    )
    # Sample i of a prompt draws with the prompt's seed + i; one seed for all would draw alike for every prompt.
    seeds = random.Random(sampling.seed)
    options = [
        vllm.SamplingParams(
            n=sampling.samples,
            temperature=sampling.temperature,
            top_p=1.0,
            top_k=0,
            min_p=0.0,
            seed=seeds.getrandbits(48),
            max_tokens=max_new_tokens,
            detokenize=False,
        )
        for _ in prompts
    ]
    completions: list[list[Completion]] = []
    generated = 0
    for start in range(0, len(prompts), _VLLM_PROMPTS_A_CALL):
        chunk = slice(start, start + _VLLM_PROMPTS_A_CALL)
        # Token ids, since vLLM would put a second start token before a text.
        texts = [{"prompt_token_ids": ids} for ids in token_ids[chunk]]
        for answer in engine.generate(texts, options[chunk], use_tqdm=False):
            outputs = sorted(answer.outputs, key=lambda output: output.index)
            group = [_completion(tokenizer, list(output.token_ids), len(answer.prompt_token_ids)) for output in outputs]
            generated += sum(completion.completion_tokens for completion in group)
            completions.append(group)
        on_progress(len(completions), f"{generated} tokens")
    return completions


def _render(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[list[Message]]) -> tuple[list[str], list[list[int]]]:
    """Each prompt as the chat template writes it, as text and as token ids."""
    rendered = tokenizer.apply_chat_template(list(prompts), tokenize=False, add_generation_prompt=True)
    return rendered, tokenizer(rendered, add_special_tokens=False)["input_ids"]


def _completion(tokenizer: PreTrainedTokenizerBase, ids: list[int], prompt_tokens: int) -> Completion:
    """A completion out of generated token ids, which padding may follow."""
    ended = tokenizer.eos_token_id in ids
    tokens = ids[: ids.index(tokenizer.eos_token_id) + 1] if ended else ids
    return Completion(
        text=tokenizer.decode(tokens, skip_special_tokens=True),
        finish_reason="stop" if ended else "length",
        prompt_tokens=prompt_tokens,
        completion_tokens=len(tokens),
    )
