"""Hole punching: two members behind two routers leave their relay, by dialling each other at the same moment (DCUtR).

The end that was called through a relay leads: it sends the address under which the world sees a fresh port of its own, gets the
other's, says SYNC and dials after half a round trip, when SYNC arrives there and makes the other end dial too. Each router takes what
comes from outside for the answer to what just left. The two dials become one TCP connection (or two, of which one is kept). On it
the end that leads should wait for the handshake and the other begin it; go-libp2p had it the other way round for years (its issue
3171), so both greet, and then listen for a moment whether the other begins, the end that leads for longer. Three rounds; then the
relay carries on, for a minute at least before it is tried again, and longer each time.

Only members are led into this; the other end answers only on a circuit that it asked for itself. What it is told is a stranger's
claim: `choose_targets` says what is dialled, and rounds are counted by peer and in all, so that nobody's network is flooded by it.
Source: libp2p specs, relay/DCUtR.
Deviations: the addresses are those of a fresh port, not of the port listened on, and a CONNECT is answered after that port was seen,
so the round trip is measured before; a stream for each round, as go-libp2p does, where the specification has one for all.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Final

import trio
from libp2p.abc import IMuxedConn, INetStream
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.relay.circuit_v2.pb.dcutr_pb2 import HolePunch
from multiaddr import Multiaddr

from learnae.backends.libp2p_address import libp2p_id, peer_of
from learnae.backends.libp2p_host import STREAM_ERRORS, Host, drop_stream
from learnae.backends.libp2p_places import Bucket
from learnae.backends.libp2p_punch_port import (
    Endpoint,
    PunchError,
    PunchPort,
    choose_observers,
    choose_targets,
    open_punch_port,
    write_endpoint,
)
from learnae.backends.libp2p_relay import RelayMessageError, is_relayed, read_message, write_message
from learnae.backends.libp2p_tcp import TcpStream
from learnae.backends.libp2p_yamux import PUNCHED, Yamux
from learnae.ids import PeerId, peer_text, short_name

logger = logging.getLogger(__name__)

PROTOCOL: Final = "/libp2p/dcutr"
ROUNDS_MAX: Final = 3  # The specification's.
AT_ONCE_MAX: Final = 4  # Each keeps a port, an identity and two connections for some seconds.
PUNCH_S: Final = 60.0  # All rounds.
ANSWER_S: Final = 15.0  # The other end may have to look at its own router first.
SYNC_S_MAX: Final = 2.0  # A round trip; longer ones say more about a busy machine than about the line.
LISTENS_S: Final = 0.5  # Whether the other end begins the handshake, after which this one does.
LEADER_LISTENS_S: Final = 1.5  # Longer than that and the way of the first bytes.
LOOK_S: Final = 5.0
GRACE_S: Final = 1.0  # Between the direct connection and the end of the circuit: the other end may be a moment behind.
AGAIN_S: Final = 60.0  # After the first failure; twice as long after each further one.
AGAIN_S_MAX: Final = 3600.0
_GREETING: Final = b"\x13/multistream/1.0.0\n"  # With which both ends of a connection begin.
PEERS_MAX: Final = 1024  # Remembered; the bucket of all bounds those that are forgotten.
ROUNDS_BURST: Final = 2.0 * ROUNDS_MAX  # Answered for one peer: its first punch, and one more at once.
ROUNDS_RATE_S: Final = 0.01
ALL_ROUNDS_BURST: Final = 64.0  # A session that starts.
ALL_ROUNDS_RATE_S: Final = 0.1  # Fifteen SYNs each at most, if three victims refuse at once: less than two a second.


@dataclass(slots=True)
class _Wait:
    """After a punch with one peer: not before `until_s`, by the monotonic clock."""

    until_s: float = 0.0
    failures: int = 0


class Puncher:
    """The hole punching of one node. `choose`: which claimed addresses may be dialled by a node that is seen at an endpoint."""

    def __init__(
        self,
        host: Host,
        rng: Random,
        *,
        is_settling: Callable[[PeerId], bool] = lambda peer: False,
        choose: Callable[[Iterable[bytes], Endpoint], list[Endpoint]] = choose_targets,
    ) -> None:
        self._host, self._rng, self._is_settling, self._choose = host, rng, is_settling, choose
        self.keeps_port: bool | None = None  # whether the router shows one port to all; None: it is not known
        self._leading: dict[PeerId, trio.CancelScope] = {}
        self._answering: dict[PeerId, trio.CancelScope] = {}
        self._waits: OrderedDict[PeerId, _Wait] = OrderedDict()
        self._rounds: OrderedDict[PeerId, Bucket] = OrderedDict()
        self._all_rounds = Bucket(ALL_ROUNDS_RATE_S, ALL_ROUNDS_BURST, trio.current_time())
        host.handle_streams(PROTOCOL, self._answer)

    async def run(self) -> None:
        """Leave relays where that is possible, until cancelled."""
        while True:
            for peer in self._find_callers()[: max(0, self._count_free())]:
                self._leading[peer] = trio.CancelScope()
                self._host.nursery.start_soon(self._lead, peer, self._leading[peer])
            with trio.move_on_after(LOOK_S):
                await self._host.wait_for_change()

    def _find_callers(self) -> list[PeerId]:
        """Members that called through a relay, are on it still, and are due."""
        now_s = trio.current_time()
        found = []
        for peer in self._host.connected() & self._host.members - self._leading.keys() - self._answering.keys():
            conns = self._host.connections(peer)
            if not conns or not all(conn.is_relayed for conn in conns) or self._is_settling(peer):
                continue
            called, calls = any(not conn.is_initiator for conn in conns), any(conn.is_initiator for conn in conns)
            leads = called and (not calls or self._host.peer_id < peer)  # of two that called each other, one
            if leads and (peer not in self._waits or self._waits[peer].until_s <= now_s):
                found.append(peer)
        self._rng.shuffle(found)
        return found

    def _count_free(self) -> int:
        return AT_ONCE_MAX - len(self._leading) - len(self._answering)

    # --- the end that was called --------------------------------------------------------------------------------

    async def _lead(self, peer: PeerId, scope: trio.CancelScope) -> None:
        reason = f"not within {PUNCH_S:.0f} s"
        try:
            with scope, trio.move_on_after(PUNCH_S):
                await self._lead_rounds(peer)
                reason = ""
        except PunchError as error:
            reason = str(error)
        finally:
            del self._leading[peer]
        if scope.cancelled_caught:
            return  # The other end leads.
        wait = self._waits.pop(peer, _Wait())
        wait.failures = wait.failures + 1 if reason else 0
        again_s = min(AGAIN_S * 2 ** min(wait.failures - 1, 10), AGAIN_S_MAX) if reason else AGAIN_S
        wait.until_s = trio.current_time() + again_s * self._rng.uniform(1.0, 1.3)
        self._waits[peer] = wait
        while len(self._waits) > PEERS_MAX:
            self._waits.popitem(last=False)
        if reason:
            logger.info("%s stays on a relay: %s; again in %.0f s", short_name(peer), reason, again_s)
        else:
            await self._leave_relay(peer)

    async def _lead_rounds(self, peer: PeerId) -> None:
        """A fresh port each time: what one round left behind in the routers does not harm the next. Raises: PunchError."""
        for _ in range(ROUNDS_MAX):
            async with open_punch_port(self._find_observers()) as port:
                self._note_router(port)
                try:
                    if await self._lead_round(peer, port):
                        return
                except (RelayMessageError, *STREAM_ERRORS) as error:
                    logger.debug("punching with %s: %r", short_name(peer), error)
                    raise PunchError("the other end does not take part, or is busy") from error
        raise PunchError(f"{ROUNDS_MAX} attempts failed; one of the two routers keeps no hole open")

    async def _lead_round(self, peer: PeerId, port: PunchPort) -> bool:
        """Raises: PunchError, RelayMessageError, one of STREAM_ERRORS."""
        round_trip_s = await self._measure_round_trip(peer)
        stream = await self._host.open_stream(peer, [PROTOCOL])
        try:
            begun_s = trio.current_time()
            await write_message(stream, _connect(port))
            claimed = await _read(stream, HolePunch.CONNECT)
            delay_s = min(trio.current_time() - begun_s, round_trip_s, SYNC_S_MAX) / 2
            targets = self._choose(claimed, port.outside)
            if not targets:
                raise PunchError("the other end names no address that may be dialled")
            await write_message(stream, HolePunch(type=HolePunch.SYNC))
            await trio.sleep(delay_s)
            return await port.meet(targets, partial(self._shake_hands, peer, LEADER_LISTENS_S))
        finally:
            drop_stream(stream)

    async def _measure_round_trip(self, peer: PeerId) -> float:
        """Of the circuit alone; the answer to CONNECT takes longer, because the other end looks at its router before."""
        begun_s = trio.current_time()
        with trio.move_on_after(SYNC_S_MAX):
            for conn in self._host.connections(peer)[:1]:
                await conn.ping().wait()
        return trio.current_time() - begun_s

    # --- the end that called ------------------------------------------------------------------------------------

    async def _answer(self, peer: PeerId, stream: INetStream) -> None:
        if not is_relayed(stream) or not any(conn.is_relayed and conn.is_initiator for conn in self._host.connections(peer)):
            return drop_stream(stream)  # Only who was called through a relay leads.
        if peer in self._answering:
            self._answering.pop(peer).cancel()  # Its next round, before this end has given up the last one.
        if peer in self._leading and self._host.peer_id > peer:
            self._leading[peer].cancel()  # Both called at the same moment, and each thinks that it leads: the smaller one does.
        elif peer in self._leading or self._count_free() <= 0:
            return drop_stream(stream)
        if not self._take_round(peer):
            return drop_stream(stream)
        self._answering[peer] = scope = trio.CancelScope(deadline=trio.current_time() + PUNCH_S)
        met = False
        try:
            with scope:
                met = await self._answer_rounds(peer, stream)
        except (PunchError, RelayMessageError) as error:
            logger.info("%s stays on a relay: %s", short_name(peer), error)
            drop_stream(stream)
        finally:
            if self._answering.get(peer) is scope:
                del self._answering[peer]
        if met:
            self._host.nursery.start_soon(self._leave_relay, peer)

    async def _answer_rounds(self, peer: PeerId, stream: INetStream) -> bool:
        """Raises: PunchError, RelayMessageError, one of STREAM_ERRORS: the other end gave up."""
        claimed = await _read(stream, HolePunch.CONNECT)
        async with open_punch_port(self._find_observers()) as port:
            self._note_router(port)
            for number in range(ROUNDS_MAX):
                if number and not self._take_round(peer):
                    break
                targets = self._choose(claimed if not number else await _read(stream, HolePunch.CONNECT), port.outside)
                if not targets:
                    raise PunchError("it names no address that may be dialled")
                await write_message(stream, _connect(port))
                await _read(stream, HolePunch.SYNC)
                if await port.meet(targets, partial(self._shake_hands, peer, LISTENS_S)):
                    return True
        return False

    def _take_round(self, peer: PeerId) -> bool:
        """Whether one more round may be answered: each sends packets to where the other end says."""
        now_s = trio.current_time()
        bucket = self._rounds.setdefault(peer, Bucket(ROUNDS_RATE_S, ROUNDS_BURST, now_s))
        self._rounds.move_to_end(peer)
        if len(self._rounds) > PEERS_MAX:
            self._rounds.popitem(last=False)
        if not bucket.has_one(now_s) or not self._all_rounds.has_one(now_s):
            return False
        bucket.take()
        self._all_rounds.take()
        return True

    # --- both ends ----------------------------------------------------------------------------------------------

    def _find_observers(self) -> list[str]:
        """Where this node dialled others, who can be asked how its router shows it."""
        places = []
        for peer in self._host.connected():
            for conn in self._host.connections(peer):
                remote = conn.get_remote_address()
                if conn.was_dialled and remote is not None:
                    host = remote[0].partition("%")[0]
                    places.append(f"/ip{6 if ':' in host else 4}/{host}/tcp/{remote[1]}/p2p/{peer_text(peer)}")
        self._rng.shuffle(places)
        return choose_observers(places)

    def _note_router(self, port: PunchPort) -> None:
        """Raises: PunchError: nobody can know at which port the router would show this node to the other end."""
        known = self.keeps_port
        if port.observation.is_same is not None:
            self.keeps_port = port.observation.is_same
        if port.observation.is_same is not False:
            return
        if known is not False:
            remedy = "`upnp` in settings.json, or a TCP port forwarded by hand, lets others in"
            logger.warning("this node's router shows another port to each peer, so no holes can be punched; relays carry on; %s", remedy)
        raise PunchError("this node's router shows another port to each peer")

    async def _shake_hands(self, peer: PeerId, listens_s: float, stream: TcpStream) -> bool:
        """Make a connection with `peer` of a TCP connection that may lead to anybody; begins if nothing comes for `listens_s`."""
        swarm, remote = self._host.swarm, stream.get_remote_address()
        if remote is None:
            return False  # It broke already.
        muxed: IMuxedConn | None = None
        try:
            await stream.say_early(_GREETING)
            with trio.move_on_after(listens_s) as listening:
                await stream.wait_for_bytes(len(_GREETING) + 1)  # Who waits for the handshake says no more than that.
            if listening.cancelled_caught:
                muxed = (await swarm.upgrade_outbound_raw_conn(RawConnection(stream, True, PUNCHED), libp2p_id(peer))).muxed_conn
            else:
                muxed = await swarm.upgrade_inbound_raw_conn(RawConnection(stream, False, PUNCHED), Multiaddr(write_endpoint(remote)))
        except Exception as error:  # noqa: BLE001 - a stranger's bytes, about which the library raises errors of all kinds
            logger.debug("a handshake with %s at %s failed: %r", short_name(peer), remote, error)
            return False
        finally:
            if muxed is None:
                await stream.close()
        assert isinstance(muxed, Yamux), "the only muxer on offer"
        if peer_of(muxed.peer_id) != peer:
            logger.debug("another peer than %s answers at %s", short_name(peer), remote)
            muxed.abort()
            return False
        swarm.make_room()
        return True

    async def _leave_relay(self, peer: PeerId) -> None:
        """End the circuits with a peer that is connected directly."""
        logger.info("connected directly with %s, through both routers; the relay is left", short_name(peer))
        await trio.sleep(GRACE_S)
        conns = self._host.connections(peer)
        if any(not conn.is_relayed for conn in conns):
            for conn in conns:
                if conn.is_relayed:
                    conn.abort()


def _connect(port: PunchPort) -> HolePunch:
    return HolePunch(type=HolePunch.CONNECT, ObsAddrs=[write_endpoint(port.outside)])


async def _read(stream: INetStream, kind: HolePunch.Type.ValueType) -> list[bytes]:
    """The addresses in the next message, which must be of this kind. Raises: RelayMessageError, one of STREAM_ERRORS."""
    with trio.move_on_after(ANSWER_S):
        message = await read_message(stream, HolePunch)
        if message.type != kind:
            raise RelayMessageError(f"{HolePunch.Type.Name(message.type)} where {HolePunch.Type.Name(kind)} was due")
        return list(message.ObsAddrs)
    raise RelayMessageError(f"nothing for {ANSWER_S:.0f} s")
