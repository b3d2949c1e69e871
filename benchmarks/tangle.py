"""The sensors lane and its channels: sizes, rates, losses, catching up, spam; and the old MAM format. One core.

Rates are medians of rounds in turn with bare PyNaCl on the same bytes, in processor time, so that other work on the machine
counts little. Losses, spam and proofs run on the simulator's clock with the real code of publishers and nodes; catching up is
real time, against real journals.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

from nacl.bindings import crypto_sign, crypto_sign_open

from benchmarks import Result
from benchmarks._spam import KEPT_RUN, measure_spam
from learnae.backends.disk_sensors import SensorJournal
from learnae.ids import Cid, PeerId
from learnae.protocol import events as ev
from learnae.sensors.follower import FollowSettings, SensorFollower
from learnae.sensors.judge import LaneRules
from learnae.sensors.messages import ChannelMessages, compute_tag, create_admission
from learnae.sensors.publisher import SensorPlan, SensorPublisher
from learnae.sensors.readings import Reading, SensorField
from learnae.sim.sensors import SensorScenario, SensorWorld, SimKey
from learnae.tangle import cbor
from learnae.tangle.channel import ChannelMode, ChannelWriter, WriterState
from learnae.tangle.mam import MamDraft, create_message, parse_message
from learnae.tangle.vertex import Vertex, VertexCodec

ROUNDS = 5
COUNT = 2000
STARTS_MS = 1_000_000
RULES = LaneRules(net=b"benchmrk", tag=compute_tag("benchmark"), starts_ms=STARTS_MS)
FIELDS = (SensorField("temperature", "Cel"), SensorField("humidity", "%RH"))
MEMBER, ISSUER, CHANNEL = SimKey.make("member"), SimKey.make("issuer"), SimKey.make("channel")
OFFLINE_S, OFFLINE_RATE = 600, 100
LOSS_S, LOSS_RATE = 600.0, 100.0


def run() -> list[Result]:
    return [*measure_sizes(), *measure_rates(), *measure_mam(), *measure_loss(), *measure_catching_up(), *measure_attacks()]


def limit(case: str, value: float, unit: str, most: float) -> Result:
    """A figure beside the most that is allowed."""
    return Result(case=case, value=value, unit=unit, reference="most allowed", reference_value=most)


def make_publisher(*, rate_per_s: int = 1000) -> tuple[SensorPublisher, bytes]:
    """A publisher with one sensor, and the vertex of its head."""
    admission = create_admission(
        net=RULES.net, issuer=ISSUER.peer, member=MEMBER.peer, sign=MEMBER.sign, rate_per_s=rate_per_s, from_ms=STARTS_MS
    )
    publisher = SensorPublisher(
        rules=RULES, me=ISSUER.peer, sign=ISSUER.sign, rng=Random(1), admission=admission, slice_bytes=65536
    )
    plan = SensorPlan(sensor="s", fields=FIELDS, channel_key=CHANNEL.peer, sign=CHANNEL.sign, first_key=bytes(32))
    return publisher, publisher.open(plan, now_ms=STARTS_MS).vertices[0][1]


def make_follower(journal: SensorJournal | None = None, name: str = "node") -> SensorFollower:
    key = SimKey.make(name)
    follower = SensorFollower(
        rules=RULES,
        me=key.peer,
        sign=key.sign,
        rng=Random(1),
        settings=FollowSettings(slice_bytes=65536),
        read=None if journal is None else journal.read,
    )
    follower.lane.members = frozenset({MEMBER.peer, key.peer})
    return follower


def measure_times(works: list[Callable[[int], object]], count: int = COUNT) -> list[float]:
    """Seconds of a call of each work, the median of rounds in turn."""
    times: list[list[float]] = [[] for _ in works]
    for _ in range(ROUNDS):
        for work, found in zip(works, times, strict=True):
            began_s = time.process_time()
            for number in range(count):
                work(number)
            found.append((time.process_time() - began_s) / count)
    return [statistics.median(found) for found in times]


def make_vertices(count: int, *, readings: int = 1, step_ms: int = 10, tips: int = 0) -> Iterator[bytes]:
    publisher, head = make_publisher()
    invented = {Cid(bytes((1, 0x71, 0x12, 0x20)) + bytes([n]) * 32): (STARTS_MS, PeerId(bytes([n]) * 32)) for n in range(tips)}
    yield head
    for number in range(1, count):
        at_ms = STARTS_MS + number * step_ms
        publisher.lane.tangle.note_tips(invented)
        made = [Reading(at_ms + n // 2, n % 2, 20.5 + n + number % 100 / 4, number % 3) for n in range(readings)]
        yield publisher.publish([("s", made)], now_ms=at_ms).vertices[0][1]


def measure_sizes() -> list[Result]:
    message = ChannelWriter(WriterState(10_000, bytes(32), b"p" * 16), mode=ChannelMode.PRIVATE, sign=CHANNEL.sign).create(bytes(100))
    body = len(cbor.encode(message.to_body())) - 100
    single, many = (max(map(len, list(make_vertices(3, readings=count, tips=3))[1:])) for count in (1, 32))
    *_, last = make_vertices(2, tips=3)
    vertex = VertexCodec().decode(last)
    assert isinstance(vertex, Vertex) and len(vertex.parents) == 4
    around = len(last) - len(cbor.encode(vertex.body))
    return [
        limit("channel message over its body", body, "bytes", 160),
        limit("vertex around its body, 4 parents", around, "bytes", 460),
        Result(case="one reading, everything", value=single, unit="bytes", reference="MAM v0", reference_value=2818),
        limit("a reading of 32", many / 32, "bytes", 25),
    ]


def measure_rates() -> list[Result]:
    writer = ChannelWriter(WriterState(1, bytes(32)), mode=ChannelMode.PRIVATE, sign=CHANNEL.sign)
    body = bytes(40)
    signed = CHANNEL.sign(body) + body
    create, bare_sign, bare_verify = measure_times(
        [lambda _: writer.create(body), lambda _: crypto_sign(body, CHANNEL.secret), lambda _: crypto_sign_open(signed, CHANNEL.peer)]
    )
    vertices = list(make_vertices(COUNT + 1))
    rates = []
    for _ in range(ROUNDS):
        follower = make_follower()
        began_s = time.process_time()
        entered = sum(len(follower.lane.receive(encoded, now_ms=STARTS_MS + 10**7).entered) for encoded in vertices)
        assert entered == len(vertices)
        rates.append(entered / (time.process_time() - began_s))
    return [
        Result(case="channel messages created", value=1 / create, unit="1/s", reference="bare signatures", reference_value=1 / bare_sign),
        Result(
            case="vertices verified and entered",
            value=statistics.median(rates),
            unit="1/s",
            reference="bare verification of its two signatures",
            reference_value=1 / (2 * bare_verify),
        ),
    ]


def measure_mam() -> list[Result]:
    results = []
    for security in (1, 2, 3):
        drafts = [MamDraft(seed="LEARNAE" + "9" * 74, message="ODGAHDGADB" * 4, security=security, start=n) for n in range(10)]
        made = [create_message(draft) for draft in drafts]
        create_s, parse_s = measure_times(
            [lambda n, d=drafts: create_message(d[n]), lambda n, m=made: parse_message(m[n].payload, m[n].root)], count=10  # type: ignore[misc]
        )
        results += [
            limit(f"MAM v0 create, security {security}", 1000 * create_s, "ms", 40),
            limit(f"MAM v0 parse, security {security}", 1000 * parse_s, "ms", 15),
        ]
    return results


def measure_loss() -> list[Result]:
    """3 nodes, 30 % of gossip dropped, ten minutes at 100 messages a second, on the simulator's clock."""
    began_s = time.perf_counter()
    world = SensorWorld(SensorScenario(seed=1, sensors=20, rate_per_s=LOSS_RATE, duration_s=LOSS_S, loss=0.3))
    world.run()
    delays = sorted(node.entered_s.get(cid, float("inf")) - said_s for cid, said_s in world.said_s.items() for node in world.nodes)
    slices: list[set[Cid]] = [{cid for cid, _ in node.slices} for node in world.nodes]
    differing = len(slices[0].union(*slices) - slices[0].intersection(*slices))
    return [
        Result(case="30 % loss: messages", value=len(world.said_s), unit="messages"),
        limit("30 % loss: longest until on every node", delays[-1], "s simulated", 10),
        Result(case="30 % loss: median", value=delays[len(delays) // 2], unit="s simulated"),
        Result(case="30 % loss: entered twice", value=sum(node.twice for node in world.nodes), unit="messages"),
        Result(case="30 % loss: dataslices that differ between nodes", value=differing, unit=f"of {len(slices[0])}"),
        limit("30 % loss: most tips, of 20 sensors and 3 nodes", world.tips_most, "tips", len(world.publishers) + 3),
        Result(case="30 % loss: run", value=time.perf_counter() - began_s, unit="s"),
    ]


def measure_catching_up() -> list[Result]:
    """A node that was away for ten minutes at 100 messages a second, by sync from another one, both with real journals."""
    with tempfile.TemporaryDirectory() as folder:
        journals = [SensorJournal(Path(folder) / name) for name in ("here", "late")]
        here, late = make_follower(journals[0], "here"), make_follower(journals[1], "late")
        vertices = list(make_vertices(OFFLINE_S * OFFLINE_RATE, step_ms=1000 // OFFLINE_RATE))
        now_s = STARTS_MS / 1000 + OFFLINE_S
        for start in range(0, len(vertices), 4096):
            saved = [entry for v in vertices[start : start + 4096] for entry in here.lane.receive(v, now_ms=int(now_s * 1000)).entered]
            journals[0].append([(entry.vertex.cid, entry.vertex.encoded) for entry in saved])
        began_s, busy_s = time.perf_counter(), time.process_time()
        entered = exchange(here, late, journals[1], now_s)
        took_s, busy_s = time.perf_counter() - began_s, time.process_time() - busy_s
        for journal in journals:
            journal.close()
    assert entered == len(vertices)
    case = f"offline {OFFLINE_S} s at {OFFLINE_RATE}/s: caught up"
    return [
        limit(case, took_s, "s", 20),
        Result(case=f"{case}, processor time of both nodes", value=busy_s, unit="s"),
        Result(case=f"{case}, vertices", value=entered / took_s, unit="1/s"),
    ]


def exchange(here: SensorFollower, late: SensorFollower, journal: SensorJournal, now_s: float) -> int:
    """Carry sync messages between two nodes until nothing is said any more; how many vertices entered."""
    ids = dict.fromkeys(("here", "late"), MEMBER.peer)  # What strangers send is not read.
    queue: list[tuple[str, bytes]] = []
    entered = 0

    def carry_out(node: str, effects: list[object]) -> int:
        count = 0
        for effect in effects:
            if isinstance(effect, ev.SendSync):
                queue.append(("late" if node == "here" else "here", effect.content))
            elif isinstance(effect, ev.SaveVertices) and node == "late":
                journal.append_heard(effect.vertices)
                count += len(effect.vertices)
        return count

    carry_out("late", list(late.connect(ids["here"])))
    while queue:
        target, content = queue.pop(0)
        follower, sender = (here, ids["late"]) if target == "here" else (late, ids["here"])
        entered += carry_out(target, list(follower.receive_sync(sender, content, now_s)))
    return entered


def measure_attacks() -> list[Result]:
    """Strangers that say ten times as much as all sensors, sensors that flood, and one that signs two histories."""
    honest: list[float] = []
    spammed: list[float] = []
    vertices = list(make_vertices(COUNT))
    stranger = SimKey.make("stranger")
    spam = [_respell(encoded, stranger) for encoded in vertices[1:]]
    for _ in range(3):
        for found, times in ((honest, 0), (spammed, 10)):
            follower = make_follower()
            began_s = time.process_time()
            for number, encoded in enumerate(vertices):
                for extra in range(times):
                    follower.lane.receive(spam[(number + extra) % len(spam)], now_ms=STARTS_MS + 10**7)
                assert follower.lane.receive(encoded, now_ms=STARTS_MS + 10**7).entered
            found.append((time.process_time() - began_s) / len(vertices))
    calm_s, load_s = statistics.median(honest), statistics.median(spammed)
    return [
        Result(case="a stranger's vertex refused", value=1e6 * (load_s - calm_s) / 10, unit="us"),
        Result(
            case="honest vertices that fill a core, 10 times spam",
            value=1 / load_s,
            unit="1/s",
            reference="without spam",
            reference_value=1 / calm_s,
        ),
        *measure_spam(make_follower, make_vertices(KEPT_RUN, step_ms=2)),
        limit("equivocation: until proved on all nodes", _time_proof(), "s simulated", 10),
    ]


def _respell(encoded: bytes, stranger: SimKey) -> bytes:
    """The same vertex by an issuer whom nobody admitted."""
    return encoded.replace(ISSUER.peer, stranger.peer)


def _time_proof() -> float:
    world = SensorWorld(SensorScenario(seed=5, sensors=6, rate_per_s=30, duration_s=10, loss=0.3))
    world.run()
    liar, channel = world.publishers[0], next(iter(world.publishers[0].lane.streams))
    double = SensorWorld(SensorScenario(seed=5, sensors=6, rate_per_s=30, duration_s=10, loss=0.3)).publishers[0]
    issuer = next(iter(liar.lane.tangle.have_vector()))
    log = liar.lane.tangle.lacking({}, vertices_max=10**6)
    double.restore(log, {})
    for publisher, node in ((liar, world.nodes[0]), (double, world.nodes[1])):
        writer = ChannelWriter(WriterState(9000, bytes(32), b"p" * 16), mode=ChannelMode.PUBLIC, sign=SimKey.make("channel 5 0").sign)
        message = ChannelMessages(channel=channel, messages=(writer.create(issuer + node.key.peer),))
        world.deliver(node, publisher.lane.issue(message, now_ms=int(world.now_s * 1000)).vertex.encoded)
    began_s = world.now_s
    while not all(issuer in node.follower.lane.tangle.forks for node in world.nodes):
        world.advance(0.1)
    return world.now_s - began_s
