"""Sharing of dataslices: publish the own list, read others' lists, fetch slices ahead of their use (4.1).

Raw data leaves a machine only if its owner opened it (`TaskFacts.shared_slices` is 0 otherwise). The shelf decides what is worth
fetching; this module carries it through the steps list announced -> list fetched -> list read -> slices fetched.
Pure. Source: paper 4.1, Fig. 1 (purple and red areas).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from random import Random
from typing import Final

from learnae.ids import CID_BYTES, Cid, PeerId, is_cid, short_name
from learnae.protocol import events as ev
from learnae.protocol.cycle import Said
from learnae.protocol.dataslices import SHARED_SLICES_MAX, DatasliceShelf
from learnae.protocol.measures import TaskFacts
from learnae.protocol.messages import HashlistPublished
from learnae.protocol.rules import SessionRules

TRIES_MAX: Final = 3  # A list or slice that three times nobody had is not worth the traffic.
SLICE_HEADER_BYTES: Final = 4096  # A dataslice is a safetensors file: its header comes on top of `slice_bytes`.


@dataclass(slots=True)
class _Fetch:
    cid: Cid
    owners: tuple[PeerId, ...]
    slices: int = 0  # of a hashlist; 0 for a slice
    tries: int = 1


class SliceSharing:
    """The way of shared dataslices into and out of this peer's shelf."""

    def __init__(
        self, *, me: PeerId, rng: Random, shelf: DatasliceShelf, rules: SessionRules, next_number: Callable[[], int]
    ) -> None:
        self._me = me
        self._rng = rng
        self._shelf = shelf
        self._rules = rules
        self._next_number = next_number
        self._trains = False
        self._fetches: dict[int, _Fetch] = {}
        self._failures: dict[Cid, int] = {}
        self._uses: dict[Cid, int] = {}  # uses announced of slices whose list was not read yet
        self._published: set[Cid] = set()  # own lists in the own log
        self._unpublished: HashlistPublished | None = None
        self._own_number = 0

    def start(self, facts: TaskFacts | None) -> list[Said]:
        """Store the slices that the user opened; doing so again after a restart gives the same CIDs."""
        self._trains = facts is not None and facts.train_examples + facts.shared_slices > 0
        if facts is None or facts.shared_slices == 0:
            return []
        self._own_number = self._next_number()
        return [ev.ShareSlices(self._own_number)]

    def introduce(self) -> list[Said]:
        """The own list, once, when this peer is a member and may speak."""
        message, self._unpublished = self._unpublished, None
        return [] if message is None else [message]

    def on_published(self, issuer: PeerId, published: HashlistPublished) -> list[Said]:
        if issuer == self._me:
            self._published.add(published.hashlist)
            return []
        if not self._trains or not self._shelf.accepts_hashlist(issuer, published.hashlist):
            return []
        return self._fetch(_Fetch(published.hashlist, (issuer,), published.slices))

    def on_consumed(self, slices: Iterable[Cid]) -> None:
        """Keep the use count of slices that are not known yet; their list may come later."""
        for cid in slices:
            if cid not in self._shelf.shared and (cid in self._uses or len(self._uses) < SHARED_SLICES_MAX):
                self._uses[cid] = self._uses.get(cid, 0) + 1

    def fetch_more(self) -> list[Said]:
        """Keep the queue of slices filled."""
        said: list[Said] = []
        if self._trains:
            for cid in self._shelf.choose_fetches(self._rng):
                said += self._fetch(_Fetch(cid, tuple(self._shelf.shared[cid].owners)))
        return said

    def handle(self, event: ev.Event) -> list[Said] | None:
        """Take an answer; None if it is about something else."""
        match event:
            case ev.SlicesShared(number=number, hashlist=hashlist, slices=slices) if number == self._own_number:
                self._shelf.add_shared(self._me, slices, uses=self._uses, here=True)
                if hashlist not in self._published:
                    self._unpublished = HashlistPublished(hashlist=hashlist, slices=len(slices))
                return []
            case ev.StreamSliceStored(dataslice=dataslice):
                self._shelf.add_shared(self._me, (dataslice,), uses=self._uses, here=True)
                return []
            case ev.FileFetched(number=number) if number in self._fetches:
                return self._fetched(self._fetches.pop(number))
            case ev.FetchFailed(number=number, reason=reason) if number in self._fetches:
                return self._failed(self._fetches.pop(number), reason)
            case ev.HashlistRead(number=number, slices=slices) if number in self._fetches:
                fetch = self._fetches.pop(number)
                self._shelf.add_shared(fetch.owners[0], slices[: fetch.slices], uses=self._uses, here=False)
                return self.fetch_more()
        return None

    def _fetch(self, fetch: _Fetch) -> list[Said]:
        number = self._next_number()
        self._fetches[number] = fetch
        size = CID_BYTES * fetch.slices if fetch.slices else self._rules.slice_bytes + SLICE_HEADER_BYTES
        return [ev.FetchFile(number, fetch.cid, fetch.owners, size)]

    def _fetched(self, fetch: _Fetch) -> list[Said]:
        if fetch.slices:
            number = self._next_number()
            self._fetches[number] = fetch
            return [ev.ReadHashlist(number, fetch.cid, fetch.slices)]
        self._shelf.fetched(fetch.cid, arrived=True)
        return self.fetch_more()

    def _failed(self, fetch: _Fetch, reason: str) -> list[Said]:
        told = ev.Tell(ev.Topic.TROUBLE, f"no dataslices from {short_name(fetch.owners[0])}: {reason}")
        if fetch.slices:
            return [told] if fetch.tries >= TRIES_MAX else self._fetch(_Fetch(fetch.cid, fetch.owners, fetch.slices, fetch.tries + 1))
        self._shelf.fetched(fetch.cid, arrived=False)
        self._failures[fetch.cid] = self._failures.get(fetch.cid, 0) + 1
        if self._failures[fetch.cid] >= TRIES_MAX:
            self._shelf.forget(fetch.cid)
        return [told]


def encode_hashlist(slices: Iterable[Cid]) -> bytes:
    """The hashlist file: the CIDs of one peer's shared slices, one after the other, 36 bytes each."""
    return b"".join(slices)


def decode_hashlist(content: bytes, *, slices_max: int) -> tuple[Cid, ...] | None:
    """Read a hashlist file; None if it is not a list of at most `slices_max` CIDs."""
    if len(content) % CID_BYTES or len(content) > slices_max * CID_BYTES:
        return None
    cids = tuple(Cid(content[i : i + CID_BYTES]) for i in range(0, len(content), CID_BYTES))
    return cids if all(map(is_cid, cids)) else None
