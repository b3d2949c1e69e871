"""`learnae mam create | parse`: one JSON object a line in, one a line out; a line that cannot be done answers with its `error`.

create: seed, message (trytes) or text, security, mode, side_key, start, count, index, next_start, next_count
        -> payload, root, next_root, address
parse:  payload, root, side_key -> message (trytes), text (null if the trytes are none), next_root, security
Pure. Source: `tangle.mam`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, Final

from learnae.bounded_json import parse_json
from learnae.sensor_errors import MamError
from learnae.tangle.mam import MamDraft, create_message, parse_message
from learnae.tangle.trits import decode_text, encode_text

LINE_BYTES_MAX: Final = 256 * 1024  # The longest payload and its names fit three times.
WARNING: Final = (
    "MAM v0 is insecure: its hash, Curl-P-27, is broken, so anybody can forge these messages. "
    "It is here to read and write old streams; `learnae sensor` has the secure ones."
)

_CREATE: Final[Mapping[str, tuple[type, ...]]] = {
    "seed": (str,),
    "message": (str,),
    "text": (str,),
    "security": (int,),
    "mode": (str,),
    "side_key": (str, type(None)),
    "start": (int,),
    "count": (int,),
    "index": (int,),
    "next_start": (int, type(None)),
    "next_count": (int,),
}
_PARSE: Final[Mapping[str, tuple[type, ...]]] = {"payload": (str,), "root": (str,), "side_key": (str, type(None))}


def answer_create(line: bytes) -> dict[str, Any]:
    """The message that a line asks for, or `error`."""
    return _answer(line, _create)


def answer_parse(line: bytes) -> dict[str, Any]:
    """What the payload of a line says, or `error`."""
    return _answer(line, _parse)


def _answer(line: bytes, work: Callable[[dict[str, Any]], dict[str, Any]]) -> dict[str, Any]:
    try:
        return work(_read(line))
    except MamError as error:
        return {"error": str(error)}


def _create(values: dict[str, Any]) -> dict[str, Any]:
    _check(values, _CREATE, {"seed"})
    if ("text" in values) == ("message" in values):
        raise MamError("neither or both of `message` and `text`", "give the message as trytes in `message`, or as `text`")
    if "text" in values:
        values["message"] = encode_text(values.pop("text"))
    return asdict(create_message(MamDraft(**values)))


def _parse(values: dict[str, Any]) -> dict[str, Any]:
    _check(values, _PARSE, {"payload", "root"})
    content = parse_message(values["payload"], values["root"], side_key=values.get("side_key"))
    return {
        "message": content.message,
        "text": decode_text(content.message),
        "next_root": content.next_root,
        "security": content.security,
    }


def _read(line: bytes) -> dict[str, Any]:
    if len(line) > LINE_BYTES_MAX:
        raise MamError(f"a line of {len(line)} bytes", f"at most {LINE_BYTES_MAX} are read")
    try:
        values = parse_json(line)
    except ValueError as error:
        raise MamError(f"not JSON ({str(error)[:100]})", "write one JSON object a line") from error
    if not isinstance(values, dict):
        raise MamError("a line that is not a JSON object", "write one JSON object a line")
    return values


def _check(values: Mapping[str, object], known: Mapping[str, tuple[type, ...]], needed: set[str]) -> None:
    for name in sorted(needed - values.keys()):
        raise MamError(f"`{name}` is missing", f"known names are {', '.join(known)}")
    for name, value in values.items():
        if name not in known:
            raise MamError(f"unknown name {name[:40]!r}", f"known names are {', '.join(known)}")
        if not isinstance(value, known[name]) or isinstance(value, bool):
            kinds = " or ".join("null" if kind is type(None) else kind.__name__ for kind in known[name])
            raise MamError(f"`{name}` is {str(value)[:40]!r}", f"expected {kinds}")
