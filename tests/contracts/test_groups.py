"""Claims and ballots that members signed and anybody sends in groups (dao.md), on the contract and on its model."""

from __future__ import annotations

from random import Random

import pytest
from eth_utils.crypto import keccak

from learnae.backends.chain_server.engine import RefusedError
from learnae.backends.ethereum.abi import explain_refusal, pack_nays, session_abi
from learnae.backends.ethereum.reader import encode_session_creation
from learnae.ids import Address
from learnae.protocol.calls import CastBallot, SubmitClaim
from tests.contracts.bed import CHAIN_ID, DEPOSIT, EVIDENCE, FAULTS, GAS_MAX, Bed, make_terms, make_wallet

ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141  # of secp256k1
TOP = 1 << 255


def start_claims(members: int, **changes: int) -> Bed:
    bed = Bed(make_terms(**changes), wallets=max(10, members))
    bed.join(*range(members))
    bed.start_claims()
    return bed


def start_votes(members: int, claims: int | None = None, **changes: int) -> Bed:
    """Every member claims 10 points, or only the first few."""
    bed = start_claims(members, **changes)
    assert bed.claim_batch(*(bed.sign_claim(index, 10) for index in range(members if claims is None else claims))) == ""
    bed.start_votes()
    return bed


# --- claims -----------------------------------------------------------------------------------------------------


def test_claim_batch__is_the_same_as_the_claims_one_by_one() -> None:
    rng = Random(7)
    points = [rng.choice((0, 1, 50, 2**64 - 1)) for _ in range(45)]
    bed, direct = start_claims(45), start_claims(45)
    items = [bed.sign_claim(index, asked) for index, asked in enumerate(points)]
    rng.shuffle(items)
    assert bed.claim_batch(*items[:20]) == "" and bed.claim_batch(*items[20:]) == "" and bed.claim_batch() == ""
    for index, asked in enumerate(points):
        direct.claim(index, asked)
    bed.check()
    direct.check()
    assert bed.faults == [] and bed.model.points == direct.model.points == sum(points)


def test_claim_batch__skips_each_bad_item_and_takes_the_rest() -> None:
    """A bad item is skipped with its reason, never reverts the batch, and leaves no trace."""
    bed = start_claims(8)
    assert bed.claim(6, 9) == ""
    other = bed.deploy(b"\x60\x00\x60\x00\xf3")
    asked = SubmitClaim(10, EVIDENCE)
    r, vs = bed.sign(3, asked)
    s, parity = int.from_bytes(vs, "big") % TOP, int.from_bytes(vs, "big") & TOP
    wallet = make_wallet(3).address
    bad = {
        "NotAMember": [bed.sign_claim(9, 10)],
        "AlreadyClaimed": [bed.sign_claim(6, 10), bed.sign_claim(0, 10)],
        "TooManyPoints": [bed.sign_claim(3, 2**64), bed.sign_claim(3, 2**256 - 1)],
        "BadSignature": [
            (wallet, 10, EVIDENCE, *bed.sign(4, asked)),  # of somebody else
            (wallet, 10, EVIDENCE, *bed.sign(3, asked, session=other)),  # for another session
            (wallet, 10, EVIDENCE, *bed.sign(3, asked, chain_id=CHAIN_ID + 1)),  # on another chain
            (wallet, 11, EVIDENCE, r, vs),  # of other points
            (wallet, 10, b"\x06" * 32, r, vs),  # of other evidence
            (wallet, 10, EVIDENCE, *bed.sign(3, CastBallot(()))),  # of something else
            (wallet, 10, EVIDENCE, bytes(32), bytes(32)),
            (wallet, 10, EVIDENCE, r, bytes(32)),
            (wallet, 10, EVIDENCE, bytes(32), vs),
            (wallet, 10, EVIDENCE, b"\xff" * 32, vs),
            (wallet, 10, EVIDENCE, r, (s | parity ^ TOP).to_bytes(32, "big")),  # the other parity
            (wallet, 10, EVIDENCE, r, ((ORDER - s) % TOP | parity ^ TOP).to_bytes(32, "big")),  # the malleable twin
        ],
    }
    items = [bed.sign_claim(0, 10), *(item for group in bad.values() for item in group), bed.sign_claim(5, 20)]
    assert bed.claim_batch(*items) == ""
    assert bed.faults == [fault for fault, group in bad.items() for _ in group]
    bed.check()
    assert [seat.wallet for seat in bed.model.seats if seat.claim] == [make_wallet(index).address for index in (0, 5, 6)]
    assert bed.claim_batch((wallet, 10, EVIDENCE, r, vs)) == "" and bed.faults == [], "the honest signature still counts"
    bed.check()


def test_claim_batch__belongs_to_its_stage_and_needs_no_membership_of_its_sender() -> None:
    bed = Bed()
    bed.join(0)
    item = bed.sign_claim(0, 5)
    assert bed.claim_batch(item) == "WrongStage"
    bed.start_claims()
    assert bed.claim_batch(item) == ""
    bed.start_votes()
    assert bed.claim_batch(item) == "WrongStage"
    bed.check()


# --- ballots ----------------------------------------------------------------------------------------------------


def test_cast_grouped__is_counted_like_ballots_one_by_one() -> None:
    bed, direct = start_votes(45), start_votes(45)
    nays = (40, 41, 44)
    voters = [index for index in range(43) if index not in nays]
    assert bed.cast_grouped(nays, *(bed.sign_ballot(index, *nays) for index in voters)) == ""
    for index in voters:
        direct.cast(index, *nays)
    bed.check()
    direct.check()
    assert bed.faults == [] and bed.model.seats[44].nays == direct.model.seats[44].nays == 41


def test_counters__equal_a_plain_count_after_additions_that_carry_over_many_planes() -> None:
    """Groups that meet counters of all ones, 257 voters, two words: a prototype overflowed at the seventh and locked all money."""
    rejected = (0, 127, 255, 256, 261)
    bed = Bed(wallets=262)
    bed.join(*range(262))
    bed.start_claims()
    assert bed.claim_batch(*(bed.sign_claim(index, 1 + index) for index in sorted({*range(0, 262, 9), *rejected}))) == ""
    bed.start_votes()
    voters = [index for index in range(262) if index not in rejected]
    for size in (1, 2, 4, 120, 1, 127, 1):  # Up to 1, 3, 7, 127, 128, 255 and 256.
        group, voters = voters[:size], voters[size:]
        assert bed.cast_grouped(rejected, *(bed.sign_ballot(index, *rejected) for index in group)) == ""
        bed.check()
    assert bed.faults == [] and {bed.model.seats[index].nays for index in rejected} == {256}
    assert bed.cast(voters[0], 0, 261) == "" and bed.cast(0, 127) == ""
    bed.check()
    bed.end_votes()
    assert bed.drain() < 262
    assert [index for index, seat in enumerate(bed.model.seats) if seat.rejected] == list(rejected)


def test_cast_grouped__skips_each_bad_voter_and_counts_the_rest() -> None:
    bed = start_votes(8)
    assert bed.cast(6) == ""
    other = bed.deploy(b"\x60\x00\x60\x00\xf3")
    ballot = CastBallot((7,))
    wallet = make_wallet(3).address
    bad = {
        "NotAMember": [bed.sign_ballot(9, 7)],
        "AlreadyVoted": [bed.sign_ballot(6, 7), bed.sign_ballot(0, 7)],
        "NayOnOwnClaim": [bed.sign_ballot(7, 7)],
        "BadSignature": [
            bed.sign_ballot(3),  # of another ballot
            (wallet, *bed.sign(4, ballot)),
            (wallet, *bed.sign(3, ballot, session=other)),
            (wallet, *bed.sign(3, ballot, chain_id=1)),
            (wallet, *bed.sign(3, SubmitClaim(10, EVIDENCE))),
            (wallet, bytes(32), bytes(32)),
        ],
    }
    voters = [bed.sign_ballot(0, 7), *(voter for group in bad.values() for voter in group), bed.sign_ballot(5, 7)]
    assert bed.cast_grouped((7,), *voters) == ""
    assert bed.faults == [fault for fault, group in bad.items() for _ in group]
    assert bed.model.ballots == 3 and bed.model.seats[7].nays == 2
    bed.check()
    assert bed.cast_grouped((7,), bed.sign_ballot(3, 7)) == "" and bed.faults == []
    bed.check()


def test_cast_grouped__a_ballot_that_nobody_may_cast_is_refused_without_a_trace() -> None:
    bed = start_votes(8, claims=5)
    for nays, why in (((5,), "NayWithoutClaim"), ((255,), "NayWithoutClaim"), ((256,), "BallotTooLong"), ((0, 1, 2, 3), "TooManyNays")):
        assert bed.cast_grouped(nays, bed.sign_ballot(6, *nays), bed.sign_ballot(7, *nays)) == why
    bed.check()
    assert bed.model.ballots == 0
    assert bed.cast_grouped((0, 1, 2), bed.sign_ballot(6, 0, 1, 2)) == "" and bed.faults == []


def test_cast_grouped__words_other_than_the_signed_ones_are_another_ballot() -> None:
    """A relayer that appends empty words gets no vote counted, and the voter can still be counted."""
    bed = start_votes(3)
    data = session_abi().encode("castGrouped", [*pack_nays((2,)), 0], [bed.sign_ballot(0, 2)])
    with pytest.raises(RefusedError) as caught:
        bed.transact(make_wallet(1), bed.session, data)
    assert explain_refusal(caught.value.revert or b"")[0] == "BallotTooLong"
    data = session_abi().encode("castGrouped", [0], [bed.sign_ballot(0)])
    assert [name for name, _ in bed.read_events(bed.transact(make_wallet(1), bed.session, data))] == ["Skipped", "BallotsCast"]
    bed.check()
    assert bed.cast_grouped((), bed.sign_ballot(0)) == "" and bed.faults == []
    bed.check()


def test_cast_grouped__a_group_across_the_quorum_extends_the_vote_once() -> None:
    bed = start_votes(9, reject_quorum_permille=500)  # Five ballots are the quorum.
    bed.cast(0)
    bed.travel(bed.terms.voting_ends_s - 10)
    assert bed.cast_grouped((), *(bed.sign_ballot(index) for index in (1, 2, 3))) == ""
    assert bed.model.voting_ends_s == bed.terms.voting_ends_s
    assert bed.cast_grouped((8,), *(bed.sign_ballot(index, 8) for index in (4, 5, 6))) == ""
    extended = bed.model.voting_ends_s
    assert extended == bed.now_s + 2_500
    bed.travel(extended - 10)
    assert bed.cast_grouped((8,), bed.sign_ballot(7, 8)) == "" and bed.model.voting_ends_s == extended
    bed.travel(extended)
    assert bed.cast_grouped((), bed.sign_ballot(8)) == "WrongStage"
    assert bed.drain() < 9


def test_groups__cost_what_the_sizes_of_groups_are_planned_with() -> None:
    """Every transaction stays below 2^24 gas (EIP-7825): 700 claims, 900 voters or 700 payouts, also with 16 words."""
    bed = start_claims(60)
    bed.claim_batch(*(bed.sign_claim(index, 2**63 + index) for index in range(60)))
    bed.start_votes()
    nays = tuple(range(0, 60, 10))
    bed.cast_grouped(nays, *(bed.sign_ballot(index, *nays) for index in range(60) if index % 10))
    bed.end_votes()
    bed.call(make_wallet(299), "tally", 16)
    bed.call(make_wallet(299), "releaseBatch", [seat.wallet for seat in bed.model.seats])
    widest = 16 * 12 * 25_000 + 16 * 3_000  # Every plane of every word opened by one group.
    assert bed.gas["claimBatch"] / 60 * 700 < GAS_MAX, bed.gas
    assert bed.gas["castGrouped"] / 54 * 900 + widest < GAS_MAX, bed.gas
    assert bed.gas["releaseBatch"] / 54 * 700 < GAS_MAX, bed.gas
    assert bed.balance(bed.session) < 60


# --- what a signature is worth ----------------------------------------------------------------------------------------


def test_signature__used_in_one_session_does_nothing_in_another() -> None:
    """The same members, the same terms, the same chain: signatures are replayed and all are skipped."""
    bed = Bed()
    second = bed.deploy(encode_session_creation(bed.terms))
    bed.join(0, 1, 2)
    for index in range(3):
        bed.transact(make_wallet(index), second, session_abi().encode("join", second), DEPOSIT)
    bed.start_claims()
    claims = [bed.sign_claim(index, 10) for index in range(3)]
    assert bed.claim_batch(*claims) == "" and bed.faults == []
    assert skip(bed, second, "claimBatch", claims) == [BAD_SIGNATURE] * 3
    for index in range(3):
        bed.transact(make_wallet(index), second, session_abi().encode("claim", 10, EVIDENCE))
    bed.start_votes()
    ballots = [bed.sign_ballot(index) for index in range(3)]
    assert bed.cast_grouped((), *ballots) == "" and bed.faults == []
    assert skip(bed, second, "castGrouped", [], ballots) == [BAD_SIGNATURE] * 3
    bed.check()


def skip(bed: Bed, session: Address, function: str, *values: object) -> list[int]:
    """The faults of a group that is sent to another session of the same chain."""
    mined = bed.transact(make_wallet(9), session, session_abi().encode(function, *values))
    found = [session_abi().decode_log([topic.to_bytes(32, "big") for topic in log.topics], log.data) for log in mined.receipt.logs]
    return [fields["fault"] for name, fields in filter(None, found) if name == "Skipped"]


BAD_SIGNATURE = FAULTS.index("BadSignature")


def test_domain__is_computed_for_this_chain_and_contract() -> None:
    """EIP-712: the separator that the contract uses is the one that wallets compute, chain id included."""
    bed = Bed()
    types = "EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"
    parts = [keccak(text=types), keccak(text="learnae Session"), keccak(text="1"), CHAIN_ID.to_bytes(32, "big")]
    assert bed.view("domainSeparator") == (keccak(b"".join(parts) + bytes(12) + bytes.fromhex(bed.session[2:])),)
