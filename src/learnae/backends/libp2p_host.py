"""One py-libp2p host with the settings of protocol.md: identity, addresses, connections that are kept up, streams to peers.

TCP, Noise and yamux only. The identity is the Ed25519 key that signs this peer's vertices, so who sent a message is known
from its connection. Addresses of others come from tickets and vertices, never from the peers' own Identify messages.
"""

from __future__ import annotations

import errno
import logging
import os
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from random import Random
from typing import Final, Protocol

import trio
from libp2p.abc import INetConn, INetStream, INetwork, INotifee
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.crypto.x25519 import create_new_key_pair as create_noise_key_pair
from libp2p.custom_types import TProtocol
from libp2p.exceptions import BaseLibp2pError
from libp2p.host.basic_host import BasicHost
from libp2p.host.exceptions import StreamFailure
from libp2p.host.ping import ID as PING_PROTOCOL
from libp2p.host.ping import PingService
from libp2p.identity.identify.identify import ID as IDENTIFY_PROTOCOL
from libp2p.identity.identify.identify import identify_handler_for
from libp2p.network.config import ConnectionConfig, RetryConfig
from libp2p.peer.id import ID
from libp2p.peer.peerstore import PeerStore
from libp2p.security.noise.exceptions import PeerIDMismatchesPubkey
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE_PROTOCOL
from libp2p.security.noise.transport import Transport as NoiseTransport
from libp2p.stream_muxer.muxer_multistream import MuxerMultistream
from libp2p.tools.anyio_service import background_trio_service
from libp2p.transport.upgrader import TransportUpgrader
from libp2p.utils.address_validation import expand_wildcard_address
from multiaddr import Multiaddr
from multiaddr.exceptions import BinaryParseError, StringParseError

from learnae.backends.bare_errors import BareError
from learnae.backends.libp2p_address import ADDRESSES_MAX, libp2p_id, parse_address, peer_of, read_target, split_circuit
from learnae.backends.libp2p_places import CONNECTIONS_MAX, HANDSHAKES_MAX, Places, Seat, name_source
from learnae.backends.libp2p_redial import Redials
from learnae.backends.libp2p_tcp import BoundedSwarm, TcpTransport
from learnae.backends.libp2p_yamux import CONNECTION_ERRORS, Yamux
from learnae.backends.libp2p_yamux_stream import YamuxStream
from learnae.errors import BadAddressError, ListenError, UnreachableError
from learnae.ids import PEER_ID_BYTES, PeerId, peer_text

logger = logging.getLogger(__name__)
if not os.environ.get("LIBP2P_DEBUG"):
    # py-libp2p logs as errors what strangers do all day; what matters here is told by our own loggers.
    logging.getLogger("libp2p").setLevel(logging.CRITICAL)

_SWARM_MAX: Final = CONNECTIONS_MAX + HANDSHAKES_MAX  # The library's limit: newcomers take part until `Places` has chosen who leaves.
KNOWN_PEERS_MAX: Final = 1024  # Peers whose addresses are remembered: a session has members_max of them, strangers may add more.
DIAL_S: Final = 10.0

STREAM_ERRORS: Final = (BaseLibp2pError, *CONNECTION_ERRORS)
"""What opening, reading or writing a stream may raise because of the peer or the line."""


def muxed_stream_of(stream: INetStream) -> YamuxStream:
    muxed = stream.muxed_stream  # type: ignore[attr-defined]
    assert isinstance(muxed, YamuxStream), "the only muxer on offer"
    return muxed


def drop_stream(stream: INetStream) -> None:
    """Reset a stream that we opened, and forget it, without waiting."""
    muxed_stream_of(stream).reset_now()
    stream.swarm_conn.remove_stream(stream)  # type: ignore[attr-defined]


class _Muxers(MuxerMultistream):
    """Offers our yamux; py-libp2p's class puts in its own whatever it was given."""

    async def new_conn(self, conn: object, peer_id: ID) -> Yamux:
        protocol, _ = await self._selector.select(conn, conn.is_initiator, self.negotiate_timeout)  # type: ignore[attr-defined, arg-type]
        return self._annotate_connection(Yamux(conn, peer_id), conn, protocol)  # type: ignore[arg-type, return-value]


class _Host(BasicHost):
    """A host that answers Identify but asks nobody: what strangers say about themselves is not used."""

    async def _on_notifee_connected(self, conn: INetConn) -> None:
        return


class Detours(Protocol):
    """Ways to peers that cannot be dialled: connections through others."""

    async def dial(self, relay: str, peer: PeerId) -> None:
        """Raises: UnreachableError, one of STREAM_ERRORS."""

    async def find(self, peer: PeerId) -> bool:
        """Whether `peer` could be reached through somebody who is connected."""


class Host:
    """Connections and streams of one peer; made by `open_host`."""

    def __init__(self, seed: bytes, rng: Random) -> None:
        assert len(seed) == PEER_ID_BYTES, "an Ed25519 seed has 32 bytes"
        key_pair = create_new_key_pair(seed)
        self.peer_id = PeerId(key_pair.public_key.to_bytes())
        self._transport = TcpTransport()
        noise = NoiseTransport(key_pair, noise_privkey=create_noise_key_pair().private_key)
        upgrader = TransportUpgrader({NOISE_PROTOCOL: noise}, {})
        upgrader.muxer_multistream = _Muxers({TProtocol("/yamux/1.0.0"): Yamux})
        peerstore = PeerStore()
        peerstore.add_key_pair(ID.from_pubkey(key_pair.public_key), key_pair)
        limits = ConnectionConfig(
            max_connections=_SWARM_MAX, min_connections=0, low_watermark=0, high_watermark=_SWARM_MAX, max_connections_per_peer=2
        )
        self.swarm = BoundedSwarm(
            ID.from_pubkey(key_pair.public_key), peerstore, upgrader, [self._transport], RetryConfig(max_retries=0), limits
        )
        self.swarm.places, self.swarm.make_room = Places(trio.current_time(), rng), self._make_room
        self.libp2p = _Host(self.swarm, disable_identify_address_discovery=True)
        self.libp2p.multiselect.handlers.clear()
        self.libp2p.set_stream_handler(IDENTIFY_PROTOCOL, identify_handler_for(self.libp2p, use_varint_format=True))
        self.libp2p.set_stream_handler(PING_PROTOCOL, PingService(self.libp2p).handle_ping)
        self.swarm.register_notifee(_Watcher(self))
        self._known: OrderedDict[PeerId, OrderedDict[str, None]] = OrderedDict()  # addresses by peer, last used last
        self._redials = Redials(self.reach, self.connected, rng)
        self._dials: dict[PeerId, trio.Event] = {}
        self.blame: Callable[[PeerId, str], None] | None = None  # told of peers that were cut off, and why
        self.detours: Detours | None = None  # to peers that cannot be dialled
        self._changed = trio.lowlevel.ParkingLot()
        self.nursery: trio.Nursery

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where this host listens; 0.0.0.0 and :: as the addresses of this machine's interfaces."""
        places = [place for address in self.libp2p.get_transport_addrs() for place in expand_wildcard_address(address)]
        return tuple(dict.fromkeys(f"{place}/p2p/{peer_text(self.peer_id)}" for place in places))

    def connected(self) -> frozenset[PeerId]:
        peers = (peer_of(peer_id) for peer_id, conns in self.swarm.connections.items() if any(not conn.is_closed for conn in conns))
        return frozenset(peer for peer in peers if peer is not None)

    async def wait_for_change(self) -> None:
        """Until a connection came or went."""
        await self._changed.park()

    def handle_streams(self, protocol: str, handle: Callable[[PeerId, INetStream], Awaitable[None]]) -> None:
        """Serve a protocol: the stream ends when `handle` returns, and is reset if it fails. Faults of the peer end it silently."""

        async def serve(stream: INetStream) -> None:
            peer = peer_of(stream.muxed_conn.peer_id)
            muxed = muxed_stream_of(stream)
            try:
                if peer is not None:
                    await handle(peer, stream)
                    muxed.finish()
            except STREAM_ERRORS as error:
                logger.debug("stream %s ended: %r", protocol, error)
            except Exception:  # the supervisor of strangers' streams: our bug must not end the node
                logger.error("stream %s ended with an unexpected error", protocol, exc_info=True)
            finally:
                muxed.reset_now()  # nothing, if it is finished

        self.libp2p.set_stream_handler(TProtocol(protocol), serve)

    async def open_stream(self, peer: PeerId, protocols: Sequence[str]) -> INetStream:
        """Raises: one of STREAM_ERRORS: not connected, or the peer does not speak any of the protocols."""
        try:
            return await self.libp2p.new_stream(libp2p_id(peer), [TProtocol(protocol) for protocol in protocols])
        except UnicodeDecodeError as error:
            raise StreamFailure("the peer names a protocol in bytes that are no text") from error

    def learn_addresses(self, peer: PeerId, addresses: Iterable[str], *, keep: bool = False) -> None:
        """Remember addresses of a peer; with `keep`, dial it again whenever it is lost."""
        if peer == self.peer_id:
            return
        known = self._known.setdefault(peer, OrderedDict())
        self._known.move_to_end(peer)
        for address, _ in zip(addresses, range(ADDRESSES_MAX), strict=False):
            try:
                said = read_target(address)
            except BadAddressError:
                continue
            if said == peer:
                known[address] = None
                known.move_to_end(address)
        while len(known) > ADDRESSES_MAX:
            known.popitem(last=False)
        while len(self._known) > KNOWN_PEERS_MAX:
            gone, _ = self._known.popitem(last=False)
            self._redials.forget(gone)
        if keep and known:
            self._redials.keep(peer, self.nursery)

    async def connect(self, address: str) -> PeerId:
        """Raises: BadAddressError, UnreachableError within 10 s."""
        peer = read_target(address)
        if peer not in self.connected():
            await self.dial(address)
        self.learn_addresses(peer, [address], keep=True)
        return peer

    async def dial(self, address: str) -> PeerId:
        """A new connection to exactly this address, which is not remembered. Raises: BadAddressError, UnreachableError within 10 s."""
        peer = read_target(address)
        try:
            with trio.fail_after(DIAL_S):
                await self._dial_once(address)
        except trio.TooSlowError as error:
            raise UnreachableError(address, f"no answer within {DIAL_S:.0f} s") from error
        except STREAM_ERRORS as error:
            raise UnreachableError(address, _reason(error)) from error
        self._make_room()
        return peer

    async def _dial_once(self, address: str) -> None:
        """Raises: one of STREAM_ERRORS, UnreachableError."""
        circuit = split_circuit(address)
        if circuit is None:
            maddr, peer = parse_address(address)
            await self.swarm.dial_addr(maddr, libp2p_id(peer))
        elif self.detours is not None:
            await self.detours.dial(*circuit)
        else:
            raise UnreachableError(address, "this node dials through no relay")

    async def reach(self, peer: PeerId) -> bool:
        """Be connected to `peer`: by its known addresses one after the other, or by a relay to which it is connected."""
        while peer not in self.connected():
            under_way = self._dials.get(peer)
            if under_way is not None:
                await under_way.wait()
                if peer not in self.connected():
                    return False
                break
            self._dials[peer] = trio.Event()
            try:
                for address in list(reversed(self._known.get(peer, {}))):
                    try:
                        await self.dial(address)
                        return True
                    except UnreachableError as error:
                        logger.debug("dialling failed: %r", error)
                return self.detours is not None and await self.detours.find(peer)
            finally:
                self._dials.pop(peer).set()
        return True

    async def listen(self, address: str) -> None:
        """Raises: BadAddressError, ListenError."""
        try:
            maddr = Multiaddr(address)
            names = [protocol.name for protocol in maddr.protocols()]
        except (StringParseError, BinaryParseError, ValueError) as error:
            raise BadAddressError(address, "a multiaddr such as /ip4/0.0.0.0/tcp/4001") from error
        if len(names) != 2 or names[0] not in ("ip4", "ip6") or names[1] != "tcp":
            raise BadAddressError(address, "a multiaddr such as /ip4/0.0.0.0/tcp/4001")
        if not await self.swarm.listen(maddr):
            fault = self._transport.faults.pop(str(maddr), None)
            is_taken = fault is not None and fault.errno == errno.EADDRINUSE
            raise ListenError(address, is_taken=is_taken, reason=str(fault and fault.strerror).lower())

    def disconnect(self, peer: PeerId) -> None:
        """End all connections with a peer at once."""
        for conn in self.swarm.get_connections(libp2p_id(peer)):
            conn.muxed_conn.abort()  # type: ignore[attr-defined]

    @property
    def members(self) -> frozenset[PeerId]:
        return self.swarm.places.members

    def connections(self, peer: PeerId) -> list[Yamux]:
        """The open connections with a peer."""
        found = [conn.muxed_conn for conn in self.swarm.get_connections(libp2p_id(peer)) if not conn.is_closed]
        return [muxed for muxed in found if isinstance(muxed, Yamux)]

    def direct_addresses(self, peer: PeerId) -> tuple[str, ...]:
        """The known addresses of a peer that need no relay, newest first."""
        return tuple(address for address in reversed(self._known.get(peer, {})) if split_circuit(address) is None)

    def keep_places(self, members: frozenset[PeerId]) -> None:
        """Strangers make room for these peers."""
        self.swarm.places.members = members

    def _make_room(self) -> None:
        """End the connections for which there is no place."""
        seats: dict[Seat, Yamux] = {}
        for conn in self.swarm.get_connections():
            muxed = conn.muxed_conn
            assert isinstance(muxed, Yamux), "the only muxer on offer"
            source = name_source(muxed.get_remote_address())
            seats[Seat(peer_of(muxed.peer_id), source, not muxed.is_initiator, muxed.since_s)] = muxed
        for seat in self.swarm.places.choose_to_leave(list(seats)):
            seats[seat].abort()

    def abort(self) -> None:
        """End all connections at once, without waiting for anyone."""
        for conns in self.swarm.connections.values():
            for conn in conns:
                conn.muxed_conn.abort()  # type: ignore[attr-defined]
        self.swarm.connections.clear()

    # --- staying connected --------------------------------------------------------------------------------------

    def handle_connected(self) -> None:
        self._changed.unpark_all()

    def handle_disconnected(self, peer: PeerId, broken_rule: str) -> None:
        self._changed.unpark_all()
        if broken_rule and self.blame is not None:
            self.blame(peer, broken_rule)
        self._redials.handle_lost(peer, self.nursery)


class _Watcher(INotifee):
    """Tells the host of connections that came or went."""

    def __init__(self, host: Host) -> None:
        self._host = host

    async def connected(self, network: INetwork, conn: INetConn) -> None:
        self._host.handle_connected()

    async def disconnected(self, network: INetwork, conn: INetConn) -> None:
        peer = peer_of(conn.muxed_conn.peer_id)
        if peer is not None:
            self._host.handle_disconnected(peer, conn.muxed_conn.broken_rule)  # type: ignore[attr-defined]

    async def opened_stream(self, network: INetwork, stream: INetStream) -> None:
        return

    async def closed_stream(self, network: INetwork, stream: INetStream) -> None:
        return

    async def listen(self, network: INetwork, multiaddr: Multiaddr) -> None:
        return

    async def listen_close(self, network: INetwork, multiaddr: Multiaddr) -> None:
        return


@asynccontextmanager
async def open_host(*, seed: bytes, listen: Sequence[str], rng: Random) -> AsyncIterator[Host]:
    """A host that listens on `listen` (multiaddrs without `/p2p`) until the block is left.

    Raises: BadAddressError, ListenError: nothing is left open.
    """
    host = Host(seed, rng)
    kept = BareError()
    async with background_trio_service(host.swarm), trio.open_nursery() as nursery:
        host.nursery = nursery
        try:
            with kept:
                for address in listen:
                    await host.listen(address)
                yield host
        finally:
            host.abort()
            nursery.cancel_scope.cancel()
    kept.raise_it()


def _reason(error: BaseException) -> str:
    """The innermost cause in words: libraries wrap it several times."""
    while error.__cause__ is not None or isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0] if isinstance(error, BaseExceptionGroup) else error.__cause__ or error
    if isinstance(error, PeerIDMismatchesPubkey):
        return "another peer answers there"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return str(error) or type(error).__name__
