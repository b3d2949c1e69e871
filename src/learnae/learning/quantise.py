"""Numbers in few bits: blocks of 256 values share one step, each value becomes a small whole number of steps. Needs numpy, not torch.

Two kinds of step. `absmax`: the largest value of the block takes the largest code, so that no value is off by more than half a step.
`rms`: so many standard deviations of the block; small values become 0, and a deflated stream of mostly zeros is short. The codes are
written as digits of one base, as many to a byte as fit, and deflated.
Source: blockwise quantisation, Dettmers et al., arXiv 2110.02861; dead-zone quantisers, Sullivan, IEEE Trans. Inf. Theory 42 (1996).
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

BLOCK: Final = 256  # Values that share a step: 2 bytes of step for 256 codes cost little, and one outlier spoils only its block.
CHUNK: Final = 4096  # Blocks that are worked on at a time: bounds memory.
LARGEST_BFLOAT16: Final = 0x7F7F
NORMAL_BFLOAT16: Final = 0x0080  # 2**-126; smaller ones have too few digits to be a step.
DEFLATE_LEVEL: Final = 6

Values = npt.NDArray[np.float32]
Codes = npt.NDArray[np.int8]
Scales = npt.NDArray[np.uint16]
"""Steps as the upper halves of float32 numbers (bfloat16), which have the range of float32."""


class CodesError(ValueError):
    """What is wrong with a stream of codes, as the end of a sentence; callers turn it into their own error."""


@dataclass(frozen=True, slots=True)
class Quantiser:
    """Codes run from `-half` to `half`; `per_byte` of them fit into a byte. `step_rms` None: the step is by absmax."""

    half: int
    per_byte: int
    step_rms: float | None = None

    def __post_init__(self) -> None:
        assert self.base**self.per_byte <= 256

    @property
    def base(self) -> int:
        return 2 * self.half + 1

    def count_bytes(self, values: int) -> int:
        """Size of so many codes before they are deflated."""
        return -(-values // self.per_byte)

    def quantise(self, values: Values) -> tuple[Codes, Scales]:
        """Codes (n,) and scales (blocks,) of finite values (n,)."""
        codes = np.empty(len(values), np.int8)
        scales = np.empty(count_blocks(len(values)), np.uint16)
        for begin, end in _chunks(len(values)):
            padded = np.zeros(count_blocks(end - begin) * BLOCK, np.float64)
            padded[: end - begin] = values[begin:end]
            found, steps = self._quantise_blocks(padded.reshape(-1, BLOCK))
            codes[begin:end] = found.reshape(-1)[: end - begin]
            scales[begin // BLOCK : count_blocks(end)] = steps
        return codes, scales

    def _quantise_blocks(self, blocks: npt.NDArray[np.float64]) -> tuple[Codes, Scales]:
        if self.step_rms is None:
            scales = _to_bfloat16(np.abs(blocks).max(axis=1) / self.half, upwards=True)
            scales[scales < NORMAL_BFLOAT16] = 0  # A block below 2**-119 becomes zeros.
            steps = _from_bfloat16(scales).astype(np.float64)[:, None]
            return _round(blocks, steps, self.half), scales
        steps = self.step_rms * np.sqrt(np.square(blocks).mean(axis=1, keepdims=True))
        codes = _round(blocks, steps, self.half)
        squares = np.square(codes, dtype=np.float64).sum(axis=1)
        best = (blocks * codes).sum(axis=1) / np.where(squares > 0, squares, 1)  # Least squares: the scale that these codes fit best.
        return codes, _to_bfloat16(best, upwards=False)

    def restore(self, codes: Codes, scales: Scales) -> Values:
        """The values that codes (n,) and scales (blocks,) stand for; infinite where a product is too large."""
        with np.errstate(over="ignore"):
            values: Values = codes.astype(np.float32) * np.repeat(_from_bfloat16(scales), BLOCK)[: len(codes)]
        return values

    def compute_errors_max(self, values: int, scales: Scales) -> npt.NDArray[np.float64]:
        """How far each of so many values may lie from what is restored of it (n,); only where the step is by absmax."""
        assert self.step_rms is None
        return np.repeat(_from_bfloat16(scales).astype(np.float64) / 2 + 2.0**-119, BLOCK)[:values]

    def find_false_step(self, codes: Codes, scales: Scales) -> int | None:
        """The first block of codes (n,) whose step is wider than its values need; None also where steps are not by absmax.

        By absmax the largest value of a block has the largest code, or the one before it, as steps are rounded upwards by 1/128 at most.
        A step that no code needs would claim that the block's values were rounded by more than they were.
        """
        if self.step_rms is not None or not len(codes):
            return None
        largest = np.maximum.reduceat(np.abs(codes), np.arange(0, len(codes), BLOCK))
        false = np.flatnonzero((scales > 0) & ((largest < self.half - 1) | (scales < NORMAL_BFLOAT16)))
        return int(false[0]) if len(false) else None

    def pack(self, codes: Codes) -> bytes:
        """Codes (n,) as deflated digits."""
        digits = np.zeros(self.count_bytes(len(codes)) * self.per_byte, np.uint8)
        digits[: len(codes)] = codes.astype(np.int16) + self.half
        packed = np.zeros(len(digits) // self.per_byte, np.uint8)
        for place in range(self.per_byte):
            packed = packed * np.uint8(self.base) + digits[place :: self.per_byte]
        return zlib.compress(packed.tobytes(), DEFLATE_LEVEL)

    def unpack(self, stream: bytes, values: int) -> Codes:
        """The codes (`values`,) of a stranger's stream; never inflates more than they need. Raises: CodesError."""
        expected = self.count_bytes(values)
        inflater = zlib.decompressobj()
        try:
            content = inflater.decompress(stream, expected + 1)
        except zlib.error as error:
            raise CodesError(f"its codes are not a deflated stream ({error})") from None
        if len(content) != expected or not inflater.eof or inflater.unused_data:
            raise CodesError(f"its codes do not inflate to exactly {expected} bytes")
        packed = np.frombuffer(content, np.uint8)
        if packed.size and int(packed.max()) >= self.base**self.per_byte:
            raise CodesError(f"its codes hold a byte of {int(packed.max())}, expected at most {self.base**self.per_byte - 1}")
        digits = np.empty(len(packed) * self.per_byte, np.uint8)
        for place in reversed(range(self.per_byte)):
            packed, digits[place :: self.per_byte] = np.divmod(packed, np.uint8(self.base))
        return (digits[:values].astype(np.int16) - self.half).astype(np.int8)


def count_blocks(values: int) -> int:
    return -(-values // BLOCK)


def _chunks(values: int) -> Iterator[tuple[int, int]]:
    for begin in range(0, values, BLOCK * CHUNK):
        yield begin, min(values, begin + BLOCK * CHUNK)


def _round(blocks: npt.NDArray[np.float64], steps: npt.NDArray[np.float64], half: int) -> Codes:
    return np.clip(np.rint(blocks / np.where(steps > 0, steps, 1)), -half, half).astype(np.int8)


def _to_bfloat16(steps: npt.NDArray[np.float64], *, upwards: bool) -> Scales:
    bits = steps.astype(np.float32).view(np.uint32).astype(np.uint64)
    upper: Scales = np.minimum((bits + (0xFFFF if upwards else 0x8000)) >> np.uint64(16), LARGEST_BFLOAT16).astype(np.uint16)
    return upper


def _from_bfloat16(scales: Scales) -> Values:
    return (scales.astype(np.uint32) << np.uint32(16)).view(np.float32)
