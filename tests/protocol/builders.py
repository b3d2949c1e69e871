"""Builders shared by the tests of the core: rules, named peers with real keys, vertices, views of the chain."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from random import Random

from nacl.signing import SigningKey

from learnae.ids import CODEC_RAW, Address, Cid, Credits, PeerId, Wei, compute_cid
from learnae.protocol import events as ev
from learnae.protocol.calls import ChainView, Claim, Member, PoidRecord, Stage
from learnae.protocol.lane import ControlLane
from learnae.protocol.measures import Evaluation, TaskFacts
from learnae.protocol.messages import KIND_OF, HelpReported, Joined, Message, ModelAnnounced, Origin
from learnae.protocol.peer import Peer, PeerSettings
from learnae.protocol.rules import SessionRules
from learnae.protocol.validation import ControlCodec
from learnae.tangle.store import Entry
from learnae.tangle.vertex import Sign, Vertex, compute_genesis, create_vertex

EPOCH_S = 1_700_000_000
FUNDING_ENDS_S = EPOCH_S + 100
TRAINING_ENDS_S = FUNDING_ENDS_S + 1000
CLAIMING_ENDS_S = TRAINING_ENDS_S + 100
VOTING_ENDS_S = CLAIMING_ENDS_S + 100
FINAL_S = 100
NOW_S = float(FUNDING_ENDS_S + 10)  # training
NOW_MS = int(NOW_S * 1000)
INITIAL = compute_cid(b"initial model", CODEC_RAW)
MODEL_BYTES = 1000
TOTAL = 100
"""Examples in everybody's validation set here."""

RULES = SessionRules(
    name="test",
    codename="test",
    task_digest=bytes(32),
    initial_model=INITIAL,
    model_bytes=MODEL_BYTES,
    slice_bytes=64,
    overuse_threshold=3,
    train_permille=500,
    slices_per_cycle=4,
    policy="paper",
    reducer="mean",
    reward_mode="dao",
    reward_rule="budgeted",
    reward_factor=1000,
    tip_wei_per_credit=7,
    chain_id=1337,
    deposit_wei=Wei(10**18),
    members_min=1,
    members_max=100,
    starts_s=EPOCH_S,
    funding_ends_s=FUNDING_ENDS_S,
    training_ends_s=TRAINING_ENDS_S,
    claiming_ends_s=CLAIMING_ENDS_S,
    voting_ends_s=VOTING_ENDS_S,
    final_s=FINAL_S,
    reject_quorum_permille=200,
)
NET = RULES.compute_net("control")


def make_key(name: str) -> SigningKey:
    return SigningKey(hashlib.sha256(name.encode()).digest())


def make_peer_id(name: str) -> PeerId:
    return PeerId(bytes(make_key(name).verify_key))


def make_sign(name: str) -> Sign:
    key = make_key(name)
    return lambda message: key.sign(message).signature


NAMES = ("alice", "bob", "carol", "dave", "erin", "mallory")
ALICE, BOB, CAROL, DAVE, ERIN, MALLORY = map(make_peer_id, NAMES)
PEERS = (ALICE, BOB, CAROL, DAVE, ERIN, MALLORY)
EVERYBODY = frozenset(PEERS)


def make_cid(text: str) -> Cid:
    return compute_cid(text.encode())


def announce(text: str = "model", *, correct: int = 50, total: int = TOTAL, maturity: int = 1, size: int = MODEL_BYTES) -> ModelAnnounced:
    return ModelAnnounced(
        model=make_cid(text),
        size_bytes=size,
        correct=correct,
        total=total,
        maturity_cycles=maturity,
        examples=10,
        origin=Origin.TRAINED,
        parents=(INITIAL,),
    )


def report(helper: PeerId, announcement: Cid, *, owed: int, before: int = 50, after: int = 51, credits: int | None = None) -> HelpReported:
    """A receipt; with the factor of RULES each right answer more of the 100 is worth 10 credits."""
    return HelpReported(
        helper=helper,
        announcement=announcement,
        before=make_cid("before"),
        after=make_cid("after"),
        correct_before=before,
        correct_after=after,
        total=TOTAL,
        credits=Credits(10 * (after - before) if credits is None else credits),
        owed=Credits(owed),
    )


class Author:
    """Writes vertices of one issuer outside of any lane, right or wrong ones."""

    def __init__(self, name: str, rules: SessionRules = RULES) -> None:
        self.name, self.me, self.sign = name, make_peer_id(name), make_sign(name)
        self.net = rules.compute_net("control")
        self.log: list[Vertex] = []

    def write(self, message: Message, *, parents: Sequence[Vertex | Cid] = (), time_ms: int | None = None, sequence: int | None = None,
              previous: Vertex | None = None) -> Vertex:  # fmt: skip
        """The next vertex of this author's log, or one after `previous` (a fork, if it is not the last)."""
        previous = previous or (self.log[-1] if self.log else None)
        others = tuple(parent.cid if isinstance(parent, Vertex) else parent for parent in parents)
        vertex = create_vertex(
            net=self.net,
            parents=(previous.cid if previous else genesis(self.net), *others),
            issuer=self.me,
            sequence=(previous.sequence + 1 if previous else 1) if sequence is None else sequence,
            time_ms=(previous.time_ms + 200 if previous else NOW_MS) if time_ms is None else time_ms,
            kind=int(KIND_OF[type(message)]),
            body=message.to_body(),
            sign=self.sign,
        )
        self.log.append(vertex)
        return vertex


def genesis(net: bytes = NET) -> Cid:
    return compute_genesis(net)


def make_lane(name: str = "alice", *, rules: SessionRules = RULES, members: Iterable[PeerId] = EVERYBODY) -> ControlLane:
    lane = ControlLane(rules=rules, me=make_peer_id(name), sign=make_sign(name), rng=Random(name))
    lane.members = frozenset(members)
    return lane


def feed(lane: ControlLane, vertices: Iterable[Vertex], *, now_ms: int = NOW_MS + 100_000) -> list[Entry]:
    """Give vertices to a lane; everything that entered."""
    return [entry for vertex in vertices for entry in lane.receive(vertex.encoded, now_ms=now_ms).entered]


def exchange(a: ControlLane, b: ControlLane, *, now_ms: int = NOW_MS + 200_000) -> int:
    """Sync two lanes as peers do, until a round brings nothing; how many messages that took."""
    count = 0
    while True:
        before = [(len(lane.dag), len(lane.dag.orphans)) for lane in (a, b)]
        waiting = [(b, a, a.ask()), (a, b, b.ask())]
        while waiting:
            to, sender, message = waiting.pop(0)
            count += 1
            for encoded in message.vertices:
                to.receive(encoded, now_ms=now_ms)
            waiting += [(sender, to, answer) for answer in to.answer(message)]
        if before == [(len(lane.dag), len(lane.dag.orphans)) for lane in (a, b)]:
            return count


# --- the chain ----------------------------------------------------------------------------------------------------


def make_member(index: int, peer: PeerId, *, fault: str = "", position: tuple[int, int] | None = None) -> Member:
    wallet = Address("0x" + peer[:20].hex())
    poid = PoidRecord(
        contract=Address(f"0x{index + 1:040x}"),
        peer_id=peer,
        wallet=wallet,
        public_key=bytes(64),
        timestamp_s=EPOCH_S,
        position=position or (index, 0),
        fault=fault,
    )
    return Member(index=index, wallet=wallet, poid=poid)


def make_view(
    stage: Stage = Stage.TRAINING, *, time_s: int | None = None, peers: Sequence[PeerId] = (ALICE, BOB, CAROL), **changes: object
) -> ChainView:
    """A view in the middle of a stage."""
    times = {
        Stage.FUNDING: EPOCH_S + 10,
        Stage.TRAINING: int(NOW_S),
        Stage.CLAIMING: TRAINING_ENDS_S + 10,
        Stage.VOTING: CLAIMING_ENDS_S + 10,
    }
    view = ChainView(
        block_number=1,
        time_s=times.get(stage, VOTING_ENDS_S + 10) if time_s is None else time_s,
        stage=stage,
        members=tuple(make_member(index, peer) for index, peer in enumerate(peers)),
        fund_wei=Wei(len(peers) * 10**18),
    )
    return replace(view, **changes)  # type: ignore[arg-type]


def make_claim(index: int, points: int, evidence: bytes = bytes(32)) -> Claim:
    return Claim(index=index, points=points, evidence=evidence)


# --- peers --------------------------------------------------------------------------------------------------------

FACTS = TaskFacts(
    train_examples=100, validation_examples=TOTAL, device="none", parameters=1, model_bytes=MODEL_BYTES, private_slices=4, shared_slices=0
)


def measure(correct: int, *, reference: int | None = None) -> Evaluation:
    """An evaluation whose gains and losses are the plain difference to `reference`."""
    change = 0 if reference is None else correct - reference
    return Evaluation(correct=correct, total=TOTAL, gained=max(0, change), lost=max(0, -change))


class Player:
    """A `Peer` with its clock; keeps what its journal would keep."""

    def __init__(self, name: str = "alice", *, rules: SessionRules = RULES, settings: PeerSettings | None = None, seed: int = 0) -> None:
        self.rules, self.now_s = rules, NOW_S
        self.peer = Peer(rules=rules, me=make_peer_id(name), sign=make_sign(name), rng=Random(seed), settings=settings)
        self.vertices: dict[Cid, bytes] = {}
        self.records: dict[str, bytes] = {}

    def handle(self, event: ev.Event, *, after_s: float = 0.0) -> list[ev.Effect]:
        self.now_s += after_s
        effects = self.peer.handle(event, self.now_s)
        for effect in effects:
            if isinstance(effect, ev.PublishVertex):
                self.vertices[effect.cid] = effect.encoded
            elif isinstance(effect, ev.SaveVertices):
                self.vertices.update(effect.vertices)
            elif isinstance(effect, ev.SaveRecord):
                self.records.update({effect.name: effect.content} if effect.content is not None else {})
        return effects

    def start(self, *, facts: TaskFacts | None = FACTS, journal: Player | None = None) -> list[ev.Effect]:
        if journal is not None:
            self.vertices, self.records = dict(journal.vertices), dict(journal.records)
        started = ev.Started(
            facts=facts, addresses=("/ip4/127.0.0.1/tcp/1",), vertices=tuple(self.vertices.values()), records=dict(self.records)
        )
        return self.handle(started)

    def hear(self, author: Author, message: Message) -> Vertex:
        """Gossip brings what somebody says now, in this player's session."""
        author.net = self.rules.compute_net("control")
        last = author.log[-1].time_ms if author.log else 0
        vertex = author.write(message, time_ms=max(int(self.now_s * 1000), last + 200))
        self.handle(ev.VertexReceived(author.me, vertex.encoded))
        return vertex

    def say(self, effects: Iterable[ev.Effect]) -> list[Message]:
        """The messages that were published among effects."""
        codec = ControlCodec()
        said = []
        for effect in effects:
            if isinstance(effect, ev.PublishVertex):
                vertex = codec.decode(effect.encoded)
                assert isinstance(vertex, Vertex)
                message = codec.parse(vertex)
                assert message is not None
                said.append(message)
        return said

    def turn(self) -> list[ev.Effect]:
        """The next work cycle may begin."""
        return self.handle(ev.TimerFired(ev.Timer.CYCLE), after_s=1.0)

    def begin(self, kind: type[ev.Effect], *, turns: int = 60) -> ev.Effect:
        """Let work cycles begin until one asks for `kind`; trainings on the way change nothing."""
        for _ in range(turns):
            for effect in self.turn():
                if isinstance(effect, kind):
                    return effect
                if isinstance(effect, ev.TrainModel):
                    self.handle(ev.LearningFailed(effect.number, "not now", blames_remote=False))
                elif isinstance(effect, ev.FetchFile):
                    self.handle(ev.FetchFailed(effect.number, "not now"))
        raise AssertionError(f"no {kind.__name__} in {turns} turns")


def make_player(name: str = "alice", *, correct: int = 50, rules: SessionRules = RULES, settings: PeerSettings | None = None, seed: int = 0,
                facts: TaskFacts = FACTS) -> Player:  # fmt: skip
    """A member in the training stage that has the initial model, with `correct` right answers of 100."""
    player = Player(name, rules=rules, settings=settings, seed=seed)
    player.start(facts=facts)
    player.handle(ev.ChainRead(make_view(peers=PEERS)))
    fetch = next(e for e in player.turn() if isinstance(e, ev.FetchFile))
    evaluate = next(e for e in player.handle(ev.FileFetched(fetch.number)) if isinstance(e, ev.EvaluateModel))
    player.handle(ev.ModelEvaluated(evaluate.number, MODEL_BYTES, measure(correct)))
    return player


def introduce(*authors: Author, lane: ControlLane | None = None) -> list[Vertex]:
    """Everybody's first words."""
    vertices = [author.write(Joined(poid=bytes(20), addresses=())) for author in authors]
    if lane is not None:
        feed(lane, vertices)
    return vertices
