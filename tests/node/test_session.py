"""Whole sessions of three nodes in one process: the runtime, the core and the backends in memory together."""

from __future__ import annotations

from pathlib import Path

import trio

from learnae.errors import LearnerDiedError
from learnae.learning.immediate import PlainLearner
from learnae.learning.synthetic import SyntheticLearner
from learnae.protocol.calls import Call, ChainView
from learnae.protocol.measures import Evaluation
from tests.node.bed import Bed, fold, run_fast, select_vertices

NAMES = ("ada", "ben", "cleo")


async def run_all(bed: Bed, learners: dict[str, PlainLearner | None]) -> None:
    await bed.open()
    async with trio.open_nursery() as nursery:
        for name, learner in learners.items():
            await bed.start(name, nursery, learner=learner)


def make_learners() -> dict[str, PlainLearner | None]:
    return {name: SyntheticLearner(index, shared_slices=2) for index, name in enumerate(NAMES)}


def check_ledgers(bed: Bed, names: tuple[str, ...] = NAMES) -> None:
    ledgers = [fold(bed.machines[name].journal, bed.rules) for name in names]
    assert all(ledger == ledgers[0] for ledger in ledgers)
    assert ledgers[0], "somebody was helped"


def test_session__three_nodes_train_and_are_paid_in_real_time(tmp_path: Path) -> None:
    """Issue, main job: funding, training, claims, votes, release; the payouts are the fund, the ledgers are equal."""

    async def main() -> None:
        bed = Bed(tmp_path, training_s=4)
        await run_all(bed, make_learners())
        view = await bed.check_settled()
        assert len(view.claims) >= 1
        assert view.approved == {claim.index for claim in view.claims}, "honest claims are approved"
        check_ledgers(bed)
        for name in NAMES:
            assert bed.machines[name].events("trained")
            assert not bed.machines[name].troubles()

    trio.run(main)


def test_session__killed_node_goes_on_from_its_journal_and_repeats_no_number(tmp_path: Path) -> None:
    """Architecture, Persistence: what was acknowledged is kept; the others see one unbroken log."""

    async def main() -> None:
        bed = Bed(tmp_path, training_s=8)
        await bed.open()
        learners = make_learners()
        async with trio.open_nursery() as nursery:
            await bed.start("ada", nursery, learner=learners["ada"])
            await bed.start("ben", nursery, learner=learners["ben"])
            _, scope = await bed.start("cleo", nursery, learner=learners["cleo"])
            cleo = bed.machines["cleo"]
            await bed.wait_for(lambda: len(cleo.events("trained")) >= 2)
            scope.cancel()
            before = select_vertices(cleo.journal.vertices(), issuer=cleo.peer_id)
            told = len(cleo.told)
            node, _ = await bed.start("cleo", nursery, learner=learners["cleo"])
            await bed.wait_for(lambda: len(cleo.told) > told)
            local = node._peer.cycle.local
            assert local is not None and local.maturity_cycles >= 2, "its model was not forgotten"
            assert not [tell for tell in cleo.told[told:] if tell.values.get("event") == "opened"]
        view = await bed.check_settled()
        assert len(view.members) == 3
        check_ledgers(bed)
        for name in NAMES:
            seen = select_vertices(bed.machines[name].journal.vertices(), issuer=cleo.peer_id)
            assert sorted(vertex.sequence for vertex in seen) == list(range(1, len(seen) + 1)), "no number twice, none missing"
            assert {vertex.cid for vertex in before} <= {vertex.cid for vertex in seen}

    run_fast(main)


def test_session__settles_with_one_member_gone_for_good(tmp_path: Path) -> None:
    """Issue: with any one peer gone the session still settles, and the one who is gone is paid like the others."""

    async def main() -> None:
        bed = Bed(tmp_path)
        await bed.open()
        learners = make_learners()
        async with trio.open_nursery() as nursery:
            _, scope = await bed.start("cleo", nursery, learner=learners["cleo"])
            await bed.start("ada", nursery, learner=learners["ada"])
            await bed.start("ben", nursery, learner=learners["ben"])
            await bed.wait_for(lambda: len(bed.machines["cleo"].events("trained")) >= 1)
            scope.cancel()
            await bed.hub.leave(bed.machines["cleo"].peer_id)
        view = await bed.check_settled()
        assert len(view.members) == 3
        check_ledgers(bed, ("ada", "ben"))

    run_fast(main)


def test_session__member_without_a_task_votes_and_gets_its_part(tmp_path: Path) -> None:
    """`learnae join` without --task: it relays, keeps the ledger, votes, and trains nothing."""

    async def main() -> None:
        bed = Bed(tmp_path)
        await run_all(bed, {**make_learners(), "cleo": None})
        view = await bed.check_settled()
        cleo = bed.machines["cleo"]
        index = next(member.index for member in view.members if member.wallet == cleo.wallet)
        assert index in view.ballots
        assert not cleo.events("trained")
        check_ledgers(bed)

    run_fast(main)


class FrailLearner(SyntheticLearner):
    """Its worker dies in the first three trainings."""

    deaths = 0

    def train(self, model: bytes, **options: object) -> tuple[bytes, Evaluation]:
        if self.deaths < 3:
            self.deaths += 1
            raise LearnerDiedError("was ended by signal 11", "Segmentation fault")
        return super().train(model, **options)  # type: ignore[arg-type]


def test_session__node_goes_on_when_its_learner_dies(tmp_path: Path) -> None:
    """Our worker's death is told, blames nobody, and is not the node's."""

    async def main() -> None:
        bed = Bed(tmp_path)
        learner = FrailLearner(2)
        await run_all(bed, {**make_learners(), "cleo": learner})
        assert learner.deaths == 3
        cleo = bed.machines["cleo"]
        assert any("was ended by signal 11" in text for text in cleo.troubles())
        assert cleo.events("trained")
        await bed.check_settled()

    run_fast(main)


def test_session__chain_that_is_down_for_a_while_delays_but_loses_nothing(tmp_path: Path) -> None:
    """The `Chain` port waits for a node that is down; training and gossip go on meanwhile."""

    async def main() -> None:
        bed = Bed(tmp_path, training_s=7)
        await bed.open()
        learners = make_learners()
        async with trio.open_nursery() as nursery:
            for name in ("ada", "ben"):
                await bed.start(name, nursery, learner=learners[name])
            parts = await bed.parts("cleo", learner=learners["cleo"])
            outage = Outage(parts.chain)
            object.__setattr__(parts, "chain", outage)
            cleo = bed.machines["cleo"]
            node = bed.node(parts)
            nursery.start_soon(node.run)
            await bed.wait_for(lambda: len(cleo.events("trained")) >= 1)
            outage.up = trio.Event()
            await bed.wait_for(lambda: outage.waiting > 0)
            trained = len(cleo.events("trained"))
            await bed.wait_for(lambda: len(cleo.events("trained")) > trained)  # It trains on with what it knows of the chain.
            outage.up.set()
        view = await bed.check_settled()
        assert len(view.ballots) == 3
        check_ledgers(bed)

    run_fast(main)


class Outage:
    """A chain that can be down: its methods wait, as `EthereumChain` does."""

    def __init__(self, chain: object) -> None:
        self._chain = chain
        self.up = trio.Event()
        self.up.set()
        self.waiting = 0

    async def read(self, session: str) -> ChainView:
        return await self._pass("read", session)  # type: ignore[return-value]

    async def submit(self, session: str, call: Call) -> object:
        return await self._pass("submit", session, call)

    async def _pass(self, name: str, *arguments: object) -> object:
        self.waiting += 1
        await self.up.wait()
        self.waiting -= 1
        return await getattr(self._chain, name)(*arguments)

    def __getattr__(self, name: str) -> object:
        return getattr(self._chain, name)
