"""The reference model of the session's contract by itself: money is conserved and always gets out (section 6, dao.md)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from learnae.ids import Address, Wei
from learnae.protocol.calls import SessionTerms, Stage
from learnae.protocol.fund import FundError, SessionFund, validate_terms

T0 = 1000
MEMBERS = tuple(Address(f"0x{index:040d}") for index in range(1, 8))


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
