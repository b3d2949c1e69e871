"""`python -m benchmarks._merge_node FOLDER NUMBER`: one of the two nodes of the merge benchmark, as `learnae node` runs it.

Member 0 makes models, member 1 averages them in a worker process that is a node's but for measuring nothing. What happens when is
printed, in seconds of this machine's monotonic clock: `made TIME`, and `announced CID TIME PARENT...`.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from random import Random

import trio

from benchmarks._swarm_node import PASSWORD_FILE
from learnae.backends.disk_blocks import DiskBlocks
from learnae.backends.libp2p import Libp2pNetwork
from learnae.backends.private_files import read_password
from learnae.cli.compose import NodeStarter, OnPasses, open_log
from learnae.cli.folder import NodeFolder, NodeSettings
from learnae.cli.signals import run_interruptible
from learnae.ids import Content, Pieces, Topic, cid_text
from learnae.learning.config import LearnerConfig
from learnae.learning.immediate import ImmediateLearner
from learnae.learning.process import ProcessLearner
from learnae.ports import Learner
from learnae.protocol.measures import Evaluation, TaskFacts
from learnae.protocol.messages import ModelAnnounced
from learnae.protocol.rules import Ticket
from learnae.protocol.validation import ControlCodec, compute_model_bytes_max
from learnae.sim.learner import Unaudited
from learnae.tangle.vertex import Vertex

TASK_FILE = "task.py"
TOTAL = 1_000_000


def make_facts(model_bytes: int) -> TaskFacts:
    """Of a task with one private slice, all of whose model but the header are numbers of four bytes."""
    return TaskFacts(
        train_examples=100,
        validation_examples=TOTAL,
        device="none",
        parameters=model_bytes // 4 - 1000,
        model_bytes=model_bytes,
        private_slices=1,
        shared_slices=0,
    )


class Maker(Unaudited):
    """Makes a new model, better than all before, whenever it trains; no average is better than its own."""

    def __init__(self, initial: bytes, *, task: TaskFacts, tells: bool = False) -> None:
        self._initial, self._facts, self._tells = initial, task, tells
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
        if self._tells:
            print("made", self.made_s[-1], flush=True)
        return bytes(content), Evaluation(correct=self._correct, total=TOTAL, gained=10, lost=0)

    def average(self, local: bytes, remote: bytes, *, remote_share: float) -> tuple[bytes, Evaluation, Evaluation]:
        theirs = Evaluation(correct=self._correct, total=TOTAL, gained=0, lost=0)
        return local, Evaluation(correct=0, total=TOTAL, gained=0, lost=TOTAL), theirs

    def close(self) -> None:
        return None


class Merger(ProcessLearner):
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

    async def evaluate(self, model: Content | Pieces, *, reference: Content | Pieces | None) -> Evaluation:
        await trio.lowlevel.checkpoint()
        return Evaluation(correct=self._correct, total=TOTAL, gained=0, lost=0)

    async def average(
        self, local: Content | Pieces, remote: Content | Pieces, *, remote_share: float
    ) -> tuple[Content, Evaluation, Evaluation]:
        content, _, _ = await super().average(local, remote, remote_share=remote_share)
        theirs = await self.evaluate(remote, reference=None)
        self._correct += 10
        return content, Evaluation(correct=self._correct, total=TOTAL, gained=10, lost=0), theirs


async def publish_and_tell(network: Libp2pNetwork, topic: Topic, content: bytes) -> None:
    """`Libp2pNetwork.publish`, which tells first what is announced."""
    vertex = CODEC.decode(content)
    message = CODEC.parse(vertex) if isinstance(vertex, Vertex) else None
    if isinstance(message, ModelAnnounced):
        print("announced", cid_text(message.model), time.perf_counter(), *map(cid_text, message.parents), flush=True)
    await PUBLISH(network, topic, content)


CODEC = ControlCodec()
PUBLISH = Libp2pNetwork.publish


def main(path: str, number: str) -> int:
    folder = NodeFolder(Path(path))
    open_log(folder.log)

    def make_learner(ticket: Ticket, settings: NodeSettings, on_passes: OnPasses) -> Learner:
        if number == "0":
            rules = ticket.rules
            initial = DiskBlocks(folder.blocks, read_only=True).get_file(rules.initial_model, bytes_max=compute_model_bytes_max(rules))
            assert initial is not None
            return ImmediateLearner(Maker(bytes(initial), task=make_facts(len(initial)), tells=True))
        config = LearnerConfig(task=str(folder.path.parent / TASK_FILE), source="", device="cpu")
        return Merger(config, command=(sys.executable, "-m", "benchmarks._merge_worker"))

    setattr(Libp2pNetwork, "publish", publish_and_tell)  # noqa: B010 - a benchmark's watch, in its own process
    starter = NodeStarter(folder, read_password(folder.path.parent / PASSWORD_FILE), on_tell=print, make_learner=make_learner)
    run_interruptible(starter.run, on_signal=starter.stop)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
