"""How long a model takes from one peer to another: from A's publishing of an announcement to B's announcing of what it made of it.

Two whole nodes over libp2p on loopback, with journals and block stores on disk; the learner is ready and takes no time, so what is
left is signing, journal, gossip, judging, fetching, storing, averaging and answering. B has nothing to train on: it looks for news
when news come. The reference is a bare TCP transfer of the same bytes in the same run.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from random import Random

import trio

from benchmarks import Result
from benchmarks._pair import FUNDING_S, Stopwatch, open_pair
from learnae.ids import Cid
from learnae.learning.immediate import ImmediateLearner
from learnae.protocol.measures import Evaluation, TaskFacts
from learnae.sim.learner import Unaudited

MODEL_BYTES = 407_392  # The digits model: 101,770 numbers and a header.
ROUNDS = 20
PACE_S = 0.7  # Between two models of A.
TOTAL = 1_000_000


class ReadyLearner(Unaudited):
    """Answers at once; every model is new. A trains and never averages, B averages and has nothing to train on."""

    def __init__(self, *, trains: bool) -> None:
        self._trains = trains
        self._rng = Random(trains)
        self._correct = 0

    def open(self) -> TaskFacts:
        return TaskFacts(
            train_examples=100,
            validation_examples=TOTAL,
            device="none",
            parameters=MODEL_BYTES // 4,
            model_bytes=MODEL_BYTES,
            private_slices=int(self._trains),
            shared_slices=0,
        )

    def initial_model(self, seed: int) -> bytes:
        return bytes(MODEL_BYTES)

    def set_initial(self, model: bytes) -> None:
        return None

    def read_shared_slice(self, index: int) -> bytes:
        raise IndexError(index)

    def evaluate(self, model: bytes, *, reference: bytes | None) -> Evaluation:
        return Evaluation(correct=self._correct, total=TOTAL, gained=0, lost=0)

    def train(self, model: bytes, *, private_slices: Sequence[int], slices: Sequence[bytes], seed: int) -> tuple[bytes, Evaluation]:
        return self._make_better()

    def average(self, local: bytes, remote: bytes, *, remote_share: float) -> tuple[bytes, Evaluation, Evaluation]:
        theirs = Evaluation(correct=self._correct, total=TOTAL, gained=0, lost=0)
        if self._trains:
            return local, Evaluation(correct=0, total=TOTAL, gained=0, lost=TOTAL), theirs
        return *self._make_better(), theirs

    def close(self) -> None:
        return None

    def _make_better(self) -> tuple[bytes, Evaluation]:
        self._correct += 10
        return self._rng.randbytes(MODEL_BYTES), Evaluation(correct=self._correct, total=TOTAL, gained=10, lost=0)


def run() -> list[Result]:
    with tempfile.TemporaryDirectory() as folder:
        return trio.run(_measure, Path(folder))


async def _measure(root: Path) -> list[Result]:
    async with open_pair(root, bytes(MODEL_BYTES)) as pair:
        for trains in (True, False):
            await pair.start_node(ImmediateLearner(ReadyLearner(trains=trains)), pace_s=PACE_S if trains else 0.0)
        latencies_s: list[float] = []
        with trio.fail_after(FUNDING_S + 10 * ROUNDS * PACE_S + 20):
            while len(latencies_s) < ROUNDS:
                await trio.sleep(0.1)
                latencies_s = _compute_latencies(*pair.watches)
        bare_s = [await _transfer_bare() for _ in range(ROUNDS)]
    ordered = sorted(latencies_s)
    case = f"announce to adopt, {MODEL_BYTES // 1000} kB"
    bare_ms = statistics.median(bare_s) * 1000
    return [
        Result(case=f"{case}: median", value=statistics.median(ordered) * 1000, unit="ms", reference="bare TCP", reference_value=bare_ms),
        Result(case=f"{case}: fastest", value=ordered[0] * 1000, unit="ms"),
        Result(case=f"{case}: slowest of {len(ordered)}", value=ordered[-1] * 1000, unit="ms"),
    ]


def _compute_latencies(one: Stopwatch, other: Stopwatch) -> list[float]:
    """Seconds from each announcement of `one` to the first announcement of `other` that has it as a parent."""
    found: dict[Cid, float] = {}
    for at_s, parents in other.announced.values():
        for parent in parents:
            if parent in one.announced:
                found.setdefault(parent, at_s - one.announced[parent][0])
    return list(found.values())


async def _transfer_bare() -> float:
    async def serve(stream: trio.SocketStream) -> None:
        await stream.send_all(bytes(MODEL_BYTES))

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, serve, 0)
        began_s = time.perf_counter()
        async with await trio.open_tcp_stream("127.0.0.1", listeners[0].socket.getsockname()[1]) as stream:
            left = MODEL_BYTES
            while left:
                left -= len(await stream.receive_some(left))
        took_s = time.perf_counter() - began_s
        nursery.cancel_scope.cancel()
    return took_s
