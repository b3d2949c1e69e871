"""Whether others can dial a node: it is tried, at the address from which the question came and no other."""

from __future__ import annotations

import pytest
import trio
from nacl.signing import SigningKey

from learnae.backends import libp2p_circuit, libp2p_dialback
from learnae.backends.libp2p import open_libp2p_network
from learnae.backends.libp2p_address import find_outside
from learnae.backends.libp2p_dialback import ASKER_BURST, PROTOCOL, UNANSWERED_MAX, DialbackAnswer, Reached, ask_dialback
from learnae.backends.libp2p_host import STREAM_ERRORS, Host
from learnae.backends.libp2p_wide import WideArea
from learnae.backends.memory_blocks import MemoryBlocks
from learnae.ids import PeerId, compute_cid, peer_text
from tests.backends.hostile import LOOPBACK, open_attacker, open_victim, until
from tests.processes import HANGS_S


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libp2p_dialback, "FIRST_S", 0.0)
    monkeypatch.setattr(libp2p_circuit, "LOOK_S", 0.05)


def test_node__learns_that_it_can_be_dialled_and_under_which_address() -> None:
    async def run() -> None:
        async with (
            open_victim(MemoryBlocks()) as judge,
            open_libp2p_network(seed=bytes([2]) * 32, listen=LOOPBACK, blocks=MemoryBlocks()) as node,
        ):
            await node.connect(judge.addresses[0])
            await until(lambda: node.reach.is_reachable is True)
            assert node.is_reachable is True
            assert node.reach.public_address == "127.0.0.1"
            assert judge.reach.is_reachable is None, "who dialled nobody has nobody to ask"
            assert node.circuits.relays == frozenset()

    trio.run(run)


def test_judge__in_the_same_network_is_not_asked_for_the_routers_port() -> None:
    """The router forwards another port than the node's, which two nodes at home have: a neighbour dials the machine itself."""

    async def run() -> None:
        async with (
            open_victim(MemoryBlocks()) as judge,
            open_libp2p_network(seed=bytes([2]) * 32, listen=LOOPBACK, blocks=MemoryBlocks()) as node,
        ):
            node.reach.mapped_port = 1
            await node.connect(judge.addresses[0])
            await until(lambda: node.reach.is_reachable is not None)
            assert node.reach.is_reachable is True

    trio.run(run)


def test_judge__outside_is_asked_for_the_port_that_the_user_announces(monkeypatch: pytest.MonkeyPatch) -> None:
    """A port forwarded by hand may be another than the node's: tried at its own, a node that all reach would hide behind relays."""
    monkeypatch.setattr(libp2p_dialback, "_may_come_in", lambda remote, place: place == "8.8.4.4")
    me = peer_text(PeerId(bytes(SigningKey(bytes([2]) * 32).verify_key)))
    wide = WideArea(session=compute_cid(b"rules"), announce=(f"/ip4/192.168.1.7/tcp/4001/p2p/{me}", f"/ip4/8.8.4.4/tcp/1/p2p/{me}"))

    async def run() -> None:
        async with (
            open_victim(MemoryBlocks()) as judge,
            open_libp2p_network(seed=bytes([2]) * 32, listen=LOOPBACK, blocks=MemoryBlocks(), wide=wide) as node,
        ):
            await node.connect(judge.addresses[0])
            await until(lambda: node.reach.is_reachable is not None)
            assert node.reach.is_reachable is False

    trio.run(run)


def test_judge__in_the_same_network_does_not_hide_what_the_world_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two nodes at home behind one router: each dials the other, and would look for no relay though nobody else comes in."""

    async def run() -> None:
        async with (
            open_victim(MemoryBlocks()) as neighbour,
            open_victim(MemoryBlocks(), number=7) as world,
            open_libp2p_network(seed=bytes([2]) * 32, listen=LOOPBACK, blocks=MemoryBlocks()) as node,
        ):
            monkeypatch.setattr(node.reach, "_is_near", lambda peer: peer == neighbour.peer_id)
            find_port = node.reach._choose_port
            monkeypatch.setattr(node.reach, "_choose_port", lambda peer: 1 if peer == world.peer_id else find_port(peer))
            await node.connect(neighbour.addresses[0])
            await until(lambda: node.reach.is_reachable is True)
            await node.connect(world.addresses[0])
            await until(lambda: node.reach.is_reachable is False)
            for _ in range(4):
                await node.reach.ask_all()
                assert node.reach.is_reachable is False

    trio.run(run)


def test_node__whose_router_opens_a_port_while_it_asks_asks_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both take two seconds from the start: the answer about the port before must not stand for ten minutes."""
    ask = libp2p_dialback.ask_dialback
    asked: list[int] = []

    async def run() -> None:
        async with (
            open_victim(MemoryBlocks()) as judge,
            open_libp2p_network(seed=bytes([2]) * 32, listen=LOOPBACK, blocks=MemoryBlocks()) as node,
        ):

            async def open_meanwhile(host: Host, peer: PeerId, port: int, wanted: PeerId) -> DialbackAnswer | None:
                asked.append(port)
                if len(asked) == 1:
                    node.reach.ask_again()
                return await ask(host, peer, port, wanted)

            monkeypatch.setattr(libp2p_dialback, "ask_dialback", open_meanwhile)
            await node.connect(judge.addresses[0])
            await until(lambda: len(asked) == 2)

    trio.run(run)


@pytest.mark.parametrize(
    ("addresses", "found"),
    [
        (["/ip4/192.168.1.7/tcp/4001", "/ip4/8.8.4.4/tcp/4002/p2p/12D3", "/ip4/9.9.9.9/tcp/4003"], ("8.8.4.4", 4002)),
        (["/ip6/fd00::1/tcp/4001", "/ip6/2a00::1/tcp/4002"], ("2a00::1", 4002)),
        (["/dns4/me.example/tcp/4002"], ("me.example", 4002)),
        (["/ip4/8.8.4.4/tcp/4001/p2p/12D3/p2p-circuit/p2p/12D3", "/ip4/8.8.4.4/udp/4001", "/ip4/8.8/tcp/1", "/ip4/8.8.4.4", ""], ("", 0)),
        ([], ("", 0)),
    ],
)
def test_outside__is_the_first_public_address_or_name(addresses: list[str], found: tuple[str, int]) -> None:
    assert find_outside(addresses) == found


@pytest.mark.parametrize(
    ("remote", "place", "may"),
    [
        ("9.9.9.9", "8.8.4.4", True),
        ("9.9.9.9", "me.example", True),
        ("2a00::1", "me.example", True),
        ("2a00::1", "8.8.4.4", False),
        ("9.9.9.9", "2a00::1", False),
        ("192.168.1.7", "8.8.4.4", False),
        ("fe80::1", "2a00::1", False),
    ],
)
def test_judge__comes_in_by_the_router_only_from_outside_and_by_the_same_version_of_ip(remote: str, place: str, may: bool) -> None:
    assert libp2p_dialback._may_come_in(remote, place) is may


def test_node__that_cannot_be_dialled_reserves_at_a_relay_and_carries_for_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind a router the port is closed: here the judge dials another port than the node's."""

    async def run() -> None:
        async with (
            open_victim(MemoryBlocks()) as judge,
            open_libp2p_network(seed=bytes([2]) * 32, listen=LOOPBACK, blocks=MemoryBlocks()) as node,
        ):
            judge.keep_places(frozenset({node.peer_id}))
            find_port = libp2p_dialback._find_port
            monkeypatch.setattr(libp2p_dialback, "_find_port", lambda addresses: 1)
            await node.connect(judge.addresses[0])
            await until(lambda: node.reach.is_reachable is False)
            await until(lambda: node.peer_id in judge.relay.reserved)
            assert not node.relay._offers()
            monkeypatch.setattr(libp2p_dialback, "_find_port", find_port)
            node.reach.ask_again()
            await until(lambda: node.reach.is_reachable is True)
            assert node.relay._offers()

    trio.run(run)


def test_node__believes_nobody_who_says_yes_and_dialled_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A liar would keep a node behind a router from the relays that it needs; after some rounds without an answer it looks for them."""

    async def lie(ip: str, port: int, wanted: PeerId) -> bool:
        await trio.lowlevel.checkpoint()
        return True

    monkeypatch.setattr(libp2p_dialback, "_try", lie)
    monkeypatch.setattr(libp2p_dialback, "UNKNOWN_S", 0.05)
    monkeypatch.setattr(libp2p_circuit, "LOOK_S", 0.05)

    async def run() -> None:
        async with (
            open_victim(MemoryBlocks()) as liar,
            open_libp2p_network(seed=bytes([2]) * 32, listen=LOOPBACK, blocks=MemoryBlocks()) as node,
        ):
            liar.keep_places(frozenset({node.peer_id}))
            await node.connect(liar.addresses[0])
            await until(lambda: node.peer_id in liar.relay.reserved)
            assert node.reach._unanswered >= UNANSWERED_MAX
            assert node.reach.is_reachable is None
            assert not node.reach.public_address

    trio.run(run)


def test_dialback__dials_the_asker_s_own_address_and_answers_for_the_identity_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        dialled: list[tuple[str, int]] = []
        honest = libp2p_dialback._try

        async def watch(ip: str, port: int, wanted: PeerId) -> bool:
            dialled.append((ip, port))
            return await honest(ip, port, wanted)

        monkeypatch.setattr(libp2p_dialback, "_try", watch)
        async with open_victim(MemoryBlocks()) as victim, open_attacker(victim) as asker:
            port = int(asker.addresses[0].split("/")[4])
            assert await ask_dialback(asker, victim.peer_id, port, asker.peer_id) == DialbackAnswer(Reached.YES, "127.0.0.1", port)
            another = PeerId(bytes(range(32)))
            assert await ask_dialback(asker, victim.peer_id, port, another) == DialbackAnswer(Reached.NO, "127.0.0.1", port)
            assert dialled == [("127.0.0.1", port)] * 2

    trio.run(run)


def test_dialback__is_done_a_bounded_number_of_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each question costs this node a dial, whoever asks."""

    async def run() -> None:
        async def refuse(ip: str, port: int, wanted: PeerId) -> bool:
            await trio.lowlevel.checkpoint()
            return False

        monkeypatch.setattr(libp2p_dialback, "_try", refuse)
        async with open_victim(MemoryBlocks()) as victim, open_attacker(victim) as asker:
            answers = [await ask_dialback(asker, victim.peer_id, 9, asker.peer_id) for _ in range(int(ASKER_BURST) + 5)]
            said = [answer.reached for answer in answers if answer is not None]
            assert said == [Reached.NO] * int(ASKER_BURST) + [Reached.BUSY] * 5
            victim.keep_places(frozenset({asker.peer_id}))
            monkeypatch.setattr(victim.reach._strangers, "_left", 0.0)
            answer = await ask_dialback(asker, victim.peer_id, 9, asker.peer_id)
            assert answer is not None and answer.reached is Reached.NO, "a member has a bucket of its own"

    trio.run(run)


@pytest.mark.parametrize("question", [b"", b"\0", bytes(34), b"\0\1" + bytes(20)])
def test_dialback__nonsense_brings_no_answer(question: bytes) -> None:
    async def run() -> None:
        async with open_victim(MemoryBlocks()) as victim, open_attacker(victim) as asker:
            stream = await asker.open_stream(victim.peer_id, [PROTOCOL])
            if question:
                await stream.write(question)
            await stream.close()
            with trio.fail_after(HANGS_S), pytest.raises(STREAM_ERRORS):
                await stream.read(1)
            assert not victim.reach._askers, "it costs nothing"

    trio.run(run)
