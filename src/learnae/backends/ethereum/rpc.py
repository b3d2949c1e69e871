"""JSON-RPC 2.0 over HTTP to an Ethereum node: bounded, cancellable, patient.

Answers come from a machine that may be broken or hostile: their size is bounded here, their shape is checked by whoever
uses them (`Fields`). Source: Ethereum execution API specification.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import httpx
import trio

from learnae.bounded_json import parse_json
from learnae.errors import ChainAnswerError, ChainUnreachableError

ANSWER_BYTES_MAX: Final = 64 << 20  # A page of 5,000 logs is about 4 MB, a batch of 100 contract codes about 2 MB.
BATCH: Final = 100  # Requests in one batch: public endpoints refuse more.
_ANSWER_S_MAX: Final = 30.0
_RETRY_S: Final = (0.5, 1.0, 2.0, 5.0, 10.0)
_BUSY: Final = frozenset({408, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524})
_RATE: Final = ("rate limit", "too many requests", "request limit", "capacity exceeded", "compute units")  # Providers' words for 429.
_QUANTITY: Final = re.compile("0x[0-9a-fA-F]{1,64}")
TIME_MAX: Final = 1 << 36  # The year 4147.
_ANSWERS_MAX: Final = 20  # Useless answers in a row, three minutes of them, before an endpoint is given up.

logging.getLogger("httpx").setLevel(logging.WARNING)  # It logs whole addresses, and providers put the secret key into them.

Found = TypeVar("Found")


class RpcError(ChainAnswerError):
    """The node answered with an error object. `revert` holds the contract's bytes if a call reverted."""

    def __init__(self, method: str, message: str, revert: bytes | None) -> None:
        super().__init__(method, message)
        self.message, self.revert = message, revert


class Endpoint:
    """One node's JSON-RPC address. An async context manager; `on_trouble` hears once when it goes down, once when it is back."""

    def __init__(self, url: str, on_trouble: Callable[[str], None], retry_s: Sequence[float] = _RETRY_S) -> None:
        parts = urlsplit(url)
        self.name = f"{parts.scheme}://{parts.hostname}" + (f":{parts.port}" if parts.port else "")  # Paths may hold a secret key.
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ChainUnreachableError(self.name, "it is not an http:// or https:// address")
        self._url, self._on_trouble, self._retry_s = url, on_trouble, retry_s
        is_secure = parts.scheme == "https"  # Else neither certificates are loaded, which takes 30 ms, nor a proxy is asked.
        self._client = httpx.AsyncClient(timeout=httpx.Timeout(_ANSWER_S_MAX, connect=5.0), verify=is_secure, trust_env=is_secure)
        self._down = False

    async def __aenter__(self) -> Endpoint:
        await self._client.__aenter__()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + 1.0):
            await self._client.__aexit__(kind, error, trace)

    async def request(self, method: str, *params: object) -> Any:
        """One call. Raises: ChainUnreachableError, ChainAnswerError, RpcError."""
        return self._result(method, await self._post({"jsonrpc": "2.0", "id": 0, "method": method, "params": params}, method))

    async def request_number(self, method: str, *params: object) -> int:
        """One call that a hex quantity answers. Raises as `request`."""
        return read_number(method, await self.request(method, *params))

    async def batch(self, calls: Sequence[tuple[str, tuple[object, ...]]]) -> list[Any]:
        """Many calls, results in their order. Raises as `request`, for the first that failed."""
        results: list[Any] = []
        for first in range(0, len(calls), BATCH):
            page = calls[first : first + BATCH]
            asked = [{"jsonrpc": "2.0", "id": index, "method": method, "params": params} for index, (method, params) in enumerate(page)]
            answers = await self._post(asked, "a batch")
            if not isinstance(answers, list):
                self._result("a batch", answers)
                raise ChainAnswerError("a batch", "it is not a list")
            by_id = {answer["id"]: answer for answer in answers if isinstance(answer, dict) and isinstance(answer.get("id"), int)}
            results += [self._result(method, by_id.get(index)) for index, (method, _) in enumerate(page)]
        return results

    async def patiently(self, ask: Callable[[], Awaitable[Found]]) -> Found:
        """Run `ask` until the endpoint gives a usable answer; tells `on_trouble` while it does not. Only cancellation ends the waiting.

        A page of a proxy in between is no answer. Raises: RpcError: the node's own refusal.
        """

        async def attempt() -> Found:
            try:
                return await ask()
            except RpcError:
                raise
            except ChainAnswerError as error:
                raise self._make_useless(error) from error

        return await self._wait(attempt)

    async def surely(self, ask: Callable[[], Awaitable[Found]]) -> Found:
        """As `patiently`, for questions that every working node answers: a refusal is asked for again too, all for some minutes.

        Raises: ChainAnswerError: the answers were all useless.
        """
        useless: list[ChainAnswerError] = []

        async def attempt() -> Found:
            try:
                return await ask()
            except ChainAnswerError as error:
                useless.append(error)
                if len(useless) > _ANSWERS_MAX:
                    raise
                raise self._make_useless(error) from error

        return await self._wait(attempt)

    def _make_useless(self, error: ChainAnswerError) -> ChainUnreachableError:
        return ChainUnreachableError(self.name, f"its answers are of no use ({error})")

    async def _wait(self, ask: Callable[[], Awaitable[Found]]) -> Found:
        attempt = 0
        while True:
            try:
                found = await ask()
            except ChainUnreachableError as error:
                if not self._down:
                    self._down = True
                    self._on_trouble(f"{error}; trying again until it does")
                await trio.sleep(self._retry_s[min(attempt, len(self._retry_s) - 1)])
                attempt += 1
                continue
            if self._down:
                self._down = False
                self._on_trouble(f"the Ethereum endpoint {self.name} answers again")
            return found

    async def _post(self, asked: object, what: str) -> Any:
        try:
            async with self._client.stream("POST", self._url, json=asked) as answer:
                if answer.status_code in _BUSY:
                    raise ChainUnreachableError(self.name, f"it is busy (HTTP {answer.status_code})")
                body = bytearray()
                async for chunk in answer.aiter_bytes():
                    body += chunk
                    if len(body) > ANSWER_BYTES_MAX:
                        raise ChainAnswerError(what, f"it is larger than {ANSWER_BYTES_MAX} bytes")
                status = answer.status_code
        except (httpx.TransportError, httpx.DecodingError) as error:
            raise ChainUnreachableError(self.name, str(error) or type(error).__name__) from error
        try:
            return parse_json(bytes(body))
        except ValueError:
            raise ChainAnswerError(what, f"it is not JSON (HTTP {status})") from None

    def _result(self, method: str, answer: object) -> Any:
        if not isinstance(answer, dict):
            raise ChainAnswerError(method, "an answer is missing")
        error = answer.get("error")
        if error is None:
            return answer.get("result")
        if not isinstance(error, dict):
            raise ChainAnswerError(method, "its error is no object")
        message = str(error.get("message"))[:500]
        if error.get("code") == 429 or any(words in message.lower() for words in _RATE):
            raise ChainUnreachableError(self.name, f"it is busy ({message[:100]})")
        raise RpcError(method, message, _revert_bytes(error.get("data")))


def _revert_bytes(data: object) -> bytes | None:
    """Nodes differ: the revert bytes come as text, or inside an object."""
    for value in (data, *(data.values() if isinstance(data, dict) else ())):
        if isinstance(value, str) and "0x" in value:
            try:
                return bytes.fromhex(value[value.index("0x") + 2 :])
            except ValueError:
                continue
    return None


class Fields:
    """Checked reading of one object that a node answered with."""

    def __init__(self, method: str, found: object) -> None:
        if not isinstance(found, Mapping):
            raise ChainAnswerError(method, "an object was expected")
        self._method, self._found = method, found

    def number(self, name: str) -> int:
        return read_number(self._method, self._found.get(name))

    def time(self, name: str) -> int:
        """A block's time, Unix seconds."""
        found = self.number(name)
        if found >= TIME_MAX:  # Milliseconds, perhaps. What is signed under such a time nobody hears, nor anything after it.
            raise ChainAnswerError(self._method, f"{name} is {found}, which is no time in seconds")
        return found

    def data(self, name: str) -> bytes:
        return read_bytes(self._method, self._found.get(name))

    def maybe_data(self, name: str) -> bytes | None:
        return None if self._found.get(name) is None else self.data(name)

    def items(self, name: str) -> list[Any]:
        found = self._found.get(name)
        if not isinstance(found, list):
            raise ChainAnswerError(self._method, f"{name} is no list")
        return found


def read_number(method: str, value: object) -> int:
    """A hex quantity: no sign, no spaces, at most 256 bits."""
    if isinstance(value, str) and _QUANTITY.fullmatch(value):
        return int(value, 16)
    raise ChainAnswerError(method, f"a hex quantity was expected, got {str(value)[:40]!r}")


def read_bytes(method: str, value: object) -> bytes:
    """Hex data."""
    try:
        if isinstance(value, str) and value.startswith("0x"):
            return bytes.fromhex(value[2:])
    except ValueError:
        pass
    raise ChainAnswerError(method, f"hex data was expected, got {str(value)[:40]!r}")
