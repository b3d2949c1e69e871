"""The session contract at its edges (dao.md): votes above every small number, money that always gets out, hostile members.

Each call of `Bed` runs on the contract and on the reference model; `check` compares everything that can be read.
"""

from __future__ import annotations

from random import Random

import pytest

from learnae.backends.chain_server.engine import RefusedError
from learnae.backends.ethereum.abi import session_abi
from learnae.backends.ethereum.reader import encode_session_creation
from learnae.ids import Address
from learnae.protocol.calls import Stage
from learnae.protocol.fund import FundError, validate_terms
from tests.contracts.bed import DEPOSIT, GAS_MAX, START_S, Bed, make_terms, make_wallet, member_abi

ANYBODY = make_wallet(299)
MOODS = {"accept": 0, "refuse": 1, "burn gas": 2, "bomb": 3, "reenter": 4}


def play(bed: Bed, points: dict[int, int], ballots: dict[int, tuple[int, ...]], members: int) -> None:
    """Join, claim, vote and tally."""
    bed.join(*range(members))
    bed.start_claims()
    for index, asked in points.items():
        assert bed.claim(index, asked) == ""
    bed.start_votes()
    for index, nays in ballots.items():
        assert bed.cast(index, *nays) == ""
    bed.check()
    bed.end_votes()
    if bed.model.compute_stage(bed.now_s) is Stage.SETTLING:
        assert bed.call(ANYBODY, "tally", 100) == ""
    bed.check()


def due(bed: Bed, index: int) -> int:
    return int(bed.view("due", make_wallet(index).address)[0])


# --- votes ------------------------------------------------------------------------------------------------------


def test_forty_three_voters__counters_pass_every_small_number() -> None:
    """Above 7, 15, 31 ballots: a prototype overflowed at the seventh and locked all money."""
    rng = Random(43)
    bed = Bed(wallets=43)
    ballots: dict[int, tuple[int, ...]] = {}
    for index in range(43):
        rejected = {*rng.sample(range(20), 12), 42} | ({41} if index % 2 else set())
        ballots[index] = tuple(rejected - {index})
    play(bed, {index: 100 + index for index in range(43)}, ballots, 43)
    assert bed.model.seats[42].nays == 42 and bed.model.seats[42].rejected
    assert max(seat.nays for seat in bed.model.seats[:20]) > 15
    assert due(bed, 42) == 0 and due(bed, 30) > 0
    assert bed.drain() < 43


def test_two_hundred_and_sixty_members__two_words_are_tallied_one_by_one() -> None:
    """Counters of the second word, a resumable tally, a release of everybody below the gas cap."""
    bed = Bed(wallets=260)
    bed.join(*range(260))
    bed.start_claims()
    claimants = (*range(20), *range(250, 260))
    for index in claimants:
        assert bed.claim(index, 1 + index % 7) == ""
    bed.start_votes()
    rejected = (0, 1, 2, 250, 255, 256, 257, 259)
    for index in range(60):
        assert bed.cast(index, *(nay for nay in rejected if nay != index)) == ""
    bed.check()
    bed.end_votes()
    assert bed.call(ANYBODY, "tally", 0) == "" and bed.call(ANYBODY, "tally", 1) == ""
    assert bed.model.compute_stage(bed.now_s) is Stage.SETTLING
    bed.check()
    assert bed.call(ANYBODY, "tally", 2**256 - 1) == ""
    bed.check()
    assert [index for index, seat in enumerate(bed.model.seats) if seat.rejected] == list(rejected)
    assert bed.call(ANYBODY, "releaseBatch", [seat.wallet for seat in bed.model.seats]) == ""
    bed.check()
    assert bed.balance(bed.session) < len(claimants) - len(rejected)
    assert max(bed.gas.values()) < GAS_MAX, bed.gas
    assert bed.gas["cast"] / 2 * 16 * 2 < GAS_MAX, "twice a ballot over all 16 words"
    assert bed.gas["claim"] < 90_000 and bed.gas["join"] < 60_000, bed.gas


@pytest.mark.parametrize(
    ("members", "quorum", "ballots", "nays", "rejected"),
    [
        (5, 200, 4, 2, True),  # half of the ballots
        (5, 200, 5, 2, False),  # ceil(5 / 2) = 3
        (5, 200, 5, 3, True),
        (5, 200, 1, 1, True),  # ceil(20 % of 5) = 1: silence is no veto
        (6, 200, 2, 1, False),  # ceil(20 % of 6) = 2
        (6, 200, 2, 2, True),
        (6, 201, 3, 2, True),
        (9, 667, 6, 6, False),  # ceil(6.003) = 7 of all members
        (9, 667, 7, 7, True),
        (8, 0, 1, 1, True),  # the quorum is one at least
        (8, 1000, 7, 7, False),
    ],
)
def test_claim__is_rejected_exactly_from_the_threshold_on(members: int, quorum: int, ballots: int, nays: int, rejected: bool) -> None:
    """nay >= max(ceil(ballots / 2), ceil(rejectQuorum * members)), from one below it to above."""
    bed = Bed(make_terms(reject_quorum_permille=quorum))
    votes: dict[int, tuple[int, ...]] = {1 + index: ((0,) if index < nays else ()) for index in range(ballots) if 1 + index < members}
    if ballots >= members:
        votes[0] = ()
    play(bed, {0: 5, 1: 5}, votes, members)
    assert len(votes) == ballots and bed.model.seats[0].nays == nays
    assert bed.model.seats[0].rejected is rejected
    bed.drain()


def test_ballot__late_one_that_reaches_the_quorum_extends_the_vote_once() -> None:
    bed = Bed(make_terms(reject_quorum_permille=500))
    bed.join(*range(6))
    bed.start_claims()
    bed.claim(0, 1)
    bed.start_votes()
    bed.cast(1)
    bed.cast(2)
    bed.travel(bed.terms.voting_ends_s - 10)
    assert bed.model.voting_ends_s == bed.terms.voting_ends_s
    assert bed.cast(3, 0) == ""
    extended = bed.terms.voting_ends_s - 9 + 2500  # A quarter of the 10,000 s.
    assert bed.model.voting_ends_s == extended
    bed.check()
    bed.travel(extended - 10)
    assert bed.cast(4, 0) == "" and bed.cast(5, 0) == ""
    assert bed.model.voting_ends_s == extended
    bed.travel(extended)
    assert bed.cast(0) == "WrongStage"
    assert bed.call(ANYBODY, "tally", 1) == ""
    bed.check()
    assert bed.model.seats[0].rejected and bed.drain() == 0


def test_ballot__early_quorum_extends_nothing() -> None:
    bed = Bed()
    play(bed, {0: 1}, {1: (), 2: ()}, 6)
    assert bed.model.voting_ends_s == bed.terms.voting_ends_s


def test_ballot__budget_is_less_than_half_of_the_members() -> None:
    bed = Bed()
    bed.join(*range(6))
    bed.start_claims()
    for index in range(6):
        bed.claim(index, 1)
    bed.start_votes()
    assert bed.cast(0, 1, 2, 3) == "TooManyNays"
    assert bed.cast(0, 1, 2) == ""
    assert bed.cast(0, 1) == "AlreadyVoted"
    bed.check()


def test_ballot__refused_one_leaves_no_trace() -> None:
    bed = Bed()
    bed.join(*range(3))
    bed.start_claims()
    bed.claim(0, 1)
    bed.claim(1, 1)
    bed.start_votes()
    for nays, why in (((0,), "NayOnOwnClaim"), ((2,), "NayWithoutClaim"), ((255,), "NayWithoutClaim"), ((256,), "BallotTooLong")):
        assert bed.cast(0, *nays) == why
    assert bed.call(ANYBODY, "cast", []) == "NotAMember"
    bed.check()
    assert bed.cast(0, 1) == ""
    assert bed.model.seats[1].nays == 1
    bed.check()


# --- money ------------------------------------------------------------------------------------------------------


def test_payout__is_floor_of_the_share_and_dust_is_below_the_number_of_approved_claims() -> None:
    bed = Bed()
    play(bed, dict.fromkeys(range(7), 1), {0: ()}, 7)
    assert {due(bed, index) for index in range(7)} == {7 * DEPOSIT // 7}
    assert bed.drain() == 0
    bed = Bed()
    play(bed, {0: 3, 1: 5, 2: 7, 3: 11}, {0: ()}, 7)
    assert [due(bed, index) for index in range(4)] == [7 * DEPOSIT * points // 26 for points in (3, 5, 7, 11)]
    assert 0 < bed.drain() < 4


def test_payout__points_of_any_size_do_not_overflow() -> None:
    bed = Bed(make_terms(deposit_wei=2**112 - 1))
    play(bed, {0: 2**64 - 1, 1: 2**64 - 1, 2: 1}, {0: ()}, 3)
    assert due(bed, 2) == 3 * (2**112 - 1) // (2**65 - 1)
    assert bed.drain() < 3


def test_one_member__takes_everything_back() -> None:
    bed = Bed()
    play(bed, {0: 9}, {0: ()}, 1)
    assert bed.model.compute_stage(bed.now_s) is Stage.RELEASED and bed.drain() == 0


@pytest.mark.parametrize(
    ("points", "ballots"),
    [
        ({}, {0: (), 1: ()}),  # nobody claims
        ({0: 5, 1: 6}, {}),  # zero ballots
        ({0: 0, 1: 0}, {0: ()}),  # claims of nothing
        ({0: 5, 1: 6}, {2: (0,), 3: (1,), 4: (0,), 0: (1,)}),  # everybody is rejected
    ],
)
def test_nothing_approved__everybody_takes_the_deposit_back(points: dict[int, int], ballots: dict[int, tuple[int, ...]]) -> None:
    bed = Bed()
    play(bed, points, ballots, 5)
    assert bed.model.compute_stage(bed.now_s) is Stage.REFUNDED
    assert [due(bed, index) for index in range(5)] == [DEPOSIT] * 5
    assert bed.drain() == 0


def test_creation_objective_missed__refunds_at_once_and_for_good() -> None:
    bed = Bed(make_terms(members_min=4))
    bed.join(0, 1, 2)
    bed.travel(bed.terms.funding_ends_s)
    assert bed.model.compute_stage(bed.now_s) is Stage.REFUNDED
    assert bed.call(make_wallet(3), "join", bed.session, value=DEPOSIT) == "WrongStage"
    assert bed.call(ANYBODY, "withdraw", make_wallet(0).address) == ""
    bed.start_claims()
    assert bed.claim(1, 5) == "WrongStage"
    bed.check()
    assert bed.drain() == 0


def test_leaving__gives_the_deposit_back_and_the_last_member_takes_the_place() -> None:
    bed = Bed()
    bed.join(0, 1, 2, 3)
    for index in (1, 3):
        before = bed.balance(make_wallet(index).address)
        assert bed.leave(index) == ""
        assert 0 < before + DEPOSIT - bed.balance(make_wallet(index).address) < 10**16  # the fee
        bed.check()
    assert [seat.wallet for seat in bed.model.seats] == [make_wallet(0).address, make_wallet(2).address]
    assert bed.leave(1) == "NotAMember"
    bed.join(3)
    bed.travel(bed.terms.funding_ends_s)
    assert bed.leave(0) == "WrongStage"
    bed.check()


@pytest.mark.filterwarnings("ignore:SELFDESTRUCT opcode present:DeprecationWarning")  # py-evm says so when it runs one
def test_forced_ether__changes_no_share() -> None:
    bed = Bed()
    bed.join(0, 1)
    force = bytes.fromhex("73" + bed.session[2:] + "ff")  # PUSH20 session SELFDESTRUCT
    bed.deploy(force, value=12345)
    bed.forced_wei = 12345
    bed.check()
    bed.start_claims()
    bed.claim(0, 1)
    bed.start_votes()
    bed.cast(1)
    bed.end_votes()
    assert bed.drain() == 0 and bed.balance(bed.session) == 12345


def test_plain_transfer__is_refused() -> None:
    bed = Bed()
    with pytest.raises(RefusedError):
        bed.transact(ANYBODY, bed.session, b"", 5)
    bed.check()


def test_tally_and_withdrawal__belong_to_their_stages() -> None:
    bed = Bed()
    bed.join(0, 1)
    for time_s in (None, bed.terms.funding_ends_s, bed.terms.training_ends_s, bed.terms.claiming_ends_s):
        if time_s is not None:
            bed.travel(time_s)
        assert bed.call(ANYBODY, "tally", 1) == "WrongStage"
        assert bed.call(ANYBODY, "withdraw", make_wallet(0).address) == "NothingDue"
        assert bed.call(make_wallet(0), "withdrawTo", ANYBODY.address) == "NothingDue"
        assert bed.call(ANYBODY, "releaseBatch", [make_wallet(0).address]) == ""
    bed.check()
    assert not bed.paid


# --- hostile members ----------------------------------------------------------------------------------------------


def join_hostile(bed: Bed) -> Address:
    """A member that is a contract; it joins on both sides."""
    creation = member_abi().encode_creation(bed.session)
    member = bed.deploy(creation, value=bed.terms.deposit_wei)
    bed.transact(ANYBODY, member, member_abi().encode("join", bed.terms.deposit_wei))
    bed.model.join(member, member, bed.terms.deposit_wei, bed.now_s)
    return member


def prepare_hostile(mood: str) -> tuple[Bed, Address]:
    """Three honest members and a hostile one, half of the fund approved for it, ready to pay."""
    bed = Bed()
    bed.join(0, 1, 2)
    member = join_hostile(bed)
    bed.transact(ANYBODY, member, member_abi().encode("setMood", MOODS[mood]))
    bed.start_claims()
    bed.claim(0, 50)
    bed.claim(1, 50)
    bed.transact(ANYBODY, member, member_abi().encode("claim", 100))
    bed.model.claim(member, 100, bytes(32), bed.now_s)
    bed.start_votes()
    bed.cast(0)
    bed.end_votes()
    assert bed.call(ANYBODY, "tally", 1) == ""
    return bed, member


def release(bed: Bed, *wallets: Address, pays: bool) -> None:
    """A batch with a hostile member in it; `pays` says whether the model's hostile member accepts."""
    mined = bed.transact(ANYBODY, bed.session, session_abi().encode("releaseBatch", wallets))
    assert mined.gas_used < 500_000
    hostile = wallets[1]
    for wallet, amount in bed.model.release(wallets, bed.now_s, lambda wallet: pays or wallet != hostile).items():
        bed.note_paid(wallet, amount)


@pytest.mark.parametrize("mood", ["refuse", "burn gas", "bomb"])
def test_hostile_recipient__blocks_nobody_and_keeps_its_credit(mood: str) -> None:
    """A batch pays the others with little gas; the hostile member can still be paid elsewhere."""
    bed, member = prepare_hostile(mood)
    release(bed, make_wallet(0).address, member, make_wallet(1).address, pays=False)
    bed.check()
    assert due_of(bed, member) == 2 * DEPOSIT
    bed.transact(ANYBODY, member, member_abi().encode("withdrawTo", make_wallet(150).address))
    bed.note_paid(member, bed.model.withdraw(member, bed.now_s))
    bed.check()
    assert bed.drain() == 0


@pytest.mark.parametrize("mood", ["refuse", "bomb"])
def test_withdrawal__to_a_member_that_refuses_says_so_and_changes_nothing(mood: str) -> None:
    bed, member = prepare_hostile(mood)
    with pytest.raises(RefusedError) as caught:
        bed.transact(ANYBODY, bed.session, session_abi().encode("withdraw", member))
    assert session_abi().explain(caught.value.revert)[0] == "PaymentRefused"
    with pytest.raises(FundError, match="PaymentRefused"):
        bed.model.withdraw(member, bed.now_s, accepted=False)
    bed.check()


def test_re_entering_recipient__is_paid_once() -> None:
    bed, member = prepare_hostile("reenter")
    bed.transact(ANYBODY, bed.session, session_abi().encode("withdraw", member))
    bed.note_paid(member, bed.model.withdraw(member, bed.now_s))
    bed.check()
    assert bed.balance(member) == 2 * DEPOSIT
    assert bed.call(ANYBODY, "withdraw", member) == "NothingDue"
    assert bed.drain() == 0


def test_re_entering_recipient__is_paid_once_in_a_batch() -> None:
    bed, member = prepare_hostile("reenter")
    release(bed, make_wallet(0).address, member, make_wallet(1).address, pays=True)
    bed.check()
    assert bed.balance(member) == 2 * DEPOSIT and bed.drain() == 0


def test_re_entering_leaver__gets_one_deposit() -> None:
    bed = Bed()
    bed.join(0)
    member = join_hostile(bed)
    bed.transact(ANYBODY, member, member_abi().encode("setMood", MOODS["reenter"]))
    bed.transact(ANYBODY, member, member_abi().encode("leave"))
    bed.model.leave(member, bed.now_s)
    bed.check()
    assert bed.balance(member) == DEPOSIT


def test_batch__pays_a_wallet_that_is_named_twice_once() -> None:
    bed, member = prepare_hostile("accept")
    release(bed, member, make_wallet(0).address, member, make_wallet(77).address, pays=True)
    bed.check()
    assert bed.balance(member) == 2 * DEPOSIT


def due_of(bed: Bed, wallet: Address) -> int:
    return int(bed.view("due", wallet)[0])


# --- creation, token ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {"deposit_wei": 0},
        {"deposit_wei": 2**112},
        {"members_min": 0},
        {"members_min": 9, "members_max": 8},
        {"members_max": 4096},
        {"extension_max_s": 1000 * 86400},
        {"extension_max_s": 2**255},
        {"proposal_deposit_wei": DEPOSIT + 1},
        {"min_quorum_divisor": 1},
        {"min_quorum_divisor": 11},
        {"debating_min_s": 0},
        {"debating_min_s": 56 * 86400 + 1},
        {"reject_quorum_permille": 1001},
        {"funding_ends_s": START_S - 5},
        {"training_ends_s": START_S + 10_000},
        {"claiming_ends_s": START_S + 20_000},
        {"voting_ends_s": START_S + 30_000},
        {"voting_ends_s": START_S + 1000 * 86400 + 100},
        {"voting_ends_s": 2**256 - 1},
    ],
)
def test_terms__that_could_lock_money_are_refused(changes: dict[str, int]) -> None:
    bed = Bed()
    terms = make_terms(**changes)
    with pytest.raises(RefusedError) as caught:
        bed.deploy(encode_session_creation(terms))
    assert session_abi().explain(caught.value.revert)[0] == "BadTerms"
    with pytest.raises(FundError, match="BadTerms"):
        validate_terms(terms, bed.now_s)


def test_terms__at_their_limits_are_accepted() -> None:
    terms = make_terms(deposit_wei=2**112 - 1, members_min=4095, reject_quorum_permille=1000)
    bed = Bed(terms)
    validate_terms(terms, bed.now_s)
    assert bed.view("terms")[0][1] == 2**112 - 1


def test_join__wants_the_exact_deposit_once_while_there_is_room() -> None:
    bed = Bed(make_terms(members_max=2))
    for value in (0, DEPOSIT - 1, DEPOSIT + 1):
        assert bed.call(make_wallet(0), "join", bed.session, value=value) == "WrongDeposit"
    bed.join(0, 1)
    assert bed.call(make_wallet(0), "join", bed.session, value=DEPOSIT) == "AlreadyMember"
    assert bed.call(make_wallet(2), "join", bed.session, value=DEPOSIT) == "SessionFull"
    bed.check()


def test_token__is_one_per_member_and_locked() -> None:
    """ERC-721 as wallets ask for it, ERC-5192: id = the address, and every transfer is refused."""
    bed = Bed()
    wallet = make_wallet(0).address
    token = int(wallet, 16)
    assert bed.view("balanceOf", wallet) == (0,)
    for function in ("ownerOf", "locked"):
        with pytest.raises(RefusedError) as caught:
            bed.view(function, token)
        assert session_abi().explain(caught.value.revert)[0] == "NoSuchToken"
    bed.join(0)
    assert bed.view("balanceOf", wallet) == (1,) and bed.view("locked", token) == (True,)
    assert bed.view("ownerOf", token)[0] == wallet.lower()
    with pytest.raises(RefusedError):
        bed.view("ownerOf", token + (1 << 160))
    known = ("01ffc9a7", "80ac58cd", "5b5e139f", "b45a3c0e")  # ERC-165, ERC-721, its metadata, ERC-5192
    assert [bed.view("supportsInterface", bytes.fromhex(name))[0] for name in (*known, "ffffffff")] == [True] * 4 + [False]
