"""Gossip through IPFS daemons, and how those of one session meet: against a stand-in written from Kubo's published RPC reference."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, suppress
from functools import partial
from random import Random
from urllib.parse import urlsplit

import pytest
import trio
import trio.testing

from learnae.backends import kubo_pubsub
from learnae.backends.errors import KuboError
from learnae.backends.kubo_pubsub import KuboPubSub, decode_text, encode_text
from learnae.backends.kubo_rpc import KuboRpc
from learnae.backends.kubo_session import keep_meeting, meet, open_kubo_network
from learnae.backends.libp2p import open_libp2p_network
from learnae.backends.libp2p_scores import GRAYLIST_THRESHOLD, REJECTED_WEIGHT
from learnae.backends.memory_blocks import MemoryBlocks
from learnae.backends.memory_network import MemoryHub
from learnae.errors import FetchError
from learnae.ids import CODEC_DAG_CBOR, PeerId, Topic, compute_cid, peer_text
from learnae.ports import Network
from learnae.tangle.verdict import Verdict
from tests.backends.hostile import LOOPBACK, until
from tests.backends.kubo_standin import Daemon, open_daemon
from tests.conformance.pubsub import check_pubsub
from tests.processes import HANGS_S

TOPIC = Topic("/learnae/test/control")
RULES = b"\xa0"
MEETING = compute_cid(RULES, CODEC_DAG_CBOR), RULES
AUTHOR = peer_text(PeerId(b"a" * 32))


@asynccontextmanager
async def open_member(daemon: Daemon, hub: MemoryHub, number: int, told: list[str] | None = None) -> AsyncIterator[Network]:
    """A member whose daemon is `daemon`; its own gossip reaches nobody unless it is connected."""
    rpc, store = KuboRpc(daemon.url), MemoryBlocks()
    tell = ([] if told is None else told).append
    try:
        inner = hub.join(PeerId(bytes([number]) * 32), store)
        async with open_kubo_network(inner, store, rpc, meeting=MEETING, tell=tell) as network:
            yield network
    finally:
        rpc.close()


@asynccontextmanager
async def open_members_with_daemons(count: int) -> AsyncIterator[Sequence[Network]]:
    """Members that only their daemons connect."""
    with ExitStack() as daemons:
        dht: dict[bytes, list[Daemon]] = {}
        found = [daemons.enter_context(open_daemon(dht)) for _ in range(count)]  # type: ignore[arg-type]
        async with AsyncExitStack() as stack:
            hub = MemoryHub()
            members = [await stack.enter_async_context(open_member(daemon, hub, number)) for number, daemon in enumerate(found, 1)]
            await until(lambda: all(daemon.peers for daemon in found))
            yield members


@asynccontextmanager
async def open_members_in_memory(count: int) -> AsyncIterator[Sequence[Network]]:
    hub = MemoryHub()
    members = [hub.join(PeerId(bytes([number]) * 32), MemoryBlocks()) for number in range(1, count + 1)]
    for member in members[1:]:
        await member.connect(members[0].addresses[0])
    yield members


@asynccontextmanager
async def open_members_over_libp2p(count: int) -> AsyncIterator[Sequence[Network]]:
    async with AsyncExitStack() as stack:
        members: list[Network] = []
        for number in range(1, count + 1):
            opening = open_libp2p_network(seed=bytes([number]) * 32, listen=LOOPBACK, blocks=MemoryBlocks(), rng=Random(number))
            members.append(await stack.enter_async_context(opening))
        for member in members[1:]:
            await member.connect(members[0].addresses[0])
        yield members


@pytest.mark.parametrize("open_members", [open_members_with_daemons, open_members_in_memory, open_members_over_libp2p])
def test_pubsub__keeps_what_a_session_needs_of_it(open_members: Callable[[int], AsyncIterator[Sequence[Network]]]) -> None:
    """Issue, "the RPC backend passes the content-store and PubSub conformance suites"."""
    trio.run(check_pubsub, open_members)


def run_with_member(test: Callable[[Daemon, Network, list[bytes], list[str]], object], verdict: Verdict = Verdict.ACCEPT) -> None:
    """One member that is subscribed; `test(daemon, member, judged, told)`."""

    async def run() -> None:
        judged: list[bytes] = []
        told: list[str] = []
        with open_daemon() as daemon:
            async with open_member(daemon, MemoryHub(), 1, told) as member:

                def judge(sender: PeerId, content: bytes) -> Verdict:
                    judged.append(content)
                    return Verdict.REJECT if content.startswith(b"bad") else verdict

                await member.subscribe(TOPIC, judge)
                await until(lambda: TOPIC in daemon.subscriptions)
                await test(daemon, member, judged, told)  # type: ignore[misc]

    trio.run(run)


def test_author__whose_messages_are_rejected_is_not_heard_any_more() -> None:
    """Kubo forwards before anybody judges, so who writes nonsense is left alone here; others are heard."""

    async def test(daemon: Daemon, member: Network, judged: list[bytes], told: list[str]) -> None:
        enough = int(GRAYLIST_THRESHOLD / REJECTED_WEIGHT) + 1
        for number in range(2 * enough):
            daemon.publish(TOPIC, b"bad %d" % number, author=AUTHOR)
        daemon.publish(TOPIC, b"good", author=peer_text(PeerId(b"b" * 32)))
        await until(lambda: b"good" in judged)
        assert len(judged) == enough + 1

    run_with_member(test)


def test_accepted_gossip__goes_on_to_members_without_a_daemon_and_back_only_from_its_author() -> None:
    """What others publish in the node's own gossip is not published in PubSub again: all who have a daemon would."""

    async def run() -> None:
        with open_daemon() as daemon:
            hub = MemoryHub()
            async with open_member(daemon, hub, 1) as between:
                plain = hub.join(PeerId(b"2" * 32), MemoryBlocks())
                heard: list[bytes] = []
                judged: list[bytes] = []
                await between.subscribe(TOPIC, lambda sender, content: (judged.append(content), Verdict.ACCEPT)[1])
                await plain.subscribe(TOPIC, lambda sender, content: (heard.append(content), Verdict.ACCEPT)[1])
                await plain.connect(between.addresses[0])
                await until(lambda: TOPIC in daemon.subscriptions)
                daemon.publish(TOPIC, b"from afar", author=AUTHOR)
                await until(lambda: b"from afar" in heard)
                await plain.publish(TOPIC, b"from the plain member")
                await between.publish(TOPIC, b"own")
                await until(lambda: "pubsub/pub" in daemon.calls)
                assert daemon.calls.count("pubsub/pub") == 1
                await until(lambda: b"from the plain member" in judged)
                for content in (b"from the plain member", b"own", b"last"):  # another member's daemon may bring the first, ours the second
                    daemon.publish(TOPIC, content, author=AUTHOR)
                await until(lambda: b"last" in judged)
                assert judged == [b"from afar", b"from the plain member", b"last"]

    trio.run(run)


def test_daemon__that_goes_away_is_told_once_and_found_again_when_it_is_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kubo_pubsub, "RETRY_S", 0.02)

    async def run() -> None:
        told: list[str] = []
        heard: list[bytes] = []
        async with AsyncExitStack() as stack:
            with open_daemon() as daemon:
                member = await stack.enter_async_context(open_member(daemon, MemoryHub(), 1, told))
                await member.subscribe(TOPIC, lambda sender, content: (heard.append(content), Verdict.ACCEPT)[1])
                await until(lambda: TOPIC in daemon.subscriptions)
            await until(lambda: bool(told))
            await member.publish(TOPIC, b"lost there, not here")
            with open_daemon(port=int(urlsplit(daemon.url).port or 0)) as again:
                await until(lambda: TOPIC in again.subscriptions and len(told) == 2)
                again.publish(TOPIC, b"news", author=AUTHOR)
                await until(lambda: heard == [b"news"])
                await stack.aclose()
        assert told[0].startswith(f"gossip does not go through the IPFS daemon at {daemon.url} now (")
        assert told[1] == f"the IPFS daemon at {daemon.url} is back: gossip goes through it again"

    trio.run(run)


NONSENSE = [b"hello", b"[1]", b"{}", b"[" * 100_000, b'{"from": 7, "data": "uAA"}', b'{"from": "x", "data": "u!"}', b'{"from": "x"}', b""]


def test_line__that_is_no_message_is_left_out() -> None:
    """What comes in the daemon's place is not trusted either."""

    async def test(daemon: Daemon, member: Network, judged: list[bytes], told: list[str]) -> None:
        for line in NONSENSE:
            daemon.give(TOPIC, line + b"\n")
        daemon.publish(TOPIC, bytes(kubo_pubsub.MESSAGE_BYTES_MAX + 1), author=AUTHOR)
        daemon.publish(TOPIC, b"written under another kind of key", author="QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N")
        await until(lambda: bool(judged))
        assert judged == [b"written under another kind of key"] and not told

    run_with_member(test)


def test_line__without_an_end_ends_the_subscription_and_costs_bounded_memory() -> None:
    async def test(daemon: Daemon, member: Network, judged: list[bytes], told: list[str]) -> None:
        for _ in range(3 + kubo_pubsub.LINE_BYTES_MAX // 65536):
            daemon.give(TOPIC, b"x" * 65536)
        await until(lambda: bool(told))
        assert f"it gave a message of more than {kubo_pubsub.LINE_BYTES_MAX} bytes" in told[0]

    run_with_member(test)


def test_flood__is_read_no_faster_than_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    """PubSub is open to the world: all its writers together get what one neighbour of the node's own gossip gets."""
    monkeypatch.setattr(kubo_pubsub, "BURST_BYTES", 10 * kubo_pubsub.MESSAGE_COST_BYTES)
    monkeypatch.setattr(kubo_pubsub, "RATE_BYTES_S", 1.0)

    async def test(daemon: Daemon, member: Network, judged: list[bytes], told: list[str]) -> None:
        for number in range(200):
            daemon.publish(TOPIC, b"%d" % number, author=peer_text(PeerId(number.to_bytes(32, "big"))))
        await until(lambda: bool(judged))
        with trio.move_on_after(0.3):
            await until(lambda: len(judged) > 11)
        assert 5 < len(judged) <= 11

    run_with_member(test)


def test_publish__does_not_wait_for_the_end_of_an_endless_answer() -> None:
    """What a daemon says to a message beside the status is nothing that is needed: the next one goes out, and nothing is kept."""
    asked = trio.Event()
    count = 0

    async def answer(stream: trio.SocketStream) -> None:
        nonlocal count
        question = b""
        with suppress(trio.BrokenResourceError):
            while not question.endswith(b"--\r\n"):
                question += await stream.receive_some(4096)
            count += question.startswith(b"POST /api/v0/pubsub/pub")
            if count == 2:
                asked.set()
            await stream.send_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            while True:
                await stream.send_all(b"10000\r\n" + bytes(0x10000) + b"\r\n")

    async def run() -> None:
        async with trio.open_nursery() as nursery:
            (listener,) = await nursery.start(partial(trio.serve_tcp, host="127.0.0.1"), answer, 0)
            pubsub = KuboPubSub(f"http://127.0.0.1:{listener.socket.getsockname()[1]}", lambda sentence: None)
            nursery.start_soon(pubsub.run)
            for content in (b"one", b"two"):
                pubsub.publish(TOPIC, content)
            with trio.fail_after(HANGS_S):
                await asked.wait()
            nursery.cancel_scope.cancel()

    trio.run(run)


def test_daemon__without_pubsub_is_told_and_the_nodes_own_gossip_goes_on() -> None:
    async def run() -> None:
        told: list[str] = []
        with open_daemon() as daemon:
            daemon.has_pubsub = False
            hub = MemoryHub()
            async with open_member(daemon, hub, 1, told) as member:
                plain = hub.join(PeerId(b"2" * 32), MemoryBlocks())
                heard: list[bytes] = []
                await member.subscribe(TOPIC, lambda sender, content: Verdict.ACCEPT)
                await plain.subscribe(TOPIC, lambda sender, content: (heard.append(content), Verdict.ACCEPT)[1])
                await plain.connect(member.addresses[0])
                await member.publish(TOPIC, b"news")
                await until(lambda: heard == [b"news"])
            with pytest.raises(FetchError, match="could not fetch x: a reason"):  # as it was raised, in no group: users read it
                async with open_member(daemon, hub, 3):
                    raise FetchError("x", "a reason")
        (sentence,) = told
        assert "runs without PubSub" in sentence and "--enable-pubsub-experiment" in sentence
        with pytest.raises(KuboError, match="it does not answer"):
            async with open_member(daemon, MemoryHub(), 1):
                pass

    trio.run(run)


def test_daemons__of_one_session_meet_under_the_cid_of_its_rules() -> None:
    """DHT: routing/provide and findprovs; a daemon that nobody can reach is passed over."""
    dht: dict[bytes, list[Daemon]] = {}
    with open_daemon(dht) as one, open_daemon(dht) as two, open_daemon(dht) as lost:  # type: ignore[arg-type]
        rpcs = [KuboRpc(daemon.url) for daemon in (one, two)]
        assert meet(rpcs[0], MEETING) == 0 and one.blocks == {MEETING[0]: RULES}
        dht[MEETING[0]].append(lost)
        lost.peer_id = "QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N"
        assert meet(rpcs[1], MEETING) == 1
        assert one.peers == [two] and two.peers == [one] and not lost.peers
        assert dht[MEETING[0]][0] is one and two in dht[MEETING[0]]
        for rpc in rpcs:
            rpc.close()


def test_meeting__goes_on_when_the_daemon_was_away(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        with open_daemon() as daemon:
            rpc = KuboRpc(daemon.url)
            refused: list[str] = []

            def refuse(command: str, query: dict[str, list[str]], files: list[bytes]) -> bytes:
                refused.append(command)
                return b"nonsense"

            with monkeypatch.context() as patch:
                patch.setattr(daemon, "run", refuse)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(lambda: keep_meeting(rpc, MEETING, every_s=0.01))
                    await until(lambda: len(refused) > 2)
                    patch.undo()
                    await until(lambda: MEETING[0] in daemon.dht)
                    nursery.cancel_scope.cancel()
            rpc.close()

    trio.run(run)


def test_texts__of_the_rpc_api_are_base64url() -> None:
    """Multibase: the letter u and no padding."""
    for size in range(70):
        raw = Random(size).randbytes(size)
        assert decode_text(encode_text(raw)) == raw
    assert encode_text(b"\xfb\xff") == "u-_8"
    for text in ("", "mAAA", "u!", "uA"):
        with pytest.raises(ValueError, match=r"base64|padding|decode|Only"):
            decode_text(text)
