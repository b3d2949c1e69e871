"""Sessions are found by their CID: over real sockets, with a handful of nodes, and with py-libp2p's own DHT as a server."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from itertools import pairwise
from random import Random

import pytest
import trio
import trio.testing
from libp2p import new_host
from libp2p.abc import INetStream
from libp2p.identity.identify.identify import ID as IDENTIFY_PROTOCOL
from libp2p.identity.identify.pb.identify_pb2 import Identify
from libp2p.kad_dht.kad_dht import DHTMode, KadDHT
from libp2p.kad_dht.pb import kademlia_pb2 as pb
from libp2p.tools.anyio_service import background_trio_service
from multiaddr import Multiaddr
from nacl.signing import SigningKey

from learnae.backends import libp2p_dht
from learnae.backends.libp2p_address import libp2p_id
from learnae.backends.libp2p_dht import PROTOCOL, PUBLIC_PROTOCOL, DhtServer, _read, _write, look_up, provide, read_contacts
from learnae.backends.libp2p_dht_records import (
    CLOSEST,
    CONTACTS_MAX,
    CONTACTS_PER_SOURCE_MAX,
    PROVIDERS_MAX,
    RECORD_S,
    SESSIONS_MAX,
    Contact,
    RecordStore,
    compute_distance,
    decode_contacts,
    encode_contacts,
    may_follow,
)
from learnae.backends.libp2p_direct import read_exactly, read_varint
from learnae.backends.libp2p_host import STREAM_ERRORS, Host, open_host
from learnae.backends.libp2p_yamux import Yamux
from learnae.backends.memory_blocks import MemoryBlocks
from learnae.ids import PeerId, compute_cid, peer_text
from tests.backends.hostile import LOOPBACK, open_attacker, open_victim
from tests.processes import HANGS_S

KEY = compute_cid(b"the rules of a session")[2:]


def make_contact(number: int, *, addresses: int = 1) -> Contact:
    peer = PeerId(number.to_bytes(32, "big"))
    return Contact(peer, tuple(f"/ip4/192.0.2.{number % 250}/tcp/{port + 1}/p2p/{peer_text(peer)}" for port in range(addresses)))


@asynccontextmanager
async def open_servers(count: int) -> AsyncIterator[list[tuple[Host, RecordStore]]]:
    """Servers that keep records; each knows the next one only."""
    async with trio.open_nursery() as nursery:
        servers: list[tuple[Host, RecordStore]] = []

        async def serve(number: int, task_status: trio.TaskStatus[tuple[Host, RecordStore]]) -> None:
            async with open_host(seed=bytes([100 + number]) * 32, listen=LOOPBACK, rng=Random(number)) as host:
                store = RecordStore()
                DhtServer(host, store)
                task_status.started((host, store))
                await trio.sleep_forever()

        for number in range(count):
            servers.append(await nursery.start(serve, number))
        for (_, store), (following, _) in pairwise(servers):
            store.add_contact(Contact(following.peer_id, following.addresses), "")
        yield servers
        nursery.cancel_scope.cancel()


def test_dht__a_session_is_found_by_its_cid_through_servers_that_only_know_one_another() -> None:
    """Issue: DHT records under the session's CID. The member told its record at one end; the newcomer asks at the other."""

    async def run() -> None:
        seed = bytes([50]) * 32
        async with open_servers(5) as servers, open_host(seed=seed, listen=(), rng=Random(1)) as member:
            me = Contact(member.peer_id, (f"/ip4/127.0.0.1/tcp/4001/p2p/{peer_text(member.peer_id)}",))
            last = read_contacts(servers[-1][0].addresses)
            seen = await look_up(KEY, last)
            assert set(seen.servers) == {servers[-1][0].peer_id}
            assert await provide(KEY, me, seen.servers, seed, forgetful := set()) == 1
            assert not forgetful, "servers of ours keep what a record says"
            assert servers[-1][1].find_providers(KEY, trio.current_time()) == [me]

            found = await look_up(KEY, read_contacts(servers[0][0].addresses))
            assert found.providers == {me.peer: me}
            assert set(found.servers) == {host.peer_id for host, _ in servers}
            other = await look_up(compute_cid(b"another session")[2:], read_contacts(servers[0][0].addresses))
            assert other.providers == {}

    trio.run(run)


def test_look_up__servers_with_many_dead_addresses_cost_little_and_the_living_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the DHT of the internet many servers are gone, or name addresses that lead nowhere: here something that never answers."""
    monkeypatch.setattr(libp2p_dht, "DIAL_S", 0.5)
    monkeypatch.setattr(libp2p_dht, "PEER_S", 2.0)

    async def run(hole: socket.socket) -> None:
        async with open_servers(1) as ((server, _),):
            (living,) = read_contacts(server.addresses)
            silent = f"/ip4/127.0.0.1/tcp/{hole.getsockname()[1]}/p2p/"
            both = Contact(living.peer, (silent + peer_text(living.peer), *living.addresses))
            dead = PeerId(bytes(32))
            gone = Contact(dead, tuple(f"/ip4/127.0.0.{host}/tcp/{hole.getsockname()[1]}/p2p/{peer_text(dead)}" for host in range(1, 9)))
            found = await look_up(KEY, [gone, both])
            assert found.servers == {living.peer: living.addresses[0]}
        hole.setblocking(False)
        arrived = 0
        with suppress(BlockingIOError):
            while True:
                hole.accept()[0].close()
                arrived += 1
        assert 2 <= arrived <= 6, "one for the living server, a few of the eight of the dead one"

    with socket.create_server(("0.0.0.0", 0)) as hole:
        trio.run(run, hole)


def test_dht__record_names_nobody_but_the_peer_that_brought_it() -> None:
    """Attack: a record in somebody else's name would send all newcomers to one victim."""

    async def run() -> None:
        async with open_servers(1) as ((server, store),), open_host(seed=bytes(32), listen=(), rng=Random(1)) as liar:
            await liar.dial(server.addresses[0])
            stream = await liar.open_stream(server.peer_id, [PROTOCOL])
            for contacts in ([make_contact(1)], [make_contact(number) for number in range(2000)]):
                message = pb.Message(type=pb.Message.ADD_PROVIDER, key=KEY, providerPeers=encode_contacts(contacts))
                if message.ByteSize() < 8192:
                    await _write(stream, message)
                    assert await _read(stream, 10_000) is not None
            assert store.find_providers(KEY, trio.current_time()) == []
            await _write(stream, message)
            with pytest.raises(STREAM_ERRORS):
                await _read(stream, 10_000)

    trio.run(run)


@pytest.mark.parametrize("nonsense", [b"\xff\xff\xff\xff\x0f", b"\x04\xff\xff\xff\xff", b"\x02\x08\x05", b"\x02\x08\x01"])
def test_dht__nonsense_and_values_end_the_stream(nonsense: bytes) -> None:
    async def run() -> None:
        async with open_victim(MemoryBlocks()) as victim, open_attacker(victim) as attacker:
            stream = await attacker.open_stream(victim.peer_id, [PROTOCOL])
            await stream.write(nonsense)
            with trio.fail_after(HANGS_S), pytest.raises(STREAM_ERRORS):
                await stream.read(1)

    trio.run(run)


def test_dht__speaks_with_py_libp2ps_own_server() -> None:
    """Servers of others keep and tell our records: `/ipfs/kad/1.0.0` as the specification has it."""

    async def run() -> None:
        seed = bytes([51]) * 32
        host = new_host()
        member = PeerId(bytes(SigningKey(seed).verify_key))
        me = Contact(member, (f"/ip4/127.0.0.1/tcp/4001/p2p/{peer_text(member)}",))
        async with host.run([Multiaddr(LOOPBACK[0])]), background_trio_service(KadDHT(host, DHTMode.SERVER)):
            (server,) = read_contacts([str(host.get_addrs()[0])])
            assert await provide(KEY, me, {server.peer: server.addresses[0]}, seed, forgetful := set()) == 1
            assert not forgetful
            found = await look_up(KEY, [server])
            assert found.providers == {me.peer: me}

    trio.run(run)


class PublicServer:
    """A server of the IPFS DHT as go-libp2p-kad-dht keeps addresses, with a clock of its own, `now_s`.

    What Identify says is kept for IDENTIFIED_S, from the connection on. A newer one keeps for a day what a record says, unless Identify
    says the same.
    """

    IDENTIFIED_S = 900.0
    RECORDED_S = 86400.0

    def __init__(self, host: Host, *, reads_records: bool) -> None:
        self.host, self._reads_records, self.now_s = host, reads_records, 0.0
        self.is_late = False  # It asks for Identify when nothing else is to be done.
        self._identified: dict[PeerId, dict[bytes, float]] = {}  # address -> until when
        self._recorded: dict[PeerId, dict[bytes, float]] = {}
        host.handle_streams(PUBLIC_PROTOCOL, self._serve)

    async def run(self) -> None:
        """Ask whoever connects for Identify, for each connection."""
        seen: set[Yamux] = set()
        while True:
            for peer in self.host.connected():
                for conn in self.host.connections(peer):
                    if conn not in seen:
                        seen.add(conn)
                        self.host.nursery.start_soon(self._identify, peer)
            await self.host.wait_for_change()

    async def _identify(self, peer: PeerId) -> None:
        if self.is_late:
            await trio.testing.wait_all_tasks_blocked(0.05)
        for _ in range(5):  # The connection before may have ended unnoticed.
            with suppress(*STREAM_ERRORS):
                stream = await self.host.open_stream(peer, [IDENTIFY_PROTOCOL])
                said = Identify.FromString(await read_exactly(stream, await read_varint(stream)))
                self._identified[peer] = dict.fromkeys(said.listen_addrs, self.now_s + self.IDENTIFIED_S)
                for address in said.listen_addrs:
                    self._recorded.get(peer, {}).pop(address, None)
                return await stream.close()

    async def _serve(self, peer: PeerId, stream: INetStream) -> None:
        question = await _read(stream, 8192)
        assert question is not None
        if question.type == pb.Message.ADD_PROVIDER:
            (said,) = question.providerPeers
            known = self._identified.get(peer, {})
            recorded = dict.fromkeys(said.addrs if self._reads_records else (), self.now_s + self.RECORDED_S)
            self._recorded[peer] = {address: until_s for address, until_s in recorded.items() if address not in known}
        else:
            answer = pb.Message(type=question.type, key=question.key)
            for told in self._recorded:
                found = self._identified.get(told, {}) | self._recorded[told]
                addresses = [address for address, until_s in found.items() if until_s > self.now_s]
                answer.providerPeers.append(pb.Message.Peer(id=libp2p_id(told).to_bytes(), addrs=addresses))
            await _write(stream, answer)
        await stream.close()


@asynccontextmanager
async def open_public(number: int, *, reads_records: bool) -> AsyncIterator[PublicServer]:
    async with open_host(seed=bytes([number]) * 32, listen=LOOPBACK, rng=Random(number)) as host:
        server = PublicServer(host, reads_records=reads_records)
        host.nursery.start_soon(server.run)
        yield server


def test_provide__lets_old_and_new_servers_of_the_ipfs_dht_keep_addresses_as_long_as_they_can() -> None:
    """Old ones read Identify only and forget soon; new ones forget soon what Identify says, and keep what only the record says."""

    async def run() -> None:
        seed = bytes([52]) * 32
        member = PeerId(bytes(SigningKey(seed).verify_key))
        me = Contact(member, (f"/ip4/127.0.0.1/tcp/4001/p2p/{peer_text(member)}",))
        async with open_public(1, reads_records=False) as old, open_public(2, reads_records=True) as new:

            async def tells(server: PublicServer, now_s: float) -> bool:
                server.now_s = now_s
                return (await look_up(KEY, read_contacts(server.host.addresses))).providers == {member: me}

            servers = {server.host.peer_id: server.host.addresses[0] for server in (old, new)}
            forgetful: set[PeerId] = set()
            assert await provide(KEY, me, servers, seed, forgetful) == 2
            assert forgetful == {old.host.peer_id}
            assert await tells(old, 890.0)
            assert not await tells(old, 910.0)
            assert await tells(new, 86000.0)

            arrivals = [server.host.swarm.arrivals for server in (old, new)]
            assert await provide(KEY, me, servers, seed, forgetful) == 2
            assert forgetful == {old.host.peer_id}
            assert [server.host.swarm.arrivals for server in (old, new)] == [count + 1 for count in arrivals], "one connection each"
            assert await tells(old, 1790.0)
            assert await tells(new, 172000.0)

            old.is_late = True
            assert await provide(KEY, me, servers, seed, again := set()) == 2
            assert again == {old.host.peer_id}, "what is left of Identify's last words is no answer"

    trio.run(run)


def test_records__are_bounded_on_every_side() -> None:
    store = RecordStore()
    for number in range(SESSIONS_MAX + 50):
        store.add_provider(number.to_bytes(34, "big"), make_contact(1), 0.0)
    assert len(store._records) == SESSIONS_MAX
    for number in range(PROVIDERS_MAX + 50):
        store.add_provider(KEY, make_contact(number), float(number))
    assert [contact.peer[31] for contact in store.find_providers(KEY, 100.0)] == list(range(PROVIDERS_MAX + 49, 49, -1))
    assert store.find_providers(KEY, RECORD_S + 1000.0) == []
    store.add_provider(bytes(100), make_contact(1), 0.0)
    assert store.find_providers(bytes(100), 0.0) == []
    assert len(decode_contacts(encode_contacts([make_contact(number, addresses=30) for number in range(100)]))) == CLOSEST
    (contact,) = decode_contacts(encode_contacts([make_contact(1, addresses=30)]))
    assert len(contact.addresses) == 8


def test_contacts__one_network_address_never_fills_the_list_and_settings_stay() -> None:
    """Attack: identities cost nothing, so one machine could be all the servers that a node knows."""
    store = RecordStore()
    store.add_contact(make_contact(9999), "")
    for number in range(1000):
        store.add_contact(make_contact(number), "198.51.100.1")
    assert len(store._contacts) == 1 + CONTACTS_PER_SOURCE_MAX
    for number in range(1000, 3000):
        store.add_contact(make_contact(number), f"198.51.{number >> 8}.{number & 255}")
    assert len(store._contacts) == CONTACTS_MAX
    store.forget_contact(make_contact(9999).peer)
    assert make_contact(9999).peer in store._contacts
    closest = store.find_closest(KEY)
    assert len(closest) == CLOSEST
    farthest = compute_distance(KEY, closest[-1].peer)
    assert sum(compute_distance(KEY, peer) <= farthest for peer in store._contacts) == CLOSEST


@pytest.mark.parametrize(
    ("address", "via", "may"),
    [
        ("/ip4/8.8.8.8", "/ip4/9.9.9.9", True),
        ("/ip4/192.168.1.1", "/ip4/9.9.9.9", False),
        ("/ip4/127.0.0.1", "/ip4/9.9.9.9", False),
        ("/ip4/127.0.0.1", "/ip4/192.168.1.1", False),
        ("/ip4/127.0.0.1", "/ip4/127.0.0.1", True),
        ("/ip4/192.168.1.1", "/ip4/192.168.1.2", True),
        ("/ip4/8.8.8.8", "/ip4/192.168.1.2", True),
        ("/ip4/169.254.1.1", "/ip4/127.0.0.1", False),
        ("/ip4/224.0.0.1", "/ip4/127.0.0.1", False),
        ("/dns4/example.org", "/ip4/9.9.9.9", True),
        ("/dns4/example.org", "/ip4/127.0.0.1", False),
    ],
)
def test_addresses__told_by_strangers_never_point_into_this_network(address: str, via: str, may: bool) -> None:
    """Attack: a server that answers with addresses of the asker's own router or services."""
    end = f"/tcp/1/p2p/{peer_text(PeerId(bytes(32)))}"
    assert may_follow(address + end, via + end) is may


def test_contacts__of_other_kinds_of_keys_or_addresses_are_left_out() -> None:
    good = encode_contacts([make_contact(1)])[0]
    odd = [
        pb.Message.Peer(id=b"\x12\x20" + bytes(32), addrs=good.addrs),
        pb.Message.Peer(id=libp2p_id(PeerId(bytes(32))).to_bytes(), addrs=[b"\xff\xff", b"", Multiaddr("/ip4/1.2.3.4/udp/1").to_bytes()]),
    ]
    assert decode_contacts([*odd, good]) == [Contact(PeerId(bytes(32)), ()), make_contact(1)]
