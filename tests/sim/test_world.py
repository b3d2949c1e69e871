"""The simulator keeps every promise in every scenario, repeats itself exactly, and finds what is broken."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from nacl.signing import SigningKey

from learnae.errors import InvariantBrokenError, UnknownScenarioError
from learnae.ids import Credits, Wei
from learnae.protocol import events as ev
from learnae.protocol.calls import Stage, SubmitClaim
from learnae.protocol.cycle import WorkCycle
from learnae.protocol.dataslices import DatasliceShelf
from learnae.protocol.fund import FundError, SessionFund
from learnae.protocol.lane import ControlLane
from learnae.protocol.messages import DatasliceConsumed, HelpReported, Kind, parse_message
from learnae.protocol.models import PaperPolicy
from learnae.protocol.peer import Peer
from learnae.sim.host import Host
from learnae.sim.scenario import SCENARIOS, Crash, Link, Scenario, find_scenario
from learnae.sim.summary import format_summary, summarise
from learnae.sim.world import World
from learnae.tangle.vertex import Vertex, create_vertex
from tests.sim.worlds import make_world, run_world

ROOT = Path(__file__).parents[2]


# --- every scenario, several seeds ---------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(1, 6))
@pytest.mark.parametrize("name", SCENARIOS)
def test_scenario__keeps_its_promises(name: str, seed: int) -> None:
    """Issue: fund conserved, ledgers of honest peers equal after quiet, no number twice, nothing unbounded, everybody finishes."""
    world = run_world(name, seed=seed, peers=6 + seed % 3, cycles=15)

    assert summarise(world)["ledgers_equal"]
    expected = Stage.REFUNDED if name == "tips" else Stage.RELEASED
    assert world.chain.fund.compute_stage(int(world.now_s)) is expected


@pytest.mark.parametrize("rule", ["raw", "budgeted"])
@pytest.mark.parametrize("policy", ["paper", "paired"])
def test_scenario__under_both_rules_and_policies(rule: str, policy: str) -> None:
    """Under the paper's policy the checker also watches that no adoption lowers a peer's own accuracy."""
    run_world("storm", reward_rule=rule, policy=policy)


@pytest.mark.parametrize("peers", [1, 2, 3])
def test_scenario__of_very_few_peers_ends(peers: int) -> None:
    """A session that only one joined ends as well."""
    run_world("calm", peers=peers)


def test_swarm__is_better_than_peers_alone() -> None:
    """Section 1: peers that average reach a higher accuracy than the same peers alone."""
    together = [run_world("calm", seed=seed, cycles=25) for seed in (1, 2, 3)]
    alone = [run_world("calm", seed=seed, peers=1, cycles=25) for seed in (1, 2, 3)]

    assert sum(summarise(w)["accuracy_median"] for w in together) > sum(summarise(w)["accuracy_median"] for w in alone)


def test_silent_peer__is_paid_by_what_others_report() -> None:
    """6: a silent peer leaves its row empty; the reports of all others still credit it."""
    silent = [summarise(run_world("silent", seed=seed, cycles=25))["peers"][0] for seed in range(1, 5)]

    assert all(peer["role"] == "silent" and peer["help_received"] == 0 for peer in silent)
    assert sum(peer["help_given"] for peer in silent) > 0
    assert all(int(peer["payout_wei"]) > 0 for peer in silent if peer["help_given"])


def test_payouts__are_the_fund_but_for_dust() -> None:
    """6: the DAO releases the whole amount of available funds."""
    summary = summarise(run_world("calm", cycles=25))

    assert 0 <= int(summary["fund_wei"]) - int(summary["paid_wei"]) < 6
    assert sum(int(peer["payout_wei"]) for peer in summary["peers"]) == int(summary["paid_wei"])


@pytest.mark.parametrize("gone", range(6))
def test_any_one_peer_gone_for_good__the_session_still_settles(gone: int) -> None:
    """Issue: with any one peer gone for good the session still settles; who calls tally and release first does not matter."""
    run_world("calm", crashes=(Crash(peer=gone, at_s=18, back_s=None),))


@pytest.mark.parametrize("gone", [0, 1])
def test_peer_gone_after_the_vote__is_settled_by_the_others(gone: int) -> None:
    late_s = find_scenario("calm", cycles=15).training_s + 30 + 28
    run_world("calm", crashes=(Crash(peer=gone, at_s=late_s, back_s=None),))


# --- equal seeds, equal traces --------------------------------------------------------------------------------------


def test_trace__is_equal_for_equal_seeds_and_differs_for_others() -> None:
    first, again, other = (run_world("storm", seed=seed).trace for seed in (3, 3, 4))

    assert first == again != other


def test_trace__is_equal_under_another_hash_seed() -> None:
    """Issue: the same trace for the same seed, also in another process under another PYTHONHASHSEED."""
    program = (
        "import json; from tests.sim.worlds import run_world; from learnae.sim.summary import summarise;"
        "print(json.dumps(summarise(run_world('storm', seed=3, peers=8, shared_slices=3))))"
    )
    summaries = []
    for hash_seed in ("1", "77"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"}
        done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True, cwd=ROOT)
        summaries.append(json.loads(done.stdout))

    assert summaries[0] == summaries[1] == json.loads(json.dumps(summarise(run_world("storm", seed=3, peers=8, shared_slices=3))))


# --- kills ----------------------------------------------------------------------------------------------------------

SHORT = Scenario(name="short", about="", peers=4, cycles=20, link=Link(loss=0.1))


def count_events(host: int) -> int:
    counted = [0]

    def observe(world: World, at: Host, event: ev.Event, effects: list[ev.Effect]) -> None:
        counted[0] += at.index == host

    run_world(SHORT, observe=observe)
    return counted[0]


def test_kill__after_any_event_repeats_nothing_and_settles() -> None:
    """Threats, kill at any point: one peer is killed after its k-th event and comes back two seconds later, for many k."""
    total = count_events(1)
    assert total > 100
    for kill in range(1, total, max(1, total // 40)):
        seen = [0]

        def observe(world: World, at: Host, event: ev.Event, effects: list[ev.Effect], seen: list[int] = seen, kill: int = kill) -> None:
            seen[0] += at.index == 1
            if at.index == 1 and seen[0] == kill:
                world.crash(1, back_after_s=2.0)

        world = run_world(SHORT, observe=observe)
        assert world.hosts[1].incarnation == 1, f"killed after event {kill}"


def test_kill__between_any_two_effects_repeats_nothing_and_settles(monkeypatch: pytest.MonkeyPatch) -> None:
    """What happens on a kill between these two lines: nothing half-published, half-paid or signed twice."""
    carry_out = World._carry_out
    for kill in range(3, 400, 13):
        seen = [0]

        def carry_out_and_kill(world: World, host: Host, effect: Any, seen: list[int] = seen, kill: int = kill) -> None:
            carry_out(world, host, effect)
            seen[0] += host.index == 1
            if host.index == 1 and seen[0] == kill:
                world.crash(1, back_after_s=2.0)

        monkeypatch.setattr(World, "_carry_out", carry_out_and_kill)
        world = run_world(SHORT)
        assert world.hosts[1].incarnation <= 1


def test_kill__everybody_at_once_and_they_come_back() -> None:
    crashes = tuple(Crash(peer=peer, at_s=12, back_s=14 + peer) for peer in range(6))

    run_world("calm", crashes=crashes)


# --- an equivocator ---------------------------------------------------------------------------------------------------


class Equivocator:
    """Peer 0, from some vertex on, tells one half of the network another story under the same numbers, with receipts in both."""

    def __init__(self, *, from_number: int) -> None:
        self.from_number = from_number
        self.rival: Vertex | None = None

    def __call__(self, world: World, at: Host, event: ev.Event, effects: list[ev.Effect]) -> None:
        if at.index != 0 or at.peer is None:
            return
        key = SigningKey(hashlib.sha256(f"learnae simulation {world.seed} 0".encode()).digest())
        for effect in effects:
            vertex = at.peer.lane.dag.get(effect.cid) if isinstance(effect, ev.PublishVertex) else None
            if vertex is None or vertex.sequence < self.from_number:
                continue
            previous = vertex.parents[0] if self.rival is None else self.rival.cid
            self.rival = create_vertex(
                net=vertex.net, parents=(previous,), issuer=at.name, sequence=vertex.sequence,
                time_ms=vertex.time_ms, kind=int(Kind.DEPARTED),
                body=["another story"], sign=lambda message: key.sign(message).signature,
            )  # fmt: skip
            for other in world.hosts[1::2]:
                if other.peer is not None:
                    world._push(other, 0.001, ev.VertexReceived(at.name, self.rival.encoded))


@pytest.mark.parametrize("seed", range(1, 7))
@pytest.mark.parametrize("name", ["calm", "partition", "lossy", "churn"])
def test_equivocator__is_frozen_equally_and_the_session_settles(name: str, seed: int) -> None:
    """Attack, equivocation: two vertices with one number to two halves of the network, also across a partition and crashes."""
    world = make_world(name, seed=seed, peers=7, observe=Equivocator(from_number=2 + seed))
    world.run()

    honest = [host.peer for host in world.hosts[1:] if host.peer is not None]
    assert {str(peer.lane.ledger.rows()) for peer in honest} == {str(honest[0].lane.ledger.rows())}
    forks = {None if fork is None else fork.sequence for fork in (peer.lane.dag.fork(world.hosts[0].name) for peer in honest)}
    assert len(forks) == 1 and forks != {None}
    assert all(host.finished for host in world.hosts[1:])
    assert not any(seat.rejected for seat in world.chain.fund.seats[1:])


# --- late reports -------------------------------------------------------------------------------------------------------


class LateReporter:
    """Peer 0 never closes its row and reports one help a second all through the claiming stage."""

    def __call__(self, world: World, at: Host, event: ev.Event, effects: list[ev.Effect]) -> None:
        peer = at.peer
        if at.index != 0 or peer is None:
            return
        peer._close = lambda now_s: []  # type: ignore[method-assign]
        if not isinstance(event, ev.ChainRead) or event.view.stage is not Stage.CLAIMING or at.finished:
            return
        row = peer.lane.ledger.row(peer.me)
        known = [c for c in peer.cycle.market.all() if not peer.lane.ledger.has_credited(peer.me, c.announcement)]
        if known:
            receipt = HelpReported(
                helper=known[0].issuer, announcement=known[0].announcement, before=world.initial, after=world.initial, correct_before=0,
                correct_after=1, total=100, credits=Credits(10_000), owed=Credits(row.credits.get(known[0].issuer, 0) + 10_000),
            )  # fmt: skip
            vertex = peer.lane.issue(receipt, now_ms=int(world.now_s * 1000)).vertex
            at.vertices.append((vertex.cid, vertex.encoded))
            world._publish(at, vertex.encoded)


@pytest.mark.parametrize("rule", ["raw", "budgeted"])
@pytest.mark.parametrize("seed", range(1, 5))
def test_late_reporter__makes_no_honest_claim_wrong(seed: int, rule: str) -> None:
    """Attack, flood before the deadline: with slow links everybody claims from another ledger; each claim commits its own."""
    slow = Link(delay_min_s=0.05, delay_max_s=1.5)
    world = make_world("calm", seed=seed, peers=7, cycles=20, link=slow, reward_rule=rule, observe=LateReporter())
    world.run()

    seats = world.chain.fund.seats
    assert [seat.nays for seat in seats] == [0] * 7
    assert len({seat.claim.points for seat in seats if seat.claim is not None}) > 1
    assert all(host.finished for host in world.hosts)


# --- dataslices -------------------------------------------------------------------------------------------------------


def test_slices__uses_stay_below_the_threshold_plus_the_peers_in_flight() -> None:
    """4.1: races are bounded: uses <= threshold + peers that were in flight."""
    world = make_world("calm", shared_slices=4, cycles=25)
    threshold = 3
    for host in world.hosts:
        host.make_peer = _with_threshold(host.make_peer, threshold)
    world.run()

    uses: dict[bytes, int] = {}
    peer = world.hosts[0].peer
    assert peer is not None
    for issuer in peer.lane.dag.have_vector():
        for vertex in peer.lane.dag.chain(issuer):
            message = parse_message(vertex.kind, vertex.body) if vertex.kind == Kind.DATASLICE_CONSUMED else None
            if isinstance(message, DatasliceConsumed):
                for cid in message.slices:
                    uses[cid] = uses.get(cid, 0) + 1
    assert uses and max(uses.values()) >= threshold
    assert max(uses.values()) <= threshold + 2 * (len(world.hosts) - 1)  # of each other peer one under way, one not heard of yet


def _with_threshold(make_peer: Any, threshold: int) -> Any:
    def make(rng: Any) -> Any:
        peer = make_peer(rng)
        peer.cycle.shelf.overuse_threshold = threshold
        return peer

    return make


def test_slices__travel_only_if_opened() -> None:
    """Threats, privacy: raw data leaves only where it was opted in."""
    world = run_world("calm")

    assert all(host.peer is not None and not host.peer.cycle.shelf.shared for host in world.hosts)
    shared = run_world("calm", shared_slices=3)
    assert all(host.peer is not None and len(host.peer.cycle.shelf.shared) == 18 for host in shared.hosts)


# --- the checkers find what is broken --------------------------------------------------------------------------------


def break_and_run(name: str = "calm", **options: Any) -> InvariantBrokenError:
    with pytest.raises(InvariantBrokenError) as caught:
        run_world(name, **options)
    return caught.value


def test_checker__names_the_command_that_repeats_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """A failing run prints its seed."""
    monkeypatch.setattr(PaperPolicy, "accepts", lambda self, average, *, best_correct: True)

    error = break_and_run("lossy", policy="paper", seed=7)

    assert "lost accuracy by an adoption" in str(error)
    assert error.command.startswith("learnae sim run lossy --seed 7 --peers 6 --cycles 15") and error.command in str(error)


def test_checker__sees_a_number_signed_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """A peer that forgets its log at a restart signs its numbers again."""
    monkeypatch.setattr(ControlLane, "restore", lambda self, vertices: iter(()))

    assert "signed two vertices with number 1" in str(break_and_run("crash"))


def test_checker__sees_ledgers_that_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    receive = ControlLane.receive_page

    def deaf(self: ControlLane, page: Any, *, now_ms: int) -> Any:
        return receive(self, [item for item in page if self._me[0] % 2 or sum(item[1][-8:]) % 5], now_ms=now_ms)

    monkeypatch.setattr(ControlLane, "receive_page", deaf)

    assert any(words in str(break_and_run()) for words in ("has another ledger than", "was rejected"))


def test_checker__sees_money_that_is_created(monkeypatch: pytest.MonkeyPatch) -> None:
    due = SessionFund.compute_due
    monkeypatch.setattr(SessionFund, "compute_due", lambda self, wallet, now_s: Wei(due(self, wallet, now_s) * 2))

    assert "the contract paid" in str(break_and_run())


def test_checker__sees_honest_claims_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    def slander(claims: Any, membership: Any, accepted: Any, committed: Any, *, me: int, members: int) -> tuple[int, ...]:
        return tuple(claim.index for claim in claims if claim.index != me)[:2]  # Of five others more cannot be rejected.

    monkeypatch.setattr("learnae.protocol.settlement.compute_nays", slander)

    assert "was rejected" in str(break_and_run())


def test_checker__sees_a_session_that_is_stuck(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: SessionFund, *arguments: object) -> None:
        raise FundError("NotToday")

    monkeypatch.setattr(SessionFund, "tally", refuse)

    assert "has not finished in stage settling" in str(break_and_run())


def test_checker__sees_a_shelf_that_grows(monkeypatch: pytest.MonkeyPatch) -> None:
    trained = WorkCycle._trained

    def hoard(self: WorkCycle, task: Any, event: Any) -> Any:
        self.shelf.queue += [self.local.cid] * 5000 if self.local is not None else []
        return trained(self, task, event)

    monkeypatch.setattr(WorkCycle, "_trained", hoard)
    monkeypatch.setattr(DatasliceShelf, "take", lambda self, count, rng: ((0,), ()))

    assert "keeps more dataslices" in str(break_and_run())


# --- summary and names ------------------------------------------------------------------------------------------------


def test_scenario__unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(UnknownScenarioError, match="there is no scenario 'clam'; choose one of calm, "):
        find_scenario("clam")


def test_summary__is_plain_and_pure() -> None:
    world = run_world("crash")

    summary = summarise(world)

    assert json.loads(json.dumps(summary)) == summary == summarise(world)
    assert (summary["scenario"], summary["seed"], summary["peers_count"], summary["cycles"]) == ("crash", 1, 6, 15)
    assert [peer["role"] for peer in summary["peers"]] == ["honest", "restarted", "gone", "honest", "honest", "honest"]
    assert summary["trace"] == world.trace and summary["stage"] == "released"
    assert 0 < summary["accuracy_min"] <= summary["accuracy_median"] <= summary["accuracy_max"] <= 1


def test_summary__reads_well_in_a_terminal() -> None:
    text = format_summary(summarise(run_world("calm", peers=22, cycles=15)))

    assert "calm, seed 1: 22 peers" in text and "ledgers   equal" in text and "and 2 more (--json shows all)" in text
    assert max(map(len, text.splitlines())) <= 100


# --- hostile peers --------------------------------------------------------------------------------------------------


class Overclaimer(Peer):
    """Claims a thousand times what it is due."""

    def handle(self, event: ev.Event, now_s: float) -> list[ev.Effect]:
        return [
            replace(effect, call=SubmitClaim(1000 * effect.call.points, effect.call.evidence))
            if isinstance(effect, ev.SubmitTransaction | ev.SignCall) and isinstance(effect.call, SubmitClaim)
            else effect
            for effect in super().handle(event, now_s)
        ]


def test_hostile_peer__loses_its_claim_and_the_promises_to_all_others_are_checked() -> None:
    """6: an over-claim is voted down without tolerance; of a hostile peer the checker expects nothing."""
    world = make_world("calm", peers=5, cycles=25, peer_types={0: Overclaimer})
    world.run()
    world.checker.check_end()

    assert [seat.rejected for seat in world.chain.fund.seats if seat.wallet == world.chain.wallets[world.hosts[0].name]] == [True]


def test_hostile_peer__that_is_taken_for_honest_breaks_a_promise() -> None:
    """The neighbour: the same run, without saying that the peer is hostile, ends in an error."""
    world = make_world("calm", peers=5, cycles=25, peer_types={0: Overclaimer})
    world.hostile = frozenset()
    world.run()

    with pytest.raises(InvariantBrokenError, match="was rejected"):
        world.checker.check_end()
