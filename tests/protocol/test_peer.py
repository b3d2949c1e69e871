"""The peer from outside: events in, effects out. The work cycle of section 4.1, what is said to others, and what survives a kill."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from learnae.ids import PeerId
from learnae.protocol import events as ev
from learnae.protocol.calls import CastBallot, DeployPoid, PayTip, Stage, SubmitClaim
from learnae.protocol.dataslices import SLICES_PER_OWNER_MAX, DatasliceShelf
from learnae.protocol.measures import Evaluation
from learnae.protocol.messages import (
    COUNT_MAX,
    Checkpoint,
    DatasliceConsumed,
    Departed,
    HashlistPublished,
    HelpReported,
    Joined,
    ModelAnnounced,
    Origin,
)
from learnae.protocol.models import ANNOUNCEMENTS_PER_ISSUER_MAX, FAILURES_MAX, PairedPolicy
from learnae.protocol.peer import IDLE_S, PeerSettings
from learnae.protocol.rules import ADDRESSES_MAX
from learnae.protocol.sharing import decode_hashlist, encode_hashlist
from learnae.protocol.signed import BallotSigned, ClaimSigned
from learnae.protocol.sync import ANSWERS_BURST, ANSWERS_PER_S, SYNC_EVERY_S, SYNC_SOON_S, SyncMessage, decode_sync
from learnae.tangle.verdict import Verdict
from tests.protocol import builders
from tests.protocol.builders import (
    ALICE,
    BOB,
    CAROL,
    FACTS,
    FINAL_S,
    INITIAL,
    MODEL_BYTES,
    NOW_MS,
    PEERS,
    RULES,
    TOTAL,
    TRAINING_ENDS_S,
    Author,
    Player,
    announce,
    make_cid,
    make_claim,
    make_player,
    measure,
    report,
)

SIGNATURE = b"s" * 64  # Opaque to the core: the wallet makes it, the chain's backend checks it.
make_view = partial(builders.make_view, peers=PEERS)
E = TypeVar("E", bound=ev.Effect)
AVERAGES = replace(RULES, train_permille=0)
TRAINS = replace(RULES, train_permille=1000)


def find(effects: list[ev.Effect], kind: type[E]) -> E:
    return next(effect for effect in effects if isinstance(effect, kind))


def find_all(effects: list[ev.Effect], kind: type[E]) -> list[E]:
    return [effect for effect in effects if isinstance(effect, kind)]


def reach_average(player: Player) -> ev.AverageModels:
    """A turn in which the chosen model was fetched and is being averaged."""
    fetch = find(player.turn(), ev.FetchFile)
    return find(player.handle(ev.FileFetched(fetch.number)), ev.AverageModels)


def finish_average(player: Player, correct: int, *, remote: int = 60, text: str = "mean") -> list[ev.Effect]:
    local = player.peer.cycle.local
    assert local is not None
    average = reach_average(player)
    return player.handle(
        ev.ModelsAveraged(average.number, make_cid(text), MODEL_BYTES, measure(correct, reference=local.correct), measure(remote))
    )


# --- training (4.1, green area) -----------------------------------------------------------------------------------


def test_training__result_becomes_the_local_model_and_is_announced() -> None:
    """4.1: after each training phase the model is stored and its metadata broadcast; also if it got worse."""
    player = make_player(rules=TRAINS, correct=50)
    train = find(player.turn(), ev.TrainModel)
    assert train.model == INITIAL and set(train.private_slices) == {0, 1, 2, 3}

    said = player.say(player.handle(ev.ModelTrained(train.number, make_cid("new"), MODEL_BYTES, measure(45))))

    (message,) = said
    assert isinstance(message, ModelAnnounced)
    assert (message.model, message.correct, message.total, message.maturity_cycles) == (make_cid("new"), 45, TOTAL, 1)
    assert message.parents == (INITIAL,) and message.origin is Origin.TRAINED
    assert player.peer.cycle.local is not None and player.peer.cycle.local.correct == 45


def test_cycle__rotates_at_random_between_training_and_averaging() -> None:
    """4.1: peers randomly rotate between training and averaging in every work cycle."""
    player, bob = make_player(rules=RULES), Author("bob")
    train = find(player.turn(), ev.TrainModel)
    player.handle(ev.ModelTrained(train.number, make_cid("own"), MODEL_BYTES, measure(50)))
    kinds = []
    for number in range(10):
        player.hear(bob, announce(f"m{number}", correct=90))
        for effect in player.turn():
            if isinstance(effect, ev.TrainModel):
                kinds.append("train")
                player.handle(ev.LearningFailed(effect.number, "not now", blames_remote=False))
            elif isinstance(effect, ev.FetchFile):
                kinds.append("average")
                player.handle(ev.FetchFailed(effect.number, "not now"))

    assert kinds.count("train") >= 2 and kinds.count("average") >= 2


def test_newcomer__takes_what_others_have_before_it_trains() -> None:
    """A late joiner has nothing of its own to lose: it averages first if there is anything, and then does as all do (deviation D16)."""
    player, bob = make_player(rules=TRAINS), Author("bob")
    player.hear(bob, announce("model of bob", correct=90))

    finish_average(player, 70)

    player.hear(bob, announce("better model of bob", correct=91))
    assert find_all(player.turn(), ev.TrainModel) != []


def read_pause_s(player: Player, effects: list[ev.Effect]) -> float:
    """How long until the next work cycle may begin."""
    return next(e.at_s for e in effects if isinstance(e, ev.SetTimer) and e.timer is ev.Timer.CYCLE) - player.now_s


def test_pace__is_kept_after_work_only() -> None:
    """A work cycle begins at the earliest `pace_s` after the one before; a model that was opened or could not be had was none."""
    player, bob = Player(rules=AVERAGES, settings=PeerSettings(pace_s=100.0)), Author("bob")
    player.start()
    player.handle(ev.ChainRead(make_view()))
    fetch = find(player.turn(), ev.FetchFile)
    evaluate = find(player.handle(ev.FileFetched(fetch.number)), ev.EvaluateModel)
    assert read_pause_s(player, player.handle(ev.ModelEvaluated(evaluate.number, MODEL_BYTES, measure(50)))) == 0

    player.hear(bob, announce("model of bob", correct=90))
    fetch = find(player.turn(), ev.FetchFile)
    assert read_pause_s(player, player.handle(ev.FetchFailed(fetch.number, "its node was killed"))) == IDLE_S

    assert read_pause_s(player, finish_average(player, 70)) == 100.0
    train = player.begin(ev.TrainModel)
    assert isinstance(train, ev.TrainModel)
    failed = player.handle(ev.LearningFailed(train.number, "out of memory", blames_remote=False))
    assert read_pause_s(player, failed) == 100.0, "what fails for the user's own reasons is not tried again at once"


def test_newcomer__looks_for_the_initial_model_as_soon_as_somebody_may_give_it() -> None:
    """A late joiner does not sit out a pause: it looks when it is seen to be a member, and when somebody connects."""
    player = Player(rules=RULES)
    player.start()
    assert find_all(player.turn(), ev.FetchFile) == [], "no member yet"
    assert read_pause_s(player, player.handle(ev.ChainRead(make_view()))) == 0
    fetch = find(player.turn(), ev.FetchFile)
    player.handle(ev.FetchFailed(fetch.number, "nobody is connected"))

    assert read_pause_s(player, player.handle(ev.PeerConnected(BOB))) == 0
    evaluate = find(player.handle(ev.FileFetched(find(player.turn(), ev.FetchFile).number)), ev.EvaluateModel)
    player.handle(ev.ModelEvaluated(evaluate.number, MODEL_BYTES, measure(50)))
    assert not [e for e in player.handle(ev.PeerConnected(CAROL)) if isinstance(e, ev.SetTimer)], "it has one now"


def test_cycle__needs_nobody() -> None:
    """4.1: asynchronous; a peer that hears nothing trains on, for ever."""
    player = make_player(rules=AVERAGES)
    for number in range(30):
        train = find(player.turn(), ev.TrainModel)
        effects = player.handle(ev.ModelTrained(train.number, make_cid(str(number)), MODEL_BYTES, measure(50)))
        assert find(effects, ev.SetTimer).timer is ev.Timer.CYCLE

    assert player.peer.cycle.cycles == 30


def test_cycle__does_one_thing_at_a_time_and_ignores_strange_answers() -> None:
    player = make_player(rules=TRAINS)
    train = find(player.turn(), ev.TrainModel)

    assert player.turn() == []
    assert player.handle(ev.ModelTrained(train.number + 99, make_cid("x"), 1, measure(1))) == []
    assert player.handle(ev.FileFetched(0)) == []


# --- averaging (4.1, blue area) -----------------------------------------------------------------------------------


def test_average__better_is_adopted_announced_and_reported() -> None:
    """4.1 and 6: if the averaged model improves local accuracy the peer adopts it, announces it and reports the help."""
    player = make_player(rules=AVERAGES, correct=50)
    heard = player.hear(Author("bob"), announce("bobs", correct=90, maturity=7))

    effects = finish_average(player, 53)

    announced, helped = player.say(effects)
    assert isinstance(announced, ModelAnnounced) and isinstance(helped, HelpReported)
    assert (announced.origin, announced.maturity_cycles, announced.parents) == (Origin.AVERAGED, 8, (INITIAL, make_cid("bobs")))
    assert (helped.helper, helped.announcement, helped.credits, helped.owed) == (BOB, heard.cid, 30, 30)
    assert (helped.before, helped.after) == (INITIAL, make_cid("mean"))
    assert player.peer.lane.ledger.rows() == {ALICE: {BOB: 30}}
    assert player.peer.cycle.local is not None and player.peer.cycle.local.correct == 53


@pytest.mark.parametrize("correct", [49, 50])
def test_average__worse_than_local_is_dropped_and_earns_nothing(correct: int) -> None:
    """4.1: a peer adopts an averaged model only if it beats its own."""
    player = make_player(rules=AVERAGES, correct=50)
    player.hear(Author("bob"), announce("bobs", correct=90))

    effects = finish_average(player, correct)

    assert player.say(effects) == []
    assert player.peer.cycle.local is not None and player.peer.cycle.local.cid == INITIAL
    assert player.peer.lane.ledger.rows() == {}


def test_choice__only_models_that_claim_more_and_the_best_claim_first() -> None:
    """4.1: it looks through its list for a model with a claimed accuracy higher than the local one."""
    player = make_player(rules=AVERAGES, correct=50)
    for name, correct in (("bob", 40), ("carol", 80), ("dave", 70), ("erin", 50)):
        player.hear(Author(name), announce(name, correct=correct))

    chosen = []
    for _ in range(2):
        average = reach_average(player)
        chosen.append(average.remote)
        player.handle(ev.ModelsAveraged(average.number, make_cid("m"), MODEL_BYTES, measure(40, reference=50), measure(80)))

    assert chosen == [make_cid("carol"), make_cid("dave")]
    assert find_all(player.turn(), ev.FetchFile) == [] and player.peer.cycle.market.exaggeration(CAROL) == 0.0


def test_average__is_the_plain_mean() -> None:
    """4.1: the remote model is averaged with the local one."""
    player = make_player(rules=AVERAGES)
    player.hear(Author("bob"), announce("bobs", correct=90))

    average = reach_average(player)

    assert (average.local, average.remote, average.remote_share) == (INITIAL, make_cid("bobs"), 0.5)


@given(outcomes=st.lists(st.integers(0, TOTAL - 1), max_size=12))
@settings(max_examples=25)
def test_paper_policy__no_adoption_ever_lowers_the_own_accuracy(outcomes: list[int]) -> None:
    """Issue: `paper` as written; help is reported only for a real improvement."""
    player, bob = make_player(rules=AVERAGES, correct=30), Author("bob")
    for number, correct in enumerate(outcomes):
        player.hear(bob, announce(f"model {number}", correct=100))
        local = player.peer.cycle.local
        assert local is not None
        said = player.say(finish_average(player, correct, text=f"mean {number}"))
        after = player.peer.cycle.local
        assert after is not None and after.correct == max(correct, local.correct)
        assert correct > local.correct or not any(isinstance(message, HelpReported) for message in said)


def test_paired_policy__adopts_a_little_worse_without_reporting_help() -> None:
    """Deviation D1: an average that is not shown to be worse is kept; only a real improvement is help."""
    player = make_player(rules=replace(AVERAGES, policy="paired"), correct=50)
    player.hear(Author("bob"), announce("bobs", correct=20))
    average = reach_average(player)
    worse = replace(measure(48, reference=50), gained=5, lost=7)

    said = player.say(player.handle(ev.ModelsAveraged(average.number, make_cid("mean"), MODEL_BYTES, worse, measure(45))))

    assert [type(message) for message in said] == [ModelAnnounced]


def test_paired_policy__drops_what_is_shown_to_be_worse() -> None:
    player = make_player(rules=replace(AVERAGES, policy="paired"), correct=50)
    player.hear(Author("bob"), announce("bobs", correct=20))
    average = reach_average(player)
    worse = replace(measure(40, reference=50), gained=2, lost=12)

    assert player.say(player.handle(ev.ModelsAveraged(average.number, make_cid("mean"), MODEL_BYTES, worse, measure(45)))) == []


def test_liar__is_chosen_last_after_one_measurement() -> None:
    """Threats, lying metadata: a false accuracy costs the liar; claim minus measured is kept per issuer."""
    player, mallory = make_player(rules=AVERAGES, correct=50), Author("mallory")
    player.hear(mallory, announce("poison 1", correct=99))
    finish_average(player, 10, remote=10)
    player.hear(mallory, announce("poison 2", correct=99))
    player.hear(Author("bob"), announce("honest", correct=70))

    assert reach_average(player).remote == make_cid("honest")


def test_fetch_failures__give_up_a_model_and_go_on() -> None:
    """Nobody waits: a model that twice nobody had is left alone."""
    player = make_player(rules=AVERAGES)
    player.hear(Author("bob"), announce("bobs", correct=90))
    for _ in range(FAILURES_MAX):
        fetch = find(player.turn(), ev.FetchFile)
        assert find(player.handle(ev.FetchFailed(fetch.number, "nobody had it")), ev.SetTimer).timer is ev.Timer.CYCLE

    assert find_all(player.turn(), ev.TrainModel) != []


@pytest.mark.parametrize("policy", ["paper", "paired"])
def test_issuer_that_is_away__is_left_for_another_at_once_until_it_is_heard_again(policy: str) -> None:
    """Nobody waits: of many who were killed, each costs one try and no pause."""
    player = make_player(rules=replace(AVERAGES, policy=policy))
    authors = {author.me: author for author in map(Author, ("bob", "carol", "dave"))}
    for author in authors.values():
        player.hear(author, announce(f"model of {author.name}", correct=90))

    effects, tried = player.turn(), []
    while fetches := find_all(effects, ev.FetchFile):
        tried.append(fetches[0].providers[0])
        effects = player.handle(ev.FetchFailed(fetches[0].number, "nobody had it", is_away=True))
        if len(tried) > len(authors):
            break
    assert set(tried[:3]) == authors.keys(), "each of them once before anybody is tried again"
    assert len(tried) == 4 and read_pause_s(player, effects) == IDLE_S, "where all are away there is a pause"

    player.handle(ev.PeerConnected(tried[1]))
    fetch = find(player.turn(), ev.FetchFile)
    assert fetch.providers[0] == tried[1], "it is connected again"
    player.handle(ev.FetchFailed(fetch.number, "it is there, and does not have it any more"))
    player.hear(authors[tried[2]], announce("newer model", correct=91))
    assert find(player.turn(), ev.FetchFile).cid == make_cid("newer model"), "who says something is not away"


def test_bytes_that_are_no_model__are_not_tried_again() -> None:
    player = make_player(rules=AVERAGES)
    player.hear(Author("bob"), announce("bobs", correct=90))
    average = reach_average(player)
    player.handle(ev.LearningFailed(average.number, "NaN inside", blames_remote=True))

    assert find_all(player.turn(), ev.FetchFile) == []


def test_market__keeps_the_newest_of_each_issuer() -> None:
    """Nothing unbounded: a peer that never stops talking costs eight entries."""
    player, bob = make_player(), Author("bob")
    for number in range(20):
        player.hear(bob, announce(str(number)))

    known = player.peer.cycle.market.of(BOB)
    assert len(known) == ANNOUNCEMENTS_PER_ISSUER_MAX and known[-1].message.model == make_cid("19")


def test_forker__is_taken_off_the_market() -> None:
    player, mallory = make_player(), Author("mallory")
    first = player.hear(mallory, announce("a"))
    player.hear(mallory, announce("b"))
    rival = mallory.write(announce("c"), previous=first)

    effects = player.handle(ev.VertexReceived(BOB, rival.encoded))

    assert mallory.me not in player.peer.cycle.market.issuers
    assert "frozen" in find(effects, ev.Tell).text
    proofs = player.say(player.handle(ev.ChainRead(make_view())))
    assert [type(message).__name__ for message in proofs].count("ForkProved") == 1
    assert player.say(player.handle(ev.ChainRead(make_view()))) == []


@pytest.mark.parametrize("claimed", [COUNT_MAX, COUNT_MAX - 1])
def test_boundless_claims__do_not_break_the_own_log(claimed: int) -> None:
    """A remote's maturity goes into the own announcement: the largest one must not make it unreadable for the others."""
    player, observer = make_player(rules=AVERAGES), make_player("carol", rules=AVERAGES)
    player.hear(Author("bob"), announce("bobs", correct=90, maturity=claimed))

    effects = finish_average(player, 60)
    for effect in find_all(effects, ev.PublishVertex):
        observer.handle(ev.SyncReceived(ALICE, SyncMessage(vertices=tuple(player.vertices.values())).encode()))
        assert effect.cid in observer.peer.lane.dag

    train = player.begin(ev.TrainModel)  # What is trained from the adopted model is riper still.
    assert isinstance(train, ev.TrainModel)
    said = player.say(player.handle(ev.ModelTrained(train.number, make_cid("more"), MODEL_BYTES, measure(61))))
    assert [message.maturity_cycles for message in said if isinstance(message, ModelAnnounced)] == [COUNT_MAX]


def test_silent_peer__adopts_but_never_reports() -> None:
    """7: the paper's malicious peer takes help and says nothing."""
    player = make_player(rules=AVERAGES, settings=PeerSettings(reports_help=False))
    player.hear(Author("bob"), announce("bobs", correct=90))

    assert [type(message) for message in player.say(finish_average(player, 60))] == [ModelAnnounced]
    assert player.peer.lane.ledger.rows() == {}


# --- the final optimisation (4.1) -----------------------------------------------------------------------------------


def make_final(correct: int = 50) -> Player:
    player = make_player(rules=AVERAGES, correct=correct)
    player.now_s = TRAINING_ENDS_S - FINAL_S + 1.0
    player.handle(ev.ChainRead(make_view(time_s=int(player.now_s))))
    return player


def test_final__best_claim_is_adopted_as_it_is_if_better() -> None:
    """4.1: when all averaging is done each peer downloads the model with the highest claim, tests it, and takes it over if better."""
    player = make_final()
    player.hear(Author("bob"), announce("bobs", correct=90, maturity=7))
    finish_average(player, 40)
    fetch = find(player.turn(), ev.FetchFile)
    test = find(player.handle(ev.FileFetched(fetch.number)), ev.EvaluateModel)
    assert (test.model, test.reference) == (make_cid("bobs"), INITIAL)

    announced, helped = player.say(player.handle(ev.ModelEvaluated(test.number, MODEL_BYTES, measure(70, reference=50))))

    assert isinstance(announced, ModelAnnounced) and isinstance(helped, HelpReported)
    assert (announced.model, announced.origin, announced.maturity_cycles) == (make_cid("bobs"), Origin.ADOPTED, 7)
    assert helped.credits == 200
    assert player.peer.cycle.local is not None and player.peer.cycle.local.cid == make_cid("bobs")


def test_final__a_false_claim_is_dropped_and_tested_once() -> None:
    player = make_final()
    player.hear(Author("bob"), announce("bobs", correct=90))
    finish_average(player, 40)
    fetch = find(player.turn(), ev.FetchFile)
    test = find(player.handle(ev.FileFetched(fetch.number)), ev.EvaluateModel)

    assert player.say(player.handle(ev.ModelEvaluated(test.number, MODEL_BYTES, measure(50, reference=50)))) == []
    assert find_all(player.turn(), ev.FetchFile) == []
    assert player.peer.cycle.local is not None and player.peer.cycle.local.cid == INITIAL


def test_final__only_averages() -> None:
    """The last part of the training stage trains no more."""
    player = make_final()

    assert find_all([effect for _ in range(20) for effect in player.turn()], ev.TrainModel) == []


def test_end_of_training__closes_the_row_once_and_drops_what_is_under_way() -> None:
    """6: when the training phase concludes."""
    player = make_player(rules=TRAINS)
    train = find(player.turn(), ev.TrainModel)
    player.now_s = TRAINING_ENDS_S + 1.0
    view = make_view(Stage.CLAIMING, time_s=int(player.now_s))

    (closing,) = player.say(player.handle(ev.ChainRead(view)))

    assert isinstance(closing, Checkpoint) and closing.closing
    assert player.say(player.handle(ev.ChainRead(view))) == []
    assert player.handle(ev.ModelTrained(train.number, make_cid("late"), MODEL_BYTES, measure(99))) == []
    assert player.say(player.turn()) == []


# --- membership -------------------------------------------------------------------------------------------------------


def test_member__introduces_itself_when_funding_is_over_and_when_its_address_changed() -> None:
    """4.4: after deploying, a peer broadcasts its contract's address."""
    player = Player()
    player.start()
    assert player.say(player.handle(ev.ChainRead(make_view(Stage.FUNDING)))) == []

    (joined,) = player.say(player.handle(ev.ChainRead(make_view())))
    assert isinstance(joined, Joined) and joined.addresses == ("/ip4/127.0.0.1/tcp/1",)
    assert player.say(player.handle(ev.ChainRead(make_view()))) == []

    moved = Player()
    moved.handle(ev.Started(facts=FACTS, addresses=("/ip4/9.9.9.9/tcp/9",), vertices=tuple(player.vertices.values())))
    assert [type(message) for message in moved.say(moved.handle(ev.ChainRead(make_view())))] == [Joined]


def test_funding__nobody_is_heard_while_members_may_still_leave() -> None:
    """A member that left would be known to some and refused by others for ever, with all that name what it said."""
    player, bob = Player(), Author("bob")
    player.start()
    player.handle(ev.ChainRead(make_view(Stage.FUNDING)))
    early = bob.write(announce())

    effects = player.handle(ev.VertexReceived(BOB, early.encoded))
    assert find(effects, ev.PassVerdict).ruling.verdict is Verdict.IGNORE

    player.handle(ev.ChainRead(make_view()))
    player.handle(ev.VertexReceived(BOB, early.encoded))
    assert early.cid in player.peer.lane.dag


def test_stranger__deploys_joins_and_ends_with_a_sentence_if_it_is_too_late() -> None:
    player = Player("frank")
    player.start()
    assert find(player.handle(ev.ChainRead(make_view(Stage.FUNDING))), ev.SubmitTransaction).call == DeployPoid()

    late = Player("frank")
    late.start()
    assert "not a member" in find(late.handle(ev.ChainRead(make_view())), ev.Finish).fault


def test_stop__says_goodbye() -> None:
    player = make_player()

    effects = player.handle(ev.StopAsked("x" * 500))

    (departed,) = player.say(effects)
    assert isinstance(departed, Departed) and len(departed.reason) == 200
    assert find(effects, ev.Finish).fault == ""


# --- a whole settlement, seen by one member -------------------------------------------------------------------------


def test_settlement__claims_votes_and_finishes() -> None:
    """6, Fig. 5: from the ledger to the claim to the ballot to the end."""
    player, bob = make_player("alice"), Author("bob")
    announced = find(player.handle(ev.TimerFired(ev.Timer.CYCLE), after_s=1.0), ev.TrainModel)
    effects = player.handle(ev.ModelTrained(announced.number, make_cid("mine"), MODEL_BYTES, measure(60)))
    own = find(effects, ev.PublishVertex)
    player.now_s += 10
    player.hear(bob, report(ALICE, own.cid, owed=10))
    player.now_s = TRAINING_ENDS_S + 60.0
    closed = player.handle(ev.ChainRead(make_view(Stage.CLAIMING, time_s=int(player.now_s))))
    player.now_s += 10
    claiming = closed + player.handle(ev.ChainRead(make_view(Stage.CLAIMING, time_s=int(player.now_s))))
    claim = find(claiming, ev.SignCall)
    closing, seal = find_all(claiming, ev.PublishVertex)
    assert [message.closing for message in player.say(claiming) if isinstance(message, Checkpoint)] == [True, False]

    assert isinstance(claim.call, SubmitClaim)
    assert claim.call.points == 5_000_000_000  # Bob's row, and those of the four silent ones, who follow it.
    assert claim.call.evidence == seal.cid[4:] != closing.cid[4:]
    saves = [i for i, e in enumerate(claiming) if isinstance(e, ev.SaveRecord)]
    assert saves and saves[-1] < claiming.index(claim)
    signed = player.handle(ev.CallSigned(claim.number, SIGNATURE))
    assert player.say(signed) == [ClaimSigned(points=claim.call.points, evidence=claim.call.evidence, signature=SIGNATURE)]

    player.now_s += 100
    view = make_view(
        Stage.VOTING, time_s=int(player.now_s), claims=(make_claim(0, claim.call.points, claim.call.evidence), make_claim(1, 5))
    )
    player.handle(ev.ChainRead(replace(view, time_s=int(player.now_s - 20))), after_s=-20)
    vote = find(player.handle(ev.ChainRead(view), after_s=20), ev.SignCall)
    assert vote.call == CastBallot((1,))
    assert player.say(player.handle(ev.CallSigned(vote.number, SIGNATURE))) == [BallotSigned(nays=(1,), signature=SIGNATURE)]
    assert find(player.handle(ev.ChainRead(make_view(Stage.RELEASED))), ev.Finish).fault == ""


# --- restart ----------------------------------------------------------------------------------------------------------


@given(cut=st.integers(0, 40))
@settings(max_examples=15)
def test_restart__repeats_no_number_and_keeps_the_local_model(cut: int) -> None:
    """Threats, replay: journal before publish; a kill after any effect, then on from there."""
    player = make_player(rules=AVERAGES, correct=20)
    for number in range(6):
        player.hear(Author(f"x{number}") if number else Author("bob"), announce(f"m{number}", correct=90))
    finish_average(player, 40)
    said = list(player.vertices)
    player.vertices = {cid: player.vertices[cid] for cid in said[: len(said) - min(cut, 1)]}
    back = Player(rules=AVERAGES, seed=cut)
    back.now_s = player.now_s
    back.start(journal=player)
    back.handle(ev.ChainRead(make_view()))
    heads = [vertex.sequence for vertex in back.peer.lane.dag.chain(ALICE)]

    local = back.peer.cycle.local
    assert local is not None and local.cid == make_cid("mean") and local.correct == 40
    message = back.say(finish_average(back, 41, text="later"))[0]
    assert isinstance(message, ModelAnnounced)
    log = [vertex.sequence for vertex in back.peer.lane.dag.chain(ALICE)]
    assert log == list(range(1, len(log) + 1)) and len(log) > len(heads)


def test_restart__changed_validation_data_report_no_impossible_help() -> None:
    """Counts of different validation sets are not compared."""
    player = make_player(rules=AVERAGES, correct=5)
    player.hear(Author("bob"), announce("bobs", correct=99))
    average = reach_average(player)
    other = ev.ModelsAveraged(average.number, make_cid("mean"), MODEL_BYTES, replace(measure(9), total=10, gained=5, lost=1), measure(60))

    assert [type(message) for message in player.say(player.handle(other))] == [ModelAnnounced]


# --- sync and gossip --------------------------------------------------------------------------------------------------


def test_gossip__brings_a_verdict_and_is_saved_before_it_acts() -> None:
    player, bob = make_player(), Author("bob")
    vertex = bob.write(announce())

    effects = player.handle(ev.VertexReceived(CAROL, vertex.encoded))

    assert find(effects, ev.PassVerdict) == effects[0]
    assert find(effects, ev.PassVerdict).ruling.verdict is Verdict.ACCEPT
    assert find(effects, ev.SaveVertices).vertices == ((vertex.cid, vertex.encoded),)
    assert find_all(player.handle(ev.VertexReceived(CAROL, vertex.encoded)), ev.SaveVertices) == []


@given(content=st.binary(max_size=200))
def test_any_bytes__get_a_verdict_and_nothing_else(content: bytes) -> None:
    """Threats: bad bytes from a peer are a verdict, never an exception."""
    player = Player()
    player.start()
    player.handle(ev.ChainRead(make_view()))

    for event in (ev.VertexReceived(BOB, content), ev.SyncReceived(BOB, content)):
        effects = player.handle(event)
        assert [find(effects, ev.PassVerdict).ruling.verdict] == [Verdict.REJECT] and len(effects) == 1


def test_sync__a_have_vector_goes_to_whoever_connects_and_brings_what_is_missing() -> None:
    """Issue: digest of missing vertices on connect: one message each way, before anything else is said."""
    alice, bob = make_player("alice"), make_player("bob")
    vertex = bob.hear(Author("carol"), announce("a model"))

    effects = alice.handle(ev.PeerConnected(BOB))
    digest = find(effects, ev.SendSync)
    assert digest.peer == BOB and len(effects) == 1
    said = decode_sync(digest.content)
    assert said is not None and said.have is not None and CAROL not in said.have
    answers = find_all(bob.handle(ev.SyncReceived(ALICE, digest.content), after_s=2.0), ev.SendSync)
    pages = [decode_sync(answer.content) for answer in answers]
    assert vertex.encoded in [encoded for page in pages if page is not None for encoded in page.vertices]


def test_peer__tells_where_it_is_again_when_its_addresses_changed() -> None:
    """4.4: a router opened a port, or a relay went away: the others must know; the same addresses are not told twice."""
    player = make_player()
    told = []
    for addresses in (("/ip4/8.8.4.4/tcp/4001",), ("/ip4/8.8.4.4/tcp/4001",), ()):
        assert player.handle(ev.AddressesChanged(addresses)) == []
        said = player.say(player.handle(ev.ChainRead(make_view())))
        told.append([message.addresses for message in said if isinstance(message, Joined)])
    assert told == [[("/ip4/8.8.4.4/tcp/4001",)], [], [()]]


def test_closing__waits_for_the_chain_whatever_the_own_clock_shows() -> None:
    """Attacks, clocks: a row that was closed too early earns and gives nothing more."""
    player = make_player()
    view = make_view()
    player.handle(ev.ChainRead(view))
    assert player.say(player.handle(ev.ChainRead(view), after_s=7200.0)) == [] and player.peer.lane.closing is None

    ended = replace(view, stage=Stage.CLAIMING, time_s=TRAINING_ENDS_S + 1)
    said = player.say(player.handle(ev.ChainRead(ended)))
    assert [message.closing for message in said if isinstance(message, Checkpoint)] == [True]


def test_peer__leaves_out_addresses_that_others_would_refuse() -> None:
    """Attacks, one hostile peer: a relay chooses its own address and with it a part of ours; what is too long must not end the node."""
    player = make_player()
    circuit = "/ip6/2a02:8109:9340:4d4c:8a2e:8370:7334:1234/tcp/40001/p2p/12D3KooW" + "x" * 44 + "/p2p-circuit/p2p/12D3KooW" + "y" * 44
    fits = ("/ip4/8.8.4.4/tcp/4001", circuit)
    player.handle(ev.AddressesChanged(("/dns4/" + "a" * 300, "/dns4/a\n", "", *fits, *(f"/ip4/8.8.4.4/tcp/{port}" for port in range(9)))))

    said = player.say(player.handle(ev.ChainRead(make_view())))

    (joined,) = [message for message in said if isinstance(message, Joined)]
    assert joined.addresses[:2] == fits and len(joined.addresses) == ADDRESSES_MAX


def test_sync__is_asked_regularly_soon_after_a_gap_and_ever_less_often_if_that_is_no_help() -> None:
    """Protocol: sync finds within seconds what gossip lost; a parent that does not exist must not keep everybody asking."""
    player, mallory = make_player(), Author("mallory")
    player.handle(ev.PeerConnected(BOB))
    player.handle(ev.TimerFired(ev.Timer.SYNC))
    pauses = []
    for number in range(8):
        vertex = mallory.write(announce(str(number)), parents=[make_cid(f"nothing {number}")], time_ms=NOW_MS + number + 1)
        timers = find_all(player.handle(ev.VertexReceived(BOB, vertex.encoded)), ev.SetTimer)
        pauses += [round(timer.at_s - player.now_s, 3) for timer in timers if timer.timer is ev.Timer.SYNC]
        effects = player.handle(ev.TimerFired(ev.Timer.SYNC))
        assert find(effects, ev.SendSync).peer == BOB and find(effects, ev.SetTimer).at_s == player.now_s + SYNC_EVERY_S

    assert pauses == [SYNC_SOON_S, 2 * SYNC_SOON_S, 4 * SYNC_SOON_S, 8 * SYNC_SOON_S, 16 * SYNC_SOON_S]


def test_sync__is_asked_of_members_whoever_else_is_connected() -> None:
    """Attacks, many strangers: a hundred connections that never answer do not keep this peer from what it lacks."""
    player = make_player()
    for number in range(100):
        player.handle(ev.PeerConnected(PeerId(number.to_bytes(32, "big"))))
    assert find(player.handle(ev.TimerFired(ev.Timer.SYNC), after_s=SYNC_EVERY_S), ev.SendSync), "better than nobody"

    player.handle(ev.PeerConnected(BOB))
    asked = [find(player.handle(ev.TimerFired(ev.Timer.SYNC), after_s=SYNC_EVERY_S), ev.SendSync).peer for _ in range(5)]
    assert asked == [BOB] * 5


def test_sync__one_neighbour_cannot_ask_for_everything_all_the_time() -> None:
    """Threats, one hostile peer: questions are counted per neighbour; the others are answered all the same."""
    player = make_player()
    player.hear(Author("bob"), announce())
    question = SyncMessage(have={}).encode()

    def count(sender: PeerId, times: int) -> int:
        return sum(len(find_all(player.handle(ev.SyncReceived(sender, question)), ev.SendSync)) for _ in range(times))

    assert count(BOB, 500) == ANSWERS_BURST
    assert count(CAROL, 1) == 1
    player.now_s += 1
    assert count(BOB, 500) == ANSWERS_PER_S


def test_sync__strangers_are_answered_like_one_and_what_they_send_is_not_read() -> None:
    """Threats, many strangers: whoever has a key may connect, so all together cost what one neighbour does."""
    player, bob = make_player(), Author("bob")
    player.hear(bob, announce())
    question = SyncMessage(have={}).encode()
    strangers = [PeerId(number.to_bytes(32, "big")) for number in range(500)]

    answers = [effect for stranger in strangers for effect in find_all(player.handle(ev.SyncReceived(stranger, question)), ev.SendSync)]
    assert len(answers) == ANSWERS_BURST

    vertex = bob.write(announce("more"))
    page = SyncMessage(vertices=(vertex.encoded,)).encode()
    player.handle(ev.SyncReceived(strangers[0], page))
    assert vertex.cid not in player.peer.lane.dag
    player.handle(ev.SyncReceived(CAROL, page))
    assert vertex.cid in player.peer.lane.dag


def test_sync__more_pages_than_a_neighbour_is_asked_for_are_not_read() -> None:
    """Threats, one hostile peer: looking at a page of what is known costs ten milliseconds, and anybody can repeat it."""
    player, bob = make_player(), Author("bob")
    known, new = bob.write(announce("known")), bob.write(announce("new"))
    again = SyncMessage(vertices=(known.encoded,)).encode()
    for _ in range(500):
        player.handle(ev.SyncReceived(BOB, again))
    page = SyncMessage(vertices=(new.encoded,)).encode()
    player.handle(ev.SyncReceived(BOB, page))
    assert known.cid in player.peer.lane.dag and new.cid not in player.peer.lane.dag

    player.handle(ev.SyncReceived(BOB, page), after_s=1.0)
    assert new.cid in player.peer.lane.dag


def test_sync__brings_a_newcomer_everything() -> None:
    """Two peers, thousands of vertices, a few messages."""
    player, newcomer, bob = make_player("alice"), Player("carol"), Author("bob")
    for number in range(600):
        vertex = bob.write(announce(str(number)), time_ms=NOW_MS + 200 * number)
        player.peer.lane.receive(vertex.encoded, now_ms=NOW_MS + 10**6)
    player.now_s += 500
    newcomer.now_s = player.now_s
    newcomer.start()
    newcomer.handle(ev.ChainRead(make_view(time_s=int(player.now_s))))
    player.handle(ev.ChainRead(make_view(time_s=int(player.now_s))))
    messages = [(player, newcomer, ALICE, CAROL, newcomer.peer.lane.ask().encode())]
    for count in range(20):  # noqa: B007
        if not messages:
            break
        to, back, name, sender, content = messages.pop(0)
        for send in find_all(to.handle(ev.SyncReceived(sender, content)), ev.SendSync):
            messages.append((back, to, sender, name, send.content))

    assert newcomer.peer.lane.dag.have_vector()[BOB] == 600
    assert count <= 16


def test_clock__a_wrong_one_is_no_obstacle() -> None:
    """Threats, clocks: vertices carry the chain's time; a peer whose clock is a day off is heard like the others."""
    player, observer = Player(), make_player("carol")
    player.now_s += 86_400
    player.start()
    effects = player.handle(ev.ChainRead(make_view()))
    joined = find(effects, ev.PublishVertex)

    observer.handle(ev.VertexReceived(ALICE, joined.encoded))

    assert joined.cid in observer.peer.lane.dag


# --- dataslices (4.1, purple and red areas) ---------------------------------------------------------------------------


def make_sharer(name: str = "alice", *, slices: int = 3) -> tuple[Player, list[ev.Effect]]:
    facts = replace(FACTS, private_slices=0, shared_slices=slices)
    player = Player(name, rules=TRAINS)
    share = find(player.start(facts=facts), ev.ShareSlices)
    cids = tuple(make_cid(f"{name} slice {n}") for n in range(slices))
    player.handle(ev.SlicesShared(share.number, make_cid(f"{name} list"), cids))
    return player, player.handle(ev.ChainRead(make_view()))


def test_sharing__only_what_the_owner_opened_is_announced() -> None:
    """4.1: slices are stored, their hashes aggregated into a hashlist, its hash broadcast; without opting in nothing is."""
    player, effects = make_sharer()
    lists = [message for message in player.say(effects) if isinstance(message, HashlistPublished)]

    assert lists == [HashlistPublished(hashlist=make_cid("alice list"), slices=3)]
    assert all(not isinstance(m, HashlistPublished) for m in make_player().say(make_player().handle(ev.ChainRead(make_view()))))
    back = Player(rules=TRAINS)
    share = find(back.start(facts=replace(FACTS, private_slices=0, shared_slices=3), journal=player), ev.ShareSlices)
    back.handle(ev.SlicesShared(share.number, make_cid("alice list"), ()))
    assert back.say(back.handle(ev.ChainRead(make_view()))) == []


def hear_list(player: Player, name: str, slices: list[str]) -> list[ev.FetchFile]:
    """A list is announced, fetched and read; the fetches of slices that follow."""
    owner = Author(name, player.rules)
    vertex = owner.write(HashlistPublished(hashlist=make_cid(f"{name} list"), slices=len(slices)))
    fetch = find(player.handle(ev.VertexReceived(owner.me, vertex.encoded)), ev.FetchFile)
    assert fetch.providers == (owner.me,)
    read = find(player.handle(ev.FileFetched(fetch.number)), ev.ReadHashlist)
    return find_all(player.handle(ev.HashlistRead(read.number, tuple(map(make_cid, slices)))), ev.FetchFile)


def test_slices__are_fetched_queued_trained_on_and_announced_as_used() -> None:
    """4.1: an available slice is retrieved and queued; consuming it is broadcast."""
    player = make_player(rules=TRAINS, facts=replace(FACTS, private_slices=0))
    fetches = hear_list(player, "bob", ["s1", "s2"])
    for fetch in fetches:
        player.handle(ev.FileFetched(fetch.number))

    train = find(player.turn(), ev.TrainModel)
    said = player.say(player.handle(ev.ModelTrained(train.number, make_cid("new"), MODEL_BYTES, measure(50))))

    assert set(train.slices) == {make_cid("s1"), make_cid("s2")}
    assert isinstance(said[0], DatasliceConsumed) and set(said[0].slices) == set(train.slices)
    assert {player.peer.cycle.shelf.shared[cid].uses for cid in train.slices} == {1}


def test_slices__at_the_overuse_threshold_are_not_taken_any_more() -> None:
    """4.1: a slice that has surpassed the overuse threshold is ignored, fetched or not, also if its uses were heard first."""
    player, bob = make_player(rules=TRAINS, facts=replace(FACTS, private_slices=0)), Author("carol")
    for _ in range(RULES.overuse_threshold):
        player.hear(bob, DatasliceConsumed(slices=(make_cid("old"),)))
    fetches = hear_list(player, "bob", ["old", "new"])
    assert [fetch.cid for fetch in fetches] == [make_cid("new")]
    player.handle(ev.FileFetched(fetches[0].number))

    for _ in range(RULES.overuse_threshold):
        player.hear(bob, DatasliceConsumed(slices=(make_cid("new"),)))

    assert find_all(player.turn(), ev.TrainModel) == []


def test_slices__not_of_the_task_are_forgotten() -> None:
    player = make_player(rules=TRAINS, facts=replace(FACTS, private_slices=0))
    for fetch in hear_list(player, "bob", ["bad"]):
        player.handle(ev.FileFetched(fetch.number))
    train = find(player.turn(), ev.TrainModel)

    player.handle(ev.LearningFailed(train.number, "not of this task", blames_remote=True))

    assert find_all(player.turn(), ev.TrainModel) == []


def test_slices__listed_first_by_a_stranger_are_still_fetched_from_their_owner() -> None:
    """Whoever lists somebody else's slices must not hide where they are."""
    player = make_player(rules=TRAINS, facts=replace(FACTS, private_slices=0))
    (fetch,) = hear_list(player, "mallory", ["bobs"])
    hear_list(player, "bob", ["bobs"])

    again = find(player.handle(ev.FetchFailed(fetch.number, "nobody")) + player.peer.sharing.fetch_more(), ev.FetchFile)  # type: ignore[operator]

    assert again.providers == (Author("mallory").me, BOB)


def test_slices__lists_heard_before_a_restart_are_read_again() -> None:
    player = make_player(rules=TRAINS, facts=replace(FACTS, private_slices=0))
    hear_list(player, "bob", ["s1"])
    back = Player(rules=TRAINS)

    assert find(back.start(facts=replace(FACTS, private_slices=0), journal=player), ev.FetchFile).cid == make_cid("bob list")


def test_hashlist__is_read_as_it_was_written_and_bounded() -> None:
    cids = tuple(make_cid(str(n)) for n in range(3))

    assert decode_hashlist(encode_hashlist(cids), slices_max=3) == cids
    assert decode_hashlist(encode_hashlist(cids), slices_max=2) is None
    assert decode_hashlist(encode_hashlist(cids)[:-1], slices_max=3) is None
    assert decode_hashlist(bytes(36), slices_max=3) is None


# --- tips mode (4.3) ----------------------------------------------------------------------------------------------------

TIPS = replace(AVERAGES, reward_mode="tips")


def test_tips__each_receipt_is_paid_by_eq_1_to_the_helpers_wallet() -> None:
    """4.3: the incentivization algorithm delivers a micropayment to the owner of the remote model."""
    player = make_player(rules=TIPS, settings=PeerSettings(tips_budget_wei=1000))
    player.hear(Author("bob"), announce("bobs", correct=90))

    effects = finish_average(player, 53)

    payment = find(effects, ev.SubmitTransaction)
    assert isinstance(payment.call, PayTip)
    assert (payment.call.helper, payment.call.amount_wei) == ("0x" + BOB[:20].hex(), 30 * 7)
    save = next(e for e in effects if isinstance(e, ev.SaveRecord) and e.name == "tips spent")
    assert save.content == b"210" and effects.index(save) < effects.index(payment)


def test_tips__the_budget_is_never_passed_also_over_restarts_and_failures() -> None:
    """Threats, wallet: explicit budget; a kill may leave a tip unpaid, never paid twice."""
    player, bob = make_player(rules=TIPS, settings=PeerSettings(tips_budget_wei=300)), Author("bob")
    paid = 0
    for number in range(6):
        player.hear(bob, announce(f"m{number}", correct=94 + number))
        for effect in finish_average(player, 53 + number * 3, text=f"mean {number}"):
            if isinstance(effect, ev.SubmitTransaction) and isinstance(effect.call, PayTip):
                if number == 0:
                    player.handle(ev.TransactionFailed(effect.number, "no gas", final=False))
                else:
                    paid += effect.call.amount_wei
                    player.handle(ev.TransactionConfirmed(effect.number, None))
        if number == 2:
            back = Player(rules=TIPS, settings=PeerSettings(tips_budget_wei=300))
            back.now_s = player.now_s
            back.start(journal=player)
            assert back.peer.tips.spent_wei == player.peer.tips.spent_wei

    assert paid == 300


def test_tips__dao_mode_pays_none() -> None:
    player = make_player(rules=AVERAGES, settings=PeerSettings(tips_budget_wei=1000))
    player.hear(Author("bob"), announce("bobs", correct=90))

    assert find_all(finish_average(player, 53), ev.SubmitTransaction) == []


# --- what a member that turns out to fork, or to lie, can still do ---------------------------------------------------


def test_self_forked_peer__closes_once_and_goes_quiet() -> None:
    """A user who runs one key twice forks its own log: its row is frozen, and it must not fill everybody's with closings."""
    player, twin = make_player(rules=TRAINS), make_player(rules=TRAINS, seed=5)
    train = find(twin.turn(), ev.TrainModel)
    twin.handle(ev.ModelTrained(train.number, make_cid("twin"), MODEL_BYTES, measure(50)))
    train = find(player.turn(), ev.TrainModel)
    player.handle(ev.ModelTrained(train.number, make_cid("mine"), MODEL_BYTES, measure(50)))
    for encoded in twin.vertices.values():
        player.handle(ev.VertexReceived(BOB, encoded))
    assert player.peer.lane.dag.fork(ALICE) is not None
    player.now_s = TRAINING_ENDS_S + 1.0
    view = make_view(Stage.CLAIMING, time_s=int(player.now_s))

    said = [message for _ in range(10) for message in player.say(player.handle(ev.ChainRead(view)))]

    assert [type(message) for message in said].count(Checkpoint) <= 1


def test_forker__its_models_stay_off_the_market_also_when_others_name_them() -> None:
    player, mallory, bob = make_player(), Author("mallory"), Author("bob")
    first = player.hear(mallory, announce("a"))
    left, right = mallory.write(announce("b"), previous=first), mallory.write(announce("c"), previous=first)
    later = mallory.write(announce("d"), previous=right)
    for vertex in (left, right):
        player.handle(ev.VertexReceived(BOB, vertex.encoded))
    name = bob.write(announce("names d"), parents=[later], time_ms=later.time_ms + 1)

    for vertex in (name, later):
        player.handle(ev.VertexReceived(BOB, vertex.encoded))

    assert later.cid in player.peer.lane.dag and mallory.me not in player.peer.cycle.market.issuers
    back = Player()
    back.start(journal=player)
    assert mallory.me not in back.peer.cycle.market.issuers


def test_final__who_exaggerated_before_is_tested_last() -> None:
    """4.1 and threats: poisoned claims of 100 % must not use up the time for the final optimisation."""
    player, mallory = make_final(), Author("mallory")
    player.hear(mallory, announce("poison 1", correct=99))
    finish_average(player, 10, remote=5)
    player.hear(Author("bob"), announce("honest", correct=80))
    player.hear(mallory, announce("poison 2", correct=99))
    for _ in range(2):
        finish_average(player, 10, remote=60)

    assert find(player.turn(), ev.FetchFile).cid == make_cid("honest")


def test_shelf__one_owner_gets_only_its_share() -> None:
    """Nothing unbounded: a hashlist of a hostile owner leaves room for the others'."""
    shelf = DatasliceShelf(3)
    many = [make_cid(str(number)) for number in range(SLICES_PER_OWNER_MAX + 10)]

    shelf.add_shared(BOB, many, uses={}, here=False)
    shelf.add_shared(CAROL, [make_cid("hers")], uses={}, here=False)

    assert len(shelf.shared) == SLICES_PER_OWNER_MAX + 1 and make_cid("hers") in shelf.shared


def test_bit_rot__the_local_model_is_fetched_back_from_another_peer() -> None:
    """threats.md, bit rot: corrupt bytes are never used, and are fetched again."""
    player = make_player(rules=TRAINS)
    player.handle(ev.PeerConnected(Author("bob").me))
    train = find(player.turn(), ev.TrainModel)

    fetch = find(player.handle(ev.FileLost(train.number, INITIAL)), ev.FetchFile)
    assert fetch.cid == INITIAL and fetch.providers == (Author("bob").me,)
    effects = player.handle(ev.FileFetched(fetch.number))

    assert find(effects, ev.PinFile).cid == INITIAL, "what came back is made safe from a power cut again"
    assert player.peer.cycle.local is not None and player.peer.cycle.local.cid == INITIAL
    assert find(player.turn(), ev.TrainModel).model == INITIAL


def test_restart__the_announced_models_are_pinned_again() -> None:
    """A kill may have come after the record was on disk, and before the pin was."""
    player = make_player(rules=TRAINS)
    train = find(player.turn(), ev.TrainModel)
    player.handle(ev.ModelTrained(train.number, make_cid("new"), MODEL_BYTES, measure(60)))

    effects = Player().start(journal=player)

    assert [effect.cid for effect in find_all(effects, ev.PinFile)] == [INITIAL, make_cid("new")]


def test_bit_rot__a_local_model_that_nobody_has_gives_way_to_an_earlier_one() -> None:
    """The neighbour of the rule above: nobody waits for ever, and what is measured anew is what counts."""
    player = make_player(rules=TRAINS)
    train = find(player.turn(), ev.TrainModel)
    player.handle(ev.ModelTrained(train.number, make_cid("lost"), MODEL_BYTES, measure(60)))
    train = find(player.turn(), ev.TrainModel)
    fetch = find(player.handle(ev.FileLost(train.number, make_cid("lost"))), ev.FetchFile)
    player.handle(ev.FetchFailed(fetch.number, "nobody has it"))

    fetch = find(player.turn(), ev.FetchFile)
    assert fetch.cid == INITIAL
    evaluate = find(player.handle(ev.FileFetched(fetch.number)), ev.EvaluateModel)
    player.handle(ev.ModelEvaluated(evaluate.number, MODEL_BYTES, measure(50)))

    assert player.peer.cycle.local is not None and player.peer.cycle.local.correct == 50
    assert find(player.turn(), ev.TrainModel).model == INITIAL


def test_file_that_vanished__of_somebody_else_costs_this_cycle_only() -> None:
    """Quota or bit rot took a foreign file between queue and training: the next cycle goes on with the local model."""
    player = make_player(rules=TRAINS)
    train = find(player.turn(), ev.TrainModel)

    assert not [e for e in player.handle(ev.FileLost(train.number, make_cid("slice"))) if isinstance(e, ev.FetchFile)]
    assert find(player.turn(), ev.TrainModel).model == INITIAL


def test_idle_peer__looks_at_once_when_a_model_is_announced() -> None:
    """4.1: nobody waits; a peer that found nothing to do need not sleep when news come."""
    player = make_player(rules=AVERAGES, facts=replace(FACTS, private_slices=0))
    idle = find(player.turn(), ev.SetTimer)
    assert idle.at_s > player.now_s

    bob = Author("bob", AVERAGES)
    vertex = bob.write(announce("news", correct=90), time_ms=int(player.now_s * 1000))
    effects = player.handle(ev.VertexReceived(bob.me, vertex.encoded))
    assert [e.at_s for e in effects if isinstance(e, ev.SetTimer) and e.timer is ev.Timer.CYCLE] == [player.now_s]

    again = bob.write(announce("more news", correct=91), time_ms=int(player.now_s * 1000) + 300)
    effects = player.handle(ev.VertexReceived(bob.me, again.encoded))
    assert not [e for e in effects if isinstance(e, ev.SetTimer) and e.timer is ev.Timer.CYCLE], "once is enough"


@pytest.mark.parametrize(
    ("gained", "lost", "correct", "accepted"),
    [
        (3, 2, 80, True),  # improves on a local model that is far below a lucky best
        (2, 2, 80, True),  # no worse than it
        (4, 6, 94, True),  # a little worse, near the best
        (4, 6, 84, False),  # a little worse, for the hundredth time: below the best by more than chance
        (1, 7, 94, False),  # shown to be worse on the same examples
    ],
)
def test_paired_policy__bounds_what_is_worse_and_nothing_else(gained: int, lost: int, correct: int, accepted: bool) -> None:
    """Threats, poisoned models: a peer cannot be walked down; yet a best that was luck must not keep out what improves."""
    average = Evaluation(correct=correct, total=100, gained=gained, lost=lost)

    assert PairedPolicy().accepts(average, best_correct=96) is accepted
