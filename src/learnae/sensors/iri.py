"""The old IOTA node's face, in front of the session's Tangle: so that the genuine MAM clients publish and fetch unchanged. Insecure.

Six commands of IRI's HTTP API (getTransactionsToApprove, attachToTangle, storeTransactions, broadcastTransactions, findTransactions,
getTrytes) serve @iota/mam; three routes of the later REST API (post a message, find by index, get by id) serve @iota/mam.js.
What they store travels as bodies of an ordinary public channel, so every node of the session carries it. There is no proof of
work: the issuer's budget stands for it, and `minWeightMagnitude` is not looked at.
Pure. Source: IRI's API reference; Chrysalis REST API (TIP-13); paper 2.2.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from learnae.bounded_json import parse_json
from learnae.sensor_errors import MamError
from learnae.tangle import cbor
from learnae.tangle.curl import hash_once
from learnae.tangle.trits import Trits, format_trytes, is_trytes, parse_trytes

TRANSACTION_TRYTES: Final = 2673
TRANSACTION_BYTES: Final = 1604  # Five trits a byte.
TRANSACTIONS_MAX: Final = 64  # In one command: a MAM message of security 3 has four.
HASHES_MAX: Final = 1000
STORED_MAX: Final = 65_536  # About 200 MB of trytes; then the oldest are forgotten here, not in the Tangle.
DATA_BYTES_MAX: Final = 30 * 1024
BODY_TRANSACTION: Final = 3  # First byte of a channel body that holds one transaction, or one REST message.
BODY_MESSAGE: Final = 4
NULL_HASH: Final = "9" * 81
_FIELDS: Final[Mapping[str, tuple[int, int]]] = {
    "address": (2187, 2268),
    "bundle": (2349, 2430),
    "trunk": (2430, 2511),
    "branch": (2511, 2592),
    "tag": (2592, 2619),
}
_FOUND_BY: Final = {"addresses": "address", "bundles": "bundle", "tags": "tag", "approvees": "trunk"}
_HEX: Final = re.compile(r"[0-9a-f]*")


class IriError(Exception):
    """What a client asked cannot be done; `status` is HTTP's."""

    def __init__(self, why: str, status: int = 400) -> None:
        super().__init__(why)
        self.status = status


@dataclass(slots=True)
class IriTangle:
    """Transactions and REST messages by what clients find them with.

    `publish`: puts bodies on disk and on their way; they are stored here when they come back as entered.
    """

    publish: Callable[[Sequence[bytes]], None]
    now_ms: Callable[[], int]
    transactions: dict[str, str] = field(default_factory=dict)
    messages: dict[str, tuple[str, str]] = field(default_factory=dict)
    _found_by: dict[tuple[str, str], list[str]] = field(default_factory=dict)

    # --- IRI ------------------------------------------------------------------------------------------------

    def command(self, body: bytes) -> dict[str, Any]:
        """Answer one command. Raises: IriError."""
        try:
            asked = parse_json(body)
        except ValueError as error:
            raise IriError("the request is not JSON") from error
        commands = {
            "getTransactionsToApprove": self._approve,
            "attachToTangle": self._attach,
            "storeTransactions": self._store,
            "broadcastTransactions": self._store,
            "findTransactions": self._find,
            "getTrytes": self._get,
        }
        name = asked.get("command") if isinstance(asked, dict) else None
        if name not in commands:
            raise IriError(f"command {str(name)[:60]!r} is not known here; known are {', '.join(commands)}")
        return {**commands[name](asked), "duration": 0}

    def _approve(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        newest = list(self.transactions)[-2:]
        trunk, branch = (newest + [NULL_HASH] * 2)[:2]
        return {"trunkTransaction": trunk, "branchTransaction": branch}

    def _attach(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """Chain the transactions of a bundle, last one first, and date them."""
        trunk, branch = (_read_hash(asked, name) for name in ("trunkTransaction", "branchTransaction"))
        attached: list[str] = []
        previous = trunk
        for trytes in _read_transactions(asked):
            made = self._attach_one(trytes, previous, trunk if attached else branch)
            attached.append(made)
            previous = compute_transaction_hash(made)
        return {"trytes": attached}

    def _attach_one(self, trytes: str, trunk: str, branch: str) -> str:
        timestamp = _format_long(self.now_ms())
        tag = trytes[2592:2619] if trytes[2592:2619].strip("9") else trytes[2295:2322]
        upper = "MMMMMMMMM"  # The largest time that nine trytes hold.
        nonce = hashlib.sha256((trytes + trunk + branch).encode()).hexdigest()[:26]
        letters = "".join("9ABCDEFGHIJKLMNOP"[int(digit, 16) + 1] for digit in nonce)
        return trytes[:2430] + trunk + branch + tag + timestamp + "9" * 9 + upper + letters + "A"

    def _store(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        new = [trytes for trytes in _read_transactions(asked) if compute_transaction_hash(trytes) not in self.transactions]
        if new:
            self.publish([encode_transaction(trytes) for trytes in dict.fromkeys(new)])
        return {}

    def _find(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        sets = []
        for name, by in _FOUND_BY.items():
            if name in asked:
                keys = _read_list(asked, name)
                sets.append({found for key in keys for found in self._found_by.get((by, _pad(key, by)), ())})
        if not sets:
            raise IriError("findTransactions needs addresses, bundles, tags or approvees")
        common = set.intersection(*sets)
        return {"hashes": [found for found in self.transactions if found in common]}

    def _get(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        hashes = _read_list(asked, "hashes")
        return {"trytes": [self.transactions.get(found, "9" * TRANSACTION_TRYTES) for found in hashes]}

    # --- the later REST API ---------------------------------------------------------------------------------

    def rest(self, method: str, target: str, body: bytes) -> dict[str, Any]:
        """Answer `/api/v1/...`. Raises: IriError."""
        path, _, query = target.partition("?")
        if method == "POST" and path == "/api/v1/messages":
            return {"data": {"messageId": self._submit(body)}}
        if method == "GET" and path == "/api/v1/messages":
            index = dict(pair.partition("=")[::2] for pair in query.split("&")).get("index", "")
            found = [name for name, (stored, _) in self.messages.items() if stored == index.lower()]
            return {"data": {"index": index, "maxResults": HASHES_MAX, "count": len(found), "messageIds": found[:HASHES_MAX]}}
        if method == "GET" and path.startswith("/api/v1/messages/"):
            message = self.messages.get(path.rpartition("/")[2])
            if message is not None:
                payload = {"type": 2, "index": message[0], "data": message[1]}
                return {"data": {"networkId": "0", "parentMessageIds": ["0" * 64], "payload": payload, "nonce": "0"}}
        raise IriError("there is nothing here", 404)

    def _submit(self, body: bytes) -> str:
        try:
            asked = parse_json(body)
            payload = asked["payload"]
            kind, index, content = payload["type"], payload["index"], payload["data"]
        except (ValueError, KeyError, TypeError) as error:
            raise IriError("expected a message with an indexation payload") from error
        if kind != 2 or not _is_hex(index, 64) or not _is_hex(content, DATA_BYTES_MAX) or not index:
            raise IriError(f"expected payload type 2, an index of up to 64 bytes and up to {DATA_BYTES_MAX} bytes of data, in hex")
        encoded = encode_message(bytes.fromhex(index), bytes.fromhex(content))
        if compute_message_id(encoded) not in self.messages:
            self.publish([encoded])
        return compute_message_id(encoded)

    # --- what entered the Tangle ----------------------------------------------------------------------------

    def enter(self, body: bytes) -> bool:
        """Take in a body of a channel; False if it holds neither a transaction nor a message of this kind."""
        trytes = decode_transaction(body)
        if trytes is not None:
            self._keep_transaction(trytes)
            return True
        message = decode_message(body)
        if message is not None:
            self.messages[compute_message_id(body)] = (message[0].hex(), message[1].hex())
            if len(self.messages) > STORED_MAX:
                del self.messages[next(iter(self.messages))]
            return True
        return False

    def _keep_transaction(self, trytes: str) -> None:
        found = compute_transaction_hash(trytes)
        if found in self.transactions:
            return
        self.transactions[found] = trytes
        for by, (start, end) in _FIELDS.items():
            self._found_by.setdefault((by, trytes[start:end]), []).append(found)
        if len(self.transactions) > STORED_MAX:
            oldest = next(iter(self.transactions))
            gone = self.transactions.pop(oldest)
            for by, (start, end) in _FIELDS.items():
                self._found_by[by, gone[start:end]].remove(oldest)


# --- transactions and messages as bytes -------------------------------------------------------------------------


def compute_transaction_hash(trytes: str) -> str:
    """Curl-P-81 of a transaction: the name under which clients know it."""
    return format_trytes(hash_once(parse_trytes(trytes), rounds=81))


def encode_transaction(trytes: str) -> bytes:
    """A channel body: its kind, then five trits a byte (their value plus 121)."""
    trits = parse_trytes(trytes)
    return bytes((BODY_TRANSACTION, *(trits.slice(5 * i, 5).value() + 121 for i in range(TRANSACTION_BYTES))))


def decode_transaction(body: bytes) -> str | None:
    """The transaction of a body; None if it holds none."""
    if len(body) != 1 + TRANSACTION_BYTES or body[0] != BODY_TRANSACTION or max(body[1:]) > 242:
        return None
    plus = minus = 0
    for place, packed in enumerate(body[1:]):
        value = packed - 121
        for offset in range(5):
            trit = (value + 1) % 3 - 1
            value = (value - trit) // 3
            plus |= (trit == 1) << 5 * place + offset
            minus |= (trit == -1) << 5 * place + offset
    size = 3 * TRANSACTION_TRYTES
    return format_trytes(Trits(plus & (1 << size) - 1, minus & (1 << size) - 1, size))


def encode_message(index: bytes, content: bytes) -> bytes:
    return bytes((BODY_MESSAGE,)) + cbor.encode([index, content])


def decode_message(body: bytes) -> tuple[bytes, bytes] | None:
    """Index and data of a body; None if it holds no REST message."""
    if body[:1] != bytes((BODY_MESSAGE,)):
        return None
    try:
        match cbor.decode(body[1:], depth_max=1):
            case [bytes() as index, bytes() as content] if 1 <= len(index) <= 64 and len(content) <= DATA_BYTES_MAX:
                return index, content
    except ValueError:
        pass
    return None


def compute_message_id(body: bytes) -> str:
    return hashlib.blake2b(body, digest_size=32).hexdigest()


# --- reading requests -------------------------------------------------------------------------------------------


def _read_transactions(asked: Mapping[str, Any]) -> list[str]:
    found = asked.get("trytes")
    if not isinstance(found, list) or not 1 <= len(found) <= TRANSACTIONS_MAX:
        raise IriError(f"expected 1 to {TRANSACTIONS_MAX} transactions in trytes")
    for trytes in found:
        if not isinstance(trytes, str) or len(trytes) != TRANSACTION_TRYTES or not is_trytes(trytes):
            raise IriError(f"a transaction is {TRANSACTION_TRYTES} trytes")
    return found


def _read_hash(asked: Mapping[str, Any], name: str) -> str:
    found = asked.get(name)
    if not isinstance(found, str) or len(found) != 81 or not is_trytes(found):
        raise IriError(f"{name} is not 81 trytes")
    return found


def _read_list(asked: Mapping[str, Any], name: str) -> list[str]:
    found = asked.get(name)
    if not isinstance(found, list) or len(found) > HASHES_MAX or not all(isinstance(part, str) and is_trytes(part) for part in found):
        raise IriError(f"{name}: expected a list of up to {HASHES_MAX} texts in trytes")
    return found


def _pad(key: str, by: str) -> str:
    start, end = _FIELDS[by]
    return key[: end - start].ljust(end - start, "9")


def _is_hex(text: object, bytes_max: int) -> bool:
    return isinstance(text, str) and len(text) <= 2 * bytes_max and len(text) % 2 == 0 and _HEX.fullmatch(text) is not None


def _format_long(number: int) -> str:
    """A whole number as nine trytes, the least first."""
    plus = minus = place = 0
    while number:
        trit = (number + 1) % 3 - 1
        number = (number - trit) // 3
        plus |= (trit == 1) << place
        minus |= (trit == -1) << place
        place += 1
    if place > 27:
        raise MamError("a time that nine trytes do not hold", "set the clock")
    return format_trytes(Trits(plus, minus, 27))


