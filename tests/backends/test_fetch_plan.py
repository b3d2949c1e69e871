"""Whom a fetch asks for which block."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

from learnae.backends.fetch_plan import HEDGE_S, FetchPlan
from learnae.backends.memory_blocks import MemoryBlocks
from learnae.backends.unixfs import LEAF_BYTES, build_blocks
from learnae.ids import Cid, PeerId

ALICE, BOB, CAROL = (PeerId(bytes([number]) * 32) for number in range(3))


def _make_plan(leaves: int) -> tuple[FetchPlan, dict[Cid, bytes]]:
    """A plan whose root has arrived; the leaves are left."""
    blocks = dict(build_blocks(Random(leaves).randbytes(leaves * LEAF_BYTES)))
    root = list(blocks)[-1]
    store = MemoryBlocks()
    plan = FetchPlan(root, leaves * LEAF_BYTES, store.has_block, store.get_block)
    assert plan.take(ALICE, 9, 0.0) == [root]
    assert plan.handle_block(root, blocks[root])
    return plan, blocks


def _take_all(plan: FetchPlan, peer: PeerId, now_s: float) -> Iterator[Cid]:
    while taken := plan.take(peer, 4, now_s):
        yield from taken


def test_plan__asks_each_block_of_one_provider() -> None:
    plan, _ = _make_plan(6)
    first = plan.take(ALICE, 4, 0.0)
    assert len(first) == 4
    second = plan.take(BOB, 4, 0.0)
    assert len(second) == 2
    assert set(first).isdisjoint(second)
    assert plan.take(CAROL, 4, 0.0) == []


def test_plan__an_idle_provider_gets_what_another_would_bring_last() -> None:
    """A slow provider brings its first blocks soon: the last of what it owes is worth asking twice, by who has nothing else to do."""
    plan, blocks = _make_plan(4)
    owed = plan.take(ALICE, 4, 0.0)
    late_s = HEDGE_S + 0.01
    assert plan.take(BOB, 4, HEDGE_S / 2) == []
    assert plan.take(BOB, 4, late_s, is_idle=False) == []
    assert plan.take(BOB, 4, late_s) == owed[-1:]
    assert plan.take(CAROL, 4, late_s) == owed[-2:-1], "not the same one a third time"
    assert plan.handle_block(owed[-1], blocks[owed[-1]])
    assert not plan.handle_block(owed[-1], blocks[owed[-1]]), "the second to bring it brings nothing"


def test_plan__what_a_silent_provider_owes_goes_to_the_others_at_once() -> None:
    plan, blocks = _make_plan(4)
    owed = plan.take(ALICE, 4, 0.0)
    plan.handle_late(ALICE)
    plan.handle_late(ALICE)
    assert plan.take(ALICE, 4, 0.0) == [], "it owes them already"
    assert set(plan.take(BOB, 4, 0.0, is_idle=False)) == set(owed)
    assert plan.take(CAROL, 4, 0.0) == []
    assert plan.handle_block(owed[0], blocks[owed[0]]), "whoever brings it first"
    plan.handle_lost(ALICE)
    assert plan.take(CAROL, 4, 0.0) == [], "Bob still owes them"
    plan.handle_lost(BOB)
    assert set(plan.take(CAROL, 4, 0.0)) == set(owed[1:])


def test_plan__what_one_lacks_is_asked_of_the_others() -> None:
    plan, blocks = _make_plan(3)
    (lacked, *rest) = plan.take(ALICE, 3, 0.0)
    plan.handle_absent(ALICE, lacked)
    assert plan.take(ALICE, 3, 9.0) == []
    assert list(_take_all(plan, BOB, 0.0)) == [lacked]
    for cid in (lacked, *rest):
        assert plan.handle_block(cid, blocks[cid])
    assert plan.is_done
    assert not plan.fault
