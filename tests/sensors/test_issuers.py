"""Paper 4.2: places in the sensors lane. A member that mints sensors harms itself, and what two nodes say to one another stays readable."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from random import Random
from typing import cast

import pytest

from learnae.ids import PeerId
from learnae.protocol import events as ev
from learnae.protocol.sync import SYNC_CLOSED, SYNC_VERTICES_MAX, SyncMessage
from learnae.sensors import issuers as issuers_module
from learnae.sensors import lane as lane_module
from learnae.sensors.follower import FollowEffect, FollowSettings, SensorFollower, decode_lane_sync, encode_lane_sync
from learnae.sensors.issuers import REFUSED_MS
from learnae.sensors.lane import SensorLane
from learnae.sensors.messages import SensorHead, SensorKind, SliceReceipt, create_admission
from learnae.sensors.waiting import LOST_MS
from learnae.tangle.verdict import Verdict
from learnae.tangle.vertex import create_vertex
from tests.sensors.builders import MEMBER, MEMBERS, NET, OTHER_MEMBER, RULES, STARTS_MS, FakeSensor, Key, make_head, make_lane, sign_head

LATER_MS = STARTS_MS + 3_600_000
NO_ROOM = "this session has no room for more sensors, or not for more of the member that admits them"


@pytest.fixture(autouse=True)
def few_places(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Ten places for all, four for a member, instead of thousands."""
    monkeypatch.setattr(issuers_module, "ISSUERS_MAX", 10)
    monkeypatch.setattr(issuers_module, "ISSUERS_PER_MEMBER_MAX", 4)
    yield


def make_head_of(issuer: Key, member: Key = MEMBER, channel: str = "") -> SensorHead:
    admission = create_admission(
        net=NET, issuer=issuer.peer, member=member.peer, sign=member.sign, rate_per_s=10, channels_max=4, from_ms=STARTS_MS
    )
    key = Key(f"channel {channel or issuer.name}")
    return sign_head(replace(make_head(issuer, key), admission=admission), key, issuer)


def make_vertex(issuer: Key, sequence: int = 1, member: Key = MEMBER, *, parent: bytes = b"", channel: str = "") -> bytes:
    """A vertex with a head; as first parent the genesis, or one that is nowhere."""
    nowhere = b"\x01\x71\x12\x20" + sequence.to_bytes(32, "big")
    parents = (parent or (make_lane().tangle.genesis if sequence == 1 else nowhere),)
    return create_vertex(
        net=NET,
        parents=parents,  # type: ignore[arg-type]
        issuer=issuer.peer,
        sequence=sequence,
        time_ms=STARTS_MS + 10 * sequence,
        kind=int(SensorKind.SENSOR_HEAD),
        body=make_head_of(issuer, member, channel).to_body(),
        sign=issuer.sign,
        tag=RULES.tag,
    ).encoded


def hear(lane: SensorLane, *vertices: bytes) -> list[str]:
    return [lane.receive(encoded, now_ms=LATER_MS).ruling.why for encoded in vertices]


def mint(count: int, name: str = "minted") -> list[Key]:
    return [Key(f"{name} {number}") for number in range(count)]


def make_follower(key: Key, members: frozenset[PeerId] = MEMBERS) -> SensorFollower:
    settings = FollowSettings(slice_bytes=1024)
    follower = SensorFollower(rules=RULES, me=key.peer, sign=key.sign, rng=Random(1), settings=settings)
    follower.lane.members = members
    return follower


def sync(asker: SensorFollower, answerer: SensorFollower, now_s: float) -> list[bytes]:
    """One question and its answers; the vertices that came. Nobody has anything to blame the other for."""
    asker.connect(Key("neighbour").peer)
    heard: list[bytes] = []
    questions = [encode_lane_sync(asker.lane.ask())]
    for _ in range(8):
        answers = _sent(question for content in questions for question in answerer.receive_sync(MEMBER.peer, content, now_s))
        heard += [encoded for content in answers if (page := decode_lane_sync(content)) for encoded in page.vertices]
        questions = _sent(answer for content in answers for answer in asker.receive_sync(MEMBER.peer, content, now_s))
    assert questions == [], "they answer one another for ever"
    return heard


def _sent(effects: Iterator[FollowEffect]) -> list[bytes]:
    kept = list(effects)
    assert not any(isinstance(effect, ev.PassVerdict) and effect.ruling.verdict is Verdict.REJECT for effect in kept)
    return [effect.content for effect in kept if isinstance(effect, ev.SendSync)]


def test_member__fills_its_own_places_alone() -> None:
    lane = make_lane()
    assert hear(lane, *map(make_vertex, mint(6))) == [""] * 4 + [NO_ROOM] * 2
    assert hear(lane, make_vertex(Key("honest"), member=OTHER_MEMBER)) == [""]
    assert len(lane.issuers) == 5 and len(lane.tangle.have_vector()) == 5


def test_places__of_all_members_together_are_bounded() -> None:
    members = [Key(f"member {number}") for number in range(4)]
    lane = make_lane(members=frozenset(member.peer for member in members))
    said = [hear(lane, make_vertex(issuer, member=member))[0] for member in members for issuer in mint(3, member.name)]
    assert said == [""] * 10 + [NO_ROOM] * 2


def test_heads_that_wait_for_an_invented_beginning__take_places_already() -> None:
    """Each names a vertex that nobody has, and would begin its log after half a minute, all at once."""
    lane = make_lane()
    said = hear(lane, *(make_vertex(issuer, 2) for issuer in mint(6)))
    assert said == ["waits for what it names"] * 4 + [NO_ROOM] * 2
    assert hear(lane, make_vertex(Key("one more"))) == [NO_ROOM]

    heard, lost = lane.begin_lost(now_ms=LATER_MS + LOST_MS)
    assert len(heard.entered) == len(lost) == 4 and len(lane.issuers) == 4
    assert len(lane.tangle.have_vector()) == 4 and lane.issuers.has_place(mint(1)[0].peer)


def test_place_of_one_that_waited__is_free_again_when_its_log_is_proved_forked() -> None:
    lane = make_lane()
    issuers = mint(4)
    hear(lane, *(make_vertex(issuer, 2) for issuer in issuers))
    forker = FakeSensor("forker")
    liar = make_lane(OTHER_MEMBER)
    begin = forker.begin()
    hear(liar, begin, make_vertex(forker.issuer, member=OTHER_MEMBER, channel="another"))
    proof = liar.find_unproved_fork()
    assert proof is not None and hear(lane, make_vertex(Key("late"))) == [NO_ROOM]
    lane.tangle.prove_fork(replace(liar.tangle.forks[forker.issuer.peer], issuer=issuers[0].peer))
    lane.settle(now_ms=LATER_MS)
    assert hear(lane, make_vertex(Key("late"))) == [""]


def test_old_head__needs_a_place_too() -> None:
    """A head before the kept part of a log is taken in without its log: the limit holds there as well."""
    lane, issuer = make_lane(), Key("old")
    lane.tangle.adopt(issuer.peer, 5, lane.tangle.genesis)
    hear(lane, *map(make_vertex, mint(4)))
    assert hear(lane, make_vertex(issuer, 3)) == [NO_ROOM]
    assert lane.streams.keys() == {make_head_of(minted).channel for minted in mint(4)}
    assert hear(lane, make_vertex(issuer, 3, OTHER_MEMBER)) == [""]


def test_issuer__moves_to_another_member_only_if_that_has_a_place() -> None:
    """Else a member would mint as many as all members have places, handing each full set on."""
    lane, issuer = make_lane(), Key("moving")
    first = make_vertex(issuer)
    hear(lane, first, *(make_vertex(minted, member=OTHER_MEMBER) for minted in mint(4)))
    parent = lane.tangle.head(issuer.peer)
    assert hear(lane, make_vertex(issuer, 2, OTHER_MEMBER, parent=parent, channel="second")) == [NO_ROOM]
    assert hear(lane, make_vertex(issuer, 2, parent=parent, channel="second")) == [""]


def test_receipts_of_members__need_no_place() -> None:
    """A session full of sensors still hears its members."""
    lane = make_lane()
    hear(lane, *map(make_vertex, mint(4)), *(make_vertex(minted, member=OTHER_MEMBER) for minted in mint(4, "other")))
    issuers_module.ISSUERS_MAX = 8  # type: ignore[misc]
    receipt = SliceReceipt(dataslice=lane.tangle.genesis, channel=b"c" * 16, first=1, last=2, rows=1)
    remote = make_lane(OTHER_MEMBER)
    assert hear(lane, remote.issue(receipt, now_ms=STARTS_MS + 50).vertex.encoded) == [""]


def test_log__of_which_no_head_enters_is_not_begun() -> None:
    """A head that its channel's key did not sign: nothing of it is left, and nobody is told that something was lost."""
    lane, issuer = make_lane(), Key("issuer")
    head = replace(make_head_of(issuer), signature=bytes(64))
    parents = (b"\x01\x71\x12\x20" + bytes(32),)
    bad = create_vertex(
        net=NET, parents=parents, issuer=issuer.peer, sequence=2, time_ms=STARTS_MS + 10,  # type: ignore[arg-type]
        kind=int(SensorKind.SENSOR_HEAD), body=head.to_body(), sign=issuer.sign, tag=RULES.tag,
    )  # fmt: skip
    hear(lane, bad.encoded)
    heard, lost = lane.begin_lost(now_ms=LATER_MS + LOST_MS)
    assert (heard.entered, lost, lane.tangle.have_vector()) == ((), (), {})


@pytest.mark.parametrize("order", [(5, 10), (10, 5)])
def test_log_with_two_gaps__begins_after_the_later_one(order: tuple[int, int]) -> None:
    """Two heads far apart, whichever came first: no vertex of a stranger ends a node."""
    lane, issuer = make_lane(), Key("issuer")
    hear(lane, *(make_vertex(issuer, number, channel=str(number)) for number in order))
    heard, lost = lane.begin_lost(now_ms=LATER_MS + LOST_MS)

    assert [entry.vertex.sequence for entry in heard.entered] == [5, 10]
    assert [sequence for _, sequence, _ in lost] == [9] and lane.tangle.have_vector() == {issuer.peer: 10}


def test_head_after_the_beginning__enters_with_its_log() -> None:
    """It stood among the heads that came early, and then could not enter any more, nor anything behind it."""
    lane, sensor = make_lane(), FakeSensor("a")
    hear(sensor.lane, make_vertex(sensor.issuer, channel="first"))
    missed = [sensor.begin(STARTS_MS + 100), *(sensor.measure(STARTS_MS + 200 + n).vertex.encoded for n in range(3))]
    hear(lane, *missed)
    lane.begin_lost(now_ms=LATER_MS + LOST_MS)
    assert hear(lane, *missed) == ["known", "", "", ""]
    assert lane.tangle.length(sensor.issuer.peer) == 5 and lane.streams[sensor.head.channel].last == 3


def test_two_nodes_that_gave_places_to_different_sensors__do_not_send_them_again_and_again() -> None:
    """What finds no place would come with every sync, a page full of it, in place of what an honest sensor says."""
    one, other = make_follower(MEMBER), make_follower(OTHER_MEMBER)
    now_s = LATER_MS / 1000
    for follower, name in ((one, "left"), (other, "right")):
        for encoded in map(make_vertex, mint(4, name)):
            follower.receive(Key("spammer").peer, encoded, now_s)
    honest = FakeSensor("honest")
    admission = make_head_of(honest.issuer, OTHER_MEMBER).admission
    honest.head = sign_head(replace(honest.head, admission=admission), honest.channel, honest.issuer)
    other.receive(Key("spammer").peer, honest.begin(), now_s)

    assert len(sync(one, other, now_s)) == 5 and one.lane.tangle.length(honest.issuer.peer) == 1
    assert sync(one, other, now_s + 3) == []
    assert set(one.lane.compute_have().values()) == {1, SYNC_CLOSED}
    one.tick(now_s + 3 + REFUSED_MS / 1000)
    assert set(one.lane.compute_have().values()) == {1}


def test_have_vector__that_is_too_long_is_told_in_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever gets a message beyond the limit blames its sender: it is never sent, and each issuer has its turn."""
    monkeypatch.setattr(lane_module, "SYNC_HAVE_MAX", 3)
    lane = make_lane()
    hear(lane, *map(make_vertex, mint(4)), *(make_vertex(minted, member=OTHER_MEMBER) for minted in mint(4, "other")))
    hear(lane, *map(make_vertex, mint(9)))
    told = [dict(cast(SyncMessage, decode_lane_sync(encode_lane_sync(lane.ask()))).have or {}) for _ in range(3)]

    assert {len(have) for have in told} == {3}
    assert {issuer for have in told for issuer in have} == set(lane.tangle.have_vector())
    monkeypatch.setattr(lane_module, "SYNC_HAVE_MAX", 10)
    have = lane.compute_have()
    assert len(have) == 10 and list(have.values()).count(SYNC_CLOSED) == 2


def test_lost_beginnings__are_no_more_at_once_than_a_checkpoint_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lane_module, "HEADS_MAX", 3)
    lane = make_lane()
    hear(lane, *(make_vertex(issuer, 2) for issuer in mint(4)))
    for count in (3, 1):
        _, lost = lane.begin_lost(now_ms=LATER_MS + LOST_MS)
        checkpoint = lane.compute_checkpoint(lost)
        assert len(lost) == count and {lane.tangle.length(issuer) for issuer, _, _ in lost} == {2}
        assert all(checkpoint.find_head(issuer) == (sequence, cid) for issuer, sequence, cid in lost)
        assert SYNC_VERTICES_MAX > len(checkpoint.heads) == 3


def test_have_vector__that_wants_nothing_of_an_issuer_is_no_news_of_it() -> None:
    """Neither the mark nor a refused issuer's number makes anybody ask back: nothing would come of it."""
    lane = make_lane()
    hear(lane, *map(make_vertex, mint(5)))
    refused = mint(5)[4].peer
    assert lane.answer(SyncMessage(have=lane.compute_have() | {Key("unknown").peer: SYNC_CLOSED, refused: 7})) == []
    assert [answer.answer for answer in lane.answer(SyncMessage(have=lane.compute_have() | {Key("unknown").peer: 7}))] == [True]


def test_gap__that_a_waiting_vertex_fills_is_none() -> None:
    """Vertices that came in reverse: a log must not begin in the middle of what is here."""
    lane, sensor = make_lane(), FakeSensor("a")
    said = [sensor.begin(), *(sensor.measure(STARTS_MS + 100 + n).vertex.encoded for n in range(4))]
    hear(lane, said[0], said[4], said[3], said[2])
    assert [gap.sequence for _, gap, _ in lane.waiting.find_gaps(LATER_MS + LOST_MS)] == [2]


def test_head_that_came_early__is_kept_no_longer_than_its_log_is_lacking() -> None:
    """The room for such heads is small, and all issuers share it."""
    lane, issuer = make_lane(), Key("issuer")
    first = make_vertex(issuer)
    alone = make_lane()
    hear(alone, first)
    assert hear(lane, make_vertex(issuer, 2, parent=alone.tangle.head(issuer.peer), channel="second")) == ["waits for what it names"]
    assert lane.waiting._early_bytes > 0
    assert hear(lane, first) == [""] and lane.tangle.length(issuer.peer) == 2
    lane.settle(now_ms=LATER_MS)
    assert lane.waiting._early_bytes == 0
