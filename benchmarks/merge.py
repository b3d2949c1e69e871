"""A complete merge between two peers that are ready: announce, choose, fetch, average, announce the average; evaluation excluded.

Ours: two whole nodes over libp2p on loopback with journals and block stores on disk, in one process; the second averages in the worker
process of a real node, with PyTorch. Time runs from the first one's having a new model in its hands until the second has stored and
announced the average. hivemind: `DecentralizedAverager.step` of two peers, a group of two that starts as soon as both are there.

Then one whose partner is gone. hivemind waits until its time-out. Ours goes on with its work: the longest time without a new model of
its own in the seconds after the other, whose models it still knows and wants, was cut off.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from random import Random

import trio

from benchmarks import Result
from benchmarks._hivemind_pair import HivemindPair, start_hivemind
from benchmarks._pair import FUNDING_S, Pair, open_pair
from learnae.ids import Cid
from learnae.learning.config import LearnerConfig
from learnae.learning.immediate import ImmediateLearner
from learnae.learning.process import ProcessLearner
from learnae.protocol.measures import Evaluation, TaskFacts
from learnae.sim.learner import Unaudited

ROUNDS = 7
SIZES_BYTES = (1_000_000, 10_000_000, 40_000_000)
TIMEOUT_S = 5.0  # hivemind's, for a partner that does not come
ABSENT_S = 5.0
TOTAL = 1_000_000
TENSORS = 10  # as many as hivemind's peers have
TASK = """
import torch

class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = torch.nn.ParameterList([torch.rand({numbers}) for _ in range({tensors})])
    def forward(self, x):
        return x * self.layers[0][:2]

def build_model():
    return Model()

def load_data(source):
    return torch.rand(16, 2), torch.randint(2, (16,))
"""


class _Maker(Unaudited):
    """Makes a new model, better than all before, whenever it trains; no average is better than its own."""

    def __init__(self, initial: bytes, *, task: TaskFacts) -> None:
        self._initial, self._facts = initial, task
        self._rng = Random(1)
        self._correct = 0
        self.made_s: list[float] = []

    def open(self) -> TaskFacts:
        return self._facts

    def initial_model(self, seed: int) -> bytes:
        return self._initial

    def set_initial(self, model: bytes) -> None:
        return None

    def read_shared_slice(self, index: int) -> bytes:
        raise IndexError(index)

    def evaluate(self, model: bytes, *, reference: bytes | None) -> Evaluation:
        return Evaluation(correct=self._correct, total=TOTAL, gained=0, lost=0)

    def train(self, model: bytes, *, private_slices: Sequence[int], slices: Sequence[bytes], seed: int) -> tuple[bytes, Evaluation]:
        numbers = self._facts.parameters
        values = bytearray(self._rng.randbytes(4 * numbers))
        values[3::4] = b"\x3f" * numbers  # float32 from 0.5 to 2
        content = self._initial[: -4 * numbers] + values
        self._correct += 10
        self.made_s.append(time.perf_counter())
        return bytes(content), Evaluation(correct=self._correct, total=TOTAL, gained=10, lost=0)

    def average(self, local: bytes, remote: bytes, *, remote_share: float) -> tuple[bytes, Evaluation, Evaluation]:
        theirs = Evaluation(correct=self._correct, total=TOTAL, gained=0, lost=0)
        return local, Evaluation(correct=0, total=TOTAL, gained=0, lost=TOTAL), theirs

    def close(self) -> None:
        return None


class _Merger(ProcessLearner):
    """A real worker that has nothing to train on; what it averaged is always better."""

    _correct = 0

    async def open(self) -> TaskFacts:
        facts = await super().open()
        return TaskFacts(
            train_examples=facts.train_examples,
            validation_examples=TOTAL,
            device=facts.device,
            parameters=facts.parameters,
            model_bytes=facts.model_bytes,
            private_slices=0,
            shared_slices=0,
        )

    async def evaluate(self, model: bytes, *, reference: bytes | None) -> Evaluation:
        await trio.lowlevel.checkpoint()
        return Evaluation(correct=self._correct, total=TOTAL, gained=0, lost=0)

    async def average(self, local: bytes, remote: bytes, *, remote_share: float) -> tuple[bytes, Evaluation, Evaluation]:
        content, _, _ = await super().average(local, remote, remote_share=remote_share)
        theirs = await self.evaluate(remote, reference=None)
        self._correct += 10
        return content, Evaluation(correct=self._correct, total=TOTAL, gained=10, lost=0), theirs


def run() -> list[Result]:
    results: list[Result] = []
    with start_hivemind(SIZES_BYTES) as hivemind:
        for size_bytes in SIZES_BYTES:
            with tempfile.TemporaryDirectory() as folder:
                results.append(trio.run(_compare, hivemind, Path(folder), size_bytes))
        waited_s = hivemind.miss(SIZES_BYTES[0], TIMEOUT_S)
    with tempfile.TemporaryDirectory() as folder:
        gap_s = trio.run(_measure_absent, Path(folder))
    case = "the partner is gone: longest time without a new model"
    return [*results, Result(case=case, value=gap_s, unit="s", reference=f"hivemind, time-out {TIMEOUT_S:.0f} s", reference_value=waited_s)]


async def _compare(hivemind: HivemindPair, root: Path, size_bytes: int) -> Result:
    """Medians of merges, ours and hivemind's in turn; the first of each is to warm up."""
    merger = await _make_merger(root, size_bytes)
    hivemind.step(size_bytes)
    try:
        facts, initial = await merger.open(), await merger.initial_model(0)
        async with open_pair(root, initial) as pair:
            maker = _Maker(initial, task=_one_slice(facts))
            await pair.start_node(ImmediateLearner(maker), pace_s=1.0 + size_bytes / 2e7)
            await pair.start_node(merger, pace_s=0.0)
            theirs_s: list[float] = []
            for number in range(1, ROUNDS + 1):
                with trio.fail_after(FUNDING_S + 60):
                    await _until(partial(_has_merged, pair, maker, number))
                theirs_s.append(await trio.to_thread.run_sync(hivemind.step, size_bytes))
            ours_s = _compute_merges(pair, maker)
    finally:
        await merger.close()
    value, reference_value = statistics.median(ours_s) * 1000, statistics.median(theirs_s) * 1000
    return Result(
        case=f"merge, {size_bytes // 1_000_000} MB", value=value, unit="ms", reference="hivemind", reference_value=reference_value
    )


def _has_merged(pair: Pair, maker: _Maker, times: int) -> bool:
    return len(_compute_merges(pair, maker)) >= times


async def _until(is_done: Callable[[], bool]) -> None:
    while not is_done():  # noqa: ASYNC110 - a node has no event for it
        await trio.sleep(0.2)


async def _make_merger(root: Path, size_bytes: int) -> _Merger:
    task = root / "task.py"
    await trio.Path(task).write_text(TASK.format(numbers=size_bytes // 4 // TENSORS, tensors=TENSORS))
    config = LearnerConfig(task=str(task), source="", device="cpu")
    return _Merger(config, command=(sys.executable, "-m", "benchmarks._merge_worker"))


def _one_slice(facts: TaskFacts) -> TaskFacts:
    return TaskFacts(
        train_examples=100,
        validation_examples=TOTAL,
        device="none",
        parameters=facts.parameters,
        model_bytes=facts.model_bytes,
        private_slices=1,
        shared_slices=0,
    )


def _compute_merges(pair: Pair, maker: _Maker) -> list[float]:
    """Seconds from each model in the maker's hands to the other's announcement of an average with it."""
    one, other = pair.watches
    made_s = dict(zip(one.announced, maker.made_s, strict=False))  # announced in the order in which they were made
    found: dict[Cid, float] = {}
    for at_s, parents in other.announced.values():
        for parent in parents:
            if parent in made_s:
                found.setdefault(parent, at_s - made_s[parent])
    return list(found.values())[1:]  # the first is to warm up


async def _measure_absent(root: Path) -> float:
    """The longest time between two new models of a peer after its partner was cut off."""
    merger = await _make_merger(root, SIZES_BYTES[0])
    facts, initial = await merger.open(), await merger.initial_model(0)
    await merger.close()
    async with open_pair(root, initial, train_permille=500) as pair:
        makers = [_Maker(initial, task=_one_slice(facts)) for _ in range(2)]
        scopes = [await pair.start_node(ImmediateLearner(maker), pace_s=0.1) for maker in makers]
        with trio.fail_after(FUNDING_S + 30):
            await _until(lambda: len(makers[1].made_s) >= 20)
        scopes[0].cancel()
        began_s = time.perf_counter()
        await trio.sleep(ABSENT_S)
        times_s = [began_s, *(at_s for at_s in makers[1].made_s if at_s > began_s), time.perf_counter()]
        return max(after - before for before, after in pairwise(times_s))
