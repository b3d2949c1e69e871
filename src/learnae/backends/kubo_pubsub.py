"""Gossip through the user's own IPFS daemon: Kubo's PubSub, by its RPC API, beside the node's own gossip.

Kubo forwards a message before its user can judge it, and says who wrote it, not which neighbour brought it. So what comes from there
is judged here, once, and its author's score falls with what is rejected: an author without score is not heard any more. All
of it together is read no faster than a budget. The daemon may go away and come back: gossip is a hint, and sync repairs.
Needs a daemon that runs with `--enable-pubsub-experiment`. Source: Kubo RPC API v0 (pubsub/pub, pubsub/sub).
"""

from __future__ import annotations

import base64
import hashlib
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Final

import httpx
import trio

from learnae.backends.bare_errors import find_first
from learnae.backends.errors import KuboError
from learnae.backends.kubo_rpc import API_PATH
from learnae.backends.libp2p_direct import ByteBudget
from learnae.backends.libp2p_gossip import MESSAGE_BYTES_MAX, Judge
from learnae.backends.libp2p_pubsub import BURST_BYTES, MESSAGE_COST_BYTES, RATE_BYTES_S
from learnae.backends.libp2p_scores import REJECTED_WEIGHT, Scores
from learnae.bounded_json import parse_json
from learnae.ids import PeerId, Topic, parse_peer
from learnae.tangle.verdict import Verdict

logger = logging.getLogger(__name__)

LINE_BYTES_MAX: Final = 2 * MESSAGE_BYTES_MAX  # A message as text (4/3 of its bytes), its author, number and topic.
QUEUE_MAX: Final = 64  # Messages of ours that wait for the daemon; beyond it they are not published there.
SEEN_MAX: Final = 65536
RETRY_S: Final = 1.0  # Before a broken subscription is opened again; twice as long each time, up to:
RETRY_S_MAX: Final = 30.0
PUBLISH_S: Final = 10.0
NOBODY: Final = PeerId(bytes(32))  # The author of what was written under a key that is not Ed25519.


class KuboPubSub:
    """Topics of one daemon; `run` keeps them going. `tell` gets a sentence when the daemon goes away, and when it is back."""

    def __init__(self, url: str, tell: Callable[[str], None]) -> None:
        timeout = httpx.Timeout(PUBLISH_S, connect=5.0)
        self._client = httpx.AsyncClient(base_url=url.rstrip("/") + API_PATH, timeout=timeout, trust_env=False)
        self._url, self._tell = url, tell
        self.scores = Scores()
        self._judges: dict[Topic, tuple[Judge, Callable[[bytes], Awaitable[None]]]] = {}
        self._waiting_send, self._waiting = trio.open_memory_channel[tuple[Topic, bytes]](QUEUE_MAX)
        self._seen: OrderedDict[bytes, None] = OrderedDict()
        self._is_away = False
        self._nursery: trio.Nursery | None = None

    async def run(self) -> None:
        """Until cancelled."""
        async with self._client, trio.open_nursery() as nursery:
            self._nursery = nursery
            self._budget = ByteBudget(RATE_BYTES_S, BURST_BYTES)
            for topic in self._judges:
                nursery.start_soon(self._follow, topic)
            async for topic, content in self._waiting:
                await self._publish(topic, content)

    def subscribe(self, topic: Topic, judge: Judge, *, on_accepted: Callable[[bytes], Awaitable[None]]) -> None:
        """`judge(author, content)` is asked once for each content that was neither published nor noted here."""
        is_new = topic not in self._judges
        self._judges[topic] = judge, on_accepted
        if is_new and self._nursery is not None:
            self._nursery.start_soon(self._follow, topic)

    def publish(self, topic: Topic, content: bytes) -> None:
        """Hand a message to the daemon; it is left out if too many wait already."""
        self.note(topic, content)
        try:
            self._waiting_send.send_nowait((topic, content))
        except trio.WouldBlock:
            logger.debug("a message was not published through the IPFS daemon: it is too slow")

    def note(self, topic: Topic, content: bytes) -> bool:
        """Remember a message that was heard elsewhere, so that it is not judged again; whether it is new."""
        key = hashlib.sha256(topic.encode() + b"\0" + content).digest()[:20]
        if key in self._seen:
            return False
        self._seen[key] = None
        if len(self._seen) > SEEN_MAX:
            self._seen.popitem(last=False)
        return True

    # --- inside -------------------------------------------------------------------------------------------------

    async def _publish(self, topic: Topic, content: bytes) -> None:
        try:
            files = {"data": ("message", content)}
            async with self._client.stream("POST", "pubsub/pub", params={"arg": encode_text(topic.encode())}, files=files) as answer:
                if answer.status_code != 200:  # What else it says is nothing that we need, however long.
                    raise KuboError(self._url, f"it refused pubsub/pub (HTTP {answer.status_code})")
        except (httpx.TransportError, httpx.DecodingError, KuboError) as error:
            self._tell_away(error)

    async def _follow(self, topic: Topic) -> None:
        delay_s = RETRY_S
        while True:
            began_s = trio.current_time()
            error: Exception | None = None
            try:
                await self._follow_once(topic)
            except* (httpx.TransportError, httpx.DecodingError, KuboError) as group:
                error = find_first(group)
            self._tell_away(error or KuboError(self._url, "it ended a subscription"))
            if trio.current_time() - began_s > RETRY_S_MAX:
                delay_s = RETRY_S
            await trio.sleep(delay_s)
            delay_s = min(2 * delay_s, RETRY_S_MAX)

    async def _follow_once(self, topic: Topic) -> None:
        """Until the daemon ends it. Raises (in a group): KuboError, httpx's errors."""
        timeout = httpx.Timeout(PUBLISH_S, connect=5.0, read=None)  # A quiet topic says nothing for hours.
        async with self._client.stream("POST", "pubsub/sub", params={"arg": encode_text(topic.encode())}, timeout=timeout) as answer:
            if answer.status_code != 200:
                raise KuboError(self._url, f"it refused pubsub/sub (HTTP {answer.status_code})")
            if self._is_away:
                self._is_away = False
                self._tell(f"the IPFS daemon at {self._url} is back: gossip goes through it again")
            send, receive = trio.open_memory_channel[bytes](0)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_pump, answer, send)
                with receive:
                    await self._read_lines(topic, receive)

    async def _read_lines(self, topic: Topic, chunks: trio.MemoryReceiveChannel[bytes]) -> None:
        rest = b""
        async for chunk in chunks:
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                await self._budget.spend(len(line) + MESSAGE_COST_BYTES)
                await self._handle(topic, line)
            if len(rest) > LINE_BYTES_MAX:
                raise KuboError(self._url, f"it gave a message of more than {LINE_BYTES_MAX} bytes")

    async def _handle(self, topic: Topic, line: bytes) -> None:
        found = _parse(line)
        if found is None:
            return
        author, content = found
        now_s = trio.current_time()
        if self.scores.is_graylisted(author, now_s) or not self.note(topic, content):
            return
        judge, on_accepted = self._judges[topic]
        verdict = judge(author, content)
        if verdict is Verdict.ACCEPT:
            await on_accepted(content)
        elif verdict is Verdict.REJECT:
            self.scores.record_bad(author, REJECTED_WEIGHT, now_s)

    def _tell_away(self, error: Exception) -> None:
        if not self._is_away:
            self._is_away = True
            why = str(error) or type(error).__name__
            self._tell(f"gossip does not go through the IPFS daemon at {self._url} now ({why}); the node's own gossip goes on")


async def _pump(answer: httpx.Response, send: trio.MemorySendChannel[bytes]) -> None:
    """Hand on what comes. Cancelled only while it reads: httpx's iterators are not closed if they are left between two chunks."""
    with send:
        async for chunk in answer.aiter_bytes():
            with trio.CancelScope(shield=True), suppress(trio.BrokenResourceError):
                await send.send(chunk)


def encode_text(raw: bytes) -> str:
    """Multibase base64url, as the RPC API has topics and contents."""
    return "u" + base64.urlsafe_b64encode(raw).decode().rstrip("=")


def decode_text(text: str) -> bytes:
    """Raises: ValueError: it is not multibase base64url."""
    if not text.startswith("u"):
        raise ValueError(f"not base64url: {text[:20]!r}")
    return base64.b64decode(text[1:] + "=" * (-(len(text) - 1) % 4), altchars=b"-_", validate=True)


def _parse(line: bytes) -> tuple[PeerId, bytes] | None:
    """Author and content of one message; None: it is none that a session could use."""
    try:
        told: Any = parse_json(line) if line.strip() else None
        if not isinstance(told, dict) or not isinstance(told.get("from"), str) or not isinstance(told.get("data"), str):
            return None
        content = decode_text(told["data"])
    except ValueError:
        return None
    try:
        author = parse_peer(told["from"])
    except ValueError:
        author = NOBODY
    return (author, content) if 0 < len(content) <= MESSAGE_BYTES_MAX else None
