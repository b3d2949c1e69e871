"""Signatures that others send to the contract: EIP-712 in the 64 bytes of EIP-2098, against eth-account's own typed data."""

from __future__ import annotations

import pytest
from eth_account import Account
from eth_account.messages import encode_typed_data
from eth_utils.crypto import keccak

from learnae.backends.ethereum.abi import pack_nays
from learnae.backends.ethereum.signed_calls import encode_group, is_signed, sign_call
from learnae.errors import TransactionError
from learnae.ids import Address
from learnae.protocol.calls import CastBallot, CastGrouped, ClaimBatch, Signable, SignedBallot, SignedClaim, SubmitClaim
from tests.backends.chain_beds import make_wallet

SESSION = Address("0x" + "ab" * 20)
CLAIM = SubmitClaim(2**64 - 1, b"\x07" * 32)
BALLOT = CastBallot((1, 300))
ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141


@pytest.mark.parametrize("call", [CLAIM, BALLOT, CastBallot(())], ids=["claim", "ballot", "empty ballot"])
def test_signature__is_what_a_wallet_makes_of_the_typed_data(call: Signable) -> None:
    """EIP-712: any wallet could have signed it; eth-account recovers the member from our bytes."""
    key = make_wallet("signer")
    signature = sign_call(key, chain_id=1337, session=SESSION, call=call)
    if isinstance(call, SubmitClaim):
        fields = [("member", "address"), ("points", "uint256"), ("evidence", "bytes32")]
        kind, message = "Claim", {"member": key.address, "points": call.points, "evidence": call.evidence}
    else:
        words = b"".join(word.to_bytes(32, "big") for word in pack_nays(call.nays))
        fields = [("member", "address"), ("nay", "bytes32")]
        kind, message = "Ballot", {"member": key.address, "nay": keccak(words)}
    domain = {"name": "learnae Session", "version": "1", "chainId": 1337, "verifyingContract": SESSION}
    typed = encode_typed_data(domain, {kind: [{"name": name, "type": kind_} for name, kind_ in fields]}, message)
    r, vs = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")

    assert len(signature) == 64
    assert Account.recover_message(typed, vrs=(27 + (vs >> 255), r, vs & (1 << 255) - 1)) == key.address
    assert is_signed(key.address, call, signature, chain_id=1337, session=SESSION)


@pytest.mark.parametrize("change", ["chain", "session", "wallet", "call", "bit", "length", "zero", "malleable"])
def test_signature__of_anything_else_is_refused(change: str) -> None:
    """Signatures of another chain, session, member or claim do nothing; nor does the second form of the same signature."""
    key = make_wallet("signer")
    signature = sign_call(key, chain_id=1337, session=SESSION, call=CLAIM)
    wallet = make_wallet("other").address if change == "wallet" else key.address
    call = SubmitClaim(1, CLAIM.evidence) if change == "call" else CLAIM
    vs = int.from_bytes(signature[32:], "big")
    flipped = (1 - (vs >> 255)) << 255 | (ORDER - (vs & (1 << 255) - 1)) & (1 << 255) - 1
    bytes_of = {
        "bit": bytes([signature[0] ^ 1]) + signature[1:],
        "length": signature + b"\0",
        "zero": bytes(64),
        "malleable": signature[:32] + flipped.to_bytes(32, "big"),
    }
    session = Address("0x" + "cd" * 20) if change == "session" else SESSION

    assert not is_signed(wallet, call, bytes_of.get(change, signature), chain_id=1 if change == "chain" else 1337, session=session)


def test_group__without_one_good_signature_is_not_sent() -> None:
    """Junk that came by gossip costs its relayer nothing."""
    junk = SignedClaim(make_wallet("signer").address, 5, bytes(32), b"\x01" * 64)
    for group in (ClaimBatch((junk,)), CastGrouped((), (SignedBallot(junk.member, junk.signature),))):
        with pytest.raises(TransactionError, match="none of them is signed by the member that it names"):
            encode_group(group, chain_id=1337, session=SESSION)
