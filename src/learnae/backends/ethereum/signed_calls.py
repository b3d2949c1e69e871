"""Claims and ballots that a wallet signs and anybody may send: EIP-712, in the 64 bytes of EIP-2098 (r, and s with the parity on top).

The contract checks the same; here they are checked before a transaction carries them, so that junk costs its sender nothing.
"""

from __future__ import annotations

from functools import partial
from typing import Final

from eth_keys.datatypes import Signature
from eth_keys.exceptions import BadSignature
from eth_utils.crypto import keccak
from eth_utils.exceptions import ValidationError

from learnae.backends.ethereum.abi import pack_nays, session_abi
from learnae.backends.ethereum.wallet import WalletKey
from learnae.errors import TransactionError
from learnae.ids import Address
from learnae.protocol.calls import CastBallot, CastGrouped, ClaimBatch, Signable, SubmitClaim

SIGNATURE_BYTES: Final = 64
_HALF_ORDER: Final = 0x7FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF5D576E7357A4501DDFE92F46681B20A0
_DOMAIN_TYPE: Final = keccak(text="EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)")
_CLAIM_TYPE: Final = keccak(text="Claim(address member,uint256 points,bytes32 evidence)")
_BALLOT_TYPE: Final = keccak(text="Ballot(address member,bytes32 nay)")
_NAME: Final = keccak(text="learnae Session")
_VERSION: Final = keccak(text="1")


def sign_call(key: WalletKey, *, chain_id: int, session: Address, call: Signable) -> bytes:
    """The wallet's signature of its claim or ballot in this session on this chain, 64 bytes."""
    signature = key.sign_hash(_hash(chain_id, session, key.address, call))
    parity_and_s = signature.v << 255 | signature.s
    return int(signature.r).to_bytes(32, "big") + int(parity_and_s).to_bytes(32, "big")


def is_signed(wallet: Address, call: Signable, signature: bytes, *, chain_id: int, session: Address) -> bool:
    """Whether `wallet` signed this claim or ballot for this session on this chain."""
    if len(signature) != SIGNATURE_BYTES:
        return False
    r, parity_and_s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
    parity, s = parity_and_s >> 255, parity_and_s & (1 << 255) - 1
    if s > _HALF_ORDER:
        return False  # The other form of the same signature; the contract refuses it.
    try:
        found = Signature(vrs=(parity, r, s)).recover_public_key_from_msg_hash(_hash(chain_id, session, wallet, call))
    except (BadSignature, ValidationError):
        return False
    return bool(found.to_checksum_address().lower() == wallet.lower())


def encode_group(group: ClaimBatch | CastGrouped, *, chain_id: int, session: Address) -> tuple[str, bytes]:
    """What the group is called for people, and the call's data: only with what its members signed.

    Raises: TransactionError: no item is signed by the member that it names.
    """
    abi, is_ours = session_abi(), partial(is_signed, chain_id=chain_id, session=session)
    what = "the claims" if isinstance(group, ClaimBatch) else "the ballots"
    items: list[tuple[object, ...]]
    if isinstance(group, ClaimBatch):
        claims = [c for c in group.claims if is_ours(c.member, SubmitClaim(c.points, c.evidence), c.signature)]
        items = [(c.member, c.points, c.evidence, *_halves(c.signature)) for c in claims]
    else:
        ballot = CastBallot(group.nays)
        items = [(b.member, *_halves(b.signature)) for b in group.ballots if is_ours(b.member, ballot, b.signature)]
    if not items:
        raise TransactionError(what, "none of them is signed by the member that it names", "NothingSigned")
    values = (items,) if isinstance(group, ClaimBatch) else (pack_nays(group.nays), items)
    return what, abi.encode("claimBatch" if isinstance(group, ClaimBatch) else "castGrouped", *values)


def _halves(signature: bytes) -> tuple[bytes, bytes]:
    return signature[:32], signature[32:]


def _hash(chain_id: int, session: Address, wallet: Address, call: Signable) -> bytes:
    """The 32 bytes that are signed: EIP-712 over the domain of one session on one chain.

    Put together here and not by eth-account, which takes 60 times as long; a group has hundreds of them.
    """
    if isinstance(call, SubmitClaim):
        fields = [_CLAIM_TYPE, _word(wallet), call.points.to_bytes(32, "big"), call.evidence]
    else:
        fields = [_BALLOT_TYPE, _word(wallet), keccak(b"".join(word.to_bytes(32, "big") for word in pack_nays(call.nays)))]
    domain = keccak(b"".join((_DOMAIN_TYPE, _NAME, _VERSION, chain_id.to_bytes(32, "big"), _word(session))))
    return keccak(b"\x19\x01" + domain + keccak(b"".join(fields)))


def _word(address: Address) -> bytes:
    return bytes(12) + bytes.fromhex(address[2:])
