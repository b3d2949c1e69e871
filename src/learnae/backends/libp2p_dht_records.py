"""The small part of the libp2p DHT that a session needs: messages, distances, and what a node keeps for others.

A *provider record* says that a peer takes part in a session, under the multihash of the session's CID; it names nobody but
the peer that brought it. Everything kept is bounded: sessions, providers, contacts, addresses, and how many contacts one
network address may fill. Pure: the clock is passed in.
Source: libp2p specs, kad-dht (messages ADD_PROVIDER, GET_PROVIDERS, FIND_NODE; SHA-256 and XOR as distance). Values (PUT_VALUE,
GET_VALUE) are left out; contacts are one bounded list instead of buckets, which is enough for some hundred servers.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from libp2p.kad_dht.pb import kademlia_pb2 as pb
from libp2p.peer.id import ID
from multiaddr import Multiaddr
from multiaddr.exceptions import BinaryParseError, ProtocolLookupError, StringParseError

from learnae.backends.libp2p_address import ADDRESSES_MAX, libp2p_id, peer_of, read_ip, read_target
from learnae.errors import BadAddressError
from learnae.ids import PeerId, peer_text

CLOSEST: Final = 20  # k of the specification
SESSIONS_MAX: Final = 1024
PROVIDERS_MAX: Final = 20  # Of one session: enough to find the others from.
CONTACTS_MAX: Final = 256
CONTACTS_PER_SOURCE_MAX: Final = 8  # Brought from one network address, so that nobody fills the list alone.
RECORD_S: Final = 24 * 3600.0
_KEY_BYTES_MAX: Final = 80


@dataclass(frozen=True, slots=True)
class Contact:
    """A peer and where it says it can be dialled: multiaddrs with `/p2p/...`."""

    peer: PeerId
    addresses: tuple[str, ...]


def compute_distance(key: bytes, peer: PeerId) -> int:
    """How far a peer is from a key: XOR of their hashes."""
    here = hashlib.sha256(libp2p_id(peer).to_bytes()).digest()
    return int.from_bytes(hashlib.sha256(key).digest(), "big") ^ int.from_bytes(here, "big")


class RecordStore:
    """What one node keeps for others."""

    def __init__(self) -> None:
        self._records: OrderedDict[bytes, OrderedDict[PeerId, tuple[float, Contact]]] = OrderedDict()
        self._contacts: OrderedDict[PeerId, tuple[str, Contact]] = OrderedDict()  # with the address that brought it

    def add_provider(self, key: bytes, contact: Contact, now_s: float) -> None:
        if not 0 < len(key) <= _KEY_BYTES_MAX or not contact.addresses:
            return
        providers = self._records.setdefault(key, OrderedDict())
        self._records.move_to_end(key)
        providers[contact.peer] = (now_s, contact)
        providers.move_to_end(contact.peer)
        if len(providers) > PROVIDERS_MAX:
            providers.popitem(last=False)
        if len(self._records) > SESSIONS_MAX:
            self._records.popitem(last=False)

    def find_providers(self, key: bytes, now_s: float) -> list[Contact]:
        """Newest first."""
        found = self._records.get(key, OrderedDict[PeerId, tuple[float, Contact]]())
        return [contact for since_s, contact in reversed(found.values()) if since_s > now_s - RECORD_S]

    def add_contact(self, contact: Contact, source: str) -> None:
        """`source`: the network address of whoever told; empty: this node's own settings, which are kept for good."""
        if not contact.addresses:
            return
        held = self._contacts.get(contact.peer)
        if held is None and source:
            same = [peer for peer, (brought, _) in self._contacts.items() if brought == source]
            if len(same) >= CONTACTS_PER_SOURCE_MAX:
                del self._contacts[same[0]]
        self._contacts[contact.peer] = (source if held is None else held[0], contact)
        self._contacts.move_to_end(contact.peer)
        if len(self._contacts) > CONTACTS_MAX:
            del self._contacts[next((peer for peer, (brought, _) in self._contacts.items() if brought), next(iter(self._contacts)))]

    def forget_contact(self, peer: PeerId) -> None:
        """It did not answer; those of the settings stay."""
        held = self._contacts.get(peer)
        if held is not None and held[0]:
            del self._contacts[peer]

    def find_closest(self, key: bytes, *, but: PeerId | None = None) -> list[Contact]:
        contacts = (contact for _, contact in self._contacts.values() if contact.peer != but)
        return sorted(contacts, key=lambda contact: compute_distance(key, contact.peer))[:CLOSEST]


def encode_contacts(contacts: Iterable[Contact]) -> list[pb.Message.Peer]:
    return [pb.Message.Peer(id=libp2p_id(contact.peer).to_bytes(), addrs=_encode_addresses(contact.addresses)) for contact in contacts]


def decode_contacts(peers: Sequence[pb.Message.Peer]) -> list[Contact]:
    """At most CLOSEST peers with at most ADDRESSES_MAX addresses each; what this network cannot dial is left out."""
    found = []
    for entry in peers[:CLOSEST]:
        peer = peer_of(ID(entry.id))
        if peer is not None:
            found.append(Contact(peer, tuple(_decode_addresses(entry.addrs[: 2 * ADDRESSES_MAX], peer))[:ADDRESSES_MAX]))
    return found


def _encode_addresses(addresses: Iterable[str]) -> list[bytes]:
    """Without the peer id at the end, as is usual; a circuit keeps its relay's."""
    return [Multiaddr(address.rpartition("/p2p/")[0]).to_bytes() for address in addresses]


def _decode_addresses(encoded: Iterable[bytes], peer: PeerId) -> Iterable[str]:
    name = f"/p2p/{peer_text(peer)}"
    for raw in encoded:
        try:
            text = str(Multiaddr(raw))
            address = text if text.endswith(name) else text + name
            if read_target(address) == peer:
                yield address
        except (StringParseError, BinaryParseError, ProtocolLookupError, BadAddressError, ValueError, TypeError):
            continue


def may_follow(address: str, via: str) -> bool:
    """Whether an address that was told by the peer at `via` may be dialled: nobody outside points into this network or machine."""
    found, told = read_ip(address), read_ip(via)
    if found is None:
        return "/dns" in address and told is not None and told.is_global
    if found.is_multicast or found.is_unspecified or found.is_link_local:
        return False
    if found.is_loopback:
        return told is not None and told.is_loopback
    return found.is_global or (told is not None and not told.is_global)
