"""The wallet's private key: it signs transactions and the proof of identity, and is never shown.

`repr`, `str`, formatting and pickling never give the secret; only `export_secret` does, for the keystore.

eth-account loads the arithmetic of BLS signatures, a third of what a node needs to start; so it is loaded when the first transaction is
signed (`load_accounts`), and what a node does at every start, opening its keyfile and checking signed texts, is here.
"""

from __future__ import annotations

import hashlib
import secrets
import sys
from collections.abc import Mapping
from hmac import compare_digest
from types import ModuleType
from typing import Any, Final, NoReturn

from Crypto.Cipher import AES
from eth_keys.datatypes import PrivateKey, Signature
from eth_utils.crypto import keccak

from learnae.ids import Address

_KEY_BYTES: Final = 32  # Half of it opens the keyfile, the other half says whether the password is right.


def load_accounts() -> ModuleType:
    """eth-account, which knows transactions; the process's recursion limit stays as it is."""
    # A library under it (py_ecc) raises the limit to 100,000 for everybody: then a stranger's deeply nested bytes would end this
    # process with a segmentation fault instead of a RecursionError.
    limit = sys.getrecursionlimit()
    try:
        import eth_account

        return eth_account
    finally:
        sys.setrecursionlimit(limit)


def hash_text(text: str) -> bytes:
    """The 32 bytes that a wallet signs for a text (EIP-191)."""
    content = text.encode()
    return keccak(b"\x19Ethereum Signed Message:\n%d" % len(content) + content)


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
        signed = load_accounts().Account.sign_transaction(dict(fields), self._secret)
        return bytes(signed.raw_transaction), bytes(signed.hash)

    def sign_hash(self, digest: bytes) -> Signature:
        """Signature of 32 bytes that are a hash already (EIP-712)."""
        return PrivateKey(self._secret).sign_msg_hash(digest)

    def sign_text(self, text: str) -> bytes:
        """Signature of a text as wallets make it (EIP-191): r, s, v, 65 bytes."""
        signature = self.sign_hash(hash_text(text)).to_bytes()
        return bytes((*signature[:64], signature[64] + 27))

    def seal(self, password: str, scrypt_n: int) -> dict[str, Any]:
        """An Ethereum keyfile (version 3, scrypt) of this key; other wallet programs can import it."""
        load_accounts()
        from eth_keyfile.keyfile import create_keyfile_json

        return dict(create_keyfile_json(self._secret, password.encode(), kdf="scrypt", iterations=scrypt_n))

    @classmethod
    def unseal(cls, keyfile: dict[str, Any], password: str) -> WalletKey:
        """The key in a keyfile. Raises: ValueError: the password is wrong; KeyError, TypeError: it is no keyfile of `seal`'s kind."""
        return cls(_open_keyfile(keyfile["crypto"], password))

    def export_secret(self) -> bytes:
        """The private key, 32 bytes, for encryption into a keystore only."""
        return self._secret

    def __repr__(self) -> str:
        return f"WalletKey({self.address})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a wallet key is not copied out of its process")


def _open_keyfile(sealed: Mapping[str, Any], password: str) -> bytes:
    """The secret in the `crypto` part of a keyfile: version 3 of the Web3 Secret Storage definition, with scrypt."""
    costs = sealed["kdfparams"]
    n, r, p, length = (int(costs[name]) for name in ("n", "r", "p", "dklen"))
    if (sealed["cipher"], sealed["kdf"], length) != ("aes-128-ctr", "scrypt", _KEY_BYTES):
        raise ValueError("the keyfile is sealed in another way than aes-128-ctr and scrypt")
    memory = 128 * r * (n + p + 2)
    key = hashlib.scrypt(password.encode(), salt=bytes.fromhex(costs["salt"]), n=n, r=r, p=p, maxmem=memory, dklen=length)
    ciphertext = bytes.fromhex(sealed["ciphertext"])
    if not compare_digest(keccak(key[16:] + ciphertext), bytes.fromhex(sealed["mac"])):
        raise ValueError("the password is wrong")
    initial = int(sealed["cipherparams"]["iv"], 16)
    return AES.new(key[:16], AES.MODE_CTR, nonce=b"", initial_value=initial).decrypt(ciphertext)
