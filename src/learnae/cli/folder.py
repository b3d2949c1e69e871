"""A node's folder: its keys, the ticket it accepted, its settings, its journal and blocks. One folder is one peer of one session."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Final

from learnae.errors import FolderError
from learnae.protocol.calls import RELAY_GAS_MAX
from learnae.protocol.rules import TICKET_BYTES_MAX, Ticket, decode_ticket

BACKENDS: Final = ("libp2p", "kubo")
KUBO_URL: Final = "http://127.0.0.1:5001"  # Kubo's default
SETTINGS_BYTES_MAX: Final = 64 * 1024


@dataclass(frozen=True, kw_only=True)
class NodeSettings:
    """What one user chose for this node; written once by `session new` or `join`, and free to be edited by hand."""

    task: str  # built-in name or path of the task file; empty for a member who only votes
    data: str  # what the task's `load_data` gets
    rpc: str  # URL of an Ethereum endpoint
    rpc_second: str = ""  # URL of another one; both must agree before anything is sent
    fee_cap_wei: int = 200 * 10**9  # most that is paid for a unit of gas; above it transactions wait
    confirmations: int = 0  # blocks that must hold a transaction before it counts; 0: what fits the chain
    listen: tuple[str, ...] = ()  # multiaddrs
    announce: tuple[str, ...] = ()  # multiaddrs that others are told instead of those listened on
    mdns: bool = True  # announce this node in the local network, and dial the session's peers there
    bootstrap: tuple[str, ...] = ()  # multiaddrs of DHT servers, to find the session when nobody of the ticket answers
    upnp: bool = False  # ask the router to open this node's port
    backend: str = "libp2p"  # "libp2p": the network that is built in; "kubo": the user's own IPFS daemon beside it
    kubo: str = ""  # URL of that daemon's RPC API; empty: http://127.0.0.1:5001
    share_permille: int = 0  # how much of the own training data is opened to others
    device: str = "auto"
    threads: int = 1
    reports_help: bool = True
    policy: str = ""
    pace_s: float = 0.25
    poll_s: float = 1.0
    tips_budget_wei: int = 0
    relay: bool = True  # send others' signed claims and ballots along with the own
    relay_gas_max: int = RELAY_GAS_MAX  # in the whole session


    @property
    def daemon_url(self) -> str:
        """The RPC API of the IPFS daemon that this node uses; empty: none."""
        return "" if self.backend == "libp2p" else self.kubo or KUBO_URL


@dataclass(frozen=True, slots=True)
class NodeFolder:
    """The files of one node."""

    path: Path

    @property
    def keystore(self) -> Path:
        return self.path / "keystore.json"

    @property
    def blocks(self) -> Path:
        return self.path / "blocks"

    @property
    def log(self) -> Path:
        return self.path / "node.log"

    @property
    def sensors(self) -> Path:
        """What the node follows, if there is such a file (`backends.sensor_settings`)."""
        return self.path / "sensors.toml"

    @property
    def is_ready(self) -> bool:
        return (self.path / "ticket.txt").is_file()

    def write(self, ticket: Ticket, settings: NodeSettings) -> None:
        """Keep the ticket and the settings. Raises: FolderError: another session's node lives here, or no room."""
        self.check_free(ticket)
        try:
            self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
            _replace(self.path / "settings.json", json.dumps(asdict(settings), indent=1) + "\n")
            _replace(self.path / "ticket.txt", ticket.to_text() + "\n")
        except OSError as error:
            raise FolderError(str(self.path), f"it cannot be written: {error.strerror or error}") from error

    def check_free(self, ticket: Ticket) -> None:
        """Raises: FolderError: another session's node lives here."""
        if self.is_ready and self.read_ticket().contract != ticket.contract:
            raise FolderError(str(self.path), "a node of another session lives there; choose another --folder")

    def read_ticket(self) -> Ticket:
        """Raises: FolderError, TicketError, RulesError."""
        return decode_ticket(self._read("ticket.txt"))

    def read_settings(self) -> NodeSettings:
        """Raises: FolderError: missing, or not what `write` writes."""
        try:
            values = json.loads(self._read("settings.json"))
            return NodeSettings(**{name: _to_field(name, value) for name, value in values.items()})
        except (ValueError, TypeError, AttributeError) as error:
            raise FolderError(str(self.path), f"its settings.json is damaged ({error}); `learnae join` writes it anew") from error

    def read_status(self) -> dict[str, Any]:
        """The newest status of the node. Raises: FolderError: it has never run."""
        try:
            status = json.loads(self._read("status.json"))
        except ValueError as error:
            raise FolderError(str(self.path), "its status.json is damaged; start the node again") from error
        if not isinstance(status, dict):
            raise FolderError(str(self.path), "its status.json is damaged; start the node again")
        return status

    def read_stage(self) -> str:
        """The stage of the session when its node last wrote its status; `unknown` if it never did."""
        if not (self.path / "status.json").is_file():
            return "unknown"
        return str(self.read_status().get("stage"))

    def _read(self, name: str) -> str:
        try:
            with (self.path / name).open(encoding="utf-8") as file:
                return file.read(SETTINGS_BYTES_MAX)
        except FileNotFoundError as error:
            raise FolderError(
                str(self.path), f"there is no {name} in it; `learnae join TICKET` or `learnae session new` makes a node's folder"
            ) from error
        except (OSError, UnicodeDecodeError) as error:
            raise FolderError(str(self.path), f"its {name} cannot be read: {error}") from error


def read_ticket_text(text: str) -> str:
    """The ticket itself, or the content of the file that holds it."""
    path = Path(text)
    if len(text) < 256 and path.is_file():
        with path.open(encoding="utf-8", errors="replace") as file:
            return file.read(TICKET_BYTES_MAX + 1)
    return text


_TYPES: Final = {field.name: field.type for field in fields(NodeSettings)}


def _to_field(name: str, value: object) -> Any:
    kind = _TYPES.get(name)
    if kind is None:
        raise TypeError(f"unknown setting {name!r}")
    if str(kind).startswith("tuple"):
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise TypeError(f"{name} is not a list of texts")
        return tuple(value)
    expected: tuple[type, ...] = {"str": (str,), "int": (int,), "bool": (bool,), "float": (int, float)}[str(kind)]
    if not isinstance(value, expected) or (isinstance(value, bool) and kind != "bool"):
        raise TypeError(f"{name} is {value!r}, expected {kind}")
    if name == "backend" and value not in BACKENDS:
        raise TypeError(f"{name} is {value!r}, expected {' or '.join(BACKENDS)}")
    return value


def _replace(path: Path, text: str) -> None:
    draft = path.with_name(path.name + ".new")
    with draft.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(draft, path)
