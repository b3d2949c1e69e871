"""The line of light publishers and viewers to a node over TCP: the node's listener, and the client (`sensors.link`).

The listener is bounded in connections, in bytes and in time; what a client sends is judged like gossip. The client reconnects
with a growing pause and never loses or repeats a vertex: it asks where the node stands and goes on from there.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final, Protocol, TypeVar

import trio

from learnae.errors import ListenError
from learnae.sensor_errors import LinkError
from learnae.sensors.link import (
    AskHello,
    Attach,
    Attached,
    FrameReader,
    Hello,
    Page,
    Question,
    Watch,
    parse_answer,
    parse_question,
)

Kind = TypeVar("Kind", Hello, Attached, Page)
CONNECTIONS_MAX: Final = 128
IDLE_S_MAX: Final = 300.0  # A publisher that measures every five minutes asks anew.
ANSWER_S_MAX: Final = 20.0
CHUNK_BYTES: Final = 65536
WATCH_EVERY_S: Final = 0.25
PAGE_PAUSE_S: Final = 0.02  # Thirteen thousand vertices a second for one viewer; the node has other things to do.


class Started(Protocol):
    """Hears the address when the node listens: trio's task status."""

    def started(self, value: str) -> None: ...


class LinkServer(Protocol):
    """What a node does for its line."""

    def hello(self) -> Hello: ...

    def attach(self, question: Attach) -> Attached: ...

    def page(self, have: Watch) -> Page:
        """What a viewer with that have-vector lacks, a page of it."""


async def serve_link(
    server: LinkServer, host: str, port: int, *, task_status: Started = trio.TASK_STATUS_IGNORED
) -> None:
    """Serve until cancelled; the task status carries the address as host:port. Raises: ListenError."""
    try:
        listeners = await trio.open_tcp_listeners(port, host=host)
    except OSError as error:
        raise ListenError(f"{host}:{port}", is_taken="in use" in str(error).lower(), reason=error.strerror or str(error)) from error
    slots = trio.Semaphore(CONNECTIONS_MAX)

    async def serve(stream: trio.SocketStream) -> None:
        async with stream, slots:
            try:
                await _serve_one(server, stream)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return  # The other side went away.

    async with trio.open_nursery() as nursery:
        await nursery.start(trio.serve_listeners, serve, listeners)
        task_status.started(f"{host}:{listeners[0].socket.getsockname()[1]}")


async def _serve_one(server: LinkServer, stream: trio.SocketStream) -> None:
    reader = FrameReader(parse_question)
    while True:
        with trio.move_on_after(IDLE_S_MAX) as idle:
            content = await stream.receive_some(CHUNK_BYTES)
        questions = None if idle.cancelled_caught or not content else reader.receive(content)
        if questions is None:
            return
        for question in questions:
            if not await _answer(server, stream, question):
                return


async def _answer(server: LinkServer, stream: trio.SocketStream, question: Question) -> bool:
    """Answer one question; a viewer is answered until it leaves."""
    match question:
        case AskHello():
            await stream.send_all(server.hello().encode())
        case Attach():
            await stream.send_all(server.attach(question).encode())
        case Watch():
            page = server.page(question)
            await stream.send_all(page.encode())
            await trio.sleep(WATCH_EVERY_S if page.done else PAGE_PAUSE_S)
    return True


class SensorLink:
    """One connection to a node."""

    def __init__(self, stream: trio.SocketStream, address: str) -> None:
        self._stream, self._address = stream, address
        self._reader = FrameReader(parse_answer)
        self._answers: list[Any] = []

    async def hello(self) -> Hello:
        """Who the node is. Raises: LinkError."""
        return await self._ask(AskHello(), Hello)

    async def attach(self, question: Attach) -> Attached:
        """Attach vertices, or ask where the node stands. Raises: LinkError."""
        return await self._ask(question, Attached)

    async def page(self, question: Watch) -> Page:
        """The next page of what this side lacks; waits a moment if there is none. Raises: LinkError."""
        return await self._ask(question, Page)

    async def _ask(self, question: Question, kind: type[Kind]) -> Kind:
        try:
            with trio.fail_after(ANSWER_S_MAX):
                await self._stream.send_all(question.encode())
                while not self._answers:
                    content = await self._stream.receive_some(CHUNK_BYTES)
                    answers = self._reader.receive(content) if content else None
                    if answers is None:
                        raise LinkError(self._address, "it ended the connection, or speaks something else")
                    self._answers += answers
        except trio.TooSlowError as error:
            raise LinkError(self._address, f"it did not answer within {ANSWER_S_MAX:.0f} seconds") from error
        except (trio.BrokenResourceError, OSError) as error:
            raise LinkError(self._address, "the connection broke") from error
        answer = self._answers.pop(0)
        if not isinstance(answer, kind):
            raise LinkError(self._address, "it answered something that was not asked")
        return answer


@asynccontextmanager
async def open_link(address: str) -> AsyncIterator[SensorLink]:
    """Connect to a node's line at host:port. Raises: LinkError."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise LinkError(address, "expected HOST:PORT, such as 127.0.0.1:4480")
    try:
        with trio.fail_after(ANSWER_S_MAX):
            stream = await trio.open_tcp_stream(host.strip("[]"), int(port))
    except (OSError, trio.TooSlowError) as error:
        raise LinkError(address, str(error) or "nobody answers") from error
    async with stream:
        yield SensorLink(stream, address)


async def keep_linked(address: str, use: Callable[[SensorLink], Any], *, on_trouble: Callable[[str], None]) -> None:
    """Connect again and again, with a growing pause, and let `use` work on each connection. Ends only when cancelled."""
    pause_s = 0.5
    while True:
        try:
            async with open_link(address) as link:
                pause_s = 0.5
                await use(link)
        except LinkError as error:
            on_trouble(f"{error}; trying again in {pause_s:g} s")
        await trio.sleep(pause_s)
        pause_s = min(30.0, 2 * pause_s)
