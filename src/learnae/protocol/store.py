"""What a process knows of the control lane: the vertices, the rows that follow from them, and which ones were judged already.

A node has one for its peer. In the simulator all peers share one: whether a vertex breaks a rule depends only on itself and on what it
names, so what one peer judged holds for all that know the same.
"""

from __future__ import annotations

from learnae.ids import Cid, PeerId
from learnae.protocol.contribution import ReceiptBook
from learnae.protocol.identity import Membership
from learnae.protocol.messages import Checkpoint, ModelAnnounced
from learnae.protocol.models import AnnouncementBook
from learnae.protocol.rewards import Rows
from learnae.protocol.rules import SessionRules
from learnae.protocol.settlement import Points, compute_expected_points
from learnae.protocol.validation import ControlCodec
from learnae.tangle.store import Archive, Entry, IssuerLog, VertexStore


class ControlStore(VertexStore):
    """The store of the control lane. `shared`: several peers use it, so judgements are remembered, for one simulated run."""

    def __init__(self, codec: ControlCodec | None = None, *, archive: Archive | None = None, shared: bool = False) -> None:
        self.codec: ControlCodec
        super().__init__(codec or ControlCodec(), archive=archive)
        self.book = ReceiptBook(shared=shared)
        self.announced = AnnouncementBook(kept_max=None) if shared else AnnouncementBook()
        self.judged: dict[bytes, Entry] = {}  # encoded -> entry, of what some peer judged and took into a log
        self._agreed: set[int] = set()  # checkpoints whose heads are all here, each in the only log of its issuer
        self._shared = shared
        self._points: tuple[Rows, frozenset[PeerId], Points] | None = None  # the last that were computed

    def accept(self, entry: Entry, log: IssuerLog) -> None:
        """An entry passed all rules and stands in its issuer's log."""
        if self._shared and entry.vertex.encoded in self.judged:
            return
        if isinstance(entry.message, ModelAnnounced):
            self.announced.add(log, entry)
        if self._shared:
            self.judged[entry.vertex.encoded] = entry

    def agrees(self, entry: Entry, checkpoint: Checkpoint) -> bool:
        """Whether nobody can dispute a checkpoint's heads: nobody forked, and each is a vertex that some peer took in as what it says."""
        if self.contested or not self._shared:
            return False
        if entry.number not in self._agreed and all(self._is_head(*head) for head in checkpoint.heads):
            self._agreed.add(entry.number)
        return entry.number in self._agreed

    def compute_points(self, rules: SessionRules, rows: Rows, membership: Membership) -> Points:
        """What each member may claim (`compute_expected_points`), once for all peers with one ledger."""
        if not self._shared:
            return compute_expected_points(rules, rows, membership)
        if self._points is None or self._points[0] is not rows or self._points[1] != membership.peers:
            self._points = (rows, membership.peers, compute_expected_points(rules, rows, membership))
        return self._points[2]

    def _is_head(self, issuer: PeerId, sequence: int, cid: Cid) -> bool:
        head = self.find(cid)
        return head is not None and (head.vertex.issuer, head.sequence) == (issuer, sequence)
