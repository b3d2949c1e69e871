"""The folder of a publisher or gateway: one secret from which its keys follow, its admission, its journal.

A device starts without anybody who types a password, so the secret lies there readable by its owner only. From it follow the
issuer's key, each sensor's channel keys and its first message key. What a thief of the folder gets: the right to speak as these
sensors, and what they say from now on; not what they said (the channels' keys have moved on).
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from nacl.bindings import crypto_sign, crypto_sign_seed_keypair

from learnae.backends.private_files import read_private
from learnae.errors import KeystoreError
from learnae.ids import PeerId
from learnae.sensor_errors import AdmissionError
from learnae.sensors.link import CODENAME_CHARS_MAX, Hello
from learnae.sensors.messages import Admission, parse_admission
from learnae.sensors.publisher import SensorPlan
from learnae.sensors.readings import SensorField
from learnae.sensors.slices import RowType
from learnae.tangle import cbor
from learnae.tangle.channel import ChannelMode
from learnae.tangle.vertex import NET_BYTES

SECRET_BYTES: Final = 32
PREFIX: Final = "admission1"
_CHECK_BYTES: Final = 4
_BASE32: Final = "abcdefghijklmnopqrstuvwxyz234567"


@dataclass(frozen=True, slots=True)
class SensorKey:
    """An Ed25519 key of a sensor or its issuer."""

    peer: PeerId
    _secret: bytes

    def sign(self, message: bytes) -> bytes:
        signature: bytes = crypto_sign(message, self._secret)[:64]
        return signature

    def __repr__(self) -> str:
        return "SensorKey(...)"


class SensorFolder:
    """The files of one publisher. Raises: KeystoreError: its secret cannot be read or written, or others may read it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        file = path / "sensor.key"
        try:
            path.mkdir(parents=True, exist_ok=True, mode=0o700)
            if not file.exists():
                descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
                with os.fdopen(descriptor, "wb") as fresh:
                    fresh.write(secrets.token_bytes(SECRET_BYTES))
                    fresh.flush()
                    os.fsync(fresh.fileno())
        except OSError as error:
            raise KeystoreError(file, f"it cannot be written: {error.strerror or error}") from error
        self._secret = read_private(file)
        if len(self._secret) != SECRET_BYTES:
            why = f"it has {len(self._secret)} bytes and not {SECRET_BYTES}; move the folder away to begin a new sensor"
            raise KeystoreError(file, why)

    @property
    def issuer(self) -> SensorKey:
        return self._make_key("issuer")

    def make_plan(
        self,
        sensor: str,
        fields: tuple[SensorField, ...],
        *,
        mode: ChannelMode,
        side_key: bytes = b"",
        generation: int = 0,
        row_type: RowType = RowType.F32,
    ) -> SensorPlan:
        """A sensor's channel; another `generation` is another key (rotation)."""
        key = self._make_key(f"channel {generation} {sensor}")
        return SensorPlan(
            sensor=sensor,
            fields=fields,
            channel_key=key.peer,
            sign=key.sign,
            first_key=self._derive(f"first {generation} {sensor}"),
            mode=mode,
            side_key=side_key,
            row_type=row_type,
        )

    def read_admission(self) -> tuple[Admission, Hello] | None:
        """What a member gave; None if there is none yet. Raises: AdmissionError: it is damaged."""
        file = self.path / "admission.txt"
        return parse_admission_text(file.read_text(encoding="utf-8")) if file.is_file() else None

    def write_admission(self, text: str) -> None:
        """Keep a member's admission. Raises: AdmissionError: it is not one, or is for another issuer."""
        admission, hello = parse_admission_text(text)
        if not admission.admits(self.issuer.peer, hello.net):
            raise AdmissionError("it is for another sensor's id, or was changed on its way")
        (self.path / "admission.txt").write_text(text.strip() + "\n", encoding="utf-8")

    def _make_key(self, purpose: str) -> SensorKey:
        public, secret = crypto_sign_seed_keypair(self._derive(purpose))
        return SensorKey(PeerId(public), secret)

    def _derive(self, purpose: str) -> bytes:
        return hmac.digest(self._secret, b"learnae " + purpose.encode(), "sha256")


def format_admission(admission: Admission, hello: Hello) -> str:
    """An admission as a line of text that survives being pasted: with the session's facts, and a checksum."""
    content = cbor.encode([1, hello.net, hello.codename, hello.starts_ms, hello.slice_bytes, admission.to_body()])
    content += hashlib.sha256(content).digest()[:_CHECK_BYTES]
    bits = int.from_bytes(content, "big") << (-len(content) * 8 % 5)
    count = -(-len(content) * 8 // 5)
    return PREFIX + "".join(_BASE32[bits >> 5 * (count - 1 - i) & 31] for i in range(count))


def parse_admission_text(text: str) -> tuple[Admission, Hello]:
    """Read it back. Raises: AdmissionError: it was cut off, mistyped, or is something else."""
    letters = text.strip().removeprefix(PREFIX)
    if not text.strip().startswith(PREFIX) or not letters or len(letters) > 2000 or set(letters) - set(_BASE32):
        raise AdmissionError(f"it does not read {PREFIX}... in small letters and digits 2 to 7")
    bits = 0
    for letter in letters:
        bits = bits << 5 | _BASE32.index(letter)
    size = len(letters) * 5 // 8
    content = (bits >> (len(letters) * 5 - size * 8)).to_bytes(size, "big")
    body, check = content[:-_CHECK_BYTES], content[-_CHECK_BYTES:]
    if hashlib.sha256(body).digest()[:_CHECK_BYTES] != check:
        raise AdmissionError("it was cut off or mistyped")
    try:
        values = cbor.decode(body)
    except ValueError as error:
        raise AdmissionError("it is not an admission") from error
    match values:
        case [1, bytes() as net, str() as codename, int() as starts_ms, int() as slice_bytes, admission]:
            parsed = parse_admission(admission)
            if parsed is not None and len(net) == NET_BYTES and 0 < len(codename) <= CODENAME_CHARS_MAX:
                return parsed, Hello(
                    net=net, codename=codename, starts_ms=starts_ms, slice_bytes=slice_bytes, members=(parsed.member,)
                )
    raise AdmissionError("it is not an admission")
