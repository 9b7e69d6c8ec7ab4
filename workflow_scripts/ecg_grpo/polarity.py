"""Which side a clinical text takes: yes or no, indicated or contraindicated, normal or abnormal."""

from __future__ import annotations

import re
from functools import cache, lru_cache

OPPOSITES: dict[str, tuple[str, str]] = {
    # what is asked: (words for one side, words for the other)
    "indication": ("indicated|recommended|advised|advisable|appropriate|warranted",
                   "contraindicated|contra-indicated|inadvisable|inappropriate|unwarranted"),
    "normality": ("normal|physiologic|physiological", "abnormal|pathologic|pathological"),
    "presence": ("present", "absent"),
    "level": ("elevated|increased|raised|high|higher|increases|increase|rises|rise|elevation",
              "depressed|decreased|lowered|low|lower|reduced|decreases|decrease|reduces|reduce|falls|fall|depression"),
    "duration": ("prolonged|long|longer|prolongation|prolongs|prolong|lengthened|lengthens",
                 "shortened|short|shorter|shortening|shortens|shorten"),
    "width": ("wide|wider|broad|widened", "narrow|narrower|narrowed"),
    "rate": ("fast|faster|rapid|tachycardia|tachycardic", "slow|slower|bradycardia|bradycardic"),
    "regularity": ("regular", "irregular"),
    "direction": ("upright|positive|upward", "inverted|negative|downward"),
    "likelihood": ("likely|probable", "unlikely|improbable"),
    "stability": ("stable", "unstable"),
    "symptoms": ("symptomatic", "asymptomatic"),
    "reversibility": ("reversible|temporary|transient", "irreversible|permanent|persistent"),
    "safety": ("safe", "unsafe|dangerous|hazardous"),
}  # fmt: skip
"""Pairs of opposites. Left and right, anterior and inferior name places and are no poles: concept F1 sees them."""

_FIRST_WORD = re.compile(r"\W*(yes|no)\b(?!-\w|\s+(?:one|longer|single|specific)\b)", re.IGNORECASE)
_ANSWER = re.compile(r"^\W*(?:(yes)\b(?!-\w)|(no)\s*(?:[,.;:!—–]|-(?!\w)|$))", re.IGNORECASE)
"""An answer that stands for itself; without the comma, `no` may negate what follows."""
_MORE_THAN_THAT = re.compile(r"\bnot (?:only|just|merely)\b", re.IGNORECASE)
_NO_LONGER = re.compile(r"\bno longer\b(?! than)", re.IGNORECASE)
_SIDES = {
    word: (name, side)
    for name, sides in OPPOSITES.items()
    for side, words in zip((1, -1), sides, strict=True)
    for word in words.split("|")
}
_TOKEN = re.compile(r"[a-z]+(?:[-'][a-z]+)*|[.;:!?]|,")
_NEGATIONS = frozenset("not no without neither nor never none nothing cannot lacks lacking".split())
_REACH = 4
"""Words over which a negation reaches."""
_ENDS = frozenset(". ; : ! ? but however although though whereas".split())


def yes_or_no(text: str) -> str | None:
    """`yes` or `no` if the text begins with it, else None."""
    found = _FIRST_WORD.match(text)
    return found[1].lower() if found else None


def after_the_answer(text: str) -> tuple[str | None, str]:
    """`yes` or `no` where it stands for itself at the beginning (`No, it is not`), and what follows it."""
    found = _ANSWER.match(text)
    return ((found[1] or found[2]).lower(), text[found.end() :]) if found else (None, text)


def with_plain_negations(text: str) -> str:
    """The text with `not` only where it negates: without `not only`, and with `not` for `no longer`."""
    lower = text.lower()  # few texts have one of these words, and a pattern takes longer to say so
    if "longer" in lower:
        text = _NO_LONGER.sub("not", text)
    if "only" in lower or "just" in lower or "merely" in lower:
        text = _MORE_THAN_THAT.sub("", text)
    return text


@cache
def is_negation(word: str) -> bool:
    """Whether a word in lower case negates what follows it: not, without, isn't."""
    return word in _NEGATIONS or word.endswith("n't")


@lru_cache(maxsize=100_000)
def stances(text: str) -> dict[str, int]:
    """The sides that a text takes.

    Returns:
        `answer` and names of `OPPOSITES` → 1 for the first side, -1 for the second. A negation within four words before and in
        the same clause turns a side round. Where a text takes both sides of a pair it takes none.
    """
    found: dict[str, set[int]] = {}
    if first := yes_or_no(text):
        found["answer"] = {1 if first == "yes" else -1}
        text = after_the_answer(text)[1]
    turned_until = -1
    for place, token in enumerate(_TOKEN.findall(with_plain_negations(text).lower().replace("’", "'"))):
        if token in _SIDES:
            name, side = _SIDES[token]
            found.setdefault(name, set()).add(-side if place <= turned_until else side)
        elif is_negation(token):
            turned_until = place + _REACH
        elif token in _ENDS:
            turned_until = -1
    return {name: sides.pop() for name, sides in found.items() if len(sides) == 1}


def polarity_agreement(prediction: str, reference: str) -> float | None:
    """Share of the sides that the reference takes which the prediction takes too.

    A side that the prediction does not take earns nothing, the opposite one neither; so a text that names no side, or both,
    scores 0. None of it looks at what the words are said of.

    Returns:
        A value in [0, 1]; None if the reference takes no side.
    """
    expected, given = stances(reference), stances(prediction)
    if not expected:
        return None
    return sum(given.get(name) == side for name, side in expected.items()) / len(expected)
