"""Sensors under spam: what the honest lose, and whether memory and disk hold. Part of the `tangle` benchmark.

Goodput is measured on the simulator's clock, with real nodes whose processor is bounded: each node handles one thing at a time, and a
message takes `SLOWDOWN` times as long as it took here, as on a core of that fraction. What comes while `INBOX_MAX` others wait is
lost. The same sensors run twice, without and with ten times as many messages of strangers, of all kinds that cost a node something.
"""

from __future__ import annotations

import time
import tracemalloc
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import cycle
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

from benchmarks import Result
from learnae.backends.disk_sensors import SensorJournal
from learnae.ids import Cid, PeerId
from learnae.protocol import events as ev
from learnae.sensors.follower import CHECKPOINT_EVERY, KEEP_VERTICES, DropVertices, FollowSettings, SensorFollower
from learnae.sensors.judge import SensorCodec
from learnae.sensors.messages import ChannelMessages, SensorHead, SensorKind, SensorMessage, create_admission
from learnae.sim.sensors import SensorScenario, SensorWorld, SimKey, SimNode
from learnae.tangle.channel import BODY_BYTES_MAX, ChannelMode, ChannelWriter, WriterState
from learnae.tangle.dag import ORPHAN_BYTES_MAX
from learnae.tangle.vertex import create_vertex

SLOWDOWN = 10.0  # A core with a tenth of the speed of this machine's: a small board's.
INBOX_MAX = 1024
TIMES = 10
SCENARIO = SensorScenario(seed=3, sensors=20, rate_per_s=100.0, duration_s=30.0, loss=0.05)
IN_TIME_S = 10.0
FLOODERS, FLOOD_VERTICES = 80, 24
KEPT_RUN = 6 * CHECKPOINT_EVERY


def measure_spam(make_follower: Callable[[SensorJournal], SensorFollower], vertices: Iterable[bytes]) -> list[Result]:
    """All figures. `vertices`: `KEPT_RUN` of one sensor, 500 a second, which `make_follower` makes a node for."""
    calm, spammed = _run_world(0), _run_world(TIMES)
    reached = [world.compute_goodput() for world in (calm, spammed)]
    lost = max(0.0, 1 - reached[1] / reached[0])
    busy = [max(world.busy_s.values()) / SCENARIO.duration_s for world in (calm, spammed)]
    return [
        Result(case="honest messages on every node within 10 s, calm", value=100 * reached[0], unit="%"),
        Result(case="honest messages on every node within 10 s, 10 times spam", value=100 * reached[1], unit="%"),
        _limit("10 times spam: goodput lost by the honest", 100 * lost, "%", 5),
        _compare("10 times spam: use of a node's slow core", 100 * busy[1], "%", "calm", 100 * busy[0]),
        _compare("10 times spam: strangers' messages", spammed.spam, "messages", "honest", len(spammed.said_s)),
        _limit("10 times spam: kept of it", spammed.count_kept(), "vertices", 0),
        *_measure_orphans(),
        *_measure_disk(make_follower, vertices),
    ]


def _limit(case: str, value: float, unit: str, most: float) -> Result:
    return Result(case=case, value=value, unit=unit, reference="most allowed", reference_value=most)


def _compare(case: str, value: float, unit: str, reference: str, reference_value: float) -> Result:
    return Result(case=case, value=value, unit=unit, reference=reference, reference_value=reference_value)


# --- goodput ----------------------------------------------------------------------------------------------------


class BusyWorld(SensorWorld):
    """A world whose nodes have one slow core each, and strangers that say `times` as much as all sensors."""

    def __init__(self, scenario: SensorScenario, times: int) -> None:
        self._inboxes: dict[PeerId, deque[tuple[PeerId, bytes]]] = {}
        self._is_busy: dict[PeerId, bool] = {}
        self.busy_s: dict[PeerId, float] = {}
        self.dropped = self.spam = 0
        self._kept: set[bytes] = set()
        super().__init__(scenario)
        for node in self.nodes:
            node.follower.lane.codec = SensorCodec()  # Each judges for itself, and pays for it.
        if times:
            self._pages = cycle(self._make_spam())
            self._spam_every_s = 1 / (scenario.rate_per_s * times)
            self._at(self.now_s + 2.0, self._say_spam)
        self._spam_ends_s = self.now_s + scenario.duration_s

    def _deliver(self, node: SimNode, sender: PeerId, encoded: bytes) -> None:
        inbox = self._inboxes.setdefault(node.key.peer, deque())
        if len(inbox) >= INBOX_MAX:
            self.dropped += 1
            return
        inbox.append((sender, encoded))
        if not self._is_busy.get(node.key.peer):
            self._is_busy[node.key.peer] = True
            self._at(self.now_s, lambda: self._serve(node))

    def _serve(self, node: SimNode) -> None:
        inbox = self._inboxes[node.key.peer]
        if not inbox:
            self._is_busy[node.key.peer] = False
            return
        began_s = time.process_time()
        super()._deliver(node, *inbox.popleft())
        took_s = SLOWDOWN * (time.process_time() - began_s)
        self.busy_s[node.key.peer] = self.busy_s.get(node.key.peer, 0.0) + took_s
        self._at(self.now_s + took_s, lambda: self._serve(node))

    def _say_spam(self) -> None:
        if self.now_s > self._spam_ends_s:
            return
        encoded = next(self._pages)
        self.spam += 1
        for node in self.nodes:
            self._deliver(node, PeerId(b"s" * 32), encoded)
        self._at(self.now_s + self._spam_every_s, self._say_spam)

    def _make_spam(self) -> list[bytes]:
        """What strangers can say: messages, heads nobody or not that member admitted, forged ones of a sensor, noise, replays."""
        stranger, home = SimKey.make("stranger"), self.publishers[0]
        stream = next(iter(home.lane.streams.values()))
        body = ChannelMessages(channel=stream.head.channel, messages=(_make_writer(stranger).create(b"x" * 40),))
        starts_ms = self.rules.starts_ms
        spam = []
        for number in range(40):
            admissions = [
                create_admission(net=self.rules.net, issuer=stranger.peer, member=by.peer, sign=stranger.sign, from_ms=starts_ms)
                for by in (stranger, self.nodes[0].key)
            ]
            heads = [replace(stream.head, admission=admission, created_ms=number) for admission in admissions]
            forged = SimKey(stream.issuer, stranger.secret)
            says: list[tuple[SimKey, SensorMessage]] = [(stranger, body), (forged, body), *((stranger, head) for head in heads)]
            for key, message in says:
                is_head = isinstance(message, SensorHead)
                spam.append(
                    create_vertex(
                        net=self.rules.net,
                        parents=(home.lane.tangle.genesis,),
                        issuer=key.peer,
                        sequence=1 if is_head else 10_000 + number,
                        time_ms=starts_ms + 1 + number,
                        kind=int(SensorKind.SENSOR_HEAD if is_head else SensorKind.CHANNEL_MESSAGES),
                        body=message.to_body(),
                        sign=key.sign,
                        tag=self.rules.tag if is_head else b"",
                    ).encoded
                )
            spam += [bytes([number]) * 400, *home.lane.tangle.lacking({}, vertices_max=1)]
        return spam

    def compute_goodput(self) -> float:
        """The share of honest vertices that every node had in time."""
        late_s = [max(node.entered_s.get(cid, float("inf")) for node in self.nodes) - said_s for cid, said_s in self.said_s.items()]
        return sum(wait_s <= IN_TIME_S for wait_s in late_s) / len(late_s)

    def count_kept(self) -> int:
        """Vertices that some node kept and nobody honest said."""
        return len({cid for node in self.nodes for cid in node.entered_s} - set(self.said_s))


def _make_writer(key: SimKey) -> ChannelWriter:
    return ChannelWriter(WriterState(1, bytes(32)), mode=ChannelMode.PUBLIC, sign=key.sign)


def _run_world(times: int) -> BusyWorld:
    world = BusyWorld(SCENARIO, times)
    world.run()
    return world


# --- memory and disk --------------------------------------------------------------------------------------------


def _measure_orphans() -> list[Result]:
    """Admitted sensors gone mad: each names parents that do not exist, in the largest vertices that there are."""
    member, rules = SimKey.make("node 3 0"), SensorWorld(replace(SCENARIO, sensors=1)).rules
    follower = SensorFollower(rules=rules, me=member.peer, sign=member.sign, rng=Random(1), settings=FollowSettings(slice_bytes=65536))
    follower.lane.members = frozenset((member.peer,))
    now_s = rules.starts_ms / 1000 + 100
    floods = [list(_make_flood(SimKey.make(f"mad {n}"), member, follower)) for n in range(FLOODERS)]
    tracemalloc.start()
    offered = 0
    for vertices in floods:
        for encoded in vertices:
            offered += len(encoded)
            follower.receive(PeerId(b"s" * 32), bytes(bytearray(encoded)), now_s)
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    pool = follower.lane.tangle.orphans
    return [
        _limit(f"{FLOODERS} flooding sensors: vertices that wait", pool.used_bytes / 2**20, "MiB", ORPHAN_BYTES_MAX / 2**20),
        _compare(f"{FLOODERS} flooding sensors: memory that these take", taken / 2**20, "MiB", "said", offered / 2**20),
    ]


def _make_flood(key: SimKey, member: SimKey, follower: SensorFollower) -> Iterator[bytes]:
    rules = follower.lane.rules
    world = SensorWorld(replace(SCENARIO, sensors=1))
    head = next(iter(world.publishers[0].lane.streams.values())).head
    admission = create_admission(net=rules.net, issuer=key.peer, member=member.peer, sign=member.sign, from_ms=rules.starts_ms)
    unsigned = replace(head, admission=admission, channel_key=key.peer, sensor=key.peer.hex()[:8])
    head = replace(unsigned, signature=key.sign(unsigned.compute_signed(rules.net, key.peer)))
    values = {"net": rules.net, "issuer": key.peer, "sign": key.sign}
    first = create_vertex(
        **values,  # type: ignore[arg-type]
        parents=(follower.lane.tangle.genesis,),
        sequence=1,
        time_ms=rules.starts_ms + 1,
        kind=int(SensorKind.SENSOR_HEAD),
        body=head.to_body(),
        tag=rules.tag,
    )
    yield first.encoded
    message = _make_writer(key).create(bytes(BODY_BYTES_MAX))
    body = ChannelMessages(channel=head.channel, messages=(message,)).to_body()
    for number in range(2 * FLOOD_VERTICES):
        nowhere = Cid(first.cid[:4] + number.to_bytes(2, "big") + key.peer[:30])
        yield create_vertex(
            **values,  # type: ignore[arg-type]
            parents=(nowhere,),
            sequence=10 + 2 * number,
            time_ms=rules.starts_ms + 10 + number,
            kind=int(SensorKind.CHANNEL_MESSAGES),
            body=body,
        ).encoded


def _measure_disk(make_follower: Callable[[SensorJournal], SensorFollower], vertices: Iterable[bytes]) -> list[Result]:
    """A node that follows a sensor for long: what is below its checkpoints leaves memory and disk."""
    with TemporaryDirectory() as folder:
        journal = SensorJournal(Path(folder))
        follower = make_follower(journal)
        most = said = 0
        for number, encoded in enumerate(vertices):
            said += len(encoded)
            now_s = follower.lane.rules.starts_ms / 1000 + number * 0.002
            effects = follower.receive(PeerId(b"s" * 32), encoded, now_s)
            effects += follower.tick(now_s) if number % 256 == 0 else []
            for effect in effects:
                match effect:
                    case ev.SaveVertices(vertices=heard):
                        journal.append_heard(heard)
                    case ev.PublishVertex(cid=cid, encoded=own):
                        journal.append([(cid, own)])
                    case DropVertices(cids=cids):
                        journal.drop(cids)
            most = max(most, len(follower.lane.tangle))
        journal.close()
        size = (Path(folder) / "journal.sqlite").stat().st_size
    return [
        _limit(f"vertices kept of {KEPT_RUN}", most, "vertices", KEEP_VERTICES + 2 * CHECKPOINT_EVERY + 256),
        _compare("journal of these", size / 2**20, "MiB", "said", said / 2**20),
    ]
