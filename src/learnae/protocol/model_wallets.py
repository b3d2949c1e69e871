"""Signatures of wallets where the chain itself is a model: the simulator and the memory chain.

A real wallet signs with secp256k1 by EIP-712, and anybody can recover who signed (`backends.ethereum`). Here the model of the chain keeps
one secret for all wallets and signs and checks with it: a keyed hash. So a signature that somebody made up is refused as the contract would
refuse it, and nothing beyond that is shown; whoever holds the `ModelWallets` could sign for everybody. Pure.
"""

from __future__ import annotations

import hashlib

from learnae.ids import Address
from learnae.protocol.calls import CastBallot, Signable, SubmitClaim
from learnae.tangle import cbor

WALLET_SIGNATURE_BYTES = 64  # As EIP-2098.


class ModelWallets:
    """Signs for the wallets of one model of a chain, and checks what others say they signed."""

    def __init__(self, secret: bytes) -> None:
        self._secret = hashlib.blake2b(secret).digest()

    def sign(self, session: Address, wallet: Address, call: Signable) -> bytes:
        """64 bytes that only this wallet, session and claim or ballot give."""
        match call:
            case SubmitClaim(points, evidence):
                content: list[object] = ["claim", points, evidence]
            case CastBallot(nays):
                content = ["ballot", sorted(set(nays))]
        signed = cbor.encode([session, wallet, content])
        return hashlib.blake2b(signed, key=self._secret, digest_size=WALLET_SIGNATURE_BYTES).digest()

    def is_signed(self, session: Address, wallet: Address, call: Signable, signature: bytes) -> bool:
        """Whether `wallet` signed this for `session`."""
        return signature == self.sign(session, wallet, call)
