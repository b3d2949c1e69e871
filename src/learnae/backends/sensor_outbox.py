"""What a publisher has said and its node has not yet: on disk first, then over the line, in order, exactly once.

`commit` is the moment from which a reading is safe: its vertex and its channel's state are in one transaction on disk. `carry` then
brings the log to the node, whatever breaks in between: the node says where it stands, and the outbox goes on from there.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from itertools import islice
from typing import Final

import trio

from learnae.backends.disk_sensors import SensorJournal
from learnae.backends.sensor_link import SensorLink
from learnae.ids import PeerId
from learnae.sensor_errors import LinkError
from learnae.sensors.link import ODD_EVERY_S, ODD_TEXTS_MAX, VERTICES_MAX, Attach, Attached, Odd, fill_pages
from learnae.sensors.publisher import Commit, SensorPublisher

PENDING_MAX: Final = 65_536  # Vertices that wait for a node; then whoever measures has to wait: an hour without a line at 18/s.
KEEP_VERTICES: Final = 1024  # Of the own log behind what the node has.
ASK_AGAIN_S: Final = 30.0  # Tips to name and a sign of life when there is nothing to send.
REFUSED_PAUSE_S: Final = 5.0
ODD_PAUSE_S: Final = 2 * ODD_EVERY_S
ODD_KEPT: Final = 256  # Sentences that wait for the node, the newest.


class SensorOutbox:
    """The own log of one publisher on its way to a node."""

    def __init__(
        self, publisher: SensorPublisher, journal: SensorJournal, *, me: PeerId, on_trouble: Callable[[str], None]
    ) -> None:
        self._publisher, self._journal, self._me = publisher, journal, me
        self._on_trouble = on_trouble
        self._odd: deque[str] = deque(maxlen=ODD_KEPT)
        self._odd_at_s = float("-inf")
        self._carried = 0
        self._wake = trio.Event()
        self._room = trio.Event()

    @property
    def pending(self) -> int:
        """Vertices that the node does not have yet, as far as it said."""
        return self._publisher.lane.tangle.length(self._me) - self._carried

    @property
    def untold(self) -> int:
        """Sentences that the node did not hear yet."""
        return len(self._odd)

    def commit(self, commit: Commit) -> None:
        """Put vertices and records on disk, and let them go. Raises: DiskFullError, JournalDamagedError."""
        if commit.vertices or commit.records:
            self._journal.append(commit.vertices, commit.records)
            self._wake.set()

    def tell(self, text: str) -> None:
        """Something is odd here: told at once, and to the node and its viewers when they can be reached."""
        self._on_trouble(text)
        self._odd.append(text)
        self._wake.set()

    async def wait_for_room(self) -> None:
        """Wait while too much is on its way: back-pressure for whoever measures."""
        while self.pending >= PENDING_MAX:
            self._room = trio.Event()
            await self._room.wait()

    async def carry(self, link: SensorLink) -> None:
        """Bring everything to the node behind `link`, and what is committed later. Raises: LinkError."""
        answer = await link.attach(Attach(issuer=self._me))
        self._take(answer)
        while True:
            pages = self._find_page()
            if not pages:
                self._wake = trio.Event()
                with trio.move_on_after(self._compute_odd_wait_s() if self._odd and self._carried else ASK_AGAIN_S):
                    await self._wake.wait()
                pages = self._find_page() or [()]
            before = self._carried
            odd = self._find_odd()
            answer = await link.attach(Attach(issuer=self._me, vertices=pages[0], odd=odd))
            for _ in odd.texts if odd else ():
                self._odd.popleft()
            self._take(answer)
            if pages[0] and self._carried == before:
                self._on_trouble(self._tell_stuck(answer))
                await trio.sleep(REFUSED_PAUSE_S)

    def _compute_odd_wait_s(self) -> float:
        return max(0.0, self._odd_at_s + ODD_PAUSE_S - trio.current_time())

    def _find_odd(self) -> Odd | None:
        """The next sentences for the node, once it knows who speaks, and not faster than it listens."""
        if not self._odd or not self._carried or self._compute_odd_wait_s():
            return None
        self._odd_at_s = trio.current_time()
        return self._publisher.create_odd(islice(self._odd, ODD_TEXTS_MAX), now_ms=time.time_ns() // 1_000_000)

    def _tell_stuck(self, answer: Attached) -> str:
        base = self._publisher.lane.tangle.base(self._me)
        if answer.have >= base:
            return f"the node refuses what this sensor says: {answer.why or 'it waits for what comes before'}"
        return (
            f"the node lost what this sensor said before its vertex {base + 1}, and the folder here keeps only what came after; "
            "the node gets that, and begins there when no other node brought the rest for half a minute"
        )

    def _find_page(self) -> list[tuple[bytes, ...]]:
        """What the node lacks; heads first, if it lacks what is kept here no more."""
        lane, have = self._publisher.lane, {self._me: self._carried}
        return fill_pages([*lane.find_old_heads(have), *lane.tangle.lacking(have, vertices_max=VERTICES_MAX)])[:1]

    def _take(self, answer: Attached) -> None:
        tangle = self._publisher.lane.tangle
        if answer.have > tangle.length(self._me):
            raise LinkError(
                "this address",
                f"it has {answer.have} vertices of this sensor and the folder here only {tangle.length(self._me)}, so the folder "
                "is an old copy, and going on would make two histories of one sensor; publish from the newest folder or from a new one",
            )
        self._carried = answer.have
        tangle.note_tips({cid: tip for cid, tip in answer.tips.items() if tip[1] != self._me})
        self._room.set()
        dropped = tangle.prune(self._me, self._carried - KEEP_VERTICES)
        heads = {stream.vertex for stream in self._publisher.lane.streams.values()}
        if dropped:
            self._journal.drop(cid for cid in dropped if cid not in heads)
