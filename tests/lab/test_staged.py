"""Attacks that real peers play: what they come to, and that the rule that stops each one is what stops it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any

import pytest

import learnae.lab.attacks.identity_hijack
import learnae.lab.bed
from learnae.cli.lab import _read_share
from learnae.errors import InvariantBrokenError
from learnae.lab import staged
from learnae.lab.bed import ProtocolAttack, Scene, stage
from learnae.lab.books import INVENTED
from learnae.lab.registry import find_attack, find_rule
from learnae.lab.rules.budgeted import Budgeted
from learnae.lab.staged import play_honest, re_execute, read_receipts, run_protocol_trial
from learnae.lab.swarm import DEPOSIT_WEI, compute_rows, draw_swarm, name_peers, settle_fund
from learnae.lab.trial import Setting, Trial
from learnae.protocol import events as ev
from learnae.protocol import validation
from learnae.protocol.fund import FundError, SessionFund
from learnae.protocol.messages import HelpReported, parse_message
from learnae.protocol.peer import Peer
from learnae.tangle.verdict import Verdict

SETTING = Setting(share_permille=250, peers=8, cycles=8)
RULES = ("raw", "budgeted", "audited", "audited-void", "tips")


def find(name: str) -> ProtocolAttack:
    attack = find_attack(name)
    assert isinstance(attack, ProtocolAttack)
    return attack


def play(name: str, setting: Setting = SETTING, seed: int = 1) -> Mapping[str, Trial]:
    trials = run_protocol_trial(find(name), {rule: find_rule(rule) for rule in RULES}, setting, seed)
    return {trial.rule: trial for trial in trials}


@lru_cache
def play_once(name: str) -> Mapping[str, Trial]:
    return play(name)


def gain(trial: Trial) -> float:
    return trial.ring_wei / trial.ring_honest_wei


# --- the bed --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [1, 2])
def test_honest_session__is_paid_by_the_contract_as_the_ledger_says(seed: int) -> None:
    """The staged peers' real claims and ballots pay what the rule gives on their common ledger, and that is section 7's, to the wei."""
    played = play_honest("scripted", SETTING, seed)
    settled = Budgeted().settle(played.books, audits=SETTING.audits, rng=None)  # type: ignore[arg-type]  # draws nothing
    rows = compute_rows(draw_swarm(seed, peers=8, cycles=8))
    by_draws = settle_fund(rows, name_peers(8), rule="budgeted")

    assert list(played.paid_wei) == settled.payouts_wei
    assert sorted(played.paid_wei) == sorted(by_draws.values())
    assert not played.refused and not played.offences


@pytest.mark.parametrize("bed", ["scripted", "learning"])
def test_honest_receipts__are_confirmed_by_re_execution(bed: str) -> None:
    played = play_honest(bed, SETTING, 3)  # type: ignore[arg-type]  # the name of a bed

    assert len(played.books.receipts) > 20
    assert all(receipt.credits == receipt.proven for receipt in played.books.receipts)


def test_re_execution__of_a_receipt_about_models_that_were_never_averaged_gives_nothing() -> None:
    scene = stage(find("flood"), "scripted", SETTING, 1)
    scene.world.run()
    witness = scene.honest[0].peer
    assert witness is not None
    offender = scene.world.hosts[0]
    false = [
        message
        for vertex in witness.lane.dag.chain(offender.name)
        if isinstance(message := parse_message(vertex.kind, vertex.body), HelpReported) and message.correct_before == 0 == message.total - 1
    ]

    assert false
    assert {re_execute(scene, witness, offender, message) for message in false} == {INVENTED}
    assert any(receipt.proven == receipt.credits for receipt in read_receipts(scene, witness))


def test_hostile_sessions__repeat_themselves() -> None:
    """Same seed, same figures."""
    assert play("equivocation") == play_once("equivocation")


# --- one by one: the attack, and the attack without the rule that stops it ----------------------------------------------


def test_replay__changes_nothing() -> None:
    for trial in play_once("replay").values():
        assert (trial.ring_wei, trial.others_wei) == (trial.ring_honest_wei, trial.others_honest_wei)
        assert trial.offenders > 0 == trial.others_rejected


def test_equivocation__is_known_to_all_within_seconds_and_costs() -> None:
    setting = Setting(share_permille=150, peers=14, cycles=12)
    trials = [play("equivocation", setting, seed)["raw"] for seed in (1, 2)]

    assert sum(trial.ring_wei for trial in trials) < 0.6 * sum(trial.ring_honest_wei for trial in trials)
    for trial in trials:
        assert trial.found == trial.offenders == 2
        assert trial.found_after is not None and trial.found_after < 10
        assert trial.others_rejected == 0


def test_whitewash__does_not_help_after_funding() -> None:
    """6: members are final when funding is over; the new name earns nothing that the fork did not cost already."""
    fork, wash = play_once("equivocation"), play_once("whitewash")

    assert wash["budgeted"].ring_wei == fork["budgeted"].ring_wei
    assert wash["budgeted"].others_rejected == 0


def test_whitewash__would_take_a_seat_if_joining_did_not_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the contract's stage check the cheat becomes a member again under its new name."""
    require = SessionFund._require

    def allow_joins(fund: SessionFund, needed: object, now_s: int) -> None:
        if "FUNDING" not in str(needed).upper():
            require(fund, needed, now_s)  # type: ignore[arg-type]  # a stage

    monkeypatch.setattr(SessionFund, "_require", allow_joins)
    scene = stage(find("whitewash"), "scripted", Setting(share_permille=125, peers=8, cycles=8), 1)
    object.__setattr__(scene.world.chain.fund.terms, "members_max", 20)
    scene.world.run()

    assert len(scene.world.chain.fund.seats) > 8


def test_flood__is_refused_at_once_and_pays_only_without_audits() -> None:
    trials = play_once("flood")

    assert trials["budgeted"].found == trials["budgeted"].offenders == 2
    assert gain(trials["raw"]) > gain(trials["budgeted"]) > 1
    assert gain(trials["audited"]) < 1.1
    assert trials["audited-void"].ring_wei == 0
    assert trials["budgeted"].others_rejected == 0


def test_flood__is_refused_by_the_budget_of_an_issuer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rule 10 of docs/protocol.md is what refuses it; without a budget nobody says so."""
    observe = learnae.lab.bed._observe

    def count_refusals() -> int:
        refused: list[str] = []

        def listen(*seen: Any) -> None:
            verdicts = [effect.ruling for effect in seen[-1] if isinstance(effect, ev.PassVerdict)]
            refused.extend(ruling.why for ruling in verdicts if ruling.verdict is Verdict.REJECT)
            observe(*seen)

        monkeypatch.setattr(learnae.lab.bed, "_observe", listen)
        stage(find("flood"), "scripted", SETTING, 2).world.run()
        return sum("more than 5 things a second" in why for why in refused)

    assert count_refusals() > 0
    monkeypatch.setattr(validation, "VERTEX_BURST", 10_000)
    assert count_refusals() == 0


def test_voting_cartel__of_a_quarter_rejects_nobody() -> None:
    trial = play_once("voting-cartel")["budgeted"]

    assert trial.offenders == 2
    assert gain(trial) == 1.0 and trial.others_rejected == 0


def test_voting_cartel__of_most_members_would_take_all() -> None:
    """The vote assumes that most members are honest (section 1): with three of four the cartel has its way."""
    trial = play("voting-cartel", Setting(share_permille=750, peers=8, cycles=8))["budgeted"]

    assert trial.others_rejected > 0
    assert gain(trial) > 1


def test_identity_hijack__is_refused_and_costs_the_deposit() -> None:
    """4.4: the record with the attacker's wallet is earlier in the chain, and void, because its owner's key did not sign that wallet."""
    trial = play_once("identity-hijack")["budgeted"]

    assert trial.ring_wei == 0 and trial.others_rejected == 0
    assert trial.found == trial.offenders == 2
    assert trial.others_wei > trial.others_honest_wei


def test_identity_hijack__would_pay_if_the_signature_were_not_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    """The paper's rule alone (the later record loses) lets whoever front-runs take the name and the payout."""
    monkeypatch.setattr(learnae.lab.attacks.identity_hijack, "is_signed_by_peer", lambda *signed: True)
    trial = play("identity-hijack", seed=2)["budgeted"]

    assert trial.ring_wei > 0
    assert trial.others_rejected == 2  # the victims


def test_overclaim__is_voted_down_without_tolerance() -> None:
    trial = play_once("overclaim")["budgeted"]

    assert trial.offenders == 2 and trial.ring_wei == 0 and trial.others_rejected == 0


def test_poisoned_model__earns_nothing_and_its_claims_are_seen_through() -> None:
    trial = play("poisoned-model", Setting(share_permille=200, peers=10, cycles=15))["budgeted"]

    assert gain(trial) < 0.5
    assert trial.found == trial.offenders == 2


def test_plagiarism__costs_nothing_and_nobody_notices() -> None:
    """docs/lab.md: nothing pays by who announced a model first; the table marks it. Over 16 seeds it brought as much as honest work."""
    trials = [play("plagiarism", Setting(share_permille=200, peers=10, cycles=15), seed)["raw"] for seed in range(8)]

    assert 10 * sum(trial.ring_wei for trial in trials) > 8 * sum(trial.ring_honest_wei for trial in trials)
    assert sum(trial.found for trial in trials) == 0 < sum(trial.offenders for trial in trials)


def test_tips__return_the_deposit_of_whoever_was_not_admitted() -> None:
    trial = play_once("identity-hijack")["tips"]

    assert trial.ring_wei == 2 * DEPOSIT_WEI


def test_joining__ends_with_funding() -> None:
    """The stage check that stops a whitewash is the contract's own refusal."""
    scene = stage(None, "scripted", SETTING, 1)
    scene.world.run()
    wallet = next(iter(scene.world.chain.wallets.values()))
    with pytest.raises(FundError, match="WrongStage"):
        scene.world.chain.fund.join(wallet, wallet, DEPOSIT_WEI, 2**33)


def test_broken_honest_session__is_repeated_by_a_command_that_lab_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    """An honest session has no attackers; its command names a share nevertheless, because it is played beside an attack."""

    def break_promise(scene: Scene) -> Peer:
        raise InvariantBrokenError("ledgers differ", "learnae sim run calm")

    monkeypatch.setattr(staged, "_find_witness", break_promise)
    with pytest.raises(InvariantBrokenError) as caught:
        play_honest.__wrapped__("scripted", replace(SETTING, share_permille=0), 1)
    words = shlex.split(caught.value.command)

    assert words[:4] == ["learnae", "lab", "run", "replay"]
    assert _read_share(words[words.index("--share") + 1]) > 0


def test_detection__by_audits_is_counted_from_the_beacon() -> None:
    played = play_honest("scripted", replace(SETTING, share_permille=0), 1)
    scene = stage(None, "scripted", SETTING, 1)
    scene.world.run()
    fund = scene.world.chain.fund

    assert fund.training_ends_s < played.beacon_s < fund.claiming_ends_s
