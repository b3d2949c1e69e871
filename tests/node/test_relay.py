"""Relaying in running nodes: one transaction for all, also over a kill; a node whose relayers leave it out sends its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from learnae.backends.memory_chain import MemoryChain
from learnae.ids import Address
from learnae.learning.synthetic import SyntheticLearner
from learnae.ports import Receipt
from learnae.protocol.calls import RELAY_GAS_MAX, Call, CastBallot, CastGrouped, ClaimBatch, Signable, SubmitClaim
from learnae.protocol.messages import Kind
from tests.node.bed import Bed, run_fast, select_vertices

NAMES = ("ada", "ben", "cleo")
Change = Callable[[Call], Call]


class WatchedChain(MemoryChain):
    """One wallet's chain that notes what it sends, changes it before, and counts gas as a real one would."""

    def __init__(self, bed: Bed, name: str, sent: list[tuple[str, Call]], change: Change) -> None:
        machine = bed.machine(name)
        super().__init__(bed.ledger, machine.wallet, machine.peer_id)
        self.name, self.sent, self.change = name, sent, change
        self.signed: list[Signable] = []

    async def sign(self, session: Address, call: Signable) -> bytes:
        self.signed.append(call)
        return await super().sign(session, call)

    async def submit(self, session: Address, call: Call) -> Receipt:
        receipt = await super().submit(session, self.change(call))
        self.sent.append((self.name, call))
        return replace(receipt, gas_used=100_000)


class Session:
    """Three nodes that settle within stages of 20 s by a fast clock."""

    def __init__(self, folder: Path, *, relay_gas_max: int = RELAY_GAS_MAX, change: Change = lambda call: call) -> None:
        self.bed = Bed(folder)
        ends_s = self.bed.rules.training_ends_s
        self.bed.rules = replace(self.bed.rules, claiming_ends_s=ends_s + 20, voting_ends_s=ends_s + 40)
        self.relay_gas_max, self.change = relay_gas_max, change
        self.sent: list[tuple[str, Call]] = []
        self.chains: dict[str, list[WatchedChain]] = {name: [] for name in NAMES}

    async def start(self, name: str, nursery: trio.Nursery) -> trio.CancelScope:
        learner = SyntheticLearner(NAMES.index(name))
        parts = await self.bed.parts(name, learner=learner, relay_gas_max=self.relay_gas_max)
        chain = WatchedChain(self.bed, name, self.sent, self.change)
        self.chains[name].append(chain)
        node, scope = self.bed.node(replace(parts, chain=chain)), trio.CancelScope()

        async def run() -> None:
            with scope:
                assert await node.run() == ""

        nursery.start_soon(run)
        return scope

    async def run(self) -> None:
        await self.bed.open()
        async with trio.open_nursery() as nursery:
            for name in NAMES:
                await self.start(name, nursery)
        view = await self.bed.check_settled()
        assert view.approved == {claim.index for claim in view.claims} and len(view.ballots) == 3

    def of(self, *kinds: type[Call]) -> list[tuple[str, Call]]:
        return [(name, call) for name, call in self.sent if isinstance(call, kinds)]


def test_nodes__settle_with_one_transaction_for_all_claims_and_one_for_all_ballots(tmp_path: Path) -> None:
    """Issue: each node collects what arrives by gossip and sends it in groups; everybody's own is the deposit."""

    async def main() -> None:
        session = Session(tmp_path)
        await session.run()
        votes = session.of(CastGrouped, CastBallot)
        assert [len(call.ballots) for _, call in votes if isinstance(call, CastGrouped)] == [3] and len(votes) == 1
        claims = session.of(ClaimBatch, SubmitClaim)
        assert len(claims) == 1, "one group, or the plain call of a single claimant"
        mined = [tell.values for machine in session.bed.machines.values() for tell in machine.events("mined")]
        assert sum(values["call"] == "CastGrouped" and values["gas"] == 100_000 for values in mined) == 1

    run_fast(main)


def test_nodes__that_do_not_relay_send_their_own(tmp_path: Path) -> None:
    """`relay_gas_max` 0, or `relay` false: nothing is sent for others, and nothing is lost."""

    async def main() -> None:
        session = Session(tmp_path, relay_gas_max=0)
        await session.run()
        assert not session.of(ClaimBatch, CastGrouped)
        assert sorted(name for name, _ in session.of(CastBallot)) == list(NAMES)

    run_fast(main)


def test_node__that_all_relayers_leave_out_sends_its_own(tmp_path: Path) -> None:
    """Issue: a member whose relayers refuse sends its own transaction."""

    async def main() -> None:
        session = Session(tmp_path)
        victim = session.bed.machine("ben").wallet

        def censor(call: Call) -> Call:
            match call:
                case ClaimBatch(claims):
                    return ClaimBatch(tuple(item for item in claims if item.member != victim))
                case CastGrouped(nays, ballots):
                    return CastGrouped(nays, tuple(item for item in ballots if item.member != victim))
            return call

        session.change = censor
        await session.run()
        assert [name for name, _ in session.of(CastBallot)] == ["ben"]

    run_fast(main)


@pytest.mark.parametrize("moment", ["asked", "published"])
def test_node__killed_around_its_signature_signs_the_same_ballot_once_more_and_publishes_one(tmp_path: Path, moment: str) -> None:
    """Persistence: the ballot is on disk before it is signed, and in the log before the others hear it."""

    async def main() -> None:
        session = Session(tmp_path, relay_gas_max=0)  # So that the ballots are still open when it comes back.
        await session.bed.open()
        async with trio.open_nursery() as nursery:
            for name in NAMES[:2]:
                await session.start(name, nursery)
            scope = await session.start("cleo", nursery)
            cleo = session.bed.machine("cleo")

            def signed() -> list[Signable]:
                return [call for chain in session.chains["cleo"] for call in chain.signed if isinstance(call, CastBallot)]

            def published() -> list[object]:
                log = select_vertices(cleo.journal.vertices(), issuer=cleo.peer_id)
                return [vertex.body for vertex in log if vertex.kind == Kind.BALLOT_SIGNED]

            await session.bed.wait_for(lambda: bool(signed() if moment == "asked" else published()), limit_s=120)
            scope.cancel()
            await session.start("cleo", nursery)
        assert len(published()) == 1
        assert len(set(signed())) == 1 and len(signed()) <= (2 if moment == "asked" else 1)
        await session.bed.check_settled()

    run_fast(main)
