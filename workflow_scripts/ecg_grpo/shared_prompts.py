"""Log-probabilities of many completions of one prompt, of which the prompt is read once.

The completions of a GRPO group share their prompt, and a row for each of them computes it again and again. Here they stand
behind one copy of it in one row, and none sees the others: positions go on from the prompt's, and the attention mask lets a
completion's token see the prompt and the completion up to itself.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from transformers import PreTrainedConfig


@dataclass(frozen=True)
class SharedPrompts:
    """Rows of one prompt and its completions each.

    Attributes:
        input_ids: the prompt but for its last token; then for every completion that last token and all of the completion but
            for its last one; shape (rows, tokens).
        targets: the token that follows each, -100 in the prompt and in padding; shape (rows, tokens).
        position_ids: shape (rows, tokens).
        attention_mask: whether a token (third dimension) sees another (fourth), shape (rows, 1, tokens, tokens).
        places: for each completion its row, where its targets begin, and how many there are.
        width: tokens of the longest completion as it was given.
    """

    input_ids: torch.Tensor
    targets: torch.Tensor
    position_ids: torch.Tensor
    attention_mask: torch.Tensor
    places: tuple[tuple[int, int, int], ...]
    width: int

    def by_completion(self, values: torch.Tensor) -> torch.Tensor:
        """Values of targets, shape (rows, tokens), as those of completions, shape (completions, width); 0 where is no token."""
        pieces = [values[row, start : start + tokens] for row, start, tokens in self.places]
        return torch.stack([torch.nn.functional.pad(piece, (0, self.width - len(piece))) for piece in pieces])


def share_prompts(input_ids: torch.Tensor, attention_mask: torch.Tensor, width: int, pad_token: int) -> SharedPrompts:
    """Puts the completions of equal prompts into one row.

    Args:
        input_ids: prompts padded on the left, then completions padded on the right, shape (completions, tokens).
        attention_mask: 1 for what counts, same shape; a completion that is left out of the loss has none.
        width: columns of the completions, at the right end.
        pad_token: fills short rows.
    """
    device, tokens, counts = input_ids.device, input_ids.tolist(), attention_mask.tolist()
    groups: dict[tuple[int, ...], list[tuple[int, list[int]]]] = {}
    for index, (row, mask) in enumerate(zip(tokens, counts, strict=True)):
        prompt = tuple(token for token, counted in zip(row[:-width], mask[:-width], strict=True) if counted)
        groups.setdefault(prompt, []).append((index, row[-width:][: sum(mask[-width:])]))
    shape = (len(groups), max(len(prompt) - 1 + sum(len(each) for _, each in members) for prompt, members in groups.items()))
    ids, targets, positions = (torch.full(shape, fill) for fill in (pad_token, -100, 0))
    part = torch.full(shape, -1)  # -1 padding, 0 the prompt, then the completions
    places: list[tuple[int, int, int]] = [(0, 0, 0)] * len(tokens)
    for row, (prompt, members) in enumerate(groups.items()):
        start = len(prompt) - 1
        ids[row, :start], positions[row, :start], part[row, :start] = torch.tensor(prompt[:-1]), torch.arange(start), 0
        for number, (index, completion) in enumerate(members, start=1):
            end = start + len(completion)
            if completion:
                ids[row, start:end] = torch.tensor([prompt[-1], *completion[:-1]])
                targets[row, start:end] = torch.tensor(completion)
                positions[row, start:end] = torch.arange(len(prompt) - 1, len(prompt) - 1 + len(completion))
                part[row, start:end] = number
            places[index] = (row, start, len(completion))
            start = end
    part = part.to(device)
    sees = (part[:, :, None] == part[:, None, :]) | ((part[:, None, :] == 0) & (part[:, :, None] > 0))
    sees &= torch.ones(shape[1], shape[1], dtype=torch.bool, device=device).tril()
    return SharedPrompts(ids.to(device), targets.to(device), positions.to(device), sees[:, None], tuple(places), width)


def layer_operations(config: PreTrainedConfig, rows: int, tokens: int) -> int:
    """Floating-point operations of one layer's forward pass.

    Two operations a token for every parameter of the layer's matrices; for every pair of tokens four for every value of every
    head, two where query meets key and two where weight meets value, whether the mask shows the pair or not.

    Args:
        config: of a Llama-like model.
        rows, tokens: shape of the batch, padding included.
    """
    heads, hidden = config.num_attention_heads, config.hidden_size
    width = getattr(config, "head_dim", None) or hidden // heads
    parameters = hidden * (2 * width * (heads + config.num_key_value_heads) + 3 * config.intermediate_size)
    return rows * tokens * (2 * parameters + 4 * heads * width * tokens)
