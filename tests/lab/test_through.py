"""Section 7 through the whole protocol: real peers, real vertices, lossy gossip; the same balances as on the ledger alone."""

from __future__ import annotations

from dataclasses import replace

import pytest

from learnae.errors import InvariantBrokenError
from learnae.ids import Credits, Wei
from learnae.lab import through
from learnae.lab.paper import Setting, run_fast
from learnae.lab.swarm import DEPOSIT_WEI, compute_rows, draw_swarm
from learnae.lab.through import (
    ScriptedPeer,
    Session,
    join_sessions,
    list_sessions,
    make_initial_model,
    make_session,
    read_score,
    run_session,
)
from learnae.protocol.cycle import WorkCycle

SMALL = Setting(peers=8, cycles=12, malicious=2)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_protocol__pays_exactly_what_the_ledger_alone_gives(seed: int) -> None:
    """Section 7: equal draws, equal balances, to the wei: tips and fund, with and without malicious peers, at 30 % loss."""
    sessions = list_sessions(SMALL, seed, is_contract=False)
    pair = join_sessions(sessions, [run_session(session) for session in sessions])

    assert pair == run_fast(SMALL, seed)
    assert pair.honest != pair.malicious
    assert sum(pair.malicious.tips) == 8 * DEPOSIT_WEI


def test_protocol__ledger_of_every_peer_is_that_of_the_draws() -> None:
    """Section 6, Fig. 4: what the peers heard from one another is what the fast path folds; a malicious row is empty."""
    draws = draw_swarm(4, peers=8, cycles=12)
    world, _ = make_session(SMALL, draws, malicious=2, mode="dao")
    world.run()
    world.checker.check_end()
    expected = [sorted(row.values()) for row in compute_rows(draws, silent=range(2)).values()]

    assert world.scenario.link.loss == 0.3
    for host in world.hosts:
        assert host.peer is not None
        rows = host.peer.lane.ledger.rows()
        assert [sorted(rows.get(other.name, {}).values()) for other in world.hosts] == expected


def test_protocol__that_pays_otherwise_is_found() -> None:
    """The comparison is not vacuous: one wei is enough."""
    sessions = list_sessions(SMALL, 1, is_contract=False)
    pair = run_fast(SMALL, 1)
    balances = [pair.honest.tips, pair.honest.consolidated, pair.malicious.tips, pair.malicious.consolidated]
    assert join_sessions(sessions, balances) == pair

    balances[1] = (Wei(balances[1][0] + 1), *balances[1][1:])
    with pytest.raises(InvariantBrokenError, match="--through protocol --seeds 1 --first-seed 1 --peers 8 --cycles 12 --malicious 2"):
        join_sessions(sessions, balances)


def test_protocol__report_that_is_forged_or_lost_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    """If peers did not report, the fund would be another: the balances come from what they say."""
    report = WorkCycle._report_help
    monkeypatch.setattr(WorkCycle, "_report_help", lambda self, *args: report(self, *args) if self.cycles % 2 else [])
    sessions = list_sessions(SMALL, 1, is_contract=False)

    assert run_session(sessions[1]) != run_fast(SMALL, 1).honest.consolidated


def test_session__that_ends_before_its_script_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every attempt of the draws is made, or nobody gets figures."""
    monkeypatch.setattr(through, "SPARE_CYCLES", -10)
    with pytest.raises(InvariantBrokenError, match="did not come to the end of their script"):
        run_session(Session(Setting(4, 40, 0), seed=1, malicious=0, mode="dao"))


def test_script__succeeds_above_zero_only_and_waits_for_another_announcement() -> None:
    """Section 7: a level that is not above 0 is no success. Help is reported once for each announcement, so the script never asks twice."""
    draws = draw_swarm(1, peers=3, cycles=8)
    world, scripts = make_session(Setting(3, 8, 0), replace(draws, changes=(0, 5, -3) * 8), malicious=0, mode="dao")
    world.run()
    scores = [host.peer.cycle.local.correct for host in world.hosts if host.peer is not None and host.peer.cycle.local is not None]

    assert scores == [0, 40, 0]
    assert all(isinstance(script, ScriptedPeer) and script.is_done for script in scripts)
    ledger = world.hosts[0].peer.lane.ledger if world.hosts[0].peer is not None else None
    assert ledger is not None and ledger.received(world.hosts[1].name) == Credits(40)
    assert len(ledger.row(world.hosts[1].name).credited) == 8


def test_script__starts_from_a_model_without_improvements() -> None:
    assert read_score(make_initial_model()) == 0
