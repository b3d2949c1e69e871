"""One local port for one hole: seen from outside through peers that were asked from it, dialled from, and listened on.

A router gives what leaves from one local port one port outside, as a rule whomever it goes to. So a fresh port is taken, two peers
that this node knows are dialled from it and asked what they see (Identify), and that address is told to the other end. While these
connections are kept, the router keeps the port. The port on which the node listens is left alone: sharing it would let a second node
take half of its connections in silence. If the two peers see different ports, the router chooses one for each destination, and
nobody can know the next.
Source: RFC 5128, section 3.4; libp2p specs, identify and relay/DCUtR.
"""

from __future__ import annotations

import ipaddress
import logging
import secrets
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from random import SystemRandom
from typing import Final

import trio
from google.protobuf.message import DecodeError
from libp2p.identity.identify.identify import ID as IDENTIFY_PROTOCOL
from libp2p.identity.identify.pb.identify_pb2 import Identify
from multiaddr import Multiaddr

from learnae.backends.libp2p_address import CIRCUIT, IpAddress, libp2p_id, parse_address, read_ip
from learnae.backends.libp2p_direct import read_exactly, read_varint
from learnae.backends.libp2p_host import STREAM_ERRORS, Host, open_host
from learnae.backends.libp2p_tcp import TcpStream, bind_shared, connect_from

logger = logging.getLogger(__name__)

OBSERVERS_MAX: Final = 2  # As many as it takes to see whether a router chooses a port for each destination.
OBSERVE_S: Final = 10.0
TARGETS_MAX: Final = 3  # Addresses of the other end that are dialled: a stranger's claim, so few.
CONNECTS_MAX: Final = 5  # To one address in one round, where a router refuses at once; silence costs three SYNs.
REFUSED_S: Final = 0.2  # Before the second of them; twice as long before each further one.
ROUND_S: Final = 5.0  # As go-libp2p waits.
HANDSHAKE_S: Final = 5.0  # That was begun when the round ended.
ACCEPTS_MAX: Final = 8  # Handshakes in one round with whoever comes from another port of the other end's router.
BACKLOG: Final = 64  # Connections that wait to be taken or hung up on: anybody may come before the round begins.
FAULT_S: Final = 0.01  # Before it is accepted again, if no file is free or the like.
PORT_MIN: Final = 1024  # No router uses the ports of well-known services for its own.
_IDENTIFY_BYTES_MAX: Final = 16384
_IP_BYTES: Final = {0x04: 4, 0x29: 16}  # by the codes of ip4 and ip6 in a multiaddr
_TCP: Final = 0x06
_P2P: Final = b"\xa5\x03"
_NEAR_BITS: Final = {4: 8, 6: 64}  # What is taken for one network: addresses that differ in these last bits only.

Endpoint = tuple[str, int]
"""IP address and TCP port."""


class PunchError(Exception):
    """Why there was no hole, in words for the log."""


@dataclass(frozen=True, slots=True)
class Observation:
    """How others saw one local port."""

    seen: tuple[Endpoint, ...]

    @property
    def is_same(self) -> bool | None:
        """Whether all saw the same; None: only one could be asked, or they stand in different private networks."""
        is_far = all(ipaddress.ip_address(host).is_global for host, _ in self.seen)
        if len(self.seen) < OBSERVERS_MAX or not (is_far or len({host for host, _ in self.seen}) == 1):
            return None
        return len(set(self.seen)) == 1


class PunchPort:
    """Made by `open_punch_port`."""

    def __init__(self, listener: socket.socket, observation: Observation) -> None:
        self._listener = trio.socket.from_stdlib_socket(listener)  # closed by who made it
        self.number: int = listener.getsockname()[1]
        self.observation = observation

    @property
    def outside(self) -> Endpoint:
        """Where the world sees this port."""
        return self.observation.seen[0]

    async def meet(self, targets: Collection[Endpoint], shake_hands: Callable[[TcpStream], Awaitable[bool]]) -> bool:
        """Dial all targets and accept who comes from there, until a handshake was good; False after a few seconds without."""
        met = trio.Event()

        async def try_stream(stream: TcpStream) -> None:
            if await shake_hands(stream):
                met.set()

        async with trio.open_nursery() as handshakes:
            with trio.move_on_after(ROUND_S):
                async with trio.open_nursery() as dials:
                    dials.start_soon(self._accept, targets, try_stream, handshakes)
                    for target in targets:
                        dials.start_soon(self._dial, target, try_stream, handshakes)
                    await met.wait()
                    dials.cancel_scope.cancel()
            # Who was faster at the other end is not known here: a handshake that was begun is not cut off.
            handshakes.cancel_scope.deadline = trio.current_time() + HANDSHAKE_S
        return met.is_set()

    async def _dial(self, target: Endpoint, use: Callable[[TcpStream], Awaitable[None]], handshakes: trio.Nursery) -> None:
        pause_s = REFUSED_S
        for _ in range(CONNECTS_MAX):
            try:
                stream = await connect_from(self.number, target)
            except OSError as error:
                logger.debug("dialling %s from port %d: %r", target, self.number, error)
                await trio.sleep(pause_s)
                pause_s *= 2
            else:
                handshakes.start_soon(use, stream)
                return

    async def _accept(
        self, targets: Collection[Endpoint], use: Callable[[TcpStream], Awaitable[None]], handshakes: trio.Nursery
    ) -> None:
        """Take who comes from where the other end said, until the round ends; hang up on everybody else at once.

        Each of these addresses has places of its own. Its router may show another port here than to those whom the other end asked:
        whoever comes from its IP address, as others behind that router may, shares the rest. Strangers take no place.
        """
        places = dict.fromkeys(targets, CONNECTS_MAX)
        others, hosts = ACCEPTS_MAX, {host for host, _ in targets}
        while True:
            try:
                sock, (host, port, *_) = await self._listener.accept()
            except OSError as error:
                logger.debug("accepting at port %d: %r", self.number, error)
                await trio.sleep(FAULT_S)
                continue
            if places.get((host, port), 0) > 0:
                places[host, port] -= 1
            elif (host, port) not in places and host in hosts and others > 0:
                others -= 1
            else:
                sock.close()
                continue
            handshakes.start_soon(use, TcpStream(trio.SocketStream(sock)))


@asynccontextmanager
async def open_punch_port(observers: Sequence[str]) -> AsyncIterator[PunchPort]:
    """A fresh port, as the observers see it: the first of what `choose_observers` says.

    Raises: PunchError: ports cannot be shared on this system, or no observer answers.
    """
    with _listen(socket.AF_INET6 if any(address.startswith("/ip6/") for address in observers) else socket.AF_INET) as listener:
        # Under an identity that is thrown away: a peer keeps few connections with one, and these are no ways to this node.
        async with open_host(seed=secrets.token_bytes(32), listen=(), rng=SystemRandom()) as asker:
            seen: list[Endpoint] = []
            port = int(listener.getsockname()[1])
            async with trio.open_nursery() as nursery:
                for address in observers[:OBSERVERS_MAX]:
                    nursery.start_soon(_observe, asker, address, port, seen)
            if not seen:
                raise PunchError("nobody could be asked how this node's router shows it")
            yield PunchPort(listener, Observation(tuple(seen)))


def choose_observers(addresses: Iterable[str]) -> list[str]:
    """Of addresses with `/p2p/...` those whose words go together: one for each IP address, of one version, in the internet if any is."""
    places = {ip: address for address in addresses if (ip := read_ip(address)) is not None and CIRCUIT not in address}
    ips = sorted(places, key=lambda ip: (not ip.is_global, ip.version))
    return [places[ip] for ip in ips if (ip.is_global, ip.version) == (ips[0].is_global, ips[0].version)]


def _listen(family: socket.AddressFamily) -> socket.socket:
    if not hasattr(socket, "SO_REUSEPORT"):
        raise PunchError("this system lets no two sockets share a port")
    try:
        listener = bind_shared(family, 0)
        listener.listen(BACKLOG)
    except OSError as error:
        raise PunchError(f"no port could be opened: {error}") from error
    return listener


async def _observe(asker: Host, address: str, port: int, seen: list[Endpoint]) -> None:
    """Dial one observer from `port` and add what it sees; the connection stays open with `asker`."""
    maddr, peer = parse_address(address)
    try:
        with trio.move_on_after(OBSERVE_S):
            await asker.swarm.dial_addr(maddr, libp2p_id(peer), ("", port))
            stream = await asker.open_stream(peer, [str(IDENTIFY_PROTOCOL)])
            size_bytes = await read_varint(stream)
            if size_bytes > _IDENTIFY_BYTES_MAX:
                raise ValueError(f"an Identify of {size_bytes} bytes")
            seen.append(read_endpoint(Identify.FromString(await read_exactly(stream, size_bytes)).observed_addr))
    except (ValueError, DecodeError, *STREAM_ERRORS) as error:
        logger.debug("%s does not say how it sees port %d: %r", address, port, error)


def read_endpoint(raw: bytes) -> Endpoint:
    """IP address and port of a binary multiaddr of TCP, with or without `/p2p/...`. Raises: ValueError: anything else.

    Read by hand: the library's reader fails with errors of all kinds on bytes that are none.
    """
    ip_bytes = _IP_BYTES.get(raw[0], 0) if raw else 0
    rest = raw[ip_bytes + 4 :]
    is_named = rest[:2] == _P2P and len(rest) == 3 + rest[2] if len(rest) > 2 else not rest
    if not ip_bytes or len(raw) < ip_bytes + 4 or raw[ip_bytes + 1] != _TCP or not is_named:
        raise ValueError("bytes that are no address of TCP")
    return str(ipaddress.ip_address(raw[1 : ip_bytes + 1])), int.from_bytes(raw[ip_bytes + 2 : ip_bytes + 4], "big")


def write_endpoint(endpoint: Endpoint) -> bytes:
    host, port = endpoint
    return bytes(Multiaddr(f"/ip{6 if ':' in host else 4}/{host}/tcp/{port}").to_bytes())


def choose_targets(claimed: Iterable[bytes], own: Endpoint) -> list[Endpoint]:
    """Which of the addresses that the other end claims may be dialled by a node that the world sees as `own`.

    Public addresses, and private ones only where a router between private networks is to be passed: if the observer, too, saw a
    private one. Never this machine or its own network, so that nobody can point a node at what stands beside it.
    """
    seen, targets = ipaddress.ip_address(own[0]), []
    for raw in claimed:
        try:
            host, port = read_endpoint(raw)
        except ValueError:
            continue
        ip = ipaddress.ip_address(host)
        if port >= PORT_MIN and ip.version == seen.version and _may_dial(ip, seen) and (host, port) not in targets:
            targets.append((host, port))
        if len(targets) == TARGETS_MAX:
            break
    return targets


def _may_dial(ip: IpAddress, seen: IpAddress) -> bool:
    if ip.is_multicast or ip.is_unspecified or ip.is_loopback or ip.is_link_local or ip.is_reserved:
        return False
    return ip.is_global or (not seen.is_global and not seen.is_loopback and not _is_near(ip))


def _is_near(ip: IpAddress) -> bool:
    """Whether `ip` is in the network of this machine through which it would be reached."""
    with socket.socket(socket.AF_INET6 if ip.version == 6 else socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.connect((str(ip), PORT_MIN))  # Chooses the way, sends nothing.
            local = ipaddress.ip_address(sock.getsockname()[0].partition("%")[0])
        except OSError:
            return True  # No way leads there.
    return int(local) >> _NEAR_BITS[ip.version] == int(ip) >> _NEAR_BITS[ip.version]
