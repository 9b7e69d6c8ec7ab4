"""How much of a text says something new."""

from __future__ import annotations

import re
from functools import lru_cache

_WORD = re.compile(r"\w+")


@lru_cache(maxsize=20_000)
def distinct_share(text: str) -> float:
    """Share of a text's three-word sequences that are distinct, 0 to 1 (distinct-n, Li et al. 2016).

    Of single words where there are fewer than four; 0 where there is none.
    """
    words = _WORD.findall(text.lower())
    grams = list(zip(words, words[1:], words[2:], strict=False)) if len(words) > 3 else words
    return len(set(grams)) / len(grams) if grams else 0.0
