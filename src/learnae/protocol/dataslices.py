"""Dataslices: what a peer trains on, its own and others', and how often the network has used each shared one (4.1).

Own data stays private unless its owner shares it: private slices are known only by their index, have no CID here and no use
count. Shared slices are listed in hashlists; a slice whose uses reached the overuse threshold is not taken any more. Two peers
that take a slice at the same moment may pass the threshold by the number of peers that were in flight, never by more.
Pure. Source: paper 4.1, Fig. 1 (purple and red areas).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from random import Random
from typing import Final

from learnae.ids import Cid, PeerId

QUEUE_MAX: Final = 64  # Foreign slices kept for training: as many as a cycle takes by default.
SHARED_SLICES_MAX: Final = 65_536  # Known shared slices of the whole session: about 10 MiB of counts.
SLICES_PER_OWNER_MAX: Final = SHARED_SLICES_MAX // 4  # One full hashlist; nobody crowds the others out.
OWNERS_MAX: Final = 4  # Whoever lists a stranger's slices first must not hide where they are.
HASHLISTS_PER_PEER_MAX: Final = 4  # A peer that shares more data later publishes another list; not one each second.


@dataclass(slots=True)
class SharedSlice:
    owners: list[PeerId]  # who listed it: usually one, but a list may name what is not its publisher's
    uses: int = 0
    here: bool = False  # its bytes are in this node's block store


class WantedSlices:
    """Slices that could be fetched, by their uses. Every step takes the same time however many they are: others choose when they come."""

    def __init__(self) -> None:
        self._levels: dict[int, list[Cid]] = {}  # uses -> slices
        self._places: dict[Cid, tuple[int, int]] = {}  # its uses, and its place among those

    def put(self, cid: Cid, uses: int) -> None:
        self.discard(cid)
        level = self._levels.setdefault(uses, [])
        self._places[cid] = uses, len(level)
        level.append(cid)

    def discard(self, cid: Cid) -> None:
        if cid not in self._places:
            return
        uses, place = self._places.pop(cid)
        level = self._levels[uses]
        last = level.pop()
        if last != cid:
            level[place], self._places[last] = last, (uses, place)
        if not level:
            del self._levels[uses]

    def draw(self, rng: Random) -> Cid | None:
        """Take out one of the least used, each of them as likely as the others; None if there is none."""
        if not self._levels:
            return None
        cid = rng.choice(self._levels[min(self._levels)])
        self.discard(cid)
        return cid


@dataclass(slots=True)
class DatasliceShelf:
    """All dataslices that a peer knows, its queue of those ready for training, and their use counts."""

    overuse_threshold: int
    private_count: int = 0
    shared: dict[Cid, SharedSlice] = field(default_factory=dict)
    queue: list[Cid] = field(default_factory=list)  # shared slices here that may still be used
    unfit: set[Cid] = field(default_factory=set)  # turned out not to be data of this task
    fetching: set[Cid] = field(default_factory=set)
    hashlists: dict[PeerId, list[Cid]] = field(default_factory=dict)
    _wanted: WantedSlices = field(default_factory=WantedSlices)  # neither here nor being fetched
    _listed: dict[PeerId, int] = field(default_factory=dict)  # how many slices each owner listed
    _round: list[int] = field(default_factory=list)  # private slices left in this pass over the own data

    def accepts_hashlist(self, owner: PeerId, hashlist: Cid) -> bool:
        """Whether this list is new and its owner has not published too many."""
        known = self.hashlists.setdefault(owner, [])
        if hashlist in known or len(known) >= HASHLISTS_PER_PEER_MAX:
            return False
        known.append(hashlist)
        return True

    def add_shared(self, owner: PeerId, slices: Iterable[Cid], *, uses: dict[Cid, int], here: bool) -> None:
        """Learn shared slices; `uses` are the uses announced before the list was read."""
        for cid in slices:
            known = self.shared.get(cid)
            if known is not None:
                if owner not in known.owners and len(known.owners) < OWNERS_MAX:
                    known.owners.append(owner)
            elif len(self.shared) < SHARED_SLICES_MAX and self._listed.get(owner, 0) < SLICES_PER_OWNER_MAX:
                self._listed[owner] = self._listed.get(owner, 0) + 1
                self.shared[cid] = SharedSlice([owner], uses.get(cid, 0), here)
                self._offer(cid)
                if here and self._is_usable(cid):
                    self.queue.append(cid)

    def count_use(self, slices: Iterable[Cid]) -> None:
        """Somebody, this peer included, announced that it trained on these slices (`DatasliceConsumed`)."""
        for cid in slices:
            known = self.shared.get(cid)
            if known is not None:
                known.uses += 1
                self._offer(cid)
        self.queue = [cid for cid in self.queue if self._is_usable(cid)]

    def choose_fetches(self, rng: Random) -> list[Cid]:
        """Slices to fetch now, least used first, so that the queue stays filled; they count as being fetched."""
        chosen: list[Cid] = []
        while len(self.queue) + len(self.fetching) < QUEUE_MAX:
            cid = self._wanted.draw(rng)
            if cid is None:
                break
            self.fetching.add(cid)
            chosen.append(cid)
        return chosen

    def fetched(self, cid: Cid, *, arrived: bool) -> None:
        self.fetching.discard(cid)
        known = self.shared.get(cid)
        if known is not None and arrived:
            known.here = True
            if self._is_usable(cid):
                self.queue.append(cid)
        elif known is not None:
            self._offer(cid)

    def forget(self, cid: Cid) -> None:
        """A slice turned out not to be data of this task: never take it again."""
        self.unfit.add(cid)
        self._wanted.discard(cid)
        self.queue = [queued for queued in self.queue if queued != cid]

    def take(self, count: int, rng: Random) -> tuple[tuple[int, ...], tuple[Cid, ...]]:
        """Choose up to `count` slices for one training cycle: own ones in passes over all own data, others as they came.

        Each draw is uniform over what is left of the pass and of the queue; none comes twice. Taking does not count as a use yet.
        """
        if not self._round:
            self._round = list(range(self.private_count))
        left: list[int | Cid] = [*self._round, *self.queue]
        taken = rng.sample(left, min(count, len(left)))
        private = [item for item in taken if isinstance(item, int)]
        chosen = set(private)
        self._round = [index for index in self._round if index not in chosen]
        return tuple(private), tuple(item for item in taken if not isinstance(item, int))

    def _offer(self, cid: Cid) -> None:
        """Note a slice among those that could be fetched, if it is one."""
        known = self.shared[cid]
        if known.here or cid in self.fetching or not self._is_usable(cid):
            self._wanted.discard(cid)
        else:
            self._wanted.put(cid, known.uses)

    def _is_usable(self, cid: Cid) -> bool:
        return cid not in self.unfit and self.shared[cid].uses < self.overuse_threshold
