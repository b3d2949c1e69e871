"""Members, sensors and their vertices for tests of the sensors lane, all from fixed seeds."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from random import Random

from nacl.bindings import crypto_sign, crypto_sign_seed_keypair

from learnae.ids import PeerId
from learnae.sensors.judge import LaneRules, SensorEntry
from learnae.sensors.lane import SensorLane
from learnae.sensors.messages import Admission, ChannelMessages, SensorHead, compute_tag, create_admission
from learnae.sensors.readings import Reading, SensorField, encode_readings
from learnae.tangle.channel import ChannelMode, ChannelWriter, WriterState

NET = b"sensor-n"
STARTS_MS = 1_000_000
RULES = LaneRules(net=NET, tag=compute_tag("garden"), starts_ms=STARTS_MS)
FIELDS = (SensorField("temperature", "Cel", 2), SensorField("humidity", "%RH", 1))


@dataclass(frozen=True)
class Key:
    """An Ed25519 key made from a name."""

    name: str

    @property
    def pair(self) -> tuple[bytes, bytes]:
        public, secret = crypto_sign_seed_keypair(hashlib.sha256(self.name.encode()).digest())
        return public, secret

    @property
    def peer(self) -> PeerId:
        return PeerId(self.pair[0])

    def sign(self, signed: bytes) -> bytes:
        signature: bytes = crypto_sign(signed, self.pair[1])[:64]
        return signature


MEMBER, OTHER_MEMBER = Key("member"), Key("other member")
MEMBERS = frozenset({MEMBER.peer, OTHER_MEMBER.peer})


def make_lane(key: Key = MEMBER, *, seed: int = 1, members: frozenset[PeerId] = MEMBERS) -> SensorLane:
    lane = SensorLane(rules=RULES, me=key.peer, sign=key.sign, rng=Random(seed))
    lane.members = members
    return lane


def make_admission(issuer: Key, *, rate_per_s: int = 10, channels_max: int = 4, from_ms: int = STARTS_MS, net: bytes = NET) -> Admission:
    return create_admission(
        net=net, issuer=issuer.peer, member=MEMBER.peer, sign=MEMBER.sign, rate_per_s=rate_per_s, channels_max=channels_max, from_ms=from_ms
    )


def sign_head(head: SensorHead, channel: Key, issuer: Key, *, net: bytes = NET) -> SensorHead:
    return replace(head, signature=channel.sign(head.compute_signed(net, issuer.peer)))


def make_head(issuer: Key, channel: Key, **changes: object) -> SensorHead:
    head = SensorHead(
        sensor=channel.name,
        created_ms=STARTS_MS,
        channel_key=channel.peer,
        mode=ChannelMode.PUBLIC,
        first=1,
        fields=FIELDS,
        admission=make_admission(issuer),
    )
    return sign_head(replace(head, **changes), channel, issuer)  # type: ignore[arg-type]


@dataclass
class FakeSensor:
    """An issuer with one channel, and its own copy of the lane: a real publisher in memory."""

    name: str
    rate_per_s: int = 10
    mode: ChannelMode = ChannelMode.PUBLIC
    side_key: bytes = b""
    lane: SensorLane = field(init=False)
    writer: ChannelWriter = field(init=False)

    def __post_init__(self) -> None:
        self.issuer, self.channel = Key(f"issuer {self.name}"), Key(f"channel {self.name}")
        self.lane = make_lane(self.issuer)
        state = WriterState(1, hashlib.sha256(self.name.encode()).digest())
        self.writer = ChannelWriter(state, mode=self.mode, sign=self.channel.sign, side_key=self.side_key)
        admission = make_admission(self.issuer, rate_per_s=self.rate_per_s)
        self.head = make_head(self.issuer, self.channel, mode=self.mode, admission=admission)

    def begin(self, now_ms: int = STARTS_MS) -> bytes:
        """The vertex of the head."""
        return self.lane.issue(self.head, now_ms=now_ms).vertex.encoded

    def measure(self, now_ms: int, *, count: int = 1, label: int | None = None) -> SensorEntry:
        """A vertex of one message with `count` readings."""
        readings = [Reading(now_ms + i, i % 2, 20 + i / 4, label) for i in range(count)]
        message = self.writer.create(encode_readings(readings, FIELDS))
        return self.lane.issue(ChannelMessages(channel=self.head.channel, messages=(message,)), now_ms=now_ms)
