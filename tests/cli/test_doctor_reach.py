"""`learnae doctor`, reach: a member dials back, and what it says is told in plain words."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial

import pytest
import trio

from learnae.backends import libp2p_dialback, libp2p_probe_back
from learnae.backends.libp2p_dialback import DialbackAnswer, Reached
from learnae.cli.doctor.findings import Finding, State
from learnae.cli.doctor.reach import check_reach, check_ways
from learnae.ids import PeerId, peer_text
from tests.backends.hostile import until
from tests.cli.test_doctor import open_peer, tell

DEAD = "/ip4/127.0.0.1/tcp/1/p2p/12D3KooWK99VoVxNE7XzyBwXEzW7xhK7Gpv85r9F3V3fyKSUKPH5"
CIRCUIT = DEAD + "/p2p-circuit/p2p/12D3KooWJzENDcYyqhw9jGbmNoU42fhZ6y6ctFKNPWnsaLuscK5U"


@pytest.fixture
def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_reach__of_a_node_that_runs_is_tried_at_its_own_identity() -> None:
    async def run() -> None:
        async with open_peer(1) as member, open_peer(2) as node:
            members = {peer_text(member.peer_id): list(member.addresses)}
            listen = [node.addresses[0].split("/p2p/")[0]]
            check = partial(check_reach, members, listen, running=True, told=(), upnp=False)
            found = await check(me=peer_text(node.peer_id))
            port = listen[0].split("/")[4]
            tell(found, State.GOOD, f"a member in the same network sees this machine as 127.0.0.1 and reaches it at port {port}")
            other = await check(me=peer_text(PeerId(bytes(range(32)))))
            tell(other, State.CARE, f"does not reach port {port}: a firewall or router is in the way", "`upnp`")
            await until(lambda: not member.connected())

    trio.run(run)


def test_reach__of_a_node_that_does_not_run_is_tried_by_listening_meanwhile(free_port: int) -> None:
    async def run() -> None:
        async with open_peer(1) as member:
            members = {peer_text(member.peer_id): list(member.addresses)}
            found = await check_reach(members, [f"/ip4/127.0.0.1/tcp/{free_port}"], me="", running=False, told=(), upnp=False)
            tell(found, State.GOOD, f"reaches it at port {free_port}")

    trio.run(run)


def test_reach__through_relays_only_is_worth_a_note(free_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(ip: str, port: int, wanted: PeerId) -> bool:
        await trio.lowlevel.checkpoint()
        return False

    monkeypatch.setattr(libp2p_dialback, "_try", refuse)

    async def run() -> None:
        async with open_peer(1) as member:
            members = {peer_text(member.peer_id): list(member.addresses)}
            me = peer_text(PeerId(bytes(range(32))))
            found = await check_reach(members, [f"/ip4/127.0.0.1/tcp/{free_port}"], me=me, running=True, told=[CIRCUIT] * 2, upnp=False)
            tell(found, State.NOTE, "does not reach", "nothing must be done")
            assert found is not None and "others come in through relays (2)" in found.text

    trio.run(run)


@pytest.mark.parametrize(("address", "words"), [("8.8.4.4", "another member sees this machine as 8.8.4.4"), ("10.0.0.7", "same network")])
def test_reach__from_afar_says_more_than_from_near(address: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def answer(*said: object, **options: object) -> DialbackAnswer:
        await trio.lowlevel.checkpoint()
        return DialbackAnswer(Reached.YES, address, 4001)

    monkeypatch.setattr("learnae.backends.libp2p_probe_back.ask_members", answer)

    async def run() -> Finding | None:
        return await check_reach({"12D3": [DEAD]}, ["/ip4/0.0.0.0/tcp/4001"], me="", running=False, told=(), upnp=False)

    found = trio.run(run)
    assert found is not None
    tell(found, State.GOOD, words)
    assert ("it was not tried" in found.text) == address.startswith("10.")


@pytest.mark.parametrize(
    ("keeps_port", "words", "remedy"),
    [
        (None, "come in through relays (2)", "nothing must be done"),
        (True, "met directly (hole punching)", "nothing must be done"),
        (False, "no holes can be punched", "relays carry on; to be faster, set `upnp` in settings.json, or forward TCP 4001"),
    ],
)
def test_reach__says_whether_the_router_lets_holes_be_punched(
    keeps_port: bool | None, words: str, remedy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def answer(*said: object, **options: object) -> DialbackAnswer:
        await trio.lowlevel.checkpoint()
        return DialbackAnswer(Reached.NO, "8.8.4.4", 4001, keeps_port)

    monkeypatch.setattr("learnae.backends.libp2p_probe_back.ask_members", answer)
    me = peer_text(PeerId(bytes(range(32))))
    check = partial(check_reach, {"12D3": [DEAD]}, ["/ip4/0.0.0.0/tcp/4001"], me=me, upnp=False)
    tell(trio.run(partial(check, running=True, told=[CIRCUIT] * 2)), State.NOTE, words, remedy)
    tell(trio.run(partial(check, running=False, told=())), State.CARE, words.replace("come in through relays (2)", "in the way"), "`upnp`")


def test_reach__asks_two_members_how_the_router_shows_this_machine(free_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """On loopback both stand at one address, so only one can be asked."""
    asked: list[list[str]] = []
    choose = libp2p_probe_back.choose_observers

    def note_choice(addresses: list[str]) -> list[str]:
        asked.append(addresses)
        return choose(addresses)

    async def refuse(ip: str, port: int, wanted: PeerId) -> bool:
        await trio.lowlevel.checkpoint()
        return False

    monkeypatch.setattr(libp2p_dialback, "_try", refuse)
    monkeypatch.setattr(libp2p_probe_back, "choose_observers", note_choice)

    async def run() -> None:
        async with open_peer(1) as one, open_peer(2) as two:
            addresses = [one.addresses[0], two.addresses[0]]
            answer = await libp2p_probe_back.ask_members(addresses, f"/ip4/127.0.0.1/tcp/{free_port}", told=(), wanted=None, asked_max=3)
            assert answer == DialbackAnswer(Reached.NO, "127.0.0.1", free_port, None)
            assert asked == [addresses]

    trio.run(run)


@asynccontextmanager
async def open_forward(address: str) -> AsyncIterator[int]:
    """A port that leads to the node at `address`, as a router's does."""
    port = int(address.split("/")[4])

    async def lead(outside: trio.SocketStream) -> None:
        async with outside, await trio.open_tcp_stream("127.0.0.1", port) as inside, trio.open_nursery() as nursery:
            nursery.start_soon(copy, outside, inside)
            await copy(inside, outside)
            nursery.cancel_scope.cancel()

    async def copy(source: trio.SocketStream, target: trio.SocketStream) -> None:
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            async for chunk in source:
                await target.send_all(chunk)

    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, lead, [listener])
        yield int(listener.socket.getsockname()[1])
        nursery.cancel_scope.cancel()


def test_reach__is_tried_at_the_routers_port_where_it_is_another_than_the_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    """UPnP gave port 4002 because a neighbour has 4001: members outside find this node there, or not at all."""
    monkeypatch.setattr(libp2p_dialback, "_may_come_in", lambda remote, place: place == "8.8.4.4")

    async def run() -> None:
        async with open_peer(1) as member, open_peer(2) as node:
            me = peer_text(node.peer_id)
            own = node.addresses[0].split("/p2p/")[0]
            inside = own.split("/")[4]
            check = partial(check_reach, {peer_text(member.peer_id): list(member.addresses)}, [own], me=me, running=True, upnp=True)
            async with open_forward(own) as outside:
                told = [f"/ip4/8.8.4.4/tcp/{outside}/p2p/{me}", *node.addresses]
                tell(await check(told=told), State.GOOD, f"sees this machine as 127.0.0.1 and reaches it at port {outside}")
            remedy = f"look whether the router leads its TCP port {outside} to port {inside} of this machine"
            tell(await check(told=told), State.CARE, f"does not reach port {outside}: a firewall or router is in the way", remedy)
            tell(await check(told=node.addresses), State.GOOD, f"reaches it at port {inside}")

    trio.run(run)


def test_reach__asks_members_outside_first_and_neighbours_only_if_none_of_those_answers(
    free_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A neighbour that gets in says nothing about the router: its yes would hide the no of all others."""

    async def run() -> None:
        async with open_peer(1) as outside, open_peer(2) as neighbour:
            is_near = {neighbour.addresses[0]: 1}
            monkeypatch.setattr(libp2p_probe_back, "_rate_nearness", lambda address: is_near.get(address, 0))
            monkeypatch.setattr(libp2p_probe_back, "choose_port", lambda host, judge, **ports: 1 if judge == outside.peer_id else free_port)
            ask = partial(libp2p_probe_back.ask_members, listen=f"/ip4/127.0.0.1/tcp/{free_port}", told=(), wanted=None, asked_max=3)
            both = [*neighbour.addresses, *outside.addresses]
            assert await ask(both) == DialbackAnswer(Reached.NO, "127.0.0.1", 1)
            assert neighbour._host.swarm.arrivals == 0
            assert await ask([*neighbour.addresses, DEAD]) == DialbackAnswer(Reached.YES, "127.0.0.1", free_port)

    trio.run(run)


@pytest.mark.parametrize(
    ("address", "nearness"),
    [("/ip4/8.8.4.4", 0), ("/dns4/example.org", 0), ("/ip4/192.168.1.7", 1), ("/ip4/127.0.0.1", 2), ("/ip6/::1", 2)],
)
def test_reach__knows_members_outside_by_their_addresses(address: str, nearness: int) -> None:
    assert libp2p_probe_back._rate_nearness(f"{address}/tcp/1/p2p/{DEAD.rpartition('/')[2]}") == nearness


@pytest.mark.parametrize(
    ("said", "options", "state", "text", "remedy"),
    [
        ((Reached.YES, "8.8.4.4", 4002), {}, State.GOOD, "another member sees this machine as 8.8.4.4 and reaches it at port 4002", ""),
        ((Reached.YES, "9.9.9.9", 4002), {}, State.GOOD, "reaches it at port 4002; others are told 8.8.4.4, where it was not tried", ""),
        ((Reached.YES, "2a00::1", 4001), {}, State.GOOD, "sees this machine as 2a00::1 and reaches it at port 4001", ""),
        ((Reached.NO, "8.8.4.4", 4002), {}, State.CARE, "does not reach port 4002: a firewall or router", "port 4002 to port 4001"),
        ((Reached.NO, "8.8.4.4", 4001), {}, State.CARE, "does not reach port 4001: a firewall or router", "forward TCP 4001"),
        ((Reached.NO, "8.8.4.4", 4001), {"upnp": False}, State.CARE, "does not reach port 4001", "set `upnp` in settings.json, or forward"),
        ((Reached.NO, "8.8.4.4", 4001), {"running": False}, State.NOTE, "asked for a port only while the node runs", "start the node"),
        ((Reached.NO, "10.0.0.7", 4001), {"running": False}, State.CARE, "same network", "forward TCP 4001"),
    ],
)
def test_reach__tells_the_place_that_was_tried_and_nothing_to_do_that_was_done(
    said: tuple[Reached, str, int], options: dict[str, bool], state: State, text: str, remedy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def answer(*asked: object, **options: object) -> DialbackAnswer:
        await trio.lowlevel.checkpoint()
        return DialbackAnswer(*said)

    monkeypatch.setattr(libp2p_probe_back, "ask_members", answer)
    chosen = {"running": True, "upnp": True} | options
    told = ["/ip4/8.8.4.4/tcp/4002"] if said[2] == 4002 else []
    finding = trio.run(partial(check_reach, {"12D3": [DEAD]}, ["/ip4/0.0.0.0/tcp/4001"], me="", told=told, **chosen))
    assert finding is not None
    tell(finding, state, text, remedy)
    assert "upnp" not in finding.remedy or not chosen["upnp"]


@pytest.mark.parametrize(
    ("ways", "state", "words"),
    [
        ({"direct": 4, "punched": 0, "relayed": 0, "keeps_port": None}, State.GOOD, ["4 connected directly"]),
        ({"direct": 3, "punched": 1, "relayed": 0, "keeps_port": True}, State.GOOD, ["(3 direct, 1 through a hole in two routers)"]),
        ({"direct": 3, "punched": 0, "relayed": 1, "keeps_port": None}, State.NOTE, ["(3 direct, 1 through a relay)"]),
        ({"direct": 0, "punched": 0, "relayed": 4, "keeps_port": False}, State.NOTE, ["(4 through a relay)", "`upnp`"]),
    ],
)
def test_ways__of_a_node_that_runs_are_told_in_plain_words(ways: dict[str, object], state: State, words: list[str]) -> None:
    tell(check_ways({"connected": 4, "ways": ways}), state, *words)


def test_ways__are_not_told_where_there_are_none() -> None:
    assert check_ways({"connected": 0, "ways": {"direct": 0, "punched": 0, "relayed": 0, "keeps_port": None}}) is None
    assert check_ways({"connected": 4}) is None, "a status that an older version wrote"


def test_reach__is_not_told_where_nobody_can_be_asked(free_port: int) -> None:
    async def run() -> None:
        check = partial(check_reach, me="", running=False, told=(), upnp=False)
        dead = {"x": [f"/ip4/127.0.0.1/tcp/1/p2p/{peer_text(PeerId(bytes(range(32))))}"]}
        assert await check({}, [f"/ip4/127.0.0.1/tcp/{free_port}"]) is None
        assert await check(dead, ["/ip4/127.0.0.1/tcp/0"]) is None, "a port that changes cannot be tried"
        tell(await check(dead, [f"/ip4/127.0.0.1/tcp/{free_port}"]), State.NOTE, "no member could be asked to dial back", "call again")

    trio.run(run)
