"""Two nodes behind two routers end up connected directly: real routers where this machine has them, and hostile ends on loopback."""

from __future__ import annotations

import json
import socket
import struct
import subprocess
import sys
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from random import Random
from typing import Any

import pytest
import trio
from libp2p.abc import INetStream
from libp2p.relay.circuit_v2.pb.dcutr_pb2 import HolePunch
from multiaddr import Multiaddr

from learnae.backends import libp2p_dialback, libp2p_punch, libp2p_punch_port
from learnae.backends.libp2p import Libp2pNetwork
from learnae.backends.libp2p_direct import read_exactly
from learnae.backends.libp2p_host import STREAM_ERRORS, drop_stream, open_host
from learnae.backends.libp2p_places import Bucket
from learnae.backends.libp2p_punch import AGAIN_S, PROTOCOL, ROUNDS_BURST, ROUNDS_MAX
from learnae.backends.libp2p_punch_port import (
    ACCEPTS_MAX,
    CONNECTS_MAX,
    TARGETS_MAX,
    Endpoint,
    Observation,
    PunchPort,
    choose_observers,
    choose_targets,
    read_endpoint,
    write_endpoint,
)
from learnae.backends.libp2p_relay import MESSAGE_BYTES_MAX, read_message, write_message
from learnae.backends.libp2p_tcp import TcpStream, bind_shared, connect_from
from learnae.backends.libp2p_yamux import Way
from learnae.backends.memory_blocks import MemoryBlocks
from learnae.backends.unixfs import encode_varint
from learnae.demo.cast import make_environment
from learnae.ids import PeerId, peer_text
from learnae.ports import Ways
from tests.backends.hostile import LOOPBACK, open_victim, until
from tests.backends.test_libp2p_circuit import open_session, read_message_from
from tests.processes import HANGS_S
from tests.routers import Behind, Public, Router, World, can_delay, find_obstacle, open_world

ROOT = Path(__file__).parents[2]


class Node:
    """A node in a process of its own, in its place of the world; `ask` is one call there."""

    def __init__(self, world: World, place: str, number: int, *arguments: str) -> None:
        command = [sys.executable, "-m", "tests.backends.punching_node", str(number), *arguments]
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.process = world.start(place, command, env=make_environment(), cwd=ROOT, **pipes)

    def ask(self, *order: object) -> Any:
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())


@contextmanager
def open_nodes(relays: Sequence[str], north: Router, *, delay_s: float = 0.0) -> Iterator[tuple[Node, ...]]:
    """Relays in the internet, then anna behind the router `north`, then bert behind another, who can be called through a relay."""
    if obstacle := find_obstacle():
        pytest.skip(obstacle)
    places = [*map(Public, relays), north, Behind("north", "anna"), Router("south"), Behind("south", "bert")]
    with ExitStack() as stack:
        world = stack.enter_context(open_world(places, delay_s=delay_s))

        def start(place: str, number: int, *arguments: str) -> Node:
            node = Node(world, place, number, *arguments)
            stack.callback(node.process.communicate)
            stack.callback(node.process.kill)
            return node

        carriers = [start(place, number, "/ip4/0.0.0.0/tcp/4001") for number, place in enumerate(relays, 1)]
        known = [address for carrier in carriers for address in carrier.ask("addresses") if "/127." not in address]
        yield (*carriers, start("anna", 8, "", *known), start("bert", 9, "", *known))


def test_punch__two_behind_two_routers_go_on_without_the_relay() -> None:
    """Issue: hole punching. They meet through a member, and a file comes after that member has gone.

    Packets take their time where that can be had, so that those of both ends cross.
    """
    with open_nodes(["relay"], Router("north"), delay_s=0.03 if can_delay() else 0.0) as (relay, anna, bert):
        (way,) = bert.ask("circuits", 1)
        anna.ask("connect", way)
        for node, other in ((anna, 9), (bert, 8)):
            node.ask("wait_for", other, ["punched"])
        assert relay.ask("carried") == 0
        cid = bert.ask("put")
        relay.process.kill()
        relay.process.wait()
        assert anna.ask("fetch", cid, 9)
        assert anna.ask("ways", 9) == ["punched"]


def test_punch__behind_a_router_with_a_port_for_each_destination_stays_on_the_relay_and_knows_why() -> None:
    with open_nodes(["one", "two"], Router("north", random_ports=True)) as (_, _, anna, bert):
        anna.ask("connect", bert.ask("circuits", 1)[0])
        assert bert.ask("wait_for_failure", 8) is True, "his router could"
        assert anna.ask("router") is False
        assert anna.ask("ways", 9) == ["relayed"]
        assert anna.ask("fetch", bert.ask("put"), 9)


# --- without routers: the same on loopback ------------------------------------------------------------------------


def choose_any(claimed: Iterable[bytes], own: Endpoint) -> list[Endpoint]:
    """As `choose_targets`, for a world that has only loopback."""
    return [read_endpoint(raw) for raw in claimed][:TARGETS_MAX]


@asynccontextmanager
async def open_pair() -> AsyncIterator[tuple[Libp2pNetwork, Libp2pNetwork, Libp2pNetwork]]:
    """A relay, one that calls and one that is called; the two are connected through it and do not punch by themselves."""
    async with open_session([LOOPBACK, [], []]) as (carrier, caller, called):
        called.keep_places(frozenset())
        await until(lambda: called.peer_id in carrier.relay.reserved)
        assert await caller._host.reach(called.peer_id)
        await until(lambda: caller.peer_id in called.connected())
        yield carrier, caller, called


async def speak(network: Libp2pNetwork, peer: PeerId) -> INetStream:
    return await network._host.open_stream(peer, [PROTOCOL])


async def is_refused(network: Libp2pNetwork, peer: PeerId, content: bytes = b"") -> bool:
    """Whether a stream is cut off without an answer to `content`."""
    with trio.fail_after(HANGS_S):
        try:
            stream = await speak(network, peer)
            await stream.write(content)
            await read_exactly(stream, 1)
        except STREAM_ERRORS:
            return True
    return False


def connect_message(*places: Endpoint) -> HolePunch:
    return HolePunch(type=HolePunch.CONNECT, ObsAddrs=[write_endpoint(place) for place in places])


CONNECT = bytes([len(framed := connect_message(("127.0.0.1", 9)).SerializeToString())]) + framed


def test_punch__leaves_the_circuit_for_one_connection_that_says_nothing_about_who_can_be_dialled() -> None:
    async def run() -> None:
        async with open_session([LOOPBACK, [], []]) as (carrier, caller, called):
            caller.puncher._choose = called.puncher._choose = choose_any
            await until(lambda: called.peer_id in carrier.relay.reserved)
            with trio.fail_after(HANGS_S):
                assert await caller._host.reach(called.peer_id)
                await until(lambda: carrier.relay.count == 0)
                for one, other in ((caller, called), (called, caller)):
                    conns = one._host.connections(other.peer_id)
                    assert conns
                    assert all(conn.way is Way.PUNCHED and not conn.was_dialled for conn in conns)
                    assert all(conn.is_initiator == (one is caller) for conn in conns), "who was called leads, and waits for the handshake"
                    assert await one.send(other.peer_id, b"directly")
                    assert await read_message_from(other, one.peer_id) == b"directly"
                    assert one.reach._find_judges() == [carrier.peer_id]
                    assert one.circuits.relays == {carrier.peer_id}
                    assert one.count_ways() == Ways(direct=1, punched=1)

    trio.run(run)


def test_punch__begins_the_handshake_where_the_other_end_waits_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """As go-libp2p does, up to its version 0.46: who gets SYNC waits there, against the specification."""
    monkeypatch.setattr(libp2p_punch, "LEADER_LISTENS_S", 0.1)

    async def run() -> None:
        async with open_session([LOOPBACK, [], []]) as (carrier, caller, called):
            caller.puncher._choose = called.puncher._choose = choose_any
            honest = caller.puncher._shake_hands

            async def wait_long(peer: PeerId, listens_s: float, stream: TcpStream) -> bool:
                return await honest(peer, HANGS_S, stream)

            monkeypatch.setattr(caller.puncher, "_shake_hands", wait_long)
            await until(lambda: called.peer_id in carrier.relay.reserved)
            assert await caller._host.reach(called.peer_id)
            await until(lambda: carrier.relay.count == 0)
            for one, other in ((caller, called), (called, caller)):
                assert all(conn.is_initiator == (one is called) for conn in one._host.connections(other.peer_id))
                assert one.count_ways() == Ways(direct=1, punched=1)

    trio.run(run)


def test_punch__takes_new_streams_before_the_circuit_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """DCUtR: the direct connection comes first. The circuit has more streams, which is what the library would go by."""
    monkeypatch.setattr(libp2p_punch, "GRACE_S", HANGS_S)

    async def run() -> None:
        async with open_session([LOOPBACK, [], []]) as (carrier, caller, called):
            caller.puncher._choose = called.puncher._choose = choose_any
            await until(lambda: called.peer_id in carrier.relay.reserved)
            assert await caller._host.reach(called.peer_id)
            for one, other in ((caller, called), (called, caller)):
                await until(lambda one=one: one.count_ways().punched == 1)
                stream = await one._host.open_stream(other.peer_id, [libp2p_dialback.PROTOCOL])
                assert stream.muxed_conn.way is Way.PUNCHED
                drop_stream(stream)
            assert carrier.relay.count == 1, "the circuit is still there"

    trio.run(run)


def test_punch__of_two_that_call_each_other_at_the_same_moment_is_led_by_one() -> None:
    async def run() -> None:
        async with open_session([LOOPBACK, [], []]) as (carrier, one, two):
            one.puncher._choose = two.puncher._choose = choose_any
            await until(lambda: {one.peer_id, two.peer_id} <= carrier.relay.reserved)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(one.circuits.find, two.peer_id)
                nursery.start_soon(two.circuits.find, one.peer_id)
            await until(lambda: carrier.relay.count == 0)
            assert {network.count_ways() for network in (one, two)} == {Ways(direct=1, punched=1)}

    trio.run(run)


def test_punch__of_two_that_both_lead_the_larger_gives_way() -> None:
    async def run() -> None:
        async with open_session([LOOPBACK, [], []]) as (carrier, one, two):
            small, large = sorted((one, two), key=lambda network: network.peer_id)
            for network in (small, large):
                network.keep_places(frozenset())  # Nobody leads by itself.
                network.puncher._choose = choose_any
            await until(lambda: {one.peer_id, two.peer_id} <= carrier.relay.reserved)
            assert await small.circuits.find(large.peer_id)
            assert await large.circuits.find(small.peer_id)
            leads = [trio.CancelScope(), trio.CancelScope()]
            small.puncher._leading[large.peer_id], large.puncher._leading[small.peer_id] = leads
            assert await is_refused(large, small.peer_id, CONNECT)
            assert not await is_refused(small, large.peer_id, CONNECT)
            assert [lead.cancel_called for lead in leads] == [False, True]

    trio.run(run)


def test_punch__is_for_members_and_for_circuits_only() -> None:
    async def run() -> None:
        async with open_session([LOOPBACK, [], []], members=2) as (carrier, called, stranger):
            called.puncher._choose = stranger.puncher._choose = choose_any
            await until(lambda: called.peer_id in carrier.relay.reserved)
            assert await stranger._host.reach(called.peer_id)
            await until(lambda: stranger.peer_id in called.connected())
            assert called.puncher._find_callers() == []
            assert called.count_ways() == Ways(direct=1, relayed=1)
            called.keep_places(carrier._host.members | {stranger.peer_id})
            assert called.puncher._find_callers() == [stranger.peer_id]
            carrier.puncher._choose = choose_any
            assert await is_refused(stranger, called.peer_id, CONNECT), "who called does not lead"
            assert await is_refused(called, carrier.peer_id, CONNECT), "there is nothing to punch between these"
            assert not await is_refused(called, stranger.peer_id, CONNECT)

    trio.run(run)


@pytest.mark.parametrize(
    ("claim", "own", "is_dialled"),
    [
        ("/ip4/60.1.0.2/tcp/4001", "60.2.0.2", True),
        ("/ip4/60.1.0.2/tcp/4001/p2p/12D3KooWK99VoVxNE7XzyBwXEzW7xhK7Gpv85r9F3V3fyKSUKPH5", "60.2.0.2", True),
        ("/ip6/2a00::1/tcp/4001", "2a01::1", True),
        ("/ip6/2a00::1/tcp/4001", "60.2.0.2", False),
        ("/ip4/60.1.0.2/tcp/443", "60.2.0.2", False),
        ("/ip4/60.1.0.2/udp/4001", "60.2.0.2", False),
        ("/ip4/60.1.0.2/udp/4001/quic-v1", "60.2.0.2", False),
        ("/dns4/example.org/tcp/4001", "60.2.0.2", False),
        ("/ip4/127.0.0.1/tcp/4001", "60.2.0.2", False),
        ("/ip4/127.0.0.1/tcp/4001", "10.1.2.3", False),
        ("/ip4/127.0.0.1/tcp/4001", "127.0.0.1", False),
        ("/ip4/224.0.1.1/tcp/4001", "60.2.0.2", False),
        ("/ip4/255.255.255.255/tcp/4001", "10.1.2.3", False),
        ("/ip4/0.0.0.0/tcp/4001", "10.1.2.3", False),
        ("/ip4/169.254.1.1/tcp/4001", "10.1.2.3", False),
        ("/ip4/192.168.1.1/tcp/4001", "60.2.0.2", False),
        ("/ip6/fd00::1/tcp/4001", "2a01::1", False),
        ("/ip4/60.1.0.2/tcp/4001/p2p/12D3KooWK99VoVxNE7XzyBwXEzW7xhK7Gpv85r9F3V3fyKSUKPH5/p2p-circuit", "60.2.0.2", False),
    ],
)
def test_targets__are_public_addresses_of_tcp(claim: str, own: str, is_dialled: bool) -> None:
    """docs/attacks.md: nobody points a node at its own machine, its own network, or a well-known service."""
    assert bool(choose_targets([Multiaddr(claim).to_bytes()], (own, 5000))) == is_dialled


def test_targets__private_ones_are_dialled_only_from_one_private_network_into_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """A campus: both routers stand in a private network, as does the member that both were seen by."""
    claim = [write_endpoint(("172.30.5.9", 4001))]
    monkeypatch.setattr(libp2p_punch_port, "_is_near", lambda ip: False)
    assert choose_targets(claim, ("10.1.2.3", 5000)) == [("172.30.5.9", 4001)]
    monkeypatch.setattr(libp2p_punch_port, "_is_near", lambda ip: True)
    assert choose_targets(claim, ("10.1.2.3", 5000)) == []


def test_observers__are_those_whose_words_go_together() -> None:
    """Who stands in this network sees another address than the internet does, which says nothing about the router."""
    name = "12D3KooWK99VoVxNE7XzyBwXEzW7xhK7Gpv85r9F3V3fyKSUKPH5"
    far = [f"/ip4/60.{number}.0.2/tcp/4001/p2p/{name}" for number in (1, 2)]
    near = [f"/ip4/192.168.1.7/tcp/4001/p2p/{name}", f"/ip6/2a00::1/tcp/4001/p2p/{name}", f"/dns4/example.org/tcp/4001/p2p/{name}"]
    assert choose_observers([*near, *far, f"{far[0]}/p2p-circuit/p2p/{name}"]) == far
    assert choose_observers(near[:1]) == near[:1]
    assert choose_observers([]) == []


@pytest.mark.parametrize(
    ("seen", "is_same"),
    [
        ([("60.1.0.2", 5000)], None),
        ([("60.1.0.2", 5000), ("60.1.0.2", 5000)], True),
        ([("60.1.0.2", 5000), ("60.1.0.2", 5001)], False),
        ([("60.1.0.2", 5000), ("60.1.0.3", 5000)], False),
        ([("10.1.0.2", 5000), ("192.168.1.9", 5000)], None),
    ],
)
def test_observation__says_what_kind_of_router_there_is(seen: list[Endpoint], is_same: bool | None) -> None:
    assert Observation(tuple(seen)).is_same is is_same


def test_targets__are_few_and_each_once() -> None:
    claims = [write_endpoint((f"60.1.{number // 2}.2", 4001)) for number in range(200)]
    nonsense = [b"", b"\x04", b"\xff\xff", claims[0][:-1], claims[0] + b"\xa5\x03", claims[0] + b"\xa5\x03\x09"]
    assert choose_targets([*nonsense, *claims], ("60.2.0.2", 5000)) == [(f"60.1.{number}.2", 4001) for number in range(TARGETS_MAX)]


@pytest.mark.parametrize(
    "nonsense",
    [
        encode_varint(MESSAGE_BYTES_MAX + 1),
        b"\xff\xff\xff\xff\x7f",
        b"\x03\xff\xff\xff",
        bytes([len(sync := HolePunch(type=HolePunch.SYNC).SerializeToString())]) + sync,
    ],
)
def test_punch__nonsense_and_a_sync_at_the_wrong_time_open_no_port(nonsense: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[object] = []
    monkeypatch.setattr(libp2p_punch, "open_punch_port", opened.append)

    async def run() -> None:
        async with open_pair() as (_, caller, hostile):
            assert await is_refused(hostile, caller.peer_id, nonsense)
            await until(lambda: not caller.puncher._answering)
            assert opened == []

    trio.run(run)


@pytest.fixture
def quick_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name in ((libp2p_punch_port, "ROUND_S"), (libp2p_punch_port, "REFUSED_S"), (libp2p_punch, "LISTENS_S")):
        monkeypatch.setattr(module, name, 0.05)


@asynccontextmanager
async def open_bystanders(count: int) -> AsyncIterator[tuple[list[Endpoint], list[int]]]:
    """Servers that have nothing to do with it: where they listen, and how many connections each got."""
    got = [0] * count

    async def serve(number: int, listener: trio.SocketListener) -> None:
        async with listener:
            while True:
                stream = await listener.accept()
                got[number] += 1
                await stream.aclose()

    async with trio.open_nursery() as nursery:
        listeners = [(await trio.open_tcp_listeners(0, host="127.0.0.1"))[0] for _ in range(count)]
        for number, listener in enumerate(listeners):
            nursery.start_soon(serve, number, listener)
        yield [listener.socket.getsockname()[:2] for listener in listeners], got
        nursery.cancel_scope.cancel()


@pytest.mark.usefixtures("quick_rounds")
def test_punch__rounds_without_end_send_few_packets_to_third_parties() -> None:
    async def run() -> None:
        async with open_pair() as (_, caller, hostile), open_bystanders(2 * TARGETS_MAX) as (places, got):
            caller.puncher._choose = choose_any
            rounds = 0
            for _ in range(6):
                try:
                    stream = await speak(hostile, caller.peer_id)
                    while True:
                        await write_message(stream, connect_message(*places))
                        await read_message(stream, HolePunch)
                        await write_message(stream, HolePunch(type=HolePunch.SYNC))
                        rounds += 1
                except STREAM_ERRORS:
                    pass
                await until(lambda: not caller.puncher._answering)
            assert rounds == ROUNDS_BURST
            assert got == [ROUNDS_BURST] * TARGETS_MAX + [0] * TARGETS_MAX, "one connection to each address in each round"
            assert caller._host.connections(hostile.peer_id), "the circuit carries on"

    trio.run(run)


@pytest.mark.usefixtures("quick_rounds")
def test_punch__connects_with_nobody_else_who_stands_at_the_address() -> None:
    async def run() -> None:
        async with open_pair() as (_, caller, hostile), open_victim(MemoryBlocks(), number=7) as bystander:
            caller.puncher._choose = choose_any
            place = ("127.0.0.1", int(bystander.addresses[0].split("/")[4]))
            stream = await speak(hostile, caller.peer_id)
            await write_message(stream, connect_message(place))
            await read_message(stream, HolePunch)
            await write_message(stream, HolePunch(type=HolePunch.SYNC))
            await until(lambda: bystander._host.swarm.arrivals > 0)
            second = await speak(hostile, caller.peer_id)
            await write_message(second, connect_message(place))
            with pytest.raises(STREAM_ERRORS):
                await read_message(stream, HolePunch)  # One at a time: the newer one goes on.
            await read_message(second, HolePunch)
            await until(lambda: not bystander.connected() and bystander.peer_id not in caller.connected())

    trio.run(run)


@pytest.mark.usefixtures("quick_rounds")
@pytest.mark.parametrize("answer", ["dead ends", "a sync", "nothing to dial", "nothing"])
def test_punch__that_fails_is_not_tried_again_for_a_while(answer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libp2p_punch, "ANSWER_S", 0.2 if answer == "nothing" else HANGS_S)

    async def run() -> None:
        async with open_session([LOOPBACK, [], []]) as (carrier, hostile, called):
            called.puncher._choose = choose_any
            await until(lambda: called.peer_id in carrier.relay.reserved)
            with socket.create_server(("127.0.0.1", 0)) as dead:
                place = dead.getsockname()
            seen: list[int] = []

            async def mislead(peer: PeerId, stream: INetStream) -> None:
                while True:
                    seen.append((await read_message(stream, HolePunch)).type)
                    if answer == "nothing":
                        await trio.sleep_forever()
                    elif seen[-1] == HolePunch.CONNECT:
                        places = [place] if answer == "dead ends" else []
                        await write_message(stream, HolePunch(type=HolePunch.SYNC) if answer == "a sync" else connect_message(*places))

            hostile._host.handle_streams(PROTOCOL, mislead)
            assert await hostile._host.reach(called.peer_id)
            await until(lambda: bool(called.puncher._waits.get(hostile.peer_id)) and called.puncher._waits[hostile.peer_id].failures == 1)
            assert seen.count(HolePunch.SYNC) == (ROUNDS_MAX if answer == "dead ends" else 0)
            assert seen.count(HolePunch.CONNECT) <= ROUNDS_MAX
            assert called.puncher._waits[hostile.peer_id].until_s >= trio.current_time() + AGAIN_S - 1
            assert called.puncher._find_callers() == []
            called.puncher._waits[hostile.peer_id].until_s = 0.0
            called._host.handle_connected()
            await until(lambda: called.puncher._waits[hostile.peer_id].failures == 2)
            assert called.puncher._waits[hostile.peer_id].until_s >= trio.current_time() + 2 * AGAIN_S - 1, "longer each time"
            assert called._host.connections(hostile.peer_id), "the circuit carries on"

    trio.run(run)


@pytest.mark.usefixtures("quick_rounds")
def test_punch__hangs_up_on_somebody_else_who_comes_to_its_port(monkeypatch: pytest.MonkeyPatch) -> None:
    """The other end tells a third where the port is: whoever comes must be the peer that was called."""
    monkeypatch.setattr(libp2p_punch_port, "ROUND_S", HANGS_S)

    async def run() -> None:
        opened = open_host(seed=bytes([7]) * 32, listen=(), rng=Random(7))
        async with open_session([LOOPBACK, [], []]) as (carrier, hostile, called), opened as third:
            called.puncher._choose = choose_any
            await until(lambda: called.peer_id in carrier.relay.reserved)
            ended = trio.Event()

            async def mislead(peer: PeerId, stream: INetStream) -> None:
                (raw,) = (await read_message(stream, HolePunch)).ObsAddrs
                await write_message(stream, connect_message(("127.0.0.1", 9)))
                await read_message(stream, HolePunch)
                host, port = read_endpoint(raw)
                await third.dial(f"/ip4/{host}/tcp/{port}/p2p/{peer_text(called.peer_id)}")
                await until(lambda: called.peer_id not in third.connected())
                ended.set()

            hostile._host.handle_streams(PROTOCOL, mislead)
            assert await hostile._host.reach(called.peer_id)
            with trio.fail_after(HANGS_S):
                await ended.wait()
            assert third.peer_id not in called.connected()
            assert called.count_ways() == Ways(direct=1, relayed=1)

    trio.run(run)


@contextmanager
def open_port() -> Iterator[tuple[PunchPort, Endpoint]]:
    """A punch port, and a place on loopback from where somebody may come."""
    with libp2p_punch_port._listen(socket.AF_INET) as listener, bind_shared(socket.AF_INET, 0) as other:
        place = ("127.0.0.1", int(other.getsockname()[1]))
        yield PunchPort(listener, Observation((("127.0.0.1", int(listener.getsockname()[1])),))), place


@pytest.mark.parametrize(("source", "handshakes"), [("127.0.0.1", ACCEPTS_MAX), ("127.0.0.2", 0)])
def test_port__keeps_the_place_of_whom_it_awaits_while_others_flood_it(source: str, handshakes: int) -> None:
    """docs/attacks.md: who learns of a punch port, behind the other end's router or elsewhere, stops no punch by coming first.

    The one that is awaited comes last, and cannot be dialled: only its own connection joins the two.
    """

    async def run() -> None:
        seen: list[Endpoint | None] = []

        with open_port() as (port, awaited), ExitStack() as stack, trio.fail_after(HANGS_S):
            here = ("127.0.0.1", port.number)
            flood = [stack.enter_context(socket.create_connection(here, HANGS_S, (source, 0))) for _ in range(3 * ACCEPTS_MAX)]
            member = await connect_from(awaited[1], here)

            async def shake_hands(stream: TcpStream) -> bool:
                seen.append(stream.get_remote_address())
                await stream.close()
                return seen[-1] == awaited

            assert await port.meet([awaited], shake_hands)
            assert seen[-1] == awaited
            assert len(seen) == 1 + handshakes
            assert all(sock.recv(1) == b"" for sock in flood[handshakes:]), "nobody else waits for an answer"
            await member.close()

    trio.run(run)


def test_port__takes_one_that_comes_again_and_again_a_few_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libp2p_punch_port, "ROUND_S", 0.5)

    async def run() -> None:
        count = 0

        with open_port() as (port, awaited):
            for _ in range(CONNECTS_MAX + 3):
                member = await connect_from(awaited[1], ("127.0.0.1", port.number))
                member._stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # Gone without a trace.
                await member.close()

            async def shake_hands(stream: TcpStream) -> bool:
                nonlocal count
                count += 1
                await stream.close()
                return False

            assert not await port.meet([awaited], shake_hands)
            assert count == CONNECTS_MAX

    trio.run(run)


@pytest.mark.usefixtures("quick_rounds")
@pytest.mark.parametrize("number", range(3))
def test_punch__bytes_that_are_no_handshake_end_nothing_but_their_connection(number: int) -> None:
    """The other end names a place that answers with them; the library raises errors of all kinds about these."""
    greeting = libp2p_punch._GREETING
    nonsense = [
        b"\x04\xff\xfe\xfd\n" + bytes(40),  # not UTF-8
        greeting + b"\x07/noise\n" + b"\x00\x01a",  # a key that is too short
        b"GET / HTTP/1.1\r\n\r\n" + bytes(100),
    ]

    async def run() -> None:
        async with open_session([LOOPBACK, [], []]) as (carrier, hostile, called), trio.open_nursery() as nursery:
            called.puncher._choose = choose_any
            met = trio.Event()

            async def babble(stream: trio.SocketStream) -> None:
                await stream.send_all(nonsense[number])
                with suppress(trio.BrokenResourceError):
                    while await stream.receive_some():
                        pass
                met.set()

            (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
            nursery.start_soon(trio.serve_listeners, babble, [listener])

            async def mislead(peer: PeerId, stream: INetStream) -> None:
                await read_message(stream, HolePunch)
                await write_message(stream, connect_message(listener.socket.getsockname()))
                await read_message(stream, HolePunch)

            await until(lambda: called.peer_id in carrier.relay.reserved)
            hostile._host.handle_streams(PROTOCOL, mislead)
            assert await hostile._host.reach(called.peer_id)
            with trio.fail_after(HANGS_S):
                await met.wait()
                await until(lambda: bool(called.puncher._waits))
            assert await hostile.send(called.peer_id, b"still there")
            assert await read_message_from(called, hostile.peer_id) == b"still there"
            nursery.cancel_scope.cancel()

    trio.run(run)


def test_punch__answers_a_few_at_once_and_a_bounded_number_in_all(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        async with open_pair() as (_, caller, hostile):
            caller.puncher._all_rounds = Bucket(0.0, 0.0, trio.current_time())
            assert await is_refused(hostile, caller.peer_id), "no rounds are left for anybody"
            caller.puncher._all_rounds = Bucket(0.0, 1.0, trio.current_time())
            monkeypatch.setattr(libp2p_punch, "AT_ONCE_MAX", 0)
            assert await is_refused(hostile, caller.peer_id), "too many others"
            monkeypatch.setattr(libp2p_punch, "AT_ONCE_MAX", 1)
            stream = await speak(hostile, caller.peer_id)
            await until(lambda: bool(caller.puncher._answering))
            drop_stream(stream)

    trio.run(run)
