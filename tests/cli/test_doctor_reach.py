"""`learnae doctor`, reach: a member dials back, and what it says is told in plain words."""

from __future__ import annotations

import socket
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
            check = partial(check_reach, members, listen, running=True, relays=0)
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
            found = await check_reach(members, [f"/ip4/127.0.0.1/tcp/{free_port}"], me="", running=False, relays=0)
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
            found = await check_reach(members, [f"/ip4/127.0.0.1/tcp/{free_port}"], me=me, running=True, relays=2)
            tell(found, State.NOTE, "does not reach", "nothing must be done")
            assert found is not None and "others come in through relays (2)" in found.text

    trio.run(run)


@pytest.mark.parametrize(("address", "words"), [("8.8.4.4", "another member sees this machine as 8.8.4.4"), ("10.0.0.7", "same network")])
def test_reach__from_afar_says_more_than_from_near(address: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def answer(*said: object, **options: object) -> DialbackAnswer:
        await trio.lowlevel.checkpoint()
        return DialbackAnswer(Reached.YES, address)

    monkeypatch.setattr("learnae.backends.libp2p_probe_back.ask_members", answer)

    async def run() -> Finding | None:
        return await check_reach({"12D3": ["/ip4/1.2.3.4/tcp/1/p2p/12D3"]}, ["/ip4/0.0.0.0/tcp/4001"], me="", running=False, relays=0)

    found = trio.run(run)
    assert found is not None
    tell(found, State.GOOD, words)
    assert ("it was not tried" in found.text) == address.startswith("10.")


@pytest.mark.parametrize(
    ("keeps_port", "words", "remedy"),
    [
        (None, "come in through relays (2)", "nothing must be done"),
        (True, "met directly (hole punching)", "nothing must be done"),
        (False, "no holes can be punched", "only TCP 4001 forwarded"),
    ],
)
def test_reach__says_whether_the_router_lets_holes_be_punched(
    keeps_port: bool | None, words: str, remedy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def answer(*said: object, **options: object) -> DialbackAnswer:
        await trio.lowlevel.checkpoint()
        return DialbackAnswer(Reached.NO, "8.8.4.4", keeps_port)

    monkeypatch.setattr("learnae.backends.libp2p_probe_back.ask_members", answer)
    me = peer_text(PeerId(bytes(range(32))))
    check = partial(check_reach, {"12D3": ["/ip4/1.2.3.4/tcp/1/p2p/12D3"]}, ["/ip4/0.0.0.0/tcp/4001"], me=me)
    tell(trio.run(partial(check, running=True, relays=2)), State.NOTE, words, remedy)
    tell(trio.run(partial(check, running=False, relays=0)), State.CARE, words.replace("come in through relays (2)", "in the way"), "`upnp`")


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
            answer = await libp2p_probe_back.ask_members(addresses, f"/ip4/127.0.0.1/tcp/{free_port}", wanted=None, asked_max=3)
            assert answer == DialbackAnswer(Reached.NO, "127.0.0.1", None)
            assert asked == [addresses]

    trio.run(run)


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
        check = partial(check_reach, me="", running=False, relays=0)
        dead = {"x": [f"/ip4/127.0.0.1/tcp/1/p2p/{peer_text(PeerId(bytes(range(32))))}"]}
        assert await check({}, [f"/ip4/127.0.0.1/tcp/{free_port}"]) is None
        assert await check(dead, ["/ip4/127.0.0.1/tcp/0"]) is None, "a port that changes cannot be tried"
        tell(await check(dead, [f"/ip4/127.0.0.1/tcp/{free_port}"]), State.NOTE, "no member could be asked to dial back", "call again")

    trio.run(run)
