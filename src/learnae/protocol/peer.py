"""The peer: a pure state machine, `Peer.handle(event, now_s) -> list[Effect]`.

It only routes. The control lane (what is said and heard), the work cycle (learning), the shelf of dataslices and the settlement
(money) are small machines of their own; whatever they want to say to others, the peer signs and publishes. It does no I/O, reads
no clock, owns no thread; its randomness is a `random.Random` that it is given.
Source: paper, Fig. 1 and 5; ARCHITECTURE.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import count
from operator import attrgetter
from random import Random
from typing import Final

from learnae.ids import PeerId, Wei, peer_text, short_name
from learnae.protocol import events as ev
from learnae.protocol.auditor import TRIES_BY_PERMILLE, Auditor
from learnae.protocol.calls import RELAY_GAS_MAX, ChainView, Stage
from learnae.protocol.cycle import RECORD_LOCAL, Phase, Said, WorkCycle
from learnae.protocol.dao import DaoMember
from learnae.protocol.lane import ControlLane, Received
from learnae.protocol.messages import (
    REASON_CHARS_MAX,
    AuditVerdict,
    Checkpoint,
    DatasliceConsumed,
    Departed,
    HashlistPublished,
    HelpReported,
    Joined,
    Message,
    ModelAnnounced,
)
from learnae.protocol.models import POLICIES, ExchangePolicy, ModelMarket
from learnae.protocol.rules import ADDRESSES_MAX, SessionRules, is_address
from learnae.protocol.settlement import TURN_S
from learnae.protocol.sharing import SliceSharing
from learnae.protocol.signed import BallotSigned, ClaimSigned
from learnae.protocol.store import ControlStore
from learnae.protocol.sync import ANSWERS_BURST, STRANGERS, SYNC_VERTICES_MAX, AnswerBudget, SyncClock, decode_sync
from learnae.protocol.tips import TipJar
from learnae.protocol.validation import compute_time_allowed_ms
from learnae.tangle.store import Entry
from learnae.tangle.verdict import Ruling, Verdict
from learnae.tangle.vertex import Sign

IDLE_S: Final = 0.5  # Pause when there is nothing to train on and nobody to average with.
BUDGET_RESERVE: Final = 10  # Vertices kept back of the issuer's budget for what must be said (closing, proofs of forks).


@dataclass(frozen=True, kw_only=True)
class PeerSettings:
    """What one user chooses for the own peer, beside the session's rules."""

    reports_help: bool = True  # False is the paper's malicious peer (section 7)
    tips_budget_wei: int = 0  # tips mode: never more than this is paid
    pace_s: float = 0.0  # a work cycle begins at the earliest this long after the one before
    policy: str = ""  # another choice of remote models than the session's; empty: the session's
    turn_s: float = TURN_S  # between members who may all make the same call on the chain
    relay_gas_max: int = RELAY_GAS_MAX  # gas for sending others' claims and ballots, in the whole session; 0: this node sends only its own


_SAVED = attrgetter("saved")


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
        store: ControlStore | None = None,
    ) -> None:
        settings = settings or PeerSettings()
        self.rules = rules
        self.me = me
        self._rng = rng
        self._numbers = count(1)
        self.lane = ControlLane(rules=rules, me=me, sign=sign, rng=rng, store=store)
        policy: ExchangePolicy = POLICIES[settings.policy or rules.policy]()
        self.cycle = WorkCycle(
            rules=rules,
            rng=rng,
            policy=policy,
            market=ModelMarket(self.lane.dag, self.lane.store.announced, me, lambda: self.lane.members),
            ledger=self.lane.ledger,
            next_number=self._next_number,
            reports_help=settings.reports_help,
        )
        self.sharing = SliceSharing(me=me, rng=rng, shelf=self.cycle.shelf, rules=rules, next_number=self._next_number)
        gas_max = settings.relay_gas_max
        self.dao = DaoMember(rules=rules, me=me, lane=self.lane, next_number=self._next_number, relay_gas_max=gas_max)
        self.dao.settlement.turn_s = settings.turn_s
        self.tips = TipJar(
            rules=rules, budget_wei=Wei(settings.tips_budget_wei), next_number=self._next_number, wallet_of=self.dao.find_wallet
        )
        self.auditor = Auditor(rules=rules, me=me, lane=self.lane, rng=rng, next_number=self._next_number)
        self.dao.are_audits_over = self.auditor.is_settled
        self.connected: set[PeerId] = set()
        self._addresses: tuple[str, ...] = ()
        self._sync = SyncClock()
        self._introduced: Joined | None = None  # the newest introduction in the own log
        self._answers = AnswerBudget()
        self._pages = AnswerBudget(burst=2 * ANSWERS_BURST)  # As many as a neighbour may be asked for, and some that come together.
        self._pace_s = settings.pace_s
        self._cycle_began_s = 0.0
        self._is_idle = False  # the last turn found nothing to do

    def _next_number(self) -> int:
        return next(self._numbers)

    # --- the one entrance -----------------------------------------------------------------------------------

    def handle(self, event: ev.Event, now_s: float) -> list[ev.Effect]:
        """Take one event and answer with what to do, in order. `now_s`: Unix seconds by this machine's clock."""
        match event:
            case ev.VertexReceived():
                return self._receive(event, now_s)
            case ev.VerticesReceived(page=page):
                return self._receive_page(page, now_s)
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
                self.cycle.market.note_back(peer)
                return [ev.SendSync(peer, self.lane.ask().encode()), *self._hurry(now_s)]
            case ev.PeerDisconnected(peer=peer):
                self.connected.discard(peer)
                return []
            case ev.TransactionConfirmed() | ev.TransactionFailed():
                return self._transaction_answered(event, now_s)
            case ev.CallSigned():
                return self._say(self.dao.signed(event, now_s), now_s)
            case ev.Started():
                return self._start(event, now_s)
            case ev.AddressesChanged(addresses=addresses):
                self._addresses = addresses
                return []  # Told at the next look at the chain.
            case ev.StopAsked(reason=reason):
                return self._stop(reason, now_s)
            case _:
                return self._answered(event, now_s)

    # --- starting and stopping ------------------------------------------------------------------------------

    def _start(self, event: ev.Started, now_s: float) -> list[ev.Effect]:
        self._addresses = event.addresses
        self.dao.restore(event.records)
        self.tips.restore(event.records)
        said: list[Said] = [*self.sharing.start(event.facts)]  # Before the log is read: lists in it are fetched again.
        for entry in self.lane.restore(event.vertices):
            said += self._on_entry(entry, now_s)
        said += self.cycle.start(event.facts, event.records.get(RECORD_LOCAL))
        effects = self._say([*said, *self.auditor.start(event.facts)], now_s)
        return [*effects, ev.SetTimer(ev.Timer.CYCLE, now_s), ev.SetTimer(ev.Timer.SYNC, self._sync.start(now_s))]

    def _stop(self, reason: str, now_s: float) -> list[ev.Effect]:
        """Say goodbye, so that nobody waits; everything needed to come back is on disk already."""
        head = self.lane.dag.head(self.me)
        speaks = head is not None and self.dao.may_speak and not self.dao.finished
        effects = self._say([Departed(reason=reason[:REASON_CHARS_MAX])], now_s) if speaks else []
        return [*effects, ev.Finish()]

    # --- what others say ------------------------------------------------------------------------------------

    def _receive(self, event: ev.VertexReceived, now_s: float) -> list[ev.Effect]:
        received = self.lane.receive(event.encoded, now_ms=self._compute_ms(now_s))
        effects: list[ev.Effect] = [ev.PassVerdict(event.sender, received.ruling)]
        return effects + self._take_in(received, now_s)

    def _receive_page(self, page: Sequence[tuple[PeerId, bytes]], now_s: float) -> list[ev.Effect]:
        received = self.lane.receive_page(page, now_ms=self._compute_ms(now_s))
        return [*(ev.PassVerdict(sender, ruling) for sender, ruling in received.refused), *self._take_in(received, now_s)]

    def _sync_received(self, event: ev.SyncReceived, now_s: float) -> list[ev.Effect]:
        sync = decode_sync(event.content)
        if sync is None:
            return [ev.PassVerdict(event.sender, Ruling(Verdict.REJECT, "not a sync message"))]
        is_member = event.sender in self.lane.members
        heeded = bool(sync.vertices) and is_member and self._pages.take(event.sender, now_s)
        page = [(event.sender, encoded) for encoded in sync.vertices] if heeded else []
        received = self.lane.receive_page(page, now_ms=self._compute_ms(now_s))
        effects = self._take_in(received, now_s)
        effects += [ev.PassVerdict(sender, ruling) for sender, ruling in received.refused[:1]]
        may_ask = self._answers.take(event.sender if is_member else STRANGERS, now_s)
        answers = self.lane.answer(sync, now_ms=self._compute_ms(now_s)) if may_ask else []
        if len(sync.vertices) >= SYNC_VERTICES_MAX // 2 and received.entered:
            answers.append(self.lane.ask(answer=True))  # A full page: there may be more.
        return effects + [ev.SendSync(event.sender, answer.encode()) for answer in answers]

    def _compute_ms(self, now_s: float) -> int:
        """The time of vertices: the chain's, so that a peer with a wrong clock is heard like the others."""
        return int(1000 * self.dao.compute_chain_time(now_s))

    def _take_in(self, received: Received, now_s: float) -> list[ev.Effect]:
        """Save what entered, then act on it."""
        effects: list[ev.Effect] = []
        said: list[Said] = []
        entered, me = received.entered, self.me
        for entry in entered:
            kind = type(entry.message)
            # Models and help among others are read from the log when they are needed.
            if kind is not ModelAnnounced and (kind is not HelpReported or entry.message.helper == me):
                said += self._on_entry(entry, now_s)
        for issuer in received.forked:
            said.append(ev.Tell(ev.Topic.TROUBLE, f"{peer_text(issuer)} signed two different messages with one number: frozen"))
        if entered:
            effects.append(ev.SaveVertices(tuple(map(_SAVED, entered))))
        if said:
            effects += self._say(said, now_s)
        if self._is_idle and any(isinstance(entry.message, ModelAnnounced) for entry in entered):
            self._is_idle = False  # News: there may be something to do now.
            effects.append(ev.SetTimer(ev.Timer.CYCLE, max(now_s, self._cycle_began_s + self._pace_s)))
        sync_at_s = self._sync.note(self.lane.dag.orphans, now_s)
        return effects if sync_at_s is None else [*effects, ev.SetTimer(ev.Timer.SYNC, sync_at_s)]

    def _on_entry(self, entry: Entry, now_s: float) -> list[Said]:
        """Act on one vertex that entered the lane from outside or from the journal."""
        issuer = entry.vertex.issuer
        mine = issuer == self.me
        if self.lane.dag.forks and self.lane.dag.is_branch(entry.vertex):
            return []  # It entered only because others name it.
        match entry.message:
            case Joined(addresses=addresses):
                self._introduced = entry.message if mine else self._introduced
                return [] if mine else [ev.LearnAddresses(issuer, addresses)]
            case HashlistPublished() as published:
                return self.sharing.on_published(issuer, published)
            case DatasliceConsumed(slices=slices):
                self.cycle.shelf.count_use(slices)
                self.sharing.on_consumed(slices)
                return self.sharing.fetch_more()
            case ClaimSigned() | BallotSigned() as signed:
                self.dao.hear(issuer, signed, now_s)
                return []
            case HelpReported() if mine:
                return self.auditor.keep_models(self.cycle.kept)
            case Checkpoint(closing=True):
                return self.auditor.on_row_closed(issuer, entry.sequence, entry.vertex.cid)
            case AuditVerdict(subject=subject):
                return self.auditor.on_verdict(subject)
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
            if not isinstance(item, Message):
                effects.append(item)
                continue
            entry = self.lane.issue(item, now_ms=self._compute_ms(now_s))
            effects.append(ev.PublishVertex(entry.vertex.cid, entry.vertex.encoded))
            effects += self._say(self._on_own(entry, now_s), now_s)
        return effects

    def _on_own(self, entry: Entry, now_s: float) -> list[Said]:
        """Act on an own message that was just issued."""
        match entry.message:
            case Joined() as joined:
                self._introduced = joined
                return []
            case HelpReported() as help:
                values = {"event": "reported", "to": help.helper, "credits": help.credits, "owed": help.owed}
                told = ev.Tell(ev.Topic.HELP, f"was helped by {short_name(help.helper)}: {help.credits} credits", values)
                return [told, *self.tips.on_reported(help, entry.vertex.cid), *self.auditor.keep_models(self.cycle.kept)]
            case DatasliceConsumed(slices=slices):
                self.cycle.shelf.count_use(slices)
                return self.sharing.fetch_more()
            case ClaimSigned() | BallotSigned() as signed:
                self.dao.hear(self.me, signed, now_s)
                return []
            case _:
                return []

    # --- the clock's turns ----------------------------------------------------------------------------------

    def _sync_due(self, now_s: float) -> list[ev.Effect]:
        self.lane.expire(now_ms=self._compute_ms(now_s))
        asked, at_s = self._sync.turn(self.lane.dag.orphans, now_s)
        timer = ev.SetTimer(ev.Timer.SYNC, at_s)
        partners = sorted(self.connected & self.lane.members) or sorted(self.connected)  # Strangers need not answer.
        if not asked or not partners:
            return [timer]
        content = self.lane.ask().encode()
        return [*(ev.SendSync(partner, content) for partner in self._rng.sample(partners, min(asked, len(partners)))), timer]

    def _cycle_due(self, now_s: float) -> list[ev.Effect]:
        """Begin the next turn of the work cycle if nothing is under way and the budget of vertices allows it."""
        if self.dao.finished or self.cycle.is_busy:
            return []
        phase = self.dao.compute_phase(now_s)
        heard = self.dao.may_speak or phase is Phase.WAITING
        if not self.dao.is_member or not heard or not self._has_budget(now_s):
            return [ev.SetTimer(ev.Timer.CYCLE, now_s + IDLE_S)]
        effects = self._say(self.cycle.begin(phase, connected=frozenset(self.connected)), now_s)
        self._is_idle = not effects
        if self._is_idle:
            return [ev.SetTimer(ev.Timer.CYCLE, now_s + IDLE_S)]
        self._cycle_began_s = now_s
        return effects

    def _answered(self, event: ev.Event, now_s: float) -> list[ev.Effect]:
        """An answer to something that the work cycle or the sharing of slices asked for."""
        for part in (self.sharing, self.auditor):
            said = part.handle(event)
            if said is not None:
                return self._say(said, now_s)
        if self.dao.compute_phase(now_s) is Phase.CLOSED:
            self.cycle.abandon()
            return []
        cycles = self.cycle.cycles
        said = self.cycle.handle(event)
        if said is None:
            return []
        if not self.dao.may_speak:
            said = [item for item in said if not isinstance(item, Message)]
        said = [item for item in said if not self.auditor.forbids(item)]
        effects = self._say(said, now_s)
        if not self.cycle.is_busy:
            if self.cycle.cycles == cycles and not isinstance(event, ev.LearningFailed):
                self._cycle_began_s = 0.0  # The pace is for work: a model that was opened, or could not be had, is none.
            pause_s = IDLE_S if isinstance(event, ev.FetchFailed | ev.LearningFailed | ev.FileLost) else 0.0
            effects.append(ev.SetTimer(ev.Timer.CYCLE, max(now_s + pause_s, self._cycle_began_s + self._pace_s)))
        return effects

    def _has_budget(self, now_s: float) -> bool:
        head = self.lane.dag.head(self.me)
        if head is None:
            return True
        allowed_ms = compute_time_allowed_ms(self.lane.dag.first_ms(self.me), head.sequence + BUDGET_RESERVE)
        return max(self._compute_ms(now_s), head.time_ms) >= allowed_ms

    # --- the chain ------------------------------------------------------------------------------------------

    def _chain_read(self, view: ChainView, now_s: float) -> list[ev.Effect]:
        effects = self.dao.read(view, now_s)
        effects += self._say(self._introduce(), now_s)
        effects += self._say(self._close(now_s), now_s)
        if view.stage is Stage.CLAIMING and self.dao.may_speak:
            is_late = self.dao.compute_newest_time(now_s) >= self.dao.settlement.deadlines.compute_part_s(view.stage, TRIES_BY_PERMILLE)
            effects += self._say(self.auditor.step(view.beacon, connected=self.connected, is_late=is_late), now_s)
        if self.dao.may_speak and self.dao.needs_seal(now_s):
            effects += self._say([self.lane.compute_checkpoint(closing=False)], now_s)
        return [*effects, *self.dao.settle(now_s), *self._hurry(now_s)]

    def _hurry(self, now_s: float) -> list[ev.Effect]:
        """Whoever has no model yet looks for one as soon as there may be somebody to give it."""
        return [ev.SetTimer(ev.Timer.CYCLE, now_s)] if self.cycle.local is None and self.dao.is_member else []

    def _introduce(self) -> list[Said]:
        """Tell who and where this peer is, once it is a member and whenever its addresses changed (4.4)."""
        member = self.dao.membership.by_peer.get(self.me)
        if member is None or not self.dao.may_speak:
            return []
        addresses = tuple(filter(is_address, self._addresses))[:ADDRESSES_MAX]  # They came from routers and relays.
        message = Joined(poid=bytes.fromhex(member.poid.contract[2:]), addresses=addresses)
        joined: list[Said] = [] if self._introduced == message else [message]
        proof = self.lane.find_unproved_fork()
        return [*joined, *self.sharing.introduce(), *self.auditor.introduce(), *([] if proof is None else [proof])]

    def _close(self, now_s: float) -> list[Said]:
        """End the own row when training is over: nothing after the closing checkpoint counts (section 6)."""
        view = self.dao.view  # Its stage, not only our clock, because what is closed stays so.
        is_over = view is not None and view.stage not in (Stage.FUNDING, Stage.TRAINING)
        is_due = is_over and self.dao.compute_phase(now_s) is Phase.CLOSED and self.dao.may_speak
        if not is_due or self.lane.closing is not None:
            return []
        self.cycle.abandon()
        return [self.lane.compute_checkpoint(closing=True)]

    def _transaction_answered(self, event: ev.TransactionConfirmed | ev.TransactionFailed, now_s: float) -> list[ev.Effect]:
        if self.tips.owns(event.number):
            return self._say(self.tips.handle(event), now_s)
        return self.dao.answered(event, now_s)
