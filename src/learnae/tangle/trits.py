"""Balanced ternary as IOTA wrote it: trits as two bit planes, trytes as letters, text as pairs of trytes, lengths as Pascal numbers.

A sequence of trits is two whole numbers: bit i of `plus` is set where trit i is +1, bit i of `minus` where it is -1. Python's
own big-number arithmetic then works on hundreds of trits at a time.
Source: IOTA's trinary conventions, MAM v0 (`merkle-tree` and `mam` of iota.rs, @iota/mam.js); paper 2.2.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from learnae.sensor_errors import MamError

ALPHABET: Final = "9ABCDEFGHIJKLMNOPQRSTUVWXYZ"
HASH_TRITS: Final = 243
HASH_TRYTES: Final = 81

_TRYTES = re.compile(r"[9A-Z]*")
_ESCAPE = re.compile(r"\\u([0-9A-Fa-f]{4})")
_PASCAL_ZERO: Final = (0b0001, 0b1000)  # plus, minus: the four trits 1, 0, 0, -1


def _to_digits() -> tuple[list[int], list[int]]:
    """Per letter, which of its three trits are +1 and which are -1, as numbers from 0 to 7."""
    plus, minus = [0] * 27, [0] * 27
    for index in range(27):
        value = index if index <= 13 else index - 27
        for place in range(3):
            trit = (value + 1) % 3 - 1
            value = (value - trit) // 3
            plus[index] |= (trit == 1) << place
            minus[index] |= (trit == -1) << place
    return plus, minus


_PLUS, _MINUS = _to_digits()
_PLUS_TABLE: Final = {ord(letter): str(_PLUS[i]) for i, letter in enumerate(ALPHABET)}
_MINUS_TABLE: Final = {ord(letter): str(_MINUS[i]) for i, letter in enumerate(ALPHABET)}
_LETTER: Final = {(str(_PLUS[i]), str(_MINUS[i])): letter for i, letter in enumerate(ALPHABET)}


@dataclass(frozen=True, slots=True)
class Trits:
    """`size` trits: bit i of `plus` and `minus` says whether trit i is +1 or -1; never both."""

    plus: int
    minus: int
    size: int

    def slice(self, start: int, size: int) -> Trits:
        """Up to `size` trits from `start` on."""
        size = max(0, min(size, self.size - start))
        mask = (1 << size) - 1
        return Trits(self.plus >> start & mask, self.minus >> start & mask, size)

    def chunks(self) -> list[Trits]:
        """Pieces of 243 trits; the last may be shorter."""
        return [self.slice(start, HASH_TRITS) for start in range(0, self.size, HASH_TRITS)]

    def total(self) -> int:
        """The sum of the trits."""
        return self.plus.bit_count() - self.minus.bit_count()

    def value(self) -> int:
        """The number that the trits write, the least first."""
        return sum(((self.plus >> i & 1) - (self.minus >> i & 1)) * 3**i for i in range(self.size))

    def negate(self) -> Trits:
        return Trits(self.minus, self.plus, self.size)

    def add(self, other: Trits) -> Trits:
        """Trit by trit modulo 3; both have the same size."""
        mine, theirs = self.plus | self.minus, other.plus | other.minus
        plus = (self.plus & ~theirs) | (other.plus & ~mine) | (self.minus & other.minus)
        minus = (self.minus & ~theirs) | (other.minus & ~mine) | (self.plus & other.plus)
        return Trits(plus, minus, self.size)


def join(parts: Iterable[Trits]) -> Trits:
    """One sequence after the other."""
    plus = minus = size = 0
    for part in parts:
        plus |= part.plus << size
        minus |= part.minus << size
        size += part.size
    return Trits(plus, minus, size)


def is_trytes(text: str) -> bool:
    """Whether a text is made of the letters A to Z and the digit 9 only."""
    return _TRYTES.fullmatch(text) is not None


def parse_trytes(trytes: str) -> Trits:
    """Three trits of each letter. Raises: MamError: not trytes."""
    if not is_trytes(trytes):
        raise MamError(f"{trytes[:40]!r} is not made of trytes", "only the letters A to Z and the digit 9 are trytes")
    backwards = trytes[::-1] or "9"
    return Trits(int(backwards.translate(_PLUS_TABLE), 8), int(backwards.translate(_MINUS_TABLE), 8), 3 * len(trytes))


def format_trytes(trits: Trits) -> str:
    """One letter of three trits; missing trits of the last letter are 0."""
    letters = -(-trits.size // 3)
    plus, minus = (format(plane, f"0{letters}o")[::-1] if letters else "" for plane in (trits.plus, trits.minus))
    return "".join(map(_LETTER.__getitem__, zip(plus, minus, strict=True)))


def encode_text(text: str) -> str:
    """Text as trytes, two of a character; what is not ASCII is written as `\\uXXXX` first."""
    units = text.encode("utf-16-be", "surrogatepass")
    ascii_text = "".join(
        chr(unit) if unit < 128 else f"\\u{unit:04x}" for unit in (units[i] << 8 | units[i + 1] for i in range(0, len(units), 2))
    )
    return "".join(ALPHABET[ord(c) % 27] + ALPHABET[ord(c) // 27] for c in ascii_text)


def decode_text(trytes: str) -> str | None:
    """The text of trytes, without the 9s that pad it; None if they are no text."""
    trimmed = trytes.rstrip("9")
    trimmed += "9" * (len(trimmed) % 2)
    codes = [ALPHABET.index(trimmed[i]) + 27 * ALPHABET.index(trimmed[i + 1]) for i in range(0, len(trimmed), 2)]
    if any(code > 255 for code in codes):
        return None
    units = _ESCAPE.sub(lambda match: chr(int(match[1], 16)), "".join(map(chr, codes)))
    try:
        return units.encode("utf-16", "surrogatepass").decode("utf-16")
    except UnicodeDecodeError:
        return None


# --- Pascal numbers ---------------------------------------------------------------------------------------------


def encode_number(number: int) -> Trits:
    """A whole number of its own length: all its trytes but the last are written as negative, so that a reader finds the end.

    A trit for each tryte follows; together they say, in binary, which of the trytes had to be negated.
    """
    assert number >= 0
    if number == 0:
        return Trits(*_PASCAL_ZERO, 4)
    digits = _to_trits(number)
    trytes = [digits.slice(start, 3) for start in range(0, digits.size, 3)]
    negated = 0
    for place, tryte in enumerate(trytes):
        value = tryte.value()
        if (value < 0) if place == len(trytes) - 1 else (value >= 0):
            negated |= 1 << place
            trytes[place] = tryte.negate()
    signs = _to_trits(negated) if negated else Trits(0, 0, 0)
    return join([*trytes, Trits(signs.plus, signs.minus, len(trytes))])


def decode_number(trits: Trits, start: int, *, trytes_max: int = 6) -> tuple[int, int] | None:
    """(number, where it ends) of the Pascal number at `start`; None if there is none of at most `trytes_max` trytes."""
    head = trits.slice(start, 4)
    if (head.plus, head.minus) == _PASCAL_ZERO:
        return 0, start + 4
    trytes: list[int] = []
    while not trytes or trytes[-1] <= 0:
        if len(trytes) == trytes_max:
            return None
        trytes.append(trits.slice(start + 3 * len(trytes), 3).value())
    end = start + 4 * len(trytes)
    negated = trits.slice(start + 3 * len(trytes), len(trytes)).value()
    if end > trits.size or not 0 <= negated < 1 << len(trytes):
        return None
    number = sum((-value if negated >> place & 1 else value) * 27**place for place, value in enumerate(trytes))
    return (number, end) if number >= 0 else None


def _to_trits(number: int) -> Trits:
    """The balanced trits of a positive number, the least first, padded to whole trytes."""
    plus = minus = size = 0
    while number:
        trit = (number + 1) % 3 - 1
        number = (number - trit) // 3
        plus |= (trit == 1) << size
        minus |= (trit == -1) << size
        size += 1
    return Trits(plus, minus, -(-size // 3) * 3)
