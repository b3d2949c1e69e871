"""The line between a light publisher, or a viewer, and a node: few frames over any byte stream, without libp2p (4.2).

A frame is its length (4 bytes, big-endian) and a dag-cbor list. Nothing that travels here needs trust: vertices are signed, and
the node judges them as if gossip had brought them. A node listens where its owner says, by default nowhere.

    publisher -> node   [1, issuer, vertices]     attach these; none of them asks only where the node stands
    publisher -> node   [1, issuer, vertices, odd]    and [time in ms, [text, ...], signature]: what was odd here, such as bad payloads
    node -> publisher   [1, have, why, tips]      newest number of that issuer here, what was refused, tips to name as parents
    viewer -> node      [2, have, odd]            send what I lack: issuer and number, 40 bytes each; and what was odd after that number
    node -> viewer      [2, vertices, done, odd, [text, ...]]    a page; `done` when there is no more; the newest oddities
    either -> node      [0]                       who are you?
    node -> either      [0, net, codename, session's start in ms, slice_bytes, members]
Pure: encodes and reads frames. The streams are `backends.sensor_link`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from nacl.bindings import crypto_sign_open
from nacl.exceptions import BadSignatureError

from learnae.ids import PEER_ID_BYTES, Cid, PeerId, is_cid
from learnae.protocol.sync import SYNC_HAVE_MAX
from learnae.sensors.judge import LaneRules
from learnae.sensors.messages import compute_tag
from learnae.tangle import cbor
from learnae.tangle.vertex import NET_BYTES, SEQUENCE_MAX, SIGNATURE_BYTES, TIME_MS_MAX, VERTEX_BYTES_MAX

FRAME_BYTES_MAX: Final = 1 << 20
VERTICES_MAX: Final = 256
TIPS_MAX: Final = 8  # From which a publisher names three.
MEMBERS_MAX: Final = 4096
WHY_CHARS_MAX: Final = 200
TEXTS_MAX: Final = 64  # Oddities in one page.
ODD_TEXTS_MAX: Final = 8  # Of one publisher at once; the others wait there.
ODD_EVERY_S: Final = 1.0
LENGTH_BYTES: Final = 4
CODENAME_CHARS_MAX: Final = 64
DEFAULT_PORT: Final = 4480


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello:
    """What a node says of its session to one that knows nothing."""

    net: bytes
    codename: str
    starts_ms: int
    slice_bytes: int
    members: tuple[PeerId, ...]

    @property
    def rules(self) -> LaneRules:
        return LaneRules(net=self.net, tag=compute_tag(self.codename), starts_ms=self.starts_ms)

    def encode(self) -> bytes:
        return _frame([0, self.net, self.codename, self.starts_ms, self.slice_bytes, list(self.members)])


@dataclass(frozen=True, slots=True, kw_only=True)
class AskHello:
    def encode(self) -> bytes:
        return _frame([0])


@dataclass(frozen=True, slots=True, kw_only=True)
class Odd:
    """What was odd at a publisher, in sentences, signed by it: a node shows them to its user and to viewers."""

    time_ms: int  # later than that of the one before
    texts: tuple[str, ...]
    signature: bytes

    def is_signed(self, net: bytes, issuer: PeerId) -> bool:
        try:
            crypto_sign_open(self.signature + compute_odd(net, issuer, self.time_ms, self.texts), issuer)
        except BadSignatureError:
            return False
        return True


def compute_odd(net: bytes, issuer: PeerId, time_ms: int, texts: tuple[str, ...]) -> bytes:
    """What a publisher signs of its oddities."""
    return b"learnae odd 1\n" + net + issuer + hashlib.sha256(cbor.encode([time_ms, list(texts)])).digest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Attach:
    """Vertices of one issuer, in order; and what was odd there."""

    issuer: PeerId
    vertices: tuple[bytes, ...] = ()
    odd: Odd | None = None

    def encode(self) -> bytes:
        odd = [] if self.odd is None else [[self.odd.time_ms, list(self.odd.texts), self.odd.signature]]
        return _frame([1, self.issuer, list(self.vertices), *odd])


@dataclass(frozen=True, slots=True, kw_only=True)
class Attached:
    """Where the node stands with that issuer; `why`: the first thing it refused, or empty."""

    have: int
    why: str = ""
    tips: Mapping[Cid, tuple[int, PeerId]] = field(default_factory=dict)

    def encode(self) -> bytes:
        tips = [[cid, time_ms, issuer] for cid, (time_ms, issuer) in list(self.tips.items())[:TIPS_MAX]]
        return _frame([1, self.have, self.why[:WHY_CHARS_MAX], tips])


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """A viewer's have-vector, and up to which number it heard what was odd: refused vertices, forks, gaps."""

    have: Mapping[PeerId, int]
    odd: int = 0

    def encode(self) -> bytes:
        return _frame([2, b"".join(issuer + n.to_bytes(8, "big") for issuer, n in sorted(self.have.items())), self.odd])


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    vertices: tuple[bytes, ...]
    done: bool
    odd: int = 0  # number of the newest of `texts`
    texts: tuple[str, ...] = ()

    def encode(self) -> bytes:
        return _frame([2, list(self.vertices), self.done, self.odd, [text[:WHY_CHARS_MAX] for text in self.texts[-TEXTS_MAX:]]])


Question = AskHello | Attach | Watch
Answer = Hello | Attached | Page


def parse_question(content: bytes) -> Question | None:
    """What came to a node; None if it is not a question."""
    match _decode(content):
        case [0]:
            return AskHello()
        case [1, bytes() as issuer, list() as vertices] if len(issuer) == PEER_ID_BYTES and _are_vertices(vertices):
            return Attach(issuer=PeerId(issuer), vertices=tuple(vertices))
        case [1, bytes() as issuer, list() as vertices, said] if len(issuer) == PEER_ID_BYTES and _are_vertices(vertices):
            odd = _parse_odd(said)
            return None if odd is None else Attach(issuer=PeerId(issuer), vertices=tuple(vertices), odd=odd)
        case [2, bytes() as have, odd] if _is_whole(odd, 2**53) and _is_have(have):
            size = PEER_ID_BYTES + 8
            pieces = [have[start : start + size] for start in range(0, len(have), size)]
            return Watch(have={PeerId(piece[:PEER_ID_BYTES]): int.from_bytes(piece[PEER_ID_BYTES:], "big") for piece in pieces}, odd=odd)
    return None


def parse_answer(content: bytes) -> Answer | None:
    """What a node said; None if it is not an answer."""
    match _decode(content):
        case [0, bytes() as net, str() as codename, starts, slice_bytes, list() as members] if len(net) == NET_BYTES:
            good = _is_whole(starts, TIME_MS_MAX) and _is_whole(slice_bytes, 1 << 30) and 0 < len(codename) <= CODENAME_CHARS_MAX
            if good and len(members) <= MEMBERS_MAX and all(isinstance(m, bytes) and len(m) == PEER_ID_BYTES for m in members):
                return Hello(
                    net=net, codename=codename, starts_ms=starts, slice_bytes=slice_bytes, members=tuple(map(PeerId, members))
                )
        case [1, have, str() as why, list() as tips] if _is_whole(have, SEQUENCE_MAX) and len(why) <= WHY_CHARS_MAX:
            parsed = [_parse_tip(tip) for tip in tips[:TIPS_MAX]]
            if None not in parsed:
                return Attached(have=have, why=why, tips=dict(tip for tip in parsed if tip is not None))
        case [2, list() as vertices, bool() as done, odd, list() as texts] if _are_vertices(vertices) and _is_whole(odd, 2**53):
            if len(texts) <= TEXTS_MAX and all(isinstance(text, str) and len(text) <= WHY_CHARS_MAX for text in texts):
                return Page(vertices=tuple(vertices), done=done, odd=odd, texts=tuple(texts))
    return None


class FrameReader:
    """Cuts a byte stream into frames."""

    def __init__(self, parse: Callable[[bytes], Any]) -> None:
        self._parse = parse
        self._pending = bytearray()

    def receive(self, content: bytes) -> list[Any] | None:
        """The frames that became complete, parsed; None if something came that is no frame: leave the stream."""
        self._pending += content
        found = []
        while len(self._pending) >= LENGTH_BYTES:
            size = int.from_bytes(self._pending[:LENGTH_BYTES], "big")
            if size > FRAME_BYTES_MAX:
                return None
            if len(self._pending) < LENGTH_BYTES + size:
                break
            frame = self._parse(bytes(self._pending[LENGTH_BYTES : LENGTH_BYTES + size]))
            if frame is None:
                return None
            found.append(frame)
            del self._pending[: LENGTH_BYTES + size]
        return found


def fill_pages(vertices: Iterable[bytes]) -> list[tuple[bytes, ...]]:
    """Vertices in pages that fit into frames."""
    pages: list[tuple[bytes, ...]] = []
    page: list[bytes] = []
    size = 0
    for encoded in vertices:
        if page and (len(page) == VERTICES_MAX or size + len(encoded) > FRAME_BYTES_MAX // 2):
            pages.append(tuple(page))
            page, size = [], 0
        page.append(encoded)
        size += len(encoded)
    return [*pages, tuple(page)] if page else pages


def _frame(values: list[object]) -> bytes:
    content = cbor.encode(values)
    return len(content).to_bytes(LENGTH_BYTES, "big") + content


def _decode(content: bytes) -> Any:
    try:
        return cbor.decode(content, depth_max=4)
    except ValueError:
        return None


def _are_vertices(vertices: list[Any]) -> bool:
    return len(vertices) <= VERTICES_MAX and all(isinstance(v, bytes) and len(v) <= VERTEX_BYTES_MAX for v in vertices)


def _parse_odd(said: Any) -> Odd | None:
    match said:
        case [time_ms, list() as texts, bytes() as signature] if _is_whole(time_ms, TIME_MS_MAX) and len(signature) == SIGNATURE_BYTES:
            if 1 <= len(texts) <= ODD_TEXTS_MAX and all(isinstance(t, str) and len(t) <= WHY_CHARS_MAX and t.isprintable() for t in texts):
                return Odd(time_ms=time_ms, texts=tuple(texts), signature=signature)
    return None


def _is_have(have: bytes) -> bool:
    size = PEER_ID_BYTES + 8
    return len(have) % size == 0 and len(have) <= SYNC_HAVE_MAX * size


def _parse_tip(tip: Any) -> tuple[Cid, tuple[int, PeerId]] | None:
    match tip:
        case [cid, time_ms, bytes() as issuer] if is_cid(cid) and _is_whole(time_ms, TIME_MS_MAX) and len(issuer) == PEER_ID_BYTES:
            return cid, (time_ms, PeerId(issuer))
    return None


def _is_whole(value: object, most: int) -> bool:
    return type(value) is int and 0 <= value <= most
