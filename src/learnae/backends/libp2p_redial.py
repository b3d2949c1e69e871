"""Staying connected: peers that were lost are dialled again, at once and then after pauses that grow.

Whoever hangs up soon after it was reached is dialled like one who could not be reached: a peer that accepts every call and ends it
would otherwise be dialled several times a second for as long as the session lasts.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from random import Random
from typing import Final

import trio

from learnae.ids import PeerId

CONNECTIONS_WANTED: Final = 48  # Dialled by us; the rest of the places is for those who dial us. Gossip needs about eight.
DIALS_MAX: Final = 16  # Lost peers that are dialled at the same time; the others wait for their turn.
PAUSE_FIRST_S: Final = 1.0
PAUSE_MAX_S: Final = 60.0  # A peer that is away for hours is still found again within a minute.
STAYED_S: Final = 10.0  # Whoever ends a connection later costs little, however often.


class Redials:
    """Who is dialled again when lost.

    Args:
        reach: dials a peer that is not connected; whether it is then.
        connected: who is.
    """

    def __init__(self, reach: Callable[[PeerId], Awaitable[bool]], connected: Callable[[], frozenset[PeerId]], rng: Random) -> None:
        self._reach, self._connected, self._rng = reach, connected, rng
        self._kept: set[PeerId] = set()
        self._running: set[PeerId] = set()
        self._reached: dict[PeerId, tuple[float, float]] = {}  # when, and what was waited before because it had hung up
        self._places = trio.CapacityLimiter(DIALS_MAX)

    def keep(self, peer: PeerId, nursery: trio.Nursery) -> None:
        """Dial this peer now if it is not connected, and whenever it is lost."""
        self._kept.add(peer)
        self.handle_lost(peer, nursery)

    def forget(self, peer: PeerId) -> None:
        self._kept.discard(peer)
        self._reached.pop(peer, None)

    def handle_lost(self, peer: PeerId, nursery: trio.Nursery) -> None:
        """A connection to this peer ended, or there was none."""
        if peer in self._kept and peer not in self._running and peer not in self._connected():
            self._running.add(peer)
            nursery.start_soon(self._keep_dialling, peer)

    async def _keep_dialling(self, peer: PeerId) -> None:
        reached_s, waited_s = self._reached.pop(peer, (-STAYED_S, 0.0))
        hung_up = trio.current_time() - reached_s < STAYED_S
        first_s = min(max(PAUSE_FIRST_S, 2 * waited_s), PAUSE_MAX_S) if hung_up else 0.0
        pause_s = max(PAUSE_FIRST_S, first_s)
        try:
            await self._wait(first_s)
            while peer in self._kept and peer not in self._connected():
                async with self._places:
                    if len(self._connected()) < CONNECTIONS_WANTED and await self._reach(peer) and peer in self._connected():
                        self._reached[peer] = trio.current_time(), first_s
                        return
                await self._wait(pause_s)
                pause_s = min(2 * pause_s, PAUSE_MAX_S)
        finally:
            self._running.discard(peer)

    async def _wait(self, about_s: float) -> None:
        await trio.sleep(about_s * self._rng.uniform(0.7, 1.3))
