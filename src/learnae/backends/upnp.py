"""A router that speaks UPnP is asked to let others in: one TCP port, for an hour at a time, taken back at the end.

Only when the user asked for it (`--upnp`), because it opens a port of the router for everybody. Routers are found by
multicast in the local network and are believed only as far as it takes: whether others really get in shows `libp2p_dialback`.
The library's calls wait for the network, so they run in a thread; its own wrapper in py-libp2p asks for a port for ever.
Source: UPnP Forum, WANIPConnection:1 (AddPortMapping, DeletePortMapping, GetExternalIPAddress).
"""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Callable
from typing import Final, Protocol

import miniupnpc
import trio

logger = logging.getLogger(__name__)

DISCOVER_MS: Final = 2000
LEASE_S: Final = 3600.0
AGAIN_S: Final = 300.0  # After a router was not found or refused.
PORTS_TRIED: Final = 4  # The same port outside first, then the next ones: another machine at home may have it.
CLOSE_S: Final = 2.0
_ABOUT: Final = "learnae"


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
        self.outside = 0  # the port at the router; 0: none
        self.address = ""  # the router's address outside, if it has a public one

    def open(self) -> None:
        """Find the router and ask it, or ask again. Waits for the network. Raises: OSError: no router, or it refuses."""
        router = self._router or self._find()
        fault = ""
        for outside in [self.outside] if self.outside else range(self._port, min(self._port + PORTS_TRIED, 65536)):
            try:
                if router.addportmapping(outside, "TCP", router.lanaddr, self._port, _ABOUT, "", int(LEASE_S)):
                    self._router, self.outside = router, outside
                    self.address = _read_public(router)
                    return
            except Exception as error:  # noqa: BLE001 - the library raises plain `Exception` for what a router answers
                fault = str(error)
        self._router, self.outside, self.address = None, 0, ""
        raise OSError(f"the router at {router.lanaddr}'s network opens no port: {fault}")

    def close(self) -> None:
        """Take the port back. Waits for the network; a router that is gone forgets it within the hour."""
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
    try:
        while True:
            try:
                await trio.to_thread.run_sync(mapping.open)
                told(mapping.outside, mapping.address)
                await trio.sleep(LEASE_S / 2)
            except OSError as error:
                logger.warning("UPnP: %s", error)
                told(0, "")
                await trio.sleep(AGAIN_S)
    finally:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + CLOSE_S):
            await trio.to_thread.run_sync(mapping.close, abandon_on_cancel=True)  # type: ignore[call-arg]


def _read_public(router: Router) -> str:
    """The router's address outside; empty if it is private: then another router stands before it."""
    try:
        address = ipaddress.ip_address(str(router.externalipaddress()))
    except Exception as error:  # noqa: BLE001 - as above
        logger.debug("the router does not tell its address: %r", error)
        return ""
    return str(address) if address.is_global else ""
