"""Section 7 through the whole protocol: as many real peers as the setting says, on the simulator's network that loses gossip.

Every peer says what happens to it in signed vertices, claims and votes by its own ledger, and is paid by the
session's contract: its reference model, or the real one on the embedded chain (`lab.contract`). Only two things follow a script,
the draws of `lab.swarm`: whose model a peer tries next, and how much its accuracy changes by that. So the balances must be those of
the fast path, to the wei, and `join_sessions` stops with an error if they are not.

One experiment is two sessions with equal draws: one that pays direct tips (4.3), one that settles by the fund (6).
Source: paper, sections 6 and 7.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from random import Random
from typing import Final

from learnae.errors import InvariantBrokenError
from learnae.ids import Cid, PeerId, Wei
from learnae.lab.paper import Outcome, Pair, Setting, run_fast
from learnae.lab.swarm import CREDIT_WEI, DEPOSIT_WEI, SwarmDraws, draw_swarm
from learnae.protocol.measures import SCORE_TOTAL, Evaluation, TaskFacts
from learnae.protocol.models import Candidate, LocalModel, ModelMarket
from learnae.protocol.peer import Peer
from learnae.protocol.rules import SessionRules
from learnae.sim.learner import Unaudited
from learnae.sim.scenario import Link, Scenario
from learnae.sim.world import World

GOSSIP_LOSS: Final = 0.3  # Chance that one gossip message does not reach one peer; sync brings it later.
SPARE_CYCLES: Final = 6  # Turns beside the scripted ones: the first training, and models that gossip lost; three were seen to be used.
_MODEL: Final = struct.Struct("<4sIIq")  # magic, peer, version, score
_MAGIC: Final = b"PAP7"


class PaperScenario(Scenario):
    """A session with the paper's deposit, its reward rule, and no turns that train while there is somebody to average with."""

    def compute_rules(self, *, initial_model: Cid, model_bytes: int) -> SessionRules:
        return replace(
            Scenario.compute_rules(self, initial_model=initial_model, model_bytes=model_bytes),
            train_permille=0,
            reward_factor=SCORE_TOTAL,  # With so many questions, a credit is one more right answer.
            tip_wei_per_credit=CREDIT_WEI,
            deposit_wei=DEPOSIT_WEI,
            members_min=2,
        )


def make_scenario(setting: Setting, *, malicious: int, mode: str) -> Scenario:
    """A session long enough for the script, paid by `mode`: "tips" or "dao"."""
    waiting = 2 * setting.cycles // (setting.peers - 1)  # Turns spent on waiting for a helper's next model: many in a small swarm.
    return PaperScenario(
        name="paper",
        about="section 7",
        peers=setting.peers,
        cycles=setting.cycles + SPARE_CYCLES + waiting,
        final_s=0,
        link=Link(loss=GOSSIP_LOSS),
        silent=malicious,
        reward_rule="raw",
        reward_mode=mode,
    )


# --- the script ---------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class ScriptedPeer(Unaudited):
    """What one peer does instead of choosing and learning: its attempts in their order, from the draws.

    It is the peer's learner (its model is a number: the sum of its improvements) and its `ExchangePolicy`.
    """

    index: int
    helpers: Sequence[PeerId]  # of each attempt
    helper_indices: Sequence[int]
    changes: Sequence[int]
    attempt: int = 0
    _version: int = 0
    _tried: Cid | None = None  # the announcement of the attempt under way
    _credited: set[Cid] = field(default_factory=set)  # a second help by one announcement would not be reported: the next one is waited for

    # --- as a learner -------------------------------------------------------------------------------------------

    def open(self) -> TaskFacts:
        return TaskFacts(
            train_examples=1,
            validation_examples=SCORE_TOTAL,
            device="none",
            parameters=1,
            model_bytes=_MODEL.size,
            private_slices=1,
            shared_slices=0,
        )

    def evaluate(self, model: bytes, *, reference: bytes | None) -> Evaluation:
        score = read_score(model)
        change = 0 if reference is None else score - read_score(reference)
        return Evaluation(correct=score, total=SCORE_TOTAL, gained=max(0, change), lost=max(0, -change))

    def train(self, model: bytes, *, private_slices: Sequence[int], slices: Sequence[bytes], seed: int) -> tuple[bytes, Evaluation]:
        """A new model, as good as the one before: what training brings plays no part in section 7."""
        trained = self._make_model(read_score(model))
        return trained, self.evaluate(trained, reference=model)

    def average(self, local: bytes, remote: bytes, *, remote_share: float) -> tuple[bytes, Evaluation, Evaluation]:
        """The scripted outcome of averaging with the scripted helper, whose model this must be."""
        assert read_owner(remote) == self.helper_indices[self.attempt], "another peer's model than the script says"
        change = self.changes[self.attempt]
        average = self._make_model(max(0, read_score(local) + change))
        evaluation = replace(self.evaluate(average, reference=local), gained=max(0, change), lost=max(0, -change))
        return average, evaluation, self.evaluate(remote, reference=local)

    def read_shared_slice(self, index: int) -> bytes:
        raise AssertionError(f"slice {index} is asked for, and none is shared")

    def _make_model(self, score: int) -> bytes:
        self._version += 1
        return _MODEL.pack(_MAGIC, self.index, self._version, score)

    # --- as a policy --------------------------------------------------------------------------------------------

    def choose(self, local: LocalModel, market: ModelMarket, rng: Random) -> Candidate | None:
        """The newest model of the next scripted helper that this peer has not been helped by yet."""
        if self.is_done:
            return None
        for candidate in reversed(market.of(self.helpers[self.attempt])):
            if candidate.announcement not in self._credited:
                self._tried = candidate.announcement
                return candidate
        return None

    def compute_remote_share(self, local: LocalModel, candidate: Candidate) -> float:
        return 0.5

    def accepts(self, average: Evaluation, *, best_correct: int) -> bool:
        """Section 7: a level above 0 is a success. The next attempt is due."""
        assert self._tried is not None
        is_success = average.gained > average.lost
        if is_success:
            self._credited.add(self._tried)
        self.attempt += 1
        return is_success

    @property
    def is_done(self) -> bool:
        return self.attempt == len(self.changes)


def make_initial_model() -> bytes:
    return _MODEL.pack(_MAGIC, 0, 0, 0)


def read_score(model: bytes) -> int:
    score: int = _MODEL.unpack(model)[3]
    return score


def read_owner(model: bytes) -> int:
    owner: int = _MODEL.unpack(model)[1]
    return owner


# --- a session ------------------------------------------------------------------------------------------------------


def make_session(setting: Setting, draws: SwarmDraws, *, malicious: int, mode: str) -> tuple[World, list[ScriptedPeer]]:
    """A simulated session of `draws`: peers that follow the script, everything else as always."""
    scenario = make_scenario(setting, malicious=malicious, mode=mode)
    scripts = [_make_script(draws, index) for index in range(draws.peers)]
    world = World(scenario, seed=draws.seed, learners=scripts, initial_model=make_initial_model())
    for host, script in zip(world.hosts, scripts, strict=True):
        script.helpers = [world.hosts[index].name for index in script.helper_indices]
        host.make_peer = partial(_make_scripted, host.make_peer, script)
    return world, scripts


def _make_script(draws: SwarmDraws, index: int) -> ScriptedPeer:
    mine = slice(index, None, draws.peers)
    return ScriptedPeer(index, (), draws.helpers[mine], draws.changes[mine])


def _make_scripted(make_peer: Callable[[Random], Peer], script: ScriptedPeer, rng: Random) -> Peer:
    peer = make_peer(rng)
    peer.cycle.policy = script
    return peer


@dataclass(frozen=True, slots=True)
class Session:
    """One of the four sessions that a seed needs."""

    setting: Setting
    seed: int
    malicious: int
    mode: str  # "tips" or "dao"
    is_contract: bool = False  # on the real contract, not its reference model alone

    @property
    def command(self) -> str:
        """What a user types to run this seed again."""
        size = f"--peers {self.setting.peers} --cycles {self.setting.cycles} --malicious {self.setting.malicious}"
        how = "contract" if self.is_contract else "protocol"
        return f"learnae paper --through {how} --seeds 1 --first-seed {self.seed} {size}"


def list_sessions(setting: Setting, seed: int, *, is_contract: bool) -> list[Session]:
    """The sessions of one seed: everybody reports, or some never do; settled by tips, or by the fund."""
    return [
        Session(setting, seed, malicious, mode, is_contract)
        for malicious in (0, setting.malicious)
        for mode in ("tips", "dao")
    ]


def run_session(session: Session) -> tuple[Wei, ...]:
    """Run one session to its end and return what every peer has then: its deposit after tips, or what the fund paid.

    Raises: InvariantBrokenError: a promise of the simulator was broken.
    """
    draws = draw_swarm(session.seed, peers=session.setting.peers, cycles=session.setting.cycles)
    world, scripts = make_session(session.setting, draws, malicious=session.malicious, mode=session.mode)
    chain = world.chain
    if session.is_contract:
        from learnae.lab.contract import ContractChain

        names = [host.name for host in world.hosts]
        chain = world.chain = ContractChain(world.rules, names, seed=session.seed, command=session.command)
    try:
        world.run()
        world.checker.check_end()
    except InvariantBrokenError as error:
        raise InvariantBrokenError(error.what, session.command) from error
    late = sum(not script.is_done for script in scripts)
    if late:
        raise InvariantBrokenError(f"{late} peers did not come to the end of their script", session.command)
    return tuple(chain.read_balance(host.name) for host in world.hosts)


def join_sessions(sessions: Sequence[Session], balances: Sequence[tuple[Wei, ...]]) -> Pair:
    """The four sessions of one seed, in the order of `list_sessions`, as its two experiments.

    Raises: InvariantBrokenError: some balance is not, to the wei, that of the ledger alone.
    """
    pair = Pair(Outcome(balances[0], balances[1]), Outcome(balances[2], balances[3]))
    if pair != run_fast(sessions[0].setting, sessions[0].seed):
        raise InvariantBrokenError("the protocol pays other balances than the ledger alone", sessions[-1].command)
    return pair
