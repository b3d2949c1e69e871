"""The wallet's private key: it signs transactions and the proof of identity, and is never shown.

`repr`, `str`, formatting and pickling never give the secret; only `export_secret` does, for the keystore.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any, NoReturn

from eth_account import Account
from eth_account.messages import encode_defunct
from eth_keyfile.keyfile import create_keyfile_json, decode_keyfile_json
from eth_keys.datatypes import PrivateKey, Signature

from learnae.ids import Address


class WalletKey:
    """A secp256k1 key of an Ethereum wallet."""

    __slots__ = ("_secret", "address", "public_key")

    def __init__(self, secret: bytes) -> None:
        """Args: secret: the 32 bytes of the private key."""
        key = PrivateKey(secret)
        self._secret = secret
        self.public_key: bytes = key.public_key.to_bytes()  # 64 bytes, uncompressed without prefix
        self.address = Address(key.public_key.to_checksum_address())

    @classmethod
    def create(cls) -> WalletKey:
        """A new random key."""
        while True:
            secret = secrets.token_bytes(32)
            if 0 < int.from_bytes(secret, "big") < 2**255:  # Far inside the group's order.
                return cls(secret)

    def sign_transaction(self, fields: Mapping[str, Any]) -> tuple[bytes, bytes]:
        """The signed raw transaction and its hash."""
        signed = Account.sign_transaction(dict(fields), self._secret)
        return bytes(signed.raw_transaction), bytes(signed.hash)

    def sign_hash(self, digest: bytes) -> Signature:
        """Signature of 32 bytes that are a hash already (EIP-712)."""
        return PrivateKey(self._secret).sign_msg_hash(digest)

    def sign_text(self, text: str) -> bytes:
        """Signature of a text as wallets make it (EIP-191): r, s, v, 65 bytes."""
        return bytes(Account.sign_message(encode_defunct(text=text), self._secret).signature)

    def seal(self, password: str, scrypt_n: int) -> dict[str, Any]:
        """An Ethereum keyfile (version 3, scrypt) of this key; other wallet programs can import it."""
        return dict(create_keyfile_json(self._secret, password.encode(), kdf="scrypt", iterations=scrypt_n))

    @classmethod
    def unseal(cls, keyfile: dict[str, Any], password: str) -> WalletKey:
        """The key in a keyfile. Raises: ValueError: the password is wrong; KeyError, TypeError: it is no keyfile."""
        return cls(bytes(decode_keyfile_json(keyfile, password.encode())))

    def export_secret(self) -> bytes:
        """The private key, 32 bytes, for encryption into a keystore only."""
        return self._secret

    def __repr__(self) -> str:
        return f"WalletKey({self.address})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a wallet key is not copied out of its process")
