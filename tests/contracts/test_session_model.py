"""The contract equals its reference model step by step (dao.md): random sessions, refused calls included."""

from __future__ import annotations

from random import Random

import pytest

from learnae.backends.ethereum.abi import pack_nays
from learnae.protocol.calls import Stage
from tests.contracts.bed import EVIDENCE, Bed, make_terms, make_wallet

MEMBERS = 9  # One of them never joins by plan, so that strangers call too.


def make_random_terms(rng: Random) -> Bed:
    return Bed(
        make_terms(
            members_min=rng.choice((1, 1, 2, 5)),
            members_max=rng.choice((5, 7, 9)),
            reject_quorum_permille=rng.choice((0, 1, 200, 500, 667, 1000)),
            deposit_wei=rng.choice((1, 7, 1_000_003, 10**18, 2**112 - 1) if rng.random() < 0.2 else (1_000_003,)),
        )
    )


def act(bed: Bed, rng: Random) -> None:
    """One random call: mostly one that fits the stage, sometimes any."""
    fitting = {
        Stage.FUNDING: ("join", "join", "join", "leave"),
        Stage.CLAIMING: ("claim",),
        Stage.VOTING: ("cast",),
        Stage.SETTLING: ("tally",),
        Stage.RELEASED: ("withdraw", "withdrawTo", "releaseBatch"),
        Stage.REFUNDED: ("withdraw", "withdrawTo", "releaseBatch"),
    }
    anything = ("join", "leave", "claim", "cast", "tally", "withdraw", "withdrawTo", "releaseBatch")
    choices = fitting.get(bed.model.compute_stage(bed.now_s), anything) if rng.random() < 0.85 else anything
    function, wallet = rng.choice(choices), make_wallet(rng.randrange(MEMBERS))
    deposit, value = bed.terms.deposit_wei, 0
    values: list[object] = []
    match function:
        case "join":
            value = deposit if rng.random() < 0.9 else rng.choice((0, deposit + 1))
            values = [bed.session]
        case "leave":
            values = [bed.model.seats[-1].wallet if bed.model.seats and rng.random() < 0.8 else make_wallet(rng.randrange(MEMBERS)).address]
        case "claim":
            values = [rng.choice((0, 1, 2, 50, 10**6, 2**64 - 1, 2**64) if rng.random() < 0.3 else (10, 20, 31)), EVIDENCE]
        case "cast":
            values = [pack_nays(tuple(index for index in range(MEMBERS) if rng.random() < 0.2))]
            if rng.random() < 0.05:
                values = [rng.choice(([0, 0], [0, 1], [1 << 255], [2**256 - 1]))]
        case "tally":
            values = [rng.choice((0, 1, 2**256 - 1))]
        case "withdraw":
            values = [make_wallet(rng.randrange(MEMBERS)).address]
        case "withdrawTo":
            values = [make_wallet(200).address]
        case "releaseBatch":
            values = [[make_wallet(rng.randrange(MEMBERS)).address for _ in range(rng.randrange(5))]]
    bed.call(wallet, function, *values, value=value)


@pytest.mark.parametrize("seed", range(16))
def test_contract__does_what_its_model_does(seed: int) -> None:
    """Equal stages, dues, nay counters, approvals and balances after every step, and equal names of refusals."""
    rng = Random(seed)
    bed = make_random_terms(rng)
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
