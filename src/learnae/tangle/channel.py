"""A channel: one sensor's stream of signed, encrypted messages, each leading to the next; MAM's successor (2.2, 4.2).

Message n is encrypted under a key that follows from k_n, and k_(n+1) follows from k_n by a one-way function. So who is given k_n
reads message n and all that follow, and nothing before: the paper's forward secrecy. A lost message blinds nobody, and a
sensor that forgets k_n after use betrays nothing of its past when it is captured.

    k_(n+1) = HMAC(k_n, "next")          mk_n = HMAC(k_n, "msg" | side key)
    address = k_n in mode public, else HMAC(k_n, "addr")
    nonce   = HMAC(mk_n, fields 0 to 4 | body), 12 bytes

Three modes: public (the address is the key), private (who was given a key), restricted (who also has the side key; changing it
shuts out who had the old one). The nonce follows from the content, so a writer that lost its state and used a number twice
would show that two bodies are equal, and nothing else. The rule against that: the state is on disk before a message leaves.
Pure. HMAC is HMAC-SHA-256, the cipher ChaCha20-Poly1305 (RFC 8439), the signature Ed25519. docs/sensor-format.md has vectors.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Final

from nacl.bindings import (
    crypto_aead_chacha20poly1305_ietf_decrypt,
    crypto_aead_chacha20poly1305_ietf_encrypt,
    crypto_sign_open,
)
from nacl.exceptions import BadSignatureError, CryptoError

from learnae.tangle import cbor
from learnae.tangle.vertex import SEQUENCE_MAX, SIGNATURE_BYTES, Sign

VERSION: Final = 1
KEY_BYTES: Final = 32
HASH_BYTES: Final = 16
NONCE_BYTES: Final = 12
TAG_BYTES: Final = 16
CHANNEL_ID_BYTES: Final = 16
BODY_BYTES_MAX: Final = 32 * 1024  # With its cover it fits into one vertex; sensors send little at a time (4.2).
SKIP_MAX: Final = 1 << 20  # How far a message may be from the one read before, and keys derived in vain: about a second in all.
SKIP_AT_ONCE: Final = 4096  # Keys derived for one message: a channel's owner could name any number.
SIDE_KEYS_MAX: Final = 16  # Tried for one message.

_DOMAIN = b"learnae channel 1\n"
_SUCCESSION_DOMAIN = b"learnae channel succession 1\n"
_GENESIS = b"\0" * HASH_BYTES


class ChannelMode(IntEnum):
    """Who can read a channel."""

    PUBLIC = 0
    PRIVATE = 1
    RESTRICTED = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelMessage:
    """One message as it travels. Anybody can check its signature; reading it takes its key."""

    mode: ChannelMode
    address: bytes  # 32 bytes
    sequence: int  # 1, 2, 3, ...
    previous: bytes  # start of the SHA-256 of the message before: order and completeness
    nonce: bytes
    ciphertext: bytes
    signature: bytes
    _known: dict[str, bytes] = field(init=False, repr=False, compare=False, default_factory=dict)  # what was computed once

    def to_body(self) -> list[object]:
        head = [VERSION, int(self.mode), self.address, self.sequence, self.previous]
        return [*head, self.nonce, self.ciphertext, self.signature]

    def compute_covered(self) -> bytes:
        """Fields 0 to 4, as they are authenticated."""
        known = self._known.get("covered")
        if known is None:
            known = self._known["covered"] = _encode_head(self.mode, self.address, self.sequence, self.previous)
        return known

    def compute_hash(self) -> bytes:
        """What the next message names as its `previous`."""
        known = self._known.get("hash")
        if known is None:
            known = self._known["hash"] = _compute_hash(self.compute_covered() + self.nonce + self.ciphertext, self.signature)
        return known

    def is_signed_by(self, channel_key: bytes) -> bool:
        return _verify(self.signature, _DOMAIN + self.compute_covered() + self.nonce + self.ciphertext, channel_key)


@dataclass(frozen=True, slots=True)
class Opening:
    """What lets somebody read a channel from a message on: its number and its key k_n."""

    sequence: int
    key: bytes


@dataclass(frozen=True, slots=True)
class Refused:
    """Why a message cannot be read."""

    why: str


def compute_channel_id(channel_key: bytes) -> bytes:
    """The short name of a channel in vertices, 16 bytes."""
    return hashlib.sha256(channel_key).digest()[:CHANNEL_ID_BYTES]


def compute_next_key(key: bytes) -> bytes:
    return hmac.digest(key, b"next", "sha256")


def compute_message_key(key: bytes, side_key: bytes) -> bytes:
    return hmac.digest(key, b"msg" + side_key, "sha256")


def compute_address(key: bytes, mode: ChannelMode) -> bytes:
    return key if mode is ChannelMode.PUBLIC else hmac.digest(key, b"addr", "sha256")


def parse_message(body: Any) -> ChannelMessage | None:
    """Read the plain values of a message; None if they are not what `to_body` writes."""
    match body:
        case [version, mode, bytes() as address, sequence, bytes() as previous, bytes() as nonce, bytes() as sealed, bytes() as signature]:
            if type(version) is not int or version != VERSION or type(mode) is not int or not 0 <= mode <= ChannelMode.RESTRICTED:
                return None
            if type(sequence) is not int or not 1 <= sequence <= SEQUENCE_MAX:
                return None
            sizes = (len(address), len(previous), len(nonce), len(signature))
            if sizes != (KEY_BYTES, HASH_BYTES, NONCE_BYTES, SIGNATURE_BYTES):
                return None
            if not TAG_BYTES <= len(sealed) <= BODY_BYTES_MAX + TAG_BYTES or (sequence == 1) != (previous == _GENESIS):
                return None
            return ChannelMessage(
                mode=ChannelMode(mode),
                address=address,
                sequence=sequence,
                previous=previous,
                nonce=nonce,
                ciphertext=sealed,
                signature=signature,
            )
    return None


# --- writing ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class WriterState:
    """Where a writer stands: the number and key of its next message, the hash of the one before. Secret."""

    sequence: int
    key: bytes
    previous: bytes = _GENESIS

    def encode(self) -> bytes:
        return cbor.encode([VERSION, self.sequence, self.key, self.previous])


def decode_state(content: bytes) -> WriterState | None:
    """Read what `WriterState.encode` wrote; None if it is something else."""
    try:
        values = cbor.decode(content)
    except ValueError:
        return None
    match values:
        case [1, int() as sequence, bytes() as key, bytes() as previous] if len(key) == KEY_BYTES and len(previous) == HASH_BYTES:
            return WriterState(sequence, key, previous) if 1 <= sequence <= SEQUENCE_MAX else None
    return None


class ChannelWriter:
    """Makes the messages of one channel. `state` must be on disk before a message that it made is published.

    Args:
        sign: signs with the channel's Ed25519 key.
        side_key: what readers of a restricted channel need beside an opening; empty in the other modes.
    """

    def __init__(self, state: WriterState, *, mode: ChannelMode, sign: Sign, side_key: bytes = b"") -> None:
        assert (mode is ChannelMode.RESTRICTED) == bool(side_key), "a side key belongs to restricted channels, and to no others"
        self.mode = mode
        self._state = state
        self._sign = sign
        self._side_key = side_key

    @property
    def state(self) -> WriterState:
        return self._state

    def compute_opening(self) -> Opening:
        """What to give to somebody who may read the next message and all after it."""
        return Opening(self._state.sequence, self._state.key)

    def change_side_key(self, side_key: bytes) -> None:
        """From the next message on: who has only the old side key reads no further."""
        assert self.mode is ChannelMode.RESTRICTED and side_key
        self._side_key = side_key

    def create(self, body: bytes) -> ChannelMessage:
        """Encrypt and sign the next message; forgets its key."""
        assert len(body) <= BODY_BYTES_MAX
        state = self._state
        address = compute_address(state.key, self.mode)
        message_key = compute_message_key(state.key, self._side_key)
        covered = _encode_head(self.mode, address, state.sequence, state.previous)
        nonce = hmac.digest(message_key, covered + body, "sha256")[:NONCE_BYTES]
        ciphertext = crypto_aead_chacha20poly1305_ietf_encrypt(body, covered, nonce, message_key)
        content = covered + nonce + ciphertext
        signature = self._sign(_DOMAIN + content)
        self._state = WriterState(state.sequence + 1, compute_next_key(state.key), _compute_hash(content, signature))
        return ChannelMessage(
            mode=self.mode,
            address=address,
            sequence=state.sequence,
            previous=state.previous,
            nonce=nonce,
            ciphertext=ciphertext,
            signature=signature,
        )


# --- reading ----------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class ChannelReader:
    """Reads one channel from an opening on, in any order, whatever is lost. Does not check signatures: the lane did.

    A message far from the last one is reached in steps, with the messages that come after it; what was derived is kept.
    `side_keys`: those given for a restricted channel, the newest first; bodies are encrypted under one of them.
    """

    opening: Opening
    side_keys: Sequence[bytes] = (b"",)
    _at: Opening = field(init=False)
    _ahead: Opening = field(init=False)  # on the way to a message that is far
    _vain: int = field(init=False, default=0)  # keys derived since a message was read

    def __post_init__(self) -> None:
        self._at = self._ahead = self.opening

    def read(self, message: ChannelMessage) -> bytes | Refused:
        """The body of a message, or why it stays closed."""
        if message.sequence < self.opening.sequence:
            return Refused(f"message {message.sequence} is before number {self.opening.sequence}, from which on this reader may read")
        # The signed address of a public message is its key.
        key = message.address if message.mode is ChannelMode.PUBLIC else self._derive(message.sequence)
        if isinstance(key, Refused):
            return key
        if compute_address(key, message.mode) != message.address:
            return Refused("it is not a message of this channel, or the key is another channel's")
        body = self._decrypt(message, key)
        if body is None:
            return Refused("it cannot be decrypted: the side key is another one, or the message was changed")
        if message.sequence >= self._at.sequence:
            self._at = Opening(message.sequence, key)
        self._vain = 0
        return body

    def _derive(self, sequence: int) -> bytes | Refused:
        """The key of a message, a bounded number of steps on from the nearest one that is known."""
        starts = (start for start in (self.opening, self._at, self._ahead) if start.sequence <= sequence)
        start = max(starts, key=lambda opening: opening.sequence)
        if sequence - start.sequence > SKIP_MAX:
            return Refused(f"message {sequence} is more than {SKIP_MAX} after the one read before")
        steps = min(sequence - start.sequence, SKIP_AT_ONCE)
        if self._vain + steps > SKIP_MAX:
            return Refused("too many messages before it were not of this channel")
        self._vain += steps
        key = start.key
        for _ in range(steps):
            key = compute_next_key(key)
        self._ahead = Opening(start.sequence + steps, key)
        if self._ahead.sequence < sequence:
            return Refused(f"message {sequence} is far ahead; the way to it is walked {SKIP_AT_ONCE} at a time, with those that follow")
        return key

    def _decrypt(self, message: ChannelMessage, key: bytes) -> bytes | None:
        covered = message.compute_covered()
        for side_key in self.side_keys[:SIDE_KEYS_MAX] if message.mode is ChannelMode.RESTRICTED else (b"",):
            message_key = compute_message_key(key, side_key)
            try:
                body: bytes = crypto_aead_chacha20poly1305_ietf_decrypt(message.ciphertext, covered, message.nonce, message_key)
            except CryptoError:
                continue
            if hmac.digest(message_key, covered + body, "sha256")[:NONCE_BYTES] == message.nonce:
                return body
        return None


def find_public_opening(messages: Iterable[ChannelMessage]) -> Opening | None:
    """Public channels open themselves: the address of a message is its key."""
    return next((Opening(m.sequence, m.address) for m in messages if m.mode is ChannelMode.PUBLIC), None)


# --- succession -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Succession:
    """A channel's last word: its messages end with number `last`, and the sensor goes on under a new key."""

    channel_key: bytes  # the old one
    last: int
    signature: bytes  # by the old key

    def names(self, successor: bytes) -> bool:
        """Whether the old key really handed over to this one."""
        return _verify(self.signature, _compute_succession(self.channel_key, self.last, successor), self.channel_key)


def create_succession(*, channel_key: bytes, last: int, successor: bytes, sign: Sign) -> Succession:
    """Hand a channel over to a new key; `sign` signs with the old one."""
    return Succession(channel_key=channel_key, last=last, signature=sign(_compute_succession(channel_key, last, successor)))


def _compute_succession(channel_key: bytes, last: int, successor: bytes) -> bytes:
    return _SUCCESSION_DOMAIN + channel_key + last.to_bytes(8, "big") + successor


def _encode_head(mode: int, address: bytes, sequence: int, previous: bytes) -> bytes:
    """dag-cbor of the list of fields 0 to 4: version, mode, address, sequence, previous."""
    return b"".join((b"\x85\x01", bytes((mode,)), b"\x58\x20", address, cbor.encode_head(0, sequence), b"\x50", previous))


def _compute_hash(content: bytes, signature: bytes) -> bytes:
    return hashlib.sha256(content + signature).digest()[:HASH_BYTES]


def _verify(signature: bytes, signed: bytes, key: bytes) -> bool:
    try:
        crypto_sign_open(signature + signed, key)
    except BadSignatureError:
        return False
    return True
