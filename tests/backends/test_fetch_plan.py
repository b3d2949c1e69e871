"""Whom a fetch asks for which block."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from random import Random

from learnae.backends.fetch_plan import BUSY_BYTES, FORGIVEN_S, HEDGE_S, WAIT_S, WAIT_SHARE, FetchPlan, Need
from learnae.backends.idle_clock import Spent
from learnae.backends.memory_blocks import MemoryBlocks
from learnae.backends.unixfs import LEAF_BYTES, build_blocks, encode_node
from learnae.ids import CODEC_DAG_PB, CODEC_RAW, Cid, PeerId, compute_cid

ALICE, BOB, CAROL = (PeerId(bytes([number]) * 32) for number in range(3))


def _have_nothing(cid: Cid) -> None:
    """An empty store."""


def _make_plan(leaves: int) -> tuple[FetchPlan, dict[Cid, bytes]]:
    """A plan whose root has arrived; the leaves are left."""
    blocks = dict(build_blocks(Random(leaves).randbytes(leaves * LEAF_BYTES)))
    root = list(blocks)[-1]
    store = MemoryBlocks()
    plan = FetchPlan(root, leaves * LEAF_BYTES, _have_nothing, store.get_block)
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


def test_plan__who_lacks_a_block_may_still_bring_what_others_owe() -> None:
    plan, blocks = _make_plan(3)
    (lacked,) = plan.take(ALICE, 1, 0.0)
    plan.handle_absent(ALICE, lacked)
    first, *rest = plan.take(BOB, 3, 0.0)
    assert first == lacked
    assert len(rest) == 2
    assert plan.may_bring(ALICE), "if Bob stalls"
    for cid in rest:
        assert plan.handle_block(cid, blocks[cid])
    assert not plan.may_bring(ALICE)
    assert plan.may_bring(BOB)


def _look(*, seconds: float, idle_share: float, rate_bytes_s: float, worked_share: float | None = None) -> list[float]:
    """When more providers were asked for, if the fetch waits, works and receives evenly."""
    need = Need()
    now_s, times = 0.0, []
    while now_s < seconds:
        worked_s = (1.0 - idle_share if worked_share is None else worked_share) * now_s
        pause_s = need.compute_pause_s(Spent(now_s, idle_share * now_s, worked_s), int(rate_bytes_s * now_s))
        if pause_s == 0.0:
            times.append(now_s)
        now_s += max(pause_s, 1e-4)
    return times


def test_need__a_fetch_that_is_busy_asks_nobody_else() -> None:
    assert _look(seconds=9.0, idle_share=0.0, rate_bytes_s=3e8) == []
    assert _look(seconds=9.0, idle_share=WAIT_SHARE - 0.01, rate_bytes_s=3e8) == []


def test_need__a_fetch_that_waits_asks_more_within_milliseconds_and_again() -> None:
    """All lines are in use before the first block of 256 KiB came over one of 5 MB/s."""
    times = _look(seconds=0.1, idle_share=1.0, rate_bytes_s=5e6)
    assert times[0] < 1.5 * WAIT_S
    assert times[2] < 0.05
    half_busy = _look(seconds=1.0, idle_share=0.5, rate_bytes_s=1e8)
    assert 2 * WAIT_S < half_busy[0] < 5 * WAIT_S, "what is not waited for does not count"


def test_need__a_provider_that_kept_it_busy_may_stop_for_a_moment_and_not_for_longer() -> None:
    need = Need()
    for number in range(1, 101):
        now_s = number / 100
        assert need.compute_pause_s(Spent(now_s, 0.0, now_s), int(3e8 * now_s)) > 0
    silent_s = 0.0
    while pause_s := need.compute_pause_s(Spent(1.0 + silent_s, silent_s, 1.0), 300_000_000):
        silent_s += pause_s
    assert WAIT_S + FORGIVEN_S <= silent_s < 2 * (WAIT_S + FORGIVEN_S)


def test_need__where_the_processor_is_short_more_providers_are_no_help() -> None:
    """It waits for half of its time, and would have worked in the other half: who gives and who fetches both wait for the processor."""
    assert _look(seconds=9.0, idle_share=0.5, worked_share=0.1, rate_bytes_s=1e8) == []
    assert _look(seconds=0.1, idle_share=0.8, worked_share=0.1, rate_bytes_s=1e8), "waits for the line, for the most part"


def test_need__a_wait_now_and_then_is_forgotten() -> None:
    need = Need()
    now_s = idle_s = 0.0
    for _ in range(100):
        for waited_s, worked_s in ((WAIT_S / 2, 0.0), (0.0, WAIT_S / WAIT_SHARE)):
            now_s, idle_s = now_s + waited_s + worked_s, idle_s + waited_s
            assert need.compute_pause_s(Spent(now_s, idle_s, now_s - idle_s), int(1e9 * now_s)) > 0


def test_need__who_is_kept_busy_with_other_things_asks_others_too() -> None:
    """A provider that drips costs time for each drop: the fetch never waits, and gets nothing."""
    times = _look(seconds=1.0, idle_share=0.0, rate_bytes_s=0.9 * BUSY_BYTES / HEDGE_S)
    assert len(times) == 3
    assert times[0] < HEDGE_S + 2 * (WAIT_S + FORGIVEN_S)
    assert _look(seconds=1.0, idle_share=0.0, rate_bytes_s=1.2 * BUSY_BYTES / HEDGE_S) == []


def test_plan__a_file_that_names_one_block_with_two_sizes_is_none() -> None:
    """Whichever size it has, the file could never be read."""
    leaf = compute_cid(Random(1).randbytes(LEAF_BYTES), CODEC_RAW)
    assert _take_in_root([leaf, leaf], LEAF_BYTES + 9, _have_nothing).fault == "it names one block with two sizes"
    twice = _take_in_root([leaf, leaf], 2 * LEAF_BYTES, _have_nothing)
    assert not twice.fault
    assert twice.take(ALICE, 9, 0.0) == [leaf]


def test_plan__a_leaf_that_is_here_is_judged_as_one_that_comes() -> None:
    """A hostile root names a block of another model: without this the fetch would end well, with a file that cannot be read."""
    store = MemoryBlocks()
    here = store.put_file(Random(1).randbytes(LEAF_BYTES))
    other = compute_cid(Random(2).randbytes(LEAF_BYTES), CODEC_RAW)
    with store.hold() as keep:
        assert _take_in_root([other, here], LEAF_BYTES + 9, keep).fault == "a leaf has not the size that the node above it says"
        assert FetchPlan(here, LEAF_BYTES - 1, keep, store.get_block).fault == "it has 262144 bytes, at most 262143 were expected"
        honest = _take_in_root([other, here], 2 * LEAF_BYTES, keep)
        assert not honest.fault
        assert honest.take(ALICE, 9, 0.0) == [other]


def _take_in_root(leaves: list[Cid], file_bytes: int, keep: Callable[[Cid], int | None]) -> FetchPlan:
    node = encode_node(leaves, file_bytes, 1)
    root = compute_cid(node, CODEC_DAG_PB)
    plan = FetchPlan(root, 2 * LEAF_BYTES, keep, lambda cid: None)
    assert plan.take(ALICE, 9, 0.0) == [root]
    assert plan.handle_block(root, node) == (not plan.fault)
    return plan
