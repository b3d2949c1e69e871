"""What can be reached from here: the other members, this node itself, and the Ethereum endpoints."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import trio

from learnae.backends.disk_journal import read_journal_beside
from learnae.backends.errors import KuboError
from learnae.cli.doctor.findings import Finding, care, good, note, skipped
from learnae.cli.folder import NodeFolder
from learnae.errors import ChainError, JournalDamagedError
from learnae.ids import PeerId, parse_peer
from learnae.protocol.messages import Joined, parse_message
from learnae.tangle.vertex import Vertex, VertexCodec

PEERS_MAX: Final = 64  # Dialled in one call: enough to see what is wrong, and a few seconds at most.
ANSWER_S: Final = 15.0
CLOCK_OFF_S: Final = 15.0  # Ethereum's own clients drop a peer whose clock is off by this much.
BLOCK_AGE_S: Final = 120.0  # Ten slots of Ethereum without a block: its end is elsewhere, or the endpoint has stopped.


@dataclass(frozen=True, slots=True)
class ChainFacts:
    """What an endpoint said."""

    chain_id: int
    height: int
    time_s: int  # of its newest block
    base_fee_wei: int


def find_members(folder: NodeFolder, *, me: str) -> dict[str, list[str]]:
    """Addresses of other peers by peer id: what members said last, from the journal, and what the ticket names.

    Raises: JournalDamagedError. FolderError, TicketError: the ticket cannot be read.
    """
    found: dict[str, list[str]] = {}
    for address in folder.read_ticket().addresses:
        found.setdefault(address.rpartition("/p2p/")[2], []).append(address)
    codec = VertexCodec()
    said: dict[PeerId, tuple[str, ...]] = {}
    for encoded in read_journal_beside(folder.path):
        vertex = codec.decode(encoded)
        message = parse_message(vertex.kind, vertex.body) if isinstance(vertex, Vertex) else None
        if isinstance(vertex, Vertex) and isinstance(message, Joined):
            said[vertex.issuer] = message.addresses
    for peer, addresses in said.items():
        for address in addresses:
            if _names(address, peer):
                found.setdefault(address.rpartition("/p2p/")[2], []).append(address)
    return {peer: list(dict.fromkeys(addresses)) for peer, addresses in found.items() if peer != me}


def _names(address: str, peer: PeerId) -> bool:
    try:
        return parse_peer(address.rpartition("/p2p/")[2]) == peer
    except ValueError:
        return False


async def check_peers(folder: NodeFolder, *, me: str) -> list[Finding]:
    """Dial the other members, with a throwaway identity."""
    try:
        members = find_members(folder, me=me)
    except JournalDamagedError as error:
        return [care("peers", str(error), "stop the node and restore journal.sqlite; a new peer would need a new deposit")]
    if not members:
        remedy = "give the ticket to the others, or wait: members tell theirs when training begins"
        return [note("peers", "no other member's address is known yet", remedy)]
    try:
        from learnae.backends.libp2p_probe import probe_addresses
    except ModuleNotFoundError as error:
        return [skipped("peers", f"the Python package {error.name!r} is not installed, so nobody was dialled; install learnae[net]")]
    chosen = dict(list(members.items())[-PEERS_MAX:])
    faults = await probe_addresses([address for addresses in chosen.values() for address in addresses])
    return _judge_peers(chosen, faults, known=len(members))


def _judge_peers(chosen: Mapping[str, Sequence[str]], faults: Mapping[str, str], *, known: int) -> list[Finding]:
    answered = [peer for peer, addresses in chosen.items() if any(not faults[address] for address in addresses)]
    silent = [f"{peer[-6:]}: {faults[chosen[peer][0]]}" for peer in chosen if peer not in answered]
    of = f"{len(answered)} of {len(chosen)} other members answer" + (f" (of {known} known)" if known > len(chosen) else "")
    if not answered:
        return [care("peers", f"{of}; {silent[0]}", "ask whether their nodes run; if they do, a firewall here or there is in the way")]
    if silent:
        return [note("peers", f"{of}; {'; '.join(silent[:4])}", "members may be away: nobody waits for them")]
    return [good("peers", of)]


async def check_own(address: str) -> Finding:
    """Whether this folder's running node answers where it listens."""
    try:
        from learnae.backends.libp2p_probe import probe_addresses
    except ModuleNotFoundError as error:
        return skipped("node", f"the Python package {error.name!r} is not installed, so this node was not dialled; install learnae[net]")
    fault = (await probe_addresses([address]))[address]
    if fault:
        return care("node", f"this folder's node runs and does not answer: {fault}", "look into its node.log, and start it again")
    return good("node", f"this folder's node answers at {address}")


def check_kubo(url: str) -> Finding:
    """Ask the IPFS daemon that this node uses who it is, and whether gossip can go through it."""
    try:
        from learnae.backends.kubo_rpc import KuboRpc

        rpc = KuboRpc(url)
        try:
            words = f"the IPFS daemon at {rpc.name} answers: Kubo {rpc.read_version()}"
            if rpc.has_pubsub():
                return good("ipfs", f"{words}, with PubSub")
            return care("ipfs", f"{words}, without PubSub", "start it as `ipfs daemon --enable-pubsub-experiment` to gossip through it")
        finally:
            rpc.close()
    except ModuleNotFoundError as error:
        return skipped("ipfs", f"the Python package {error.name!r} is not installed, so {url} was not asked; install learnae[net]")
    except KuboError as error:
        return care("ipfs", str(error), 'start it, or set "backend": "libp2p" in settings.json: then blocks are kept in the folder')


async def check_chain(url: str, *, chain_id: int | None, fee_cap_wei: int, label: str = "chain") -> list[Finding]:
    """Ask an Ethereum endpoint for its chain, newest block and fee; compare this machine's clock with that block."""
    try:
        from learnae.backends.ethereum.rpc import Endpoint
    except ModuleNotFoundError as error:
        return [skipped(label, f"the Python package {error.name!r} is not installed, so {url} was not asked; install learnae[chain]")]
    try:
        with trio.fail_after(ANSWER_S):
            async with Endpoint(url, lambda sentence: None) as endpoint:
                facts, name = await _ask(endpoint), endpoint.name
    except trio.TooSlowError:
        return [care(label, f"the endpoint gave no answer within {ANSWER_S:.0f} s", "try another --rpc (`rpc` in settings.json)")]
    except ChainError as error:
        return [care(label, str(error), "put another endpoint into `rpc` of settings.json if this one stays silent")]
    return [*_judge_chain(facts, name, label, chain_id=chain_id, fee_cap_wei=fee_cap_wei), judge_clock(facts.time_s, time.time())]


async def _ask(endpoint: object) -> ChainFacts:
    from learnae.backends.ethereum.rpc import Endpoint, Fields, read_number

    assert isinstance(endpoint, Endpoint)
    chain_id = read_number("eth_chainId", await endpoint.request("eth_chainId"))
    block = Fields("eth_getBlockByNumber", await endpoint.request("eth_getBlockByNumber", "latest", False))
    base_fee_wei = 0 if block.maybe_data("hash") is None else block.number("baseFeePerGas")
    return ChainFacts(chain_id, block.number("number"), block.time("timestamp"), base_fee_wei)


def _judge_chain(facts: ChainFacts, name: str, label: str, *, chain_id: int | None, fee_cap_wei: int) -> list[Finding]:
    seen = f"{name} serves chain {facts.chain_id}, block {facts.height}, base fee {facts.base_fee_wei / 1e9:.3f} gwei"
    if chain_id is not None and facts.chain_id != chain_id:
        return [care(label, f"{seen}, but the session is on chain {chain_id}", "put an endpoint of that chain into `rpc` of settings.json")]
    if facts.base_fee_wei > fee_cap_wei:
        remedy = "wait, or raise `fee_cap_wei` in settings.json before a stage ends"
        return [care(label, f"{seen}, above this node's cap of {fee_cap_wei / 1e9:g} gwei: its transactions would wait", remedy)]
    return [good(label, seen)]


def judge_clock(block_s: float, now_s: float) -> Finding:
    """This machine's clock against the time in the newest block, which validators keep within seconds of the world's."""
    age_s = now_s - block_s
    if age_s < -CLOCK_OFF_S:
        text = f"the newest block is {-age_s:.0f} s ahead of this machine's clock, so the clock is slow"
        return care("clock", text, "set it by NTP (`timedatectl set-ntp true`)")
    if age_s > BLOCK_AGE_S:
        text = f"the newest block is {age_s:.0f} s old: this machine's clock is fast, or the endpoint has stopped following its chain"
        return care("clock", text, "compare the clock with another one; if it is right, use another endpoint")
    return good("clock", f"the newest block is {max(age_s, 0):.0f} s old by this machine's clock")
