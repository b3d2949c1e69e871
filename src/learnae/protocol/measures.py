"""What a learner measures and reports about itself: plain counts, never asserted, only counted.

Pure values. Source: paper 4.1 (accuracy and metadata of models).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

SCORE_TOTAL: Final = 1_000_000
"""`total` of an evaluation that is a scaled score and no count of examples."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """Counts on this peer's private validation set.

    `gained` and `lost` compare with the reference example by example: right now where the reference was wrong, and the reverse.
    A score that is no count is scaled to `total` = `SCORE_TOTAL`; gained and lost are then its rise and its fall.
    """

    correct: int
    total: int
    gained: int = 0
    lost: int = 0

    @property
    def accuracy(self) -> float:
        return self.correct / self.total


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskFacts:
    """What a learner found when it opened the task with the user's own data."""

    train_examples: int
    validation_examples: int
    device: str
    parameters: int
    model_bytes: int
    private_slices: int  # slices of own data that stay here; trained on by index
    shared_slices: int  # slices of own data opened to others; `Learner.read_shared_slice` gives their bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Recount:
    """A receipt's measurement repeated by an auditor: right answers of both models on the reporter's opened validation slice."""

    correct_before: int
    correct_after: int
    total: int
    derives: bool  # the new model lies on the line from the old one to the helper's
