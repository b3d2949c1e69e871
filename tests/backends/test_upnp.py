"""A router is asked to let others in: against a stand-in on loopback, by real multicast."""

from __future__ import annotations

import psutil
import pytest
import trio

from learnae.backends import upnp, upnp_keeper
from learnae.backends.libp2p import open_libp2p_network
from learnae.backends.libp2p_wide import WideArea
from learnae.backends.memory_blocks import MemoryBlocks
from learnae.backends.upnp import LEASE_S, PORTS_TRIED, PortMapping
from learnae.backends.upnp_keeper import keep_port_open
from learnae.ids import compute_cid, peer_text
from tests.backends.hostile import LOOPBACK, until
from tests.backends.igd_standin import Router, open_router
from tests.processes import HANGS_S, find_left


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upnp, "DISCOVER_MS", 300)
    monkeypatch.setattr(upnp_keeper.logger, "disabled", False)  # import-linter, in another test, switches off the loggers that it finds


def make_mapping(*, discover_ms: int = 300) -> PortMapping:
    return PortMapping(4001, interface="127.0.0.1", discover_ms=discover_ms)


def test_port__is_opened_for_an_hour_and_taken_back() -> None:
    with open_router() as router:
        router.address = "8.8.4.4"
        mapping = make_mapping()
        mapping.open()
        assert (mapping.outside, mapping.address) == (4001, "8.8.4.4")
        assert router.open == {4001: ("127.0.0.1", 4001, int(LEASE_S))}
        mapping.open()
        assert len(router.open) == 1, "asked again, it is the same port"
        mapping.close()
        assert router.open == {} and router.closed == [4001] and mapping.outside == 0


def test_port__that_another_machine_has_is_replaced_by_the_next_one() -> None:
    with open_router() as router:
        router.taken = {4001, 4002}
        mapping = make_mapping()
        mapping.open()
        assert router.open[4003][:2] == ("127.0.0.1", 4001)
        assert mapping.address == "", "203.0.113.9 is no public address: another router stands before this one"


def test_router__that_knows_no_end_of_a_lease_opens_the_port_until_it_is_taken_back() -> None:
    with open_router() as router:
        router.only_permanent = True
        mapping = make_mapping()
        mapping.open()
        assert router.open == {4001: ("127.0.0.1", 4001, 0)}
        mapping.close()
        assert router.open == {}


def test_router__that_started_anew_elsewhere_is_found_again() -> None:
    """It has forgotten the port, and its description lies at another address: seen with miniupnpd."""
    mapping = make_mapping()
    with open_router() as before:
        mapping.open()
    with open_router() as router:
        mapping.open()
        assert before.open[4001] == router.open[4001]
        assert mapping.outside == 4001


def test_router__that_refuses_or_is_not_there_is_one_sentence() -> None:
    with pytest.raises(OSError, match="no router in this network speaks UPnP"):
        make_mapping(discover_ms=50).open()  # Nobody will answer.
    mapping = make_mapping()
    with open_router() as router:
        router.taken = set(range(4001, 4001 + PORTS_TRIED))
        with pytest.raises(OSError, match="opens no port"):
            mapping.open()
        assert router.open == {}


def test_node__tells_the_address_of_its_router_and_closes_the_port_at_the_end() -> None:
    async def run() -> None:
        wide = WideArea(session=compute_cid(b"rules"), upnp=True, upnp_interface="127.0.0.1")
        with open_router() as router:
            router.address = "8.8.4.4"
            async with open_libp2p_network(seed=bytes([1]) * 32, listen=LOOPBACK, blocks=MemoryBlocks(), wide=wide) as network:
                port = int(network.addresses[0].split("/")[4])
                await until(lambda: bool(network.extra_addresses))
                assert network.extra_addresses == (f"/ip4/8.8.4.4/tcp/{port}/p2p/{peer_text(network.peer_id)}",)
                assert network.reach.mapped_port == port
            assert router.closed == [port]

    trio.run(run)


def test_node__that_ends_waits_two_seconds_at_most_for_its_router() -> None:
    """A router that hangs, or none at all, kept a node from ending for eight seconds and more."""

    async def run(router: Router) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: keep_port_open(4001, lambda port, address: None, interface="127.0.0.1"))
            await trio.to_thread.run_sync(router.asked.wait, HANGS_S)
            nursery.cancel_scope.cancel()
        assert not router.is_free.is_set(), "it has not answered yet"
        assert find_left(psutil.Process().children()) == []
        router.is_free.set()

    with open_router() as router:
        router.is_free.clear()
        trio.run(run, router)


def test_router__that_sends_without_end_costs_a_process_with_little_memory(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Attack: whoever is in the local network answers as a router. The library would take all the memory there is."""
    monkeypatch.setattr(upnp_keeper, "AGAIN_S", 0.01)

    async def run(router: Router) -> None:
        told: list[tuple[int, str]] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: keep_port_open(4001, lambda port, address: told.append((port, address)), interface="127.0.0.1"))
            await until(lambda: (0, "") in told)
            router.is_endless = False
            await until(lambda: told[-1][0] == 4001)
            nursery.cancel_scope.cancel()

    with open_router() as router:
        router.is_endless = True
        trio.run(run, router)
        assert router.closed == [4001]
        assert 1 < router.flood_mib < 256, "the rest of the gigabyte was not read"
    assert "UPnP: " in caplog.text


def test_router__that_refuses_is_told_and_asked_again(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(upnp_keeper, "AGAIN_S", 0.01)

    async def run() -> None:
        told: list[tuple[int, str]] = []
        with open_router() as router:
            router.taken = set(range(4001, 4001 + PORTS_TRIED))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(lambda: keep_port_open(4001, lambda port, address: told.append((port, address)), interface="127.0.0.1"))
                await until(lambda: "opens no port" in caplog.text)
                assert told[-1] == (0, "")
                router.taken = set()
                await until(lambda: told.count((4001, "")) >= 3)
                router.address = "8.8.4.4"
                await until(lambda: told[-1] == (4001, "8.8.4.4"))
                nursery.cancel_scope.cancel()

    trio.run(run)
    assert "so another router stands before it" in caplog.text, "203.0.113.9 is no public address"
    assert 0 < caplog.text.count("names no public address of its own") < 3, "told when it changes, not whenever it was asked"
