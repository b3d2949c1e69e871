"""Peers of one session find each other in the local network: in processes of their own, by real multicast on loopback."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading

import pytest
import trio
import trio.testing
from nacl.signing import SigningKey

from learnae.backends.lan import DIGEST_BYTES, LAN_PEERS_MAX, _Finder, is_near, name_service
from learnae.backends.libp2p import open_libp2p_network
from learnae.backends.memory_blocks import MemoryBlocks
from learnae.backends.memory_network import MemoryHub, MemoryNetwork
from learnae.demo.cast import make_environment
from learnae.errors import UnreachableError
from learnae.ids import PeerId, peer_text
from learnae.ports import Connected
from learnae.protocol.events import LearnAddresses
from learnae.protocol.messages import Joined
from tests.protocol.builders import Author, Player, make_player

NODE = """
import sys, trio
from learnae.backends.libp2p import open_libp2p_network
from learnae.backends.memory_blocks import MemoryBlocks
from learnae.ids import peer_text

async def run(number, digest):
    listen = ["/ip4/127.0.0.1/tcp/0"]
    async with open_libp2p_network(seed=bytes([number]) * 32, listen=listen, blocks=MemoryBlocks(), lan_digest=digest) as network:
        print(peer_text(network.peer_id), flush=True)
        async for event in network.events:
            print(peer_text(event.peer), flush=True)

trio.run(run, int(sys.argv[1]), bytes.fromhex(sys.argv[2]))
"""
PEER = peer_text(PeerId(bytes(32)))


def start_node(number: int, digest: bytes) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", NODE, str(number), digest.hex()]
    return subprocess.Popen(command, stdout=subprocess.PIPE, env=make_environment(), text=True, stdin=subprocess.DEVNULL)


def test_lan__two_processes_of_one_session_find_each_other() -> None:
    """Issue: peers find each other by mDNS on the LAN. Nobody was told an address; the node of another session stays alone."""
    mine, other = b"\x01" * 32, b"\x02" * 32
    stranger, one, two = start_node(1, other), start_node(2, mine), start_node(3, mine)
    processes = (stranger, one, two)

    def end_all() -> None:
        for process in processes:
            process.kill()

    guard = threading.Timer(45.0, end_all)
    guard.start()
    try:
        assert stranger.stdout and one.stdout and two.stdout
        names = [process.stdout.readline().strip() for process in processes if process.stdout]
        assert len(set(names)) == 3
        assert one.stdout.readline().strip() == names[2]
        assert two.stdout.readline().strip() == names[1]
        stranger.kill()
        assert stranger.stdout.read() == "", "it heard the others on the same loopback and connected to nobody"
    finally:
        guard.cancel()
        for process in processes:
            process.kill()
            process.wait()
            assert process.stdout
            process.stdout.close()


def test_lan__off_means_no_socket_and_no_thread() -> None:
    async def run() -> None:
        before = {thread.name for thread in threading.enumerate()}
        async with open_libp2p_network(seed=bytes(32), listen=["/ip4/127.0.0.1/tcp/0"], blocks=MemoryBlocks()):
            await trio.testing.wait_all_tasks_blocked()
            assert not {name for name in {thread.name for thread in threading.enumerate()} - before if "zeroconf" in name.lower()}

    trio.run(run)


def test_service__is_the_sessions_and_a_name_that_dns_sd_allows() -> None:
    """RFC 6763: at most 15 letters after the underscore."""
    name = name_service(bytes(range(32)))
    assert name == "_ln-000102030405._tcp.local."
    assert len(name.partition(".")[0]) - 1 <= 15
    assert name_service(b"\x01" * 32) != name_service(b"\x02" * 32)
    assert DIGEST_BYTES == 6


@pytest.mark.parametrize(
    ("host", "own", "near"),
    [
        ("ip4/192.168.1.9", "ip4/192.168.1.7", True),
        ("ip4/10.0.0.9", "ip4/192.168.1.7", True),
        ("ip6/fd00::9", "ip4/192.168.1.7", True),
        ("ip4/8.8.4.4", "ip4/192.168.1.7", False),
        ("ip4/8.8.4.4", "ip4/8.8.4.7", True),
        ("ip4/8.8.5.4", "ip4/8.8.4.7", False),
        ("ip6/2a00:1450:4001::9", "ip6/2a00:1450:4001::7", True),
        ("ip6/2a00:1450:4001:1::9", "ip6/2a00:1450:4001::7", False),
        ("ip4/127.0.0.1", "ip4/192.168.1.7", False),
        ("ip4/127.0.0.1", "ip4/127.0.0.1", True),
        ("ip4/224.0.0.251", "ip4/192.168.1.7", False),
        ("ip4/0.0.0.0", "ip4/192.168.1.7", False),
        ("ip6/fe80::1", "ip4/192.168.1.7", False),
        ("dns4/example.org", "ip4/192.168.1.7", False),
    ],
)
def test_announcement__may_only_point_into_this_network(host: str, own: str, near: bool) -> None:
    """A stranger in the network must not make a node dial its own machine's services or the rest of the world."""
    assert is_near(f"/{host}/tcp/4001/p2p/{PEER}", [f"/{own}/tcp/4001/p2p/{PEER}"]) is near


@pytest.mark.parametrize("text", ["", "nonsense", f"/ip4/192.168.1.9/udp/1/p2p/{PEER}", "/ip4/192.168.1.9/tcp/1", "/" * 5000])
def test_announcement__that_is_none_is_not_dialled(text: str) -> None:
    assert not is_near(text, ["/ip4/192.168.1.7/tcp/4001"])


def test_announcement__of_a_circuit_is_passed_over() -> None:
    """Anybody in the network may announce anything: a near relay with somebody behind it ends no node, and hides nothing after it."""
    dialled: list[str] = []

    class Noting(MemoryNetwork):
        @property
        def addresses(self) -> tuple[str, ...]:
            return (f"/ip4/192.168.1.7/tcp/1/p2p/{PEER}",)

        async def connect(self, address: str) -> PeerId:
            dialled.append(address)
            raise UnreachableError(address, "nobody is there")

    async def run() -> None:
        finder = _Finder(Noting(MemoryHub(), PeerId(bytes(32)), MemoryBlocks()), name_service(bytes(32)))
        near = f"/ip4/192.168.1.9/tcp/1/p2p/{peer_text(PeerId(bytes([1]) * 32))}"
        await finder._dial([f"{near}/p2p-circuit/p2p/{peer_text(PeerId(bytes([2]) * 32))}", near])
        assert dialled == [near]

    trio.run(run)


def test_announcements__of_ever_new_peers_come_to_an_end() -> None:
    """A flood of identities costs a bounded number of dials, and nothing is learned from those that do not answer."""

    class Counting(MemoryNetwork):
        dials = 0

        @property
        def addresses(self) -> tuple[str, ...]:
            return (f"/ip4/192.168.1.7/tcp/1/p2p/{PEER}",)

        async def connect(self, address: str) -> PeerId:
            self.dials += 1
            raise UnreachableError(address, "nobody is there")

    async def run() -> None:
        network = Counting(MemoryHub(), PeerId(bytes(32)), MemoryBlocks())
        finder = _Finder(network, name_service(bytes(32)))
        for number in range(LAN_PEERS_MAX + 50):
            await finder._dial([f"/ip4/192.168.1.9/tcp/{number + 1}/p2p/{peer_text(PeerId(number.to_bytes(32, 'big')))}"])
        assert network.dials == LAN_PEERS_MAX
        for number in range(1000):
            finder._offer(f"name{number}")
        assert finder._names.statistics().current_buffer_used == 64

    trio.run(run)


def test_lan__no_multicast_is_logged_and_not_fatal(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """A machine without a usable interface still runs its node."""

    def refuse(**options: object) -> None:
        raise OSError(19, "No such device")

    monkeypatch.setattr("learnae.backends.lan.Zeroconf", refuse)

    async def run() -> None:
        async with open_libp2p_network(
            seed=bytes(32), listen=["/ip4/127.0.0.1/tcp/0"], blocks=MemoryBlocks(), lan_digest=bytes(32)
        ) as network:
            while not caplog.records:
                await trio.lowlevel.checkpoint()
            assert network.addresses

    with caplog.at_level("WARNING", logger="learnae.backends.lan"):
        trio.run(run)
    assert "peers in the local network are not looked for: no multicast here" in caplog.text


def test_remembered_peers__are_told_to_the_network_again_after_a_restart() -> None:
    """Issue: a node dials the members that it remembers, without its ticket's addresses: their words are in its journal."""
    bob, addresses = Author("bob"), (f"/ip4/192.168.1.9/tcp/4001/p2p/{PEER}",)
    first = make_player("alice")
    first.hear(bob, Joined(poid=bytes(20), addresses=addresses))

    effects = Player("alice").start(journal=first)

    assert LearnAddresses(bob.me, addresses) in effects


def test_remembered_peers__are_dialled_until_they_are_back() -> None:
    """The other half: what the network was told, it dials again and again; here the peer comes up only later."""

    async def run() -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            listen = [f"/ip4/127.0.0.1/tcp/{probe.getsockname()[1]}"]
        async with open_libp2p_network(seed=b"1" * 32, listen=(), blocks=MemoryBlocks()) as one:
            later = open_libp2p_network(seed=b"2" * 32, listen=listen, blocks=MemoryBlocks())
            peer = PeerId(bytes(SigningKey(b"2" * 32).verify_key))
            one.learn_addresses(peer, [f"{listen[0]}/p2p/{peer_text(peer)}"])
            await trio.testing.wait_all_tasks_blocked()
            async with later:
                with trio.fail_after(20):
                    assert await one.events.receive() == Connected(peer)

    trio.run(run)
