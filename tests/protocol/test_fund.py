"""The reference model of the session's contract by itself: money is conserved and always gets out (section 6, dao.md)."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from learnae.ids import Address, Wei
from learnae.protocol.calls import CastBallot, SessionTerms, Signable, SignedBallot, SignedClaim, Stage, SubmitClaim
from learnae.protocol.fund import FundError, SessionFund, validate_terms
from learnae.protocol.model_wallets import ModelWallets

T0 = 1000
MEMBERS = tuple(Address(f"0x{index:040d}") for index in range(1, 8))
SESSION = Address("0x" + "5" * 40)
WALLETS = ModelWallets(b"test")


def make_fund(members: int = 0, *, members_min: int = 1, quorum: int = 200, deposit: int = 1_000_003) -> SessionFund:
    terms = SessionTerms(
        rules_digest=bytes(32),
        deposit_wei=Wei(deposit),
        members_min=members_min,
        members_max=7,
        funding_ends_s=T0 + 10,
        training_ends_s=T0 + 20,
        claiming_ends_s=T0 + 30,
        voting_ends_s=T0 + 40,
        reject_quorum_permille=quorum,
    )
    validate_terms(terms, T0)
    fund = SessionFund(terms)
    for wallet in MEMBERS[:members]:
        fund.join(wallet, wallet, deposit, T0)
    return fund


ballots = st.dictionaries(st.integers(0, 6), st.sets(st.integers(0, 6), max_size=3), max_size=7)


claims = st.dictionaries(st.integers(0, 6), st.integers(0, 2**64 - 1))


@given(st.integers(1, 7), claims, ballots, st.integers(0, 1000), st.integers(1, 10**30))
def test_fund__is_conserved_and_everybody_gets_out(
    members: int, points: dict[int, int], votes: dict[int, set[int]], quorum: int, deposit: int
) -> None:
    """Whatever is claimed and voted, what is paid and what stays add up, and what stays is dust."""
    fund = make_fund(members, quorum=quorum, deposit=deposit)
    for index, asked in points.items():
        if index < members:
            fund.claim(MEMBERS[index], asked, bytes(32), T0 + 20)
    for index, nays in votes.items():
        try:
            fund.cast(MEMBERS[index], nays, T0 + 30)
        except FundError as refusal:
            assert refusal.reason in ("NotAMember", "NayOnOwnClaim", "NayWithoutClaim", "TooManyNays")
    end_s = fund.voting_ends_s
    if fund.compute_stage(end_s) is Stage.SETTLING:
        fund.tally(1, end_s)
    stage = fund.compute_stage(end_s)
    assert stage in (Stage.RELEASED, Stage.REFUNDED)
    due = {wallet: fund.compute_due(wallet, end_s) for wallet in MEMBERS}
    paid = fund.release(MEMBERS, end_s)
    assert paid == {wallet: amount for wallet, amount in due.items() if amount}
    approved = sum(seat.claim is not None and not seat.rejected for seat in fund.seats)
    assert 0 <= fund.fund_wei - sum(paid.values()) < max(1, approved)
    assert stage is Stage.RELEASED or set(paid.values()) == {deposit}
    assert not fund.release(MEMBERS, end_s) and fund.compute_stage(end_s + 10**9) is stage


def test_stages__follow_the_clock_the_members_and_the_tally() -> None:
    """Fig. 5."""
    fund = make_fund(3)
    times = [(0, Stage.FUNDING), (9, Stage.FUNDING), (10, Stage.TRAINING), (20, Stage.CLAIMING), (30, Stage.VOTING), (40, Stage.REFUNDED)]
    for after_s, stage in times:
        assert fund.compute_stage(T0 + after_s) is stage
    fund.claim(MEMBERS[0], 1, bytes(32), T0 + 25)
    assert fund.compute_stage(T0 + 40) is Stage.REFUNDED, "no ballots"
    fund.cast(MEMBERS[1], (), T0 + 35)
    assert fund.compute_stage(T0 + 40) is Stage.SETTLING
    fund.tally(1, T0 + 40)
    assert fund.compute_stage(T0 + 40) is Stage.RELEASED
    assert make_fund(1, members_min=2).compute_stage(T0 + 10) is Stage.REFUNDED


def test_refused_call__changes_nothing() -> None:
    fund = make_fund(3)
    fund.claim(MEMBERS[0], 5, bytes(32), T0 + 20)
    before = repr(fund)
    for reason, call in (
        ("WrongStage", lambda: fund.join(MEMBERS[4], MEMBERS[4], 1_000_003, T0 + 20)),
        ("AlreadyClaimed", lambda: fund.claim(MEMBERS[0], 5, bytes(32), T0 + 20)),
        ("TooManyPoints", lambda: fund.claim(MEMBERS[1], -1, bytes(32), T0 + 20)),
        ("NotAMember", lambda: fund.claim(MEMBERS[5], 5, bytes(32), T0 + 20)),
        ("NayOnOwnClaim", lambda: fund.cast(MEMBERS[0], (0,), T0 + 30)),
        ("NayWithoutClaim", lambda: fund.cast(MEMBERS[0], (1,), T0 + 30)),
        ("BallotTooLong", lambda: fund.cast(MEMBERS[0], (-1,), T0 + 30)),
        ("NothingDue", lambda: fund.withdraw(MEMBERS[0], T0 + 30)),
        ("PaymentRefused", lambda: fund.withdraw(MEMBERS[0], T0 + 40, accepted=False)),
        ("WrongStage", lambda: fund.tally(1, T0 + 40)),
        ("WrongStage", lambda: fund.leave(MEMBERS[0], T0 + 10)),
    ):
        with pytest.raises(FundError, match=f"^{reason}$"):
            call()
        assert repr(fund) == before, reason


def sign(wallet: Address, call: Signable) -> bytes:
    return WALLETS.sign(SESSION, wallet, call)


def sign_claim(wallet: Address, points: int, *, by: Address | None = None) -> SignedClaim:
    return SignedClaim(wallet, points, bytes(32), sign(by or wallet, SubmitClaim(points, bytes(32))))


def is_signed(wallet: Address, call: Signable, signature: bytes) -> bool:
    return WALLETS.is_signed(SESSION, wallet, call, signature)


def test_claim_batch__skips_what_it_would_refuse_and_takes_the_rest() -> None:
    """dao.md: a bad item is skipped, never reverts the batch; what is taken equals the direct claims."""
    fund, direct = make_fund(4), make_fund(4)
    fund.claim(MEMBERS[3], 1, bytes(32), T0 + 20)
    items = (
        sign_claim(MEMBERS[0], 5),
        sign_claim(MEMBERS[1], 6, by=MEMBERS[0]),
        sign_claim(MEMBERS[3], 2),
        sign_claim(MEMBERS[5], 7),
        sign_claim(MEMBERS[0], 5),
        sign_claim(MEMBERS[2], 8),
    )

    assert fund.claim_batch(items, is_signed, T0 + 20) == (1, 2, 3, 4)
    for index, points in ((3, 1), (0, 5), (2, 8)):
        direct.claim(MEMBERS[index], points, bytes(32), T0 + 20)
    assert fund == direct
    with pytest.raises(FundError, match=r"^WrongStage$"):
        fund.claim_batch(items, is_signed, T0 + 30)


def test_cast_grouped__counts_equal_ballots_as_one_addition() -> None:
    """dao.md: grouped ballots are counted like direct ones; who voted, did not sign, or rejects its own claim is skipped."""
    fund, direct = make_fund(7, quorum=400), make_fund(7, quorum=400)
    for each in (fund, direct):
        each.claim(MEMBERS[1], 5, bytes(32), T0 + 20)
        each.cast(MEMBERS[6], (), T0 + 30)
    ballots = tuple(SignedBallot(wallet, sign(wallet, CastBallot((1,)))) for wallet in (*MEMBERS, MEMBERS[0]))
    ballots = (*ballots, SignedBallot(MEMBERS[5], sign(MEMBERS[5], CastBallot(()))), SignedBallot(Address("0xabc"), bytes(64)))
    ballots = (ballots[0], replace(ballots[2], signature=bytes(64)), *ballots[3:])

    assert fund.cast_grouped((1,), ballots, is_signed, T0 + 39) == (1, 5, 6, 7, 8)
    for index in (0, 3, 4, 5):
        direct.cast(MEMBERS[index], (1,), T0 + 39)
    assert fund == direct and fund.voting_ends_s == T0 + 39 + 3 and fund.seats[1].nays == 4


def test_cast_grouped__refuses_a_ballot_that_nobody_could_cast() -> None:
    fund = make_fund(3)
    fund.claim(MEMBERS[0], 5, bytes(32), T0 + 20)
    fund.claim(MEMBERS[1], 5, bytes(32), T0 + 20)
    before = repr(fund)
    refusals = (("WrongStage", (), 20), ("NayWithoutClaim", (2,), 30), ("BallotTooLong", (256,), 30), ("TooManyNays", (0, 1), 30))
    for reason, nays, at_s in refusals:
        with pytest.raises(FundError, match=f"^{reason}$"):
            fund.cast_grouped(nays, (SignedBallot(MEMBERS[2], sign(MEMBERS[2], CastBallot(nays))),), is_signed, T0 + at_s)
        assert repr(fund) == before


@pytest.mark.parametrize("change", ["wallet", "session", "points", "evidence", "kind"])
def test_model_wallets__sign_one_thing_only(change: str) -> None:
    """Signatures of another session, member, claim or kind do nothing."""
    signature = sign(MEMBERS[0], SubmitClaim(5, bytes(32)))
    assert is_signed(MEMBERS[0], SubmitClaim(5, bytes(32)), signature) and len(signature) == 64
    call: Signable = SubmitClaim(6 if change == "points" else 5, b"e" * 32 if change == "evidence" else bytes(32))
    call = CastBallot(()) if change == "kind" else call
    wallet, session = MEMBERS[1 if change == "wallet" else 0], Address("0x1") if change == "session" else SESSION

    assert not WALLETS.is_signed(session, wallet, call, signature)
