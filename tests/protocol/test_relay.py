"""The relayer inside every node: who sends which group when, and what it never does (section 6; docs/contracts.md, "Relaying")."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from learnae.ids import PeerId
from learnae.protocol import relay as relaying
from learnae.protocol.calls import CastGrouped, ChainView, ClaimBatch, SignedBallot, SignedClaim, Stage
from learnae.protocol.identity import judge_members
from learnae.protocol.relay import (
    CLAIM_GAS,
    COLLECT_PERMILLE,
    GROUP_GAS,
    PATIENCE_PERMILLE,
    Group,
    Relay,
    compute_group_gas,
)
from learnae.protocol.signed import BallotSigned, ClaimSigned
from tests.protocol.builders import (
    ALICE,
    CLAIMING_ENDS_S,
    PEERS,
    RULES,
    TRAINING_ENDS_S,
    make_claim,
    make_member,
    make_peer_id,
    make_view,
)

T0 = 1000.0  # Of the node's own clock, which need not be the chain's.
STAGE_S = CLAIMING_ENDS_S - TRAINING_ENDS_S
COLLECT_S = STAGE_S * COLLECT_PERMILLE / 1000
PATIENCE_S = STAGE_S * PATIENCE_PERMILLE / 1000
GAS = 20_000_000


def claim(points: int = 7, signature: bytes = b"s" * 64) -> ClaimSigned:
    return ClaimSigned(points=points, evidence=b"e" * 32, signature=signature)


def ballot(*nays: int) -> BallotSigned:
    return BallotSigned(nays=nays, signature=b"b" * 64)


def look(relay: Relay, view: ChainView, now_s: float, *, expected: int = len(PEERS)) -> Group | None:
    return relay.step(view, judge_members(view.members), expected=expected, now_s=now_s)


def make_relays(view: ChainView, *, gas_max: int = GAS) -> dict[PeerId, Relay]:
    """One relayer of each member, all with the same view, in the order of their turns."""
    relays = {member.poid.peer_id: Relay(RULES, member.poid.peer_id, gas_max) for member in view.members}
    membership = judge_members(view.members)
    for relay in relays.values():
        look(relay, view, T0)
    return dict(sorted(relays.items(), key=lambda entry: entry[1]._compute_turn(membership)))


def turn_of(peer: PeerId, view: ChainView) -> int:
    return list(make_relays(view)).index(peer)


def hear_claims(relays: dict[PeerId, Relay], peers: Sequence[PeerId] = PEERS, *, at_s: float = T0) -> None:
    for relay in relays.values():
        for peer in peers:
            relay.hear(peer, claim(), now_s=at_s)


def wallets(group: Group | None) -> list[str]:
    assert group is not None
    return [item.member for item in (group.claims if isinstance(group, ClaimBatch) else group.ballots)]


def wallets_of(*peers: PeerId) -> list[str]:
    return [make_member(PEERS.index(peer), peer).wallet for peer in peers]


CLAIMING = make_view(Stage.CLAIMING, peers=PEERS)
VOTING = make_view(Stage.VOTING, peers=PEERS, claims=tuple(make_claim(index, 7) for index in range(6)))


# --- whose turn -----------------------------------------------------------------------------------------------------


def test_turns__usually_one_node_sends_and_the_next_takes_over_after_a_while() -> None:
    """The order is the same on all nodes; each waits `PATIENCE` longer than the one before."""
    relays = make_relays(CLAIMING)
    hear_claims(relays)

    for turn, relay in enumerate(relays.values()):
        if turn:
            assert look(relay, CLAIMING, T0 + turn * PATIENCE_S - 0.01) is None
        assert wallets(look(relay, CLAIMING, T0 + turn * PATIENCE_S)) == wallets_of(*PEERS)


def test_turns__go_around_with_each_group_that_got_on_the_chain() -> None:
    """So the gas is shared, and one that brings only its friends is not first again for ever."""
    views = [replace(CLAIMING, claims=tuple(make_claim(index, 7) for index in range(count))) for count in range(6)]
    first = [next(iter(make_relays(view))) for view in views]

    assert len(set(first)) >= 3
    assert [next(iter(make_relays(view))) for view in views] == first


def test_turns__begin_anew_when_the_chain_moved() -> None:
    """What others brought there meanwhile is not paid for twice, and who was waiting waits for the new first one."""
    moved = replace(CLAIMING, claims=(make_claim(0, 7), make_claim(1, 7)))
    peer = next(peer for peer in PEERS if turn_of(peer, CLAIMING) and turn_of(peer, moved))
    relay = make_relays(CLAIMING)[peer]
    hear_claims({peer: relay})
    moved_s = T0 + turn_of(peer, CLAIMING) * PATIENCE_S
    assert look(relay, moved, moved_s) is None, "it would have been its turn"

    turn_s = moved_s + turn_of(peer, moved) * PATIENCE_S
    assert look(relay, moved, turn_s - 0.01) is None
    assert wallets(look(relay, moved, turn_s)) == wallets_of(*PEERS[2:])


def test_collecting__waits_a_short_time_unless_nothing_more_can_come() -> None:
    """Most members sign within seconds of one another."""
    first = next(iter(make_relays(CLAIMING).values()))
    for peer in PEERS[:4]:
        first.hear(peer, claim(), now_s=T0)

    assert look(first, CLAIMING, T0 + COLLECT_S - 0.01) is None
    assert wallets(look(first, CLAIMING, T0 + COLLECT_S - 0.01, expected=4)) == wallets_of(*PEERS[:4])
    assert wallets(look(first, CLAIMING, T0 + COLLECT_S)) == wallets_of(*PEERS[:4])


def test_collecting__does_not_wait_when_a_group_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relaying, "CLAIMS_PER_GROUP_MAX", 3)
    first = next(iter(make_relays(CLAIMING).values()))
    for peer in PEERS[:3]:
        first.hear(peer, claim(), now_s=T0)

    assert wallets(look(first, CLAIMING, T0)) == wallets_of(*PEERS[:3])


# --- what is sent ---------------------------------------------------------------------------------------------------


def test_group__holds_what_is_signed_and_not_on_the_chain() -> None:
    view = replace(CLAIMING, claims=(make_claim(1, 7),))
    first = next(iter(make_relays(view).values()))
    for peer in (*PEERS[:3], make_peer_id("stranger")):
        first.hear(peer, claim(points=9), now_s=T0)
    first.hear(ALICE, claim(points=10), now_s=T0)
    first.hear(ALICE, ballot(), now_s=T0)

    group = look(first, view, T0 + COLLECT_S)

    (alice, carol) = wallets_of(PEERS[0], PEERS[2])
    assert group == ClaimBatch(tuple(SignedClaim(wallet, 9, b"e" * 32, b"s" * 64) for wallet in (alice, carol)))  # type: ignore[arg-type]
    assert look(first, make_view(Stage.TRAINING, peers=PEERS), T0 + COLLECT_S) is None


def test_ballots__that_are_equal_go_together_the_largest_group_first() -> None:
    """dao.md: many voters with the same ballot are counted in one addition; honest ledgers are equal, so mostly there is one."""
    first = next(iter(make_relays(VOTING).values()))
    for peer, nays in zip(PEERS, ((4,), (4,), (), (5,), (), (4,)), strict=True):
        first.hear(peer, ballot(*nays), now_s=T0)
    votes = look(first, VOTING, T0)

    assert votes == CastGrouped((4,), tuple(SignedBallot(wallet, b"b" * 64) for wallet in wallets_of(PEERS[0], PEERS[1], PEERS[5])))  # type: ignore[arg-type]
    rest = replace(VOTING, ballots=frozenset({0, 1, 5}))
    look(first, rest, T0)
    second = look(first, rest, T0 + 6 * PATIENCE_S)
    assert isinstance(second, CastGrouped) and second.nays == () and wallets(second) == wallets_of(PEERS[2], PEERS[4])


@pytest.mark.parametrize("nays", [(1,), (0, 2, 3), (9,)], ids=["own claim", "too many", "no claim"])
def test_ballot__that_the_contract_would_not_count_is_left_out(nays: tuple[int, ...]) -> None:
    """One such ballot would spoil its whole group, at the relayer's cost."""
    first = next(iter(make_relays(VOTING).values()))
    first.hear(PEERS[1], ballot(*nays), now_s=T0)

    assert look(first, VOTING, T0 + COLLECT_S) is None
    first.hear(PEERS[2], ballot(0), now_s=T0)
    assert wallets(look(first, VOTING, T0 + COLLECT_S)) == wallets_of(PEERS[2])


def test_junk__is_offered_twice_and_not_again_at_once() -> None:
    """A signature that does not hold is dropped by the backend or skipped by the contract; its sender gives it up."""
    first = next(iter(make_relays(CLAIMING).values()))
    first.hear(ALICE, claim(signature=bytes(64)), now_s=T0)
    membership, now_s, offered = judge_members(CLAIMING.members), T0, []
    while now_s < T0 + STAGE_S:
        group = look(first, CLAIMING, now_s)
        if group is not None:
            offered.append(now_s)
            first.submitted(group, membership, now_s=now_s)
            first.answered(group, gas_used=0, done=False)
        now_s += 0.5

    assert len(offered) == relaying.TRIES_MAX and offered[1] - offered[0] >= 2 * PATIENCE_S
    first.hear(PEERS[3], claim(), now_s=now_s)
    assert wallets(look(first, CLAIMING, now_s + COLLECT_S)) == wallets_of(PEERS[3])


# --- gas ------------------------------------------------------------------------------------------------------------


def test_group__stays_below_the_gas_cap_of_a_transaction() -> None:
    """EIP-7825: 2^24."""
    member, nays = make_member(0, ALICE).wallet, tuple(range(0, 4095, 2))
    claims = ClaimBatch((SignedClaim(member, 7, bytes(32), bytes(64)),) * relaying.CLAIMS_PER_GROUP_MAX)
    ballots = CastGrouped(nays, (SignedBallot(member, bytes(64)),) * relaying.BALLOTS_PER_GROUP_MAX)

    assert compute_group_gas(claims) < 2**24 and compute_group_gas(ballots) < 2**24


def test_group__is_never_larger_than_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relaying, "CLAIMS_PER_GROUP_MAX", 2)
    monkeypatch.setattr(relaying, "BALLOTS_PER_GROUP_MAX", 3)
    claims, votes = (next(iter(make_relays(view).values())) for view in (CLAIMING, VOTING))
    hear_claims({ALICE: claims})
    for peer in PEERS:
        votes.hear(peer, ballot(), now_s=T0)

    assert wallets(look(claims, CLAIMING, T0)) == wallets_of(*PEERS[:2])
    assert wallets(look(votes, VOTING, T0)) == wallets_of(*PEERS[:3])


@pytest.mark.parametrize(("gas_max", "members"), [(0, 0), (GROUP_GAS + CLAIM_GAS - 1, 0), (GROUP_GAS + 2 * CLAIM_GAS, 2)])
def test_budget__is_never_passed(gas_max: int, members: int) -> None:
    """A node spends on relaying what its owner allows; the members of the next group wait for another relayer."""
    first = next(iter(make_relays(CLAIMING, gas_max=gas_max).values()))
    hear_claims({ALICE: first})

    group = look(first, CLAIMING, T0)
    assert (0 if group is None else len(wallets(group))) == members
    assert group is None or compute_group_gas(group) <= gas_max


def test_budget__too_small_for_the_largest_group_of_ballots_sends_the_next() -> None:
    """Words of nays cost gas of their own: what rejects nothing may fit where the others do not."""
    first = next(iter(make_relays(VOTING, gas_max=GROUP_GAS + relaying.NAY_WORD_GAS).values()))
    for peer, nays in zip(PEERS, ((4,), (4,), (), (5,), (), (4,)), strict=True):
        first.hear(peer, ballot(*nays), now_s=T0)

    group = look(first, VOTING, T0)

    assert isinstance(group, CastGrouped) and group.nays == () and wallets(group) == wallets_of(PEERS[2], PEERS[4])


def test_budget__counts_before_the_transaction_goes_out_and_survives_a_restart() -> None:
    """A kill between sending and the answer makes nobody spend twice; what it really cost is counted once it is known."""
    first = next(iter(make_relays(CLAIMING).values()))
    hear_claims({ALICE: first})
    group = look(first, CLAIMING, T0)
    assert group is not None
    first.submitted(group, judge_members(CLAIMING.members), now_s=T0)
    back = Relay(RULES, first.me, GAS)
    back.restore(first.encode())

    assert back.gas_spent == first.gas_spent == compute_group_gas(group)
    first.answered(group, gas_used=123_456, done=True)
    assert first.gas_spent == 123_456 and (first.claims_sent, first.ballots_sent) == (6, 0)


def test_relay__looks_again_when_something_new_was_heard() -> None:
    """When all that was heard is on the chain it rests, until there is more."""
    view = replace(CLAIMING, claims=(make_claim(0, 7),))
    first = next(iter(make_relays(view).values()))
    first.hear(PEERS[0], claim(), now_s=T0)
    assert look(first, view, T0 + 10) is None

    first.hear(PEERS[3], claim(), now_s=T0 + 20)
    assert wallets(look(first, view, T0 + 20 + COLLECT_S)) == wallets_of(PEERS[3])
