"""Vertices that come in pages, to peers that share a store: the same state, the same journal order, the same verdicts as one by one."""

from __future__ import annotations

from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from learnae.ids import PeerId
from learnae.protocol import events as ev
from learnae.protocol.lane import ControlLane
from learnae.protocol.messages import Checkpoint
from learnae.protocol.store import ControlStore
from learnae.protocol.validation import TIME_AHEAD_MAX_MS
from learnae.tangle.store import Entry
from learnae.tangle.verdict import Verdict
from learnae.tangle.vertex import Vertex
from tests.protocol.builders import (
    ALICE,
    BOB,
    CAROL,
    EVERYBODY,
    MALLORY,
    NOW_MS,
    RULES,
    Author,
    announce,
    feed,
    introduce,
    make_cid,
    make_lane,
    make_player,
    make_sign,
)
from tests.protocol.test_lane import LATE_MS, make_history, snapshot


def make_sharers(count: int) -> list[ControlLane]:
    """Lanes that share one store, as the peers of a simulated world do."""
    store = ControlStore(shared=True)
    lanes = [ControlLane(rules=RULES, me=ALICE, sign=make_sign("alice"), rng=Random(n), store=store) for n in range(count)]
    for lane in lanes:
        lane.members = EVERYBODY
    return lanes


def feed_pages(lane: ControlLane, vertices: list[Vertex], rng: Random) -> list[Entry]:
    """Give vertices to a lane in pages of random sizes; everything that entered, in order."""
    entered: list[Entry] = []
    left = [(PeerId(BOB), vertex.encoded) for vertex in vertices]
    while left:
        size = rng.randrange(1, 12)
        entered += lane.receive_page(left[:size], now_ms=LATE_MS).entered
        del left[:size]
    return entered


@settings(max_examples=40)
@given(seed=st.integers(0, 30), forks=st.integers(0, 3), shuffle=st.integers(0, 10**6))
def test_pages__give_the_same_state_as_single_vertices(seed: int, forks: int, shuffle: int) -> None:
    """Sharing a store saves work and changes nothing: each lane knows what it heard, whatever the others heard before it."""
    order = Random(shuffle)
    history = make_history(seed, forks=forks, closing=not forks)
    for shared in make_sharers(3):
        alone = make_lane()
        for _ in range(3):  # What was named only after it was refused comes again by sync.
            heard = [vertex for vertex in history if order.random() < 0.8]
            order.shuffle(heard)
            paged = [entry.vertex for entry in feed_pages(shared, heard, order)]
            assert paged == [entry.vertex for entry in feed(alone, heard, now_ms=LATE_MS)]
        assert snapshot(shared) == snapshot(alone)
        assert shared.dag.tips == alone.dag.tips and len(shared.dag) == len(alone.dag)
        assert len(shared.dag.orphans) == len(alone.dag.orphans) and shared.ask() == alone.ask()


@settings(max_examples=20)
@given(seed=st.integers(0, 30), shuffle=st.integers(0, 10**6))
def test_pages__enter_in_an_order_that_a_journal_can_be_read_back_in(seed: int, shuffle: int) -> None:
    """Kill at any point: parents stand before what names them, also when part of a page had to wait."""
    order = Random(shuffle)
    history = make_history(seed, forks=1)
    first, second = make_sharers(2)
    feed_pages(first, history, order)
    order.shuffle(history)

    journal = [entry.vertex.encoded for entry in feed_pages(second, history, order)]
    back = make_lane()

    assert [entry.vertex.encoded for entry in back.restore(journal)] == journal
    assert snapshot(back) == snapshot(second)


def test_page__is_judged_by_what_this_peer_may_take_now() -> None:
    """What another peer of the process took in still needs a member as issuer, and its time must have come."""
    first, second = make_sharers(2)
    mallory, bob = Author("mallory"), Author("bob")
    introduce(mallory, bob)
    feed(first, [*mallory.log, *bob.log])
    late = bob.write(announce("late"), time_ms=NOW_MS + TIME_AHEAD_MAX_MS + 1)
    feed(first, [late])
    page = [(CAROL, vertex.encoded) for vertex in (*mallory.log, *bob.log)]
    second.members = EVERYBODY - {MALLORY}

    taken = second.receive_page(page, now_ms=NOW_MS)

    assert [entry.vertex for entry in taken.entered] == bob.log[:1]
    assert [entry.vertex for entry in second.receive_page(page, now_ms=NOW_MS + 1).entered] == [late]
    assert mallory.log[0].cid not in second.dag


def test_page__rejections_name_their_senders() -> None:
    """Gossip loses score for what it forwards, also when it comes in a page."""
    player, bob = make_player(), Author("bob")
    good = bob.write(announce("good"))
    broken = good.encoded[:-1] + bytes([good.encoded[-1] ^ 1])

    effects = player.handle(ev.VerticesReceived([(BOB, good.encoded), (CAROL, broken), (MALLORY, b"nonsense")]))

    verdicts = [effect for effect in effects if isinstance(effect, ev.PassVerdict)]
    assert [(verdict.sender, verdict.ruling.verdict) for verdict in verdicts] == [(CAROL, Verdict.REJECT), (MALLORY, Verdict.REJECT)]
    assert good.cid in player.peer.lane.dag


def test_shared_checkpoint__that_names_unknown_heads_is_asked_about_by_everybody() -> None:
    """Only checkpoints whose heads nobody can dispute are taken without a look."""
    lanes = make_sharers(2)
    mallory, bob = Author("mallory"), Author("bob")
    introduce(mallory, bob)
    unknown = make_cid("nothing")
    lie = mallory.write(Checkpoint(closing=True, heads=((BOB, 1, unknown),)), time_ms=NOW_MS + 500)
    for lane in lanes:
        feed_pages(lane, [*bob.log, *mallory.log[:1], lie], Random(0))

    assert [lane.ask().want for lane in lanes] == [(unknown,), (unknown,)]
