"""A small HTTP/1.1 server for programs on this machine: bounded requests, and no web page can use it.

Only loopback names are accepted as Host, and no page's Origin. Who serves gives a function from a request to an answer.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import h11
import trio

LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})
CONNECTIONS_MAX: Final = 256
IDLE_S_MAX: Final = 120.0
_CHUNK_BYTES: Final = 65536
_EXTENSIONS: Final = ("chrome-extension://", "moz-extension://")  # A wallet in the browser, not a page.
_TEXT: Final = {
    200: "OK", 201: "Created", 400: "Bad Request", 403: "Forbidden", 404: "Not Found", 405: "Method Not Allowed", 413: "Content Too Large",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Request:
    """One request with its whole body."""

    method: str
    target: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Answer:
    """What goes back; anything but success ends the connection."""

    status: int
    body: bytes
    kind: str = "application/json"


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpService:
    """What a server serves. `what` names it in refusals; `methods`: those that are allowed, others get `hint`."""

    answer: Callable[[Request], Awaitable[Answer]]
    what: str
    methods: tuple[str, ...]
    hint: str
    body_bytes_max: int


async def serve_http(
    listeners: Sequence[trio.SocketListener], service: HttpService, names: frozenset[str], *, task_status: Any = trio.TASK_STATUS_IGNORED
) -> None:
    """Serve until cancelled. `names`: accepted Host names."""
    slots = trio.Semaphore(CONNECTIONS_MAX)

    async def serve(stream: trio.SocketStream) -> None:
        async with stream, slots:
            await _Connection(stream, service, names).run()

    await trio.serve_listeners(serve, listeners, task_status=task_status)


class _Connection:
    """One HTTP/1.1 connection, kept alive between requests."""

    def __init__(self, stream: trio.SocketStream, service: HttpService, names: frozenset[str]) -> None:
        self._stream, self._service, self._names = stream, service, names
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=16384)

    async def run(self) -> None:
        try:
            while self._http.our_state is not h11.MUST_CLOSE:
                with trio.move_on_after(IDLE_S_MAX) as idle:
                    request = await self._next()
                if idle.cancelled_caught or not isinstance(request, h11.Request):
                    return
                await self._answer(request)
                if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
                    return
                self._http.start_next_cycle()
        except h11.RemoteProtocolError as error:
            if self._http.our_state in (h11.IDLE, h11.SEND_RESPONSE):
                await self._send(Answer(400, str(error).encode(), "text/plain"))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return  # The client went away.

    async def _next(self) -> Any:
        while True:
            event = self._http.next_event()
            if event is not h11.NEED_DATA:
                return event
            if self._http.they_are_waiting_for_100_continue:
                await self._stream.send_all(self._http.send(h11.InformationalResponse(status_code=100, headers=[])) or b"")
            self._http.receive_data(await self._stream.receive_some(_CHUNK_BYTES))

    async def _answer(self, request: h11.Request) -> None:
        headers = {name.decode(): value.decode("latin-1") for name, value in request.headers}
        service = self._service
        if _read_host(headers.get("host", "")) not in self._names or not headers.get("origin", _EXTENSIONS[0]).startswith(_EXTENSIONS):
            return await self._send(Answer(403, f"only programs on this machine may use {service.what}".encode(), "text/plain"))
        method = request.method.decode()
        if method not in service.methods:
            return await self._send(Answer(405, service.hint.encode(), "text/plain"))
        body = await self._body()
        if body is None:
            return await self._send(Answer(413, b"the request is too large", "text/plain"))
        await self._send(await service.answer(Request(method, request.target.decode("latin-1"), body)))

    async def _body(self) -> bytes | None:
        """The whole body; None if it is too large or too slow."""
        body: bytes | None = None
        with trio.move_on_after(IDLE_S_MAX):
            body = await self._collect()
        return body

    async def _collect(self) -> bytes | None:
        body = bytearray()
        while len(body) <= self._service.body_bytes_max:
            event = await self._next()
            if isinstance(event, h11.EndOfMessage):
                return bytes(body)
            if not isinstance(event, h11.Data):
                return None
            body += event.data
        return None

    async def _send(self, answer: Answer) -> None:
        headers = [("content-type", answer.kind), ("content-length", str(len(answer.body)))]
        if answer.status >= 400:
            headers.append(("connection", "close"))
        parts = (
            h11.Response(status_code=answer.status, headers=headers, reason=_TEXT[answer.status].encode()),
            h11.Data(data=answer.body),
            h11.EndOfMessage(),
        )
        await self._stream.send_all(b"".join(self._http.send(part) or b"" for part in parts))


def _read_host(header: str) -> str:
    """The name in a Host header, without port and brackets."""
    return header.partition("]")[0].lstrip("[").lower() if header.startswith("[") else header.partition(":")[0].lower()
