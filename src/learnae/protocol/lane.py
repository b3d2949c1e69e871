"""The control lane as one peer sees it: judges what arrives, issues what this peer says, repairs what is missing.

Composes the DAG, the judges and the ledger, because a vertex enters only if all three agree. Gossip is a hint, sync is the
promise: every few seconds two peers exchange have-vectors and page what the other lacks.
Pure. Source: docs/protocol.md (Sync, Limits); paper 2.1 (PubSub), 6 (Shared Contribution Vector).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import takewhile
from random import Random
from typing import Final

from learnae.ids import Cid, PeerId
from learnae.protocol import validation
from learnae.protocol.audits import AuditBook, AuditedReceipt
from learnae.protocol.contribution import ContributionLedger
from learnae.protocol.messages import (
    HEADS_MAX,
    KIND_OF,
    AuditVerdict,
    Checkpoint,
    ForkProved,
    HelpReported,
    Message,
    ModelAnnounced,
    ValidationCommitted,
)
from learnae.protocol.rules import SessionRules
from learnae.protocol.signed import BallotSigned, ClaimSigned
from learnae.protocol.store import ControlStore
from learnae.protocol.sync import SYNC_BYTES_MAX, SYNC_VERTICES_MAX, SYNC_WANT_MAX, SyncMessage
from learnae.tangle.dag import Fork, TangleDag
from learnae.tangle.store import Entry
from learnae.tangle.verdict import ACCEPTED, Ruling, Verdict, ignore
from learnae.tangle.vertex import TIME_MS_MAX, Sign, Vertex, create_vertex

PAGE_BYTES_MAX: Final = SYNC_BYTES_MAX // 2  # Leaves room for the have-vector in the same message.
WANTED_PER_PAGE_MAX: Final = SYNC_VERTICES_MAX // 2  # The other half stays for what the have-vector shows.
ANCESTRY_MAX: Final = 32  # Vertices before a wanted one: a branch of a thousand comes in thirty questions.
DISPUTES_PER_REPORTER_MAX: Final = 32  # Heads in one checkpoint that contradict ours; an honest one names each forker once.
UNDER_WAY_MS: Final = 1000  # Gossip takes less; what is older and lacking was lost.
ORPHAN_AGE_MAX_MS: Final = 600_000  # A partition of ten minutes; what is older comes by sync, in order.


_HEEDED: Final = frozenset({Checkpoint, ForkProved})
_WAITS = ignore("waits for what it names")  # Not judged yet: whoever forwarded it would answer for it.


@dataclass(frozen=True, slots=True)
class Received:
    """What one vertex from outside did: the ruling for its sender, what entered because of it, who turned out to fork."""

    ruling: Ruling
    entered: tuple[Entry, ...] = ()
    forked: tuple[PeerId, ...] = ()
    refused: tuple[tuple[PeerId, Ruling], ...] = ()  # of a page: who sent what was rejected


class ControlLane:
    """What this peer knows of the control lane, and its own log in it. Without a store it gets one that keeps all in memory."""

    def __init__(self, *, rules: SessionRules, me: PeerId, sign: Sign, rng: Random, store: ControlStore | None = None) -> None:
        self.store = store = store or ControlStore()
        self._rules = rules
        self._me = me
        self._sign = sign
        self._rng = rng
        self._codec = store.codec
        self.net = rules.compute_net("control")
        self.dag = TangleDag(self.net, store)
        self.ledger = ContributionLedger(self.dag, store.book)
        self.audits: AuditBook | None = AuditBook() if rules.audit_permille else None
        self.members: frozenset[PeerId] = frozenset()
        self.closing: Cid | None = None  # this peer's own closing checkpoint
        self.seal: Cid | None = None  # its newest other one: what its claim was computed from
        self._disputed: dict[PeerId, dict[Cid, None]] = {}  # by reporter: heads that its checkpoint names and that are not here
        self._proved: dict[PeerId, int] = {}  # issuer -> sequence of its earliest fork of which a proof is in the lane

    # --- what arrives ---------------------------------------------------------------------------------------

    def receive(self, encoded: bytes, *, now_ms: int) -> Received:
        """Judge one vertex from the network and let it, and whatever waited for it, enter."""
        vertex = self._codec.decode(encoded)
        if not isinstance(vertex, Vertex):
            return Received(vertex)
        if self.dag.knows(vertex) or vertex.cid in self.dag.orphans:
            return Received(ignore("known"))
        message = validation.validate_alone(vertex, self._codec.parse(vertex), self._rules, self.net, now_ms=now_ms)
        if isinstance(message, Ruling):
            return Received(message)
        ruling = validation.is_of_members(vertex, message, self.members)
        if ruling is not ACCEPTED:
            return Received(ruling)
        if self.dag.is_branch(vertex) and not self._is_needed(vertex.cid):
            return Received(ignore("its issuer forked"))
        if not self._codec.verify(vertex):
            return Received(Ruling(Verdict.REJECT, "wrong signature"))
        missing = self.dag.missing_of(vertex, validation.compute_dependencies(message))
        if missing:
            kept = self.dag.orphans.add(vertex, missing)
            return Received(_WAITS if kept else ignore("its issuer has too many vertices that wait for others"))
        return self._enter(vertex, message)

    def receive_page(self, page: Iterable[tuple[PeerId, bytes]], *, now_ms: int) -> Received:
        """As `receive`, for vertices that came together, each with who sent it; in a shared store much faster.

        What another peer of this process judged needs only a look whether this peer may take it now: its issuer is a member, its time
        has come, all that it needs is here, and nobody that it hangs on forked.
        """
        dag, judged, contested, members = self.dag, self.store.judged, self.store.contested, self.members
        dag.make_places()
        lengths, logs, tips, orphans, needed = dag.lengths, dag.logs, dag.tips, dag.orphans, dag.orphans.needed
        is_audited = self.audits is not None
        latest_ms = now_ms + validation.TIME_AHEAD_MAX_MS
        entered: list[Entry] = []
        forked: list[PeerId] = []
        refused: list[tuple[PeerId, Ruling]] = []
        for sender, encoded in page:
            entry = judged.get(encoded)
            plain = entry is not None and not (contested and entry.hangs_on(contested))
            if entry is None or not plain or entry.time_ms > latest_ms or entry.vertex.issuer not in members:
                received = self.receive(encoded, now_ms=now_ms)
                entered += received.entered
                forked += received.forked
                if received.ruling.verdict is Verdict.REJECT:
                    refused.append((sender, received.ruling))
                continue
            vertex, place = entry.vertex, entry.issuer
            ahead = entry.sequence - lengths[place]
            if ahead <= 0:
                continue  # Known: its issuer did not fork, so there is no other one of this number.
            for other, sequence in entry.needs:
                if lengths[other] < sequence:
                    ahead = 2
                    break
            if ahead > 1:
                if vertex.cid not in orphans:
                    orphans.add(vertex, dag.missing_of(vertex, validation.compute_dependencies(entry.message)))
                continue
            lengths[place] += 1
            if logs[place] is None:
                logs[place] = self.store.only_log(place)
            for parent in vertex.parents:
                if parent in tips:
                    del tips[parent]
            tips[vertex.cid] = vertex
            dag.count += 1
            entered.append(entry)
            if is_audited or type(entry.message) in _HEEDED:
                self._heed_judged(entry, forked)
            if vertex.cid in needed:
                self._release(vertex.cid, entered, forked)
        return Received(ACCEPTED, tuple(entered), tuple(forked), tuple(refused))

    def _heed_judged(self, entry: Entry, forked: list[PeerId]) -> None:
        """An entry that another peer judged entered here: what follows from it for the lane."""
        self._heed(entry, forked)
        if self.audits is not None:
            self._note_audit(self.audits, entry.vertex, entry.message)

    def _enter(self, vertex: Vertex, message: Message) -> Received:
        """Let a vertex enter, then all that waited for it, parents first. The ruling is that of the first."""
        entered: list[Entry] = []
        forked: list[PeerId] = []
        ruling = self._insert(vertex, message, entered, forked)
        if ruling is ACCEPTED:
            self._release(vertex.cid, entered, forked)
        return Received(ruling, tuple(entered), tuple(forked))

    def _release(self, cid: Cid, entered: list[Entry], forked: list[PeerId]) -> None:
        """Let enter what waited for this vertex only, and what waited for that."""
        ready = self.dag.orphans.release(cid)
        while ready:
            freed = ready.pop()
            parsed = self._codec.parse(freed)
            assert parsed is not None, "orphans were parsed before they waited"
            if self._insert(freed, parsed, entered, forked) is ACCEPTED:
                ready += self.dag.orphans.release(freed.cid)

    def _insert(self, vertex: Vertex, message: Message, entered: list[Entry], forked: list[PeerId]) -> Ruling:
        judged = self.store.judged.get(vertex.encoded)
        if judged is not None and not judged.hangs_on(self.store.contested):
            self.dag.make_places()
            self.dag.append(judged)
            entered.append(judged)
            self._heed_judged(judged, forked)
            return ACCEPTED
        counted = self.dag.counted_length(vertex.issuer)
        on_branch = vertex.sequence != counted + 1 or self.dag.is_branch(vertex)  # beside the log: judged only as a fork
        ruling = self._judge(vertex, message, on_branch=on_branch)
        if ruling is not ACCEPTED:
            return ruling
        inserted = self.dag.insert(vertex, message, validation.compute_dependencies(message))
        if inserted.fork is not None:
            forked.append(vertex.issuer)
        if inserted.entry is None:
            return ignore("its issuer has too many branches")
        entered.append(inserted.entry)
        if not on_branch:
            log = self.dag.log(vertex.issuer)
            assert log is not None, "it was just extended"
            self.store.accept(inserted.entry, log)
            self.ledger.fold(vertex.issuer, vertex.sequence, message)
            if self.audits is not None:
                self._note_audit(self.audits, vertex, message)
        self._heed(inserted.entry, forked)
        return ACCEPTED

    def _judge(self, vertex: Vertex, message: Message, *, on_branch: bool) -> Ruling:
        """Rules 8 to 14: all that a vertex depends on is here."""
        get, issuer = self.dag.get, vertex.issuer
        ruling = validation.validate_place(vertex, get=get, first_ms=self.dag.first_ms(issuer))
        if ruling is not ACCEPTED:
            return ruling
        match message:
            case HelpReported() if not on_branch:
                owed = self.ledger.value(issuer, message.helper)
                credited = self.ledger.has_credited(issuer, message.announcement)
                ruling = validation.validate_help(vertex, message, get=get, owed=owed, credited=credited)
                if ruling is ACCEPTED and self.audits is not None:
                    ruling = validation.validate_measured(message, self.audits.find_commitment(issuer))
                return ruling
            case ClaimSigned() | BallotSigned() if not on_branch:
                return validation.validate_signed(vertex, message, get=get, signed=self.ledger.has_signed(issuer, type(message)))
            case AuditVerdict():
                return validation.validate_verdict(vertex, message, get=get)
            case ForkProved():
                return validation.validate_fork(message, self.net)
        return ACCEPTED

    def _heed(self, entry: Entry, forked: list[PeerId]) -> None:
        """Act on the messages that are about the lane itself."""
        message, vertex = entry.message, entry.vertex
        if isinstance(message, ForkProved):
            self._learn_fork(message, forked)
        elif isinstance(message, Checkpoint):
            self._compare_heads(entry, message)
            if vertex.issuer == self._me and message.closing:
                self.closing = self.closing or vertex.cid
            elif vertex.issuer == self._me:
                self.seal = vertex.cid

    def _note_audit(self, book: AuditBook, vertex: Vertex, message: Message) -> None:
        """Keep what audits need: commitments, receipts that can be drawn, verdicts."""
        match message:
            case ValidationCommitted():
                book.add_commitment(vertex.issuer, message)
            case HelpReported() if not self.ledger.is_closed(vertex.issuer):
                announced = self.dag.find(message.announcement)
                assert announced is not None and isinstance(announced.message, ModelAnnounced), "rule 11a"
                book.add_receipt(AuditedReceipt(vertex.cid, vertex.issuer, message, announced.message.model))
            case AuditVerdict():
                subject = self.dag.find(message.subject)
                assert subject is not None and isinstance(subject.message, HelpReported | Checkpoint), "rule 14"
                issuer = subject.vertex.issuer
                book.add_verdict(vertex.issuer, vertex.sequence, message, issuer=issuer, subject=subject.message)

    def _learn_fork(self, proof: ForkProved, forked: list[PeerId]) -> None:
        issuer, sequence = proof.issuer, proof.sequence
        self._proved[issuer] = min(sequence, self._proved.get(issuer, sequence))
        if self.dag.prove_fork(Fork(issuer, sequence, proof.first, proof.second)):
            forked.append(issuer)

    def _compare_heads(self, entry: Entry, checkpoint: Checkpoint) -> None:
        """Ask for heads that differ from ours at the same number: have-vectors alone do not show such a fork."""
        dag = self.dag
        if self.store.agrees(entry, checkpoint):
            return
        for issuer, sequence, cid in checkpoint.heads:
            comparable = sequence <= dag.length(issuer) or dag.fork(issuer) is not None
            if comparable and dag.cid_at(issuer, sequence) != cid and cid not in dag:
                disputed = self._disputed.setdefault(entry.vertex.issuer, {})
                if len(disputed) < DISPUTES_PER_REPORTER_MAX:
                    disputed[cid] = None

    def find_unproved_fork(self) -> ForkProved | None:
        """A fork that this peer knows and that no vertex of the lane proves to the others yet."""
        for issuer, fork in self.dag.forks.items():
            if self._proved.get(issuer, fork.sequence + 1) > fork.sequence:
                return ForkProved(issuer=issuer, sequence=fork.sequence, first=fork.first, second=fork.second)
        return None

    def _is_needed(self, cid: Cid) -> bool:
        """Whether something that is here names this vertex: then it must enter although its issuer forked."""
        return self.dag.orphans.is_needed(cid) or any(cid in heads for heads in self._disputed.values())

    def restore(self, vertices: Iterable[bytes]) -> Iterator[Entry]:
        """Take back what the journal kept, in its order, as it is read. These bytes were judged before they were written."""
        for encoded in vertices:
            vertex = self._codec.decode_judged(encoded)
            message = self._codec.parse(vertex)
            assert message is not None, "the journal holds only parsed vertices"
            entries: list[Entry] = []
            if not self.dag.knows(vertex):
                self._insert(vertex, message, entries, [])
            yield from entries

    # --- what this peer says --------------------------------------------------------------------------------

    def issue(self, message: Message, *, now_ms: int) -> Entry:
        """Sign the next vertex of this peer's own log and let it enter. It must be on disk before it is published.

        Its time is the clock's, or as much later as its parents and the budget of rule 10 ask for.
        """
        parents = self.dag.choose_parents(self._me, now_ms=now_ms, rng=self._rng)
        times = [vertex.time_ms for vertex in map(self.dag.get, (*parents, *validation.compute_dependencies(message))) if vertex]
        head = self.dag.head(self._me)
        sequence = head.sequence + 1 if head else 1
        allowed_ms = validation.compute_time_allowed_ms(self.dag.first_ms(self._me), sequence)
        vertex = create_vertex(
            net=self.net,
            parents=parents,
            issuer=self._me,
            sequence=sequence,
            time_ms=max([now_ms, self._rules.starts_s * 1000, allowed_ms, *(time + 1 for time in times)]),
            kind=int(KIND_OF[type(message)]),
            body=message.to_body(),
            sign=self._sign,
        )
        judged = validation.validate_alone(vertex, self._codec.parse(vertex), self._rules, self.net, now_ms=vertex.time_ms)
        assert judged == message, f"issued a vertex that others will refuse: {judged}"
        received = self._enter(vertex, message)
        assert received.ruling is ACCEPTED, f"issued a vertex that its own rules refuse: {received.ruling.why}"
        return received.entered[0]

    def compute_checkpoint(self, *, closing: bool) -> Checkpoint:
        """What this peer has folded so far (section 6): the heads of all issuers, or of as many as fit; of forkers the common prefix."""
        heads = []
        for issuer in sorted(self.dag.have_vector())[:HEADS_MAX]:
            length = self.dag.counted_length(issuer)
            cid = self.dag.cid_at(issuer, length)
            if cid is not None:
                heads.append((issuer, length, cid))
        return Checkpoint(closing=closing, heads=tuple(heads))

    # --- sync -----------------------------------------------------------------------------------------------

    def ask(self, *, answer: bool = False) -> SyncMessage:
        """A message that tells what this peer has and asks for what orphans wait for."""
        want = self.dag.orphans.missing(cids_max=SYNC_WANT_MAX)
        for reporter, heads in list(self._disputed.items()):
            open_heads = {cid: None for cid in heads if cid not in self.dag and cid not in self.dag.orphans}
            self._disputed[reporter] = open_heads
            want += open_heads
            if not open_heads:
                del self._disputed[reporter]
        return SyncMessage(have=self.dag.have_vector(), answer=answer, want=tuple(dict.fromkeys(want))[:SYNC_WANT_MAX])

    def answer(self, sync: SyncMessage, *, now_ms: int | None = None) -> list[SyncMessage]:
        """What to send back to a peer that told what it has: a page of what it lacks, and our own asking if it has more.

        `now_ms`: leave out what gossip is just bringing to everybody.
        """
        answers = []
        page: dict[Cid, Vertex] = {}
        for cid in sync.want:
            if len(page) < WANTED_PER_PAGE_MAX:
                page.update((vertex.cid, vertex) for vertex in self._find_wanted(cid, sync.have or {}))
        if sync.have is not None:
            lacking = self.dag.lacking(sync.have, vertices_max=max(0, SYNC_VERTICES_MAX - len(page)))
            latest_ms = TIME_MS_MAX if now_ms is None else now_ms - UNDER_WAY_MS
            page.update((vertex.cid, vertex) for vertex in lacking if vertex.time_ms <= latest_ms)
        if page:
            answers.append(SyncMessage(vertices=_fill_page(page.values())))
        if sync.have is not None and not sync.answer and self.dag.lacks(sync.have, self.members):
            answers.append(self.ask(answer=True))
        return answers

    def _find_wanted(self, cid: Cid, have: Mapping[PeerId, int]) -> Iterator[Vertex]:
        """A vertex that was asked for and, newest first, those of its issuer before it that the other lacks.

        Who asks for a number that it has stands on another branch: then we cannot know where the branches part.
        """
        wanted = self.dag.get(cid)
        known = 0 if wanted is None else have.get(wanted.issuer, 0)
        on_branch = wanted is not None and wanted.sequence <= known
        ancestry = (entry.vertex for entry in self.dag.ancestry(cid, vertices_max=ANCESTRY_MAX))
        return ancestry if on_branch else takewhile(lambda vertex: vertex.sequence > known, ancestry)

    def expire(self, *, now_ms: int) -> None:
        """Forget orphans whose parents never came."""
        self.dag.orphans.expire(before_ms=now_ms - ORPHAN_AGE_MAX_MS)


def _fill_page(vertices: Iterable[Vertex]) -> tuple[bytes, ...]:
    """As many vertices, in order, as one message carries; the rest is asked for again."""
    page, size = [], 0
    for vertex in vertices:
        size += len(vertex.encoded)
        if size > PAGE_BYTES_MAX:
            break
        page.append(vertex.encoded)
    return tuple(page)
