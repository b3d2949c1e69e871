"""TCP as py-libp2p's swarm sees it: listens on a port of its own, reads what was asked for in one piece, accepts within limits.

Differs from py-libp2p's TCP in three ways: a port that is taken is an error (there, SO_REUSEPORT lets two nodes share it in
silence), a read of n bytes waits for n bytes (there, a Noise message that arrives in more than a hundred pieces breaks the
connection), and the place of a connection is free again when it ends (there, it is held until the swarm ends).
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Awaitable, Callable
from typing import Final

import trio
from libp2p.abc import IListener, INetConn, IRawConnection
from libp2p.io.abc import ReadWriteCloser
from libp2p.io.exceptions import ConnectionClosedError
from libp2p.network.auto_connector import AutoConnector
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.network.exceptions import SwarmException
from libp2p.network.swarm import Swarm
from libp2p.transport.exceptions import OpenConnectionError
from libp2p.transport.tcp.tcp import TCP
from multiaddr import Multiaddr
from multiaddr.exceptions import ProtocolLookupError

from learnae.backends.libp2p_places import Places, name_source
from learnae.backends.libp2p_yamux import CONNECTION_ERRORS, Yamux

logger = logging.getLogger(__name__)

_READ_BYTES: Final = 262144
_BACKLOG: Final = 64


class TcpStream(ReadWriteCloser):
    """One TCP connection, read through a buffer."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._buffer = bytearray()
        self._remote = _remote_of(stream.socket)
        self._said = b""  # what the next write begins with, and was sent already

    async def read(self, n: int | None = None) -> bytes:
        """Exactly `n` bytes; fewer only at the end of the connection. None: what there is."""
        await self.wait_for_bytes(1 if n is None else n)
        size = len(self._buffer) if n is None else n
        content = bytes(memoryview(self._buffer)[:size])
        del self._buffer[:size]
        return content

    async def wait_for_bytes(self, wanted: int) -> None:
        """Until so many can be read, or none come any more."""
        while len(self._buffer) < wanted:
            try:
                more = await self._stream.receive_some(_READ_BYTES)
            except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                raise ConnectionClosedError(f"TCP connection to {self._remote} broke: {error}", transport="tcp") from error
            if not more:
                break
            self._buffer += more

    async def say_early(self, greeting: bytes) -> None:
        """Send now what the next write will begin with."""
        await self.write(greeting)
        self._said = greeting

    async def write(self, data: bytes) -> None:
        """Not for two tasks at once: the handshakes write in turn, then one task of the muxer does."""
        if self._said:
            assert data.startswith(self._said), "said what does not come"
            data, self._said = data[len(self._said) :], b""
        try:
            await self._stream.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise ConnectionClosedError(f"TCP connection to {self._remote} broke: {error}", transport="tcp") from error

    async def close(self) -> None:
        await self._stream.aclose()

    def get_remote_address(self) -> tuple[str, int] | None:
        return self._remote


class TcpListener(IListener):
    """Accepts connections on one address, in the nursery of the swarm."""

    background_nursery: trio.Nursery | None = None  # set by the swarm before `listen`

    def __init__(self, handle: Callable[[ReadWriteCloser], Awaitable[None]], faults: dict[str, OSError]) -> None:
        self._handle, self._faults = handle, faults
        self._listener: trio.SocketListener | None = None
        self._scope = trio.CancelScope()

    async def listen(self, maddr: Multiaddr) -> None:
        assert self.background_nursery is not None, "the swarm runs before it listens"
        family, host, port = _endpoint(maddr)
        sock = trio.socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            await sock.bind((host, port))
            sock.listen(_BACKLOG)
        except OSError as error:
            sock.close()
            self._faults[str(maddr)] = error
            raise OpenConnectionError(f"cannot listen on {maddr}: {error}") from error
        self._listener = trio.SocketListener(sock)
        self.background_nursery.start_soon(self._serve, self._listener)

    async def _serve(self, listener: trio.SocketListener) -> None:
        with self._scope:
            await trio.serve_listeners(self._serve_one, [listener])

    async def _serve_one(self, stream: trio.SocketStream) -> None:
        try:
            await self._handle(TcpStream(stream))
        except OSError as error:
            logger.debug("a connection was gone before it began: %r", error)
        except Exception:  # the supervisor of strangers' connections: one must not end the others
            logger.warning("a connection ended with an unexpected error", exc_info=True)

    def get_addrs(self) -> tuple[Multiaddr, ...]:
        if self._listener is None:
            return ()
        sock = self._listener.socket
        if sock.fileno() < 0:
            return ()
        host, port = sock.getsockname()[:2]
        return (Multiaddr(f"/ip{6 if ':' in host else 4}/{host}/tcp/{port}"),)

    async def close(self) -> None:
        self._scope.cancel()
        if self._listener is not None:
            await self._listener.aclose()


class TcpTransport(TCP):
    """py-libp2p's TCP transport with the stream and the listener above; `faults` tells why an address could not be used."""

    def __init__(self) -> None:
        super().__init__(dns_max_retries=1)
        self.faults: dict[str, OSError] = {}

    async def _dial_resolved(self, maddr: Multiaddr, source: tuple[str, int] | None = None) -> IRawConnection:
        _, host, port = _endpoint(maddr)
        try:
            if source is None:
                return RawConnection(TcpStream(await trio.open_tcp_stream(host, port)), True)
            return RawConnection(await connect_from(source[1], (host, port)), True)
        except OSError as error:
            raise OpenConnectionError(f"cannot reach {maddr}: {error}") from error

    def create_listener(self, handler_function: Callable[[ReadWriteCloser], Awaitable[None]]) -> TcpListener:  # type: ignore[override]
        return TcpListener(handler_function, self.faults)


def bind_shared(family: socket.AddressFamily, port: int) -> socket.socket:
    """A TCP socket on a local port that all sockets made so share; 0: on a port that nobody else has. Raises: OSError."""
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(("", port))
    except OSError:
        sock.close()
        raise
    return sock


async def connect_from(port: int, target: tuple[str, int]) -> TcpStream:
    """Dial from a port of `bind_shared`. Raises: OSError."""
    family = socket.AF_INET6 if ":" in target[0] else socket.AF_INET
    sock = trio.socket.from_stdlib_socket(bind_shared(family, port))
    try:
        await sock.connect(target)
    except BaseException:
        sock.close()
        raise
    return TcpStream(trio.SocketStream(sock))


class _NoAutoConnector(AutoConnector):
    """Dials nobody: whom to dial is decided in `libp2p_host`."""

    async def maybe_connect(self) -> None:
        await trio.lowlevel.checkpoint()

    async def run_background_task(self, nursery: trio.Nursery) -> None:
        await trio.lowlevel.checkpoint()


class BoundedSwarm(Swarm):
    """py-libp2p's swarm, with a doorkeeper, and a place for each connection only as long as it lives."""

    places: Places  # set by the host, with `make_room`
    make_room: Callable[[], None]
    arrivals = 0  # Handshakes that others began with this node by dialling it.

    def _init_connection_management(self) -> None:
        super()._init_connection_management()
        self.auto_connector = _NoAutoConnector(swarm=self)

    def _best_connection(self, connections: list[INetConn]) -> INetConn:
        """Where a stream is opened: on a direct connection while a circuit with the same peer is still there."""
        ways = [conn.muxed_conn.way for conn in connections]  # type: ignore[attr-defined]
        return super()._best_connection([conn for conn, way in zip(connections, ways, strict=True) if way == min(ways)])

    async def _handle_inbound_connection(self, read_write_closer: ReadWriteCloser, maddr: Multiaddr) -> None:
        source = name_source(read_write_closer.get_remote_address())
        if not self.places.begin_handshake(source, trio.current_time()):
            return  # the listener closes the socket
        self.arrivals += 1
        try:
            conn = await self.upgrade_inbound_raw_conn(RawConnection(read_write_closer, False), maddr)
        except (SwarmException, *CONNECTION_ERRORS) as error:
            logger.debug("a stranger's handshake failed: %r", error)
            return
        finally:
            self.places.end_handshake(source)
        assert isinstance(conn, Yamux), "the only muxer on offer"
        self.make_room()
        await conn.event_closed.wait()


def _endpoint(maddr: Multiaddr) -> tuple[socket.AddressFamily, str, int]:
    """Raises: OpenConnectionError: not an IP address with a TCP port."""
    for name, family in (("ip4", socket.AF_INET), ("ip6", socket.AF_INET6)):
        try:
            return family, str(maddr.value_for_protocol(name)), int(str(maddr.value_for_protocol("tcp")))
        except (ProtocolLookupError, ValueError):
            continue
    raise OpenConnectionError(f"{maddr} has no IP address with a TCP port")


def _remote_of(sock: trio.socket.SocketType) -> tuple[str, int] | None:
    try:
        host, port = sock.getpeername()[:2]
    except OSError:
        return None
    return str(host), int(port)
