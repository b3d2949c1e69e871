"""The two secrets of a peer in one encrypted file: its Ed25519 identity and its wallet's private key.

The wallet is an Ethereum keyfile (version 3) that other wallet programs can import; the identity is sealed with a key
made from the same password (scrypt, XSalsa20-Poly1305). The file is readable by its owner only and refused otherwise.
Secrets never appear in `repr`, logs, arguments or the environment; the password comes from a prompt or a file.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn

from nacl.exceptions import CryptoError
from nacl.secret import SecretBox
from nacl.signing import SigningKey

from learnae.backends.ethereum.wallet import WalletKey
from learnae.backends.private_files import read_private
from learnae.bounded_json import parse_json
from learnae.errors import KeystoreError
from learnae.ids import PeerId, peer_text

SCRYPT_N: Final = 1 << 16  # 64 MB and a quarter of a second: a node stays below its memory limit while it opens the file.
_SCRYPT_R: Final = 8
_SCRYPT_N_MAX: Final = 1 << 20  # A file from elsewhere cannot ask for more than 1 GB.
_PASSWORD_CHARS_MIN: Final = 8
_SEED_BYTES: Final = 32
_SALT_BYTES: Final = 32


class IdentityKey:
    """A peer's Ed25519 key. `export_seed` gives the secret to the libp2p host and to the keystore, nothing else does."""

    __slots__ = ("_key", "peer_id")

    def __init__(self, seed: bytes) -> None:
        self._key = SigningKey(seed)
        self.peer_id = PeerId(bytes(self._key.verify_key))

    def sign(self, message: bytes) -> bytes:
        """The signature, 64 bytes."""
        return bytes(self._key.sign(message).signature)

    def export_seed(self) -> bytes:
        """The seed, 32 bytes."""
        return bytes(self._key)

    def __repr__(self) -> str:
        return f"IdentityKey({peer_text(self.peer_id)})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("an identity key is not copied out of its process")


@dataclass(frozen=True, slots=True)
class Keys:
    """What a keystore holds."""

    identity: IdentityKey
    wallet: WalletKey


def create_keys() -> Keys:
    """New random keys."""
    return Keys(IdentityKey(secrets.token_bytes(_SEED_BYTES)), WalletKey.create())


def create_keystore(path: Path, password: str, *, keys: Keys | None = None, scrypt_n: int = SCRYPT_N) -> Keys:
    """Write a new keystore, durably, readable by its owner only.

    Args: keys: what to keep; new random keys if None. scrypt_n: cost of guessing the password, a power of two.
    Raises: KeystoreError: the file exists already, cannot be written, or the password is too short.
    """
    if len(password) < _PASSWORD_CHARS_MIN:
        raise KeystoreError(path, f"the password has {len(password)} characters and at least {_PASSWORD_CHARS_MIN} are needed")
    kept = keys or create_keys()
    salt = secrets.token_bytes(_SALT_BYTES)
    box = SecretBox(_stretch(password, salt, scrypt_n))
    content = {
        "version": 1,
        "peer_id": peer_text(kept.identity.peer_id),
        "wallet_address": kept.wallet.address,
        "identity": {"kdf": "scrypt", "n": scrypt_n, "salt": salt.hex(), "sealed": bytes(box.encrypt(kept.identity.export_seed())).hex()},
        "wallet": kept.wallet.seal(password, scrypt_n),
    }
    _write_new(path, json.dumps(content, indent=1).encode())
    return kept


def open_keystore(path: Path, password: str) -> Keys:
    """Read a keystore.

    Raises: KeystoreError: there is none, others may read it, it is damaged, or the password is wrong.
    """
    content = read_private(path)
    try:
        fields = parse_json(content)
        sealed_by = fields["identity"]
        scrypt_n, salt, sealed = int(sealed_by["n"]), bytes.fromhex(sealed_by["salt"]), bytes.fromhex(sealed_by["sealed"])
        keyfile, peer, address = fields["wallet"], str(fields["peer_id"]), str(fields["wallet_address"])
        _check_cost(path, scrypt_n, 1)
        parameters = keyfile["crypto"]["kdfparams"]
        if keyfile["crypto"]["kdf"] != "scrypt" or parameters["r"] > _SCRYPT_R:
            raise KeystoreError(path, "its wallet is not sealed with scrypt")
        _check_cost(path, int(parameters["n"]), int(parameters["p"]))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise KeystoreError(path, "it is damaged or no keystore; take your copy of it") from error
    try:
        seed = SecretBox(_stretch(password, salt, scrypt_n)).decrypt(sealed)
        keys = Keys(IdentityKey(seed), WalletKey.unseal(keyfile, password))
    except (CryptoError, ValueError, KeyError, TypeError, NotImplementedError) as error:
        raise KeystoreError(path, "the password is wrong (or the file was changed)") from error
    if (peer_text(keys.identity.peer_id), keys.wallet.address) != (peer, address):
        raise KeystoreError(path, "it names other keys than it holds; take your copy of it")
    return keys


def _stretch(password: str, salt: bytes, scrypt_n: int) -> bytes:
    memory = 2 * 128 * _SCRYPT_R * scrypt_n
    return hashlib.scrypt(password.encode(), salt=salt, n=scrypt_n, r=_SCRYPT_R, p=1, maxmem=memory, dklen=SecretBox.KEY_SIZE)


def _check_cost(path: Path, scrypt_n: int, parallel: int) -> None:
    if not 1 < scrypt_n <= _SCRYPT_N_MAX or scrypt_n & (scrypt_n - 1) or not 0 < parallel <= 16:
        raise KeystoreError(path, f"it asks for scrypt with n={scrypt_n}, p={parallel}, which is out of range")


def _write_new(path: Path, content: bytes) -> None:
    draft = path.with_name(f"{path.name}.{secrets.token_hex(8)}.new")
    try:
        if not path.parent.is_dir():
            path.parent.mkdir(parents=True, mode=0o700)
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.link(draft, path)  # Never over an existing one: it may hold the only copy of a key with money.
        finally:
            draft.unlink()
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        if path.exists():
            raise KeystoreError(path, "it exists already; choose another folder or use the keys that are there") from error
        raise KeystoreError(path, f"it cannot be written: {error.strerror or error}") from error


def describe_keystore(path: Path) -> dict[str, Any]:
    """What a keystore says without its password: `peer_id`, `wallet_address`. Raises: KeystoreError."""
    try:
        fields = parse_json(read_private(path))
        return {"peer_id": str(fields["peer_id"]), "wallet_address": str(fields["wallet_address"])}
    except (ValueError, KeyError, TypeError) as error:
        raise KeystoreError(path, "it is damaged or no keystore; take your copy of it") from error
