"""Beyond the local network: the port that a router opens, the DHT, and under which addresses others are told to find this node.

All of it is what the user asked for: `--upnp` for the router, `--bootstrap` for the DHT. A node that is alone for some seconds
looks for its session; one that can be dialled, or has a relay, tells where it is.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import trio

from learnae.backends.libp2p_address import ADDRESSES_MAX, find_outside, read_ip
from learnae.backends.libp2p_circuit import Circuits
from learnae.backends.libp2p_dht import RENEW_S, look_up, provide, read_contacts
from learnae.backends.libp2p_dht_records import Contact, RecordStore, may_follow
from learnae.backends.libp2p_dialback import Reachability
from learnae.backends.libp2p_host import Host
from learnae.backends.upnp_keeper import keep_port_open
from learnae.errors import UnreachableError
from learnae.ids import Cid, PeerId, peer_text

logger = logging.getLogger(__name__)

LONELY_S: Final = 5.0  # Without a connection: the ticket's addresses have been dialled a few times.
AGAIN_FIRST_S: Final = 20.0
AGAIN_MAX_S: Final = 600.0
PROVIDE_S: Final = 3600.0  # Servers of ours forget at their restart, those of others after a day or two; for some see RENEW_S.
CHANGED_S: Final = 10.0  # After its addresses changed, a node tells them again.

_Group = tuple[dict[PeerId, str], tuple[str, ...]]
"""Servers, and what they are told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WideArea:
    """What a user chose. `announce`: addresses with `/p2p/...` that replace those listened on; empty: none do."""

    session: Cid
    bootstrap: tuple[str, ...] = ()
    announce: tuple[str, ...] = ()
    upnp: bool = False
    upnp_interface: str = ""  # IP address of the interface to the router; empty: the system's choice


class WideFinder:
    """Runs what `WideArea` asks for."""

    def __init__(self, host: Host, chosen: WideArea, seed: bytes, *, records: RecordStore, reach: Reachability, circuits: Circuits) -> None:
        self._host, self._chosen, self._seed = host, chosen, seed
        self._records, self._reach, self._circuits = records, reach, circuits
        self._contacts = read_contacts(chosen.bootstrap)
        self._mapped = ""  # this node's address at the router
        reach.announced = find_outside(chosen.announce)
        for contact in self._contacts:
            records.add_contact(contact, "")

    async def run(self) -> None:
        """Until cancelled."""
        async with trio.open_nursery() as nursery:
            port = int(self._host.addresses[0].split("/")[4]) if self._host.addresses else 0
            if self._chosen.upnp and port:
                nursery.start_soon(lambda: keep_port_open(port, self._note_port, interface=self._chosen.upnp_interface))
            if self._contacts:
                nursery.start_soon(self._look_when_lonely)
                nursery.start_soon(self._provide_now_and_then)

    def _note_port(self, outside: int, address: str) -> None:
        me, family = peer_text(self._host.peer_id), "ip6" if ":" in address else "ip4"
        self._mapped = f"/{family}/{address}/tcp/{outside}/p2p/{me}" if outside and address else ""
        if self._reach.mapped_port != outside:
            self._reach.mapped_port = outside
            self._reach.ask_again()

    @property
    def extra_addresses(self) -> tuple[str, ...]:
        """What is to be told besides the addresses listened on: the router's port, relays if others cannot dial this node."""
        return (*([self._mapped] if self._mapped else []), *self._circuits.addresses)

    # --- the DHT ------------------------------------------------------------------------------------------------

    @property
    def _key(self) -> bytes:
        return self._chosen.session[2:]

    def _choose_contacts(self) -> list[Contact]:
        known = {contact.peer: contact for contact in (*self._records.find_closest(self._key), *self._contacts)}
        return list(known.values())

    async def _look_when_lonely(self) -> None:
        delay_s = AGAIN_FIRST_S
        while True:
            await trio.sleep(LONELY_S)
            if self._host.connected():
                delay_s = AGAIN_FIRST_S
                with trio.move_on_after(AGAIN_FIRST_S):
                    await self._host.wait_for_change()
                continue
            found = await look_up(self._key, self._choose_contacts())
            self._learn_servers(found.servers)
            logger.info("the DHT names %d peers of the session", len(found.providers))
            async with trio.open_nursery() as nursery:
                for contact in found.providers.values():
                    nursery.start_soon(self._join, contact)
            if not self._host.connected():
                await trio.sleep(delay_s)
                delay_s = min(2 * delay_s, AGAIN_MAX_S)

    async def _join(self, contact: Contact) -> None:
        """Who answers there is known only after the handshake; before it nothing is remembered."""
        for address in contact.addresses:
            if contact.peer == self._host.peer_id or contact.peer in self._host.connected():
                return
            try:
                await self._host.connect(address)
            except UnreachableError as error:
                logger.debug("a peer that the DHT named: %s", error)

    async def _provide_now_and_then(self) -> None:
        told: tuple[str, ...] = ()
        told_s = renewed_s = -PROVIDE_S
        groups: list[_Group] = []
        forgetful: set[PeerId] = set()
        while True:
            addresses, now_s = self._choose_told(), trio.current_time()
            if addresses and (addresses != told or now_s - told_s >= PROVIDE_S):
                found = await look_up(self._key, self._choose_contacts(), wanted=1 << 20)
                self._learn_servers(found.servers)
                groups = _group_by_reach(found.servers, addresses)
                forgetful.intersection_update(found.servers)
                if await self._tell(groups, forgetful):
                    told, told_s, renewed_s = addresses, now_s, now_s
            elif addresses and forgetful and now_s - renewed_s >= RENEW_S:
                renewed_s = now_s
                due = [({peer: servers[peer] for peer in forgetful & servers.keys()}, said) for servers, said in groups]
                await self._tell(due, forgetful)
            await trio.sleep(CHANGED_S)

    async def _tell(self, groups: Sequence[_Group], forgetful: set[PeerId]) -> int:
        """How many were told."""
        count = 0
        for servers, addresses in groups:
            if servers:
                count += await provide(self._key, Contact(self._host.peer_id, addresses), servers, self._seed, forgetful)
        return count

    def _choose_told(self) -> tuple[str, ...]:
        """Where this node can be dialled, the best first; nothing if nobody could."""
        listened = self._chosen.announce or self._host.addresses
        if self._reach.is_reachable is False and not self._chosen.announce:
            listened = ()
        return tuple(dict.fromkeys((*self.extra_addresses, *listened)))[:ADDRESSES_MAX]

    def _learn_servers(self, servers: dict[PeerId, str]) -> None:
        for peer, address in servers.items():
            self._records.add_contact(Contact(peer, (address,)), str(read_ip(address)))


def _group_by_reach(servers: dict[PeerId, str], addresses: Sequence[str]) -> list[_Group]:
    """Servers with the addresses that mean something to those who ask them: a public one is not told private addresses."""
    groups: dict[tuple[str, ...], dict[PeerId, str]] = {}
    for peer, via in servers.items():
        useful = tuple(address for address in addresses if may_follow(address, via))
        if useful:
            groups.setdefault(useful, {})[peer] = via
    return [(members, useful) for useful, members in groups.items()]
