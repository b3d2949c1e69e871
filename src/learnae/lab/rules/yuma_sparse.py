"""Yuma's idea carried over to a sparse ledger: the median is taken over the rows that name the helper at all."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median_low

from learnae.lab.rules.yuma import Yuma


class YumaSparse(Yuma):
    """A ring's rows are held to what the honest rows that know the same helper say."""

    name = "yuma-sparse"
    about = "the clipped median over the rows that name the helper"
    rank = 9

    def compute_limit(self, weights: Sequence[int], members: int) -> int:
        return median_low(weights) if weights else 0
