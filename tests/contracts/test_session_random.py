"""Whole sessions at random, most calls fitting their stage (dao.md): contract and model agree after every step, refusals included."""

from __future__ import annotations

from random import Random

import pytest

from learnae.backends.ethereum.abi import pack_nays
from learnae.protocol.calls import Stage
from tests.contracts.bed import EVIDENCE, Bed, make_terms, make_wallet

MEMBERS = 9  # One of them never joins by plan, so that strangers call too.
ANYTHING = ("join", "leave", "claim", "claimBatch", "cast", "castGrouped", "tally", "withdraw", "withdrawTo", "releaseBatch")
FITTING = {
    Stage.FUNDING: ("join", "join", "join", "leave"),
    Stage.CLAIMING: ("claim", "claimBatch"),
    Stage.VOTING: ("cast", "cast", "castGrouped"),
    Stage.SETTLING: ("tally",),
    Stage.RELEASED: ("withdraw", "withdrawTo", "releaseBatch"),
    Stage.REFUNDED: ("withdraw", "withdrawTo", "releaseBatch"),
}


def make_random_bed(rng: Random) -> Bed:
    return Bed(
        make_terms(
            members_min=rng.choice((1, 1, 2, 5)),
            members_max=rng.choice((5, 7, 9)),
            reject_quorum_permille=rng.choice((0, 1, 200, 500, 667, 1000)),
            deposit_wei=rng.choice((1, 7, 1_000_003, 10**18, 2**112 - 1) if rng.random() < 0.2 else (1_000_003,)),
        )
    )


def choose_points(rng: Random) -> int:
    return rng.choice((0, 1, 2, 50, 10**6, 2**64 - 1, 2**64) if rng.random() < 0.3 else (10, 20, 31))


def choose_nays(rng: Random) -> tuple[int, ...]:
    return tuple(index for index in range(MEMBERS) if rng.random() < 0.15)


def make_values(bed: Bed, rng: Random, function: str) -> list[object]:
    """Arguments that are mostly good."""
    wallets = [make_wallet(index).address for index in range(MEMBERS)]
    some = [rng.randrange(MEMBERS) for _ in range(rng.randrange(6))]
    match function:
        case "join":
            return [bed.session]
        case "leave":
            return [bed.model.seats[-1].wallet if bed.model.seats and rng.random() < 0.8 else rng.choice(wallets)]
        case "claim":
            return [choose_points(rng), EVIDENCE]
        case "claimBatch":
            items = [bed.sign_claim(index, choose_points(rng)) for index in some]
            return [[item if rng.random() < 0.9 else (rng.choice(wallets), *item[1:]) for item in items]]
        case "cast":
            odd = rng.choice(([0, 1], [1 << 255], [2**256 - 1]))
            return [odd if rng.random() < 0.05 else pack_nays(choose_nays(rng))]
        case "castGrouped":
            nays = choose_nays(rng)
            voters = [bed.sign_ballot(index, *nays) for index in some]
            return [pack_nays(nays), [voter if rng.random() < 0.9 else (rng.choice(wallets), *voter[1:]) for voter in voters]]
        case "tally":
            return [rng.choice((0, 1, 2**256 - 1))]
        case "withdraw":
            return [rng.choice(wallets)]
        case "withdrawTo":
            return [make_wallet(200).address]
    return [[rng.choice(wallets) for _ in some]]


def act(bed: Bed, rng: Random) -> None:
    """One random call: mostly one that fits the stage, sometimes any."""
    choices = FITTING.get(bed.model.compute_stage(bed.now_s), ANYTHING) if rng.random() < 0.85 else ANYTHING
    function, value = rng.choice(choices), 0
    if function == "join":
        value = bed.terms.deposit_wei if rng.random() < 0.9 else rng.choice((0, bed.terms.deposit_wei + 1))
    bed.call(make_wallet(rng.randrange(MEMBERS)), function, *make_values(bed, rng, function), value=value)


@pytest.mark.parametrize("seed", range(10))
def test_contract__does_what_its_model_does(seed: int) -> None:
    """Equal stages, dues, nay counters, approvals and balances after every step, and equal names of refusals."""
    rng = Random(seed)
    bed = make_random_bed(rng)
    stages = [bed.model.compute_stage(bed.now_s)]
    for end in (bed.terms.funding_ends_s, bed.terms.training_ends_s, bed.terms.claiming_ends_s, bed.terms.voting_ends_s, None):
        for _ in range(rng.choice((2, 9, 14))):
            if end is not None and rng.random() < 0.05:
                bed.travel(max(bed.now_s + 1, end - rng.choice((1, 2, 3))))
            act(bed, rng)
            bed.check()
            stages.append(bed.model.compute_stage(bed.now_s))
        if end is not None and bed.now_s < end:
            bed.travel(end)
    bed.travel(max(bed.now_s + 1, bed.model.voting_ends_s))
    dust = bed.drain()
    order = list(Stage)
    forward = [order.index(stage) for stage in stages]
    assert forward == sorted(forward), "stages only move forward"
    approved = [seat for seat in bed.model.seats if seat.claim is not None and not seat.rejected]
    assert dust < max(1, len(approved)), "liveness: everything can be taken out up to dust"
