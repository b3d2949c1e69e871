"""The control lane: the same vertices give the same state on every honest peer, whatever comes when, and whoever lies."""

from __future__ import annotations

from dataclasses import replace
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from learnae.protocol.committed import compute_rows_at
from learnae.protocol.known import Known
from learnae.protocol.lane import ANCESTRY_MAX, ORPHAN_AGE_MAX_MS, ControlLane
from learnae.protocol.messages import Checkpoint, Departed, ForkProved, Joined
from learnae.protocol.sync import SYNC_VERTICES_MAX, SYNC_WANT_MAX, SyncMessage, decode_sync
from learnae.protocol.validation import VERTEX_BURST
from learnae.tangle.verdict import Verdict
from learnae.tangle.vertex import Vertex
from tests.protocol.builders import (
    ALICE,
    BOB,
    CAROL,
    DAVE,
    EPOCH_S,
    EVERYBODY,
    MALLORY,
    NAMES,
    NOW_MS,
    RULES,
    Author,
    announce,
    exchange,
    feed,
    introduce,
    make_cid,
    make_lane,
    report,
)

LATE_MS = NOW_MS + 100_000


def make_history(seed: int, *, length: int = 60, forks: int = 0, closing: bool = False) -> list[Vertex]:
    """What four peers say among one another: models, receipts with right totals, goodbyes; Mallory may sign numbers twice."""
    rng = Random(seed)
    authors = [Author(name) for name in NAMES[1:]]
    owed: dict[tuple[bytes, bytes], int] = {}
    credited: set[tuple[bytes, bytes]] = set()
    said: list[Vertex] = []
    models: list[Vertex] = []
    for step in range(length):
        author = rng.choice(authors)
        mates = [other.log[-1] for other in authors if other is not author and other.log]
        parents = rng.sample(mates, min(2, len(mates)))
        time_ms = NOW_MS + step * 50
        usable = [m for m in models if m.issuer != author.me and (author.me, m.cid) not in credited]
        if usable and rng.random() < 0.5 and author.me != MALLORY:
            model = rng.choice(usable)
            credited.add((author.me, model.cid))
            total = owed[author.me, model.issuer] = owed.get((author.me, model.issuer), 0) + 10
            said.append(author.write(report(model.issuer, model.cid, owed=total), parents=parents, time_ms=time_ms))
        elif rng.random() < 0.1:
            said.append(author.write(Departed(reason="pause"), parents=parents, time_ms=time_ms))
        else:
            said.append(author.write(announce(f"{step}", correct=rng.randrange(100)), parents=parents, time_ms=time_ms))
            models.append(said[-1])
    mallory = authors[-1]
    for number in range(forks):
        if len(mallory.log) > 1:
            previous = rng.choice(mallory.log[:-1])
            rival = mallory.write(announce(f"rival {number}"), previous=previous, time_ms=NOW_MS + 3000 + number)
            said.append(rival)
            said.append(
                authors[0].write(announce(f"named {number}"), parents=[rival], time_ms=NOW_MS + 4000 + number, previous=authors[0].log[-1])
            )
    if closing:
        said += [author.write(Checkpoint(closing=True, heads=()), time_ms=NOW_MS + 9000) for author in authors[:-1]]
    return said


def snapshot(lane: ControlLane) -> object:
    forks = {issuer: fork.sequence for issuer, fork in lane.dag.forks.items()}
    logs = {issuer: [v.cid for v in lane.dag.chain(issuer)] for issuer in EVERYBODY}
    closed = {issuer for issuer in EVERYBODY if lane.ledger.row(issuer).closed}
    return lane.ledger.rows(), forks, logs, closed


def settle(lanes: list[ControlLane]) -> None:
    """Sync everybody with everybody, and let those speak who found a fork."""
    for _ in range(8):
        for a in lanes:
            for b in lanes:
                if a is not b:
                    exchange(a, b, now_ms=LATE_MS)
        for lane in lanes:
            proof = lane.find_unproved_fork()
            if proof is not None:
                lane.issue(proof, now_ms=LATE_MS)


# --- the fold does not depend on the order --------------------------------------------------------------------------


@settings(max_examples=40)
@given(seed=st.integers(0, 30), shuffle=st.integers(0, 10**6))
def test_ledger__is_the_same_in_any_order_with_duplicates(seed: int, shuffle: int) -> None:
    """Threats, ledger: the same evidence gives the same ledger on every honest peer."""
    order = Random(shuffle)
    history = make_history(seed, closing=True)
    straight, shuffled = make_lane(), make_lane()
    feed(straight, history, now_ms=LATE_MS)
    mixed = [*history, *order.choices(history, k=30)]
    order.shuffle(mixed)

    feed(shuffled, mixed, now_ms=LATE_MS)

    assert snapshot(shuffled) == snapshot(straight)
    assert straight.ledger.rows() != {}
    assert len(shuffled.dag) == len(history) and not shuffled.dag.orphans


@settings(max_examples=40)
@given(seed=st.integers(0, 30), forks=st.integers(1, 3), shuffle=st.integers(0, 10**6))
def test_forks__freeze_at_the_common_prefix_equally_on_all_peers(seed: int, forks: int, shuffle: int) -> None:
    """6: an issuer that signs a number twice is frozen where its branches part, whoever heard which branch first."""
    order = Random(shuffle)
    history = make_history(seed, forks=forks)
    lanes = [make_lane(name) for name in ("alice", "bob", "carol")]
    for lane in lanes:
        mixed = list(history)
        order.shuffle(mixed)
        for _ in range(4):  # What was named only after it was refused comes again by sync.
            feed(lane, mixed, now_ms=LATE_MS)
    states = [snapshot(lane) for lane in lanes]

    assert states[1:] == states[:-1]


@settings(max_examples=40)
@given(seed=st.integers(0, 30), forks=st.integers(0, 2), shuffle=st.integers(0, 10**6))
def test_sync__partial_histories_converge(seed: int, forks: int, shuffle: int) -> None:
    """Protocol: gossip is a hint, sync is the promise. Each peer heard a random part; have-vectors bring the rest."""
    order = Random(shuffle)
    history = make_history(seed, forks=forks)
    lanes = [make_lane(name) for name in ("alice", "observer 1", "observer 2")]
    for lane in lanes:
        lane.members = frozenset({*EVERYBODY, *(other._me for other in lanes)})
    for lane in lanes:
        heard = [vertex for vertex in history if order.random() < 0.6]
        order.shuffle(heard)
        feed(lane, heard, now_ms=LATE_MS)

    settle(lanes)

    states = [snapshot(lane) for lane in lanes]
    assert states[1:] == states[:-1]


@settings(max_examples=40)
@given(seed=st.integers(0, 20), cut=st.integers(0, 70), shuffle=st.integers(0, 10**6))
def test_restart__at_any_cut_of_the_history_restores_the_same_state(seed: int, cut: int, shuffle: int) -> None:
    """Threats, kill at any point: the journal, in its order, gives the lane back; what comes after gives the same as without a restart."""
    order = Random(shuffle)
    history = make_history(seed, forks=1)
    order.shuffle(history)
    lane = make_lane()
    journal = [entry.vertex.encoded for entry in feed(lane, history[:cut], now_ms=LATE_MS)]
    back = make_lane()

    assert [entry.vertex.encoded for entry in back.restore(journal)] == journal
    assert snapshot(back) == snapshot(lane)
    feed(lane, history[cut:], now_ms=LATE_MS)
    feed(back, history, now_ms=LATE_MS)
    assert snapshot(back) == snapshot(lane)


# --- forks ------------------------------------------------------------------------------------------------------------


def test_fork__proof_before_the_prefix_does_not_shorten_the_row() -> None:
    """The common prefix still comes in after the proof was heard."""
    mallory, carol, dave = Author("mallory"), Author("carol"), Author("dave")
    model = carol.write(announce())
    joined, receipt = mallory.write(Joined(poid=bytes(20), addresses=())), mallory.write(report(CAROL, model.cid, owed=10))
    third, rival = mallory.write(announce("a")), mallory.write(announce("b"), previous=receipt)
    accused = ForkProved(issuer=MALLORY, sequence=3, first=third.compute_statement(), second=rival.compute_statement())
    proof = dave.write(accused, time_ms=NOW_MS + 5000)
    early, late = make_lane(), make_lane()

    feed(early, [model, proof, joined, receipt, third])
    feed(late, [model, joined, receipt, third, rival, proof])

    assert early.ledger.rows() == late.ledger.rows() == {MALLORY: {CAROL: 10}}
    assert list(early.dag.chain(MALLORY)) == [joined, receipt]


def test_fork__of_somebody_who_is_no_member_is_not_kept() -> None:
    """Keys cost nothing, so there could be any number of such proofs; a member's is kept."""
    lane, mallory, dave = make_lane(), Author("nobody"), Author("dave")
    first, rival = mallory.write(announce("a")), mallory.write(announce("b"), sequence=1)
    accused = ForkProved(issuer=mallory.me, sequence=1, first=first.compute_statement(), second=rival.compute_statement())
    proof = dave.write(accused)

    received = lane.receive(proof.encoded, now_ms=NOW_MS)
    assert received.ruling.verdict is Verdict.IGNORE and "somebody who is not a member" in received.ruling.why
    assert not lane.dag.forks and proof.cid not in lane.dag
    lane.members |= {mallory.me}
    assert lane.receive(proof.encoded, now_ms=NOW_MS).entered and set(lane.dag.forks) == {mallory.me}


def test_fork__after_it_nothing_of_the_issuer_counts_or_is_kept() -> None:
    """A forker is heard no more: what it says later is ignored, except where others already named it."""
    lane, mallory = make_lane(), Author("mallory")
    (first,) = introduce(mallory, lane=lane)
    second, rival = mallory.write(announce("a")), mallory.write(announce("b"), previous=first)
    feed(lane, [second, rival])

    later = lane.receive(mallory.write(announce("c"), previous=second).encoded, now_ms=LATE_MS)

    assert later.ruling.verdict is Verdict.IGNORE and "forked" in later.ruling.why
    assert lane.dag.fork(MALLORY) is not None and len(lane.dag) == 3


def test_fork__wrong_receipts_on_a_branch_do_not_block_those_who_name_them() -> None:
    """Two colluders must not make one honest peer accept what another refuses: branches are not judged by receipts' rules."""
    carol, mallory, bob = Author("carol"), Author("mallory"), Author("bob")
    model = carol.write(announce())
    (first,) = introduce(mallory)
    branches = [mallory.write(report(CAROL, model.cid, owed=10 * n), previous=first, time_ms=NOW_MS + 900 + n) for n in (1, 2, 3)]
    name = bob.write(announce("names the third"), parents=[branches[2]], time_ms=NOW_MS + 5000)
    orders = [
        [model, first, *branches, name],
        [model, first, branches[0], branches[2], branches[1], name],
        [name, *branches[::-1], first, model],
    ]

    lanes = [make_lane() for _ in orders]
    for lane, order in zip(lanes, orders, strict=True):
        feed(lane, order)
        feed(lane, order)

    assert [lane.dag.head(BOB) for lane in lanes] == [name] * 3
    assert {str(snapshot(lane)) for lane in lanes} == {str(snapshot(lanes[0]))}


def test_fork__a_long_branch_named_by_others_comes_in_few_questions() -> None:
    """Protocol, sync: catching up never walks parents one round trip at a time."""
    mallory, bob = Author("mallory"), Author("bob")
    (first,) = introduce(mallory)
    ours = [mallory.write(announce(f"ours {n}")) for n in range(100)]
    theirs = [mallory.write(announce("theirs 0"), previous=first)]
    theirs += [mallory.write(announce(f"theirs {n}"), time_ms=theirs[0].time_ms + 200 * n) for n in range(1, 100)]
    name = bob.write(announce("after"), parents=[theirs[-1]], time_ms=theirs[-1].time_ms + 1)
    here, there = make_lane("alice"), make_lane("carol")
    feed(here, [first, *ours])
    feed(there, [first, *theirs, name])

    messages = exchange(here, there, now_ms=LATE_MS)

    assert here.dag.head(BOB) == name and here.dag.fork(MALLORY) is not None
    assert messages <= 10 * (100 // ANCESTRY_MAX + 2)


def test_equivocation__of_equal_length_is_found_by_a_checkpoint() -> None:
    """Attack, equivocation: have-vectors of equal length hide that two halves heard different things; heads do not."""
    mallory, bob = Author("mallory"), Author("bob")
    (first,) = introduce(mallory)
    left, right = mallory.write(announce("left")), mallory.write(announce("right"), previous=first)
    alice, carol = make_lane("alice"), make_lane("carol")
    feed(alice, [first, left])
    feed(carol, [first, right])
    exchange(alice, carol, now_ms=LATE_MS)
    assert not alice.dag.forks and not carol.dag.forks

    checkpoint = alice.compute_checkpoint(closing=True)
    assert (MALLORY, 2, left.cid) in checkpoint.heads
    alice.issue(checkpoint, now_ms=LATE_MS)
    exchange(alice, carol, now_ms=LATE_MS)
    proof = carol.find_unproved_fork()
    assert proof is not None
    carol.issue(proof, now_ms=LATE_MS)
    exchange(alice, carol, now_ms=LATE_MS)

    assert list(alice.dag.chain(MALLORY)) == list(carol.dag.chain(MALLORY)) == [first]
    assert bob.log == []


def test_checkpoint__that_lies_about_heads_costs_bounded_questions() -> None:
    """Heads that do not exist are asked for, at most 32 per reporter, and nobody is frozen."""
    lane, mallory, bob = make_lane(), Author("mallory"), Author("bob")
    authors = [Author(f"peer {n}") for n in range(60)]
    lane.members = frozenset({*EVERYBODY, *(author.me for author in authors)})
    introduce(*authors, bob, lane=lane)
    heads = tuple(sorted((author.me, 1, make_cid(author.name)) for author in authors))

    feed(lane, [mallory.write(Checkpoint(closing=False, heads=heads), time_ms=NOW_MS + 50)])
    feed(lane, [mallory.write(Checkpoint(closing=True, heads=heads))])

    assert len(lane.ask().want) == 32
    assert not lane.dag.forks


def test_fork__of_large_vertices_is_proved_in_a_small_one() -> None:
    """A forker cannot make its vertices too large to be proved: the proof holds digests and signatures."""
    rules = replace(RULES, members_max=700)
    lane, mallory = make_lane(rules=rules), Author("mallory", rules)
    heads = tuple(sorted((bytes([n // 256, n % 256]) + bytes(30), 1, make_cid("x")) for n in range(700)))
    pair = [Author("mallory", rules).write(Checkpoint(closing=flag, heads=heads)) for flag in (True, False)]  # type: ignore[arg-type]
    feed(lane, pair)

    proof = lane.find_unproved_fork()
    assert proof is not None
    entry = lane.issue(proof, now_ms=LATE_MS)

    assert sum(len(vertex.encoded) for vertex in pair) > 100_000 and len(entry.vertex.encoded) < 600
    assert lane.find_unproved_fork() is None
    assert mallory.log == []


# --- what a hostile peer sends ----------------------------------------------------------------------------------------


@given(st.binary(max_size=400))
def test_receive__any_bytes_get_a_verdict_and_change_nothing(content: bytes) -> None:
    lane = make_lane()

    assert lane.receive(content, now_ms=NOW_MS).ruling.verdict is Verdict.REJECT
    assert len(lane.dag) == 0 and len(lane.dag.orphans) == 0


@settings(max_examples=30)
@given(seed=st.integers(0, 5), shuffle=st.integers(0, 10**6))
def test_receive__replayed_cut_and_mixed_histories_never_raise(seed: int, shuffle: int) -> None:
    """Threats: never a crash. Signed vertices in any order, again and again, with bytes changed in between."""
    order = Random(shuffle)
    history = make_history(seed, length=25, forks=2)
    lane, straight = make_lane(), make_lane()
    for _ in range(100):
        encoded = bytearray(order.choice(history).encoded)
        if order.random() < 0.5:
            encoded[order.randrange(len(encoded))] ^= order.randrange(256)
        lane.receive(bytes(encoded), now_ms=LATE_MS)
        lane.ask()

    for _ in range(4):
        feed(lane, history)
        feed(straight, history)
    assert lane.ledger.rows() == straight.ledger.rows()


@given(st.binary(max_size=300))
def test_decode_sync__answers_any_bytes_without_raising(content: bytes) -> None:
    assert decode_sync(content) is None or decode_sync(content) is not None


@given(
    have=st.none() | st.dictionaries(st.binary(min_size=32, max_size=32), st.integers(0, 2**40), max_size=5),
    answer=st.booleans(),
    want=st.lists(st.integers(0, 9), max_size=4),
    vertices=st.lists(st.binary(max_size=30), max_size=4),
)
def test_sync_message__is_read_back_as_it_was_written(
    have: dict[bytes, int] | None, answer: bool, want: list[int], vertices: list[bytes]
) -> None:
    message = SyncMessage(
        have=have,  # type: ignore[arg-type]
        answer=answer,
        want=tuple(make_cid(str(n)) for n in want),
        vertices=tuple(vertices),
    )

    assert decode_sync(message.encode()) == message


def test_decode_sync__refuses_what_passes_a_limit() -> None:
    """Limits: 1 MiB, 256 wanted, 256 vertices, 8192 issuers; depth and types."""
    cid = make_cid("x")
    assert decode_sync(SyncMessage(want=(cid,) * SYNC_WANT_MAX).encode()) is not None
    assert decode_sync(SyncMessage(want=(cid,) * (SYNC_WANT_MAX + 1)).encode()) is None
    assert decode_sync(SyncMessage(vertices=(b"",) * (SYNC_VERTICES_MAX + 1)).encode()) is None
    assert decode_sync(SyncMessage(vertices=(bytes(1 << 20),)).encode()) is None
    many = {n.to_bytes(32, "big"): 1 for n in range(8193)}
    assert decode_sync(SyncMessage(have=many).encode()) is None  # type: ignore[arg-type]
    assert decode_sync(b"\x81" * (1 << 20)) is None
    assert decode_sync(b"\x85\x02\xf6\xf4\x80\x80") is None
    assert decode_sync(b"\x85\x01\xf6\xf4\x80\x80") == SyncMessage()


def test_answer__is_bounded_whatever_is_asked() -> None:
    """Threats: a question of some kilobytes brings one page at most."""
    lane, bob = make_lane(), Author("bob")
    feed(lane, [bob.write(announce(str(n)), time_ms=NOW_MS + 200 * n) for n in range(400)], now_ms=LATE_MS)

    answers = lane.answer(SyncMessage(have={}, want=tuple(v.cid for v in bob.log[:SYNC_WANT_MAX])))

    assert len(answers) == 1 and len(answers[0].vertices) <= SYNC_VERTICES_MAX
    assert len(answers[0].encode()) <= 1 << 20


def test_answer__does_not_go_back_and_forth() -> None:
    """Two peers with the same vertices exchange one have-vector each and are done."""
    a, b = make_lane("alice"), make_lane("bob")
    history = make_history(1)
    feed(a, history)
    feed(b, history)

    assert a.answer(b.ask()) == [] and exchange(a, b) == 2


def test_orphans__of_parents_that_never_come_are_forgotten() -> None:
    lane, mallory = make_lane(), Author("mallory")
    received = lane.receive(mallory.write(announce(), parents=[make_cid("nothing")]).encoded, now_ms=NOW_MS)
    assert received.ruling.verdict is Verdict.IGNORE and len(lane.dag.orphans) == 1

    lane.expire(now_ms=NOW_MS + ORPHAN_AGE_MAX_MS - 1)
    assert len(lane.dag.orphans) == 1
    lane.expire(now_ms=NOW_MS + ORPHAN_AGE_MAX_MS + 1)
    assert len(lane.dag.orphans) == 0 and lane.ask().want == ()


# --- what this peer says ----------------------------------------------------------------------------------------------


def test_issue__numbers_follow_and_time_never_goes_back() -> None:
    """Threats, clocks: a clock that jumps back, or stands before the session, gives vertices that all accept."""
    lane, other = make_lane("alice"), make_lane("bob")
    times = [NOW_MS, NOW_MS - 50_000, 0, NOW_MS + 1]
    vertices = [lane.issue(announce(str(n)), now_ms=time_ms).vertex for n, time_ms in enumerate(times)]

    assert [vertex.sequence for vertex in vertices] == [1, 2, 3, 4]
    assert feed(other, vertices) != [] and other.dag.head(ALICE) == vertices[-1]
    assert make_lane("carol").issue(announce(), now_ms=0).vertex.time_ms == EPOCH_S * 1000


def test_issue__beyond_the_budget_takes_later_times_that_others_accept() -> None:
    """Rule 10 at issue: whatever makes a peer talk much, its own vertices stay within its budget."""
    lane, other = make_lane("alice"), make_lane("bob")
    vertices = [lane.issue(announce(str(n)), now_ms=NOW_MS).vertex for n in range(VERTEX_BURST + 20)]

    feed(other, vertices, now_ms=NOW_MS)

    assert other.dag.head(ALICE) == vertices[-1]
    assert vertices[-1].time_ms == NOW_MS + 4000


def test_issue__strangers_clocks_do_not_become_ours() -> None:
    """A vertex from the future is no parent: with it a first vertex would take its issuer's budget for two minutes."""
    lane, mallory = make_lane(), Author("mallory")
    feed(lane, [mallory.write(announce(), time_ms=NOW_MS + 119_000)], now_ms=NOW_MS)

    assert lane.issue(announce(), now_ms=NOW_MS).vertex.time_ms == NOW_MS


def test_closing__ends_the_own_row() -> None:
    """6: when training is over the row is closed; receipts after it do not count."""
    lane, bob, carol = make_lane(), Author("bob"), Author("carol")
    models = feed(lane, [carol.write(announce("1")), carol.write(announce("2"))])
    bob.write(report(CAROL, models[0].vertex.cid, owed=10), time_ms=NOW_MS + 1000)
    bob.write(Checkpoint(closing=False, heads=()))
    bob.write(report(CAROL, models[1].vertex.cid, owed=20))
    feed(lane, bob.log)
    assert lane.ledger.value(BOB, CAROL) == 20 and not lane.ledger.row(BOB).closed

    third = feed(lane, [carol.write(announce("3"), time_ms=NOW_MS + 2000)])[0].vertex
    closing = bob.write(Checkpoint(closing=True, heads=()))
    feed(lane, [closing, bob.write(report(CAROL, third.cid, owed=30), time_ms=NOW_MS + 3000)])

    assert lane.ledger.value(BOB, CAROL) == 20 and lane.ledger.row(BOB).closed
    assert DAVE not in lane.ledger.rows()


# --- what a claim commits -----------------------------------------------------------------------------------------------


def make_sealed() -> tuple[ControlLane, Author, Author, Vertex]:
    """Bob reports 10 for Carol; Dave seals that; then Bob, whose row is still open, reports 20 more."""
    lane, bob, carol, dave = make_lane(), Author("bob"), Author("carol"), Author("dave")
    one, two = carol.write(announce("1")), carol.write(announce("2"))
    first = bob.write(report(CAROL, one.cid, owed=10), time_ms=NOW_MS + 1000)
    heads = tuple(sorted((vertex.issuer, vertex.sequence, vertex.cid) for vertex in (two, first)))
    seal = dave.write(Checkpoint(closing=False, heads=heads), time_ms=NOW_MS + 1500)
    feed(lane, [one, two, first, seal, bob.write(report(CAROL, two.cid, owed=30, after=52), time_ms=NOW_MS + 2000)])
    assert lane.ledger.value(BOB, CAROL) == 30
    return lane, bob, dave, seal


def test_evidence__gives_the_ledger_of_the_claim_back() -> None:
    """6, attack flood before the deadline: a row that goes on after the others claimed must not make their claims wrong."""
    lane, _, _, seal = make_sealed()

    assert compute_rows_at(lane, seal.cid, DAVE, Known()) == {BOB: {CAROL: 10}}
    assert compute_rows_at(lane, seal.cid, DAVE, Known({BOB: 1, CAROL: 2})) == {BOB: {CAROL: 10}}


def test_evidence__must_be_the_claimants_and_hold_what_was_known() -> None:
    """A claimant cannot leave out what it must have heard, nor hide behind another's checkpoint or an unknown one."""
    lane, bob, dave, seal = make_sealed()

    assert compute_rows_at(lane, seal.cid, DAVE, Known({BOB: 2})) is None
    assert compute_rows_at(lane, seal.cid, ALICE, Known()) is None
    assert compute_rows_at(lane, bob.log[0].cid, BOB, Known()) is None
    assert compute_rows_at(lane, make_cid("nothing"), DAVE, Known()) is None
    empty = dave.write(Checkpoint(closing=False, heads=()))
    unknown = dave.write(Checkpoint(closing=False, heads=((BOB, 1, make_cid("nothing")),)))
    feed(lane, [empty, unknown])
    assert compute_rows_at(lane, empty.cid, DAVE, Known({BOB: 1})) is None
    assert compute_rows_at(lane, unknown.cid, DAVE, Known()) is None


def test_evidence__of_a_fork_counts_only_if_the_fork_came_later_and_its_receipts_are_right() -> None:
    """Branches are not judged when they enter: a claimant must not be paid by receipts that no honest peer would have taken."""
    carol, mallory, dave = Author("carol"), Author("mallory"), Author("dave")
    model = carol.write(announce())
    (first,) = introduce(mallory)
    right = mallory.write(report(CAROL, model.cid, owed=10), previous=first, time_ms=NOW_MS + 900)
    wrong = mallory.write(report(CAROL, model.cid, owed=10**9), previous=first, time_ms=NOW_MS + 901)
    seals = [dave.write(Checkpoint(closing=False, heads=((MALLORY, 2, vertex.cid),)), time_ms=NOW_MS + 2000 + n) for n, vertex in
             enumerate((right, wrong))]  # fmt: skip
    lane = make_lane()
    for _ in range(2):
        feed(lane, [model, first, right, wrong, *seals])
    assert lane.dag.fork(MALLORY) is not None and lane.ledger.rows() == {}

    assert compute_rows_at(lane, seals[0].cid, DAVE, Known()) == {MALLORY: {CAROL: 10}}
    assert compute_rows_at(lane, seals[0].cid, DAVE, Known(forked=frozenset({MALLORY}))) == {}
    assert compute_rows_at(lane, seals[1].cid, DAVE, Known()) is None


def test_evidence__that_names_the_prefix_of_a_fork_leaves_nothing_out() -> None:
    """A member that forks after the claims are due must not make the claims wrong of those who heard of it first."""
    carol, bob, mallory, dave = Author("carol"), Author("bob"), Author("mallory"), Author("dave")
    model, _ = carol.write(announce()), introduce(mallory)
    second = mallory.write(announce("second"))
    lane = make_lane()
    feed(lane, [model, *mallory.log])
    known = Known({MALLORY: 2}, accused={MALLORY: 2})
    other = mallory.write(announce("other"), previous=mallory.log[0])
    prefix = ((MALLORY, 1, mallory.log[0].cid),)
    first = bob.write(report(CAROL, model.cid, owed=10), time_ms=NOW_MS + 1500)
    seal = dave.write(Checkpoint(closing=False, heads=tuple(sorted((*prefix, (BOB, 1, first.cid))))), time_ms=NOW_MS + 2000)
    feed(lane, [first, seal])
    assert compute_rows_at(lane, seal.cid, DAVE, known) is None, "it left out what everybody knew"

    proof = ForkProved(issuer=MALLORY, sequence=2, first=second.compute_statement(), second=other.compute_statement())
    feed(lane, [bob.write(proof, time_ms=NOW_MS + 2500)])

    assert lane.dag.counted_length(MALLORY) == 1
    assert compute_rows_at(lane, seal.cid, DAVE, known) == {BOB: {CAROL: 10}}
