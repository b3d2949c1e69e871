"""Proposals of members (5.2, Table 1, Eq. 2) on the contract and on its model, call by call."""

from __future__ import annotations

import pytest

from learnae.backends.chain_server.engine import RefusedError
from learnae.backends.ethereum.abi import explain_refusal, governance_abi, session_abi
from learnae.ids import Wei
from learnae.protocol.calls import Stage
from learnae.protocol.governance import ExtendDeadlines, SetMinQuorumDivisor, SetProposalDeposit
from tests.contracts.bed import DEPOSIT, make_wallet, member_abi
from tests.contracts.governed import DEBATING_S, PROPOSAL_DEPOSIT, GovernedBed, start_governed

ANYBODY = make_wallet(299)
SHOP = make_wallet(150).address


def test_proposal__that_passes_pays_once_and_gives_the_deposit_back() -> None:
    """5.2: the DAO funds an approved proposal; the deposit comes back if a majority approves."""
    bed = start_governed()
    assert bed.propose(0, (SHOP, 3_000)) == ""
    bed.check()
    assert bed.execute(0) == "VoteIsRunning" and bed.close(0) == "VoteIsRunning"
    bed.vote(0, yes=(0, 1), no=(2,))
    bed.end_debate()
    assert bed.govern(make_wallet(3), "vote", 0, True) == "VoteIsOver"
    assert bed.execute(0) == "" and bed.balance(SHOP) == 3_000
    bed.check()
    assert bed.execute(0) == "NotOpen" and bed.close(0) == "NotOpen"
    assert bed.govern(ANYBODY, "withdraw", make_wallet(0).address) == ""
    assert bed.govern(ANYBODY, "withdraw", make_wallet(0).address) == "NothingDue"
    bed.check()
    assert bed.balance(bed.governance) == 6_000 and bed.balance(bed.session) == 5 * DEPOSIT


@pytest.mark.parametrize(
    ("yes", "no", "passed"),
    [
        ((0, 1), (), True),
        ((0,), (), False),  # one vote, and two are needed
        ((0, 1), (2, 3), False),  # a tie is no majority
        ((0, 1), (2, 3, 4), False),
        ((), (), False),
    ],
)
def test_proposal__needs_a_majority_and_the_quorum(yes: tuple[int, ...], no: tuple[int, ...], passed: bool) -> None:
    """5.2: the deposit is kept when the quorum is missed or the majority is against it."""
    bed = start_governed()
    bed.propose(0, (SHOP, 1_350))
    assert bed.council.proposals[0].min_quorum == 2  # ceil(5 / 5 + 1350 * 5 / (3 * 9000))
    bed.vote(0, yes, no)
    bed.end_debate()
    assert bed.execute(0) == ("" if passed else "NotPassed")
    if not passed:
        assert bed.close(0) == ""
        assert bed.council.available_wei == 9_000 + PROPOSAL_DEPOSIT
    assert bed.council.proposals[0].proposal_passed is passed
    bed.check()


@pytest.mark.parametrize(
    ("members", "amount", "quorum"),
    [
        (10, 0, 2),  # 20 % for d = 5
        (10, 9_000, 6),  # 53.33 % when everything is asked for
        (30, 9_000, 16),
        (4, 0, 1),  # rounded down it would be 0
        (6, 0, 2),
        (10, 1, 3),
        (1, 9_000, 1),
    ],
)
def test_quorum__follows_eq_2_rounded_up(members: int, amount: int, quorum: int) -> None:
    bed = GovernedBed(wallets=members)
    bed.join(*range(members))
    bed.travel(bed.terms.funding_ends_s)
    bed.donate(9_000)
    bed.propose(0, (SHOP, amount))
    assert bed.look("readProposal", 0)[0][11] == quorum == bed.look("minQuorum", amount)[0]
    bed.check()


def test_quorum__counts_all_that_was_ever_received_and_is_fixed_with_the_proposal() -> None:
    """Eq. 2: balance and rewards are all the Ether that the DAO ever received; what was spent still counts."""
    bed = start_governed(10)
    bed.propose(0, (SHOP, 4_500))
    bed.vote(0, yes=range(6))
    bed.end_debate()
    assert bed.execute(0) == ""
    bed.propose(1, (SHOP, 4_500))
    assert bed.council.proposals[1].min_quorum == 4  # 2 + 4500 * 10 / 27000, not 2 + 10 / 3
    bed.donate(1_000_000)
    bed.check()


def test_proposal__asks_for_its_deposit_and_its_bounds() -> None:
    bed = start_governed()
    for value in (0, PROPOSAL_DEPOSIT - 1, PROPOSAL_DEPOSIT + 1):
        assert bed.propose(0, value=value) == "WrongProposalDeposit"
    assert bed.govern(ANYBODY, "newProposal", SHOP, 0, "", None, DEBATING_S, value=PROPOSAL_DEPOSIT) == "NotAMember"
    assert bed.propose(0, description="x" * 1025) == "DescriptionTooLong"
    assert bed.propose(0, debating_s=99) == "WrongDebatingTime"
    assert bed.propose(0, debating_s=56 * 86400 + 1) == "WrongDebatingTime"
    assert bed.propose(0, (SHOP, 9_001)) == "NotEnoughFunds"
    assert bed.propose(0, (bed.governance, 1)) == "PaysItself"
    assert bed.council.proposals == []
    bed.check()
    assert bed.propose(0, (SHOP, 9_000), description="x" * 1024, debating_s=100) == ""
    assert bed.govern(make_wallet(1), "vote", 1, True) == "NoSuchProposal"
    bed.check()
    assert bed.gas["newProposal"] < 1_500_000


def test_proposal__with_a_call_that_is_too_long_is_refused() -> None:
    bed = start_governed()
    data = governance_abi().encode("newProposal", SHOP, 0, "", bytes(4097), DEBATING_S)
    with pytest.raises(RefusedError) as caught:
        bed.transact(make_wallet(0), bed.governance, data, PROPOSAL_DEPOSIT)
    assert explain_refusal(caught.value.revert or b"")[0] == "TransactionTooLong"


def test_vote__is_one_per_member_and_strangers_have_none() -> None:
    bed = start_governed()
    bed.propose(0)
    bed.vote(0, yes=(1,), no=(2,))
    for index in (1, 2):
        for yes in (True, False):
            assert bed.govern(make_wallet(index), "vote", 0, yes) == "AlreadyVoted"
    assert bed.govern(ANYBODY, "vote", 0, True) == "NotAMember"
    first, second = make_wallet(1).address, make_wallet(2).address
    assert [bed.look("votedYes", 0, wallet)[0] for wallet in (first, second)] == [True, False]
    assert [bed.look("votedNo", 0, wallet)[0] for wallet in (first, second)] == [False, True]
    bed.check()


def test_governance__waits_until_the_members_are_final() -> None:
    """A member that could still leave would vote twice, under two wallets."""
    bed = GovernedBed()
    bed.join(0, 1)
    assert bed.propose(0) == "WrongStage"
    bed.travel(bed.terms.funding_ends_s)
    assert bed.propose(0) == ""


def test_money__of_creators_and_of_the_session_is_never_spent() -> None:
    """dao.md: governance never touches deposits: not the members', not those of open or approved proposals."""
    bed = start_governed()
    for index in range(3):
        assert bed.propose(index, (SHOP, 9_000)) == ""
        bed.vote(index, yes=range(5))
    bed.end_debate()
    assert bed.execute(0) == ""
    assert bed.execute(1) == "NotEnoughFunds", "deposits of the creators are still here"
    assert bed.balance(bed.governance) == 3 * PROPOSAL_DEPOSIT
    bed.check()
    assert bed.propose(3, (SHOP, 1)) == "NotEnoughFunds"
    bed.travel(bed.now_s + 14 * 86400)
    assert bed.close(1) == "" and bed.close(2) == ""
    for index in range(3):
        assert bed.govern(ANYBODY, "withdraw", make_wallet(index).address) == ""
    assert bed.balance(bed.governance) == 0 and bed.balance(bed.session) == 5 * DEPOSIT
    bed.check()


def test_proposal__that_nobody_can_execute_is_closed_after_two_weeks_and_its_deposit_comes_back() -> None:
    """Liveness: a recipient that refuses locks nobody's deposit."""
    bed = start_governed()
    member = bed.deploy(member_abi().encode_creation(bed.session))
    bed.transact(ANYBODY, member, member_abi().encode("setMood", 1))
    assert bed.propose(0, (member, 100)) == ""
    bed.vote(0, yes=range(3))
    bed.end_debate()
    with pytest.raises(RefusedError) as caught:
        bed.transact(ANYBODY, bed.governance, governance_abi().encode("execute", 0, b""))
    assert explain_refusal(caught.value.revert or b"")[0] == "TransactionFailed"
    bed.check()
    assert bed.close(0) == "StillExecutable"
    bed.travel(bed.council.proposals[0].voting_deadline + 14 * 86400)
    assert bed.close(0) == ""
    assert bed.govern(make_wallet(0), "withdrawTo", SHOP) == "" and bed.balance(SHOP) == PROPOSAL_DEPOSIT
    bed.check()


def test_execution__wants_the_call_that_was_proposed() -> None:
    """Table 1: proposalHash checks the recipient, the amount and the call."""
    bed = start_governed()
    bed.propose(0, action=SetProposalDeposit(5))
    bed.vote(0, yes=(0, 1))
    bed.end_debate()
    assert bed.execute(0, SetProposalDeposit(6)) == "WrongTransaction"
    assert bed.execute(0, None) == "WrongTransaction"
    assert bed.execute(0, SetProposalDeposit(5)) == ""
    assert bed.council.proposal_deposit == 5
    bed.check()


# --- its own parameters --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("action", "ok"),
    [
        (SetProposalDeposit(DEPOSIT), True),
        (SetProposalDeposit(0), True),
        (SetProposalDeposit(DEPOSIT + 1), False),
        (SetMinQuorumDivisor(2), True),
        (SetMinQuorumDivisor(10), True),
        (SetMinQuorumDivisor(1), False),
        (SetMinQuorumDivisor(11), False),
        (ExtendDeadlines(5_000), True),
        (ExtendDeadlines(5_001), False),
        (ExtendDeadlines(2**256 - 1), False),
    ],
)
def test_parameters__change_by_proposals_within_bounds(
    action: SetProposalDeposit | SetMinQuorumDivisor | ExtendDeadlines, ok: bool
) -> None:
    """5.2: the required deposit may be modified by the DAO in a later proposal; so may the divisor and the deadlines."""
    bed = start_governed()
    bed.propose(0, action=action)
    bed.vote(0, yes=(0, 1, 2))
    bed.end_debate()
    assert bed.execute(0, action) == ("" if ok else "TransactionFailed")
    assert bed.council.proposals[0].open is not ok
    bed.check()
    assert bed.propose(1) == "" and bed.balance(bed.session) == 5 * DEPOSIT


def test_parameters__change_by_nothing_but_proposals() -> None:
    bed = start_governed()
    for data in (governance_abi().encode("setProposalDeposit", 0), governance_abi().encode("setMinQuorumDivisor", 10)):
        with pytest.raises(RefusedError) as caught:
            bed.transact(make_wallet(0), bed.governance, data)
        assert explain_refusal(caught.value.revert or b"")[0] == "OnlyByProposal"
    with pytest.raises(RefusedError) as caught:
        bed.transact(make_wallet(0), bed.session, session_abi().encode("extendDeadlines", 1))
    assert explain_refusal(caught.value.revert or b"")[0] == "OnlyByGovernance"
    bed.check()


def pass_extension(bed: GovernedBed, added_s: int) -> str:
    action = ExtendDeadlines(added_s)
    number = len(bed.council.proposals)
    assert bed.propose(0, action=action, debating_s=100) == ""
    bed.vote(number, yes=(0, 1))
    bed.end_debate()
    return bed.execute(number, action)


def test_deadlines__move_from_the_running_stage_on_and_never_back() -> None:
    """Each extension moves the end of the running stage and of the later ones; all together at most what the terms allow."""
    bed = start_governed()
    ends = (bed.terms.training_ends_s, bed.terms.claiming_ends_s, bed.terms.voting_ends_s)

    def moved() -> list[int]:
        model = bed.model
        return [now - then for now, then in zip((model.training_ends_s, model.claiming_ends_s, model.voting_ends_s), ends, strict=True)]

    assert pass_extension(bed, 1_000) == "" and moved() == [1_000] * 3
    bed.travel(bed.terms.training_ends_s + 500)
    assert bed.model.compute_stage(bed.now_s) is Stage.TRAINING
    bed.travel(bed.model.training_ends_s)
    assert bed.claim(0, 5) == ""
    assert pass_extension(bed, 2_000) == "" and moved() == [1_000, 3_000, 3_000]
    bed.travel(bed.model.claiming_ends_s)
    assert bed.cast(1) == ""
    assert pass_extension(bed, 2_001) == "TransactionFailed"
    assert pass_extension(bed, 2_000) == "" and moved() == [1_000, 3_000, 5_000]
    assert pass_extension(bed, 0) == ""
    bed.check()
    bed.travel(bed.model.voting_ends_s - 1)
    assert bed.model.compute_stage(bed.now_s) is Stage.VOTING
    bed.travel(bed.model.voting_ends_s)
    assert pass_extension(bed, 0) == "TransactionFailed"
    assert bed.drain() == 0


def test_deadlines__a_late_ballot_uses_up_what_governance_may_add() -> None:
    bed = start_governed(6, reject_quorum_permille=500)
    bed.start_claims()
    bed.claim(0, 1)
    bed.start_votes()
    bed.cast(1)
    bed.cast(2)
    bed.travel(bed.terms.voting_ends_s - 10)
    assert bed.cast(3) == ""
    late_s = bed.model.voting_ends_s - bed.terms.voting_ends_s
    assert late_s == 2_491
    assert pass_extension(bed, 5_001 - late_s) == "TransactionFailed"
    assert pass_extension(bed, 5_000 - late_s) == ""
    bed.check()


# --- hostile recipients ----------------------------------------------------------------------------------------------


def test_re_entering_recipient__is_paid_once() -> None:
    """The state is settled before the money goes: whoever is called finds the proposal closed."""
    bed = start_governed()
    raider = bed.deploy_raider()
    assert bed.propose(0, (raider, 2_000)) == ""
    bed.vote(0, yes=range(5))
    bed.end_debate()
    bed.arm(raider, bed.governance, governance_abi().encode("execute", 0, b""))
    assert bed.execute(0) == ""
    assert bed.balance(raider) == 2_000 and bed.count_raids(raider) == 0
    bed.check()


def test_re_entering_creator__gets_its_deposit_once() -> None:
    bed = GovernedBed()
    raider = bed.deploy_raider(DEPOSIT + PROPOSAL_DEPOSIT)
    bed.join(0, 1)
    bed.run(raider, bed.session, session_abi().encode("join", raider), DEPOSIT)
    bed.model.join(raider, raider, DEPOSIT, bed.now_s)
    bed.travel(bed.terms.funding_ends_s)
    bed.donate(50_000)
    bed.run(raider, bed.governance, governance_abi().encode("newProposal", SHOP, 7, "", b"", DEBATING_S), PROPOSAL_DEPOSIT)
    bed.council.new_proposal(raider, PROPOSAL_DEPOSIT, (SHOP, Wei(7)), "", None, DEBATING_S, now_s=bed.now_s)
    bed.vote(0, yes=(0, 1))
    bed.end_debate()
    assert bed.execute(0) == ""
    bed.arm(raider, bed.governance, governance_abi().encode("withdraw", raider))
    assert bed.govern(ANYBODY, "withdraw", raider) == ""
    assert bed.balance(raider) == PROPOSAL_DEPOSIT and bed.count_raids(raider) == 0
    bed.check()


def test_creator__that_refuses_its_deposit_takes_it_elsewhere() -> None:
    bed = GovernedBed()
    member = bed.deploy(member_abi().encode_creation(bed.session), DEPOSIT + PROPOSAL_DEPOSIT)
    bed.join(0, 1)
    assert bed.propose(0) == "WrongStage"
    bed.travel(bed.terms.funding_ends_s)
    assert bed.propose(0) == ""
    bed.vote(0, yes=(0, 1))
    bed.end_debate()
    assert bed.execute(0) == ""
    with pytest.raises(RefusedError) as caught:
        bed.transact(make_wallet(0), bed.governance, governance_abi().encode("withdrawTo", bed.session))
    assert explain_refusal(caught.value.revert or b"")[0] == "PaymentRefused", "the session takes no payments"
    bed.check()
    assert bed.govern(make_wallet(0), "withdrawTo", member) == ""
    bed.check()
