"""Likeness of meaning of two texts by one transformer: cosine of their sentence embeddings, and BERTScore of their tokens.

Both come from one forward pass of each distinct text. Neither knows medicine, and a negation changes both little.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from bert_score.utils import greedy_cos_idf
from torch.nn.utils.rnn import pad_sequence

from ecg_grpo.sentence_embedding import Embedded, SentenceModel

Pair = tuple[str, str]
"""(prediction, reference)."""

_REFERENCES_A_CHUNK = 256


@dataclass(frozen=True)
class Likeness:
    """How alike two texts are.

    Attributes:
        embedding: cosine of the sentence embeddings, -1 to 1; 1 is the same meaning.
        bertscore: F1 of BERTScore, without idf weights and rescaling, 1 for the same text; with small models seldom below 0.
    """

    embedding: float
    bertscore: float


def likeness(model: SentenceModel, pairs: Iterable[Pair], batch_size: int) -> Iterator[dict[Pair, Likeness]]:
    """How alike each prediction is to its reference, chunk by chunk, each distinct pair once.

    A reference is embedded once for all its predictions, and a text that comes back in a later chunk is kept until then.
    Empty texts, and such of which the tokenizer keeps nothing, are like nothing: both scores are 0.

    Args:
        model: the model.
        pairs: predictions and references, of any systems in any order.
        batch_size: texts embedded, and pairs matched, at once.

    Yields:
        The pairs of some references.
    """
    by_reference: dict[str, dict[Pair, None]] = {}
    for pair in pairs:
        by_reference.setdefault(pair[1], {})[pair] = None
    references = sorted(by_reference, key=len, reverse=True)  # of like length, and the largest first
    chunks = [
        [pair for reference in references[start : start + _REFERENCES_A_CHUNK] for pair in by_reference[reference]]
        for start in range(0, len(references), _REFERENCES_A_CHUNK)
    ]
    last_use = {text: number for number, chunk in enumerate(chunks) for pair in chunk for text in pair}
    embedded: dict[str, Embedded] = {}
    for number, chunk in enumerate(chunks):
        new = [text for text in dict.fromkeys(text for pair in chunk for text in pair) if text.strip() and text not in embedded]
        embedded |= zip(new, model.embed(new, batch_size), strict=True)
        found = dict.fromkeys(chunk, Likeness(0.0, 0.0))
        full = [pair for pair in chunk if all(text in embedded and embedded[text].is_word.any() for text in pair)]
        full.sort(key=lambda pair: max(len(embedded[text].tokens) for text in pair))
        for start in range(0, len(full), batch_size):
            batch = full[start : start + batch_size]
            given, expected = ([embedded[pair[side]] for pair in batch] for side in (0, 1))
            scores = zip(_cosines(given, expected), _bertscores(given, expected), strict=True)
            found |= {pair: Likeness(*both) for pair, both in zip(batch, scores, strict=True)}
        yield found
        embedded = {text: one for text, one in embedded.items() if last_use[text] > number}


def _cosines(given: Sequence[Embedded], expected: Sequence[Embedded]) -> list[float]:
    one, other = (torch.stack([text.sentence for text in side]) for side in (given, expected))
    return torch.cosine_similarity(one, other).clamp(-1, 1).tolist()


def _bertscores(given: Sequence[Embedded], expected: Sequence[Embedded]) -> list[float]:
    """F1 of the greedy matching (Zhang et al. 2020; bert-score). The tokenizer's own tokens can be matched, without weight."""
    _, _, f1 = greedy_cos_idf(*_padded(expected), *_padded(given))
    return f1.tolist()


def _padded(texts: Sequence[Embedded]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Tokens, which of them are no padding, and their weights, as bert-score pads them."""
    mask = pad_sequence([torch.ones(len(text.tokens), dtype=torch.bool) for text in texts], batch_first=True)
    weights = pad_sequence([text.is_word.float() for text in texts], batch_first=True)
    tokens = pad_sequence([text.tokens for text in texts], batch_first=True, padding_value=2.0)
    return tokens, mask.to(tokens.device), weights
