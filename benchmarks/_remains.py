"""What a member's journal and block store say after its node has ended, read anew and judged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from random import Random

from benchmarks._swarm import Member
from learnae.backends.disk_blocks import DiskBlocks
from learnae.backends.disk_journal import DiskJournal
from learnae.errors import ModelRejectedError
from learnae.ids import Cid, Credits, PeerId, cid_text
from learnae.learning.synthetic import MODEL_BYTES, decode_skills
from learnae.protocol.cycle import ANNOUNCED_PINNED
from learnae.protocol.lane import ControlLane
from learnae.protocol.messages import ModelAnnounced
from learnae.protocol.rules import Ticket
from learnae.protocol.store import ControlStore


@dataclass(frozen=True, slots=True, kw_only=True)
class Remains:
    """What one node left."""

    ledger: Mapping[PeerId, Mapping[PeerId, Credits]]  # whom each peer owes how much
    vertices: int
    forks: int
    corrupt: tuple[str, ...]  # own models that others were told of and that are not here any more, or are no models


def read_remains(member: Member, ticket: Ticket) -> Remains:
    """Fold the journal anew, and read every model that the node still vouches for."""
    identity = member.keys.identity
    journal = DiskJournal(member.actor.folder)
    try:
        store = ControlStore(archive=journal)
        lane = ControlLane(rules=ticket.rules, me=identity.peer_id, sign=identity.sign, rng=Random(0), store=store)
        announced: list[Cid] = []
        for entry in lane.restore(journal.vertices()):
            if isinstance(entry.message, ModelAnnounced) and entry.vertex.issuer == identity.peer_id:
                announced.append(entry.message.model)
        ledger = {issuer: row for issuer, row in lane.ledger.rows().items() if row}
        vertices, forks = len(lane.dag), len(lane.dag.forks)
    finally:
        journal.close()
    blocks = DiskBlocks(member.actor.folder / "blocks")
    faults = [_find_fault(blocks, cid) for cid in dict.fromkeys(announced[-ANNOUNCED_PINNED:])]
    return Remains(ledger=ledger, vertices=vertices, forks=forks, corrupt=tuple(fault for fault in faults if fault))


def _find_fault(blocks: DiskBlocks, cid: Cid) -> str:
    """What is wrong with a model in the store, whose blocks are hashed as they are read; empty if nothing is."""
    content = blocks.get_file(cid, bytes_max=MODEL_BYTES)
    if content is None:
        return f"{cid_text(cid)} is not in the block store, or damaged"
    try:
        decode_skills(bytes(content))
    except ModelRejectedError as error:
        return f"{cid_text(cid)} is no model: {error}"
    return ""
