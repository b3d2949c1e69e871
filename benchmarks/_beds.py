"""Two Ethereum chains for the benchmarks, alike in use: anvil as a process of its own, and the embedded chain in this one."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Thread
from typing import Any, Protocol

import httpx

from learnae.backends.chain_server.engine import LocalChain
from learnae.backends.ethereum import WalletKey
from learnae.backends.ethereum.abi import checksum
from learnae.ids import Address
from verification.tools import find_command, install_nodes, make_environment

CHAIN_ID = 31337
ETHER = 10**18
TRANSACTION_GAS_MAX = 1 << 24  # EIP-7825
BLOCK_GAS_MAX = 30_000_000
_BATCH = 200
_FEE_WEI = 10**10


@dataclass(frozen=True, slots=True)
class Sent:
    """A transaction to be sent: from a wallet, to a contract or to make one."""

    wallet: WalletKey
    to: Address | None
    call: bytes
    value: int = 0
    gas: int = TRANSACTION_GAS_MAX


@dataclass(frozen=True, slots=True)
class Mined:
    gas: int
    contract: Address | None


class Bed(Protocol):
    """A chain with wallets that have money."""

    def give_money(self, wallets: Sequence[Address]) -> None: ...

    def send(self, transactions: Sequence[Sent]) -> list[Mined]:
        """Sign and mine them, in any order. Raises: RuntimeError: one of them reverted."""
        ...

    def now_s(self) -> int: ...

    def travel(self, time_s: int) -> None:
        """The next block is not earlier."""
        ...

    def balance(self, wallet: Address) -> int: ...

    def view(self, contract: Address, call: bytes) -> bytes: ...


class _Signer:
    """Counts the transactions of each wallet, which gives their nonces."""

    def __init__(self) -> None:
        self.counts: dict[Address, int] = {}

    def sign(self, sent: Sent) -> tuple[bytes, bytes]:
        nonce = self.counts.get(sent.wallet.address, 0)
        self.counts[sent.wallet.address] = nonce + 1
        fields: dict[str, Any] = {"type": 2, "chainId": CHAIN_ID, "nonce": nonce, "gas": sent.gas, "value": sent.value}
        fields |= {"data": sent.call, "maxFeePerGas": _FEE_WEI, "maxPriorityFeePerGas": 0}
        return sent.wallet.sign_transaction(fields if sent.to is None else {**fields, "to": sent.to})


def _fill_blocks(transactions: Sequence[Sent]) -> Iterator[list[Sent]]:
    """As many transactions to a block as fit."""
    block, gas = list[Sent](), 0
    for sent in transactions:
        if block and gas + sent.gas > BLOCK_GAS_MAX:
            yield block
            block, gas = [], 0
        block.append(sent)
        gas += sent.gas
    if block:
        yield block


def _read_receipt(receipt: Any) -> Mined:
    if receipt is None or int(receipt["status"], 16) != 1:
        raise RuntimeError(f"a transaction of the benchmark was not mined or reverted: {receipt}")
    contract = receipt.get("contractAddress")
    return Mined(int(receipt["gasUsed"], 16), checksum(contract) if contract else None)


class AnvilBed:
    """Foundry's node; it mines when it is told."""

    def __init__(self, http: httpx.Client) -> None:
        self._http = http
        self._signer = _Signer()

    def give_money(self, wallets: Sequence[Address]) -> None:
        self._ask([("anvil_setBalance", wallet, hex(100 * ETHER)) for wallet in wallets])

    def send(self, transactions: Sequence[Sent]) -> list[Mined]:
        mined = []
        for block in _fill_blocks(transactions):
            signed = [self._signer.sign(sent) for sent in block]
            self._ask([("eth_sendRawTransaction", "0x" + raw.hex()) for raw, _ in signed])
            self._ask([("evm_mine",)])
            receipts = self._ask([("eth_getTransactionReceipt", "0x" + digest.hex()) for _, digest in signed])
            mined += [_read_receipt(receipt) for receipt in receipts]
        return mined

    def now_s(self) -> int:
        return int(self._ask([("eth_getBlockByNumber", "latest", False)])[0]["timestamp"], 16)

    def travel(self, time_s: int) -> None:
        self._ask([("evm_setNextBlockTimestamp", time_s), ("evm_mine",)])

    def balance(self, wallet: Address) -> int:
        return int(self._ask([("eth_getBalance", wallet, "latest")])[0], 16)

    def view(self, contract: Address, call: bytes) -> bytes:
        message = {"to": contract, "data": "0x" + call.hex()}
        return bytes.fromhex(self._ask([("eth_call", message, "latest")])[0][2:])

    def _ask(self, calls: Sequence[tuple[Any, ...]]) -> list[Any]:
        results = []
        for start in range(0, len(calls), _BATCH):
            asked = [
                {"jsonrpc": "2.0", "id": number, "method": method, "params": params}
                for number, (method, *params) in enumerate(calls[start : start + _BATCH])
            ]
            for answer in sorted(self._http.post("", json=asked).json(), key=lambda item: int(item["id"])):
                if "error" in answer:
                    raise RuntimeError(f"anvil refused a call of the benchmark: {answer['error']}")
                results.append(answer["result"])
        return results


@contextmanager
def open_anvil() -> Iterator[AnvilBed]:
    """A fresh anvil on a free port."""
    install_nodes()
    limits = ["--chain-id", str(CHAIN_ID), "--gas-limit", str(BLOCK_GAS_MAX)]
    command = [*find_command("anvil"), "--port", "0", "--accounts", "1", "--no-mining", *limits]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=make_environment()) as process:
        assert process.stdout is not None
        try:
            port = next((line.rsplit(":", 1)[1].strip() for line in process.stdout if line.startswith("Listening on")), None)
            if port is None:
                raise RuntimeError("anvil ended before it listened")
            # It logs every call, and would stop at a pipe that nobody reads.
            reader = Thread(target=process.stdout.read)
            reader.start()
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60.0) as http:
                yield AnvilBed(http)
        finally:
            process.kill()
        reader.join()


@dataclass(slots=True)
class EmbeddedBed:
    """The chain that `learnae chain` serves, in this process: many transactions to a block, as many as fit."""

    _signer: _Signer = field(default_factory=_Signer)
    _clock_s: int = field(default_factory=lambda: int(time.time()))
    _rich: dict[bytes, int] = field(default_factory=dict)
    _chain: LocalChain | None = None

    def give_money(self, wallets: Sequence[Address]) -> None:
        if self._chain is not None:
            raise RuntimeError("the embedded chain gives money at its genesis only")
        self._rich |= {bytes.fromhex(wallet[2:]): 100 * ETHER for wallet in wallets}

    @property
    def chain(self) -> LocalChain:
        if self._chain is None:
            self._chain = LocalChain(CHAIN_ID, self._rich, lambda: self._clock_s)
        return self._chain

    def send(self, transactions: Sequence[Sent]) -> list[Mined]:
        mined = list[Mined]()
        for block in _fill_blocks(transactions):
            signed = [self._signer.sign(sent) for sent in block]
            mined += self._mine([(self.chain.decode(raw), raw, digest) for raw, digest in signed])
        return mined

    def _mine(self, waiting: Sequence[tuple[Any, bytes, bytes]]) -> list[Mined]:
        self._clock_s = self.now_s() + 1
        refusals = self.chain.make_block([(transaction, raw) for transaction, raw, _ in waiting])
        found = [None if refusal else self.chain.mined[digest] for refusal, (_, _, digest) in zip(refusals, waiting, strict=True)]
        if any(item is None or not int.from_bytes(item.receipt.state_root, "big") for item in found):
            raise RuntimeError(f"a transaction of the benchmark reverted: {[str(refusal) for refusal in refusals if refusal]}")
        return [Mined(item.gas_used, checksum(item.contract) if item.contract else None) for item in found if item is not None]

    def now_s(self) -> int:
        return int(self.chain.head.timestamp)

    def travel(self, time_s: int) -> None:
        self._clock_s = time_s
        self.chain.make_block()

    def balance(self, wallet: Address) -> int:
        return int(self.chain.state_at(self.chain.head).get_balance(bytes.fromhex(wallet[2:])))

    def view(self, contract: Address, call: bytes) -> bytes:
        message = {"sender": bytes(20), "to": bytes.fromhex(contract[2:]), "value": 0, "gas": 30_000_000, "data": call}
        return self.chain.call(self.chain.head, message)
