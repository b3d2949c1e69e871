"""The control lane as one peer sees it: judges what arrives, issues what this peer says, repairs what is missing.

Composes the DAG, the judges and the ledger, because a vertex enters only if all three agree. Gossip is a hint, sync is the
promise: every few seconds two peers exchange have-vectors and page what the other lacks.
Pure. Source: docs/protocol.md (Sync, Limits); paper 2.1 (PubSub), 6 (Shared Contribution Vector).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from random import Random
from typing import Final

from learnae.ids import Cid, PeerId
from learnae.protocol import validation
from learnae.protocol.contribution import ContributionLedger
from learnae.protocol.messages import (
    HEADS_MAX,
    KIND_OF,
    SYNC_BYTES_MAX,
    SYNC_VERTICES_MAX,
    SYNC_WANT_MAX,
    Checkpoint,
    ForkProved,
    HelpReported,
    Message,
    SyncMessage,
)
from learnae.protocol.rules import SessionRules
from learnae.tangle.dag import TangleDag
from learnae.tangle.verdict import ACCEPTED, Ruling, Verdict, ignore
from learnae.tangle.vertex import Sign, Vertex, create_vertex

PAGE_BYTES_MAX: Final = SYNC_BYTES_MAX // 2  # Leaves room for the have-vector in the same message.
ORPHAN_AGE_MAX_MS: Final = 600_000  # A partition of ten minutes; what is older comes by sync, in order.


@dataclass(frozen=True, slots=True)
class Entry:
    """A vertex that entered the lane, and its message."""

    vertex: Vertex
    message: Message


@dataclass(frozen=True, slots=True)
class Received:
    """What one vertex from outside did: the ruling for its sender, what entered because of it, who turned out to fork."""

    ruling: Ruling
    entered: tuple[Entry, ...] = ()
    forked: tuple[PeerId, ...] = ()
    proofs: tuple[ForkProved, ...] = ()  # new ones that this peer found itself and should tell others


class ControlLane:
    """What this peer knows of the control lane, and its own log in it."""

    def __init__(self, *, rules: SessionRules, me: PeerId, sign: Sign, rng: Random, codec: validation.ControlCodec) -> None:
        self._rules = rules
        self._me = me
        self._sign = sign
        self._rng = rng
        self._codec = codec
        self.net = rules.compute_net("control")
        self.dag = TangleDag(self.net)
        self.ledger = ContributionLedger()
        self.members: frozenset[PeerId] = frozenset()
        self._wanted: set[Cid] = set()  # asked for by CID: accepted also from issuers that forked

    # --- what arrives ---------------------------------------------------------------------------------------

    def receive(self, encoded: bytes, *, now_ms: int) -> Received:
        """Judge one vertex from the network and let it, and whatever waited for it, enter."""
        vertex = self._codec.decode(encoded)
        if not isinstance(vertex, Vertex):
            return Received(vertex)
        if vertex.cid in self.dag or vertex.cid in self.dag.orphans:
            return Received(ignore("known"))
        message = validation.validate_alone(vertex, self._codec.parse(vertex), self._rules, self.net, now_ms=now_ms)
        if isinstance(message, Ruling):
            return Received(message)
        ruling = validation.is_member_vertex(vertex, self.members)
        if ruling is not ACCEPTED:
            return Received(ruling)
        if vertex.issuer in self.dag.forks and vertex.cid not in self._wanted:
            return Received(ignore("its issuer forked"))
        if not self._codec.verify(vertex):
            return Received(Ruling(Verdict.REJECT, "wrong signature"))
        missing = self.dag.missing_of(vertex, validation.compute_dependencies(message))
        if missing:
            kept = self.dag.orphans.add(vertex, missing)
            return Received(ACCEPTED if kept else ignore("its issuer has too many vertices that wait for others"))
        return self._enter(vertex, message)

    def _enter(self, vertex: Vertex, message: Message) -> Received:
        """Let a vertex enter, then all that waited for it, parents first. The ruling is that of the first."""
        first_ruling: Ruling | None = None
        entered: list[Entry] = []
        forked: list[PeerId] = []
        proofs: list[ForkProved] = []
        ready = [(vertex, message)]
        while ready:
            vertex, message = ready.pop()
            ruling = self._insert(vertex, message, entered, forked, proofs)
            first_ruling = first_ruling or ruling
            if ruling is ACCEPTED:
                for freed in self.dag.orphans.release(vertex.cid):
                    parsed = self._codec.parse(freed)
                    assert parsed is not None, "orphans were parsed before they waited"
                    ready.append((freed, parsed))
        assert first_ruling is not None
        return Received(first_ruling, tuple(entered), tuple(forked), tuple(proofs))

    def _insert(
        self, vertex: Vertex, message: Message, entered: list[Entry], forked: list[PeerId], proofs: list[ForkProved]
    ) -> Ruling:
        row = self.ledger.row(vertex.issuer)
        first = next(self.dag.chain(vertex.issuer), None)
        on_branch = vertex.sequence != row.sequence + 1  # beside the issuer's log: judged only as a fork
        ruling = validation.validate_place(vertex, get=self.dag.get, first=first)
        if ruling is ACCEPTED and isinstance(message, HelpReported) and not on_branch:
            ruling = validation.validate_help(vertex, message, get=self.dag.get, row=row)
        if ruling is not ACCEPTED:
            return ruling
        pair = None
        if isinstance(message, ForkProved):
            pair = validation.validate_fork(message, self._codec, self.net)
            if pair is None:
                return Ruling(Verdict.REJECT, "a fork proof that proves nothing")
        inserted = self.dag.insert(vertex)
        self._wanted.discard(vertex.cid)
        if inserted.fork is not None:
            forked.append(vertex.issuer)
            proofs.append(ForkProved(first=inserted.fork.first.encoded, second=inserted.fork.second.encoded))
            self._refold(vertex.issuer)
        if inserted.vertices:
            entered.append(Entry(vertex, message))
        if not on_branch and vertex.issuer not in self.dag.forks:
            self.ledger.fold(vertex.issuer, vertex.sequence, message)
        if pair is not None and self.dag.prove_fork(*pair) is not None:
            forked.append(pair[0].issuer)
            self._refold(pair[0].issuer)
        return ACCEPTED

    def _refold(self, issuer: PeerId) -> None:
        def read(vertex: Vertex) -> Message:
            message = self._codec.parse(vertex)
            assert message is not None, "only parsed vertices enter"
            return message

        self.ledger.refold(issuer, ((v.sequence, read(v)) for v in self.dag.chain(issuer)))

    def restore(self, vertices: Iterable[bytes]) -> list[Entry]:
        """Take back what the journal kept, in its order. These bytes were judged before they were written."""
        entries: list[Entry] = []
        for encoded in vertices:
            vertex = self._codec.decode(encoded)
            assert isinstance(vertex, Vertex), "the journal holds only vertices"
            message = self._codec.parse(vertex)
            assert message is not None, "the journal holds only parsed vertices"
            if vertex.cid not in self.dag:
                self._insert(vertex, message, entries, [], [])
        return entries

    # --- what this peer says --------------------------------------------------------------------------------

    def issue(self, message: Message, *, now_ms: int) -> Entry:
        """Sign the next vertex of this peer's own log and let it enter. It must be on disk before it is published."""
        parents = self.dag.choose_parents(self._me, now_ms=now_ms, rng=self._rng)
        times = [vertex.time_ms for vertex in map(self.dag.get, (*parents, *validation.compute_dependencies(message))) if vertex]
        head = self.dag.head(self._me)
        vertex = create_vertex(
            net=self.net,
            parents=parents,
            issuer=self._me,
            sequence=head.sequence + 1 if head else 1,
            time_ms=max([now_ms, *(time + 1 for time in times)]),
            kind=int(KIND_OF[type(message)]),
            body=message.to_body(),
            sign=self._sign,
        )
        received = self._enter(vertex, message)
        assert received.ruling is ACCEPTED, f"issued a vertex that its own rules refuse: {received.ruling.why}"
        return Entry(vertex, message)

    def compute_checkpoint(self, *, closing: bool) -> Checkpoint:
        """What this peer has folded so far (section 6): the heads of the largest issuers first if they do not all fit."""
        heads = []
        for issuer in sorted(self.dag.have_vector()):
            head = self.dag.head(issuer)
            assert head is not None
            heads.append((issuer, head.sequence, head.cid))
        return Checkpoint(closing=closing, heads=tuple(heads[:HEADS_MAX]))

    # --- sync -----------------------------------------------------------------------------------------------

    def ask(self, *, answer: bool = False) -> SyncMessage:
        """A message that tells what this peer has and asks for what orphans wait for."""
        want = tuple(self.dag.orphans.missing(cids_max=SYNC_WANT_MAX))
        self._wanted = set(want)
        return SyncMessage(have=self.dag.have_vector(), answer=answer, want=want)

    def answer(self, sync: SyncMessage) -> list[SyncMessage]:
        """What to send back to a peer that told what it has: a page of what it lacks, and our own asking if it has more."""
        answers = []
        page: list[Vertex] = []
        if sync.want:
            page += [vertex for vertex in map(self.dag.get, sync.want) if vertex is not None]
        if sync.have is not None:
            named = {vertex.cid for vertex in page}
            lacking = self.dag.lacking(sync.have, vertices_max=SYNC_VERTICES_MAX - len(page))
            page += [vertex for vertex in lacking if vertex.cid not in named]
        if page:
            answers.append(SyncMessage(vertices=_fill_page(page)))
        if sync.have is not None and not sync.answer:
            mine = self.dag.have_vector()
            if any(sequence > mine.get(issuer, 0) for issuer, sequence in sync.have.items() if issuer in self.members):
                answers.append(self.ask(answer=True))
        return answers

    def expire(self, *, now_ms: int) -> None:
        """Forget orphans whose parents never came."""
        self.dag.orphans.expire(before_ms=now_ms - ORPHAN_AGE_MAX_MS)


def _fill_page(vertices: list[Vertex]) -> tuple[bytes, ...]:
    """As many vertices, in order, as one message carries; the rest is asked for again."""
    page, size = [], 0
    for vertex in vertices:
        size += len(vertex.encoded)
        if size > PAGE_BYTES_MAX:
            break
        page.append(vertex.encoded)
    return tuple(page)
