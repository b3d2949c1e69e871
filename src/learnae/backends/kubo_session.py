"""What a session does with the user's IPFS daemon while a node runs: gossip through it, and find the daemons of other members.

The daemons of one session meet under the CID of its rules: each says in the DHT that it has them, looks who else does, and connects, so
that PubSub has neighbours. Members find one another's nodes as ever (ticket, journal, local network).
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

import trio

from learnae.backends.bare_errors import BareError
from learnae.backends.errors import KuboError
from learnae.backends.kubo_fetch import KuboNetwork
from learnae.backends.kubo_pubsub import KuboPubSub
from learnae.backends.kubo_rpc import KuboRpc
from learnae.ids import Cid
from learnae.ports import BlockStore, Network

logger = logging.getLogger(__name__)

MEET_S: Final = 600.0  # Between looks into the DHT: PubSub needs a few neighbours, and they seldom all go.
MEET_FIRST_S: Final = 30.0  # While nobody was found: the session is young, or the daemon has just started.
NEIGHBOURS_MAX: Final = 16


@asynccontextmanager
async def open_kubo_network(
    inner: Network, blocks: BlockStore, rpc: KuboRpc, *, meeting: tuple[Cid, bytes], tell: Callable[[str], None]
) -> AsyncIterator[KuboNetwork]:
    """`inner`, the daemon's blocks, and gossip through it while the block runs.

    Args:
        meeting: CID and bytes of a block that every member has: the session's rules.
        tell: gets sentences for the user: the daemon is away, is back, or has no PubSub.
    Raises: KuboError: the daemon does not answer.
    """
    has_pubsub = await trio.to_thread.run_sync(rpc.has_pubsub)
    if not has_pubsub:
        why = "so gossip goes by the node alone; `ipfs daemon --enable-pubsub-experiment` has it"
        tell(f"the IPFS daemon at {rpc.name} runs without PubSub, {why}")
    pubsub = KuboPubSub(rpc.url, tell) if has_pubsub else None
    kept = BareError()
    async with trio.open_nursery() as nursery:
        if pubsub is not None:
            nursery.start_soon(pubsub.run)
            nursery.start_soon(partial(keep_meeting, rpc, meeting))
        with kept:
            yield KuboNetwork(inner, blocks, rpc, pubsub=pubsub)
        nursery.cancel_scope.cancel()
    kept.raise_it()


async def keep_meeting(rpc: KuboRpc, meeting: tuple[Cid, bytes], *, every_s: float = MEET_S) -> None:
    """Tell the DHT that this daemon is of the session, and connect to others that are, again and again."""
    while True:
        found = 0
        try:
            found = await trio.to_thread.run_sync(meet, rpc, meeting, abandon_on_cancel=True)  # type: ignore[call-arg]
        except KuboError as error:
            logger.debug("the session's daemons were not looked for: %s", error)
        await trio.sleep(every_s if found else min(MEET_FIRST_S, every_s))


def meet(rpc: KuboRpc, meeting: tuple[Cid, bytes]) -> int:
    """Once; how many other daemons are connected then. Raises: KuboError."""
    cid, _ = meeting
    rpc.put_blocks([meeting])
    rpc.provide(cid)
    return sum(rpc.connect_peer(peer) for peer in rpc.find_providers(cid, count=NEIGHBOURS_MAX))
