"""Paper 4.2, Fig. 1, over whole nodes: what sensors say is followed, cut alike, and trained on like any other dataslice."""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from random import Random

import trio

from learnae.backends.disk_sensors import SensorJournal
from learnae.ids import Cid
from learnae.learning.synthetic import MAGIC, SyntheticLearner
from learnae.node.station import SensorParts
from learnae.protocol.measures import Evaluation
from learnae.protocol.messages import DatasliceConsumed, parse_message
from learnae.sensors.follower import FollowSettings, SensorFollower
from learnae.sensors.judge import LaneRules
from learnae.sensors.link import Attach, Hello
from learnae.sensors.messages import compute_tag, create_admission
from learnae.sensors.publisher import SensorPlan, SensorPublisher
from learnae.sensors.readings import Reading, SensorField
from learnae.sim.sensors import SimKey
from tests.node.bed import Bed, Machine, restore_lane, run_fast

FIELDS = (SensorField("temperature", "Cel"), SensorField("humidity", "%RH"))


def make_sensors(bed: Bed, machine: Machine) -> SensorParts:
    """What a node needs to follow sensors, with a real journal."""
    rules = bed.rules
    lane = LaneRules(net=rules.compute_net("sensors"), tag=compute_tag(rules.codename), starts_ms=rules.starts_s * 1000)
    journal = SensorJournal(machine.folder / "sensors")
    follower = SensorFollower(
        rules=lane,
        me=machine.peer_id,
        sign=lambda signed: machine.key.sign(signed).signature,
        rng=Random(machine.name),
        settings=FollowSettings(slice_bytes=rules.slice_bytes),
        read=journal.read,
    )
    hello = Hello(net=lane.net, codename=rules.codename, starts_ms=lane.starts_ms, slice_bytes=rules.slice_bytes, members=())
    return SensorParts(follower=follower, journal=journal, hello=hello)


def make_publisher(bed: Bed, member: Machine) -> SensorPublisher:
    """A sensor that a member admitted."""
    rules, issuer, channel = bed.rules, SimKey.make("issuer"), SimKey.make("channel")
    lane = LaneRules(net=rules.compute_net("sensors"), tag=compute_tag(rules.codename), starts_ms=rules.starts_s * 1000)
    admission = create_admission(
        net=lane.net,
        issuer=issuer.peer,
        member=member.peer_id,
        sign=lambda signed: member.key.sign(signed).signature,
        rate_per_s=200,
        from_ms=lane.starts_ms,
    )
    publisher = SensorPublisher(
        rules=lane, me=issuer.peer, sign=issuer.sign, rng=Random(1), admission=admission, slice_bytes=rules.slice_bytes
    )
    plan = SensorPlan(sensor="s-01", fields=FIELDS, channel_key=channel.peer, sign=channel.sign, first_key=bytes(32))
    publisher.open(plan, now_ms=int(bed.clock() * 1000))
    return publisher


class StreamLearner(SyntheticLearner):
    """A learner that takes dataslices from sensors: whatever a slice holds, it teaches the skill of its first label."""

    private_used = 0

    def train(self, model: bytes, *, private_slices: Sequence[int], slices: Sequence[bytes], seed: int) -> tuple[bytes, Evaluation]:
        self.private_used += len(private_slices)
        taught = [struct.pack("<4sII", MAGIC, read_first_label(content), number) for number, content in enumerate(slices)]
        return super().train(model, private_slices=private_slices, slices=taught, seed=seed)


def read_first_label(content: bytes) -> int:
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    assert header["x"]["shape"][1] == 2
    start = 8 + size + header["y"]["data_offsets"][0]
    return int.from_bytes(content[start : start + 8], "little")


def test_session__trains_on_what_a_sensor_says_and_on_nothing_else(tmp_path: Path) -> None:
    """Fig. 1: found by tag, followed, buffered, emitted, queued for training, its use announced; alike on two nodes."""

    async def main() -> None:
        bed = Bed(tmp_path, training_s=12)
        await bed.open()
        nodes, journals, learners = {}, [], {name: StreamLearner(0) for name in ("ada", "ben")}
        async with trio.open_nursery() as nursery:
            for name in ("ada", "ben"):
                sensors = make_sensors(bed, bed.machine(name))
                journals.append(sensors.journal)
                parts = await bed.parts(name, learner=learners[name])
                parts = replace(parts, sensors=sensors, only_streams=name == "ada")
                nodes[name] = bed.node(parts)
                nursery.start_soon(nodes[name].run)
            ada = bed.machines["ada"]
            await bed.wait_for(lambda: nodes["ada"]._peer.dao.is_member and bool(nodes["ada"]._peer.lane.members))
            publisher, station = make_publisher(bed, ada), nodes["ada"]._station
            assert station is not None
            await bed.wait_for(lambda: ada.peer_id in station._follower.lane.members)
            for number in range(300):
                at_ms = int(bed.clock() * 1000)
                readings = [Reading(at_ms, field, number + field / 2, number % 3) for field in range(2)]
                publisher.publish([("s-01", readings)], now_ms=at_ms)
                if number % 25 == 24:
                    vertices = publisher.lane.tangle.lacking(station._follower.lane.tangle.have_vector(), vertices_max=200)
                    answer = station.attach(Attach(issuer=publisher._me, vertices=tuple(vertices)))
                    assert answer.why == "" and answer.have == publisher.lane.tangle.length(publisher._me)
                    await trio.sleep(0.1)
            followers = [node._station._follower for node in nodes.values() if node._station is not None]
            await bed.wait_for(lambda: len(followers[0].slices) >= 5 and followers[0].slices == followers[1].slices)
            await bed.wait_for(lambda: any(count_uses(bed, ada).values()))
        used = count_uses(bed, ada)
        assert used and set(used) <= set(followers[0].slices.values())
        assert learners["ada"].private_used == 0 < learners["ben"].private_used
        view = await bed.check_settled()
        assert len(view.members) == 2
        assert [s["sensor"] for s in followers[0].describe()] == ["s-01"]
        for journal in journals:
            assert isinstance(journal, SensorJournal)
            journal.close()

    run_fast(main)


def count_uses(bed: Bed, machine: Machine) -> dict[Cid, int]:
    """How often a peer said that it trained on which slice."""
    lane = restore_lane(machine.journal.vertices(), bed.rules)
    uses: dict[Cid, int] = {}
    for vertex in lane.dag.chain(machine.peer_id):
        message = parse_message(vertex.kind, vertex.body)
        if isinstance(message, DatasliceConsumed):
            for cid in message.slices:
                uses[cid] = uses.get(cid, 0) + 1
    return uses
