"""Relayed claims and ballots in whole simulated sessions: losses, relayers that leave members out, die or refuse, and junk."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import pytest

from learnae.errors import InvariantBrokenError
from learnae.ids import Address, PeerId
from learnae.protocol import events as ev
from learnae.protocol.calls import Call, CastBallot, CastGrouped, ClaimBatch, Signable, Stage, SubmitClaim
from learnae.protocol.settlement import Settlement
from learnae.sim.scenario import Crash, find_scenario
from learnae.sim.summary import summarise
from learnae.sim.world import World
from tests.sim.worlds import make_world

Execute = Callable[[PeerId, Call, int], Address | None]


class Watch:
    """Records what reached the chain, and may change or hold back what a peer sends before it does."""

    def __init__(self, world: World, change: Callable[[World, int, Call], Call | None] | None = None) -> None:
        self.world, self.change = world, change
        self.calls: list[tuple[int, Call]] = []
        self._execute: Execute = world.chain.execute
        world.chain.execute = self.execute  # type: ignore[method-assign]

    def execute(self, peer: PeerId, call: Call, now_s: int) -> Address | None:
        index = self.world.index_of[peer]
        changed = call if self.change is None else self.change(self.world, index, call)
        if changed is None:
            return None  # It never left the machine.
        self.calls.append((index, changed))
        return self._execute(peer, changed, now_s)

    def count(self, *kinds: type[Call]) -> Counter[str]:
        return Counter(type(call).__name__ for _, call in self.calls if isinstance(call, kinds))


SETTLING = (ClaimBatch, CastGrouped, SubmitClaim, CastBallot)


def settle(world: World, change: Callable[[World, int, Call], Call | None] | None = None) -> Watch:
    """Run to the end; every member claimed what it had to and voted, and every honest claim was approved."""
    watch = Watch(world, change)
    world.run()
    world.checker.check_end()
    fund = world.chain.fund
    assert fund.compute_stage(int(world.now_s)) is Stage.RELEASED
    assert summarise(world)["ledgers_equal"]
    return watch


def count_helpers(world: World) -> int:
    """Members that helped somebody: the others have nothing to claim."""
    return sum(peer["help_given"] > 0 for peer in summarise(world)["peers"])


def test_calm_session__members_send_nothing_but_their_joining() -> None:
    """dao.md: one transaction carries all claims, one all ballots; a member's own transaction is the deposit."""
    world = make_world("calm", peers=20)
    watch = settle(world)

    assert watch.count(*SETTLING) == {"ClaimBatch": 1, "CastGrouped": 1}
    fund = world.chain.fund
    assert len(fund.seats) == fund.ballots == 20 and fund.claims == count_helpers(world) >= 15
    own = Counter(peer["transactions"] for peer in summarise(world)["peers"])
    assert own[2] >= 16, "the proof of identity and the deposit; four at most relayed, counted or released"


@pytest.mark.parametrize("seed", range(1, 5))
@pytest.mark.parametrize("name", ["lossy", "storm"])
def test_lossy_session__is_settled_by_few_transactions(name: str, seed: int) -> None:
    """Gossip that is lost is repaired by sync: the last claims come in a second or third group."""
    world = make_world(name, seed=seed, peers=12)
    watch = settle(world)

    expected = world.hosts[0].peer.dao.settlement.snapshot  # type: ignore[union-attr]
    assert world.chain.fund.claims == sum(points > 0 for points in expected.values()) and world.chain.fund.ballots == 12  # type: ignore[union-attr]
    assert watch.count(*SETTLING).total() <= 10


def test_nobody_relays__everybody_sends_its_own() -> None:
    """Issue: a member whose relayers refuse sends its own transaction."""
    world = make_world("calm", relay_gas_max=0)
    watch = settle(world)

    assert watch.count(*SETTLING) == {"SubmitClaim": count_helpers(world), "CastBallot": 6}
    assert world.chain.fund.ballots == 6


def leave_out(*victims: int) -> Callable[[World, int, Call], Call | None]:
    """All relayers drop these members' claims and ballots."""

    def change(world: World, sender: int, call: Call) -> Call | None:
        wallets = {world.chain.wallets[world.hosts[index].name] for index in victims}
        match call:
            case ClaimBatch(claims):
                return ClaimBatch(tuple(item for item in claims if item.member not in wallets))
            case CastGrouped(nays, ballots):
                return CastGrouped(nays, tuple(item for item in ballots if item.member not in wallets))
        return call

    return change


def test_censored_members__send_their_own_in_time() -> None:
    """Also when all relayers leave them out; the others are not delayed by it."""
    world = make_world("calm", peers=8)
    watch = settle(world, leave_out(2, 5))

    own = {(index, type(call).__name__) for index, call in watch.calls if isinstance(call, SubmitClaim | CastBallot)}
    assert own == {(index, kind) for index in (2, 5) for kind in ("SubmitClaim", "CastBallot")}
    assert world.chain.fund.claims == count_helpers(world) and world.chain.fund.ballots == 8


def test_one_censor__is_passed_over_by_the_next_relayer() -> None:
    """Who is first and leaves a member out is not first again when the chain has moved; the next one brings it."""
    first: list[int] = []

    def change(world: World, sender: int, call: Call) -> Call | None:
        if isinstance(call, ClaimBatch) and sender in (first or [sender]):
            first[:] = first or [sender]
            return leave_out(*(index for index in (3, 4) if index != sender))(world, sender, call)
        return call

    watch = settle(make_world("calm", peers=8), change)
    assert first and watch.count(SubmitClaim) == {}
    assert len({index for index, call in watch.calls if isinstance(call, ClaimBatch)}) >= 2


@pytest.mark.parametrize("back_after_s", [None, 3.0])
def test_relayers_that_die__are_followed_by_the_next(back_after_s: float | None) -> None:
    """The first two relayers of each kind are killed with their transaction in hand; the session settles all the same."""
    killed: list[tuple[type[Call], int]] = []

    def change(world: World, sender: int, call: Call) -> Call | None:
        same = [kind for kind, _ in killed if isinstance(call, kind)]
        if isinstance(call, ClaimBatch | CastGrouped) and len(same) < 2:
            killed.append((type(call), sender))
            world.crash(sender, back_after_s=back_after_s)
            return None
        return call

    world = make_world("calm", peers=9)
    watch = settle(world, change)
    assert len(killed) == 4 and watch.count(SubmitClaim, CastBallot) == {}
    gone = 0 if back_after_s is not None else len({index for kind, index in killed if kind is ClaimBatch})
    assert world.chain.fund.claims == count_helpers(world) and world.chain.fund.ballots == 9 - gone, "who dies after it signed is counted"


def test_relayer_killed_after_its_transaction__pays_once_and_votes_once() -> None:
    """Restart: what is on the chain is not sent again, what was signed is not signed anew (the checker watches)."""
    killed: list[int] = []
    world = make_world("calm", peers=6)

    def kill(world: World, host: object, event: ev.Event, effects: list[ev.Effect]) -> None:
        calls = [effect.call for effect in effects if isinstance(effect, ev.SubmitTransaction)]
        if any(isinstance(call, ClaimBatch | CastGrouped) for call in calls):
            killed.append(1)
            world.crash(host.index, back_after_s=1.0)  # type: ignore[attr-defined]

    world._observe = kill
    watch = settle(world)
    assert len(killed) == 2 and watch.count(*SETTLING) == {"ClaimBatch": 1, "CastGrouped": 1}


def test_garbage_signatures__cost_their_makers_only() -> None:
    """A member that signs junk is skipped, the others in its group are not; it can still send its own transaction."""
    world = make_world("calm", peers=8)
    sign = world.chain.sign

    def scribble(peer: PeerId, call: Signable) -> bytes:
        return b"\x01" * 64 if world.index_of[peer] in (1, 6) else sign(peer, call)

    world.chain.sign = scribble  # type: ignore[method-assign]
    watch = settle(world)

    own = {(index, type(call).__name__) for index, call in watch.calls if isinstance(call, SubmitClaim | CastBallot)}
    assert own == {(index, kind) for index in (1, 6) for kind in ("SubmitClaim", "CastBallot")}
    assert world.chain.fund.claims == count_helpers(world) and world.chain.fund.ballots == 8


def test_late_member__is_still_heard_and_relayed() -> None:
    """A member that was away when the others claimed hears first what it missed; then its claim is as good as theirs."""
    scenario = find_scenario("calm", peers=6, cycles=15)
    away_s = float(scenario.training_s - 5)
    back = replace(scenario, crashes=(Crash(peer=2, at_s=away_s, back_s=away_s + 25),))
    world = make_world(back)
    settle(world)

    assert world.chain.fund.claims == count_helpers(world) and world.chain.fund.ballots == 6


def test_checker__finds_a_second_ballot(monkeypatch: pytest.MonkeyPatch) -> None:
    """The promise above is watched: a peer that forgets its ballot over a restart is caught."""
    restore = Settlement.restore
    nays = iter(range(100))

    def forget(self: Settlement, record: bytes) -> None:
        restore(self, record)
        self.ballot = None if self.ballot is None else (next(nays),)

    monkeypatch.setattr(Settlement, "restore", forget)
    world = make_world("calm", peers=6, relay_gas_max=0)

    def kill(world: World, host: object, event: ev.Event, effects: list[ev.Effect]) -> None:
        asked = any(isinstance(effect, ev.SignCall) and isinstance(effect.call, CastBallot) for effect in effects)
        if asked and world.hosts[3] is host and not world.hosts[3].incarnation:
            world.crash(host.index, back_after_s=1.0)  # type: ignore[attr-defined]

    world._observe = kill
    with pytest.raises(InvariantBrokenError, match="signed two different CastBallot"):
        world.run()
