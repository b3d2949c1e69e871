"""What must hold at every moment of every simulated run, and at its end. A broken promise stops the run with the way to repeat it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from learnae.errors import InvariantBrokenError
from learnae.ids import Cid, PeerId, short_name
from learnae.protocol import events as ev
from learnae.protocol.calls import CastBallot, Signable, Stage, SubmitClaim
from learnae.protocol.dataslices import QUEUE_MAX, SHARED_SLICES_MAX
from learnae.sim.conditions import format_command
from learnae.sim.host import UNPINNED_FILES_MAX, Host
from learnae.tangle.dag import ORPHAN_BYTES_MAX

if TYPE_CHECKING:
    from learnae.sim.world import World


class Checker:
    """Watches one world. Each check costs little, because it looks only at the host that the event came to."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._published: dict[tuple[PeerId, int], Cid] = {}
        self._accuracy: dict[int, int] = {}
        self._signed: dict[tuple[PeerId, type[Signable]], Signable] = {}

    def check_event(self, host: Host, event: ev.Event, effects: list[ev.Effect]) -> None:
        """After one event of one host; nothing is promised of a hostile one. Raises: InvariantBrokenError."""
        if host.index in self._world.hostile:
            return
        heard = type(event) is ev.VerticesReceived or type(event) is ev.VertexReceived
        if heard and len(effects) <= 1 and host.peer is not None and host.peer.lane.dag.orphans.used_bytes <= ORPHAN_BYTES_MAX:
            return  # A verdict, or vertices to save, and nothing else.
        fault = next(self._find_faults(host, event, effects), None)
        if fault is not None:
            self._fail(host, fault)

    def check_end(self) -> None:
        """After the run. Raises: InvariantBrokenError."""
        world = self._world
        fund, stage = world.chain.fund, world.chain.fund.compute_stage(int(world.now_s))
        honest = [host for host in world.hosts if host.peer is not None and host.index not in world.hostile]
        for host in honest:
            if not host.finished or host.fault:
                self._fail(host, f"has not finished in stage {stage.value}: {host.fault or 'still waiting'}")
            if fund.compute_due(world.chain.wallets[host.name], int(world.now_s)):
                self._fail(host, "was not paid what it is due")
        for host in honest[1:]:
            assert host.peer is not None and honest[0].peer is not None
            if host.peer.lane.ledger.rows() != honest[0].peer.lane.ledger.rows():
                self._fail(host, f"has another ledger than {short_name(honest[0].name)}")
        paid = sum(world.chain.paid_wei.values())
        if stage is Stage.RELEASED:
            gone = [host for host in world.hosts if host.peer is None or host.index in world.hostile]
            owed = sum(fund.compute_due(world.chain.wallets[host.name], int(world.now_s)) for host in gone)
            if not 0 <= fund.fund_wei - paid - owed < len(fund.seats):
                self._fail(world.hosts[0], f"fund {fund.fund_wei} wei, paid {paid}, still due {owed}: more than dust is missing")
            hostile = {world.chain.wallets[world.hosts[index].name] for index in world.hostile}
            wrong = [seat.wallet for seat in fund.seats if seat.rejected and seat.wallet not in hostile]
            if wrong:
                self._fail(world.hosts[0], f"the honest claim of {wrong[0]} was rejected")

    def _find_faults(self, host: Host, event: ev.Event, effects: list[ev.Effect]) -> Iterator[str]:
        world, peer = self._world, host.peer
        assert peer is not None
        for effect in effects:
            if isinstance(effect, ev.PublishVertex):
                vertex = peer.lane.dag.get(effect.cid)
                assert vertex is not None
                known = self._published.setdefault((vertex.issuer, vertex.sequence), effect.cid)
                if known != effect.cid:
                    yield f"signed two vertices with number {vertex.sequence}"
            elif isinstance(effect, ev.SignCall | ev.SubmitTransaction) and isinstance(effect.call, SubmitClaim | CastBallot):
                first = self._signed.setdefault((host.name, type(effect.call)), effect.call)
                if first != effect.call:
                    yield f"signed two different {type(effect.call).__name__}"
        local = peer.cycle.local
        if isinstance(event, ev.ModelTrained | ev.ModelsAveraged | ev.ModelEvaluated) and local is not None:
            before = self._accuracy.get(host.index, 0)
            if isinstance(event, ev.ModelsAveraged) and world.rules.policy == "paper" and local.correct < before:
                yield "lost accuracy by an adoption under the paper's rule"
            self._accuracy[host.index] = local.correct
            if len(host.files) > len(host.pins) + UNPINNED_FILES_MAX:
                yield f"keeps {len(host.files)} files"
        if peer.lane.dag.orphans.used_bytes > ORPHAN_BYTES_MAX:
            yield "keeps more orphans than it should"
        if len(peer.cycle.shelf.queue) > QUEUE_MAX + 1024 or len(peer.cycle.shelf.shared) > SHARED_SLICES_MAX:
            yield "keeps more dataslices than it should"
        if isinstance(event, ev.TransactionConfirmed):
            yield from self._find_money_faults()

    def _find_money_faults(self) -> Iterator[str]:
        chain = self._world.chain
        now_s = int(self._world.now_s)
        paid = sum(chain.paid_wei.values())
        owed = sum(chain.fund.compute_due(seat.wallet, now_s) for seat in chain.fund.seats)
        if paid + owed > chain.fund.fund_wei:
            yield f"the contract paid {paid} wei and owes {owed}, it has {chain.fund.fund_wei}"
        if sum(chain.tipped_wei.values()) != 0:
            yield "tips created or lost money"

    def _fail(self, host: Host, fault: str) -> None:
        world = self._world
        what = f"peer {host.index} ({short_name(host.name)}) {fault}, at {world.now_s:.3f} s"
        raise InvariantBrokenError(what, format_command(world.scenario, world.seed))
