"""Curl-P, the ternary sponge of MAM v0, and chains of it. Broken since 2017: here for compatibility, never for security.

Collisions of Curl-P-27 are practical (Heilman, Narula, Tanzer, Lovejoy, Colavita, Virza, Dryja: Cryptanalysis of Curl-P and Other
Attacks on the IOTA Cryptocurrency, ToSC 2020(3) 367-391), so nothing in this project counts what it signs as signed.

How it is fast without a compiler. A state of 729 trits is two numbers of 729 bits (`tangle.trits`). One round computes
new[i] = f(old[364 i], old[364 i + 364]), places modulo 729. Read the state through the frame S[j] = state[p j] and the first
operand stays where it is while the second is one rotation, if p is multiplied by -2, the inverse of 364, in every round. After
27 rounds p = (-2)^27 = 1 mod 81, so taking the frame away again moves nine classes of places by multiples of 81.
W states lie in one number with bit i * W + lane: the same code then hashes W inputs at the price of about a fifth each.
Pure.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from learnae.tangle.trits import HASH_TRITS, Trits

STATE_TRITS: Final = 3 * HASH_TRITS
_STEP: Final = 364  # A round reads places 0, 364, 728, 363, ...: each 364 after the one before.
_CLASSES: Final = 9


@dataclass(frozen=True, slots=True)
class _Layout:
    """Numbers that depend on how many states lie side by side and on the rounds: masks and how far to rotate."""

    mask: int
    rotations: tuple[int, ...]
    classes: tuple[tuple[int, int], ...]  # (how far to rotate back, mask of the places that this brings home)


@lru_cache(maxsize=64)
def _lay_out(lanes: int, rounds: int) -> _Layout:
    bits = STATE_TRITS * lanes
    rotations = tuple(pow(_STEP, number + 1, STATE_TRITS) * lanes for number in range(rounds))
    inverse = pow(_STEP, rounds, STATE_TRITS)  # Place i of the state is at `inverse * i` of the frame.
    assert inverse % _CLASSES == 1, "27 and 81 rounds keep each place in its class"
    row = (1 << lanes) - 1
    masks: dict[int, int] = defaultdict(int)
    for place in range(STATE_TRITS):
        masks[(inverse * place - place) % STATE_TRITS * lanes] |= row << place * lanes
    return _Layout((1 << bits) - 1, rotations, tuple(sorted(masks.items())))


def _permute(plus: int, minus: int, *, lanes: int = 1, rounds: int = 27) -> tuple[int, int]:
    """Curl's permutation of `lanes` states side by side; planes of +1 and -1 in, the same out."""
    layout = _lay_out(lanes, rounds)
    mask, bits = layout.mask, STATE_TRITS * lanes
    low = plus ^ mask  # With the plane "not +1" a round takes the fewest operations.
    for down in layout.rotations:
        up = bits - down
        turned = minus >> down | minus << up
        low_next = (((low | turned) ^ mask) | ((low >> down | low << up) ^ minus)) & mask
        minus = (low ^ turned) & low_next
        low = low_next
    return _leave_frame(low ^ mask, layout, bits), _leave_frame(minus, layout, bits)


def _leave_frame(plane: int, layout: _Layout, bits: int) -> int:
    plane |= plane << bits
    home = 0
    for distance, mask in layout.classes:
        home |= plane >> distance & mask
    return home


class Curl:
    """A sponge: absorbs trits in pieces of 243, gives 243 at a time. `rounds`: 27 in MAM, 81 for addresses."""

    def __init__(self, rounds: int = 27) -> None:
        self._rounds = rounds
        self._plus = self._minus = 0

    def absorb(self, trits: Trits) -> None:
        for chunk in trits.chunks():
            keep = -1 << chunk.size  # A short piece overwrites only as far as it goes.
            plus, minus = self._plus & keep | chunk.plus, self._minus & keep | chunk.minus
            self._plus, self._minus = _permute(plus, minus, rounds=self._rounds)

    def rate(self) -> Trits:
        """The 243 trits that stand to be given out."""
        return self.state().slice(0, HASH_TRITS)

    def state(self) -> Trits:
        return Trits(self._plus, self._minus, STATE_TRITS)

    def squeeze(self) -> Trits:
        """Give 243 trits and go on."""
        rate = self.rate()
        self._plus, self._minus = _permute(self._plus, self._minus, rounds=self._rounds)
        return rate

    def mask(self, plain: Trits) -> list[Trits]:
        """Encrypt: each piece of 243 is added to the rate, and the plain piece absorbed. The encrypted pieces."""
        masked = []
        for chunk in plain.chunks():
            masked.append(chunk.add(self.rate().slice(0, chunk.size)))
            self.absorb(chunk)
        return masked

    def unmask(self, masked: Trits) -> list[Trits]:
        """Decrypt what `mask` made from the same state; the plain pieces."""
        plain = []
        for chunk in masked.chunks():
            plain.append(chunk.add(self.rate().slice(0, chunk.size).negate()))
            self.absorb(plain[-1])
        return plain


def hash_once(trits: Trits, *, rounds: int = 27) -> Trits:
    """The Curl hash of a whole sequence: 243 trits."""
    curl = Curl(rounds)
    curl.absorb(trits)
    return curl.rate()


def hash_chains(starts: Sequence[Trits], steps: Sequence[int]) -> list[Trits]:
    """Hash each 243-trit start as many times as its entry of `steps` says; chains of equal length run side by side."""
    ends = list(starts)
    by_steps: dict[int, list[int]] = defaultdict(list)
    for index, count in enumerate(steps):
        if count:
            by_steps[count].append(index)
    for count, indices in by_steps.items():
        plus, minus = pack_lanes([starts[index] for index in indices])
        rate = (1 << HASH_TRITS * len(indices)) - 1
        for _ in range(count):
            plus, minus = _permute(plus & rate, minus & rate, lanes=len(indices))
        for index, end in zip(indices, unpack_lanes(plus, minus, len(indices)), strict=True):
            ends[index] = end
    return ends


def permute_lanes(states: Sequence[Trits]) -> list[Trits]:
    """The rates, 243 trits each, of several states after one permutation."""
    plus, minus = _permute(*pack_lanes(states), lanes=len(states))
    return unpack_lanes(plus, minus, len(states))


def pack_lanes(lanes: Sequence[Trits]) -> tuple[int, int]:
    """Sequences of one size side by side: trit i of lane w at bit i * W + w."""
    if len(lanes) == 1:
        return lanes[0].plus, lanes[0].minus
    size, last_first = lanes[0].size, lanes[::-1]
    planes = []
    for plane in ([lane.plus for lane in last_first], [lane.minus for lane in last_first]):
        rows = zip(*(format(bits, f"0{size}b") for bits in plane), strict=True)
        planes.append(int("".join(map("".join, rows)), 2))
    return planes[0], planes[1]


def unpack_lanes(plus: int, minus: int, lanes: int) -> list[Trits]:
    """The first 243 trits of each lane."""
    mask = (1 << HASH_TRITS * lanes) - 1
    if lanes == 1:
        return [Trits(plus & mask, minus & mask, HASH_TRITS)]
    width = HASH_TRITS * lanes
    rows = format(plus & mask, f"0{width}b"), format(minus & mask, f"0{width}b")
    return [
        Trits(int(rows[0][lanes - 1 - lane :: lanes], 2), int(rows[1][lanes - 1 - lane :: lanes], 2), HASH_TRITS)
        for lane in range(lanes)
    ]
