"""Peers that cannot be dialled are reached through members that can: real sockets, and real processes."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from random import Random

import pytest
import trio
from libp2p.abc import INetStream
from libp2p.relay.circuit_v2.pb import circuit_pb2 as pb

from learnae.backends import libp2p_relay
from learnae.backends.libp2p import Libp2pNetwork, open_libp2p_network
from learnae.backends.libp2p_address import libp2p_id
from learnae.backends.libp2p_host import STREAM_ERRORS
from learnae.backends.libp2p_relay import (
    HOP,
    MESSAGE_BYTES_MAX,
    RESERVATIONS_MAX,
    STOP,
    STRANGERS_PER_PEER_MAX,
    read_message,
    write_message,
)
from learnae.backends.memory_blocks import MemoryBlocks
from learnae.demo.cast import make_environment
from learnae.errors import BadAddressError, UnreachableError
from learnae.ids import PeerId, peer_text
from learnae.ports import Connected, DirectMessage
from tests.backends.hostile import LOOPBACK, until
from tests.processes import HANGS_S

NODE = """
import sys, trio
from nacl.signing import SigningKey
from learnae.backends.libp2p import open_libp2p_network
from learnae.backends.memory_blocks import MemoryBlocks
from learnae.ids import PeerId, cid_text, parse_cid

def name(number):
    return PeerId(bytes(SigningKey(bytes([number]) * 32).verify_key))

async def run(number, listen, known, wanted):
    blocks = MemoryBlocks()
    async with open_libp2p_network(seed=bytes([number]) * 32, listen=listen, blocks=blocks) as network:
        network.keep_places(frozenset(map(name, (1, 2, 3))))
        if known:
            await network.connect(known)
            while not (wanted or network.circuits.relays):
                await trio.sleep(0.05)
        if wanted:
            cid = parse_cid(wanted)
            await network.fetch_file(cid, providers=[name(2)], bytes_max=3_000_000)
            ways = [conn.get_remote_address() for conn in network._host.connections(name(2))]
            print(len(blocks.get_file(cid, bytes_max=3_000_000)), ways, flush=True)
        else:
            print((network.addresses or [cid_text(blocks.put_file(bytes(range(250)) * 10_000))])[0], flush=True)
            await trio.sleep_forever()

trio.run(run, int(sys.argv[1]), sys.argv[2].split(), sys.argv[3], sys.argv[4])
"""


def start_node(number: int, listen: str = "", known: str = "", wanted: str = "") -> subprocess.Popen[str]:
    command = [sys.executable, "-c", NODE, str(number), listen, known, wanted]
    return subprocess.Popen(command, stdout=subprocess.PIPE, env=make_environment(), text=True, stdin=subprocess.DEVNULL)


def test_relay__two_processes_that_listen_nowhere_exchange_a_file_through_a_member() -> None:
    """Issue: behind NAT by relays run by members that can be reached. Neither of the two can be dialled."""
    processes: list[subprocess.Popen[str]] = []

    def end_all() -> None:
        for process in processes:
            process.kill()

    guard = threading.Timer(60.0, end_all)
    guard.start()
    try:
        said: list[str] = []
        for number, listen in ((1, LOOPBACK[0]), (2, ""), (3, "")):
            known, wanted = said[0] if number > 1 else "", said[1] if number == 3 else ""
            processes.append(start_node(number, listen, known, wanted))
            output = processes[-1].stdout
            assert output
            said.append(output.readline().strip())
        assert said[2] == "2500000 [None]", "the whole file, over a connection that has no address"
    finally:
        guard.cancel()
        for process in processes:
            process.kill()
            process.wait()
            assert process.stdout
            process.stdout.close()


@asynccontextmanager
async def open_session(listens: Sequence[Sequence[str]], *, members: int | None = None) -> AsyncIterator[list[Libp2pNetwork]]:
    """Networks that know one another as members, all connected with the first; the others have no other way to each other."""
    async with AsyncExitStack() as stack:
        networks = []
        for number, listen in enumerate(listens, 1):
            opening = open_libp2p_network(seed=bytes([number]) * 32, listen=listen, blocks=MemoryBlocks(), rng=Random(number))
            networks.append(await stack.enter_async_context(opening))
        everybody = frozenset(network.peer_id for network in networks[:members])
        for network in networks:
            network.keep_places(everybody)
        for network in networks[1:]:
            await network.connect(networks[0].addresses[0])
        yield networks


async def read_message_from(network: Libp2pNetwork, sender: PeerId) -> bytes:
    async for event in network.events:
        if isinstance(event, DirectMessage) and event.sender == sender:
            return event.content
    raise AssertionError("the network ended")


def test_relay__carries_messages_both_ways_and_tells_nobody_else_s_bytes() -> None:
    async def run() -> None:
        async with open_session([LOOPBACK, [], []]) as (carrier, one, two):
            await until(lambda: {one.peer_id, two.peer_id} <= carrier.relay.reserved)
            with trio.fail_after(HANGS_S):
                assert await one.send(two.peer_id, b"to two")
                assert await read_message_from(two, one.peer_id) == b"to two"
                assert await two.send(one.peer_id, b"to one")
                assert await read_message_from(one, two.peer_id) == b"to one"
            assert carrier.relay.count == 1
            told = [event async for event in drain(carrier)]
            # Strangers are the two ends, asking how their routers show them.
            told = [event for event in told if isinstance(event, DirectMessage) or event.peer in carrier._host.members]
            assert told == [Connected(one.peer_id), Connected(two.peer_id)]

    trio.run(run)


async def drain(network: Libp2pNetwork) -> AsyncIterator[object]:
    """The events that are there already."""
    for _ in range(network.events.statistics().current_buffer_used):
        yield network.events.receive_nowait()


def test_circuit_address__in_a_ticket_is_dialled_by_a_newcomer_who_knows_nobody() -> None:
    async def run() -> None:
        async with open_session([LOOPBACK, []]) as (carrier, hidden):
            await until(lambda: bool(hidden.circuits.addresses))
            (address,) = hidden.circuits.addresses
            assert address == f"{carrier.addresses[0]}/p2p-circuit/p2p/{peer_text(hidden.peer_id)}"
            async with open_libp2p_network(seed=bytes([9]) * 32, listen=[], blocks=MemoryBlocks()) as newcomer:
                with trio.fail_after(HANGS_S):
                    assert await newcomer.connect(address) == hidden.peer_id
                    assert await newcomer.send(hidden.peer_id, b"hello")
                    assert await read_message_from(hidden, newcomer.peer_id) == b"hello"
                with pytest.raises(BadAddressError, match="p2p-circuit"):
                    await newcomer.connect(f"{carrier.addresses[0]}/p2p-circuit/p2p/nobody")

    trio.run(run)


def test_circuit__is_left_for_a_direct_connection_when_the_caller_can_be_dialled() -> None:
    async def run() -> None:
        async with open_session([LOOPBACK, [], LOOPBACK]) as (carrier, hidden, caller):
            hidden._host.learn_addresses(caller.peer_id, caller.addresses)
            await until(lambda: hidden.peer_id in carrier.relay.reserved)
            with trio.fail_after(HANGS_S):
                assert await caller._host.reach(hidden.peer_id)
            await until(lambda: carrier.relay.count == 0)
            (conn,) = caller._host.connections(hidden.peer_id)
            assert conn.get_remote_address() is not None
            assert not conn.is_initiator

    trio.run(run)


def test_relay__reserves_for_members_and_for_the_peer_of_the_connection_only() -> None:
    """py-libp2p's relay believes the message; here somebody else's place cannot be taken or kept."""

    async def run() -> None:
        async with open_session([LOOPBACK, LOOPBACK, []], members=2) as (carrier, member, stranger):

            async def reserve(asker: Libp2pNetwork, peer: PeerId) -> int:
                stream = await asker._host.open_stream(carrier.peer_id, [HOP])
                asked = pb.HopMessage(type=pb.HopMessage.RESERVE, peer=pb.PeerId(id=libp2p_id(peer).to_bytes()))
                await write_message(stream, asked)
                return int((await read_message(stream, pb.HopMessage)).status)

            assert await reserve(stranger, member.peer_id) == pb.PERMISSION_DENIED
            assert carrier.relay.reserved == frozenset()
            assert await reserve(member, stranger.peer_id) == pb.OK
            assert carrier.relay.reserved == {member.peer_id}
            for number in range(RESERVATIONS_MAX - 1):
                carrier.relay._reserved[PeerId(number.to_bytes(32, "big"))] = trio.current_time() + 100
            carrier._host.connected = lambda: frozenset(carrier.relay._reserved)  # type: ignore[method-assign]
            del carrier.relay._reserved[member.peer_id]
            carrier.relay._reserved[PeerId(bytes([255]) * 32)] = trio.current_time() + 100
            assert await reserve(member, member.peer_id) == pb.RESERVATION_REFUSED

    trio.run(run)


def test_relay__ends_a_circuit_that_used_up_its_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libp2p_relay, "CIRCUIT_BYTES_MAX", 100_000)

    async def run() -> None:
        async with open_session([LOOPBACK, [], []]) as (carrier, one, two):
            await until(lambda: two.peer_id in carrier.relay.reserved)
            with trio.fail_after(HANGS_S):
                assert await one._host.reach(two.peer_id)
                assert carrier.relay.count == 1
                await one.send(two.peer_id, bytes(200_000))
            await until(lambda: carrier.relay.count == 0 and two.peer_id not in one.connected())

    trio.run(run)


def test_relay__carries_a_bounded_number_of_circuits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libp2p_relay, "CIRCUITS_PER_PEER_MAX", 1)

    async def run() -> None:
        async with open_session([LOOPBACK, [], [], []]) as (carrier, hidden, one, two):
            await until(lambda: hidden.peer_id in carrier.relay.reserved)
            address = f"{carrier.addresses[0]}/p2p-circuit/p2p/{peer_text(hidden.peer_id)}"
            with trio.fail_after(HANGS_S):
                await one.connect(address)
                with pytest.raises(UnreachableError, match="resource limit exceeded"):
                    await two.connect(address)
                carrier.keep_places(frozenset({hidden.peer_id}))
                monkeypatch.setattr(libp2p_relay, "CIRCUITS_PER_PEER_MAX", 8)
                monkeypatch.setattr(libp2p_relay, "STRANGERS_CIRCUITS_MAX", 0)
                with pytest.raises(UnreachableError, match="resource limit exceeded"):
                    await two.connect(address)
                with pytest.raises(UnreachableError, match="no reservation"):
                    await two._host.dial(address.replace(peer_text(hidden.peer_id), peer_text(PeerId(bytes(range(32))))))

    trio.run(run)


def test_relay__strangers_get_a_small_part_and_give_way_to_a_member(monkeypatch: pytest.MonkeyPatch) -> None:
    """docs/attacks.md: no stranger stands between two members. Its circuits are few, at its end and at theirs, and the newest ends."""

    async def ask(network: Libp2pNetwork, carrier: PeerId, target: PeerId) -> tuple[INetStream, int]:
        stream = await network._host.open_stream(carrier, [HOP])
        wanted = pb.PeerId(id=libp2p_id(target).to_bytes())
        await write_message(stream, pb.HopMessage(type=pb.HopMessage.CONNECT, peer=wanted))
        return stream, (await read_message(stream, pb.HopMessage)).status

    async def run() -> None:
        async with open_session([LOOPBACK, [], [], [], []], members=3) as (carrier, hidden, member, stranger, other):
            await until(lambda: hidden.peer_id in carrier.relay.reserved)
            asked = [await ask(stranger, carrier.peer_id, hidden.peer_id) for _ in range(STRANGERS_PER_PEER_MAX + 1)]
            assert [status for _, status in asked] == [pb.OK] * STRANGERS_PER_PEER_MAX + [pb.RESOURCE_LIMIT_EXCEEDED]
            assert (await ask(other, carrier.peer_id, hidden.peer_id))[1] == pb.RESOURCE_LIMIT_EXCEEDED
            paid = carrier.relay._strangers._left
            monkeypatch.setattr(libp2p_relay, "CIRCUITS_PER_PEER_MAX", STRANGERS_PER_PEER_MAX)
            await member.connect(f"{carrier.addresses[0]}/p2p-circuit/p2p/{peer_text(hidden.peer_id)}")
            assert await member.send(hidden.peer_id, b"hello")
            assert await read_message_from(hidden, member.peer_id) == b"hello"
            assert carrier.relay._strangers._left == paid, "members have another budget"
            assert carrier.relay.count == STRANGERS_PER_PEER_MAX
            oldest, newest = asked[0][0], asked[STRANGERS_PER_PEER_MAX - 1][0]
            with pytest.raises(STREAM_ERRORS):
                while True:
                    await newest.read(1)
            await oldest.write(bytes(1000))
            await until(lambda: carrier.relay._strangers._left < paid)

    trio.run(run)


def test_circuit__is_refused_where_the_relay_names_another_peer_than_the_one_that_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """A relay must not make a node dial the addresses of whom it likes."""

    async def run() -> None:
        async with open_session([LOOPBACK, [], []]) as (carrier, caller, hidden):
            await until(lambda: hidden.peer_id in carrier.relay.reserved)
            honest = carrier.relay._open_onward

            async def lie(source: PeerId, target: PeerId) -> INetStream | None:
                assert source == caller.peer_id
                return await honest(PeerId(bytes(range(32))), target)

            monkeypatch.setattr(carrier.relay, "_open_onward", lie)
            await caller._host.reach(hidden.peer_id)
            await until(lambda: carrier.relay.count == 0 and caller.peer_id not in hidden.connected())

    trio.run(run)


def test_relay__ends_a_circuit_on_which_nothing_moves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libp2p_relay, "CIRCUIT_IDLE_S", 0.1)

    async def run() -> None:
        async with open_session([LOOPBACK, [], []]) as (carrier, one, two):
            await until(lambda: two.peer_id in carrier.relay.reserved)
            stream = await one._host.open_stream(carrier.peer_id, [HOP])
            wanted = pb.PeerId(id=libp2p_id(two.peer_id).to_bytes())
            await write_message(stream, pb.HopMessage(type=pb.HopMessage.CONNECT, peer=wanted))
            assert (await read_message(stream, pb.HopMessage)).status == pb.OK
            await until(lambda: carrier.relay.count == 0)

    trio.run(run)


@pytest.mark.parametrize("nonsense", [b"\xff\xff\x7f", b"\x05ab", b"\x03\xff\xff\xff", b"\x02\x08\x02"])
def test_relay__nonsense_is_refused_at_both_ends(nonsense: bytes) -> None:
    async def run() -> None:
        async with open_session([LOOPBACK, LOOPBACK]) as (one, two):
            for protocol in (HOP, STOP):
                stream = await two._host.open_stream(one.peer_id, [protocol])
                await stream.write(nonsense)
                await stream.close()
                try:
                    kind = pb.HopMessage if protocol == HOP else pb.StopMessage
                    answer = await read_message(stream, kind)  # type: ignore[type-var]
                    assert answer.status in (pb.MALFORMED_MESSAGE, pb.UNEXPECTED_MESSAGE)
                except STREAM_ERRORS:
                    pass  # cut off, which is an answer too
            assert one.relay.count == 0

    trio.run(run)


def test_stop__is_accepted_only_from_a_relay_that_was_asked() -> None:
    """Nobody is connected with strangers because another stranger says so."""

    async def run() -> None:
        async with open_session([LOOPBACK, LOOPBACK]) as (one, two):
            stream = await two._host.open_stream(one.peer_id, [STOP])
            peer = pb.PeerId(id=libp2p_id(PeerId(bytes(range(32)))).to_bytes())
            await write_message(stream, pb.StopMessage(type=pb.StopMessage.CONNECT, peer=peer))
            assert (await read_message(stream, pb.StopMessage)).status == pb.PERMISSION_DENIED
            assert MESSAGE_BYTES_MAX < 65536

    trio.run(run)
