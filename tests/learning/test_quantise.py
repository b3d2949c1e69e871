"""Blocks of numbers in few bits, and streams of codes from strangers (docs/compression.md)."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from learnae.learning.compressed import EIGHT_BITS, FOUR_BITS, THREE_VALUES
from learnae.learning.quantise import BLOCK, CHUNK, CodesError, Quantiser, count_blocks

ALL = (EIGHT_BITS, FOUR_BITS, THREE_VALUES)
FLOATS = arrays.arrays(np.float32, st.integers(0, 3 * BLOCK), elements=st.floats(-(2.0**100), 2.0**100, width=32))


@settings(max_examples=40)
@given(FLOATS)
def test_quantise__absmax_is_off_by_half_a_step_at_most(values: np.ndarray) -> None:
    codes, scales = EIGHT_BITS.quantise(values)
    off = EIGHT_BITS.restore(codes, scales).astype(np.float64) - values

    for block in range(count_blocks(len(values))):
        part = slice(block * BLOCK, (block + 1) * BLOCK)
        largest = float(np.abs(values[part]).max())
        assert float(np.abs(off[part]).max()) <= largest / 127 / 2 * 1.02 + 1e-37
    assert (np.abs(off) <= EIGHT_BITS.compute_errors_max(len(values), scales) * (1 + 1e-4)).all()
    assert EIGHT_BITS.find_false_step(codes, scales) is None, "an honest block has a value that needs its step"


@settings(max_examples=40)
@given(st.floats(0, 2.0**100, width=32), st.integers(1, 2 * BLOCK))
def test_quantise__absmax_steps_are_those_that_the_largest_value_needs(largest: float, count: int) -> None:
    """Also where bfloat16 has few digits left: such a block becomes zeros and has no step."""
    codes, scales = EIGHT_BITS.quantise(np.full(count, largest, np.float32))

    assert EIGHT_BITS.find_false_step(codes, scales) is None
    assert int(codes.min()) >= 126 or (largest < 2**-118 and not codes.any() and not scales.any())


def test_find_false_step__a_step_wider_than_the_values_need_is_found() -> None:
    codes, scales = EIGHT_BITS.quantise(np.linspace(-1, 1, 2 * BLOCK + 9, dtype=np.float32))
    for block, largest, found in [(0, 0, 0), (1, 125, 1), (2, 1, 2), (2, 126, None)]:
        part = slice(block * BLOCK, (block + 1) * BLOCK)
        changed = codes.copy()
        changed[part] = np.clip(codes[part], -largest, largest)
        assert EIGHT_BITS.find_false_step(changed, scales) == found
    scales[1] = 0x007F
    assert EIGHT_BITS.find_false_step(codes, scales) == 1, "too small for an encoder"


@settings(max_examples=40)
@given(FLOATS, st.sampled_from(ALL))
def test_quantise__codes_survive_packing_and_zeros_stay_zero(values: np.ndarray, quantiser: Quantiser) -> None:
    codes, scales = quantiser.quantise(values)

    assert np.array_equal(quantiser.unpack(quantiser.pack(codes), len(values)), codes)
    assert int(np.abs(codes).max(initial=0)) <= quantiser.half
    assert not quantiser.restore(codes, scales)[values == 0].any()


def test_quantise__small_codes_keep_most_of_a_bell_curve() -> None:
    """What is lost of normally distributed values, as a share of their squares: the finer the codes, the less."""
    values = np.random.default_rng(1).normal(0, 0.01, 20 * BLOCK).astype(np.float32)
    lost = []
    for quantiser in ALL:
        off = quantiser.restore(*quantiser.quantise(values)) - values
        lost.append(float((off**2).sum() / (values**2).sum()))

    assert lost[0] < 1e-4 < lost[1] < 0.1 < lost[2] < 0.25


def test_quantise__large_arrays_go_chunk_by_chunk_with_equal_results() -> None:
    values = np.random.default_rng(2).normal(0, 1, BLOCK * CHUNK + 300).astype(np.float32)
    codes, scales = FOUR_BITS.quantise(values)
    tail_codes, tail_scales = FOUR_BITS.quantise(values[BLOCK * CHUNK :])

    assert np.array_equal(codes[BLOCK * CHUNK :], tail_codes) and np.array_equal(scales[CHUNK:], tail_scales)


@pytest.mark.parametrize(
    ("stream", "words"),
    [
        (b"", "do not inflate to exactly 10 bytes"),
        (b"\x80\x04pickle", "not a deflated stream"),
        (zlib.compress(bytes(9)), "do not inflate to exactly 10 bytes"),
        (zlib.compress(bytes(11)), "do not inflate to exactly 10 bytes"),
        (zlib.compress(bytes(10))[:-1], "do not inflate to exactly 10 bytes"),
        (zlib.compress(bytes(10)) + b"x", "do not inflate to exactly 10 bytes"),
        (zlib.compress(bytes(9) + b"\xe1"), "hold a byte of 225, expected at most 224"),
        (zlib.compress(bytes(5_000_000)), "do not inflate to exactly 10 bytes"),
    ],
    ids=["empty", "pickle", "short", "long", "cut off", "trailing", "no digit", "bomb"],
)
def test_unpack__a_strangers_stream_is_refused_with_its_reason(stream: bytes, words: str) -> None:
    with pytest.raises(CodesError, match=words):
        FOUR_BITS.unpack(stream, 20)
