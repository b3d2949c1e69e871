"""The embedded chain: plain web3 clients work against it, web pages and endless requests do not."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
from web3 import HTTPProvider, Web3
from web3.logs import DISCARD
from web3.types import Wei

from learnae.backends.chain_server import BODY_BYTES_MAX, ServerOptions, main, serve_chain
from learnae.backends.chain_server.engine import LocalChain, RefusedError
from learnae.backends.ethereum import WalletKey
from learnae.backends.ethereum.reader import encode_session_creation
from learnae.backends.ethereum.rpc import Endpoint, RpcError
from learnae.contracts import load_artefact
from learnae.errors import ChainServerError
from tests.backends.chain_beds import ETHER, make_wallet, open_server
from tests.contracts.bed import EVIDENCE, START_S, make_terms
from tests.processes import HANGS_S

RICH = make_wallet("rich")


def with_server(use: Callable[[str], Awaitable[None]], *, instant: bool = True) -> None:
    async def run() -> None:
        async with open_server(instant=instant) as url:
            await use(url)

    trio.run(run)


def ask(use: Callable[[Endpoint], Awaitable[None]], *, instant: bool = True) -> None:
    async def run(url: str) -> None:
        async with Endpoint(url, lambda sentence: None) as endpoint:
            await use(endpoint)

    with_server(run, instant=instant)


def sign(wallet: WalletKey, nonce: int = 0, **changes: Any) -> str:
    fields = {"type": 2, "chainId": 1337, "nonce": nonce, "gas": 21000, "value": 1, "data": b"", "to": wallet.address}
    fields |= {"maxFeePerGas": 10**10, "maxPriorityFeePerGas": 0} | changes
    return "0x" + wallet.sign_transaction(fields)[0].hex()


async def post(url: str, body: bytes, headers: str = "", *, host: str = "localhost", start: bytes = b"POST / HTTP/1.1\r\n") -> bytes:
    """One raw HTTP request; the answer as far as it came until the server closed or 1 s passed."""
    port = int(url.rsplit(":", 1)[1])
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    async with stream:
        head = f"Host: {host}\r\nContent-Length: {len(body)}\r\nContent-Type: application/json\r\nConnection: close\r\n{headers}\r\n"
        found = b""
        try:
            await stream.send_all(start + head.encode() + body)
            with trio.move_on_after(5):
                async for chunk in stream:
                    found += chunk
        except trio.BrokenResourceError:
            pass
        return found


CHAIN_ID_CALL = b'{"jsonrpc":"2.0","id":1,"method":"eth_chainId","params":[]}'


def use_plain_web3(url: str) -> None:
    """Everything that a program does with web3.py, without a line for this chain but the faucet."""
    web3 = Web3(HTTPProvider(url))
    assert web3.is_connected() and web3.eth.chain_id == 1337 and web3.net.version == "1337" and "learnae" in web3.client_version
    web3.provider.make_request("learnae_fund", [RICH.address, hex(ETHER)])  # type: ignore[arg-type]
    assert web3.eth.get_balance(RICH.address) == ETHER  # type: ignore[arg-type]
    artefact, account = load_artefact("Session"), web3.eth.account.from_key(RICH.export_secret())
    now_s = web3.eth.get_block("latest")["timestamp"]
    terms = make_terms(funding_ends_s=now_s + 100, training_ends_s=now_s + 200, claiming_ends_s=now_s + 300, voting_ends_s=now_s + 400)
    creation: Any = {"from": account.address, "data": "0x" + encode_session_creation(terms).hex(), "nonce": 0, "chainId": 1337}
    creation |= {"maxFeePerGas": 2 * web3.eth.gas_price + 1, "maxPriorityFeePerGas": web3.eth.max_priority_fee}
    creation["gas"] = web3.eth.estimate_gas(creation)
    digest = web3.eth.send_raw_transaction(account.sign_transaction(creation).raw_transaction)
    receipt = web3.eth.wait_for_transaction_receipt(digest, poll_latency=0.01)
    assert receipt["status"] == 1 and receipt["gasUsed"] <= creation["gas"] <= receipt["gasUsed"] * 1.1
    session = web3.eth.contract(address=receipt["contractAddress"], abi=artefact.abi)
    assert session.functions.terms().call()[1] == terms.deposit_wei
    joining = session.functions.join(session.address).build_transaction(
        {"from": account.address, "value": Wei(terms.deposit_wei), "nonce": web3.eth.get_transaction_count(account.address)}
    )
    joined = web3.eth.wait_for_transaction_receipt(
        web3.eth.send_raw_transaction(account.sign_transaction(joining).raw_transaction), poll_latency=0.01
    )
    (event,) = session.events.Joined().get_logs(from_block=0)
    assert event["args"]["wallet"] == RICH.address and event["transactionHash"] == joined["transactionHash"]
    assert session.events.Joined().process_receipt(joined, errors=DISCARD)[0]["args"]["index"] == 0
    assert len(web3.eth.get_code(session.address)) == len(artefact.runtime)
    assert web3.eth.get_transaction(digest)["nonce"] == 0 and web3.eth.get_block(joined["blockNumber"], True)["transactions"]
    assert web3.eth.fee_history(2, "latest", [50])["baseFeePerGas"]
    with web3.batch_requests() as batch:
        batch.add(web3.eth.get_block(0))
        batch.add(session.functions.stage())
        replies: list[Any] = batch.execute()
        assert replies[1] == 0
    with pytest.raises(Exception, match=r"0x|revert"):
        session.functions.claim(1, EVIDENCE).call({"from": account.address})


def test_web3__plain_http_provider_works() -> None:
    with_server(lambda url: trio.to_thread.run_sync(use_plain_web3, url))


def test_blocks__carry_the_clock_and_follow_without_transactions() -> None:
    """Stages advance by time although nobody sends anything; block time never runs ahead of the clock."""

    async def use(endpoint: Endpoint) -> None:
        async def head() -> tuple[int, int]:
            block = await endpoint.request("eth_getBlockByNumber", "latest", False)
            return int(block["number"], 16), int(block["timestamp"], 16)

        first, _ = await head()
        with trio.fail_after(10):
            number = first
            while number < first + 2:  # Each look is a request: the server goes on making blocks meanwhile.
                number, _ = await head()
        started, _ = await head()
        await endpoint.batch([("learnae_fund", (RICH.address, hex(ETHER)))] * 20)
        assert (await head())[0] <= started + 3, "the faucet's transactions share blocks"
        sent = [("eth_sendRawTransaction", (sign(RICH, nonce),)) for nonce in reversed(range(40))]
        await endpoint.batch(sent)
        number, timestamp = await head()
        assert timestamp <= time.time() and number < first + 10, "forty transactions share blocks"
        assert await endpoint.request("eth_getTransactionCount", RICH.address, "latest") == hex(40)

    ask(use, instant=False)


def test_instant__a_transaction_is_in_its_block_when_the_answer_comes() -> None:
    async def use(endpoint: Endpoint) -> None:
        digest = await endpoint.request("learnae_fund", RICH.address, "0x5")
        receipt = await endpoint.request("eth_getTransactionReceipt", digest)
        assert receipt["status"] == "0x1" and await endpoint.request("eth_blockNumber") == receipt["blockNumber"] == "0x1"
        await endpoint.request("evm_increaseTime", hex(1000))
        await endpoint.request("evm_mine")
        times = [int((await endpoint.request("eth_getBlockByNumber", hex(n), False))["timestamp"], 16) for n in (1, 2)]
        assert 1000 <= times[1] - times[0] < 1010

    ask(use)


@pytest.mark.parametrize(
    ("call", "why"),
    [
        (("eth_sendRawTransaction", "0x"), "not a signed transaction"),
        (("eth_sendRawTransaction", "0x02c0"), "not a signed transaction"),
        (("eth_sendRawTransaction", "zz"), "not hex data"),
        (("eth_sendRawTransaction", "0x02" + "ff" * 300), "not a signed transaction"),
        (("eth_sendRawTransaction", sign(WalletKey(b"\x01" * 32))), "insufficient funds"),
        (("eth_sendRawTransaction", sign(RICH, chainId=5)), "invalid chain id|not a signed"),
        (("eth_sendRawTransaction", sign(RICH, gas=31_000_000)), "exceeds block gas limit"),
        (("eth_sendRawTransaction", sign(RICH, gas=20_000)), "invalid transaction|not a signed|intrinsic"),
        (("eth_sendRawTransaction", sign(RICH, nonce=7)), "invalid transaction"),
        (("eth_sendRawTransaction", "0x" + "00" * 200_000), "oversized data"),
        (("eth_sendRawTransaction", "0x02" + "f9ffff" * 40_000), "not a signed transaction"),
        (("eth_getBalance", "0x12"), "not an address"),
        (("eth_getBalance",), "invalid params"),
        (("eth_getBalance", RICH.address, "0x99"), "unknown block"),
        (("eth_getBalance", RICH.address, {"x": 1}), "not a hex quantity"),
        (("eth_call", []), "invalid call"),
        (("eth_call", {"to": RICH.address, "value": "0x" + "f" * 70}), "not a hex|range|insufficient|afford|enough"),
        (("eth_getLogs", 5), "invalid filter"),
        (("eth_getLogs", {"topics": "x"}), "invalid topics"),
        (("eth_getLogs", {"blockHash": "0x00"}), "unknown block"),
        (("eth_getBlockByNumber", "-0x5", False), "out of range"),
        (("eth_mineEverything",), "does not exist"),
        (("learnae_fund", RICH.address, hex(10**40)), "the faucet gives at most"),
    ],
)
def test_request__that_makes_no_sense_is_refused_and_changes_nothing(call: tuple[Any, ...], why: str) -> None:
    async def use(endpoint: Endpoint) -> None:
        await endpoint.request("learnae_fund", RICH.address, hex(ETHER))
        with pytest.raises(RpcError, match=why):
            await endpoint.request(*call)
        assert await endpoint.request("eth_getBalance", RICH.address, "latest") == hex(ETHER)
        assert await endpoint.request("eth_getTransactionCount", RICH.address, "latest") == "0x0"

    ask(use)


def test_transaction__sent_twice_is_already_known_and_a_used_number_is_too_low() -> None:
    async def use(endpoint: Endpoint) -> None:
        await endpoint.request("learnae_fund", RICH.address, hex(ETHER))
        await endpoint.request("eth_sendRawTransaction", sign(RICH))
        with pytest.raises(RpcError, match="already known"):
            await endpoint.request("eth_sendRawTransaction", sign(RICH))
        with pytest.raises(RpcError, match="nonce too low"):
            await endpoint.request("eth_sendRawTransaction", sign(RICH, value=2))

    ask(use)


def test_web_page__cannot_use_the_chain() -> None:
    """threats.md: DNS rebinding and cross-site requests; wallets in the browser may."""

    async def use(url: str) -> None:
        for host in ("localhost", "127.0.0.1:99", "[::1]:8545", "LOCALHOST"):
            assert b"0x539" in await post(url, CHAIN_ID_CALL, host=host)
        for host in ("evil.example", "localhost.evil.example", "", "169.254.169.254", "[::2]:1"):
            found = await post(url, CHAIN_ID_CALL, host=host)
            assert b"0x539" not in found and found.startswith((b"HTTP/1.1 403", b"HTTP/1.1 400"))
        for origin in ("https://evil.example", "null", "http://localhost:3000"):
            assert (await post(url, CHAIN_ID_CALL, f"Origin: {origin}\r\n")).startswith(b"HTTP/1.1 403")
        assert b"0x539" in await post(url, CHAIN_ID_CALL, "Origin: chrome-extension://abc\r\n")
        for verb in (b"GET", b"OPTIONS"):
            assert (await post(url, b"", start=verb + b" / HTTP/1.1\r\n")).startswith(b"HTTP/1.1 405")

    with_server(use)


def test_http__oversized_and_broken_requests_are_ended() -> None:
    async def use(url: str) -> None:
        ended = b""  # The answer may be lost when the connection is closed with bytes unread.
        assert (await post(url, b"x" * (BODY_BYTES_MAX + 1)))[:12] in (b"HTTP/1.1 413", ended)
        assert (await post(url, b"", f"X: {'y' * 300000}\r\n"))[:12] in (b"HTTP/1.1 400", ended)
        assert (await post(url, b"", start=b"\x00\xff nonsense\r\n")).startswith(b"HTTP/1.1 400")
        assert b"-32700" in await post(url, b"{")
        assert b"-32700" in await post(url, b"[" * 100_000)
        assert b"-32600" in await post(url, b"[]") and b"-32600" in await post(url, b"5") and b"-32600" in await post(url, b"[5]")
        assert b"-32600" in await post(url, json.dumps([1] * 1001).encode())
        assert b"-32602" in await post(url, b'{"id":1,"method":"eth_chainId","params":{"a":1}}')
        assert b"0x539" in await post(url, CHAIN_ID_CALL), "still alive"

    with_server(use)


def test_port__in_use_is_one_sentence() -> None:
    async def use(url: str) -> None:
        port = int(url.rsplit(":", 1)[1])
        with pytest.raises(ChainServerError, match=rf"cannot start: 127.0.0.1:{port} cannot be used: .*choose another --port"):
            await serve_chain(port=port, options=ServerOptions())

    with_server(use)


@pytest.mark.parametrize("ether", ["", "-1", "nan", "1e40", "0", "five"])
@pytest.mark.parametrize("wallet", [RICH.address, "0x12", "nobody"])
def test_fund_option__that_makes_no_sense_is_one_sentence(wallet: str, ether: str, capsys: pytest.CaptureFixture[str]) -> None:
    fund = f"{wallet}={ether}"
    assert main(["--port", "0", "--fund", fund]) == 1
    assert "is not ADDRESS=ETHER" in capsys.readouterr().err


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_program__prints_its_address_and_ends_when_asked(ending: signal.Signals) -> None:
    command = [sys.executable, "-m", "learnae.backends.chain_server", "--port", "0", "--fund", f"{RICH.address}=2.5", "--chain-id", "77"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        line = process.stdout.readline()
        assert line.startswith("chain ready: http://127.0.0.1:") and line.endswith(" (chain id 77)\n")
        web3 = Web3(HTTPProvider(line.split()[2]))
        assert web3.eth.chain_id == 77 and web3.eth.get_balance(RICH.address) == 25 * 10**17  # type: ignore[arg-type]
        process.send_signal(ending)
        assert process.wait(HANGS_S) == 0
        assert process.stderr.read() == ""


def test_engine__refused_transaction_does_not_spoil_its_block() -> None:
    """A block keeps the valid transactions and says why the others are not in it."""
    poor = make_wallet("poor")
    chain = LocalChain(1337, {bytes.fromhex(RICH.address[2:]): ETHER, bytes.fromhex(poor.address[2:]): 10**15}, lambda: START_S)
    raws = [bytes.fromhex(text[2:]) for text in (sign(RICH), sign(poor, 3), sign(RICH, 1))]
    refusals = chain.make_block([(chain.decode(raw), raw) for raw in raws])
    assert [bool(refusal) for refusal in refusals] == [False, True, False]
    assert isinstance(refusals[1], RefusedError) and len(chain.in_block[-1]) == 2
    assert chain.head.timestamp == START_S and chain.state_at(chain.head).get_nonce(bytes.fromhex(RICH.address[2:])) == 2
