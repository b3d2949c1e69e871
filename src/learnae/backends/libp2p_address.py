"""Multiaddrs and peer ids as this network uses them: TCP on an IP address or a name, or a circuit through a relay there."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from functools import lru_cache
from typing import Final

from libp2p.peer.id import ID
from multiaddr import Multiaddr
from multiaddr.exceptions import BinaryParseError, ProtocolLookupError, StringParseError

from learnae.errors import BadAddressError
from learnae.ids import PEER_ID_BYTES, PeerId, parse_peer

ADDRESSES_MAX: Final = 8  # Per peer; a host has a few interfaces, all the rest is noise.
ADDRESS_CHARS_MAX: Final = 256
CIRCUIT: Final = "/p2p-circuit"

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

_PREFIX = bytes.fromhex("002408011220")  # identity multihash of an Ed25519 key
_HOSTS: Final = ("ip4", "ip6", "dns", "dns4", "dns6")
_EXPECTED: Final = "a multiaddr such as /ip4/192.0.2.7/tcp/4001/p2p/12D3Koo... (also /ip6, /dns4, /dns6)"


def peer_of(peer_id: ID) -> PeerId | None:
    """The Ed25519 key inside a libp2p peer id; None for another kind of key, which no peer of a session has."""
    raw = peer_id.to_bytes()
    return PeerId(raw[len(_PREFIX) :]) if raw.startswith(_PREFIX) and len(raw) == len(_PREFIX) + PEER_ID_BYTES else None


def libp2p_id(peer: PeerId) -> ID:
    return ID(_PREFIX + peer)


@lru_cache(maxsize=1024)  # A lost peer is dialled again and again, and a third of what that costs is reading its address.
def parse_address(address: str) -> tuple[Multiaddr, PeerId]:
    """Split `/ip4/192.0.2.7/tcp/4001/p2p/12D3Koo...` into what is dialled and who answers there.

    Raises: BadAddressError: not such a multiaddr.
    """
    if len(address) > ADDRESS_CHARS_MAX:
        raise BadAddressError(address[:60] + "...", _EXPECTED)
    # The form first: the library's readers of other protocols fail with errors of all kinds on texts that are none.
    if not _has_form(address.removesuffix("/").split("/")):
        raise BadAddressError(address, _EXPECTED)
    try:
        maddr = Multiaddr(address)
        name = maddr.value_for_protocol("p2p")
        peer = parse_peer(str(name))
    except (StringParseError, BinaryParseError, ProtocolLookupError, ValueError) as error:
        raise BadAddressError(address, _EXPECTED) from error
    return maddr.decapsulate(Multiaddr(f"/p2p/{name}")), peer


def _has_form(parts: list[str]) -> bool:
    """Whether these parts of an address are nothing, a host, a TCP port and a peer id."""
    return len(parts) == 7 and not parts[0] and parts[1] in _HOSTS and (parts[3], parts[5]) == ("tcp", "p2p")


def split_circuit(address: str) -> tuple[str, PeerId] | None:
    """The relay's address and who is behind it, of `.../p2p/RELAY/p2p-circuit/p2p/12D3Koo...`; None: not a circuit.

    Raises: BadAddressError: half a circuit.
    """
    relay, found, rest = address.partition(f"{CIRCUIT}/p2p/")
    if not found:
        return None
    parse_address(relay)
    try:
        return relay, parse_peer(rest)
    except ValueError as error:
        raise BadAddressError(address[:ADDRESS_CHARS_MAX], "the peer behind the relay after /p2p-circuit/p2p/") from error


def read_target(address: str) -> PeerId:
    """Who answers at an address, directly or behind a relay. Raises: BadAddressError."""
    circuit = split_circuit(address)
    return parse_address(address)[1] if circuit is None else circuit[1]


def read_ip(address: str) -> IpAddress | None:
    """The IP address in a multiaddr with `/p2p/...`, of a circuit the relay's; None for a name, or anything else."""
    try:
        circuit = split_circuit(address)
        maddr, _ = parse_address(address if circuit is None else circuit[0])
        return ipaddress.ip_address(str(maddr).split("/")[2])
    except (BadAddressError, ValueError):
        return None


def find_outside(addresses: Iterable[str]) -> tuple[str, int]:
    """The first place, a public IP address or a name, and its port, where a node says that all the world finds it; ("", 0): there is none.

    `/p2p/...` at the end may be missing; circuits are left out.
    """
    for address in addresses:
        _, kind, host, transport, port, *_ = (*address.split("/"), "", "", "", "")
        if kind in _HOSTS and transport == "tcp" and port.isdecimal() and CIRCUIT not in address and _is_outside(kind, host):
            return host, int(port)
    return "", 0


def _is_outside(kind: str, host: str) -> bool:
    try:
        return not kind.startswith("ip") or ipaddress.ip_address(host).is_global
    except ValueError:
        return False
