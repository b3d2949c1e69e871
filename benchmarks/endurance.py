"""Memory does not grow with time: half an hour of one peer with the real journal and the real block store, in a minute.

The peer, its journal, its block store and the disk are real; the clock is virtual, the learner makes random models of 400 kB, and
the other members are scripts that announce such models. Nothing else is in the process, so what grows is the peer's.
What a peer knows is on disk; in memory stay the newest vertices and, of each older one, its number in the log of its issuer (8 bytes) and
of a receipt 28 bytes. Growth is the slope of a line through the samples once the caches are full (the newest vertices, the pages of
SQLite, names as text), measured in several processes with different seeds: the mean, and how far the true mean may be from it (95 %,
Student's t over the runs). At the end each peer is started again from its journal.
"""

from __future__ import annotations

import hashlib
import heapq
import statistics
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from random import Random

import psutil
from nacl.signing import SigningKey

from benchmarks import Result
from learnae.backends.disk_blocks import DiskBlocks
from learnae.backends.disk_journal import DiskJournal
from learnae.backends.memory_blocks import MemoryBlocks
from learnae.ids import Cid, PeerId
from learnae.node.writes import collect_writes
from learnae.protocol import events as ev
from learnae.protocol.calls import DeployPoid, Join, Stage
from learnae.protocol.measures import Evaluation, TaskFacts
from learnae.protocol.messages import KIND_OF, ModelAnnounced, Origin
from learnae.protocol.peer import Peer, PeerSettings
from learnae.protocol.rules import SessionRules
from learnae.protocol.store import ControlStore
from learnae.sim.chain import SimulatedChain
from learnae.sim.scenario import EPOCH_S, FUNDING_S, Scenario
from learnae.tangle.vertex import create_vertex

MINUTES = 30
WARM_MINUTES = 10  # Allocators and caches fill up first.
SEEDS = (1, 2, 3, 4)
STUDENT_T = 3.182  # 95 %, two-sided, for the three degrees of freedom of four runs.
OTHERS = 5
MODEL_BYTES = 400_000
QUOTA_BYTES = 64 << 20  # Models of half a minute or so: eviction is at work nearly all the time.
ANNOUNCE_S = 2.0  # Each of the others, on average.
STEP_S = 0.4  # A training cycle or an averaging.
SAMPLE_S = 10.0
TOTAL = 1000


@dataclass(slots=True)
class Script:
    """Another member: its log is announcements and nothing else, so it costs no memory to speak of."""

    key: SigningKey
    sequence: int = 0
    head: Cid | None = None

    @property
    def name(self) -> PeerId:
        return PeerId(bytes(self.key.verify_key))


class Endurance:
    """One real peer on a virtual clock."""

    def __init__(self, folder: Path, seed: int) -> None:
        self._rng = Random(seed)
        self._now_s = float(EPOCH_S)
        self._heap: list[tuple[float, int, ev.Event | int]] = []
        self._timers: dict[ev.Timer, float] = {}
        self._pushed = 0
        self._blocks = DiskBlocks(folder / "blocks", quota_bytes=QUOTA_BYTES, reserve_bytes=0)
        self._folder = folder
        self._journal = DiskJournal(folder)
        self._seeds: dict[Cid, int] = {}  # of the newest models of the others, so that a fetch can make the bytes again
        self._key = SigningKey(bytes(32))
        self.me = PeerId(bytes(self._key.verify_key))
        self.others = [Script(SigningKey(bytes([number] * 32))) for number in range(1, OTHERS + 1)]
        initial = self._blocks.put_file(bytes(MODEL_BYTES))
        self.rules: SessionRules = Scenario(name="endurance", about="", cycles=MINUTES * 60).compute_rules(
            initial_model=initial, model_bytes=MODEL_BYTES
        )
        self._chain = SimulatedChain(self.rules, [self.me, *(other.name for other in self.others)])
        self.peer = self._make_peer()
        self.samples: list[tuple[float, float, int]] = []  # virtual minutes, resident MB, vertices

    def _make_peer(self) -> Peer:
        return Peer(
            rules=self.rules,
            me=self.me,
            sign=lambda message: self._key.sign(message).signature,
            rng=self._rng,
            settings=PeerSettings(pace_s=2 * STEP_S),
            store=ControlStore(archive=self._journal),
        )

    def run(self) -> None:
        self._deliver(ev.Started(facts=_FACTS))
        for other in self.others:
            self._deliver(ev.PeerConnected(other.name))
        next_chain_s = next_sample_s = self._now_s
        for index in range(OTHERS):
            self._push(FUNDING_S + 2 + self._rng.uniform(0, ANNOUNCE_S), index)
        end_s = self.rules.training_ends_s
        while self._now_s < end_s:
            if next_chain_s <= self._heap[0][0]:
                self._now_s = next_chain_s
                next_chain_s += 1.0
                self._read_chain()
            else:
                self._now_s, _, event = heapq.heappop(self._heap)
                self._happen(event)
            if self._now_s >= next_sample_s:
                next_sample_s += SAMPLE_S
                minutes = (self._now_s - self.rules.funding_ends_s) / 60
                self.samples.append((minutes, psutil.Process().memory_info().rss / 1e6, len(self.peer.lane.dag)))
        self._journal.close()

    def restart(self) -> float:
        """Start the peer again from its journal; seconds until it knows what it knew."""
        began_s = time.perf_counter()
        self._journal = DiskJournal(self._folder)
        peer = self._make_peer()
        peer.handle(ev.Started(facts=_FACTS, vertices=self._journal.vertices(), records=self._journal.records()), self._now_s)
        took_s = time.perf_counter() - began_s
        assert (len(peer.lane.dag), peer.lane.ledger.rows()) == (len(self.peer.lane.dag), self.peer.lane.ledger.rows())
        self._journal.close()
        return took_s

    # --- what happens ---------------------------------------------------------------------------------------

    def _push(self, delay_s: float, event: ev.Event | int) -> None:
        self._push_at(self._now_s + delay_s, event)

    def _push_at(self, at_s: float, event: ev.Event | int) -> None:
        self._pushed += 1
        heapq.heappush(self._heap, (at_s, self._pushed, event))

    def _happen(self, event: ev.Event | int) -> None:
        if isinstance(event, int):
            self._announce(event)
        elif not isinstance(event, ev.TimerFired) or self._timers.get(event.timer) == self._now_s:
            self._deliver(event)

    def _read_chain(self) -> None:
        view = self._chain.read(int(self._now_s))
        if view.stage is Stage.FUNDING and not view.members:
            self._join_others()
        self._deliver(ev.ChainRead(self._chain.read(int(self._now_s))))

    def _join_others(self) -> None:
        for other in self.others:
            poid = self._chain.execute(other.name, DeployPoid(), int(self._now_s))
            assert poid is not None
            self._chain.execute(other.name, Join(poid), int(self._now_s))

    def _announce(self, index: int) -> None:
        """One of the others announces a model that nobody has yet."""
        other = self.others[index]
        seed = self._rng.getrandbits(48)
        model = MemoryBlocks().put_file(_make_model(seed))
        self._seeds[model] = seed
        if len(self._seeds) > 16 * OTHERS:
            del self._seeds[next(iter(self._seeds))]
        correct = self._rng.randrange(TOTAL // 2, TOTAL)
        message = ModelAnnounced(
            model=model, size_bytes=MODEL_BYTES, correct=correct, total=TOTAL, maturity_cycles=1, examples=100, origin=Origin.TRAINED
        )
        other.sequence += 1
        vertex = create_vertex(
            net=self.peer.lane.net,
            parents=(other.head or self.peer.lane.dag.genesis,),
            issuer=other.name,
            sequence=other.sequence,
            time_ms=int(self._now_s * 1000),
            kind=int(KIND_OF[ModelAnnounced]),
            body=message.to_body(),
            sign=lambda content: other.key.sign(content).signature,
        )
        other.head = vertex.cid
        self._deliver(ev.VertexReceived(other.name, vertex.encoded))
        self._push(self._rng.uniform(0.5, 1.5) * ANNOUNCE_S, index)

    # --- effects, as a node carries them out ----------------------------------------------------------------

    def _deliver(self, event: ev.Event) -> None:
        effects = self.peer.handle(event, self._now_s)
        vertices, records = collect_writes(effects)
        if vertices or records:
            self._journal.append(vertices, records)
        for effect in effects:
            self._carry_out(effect)

    def _carry_out(self, effect: ev.Effect) -> None:
        match effect:
            case ev.SetTimer(timer=timer, at_s=at_s):
                self._timers[timer] = max(at_s, self._now_s)
                self._push_at(self._timers[timer], ev.TimerFired(timer))
            case ev.PinFile(cid=cid):
                self._blocks.pin(cid)
            case ev.UnpinFile(cid=cid):
                self._blocks.unpin(cid)
            case ev.FetchFile(number=number, cid=cid):
                self._push(0.1, self._fetch(number, cid))
            case ev.TrainModel(number=number, model=model):
                new, evaluation = self._learn(model)
                self._push(STEP_S, ev.ModelTrained(number, new, MODEL_BYTES, evaluation))
            case ev.AverageModels(number=number, local=local, remote=remote):
                self._read(remote)
                new, evaluation = self._learn(local)
                self._push(STEP_S, ev.ModelsAveraged(number, new, MODEL_BYTES, evaluation, evaluation))
            case ev.EvaluateModel(number=number, model=model):
                self._read(model)
                self._push(STEP_S, ev.ModelEvaluated(number, MODEL_BYTES, self._measure()))
            case ev.SubmitTransaction(number=number, call=call):
                address = self._chain.execute(self.me, call, int(self._now_s))
                self._push(1.0, ev.TransactionConfirmed(number, address))
            case _:
                pass

    def _fetch(self, number: int, cid: Cid) -> ev.Event:
        if self._blocks.has_file(cid):
            return ev.FileFetched(number)
        seed = self._seeds.get(cid)
        if seed is None:
            return ev.FetchFailed(number, "its provider no longer has it")
        self._blocks.put_file(_make_model(seed))
        return ev.FileFetched(number)

    def _learn(self, model: Cid) -> tuple[Cid, Evaluation]:
        self._read(model)
        return self._blocks.put_file(_make_model(self._rng.getrandbits(48))), self._measure()

    def _read(self, model: Cid) -> None:
        assert self._blocks.get_file(model, bytes_max=MODEL_BYTES) is not None

    def _measure(self) -> Evaluation:
        return Evaluation(correct=self._rng.randrange(600, 700), total=TOTAL, gained=self._rng.randrange(20), lost=self._rng.randrange(20))


_FACTS = TaskFacts(
    train_examples=1000,
    validation_examples=TOTAL,
    device="none",
    parameters=MODEL_BYTES // 4,
    model_bytes=MODEL_BYTES,
    private_slices=4,
    shared_slices=0,
)


def _make_model(seed: int) -> bytes:
    return hashlib.shake_128(seed.to_bytes(8, "big")).digest(MODEL_BYTES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One run."""

    most_mb: float
    growth_mb_h: float
    vertices: int
    vertices_h: float
    cycles: int
    restart_s: float


def measure(seed: int) -> Measured:
    with tempfile.TemporaryDirectory() as folder:
        endurance = Endurance(Path(folder), seed)
        endurance.run()
        warm = [sample for sample in endurance.samples if sample[0] >= WARM_MINUTES]
        slope, _ = statistics.linear_regression([minutes for minutes, _, _ in warm], [memory for _, memory, _ in warm])
        hours = (warm[-1][0] - warm[0][0]) / 60
        return Measured(
            most_mb=max(memory for _, memory, _ in endurance.samples),
            growth_mb_h=slope * 60,
            vertices=warm[-1][2],
            vertices_h=(warm[-1][2] - warm[0][2]) / hours,
            cycles=endurance.peer.cycle.cycles,
            restart_s=endurance.restart(),
        )


def run() -> list[Result]:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), max_tasks_per_child=1) as processes:
        runs = list(processes.map(measure, SEEDS))
    growths = [run.growth_mb_h for run in runs]
    growth, either_way = statistics.mean(growths), STUDENT_T * statistics.stdev(growths) / len(growths) ** 0.5
    case = f"growth, minute {WARM_MINUTES} to {MINUTES}, {len(runs)} runs"
    return [
        Result(case="resident memory, most", value=max(run.most_mb for run in runs), unit="MB"),
        Result(case=case, value=growth, unit="MB/h"),
        Result(case=f"{case}: within, 95 %", value=either_way, unit="MB/h"),
        Result(case="growth per vertex known", value=growth * 1e6 / statistics.mean(run.vertices_h for run in runs), unit="bytes"),
        Result(case="vertices at the end", value=statistics.median(run.vertices for run in runs), unit="vertices"),
        Result(case="work cycles", value=statistics.median(run.cycles for run in runs), unit="cycles"),
        Result(case="start again from the journal", value=max(run.restart_s for run in runs), unit="s"),
    ]
