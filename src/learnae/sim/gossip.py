"""Simulated gossip: what is published reaches every peer after a delay of its own, or is lost; what comes within a moment comes as a page.

A node takes from its sockets whatever came since it last looked; here it looks every `PAGE_S`. So a peer gets some vertices at once
instead of one by one, which changes nothing that it may rely on and is what makes large swarms affordable.
"""

from __future__ import annotations

from collections.abc import Iterable
from random import Random
from typing import Final

from learnae.ids import PeerId
from learnae.sim.host import Host
from learnae.sim.scenario import Link

PAGE_S: Final = 0.05  # A third of the usual delay on the way.

Page = list[tuple[PeerId, bytes]]


class Gossip:
    """The vertices under way to each host, by the moment at which they arrive."""

    def __init__(self, link: Link, rng: Random, hosts_count: int) -> None:
        self._link = link
        self._rng = rng
        self._hosts_count = hosts_count
        self._pages: dict[int, list[Page]] = {}  # by moment, then by host

    def publish(self, sender: PeerId, encoded: bytes, hosts: Iterable[Host], *, now_s: float) -> list[int]:
        """Send a vertex to these hosts. The moments at which something will arrive and nothing would have before."""
        link, random = self._link, self._rng.random
        earliest = now_s + link.delay_min_s
        first = int(earliest / PAGE_S) + 1
        offset, spread = earliest / PAGE_S + 1 - first, (link.delay_max_s - link.delay_min_s) / PAGE_S
        moments = range(first, first + int(offset + spread) + 1)
        new = [moment for moment in moments if moment not in self._pages]
        for moment in new:
            self._pages[moment] = [[] for _ in range(self._hosts_count)]
        pages = [self._pages[moment] for moment in moments]
        item = (sender, encoded)
        loss = link.loss
        for host in hosts:
            if not loss or random() >= loss:
                pages[int(offset + spread * random())][host.index].append(item)
        return new

    def take(self, moment: int) -> list[Page]:
        """What arrives at that moment, by host."""
        return self._pages.pop(moment)

    def lose(self, index: int) -> None:
        """A host crashed: what was under way to it is lost."""
        for pages in self._pages.values():
            pages[index] = []
