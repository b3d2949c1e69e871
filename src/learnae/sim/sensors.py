"""Simulated sensors: real publishers and real followers on a virtual clock, over gossip that loses and delays.

Every publisher hands its vertices to one node, which gossips them; each delivery to another node is dropped with probability
`loss`, independently. What is lost comes by sync. The same seed gives the same run everywhere.
Source: docs/sensors.md; paper 4.2.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Final

from nacl.bindings import crypto_sign, crypto_sign_seed_keypair

from learnae.ids import Cid, PeerId, compute_cid
from learnae.protocol import events as ev
from learnae.sensors.follower import FollowEffect, FollowSettings, SensorFollower, SliceReady, StoreSlice
from learnae.sensors.judge import LaneRules, SensorCodec
from learnae.sensors.messages import compute_tag, create_admission
from learnae.sensors.publisher import SensorPlan, SensorPublisher
from learnae.sensors.readings import Reading, SensorField
from learnae.tangle.verdict import Ruling, Verdict
from learnae.tangle.vertex import NET_BYTES, Vertex

STARTS_S = 1000.0
REMEMBERED_MAX: Final = 16_384  # Decoded vertices; what was lost comes by sync within seconds.


@dataclass(frozen=True, slots=True)
class SimKey:
    """An Ed25519 key made from a name."""

    peer: PeerId
    secret: bytes

    @classmethod
    def make(cls, name: str) -> SimKey:
        public, secret = crypto_sign_seed_keypair(hashlib.sha256(name.encode()).digest())
        return cls(PeerId(public), secret)

    def sign(self, signed: bytes) -> bytes:
        signature: bytes = crypto_sign(signed, self.secret)[:64]
        return signature


@dataclass(frozen=True, slots=True, kw_only=True)
class SensorScenario:
    """A run: `rate_per_s` messages a second in all, `readings` in each, from `sensors` sensors to `nodes` nodes."""

    seed: int = 0
    nodes: int = 3
    sensors: int = 10
    rate_per_s: float = 100.0
    duration_s: float = 60.0
    loss: float = 0.0
    delay_s: float = 0.05
    readings: int = 2
    slice_bytes: int = 4096
    lazy: bool = False  # half of the issuers name no parents of others


@dataclass(slots=True)
class SimNode:
    """One follower, with what it stored and when each vertex came to it."""

    follower: SensorFollower
    key: SimKey
    entered_s: dict[Cid, float] = field(default_factory=dict)
    twice: int = 0
    slices: list[tuple[Cid, bytes]] = field(default_factory=list)
    told: list[ev.Tell] = field(default_factory=list)
    online: bool = True


class SharedSensorCodec(SensorCodec):
    """Decodes and verifies each vertex once for all nodes of a run: both are pure functions of the bytes."""

    def __init__(self) -> None:
        self._decoded: dict[bytes, Vertex | Ruling] = {}
        self._verified: dict[Cid, bool] = {}

    def decode(self, encoded: bytes) -> Vertex | Ruling:
        known = self._decoded.get(encoded)
        if known is None:
            known = self._decoded[encoded] = super().decode(encoded)
            if len(self._decoded) > REMEMBERED_MAX:
                del self._decoded[next(iter(self._decoded))]
        return known

    def decode_judged(self, encoded: bytes) -> Vertex:
        vertex = self.decode(encoded)
        assert isinstance(vertex, Vertex), "only vertices were kept"
        return vertex

    def verify(self, vertex: Vertex) -> bool:
        known = self._verified.get(vertex.cid)
        if known is None:
            known = self._verified[vertex.cid] = super().verify(vertex)
            if len(self._verified) > REMEMBERED_MAX:
                del self._verified[next(iter(self._verified))]
        return known


class SensorWorld:
    """Runs a scenario; `nodes` hold what came of it."""

    def __init__(self, scenario: SensorScenario) -> None:
        self.scenario = scenario
        self.now_s = STARTS_S
        self.said_s: dict[Cid, float] = {}
        self.tips_most = 0
        self._rng = Random(scenario.seed)
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self._codec = SharedSensorCodec()
        self.rules = LaneRules(net=b"sim-lane"[:NET_BYTES], tag=compute_tag("sim"), starts_ms=int(STARTS_S * 1000))
        keys = [SimKey.make(f"node {scenario.seed} {n}") for n in range(scenario.nodes)]
        self.members = frozenset(key.peer for key in keys)
        self.nodes = [self._make_node(key) for key in keys]
        self._member = keys[0]
        self.publishers = [self._make_publisher(number) for number in range(scenario.sensors)]
        for node in self.nodes:
            self._at(self.now_s + self._rng.random(), lambda node=node: self._tick(node))  # type: ignore[misc]

    # --- making ---------------------------------------------------------------------------------------------

    def _make_node(self, key: SimKey) -> SimNode:
        settings = FollowSettings(slice_bytes=self.scenario.slice_bytes)
        rng = Random(self._rng.getrandbits(64))
        follower = SensorFollower(rules=self.rules, me=key.peer, sign=key.sign, rng=rng, settings=settings, codec=self._codec)
        follower.lane.members = self.members
        follower.connected = set(self.members - {key.peer})
        return SimNode(follower, key)

    def _make_publisher(self, number: int) -> SensorPublisher:
        key, channel = (SimKey.make(f"{what} {self.scenario.seed} {number}") for what in ("issuer", "channel"))
        admission = create_admission(
            net=self.rules.net,
            issuer=key.peer,
            member=self._member.peer,
            sign=self._member.sign,
            rate_per_s=min(1000, 10 + 2 * int(self.scenario.rate_per_s / self.scenario.sensors)),
            from_ms=self.rules.starts_ms,
        )
        publisher = SensorPublisher(
            rules=self.rules,
            me=key.peer,
            sign=key.sign,
            rng=Random(self._rng.getrandbits(64)),
            admission=admission,
            slice_bytes=self.scenario.slice_bytes,
        )
        plan = SensorPlan(
            sensor=f"sensor {number}",
            fields=(SensorField("temperature", "Cel"), SensorField("humidity", "%RH")),
            channel_key=channel.peer,
            sign=channel.sign,
            first_key=hashlib.sha256(channel.secret).digest(),
        )
        commit = publisher.open(plan, now_ms=self._now_ms())
        self._at(self.now_s, lambda: self._attach(number, commit.vertices))
        return publisher

    # --- running --------------------------------------------------------------------------------------------

    def run(self, *, settle_s: float = 15.0) -> None:
        """Publish for the scenario's time, then let what was lost come by sync."""
        scenario = self.scenario
        interval_s = scenario.sensors / scenario.rate_per_s
        end_s = self.now_s + scenario.duration_s
        for number in range(scenario.sensors):
            self._at(self.now_s + 0.5 + interval_s * number / scenario.sensors, lambda n=number: self._measure(n, interval_s, end_s))  # type: ignore[misc]
        self.advance(scenario.duration_s + settle_s)

    def advance(self, duration_s: float) -> None:
        """Let time pass."""
        end_s = self.now_s + duration_s
        while self._heap and self._heap[0][0] <= end_s:
            self.now_s, _, act = heapq.heappop(self._heap)
            act()
        self.now_s = end_s

    def _at(self, at_s: float, act: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._heap, (at_s, self._count, act))

    def _now_ms(self) -> int:
        return int(self.now_s * 1000)

    def _measure(self, number: int, interval_s: float, end_s: float) -> None:
        if self.now_s > end_s:
            return
        publisher, home = self.publishers[number], self._find_home(number)
        if not (self.scenario.lazy and number % 2):
            publisher.lane.tangle.note_tips(home.follower.lane.tangle.tips)
        self.tips_most = max(self.tips_most, len(home.follower.lane.tangle.tips))
        now_ms = self._now_ms()
        warm = 20 + number + now_ms % 99_991 / 100
        places = range(self.scenario.readings)
        readings = [Reading(now_ms + place // 2, place % 2, warm + place / 4, number % 3) for place in places]
        self._attach(number, publisher.publish([(f"sensor {number}", readings)], now_ms=now_ms).vertices)
        self._at(self.now_s + interval_s, lambda: self._measure(number, interval_s, end_s))

    def _find_home(self, number: int) -> SimNode:
        """The node to which a publisher hands its vertices: its own one, or the next that is there."""
        order = self.nodes[number % len(self.nodes) :] + self.nodes
        return next(node for node in order if node.online)

    def _attach(self, number: int, vertices: tuple[tuple[Cid, bytes], ...]) -> None:
        home = self._find_home(number)
        for cid, encoded in vertices:
            self.said_s[cid] = self.now_s
            self._deliver(home, home.key.peer, encoded)

    def deliver(self, node: SimNode, encoded: bytes) -> None:
        """Hand a vertex to one node, as a publisher does."""
        self._deliver(node, node.key.peer, encoded)

    def _deliver(self, node: SimNode, sender: PeerId, encoded: bytes) -> None:
        if not node.online:
            return
        effects = node.follower.receive(sender, encoded, self.now_s)
        verdicts = [effect.ruling.verdict for effect in effects if isinstance(effect, ev.PassVerdict)]
        if verdicts[0] is Verdict.ACCEPT and sender == node.key.peer:
            self._gossip(node, encoded)
        self._carry_out(node, effects)

    def _gossip(self, origin: SimNode, encoded: bytes) -> None:
        for node in self.nodes:
            if node is not origin and self._rng.random() >= self.scenario.loss:
                self._later(lambda node=node: self._deliver(node, origin.key.peer, encoded))  # type: ignore[misc]

    def _later(self, act: Callable[[], None]) -> None:
        self._at(self.now_s + self._rng.uniform(0.2, 1.8) * self.scenario.delay_s, act)

    def _tick(self, node: SimNode) -> None:
        if node.online:
            self._carry_out(node, node.follower.tick(self.now_s))
        self._at(self.now_s + 1.0, lambda: self._tick(node))

    def _carry_out(self, node: SimNode, effects: list[FollowEffect]) -> None:
        for effect in effects:
            match effect:
                case ev.SaveVertices(vertices=vertices):
                    for cid, _ in vertices:
                        node.twice += cid in node.entered_s
                        node.entered_s[cid] = self.now_s
                case ev.PublishVertex(cid=cid, encoded=encoded):
                    self.said_s[cid] = node.entered_s[cid] = self.now_s
                    self._gossip(node, encoded)
                case ev.SendSync(peer=peer, content=content):
                    other = next(candidate for candidate in self.nodes if candidate.key.peer == peer)
                    self._later(lambda other=other, content=content: self._sync(other, node.key.peer, content))  # type: ignore[misc]
                case StoreSlice(number=number, content=content):
                    cid = compute_cid(content)
                    node.slices.append((cid, content))
                    self._carry_out(node, node.follower.slice_stored(number, cid, self.now_s))
                case ev.Tell():
                    node.told.append(effect)
                case SliceReady() | ev.PassVerdict() | _:
                    pass

    def _sync(self, node: SimNode, sender: PeerId, content: bytes) -> None:
        if node.online:
            self._carry_out(node, node.follower.receive_sync(sender, content, self.now_s))
