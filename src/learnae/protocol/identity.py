"""Distributed Proof of Identity: which members count, and under which peer id (4.4).

The chain side has already checked each record: both signatures and the runtime code (`PoidRecord.fault`). Here the paper's own
rule decides between records that are all valid: of two that claim one peer id, the later one is fraud. Later means its position
in the chain, not what `getTimestamp()` says (deviation D8: a miner or an impostor's contract chooses timestamps).
Pure. Source: paper 4.4.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from nacl.exceptions import BadSignatureError
from nacl.signing import VerifyKey

from learnae.ids import Address, PeerId, peer_text
from learnae.protocol.calls import Member

PEER_DOMAIN: Final = b"learnae/poid/1\n"


def compute_peer_message(wallet: Address, chain_id: int) -> bytes:
    """What the peer's Ed25519 key signs: domain, chain id (32 bytes), wallet (20 bytes)."""
    return PEER_DOMAIN + chain_id.to_bytes(32, "big") + bytes.fromhex(wallet[2:])


def is_signed_by_peer(peer_id: PeerId, wallet: Address, chain_id: int, signature: bytes) -> bool:
    """Whether the peer itself bound its id to this wallet; without that anybody could front-run its record (4.4)."""
    try:
        VerifyKey(bytes(peer_id)).verify(compute_peer_message(wallet, chain_id), signature)
    except (BadSignatureError, ValueError):
        return False
    return True


@dataclass(frozen=True, slots=True)
class Membership:
    """The members whose identity holds, by peer id, and the others with the reason why not."""

    by_peer: Mapping[PeerId, Member]
    rejected: tuple[tuple[Member, str], ...] = ()
    peers: frozenset[PeerId] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "peers", frozenset(self.by_peer))


def judge_members(members: Iterable[Member]) -> Membership:
    """Apply the conflict rule of 4.4 to the members of a session; the order of the argument does not matter."""
    by_peer: dict[PeerId, Member] = {}
    rejected = []
    for member in sorted(members, key=lambda m: (m.poid.position, m.index)):
        poid = member.poid
        if poid.fault:
            rejected.append((member, poid.fault))
        elif poid.wallet != member.wallet:
            rejected.append((member, f"its proof of identity names the wallet {poid.wallet}, the deposit came from {member.wallet}"))
        elif poid.peer_id in by_peer:
            earlier = by_peer[poid.peer_id]
            why = f"{peer_text(poid.peer_id)} was claimed before, by {earlier.wallet}: the later record is fraud"
            rejected.append((member, why))
        else:
            by_peer[poid.peer_id] = member
    return Membership(by_peer, tuple(rejected))
