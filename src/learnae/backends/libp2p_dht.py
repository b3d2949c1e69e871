"""Finding a session by its CID: provider records in a DHT, for newcomers whose ticket names nobody who is still there.

Every node that can be dialled keeps records for others (`/learnae/kad/1.0.0`), of any session. A node with `bootstrap` addresses
tells the servers closest to its session's CID where it is, and asks them when it is alone. It may also ask servers of the public
IPFS DHT (`/ipfs/kad/1.0.0`), but never is one. Questions go out over a host of their own, so that what a session's connections
are worth does not depend on strangers; for looking up it has an identity that is thrown away.

py-libp2p 0.8.1 has a DHT (`kad_dht`), which is not used: `ProviderStore.add_provider` bounds the providers of a key and neither
the keys nor the addresses, for 48 hours, so that one peer fills the memory; every look-up dials over the node's own host and adds
whoever was named to its peer store; and it logs each stranger's mistake.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from random import SystemRandom
from typing import Final

import trio
from google.protobuf.message import DecodeError
from libp2p.abc import INetStream
from libp2p.identity.identify.identify import ID as IDENTIFY_PROTOCOL
from libp2p.identity.identify.pb.identify_pb2 import Identify
from libp2p.kad_dht.pb import kademlia_pb2 as pb

from learnae.backends.libp2p_address import read_target
from learnae.backends.libp2p_dht_records import (
    CLOSEST,
    Contact,
    RecordStore,
    compute_distance,
    decode_contacts,
    encode_contacts,
    may_follow,
)
from learnae.backends.libp2p_direct import PeerBudgets, read_exactly, read_varint
from learnae.backends.libp2p_host import STREAM_ERRORS, Host, drop_stream, muxed_stream_of, open_host
from learnae.backends.libp2p_places import name_source
from learnae.backends.unixfs import encode_varint
from learnae.errors import UnreachableError
from learnae.ids import PeerId

logger = logging.getLogger(__name__)

PROTOCOL: Final = "/learnae/kad/1.0.0"
PUBLIC_PROTOCOL: Final = "/ipfs/kad/1.0.0"
QUESTION_BYTES_MAX: Final = 8192
ANSWER_BYTES_MAX: Final = 262144  # Public servers add signed records to their contacts.
QUESTION_COST_BYTES: Final = 4096
RATE_BYTES_S: Final = 65536  # Per peer: 16 questions a second.
BURST_BYTES: Final = 262144
IDLE_S: Final = 30.0
QUERY_S: Final = 8.0
TELL_S: Final = 15.0  # Of one server: two connections, if it is forgetful.
RENEW_S: Final = 540.0  # Before forgetful servers forget: those of the internet keep addresses for 10 minutes at least.
DIAL_S: Final = 4.0  # Of one address in a look-up: many servers of the IPFS DHT name several, of which some lead nowhere.
PEER_S: Final = 10.0  # Of one server in a look-up, whatever it names.
LOOKUP_S: Final = 60.0
QUERIES_MAX: Final = 60  # In one look-up.
AT_ONCE: Final = 3  # alpha of the specification
PROVIDERS_WANTED: Final = 8


class DhtServer:
    """Keeps records for others and tells them to whoever asks."""

    def __init__(self, host: Host, store: RecordStore) -> None:
        self._host, self._store = host, store
        self._budgets = PeerBudgets(host, rate_bytes_s=RATE_BYTES_S, burst_bytes=BURST_BYTES, stranger_bytes=BURST_BYTES / 4)
        host.handle_streams(PROTOCOL, self._serve)

    async def _serve(self, peer: PeerId, stream: INetStream) -> None:
        remote = muxed_stream_of(stream).get_remote_address()
        with trio.move_on_after(IDLE_S) as idle:
            while True:
                idle.deadline = trio.current_time() + IDLE_S
                question = await _read(stream, QUESTION_BYTES_MAX)
                if question is None:
                    return
                await self._budgets.of(peer).spend(QUESTION_COST_BYTES + question.ByteSize())
                answer = self._answer(peer, name_source(remote), question)
                if answer is None:
                    return
                await _write(stream, answer)

    def _answer(self, peer: PeerId, source: str, question: pb.Message) -> pb.Message | None:
        """None: nothing that is answered here."""
        answer = pb.Message(type=question.type, key=question.key)
        closer = encode_contacts(self._store.find_closest(question.key, but=peer))
        now_s = trio.current_time()
        if question.type == pb.Message.ADD_PROVIDER:
            for contact in decode_contacts(question.providerPeers):
                if contact.peer == peer and source:  # nobody speaks for others, and nobody through a relay
                    self._store.add_provider(question.key, contact, now_s)
                    self._store.add_contact(contact, source)
            return answer
        if question.type == pb.Message.GET_PROVIDERS:
            answer.providerPeers.extend(encode_contacts(self._store.find_providers(question.key, now_s)))
        elif question.type != pb.Message.FIND_NODE:
            return None
        answer.closerPeers.extend(closer)
        return answer


@dataclass(slots=True)
class Found:
    """What a look-up found."""

    providers: dict[PeerId, Contact] = field(default_factory=dict)
    servers: dict[PeerId, str] = field(default_factory=dict)  # that answered, and at which address


async def look_up(key: bytes, contacts: Sequence[Contact], *, wanted: int = PROVIDERS_WANTED) -> Found:
    """Who provides `key`, asking `contacts` and whoever they name, the closest first, under an identity that is thrown away."""
    async with open_host(seed=secrets.token_bytes(32), listen=(), rng=SystemRandom()) as host:
        search = _Search(host, key, contacts, wanted)
        with trio.move_on_after(LOOKUP_S):
            await search.run()
    return search.found


async def provide(key: bytes, me: Contact, servers: dict[PeerId, str], seed: bytes, forgetful: set[PeerId]) -> int:
    """Tell the closest of `servers` that `me`, whose seed this is, provides `key`; how many were told.

    `forgetful`: those that soon forget where `me` is, and want to be told every RENEW_S. Who turns out to be one is added.
    """
    told = 0
    async with open_host(seed=seed, listen=(), rng=SystemRandom()) as host:
        teller = _Teller(host, key, me, forgetful)
        for peer in sorted(servers, key=lambda peer: compute_distance(key, peer))[:CLOSEST]:
            if peer == me.peer:
                continue
            with suppress(UnreachableError, *STREAM_ERRORS), trio.move_on_after(TELL_S):
                await teller.tell(peer, servers[peer])
                told += 1
            host.disconnect(peer)
    return told


class _Teller:
    """Tells each server in the way in which it remembers addresses.

    Servers of the IPFS DHT keep a record for two days, and addresses apart from it. Kubo up to 0.22 at least takes these from Identify
    only (go-libp2p-kad-dht, issue 868) and forgets them 30 minutes after the connection has ended, others of its age after 10 or 15.
    Newer ones take those of the record, for a day; but what Identify says, too, they forget after 15 minutes like all that it says
    (go-libp2p, issue 3218). So Identify says no addresses, until a server that is asked back turns out not to have those of the record.
    """

    def __init__(self, host: Host, key: bytes, me: Contact, forgetful: set[PeerId]) -> None:
        self._host, self._key, self._forgetful = host, key, forgetful
        (self._me,) = encode_contacts([me])
        self._heard: dict[PeerId, trio.Event] = {}
        host.handle_streams(IDENTIFY_PROTOCOL, self._introduce)

    async def tell(self, peer: PeerId, via: str) -> None:
        """Raises: UnreachableError, one of STREAM_ERRORS."""
        await self._host.dial(via)
        stream = await self._host.open_stream(peer, [PROTOCOL, PUBLIC_PROTOCOL])
        await _write(stream, pb.Message(type=pb.Message.ADD_PROVIDER, key=self._key, providerPeers=[self._me]))
        await stream.close()
        with trio.move_on_after(1.0), suppress(*STREAM_ERRORS):  # Public servers do not answer this, but end the stream.
            await _read(stream, ANSWER_BYTES_MAX)
        if stream.get_protocol() != PUBLIC_PROTOCOL:
            return
        await self._wait_until_heard(peer)  # What Identify said an hour ago is no answer.
        if peer not in self._forgetful and not await self._is_found(peer):
            self._forgetful.add(peer)
            self._host.disconnect(peer)
            del self._heard[peer]
            await self._host.dial(via)  # A server asks Identify once for each connection.
            await self._wait_until_heard(peer)

    async def _wait_until_heard(self, peer: PeerId) -> None:
        """For a second at most: nobody must ask."""
        with trio.move_on_after(1.0):
            await self._heard.setdefault(peer, trio.Event()).wait()

    async def _is_found(self, peer: PeerId) -> bool:
        """Whether a server that was told says where this provider is. It may know many, all of whom it names."""
        answer = await _ask(self._host, peer, [PUBLIC_PROTOCOL], self._key)
        return answer is not None and any(entry.id == self._me.id and entry.addrs for entry in answer.providerPeers)

    async def _introduce(self, peer: PeerId, stream: INetStream) -> None:
        """Answer Identify."""
        addresses = self._me.addrs if peer in self._forgetful else ()
        key = self._host.libp2p.get_public_key().serialize()
        content = Identify(agent_version="learnae", public_key=key, listen_addrs=addresses).SerializeToString()
        with trio.move_on_after(QUERY_S):
            await stream.write(encode_varint(len(content)) + content)
            await stream.close()
            with suppress(*STREAM_ERRORS):
                await stream.read(1)  # Its end: whoever asked has read the answer.
            self._heard.setdefault(peer, trio.Event()).set()


class _Search:
    """One look-up: the candidates that are left, and what was found."""

    def __init__(self, host: Host, key: bytes, contacts: Sequence[Contact], wanted: int) -> None:
        self._host, self._key, self._wanted = host, key, wanted
        self.found = Found()
        self._candidates: dict[PeerId, tuple[str, ...]] = {contact.peer: contact.addresses for contact in contacts}
        self._asked: set[PeerId] = set()

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(AT_ONCE):
                nursery.start_soon(self._work)

    async def _work(self) -> None:
        while len(self._asked) < QUERIES_MAX and len(self.found.providers) < self._wanted:
            peer = self._choose()
            if peer is None:
                return
            self._asked.add(peer)
            with trio.move_on_after(PEER_S):
                for address in self._candidates[peer]:
                    answer = await self._ask(peer, address)
                    if answer is not None:
                        self.found.servers[peer] = address
                        self._take_in(answer, address)
                        break
            self._host.disconnect(peer)

    def _choose(self) -> PeerId | None:
        """The closest that was not asked, unless the closest of all have answered already."""
        by_distance = sorted(self._candidates, key=lambda peer: compute_distance(self._key, peer))
        answered = sorted(self.found.servers, key=lambda peer: compute_distance(self._key, peer))[:CLOSEST]
        for peer in by_distance:
            if peer not in self._asked:
                is_closer = len(answered) < CLOSEST or compute_distance(self._key, peer) < compute_distance(self._key, answered[-1])
                return peer if is_closer else None
        return None

    def _take_in(self, answer: pb.Message, via: str) -> None:
        for entries, is_provider in ((answer.providerPeers, True), (answer.closerPeers, False)):
            for contact in decode_contacts(entries):
                addresses = tuple(address for address in contact.addresses if may_follow(address, via))
                if addresses and is_provider:
                    self.found.providers.setdefault(contact.peer, Contact(contact.peer, addresses))
                if addresses and contact.peer != self._host.peer_id and len(self._candidates) < 4 * QUERIES_MAX:
                    self._candidates.setdefault(contact.peer, addresses)

    async def _ask(self, peer: PeerId, address: str) -> pb.Message | None:
        try:
            with trio.fail_after(DIAL_S):
                await self._host.dial(address)
        except (UnreachableError, trio.TooSlowError) as error:
            logger.debug("a DHT server was not reached: %r", error)
            return None
        return await _ask(self._host, peer, [PROTOCOL, PUBLIC_PROTOCOL], self._key)


async def _ask(host: Host, peer: PeerId, protocols: list[str], key: bytes) -> pb.Message | None:
    """Who provides `key`, as a connected server says; None: it does not answer."""
    answer: pb.Message | None = None
    stream: INetStream | None = None
    try:
        with trio.move_on_after(QUERY_S):
            stream = await host.open_stream(peer, protocols)
            await _write(stream, pb.Message(type=pb.Message.GET_PROVIDERS, key=key))
            answer = await _read(stream, ANSWER_BYTES_MAX)
    except STREAM_ERRORS as error:
        logger.debug("a DHT server did not answer: %r", error)
    finally:
        if stream is not None:
            drop_stream(stream)
    return answer


def read_contacts(addresses: Sequence[str]) -> list[Contact]:
    """The contacts that a user named. Raises: BadAddressError."""
    by_peer: dict[PeerId, list[str]] = {}
    for address in addresses:
        by_peer.setdefault(read_target(address), []).append(address)
    return [Contact(peer, tuple(found)) for peer, found in by_peer.items()]


async def _read(stream: INetStream, bytes_max: int) -> pb.Message | None:
    """None: too large, or no message. Raises: STREAM_ERRORS."""
    size_bytes = await read_varint(stream)
    if size_bytes > bytes_max:
        return None
    try:
        return pb.Message.FromString(await read_exactly(stream, size_bytes))
    except DecodeError:
        return None


async def _write(stream: INetStream, message: pb.Message) -> None:
    content = message.SerializeToString()
    await stream.write(encode_varint(len(content)) + content)
