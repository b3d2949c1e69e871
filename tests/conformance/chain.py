"""What every `Chain` backend must do: one session from its creation to the last withdrawal, with every kind of refusal."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

import pytest

from learnae.errors import NotASessionError, NotEnoughMoneyError, TransactionError
from learnae.ids import Address, Wei
from learnae.ports import Chain, Receipt
from learnae.protocol.calls import (
    Call,
    CastBallot,
    CastGrouped,
    ClaimBatch,
    DeployPoid,
    Join,
    Leave,
    PayTip,
    Release,
    SessionTerms,
    SignedBallot,
    SignedClaim,
    Stage,
    SubmitClaim,
    Tally,
    Withdraw,
    WithdrawTo,
)

DEPOSIT = Wei(10**17)
STRANGER = Address("0x00000000000000000000000000000000000A11cE")
EVIDENCE = b"\x07" * 32


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainBed:
    """A chain with money. `travel_to` makes the newest block carry that time, or a little later."""

    chains: Sequence[Chain]  # five wallets with an ether or more each, and a sixth with less than the deposit
    now_s: Callable[[], Awaitable[int]]
    travel_to: Callable[[int], Awaitable[None]]


def make_terms(now_s: int, *, members_min: int = 2, members_max: int = 5) -> SessionTerms:
    """Stages of 1,000 s each."""
    return SessionTerms(
        rules_digest=b"\x11" * 32,
        deposit_wei=DEPOSIT,
        members_min=members_min,
        members_max=members_max,
        funding_ends_s=now_s + 1000,
        training_ends_s=now_s + 2000,
        claiming_ends_s=now_s + 3000,
        voting_ends_s=now_s + 4000,
        reject_quorum_permille=200,
    )


async def check_chain(bed: ChainBed) -> None:
    """Runs everything; raises AssertionError where the backend differs."""
    await check_terms(bed)
    await check_released_session(bed)
    await check_refunded_session(bed)
    await check_tip(bed)


async def check_terms(bed: ChainBed) -> None:
    chain = bed.chains[0]
    terms = make_terms(await bed.now_s())
    session = await chain.deploy_session(terms)
    assert await bed.chains[1].read_terms(session) == terms
    for read in (chain.read_terms, chain.read):
        with pytest.raises(NotASessionError, match="no contract"):
            await read(STRANGER)
    with pytest.raises(TransactionError) as caught:
        await chain.deploy_session(make_terms(0))
    assert caught.value.reason == "BadTerms"


async def check_released_session(bed: ChainBed) -> None:
    """Fig. 5 from FUNDING to RELEASED: three claims, one of them rejected, one member that never claims."""
    chains, poor = bed.chains[:4], bed.chains[5]
    terms = make_terms(await bed.now_s(), members_max=4)
    session = await chains[0].deploy_session(terms)
    await _fund(bed, session, terms)
    await expect_refusal(chains[0], session, SubmitClaim(1, EVIDENCE), "WrongStage")
    await bed.travel_to(terms.funding_ends_s)
    assert (await chains[0].read(session)).stage is Stage.TRAINING
    await expect_refusal(chains[0], session, Leave(), "WrongStage")

    await bed.travel_to(terms.training_ends_s)
    for chain, points in zip(chains, (100, 50, 7), strict=False):
        await chain.submit(session, SubmitClaim(points, EVIDENCE))
    await expect_refusal(chains[0], session, SubmitClaim(1, EVIDENCE), "AlreadyClaimed")
    await expect_refusal(chains[3], session, SubmitClaim(2**64, EVIDENCE), "TooManyPoints")
    await expect_refusal(poor, session, SubmitClaim(1, EVIDENCE), "NotAMember")
    view = await chains[3].read(session)
    assert [(claim.index, claim.points) for claim in view.claims] == [(0, 100), (1, 50), (2, 7)]
    assert {claim.evidence for claim in view.claims} == {EVIDENCE}
    assert view.nay_counts is None and view.due_wei is None and view.stage is Stage.CLAIMING
    assert view.beacon is None, "nobody knows it while rows may still be closed"

    await bed.travel_to(terms.claiming_ends_s)
    await expect_refusal(chains[0], session, CastBallot((0,)), "NayOnOwnClaim")
    await expect_refusal(chains[0], session, CastBallot((3,)), "NayWithoutClaim")
    await expect_refusal(chains[0], session, CastBallot((256,)), "BallotTooLong")
    await expect_refusal(chains[0], session, CastBallot((1, 2)), "TooManyNays")
    await expect_refusal(chains[0], session, Tally(), "WrongStage")
    for chain, nays in zip(chains, ((2,), (2,), ()), strict=False):
        await chain.submit(session, CastBallot(nays))
    await expect_refusal(chains[0], session, CastBallot(()), "AlreadyVoted")
    view = await chains[0].read(session)
    assert view.ballots == {0, 1, 2} and view.nay_counts == {0: 0, 1: 0, 2: 2} and view.approved == frozenset()
    assert view.voting_ends_s == terms.voting_ends_s
    assert view.beacon is not None and len(view.beacon) == 32
    assert (await chains[3].read(session)).beacon == view.beacon, "the same for everybody"

    await bed.travel_to(terms.voting_ends_s)
    assert (await chains[0].read(session)).stage is Stage.SETTLING
    await expect_refusal(chains[0], session, Withdraw(), "NothingDue")
    await poor.submit(session, Tally())
    await _settle(bed, session)


async def _fund(bed: ChainBed, session: Address, terms: SessionTerms) -> None:
    chains, poor = bed.chains[:4], bed.chains[5]
    assert (await chains[0].read(session)).stage is Stage.FUNDING
    await expect_refusal(chains[0], session, Join(STRANGER), "NotAContract")
    poids = [await _deploy(chain, session) for chain in bed.chains]
    for chain, poid in zip(chains, poids, strict=False):
        before = await chain.balance_wei(chain.wallet)
        receipt = await chain.submit(session, Join(poid))
        assert await chain.balance_wei(chain.wallet) == before - DEPOSIT - receipt.fee_wei
    await expect_refusal(chains[0], session, Join(poids[0]), "AlreadyMember")
    await expect_refusal(bed.chains[4], session, Join(poids[4]), "SessionFull")
    with pytest.raises(NotEnoughMoneyError) as poverty:
        await poor.submit(session, Join(poids[5]))
    assert poverty.value.needed_wei >= DEPOSIT > poverty.value.got_wei == await poor.balance_wei(poor.wallet)
    before = await chains[1].balance_wei(chains[1].wallet)
    receipt = await chains[1].submit(session, Leave())
    assert await chains[1].balance_wei(chains[1].wallet) == before + DEPOSIT - receipt.fee_wei
    await expect_refusal(chains[1], session, Leave(), "NotAMember")
    assert [member.wallet for member in (await chains[0].read(session)).members] == [chains[index].wallet for index in (0, 3, 2)]
    await chains[3].submit(session, Leave())
    for index in (1, 3):
        await chains[index].submit(session, Join(poids[index]))
    view = await chains[3].read(session)
    order = [view.members[index].wallet for index in range(4)]
    assert order == [chains[index].wallet for index in (0, 2, 1, 3)]
    assert [member.index for member in view.members] == [0, 1, 2, 3]
    assert [member.poid.fault for member in view.members] == [""] * 4
    assert [member.poid.wallet for member in view.members] == order
    assert len({member.poid.peer_id for member in view.members}) == 4
    assert view.fund_wei == 4 * DEPOSIT
    assert view.members[0].poid.position < view.members[1].poid.position
    await _reorder(chains, session, poids)


async def _reorder(chains: Sequence[Chain], session: Address, poids: Sequence[Address]) -> None:
    """Bring the members back into the order of the wallets: the last takes over the place of the one who leaves."""
    for index in (2, 1, 3):
        await chains[index].submit(session, Leave())
    for index in (1, 2, 3):
        await chains[index].submit(session, Join(poids[index]))
    assert [member.wallet for member in (await chains[0].read(session)).members] == [chain.wallet for chain in chains]


async def _settle(bed: ChainBed, session: Address) -> None:
    chains, poor = bed.chains[:4], bed.chains[5]
    fund = 4 * DEPOSIT
    due = {chains[0].wallet: fund * 100 // 150, chains[1].wallet: fund * 50 // 150, chains[2].wallet: 0, chains[3].wallet: 0}
    view = await chains[2].read(session)
    assert view.stage is Stage.RELEASED and view.approved == {0, 1} and view.due_wei == due
    assert view.fund_wei == fund and set((view.paid_wei or {}).values()) == {0}
    await expect_refusal(poor, session, Tally(), "WrongStage")
    await expect_refusal(chains[2], session, Withdraw(), "NothingDue")

    before = await chains[0].balance_wei(chains[0].wallet)
    await poor.submit(session, Release((chains[0].wallet, STRANGER, chains[0].wallet)))
    assert await chains[0].balance_wei(chains[0].wallet) == before + due[chains[0].wallet]
    await expect_refusal(chains[0], session, Withdraw(), "NothingDue")
    await expect_refusal(poor, session, Release((chains[0].wallet, STRANGER)), "NothingDue")
    before = await chains[1].balance_wei(STRANGER)
    await chains[1].submit(session, WithdrawTo(STRANGER))
    assert await chains[1].balance_wei(STRANGER) == before + due[chains[1].wallet]
    view = await chains[3].read(session)
    assert view.paid_wei == due and set((view.due_wei or {}).values()) == {0} and view.stage is Stage.RELEASED


async def check_refunded_session(bed: ChainBed) -> None:
    """The creation objective is missed: everybody takes the deposit back."""
    chain = bed.chains[0]
    terms = make_terms(await bed.now_s(), members_min=2)
    session = await chain.deploy_session(terms)
    await chain.submit(session, Join(await _deploy(chain, session)))
    await bed.travel_to(terms.funding_ends_s)
    view = await chain.read(session)
    assert view.stage is Stage.REFUNDED and view.due_wei == {chain.wallet: DEPOSIT} and view.approved == frozenset()
    before = await chain.balance_wei(chain.wallet)
    receipt = await chain.submit(session, Withdraw())
    assert await chain.balance_wei(chain.wallet) == before + DEPOSIT - receipt.fee_wei


async def check_tip(bed: ChainBed) -> None:
    """Section 4.3: Eq. 1 is paid directly to the helper."""
    chain = bed.chains[0]
    session = await chain.deploy_session(make_terms(await bed.now_s()))
    before = await chain.balance_wei(STRANGER)
    await chain.submit(session, PayTip(STRANGER, Wei(12345), EVIDENCE))
    assert await chain.balance_wei(STRANGER) == before + 12345
    await expect_refusal(chain, session, PayTip(STRANGER, Wei(0), EVIDENCE), "NoTip")


async def check_groups(bed: ChainBed) -> None:
    """dao.md: what members signed anybody may send; an item that does not hold is skipped and spoils nothing."""
    chains, stranger = bed.chains[:4], bed.chains[4]
    terms = make_terms(await bed.now_s(), members_max=4)
    session = await chains[0].deploy_session(terms)
    other = await chains[0].deploy_session(terms)
    for chain in chains:
        await chain.submit(session, Join(await _deploy(chain, session)))

    await bed.travel_to(terms.training_ends_s)
    claims = [SignedClaim(c.wallet, 10, EVIDENCE, await c.sign(session, SubmitClaim(10, EVIDENCE))) for c in chains]
    await chains[3].submit(session, SubmitClaim(7, EVIDENCE))
    elsewhere = await chains[1].sign(other, SubmitClaim(10, EVIDENCE))
    await stranger.submit(session, ClaimBatch((claims[0], replace(claims[1], signature=elsewhere), claims[2], claims[3])))
    view = await chains[0].read(session)
    assert [(claim.index, claim.points) for claim in view.claims] == [(0, 10), (2, 10), (3, 7)]
    await expect_refusal(stranger, session, ClaimBatch((replace(claims[1], points=11),)), "NothingSigned")

    await bed.travel_to(terms.claiming_ends_s)
    ballots = [SignedBallot(c.wallet, await c.sign(session, CastBallot((3,)))) for c in chains]
    await expect_refusal(stranger, session, CastGrouped((), tuple(ballots)), "NothingSigned")
    await stranger.submit(session, CastGrouped((3,), (*ballots, SignedBallot(stranger.wallet, ballots[0].signature))))
    view = await chains[0].read(session)
    assert view.ballots == {0, 1, 2} and (view.nay_counts or {})[3] == 3, "nobody rejects its own claim"
    await chains[3].submit(session, CastBallot((0,)))
    await bed.travel_to(view.voting_ends_s)
    await chains[0].submit(session, Tally())
    assert (await chains[0].read(session)).approved == {0, 2}


async def expect_refusal(chain: Chain, session: Address, call: Call, reason: str) -> None:
    """The contract refuses with exactly this error."""
    with pytest.raises(TransactionError) as caught:
        await chain.submit(session, call)
    assert caught.value.reason == reason, caught.value


async def _deploy(chain: Chain, session: Address) -> Address:
    receipt: Receipt = await chain.submit(session, DeployPoid())
    assert receipt.address is not None
    return receipt.address
