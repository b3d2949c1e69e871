"""One trial of a protocol attack: the session is played by real peers, and what it left behind is settled under each rule.

The ledger is the one that the honest peers hold in common at the end. Claims, ballots and payouts of the `budgeted` rule are those of the
session's contract (its reference model); the other rules are computed on the same ledger, without the claims that were voted down.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final

from learnae.errors import InvariantBrokenError
from learnae.ids import PeerId, Wei
from learnae.lab.attack import Conduct
from learnae.lab.bed import Bed, ProtocolAttack, Scene, stage
from learnae.lab.books import INVENTED, Books, Receipt
from learnae.lab.rule import Rule, Settled
from learnae.lab.swarm import DEPOSIT_WEI
from learnae.lab.trial import PERMILLE, Setting, Trial, compare, draw_beacon
from learnae.protocol.audits import compute_beacon_s
from learnae.protocol.messages import Checkpoint, HelpReported, ModelAnnounced, parse_message
from learnae.protocol.peer import Peer
from learnae.protocol.rewards import compute_credits
from learnae.sim.host import Host

PLAYED_RULE: Final = "budgeted"  # what the members of a staged session claim and vote by
HONEST_SHARE_PERMILLE: Final = 100  # An honest session is played beside an attack of any share: the command needs one.


@dataclass(frozen=True, slots=True)
class Played:
    """What a session left behind."""

    books: Books
    paid_wei: tuple[Wei, ...]  # by the contract, by member
    refused: frozenset[int]  # honest members whose claim was voted down or whose identity was not admitted
    offences: Mapping[int, float]
    found_at: Mapping[int, float]
    beacon_s: float  # when receipts are drawn for audits


@lru_cache(maxsize=256)
def play_honest(bed: Bed, setting: Setting, seed: int) -> Played:
    """The same session with everybody honest."""
    return _play(None, bed, setting, seed)


def run_protocol_trial(attack: ProtocolAttack, rules: Mapping[str, Rule], setting: Setting, seed: int) -> list[Trial]:
    """Play one attack and the honest session beside it, and settle both under each rule.

    Raises: InvariantBrokenError: a promise to the honest peers was broken; the message repeats the run.
    """
    played = _play(attack, attack.bed, setting, seed)
    honest = play_honest(attack.bed, replace(setting, share_permille=0), seed)  # The same for every share.
    return [_settle(rule, honest, played, setting, seed) for rule in rules.values()]


def _settle(rule: Rule, honest: Played, played: Played, setting: Setting, seed: int) -> Trial:
    before = rule.settle(honest.books, audits=setting.audits, rng=draw_beacon(seed))
    after = rule.settle(played.books, audits=setting.audits, rng=draw_beacon(seed))
    if rule.name == PLAYED_RULE:
        before, after = Settled(list(honest.paid_wei)), Settled(list(played.paid_wei))
    trial = compare(rule.name, seed, before, after, played.books, Conduct(()))
    times = {member: found_s for member, found_s in played.found_at.items() if member in played.offences}
    times.update({member: played.beacon_s for member in after.frozen if member in played.offences and member not in times})
    waits = [found_s - played.offences[member] for member, found_s in times.items()]
    return Trial(
        rule=rule.name,
        seed=seed,
        ring_wei=trial.ring_wei,
        ring_honest_wei=trial.ring_honest_wei,
        others_wei=trial.others_wei,
        others_honest_wei=trial.others_honest_wei,
        others=trial.others,
        others_rejected=len(played.refused | after.frozen - played.books.ring),
        offenders=len(played.offences),
        found=len(waits),
        found_after=sum(waits) / len(waits) if waits else None,
        fund_share=trial.fund_share,
    )


def _play(attack: ProtocolAttack | None, bed: Bed, setting: Setting, seed: int) -> Played:
    scene = stage(attack, bed, setting, seed)
    world = scene.world
    ring = frozenset(setting.ring)
    try:
        world.run()
        if attack is None:
            world.checker.check_end()
        witness = _find_witness(scene)
    except InvariantBrokenError as error:
        name = attack.name if attack else "replay"
        share = (setting.share_permille or HONEST_SHARE_PERMILLE) / PERMILLE
        command = f"learnae lab run {name} --share {share:g} --first-seed {seed} --seeds 1 {setting.words}"
        raise InvariantBrokenError(error.what, command) from error
    admitted = {member.wallet for member in witness.dao.membership.by_peer.values()}
    seats = {seat.wallet: seat for seat in world.chain.fund.seats}
    wallets = [world.chain.wallets[host.name] for host in world.hosts]
    rejected = frozenset(index for index, wallet in enumerate(wallets) if wallet in seats and seats[wallet].rejected)
    outsiders = frozenset(index for index, wallet in enumerate(wallets) if wallet not in admitted)
    books = Books(
        names=tuple(host.name for host in world.hosts),
        receipts=read_receipts(scene, witness),
        present=tuple(index for index, wallet in enumerate(wallets) if wallet in seats),
        outsiders=outsiders,
        ring=ring,
        rejected=rejected,
        deposit_wei=DEPOSIT_WEI,
    )
    return Played(
        books=books,
        paid_wei=tuple(world.chain.paid_wei.get(wallet, Wei(0)) for wallet in wallets),
        refused=(rejected | outsiders) - ring,
        offences={world.index_of[name]: at_s for name, at_s in scene.offences.items()},
        found_at={world.index_of[name]: at_s for name, at_s in scene.found_at.items()},
        beacon_s=float(compute_beacon_s(world.chain.fund.terms, world.chain.fund.training_ends_s)),
    )


def _find_witness(scene: Scene) -> Peer:
    """An honest member, whose ledger is that of all honest members; whether their claims passed is measured, not promised.

    Raises: InvariantBrokenError: their ledgers differ.
    """
    honest = [host.peer for host in scene.honest if host.peer is not None and host.name in host.peer.dao.membership.by_peer]
    members = [peer for peer in honest if peer.dao.is_member and peer.dao.may_speak]
    for peer in members[1:]:
        if peer.lane.ledger.rows() != members[0].lane.ledger.rows():
            raise InvariantBrokenError("the ledgers of two honest members differ", "")
    return members[0]


def read_receipts(scene: Scene, witness: Peer) -> tuple[Receipt, ...]:
    """Every receipt that counts in the ledger of an honest peer, each with what re-executing it gives."""
    hosts = {host.name: host for host in scene.world.hosts}
    return tuple(
        Receipt(0, host.index, hosts[message.helper].index, message.credits, re_execute(scene, witness, host, message))
        for name, host in hosts.items()
        for message in _read_row(witness, name)
        if message.helper in hosts
    )


def _read_row(witness: Peer, reporter: PeerId) -> list[HelpReported]:
    """The receipts of one log up to its closing checkpoint, as the ledger folds them."""
    messages: list[HelpReported] = []
    for vertex in witness.lane.dag.chain(reporter):
        message = parse_message(vertex.kind, vertex.body)
        if isinstance(message, HelpReported):
            messages.append(message)
        elif isinstance(message, Checkpoint) and message.closing:
            break
    return messages


def re_execute(scene: Scene, witness: Peer, host: Host, receipt: HelpReported) -> int:
    """The credits that averaging the two models again, on the reporter's validation set, gives (Eq. 1); `INVENTED` if it cannot be done."""
    recorder = scene.recorders[host.index]
    vertex = witness.lane.dag.get(receipt.announcement)
    announced = None if vertex is None else parse_message(vertex.kind, vertex.body)
    before = recorder.correct.get(receipt.before)
    if not isinstance(announced, ModelAnnounced) or before is None:
        return INVENTED
    average = recorder.averages.get((receipt.before, announced.model))
    after = recorder.correct.get(receipt.after)
    if after is None or receipt.after not in (average, announced.model):
        return INVENTED
    rules = scene.world.rules
    return compute_credits(reward_factor=rules.reward_factor, correct_before=before, correct_after=after, total=receipt.total)
