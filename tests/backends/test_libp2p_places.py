"""Places: strangers share what members leave, and no address may take them all."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from random import Random

import pytest
import trio
from libp2p.abc import INetStream

from learnae.backends import libp2p_blocks, libp2p_places
from learnae.backends.libp2p import Libp2pNetwork
from learnae.backends.libp2p_blocks import PROTOCOL as BLOCKS
from learnae.backends.libp2p_blocks import STREAMS_PER_PEER_MAX, encode_request
from learnae.backends.libp2p_direct import read_exactly
from learnae.backends.libp2p_host import STREAM_ERRORS, Host, open_host
from learnae.backends.libp2p_places import (
    ADDRESS_BURST,
    ADDRESS_RATE_S,
    ADDRESSES_MAX,
    CONNECTIONS_MAX,
    HANDSHAKES_BURST,
    HANDSHAKES_MAX,
    HANDSHAKES_PER_ADDRESS_MAX,
    STRANGERS_PER_ADDRESS_MAX,
    Places,
    Seat,
    name_source,
)
from learnae.backends.memory_blocks import MemoryBlocks
from learnae.ids import PeerId
from tests.backends.hostile import LOOPBACK, open_attacker, open_victim, until


def make_peer(number: int) -> PeerId:
    return PeerId(number.to_bytes(32, "big"))


def make_seats(count: int, address: str, *, first: int = 0, is_inbound: bool = True) -> list[Seat]:
    return [Seat(make_peer(first + number), address, is_inbound, float(first + number)) for number in range(count)]


def test_places__full_of_strangers_make_room_for_a_member() -> None:
    """docs/attacks.md: strangers that take all connections lose them to members."""
    places = Places(0.0, Random(1))
    crowd = [seat for number in range(8) for seat in make_seats(16, f"192.0.2.{number}", first=100 * number)]
    member = Seat(make_peer(5000), "198.51.100.1", True, 9000.0)
    places.members = frozenset({make_peer(5000)})

    (left,) = places.choose_to_leave([*crowd, member])

    assert left is not member and left.address.startswith("192.0.2.")
    places.members = frozenset()
    (left,) = places.choose_to_leave([*crowd, member])
    assert left.address.startswith("192.0.2."), "a stranger from elsewhere also takes a place of the largest crowd"


def test_places__of_equal_crowds_chance_decides_who_leaves() -> None:
    """Who comes last is not always the one to go, or a full node would take no stranger from anywhere else."""
    places = Places(0.0, Random(1))
    crowd = make_seats(CONNECTIONS_MAX, "")
    seats = [Seat(seat.peer, f"192.0.2.{number}", True, seat.since_s) for number, seat in enumerate(crowd)]
    newcomer = Seat(make_peer(5000), "198.51.100.1", True, 9000.0)

    left = {places.choose_to_leave([*seats, newcomer])[0].address for _ in range(20)}

    assert len(left) > 10


def test_places__one_address_takes_a_quarter_at_most_and_what_was_dialled_stays() -> None:
    places = Places(0.0, Random(1))
    strangers = make_seats(STRANGERS_PER_ADDRESS_MAX + 5, "192.0.2.1")
    dialled = make_seats(40, "192.0.2.1", first=200, is_inbound=False)

    left = places.choose_to_leave([*dialled, *strangers])

    assert {seat.since_s for seat in left} == {32.0, 33.0, 34.0, 35.0, 36.0}, "the newest go"
    places.members = frozenset(seat.peer for seat in strangers if seat.peer is not None)
    assert places.choose_to_leave([*dialled, *strangers]) == []


def test_places__only_members_left_then_the_newest_that_came_by_itself_goes() -> None:
    places = Places(0.0, Random(1))
    seats = [*make_seats(CONNECTIONS_MAX - 10, "192.0.2.1"), *make_seats(12, "192.0.2.2", first=500, is_inbound=False)]
    places.members = frozenset(seat.peer for seat in seats if seat.peer is not None)

    assert [seat.since_s for seat in places.choose_to_leave(seats)] == [117.0, 116.0]


def test_handshakes__of_one_address_leave_some_to_the_others() -> None:
    places = Places(0.0, Random(1))
    begun = [places.begin_handshake("192.0.2.1", 0.0) for _ in range(20)]
    assert begun == [True] * HANDSHAKES_PER_ADDRESS_MAX + [False] * (20 - HANDSHAKES_PER_ADDRESS_MAX)
    assert places.begin_handshake("192.0.2.2", 0.0)
    others = sum(places.begin_handshake(f"192.0.3.{number}", 0.0) for number in range(100))
    assert others == HANDSHAKES_MAX - HANDSHAKES_PER_ADDRESS_MAX - 1
    places.end_handshake("192.0.2.2")
    assert places.begin_handshake("192.0.2.3", 0.0)


def test_handshakes__are_counted_by_time_for_one_address_and_for_all() -> None:
    places = Places(0.0, Random(1))

    def count_begun(address: str, now_s: float) -> int:
        count = 0
        while places.begin_handshake(address, now_s):
            places.end_handshake(address)
            count += 1
        return count

    assert count_begun("192.0.2.1", 0.0) == ADDRESS_BURST
    assert count_begun("192.0.2.2", 0.0) == min(ADDRESS_BURST, HANDSHAKES_BURST - ADDRESS_BURST)
    assert count_begun("192.0.2.3", 0.0) == 0, "the bucket of all is empty"
    assert count_begun("192.0.2.1", 8.0) == 8 * ADDRESS_RATE_S
    for number in range(2 * ADDRESSES_MAX):
        places.begin_handshake(f"10.0.{number >> 8}.{number & 255}", 8.0)
    assert len(places._buckets) == ADDRESSES_MAX
    assert not places._under_way[""]


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3::4", "2001:db8:1::/56"),
        ("2001:db8:1:ff:ffff::9", "2001:db8:1::/56"),
        ("2001:db8:1:100::9", "2001:db8:1:100::/56"),
        ("fe80::1%eth0", "fe80::/56"),
    ],
)
def test_source__is_what_one_line_gets(host: str, name: str) -> None:
    assert name_source((host, 4001)) == name
    assert name_source(None) == ""


@asynccontextmanager
async def open_crowd(victim: Libp2pNetwork, seeds: list[int]) -> AsyncIterator[list[Host]]:
    """Hosts with these seeds, connected to the victim one after the other."""
    async with AsyncExitStack() as stack:
        hosts = []
        for number in seeds:
            host = await stack.enter_async_context(open_host(seed=bytes([number]) * 32, listen=LOOPBACK, rng=Random(number)))
            await host.dial(victim.addresses[0])
            hosts.append(host)
        yield hosts


def test_network__strangers_on_real_sockets_lose_their_places_to_a_member(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libp2p_places, "CONNECTIONS_MAX", 3)

    async def run() -> None:
        async with open_victim(MemoryBlocks()) as victim, open_crowd(victim, [31, 32, 33, 34, 35]) as strangers:
            await until(lambda: len(victim.connected()) == 3)
            async with open_host(seed=bytes([40]) * 32, listen=LOOPBACK, rng=Random(1)) as member:
                victim.keep_places(frozenset({member.peer_id}))
                await member.dial(victim.addresses[0])
                await until(lambda: member.peer_id in victim.connected() and len(victim.connected()) == 3)
                async with open_crowd(victim, [36, 37]):
                    await until(lambda: len(victim.connected()) == 3)
                    assert member.peer_id in victim.connected()
            kept = Counter(host.peer_id in victim.connected() for host in strangers)
            assert kept[True] <= 2, "a member has one of the three places"

    trio.run(run)


def test_serving__strangers_who_took_all_places_give_way_to_a_member(monkeypatch: pytest.MonkeyPatch) -> None:
    """docs/attacks.md: strangers keep no member from a model; the newest of their streams ends, the others go on."""
    monkeypatch.setattr(libp2p_blocks, "STREAMS_MAX", STREAMS_PER_PEER_MAX)
    model = (6).to_bytes(4, "big") + b"shared"

    async def run() -> None:
        store = MemoryBlocks()
        question = encode_request([store.put_file(b"shared")])
        async with (
            open_victim(store) as victim,
            open_attacker(victim) as stranger,
            open_host(seed=bytes([40]) * 32, listen=[], rng=Random(40)) as member,
        ):

            async def ask(stream: INetStream) -> bytes:
                await stream.write(question)
                return await read_exactly(stream, len(model))

            await member.dial(victim.addresses[0])
            streams = [await stranger.open_stream(victim.peer_id, [BLOCKS]) for _ in range(STREAMS_PER_PEER_MAX)]
            assert [await ask(stream) for stream in streams] == [model] * STREAMS_PER_PEER_MAX
            with pytest.raises(STREAM_ERRORS):
                await ask(await member.open_stream(victim.peer_id, [BLOCKS]))
            victim.keep_places(frozenset({member.peer_id}))
            assert await ask(await member.open_stream(victim.peer_id, [BLOCKS])) == model
            with pytest.raises(STREAM_ERRORS):
                await ask(streams.pop())
            assert [await ask(stream) for stream in streams] == [model] * len(streams)

    trio.run(run)
