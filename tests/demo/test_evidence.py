"""What the demo's report is computed from: adoptions out of journals, curves over the training stage, models that must be there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from learnae.backends.disk_blocks import DiskBlocks
from learnae.backends.keystore import Keys, create_keys
from learnae.demo.evidence import Evidence, _find_adoptions, _Peer, _stretch, load_model
from learnae.errors import DemoError
from learnae.ids import Address, Cid, compute_cid
from learnae.learning.baselines import Point
from learnae.protocol.lane import ControlLane
from learnae.protocol.messages import Message, ModelAnnounced, Origin
from learnae.protocol.rules import SessionRules, Ticket
from learnae.report import Adoption
from learnae.sim.scenario import EPOCH_S, SCENARIOS
from learnae.tangle.store import Entry

RULES: SessionRules = SCENARIOS["calm"].compute_rules(initial_model=compute_cid(b"initial"), model_bytes=100)
BEGAN_S = float(EPOCH_S)


def announce(model: bytes, correct: int, origin: Origin, *parents: bytes) -> ModelAnnounced:
    return ModelAnnounced(
        model=compute_cid(model), size_bytes=100, correct=correct, total=200, maturity_cycles=1, examples=10, origin=origin,
        parents=tuple(map(compute_cid, parents)),
    )  # fmt: skip


def make_peers(folder: Path, said: list[tuple[str, int, Message]]) -> list[_Peer]:
    """Peers whose journals all hold what was said: (who, second of the session, message)."""
    keys: dict[str, Keys] = {name: create_keys() for name in ("ada", "ben")}
    entries: list[Entry] = []
    lanes = {}
    for name, own in keys.items():
        lane = ControlLane(rules=RULES, me=own.identity.peer_id, sign=own.identity.sign, rng=Random(1))
        lane.members = frozenset(each.identity.peer_id for each in keys.values())
        lanes[name] = lane
    for name, second, message in said:
        entry = lanes[name].issue(message, now_ms=int((BEGAN_S + second) * 1000))
        entries.append(entry)
        for other in lanes.values():
            other.receive(entry.vertex.encoded, now_ms=entry.vertex.time_ms)
    return [_Peer(name, own, lanes[name], entries, DiskBlocks(folder / name, reserve_bytes=0)) for name, own in keys.items()]


def test_adoptions__are_read_from_what_models_were_made_of(tmp_path: Path) -> None:
    """A model with a stranger's parent is an adoption; its gain is in points on the adopter's own data."""
    peers = make_peers(
        tmp_path,
        [
            ("ada", 30, announce(b"a1", 100, Origin.TRAINED, b"initial")),
            ("ben", 31, announce(b"b1", 80, Origin.TRAINED, b"initial")),
            ("ben", 35, announce(b"b2", 110, Origin.AVERAGED, b"b1", b"a1")),
            ("ada", 36, announce(b"a2", 120, Origin.TRAINED, b"a1")),
            ("ben", 40, announce(b"a2", 130, Origin.ADOPTED, b"a1")),
        ],
    )

    assert _find_adoptions(peers, BEGAN_S) == [
        Adoption(35.0, "ada", "ben", 15.0),
        Adoption(40.0, "ada", "ben", 10.0),
    ]


def test_adoptions__own_training_is_none(tmp_path: Path) -> None:
    peers = make_peers(
        tmp_path,
        [
            ("ada", 30, announce(b"a1", 100, Origin.TRAINED, b"initial")),
            ("ada", 31, announce(b"a2", 140, Origin.TRAINED, b"a1")),
            ("ben", 32, announce(b"b1", 90, Origin.TRAINED, b"initial")),
        ],
    )

    assert _find_adoptions(peers, BEGAN_S) == []


def test_baseline__has_as_long_as_the_swarm() -> None:
    """A baseline's curve begins with the training stage and ends with it, whatever it took."""
    evidence = Evidence(
        ticket=Ticket(rules=RULES, contract=Address("0x" + "1" * 40)),
        rpc="",
        folders={},
        roles={},
        seed=0,
        began_s=BEGAN_S,
        restarted_at_s=None,
        password_file=Path("none"),
        funded_wei=0,
    )
    points = tuple(Point(passes=i, seconds=float(i), validation=0.5, test=i / 10) for i in range(5))

    curve = _stretch(points, evidence)

    begin_s, end_s = RULES.funding_ends_s - BEGAN_S, RULES.training_ends_s - BEGAN_S
    assert [at_s for at_s, _ in curve] == pytest.approx([begin_s + (end_s - begin_s) * i / 4 for i in range(5)], abs=0.01)
    assert [accuracy for _, accuracy in curve] == [0.0, 0.1, 0.2, 0.3, 0.4]
    assert _stretch(points[:1], evidence) == ((begin_s, 0.0),)


def test_model__that_is_gone_is_told(tmp_path: Path) -> None:
    blocks = DiskBlocks(tmp_path, reserve_bytes=0)
    cid: Cid = blocks.put_file(b"m" * 100)
    assert load_model(blocks, cid, RULES) == b"m" * 100
    with pytest.raises(DemoError, match="is no longer in its block store"):
        load_model(blocks, compute_cid(b"never"), RULES)
    with pytest.raises(DemoError, match="is no longer in its block store"):
        load_model(blocks, blocks.put_file(b"m" * 5000), replace(RULES, model_bytes=100))
