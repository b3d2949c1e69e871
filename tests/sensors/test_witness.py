"""Paper 2.2: who names a message had it. By how many issuers a vertex was witnessed, and by when."""

from __future__ import annotations

from random import Random

from learnae.ids import Cid
from learnae.sensors.judge import SensorCodec
from learnae.sensors.witness import WitnessCounter
from learnae.tangle.vertex import Vertex
from tests.sensors.builders import STARTS_MS, FakeSensor


def decode(encoded: bytes) -> Vertex:
    vertex = SensorCodec().decode(encoded)
    assert isinstance(vertex, Vertex)
    return vertex


def test_witnesses__are_the_other_issuers_behind_whose_vertices_it_stands() -> None:
    one, two, three = (FakeSensor(name) for name in "abc")
    first = decode(one.begin(STARTS_MS))
    two.lane.receive(first.encoded, now_ms=STARTS_MS + 10)
    second = decode(two.begin(STARTS_MS + 20))
    three.lane.tangle.note_tips({second.cid: (second.time_ms, second.issuer)})
    third = decode(three.begin(STARTS_MS + 50))
    own = one.measure(STARTS_MS + 60).vertex
    counter = WitnessCounter()
    for vertex in (first, second, third, own):
        counter.add(vertex)

    assert second.parents[1:] == (first.cid,) and third.parents[1:] == (second.cid,)
    seen = counter.vertices[first.cid]
    assert seen.by == {two.issuer.peer: STARTS_MS + 20, three.issuer.peer: STARTS_MS + 50}
    assert (seen.count, seen.since_ms) == (2, STARTS_MS + 20)
    assert counter.vertices[second.cid].by == {three.issuer.peer: STARTS_MS + 50}
    assert (counter.vertices[third.cid].count, counter.vertices[third.cid].since_ms) == (0, None)


def test_witnesses__are_counted_as_by_walking_the_whole_graph() -> None:
    """Against the definition: all issuers of all vertices from which it can be reached."""
    rng, sensors = Random(3), [FakeSensor(str(n)) for n in range(5)]
    vertices: list[Vertex] = []
    for number in range(80):
        sensor = rng.choice(sensors)
        sensor.lane.tangle.note_tips({v.cid: (v.time_ms, v.issuer) for v in rng.sample(vertices, min(2, len(vertices)))})
        at_ms = STARTS_MS + 100 * number
        encoded = sensor.begin(at_ms) if not sensor.lane.streams else sensor.measure(at_ms).vertex.encoded
        vertices.append(decode(encoded))
    counter = WitnessCounter()
    parents: dict[Cid, tuple[Cid, ...]] = {}
    for vertex in vertices:
        counter.add(vertex)
        parents[vertex.cid] = vertex.parents

    issuers = {vertex.cid: vertex.issuer for vertex in vertices}
    expected: dict[Cid, set[bytes]] = {vertex.cid: set() for vertex in vertices}
    for vertex in vertices:
        behind, seen = list(vertex.parents), set()
        while behind:
            cid = behind.pop()
            if cid in parents and cid not in seen:
                seen.add(cid)
                behind += parents[cid]
                if issuers[cid] != vertex.issuer:
                    expected[cid].add(vertex.issuer)
    assert {cid: set(found.by) for cid, found in counter.vertices.items()} == expected


def test_window__is_bounded() -> None:
    sensor, counter = FakeSensor("a"), WitnessCounter(window_max=5)
    counter.add(decode(sensor.begin()))
    for number in range(20):
        counter.add(sensor.measure(STARTS_MS + 100 + number).vertex)
    assert len(counter.vertices) == 5
