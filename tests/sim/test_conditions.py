"""Promises under loss, partitions and churn; random conditions; the command that repeats a run says all that it takes."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from learnae.cli import main
from learnae.errors import InvariantBrokenError
from learnae.protocol.calls import Stage
from learnae.protocol.lane import ControlLane
from learnae.protocol.store import ControlStore
from learnae.sim.conditions import change_scenario, draw_conditions, format_command
from learnae.sim.scenario import Crash, Link, Partition, find_scenario
from learnae.sim.world import World
from learnae.tangle.dag import TangleDag
from learnae.tangle.vertex import Vertex
from tests.sim.worlds import make_world, run_world

LOSS = Link(loss=0.3)
SPLITS = (Partition(from_s=4, to_s=12), Partition(from_s=15, to_s=20, groups=3))


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize(
    "changes",
    [{"link": LOSS}, {"partitions": SPLITS}, {"churn": 0.5}, {"link": LOSS, "partitions": SPLITS, "churn": 0.5}],
    ids=["30 % loss", "partitions that heal", "50 % churn", "all at once"],
)
def test_hard_conditions__change_nothing_of_what_is_promised(changes: dict[str, object], seed: int) -> None:
    """Issue: ledgers of honest peers equal, honest claims all approved, fund conserved; money and promises also after every event."""
    world = run_world("calm", seed=seed, peers=16, cycles=20, **changes)

    peers = [host.peer for host in world.hosts if host.peer is not None]
    fund = world.chain.fund
    assert len(peers) == 16
    assert all(peer.lane.ledger.rows() == peers[0].lane.ledger.rows() != {} for peer in peers)
    assert fund.compute_stage(int(world.now_s)) is Stage.RELEASED
    assert [seat for seat in fund.seats if seat.rejected or seat.nays] == [] and fund.claims > 8
    assert 0 <= fund.fund_wei - sum(world.chain.paid_wei.values()) < len(fund.seats)
    if "churn" in changes:
        assert sum(host.incarnation for host in world.hosts) == 8


@settings(max_examples=6)
@given(seed=st.integers(0, 10**6))
def test_random_conditions__keep_every_promise(seed: int) -> None:
    """A failing random run prints the command that repeats it (`InvariantBrokenError`)."""
    world = run_world("random", seed=seed, peers=5 + seed % 6)

    assert world.chain.fund.compute_stage(int(world.now_s)) is Stage.RELEASED


def test_random_conditions__depend_on_the_seed_alone() -> None:
    base = find_scenario("random")
    drawn = [draw_conditions(base, seed) for seed in range(40)]

    assert drawn == [draw_conditions(base, seed) for seed in range(40)]
    assert max(each.link.loss for each in drawn) > 0.25 and max(each.churn for each in drawn) > 0.4
    assert {len(each.partitions) for each in drawn} == {0, 1, 2} and {each.silent for each in drawn} == {0, 1}


# --- the command that repeats a run -----------------------------------------------------------------------------------


def test_broken_promise__is_repeated_by_the_command_that_it_prints(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Issue: a failing random run prints the command that repeats it; here it does, to the millisecond."""
    receive = ControlLane.receive_page

    def forget(self: ControlLane, page: object, *, now_ms: int) -> object:
        heard = [item for item in page if self._me[0] % 2 or sum(item[1][-8:]) % 5]  # type: ignore[attr-defined]
        return receive(self, heard, now_ms=now_ms)

    monkeypatch.setattr(ControlLane, "receive_page", forget)
    with pytest.raises(InvariantBrokenError) as caught:
        run_world("random", seed=11, peers=7, reward_rule="raw", shared_slices=1)
    command = shlex.split(caught.value.command)

    assert command[:3] == ["learnae", "sim", "run"] and "reward_rule=raw" in command and "shared_slices=1" in command
    assert main(command[1:]) == 1
    assert str(caught.value).split(";")[0] in capsys.readouterr().err


def test_command__names_what_differs_from_the_scenario() -> None:
    changed = find_scenario("lossy", peers=7, policy="paper", churn=0.25, link=Link(loss=0.1))

    assert format_command(changed, 3) == (
        "learnae sim run lossy --seed 3 --peers 7 --cycles 50 --set churn=0.25 --set policy=paper --set link.loss=0.1"
    )
    assert format_command(find_scenario("storm"), 1) == "learnae sim run storm --seed 1 --peers 10 --cycles 50"
    crashed = find_scenario("calm", crashes=(Crash(peer=0, at_s=1, back_s=None),), partitions=SPLITS)
    assert format_command(crashed, 1).endswith("(with its own partitions and crashes)")


def test_changes__are_read_back_as_they_are_printed() -> None:
    changed = find_scenario("calm", churn=0.25, reward_mode="tips", link=Link(loss=0.1, delay_max_s=0.3), silent=2)
    words = format_command(changed, 0).split()
    changes = [words[place + 1] for place, word in enumerate(words) if word == "--set"]

    assert change_scenario(find_scenario("calm"), changes) == changed


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("churn", "'churn', expected NAME=VALUE with one of the names cycle_s, final_s, churn"),
        ("partitions=1", "'partitions=1', expected NAME=VALUE with one of the names"),
        ("link.lost=1", "'link.lost=1', expected NAME=VALUE with one of the names"),
        ("silent=many", "'silent=many', expected a value such as 0"),
        ("churn=1.5", "'churn=1.5', expected 0 to 1"),
        ("link.delay_min_s=-1", "'link.delay_min_s=-1', expected 0 or more"),
    ],
)
def test_change__that_makes_no_sense_is_one_sentence(change: str, sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sim", "run", "calm", "--set", change]) == 2
    assert f"--set is {sentence}" in capsys.readouterr().err


def test_change__reaches_the_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sim", "run", "calm", "--peers", "4", "--cycles", "5", "--set", "reward_rule=raw", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["reward_rule"] == "raw"


# --- what peers of one process share ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["calm", "lossy", "partition", "churn", "storm", "audited"])
def test_shared_store__changes_nothing_but_the_time(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same trace whether each peer judges every vertex itself or what another peer of the process judged counts.

    Pages of sync are put into one order first: it follows the order in which a store came to know its vertices.
    """
    lacking = TangleDag.lacking

    def sorted_lacking(self: TangleDag, have: object, *, vertices_max: int) -> list[Vertex]:
        found = lacking(self, have, vertices_max=vertices_max)  # type: ignore[arg-type]
        return sorted(found, key=lambda vertex: (vertex.time_ms, vertex.cid))

    monkeypatch.setattr(TangleDag, "lacking", sorted_lacking)
    shared = run_world(name, peers=8, seed=2)
    monkeypatch.setattr(World, "_known", property(lambda world: ControlStore(), lambda world, store: None), raising=False)
    own = run_world(name, peers=8, seed=2)

    assert own.trace == shared.trace
    stores = [host.peer.lane.store for host in own.hosts if host.peer is not None]
    assert len(set(map(id, stores))) == len(stores) and not any(store.judged for store in stores)


def test_gossip__comes_in_pages_and_every_vertex_once_to_everybody() -> None:
    """A page is what arrived within a moment: nothing is lost or doubled by it, and nobody hears itself."""
    pages: list[int] = []
    world = make_world("calm", peers=10)
    deliver = world._deliver

    def count(host: object, event: object) -> None:
        pages.append(len(getattr(event, "page", ())))
        deliver(host, event)  # type: ignore[arg-type]

    world._deliver = count  # type: ignore[assignment, method-assign]
    world.run()

    peer = world.hosts[0].peer
    assert peer is not None
    assert sum(pages) == world.deliveries == 9 * len(peer.lane.dag)
    assert max(pages) > 3


def test_gossip__is_lost_as_often_as_the_link_says() -> None:
    worlds = [run_world(replace(find_scenario("calm", peers=10, cycles=20), link=Link(loss=loss))) for loss in (0.0, 0.3)]
    parts = []
    for world in worlds:
        peer = world.hosts[0].peer
        assert peer is not None
        parts.append(world.deliveries / (9 * len(peer.lane.dag)))

    assert parts[0] == 1.0 and 0.66 < parts[1] < 0.74
