"""The store of vertices: newest in memory, older ones in the journal, nothing lost, nothing kept twice."""

from __future__ import annotations

from random import Random

import pytest

from learnae.backends.memory_journal import MemoryJournal
from learnae.protocol.committed import compute_rows_at
from learnae.protocol.known import Known
from learnae.protocol.lane import ControlLane
from learnae.protocol.messages import Checkpoint
from learnae.protocol.store import ControlStore
from learnae.protocol.sync import SyncMessage
from learnae.tangle import store as store_module
from learnae.tangle.store import VertexStore
from learnae.tangle.vertex import Vertex
from tests.protocol.builders import (
    ALICE,
    BOB,
    CAROL,
    DAVE,
    EVERYBODY,
    MALLORY,
    NOW_MS,
    RULES,
    Author,
    announce,
    exchange,
    introduce,
    make_lane,
    make_peer_id,
    make_sign,
    report,
)

LATE_MS = NOW_MS + 1_000_000


class Recorder:
    """A lane with its journal, written after every event as a node does it; memory holds two kilobytes of vertices."""

    def __init__(self, name: str = "alice", journal: MemoryJournal | None = None) -> None:
        self.journal = journal or MemoryJournal()
        self.store = ControlStore(archive=self.journal)
        self.lane = ControlLane(rules=RULES, me=make_peer_id(name), sign=make_sign(name), rng=Random(name), store=self.store)
        self.lane.members = EVERYBODY

    def hear(self, *vertices: Vertex) -> None:
        for vertex in vertices:
            entered = self.lane.receive(vertex.encoded, now_ms=LATE_MS).entered
            self.journal.append([(entry.vertex.cid, entry.vertex.encoded) for entry in entered])


@pytest.fixture(autouse=True)
def small_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "RECENT_BYTES_MAX", 2000)


def write_log(author: Author, count: int) -> list[Vertex]:
    return [author.write(announce(f"{author.name} {number}"), time_ms=NOW_MS + 200 * number) for number in range(count)]


def test_memory__holds_the_newest_vertices_only() -> None:
    """Issue: memory does not grow with time. What is older is in the journal, and is found there."""
    here, bob = Recorder(), Author("bob")
    log = write_log(bob, 100)
    here.hear(*log)

    assert len(here.store._recent) == len(here.store._number_of) < 10
    assert len(here.lane.dag) == 100
    assert [here.lane.dag.get(vertex.cid) for vertex in log] == log
    assert list(here.lane.dag.chain(BOB)) == log
    assert [here.store.at(number).vertex for number in range(100)] == log


def test_memory__keeps_what_is_not_on_disk_yet() -> None:
    """A vertex leaves memory only when the journal has it: between entering and writing it is nowhere else."""
    journal = MemoryJournal()
    store = VertexStore(archive=journal)
    log = write_log(Author("bob"), 50)
    for vertex in log:
        store.enter(vertex)
    assert len(store._recent) == 50

    journal.append([(vertex.cid, vertex.encoded) for vertex in log])
    store.enter(Author("carol").write(announce()))

    assert len(store._recent) < 10
    assert store.find(log[0].cid) is not None and store.at(49).vertex == log[49]


def test_known_vertices__are_refused_a_second_time_also_when_they_are_old() -> None:
    here, bob = Recorder(), Author("bob")
    log = write_log(bob, 60)
    here.hear(*log, *log, *reversed(log))

    assert len(here.lane.dag) == here.journal.vertices_count == 60
    assert here.lane.receive(log[0].encoded, now_ms=LATE_MS).ruling.why == "known"


def test_sync__gives_a_newcomer_the_whole_history_from_disk() -> None:
    """Protocol, sync: page what the other lacks, however long ago it was said."""
    here, newcomer = Recorder("alice"), make_lane("observer")
    newcomer.members = here.lane.members = EVERYBODY | {make_peer_id("observer")}
    authors = [Author(name) for name in ("bob", "carol", "dave")]
    for author in authors:
        here.hear(*write_log(author, 300))

    exchange(here.lane, newcomer, now_ms=LATE_MS)

    assert newcomer.dag.have_vector() == here.lane.dag.have_vector() == {author.me: 300 for author in authors}


def test_wanted_vertices__are_read_from_disk() -> None:
    here, bob = Recorder(), Author("bob")
    log = write_log(bob, 100)
    here.hear(*log)

    (page,) = here.lane.answer(SyncMessage(want=(log[5].cid,)))

    assert log[5].encoded in page.vertices


def test_fork__with_a_vertex_that_is_long_on_disk_is_proved() -> None:
    """Protocol: one proof for everyone who signs two vertices with one number, whenever the second one appears."""
    here, mallory = Recorder(), Author("mallory")
    log = write_log(mallory, 80)
    here.hear(*log)
    rival = Author("mallory").write(announce("rival"), previous=log[3], time_ms=log[3].time_ms + 1)

    here.hear(rival)

    fork = here.lane.dag.fork(MALLORY)
    assert fork is not None and fork.sequence == 5
    assert {fork.first, fork.second} == {log[4].compute_statement(), rival.compute_statement()}
    proof = here.lane.find_unproved_fork()
    assert proof is not None
    assert make_lane("bob").receive(Author("dave").write(proof, time_ms=LATE_MS).encoded, now_ms=LATE_MS).forked == (MALLORY,)


def test_receipts__are_judged_by_announcements_that_are_long_on_disk() -> None:
    """Rule 11: one announcement earns one receipt, however much was said in between."""
    here, bob, carol = Recorder(), Author("bob"), Author("carol")
    models = write_log(carol, 60)
    first = bob.write(report(CAROL, models[0].cid, owed=10), time_ms=LATE_MS - 1000)
    again = bob.write(report(CAROL, models[0].cid, owed=20))
    here.hear(*models, first)

    assert here.lane.receive(again.encoded, now_ms=LATE_MS).ruling.why == "this announcement was credited before"
    assert here.lane.ledger.rows() == {BOB: {CAROL: 10}}
    assert here.lane.ledger.has_credited(BOB, models[0].cid) and not here.lane.ledger.has_credited(BOB, models[1].cid)


def test_claims_evidence__is_read_at_any_earlier_point_of_a_row() -> None:
    """Section 6: the ledger that a claim commits, although the rows went on for long."""
    here, bob, carol, dave = Recorder(), Author("bob"), Author("carol"), Author("dave")
    models = write_log(carol, 40)
    receipts = [
        bob.write(report(CAROL, model.cid, owed=10 * (number + 1)), time_ms=NOW_MS + 20_000 + 200 * number)
        for number, model in enumerate(models)
    ]
    heads = tuple(sorted([(CAROL, 40, models[-1].cid), (BOB, 7, receipts[6].cid)]))
    seal = dave.write(Checkpoint(closing=False, heads=heads), time_ms=LATE_MS)
    here.hear(*models, *receipts, seal)

    assert here.lane.ledger.rows() == {BOB: {CAROL: 400}}
    assert compute_rows_at(here.lane, seal.cid, DAVE, Known()) == {BOB: {CAROL: 70}}


def test_evidence__that_names_another_issuers_vertex_or_number_is_none() -> None:
    """A claimant chooses the heads of its checkpoint: they must be what they say."""
    here, bob, dave = Recorder(), Author("bob"), Author("dave")
    log = write_log(bob, 5)
    here.hear(*log, *write_log(Author("carol"), 5))
    for head in ((CAROL, 3, log[2].cid), (BOB, 3, log[4].cid)):
        seal = dave.write(Checkpoint(closing=False, heads=(head,)), time_ms=LATE_MS)
        here.hear(seal)
        assert compute_rows_at(here.lane, seal.cid, DAVE, Known()) is None


def test_restart__from_the_journal_gives_the_same_state_and_numbers() -> None:
    """Kill at any point: numbers are places in the journal, so a lane that is read back finds every vertex again."""
    here, mallory = Recorder(), Author("mallory")
    logs = [write_log(Author(name), 30) for name in ("bob", "carol")]
    log = write_log(mallory, 30)
    rival = Author("mallory").write(announce("rival"), previous=log[10], time_ms=log[10].time_ms + 1)
    name = Author("dave").write(announce("names the rival"), parents=[rival], time_ms=LATE_MS - 1)
    here.hear(*logs[0], *log, name, rival, *logs[1])
    assert rival.cid in here.lane.dag

    back = Recorder(journal=here.journal)
    restored = [entry.vertex for entry in back.lane.restore(here.journal.vertices())]

    assert [vertex.encoded for vertex in restored] == list(here.journal.vertices())
    assert back.lane.dag.have_vector() == here.lane.dag.have_vector()
    assert back.lane.dag.forks == here.lane.dag.forks and rival.cid in back.lane.dag
    for number, vertex in enumerate(restored):
        assert back.store.at(number).vertex == here.store.at(number).vertex == vertex


def test_shared_store__peers_know_only_what_they_heard() -> None:
    """Simulator: decoded vertices are common, what a peer knows is its own; two branches of a fork give two rows."""
    store = ControlStore()
    lanes = [ControlLane(rules=RULES, me=ALICE, sign=make_sign("alice"), rng=Random(n), store=store) for n in range(3)]
    carol, mallory = Author("carol"), Author("mallory")
    model = carol.write(announce())
    (first,) = introduce(mallory)
    left, right = (mallory.write(report(CAROL, model.cid, owed=10 * n, after=50 + n), previous=first, time_ms=NOW_MS + 900) for n in (1, 2))
    after = mallory.write(announce("goes on"), previous=right)
    for lane, heard in zip(lanes, ([model, first, left], [model, first, right, after], []), strict=True):
        lane.members = EVERYBODY
        for vertex in heard:
            assert lane.receive(vertex.encoded, now_ms=LATE_MS).entered

    assert [len(lane.dag) for lane in lanes] == [3, 4, 0]
    assert [lane.ledger.rows() for lane in lanes] == [{MALLORY: {CAROL: 10}}, {MALLORY: {CAROL: 20}}, {}]
    assert left.cid not in lanes[1].dag and right.cid not in lanes[0].dag and first.cid not in lanes[2].dag
    assert lanes[0].dag.head(MALLORY) == left and lanes[1].dag.head(MALLORY) == after

    exchange(lanes[0], lanes[1])
    for lane in lanes[:2]:
        for vertex in (left, right):
            lane.receive(vertex.encoded, now_ms=LATE_MS)
        assert lane.dag.fork(MALLORY) is not None and lane.ledger.rows() == {}
