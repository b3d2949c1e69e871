"""What a simulated peer learns with: a synchronous learner whose work takes virtual time.

Any object with these methods will do: the synthetic learner for large runs, the real one (torch) for the accuracy benchmark.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from learnae.protocol.measures import Evaluation, Recount, TaskFacts


class SimulatedLearner(Protocol):
    """One peer's task and data. Model bytes are opaque; the same arguments give the same bytes."""

    def open(self) -> TaskFacts: ...

    def evaluate(self, model: bytes, *, reference: bytes | None) -> Evaluation: ...

    def train(self, model: bytes, *, private_slices: Sequence[int], slices: Sequence[bytes], seed: int) -> tuple[bytes, Evaluation]: ...

    def average(self, local: bytes, remote: bytes, *, remote_share: float) -> tuple[bytes, Evaluation, Evaluation]:
        """The mean, its evaluation with `local` as reference, and the remote model's own evaluation."""

    def read_shared_slice(self, index: int) -> bytes: ...

    def read_validation(self, salt: bytes) -> tuple[bytes, int]: ...

    def recount(self, before: bytes, after: bytes, remote: bytes, validation: bytes) -> Recount: ...


class Unaudited:
    """The part of a learner that only sessions with audits call, for one that is made for sessions without."""

    def read_validation(self, salt: bytes) -> tuple[bytes, int]:
        raise AssertionError("receipts are not audited in this session")

    def recount(self, before: bytes, after: bytes, remote: bytes, validation: bytes) -> Recount:
        raise AssertionError("receipts are not audited in this session")
