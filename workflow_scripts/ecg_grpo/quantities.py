"""Numbers with units and comparisons in clinical text: 0.12 s is 120 ms, and at least 120 ms is not below 120 ms."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

_SAME_UNIT: dict[tuple[str, Fraction], str] = {
    # base unit and what one of the written units is in it: how it is written, in lower case
    ("ms", Fraction(1)): "ms|msec|msecs|millisecond|milliseconds",
    ("ms", Fraction(1000)): "s|sec|secs|second|seconds",
    ("ms", Fraction(60_000)): "min|mins|minute|minutes",
    ("ms", Fraction(3_600_000)): "h|hr|hrs|hour|hours",
    ("ms", Fraction(86_400_000)): "day|days",
    ("ms", Fraction(604_800_000)): "week|weeks",
    ("month", Fraction(1)): "month|months",  # a month has no fixed number of days
    ("month", Fraction(12)): "y|yr|yrs|year|years",
    ("mV", Fraction(1)): "mv|millivolt|millivolts",
    ("mV", Fraction(1, 1000)): "µv|μv|uv|microvolt|microvolts",
    ("mm", Fraction(1)): "mm|millimeter|millimeters|millimetre|millimetres",
    ("mm", Fraction(10)): "cm|centimeter|centimeters|centimetre|centimetres",
    ("bpm", Fraction(1)): "bpm|beats/min|beats/minute|beats per minute|beats a minute|/min",
    ("mmHg", Fraction(1)): "mmhg|mm hg",
    ("%", Fraction(1)): "%|percent|per cent",
    ("°", Fraction(1)): "°|degree|degrees",
    ("Hz", Fraction(1)): "hz|hertz",
    ("Hz", Fraction(1000)): "khz",
    ("mg", Fraction(1000)): "g|gram|grams",
    ("mg", Fraction(1)): "mg|milligram|milligrams",
    ("mg", Fraction(1_000_000)): "kg|kilogram|kilograms",
    ("mg/kg", Fraction(1)): "mg/kg",
    ("kg/m²", Fraction(1)): "kg/m²|kg/m2",
    ("mL", Fraction(1)): "ml|milliliter|milliliters|millilitre|millilitres",
    ("ng/L", Fraction(1)): "ng/l|pg/ml",
    ("ng/L", Fraction(1000)): "ng/ml|µg/l|μg/l",
    ("mg", Fraction(1, 1000)): "µg|μg|ug|mcg|microgram|micrograms",
    ("mmol/L", Fraction(1)): "mmol/l",
    ("mEq/L", Fraction(1)): "meq/l",
    ("mg/dL", Fraction(1)): "mg/dl",
    ("J", Fraction(1)): "j|joule|joules",
    ("mm/s", Fraction(1)): "mm/s|mm/sec",
    ("mm/mV", Fraction(1)): "mm/mv",
}
UNITS = {word: unit for unit, words in _SAME_UNIT.items() for word in words.split("|")}
"""Unit as it is written → (unit that quantities are compared in, factor)."""

_UP = ("at least", "more than", "greater than", "longer than", "wider than", "higher than", "larger than", "taller than",
       "faster than", "over", "above", "exceeding", "exceeds", "exceed", "beyond", "minimum of")  # fmt: skip
_DOWN = ("at most", "up to", "less than", "fewer than", "shorter than", "narrower than", "lower than", "smaller than",
         "slower than", "under", "below", "within", "maximum of")  # fmt: skip
_SIGNS = {
    **dict.fromkeys(("≥", ">", ">=", "=>", "⩾", "≧", "＞"), ">"),
    **dict.fromkeys(("≤", "<", "<=", "=<", "⩽", "≦", "＜"), "<"),
}
_DIRECTIONS = {**dict.fromkeys(_UP, ">"), **dict.fromkeys(_DOWN, "<"), **_SIGNS}
_TURNED = {">": "<", "<": ">"}
"""No more than is at most."""
_OR_MORE = ("or more", "or greater", "or above", "or longer", "or higher", "or over", "or older", "and above", "and older",
            "+")  # fmt: skip
_OR_LESS = ("or less", "or fewer", "or below", "or shorter", "or lower", "or under", "or younger", "and below",
            "and younger")  # fmt: skip
_AFTER = {**dict.fromkeys(_OR_MORE, ">"), **dict.fromkeys(_OR_LESS, "<")}
_WORDS = dict(
    zip("zero one two three four five six seven eight nine ten eleven twelve".split(), map(Fraction, range(13)), strict=True)
)


def _any(words: Iterable[str]) -> str:
    return "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True))


_UNIT = rf"(?:{_any(UNITS)})(?![\w/])"
_TO_WORD = rf"(?:(?:to|or|and)\s+(?:{_any(_WORDS)}|\d+)[\s-]+)?"
# ASCII, since other letters fold to those of a unit, and are no unit: 1 mſ. Longer numbers than 40 digits are none.
_FLAGS = re.IGNORECASE | re.ASCII
NUMBER = re.compile(
    r"(?<![\w.,/])(?-i:(?=[-−–+.\dzotfsenZOTFSEN]))"  # fast: what can begin a number or a number word
    rf"(?:(?<![^\s(])(?P<sign>[-−–+]))?(?:(?P<ratio>\d{{1,40}}\s?:\s?\d{{1,40}}|\d{{1,40}}/\d{{1,40}})(?![\w:/])"
    rf"|(?:(?P<digits>(?:\d{{1,3}}(?:,\d{{3}}){{1,9}}(?!\d)|\d{{1,40}})(?:\.\d{{1,40}})?|\.\d{{1,40}})|(?P<word>{_any(_WORDS)})(?=[\s-]+{_TO_WORD}{_UNIT}))"
    rf"(?:[\s-]*(?P<unit>{_UNIT})|(?![\w/]|-[A-Za-z]|[.,]\d)))",
    _FLAGS,
)
_BEFORE = re.compile(
    rf"(?P<direction>(?<!\w)(?:{_any([*_UP, *_DOWN])})|{_any(_SIGNS)})\s*(?:or equal to\s*)?"
    r"(?:(?:about|approximately|roughly|around)\s+|[~≈]\s*)?(?:a |an |the )?$",
    _FLAGS,
)
_NEGATION = re.compile(r"(?<!\w)(?:not|no|never|without|cannot|\w+n['’]t)\s+(?:be\s+)?$", _FLAGS)
_BEHIND = re.compile(rf"\s?(?P<direction>{_any(_AFTER)})(?!\w)", _FLAGS)
_RANGE = re.compile(r"\s*(?:-|–|—|−|to)\s*$|\s+and\s+$", _FLAGS)
_BETWEEN = re.compile(r"\b(?:between|from)\s*(?:about |approximately )?$", _FLAGS)


_LONGEST_DIRECTION = 40
"""Characters before a number in which words of direction are looked for, and before these in which a negation is."""


@dataclass(frozen=True)
class Quantity:
    """A number or a range.

    Attributes:
        low, high: bounds in `unit`; equal for a single number.
        direction: `>` for at least or more than, `<` for at most or less than, else `=`.
        unit: what it is compared in, empty for a bare number, `:` for a ratio such as 2:1 and `/` for a pair such as the
            pressures 130/80, of which `low` is then what stands first and `high` what stands last.
    """

    low: Fraction
    high: Fraction
    direction: str
    unit: str

    def agrees_with(self, other: Quantity) -> bool:
        """Whether both say the same; a bare number may stand for one with a unit. At least and more than count as one."""
        return (self.low, self.high, self.direction) == (other.low, other.high, other.direction) and (
            self.unit == other.unit or "" in (self.unit, other.unit)
        )


@lru_cache(maxsize=100_000)
def quantities(text: str) -> tuple[Quantity, ...]:
    """The numbers and ranges of a text, in its order.

    Names that hold digits (V1, S1Q3T3, P2Y12), ordinals and compounds such as 12-lead are none. Number words count only
    before a unit. A range takes its unit from its end.
    """
    text = " ".join(text.split())  # at  least is at least
    found: list[Quantity] = []
    matches = _numbers(text)
    place = 0
    while place < len(matches):
        first = last = matches[place]
        before = text[matches[place - 1].end() if place else 0 : first.start()]
        if place + 1 < len(matches) and _is_range(first, matches[place + 1], before, text):
            place += 1
            last = matches[place]
        place += 1
        found.append(_quantity(text, before, first, last))
    return tuple(found)


def without_quantities(text: str) -> str:
    """The text without its numbers, their units and the words of their direction: what else it says."""
    kept, end = [], 0
    for match in _numbers(text):
        before = text[end : match.start()]
        ahead = _direction_ahead(before)
        kept.append(before[: ahead[1]] if ahead else before)
        behind = _BEHIND.match(text, match.end())
        end = behind.end() if behind else match.end()
    return " ".join([*kept, text[end:]])


@lru_cache(maxsize=16)  # a text's quantities, and the text without them, are asked for one after the other
def _numbers(text: str) -> tuple[re.Match[str], ...]:
    return tuple(NUMBER.finditer(text))


def _is_range(first: re.Match[str], second: re.Match[str], before: str, text: str) -> bool:
    if first["ratio"] or second["ratio"]:
        return False
    between = text[first.end() : second.start()]
    if not between.strip():  # 60 -100: the sign is the range's
        return second["sign"] is not None and second["sign"] != "+"
    joins = _RANGE.match(between)
    return joins is not None and ("and" not in between.lower() or _BETWEEN.search(before) is not None)


def _quantity(text: str, before: str, first: re.Match[str], last: re.Match[str]) -> Quantity:
    if first["ratio"]:
        joined = ":" if ":" in first["ratio"] else "/"
        one, other = map(int, first["ratio"].split(joined))
        return Quantity(Fraction(one), Fraction(other), _direction(text, before, first), joined)
    written = (last["unit"] or first["unit"] or "").lower()
    unit = UNITS[written][0] if written else ""
    if last is first:
        size = _size(first, written)
        return Quantity(size, size, _direction(text, before, first), unit)
    own = (first["unit"] or written).lower()
    low = _size(first, own if own and UNITS[own][0] == unit else written)
    high = _size(last, written)
    if last["sign"] is not None and not text[first.end() : last.start()].strip():
        high = -high  # the sign is the range's
    return Quantity(min(low, high), max(low, high), "=", unit)


def _direction(text: str, before: str, number: re.Match[str]) -> str:
    """`>`, `<` or `=`, from the words and signs ahead of a number, else from those behind it."""
    if ahead := _direction_ahead(before):
        return ahead[0]
    behind = _BEHIND.match(text, number.end())
    return _AFTER[behind["direction"].lower()] if behind else "="


def _direction_ahead(before: str) -> tuple[str, int] | None:
    """`>` or `<` from the words or the sign that a text ends with, and where these begin."""
    found = _BEFORE.search(before, max(0, len(before) - _LONGEST_DIRECTION))
    if found is None:
        return None
    direction, start = _DIRECTIONS[found["direction"].lower()], found.start()
    negation = _NEGATION.search(before, max(0, start - _LONGEST_DIRECTION), start)
    return (_TURNED[direction], negation.start()) if negation else (direction, start)


def _size(match: re.Match[str], unit: str) -> Fraction:
    """A number in the unit that it is compared in, from the unit as it is written."""
    size = _in_base_unit((match["word"] or match["digits"]).lower(), unit)
    return -size if match["sign"] and match["sign"] != "+" and not match["word"] else size


@lru_cache(maxsize=10_000)
def _in_base_unit(number: str, unit: str) -> Fraction:
    value = _WORDS[number] if number in _WORDS else Fraction(number.replace(",", ""))
    return value * UNITS[unit][1] if unit else value


def number_agreement(prediction: str, reference: str) -> float | None:
    """F1 of the quantities of two texts: value, range, unit and direction of comparison must agree.

    Returns:
        A value in [0, 1]; None if the reference names no quantity.
    """
    expected, given = list(quantities(reference)), list(quantities(prediction))
    if not expected:
        return None
    total, shared = len(expected) + len(given), 0
    for quantity in given:
        match = next((other for other in expected if other.agrees_with(quantity)), None)
        if match is not None:
            expected.remove(match)
            shared += 1
    return 2 * shared / total
