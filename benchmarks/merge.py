"""A complete merge between two peers that are ready: announce, choose, fetch, average, announce the average; evaluation excluded.

Ours: two real node processes over libp2p on loopback, with journals and block stores on disk and an embedded chain; the second averages
in the worker process of a real node, with PyTorch. Time runs from the first one's having a new model in its hands until the second has
stored and announced the average. hivemind: `DecentralizedAverager.step` of two peers, a group of two that starts as soon as both are there.

Then one whose partner is gone. hivemind waits until its time-out. Ours goes on with its work: the longest time without a new model of
its own in the seconds after the other, whose models it still knows and wants, was cut off.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import trio

from benchmarks import Result
from benchmarks._hivemind_pair import HivemindPair, start_hivemind
from benchmarks._merge_node import TASK_FILE, Maker, make_facts
from benchmarks._pair import FUNDING_S, open_pair
from benchmarks._swarm import Member, open_swarm
from learnae.cli.folder import NodeFolder
from learnae.cli.sessions import SessionPlan
from learnae.ids import Wei
from learnae.learning.config import LearnerConfig
from learnae.learning.immediate import ImmediateLearner
from learnae.learning.process import ProcessLearner

ROUNDS = 7
SIZES_BYTES = (1_000_000, 10_000_000, 40_000_000)
TIMEOUT_S = 5.0  # hivemind's, for a partner that does not come
ABSENT_S = 5.0
SESSION = SessionPlan(name="merge", deposit_wei=Wei(10**16), funding_s=8, training_s=3600, final_s=1, claiming_s=60, voting_s=60)
PATIENCE_S = 60.0  # For a merge.
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


def run() -> list[Result]:
    results: list[Result] = []
    with start_hivemind(SIZES_BYTES) as hivemind:
        for size_bytes in SIZES_BYTES:
            with tempfile.TemporaryDirectory() as folder:
                results.append(_compare(hivemind, Path(folder), size_bytes))
        waited_s = hivemind.miss(SIZES_BYTES[0], TIMEOUT_S)
    with tempfile.TemporaryDirectory() as folder:
        gap_s = trio.run(_measure_absent, Path(folder))
    case = "the partner is gone: longest time without a new model"
    return [*results, Result(case=case, value=gap_s, unit="s", reference=f"hivemind, time-out {TIMEOUT_S:.0f} s", reference_value=waited_s)]


def _compare(hivemind: HivemindPair, root: Path, size_bytes: int) -> Result:
    """Medians of merges, ours and hivemind's in turn; the first of each is to warm up."""
    initial = trio.run(_make_initial, root, size_bytes)
    hivemind.step(size_bytes)
    theirs_s: list[float] = []
    with open_swarm(root, 2, SESSION, pace_s=0.0, initial=initial, train_permille=1000) as swarm:
        maker, merger = swarm.members
        folder = NodeFolder(maker.actor.folder)
        pace_s = 1.0 + size_bytes / 2e7
        folder.write(swarm.ticket, replace(folder.read_settings(), pace_s=pace_s))
        for member in swarm.members:
            swarm.start(member, module="benchmarks._merge_node")
        for number in range(1, ROUNDS + 2):
            deadline_s = time.monotonic() + SESSION.funding_s + PATIENCE_S
            while len(_read_merges(maker, merger)) < number:
                swarm.check_alive()
                assert time.monotonic() < deadline_s, "no merge for a minute"
                time.sleep(0.1)
            time.sleep(pace_s / 2)  # So both begin after the same pause.
            theirs_s.append(hivemind.step(size_bytes))
        ours_s = _read_merges(maker, merger)
    value, reference_value = statistics.median(ours_s[1:]) * 1000, statistics.median(theirs_s[1:]) * 1000
    return Result(
        case=f"merge, {size_bytes // 1_000_000} MB", value=value, unit="ms", reference="hivemind", reference_value=reference_value
    )


async def _make_initial(root: Path, size_bytes: int) -> bytes:
    """A new model of the task, which is written beside the nodes."""
    task = root / TASK_FILE
    await trio.Path(task).write_text(TASK.format(numbers=size_bytes // 4 // TENSORS, tensors=TENSORS))
    learner = ProcessLearner(LearnerConfig(task=str(task), source="", device="cpu"))
    try:
        return bytes(await learner.initial_model(0))
    finally:
        await learner.close()


def _read_merges(maker: Member, merger: Member) -> list[float]:
    """Seconds from each model in the maker's hands to the other's announcement of an average with it."""
    made_s = [float(words[1]) for words in _read_words(maker, "made")]
    models = {words[1]: at_s for words, at_s in zip(_read_words(maker, "announced"), made_s, strict=False)}  # in the order of the making
    found: dict[str, float] = {}
    for _, _, at_s, *parents in _read_words(merger, "announced"):
        for parent in parents:
            if parent in models:
                found.setdefault(parent, float(at_s) - models[parent])
    return list(found.values())


def _read_words(member: Member, first: str) -> list[list[str]]:
    """The whole lines that begin with this word in what the member's node printed."""
    text = (member.actor.folder / "output.txt").read_text(encoding="utf-8")
    lines = text[: text.rfind("\n") + 1].splitlines()
    return [line.split() for line in lines if line.startswith(first + " ")]


async def _until(is_done: Callable[[], bool]) -> None:
    while not is_done():  # noqa: ASYNC110 - a node has no event for it
        await trio.sleep(0.2)


async def _measure_absent(root: Path) -> float:
    """The longest time between two new models of a peer after its partner was cut off."""
    initial = await _make_initial(root, SIZES_BYTES[0])
    async with open_pair(root, initial, train_permille=500) as pair:
        makers = [Maker(initial, task=make_facts(len(initial))) for _ in range(2)]
        scopes = [await pair.start_node(ImmediateLearner(maker), pace_s=0.1) for maker in makers]
        with trio.fail_after(FUNDING_S + 30):
            await _until(lambda: len(makers[1].made_s) >= 20)
        scopes[0].cancel()
        began_s = time.perf_counter()
        await trio.sleep(ABSENT_S)
        times_s = [began_s, *(at_s for at_s in makers[1].made_s if at_s > began_s), time.perf_counter()]
        return max(after - before for before, after in pairwise(times_s))
