"""Do others reach this machine? Members are dialled under an identity that is thrown away, and asked to dial back."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from random import SystemRandom

from learnae.backends.libp2p_address import parse_address
from learnae.backends.libp2p_dialback import DialbackAnswer, Reached, ask_dialback
from learnae.backends.libp2p_host import open_host
from learnae.backends.libp2p_punch_port import PunchError, choose_observers, open_punch_port
from learnae.errors import BadAddressError, ListenError, UnreachableError
from learnae.ids import PeerId


async def ask_members(addresses: Sequence[str], listen: str, *, wanted: PeerId | None, asked_max: int) -> DialbackAnswer | None:
    """What members at `addresses` say of the port in `listen`; None: nobody answered.

    `wanted`: who should answer there, a node that runs; None: nobody does yet, so this function listens meanwhile. One that reaches it is
    enough; a member on this very machine says nothing about the rest of the world and is asked last. If nobody reaches it, two of those
    who answered are asked how the router shows this machine.
    """
    seed = secrets.token_bytes(32)
    said: DialbackAnswer | None = None
    answered: list[str] = []
    try:
        async with open_host(seed=seed, listen=[listen] if wanted is None else [], rng=SystemRandom()) as host:
            port = int(listen.rpartition("/")[2])
            asked = 0
            for address in sorted(addresses, key=lambda text: "/127." in text or "/::1/" in text):
                if asked >= asked_max or (said is not None and said.reached is Reached.YES):
                    break
                try:
                    peer = parse_address(address)[1]
                    await host.dial(address)
                except (BadAddressError, UnreachableError):
                    continue
                answered.append(address)
                answer = await ask_dialback(host, peer, port, wanted or host.peer_id)
                host.disconnect(peer)
                if answer is not None and answer.reached is not Reached.BUSY:
                    said, asked = answer, asked + 1
    except ListenError:
        return None  # told by its own check
    if said is not None and said.reached is Reached.NO:
        with suppress(PunchError):
            async with open_punch_port(choose_observers(answered)) as seen:
                return replace(said, keeps_port=seen.observation.is_same)
    return said
