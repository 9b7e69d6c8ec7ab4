"""What makes transformers sample faster without drawing from another distribution."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from torch import nn
from transformers.cache_utils import Cache, DynamicLayer
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled

STRETCH = 256

WORTH_SHARING = 16
"""Tokens that prompts must have in common for reading them apart to save more than one more pass costs."""


@contextmanager
def fast_sampling(model: nn.Module) -> Iterator[None]:
    """Within the block, `model.generate` reads what prompts have in common once and samples from merged weights.

    A GRPO group asks for many completions of one prompt, all prompts begin with the system prompt, and an adapter's products
    are many and tiny. All of it changes the probabilities by rounding only.

    Args:
        model: a causal language model with or without a LoRA adapter, as it is trained.
    """
    original = model.generate

    def generate(input_ids: torch.Tensor, attention_mask: torch.Tensor, **options: Any) -> torch.Tensor:
        with merged_adapters(model), inverse_transform_sampling():
            if _has_windows(model):
                return original(input_ids=input_ids, attention_mask=attention_mask, **options)
            config = options["generation_config"]
            ids, mask = share_beginning(input_ids, attention_mask)
            cache = read_prompts(original, ids, mask, config.max_new_tokens, config.pad_token_id)
            output = original(input_ids=ids, attention_mask=mask, past_key_values=cache, **options)
            return torch.cat([input_ids, output[:, input_ids.shape[1] :]], dim=1)

    model.generate = generate
    try:
        yield
    finally:
        del model.generate


@contextmanager
def merged_adapters(model: nn.Module) -> Iterator[None]:
    """Puts plain layers with the sum of base and adapter in the places of a model's adapted ones, for one block.

    The sums are made anew each time and live beside the weights: adding to these and subtracting again would leave rounding
    errors in what is trained. Left alone are adapters below float32, whose sum would be rounded to a different policy, those of
    quantized layers, and ZeRO-3's, which no process holds whole.
    """
    replaced: list[tuple[nn.Module, str, nn.Module]] = []
    try:
        for name, layer in [] if is_deepspeed_zero3_enabled() else list(model.named_modules()):
            if isinstance(layer, LoraLayer) and (plain := _merged(layer)) is not None:
                parent, _, child = name.rpartition(".")
                replaced.append((model.get_submodule(parent), child, layer))
                setattr(model.get_submodule(parent), child, plain)
        yield
    finally:
        for parent, child, layer in replaced:
            setattr(parent, child, layer)


def _merged(layer: LoraLayer) -> nn.Linear | None:
    base = layer.get_base_layer()
    if type(base) is not nn.Linear or base.weight.dtype != torch.float32 or layer.lora_variant or layer.disable_adapters:
        return None
    with torch.no_grad():
        weight = base.weight.detach()
        for adapter in layer.active_adapters:
            if adapter in layer.lora_A:
                weight = weight + layer.get_delta_weight(adapter)
    plain = nn.Linear(base.in_features, base.out_features, bias=base.bias is not None, device="meta")
    plain.weight = nn.Parameter(weight, requires_grad=False)
    if base.bias is not None:
        plain.bias = nn.Parameter(base.bias.detach(), requires_grad=False)
    return plain


def read_prompts(
    generate: Callable[..., Any], input_ids: torch.Tensor, attention_mask: torch.Tensor, max_new_tokens: int, pad_token: int
) -> Cache:
    """The keys and values of all prompts but for their last tokens; what prompts have in common is computed once.

    Prompts that are alike are one prompt, and the beginning that all of them share (the system prompt) is read by itself.

    Args:
        generate: the model's own method.
        input_ids, attention_mask: prompts as `share_beginning` lays them out, shape (rows, tokens).
        max_new_tokens: tokens that will be added to every row.
        pad_token: any token; it fills what is never read.

    Returns:
        A cache for all rows, with room for what will be added.
    """
    options = {"max_new_tokens": 1, "do_sample": False, "pad_token_id": pad_token, "return_dict_in_generate": True}
    distinct, rows = torch.unique(torch.cat([attention_mask, input_ids], dim=1), dim=0, return_inverse=True)
    mask, tokens = distinct.chunk(2, dim=1)
    shared = _shared_columns(tokens, mask)
    if len(tokens) > 1 and shared >= WORTH_SHARING:
        beginning = generate(input_ids=tokens[:1, :shared], attention_mask=mask[:1, :shared], **options).past_key_values
        beginning.batch_repeat_interleave(len(tokens))
        options["past_key_values"] = beginning
    cache = generate(input_ids=tokens, attention_mask=mask, **options).past_key_values
    cache.crop(-1)
    cache.batch_select_indices(rows)
    cache.layers = [
        RoomyLayer(layer, tokens.shape[1] + max_new_tokens) if type(layer) is DynamicLayer else layer for layer in cache.layers
    ]
    return cache


def share_beginning(input_ids: torch.Tensor, attention_mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Moves the padding of prompts from the left to behind the beginning that all of them share.

    The rows are as long as before and mean the same: padding has no position. Each now begins with the same columns.

    Args:
        input_ids, attention_mask: prompts padded on the left, shape (rows, tokens).

    Returns:
        Both, laid out anew: beginning, padding, rest.
    """
    lengths = attention_mask.sum(dim=1, keepdim=True)
    width = input_ids.shape[1]
    places = torch.arange(width, device=input_ids.device).expand_as(input_ids)
    on_the_left = input_ids.gather(1, (places + width - lengths).clamp(max=width - 1))
    shared = _shared_columns(on_the_left[:, : int(lengths.min()) - 1])  # a row's last token stays where the next one follows
    begins = places < shared
    ids = torch.where(begins, on_the_left, input_ids)
    mask = (begins | (places >= width - lengths + shared)).to(attention_mask.dtype)
    return ids, mask


def _has_windows(model: nn.Module) -> bool:
    """Whether some layer sees only so many columns back: moved padding would push the beginning out of its sight, and its keys
    and values cannot be cut back by a token."""
    config = model.config.get_text_config()
    layers = getattr(config, "layer_types", None)
    if layers is None:
        return getattr(config, "sliding_window", None) is not None
    return any(layer != "full_attention" for layer in layers)


def _shared_columns(tokens: torch.Tensor, mask: torch.Tensor | None = None) -> int:
    """Leading columns in which all rows hold the same token, and none is padding."""
    same = (tokens == tokens[:1]).all(dim=0)
    if mask is not None:
        same &= mask.bool().all(dim=0)
    return int(same.long().cumprod(dim=0).sum())


class RoomyLayer(DynamicLayer):
    """Keys and values of one layer with room for more tokens: a new one is written behind the others.

    transformers' own layer copies all of them for every token, which takes as long as half of a small model's products.
    """

    def __init__(self, layer: DynamicLayer, tokens: int) -> None:
        """
        Args:
            layer: holds what is there already.
            tokens: most tokens that a row will have.
        """
        super().__init__()
        self.lazy_initialization(layer.keys, layer.values)
        self._room = [each.new_empty(*each.shape[:2], tokens, each.shape[-1]) for each in (layer.keys, layer.values)]
        self.update(layer.keys, layer.values)

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any) -> tuple[torch.Tensor, ...]:
        """Adds tokens.

        Args:
            key_states, value_states: shape (rows, heads, tokens, width).

        Returns:
            All keys and all values.
        """
        start = self.get_seq_length()
        end = start + key_states.shape[-2]
        for room, states in zip(self._room, (key_states, value_states), strict=True):
            room[:, :, start:end] = states
        self.keys, self.values = (room[:, :, :end] for room in self._room)
        return self.keys, self.values


@contextmanager
def inverse_transform_sampling() -> Iterator[None]:
    """Lets transformers draw a token on a processor with two random numbers instead of one for every word of the vocabulary.

    The distribution is the same (inverse transform); torch.multinomial takes a seventh of a sampling step.
    """
    if torch.cuda.is_available():
        yield
        return
    original = torch.multinomial

    def multinomial(probabilities: torch.Tensor, num_samples: int, *args: Any, **kwargs: Any) -> torch.Tensor:
        if num_samples != 1 or probabilities.dim() != 2:
            return original(probabilities, num_samples, *args, **kwargs)
        return draw_one(probabilities)

    torch.multinomial = multinomial
    try:
        yield
    finally:
        torch.multinomial = original


def draw_one(probabilities: torch.Tensor) -> torch.Tensor:
    """One index for every row, drawn with the row's probabilities.

    First a stretch of the row is drawn and then one index of the stretch: a running sum over a whole vocabulary takes as long
    as a small model's attention.

    Args:
        probabilities: not negative, shape (rows, n); a row need not sum to 1.

    Returns:
        Indices, shape (rows, 1); never one of probability 0.
    """
    rows, words = probabilities.shape
    stretches = nn.functional.pad(probabilities, (0, -words % STRETCH)).view(rows, -1, STRETCH)
    stretch = _draw_by_running_sum(stretches.sum(dim=2))
    within = stretches[torch.arange(rows, device=stretch.device), stretch[:, 0]]
    return stretch * STRETCH + _draw_by_running_sum(within)


def _draw_by_running_sum(probabilities: torch.Tensor) -> torch.Tensor:
    sums = probabilities.cumsum(dim=1, dtype=torch.float64)
    total = sums[:, -1:]
    places = torch.minimum(torch.rand_like(total) * total, torch.nextafter(total, torch.zeros_like(total)))
    return torch.searchsorted(sums, places, right=True)
