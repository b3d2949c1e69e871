"""Do others reach this machine? Members are dialled under an identity that is thrown away, and asked to dial back."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from random import SystemRandom

from learnae.backends.libp2p_address import find_outside, parse_address, read_ip
from learnae.backends.libp2p_dialback import DialbackAnswer, Reached, ask_dialback, choose_port
from learnae.backends.libp2p_host import open_host
from learnae.backends.libp2p_punch_port import PunchError, choose_observers, open_punch_port
from learnae.errors import BadAddressError, ListenError, UnreachableError
from learnae.ids import PeerId


async def ask_members(
    addresses: Sequence[str], listen: str, *, told: Sequence[str], wanted: PeerId | None, asked_max: int
) -> DialbackAnswer | None:
    """What members at `addresses` say of this machine's port; None: nobody answered.

    `told`: where others are told to find this node. A member outside is asked for the port of a public address among these; one in this
    network, or if there is none, for the port in `listen`. `wanted`: who should answer there, a node that runs; None: nobody does yet, so
    this function listens meanwhile. One that reaches it is enough; members in this network say nothing about the rest of the world and
    are asked only if nobody outside answers, those on this very machine last. If nobody reaches it, two of those who answered are asked
    how the router shows this machine.
    """
    said: DialbackAnswer | None = None
    asked, is_afar = 0, False
    answered: list[str] = []
    inside, outside = int(listen.rpartition("/")[2]), find_outside(told)
    try:
        async with open_host(seed=secrets.token_bytes(32), listen=[listen] if wanted is None else [], rng=SystemRandom()) as host:
            for address in sorted(addresses, key=_rate_nearness):
                near = _rate_nearness(address)
                if asked >= asked_max or (said is not None and (said.is_reached or (is_afar and near))):
                    break
                try:
                    peer = parse_address(address)[1]
                    await host.dial(address)
                except (BadAddressError, UnreachableError):
                    continue
                answered.append(address)
                answer = await ask_dialback(host, peer, choose_port(host, peer, inside=inside, outside=outside), wanted or host.peer_id)
                host.disconnect(peer)
                if answer is not None and answer.reached is not Reached.BUSY:
                    said, asked, is_afar = answer, asked + 1, not near
    except ListenError:
        return None  # told by its own check
    if said is not None and not said.is_reached:
        with suppress(PunchError):
            async with open_punch_port(choose_observers(answered)) as seen:
                return replace(said, keeps_port=seen.observation.is_same)
    return said


def _rate_nearness(address: str) -> int:
    """0: a member outside, or a name; 1: in a private network; 2: on this machine."""
    ip = read_ip(address)
    return 0 if ip is None or ip.is_global else 2 if ip.is_loopback else 1
