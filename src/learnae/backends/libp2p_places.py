"""Who may have one of a node's places: strangers share what members leave, and no address may take them all.

Who is there is known only after the handshake, so two things are bounded. Before it: handshakes, at a time and per second,
of all and of one address, because each costs key arithmetic. After it: connections. A peer that is a member, or that this
node dialled itself, is *wanted*; all others are strangers. When there are more connections than places, a stranger of the
address that has most goes first, the newest of them; only then a wanted peer that came by itself.
One address is an IPv4 address or an IPv6 network of 56 bits, the most that a household's line gets as a rule; of addresses with
equally many chance decides, so that nobody gains by coming early or late. Pure: clock and chance are passed in.
Source: protocol.md (Limits); docs/attacks.md.
"""

from __future__ import annotations

import ipaddress
from collections import Counter, OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

from learnae.ids import PeerId

CONNECTIONS_MAX: Final = 128  # protocol.md, Limits
STRANGERS_PER_ADDRESS_MAX: Final = 32  # A laboratory or a household behind one router; a quarter of the places.
HANDSHAKES_MAX: Final = 32  # At once; each costs key arithmetic and at most 10 s.
HANDSHAKES_PER_ADDRESS_MAX: Final = 8
HANDSHAKES_RATE_S: Final = 10.0  # A handshake costs about 4 ms here, whoever asks for it.
HANDSHAKES_BURST: Final = 128.0  # A whole swarm that comes back at once.
ADDRESS_RATE_S: Final = 0.75  # With all that follows a handshake: 4 % of a core. Sixteen nodes of a laboratory that come and go need 0.5.
ADDRESS_BURST: Final = 64.0  # The nodes of a laboratory that come back at once.
ADDRESSES_MAX: Final = 1024  # Remembered; forgetting one gives it its burst again, which the bucket of all still bounds.


@dataclass(frozen=True, slots=True, eq=False)
class Seat:
    """One connection that takes a place; equal only to itself."""

    peer: PeerId | None  # None: a kind of key that no member has
    address: str  # what `name_source` says
    is_inbound: bool
    since_s: float


class Bucket:
    """How many handshakes (or questions) are left, filling up again with time."""

    def __init__(self, rate_s: float, burst: float, now_s: float) -> None:
        self._rate_s, self._burst, self._left, self._at_s = rate_s, burst, burst, now_s

    def has_one(self, now_s: float) -> bool:
        self._left = min(self._burst, self._left + max(0.0, now_s - self._at_s) * self._rate_s)
        self._at_s = now_s
        return self._left >= 1

    def take(self) -> None:
        self._left -= 1


class Places:
    """The doorkeeper of one node."""

    def __init__(self, now_s: float, rng: Random) -> None:
        self._rng = rng
        self.members: frozenset[PeerId] = frozenset()
        self._all = Bucket(HANDSHAKES_RATE_S, HANDSHAKES_BURST, now_s)
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()
        self._under_way: Counter[str] = Counter()

    def begin_handshake(self, address: str, now_s: float) -> bool:
        """Whether somebody at `address` may shake hands now; if so, `end_handshake` must follow."""
        bucket = self._buckets.setdefault(address, Bucket(ADDRESS_RATE_S, ADDRESS_BURST, now_s))
        self._buckets.move_to_end(address)
        if len(self._buckets) > ADDRESSES_MAX:
            self._buckets.popitem(last=False)
        if self._under_way.total() >= HANDSHAKES_MAX or self._under_way[address] >= HANDSHAKES_PER_ADDRESS_MAX:
            return False
        if not (bucket.has_one(now_s) and self._all.has_one(now_s)):
            return False
        bucket.take()
        self._all.take()
        self._under_way[address] += 1
        return True

    def end_handshake(self, address: str) -> None:
        self._under_way[address] -= 1
        if not self._under_way[address]:
            del self._under_way[address]

    def choose_to_leave(self, seats: Sequence[Seat]) -> list[Seat]:
        """The connections that must end so that all bounds hold."""
        strangers: dict[str, list[Seat]] = {}
        wanted: list[Seat] = []
        for seat in seats:
            if seat.is_inbound and seat.peer not in self.members:
                strangers.setdefault(seat.address, []).append(seat)
            else:
                wanted.append(seat)
        leave: list[Seat] = []
        for group in strangers.values():
            group.sort(key=lambda seat: seat.since_s)
            leave += group[STRANGERS_PER_ADDRESS_MAX:]
            del group[STRANGERS_PER_ADDRESS_MAX:]
        excess = len(seats) - len(leave) - CONNECTIONS_MAX
        while excess > 0 and any(strangers.values()):
            crowd = max(strangers.values(), key=lambda group: (len(group), self._rng.random()))
            leave.append(crowd.pop())
            excess -= 1
        uninvited = sorted((seat for seat in wanted if seat.is_inbound), key=lambda seat: -seat.since_s)
        return leave + uninvited[: max(excess, 0)]


def name_source(remote: tuple[str, int] | None) -> str:
    """The address that counts for `remote` (host and port): IPv4, or 56 bits of IPv6; empty if it is not known."""
    if remote is None:
        return ""
    try:
        ip = ipaddress.ip_address(remote[0].partition("%")[0])
    except ValueError:
        return remote[0]
    if isinstance(ip, ipaddress.IPv6Address):
        return str(ip.ipv4_mapped or ipaddress.ip_network((int(ip) >> 72 << 72, 56)))
    return str(ip)
