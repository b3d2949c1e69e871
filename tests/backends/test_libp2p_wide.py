"""A newcomer whose ticket names nobody who is still there finds the session by its CID: real hosts, nobody else's servers."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from itertools import pairwise
from random import Random

import pytest
import trio
import trio.testing
from nacl.signing import SigningKey

from learnae.backends import libp2p_wide
from learnae.backends.libp2p import Libp2pNetwork, open_libp2p_network
from learnae.backends.libp2p_dht import RENEW_S, Found
from learnae.backends.libp2p_dht_records import Contact, RecordStore
from learnae.backends.libp2p_dialback import Reachability
from learnae.backends.libp2p_host import open_host
from learnae.backends.libp2p_wide import WideArea, WideFinder, _group_by_reach
from learnae.backends.memory_blocks import MemoryBlocks
from learnae.errors import BadAddressError
from learnae.ids import Cid, PeerId, compute_cid, peer_text
from tests.backends.hostile import LOOPBACK, open_victim, until

SESSION = compute_cid(b"the rules of a session")


def open_node(
    number: int, bootstrap: Sequence[str], *, listen: Sequence[str] = LOOPBACK, ticket: Sequence[str] = (), session: Cid = SESSION
) -> AbstractAsyncContextManager[Libp2pNetwork]:
    wide = WideArea(session=session, bootstrap=tuple(bootstrap))
    seed = bytes([number]) * 32
    return open_libp2p_network(seed=seed, listen=listen, blocks=MemoryBlocks(), bootstrap=ticket, wide=wide, rng=Random(number))


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libp2p_wide, "LONELY_S", 0.1)
    monkeypatch.setattr(libp2p_wide, "AGAIN_FIRST_S", 0.2)
    monkeypatch.setattr(libp2p_wide, "CHANGED_S", 0.1)


def test_newcomer__with_a_dead_ticket_finds_the_session_in_the_dht() -> None:
    """Issue: DHT records under the session's CID. The server is a node of another session, and stays out of this one."""
    dead = f"/ip4/127.0.0.1/tcp/1/p2p/{peer_text(PeerId(bytes(range(32))))}"

    async def run() -> None:
        async with open_victim(MemoryBlocks()) as server, open_node(2, server.addresses) as member:
            await until(lambda: bool(server.records.find_providers(SESSION[2:], trio.current_time())))
            async with (
                open_node(3, server.addresses, ticket=[dead]) as newcomer,
                open_node(4, server.addresses, session=compute_cid(b"another")) as other,
            ):
                await until(lambda: member.peer_id in newcomer.connected())
                assert other.peer_id not in member.connected()
                assert server.peer_id not in newcomer.connected(), "questions go out over a host of their own"

    trio.run(run)


def test_member__that_cannot_be_dialled_is_found_through_its_relay() -> None:
    """The record of a node behind a router names its relay; the newcomer comes in through it."""

    async def run() -> None:
        async with open_victim(MemoryBlocks()) as relay, open_node(2, relay.addresses, listen=[], ticket=relay.addresses) as hidden:
            relay.keep_places(frozenset({hidden.peer_id}))
            await until(lambda: bool(relay.records.find_providers(SESSION[2:], trio.current_time())))
            (record,) = relay.records.find_providers(SESSION[2:], trio.current_time())
            assert record.addresses == (f"{relay.addresses[0]}/p2p-circuit/p2p/{peer_text(hidden.peer_id)}",)
            async with open_node(3, relay.addresses, listen=[]) as newcomer:
                await until(lambda: hidden.peer_id in newcomer.connected())

    trio.run(run)


def test_node__that_listens_nowhere_and_has_no_relay_tells_the_dht_nothing() -> None:
    async def run() -> None:
        async with open_victim(MemoryBlocks()) as server, open_node(2, server.addresses, listen=[]) as silent:
            assert silent.extra_addresses == ()
            assert silent.wide is not None and silent.wide._choose_told() == ()
        async with open_node(3, ["/ip4/127.0.0.1/tcp/1/p2p/" + peer_text(PeerId(bytes(32)))]) as open_one:
            assert open_one.wide is not None and open_one.wide._choose_told() == open_one.addresses
            open_one.reach.is_reachable = False
            assert open_one.wide._choose_told() == (), "others tried, and did not get in"

    trio.run(run)


def test_member__tells_forgetful_servers_before_they_forget_and_the_others_hourly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Issue: DHT records under the session's CID. Some servers of the IPFS DHT keep addresses for ten minutes only."""
    end = f"/tcp/4001/p2p/{peer_text(PeerId(bytes(32)))}"
    old, new = PeerId(b"o" * 32), PeerId(b"n" * 32)
    servers = {old: f"/ip4/9.9.9.9{end}", new: f"/ip4/8.8.8.8{end}"}
    told: dict[PeerId, list[float]] = {old: [], new: []}
    looked_s: list[float] = []

    async def find_all(key: bytes, contacts: Sequence[Contact], **options: object) -> Found:
        await trio.lowlevel.checkpoint()
        looked_s.append(trio.current_time())
        return Found(servers=dict(servers))

    async def tell(key: bytes, me: Contact, servers: dict[PeerId, str], seed: bytes, forgetful: set[PeerId]) -> int:
        await trio.lowlevel.checkpoint()
        for peer in servers:
            told[peer].append(trio.current_time())
        forgetful.update({old} & servers.keys())
        return len(servers)

    monkeypatch.setattr(libp2p_wide, "look_up", find_all)
    monkeypatch.setattr(libp2p_wide, "provide", tell)
    monkeypatch.setattr(libp2p_wide, "CHANGED_S", 10.0)
    monkeypatch.setattr(libp2p_wide, "LONELY_S", 1e9)

    async def run() -> None:
        seed = bytes([2]) * 32
        me = f"/ip4/8.8.4.4/tcp/4001/p2p/{peer_text(PeerId(bytes(SigningKey(seed).verify_key)))}"
        wide = WideArea(session=SESSION, bootstrap=(servers[new],), announce=(me,))
        async with open_host(seed=seed, listen=(), rng=Random(2)) as host:
            reach, store = Reachability(host, Random(2)), RecordStore()
            network = Libp2pNetwork(host, MemoryBlocks(), Random(2))
            finder = WideFinder(host, wide, seed, records=store, reach=reach, circuits=network.circuits)
            with trio.move_on_after(12 * 3600.0):
                await finder.run()

    trio.run(run, clock=trio.testing.MockClock(autojump_threshold=0.0))
    assert len(told[new]) == len(looked_s) == 12
    assert max(later - earlier for earlier, later in pairwise([*told[old], 12 * 3600.0])) < 600.0
    assert len(told[old]) <= 12 * 3600 / RENEW_S + 12


def test_records__tell_a_public_server_no_private_addresses() -> None:
    end = f"/tcp/1/p2p/{peer_text(PeerId(bytes(32)))}"
    private, public = f"/ip4/192.168.1.7{end}", f"/ip4/8.8.4.4{end}"
    near, far = PeerId(b"n" * 32), PeerId(b"f" * 32)
    servers = {near: f"/ip4/192.168.1.1{end}", far: f"/ip4/9.9.9.9{end}"}

    assert _group_by_reach(servers, [private, public]) == [({near: servers[near]}, (private, public)), ({far: servers[far]}, (public,))]
    assert _group_by_reach({far: servers[far]}, [private]) == []


def test_bootstrap__that_is_no_address_is_refused_at_the_start() -> None:
    async def run() -> None:
        with pytest.raises(BadAddressError, match="expected a multiaddr"):
            async with open_node(2, ["example.org"]):
                raise AssertionError("it must not open")

    trio.run(run)
