"""Section 7 through the whole protocol: real peers, real vertices, lossy gossip; the same balances as on the ledger alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from learnae.errors import InvariantBrokenError
from learnae.ids import Wei
from learnae.lab import through
from learnae.lab.contract import ContractChain
from learnae.lab.paper import Setting, run_fast
from learnae.lab.swarm import DEPOSIT_WEI, compute_rows, draw_swarm
from learnae.lab.through import (
    Session,
    join_sessions,
    list_sessions,
    make_initial_model,
    make_session,
    read_score,
    run_session,
)
from learnae.protocol.calls import DeployPoid, Join, Stage
from learnae.protocol.cycle import WorkCycle
from learnae.protocol.fund import FundError, SessionFund
from learnae.protocol.messages import Kind
from learnae.sim.scenario import EPOCH_S

SMALL = Setting(peers=8, cycles=12, malicious=2)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_protocol__pays_exactly_what_the_ledger_alone_gives(seed: int) -> None:
    """Section 7: equal draws, equal balances, to the wei: tips and fund, with and without malicious peers, at 30 % loss."""
    sessions = list_sessions(SMALL, seed, is_contract=False)
    pair = join_sessions(sessions, [run_session(session) for session in sessions])

    assert pair == run_fast(SMALL, seed)
    assert pair.honest != pair.malicious
    assert sum(pair.malicious.tips) == 8 * DEPOSIT_WEI


@pytest.mark.parametrize("setting", [Setting(2, 1, 1), Setting(2, 20, 0), Setting(3, 30, 2), Setting(5, 60, 1)])
def test_protocol__of_few_peers_comes_to_its_end(setting: Setting) -> None:
    """In a small swarm a peer is helped by the same one again and again, and waits for its next model each time."""
    for seed in (7, 8):
        session = list_sessions(setting, seed, is_contract=False)[3]
        assert run_session(session) == run_fast(setting, seed).malicious.consolidated


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
    monkeypatch.setattr(through, "SPARE_CYCLES", -40)
    with pytest.raises(InvariantBrokenError, match="did not come to the end of their script"):
        run_session(Session(Setting(4, 40, 0), seed=1, malicious=0, mode="dao"))


def test_script__succeeds_above_zero_only_and_waits_for_another_announcement() -> None:
    """Section 7: a level that is not above 0 is no success. Help is reported once for each announcement, so the script never asks twice."""
    draws = draw_swarm(1, peers=3, cycles=8)
    world, scripts = make_session(Setting(3, 8, 0), replace(draws, changes=(0, 5, -3) * 8), malicious=0, mode="dao")
    world.run()
    locals_ = [host.peer.cycle.local for host in world.hosts if host.peer is not None]

    assert [local.correct for local in locals_ if local is not None] == [0, 40, 0]
    assert all(script.is_done for script in scripts)
    assert world.hosts[0].peer is not None
    lane, reporter = world.hosts[0].peer.lane, world.hosts[1].name
    assert lane.ledger.received(reporter) == 40
    assert sum(vertex.kind == Kind.HELP_REPORTED for vertex in lane.dag.chain(reporter)) == 8


def test_script__starts_from_a_model_without_improvements() -> None:
    assert read_score(make_initial_model()) == 0


# --- on the real contract -------------------------------------------------------------------------------------------


def test_contract__pays_exactly_what_the_ledger_alone_gives() -> None:
    """Sections 4.3, 6 and 7: tips and payouts as money on the embedded chain, by the shipped contracts."""
    setting = Setting(peers=4, cycles=6, malicious=1)
    tips, fund = list_sessions(setting, 5, is_contract=True)[2:]
    expected = run_fast(setting, 5).malicious

    assert (tips.malicious, tips.mode, fund.malicious, fund.mode) == (1, "tips", 1, "dao")
    assert run_session(tips) == expected.tips
    assert run_session(fund) == expected.consolidated


def test_contract__that_does_other_than_its_model_stops_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison is not vacuous: a model that loses a claim, or refuses a member, is found at once, with the way to repeat it."""
    session = Session(Setting(3, 4, 0), seed=1, malicious=0, mode="dao", is_contract=True)
    claim = SessionFund.claim

    def lose(fund: SessionFund, *args: Any) -> None:
        claim(fund, *args)
        fund.seats[fund.index_of[args[0]]].claim = None

    def refuse(fund: SessionFund, *args: Any) -> None:
        raise FundError("SessionFull")

    monkeypatch.setattr(SessionFund, "claim", lose)
    with pytest.raises(InvariantBrokenError, match="disagree, about the claims; repeat it with: learnae paper --through contract"):
        run_session(session)
    monkeypatch.setattr(SessionFund, "join", refuse)
    with pytest.raises(InvariantBrokenError, match="disagree, Join: done and SessionFull"):
        run_session(session)


def test_contract__refusals_reach_the_peers() -> None:
    """A call that both refuse is refused: nobody joins twice."""
    session = Session(Setting(3, 4, 0), seed=1, malicious=0, mode="dao", is_contract=True)
    world, _ = make_session(session.setting, draw_swarm(1, peers=3, cycles=4), malicious=0, mode="dao")
    peer = world.hosts[0].name
    chain = ContractChain(world.rules, [host.name for host in world.hosts], seed=1, command="again")
    poid = chain.execute(peer, DeployPoid(), EPOCH_S + 1)
    assert poid is not None
    chain.execute(peer, Join(poid), EPOCH_S + 1)

    with pytest.raises(FundError, match="AlreadyMember"):
        chain.execute(peer, Join(poid), EPOCH_S + 2)
    view = chain.read(EPOCH_S + 2)
    assert view.stage is Stage.FUNDING and view.time_s == EPOCH_S + 2
    assert [(member.poid.peer_id, member.poid.fault) for member in view.members] == [(peer, "")]
    assert chain.read_balance(peer) == 0
    assert chain.read_balance(world.hosts[1].name) == DEPOSIT_WEI
