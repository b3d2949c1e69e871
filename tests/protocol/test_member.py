"""One member between its wallet, its relayers and the chain: signed once, on disk first, and sent by itself if nobody else does (6)."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest

from learnae.protocol import events as ev
from learnae.protocol.calls import CastBallot, ChainView, Signable, Stage, SubmitClaim
from learnae.protocol.committed import compute_rows
from learnae.protocol.cycle import Phase
from learnae.protocol.peer import PeerSettings
from learnae.protocol.relay import compute_group_gas, compute_patience_s
from learnae.protocol.settlement import KNOWN_BY_PERMILLE, OWN_BY_PERMILLE, compute_expected_points
from learnae.protocol.signed import BallotSigned, ClaimSigned
from tests.protocol import builders
from tests.protocol.builders import (
    ALICE,
    BOB,
    CAROL,
    CLAIMING_ENDS_S,
    DAVE,
    PEERS,
    TRAINING_ENDS_S,
    VOTING_ENDS_S,
    Author,
    Player,
    make_claim,
    make_peer_id,
    make_player,
    report,
)

SIGNATURE = b"s" * 64
OWN_CLAIM_S = TRAINING_ENDS_S + (CLAIMING_ENDS_S - TRAINING_ENDS_S) * OWN_BY_PERMILLE / 1000
OWN_BALLOT_S = CLAIMING_ENDS_S + (VOTING_ENDS_S - CLAIMING_ENDS_S) * OWN_BY_PERMILLE / 1000
make_view = partial(builders.make_view, peers=PEERS)


def find_all(effects: list[ev.Effect], kind: type[ev.Effect]) -> list[ev.Effect]:
    return [effect for effect in effects if isinstance(effect, kind)]


def make_helper(*, relay_gas_max: int = 0) -> Player:
    """Alice, whom Bob thanked once: she and nobody else has something to claim. Without gas for others she never relays."""
    player, bob = make_player("alice", settings=PeerSettings(relay_gas_max=relay_gas_max)), Author("bob")
    player.handle(ev.PeerConnected(BOB))
    train = player.begin(ev.TrainModel)
    assert isinstance(train, ev.TrainModel)
    model = ev.ModelTrained(train.number, builders.make_cid("mine"), builders.MODEL_BYTES, builders.measure(60))
    own = next(effect for effect in player.handle(model) if isinstance(effect, ev.PublishVertex))
    player.now_s += 10
    player.hear(bob, report(ALICE, own.cid, owed=10))
    look(player, Stage.CLAIMING, TRAINING_ENDS_S)
    return player


def look(player: Player, stage: Stage, at_s: float, **changes: object) -> list[ev.Effect]:
    player.now_s = at_s
    return player.handle(ev.ChainRead(make_view(stage, time_s=int(at_s), **changes)))


def sign(player: Player, effects: list[ev.Effect]) -> Signable:
    """The wallet's answer to the one signature that was asked for."""
    (asked,) = find_all(effects, ev.SignCall)
    assert isinstance(asked, ev.SignCall)
    player.handle(ev.CallSigned(asked.number, SIGNATURE))
    return asked.call


def sent(effects: list[ev.Effect]) -> list[object]:
    return [effect.call for effect in effects if isinstance(effect, ev.SubmitTransaction)]


def test_claim__is_signed_for_others_and_sent_by_itself_only_when_the_stage_is_nearly_over() -> None:
    """Issue: a member whose relayers refuse sends its own transaction, the same that it signed."""
    player = make_helper()
    asked = look(player, Stage.CLAIMING, TRAINING_ENDS_S + 61)
    assert sent(asked) == []
    signed = sign(player, asked)

    quiet = [look(player, Stage.CLAIMING, at_s) for at_s in (TRAINING_ENDS_S + 62, OWN_CLAIM_S - 1)]
    assert [find_all(effects, ev.SignCall) + sent(effects) for effects in quiet] == [[], []]
    assert sent(look(player, Stage.CLAIMING, OWN_CLAIM_S)) == [signed]
    assert isinstance(signed, SubmitClaim) and signed.points > 0


@pytest.mark.parametrize("ahead_s", [0, 30])
def test_claim__of_its_own_is_in_time_where_the_block_that_counts_lags_behind(ahead_s: int) -> None:
    """Confirmations: the contract's clock is the newest block's, which may be a good part of the stage ahead."""
    player = make_helper()
    signed = sign(player, look(player, Stage.CLAIMING, TRAINING_ENDS_S + 61 - ahead_s, newest_s=TRAINING_ENDS_S + 61))
    at_s = int(OWN_CLAIM_S) - ahead_s

    view = make_view(Stage.CLAIMING, time_s=at_s - 2, newest_s=int(OWN_CLAIM_S) - 2)
    player.now_s = at_s - 2
    assert sent(player.handle(ev.ChainRead(view))) == []
    assert sent(player.handle(ev.ChainRead(view), after_s=2)) == [signed], "its own clock goes on from the newest block"


def test_claim__that_a_relayer_brought_is_not_sent_again() -> None:
    player = make_helper()
    signed = sign(player, look(player, Stage.CLAIMING, TRAINING_ENDS_S + 61))
    assert isinstance(signed, SubmitClaim)

    assert sent(look(player, Stage.CLAIMING, OWN_CLAIM_S, claims=(make_claim(0, signed.points, signed.evidence),))) == []


def test_wallet_that_does_not_answer__does_not_cost_the_claim() -> None:
    """The signature is for convenience; the own transaction needs none of it, and the wallet is asked once."""
    player = make_helper()
    assert find_all(look(player, Stage.CLAIMING, TRAINING_ENDS_S + 61), ev.SignCall)

    assert find_all(look(player, Stage.CLAIMING, TRAINING_ENDS_S + 62), ev.SignCall) == []
    assert isinstance(sent(look(player, Stage.CLAIMING, OWN_CLAIM_S))[0], SubmitClaim)


@pytest.mark.parametrize("killed", ["before the signature", "after it"])
def test_ballot__is_on_disk_before_it_is_signed_and_never_another_one_after_a_restart(killed: str) -> None:
    """Threats, kill at any point: whatever the ledger says by then, the same ballot is signed, published and sent."""
    player = make_helper()
    look(player, Stage.VOTING, CLAIMING_ENDS_S, claims=(make_claim(1, 5),))
    view = make_view(Stage.VOTING, time_s=CLAIMING_ENDS_S + 61, claims=(make_claim(1, 5), make_claim(2, 6)))
    player.now_s = view.time_s
    effects = player.handle(ev.ChainRead(view))
    (asked,) = find_all(effects, ev.SignCall)
    assert isinstance(asked, ev.SignCall) and asked.call == CastBallot((1, 2))
    saved = [place for place, effect in enumerate(effects) if isinstance(effect, ev.SaveRecord)]
    assert saved and saved[-1] < effects.index(asked)
    if killed == "after it":
        player.handle(ev.CallSigned(asked.number, SIGNATURE))

    back = Player(settings=PeerSettings(relay_gas_max=0))
    back.now_s = player.now_s
    back.start(journal=player)
    changed = replace(view, claims=(make_claim(1, 0), make_claim(2, 0)))  # By these it would decide otherwise.
    again = back.handle(ev.ChainRead(changed))
    assert [effect.call for effect in again if isinstance(effect, ev.SignCall)] == ([] if killed == "after it" else [asked.call])
    back.now_s = OWN_BALLOT_S
    assert sent(back.handle(ev.ChainRead(replace(changed, time_s=int(OWN_BALLOT_S))))) == [asked.call]


def test_signed__is_published_once_and_after_a_restart_not_again() -> None:
    player = make_helper()
    asked = look(player, Stage.CLAIMING, TRAINING_ENDS_S + 61)
    (request,) = find_all(asked, ev.SignCall)
    assert isinstance(request, ev.SignCall) and isinstance(request.call, SubmitClaim)
    said = player.say(player.handle(ev.CallSigned(request.number, SIGNATURE)))
    assert said == [ClaimSigned(points=request.call.points, evidence=request.call.evidence, signature=SIGNATURE)]

    back = Player(settings=PeerSettings(relay_gas_max=0))
    back.now_s = player.now_s
    back.start(journal=player)
    assert find_all(look(back, Stage.CLAIMING, player.now_s + 1), ev.SignCall) == []


@pytest.mark.parametrize("restarted", [False, True])
def test_voter__is_after_a_restart_as_strict_as_before(restarted: bool) -> None:
    """What a claim must hold was decided in the claiming stage: a receipt that came later makes no honest claim wrong, restart or not."""
    player = make_player("alice", settings=PeerSettings(relay_gas_max=0))
    bob, carol, dave = Author("bob"), Author("carol"), Author("dave")
    one, two = player.hear(carol, builders.announce("1")), player.hear(dave, builders.announce("2"))
    player.now_s += 10
    player.hear(bob, report(CAROL, one.cid, owed=10))
    known_s = TRAINING_ENDS_S + (CLAIMING_ENDS_S - TRAINING_ENDS_S) * (KNOWN_BY_PERMILLE + 1) / 1000
    membership = player.peer.dao.membership
    points = compute_expected_points(player.rules, compute_rows(player.peer.lane), membership)
    look(player, Stage.CLAIMING, known_s)
    seal = player.hear(carol, player.peer.lane.compute_checkpoint(closing=False))
    player.hear(bob, report(DAVE, two.cid, owed=10))
    later = compute_expected_points(player.rules, compute_rows(player.peer.lane), membership)
    assert points[CAROL] and later[CAROL] != points[CAROL]

    voter = player
    if restarted:
        voter = Player(settings=PeerSettings(relay_gas_max=0))
        voter.start(journal=player)
    claims = (make_claim(PEERS.index(CAROL), points[CAROL], seal.cid[4:]),)
    look(voter, Stage.VOTING, CLAIMING_ENDS_S + 1, claims=claims)
    assert sent(look(voter, Stage.VOTING, OWN_BALLOT_S, claims=claims)) == [CastBallot(())]


def hear_ballots(player: Player, *names: str) -> None:
    for name in names:
        player.hear(Author(name), BallotSigned(nays=(), signature=SIGNATURE))


def vote(player: Player, at_s: float) -> tuple[ChainView, list[ev.Effect]]:
    """Voting, seen until it is this member's turn to relay."""
    player.now_s = at_s
    view = make_view(Stage.VOTING, time_s=int(at_s), claims=(make_claim(0, 5, bytes(32)),))
    for _ in range(100):
        effects = player.handle(ev.ChainRead(replace(view, time_s=int(player.now_s))))
        if sent(effects):
            return view, effects
        player.now_s += 1
    raise AssertionError("its turn never came")


def test_relaying__is_saved_then_sent_and_told() -> None:
    player = make_player("carol")
    player.now_s = CLAIMING_ENDS_S + 1
    look(player, Stage.VOTING, CLAIMING_ENDS_S + 1, claims=(make_claim(0, 5),))
    hear_ballots(player, "dave", "erin")
    _, effects = vote(player, CLAIMING_ENDS_S + 2)
    (transaction,) = find_all(effects, ev.SubmitTransaction)
    saved = next(place for place, effect in enumerate(effects) if isinstance(effect, ev.SaveRecord) and effect.name == "relay")
    told = [effect.text for effect in effects if isinstance(effect, ev.Tell)]

    assert saved < effects.index(transaction) and told == ["relays 2 ballots"]
    assert isinstance(transaction, ev.SubmitTransaction)
    assert player.peer.dao.relay.gas_spent == compute_group_gas(transaction.call)  # type: ignore[arg-type]
    done = player.handle(ev.TransactionConfirmed(transaction.number, None, 99_000))
    assert player.peer.dao.relay.gas_spent == 99_000
    assert [effect.text for effect in done if isinstance(effect, ev.Tell)] == ["CastGrouped is in a block: 99,000 gas"]


def test_relaying__pauses_while_members_send_their_own() -> None:
    """Otherwise the same ballot would be paid for twice; afterwards those who are offline are still helped."""
    player = make_player("carol")
    look(player, Stage.VOTING, CLAIMING_ENDS_S + 1, claims=(make_claim(0, 5),))
    player.now_s = OWN_BALLOT_S - 1
    hear_ballots(player, "dave", "erin")
    _, effects = vote(player, OWN_BALLOT_S)
    (own,) = find_all(effects, ev.SubmitTransaction)
    assert isinstance(own, ev.SubmitTransaction) and own.call == CastBallot((0,))
    player.handle(ev.TransactionConfirmed(own.number, None, 50_000))

    quiet_s = OWN_BALLOT_S + compute_patience_s(VOTING_ENDS_S - CLAIMING_ENDS_S)
    view = make_view(Stage.VOTING, claims=(make_claim(0, 5),), ballots=frozenset({2}))
    relayed_at_s = []
    for at_s in range(int(OWN_BALLOT_S) + 1, VOTING_ENDS_S + 60):
        player.now_s = at_s
        if not relayed_at_s and sent(player.handle(ev.ChainRead(replace(view, time_s=at_s)))):
            relayed_at_s.append(at_s)
    assert relayed_at_s and relayed_at_s[0] >= quiet_s


def test_relaying__that_fails_delays_no_own_call() -> None:
    """Issue: the own transaction must always work."""
    player = make_player("carol")
    look(player, Stage.VOTING, CLAIMING_ENDS_S + 1, claims=(make_claim(0, 5),))
    hear_ballots(player, "dave", "erin")
    view, effects = vote(player, CLAIMING_ENDS_S + 2)
    (transaction,) = find_all(effects, ev.SubmitTransaction)
    assert isinstance(transaction, ev.SubmitTransaction)
    player.handle(ev.TransactionFailed(transaction.number, "none of them is signed", final=True))
    assert not player.peer.dao.finished and player.peer.dao.relay.gas_spent == 0

    player.now_s = OWN_BALLOT_S
    assert sent(player.handle(ev.ChainRead(replace(view, time_s=int(OWN_BALLOT_S))))) == [CastBallot((0,))]


def test_relaying__of_nothing_but_the_own_is_an_ordinary_call() -> None:
    """A group of one costs more gas than the plain transaction."""
    player = make_helper(relay_gas_max=10**9)
    signed = sign(player, look(player, Stage.CLAIMING, TRAINING_ENDS_S + 61))
    for after in range(1, 39):
        calls = sent(look(player, Stage.CLAIMING, TRAINING_ENDS_S + 61 + after))
        if calls:
            assert calls == [signed] and player.now_s < OWN_CLAIM_S
            return
    raise AssertionError("its turn never came")


def test_strangers__are_not_relayed() -> None:
    """Only members' vertices are heard; a claim of somebody else costs nobody gas."""
    player = make_player("carol")
    look(player, Stage.VOTING, CLAIMING_ENDS_S + 1, claims=(make_claim(0, 5),))
    hear_ballots(player, "nobody")

    assert not player.peer.dao.relay.has_signed(make_peer_id("nobody"), Stage.VOTING)


def test_training__goes_on_while_its_end_is_put_off() -> None:
    """5.2: a proposal that passed moves the end of training, and the row is closed at the new end only."""
    player, moved = make_player(), TRAINING_ENDS_S + 500
    assert find_all(look(player, Stage.TRAINING, TRAINING_ENDS_S + 1, training_ends_s=moved), ev.PublishVertex) == []
    assert player.peer.dao.compute_phase(player.now_s) is Phase.TRAINING
    assert player.peer.dao.compute_phase(moved - 99) is Phase.FINAL

    closing = look(player, Stage.CLAIMING, moved + 1, training_ends_s=moved, claiming_ends_s=CLAIMING_ENDS_S + 500)

    assert len(find_all(closing, ev.PublishVertex)) == 1
    assert player.peer.dao.compute_phase(player.now_s) is Phase.CLOSED


def test_clock_that_was_set_back__costs_no_ballot_and_ends_no_node() -> None:
    """Others refuse a ballot of before its stage for ever, so it waits until the time is right again."""
    player, claims = make_helper(), (make_claim(1, 5),)
    look(player, Stage.VOTING, CLAIMING_ENDS_S, claims=claims)
    (asked,) = find_all(look(player, Stage.VOTING, CLAIMING_ENDS_S + 61, claims=claims), ev.SignCall)
    assert isinstance(asked, ev.SignCall)
    right_s, player.now_s = player.now_s, player.now_s - 3600
    assert player.handle(ev.CallSigned(asked.number, SIGNATURE)) == []

    (again,) = find_all(look(player, Stage.VOTING, right_s + 1, claims=claims), ev.SignCall)
    assert isinstance(again, ev.SignCall) and again.call == asked.call
    assert [type(said) for said in player.say(player.handle(ev.CallSigned(again.number, SIGNATURE)))] == [BallotSigned]
