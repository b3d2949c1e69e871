"""The shelf of shared dataslices: what is fetched next, and what that costs when others fill it."""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from learnae.ids import Cid
from learnae.protocol.dataslices import QUEUE_MAX, DatasliceShelf, SharedSlice
from tests.protocol.builders import BOB, MALLORY, make_cid

SLICES = [make_cid(f"slice {number}") for number in range(200)]


def find_wanted(shelf: DatasliceShelf) -> list[Cid]:
    """By the rule: what is not here, not under way, fit, and used less often than the threshold."""
    return [
        cid
        for cid, known in shelf.shared.items()
        if not known.here and cid not in shelf.fetching and cid not in shelf.unfit and known.uses < shelf.overuse_threshold
    ]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32))
def test_fetches__are_the_least_used_of_what_may_be_fetched_whatever_happened(seed: int) -> None:
    rng, shelf = Random(seed), DatasliceShelf(3)
    for _ in range(120):
        cid = rng.choice(SLICES)
        match rng.randrange(5):
            case 0:
                shelf.add_shared(BOB, rng.sample(SLICES, 20), uses={cid: 1}, here=rng.random() < 0.2)
            case 1:
                shelf.count_use(rng.sample(SLICES, 10))
            case 2 if shelf.fetching:
                shelf.fetched(rng.choice(sorted(shelf.fetching)), arrived=rng.random() < 0.5)
            case 3 if cid in shelf.shared:
                shelf.forget(cid)
            case _:
                room = QUEUE_MAX - len(shelf.queue) - len(shelf.fetching)
                before = sorted(shelf.shared[wanted].uses for wanted in find_wanted(shelf))
                chosen = shelf.choose_fetches(rng)
                assert [shelf.shared[one].uses for one in chosen] == before[: max(0, room)]
                assert len(set(chosen)) == len(chosen) and shelf.fetching >= set(chosen)


def test_fetches__of_equally_used_slices_are_drawn_at_random() -> None:
    drawn: Counter[Cid] = Counter()
    for seed in range(50):
        shelf = DatasliceShelf(3)
        shelf.add_shared(BOB, SLICES, uses={}, here=False)
        drawn.update(shelf.choose_fetches(Random(seed)))
    assert len(drawn) == len(SLICES) and max(drawn.values()) < 40


def test_used_up_slices__of_a_hostile_member_are_not_looked_through_at_each_announcement(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each use that anybody announces asks for what to fetch; thousands of slices that cannot be taken must not be looked at for it."""
    shelf = DatasliceShelf(1)
    shelf.add_shared(MALLORY, SLICES, uses={}, here=False)
    shelf.count_use(SLICES)
    looked: list[str] = []

    def note(known: SharedSlice, name: str) -> Any:
        looked.append(name)
        return object.__getattribute__(known, name)

    monkeypatch.setattr(SharedSlice, "__getattribute__", note, raising=False)
    assert shelf.choose_fetches(Random(0)) == [] and looked == []
