"""Can others dial this node? A peer that it dialled tries, `/learnae/dialback/1`.

A question is a port (2 bytes) and the identity that should answer there (32 bytes). The peer dials that port at the address
from which the question came, and no other, so nobody can be made to dial a third party; a question may be asked for somebody
else behind the same address (`learnae doctor` asks so for a node that runs). The answer is one byte, and the address that was
dialled: 1 byte of length and its text, which is how a node learns under which address the world sees it.
Source: libp2p specs, autonat, whose question is the same; its messages name addresses, of which only these parts may be used.
"""

from __future__ import annotations

import ipaddress
import logging
from collections import OrderedDict
from dataclasses import dataclass
from enum import IntEnum
from random import Random
from typing import Final

import trio
from libp2p.abc import INetStream

from learnae.backends.libp2p_direct import read_exactly
from learnae.backends.libp2p_host import STREAM_ERRORS, Host, drop_stream, muxed_stream_of
from learnae.backends.libp2p_places import Bucket, name_source
from learnae.backends.libp2p_probe import probe_addresses
from learnae.ids import PEER_ID_BYTES, PeerId, peer_text, short_name

logger = logging.getLogger(__name__)

PROTOCOL: Final = "/learnae/dialback/1"
AT_ONCE_MAX: Final = 2
RATE_S: Final = 0.2  # Questions of strangers that are answered; each costs two handshakes' worth of work.
BURST: Final = 32.0  # A session that starts.
ASKER_RATE_S: Final = 0.02  # Of one address, or of one member: a node asks every ten minutes.
ASKER_BURST: Final = 8.0  # The nodes of a laboratory that begin at once; whose question is not answered asks again.
ASKERS_MAX: Final = 1024  # Remembered; the bucket of all strangers bounds those that are forgotten.
ANSWER_S: Final = 15.0  # Longer than a dial, which may take 10 s.
ASKED_MAX: Final = 3
FIRST_S: Final = 2.0  # After the first connections, before it is asked.
AGAIN_S: Final = 600.0  # Routers change their minds seldom.
UNKNOWN_S: Final = 30.0
UNANSWERED_MAX: Final = 3  # Rounds without an answer, before this node looks for relays.
_TEXT_MAX: Final = 64


class Reached(IntEnum):
    """What the peer says."""

    YES = 0
    NO = 1
    BUSY = 2


@dataclass(frozen=True, slots=True)
class DialbackAnswer:
    """`address`: the IP address under which the peer sees this machine; `port`: what it was asked to dial there.

    `keeps_port`: whether this machine's router shows one port to all.
    """

    reached: Reached
    address: str
    port: int
    keeps_port: bool | None = None

    @property
    def is_reached(self) -> bool:
        return self.reached is Reached.YES


class Reachability:
    """Answers the questions of others, and asks its own."""

    def __init__(self, host: Host, rng: Random) -> None:
        self._host, self._rng = host, rng
        self._places = trio.CapacityLimiter(AT_ONCE_MAX)
        self._strangers = Bucket(RATE_S, BURST, trio.current_time())
        self._askers: OrderedDict[str, Bucket] = OrderedDict()
        self._unanswered = 0
        self.is_reachable: bool | None = None  # None: nobody could be asked
        self.public_address = ""  # as others see it
        self.mapped_port = 0  # that a router forwards to this node, as it says
        self.announced = ("", 0)  # where all the world finds this node, as its user says: IP address or name, and port
        self._asked_again = trio.Event()
        self._asked_afar = False  # whether there was anybody outside to be asked
        host.handle_streams(PROTOCOL, self._serve)

    async def _serve(self, peer: PeerId, stream: INetStream) -> None:
        remote = muxed_stream_of(stream).get_remote_address()
        with trio.move_on_after(ANSWER_S):
            raw = await read_exactly(stream, 2 + PEER_ID_BYTES)
            port, wanted = int.from_bytes(raw[:2], "big"), PeerId(raw[2:])
            if remote is None or not port:
                return
            reached = Reached.BUSY
            if self._places.available_tokens > 0 and self._take_turn(peer, remote):
                async with self._places:
                    reached = Reached.YES if await _try(remote[0], port, wanted) else Reached.NO
            text = remote[0].encode()[:_TEXT_MAX]
            await stream.write(bytes((reached, len(text))) + text)

    def _take_turn(self, peer: PeerId, remote: tuple[str, int]) -> bool:
        """Identities cost nothing, so strangers are counted by address, and together; each member has a bucket of its own."""
        now_s = trio.current_time()
        is_member = peer in self._host.members
        asker = peer_text(peer) if is_member else name_source(remote)
        bucket = self._askers.setdefault(asker, Bucket(ASKER_RATE_S, ASKER_BURST, now_s))
        self._askers.move_to_end(asker)
        if len(self._askers) > ASKERS_MAX:
            self._askers.popitem(last=False)
        if not bucket.has_one(now_s) or not (is_member or self._strangers.has_one(now_s)):
            return False
        bucket.take()
        if not is_member:
            self._strangers.take()
        return True

    @property
    def needs_relays(self) -> bool:
        """Whether others cannot dial this node, as far as anybody would tell."""
        return self.is_reachable is False or (self.is_reachable is None and self._unanswered >= UNANSWERED_MAX)

    async def run(self) -> None:
        """Ask now and then, until cancelled."""
        while True:
            while not self._find_judges():
                await self._host.wait_for_change()
            await trio.sleep(FIRST_S)
            self._asked_again = trio.Event()
            await self.ask_all()
            with trio.move_on_after(UNKNOWN_S if self.is_reachable is None else AGAIN_S):
                async with trio.open_nursery() as nursery:
                    if not self._asked_afar:
                        nursery.start_soon(self._notice_world)
                    await self._asked_again.wait()
                    nursery.cancel_scope.cancel()

    async def _notice_world(self) -> None:
        """Ask again as soon as there is somebody outside: until now there were neighbours only."""
        while all(map(self._is_near, self._find_judges())):
            await self._host.wait_for_change()
        self.ask_again()

    def ask_again(self) -> None:
        """Something changed: do not wait for the next turn."""
        self._asked_again.set()

    async def ask_all(self) -> None:
        """Ask a few peers that this node dialled; one that can dial it is enough, if somebody did meanwhile.

        Neighbours come in where the world does not, so they are asked only if nobody outside answers.
        """
        answers: list[DialbackAnswer] = []
        judges = self._find_judges()
        self._rng.shuffle(judges)
        judges.sort(key=self._is_near)
        self._asked_afar = not all(map(self._is_near, judges))
        is_told_afar = False
        for peer in judges[:ASKED_MAX] if self._host.addresses else []:
            if is_told_afar and self._is_near(peer):
                break
            arrivals = self._host.swarm.arrivals
            answer = await ask_dialback(self._host, peer, self._choose_port(peer), self._host.peer_id)
            if answer is not None and answer.is_reached and self._host.swarm.arrivals == arrivals:
                logger.debug("%s says that it dialled this node, and nobody did", short_name(peer))
            elif answer is not None and answer.reached is not Reached.BUSY:
                answers.append(answer)
                self.public_address = answer.address
                is_told_afar = not self._is_near(peer)
                if answer.is_reached:
                    break
        self._unanswered = 0 if answers else self._unanswered + 1
        if answers:
            self.is_reachable = answers[-1].is_reached
            logger.info("others can%s dial this node", "" if self.is_reachable else "not")

    def _is_near(self, peer: PeerId) -> bool:
        """Whether a connected peer is in this network, or on this machine."""
        return not any(ipaddress.ip_address(ip).is_global for ip in _find_ips(self._host, peer))

    def _choose_port(self, peer: PeerId) -> int:
        outside = ("0.0.0.0", self.mapped_port) if self.mapped_port else self.announced  # UPnP's ports are of IPv4.
        return choose_port(self._host, peer, inside=_find_port(self._host.addresses), outside=outside)

    def _find_judges(self) -> list[PeerId]:
        """Peers that this node dialled at an address: who came by itself may sit behind the same router."""
        return [peer for peer in self._host.connected() if any(conn.was_dialled for conn in self._host.connections(peer))]


def choose_port(host: Host, judge: PeerId, *, inside: int, outside: tuple[str, int]) -> int:
    """The port that leads here from `outside` (IP address or name, and port), for a connected judge who comes in there.

    One in this network dials this machine itself, as does one that speaks another version of IP.
    """
    place, port = outside
    return port if port and any(_may_come_in(ip, place) for ip in _find_ips(host, judge)) else inside


def _find_ips(host: Host, peer: PeerId) -> list[str]:
    remotes = [conn.get_remote_address() for conn in host.connections(peer)]
    return [remote[0].partition("%")[0] for remote in remotes if remote is not None]


async def ask_dialback(host: Host, peer: PeerId, port: int, wanted: PeerId) -> DialbackAnswer | None:
    """Ask a connected peer to dial back; None: it did not answer, or knows no such question."""
    stream: INetStream | None = None
    try:
        with trio.move_on_after(ANSWER_S):
            stream = await host.open_stream(peer, [PROTOCOL])
            await stream.write(port.to_bytes(2, "big") + wanted)
            code, length = await read_exactly(stream, 2)
            text = await read_exactly(stream, min(length, _TEXT_MAX))
            if code in list(Reached):
                return DialbackAnswer(Reached(code), str(ipaddress.ip_address(text.decode(errors="replace"))), port)
    except (ValueError, *STREAM_ERRORS) as error:
        logger.debug("%s did not dial back: %r", short_name(peer), error)
    finally:
        if stream is not None:
            drop_stream(stream)
    return None


async def _try(ip: str, port: int, wanted: PeerId) -> bool:
    family = "ip6" if ":" in ip else "ip4"
    address = f"/{family}/{ip.partition('%')[0]}/tcp/{port}/p2p/{peer_text(wanted)}"
    return not (await probe_addresses([address]))[address]


def _may_come_in(remote: str, place: str) -> bool:
    ip = ipaddress.ip_address(remote)
    is_name = not place.replace(".", "").isdecimal() and ":" not in place
    return ip.is_global and (is_name or (ip.version == 6) == (":" in place))


def _find_port(addresses: tuple[str, ...]) -> int:
    """The first port on which this node listens; 0: none."""
    return int(addresses[0].split("/")[4]) if addresses else 0
