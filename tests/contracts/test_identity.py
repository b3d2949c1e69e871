"""Proofs of identity on a chain (4.4): who may speak for a peer when somebody else was faster."""

from __future__ import annotations

import hashlib

from nacl.signing import SigningKey

from learnae.backends.ethereum import WalletKey
from learnae.backends.ethereum.abi import poid_abi
from learnae.backends.ethereum.poid import build_poid_creation, judge_poid, read_created_block
from learnae.ids import Address, PeerId
from learnae.protocol.calls import Member
from learnae.protocol.identity import judge_members
from tests.contracts.bed import CHAIN_ID, START_S, Bed, make_wallet

VICTIM, THIEF = make_wallet(1), make_wallet(2)


def make_identity(name: str) -> SigningKey:
    return SigningKey(hashlib.sha256(name.encode()).digest())


def make_proof(peer: str, wallet: WalletKey, *, signer: str = "") -> bytes:
    """Init code of a proof; `signer` is the peer whose key signs it, if not the one that it names."""
    identity = make_identity(signer or peer)
    peer_id = PeerId(bytes(make_identity(peer).verify_key))
    return build_poid_creation(peer_id, wallet, CHAIN_ID, lambda message: bytes(identity.sign(message).signature))


def read_member(bed: Bed, index: int, wallet: WalletKey, poid: Address) -> Member:
    """What a reader of the chain knows of one who joined with this contract."""
    code = bed.chain.state_at(bed.chain.head).get_code(bytes.fromhex(poid[2:]))
    (mined,) = [mined for mined in bed.chain.mined.values() if mined.contract == bytes.fromhex(poid[2:])]
    block = int(mined.block.number)
    position = (block, mined.index) if read_created_block(code) == block else None
    return Member(index=index, wallet=wallet.address, poid=judge_poid(poid, code, CHAIN_ID, position))


def test_front_runner__with_the_victims_own_proof_or_one_of_its_own_gets_nothing() -> None:
    """4.4: the thief sees the victim's transaction before it is in a block, and is first with a copy and with its own wallet."""
    bed = Bed()
    copy = bed.deploy(make_proof("victim", VICTIM))
    hijack = bed.deploy(make_proof("victim", THIEF, signer="thief"))
    proof = bed.deploy(make_proof("victim", VICTIM))
    members = [read_member(bed, 0, THIEF, copy), read_member(bed, 1, make_wallet(3), hijack), read_member(bed, 2, VICTIM, proof)]

    membership = judge_members(members)

    assert list(membership.by_peer.values()) == [members[2]]
    reasons = {member.index: why for member, why in membership.rejected}
    assert "names the wallet" in reasons[0] and reasons[1] == "the peer did not sign it"


def test_later_of_two_valid_proofs__is_fraud_by_its_place_in_the_chain() -> None:
    """4.4: one peer id with two wallets, both signed by the peer; the paper's rule decides, whoever joined first."""
    bed = Bed()
    first = bed.deploy(make_proof("victim", VICTIM))
    second = bed.deploy(make_proof("victim", THIEF))
    members = [read_member(bed, 0, THIEF, second), read_member(bed, 1, VICTIM, first)]
    assert members[0].poid.fault == members[1].poid.fault == "" and members[1].poid.position < members[0].poid.position

    membership = judge_members(members)

    assert list(membership.by_peer.values()) == [members[1]]
    assert "the later record is fraud" in membership.rejected[0][1]


def test_contract__answers_what_it_was_created_with_and_nothing_can_change_it() -> None:
    """4.4: getPoid() and getTimestamp(), no owner, no setter, no storage, no payments."""
    bed = Bed()
    proof = bed.deploy(make_proof("victim", VICTIM))
    peer_id, wallet, key = bed.ask(poid_abi(), proof, "getPoid")

    assert (peer_id, wallet) == (bytes(make_identity("victim").verify_key), VICTIM.address.lower())
    assert b"".join(key) == VICTIM.public_key
    assert START_S < bed.ask(poid_abi(), proof, "getTimestamp")[0] == bed.now_s
    assert bed.ask(poid_abi(), proof, "getBlock")[0] == bed.chain.head.block_number
    functions = [item for item in poid_abi().artefact.abi if item["type"] == "function"]
    assert functions and all(item["stateMutability"] == "view" for item in functions)
    assert not any(item["type"] in ("receive", "fallback") for item in poid_abi().artefact.abi)
