"""The Ethereum backend when things go wrong: outages, kills, races, lying nodes, contracts that are not what they say."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Any

import pytest
import rlp  # type: ignore[import-untyped]
import trio
from eth_utils.crypto import keccak

from learnae.backends.chain_server import serve_chain
from learnae.backends.ethereum import ChainOptions, open_ethereum_chain
from learnae.backends.ethereum.abi import checksum, governance_abi, pack_nays, poid_abi, session_abi, tips_abi
from learnae.backends.ethereum.intents import Intent
from learnae.backends.ethereum.reader import encode_session_creation
from learnae.backends.ethereum.rpc import Endpoint
from learnae.errors import (
    ChainAnswerError,
    ChainUnreachableError,
    NotASessionError,
    NotEnoughMoneyError,
    TransactionError,
    WrongChainError,
)
from learnae.ids import Address, PeerId, Wei
from learnae.protocol.calls import DeployPoid, Join, Member, PayTip, Stage, SubmitClaim
from tests.backends.chain_beds import ETHER, make_identity, make_wallet, open_server, open_wallet
from tests.backends.chain_bench import TIP, Bench, Killed, make_chain, open_bench
from tests.conformance.chain import EVIDENCE, STRANGER, make_terms

# --- outages and kills --------------------------------------------------------------------------------------------


def test_outage__at_any_request_pays_exactly_once() -> None:
    """Each request of a payment fails once, undelivered or with its answer lost."""

    async def run() -> None:
        async with open_bench() as bench:
            await bench.chain.submit(bench.session, TIP)
            requests, paid = bench.faults.count, 777
            assert requests >= 6 and "eth_sendRawTransaction" in bench.faults.methods
            for kind in ("before", "after"):
                for at in range(requests):
                    bench.faults.at, bench.faults.kind, bench.faults.count = at, kind, 0
                    bench.troubles.clear()
                    await bench.chain.submit(bench.session, TIP)
                    paid += 777
                    assert await bench.tipped() == paid, (kind, at)
                    assert len(bench.troubles) == 2 and "trying again" in bench.troubles[0] and "answers again" in bench.troubles[1]

    trio.run(run)


def test_kill__at_any_request_is_resumed_and_pays_at_most_once() -> None:
    """The signed transaction is saved before it is broadcast; a restart goes on with the same bytes."""

    async def run() -> None:
        async with open_bench() as bench:
            await bench.chain.submit(bench.session, TIP)
            requests, paid = bench.faults.count, 777
            resumed = 0
            for at in range(requests):
                bench.faults.at, bench.faults.kind, bench.faults.count = at, "kill", 0
                with pytest.raises(Killed):
                    await bench.chain.submit(bench.session, TIP)
                bench.faults.kind = "none"
                raw = bench.saved[-1]
                restarted = make_chain(bench.chain.endpoint, "payer", bench.troubles, bench.saved)
                if raw is not None:
                    await restarted.resume(raw)
                    paid, resumed = paid + 777, resumed + 1
                assert bench.saved[-1] is None and await bench.tipped() == paid, at
                bench.chain = restarted
                await restarted.read_terms(bench.session)
            assert resumed >= 2

    trio.run(run)


def test_cancelled_call__asked_again_adopts_its_own_transaction() -> None:
    async def run() -> None:
        async with open_bench() as bench:
            with trio.CancelScope() as scope:

                def cancel_at_receipt(asked: Any, answer: Any) -> Any:
                    if asked["method"] == "eth_getTransactionReceipt":
                        scope.cancel()
                        return {"result": None}
                    return answer

                bench.faults.rewrite = cancel_at_receipt
                await bench.chain.submit(bench.session, TIP)
            assert scope.cancelled_caught
            bench.faults.rewrite = lambda asked, answer: answer
            await bench.chain.submit(bench.session, TIP)
            assert await bench.tipped() == 777
            await bench.chain.submit(bench.session, TIP)
            assert await bench.tipped() == 2 * 777

    trio.run(run)


def test_transaction__that_reverts_in_its_block_gives_the_contracts_reason() -> None:
    """Another call came first: the estimate was right when it was made."""

    async def run() -> None:
        async with open_bench() as bench:
            poid = (await bench.chain.submit(bench.session, DeployPoid())).address
            assert poid is not None
            await bench.chain.submit(bench.session, Join(poid))
            bench.faults.rewrite = lambda asked, answer: {"result": "0x30000"} if asked["method"] == "eth_estimateGas" else answer
            with pytest.raises(TransactionError, match="joining the session was refused: this wallet is a member already") as caught:
                await bench.chain.submit(bench.session, Join(poid))
            assert caught.value.reason == "AlreadyMember" and bench.saved[-1] is None
            assert caught.value.gas_used > 21_000, "it was paid for all the same"

    trio.run(run)


def test_wallet__used_by_two_programs_is_said_and_nothing_is_paid_twice() -> None:
    async def run() -> None:
        async with open_bench() as bench:
            old = hex(0)
            bench.faults.rewrite = lambda asked, answer: {"result": old} if asked["method"] == "eth_getTransactionCount" else answer
            await bench.chain.submit(bench.session, TIP)
            paid = await bench.tipped()

            def stale(asked: Any, answer: Any) -> Any:
                return {"result": old} if asked["method"] == "eth_getTransactionCount" and asked["params"][1] == "pending" else answer

            bench.faults.rewrite = stale
            with pytest.raises(TransactionError, match="another transaction of this wallet took its number 0") as caught:
                await bench.chain.submit(bench.session, PayTip(STRANGER, Wei(778), EVIDENCE))
            assert caught.value.reason == "Replaced" and await bench.tipped() == paid == 777 and bench.saved[-1] is None

    trio.run(run)


def test_gas_price__above_the_cap_is_waited_for() -> None:
    async def run() -> None:
        async with open_bench(fee_cap_wei=50 * 10**9) as bench:
            left = [3]

            def expensive(asked: Any, answer: Any) -> Any:
                if asked["method"] == "eth_getBlockByNumber" and left[0]:
                    left[0] -= 1
                    answer["result"]["baseFeePerGas"] = hex(60 * 10**9)
                return answer

            bench.faults.rewrite = expensive
            await bench.chain.submit(bench.session, TIP)
            assert bench.troubles == ["gas costs 60.0 gwei, more than the cap of 50.0; waiting until it falls"] and left == [0]

    trio.run(run)


def test_money__too_little_names_got_and_needed_before_anything_is_sent() -> None:
    async def run() -> None:
        async with open_bench("broke") as bench:
            balance = await bench.good.balance_wei(make_wallet("broke").address)
            sentence = r"the tip was refused: wallet 0x\w+ holds 10.000000 ETH and 1[01].\d+ ETH are needed with the fee; send it some"
            for amount in (balance + ETHER, balance, balance - 1):
                with pytest.raises(NotEnoughMoneyError, match=sentence) as caught:
                    await bench.chain.submit(bench.session, PayTip(STRANGER, Wei(amount), EVIDENCE))
                assert caught.value.got_wei == balance < caught.value.needed_wei
            assert bench.saved == [] and "eth_sendRawTransaction" not in bench.faults.methods
            cost = await bench.chain.estimate(await bench.chain.make_intent(bench.session, TIP))
            assert 30_000 < cost.gas < 120_000 and cost.value_wei == 777 and cost.fee_wei > 0

    trio.run(run)


def test_open__says_when_there_is_no_chain_or_another_one() -> None:
    async def run() -> None:
        identity, wallet = make_identity("x"), make_wallet("x")

        async def open_at(url: str, chain_id: int | None = None) -> None:
            peer = PeerId(bytes(identity.verify_key))
            async with open_ethereum_chain(url, wallet=wallet, peer_id=peer, sign_identity=lambda message: b"", chain_id=chain_id):
                pass

        listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
        port = listener.socket.getsockname()[1]
        await listener.aclose()
        with pytest.raises(ChainUnreachableError, match=rf"endpoint http://127.0.0.1:{port} does not answer: .*check that it runs"):
            await open_at(f"http://127.0.0.1:{port}/secret-api-key")
        for url in ("ftp://x", "nonsense", "http://"):
            with pytest.raises(ChainUnreachableError, match="not an http"):
                await open_at(url)
        async with open_server() as url:
            with pytest.raises(WrongChainError, match="serves chain 1337, but the session is on chain 5; give another --rpc"):
                await open_at(url, 5)
            await open_at(url, 1337)

    trio.run(run)


def test_secrets__of_address_and_wallet_reach_no_log(caplog: pytest.LogCaptureFixture) -> None:
    """threats.md, keys: providers put their key into the path; wallets sign here. All loggers at their most talkative."""
    caplog.set_level(logging.DEBUG)

    async def run() -> None:
        async with open_server() as url, open_wallet(f"{url}/canary-key", "payer") as chain:
            session = await chain.deploy_session(make_terms(int(time.time())))
            await chain.submit(session, TIP)
            await chain.read(session)

    trio.run(run)
    secret = make_wallet("payer").export_secret()
    logged = caplog.text + "".join(str(record.__dict__) for record in caplog.records)
    for canary in ("canary-key", secret.hex(), repr(secret), str(int.from_bytes(secret, "big"))):
        assert canary not in logged, [record.name for record in caplog.records if canary in str(record.__dict__)]


def test_open__patiently_waits_for_a_chain_that_is_down() -> None:
    async def run() -> None:
        troubles: list[str] = []
        listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
        port = listener.socket.getsockname()[1]
        await listener.aclose()
        opened = trio.Event()
        told = trio.Event()

        def hear(sentence: str) -> None:
            troubles.append(sentence)
            told.set()

        async def open_it() -> None:
            url, options = f"http://127.0.0.1:{port}", ChainOptions(patient=True)
            async with open_ethereum_chain(
                url, wallet=make_wallet("x"), peer_id=PeerId(bytes(32)), sign_identity=lambda message: b"", on_trouble=hear, options=options
            ):
                opened.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(open_it)
            await told.wait()
            assert not opened.is_set() and "trying again until it does" in troubles[0]
            await nursery.start(lambda task_status: serve_chain(port=port, task_status=task_status))
            with trio.fail_after(10):
                await opened.wait()
            nursery.cancel_scope.cancel()

    trio.run(run)


# --- nodes that lie or change their mind ----------------------------------------------------------------------------


def test_reorganisation__is_read_again_from_the_start() -> None:
    async def run() -> None:
        async with open_bench() as bench:
            poid = (await bench.chain.submit(bench.session, DeployPoid())).address
            assert poid is not None
            await bench.chain.submit(bench.session, Join(poid))
            first = await bench.chain.read(bench.session)
            assert len(first.members) == 1 and await bench.chain.read(bench.session) is first, "no new block, nothing read again"

            left = [1]

            def forked(asked: Any, answer: Any) -> Any:
                for request, reply in zip(asked, answer, strict=True) if isinstance(asked, list) else ():
                    if request["method"] == "eth_getBlockByNumber" and request["params"][0] != "latest" and left:
                        left.pop()
                        reply["result"]["hash"] = "0x" + "ab" * 32
                return answer

            bench.faults.rewrite = forked
            await bench.good.submit(bench.session, DeployPoid())
            bench.faults.methods.clear()
            again = await bench.chain.read(bench.session)
            assert again.members == first.members and again.fund_wei == first.fund_wei and again.block_number > first.block_number

    trio.run(run)


@pytest.mark.parametrize(
    ("method", "result", "why"),
    [
        ("eth_getLogs", [], "events are missing"),
        ("eth_getLogs", None, "it is no list"),
        ("eth_getLogs", [5], "an object was expected"),
        ("eth_getLogs", [{"topics": 5}], "topics is no list"),
        ("eth_call", "0x00", "do not decode"),
        ("eth_call", "0xzz", "hex data was expected"),
        ("eth_call", None, "hex data was expected"),
    ],
)
def test_node__that_answers_nonsense_is_one_sentence_and_no_state(method: str, result: object, why: str) -> None:
    async def run() -> None:
        async with open_bench() as bench:
            poid = (await bench.chain.submit(bench.session, DeployPoid())).address
            assert poid is not None
            await bench.chain.submit(bench.session, Join(poid))

            def nonsense(asked: Any, answer: Any) -> Any:
                for request, reply in zip(asked, answer, strict=True) if isinstance(asked, list) else ():
                    if request["method"] == method:
                        reply["result"] = result
                return {"result": result} if isinstance(asked, dict) and asked["method"] == method else answer

            bench.faults.rewrite = nonsense
            with pytest.raises(ChainAnswerError, match=f"no usable answer to .*{why}.*try another --rpc"):
                await bench.chain.read(bench.session)
            bench.faults.rewrite = lambda asked, answer: answer
            assert len((await bench.chain.read(bench.session)).members) == 1

    trio.run(run)


@pytest.mark.parametrize("body", [b"", b"<html>", b"[" * 10_000, b"\xff", b"[]", b"5", b'{"error": 5}', b'{"result": 5}'])
def test_endpoint__that_is_no_ethereum_node_is_one_sentence(body: bytes) -> None:
    async def run() -> None:
        async def serve(stream: trio.SocketStream) -> None:
            await stream.receive_some(65536)
            await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(body) + body)
            await stream.aclose()

        async with trio.open_nursery() as nursery:
            listeners = await nursery.start(trio.serve_tcp, serve, 0)
            url = f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}"
            with pytest.raises(ChainAnswerError, match="no usable answer to eth_chainId"):
                async with open_ethereum_chain(url, wallet=make_wallet("x"), peer_id=PeerId(bytes(32)), sign_identity=lambda message: b""):
                    pass
            nursery.cancel_scope.cancel()

    trio.run(run)


def test_busy_endpoint__is_waited_for() -> None:
    async def run() -> None:
        ending = b"\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
        answers = [b"HTTP/1.1 429 Too Many Requests" + ending, b"HTTP/1.1 503 Busy" + ending]
        troubles: list[str] = []

        found = b'{"id":0,"result":"0x5"}'
        good = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(found) + found

        async def serve(stream: trio.SocketStream) -> None:
            await stream.receive_some(65536)
            await stream.send_all(answers.pop(0) if answers else good)
            await stream.aclose()

        async with trio.open_nursery() as nursery:
            listeners = await nursery.start(trio.serve_tcp, serve, 0)
            async with Endpoint(f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}", troubles.append, retry_s=(0.001,)) as endpoint:
                assert await endpoint.patiently(lambda: endpoint.request("eth_chainId")) == "0x5"
            nursery.cancel_scope.cancel()
        assert len(troubles) == 2 and "busy (HTTP 429)" in troubles[0]

    trio.run(run)


def test_view__of_a_block_that_counts_also_tells_the_time_of_the_newest() -> None:
    """Deadlines pass for the newest block: who goes by the one that counts sends its own claim too late."""

    async def run() -> None:
        async with open_bench(confirmations=4) as bench:
            for _ in range(5):
                await bench.good.submit(bench.session, TIP)
            view = await bench.chain.read(bench.session)
            assert view.time_s < view.newest_s == await bench.chain.read_time()
            await bench.good.submit(bench.session, TIP)
            later = await bench.chain.read(bench.session)
            assert later.newest_s == await bench.chain.read_time() > view.newest_s

    trio.run(run)


# --- contracts that are not what they say ---------------------------------------------------------------------------


def return_code(code: bytes, before: bytes = b"") -> bytes:
    """Init code that does `before` and then puts `code` on the chain."""
    size = len(code).to_bytes(2, "big")
    tail = 14
    offset = (len(before) + tail).to_bytes(2, "big")
    return before + b"\x61" + size + b"\x80\x61" + offset + b"\x60\x00\x39\x60\x00\xf3" + b"\x00" * (tail - 13) + code


async def deploy_raw(bench: Bench, creation: bytes) -> Address:
    receipt = await bench.chain.submit_intent(None, Intent("a trick", None, creation))
    assert receipt.address is not None
    return receipt.address


def test_session__of_other_code_or_with_a_poisoned_past_is_refused() -> None:
    """An attacker's contract may answer anything; the same code may stand on storage that other init code filled."""

    async def run() -> None:
        async with open_bench() as bench:
            code = await code_of(bench, bench.session)
            changed = bytearray(code)
            changed[len(code) // 2] ^= 1
            poison = bytes.fromhex("60ff600055")  # SSTORE(0, 255): members out of nothing
            for creation, why in (
                (return_code(bytes(changed)), "its code is not the session contract"),
                (return_code(code), "its creation is not logged"),
                (return_code(code, poison), "its creation is not logged"),
                (return_code(b"\x00"), "its code is not the session contract"),
            ):
                trick = await deploy_raw(bench, creation)
                for read in (bench.chain.read_terms, bench.chain.read):
                    with pytest.raises(NotASessionError, match=f"is not a session contract: {why}.*do not deposit"):
                        await read(trick)
            with pytest.raises(NotASessionError, match="there is no contract"):
                await bench.chain.read_terms(STRANGER)

    trio.run(run)


def test_session__logged_by_its_own_init_code_but_created_by_another_is_refused() -> None:
    """Init code that stores, logs the right event and returns the right code: only the transaction's input gives it away."""

    async def run() -> None:
        async with open_bench() as bench:
            code = bytearray(await code_of(bench, bench.session))
            number = (await bench.chain.read(bench.session)).block_number + 1
            for offset in session_abi().artefact.immutables["createdBlock"]:
                code[offset : offset + 32] = number.to_bytes(32, "big")
            topic = session_abi().topics["SessionCreated"]
            log = b"\x7f" + b"\x11" * 32 + b"\x7f" + topic + bytes.fromhex("60206000a2")  # LOG2(0, 32, topic, digest)
            trick = await deploy_raw(bench, return_code(bytes(code), bytes.fromhex("60ff600055") + log))
            with pytest.raises(NotASessionError, match="was not created by the session contract's own init code"):
                await bench.chain.read_terms(trick)

    trio.run(run)


async def code_of(bench: Bench, contract: Address) -> bytes:
    return bytes.fromhex((await bench.chain.endpoint.request("eth_getCode", contract, "latest"))[2:])


def poid_creation(
    peer: str, wallet: str, *, peer_signer: str = "", wallet_signer: str = "", chain_id: int = 1337, key_of: str = ""
) -> bytes:
    """A proof of identity of which any part may be somebody else's."""
    from learnae.backends.ethereum.poid import compute_peer_message, compute_wallet_text

    owner, signer, identity = make_wallet(wallet), make_wallet(wallet_signer or wallet), make_identity(peer_signer or peer)
    peer_id = PeerId(bytes(make_identity(peer).verify_key))
    peer_signature = identity.sign(compute_peer_message(owner.address, chain_id)).signature
    wallet_signature = signer.sign_text(compute_wallet_text(peer_id, chain_id))
    public_key = make_wallet(key_of or wallet).public_key

    def halves(pair: bytes) -> tuple[bytes, bytes]:
        return pair[:32], pair[32:64]

    fields = (bytes(peer_id), owner.address, halves(public_key), halves(peer_signature), halves(wallet_signature), wallet_signature[64])
    return poid_abi().encode_creation(*fields)


@pytest.mark.parametrize(
    ("creation", "fault"),
    [
        (poid_creation("payer", "payer"), ""),
        (poid_creation("victim", "payer", peer_signer="payer"), "the peer did not sign it"),  # the paper's hijack (4.4)
        (poid_creation("payer", "payer", peer_signer="victim"), "the peer did not sign it"),
        (poid_creation("payer", "payer", wallet_signer="victim"), "the wallet did not sign it"),
        (poid_creation("payer", "payer", chain_id=5), "the peer did not sign it"),  # replayed from another chain
        (poid_creation("payer", "payer", key_of="victim"), "its public key is not the wallet's"),
        (poid_creation("victim", "victim"), "it belongs to wallet"),  # front-running with the victim's own proof
        (return_code(b"\x60\x00\x60\x00\xf3"), "its code is not the proof of identity"),
    ],
)
def test_proof_of_identity__is_judged_by_both_signatures_and_its_code(creation: bytes, fault: str) -> None:
    async def run() -> None:
        async with open_bench() as bench:
            poid = await deploy_raw(bench, creation)
            await bench.chain.submit(bench.session, Join(poid))
            (member,) = (await bench.good.read(bench.session)).members
            assert member.wallet == make_wallet("payer").address and member.poid.contract == poid
            assert member.poid.fault.startswith(fault) and bool(member.poid.fault) == bool(fault), member.poid.fault
            if not fault:
                assert member.poid.peer_id == bytes(make_identity("payer").verify_key)
                assert member.poid.public_key == make_wallet("payer").public_key
                assert member.poid.position[0] > 0 and abs(member.poid.timestamp_s - bench.terms.funding_ends_s) < 1010

    trio.run(run)


def test_proof_of_identity__copied_code_without_its_creation_has_no_place_in_the_order() -> None:
    """Runtime code may be copied with any time stamp in it; where it was created cannot."""

    async def run() -> None:
        async with open_bench() as bench:
            genuine = await deploy_raw(bench, poid_creation("payer", "payer"))
            copy = await deploy_raw(bench, return_code(await code_of(bench, genuine)))
            await bench.chain.submit(bench.session, Join(copy))
            (member,) = (await bench.good.read(bench.session)).members
            assert member.poid.fault == "its creation is not logged in the block that it names" and member.poid.peer_id

    trio.run(run)


async def join_blindly(bench: Bench, poid: Address) -> None:
    """Join with an address where nothing needs to be: the contract does not ask, and an attacker's program need not either."""
    facts = await bench.chain.read_facts(bench.session)
    data = session_abi().encode("join", poid)
    await bench.chain.submit_intent(bench.session, Intent("joining", bench.session, data, facts.terms.deposit_wei))


async def read_afresh(bench: Bench) -> Member:
    """The one member, as a node sees it that was started a moment ago."""
    (member,) = (await make_chain(bench.good.endpoint, "fresh", [], []).read(bench.session)).members
    return member


def predict_address(wallet: Address, nonce: int) -> Address:
    return checksum(keccak(rlp.encode([bytes.fromhex(wallet[2:]), nonce]))[-20:])


def test_proof_of_identity__deployed_after_the_join_never_counts_for_anybody() -> None:
    """Who predicts the address of its own deployment could be a member for those who look later, and for nobody who looked before."""

    async def run() -> None:
        async with open_bench() as bench:
            nonce = int(await bench.chain.endpoint.request("eth_getTransactionCount", bench.chain.wallet, "latest"), 16)
            predicted = predict_address(bench.chain.wallet, nonce + 1)
            await join_blindly(bench, predicted)
            (before,) = (await bench.good.read(bench.session)).members
            assert await deploy_raw(bench, poid_creation("payer", "payer")) == predicted
            (running,) = (await bench.good.read(bench.session)).members
            assert before.poid.fault.startswith("its code is not the proof of identity")
            assert before == running == await read_afresh(bench)

    trio.run(run)


def test_proof_of_identity__logged_by_other_init_code_has_no_place_in_the_order() -> None:
    """Such code may log a creation, be gone when the others look, and hold a proof of that day later."""

    async def run() -> None:
        async with open_bench() as bench:
            code = bytearray(await code_of(bench, await deploy_raw(bench, poid_creation("payer", "payer"))))
            number = int(await bench.chain.endpoint.request("eth_blockNumber"), 16) + 1
            for offset in poid_abi().artefact.immutables["createdBlock"]:
                code[offset : offset + 32] = number.to_bytes(32, "big")
            log = b"\x7f" + poid_abi().topics["PoidCreated"] + bytes.fromhex("60006000a1")  # LOG1(0, 0, topic)
            trick = await deploy_raw(bench, return_code(bytes(code), log))
            await bench.chain.submit(bench.session, Join(trick))
            assert (await read_afresh(bench)).poid.fault == "its creation is not logged in the block that it names"

    trio.run(run)


@pytest.mark.parametrize(("method", "answer"), [("eth_getCode", "0x"), ("eth_getLogs", []), ("eth_getTransactionByHash", None)])
def test_proof_of_identity__that_a_lagging_endpoint_does_not_have_yet_is_asked_for_again(method: str, answer: object) -> None:
    async def run() -> None:
        async with open_bench() as bench:
            poid = await deploy_raw(bench, poid_creation("payer", "payer"))
            await bench.chain.submit(bench.session, Join(poid))

            def lag(asked: Any, answers: Any) -> Any:
                for request, reply in zip(asked, answers, strict=True) if isinstance(asked, list) else ():
                    reply.update({"result": answer} if request["method"] == method else {})
                return answers

            bench.faults.rewrite = lag
            assert (await bench.chain.read(bench.session)).members[0].poid.fault
            bench.faults.rewrite = lambda asked, answers: answers
            await bench.good.submit(bench.session, DeployPoid())
            (member,) = (await bench.chain.read(bench.session)).members
            assert member == await read_afresh(bench) and not member.poid.fault

    trio.run(run)


# --- translation ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("nays", "words"), [((), []), ((0,), [1]), ((255, 1), [1 << 255 | 2]), ((256,), [0, 1]), ((3, 600), [8, 0, 1 << 88]), ((5, 5), [32])]
)
def test_ballot__is_packed_into_words_of_256_claims(nays: tuple[int, ...], words: Sequence[int]) -> None:
    assert pack_nays(nays) == list(words)


def test_refusals__of_every_contract_error_have_a_sentence() -> None:
    for abi in (session_abi(), governance_abi(), tips_abi()):
        for item in abi.artefact.abi:
            if item["type"] != "error":
                continue
            samples = {"string": "times", "address": STRANGER, "bytes": b"", "bytes32": bytes(32)}
            values = [samples.get(field["type"], 1) for field in item["inputs"]]
            name, sentence = abi.explain(encode_error(item, values))
            assert name == item["name"] and sentence != name and "{" not in sentence
    assert session_abi().explain(None) == ("", "the contract refused it without a reason")
    assert session_abi().explain(b"\x01\x02\x03\x04") == ("", "the contract refused it without a reason")
    wrong_stage = next(item for item in session_abi().artefact.abi if item.get("name") == "WrongStage")
    assert session_abi().explain(encode_error(wrong_stage, [0, 2]))[1] == "the session is funding and this belongs to claiming"
    assert session_abi().explain(encode_error(wrong_stage, [0, 2])[:-5])[0] == ""


def encode_error(item: dict[str, Any], values: Sequence[Any]) -> bytes:
    from eth_abi.abi import encode
    from eth_utils.crypto import keccak

    types = [field["type"] for field in item["inputs"]]
    return keccak(text=f"{item['name']}({','.join(types)})")[:4] + encode(types, values)


def test_claim__in_the_wrong_stage_says_so_in_words() -> None:
    async def run() -> None:
        async with open_bench() as bench:
            with pytest.raises(TransactionError, match=r"^the claim was refused: the session is funding and this belongs to claiming$"):
                await bench.chain.submit(bench.session, SubmitClaim(1, EVIDENCE))
            assert (await bench.chain.read(bench.session)).stage is Stage.FUNDING

    trio.run(run)


def test_creation__is_exactly_the_artefact_and_the_terms() -> None:
    terms = make_terms(1000)
    assert encode_session_creation(terms).startswith(session_abi().artefact.bytecode)
    assert checksum("0x" + "ab" * 20) == checksum(b"\xab" * 20)
