"""The peer: a pure state machine, `Peer.handle(event, now_s) -> list[Effect]`.

It only routes. The control lane (what is said and heard), the work cycle (learning), the shelf of dataslices and the settlement
(money) are small machines of their own; whatever they want to say to others, the peer signs and publishes. It does no I/O, reads
no clock, owns no thread; its randomness is a `random.Random` that it is given.
Source: paper, Fig. 1 and 5; ARCHITECTURE.md.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import count
from random import Random
from typing import Final

from learnae.ids import CODEC_DAG_CBOR, Address, Cid, PeerId, Wei, peer_text, short_name
from learnae.protocol import events as ev
from learnae.protocol.calls import Call, ChainView, Stage
from learnae.protocol.cycle import RECORD_LOCAL, Phase, Said, WorkCycle
from learnae.protocol.identity import Membership, judge_members
from learnae.protocol.lane import ControlLane, Entry, Received
from learnae.protocol.messages import (
    SYNC_VERTICES_MAX,
    Checkpoint,
    DatasliceConsumed,
    Departed,
    ForkProved,
    HashlistPublished,
    HelpReported,
    Joined,
    ModelAnnounced,
    decode_sync,
)
from learnae.protocol.models import POLICIES, ExchangePolicy
from learnae.protocol.rules import SessionRules
from learnae.protocol.settlement import Books, Settlement
from learnae.protocol.sharing import SliceSharing
from learnae.protocol.tips import TipJar
from learnae.protocol.validation import VERTEX_BURST, VERTEX_RATE_PER_S
from learnae.tangle.verdict import Ruling, Verdict
from learnae.tangle.vertex import Codec, Sign, VertexCodec

SYNC_EVERY_S: Final = 3.0  # Gossip brings nearly everything at once; sync finds what it lost within seconds.
SYNC_SOON_S: Final = 0.3  # When an orphan shows that something is missing.
IDLE_S: Final = 0.5  # Pause when there is nothing to train on and nobody to average with.
BUDGET_RESERVE: Final = 10  # Vertices kept back of the issuer's budget for what must be said (closing, proofs of forks).
RECORD_SETTLEMENT: Final = "settlement"


@dataclass(frozen=True, kw_only=True)
class PeerSettings:
    """What one user chooses for the own peer, beside the session's rules."""

    reports_help: bool = True  # False is the paper's malicious peer (section 7)
    tips_budget_wei: int = 0  # tips mode: never more than this is paid
    pace_s: float = 0.0  # a work cycle begins at the earliest this long after the one before
    policy: str = ""  # another choice of remote models than the session's; empty: the session's


class Peer:
    """One participant of one session."""

    def __init__(
        self,
        *,
        rules: SessionRules,
        me: PeerId,
        sign: Sign,
        rng: Random,
        settings: PeerSettings | None = None,
        codec: Codec | None = None,
    ) -> None:
        settings = settings or PeerSettings()
        self.rules = rules
        self.me = me
        self._rng = rng
        self._numbers = count(1)
        self.lane = ControlLane(rules=rules, me=me, sign=sign, rng=rng, codec=codec or VertexCodec())
        policy: ExchangePolicy = POLICIES[settings.policy or rules.policy]()
        self.cycle = WorkCycle(
            rules=rules,
            me=me,
            rng=rng,
            policy=policy,
            ledger=self.lane.ledger,
            next_number=self._next_number,
            reports_help=settings.reports_help,
        )
        self.sharing = SliceSharing(me=me, rng=rng, shelf=self.cycle.shelf, rules=rules, next_number=self._next_number)
        self.settlement = Settlement(rules, me)
        self.tips = TipJar(
            rules=rules, budget_wei=Wei(settings.tips_budget_wei), next_number=self._next_number, wallet_of=self._find_wallet
        )
        self.connected: set[PeerId] = set()
        self.membership = Membership({})
        self.view: ChainView | None = None
        self._view_at_s = 0.0
        self._addresses: tuple[str, ...] = ()
        self._calls: dict[int, Call] = {}
        self._sync_at_s = 0.0
        self._finished = False
        self._pace_s = settings.pace_s
        self._cycle_began_s = 0.0
        self._phase = Phase.WAITING

    def _next_number(self) -> int:
        return next(self._numbers)

    def _find_wallet(self, peer: PeerId) -> Address | None:
        member = self.membership.by_peer.get(peer)
        return member.wallet if member else None

    # --- the one entrance -----------------------------------------------------------------------------------

    def handle(self, event: ev.Event, now_s: float) -> list[ev.Effect]:
        """Take one event and answer with what to do, in order. `now_s`: Unix seconds by this machine's clock."""
        match event:
            case ev.VertexReceived():
                return self._receive(event, now_s)
            case ev.SyncReceived():
                return self._sync_received(event, now_s)
            case ev.TimerFired(timer=ev.Timer.SYNC):
                return self._sync_due(now_s)
            case ev.TimerFired(timer=ev.Timer.CYCLE):
                return self._cycle_due(now_s)
            case ev.ChainRead(view=view):
                return self._chain_read(view, now_s)
            case ev.PeerConnected(peer=peer):
                self.connected.add(peer)
                return [ev.SendSync(peer, self.lane.ask().encode())]
            case ev.PeerDisconnected(peer=peer):
                self.connected.discard(peer)
                return []
            case ev.TransactionConfirmed() | ev.TransactionFailed():
                return self._transaction_answered(event, now_s)
            case ev.Started():
                return self._start(event, now_s)
            case ev.StopAsked(reason=reason):
                return self._stop(reason, now_s)
            case _:
                return self._answered(event, now_s)

    # --- starting and stopping ------------------------------------------------------------------------------

    def _start(self, event: ev.Started, now_s: float) -> list[ev.Effect]:
        self._addresses = event.addresses
        record = event.records.get(RECORD_SETTLEMENT)
        if record is not None:
            self.settlement.restore(record)
        self.tips.restore(event.records)
        entries = self.lane.restore(event.vertices)
        said: list[Said] = []
        for entry in entries:
            said += self._on_entry(entry)
        self.cycle.start(event.facts, event.records.get(RECORD_LOCAL))
        said += self.sharing.start(event.facts)
        effects = self._say(said, now_s)
        return [*effects, ev.SetTimer(ev.Timer.CYCLE, now_s), *self._set_sync(now_s + SYNC_EVERY_S, now_s, again=True)]

    def _stop(self, reason: str, now_s: float) -> list[ev.Effect]:
        """Say goodbye, so that nobody waits; everything needed to come back is on disk already."""
        head = self.lane.dag.head(self.me)
        effects = self._say([Departed(reason=reason)], now_s) if head is not None and not self._finished else []
        return [*effects, ev.Finish()]

    # --- what others say ------------------------------------------------------------------------------------

    def _receive(self, event: ev.VertexReceived, now_s: float) -> list[ev.Effect]:
        received = self.lane.receive(event.encoded, now_ms=_to_ms(now_s))
        effects: list[ev.Effect] = [ev.PassVerdict(event.sender, received.ruling)]
        return effects + self._take_in([received], now_s)

    def _sync_received(self, event: ev.SyncReceived, now_s: float) -> list[ev.Effect]:
        sync = decode_sync(event.content)
        if sync is None:
            return [ev.PassVerdict(event.sender, Ruling(Verdict.REJECT, "not a sync message"))]
        now_ms = _to_ms(now_s)
        results = [self.lane.receive(encoded, now_ms=now_ms) for encoded in sync.vertices]
        effects = self._take_in(results, now_s)
        bad = next((r.ruling for r in results if r.ruling.verdict is Verdict.REJECT), None)
        if bad is not None:
            effects.append(ev.PassVerdict(event.sender, bad))
        answers = self.lane.answer(sync)
        if len(sync.vertices) >= SYNC_VERTICES_MAX // 2 and any(r.entered for r in results):
            answers.append(self.lane.ask(answer=True))  # A full page: there may be more.
        return effects + [ev.SendSync(event.sender, answer.encode()) for answer in answers]

    def _take_in(self, results: Iterable[Received], now_s: float) -> list[ev.Effect]:
        """Save what entered, then act on it."""
        entries = [entry for result in results for entry in result.entered]
        proofs = [proof for result in results for proof in result.proofs]
        forked = [issuer for result in results for issuer in result.forked]
        effects: list[ev.Effect] = []
        if entries:
            effects.append(ev.SaveVertices(tuple((e.vertex.cid, e.vertex.encoded) for e in entries)))
        said: list[Said] = [effect for entry in entries for effect in self._on_entry(entry)]
        for issuer in forked:
            self.cycle.market.drop_issuer(issuer)
            said.append(ev.Tell(ev.Topic.TROUBLE, f"{peer_text(issuer)} signed two different messages with one number: frozen"))
        if self.me in self.lane.ledger.vectors() or self.me in self.membership.peers:
            said += proofs
        effects += self._say(said, now_s)
        if self.lane.dag.orphans and now_s + SYNC_SOON_S < self._sync_at_s:
            effects += self._set_sync(now_s + SYNC_SOON_S, now_s)
        return effects

    def _on_entry(self, entry: Entry) -> list[Said]:
        """Act on one vertex that entered the lane, this peer's own included."""
        issuer = entry.vertex.issuer
        mine = issuer == self.me
        match entry.message:
            case Joined(addresses=addresses) if not mine:
                return [ev.LearnAddresses(issuer, addresses)]
            case HashlistPublished() as published:
                return self.sharing.on_published(issuer, published)
            case DatasliceConsumed(slices=slices):
                self.cycle.shelf.count_use(slices, by_me=mine)
                self.sharing.on_consumed(slices)
                return self.sharing.fetch_more()
            case ModelAnnounced() as announced if not mine:
                self.cycle.market.add(issuer, entry.vertex.cid, announced)
                return []
            case HelpReported(helper=helper, credits=credits, owed=owed) if helper == self.me:
                values = {"event": "helped", "to": issuer, "credits": credits, "owed": owed}
                return [ev.Tell(ev.Topic.HELP, f"helped {short_name(issuer)}: {credits} credits", values)]
            case _:
                return []

    # --- what this peer says --------------------------------------------------------------------------------

    def _say(self, said: Iterable[Said], now_s: float) -> list[ev.Effect]:
        """Turn messages into signed, published vertices; pass effects on. Keeps the order."""
        effects: list[ev.Effect] = []
        for item in said:
            if not isinstance(item, _MESSAGES):
                effects.append(item)
                continue
            entry = self.lane.issue(item, now_ms=_to_ms(now_s))
            effects.append(ev.PublishVertex(entry.vertex.cid, entry.vertex.encoded))
            effects += self._say(self._on_own(entry), now_s)
        return effects

    def _on_own(self, entry: Entry) -> list[Said]:
        """What follows from an own message beside what follows for everybody (`_on_entry`)."""
        match entry.message:
            case HelpReported() as help:
                values = {"event": "reported", "to": help.helper, "credits": help.credits, "owed": help.owed}
                told = ev.Tell(ev.Topic.HELP, f"was helped by {short_name(help.helper)}: {help.credits} credits", values)
                return [told, *self.tips.on_reported(help, entry.vertex.cid)]
            case _:
                return []

    # --- the clock's turns ----------------------------------------------------------------------------------

    def _set_sync(self, at_s: float, now_s: float, *, again: bool = False) -> list[ev.Effect]:
        if not again and self._sync_at_s > now_s and self._sync_at_s <= at_s:
            return []
        self._sync_at_s = at_s
        return [ev.SetTimer(ev.Timer.SYNC, at_s)]

    def _sync_due(self, now_s: float) -> list[ev.Effect]:
        self.lane.expire(now_ms=_to_ms(now_s))
        effects: list[ev.Effect] = []
        if self.connected:
            partners = sorted(self.connected)
            # What an orphan waits for is asked of three peers: one of them will have it.
            chosen = self._rng.sample(partners, min(3 if self.lane.dag.orphans else 1, len(partners)))
            content = self.lane.ask().encode()
            effects += [ev.SendSync(partner, content) for partner in chosen]
        return effects + self._set_sync(now_s + SYNC_EVERY_S, now_s, again=True)

    def _cycle_due(self, now_s: float) -> list[ev.Effect]:
        """Begin the next turn of the work cycle if nothing is under way and the budget of vertices allows it."""
        if self._finished or self.cycle.is_busy:
            return []
        if self.me not in self.membership.peers or not self._has_budget(now_s):
            return [ev.SetTimer(ev.Timer.CYCLE, now_s + IDLE_S)]
        self._cycle_began_s = now_s
        effects = self._say(self.cycle.begin(self._compute_phase(now_s), connected=frozenset(self.connected)), now_s)
        return effects or [ev.SetTimer(ev.Timer.CYCLE, now_s + IDLE_S)]

    def _answered(self, event: ev.Event, now_s: float) -> list[ev.Effect]:
        """An answer to something that the work cycle or the sharing of slices asked for."""
        said = self.sharing.handle(event)
        if said is not None:
            return self._say(said, now_s)
        if self._compute_phase(now_s) is Phase.CLOSED:
            self.cycle.abandon()
            return []
        said = self.cycle.handle(event)
        if said is None:
            return []
        if self.me not in self.membership.peers:
            said = [item for item in said if not isinstance(item, _MESSAGES)]
        effects = self._say(said, now_s)
        if not self.cycle.is_busy:
            pause_s = IDLE_S if isinstance(event, ev.FetchFailed | ev.LearningFailed) else 0.0
            effects.append(ev.SetTimer(ev.Timer.CYCLE, max(now_s + pause_s, self._cycle_began_s + self._pace_s)))
        return effects

    def _has_budget(self, now_s: float) -> bool:
        first = next(self.lane.dag.chain(self.me), None)
        head = self.lane.dag.head(self.me)
        if first is None or head is None:
            return True
        allowed = VERTEX_BURST + VERTEX_RATE_PER_S * (_to_ms(now_s) - first.time_ms) // 1000
        return head.sequence + BUDGET_RESERVE <= allowed

    def _compute_chain_time(self, now_s: float) -> float:
        """The chain's clock, carried on by this machine's: only differences of the own clock count."""
        return now_s if self.view is None else self.view.time_s + (now_s - self._view_at_s)

    def _compute_phase(self, now_s: float) -> Phase:
        rules, view = self.rules, self.view
        time_s = self._compute_chain_time(now_s)
        if view is None or time_s < rules.funding_ends_s:
            return Phase.WAITING
        if time_s >= rules.training_ends_s or view.stage in (Stage.REFUNDED, Stage.RELEASED):
            return Phase.CLOSED
        return Phase.TRAINING if time_s < rules.training_ends_s - rules.final_s else Phase.FINAL

    # --- the chain ------------------------------------------------------------------------------------------

    def _chain_read(self, view: ChainView, now_s: float) -> list[ev.Effect]:
        if self.view is None or view.time_s != self.view.time_s:
            self._view_at_s = now_s
        before, self.view = self.view, view
        effects: list[ev.Effect] = []
        if before is None or before.members != view.members:
            effects += self._members_changed(view)
        if before is None or before.stage != view.stage:
            effects.append(ev.Tell(ev.Topic.DAO, f"stage {view.stage.value}", {"event": "stage", "stage": view.stage.value}))
        phase = self._compute_phase(now_s)
        if phase is not self._phase:
            self._phase = phase
            effects.append(ev.Tell(ev.Topic.SESSION, f"phase {phase.value}", {"event": "phase", "phase": phase.value}))
        effects += self._say(self._introduce(), now_s)
        effects += self._say(self._close(phase), now_s)
        return effects + self._settle(view, now_s)

    def _members_changed(self, view: ChainView) -> list[ev.Effect]:
        known = {member.wallet for member, _ in self.membership.rejected}
        self.membership = judge_members(view.members)
        self.lane.members = self.membership.peers
        effects: list[ev.Effect] = [
            ev.Tell(ev.Topic.TROUBLE, f"not admitted: {member.wallet}: {why}")
            for member, why in self.membership.rejected
            if member.wallet not in known
        ]
        text = f"{len(self.membership.by_peer)} members"
        return [*effects, ev.Tell(ev.Topic.SESSION, text, {"event": "members", "members": len(view.members)})]

    def _introduce(self) -> list[Said]:
        """Tell who and where this peer is, once it is a member and whenever its addresses changed (4.4)."""
        member = self.membership.by_peer.get(self.me)
        if member is None:
            return []
        said = [v for v in self.lane.dag.chain(self.me) if v.kind == 1]
        message = Joined(poid=bytes.fromhex(member.poid.contract[2:]), addresses=self._addresses)
        joined: list[Said] = [] if said and said[-1].body == message.to_body() else [message]
        return [*joined, *self.sharing.introduce()]

    def _close(self, phase: Phase) -> list[Said]:
        """End the own row when training is over: nothing after the closing checkpoint counts (section 6)."""
        if phase is not Phase.CLOSED or self.me not in self.membership.peers or self.lane.ledger.row(self.me).closed:
            return []
        self.cycle.abandon()
        return [self.lane.compute_checkpoint(closing=True)]

    def _settle(self, view: ChainView, now_s: float) -> list[ev.Effect]:
        if self._finished:
            return []
        before = self.settlement.encode()
        call = self.settlement.step(view, self.membership, self._read_books(view), now_s=self._compute_chain_time(now_s))
        effects: list[ev.Effect] = []
        if self.settlement.encode() != before:
            effects.append(ev.SaveRecord(RECORD_SETTLEMENT, self.settlement.encode()))
        if call is not None:
            effects += self._submit(call)
        if self.settlement.is_over(view, self.membership):
            self._finished = True
            is_member = self.me in self.membership.peers
            effects.append(ev.Finish("" if is_member else "the session began without this peer: it had not joined in time"))
        elif view.stage is not Stage.FUNDING and self.me not in self.membership.peers and not self.settlement.pending:
            self._finished = True
            effects.append(ev.Finish("the time to join is over: this peer is not a member of the session"))
        return effects

    def _read_books(self, view: ChainView) -> Books | None:
        if view.stage not in (Stage.CLAIMING, Stage.VOTING):
            return None
        ledger, dag = self.lane.ledger, self.lane.dag
        closed = all(ledger.row(peer).closed or dag.fork(peer) for peer in self.membership.peers)
        own = next((v for v in dag.chain(self.me) if v.kind == 8 and isinstance(v.body, list) and v.body[0]), None)
        return Books(
            rows=ledger.rows(),
            closed=closed and not len(dag.orphans),
            evidence=own.cid[4:] if own else bytes(32),
            missing_evidence=any(_to_vertex_cid(claim.evidence) not in dag for claim in view.claims),
        )

    def _submit(self, call: Call) -> list[ev.Effect]:
        number = self._next_number()
        self._calls[number] = call
        self.settlement.submitted()
        return [
            ev.Tell(ev.Topic.DAO, f"sends {type(call).__name__}", {"event": "call", "call": type(call).__name__}),
            ev.SubmitTransaction(number, call),
        ]

    def _transaction_answered(self, event: ev.TransactionConfirmed | ev.TransactionFailed, now_s: float) -> list[ev.Effect]:
        if self.tips.owns(event.number):
            return self._say(self.tips.handle(event), now_s)
        call = self._calls.pop(event.number)
        if isinstance(event, ev.TransactionConfirmed):
            self.settlement.confirmed()
            if event.address is not None:
                self.settlement.poid = event.address
                return [ev.SaveRecord(RECORD_SETTLEMENT, self.settlement.encode())]
            return []
        self.settlement.failed(now_s=self._compute_chain_time(now_s))
        told = ev.Tell(ev.Topic.TROUBLE, f"{type(call).__name__} failed: {event.reason}")
        if event.final and self.me not in self.membership.peers:
            self._finished = True
            return [told, ev.Finish(event.reason)]
        return [told]


_MESSAGES = (Joined, HashlistPublished, DatasliceConsumed, ModelAnnounced, HelpReported, Departed, ForkProved, Checkpoint)


def _to_ms(now_s: float) -> int:
    return int(now_s * 1000)


def _to_vertex_cid(digest: bytes) -> Cid:
    return Cid(bytes((1, CODEC_DAG_CBOR, 0x12, 0x20)) + digest)
