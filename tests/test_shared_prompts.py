"""Completions that share a row with their prompt get the log-probabilities that they have in rows of their own."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

pytestmark = pytest.mark.pipeline

TOKENS = st.integers(3, 99)
GROUPS = st.lists(
    st.tuples(st.lists(TOKENS, min_size=1, max_size=6), st.lists(st.lists(TOKENS, max_size=5), min_size=1, max_size=4)),
    min_size=1,
    max_size=3,
).filter(lambda groups: any(completion for _, completions in groups for completion in completions))


def padded(rows: list[tuple[list[int], list[int]]]) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Prompts padded on the left and completions on the right, their mask, and the width of the completions."""
    prompt, width = max(len(prompt) for prompt, _ in rows), max(1, *(len(completion) for _, completion in rows))
    ids = [[0] * (prompt - len(p)) + p + c + [0] * (width - len(c)) for p, c in rows]
    mask = [[0] * (prompt - len(p)) + [1] * (len(p) + len(c)) + [0] * (width - len(c)) for p, c in rows]
    return torch.tensor(ids), torch.tensor(mask), width


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> torch.nn.Module:
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(1)
    return AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32).eval()


@given(groups=GROUPS, seed=st.integers(0, 9))
@settings(max_examples=60, deadline=None)
def test_a_shared_row_gives_each_completion_its_own_log_probabilities(
    model: torch.nn.Module, groups: list[tuple[list[int], list[list[int]]]], seed: int
) -> None:
    from ecg_grpo.shared_prompts import share_prompts

    rows = [(prompt, completion) for prompt, completions in groups for completion in completions]
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed)).tolist()
    rows = [rows[index] for index in order]
    ids, mask, width = padded(rows)
    shared = share_prompts(ids, mask, width, pad_token=0)
    assert shared.input_ids.shape[0] == len({tuple(prompt) for prompt, _ in rows})
    with torch.no_grad():
        logits = model(
            input_ids=shared.input_ids, attention_mask=shared.attention_mask, position_ids=shared.position_ids
        ).logits
        of_targets = logits.log_softmax(-1).gather(-1, shared.targets.clamp(min=0)[..., None])[..., 0]
        found = shared.by_completion(of_targets.masked_fill(shared.targets == -100, 0))
        for (prompt, completion), values in zip(rows, found, strict=True):
            alone = model(input_ids=torch.tensor([prompt + completion])).logits[0].log_softmax(-1)
            expected = [alone[len(prompt) - 1 + place, token] for place, token in enumerate(completion)]
            assert torch.allclose(values[: len(completion)], torch.tensor(expected), atol=1e-4)
            assert (values[len(completion) :] == 0).all()


def test_the_trainer_gets_the_same_values_and_gradients(tiny_model: Path, tmp_path: Path) -> None:
    from test_policy_trainer import make_trainer

    trainer = make_trainer(tiny_model, tmp_path, None)
    generator = torch.Generator().manual_seed(0)
    prompts = [torch.randint(3, 99, (length,), generator=generator).tolist() for length in (40, 25)]
    lengths = [9, 12, 0, 3, 7, 12, 1, 5]  # one completion is left out of the loss
    rows = [(prompts[i // 4], torch.randint(3, 99, (n,), generator=generator).tolist()) for i, n in enumerate(lengths)]
    ids, mask, width = padded(rows)
    positions: list[int] = []
    trainer.model.model.embed_tokens.register_forward_hook(lambda _, inputs, __: positions.append(inputs[0].numel()))
    weight = trainer.model.model.layers[0].self_attn.q_proj.weight
    found = {}
    for shares in (True, False):
        trainer._shares_prompts = shares
        for size in (4, 8):
            logps, entropies, auxiliary = trainer._get_per_token_logps_and_entropies(
                trainer.model, ids, mask, width, batch_size=size, compute_entropy=True
            )
            assert auxiliary is None
            gradient = torch.autograd.grad((logps.sin() * mask[:, -width:]).sum(), weight)[0]
            found[shares, size] = logps * mask[:, -width:], entropies * mask[:, -width:], gradient
    for size in (4, 8):
        for shared, apart in zip(found[True, size], found[False, size], strict=True):
            assert shared.shape == apart.shape
            assert torch.allclose(shared, apart, rtol=1e-4, atol=1e-5)
    assert positions[:3] == [39 + 24, 24 + 25, 2 * (39 + 24)], "each prompt once, without its last token"
    assert positions[3:] == [4 * 52, 4 * 52, 8 * 52]


def test_completions_whose_pairs_would_cost_more_stay_apart(tiny_model: Path, tmp_path: Path) -> None:
    from test_policy_trainer import make_trainer

    trainer = make_trainer(tiny_model, tmp_path, None)
    shapes: list[tuple[int, ...]] = []
    trainer.model.model.embed_tokens.register_forward_hook(lambda _, inputs, __: shapes.append(tuple(inputs[0].shape)))
    for prompt, completion in ((2, 400), (400, 20)):
        ids, mask, width = padded([([5] * prompt, [7] * completion)] * 4)
        trainer._get_per_token_logps_and_entropies(trainer.model, ids, mask, width)
    assert shapes == [(4, 402), (1, 399 + 80)]


@pytest.mark.parametrize(("rows", "tokens"), [(1, 7), (3, 40), (2, 200)])
def test_operations_are_those_that_pytorch_counts(model: torch.nn.Module, rows: int, tokens: int) -> None:
    from torch.utils.flop_counter import FlopCounterMode

    from ecg_grpo.shared_prompts import layer_operations

    model.set_attn_implementation("eager")  # whose products are counted one by one
    try:
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model.model(input_ids=torch.full((rows, tokens), 5), use_cache=False)
    finally:
        model.set_attn_implementation("sdpa")
    layers = model.config.num_hidden_layers * layer_operations(model.config, rows, tokens)
    assert layers == pytest.approx(counter.get_total_flops(), rel=0.01)
