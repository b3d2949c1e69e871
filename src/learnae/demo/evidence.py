"""What a finished demo left behind, read back: journals, block stores, the chain; and what the same data give without a swarm.

Nothing here trusts what the nodes said of themselves: models are measured anew on the held-out test set, ledgers are folded anew
from each peer's journal, payments are read from the chain.
"""

from __future__ import annotations

import hashlib
import os
import platform
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Final

import trio

from learnae import __version__
from learnae.backends.disk_blocks import DiskBlocks
from learnae.backends.disk_journal import DiskJournal
from learnae.backends.ethereum import open_ethereum_chain
from learnae.backends.ethereum.rpc import Endpoint, read_number
from learnae.backends.keystore import Keys, open_keystore
from learnae.errors import DemoError, LearnaeError
from learnae.ids import Address, Cid, PeerId, Wei, peer_text
from learnae.learning.baselines import Curve, measure_models, train_alone, train_pooled
from learnae.learning.config import LearnerConfig
from learnae.protocol.calls import ChainView, Stage
from learnae.protocol.lane import ControlLane
from learnae.protocol.messages import ModelAnnounced, Origin
from learnae.protocol.rewards import Rows
from learnae.protocol.rules import SessionRules, Ticket
from learnae.protocol.validation import compute_model_bytes_max
from learnae.report import Adoption, PeerReport, SessionReport, StageMark
from learnae.report.model import Role
from learnae.tangle.store import Entry

POINTS_MAX: Final = 36  # Measured models of each peer: enough for a smooth curve.
ALONE_CYCLES: Final = 40  # Far beyond where a peer alone stops improving; 4 passes each.
POOLED_CYCLES: Final = 12


class Baselines:
    """Every peer alone and all data pooled, computed in a thread while the peers settle their accounts."""

    def __init__(self, seed: int, peers: int, ticket: Ticket, founder: Path) -> None:
        self._sources = [f"{index + 1}/{peers}@{seed}" for index in range(peers)]
        self._config = LearnerConfig(task="digits", source=self._sources[0], slice_bytes=ticket.rules.slice_bytes, device="cpu")
        self._rules = ticket.rules
        self._founder = founder
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._alone: list[Curve] = []
        self._pooled: Curve = ()
        self._error: LearnaeError | None = None

    def start(self) -> None:
        self._thread.start()

    def wait(self) -> tuple[list[Curve], Curve]:
        """The curves of all peers alone, in order, and of the pooled data. Raises: LearnaeError."""
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self._alone, self._pooled

    def _run(self) -> None:
        try:
            initial = load_model(DiskBlocks(self._founder / "blocks"), self._rules.initial_model, self._rules)
            for source in self._sources:
                config = LearnerConfig(task="digits", source=source, slice_bytes=self._rules.slice_bytes, device="cpu")
                self._alone.append(train_alone(config, initial_model=initial, cycles=ALONE_CYCLES))
            self._pooled = train_pooled(self._config, self._sources, initial_model=initial, cycles=POOLED_CYCLES)
        except LearnaeError as error:
            self._error = error


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Where everything lies. `folders` and `roles` by name, in the order of the peers."""

    ticket: Ticket
    rpc: str
    folders: Mapping[str, Path]
    roles: Mapping[str, Role]
    seed: int
    began_s: float
    restarted_at_s: float | None
    password_file: Path
    funded_wei: int  # what each wallet held before the session


@dataclass(frozen=True, slots=True)
class _Peer:
    """One peer's folder, read."""

    name: str
    keys: Keys
    lane: ControlLane
    entries: list[Entry]
    blocks: DiskBlocks

    @property
    def peer_id(self) -> PeerId:
        return self.keys.identity.peer_id

    def own_models(self) -> list[tuple[int, ModelAnnounced]]:
        """(time in ms, announcement) of every model that this peer announced, in order."""
        mine = (entry for entry in self.entries if entry.vertex.issuer == self.peer_id)
        return [(entry.vertex.time_ms, entry.message) for entry in mine if isinstance(entry.message, ModelAnnounced)]


def assemble_report(evidence: Evidence, baselines: Baselines) -> SessionReport:
    """The whole report. Raises: DemoError: something that must be there is not."""
    rules = evidence.ticket.rules
    password = evidence.password_file.read_text(encoding="utf-8")
    peers = [_read_peer(name, folder, password, rules) for name, folder in evidence.folders.items()]
    view, accounts = trio.run(_read_chain, evidence, [peer.keys for peer in peers])
    alone, pooled = baselines.wait()
    rows = peers[0].lane.ledger.rows()
    end_s = max(entry.vertex.time_ms for peer in peers for entry in peer.entries) / 1000
    adoptions = _find_adoptions(peers, evidence.began_s)
    reports = [
        replace(
            _report_peer(evidence, peer, view, rows, _stretch(curve, evidence), adoptions),
            transactions=accounts[peer.keys.wallet.address].transactions,
            fees_wei=accounts[peer.keys.wallet.address].fees_wei,
        )
        for peer, curve in zip(peers, alone, strict=True)
    ]
    stages = (
        ("founding", evidence.began_s),
        ("training", rules.funding_ends_s),
        ("final", rules.training_ends_s - rules.final_s),
        ("claims", rules.training_ends_s),
        ("votes", rules.claiming_ends_s),
        ("release", rules.voting_ends_s),
    )
    ticket_text = evidence.ticket.to_text()
    return SessionReport(
        session=rules.name,
        seconds=round(max(end_s, time.time()) - evidence.began_s, 1),
        seed=evidence.seed,
        accuracy_pooled=pooled[-1].test,
        pooled_curve=_stretch(pooled, evidence),
        fund_wei=view.fund_wei,
        paid_wei=sum((view.paid_wei or {}).values()),
        ledgers_equal=all(peer.lane.ledger.rows() == rows for peer in peers),
        peers=tuple(reports),
        adoptions=tuple(adoptions),
        ledger=tuple(tuple(rows.get(a.peer_id, {}).get(b.peer_id, 0) for b in peers) for a in peers),
        stages=tuple(StageMark(name, round(start_s - evidence.began_s, 1)) for name, start_s in stages),
        ticket_digest=hashlib.sha256(ticket_text.encode()).hexdigest()[:12],
        version=__version__,
        machine=f"{os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}",
    )


def load_model(blocks: DiskBlocks, cid: Cid, rules: SessionRules) -> bytes:
    """A model from a block store. Raises: DemoError: it is not there."""
    model = blocks.get_file(cid, bytes_max=compute_model_bytes_max(rules))
    if model is None:
        raise DemoError("a model that a peer announced is no longer in its block store")
    return bytes(model)


def _read_peer(name: str, folder: Path, password: str, rules: SessionRules) -> _Peer:
    keys = open_keystore(folder / "keystore.json", password)
    journal = DiskJournal(folder)
    try:
        lane = ControlLane(rules=rules, me=keys.identity.peer_id, sign=keys.identity.sign, rng=Random(0))
        entries = list(lane.restore(journal.vertices()))
    finally:
        journal.close()
    return _Peer(name, keys, lane, entries, DiskBlocks(folder / "blocks"))


@dataclass(frozen=True, slots=True)
class _Account:
    """What the chain knows of one wallet."""

    transactions: int
    fees_wei: int


async def _read_chain(evidence: Evidence, keys: Sequence[Keys]) -> tuple[ChainView, dict[Address, _Account]]:
    """The session as it ended, and how many transactions each wallet sent and what it paid for gas."""
    first = keys[0]
    opened = open_ethereum_chain(
        evidence.rpc, wallet=first.wallet, peer_id=first.identity.peer_id, sign_identity=first.identity.sign
    )
    accounts = {}
    async with opened as chain, Endpoint(evidence.rpc, lambda sentence: None) as endpoint:
        view = await chain.read(evidence.ticket.contract)
        for wallet in (key.wallet.address for key in keys):
            sent = read_number("eth_getTransactionCount", await endpoint.request("eth_getTransactionCount", wallet, "latest"))
            moved_wei = (view.paid_wei or {}).get(wallet, 0) - evidence.ticket.rules.deposit_wei
            accounts[wallet] = _Account(sent, evidence.funded_wei + moved_wei - await chain.balance_wei(wallet))
    if view.stage not in (Stage.RELEASED, Stage.REFUNDED):
        raise DemoError(f"the session is in stage {view.stage.value}, although all its nodes have ended")
    return view, accounts


def _find_adoptions(peers: list[_Peer], began_s: float) -> list[Adoption]:
    """Who took over what from whom: a model with a remote parent, and what it gained on the adopter's own validation data."""
    issuer_of: dict[Cid, str] = {}
    by_id = {peer.peer_id: peer.name for peer in peers}
    for entry in peers[0].entries:
        if isinstance(entry.message, ModelAnnounced):
            issuer_of.setdefault(entry.message.model, by_id[entry.vertex.issuer])
    adoptions = []
    for peer in peers:
        before: ModelAnnounced | None = None
        for time_ms, message in peer.own_models():
            helpers = [issuer_of[parent] for parent in message.parents if issuer_of.get(parent, peer.name) != peer.name]
            helper = issuer_of[message.model] if message.origin is Origin.ADOPTED else helpers[0] if helpers else None
            if before is not None and helper is not None and message.origin is not Origin.TRAINED and helper != peer.name:
                gain = 100 * (message.correct - before.correct) / message.total
                adoptions.append(Adoption(round(time_ms / 1000 - began_s, 2), helper, peer.name, round(gain, 3)))
            before = message
    return sorted(adoptions)


def _report_peer(
    evidence: Evidence, peer: _Peer, view: ChainView, rows: Rows, alone: tuple[tuple[float, float], ...], adoptions: list[Adoption]
) -> PeerReport:
    rules = evidence.ticket.rules
    wallet: Address = peer.keys.wallet.address
    models = peer.own_models()
    step = max(1, len(models) // POINTS_MAX)
    chosen = models[::-1][::step][::-1]  # The last one is always among them.
    if not chosen:
        raise DemoError(f"{peer.name} announced no model; its folder is {evidence.folders[peer.name]}")
    config = LearnerConfig(task="digits", source=f"1/{len(evidence.folders)}@{evidence.seed}", device="cpu")
    measured = measure_models(config, [load_model(peer.blocks, message.model, rules) for _, message in chosen])
    curve = tuple(
        (round(time_ms / 1000 - evidence.began_s, 2), evaluation.accuracy)
        for (time_ms, _), evaluation in zip(chosen, measured, strict=True)
    )
    given = sum(row.get(peer.peer_id, 0) for row in rows.values())
    received = sum(rows.get(peer.peer_id, {}).values())
    role = evidence.roles[peer.name]
    restarted_s = evidence.restarted_at_s if role == "restarted" else None
    return PeerReport(
        name=peer.name,
        peer_id=peer_text(peer.peer_id),
        role=role,
        accuracy_alone=alone[-1][1],
        accuracy=curve[-1][1],
        curve=curve,
        alone_curve=alone,
        help_given=given,
        help_received=received,
        deposit_wei=rules.deposit_wei,
        payout_wei=(view.paid_wei or {}).get(wallet, Wei(0)),
        tips_balance_wei=rules.deposit_wei + rules.tip_wei_per_credit * (given - received),
        adoptions=sum(adoption.adopter == peer.name for adoption in adoptions),
        restarted_at_s=None if restarted_s is None else round(restarted_s - evidence.began_s, 1),
    )


def _stretch(curve: Curve, evidence: Evidence) -> tuple[tuple[float, float], ...]:
    """A baseline's curve over the training stage: it had as long as the swarm."""
    rules = evidence.ticket.rules
    begin_s, length_s = rules.funding_ends_s - evidence.began_s, rules.training_ends_s - rules.funding_ends_s
    last = max(1, len(curve) - 1)
    return tuple((round(begin_s + length_s * index / last, 2), point.test) for index, point in enumerate(curve))
