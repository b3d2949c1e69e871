"""How fast a peer may make this node work with small things: messages, frames and streams, counted together.

Each costs processor time whatever is in it, so they are paid from one bucket a connection. Who sends too many is read more
slowly; nothing is lost, and nobody is blamed. Bytes that move in either direction earn some: who transfers much must also
acknowledge and ask much. Pure: the clock is passed in.
"""

from __future__ import annotations

from typing import Final

from learnae.backends.libp2p_yamux_stream import DATA, SYN, WINDOW

RATE_S: Final = 150.0  # Small encrypted messages: about 0.2 ms each here, with what they wake: 3 % of a core.
BURST: Final = 2000.0
BURST_FIRST: Final = 300.0  # Of a new connection: whoever was cut off comes back under another name, and would have the whole burst again.
LARGE_BYTES: Final = 4096  # Beyond it the bytes cost more than the message.
FRAME_COST: Final = 1 / 16  # One of many in a message.
STREAM_COST: Final = 10.0  # A stream is negotiated and gets a task: about 3 ms.
EARNED_BYTES: Final = 65536  # Moved, that pay for one small message.


class Patience:
    """The bucket of one connection."""

    def __init__(self, now_s: float) -> None:
        self._left, self._at_s = BURST_FIRST, now_s
        self._sent_bytes = 0

    def note_message(self, size_bytes: int, sent_bytes: int) -> None:
        """An encrypted message arrived; `sent_bytes`: what left on this connection so far."""
        earned = (size_bytes + sent_bytes - self._sent_bytes) / EARNED_BYTES
        self._sent_bytes = sent_bytes
        self._left = min(BURST, self._left + earned) - (1 if size_bytes < LARGE_BYTES else 0)

    def note_frame(self, kind: int, flags: int, length: int) -> None:
        """A frame's head was read; `length`: of its payload, if it is data."""
        if kind != DATA or length < LARGE_BYTES:
            self._left -= FRAME_COST
        if flags & SYN and kind in (DATA, WINDOW):
            self._left -= STREAM_COST

    def grant_stream(self) -> None:
        """The next stream of the peer is an answer to this node."""
        self._left = min(BURST, self._left + STREAM_COST)

    def compute_wait_s(self, now_s: float) -> float:
        """How long to read nothing more from this peer."""
        self._left = min(BURST, self._left + (now_s - self._at_s) * RATE_S)
        self._at_s = now_s
        return max(0.0, -self._left / RATE_S)
