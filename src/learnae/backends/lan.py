"""Peers of the same session in the same local network find each other by multicast DNS, without a ticket's addresses.

A node announces where it listens under a service named after the session, and dials what others announce there. Announcements
are anybody's: they are bounded, only addresses of this network are dialled, and nothing is remembered before the peer there has
proved its identity by its handshake. Who listens in the network learns the peer id, the address and that a session is run.
Does not cross routers. The library remembers every record that the network multicasts for as long as the record says.
Source: RFC 6762 and 6763; libp2p specs, discovery/mdns (its `dnsaddr` texts and random names, under a service of our own).
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Final, TypeVar

import trio
from zeroconf import Error as ZeroconfError
from zeroconf import InterfaceChoice, ServiceBrowser, ServiceInfo, ServiceStateChange, Zeroconf

from learnae.backends.libp2p_address import ADDRESSES_MAX, parse_address, read_ip
from learnae.errors import BadAddressError, UnreachableError
from learnae.ids import PeerId
from learnae.ports import Network

logger = logging.getLogger(__name__)

DIGEST_BYTES: Final = 6  # RFC 6763 allows 15 letters in a service's name: "ln-" and these as hex.
NAMES_MAX: Final = 64  # Announcements that wait to be looked at; a flood beyond them is dropped.
LAN_PEERS_MAX: Final = 128  # As many as a node has connections for; more identities in one network are somebody's trick.
_AT_ONCE: Final = 4
_ANSWER_MS: Final = 2000  # A machine of the same network answers within a few.
_NETWORK_BITS: Final = {4: 24, 6: 64}  # What is taken for one network among public addresses.
_CLOSE_S: Final = 1.0

Found = TypeVar("Found")


def name_service(digest: bytes) -> str:
    """The DNS-SD service of a session; `digest`: the hash of its rules."""
    return f"_ln-{digest[:DIGEST_BYTES].hex()}._tcp.local."


def is_near(address: str, own: Sequence[str]) -> bool:
    """Whether an announced multiaddr may be dialled: it is private, or in one network with an address of our own.

    Loopback counts only for a node that listens nowhere else; otherwise a stranger could point it at services of its own machine.
    """
    found, mine = read_ip(address), [ip for ip in map(read_ip, own) if ip is not None]
    if found is None or found.is_link_local or found.is_multicast or found.is_unspecified:
        return False
    if found.is_loopback:
        return bool(mine) and all(ip.is_loopback for ip in mine)
    if not found.is_global:
        return True
    bits = found.max_prefixlen - _NETWORK_BITS[found.version]
    return any(ip.version == found.version and int(ip) >> bits == int(found) >> bits for ip in mine)


async def find_lan_peers(network: Network, digest: bytes) -> None:
    """Announce `network` and dial who is announced, until cancelled; ends at once where there is no multicast, and logs that."""
    finder = _Finder(network, name_service(digest))
    try:
        zeroconf = await trio.to_thread.run_sync(finder.open)
    except OSError as error:
        logger.warning("peers in the local network are not looked for: no multicast here (%s)", error)
        return
    try:
        await finder.run(zeroconf)
    finally:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + _CLOSE_S):
            await _in_thread(zeroconf.close)


class _Finder:
    """One node in its local network. The library has threads of its own; what they hear comes over `_notice`."""

    def __init__(self, network: Network, service: str) -> None:
        self._network, self._service = network, service
        self._own_name = f"{secrets.token_hex(16)}.{service}"  # random, so that nobody can take a peer's name before it
        self._token = trio.lowlevel.current_trio_token()
        self._names_send, self._names = trio.open_memory_channel[str](NAMES_MAX)
        self._dialled: set[PeerId] = set()

    def open(self) -> Zeroconf:
        addresses = [ip for ip in map(read_ip, self._network.addresses) if ip is not None]
        only_here = bool(addresses) and all(ip.is_loopback for ip in addresses)
        return Zeroconf(interfaces=["127.0.0.1"] if only_here else InterfaceChoice.All)

    async def run(self, zeroconf: Zeroconf) -> None:
        browser = ServiceBrowser(zeroconf, self._service, handlers=[self._notice])
        try:
            async with trio.open_nursery() as nursery:
                for _ in range(_AT_ONCE):
                    nursery.start_soon(self._follow, zeroconf)
                await self._announce(zeroconf)
        finally:
            browser.cancel()

    async def _announce(self, zeroconf: Zeroconf) -> None:
        own = [address for address in self._network.addresses if is_near(address, self._network.addresses)][:ADDRESSES_MAX]
        if not own:
            return
        texts = {f"dnsaddr{number or ''}": address for number, address in enumerate(own)}
        ips = [ip for ip in map(read_ip, own) if ip is not None]
        port = int(own[0].split("/")[4])
        host = f"{self._own_name.partition('.')[0]}.local."
        info = ServiceInfo(self._service, self._own_name, port=port, properties=texts, server=host, addresses=[ip.packed for ip in ips])
        try:
            await _in_thread(partial(zeroconf.register_service, info))
        except (ZeroconfError, OSError) as error:
            logger.warning("this node could not be announced in the local network: %r", error)

    def _notice(self, zeroconf: Zeroconf, service_type: str, name: str, state_change: ServiceStateChange) -> None:
        """In a thread of the library."""
        if state_change is not ServiceStateChange.Removed and name != self._own_name:
            with suppress(trio.RunFinishedError):
                self._token.run_sync_soon(self._offer, name)

    def _offer(self, name: str) -> None:
        with suppress(trio.WouldBlock, trio.BrokenResourceError):
            self._names_send.send_nowait(name)

    async def _follow(self, zeroconf: Zeroconf) -> None:
        while True:
            name = await self._names.receive()
            try:
                info = await _in_thread(partial(zeroconf.get_service_info, self._service, name, timeout=_ANSWER_MS))
            except ZeroconfError as error:
                logger.debug("an announcement cannot be read: %r", error)
                continue
            if info is not None:
                await self._dial(_read_addresses(info))

    async def _dial(self, addresses: Sequence[str]) -> None:
        for address in addresses:
            if not is_near(address, self._network.addresses):
                continue
            try:
                _, peer = parse_address(address)
            except BadAddressError:  # The relay of a circuit may be near, and who is behind it anywhere.
                continue
            if peer == self._network.peer_id or peer in self._network.connected():
                return
            if peer not in self._dialled and len(self._dialled) >= LAN_PEERS_MAX:
                return
            self._dialled.add(peer)
            try:
                await self._network.connect(address)
            except (BadAddressError, UnreachableError) as error:
                logger.debug("a peer of the local network: %s", error)


def _read_addresses(info: ServiceInfo) -> list[str]:
    texts = [value for key, value in info.properties.items() if key.startswith(b"dnsaddr") and value]
    return [text.decode(errors="replace") for text in texts[:ADDRESSES_MAX]]


async def _in_thread(work: Callable[[], Found]) -> Found:
    """A call of the library that waits for the network; when the node ends nobody waits for it."""
    return await trio.to_thread.run_sync(work, abandon_on_cancel=True)  # type: ignore[call-arg]
