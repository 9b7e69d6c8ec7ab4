"""Sampling while GRPO trains: faster, and from the policy that is trained."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import nn

pytestmark = pytest.mark.pipeline

PROMPTS = ["Name one cause of ST elevation in leads V1 to V3.", "Is it prolonged?", "Is it prolonged?"]


@pytest.fixture
def policy(tiny_model: Path) -> nn.Module:
    """A model with an adapter that changes what it says."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    model = get_peft_model(base, LoraConfig(task_type="CAUSAL_LM", r=4, lora_alpha=8, target_modules="all-linear"))
    shake(model)
    return model.eval()


@pytest.fixture
def prompts(tiny_model: Path) -> dict[str, torch.Tensor]:
    """Three rows, two of them alike, of different lengths."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_model, padding_side="left")
    return dict(tokenizer(PROMPTS, return_tensors="pt", padding=True))


def shake(model: nn.Module) -> None:
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.3)


def greedy(model: nn.Module, prompts: dict[str, torch.Tensor]) -> torch.Tensor:
    from transformers import GenerationConfig

    config = GenerationConfig(max_new_tokens=16, do_sample=False, pad_token_id=0, eos_token_id=None, bos_token_id=1)
    model.get_base_model().generation_config.eos_token_id = None
    with torch.no_grad():
        return model.generate(**prompts, generation_config=config)


def test_fast_sampling_says_what_the_policy_says(policy: nn.Module, prompts: dict[str, torch.Tensor]) -> None:
    from ecg_grpo.sampling import fast_sampling

    with policy.disable_adapter():
        untrained = greedy(policy, prompts)
    for _ in range(2):
        expected = greedy(policy, prompts)
        assert not torch.equal(expected, untrained), "the adapter makes a difference"
        with fast_sampling(policy):
            found = greedy(policy, prompts)
        assert torch.equal(found, expected)
        assert torch.equal(greedy(policy, prompts), expected)
        shake(policy)  # an optimizer's step: the next samples come from the new weights


def test_every_distinct_prompt_is_read_once(policy: nn.Module, prompts: dict[str, torch.Tensor]) -> None:
    from ecg_grpo.sampling import fast_sampling

    shapes: list[tuple[int, ...]] = []
    layer = policy.get_base_model().model.embed_tokens
    hook = layer.register_forward_hook(lambda _, inputs, __: shapes.append(tuple(inputs[0].shape)))
    with fast_sampling(policy):
        greedy(policy, prompts)
    hook.remove()
    width = prompts["input_ids"].shape[1]
    assert shapes == [(2, width), *[(3, 1)] * 16]


BEGINNING = "You answer questions about electrocardiograms. Say what the tracing shows and why it matters. "


def test_what_prompts_have_in_common_is_read_once(policy: nn.Module, tiny_model: Path) -> None:
    from transformers import AutoTokenizer

    from ecg_grpo.sampling import fast_sampling

    tokenizer = AutoTokenizer.from_pretrained(tiny_model, padding_side="left")
    texts = [BEGINNING + prompt for prompt in [*PROMPTS, "Is it prolonged? How long may it be?", ""]]
    prompts = dict(tokenizer(texts, return_tensors="pt", padding=True))
    width, beginning = prompts["input_ids"].shape[1], len(tokenizer(BEGINNING)["input_ids"])
    expected = greedy(policy, prompts)
    read: list[tuple[int, ...]] = []
    layer = policy.get_base_model().model.embed_tokens
    hook = layer.register_forward_hook(lambda _, inputs, __: read.append(tuple(inputs[0].shape)))
    with fast_sampling(policy):
        found = greedy(policy, prompts)
    hook.remove()
    assert torch.equal(found, expected)
    assert read[0] == (1, beginning - 1), "all but the last token of the shortest prompt"
    assert read[1] == (4, width - beginning + 1)


def test_a_model_with_windows_says_what_it_says_without_sharing(tiny_model: Path) -> None:
    """Its windows count columns, so that moved padding would push the beginning out of sight."""
    from transformers import AutoTokenizer, MistralConfig, MistralForCausalLM

    from ecg_grpo.sampling import fast_sampling

    tokenizer = AutoTokenizer.from_pretrained(tiny_model, padding_side="left")
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
    torch.manual_seed(0)
    config = MistralConfig(vocab_size=len(tokenizer), num_key_value_heads=1, sliding_window=24, **sizes)
    model = MistralForCausalLM(config).eval()
    model.get_base_model = lambda: model
    prompts = dict(tokenizer([BEGINNING + text for text in ("Why?", PROMPTS[0] * 2)], return_tensors="pt", padding=True))
    expected = greedy(model, prompts)
    with fast_sampling(model):
        assert torch.equal(greedy(model, prompts), expected)


def test_padding_moves_behind_what_all_rows_share() -> None:
    from ecg_grpo.sampling import share_beginning

    tokens = torch.tensor([[0, 0, 7, 8, 9], [7, 8, 5, 6, 4], [0, 7, 8, 9, 9]])
    ids, mask = share_beginning(tokens, (tokens > 0).long())
    assert (ids * mask).tolist() == [[7, 8, 0, 0, 9], [7, 8, 5, 6, 4], [7, 8, 0, 9, 9]]
    assert mask.tolist() == [[1, 1, 0, 0, 1], [1, 1, 1, 1, 1], [1, 1, 0, 1, 1]]
    whole = torch.tensor([[0, 0, 7, 8], [7, 8, 7, 8]])
    ids, mask = share_beginning(whole, (whole > 0).long())
    assert (ids * mask).tolist() == [[7, 0, 0, 8], [7, 8, 7, 8]], "the last token stays last"


def test_merged_adapters_are_the_policy_and_leave_it_as_it_was(policy: nn.Module, prompts: dict[str, torch.Tensor]) -> None:
    from peft.tuners.lora import LoraLayer

    from ecg_grpo.sampling import merged_adapters

    modules = dict(policy.named_modules())
    weights = {name: value.clone() for name, value in policy.state_dict().items()}
    with torch.no_grad():
        expected = policy(**prompts).logits
        with pytest.raises(KeyboardInterrupt), merged_adapters(policy):
            assert not any(isinstance(module, LoraLayer) for module in policy.modules())
            assert torch.allclose(policy(**prompts).logits, expected, rtol=1e-4, atol=1e-4)
            raise KeyboardInterrupt
        assert torch.equal(policy(**prompts).logits, expected)
    assert dict(policy.named_modules()) == modules
    assert all(torch.equal(value, weights[name]) for name, value in policy.state_dict().items())


def test_adapters_whose_sum_would_be_rounded_are_not_merged(policy: nn.Module) -> None:
    from ecg_grpo.sampling import merged_adapters

    policy.to(torch.bfloat16)
    modules = dict(policy.named_modules())
    with merged_adapters(policy):
        assert dict(policy.named_modules()) == modules


def test_a_layer_with_room_holds_what_a_growing_one_holds() -> None:
    from transformers.cache_utils import DynamicLayer

    from ecg_grpo.sampling import RoomyLayer

    torch.manual_seed(0)
    growing = DynamicLayer()
    growing.update(torch.randn(3, 2, 5, 8), torch.randn(3, 2, 5, 8))
    roomy = RoomyLayer(growing, 9)
    for tokens in (1, 1, 2):
        added = torch.randn(3, 2, tokens, 8), torch.randn(3, 2, tokens, 8)
        for found, expected in zip(roomy.update(*added), growing.update(*added), strict=True):
            assert torch.equal(found, expected)
        assert roomy.get_seq_length() == growing.get_seq_length()


@pytest.fixture
def attention() -> Iterator[None]:
    """transformers' own rule is back after the test."""
    from transformers.integrations import sdpa_attention

    with patch.object(sdpa_attention, "use_gqa_in_sdpa", sdpa_attention.use_gqa_in_sdpa):
        yield


@pytest.mark.usefixtures("attention")
def test_heads_that_share_keys_read_one_copy(tiny_model: Path, prompts: dict[str, torch.Tensor]) -> None:
    from transformers import AutoModelForCausalLM

    from ecg_grpo.device import _share_keys_among_heads

    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    heads: list[int] = []
    kernel = nn.functional.scaled_dot_product_attention

    def spy(query: torch.Tensor, key: torch.Tensor, *args: Any, **options: Any) -> torch.Tensor:
        heads.append(key.shape[1])
        return kernel(query, key, *args, **options)

    found = {}
    for shared in (False, True):
        if shared:
            _share_keys_among_heads()
        with patch.object(nn.functional, "scaled_dot_product_attention", spy):
            logits = model(**prompts).logits
        model.zero_grad()
        logits.logsumexp(-1).sum().backward()
        found[shared] = logits, model.model.layers[0].self_attn.k_proj.weight.grad.clone()
    config = model.config
    layers = config.num_hidden_layers
    assert config.num_key_value_heads < config.num_attention_heads, "or the test shows nothing"
    assert heads == [config.num_attention_heads] * layers + [config.num_key_value_heads] * layers
    for with_copies, without in zip(found[False], found[True], strict=True):
        assert torch.allclose(with_copies, without, rtol=1e-4, atol=1e-5)


def test_inverse_transform_sampling_draws_the_distribution() -> None:
    import torch

    from ecg_grpo.sampling import draw_one, inverse_transform_sampling

    torch.manual_seed(0)
    probabilities = torch.tensor([0.0, 0.5, 0.0, 0.2, 0.3, 0.0])
    draws = draw_one(probabilities.repeat(200_000, 1)).flatten()
    shares = torch.bincount(draws, minlength=6) / len(draws)
    assert (shares[probabilities == 0] == 0).all()
    assert (shares - probabilities).abs().max() < 4 * (0.25 / len(draws)) ** 0.5
    original = torch.multinomial
    with inverse_transform_sampling():
        assert torch.multinomial is not original
        assert torch.multinomial(torch.ones(3), 2).shape == (2,), "what is not one draw a row is left to torch"
    assert torch.multinomial is original
