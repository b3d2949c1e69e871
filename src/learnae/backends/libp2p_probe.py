"""Can these addresses be dialled from here? One handshake each, under an identity that is thrown away."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from random import SystemRandom
from typing import Final

import trio

from learnae.backends.libp2p_address import parse_address
from learnae.backends.libp2p_host import open_host
from learnae.errors import BadAddressError, UnreachableError
from learnae.ids import PeerId

DIALS_MAX: Final = 16  # At the same time; each ends within 10 s.


async def probe_addresses(addresses: Iterable[str]) -> dict[str, str]:
    """Dial each address and hang up again; by address why it failed, or an empty text if the named peer answered."""
    by_peer: dict[PeerId, list[str]] = {}
    faults: dict[str, str] = {}
    for address in addresses:
        try:
            by_peer.setdefault(parse_address(address)[1], []).append(address)
        except BadAddressError as error:
            faults[address] = str(error)
    places = trio.CapacityLimiter(DIALS_MAX)
    async with open_host(seed=secrets.token_bytes(32), listen=(), rng=SystemRandom()) as host:

        async def probe(peer: PeerId, ways: list[str]) -> None:
            for address in ways:  # One after the other: a peer takes only a few connections from one identity.
                async with places:
                    try:
                        await host.dial(address)
                        faults[address] = ""
                    except UnreachableError as error:
                        faults[address] = str(error)
                    host.disconnect(peer)

        async with trio.open_nursery() as nursery:
            for peer, ways in by_peer.items():
                nursery.start_soon(probe, peer, ways)
    return faults
