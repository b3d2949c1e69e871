"""Addresses are told by others: whatever a text holds, it is an address of this network or refused in a sentence."""

from __future__ import annotations

from random import Random

import pytest
import trio

from learnae.backends.libp2p_address import parse_address, read_ip, read_target
from learnae.backends.libp2p_host import open_host
from learnae.errors import BadAddressError
from learnae.ids import PeerId, peer_text

BOB = PeerId(bytes(range(32)))
NAME = f"/p2p/{peer_text(BOB)}"
RELAY = f"/ip4/192.0.2.7/tcp/4001/p2p/{peer_text(PeerId(bytes(32)))}/p2p-circuit"
STRANGE = ("/ip6zone/\u0663\u0663\u0663", "/ip6zone/%", "/onion3/a:1", "/certhash/u", "/garlic64/a", "/unix/a", "/memory/1", "/http")


@pytest.mark.parametrize("strange", STRANGE)
def test_read_target__refuses_whatever_the_library_cannot_read(strange: str) -> None:
    """Attacks, malformed bytes: a member tells its addresses, and each of the others reads them, also after every start."""
    ends = ("", NAME, f"/p2p-circuit{NAME}")
    for address in (before + strange + end for before in ("", "/ip4/192.0.2.7", "/ip4/192.0.2.7/tcp/1") for end in ends):
        with pytest.raises(BadAddressError, match="expected a multiaddr"):
            read_target(address)
        assert read_ip(address) is None


@pytest.mark.parametrize("place", ["/ip4/192.0.2.7/tcp/4001", "/ip6/2001:db8::7/tcp/1", "/dns/a.example/tcp/1", "/dns6/a/tcp/1"])
def test_read_target__knows_hosts_and_circuits(place: str) -> None:
    assert read_target(place + NAME) == read_target(place + NAME + "/") == BOB
    assert str(parse_address(place + NAME)[0]) == place
    assert read_target(RELAY + NAME) == BOB


def test_learn_addresses__a_member_that_tells_nonsense_ends_no_node() -> None:
    """Threats, malformed bytes: never a crash."""

    async def run() -> None:
        async with open_host(seed=b"a" * 32, listen=[], rng=Random(1)) as host:
            host.learn_addresses(BOB, [f"{strange}/p2p-circuit{NAME}" for strange in STRANGE])
            assert host.direct_addresses(BOB) == ()
            host.learn_addresses(BOB, [f"/ip4/192.0.2.7/tcp/4001{NAME}"])
            assert host.direct_addresses(BOB) == (f"/ip4/192.0.2.7/tcp/4001{NAME}",)

    trio.run(run)
