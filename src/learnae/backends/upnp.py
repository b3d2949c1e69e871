"""A router that speaks UPnP is asked to let others in: one TCP port, for an hour at a time, taken back at the end.

Where a router knows no end of a lease, the port is open until the node ends. Routers are found by multicast in the local network and
are believed only as far as it takes: whether others really get in shows `libp2p_dialback`. Anybody there can say that it is a router,
and the library (miniupnpc, in C) reads whatever that one sends, without a bound on bytes or time. So all of it happens in a process
of its own, `python -m learnae.backends.upnp`, with little memory and little time; `upnp_keeper` starts it.
Source: UPnP Forum, WANIPConnection:1 (AddPortMapping, DeletePortMapping, GetExternalIPAddress).
"""

from __future__ import annotations

import ipaddress
import json
import logging
import resource
import signal
import socket
import sys
from typing import Final, Protocol

import miniupnpc

logger = logging.getLogger(__name__)

DISCOVER_MS: Final = 2000
LEASE_S: Final = 3600.0
PORTS_TRIED: Final = 4  # The same port outside first, then the next ones: another machine at home may have it.
ANSWER_S: Final = 40  # No router: 8 s. One that is slow: 5 s a call, a few calls.
MEMORY_BYTES: Final = 64 << 20  # Of data in that process; it needs a fifth.
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

    def __init__(self, port: int, *, interface: str = "", discover_ms: int = DISCOVER_MS) -> None:
        self._port, self._interface, self._discover_ms = port, interface, discover_ms
        self._router: Router | None = None
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
                    return
            except Exception as error:  # noqa: BLE001 - the library raises plain `Exception` for what a router answers
                fault = str(error)
                if fault.startswith(_UNANSWERED):
                    break
        raise OSError(f"the router of {router.lanaddr}'s network opens no port: {fault}{_explain(router)}")

    def close(self) -> None:
        """Take the port back. Waits for the network; a router that is gone forgets it within the hour."""
        if self._router is not None and self.outside:
            try:
                self._router.deleteportmapping(self.outside, "TCP")
            except Exception as error:  # noqa: BLE001 - as above
                logger.debug("the router keeps the port: %r", error)
            self.outside, self.address = 0, ""

    def _find(self) -> Router:
        router: Router = miniupnpc.UPnP(discoverdelay=self._discover_ms, **({"multicastif": self._interface} if self._interface else {}))
        try:
            router.discover()
            router.selectigd()
        except Exception as error:  # "Success" is what it raises when nobody answered
            raise OSError(f"no router in this network speaks UPnP ({error})") from error
        return router


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


# --- the process ------------------------------------------------------------------------------------------------


def serve(port: int, interface: str, discover_ms: int) -> None:
    """Ask the router at each line of standard input, and answer with a JSON object a line; when the input ends, take the port back.

    The input also ends when the node is killed. Whatever takes longer than ANSWER_S ends this process.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl+C is for the node, which then ends the input.
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES, MEMORY_BYTES))
    mapping = PortMapping(port, interface=interface, discover_ms=discover_ms)
    for _ in sys.stdin:
        fault = ""
        signal.alarm(ANSWER_S)
        try:
            mapping.open()
        except OSError as error:
            fault = str(error)
        signal.alarm(0)
        print(json.dumps({"outside": mapping.outside, "address": mapping.address, "fault": fault}), flush=True)
    signal.alarm(ANSWER_S)
    mapping.close()


if __name__ == "__main__":
    serve(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
