"""This peer as a member of the session's DAO: what the chain says, who is a member, what stage it is, which calls to make.

Takes views of the chain and the answers to transactions; the ledger it reads, it does not write. Pure.
Source: paper 4.4 (identity), 6 and Fig. 5 (stages); docs/contracts.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from learnae.ids import Address, PeerId
from learnae.protocol import events as ev
from learnae.protocol.audits import SETTLED_BY_PERMILLE
from learnae.protocol.calls import Call, CastBallot, CastGrouped, ChainView, Claim, ClaimBatch, Signable, Stage, SubmitClaim
from learnae.protocol.committed import compute_known, compute_rows, compute_rows_at
from learnae.protocol.cycle import Phase
from learnae.protocol.deadlines import compute_deadlines
from learnae.protocol.identity import Membership, judge_members
from learnae.protocol.known import Known
from learnae.protocol.lane import ControlLane
from learnae.protocol.relay import Group, Relay, compute_patience_s
from learnae.protocol.rewards import Rows
from learnae.protocol.rules import SessionRules
from learnae.protocol.settlement import KNOWN_BY_PERMILLE, Books, Settlement
from learnae.protocol.signed import BallotSigned, ClaimSigned, to_vertex_cid

RECORD_SETTLEMENT = "settlement"
RECORD_RELAY = "relay"


class DaoMember:
    """Membership, stages and transactions of one peer."""

    def __init__(self, *, rules: SessionRules, me: PeerId, lane: ControlLane, next_number: Callable[[], int], relay_gas_max: int) -> None:
        self._rules = rules
        self._me = me
        self._lane = lane
        self._next_number = next_number
        self.settlement = Settlement(rules, me)
        self.relay = Relay(rules, me, relay_gas_max)
        self.membership = Membership({})
        self.view: ChainView | None = None
        self.finished = False
        self._view_at_s = 0.0
        self._newest_at_s = 0.0
        self._calls: dict[int, Call] = {}
        self._signing: dict[int, Signable] = {}
        self._phase = Phase.WAITING
        self.are_audits_over: Callable[[], bool] = lambda: True
        self._saved = self._decided  # as on disk

    def restore(self, records: Mapping[str, bytes]) -> None:
        record = records.get(RECORD_SETTLEMENT)
        if record is not None:
            self.settlement.restore(record)
            self._saved = self._decided
        if RECORD_RELAY in records:
            self.relay.restore(records[RECORD_RELAY])

    @property
    def _decided(self) -> tuple[object, ...]:
        """What this member decided once and for all: a restart must not decide it otherwise."""
        return self.settlement.least, self.settlement.snapshot, self.settlement.ballot

    @property
    def is_member(self) -> bool:
        return self._me in self.membership.by_peer

    @property
    def may_speak(self) -> bool:
        """Whether the others hear this peer: it is one of the members, and they are final."""
        return self._me in self._lane.members

    def find_wallet(self, peer: PeerId) -> Address | None:
        member = self.membership.by_peer.get(peer)
        return member.wallet if member else None

    # --- time -----------------------------------------------------------------------------------------------

    def compute_chain_time(self, now_s: float) -> float:
        """The chain's clock, carried on by this machine's: only differences of the own clock count."""
        return now_s if self.view is None else self.view.time_s + (now_s - self._view_at_s)

    def compute_newest_time(self, now_s: float) -> float:
        """The time of a block that would take a transaction now; the blocks that count are older by the confirmations."""
        time_s = self.compute_chain_time(now_s)
        newest_s = 0 if self.view is None else self.view.newest_s
        return max(time_s, newest_s + (now_s - self._newest_at_s)) if newest_s else time_s

    def compute_phase(self, now_s: float) -> Phase:
        """What the work cycle may do now."""
        rules, view, ends_s = self._rules, self.view, self.settlement.deadlines.training_ends_s
        time_s = self.compute_chain_time(now_s)
        if view is None or time_s < rules.funding_ends_s:
            return Phase.WAITING
        if time_s >= ends_s or view.stage in (Stage.REFUNDED, Stage.RELEASED):
            return Phase.CLOSED
        return Phase.TRAINING if time_s < ends_s - rules.final_s else Phase.FINAL

    def takes_data(self, now_s: float) -> bool:
        """Whether a dataslice that comes now can still be trained on. Before the chain was read, by what was agreed at genesis."""
        ends_s = self.settlement.deadlines.training_ends_s - self._rules.final_s
        return self.compute_phase(now_s) in (Phase.WAITING, Phase.TRAINING) and self.compute_chain_time(now_s) < ends_s

    # --- views of the chain ---------------------------------------------------------------------------------

    def read(self, view: ChainView, now_s: float) -> list[ev.Effect]:
        """Take a view: who is a member now, which stage and phase it is."""
        if self.view is None or view.time_s != self.view.time_s:
            self._view_at_s = now_s
        if self.view is None or view.newest_s != self.view.newest_s:
            self._newest_at_s = now_s
        before, self.view = self.view, view
        self.settlement.deadlines = compute_deadlines(self._rules, view)
        effects: list[ev.Effect] = []
        if before is None or before.members != view.members:
            effects += self._members_changed(view)
        # Until funding is over a member can leave again. What it said would be known to some and refused by others for ever,
        # together with every vertex that names it; so nobody is heard before the members are final.
        self._lane.members = frozenset() if view.stage is Stage.FUNDING else self.membership.peers
        if before is None or before.stage != view.stage:
            effects.append(ev.Tell(ev.Topic.DAO, f"stage {view.stage.value}", {"event": "stage", "stage": view.stage.value}))
        phase = self.compute_phase(now_s)
        if phase is not self._phase:
            self._phase = phase
            effects.append(ev.Tell(ev.Topic.SESSION, f"phase {phase.value}", {"event": "phase", "phase": phase.value}))
        return effects

    def _members_changed(self, view: ChainView) -> list[ev.Effect]:
        known = {member.wallet for member, _ in self.membership.rejected}
        self.membership = judge_members(view.members)
        effects: list[ev.Effect] = [
            ev.Tell(ev.Topic.TROUBLE, f"not admitted: {member.wallet}: {why}")
            for member, why in self.membership.rejected
            if member.wallet not in known
        ]
        text = f"{len(self.membership.by_peer)} members"
        return [*effects, ev.Tell(ev.Topic.SESSION, text, {"event": "members", "members": len(view.members)})]

    # --- transactions ---------------------------------------------------------------------------------------

    def needs_seal(self, now_s: float) -> bool:
        """Whether this member must say now which ledger its claim will be computed from."""
        books = None if self.view is None or self.finished else self._read_books(self.view)
        if self.view is None or books is None:
            return False
        time_s = self.compute_newest_time(now_s)
        known_by = SETTLED_BY_PERMILLE if self._rules.audit_permille else KNOWN_BY_PERMILLE
        known_by_s = self.settlement.deadlines.compute_part_s(Stage.CLAIMING, known_by)
        if self.settlement.least is None and (books.is_closed() or time_s >= known_by_s):
            self.settlement.least = compute_known(self._lane)
        return self.settlement.needs_seal(self.view, self.membership, books, now_s=time_s)

    def _read_claimed(self, claim: Claim) -> Rows | None:
        claimant = next((peer for peer, member in self.membership.by_peer.items() if member.index == claim.index), None)
        if claimant is None:
            return None
        return compute_rows_at(self._lane, to_vertex_cid(claim.evidence), claimant, self.settlement.least or Known())

    def settle(self, now_s: float) -> list[ev.Effect]:
        """The next call that this member owes the session, and the end when nothing is left to do."""
        view = self.view
        if self.finished or view is None:
            return []
        settlement = self.settlement
        time_s = self.compute_newest_time(now_s)
        call = settlement.step(view, self.membership, self._read_books(view), now_s=time_s)
        effects: list[ev.Effect] = []
        if self._decided != self._saved:
            self._saved = self._decided
            effects.append(ev.SaveRecord(RECORD_SETTLEMENT, settlement.encode()))  # Before it is signed: nothing else ever will be.
        if isinstance(call, SubmitClaim | CastBallot) and time_s < settlement.compute_own_due_s(view.stage):
            effects += self._sign(call, view.stage)
            call = None
        if call is not None:
            effects += self._submit(call)
        elif not settlement.pending:
            effects += self._relay(view, now_s)
        late = view.stage is not Stage.FUNDING and not self.is_member and not self.settlement.pending
        if late or self.settlement.is_over(view, self.membership):
            self.finished = True
            effects.append(ev.Finish("" if self.is_member else "the time to join is over: this peer is not a member of the session"))
        return effects

    def _read_books(self, view: ChainView) -> Books | None:
        if view.stage not in (Stage.CLAIMING, Stage.VOTING):
            return None
        lane, dag = self._lane, self._lane.dag
        own = lane.seal or lane.closing
        return Books(
            read_rows=lambda: compute_rows(lane),
            is_closed=lambda: not dag.orphans and lane.ledger.are_closed(self.membership.peers) and self.are_audits_over(),
            evidence=own[4:] if own else bytes(32),
            lacks_evidence=lambda: any(to_vertex_cid(claim.evidence) not in dag for claim in view.claims),
            read_claimed=self._read_claimed,
            compute_points=lane.store.compute_points,
        )

    def _submit(self, call: Call) -> list[ev.Effect]:
        number = self._next_number()
        self._calls[number] = call
        self.settlement.submitted()
        name = type(call).__name__
        values: dict[str, object] = {"event": "call", "call": name}
        told = f"sends {name}"
        if isinstance(call, ClaimBatch | CastGrouped):
            values["members"] = count = _count_items(call)
            told = f"relays {count} {'claim' if isinstance(call, ClaimBatch) else 'ballot'}{'' if count == 1 else 's'}"
        return [ev.Tell(ev.Topic.DAO, told, values), ev.SubmitTransaction(number, call)]

    # --- relaying -------------------------------------------------------------------------------------------

    def hear(self, peer: PeerId, message: ClaimSigned | BallotSigned, now_s: float) -> None:
        """A member, perhaps this one, signed its claim or ballot and gave it to all."""
        self.relay.hear(peer, message, now_s=now_s)

    def _sign(self, call: Signable, stage: Stage) -> list[ev.Effect]:
        """Ask for the signature, once; what was signed before a restart is in the log."""
        if self.relay.has_signed(self._me, stage) or call in self._signing.values():
            return []
        number = self._next_number()
        self._signing[number] = call
        return [ev.SignCall(number, call)]

    def signed(self, event: ev.CallSigned, now_s: float) -> list[ClaimSigned | BallotSigned]:
        """The wallet signed: this is what to tell the others. Nothing before its stage, for they would refuse it: it is asked for again."""
        call = self._signing.pop(event.number)
        rules = self._rules
        if self.compute_chain_time(now_s) < (rules.training_ends_s if isinstance(call, SubmitClaim) else rules.claiming_ends_s):
            return []  # The machine's clock was set back, or the endpoint told a stage that its block's time does not fit.
        if isinstance(call, SubmitClaim):
            return [ClaimSigned(points=call.points, evidence=call.evidence, signature=event.signature)]
        return [BallotSigned(nays=call.nays, signature=event.signature)]

    def _relay(self, view: ChainView, now_s: float) -> list[ev.Effect]:
        """Send a group, if it is this node's turn; a group of nobody but itself is an ordinary transaction."""
        if view.stage not in (Stage.CLAIMING, Stage.VOTING):
            return []
        from_s, to_s = self.settlement.deadlines.compute_span(view.stage)
        own_due_s = self.settlement.compute_own_due_s(view.stage)
        if own_due_s <= self.compute_newest_time(now_s) < own_due_s + compute_patience_s(to_s - from_s):
            return []  # Members are sending their own now: relaying the same would be paid for twice.
        points = self.settlement.snapshot
        claimants = len(self.membership.by_peer) if points is None else sum(value > 0 for value in points.values())
        expected = claimants if view.stage is Stage.CLAIMING else len(self.membership.by_peer)
        group = self.relay.step(view, self.membership, expected=expected, now_s=now_s)
        if group is None:
            return []
        me = self.membership.by_peer.get(self._me)
        if _count_items(group) == 1 and me is not None:
            if isinstance(group, ClaimBatch) and group.claims[0].member == me.wallet:
                return self._submit(SubmitClaim(group.claims[0].points, group.claims[0].evidence))
            if isinstance(group, CastGrouped) and group.ballots[0].member == me.wallet:
                return self._submit(CastBallot(group.nays))
        self.relay.submitted(group, self.membership, now_s=now_s)
        return [ev.SaveRecord(RECORD_RELAY, self.relay.encode()), *self._submit(group)]

    def answered(self, event: ev.TransactionConfirmed | ev.TransactionFailed, now_s: float) -> list[ev.Effect]:
        """Take the answer to one of this member's transactions."""
        call = self._calls.pop(event.number)
        effects: list[ev.Effect] = []
        if isinstance(call, ClaimBatch | CastGrouped):
            self.relay.answered(call, gas_used=event.gas_used, done=isinstance(event, ev.TransactionConfirmed))
            effects.append(ev.SaveRecord(RECORD_RELAY, self.relay.encode()))
        if isinstance(event, ev.TransactionConfirmed):
            self.settlement.confirmed()
            name = type(call).__name__
            values = {"event": "mined", "call": name, "gas": event.gas_used}
            effects.append(ev.Tell(ev.Topic.DAO, f"{name} is in a block: {event.gas_used:,} gas", values))
            if event.address is not None:
                self.settlement.poid = event.address
                effects.append(ev.SaveRecord(RECORD_SETTLEMENT, self.settlement.encode()))
            return effects
        told = ev.Tell(ev.Topic.TROUBLE, f"{type(call).__name__} failed: {event.reason}")
        if isinstance(call, ClaimBatch | CastGrouped):
            self.settlement.pending = False  # The next relayer has its turn; own calls need not wait for a pause.
            return [*effects, told]
        self.settlement.failed(now_s=self.compute_newest_time(now_s))
        if event.final and not self.is_member:
            self.finished = True
            return [told, ev.Finish(event.reason)]
        return [told]


def _count_items(group: Group) -> int:
    return len(group.claims if isinstance(group, ClaimBatch) else group.ballots)
