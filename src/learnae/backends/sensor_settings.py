"""`sensors.toml` in a node's folder: which sensors it follows, and where light publishers reach it.

    [sensors]
    codename = "garden"            # the session's, if left out; heads of sensors carry it as their tag (4.2)
    listen = "127.0.0.1:4480"      # for `learnae sensor` and `learnae gateway`; left out: nowhere
    side_keys = ["00ff..."]        # of restricted channels, newest first; 64 hex digits each
    only_streams = false           # true: own data only validate, training takes what sensors say

    [sensors.openings]             # keys of private and restricted channels, as `learnae sensor publish` prints them
    "s-03" = "17:00ff..."
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from learnae.errors import FolderError
from learnae.tangle.channel import KEY_BYTES, SIDE_KEYS_MAX, Opening

FILE: Final = "sensors.toml"
BYTES_MAX: Final = 1 << 20


@dataclass(frozen=True, kw_only=True)
class SensorSettings:
    """What a user chose about sensors."""

    codename: str = ""
    listen: str = ""
    side_keys: tuple[bytes, ...] = ()
    only_streams: bool = False
    openings: dict[str, Opening] = field(default_factory=dict)


def read_sensor_settings(folder: Path) -> SensorSettings | None:
    """The file's settings; None if there is no file, so that this node follows no sensors. Raises: FolderError."""
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        with path.open("rb") as file:
            values = tomllib.loads(file.read(BYTES_MAX).decode())
        return _parse(values)
    except (OSError, ValueError) as error:
        raise FolderError(str(folder), f"its {FILE} cannot be used: {error}") from error


def write_sensor_settings(folder: Path, *, codename: str, listen: str, only_streams: bool = False) -> None:
    """A new file with the usual settings."""
    lines = ["[sensors]", f'codename = "{codename}"', f'listen = "{listen}"', f"only_streams = {str(only_streams).lower()}", ""]
    (folder / FILE).write_text("\n".join(lines), encoding="utf-8")


def format_opening(opening: Opening) -> str:
    """An opening as text: the number of the first message that may be read, and its key."""
    return f"{opening.sequence}:{opening.key.hex()}"


def parse_opening(text: str) -> Opening:
    """Raises: ValueError: it is not what `format_opening` writes."""
    sequence, _, key = text.partition(":")
    if not sequence.isdigit() or len(key) != 2 * KEY_BYTES:
        raise ValueError(f"{text[:20]!r}... is not an opening, such as 17:00ff... with 64 hex digits")
    return Opening(int(sequence), bytes.fromhex(key))


def _parse(values: dict[str, Any]) -> SensorSettings:
    table = values.get("sensors")
    if not isinstance(table, dict) or set(values) != {"sensors"}:
        raise ValueError("expected one table [sensors]")
    kinds: dict[str, type] = {"codename": str, "listen": str, "side_keys": list, "only_streams": bool, "openings": dict}
    for name, value in table.items():
        if name not in kinds:
            raise ValueError(f"unknown name {name!r} in [sensors]; known are {', '.join(kinds)}")
        if not isinstance(value, kinds[name]):
            raise ValueError(f"{name} is {value!r}, expected {kinds[name].__name__}")
    listen = table.get("listen", "")
    if listen and not (listen.rpartition(":")[0] and listen.rpartition(":")[2].isdigit() and int(listen.rpartition(":")[2]) < 65536):
        raise ValueError(f"listen is {listen!r}, expected HOST:PORT such as 127.0.0.1:4480")
    side_keys = tuple(bytes.fromhex(str(key)) for key in table.get("side_keys", ()))
    if len(side_keys) > SIDE_KEYS_MAX or any(len(key) != KEY_BYTES for key in side_keys):
        raise ValueError(f"side_keys: expected up to {SIDE_KEYS_MAX} keys of 64 hex digits")
    return SensorSettings(
        codename=table.get("codename", ""),
        listen=listen,
        side_keys=side_keys,
        only_streams=table.get("only_streams", False),
        openings={str(name): parse_opening(str(text)) for name, text in table.get("openings", {}).items()},
    )
