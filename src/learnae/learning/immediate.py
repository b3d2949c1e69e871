"""Any learner without `async` as the `Learner` port: for tests, and for tasks so small that a worker process is not worth it.

Blocks its thread while it works, so a node uses `ProcessLearner`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import trio

from learnae.ids import Content, Pieces
from learnae.protocol.measures import Evaluation, Recount, TaskFacts


class PlainLearner(Protocol):
    """The `Learner` port without `async`: `InlineLearner` and `SyntheticLearner`."""

    def open(self) -> TaskFacts: ...
    def initial_model(self, seed: int) -> bytes: ...
    def set_initial(self, model: bytes) -> None: ...
    def read_shared_slice(self, index: int) -> bytes: ...
    def evaluate(self, model: bytes, *, reference: bytes | None) -> Evaluation: ...
    def train(self, model: bytes, *, private_slices: Sequence[int], slices: Sequence[bytes], seed: int) -> tuple[bytes, Evaluation]: ...
    def average(self, local: bytes, remote: bytes, *, remote_share: float) -> tuple[bytes, Evaluation, Evaluation]: ...
    def read_validation(self, salt: bytes) -> tuple[bytes, int]: ...
    def recount(self, before: bytes, after: bytes, remote: bytes, validation: bytes) -> Recount: ...
    def close(self) -> None: ...


class ImmediateLearner:
    """Passes every call on, with a checkpoint first."""

    def __init__(self, learner: PlainLearner) -> None:
        self._learner = learner
        self._facts: TaskFacts | None = None
        self._has_initial = False

    async def open(self) -> TaskFacts:
        await trio.lowlevel.checkpoint()
        if self._facts is None:
            self._facts = self._learner.open()
        return self._facts

    async def initial_model(self, seed: int) -> bytes:
        await self.open()
        return self._learner.initial_model(seed)

    async def set_initial(self, model: Content | Pieces) -> None:
        await self.open()
        self._learner.set_initial(_join(model))
        self._has_initial = True

    @property
    def has_initial(self) -> bool:
        return self._has_initial

    async def read_shared_slice(self, index: int) -> bytes:
        await self.open()
        return self._learner.read_shared_slice(index)

    async def evaluate(self, model: Content | Pieces, *, reference: Content | Pieces | None) -> Evaluation:
        await self.open()
        return self._learner.evaluate(_join(model), reference=None if reference is None else _join(reference))

    async def train(
        self, model: Content | Pieces, *, private_slices: Sequence[int], slices: Sequence[Content | Pieces], seed: int
    ) -> tuple[bytes, Evaluation]:
        await self.open()
        return self._learner.train(_join(model), private_slices=private_slices, slices=list(map(_join, slices)), seed=seed)

    async def average(
        self, local: Content | Pieces, remote: Content | Pieces, *, remote_share: float
    ) -> tuple[bytes, Evaluation, Evaluation]:
        await self.open()
        return self._learner.average(_join(local), _join(remote), remote_share=remote_share)

    async def read_validation(self, salt: bytes) -> tuple[bytes, int]:
        await self.open()
        return self._learner.read_validation(salt)

    async def recount(
        self, before: Content | Pieces, after: Content | Pieces, remote: Content | Pieces, validation: Content | Pieces
    ) -> Recount:
        await self.open()
        return self._learner.recount(_join(before), _join(after), _join(remote), _join(validation))

    async def close(self) -> None:
        await trio.lowlevel.checkpoint()
        self._learner.close()
        self._facts = None


def _join(content: Content | Pieces) -> bytes:
    return bytes(content) if isinstance(content, bytes | memoryview) else b"".join(content)
