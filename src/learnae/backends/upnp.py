"""A router that speaks UPnP is asked to let others in: one TCP port, for an hour at a time, taken back at the end.

Where a router knows no end of a lease, the port is open until the node ends.
Only when the user asked for it (`--upnp`), because it opens a port of the router for everybody. Routers are found by
multicast in the local network and are believed only as far as it takes: whether others really get in shows `libp2p_dialback`.
The library's calls wait for the network, so they run in a thread; its own wrapper in py-libp2p asks for a port for ever.
Source: UPnP Forum, WANIPConnection:1 (AddPortMapping, DeletePortMapping, GetExternalIPAddress).
"""

from __future__ import annotations

import ipaddress
import logging
import socket
from collections.abc import Callable
from typing import Final, Protocol

import miniupnpc
import trio

logger = logging.getLogger(__name__)

DISCOVER_MS: Final = 2000
LEASE_S: Final = 3600.0
AGAIN_S: Final = 300.0  # Between questions: a router that started anew has forgotten the port, or has another address outside.
PORTS_TRIED: Final = 4  # The same port outside first, then the next ones: another machine at home may have it.
CLOSE_S: Final = 2.0
_ABOUT: Final = "learnae"
_UNANSWERED: Final = "Miniupnpc"  # Faults of the library begin so, those that a router tells do not.
_ONLY_PERMANENT: Final = "OnlyPermanentLeasesSupported"  # Error 725: some old routers open a port for good or not at all.


class Router(Protocol):
    """The part of `miniupnpc.UPnP` that is used."""

    lanaddr: str

    def discover(self) -> int: ...

    def selectigd(self) -> str: ...

    def externalipaddress(self) -> str: ...

    def addportmapping(self, port: int, kind: str, host: str, inner: int, about: str, remote: str, lease_s: int) -> bool: ...

    def deleteportmapping(self, port: int, kind: str) -> bool: ...


class PortMapping:
    """One port of a router that leads to this machine."""

    def __init__(self, port: int, *, interface: str = "") -> None:
        self._port, self._interface = port, interface
        self._router: Router | None = None
        self._is_over = False
        self.outside = 0  # the port at the router; 0: none
        self.address = ""  # the router's address outside, if it has a public one

    def open(self) -> None:
        """Find the router and ask it, or ask again. Waits for the network. Raises: OSError: no router, or it refuses.

        A router that answered before is asked first. One that started anew has forgotten the port, and often answers elsewhere, so
        all are looked for again when it fails, and when this machine has another address.
        """
        if self._router is not None and _has_address(self._router.lanaddr):
            try:
                self._ask(self._router)
                return
            except OSError as error:
                logger.debug("the router is looked for again: %s", error)
        try:
            self._ask(self._find())
        except OSError:
            self._router, self.outside, self.address = None, 0, ""
            raise

    def _ask(self, router: Router) -> None:
        """Raises: OSError: it refuses."""
        fault = ""
        for outside in dict.fromkeys([self.outside or self._port, *range(self._port, min(self._port + PORTS_TRIED, 65536))]):
            try:
                if _add(router, outside, self._port):
                    self._router, self.outside, self.address = router, outside, _read_public(router)
                    if self._is_over:  # Nobody waited for the answer.
                        self.close()
                    return
            except Exception as error:  # noqa: BLE001 - the library raises plain `Exception` for what a router answers
                fault = str(error)
                if fault.startswith(_UNANSWERED):
                    break
        raise OSError(f"the router of {router.lanaddr}'s network opens no port: {fault}{_explain(router)}")

    def close(self) -> None:
        """Take the port back. Waits for the network; a router that is gone forgets it within the hour."""
        self._is_over = True
        if self._router is not None and self.outside:
            try:
                self._router.deleteportmapping(self.outside, "TCP")
            except Exception as error:  # noqa: BLE001 - as above
                logger.debug("the router keeps the port: %r", error)
            self.outside, self.address = 0, ""

    def _find(self) -> Router:
        router: Router = miniupnpc.UPnP(discoverdelay=DISCOVER_MS, **({"multicastif": self._interface} if self._interface else {}))
        try:
            router.discover()
            router.selectigd()
        except Exception as error:  # "Success" is what it raises when nobody answered
            raise OSError(f"no router in this network speaks UPnP ({error})") from error
        return router


async def keep_port_open(port: int, told: Callable[[int, str], None], *, interface: str = "") -> None:
    """Keep `port` of this machine open at the router, until cancelled; `told` hears the port and the address outside, or (0, "")."""
    mapping = PortMapping(port, interface=interface)
    said = ""
    try:
        while True:
            fault = ""
            try:
                await trio.to_thread.run_sync(mapping.open, abandon_on_cancel=True)  # type: ignore[call-arg]
            except OSError as error:
                fault = str(error)
            told(mapping.outside, mapping.address)
            now = f"UPnP: {fault or _describe(mapping)}"
            if now != said:
                logger.log(logging.WARNING if fault or not mapping.address else logging.INFO, "%s", now)
                said = now
            await trio.sleep(AGAIN_S)
    finally:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + CLOSE_S):
            await trio.to_thread.run_sync(mapping.close, abandon_on_cancel=True)  # type: ignore[call-arg]


def _describe(mapping: PortMapping) -> str:
    if mapping.address:
        return f"the router lets others in at {mapping.address}, port {mapping.outside}"
    return f"the router opened its port {mapping.outside}, but names no public address of its own: another router may stand before it"


def _add(router: Router, outside: int, inside: int) -> bool:
    """Raises: Exception: the library's, for what a router answers."""
    try:
        return router.addportmapping(outside, "TCP", router.lanaddr, inside, _ABOUT, "", int(LEASE_S))
    except Exception as error:
        if _ONLY_PERMANENT not in str(error):
            raise
        return router.addportmapping(outside, "TCP", router.lanaddr, inside, _ABOUT, "", 0)


def _has_address(address: str) -> bool:
    """Whether this machine still has it: it may have moved to another network."""
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
    return True


def _read_public(router: Router) -> str:
    """The router's address outside; empty if it is private: then another router stands before it."""
    found = _read_outside(router)
    return str(found) if found is not None and found.is_global else ""


def _read_outside(router: Router) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The router's address outside; None: it tells none."""
    try:
        return ipaddress.ip_address(str(router.externalipaddress()))
    except Exception as error:  # noqa: BLE001 - as above
        logger.debug("the router does not tell its address: %r", error)
        return None


def _explain(router: Router) -> str:
    found = _read_outside(router)
    return f"; its own address outside is {found}, so another router stands before it" if found is not None and not found.is_global else ""
