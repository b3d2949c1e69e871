"""`python -m benchmarks gas`: its sessions are real ones, and the ways differ as it says."""

from __future__ import annotations

import pytest

from benchmarks import gas
from benchmarks._beds import EmbeddedBed, open_anvil


def test_gas__a_member_of_a_grouped_session_sends_one_transaction() -> None:
    """Issue 3: one own transaction, and less gas than with direct ballots."""
    direct, grouped = gas.play(EmbeddedBed(), 20, gas.play_direct), gas.play(EmbeddedBed(), 20, gas.play_grouped)
    assert (direct.own, grouped.own) == (3, 1)
    assert grouped.gas < 0.75 * direct.gas
    assert sum(grouped.parts.values()) == grouped.gas
    assert grouped.parts["join"] == direct.parts["join"]


def test_gas__is_the_same_on_anvil_and_on_the_embedded_chain() -> None:
    with open_anvil() as anvil:
        real = gas.play(anvil, 10, gas.play_grouped)
    assert real.parts == gas.play(EmbeddedBed(), 10, gas.play_grouped).parts


def test_gas__the_naive_way_takes_a_transaction_per_vote() -> None:
    naive = gas.play(EmbeddedBed(), 10, gas.play_naive)
    assert naive.own == 12
    assert naive.parts["vote"] > 90 * 40_000


def test_gas__a_session_that_pays_wrongly_fails_the_benchmark(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gas.Session, "vote_in_groups", lambda self, indices: self.vote_directly(range(3)))
    with pytest.raises(RuntimeError, match="the session kept"):
        gas.play(EmbeddedBed(), 10, gas.play_grouped)
