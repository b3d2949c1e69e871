"""Proof of identity (4.4): one contract binds a peer id to a wallet, signed by both.

The peer's Ed25519 key signs the wallet and the chain id under a domain string; the wallet signs the peer id and the chain id
as a text. A reader trusts nothing that a contract answers: it compares the runtime code with the shipped artefact, takes
the fields out of the code, checks both signatures, and orders records by where their deployment stands in the chain.
Source: LEARNAE DAO paper, section 4.4. Deviation: the paper's contract holds no signatures, so anybody could deploy one
with a stranger's peer id; the later time stamp then decides by luck.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from eth_keys.datatypes import Signature
from eth_keys.exceptions import BadSignature
from eth_utils.crypto import keccak
from eth_utils.exceptions import ValidationError

from learnae.backends.ethereum.abi import checksum, poid_abi
from learnae.backends.ethereum.wallet import WalletKey, hash_text
from learnae.ids import Address, PeerId, peer_text
from learnae.protocol.calls import PoidRecord
from learnae.protocol.identity import compute_peer_message, is_signed_by_peer

_ADDRESS_BYTES: Final = 20
_UNKNOWN: Final = "its code is not the proof of identity that this program knows"


def compute_wallet_text(peer_id: PeerId, chain_id: int) -> str:
    """What the wallet signs, as a text that a wallet program can show."""
    return f"LEARNAE proof of identity\nThis wallet is paid for peer {peer_text(peer_id)}\non chain {chain_id}."


def build_poid_creation(peer_id: PeerId, wallet: WalletKey, chain_id: int, sign_identity: Callable[[bytes], bytes]) -> bytes:
    """Init code that deploys this peer's proof of identity. `sign_identity` gives a 64-byte Ed25519 signature."""
    peer_signature = sign_identity(compute_peer_message(wallet.address, chain_id))
    wallet_signature = wallet.sign_text(compute_wallet_text(peer_id, chain_id))
    return poid_abi().encode_creation(
        bytes(peer_id),
        wallet.address,
        _halves(wallet.public_key),
        _halves(peer_signature),
        _halves(wallet_signature[:64]),
        wallet_signature[64],
    )


def judge_poid(contract: Address, code: bytes, chain_id: int, position: tuple[int, int] | None) -> PoidRecord:
    """Read a proof of identity out of its runtime code.

    Args:
        code: what the chain holds at `contract`.
        position: block number and transaction index where its creation was logged; None if that was not found.
    Returns: the record; `fault` says in words what is wrong with it, if anything.
    """
    fields = poid_abi().artefact.read_immutables(code)
    if fields is None:
        return _faulty(contract, _UNKNOWN)
    peer_id = PeerId(fields["peerId"])
    wallet = checksum(fields["wallet"][-_ADDRESS_BYTES:])
    public_key = fields["publicKeyX"] + fields["publicKeyY"]
    fault = _find_fault(fields, peer_id, wallet, chain_id) or ("" if position else "its creation is not logged in the block that it names")
    return PoidRecord(
        contract=contract,
        peer_id=peer_id,
        wallet=wallet,
        public_key=public_key,
        timestamp_s=int.from_bytes(fields["timestamp"], "big"),
        position=position or (0, 0),
        fault=fault,
    )


def judge_late(contract: Address) -> PoidRecord:
    """The record of a member whose proof of identity was deployed after it joined: the same as while nothing was there."""
    return _faulty(contract, _UNKNOWN)


def encode_own_creation(code: bytes) -> bytes:
    """The init code that deploys exactly this proof of identity; empty if it is none."""
    fields = poid_abi().artefact.read_immutables(code)
    if fields is None or any(fields["wallet"][:-_ADDRESS_BYTES]) or any(fields["walletSignatureV"][:-1]):
        return b""
    pairs = (("publicKeyX", "publicKeyY"), ("peerSignatureR", "peerSignatureS"), ("walletSignatureR", "walletSignatureS"))
    halves = [(fields[first], fields[second]) for first, second in pairs]
    wallet = checksum(fields["wallet"][-_ADDRESS_BYTES:])
    return poid_abi().encode_creation(fields["peerId"], wallet, *halves, fields["walletSignatureV"][-1])


def read_created_block(code: bytes) -> int | None:
    """The block in which the code says that it was deployed; None if it is no proof of identity."""
    fields = poid_abi().artefact.read_immutables(code)
    return None if fields is None else int.from_bytes(fields["createdBlock"], "big")


def _find_fault(fields: Mapping[str, bytes], peer_id: PeerId, wallet: Address, chain_id: int) -> str:
    public_key = fields["publicKeyX"] + fields["publicKeyY"]
    if any(fields["wallet"][:-_ADDRESS_BYTES]) or any(fields["walletSignatureV"][:-1]):
        return "its fields are out of range"
    if keccak(public_key)[-_ADDRESS_BYTES:] != bytes.fromhex(wallet[2:]):
        return "its public key is not the wallet's"
    if not is_signed_by_peer(peer_id, wallet, chain_id, fields["peerSignatureR"] + fields["peerSignatureS"]):
        return "the peer did not sign it"
    parity = fields["walletSignatureV"][-1] - 27
    digest = hash_text(compute_wallet_text(peer_id, chain_id))
    try:
        signature = Signature(fields["walletSignatureR"] + fields["walletSignatureS"] + bytes((parity % 256,)))
        signer = signature.recover_public_key_from_msg_hash(digest).to_bytes()
    except (BadSignature, ValidationError, ValueError):
        return "the wallet did not sign it"
    return "" if signer == public_key else "the wallet did not sign it"


def _faulty(contract: Address, fault: str) -> PoidRecord:
    return PoidRecord(
        contract=contract,
        peer_id=PeerId(bytes(32)),
        wallet=Address("0x" + "0" * 40),
        public_key=bytes(64),
        timestamp_s=0,
        position=(0, 0),
        fault=fault,
    )


def _halves(pair: bytes) -> tuple[bytes, bytes]:
    return pair[:32], pair[32:64]
