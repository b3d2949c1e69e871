"""Audits in the simulator, with real peers, vertices and settlement: liars are frozen, honest members never, privacy holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pytest

from learnae.ids import Cid, PeerId
from learnae.learning.config import LearnerConfig
from learnae.learning.inline import InlineLearner
from learnae.learning.synthetic import SyntheticLearner
from learnae.protocol import events as ev
from learnae.protocol.committed import compute_rows
from learnae.protocol.measures import Evaluation
from learnae.protocol.messages import AuditVerdict, Finding, HelpReported
from learnae.protocol.peer import Peer
from learnae.sim.host import Host
from learnae.sim.scenario import Crash, Scenario, find_scenario
from learnae.sim.summary import summarise
from learnae.sim.world import World

PEERS = 8
LIARS = (0, 1)


class TorchExaggerator(InlineLearner):
    """The real learner with one lie: a few right answers more after every averaging."""

    def average(self, local: bytes, remote: bytes, *, remote_share: float) -> tuple[bytes, Evaluation, Evaluation]:
        average, evaluation, theirs = super().average(local, remote, remote_share=remote_share)
        more = min(5, evaluation.total - evaluation.correct)
        return average, replace(evaluation, correct=evaluation.correct + more, gained=evaluation.gained + more), theirs


class Exaggerator(SyntheticLearner):
    """Counts more right answers for every average than there are: its receipts are false, and so is what it announces."""

    def average(self, local: bytes, remote: bytes, *, remote_share: float) -> tuple[bytes, Evaluation, Evaluation]:
        average, evaluation, theirs = super().average(local, remote, remote_share=remote_share)
        more = min(10, evaluation.total - evaluation.correct)
        return average, replace(evaluation, correct=evaluation.correct + more, gained=evaluation.gained + more), theirs


@dataclass
class Run:
    world: World
    verdicts: dict[Cid, dict[PeerId, Finding]]
    opened: dict[int, set[PeerId]]  # host -> to whom it opened its validation file


def run_audited(scenario: Scenario, *, seed: int = 3, liars: Sequence[int] = ()) -> Run:
    made = [(Exaggerator if index in liars else SyntheticLearner)(seed=100 + index) for index in range(scenario.peers)]
    opened: dict[int, set[PeerId]] = {}

    def observe(world: World, host: Host, event: ev.Event, effects: Sequence[ev.Effect]) -> None:
        for effect in effects:
            if isinstance(effect, ev.OpenFile):
                opened.setdefault(host.index, set()).update(effect.peers)

    initial = made[0].initial_model(1)
    peer_types = dict.fromkeys(liars, Peer)  # Nothing is promised of them.
    world = World(scenario, seed=seed, learners=made, initial_model=initial, observe=observe, peer_types=peer_types)
    world.run()
    return Run(world, read_verdicts(world), opened)


def read_verdicts(world: World) -> dict[Cid, dict[PeerId, Finding]]:
    verdicts: dict[Cid, dict[PeerId, Finding]] = {}
    peer = world.hosts[-1].peer
    assert peer is not None
    for host in world.hosts:
        for vertex in peer.lane.dag.chain(host.name):
            entry = peer.lane.dag.find(vertex.cid)
            assert entry is not None
            if isinstance(entry.message, AuditVerdict):
                verdicts.setdefault(entry.message.subject, {})[host.name] = entry.message.finding
    return verdicts


def read_counted(world: World) -> set[PeerId]:
    """Whose rows count, as every honest peer says."""
    counted = [set(compute_rows(host.peer.lane)) for host in world.hosts if host.peer is not None and host.index not in world.hostile]
    assert all(rows == counted[0] for rows in counted)
    return counted[0]


def read_reporters(world: World) -> set[PeerId]:
    """Who was helped by somebody: nobody else has a row that could count."""
    peer = world.hosts[-1].peer
    assert peer is not None
    helped = {host.name for host in world.hosts if peer.lane.ledger.received(host.name)}
    assert len(helped) >= PEERS - 2
    return helped


def make_audited(**changes: object) -> Scenario:
    return find_scenario("audited", peers=PEERS, cycles=20, audit_permille=200, **changes)


def test_liars__are_frozen_and_nobody_else() -> None:
    run = run_audited(make_audited(), liars=LIARS)
    world = run.world
    names = read_reporters(world)
    liars = {world.hosts[index].name for index in LIARS}
    assert read_counted(world) == names - liars
    peer = world.hosts[-1].peer
    assert peer is not None
    assert not any(liars & row.keys() for row in compute_rows(peer.lane).values()), "nobody's row credits a liar"
    claimants = {world.chain.fund.seats[claim.index].wallet for claim in world.chain.read(int(world.now_s)).claims}
    assert claimants and claimants.isdisjoint(world.chain.wallets[liar] for liar in liars)
    findings = [finding for said in run.verdicts.values() for finding in said.values()]
    assert Finding.WRONG_COUNTS in findings and Finding.UPHELD in findings
    assert summarise(world)["stage"] == "released"


def test_honest__all_receipts_are_upheld_and_every_row_counts() -> None:
    run = run_audited(make_audited())
    assert {finding for said in run.verdicts.values() for finding in said.values()} == {Finding.UPHELD}
    assert read_counted(run.world) == read_reporters(run.world)
    drawn = {cid for cid, said in run.verdicts.items() if said}
    assert len(drawn) >= PEERS, "at least one of every row"
    assert all(len(said) == 3 for said in run.verdicts.values()), "three jurors, and nobody else had to look"


def test_validation__is_opened_to_jurors_only_and_to_all_when_accused() -> None:
    """What a member opened it to is exactly who judged its receipts; nobody without a part in it could fetch it."""
    run = run_audited(make_audited(), liars=LIARS)
    world = run.world
    judged: dict[int, set[PeerId]] = {}
    peer = world.hosts[-1].peer
    assert peer is not None
    for subject, said in run.verdicts.items():
        vertex = peer.lane.dag.get(subject)
        assert vertex is not None
        judged.setdefault(world.index_of[vertex.issuer], set()).update(said)
    everybody = {host.name for host in world.hosts}
    for host in world.hosts:
        if host.index in LIARS:
            assert run.opened[host.index] == everybody - {host.name}
        else:
            opened = run.opened.get(host.index, set())
            assert opened == judged.get(host.index, set())
            assert len(opened) < len(everybody) - 1


def test_reporter_that_opens_nothing__is_frozen(monkeypatch: pytest.MonkeyPatch) -> None:
    secretive = 2
    carry_out = World._carry_out

    def refuse(world: World, host: Host, effect: ev.Effect) -> None:
        if not (isinstance(effect, ev.OpenFile) and host.index == secretive):
            carry_out(world, host, effect)

    monkeypatch.setattr(World, "_carry_out", refuse)
    run = run_audited(make_audited())
    name = run.world.hosts[secretive].name
    assert read_counted(run.world) == read_reporters(run.world) - {name}
    assert Finding.UNAVAILABLE in {finding for said in run.verdicts.values() for finding in said.values()}
    peer = run.world.hosts[0].peer
    assert peer is not None
    assert any(name in row for row in compute_rows(peer.lane).values()), "its own help still counts: it may have crashed"


def test_real_models__are_measured_again_and_a_liar_is_frozen() -> None:
    """Digits and torch: an honest receipt of a real network is upheld to the last answer, a small lie is found."""
    peers = 5
    learners = [
        (TorchExaggerator if index == 0 else InlineLearner)(
            LearnerConfig(task="digits", source=f"{index + 1}/{peers}@7", slice_bytes=64 * 1024, device="cpu")
        )
        for index in range(peers)
    ]
    for learner in learners:
        learner.open()
    scenario = find_scenario("audited", peers=peers, cycles=10, audit_permille=300)
    world = World(scenario, seed=5, learners=learners, initial_model=learners[0].initial_model(1), peer_types={0: Peer})
    world.run()
    liar = world.hosts[0].name
    assert read_counted(world) == {host.name for host in world.hosts} - {liar}
    peer = world.hosts[-1].peer
    assert peer is not None
    by_reporter: dict[bool, set[Finding]] = {True: set(), False: set()}
    for subject, said in read_verdicts(world).items():
        vertex = peer.lane.dag.get(subject)
        assert vertex is not None
        by_reporter[vertex.issuer == liar] |= set(said.values())
    assert by_reporter == {True: {Finding.WRONG_COUNTS}, False: {Finding.UPHELD}}


class Slanderer(Peer):
    """Accuses every receipt that it is asked to look at."""

    def __init__(self, **arguments: object) -> None:
        super().__init__(**arguments)  # type: ignore[arg-type]
        say = self.auditor._say

        def slander(duty: object, finding: Finding, **counts: int) -> list[object]:
            return say(duty, Finding.WRONG_COUNTS, **counts)  # type: ignore[arg-type,return-value]

        self.auditor._say = slander  # type: ignore[method-assign,assignment]


def test_slander__of_a_third_freezes_nobody() -> None:
    """Two of eight accuse whatever they see: everybody looks, and the majority upholds."""
    scenario = make_audited()
    learners = [SyntheticLearner(seed=100 + index) for index in range(PEERS)]
    world = World(
        scenario, seed=3, learners=learners, initial_model=learners[0].initial_model(1), peer_types=dict.fromkeys(LIARS, Slanderer)
    )
    world.run()
    said = read_verdicts(world)
    assert any(Finding.WRONG_COUNTS in findings.values() for findings in said.values())
    assert any(len(findings) > 4 for findings in said.values()), "the others looked too"
    assert read_counted(world) == read_reporters(world)


def test_late_closing__is_frozen_by_the_majority() -> None:
    """A member that closes its row when it knows the beacon could choose what is drawn."""

    class Latecomer(Peer):
        def _close(self, now_s: float) -> list[object]:  # type: ignore[override]
            view = self.dao.view
            return super()._close(now_s) if view is not None and view.beacon is not None else []  # type: ignore[return-value]

    learners = [SyntheticLearner(seed=100 + index) for index in range(PEERS)]
    world = World(make_audited(), seed=3, learners=learners, initial_model=learners[0].initial_model(1), peer_types={0: Latecomer})
    world.run()
    assert {finding for said in read_verdicts(world).values() for finding in said.values()} == {Finding.UPHELD, Finding.LATE}
    assert read_counted(world) == read_reporters(world) - {world.hosts[0].name}


def test_receipts__without_a_commitment_do_not_enter() -> None:
    """Rule 11d: a peer that commits nothing reports nothing that counts."""

    class Secretive(Peer):
        def __init__(self, **arguments: object) -> None:
            super().__init__(**arguments)  # type: ignore[arg-type]
            self.auditor.introduce = list  # type: ignore[method-assign]
            self.auditor.forbids = lambda said: False  # type: ignore[method-assign]

    learners = [SyntheticLearner(seed=100 + index) for index in range(PEERS)]
    world = World(make_audited(), seed=3, learners=learners, initial_model=learners[0].initial_model(1), peer_types={0: Secretive})
    with pytest.raises(AssertionError, match="not measured on what its issuer committed"):
        world.run()


def test_restart__of_a_juror_and_of_a_reporter_during_the_audits() -> None:
    """Killed after the beacon, back within seconds: the commitment, the kept models and the verdicts given are on disk."""
    scenario = make_audited()
    training_s = scenario.training_s
    crashes = tuple(Crash(peer=index, at_s=training_s + 6.5 + index / 2, back_s=training_s + 8.0 + index / 2) for index in (3, 4))
    run = run_audited(replace(scenario, crashes=crashes))
    world = run.world
    assert read_counted(world) == read_reporters(world)
    assert all(len(said) >= 3 for said in run.verdicts.values())


def test_without_audits__nothing_is_committed_or_opened() -> None:
    run = run_audited(find_scenario("calm", peers=4, cycles=10))
    assert run.verdicts == {} and run.opened == {}
    peer = run.world.hosts[0].peer
    assert peer is not None and peer.lane.audits is None
    assert any(isinstance(entry.message, HelpReported) for host in run.world.hosts for entry in _entries(peer, host.name))


def _entries(peer: Peer, issuer: PeerId) -> list[object]:
    return [peer.lane.dag.find(vertex.cid) for vertex in peer.lane.dag.chain(issuer)]
