"""Ethereum's JSON-RPC methods over a `LocalChain`: hex quantities and camelCase outside, Python values inside.

Source: Ethereum execution API specification; error codes as geth gives them. `evm_increaseTime` and `evm_mine` are the
test nodes' usual ones, `learnae_fund` is this chain's faucet. Blocks are made when transactions arrive, at most one a
second of the clock so that block time stays the clock's; an empty one follows when none came for `block_time_s`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import trio

from learnae.backends.chain_server.engine import GAS_LIMIT, TRANSACTIONS_MAX, LocalChain, MinedTransaction, RefusedError

BATCH_MAX: Final = 1000  # Requests in one JSON-RPC batch, as geth.
LOGS_MAX: Final = 20_000  # In one answer; about 10 MB of JSON.
FUND_WEI_MAX: Final = 10**23  # A ten-thousandth of the faucet.
_WAITING_MAX: Final = 10_000  # Transactions that wait for a block: some 10 MB.
_EMPTY_BLOOM: Final = "0x" + "00" * 256
_ADDRESS_BYTES: Final = 20


@dataclass(slots=True, eq=False)
class _Waiting:
    transaction: Any
    raw: bytes
    done: trio.Event = field(default_factory=trio.Event)
    refusal: RefusedError | None = None


@dataclass(slots=True, eq=False)
class ChainService:
    """Answers JSON-RPC methods. With `instant` every transaction gets its block at once, and time may run ahead of the clock."""

    chain: LocalChain
    block_time_s: float = 1.0
    instant: bool = False
    _waiting: list[_Waiting] = field(default_factory=list)
    _wanted: trio.Event = field(default_factory=trio.Event)

    # --- making blocks ------------------------------------------------------------------------------------------

    async def make_blocks(self) -> None:
        """Make blocks until cancelled."""
        while True:
            with trio.move_on_after(self.block_time_s):
                await self._wanted.wait()
            self._wanted = trio.Event()
            if self._waiting and not self._is_due():
                await trio.sleep(0.02)  # Until the clock shows another second than the newest block.
                self._wanted.set()
            elif self._waiting or self.chain.now_s() - self.chain.head.timestamp >= self.block_time_s:
                self._make_block()

    def _is_due(self) -> bool:
        return self.instant or self.chain.now_s() > self.chain.head.timestamp

    def _make_block(self) -> None:
        self._waiting.sort(key=lambda item: item.transaction.nonce)
        gas = count = 0
        for item in self._waiting[:TRANSACTIONS_MAX]:
            gas += item.transaction.gas
            if gas > GAS_LIMIT:
                break
            count += 1
        batch, self._waiting = self._waiting[:count], self._waiting[count:]
        refusals = self.chain.make_block([(item.transaction, item.raw) for item in batch])
        for item, refusal in zip(batch, refusals, strict=True):
            item.refusal = refusal
            item.done.set()
        if self._waiting:
            self._wanted.set()

    async def _include(self, transaction: Any, raw: bytes) -> str:
        if len(self._waiting) >= _WAITING_MAX:
            raise RefusedError("transaction pool is full")
        item = _Waiting(transaction, raw)
        self._waiting.append(item)
        if self.instant:
            self._make_block()
        self._wanted.set()
        await item.done.wait()
        if item.refusal:
            raise item.refusal
        return _data(transaction.hash)

    # --- the request --------------------------------------------------------------------------------------------

    async def answer(self, request: object) -> dict[str, Any] | None:
        """Answer one request object; None for a notification."""
        if not isinstance(request, dict) or not isinstance(request.get("method"), str):
            return _failure(None, -32600, "invalid request")
        asked_id, method, params = request.get("id"), request["method"], request.get("params", [])
        if not isinstance(params, list):
            return _failure(asked_id, -32602, "params must be a list")
        try:
            if method in _ASYNC:
                found = await _ASYNC[method](self, *params)
            elif method in _PLAIN:
                found = _PLAIN[method](self, *params)
            else:
                return _failure(asked_id, -32601, f"the method {method[:60]} does not exist")
        except RefusedError as error:
            return _failure(asked_id, error.code, str(error), error.revert)
        except TypeError as error:
            return _failure(asked_id, -32602, f"invalid params: {error}")
        return {"jsonrpc": "2.0", "id": asked_id, "result": found} if "id" in request else None

    # --- facts --------------------------------------------------------------------------------------------------

    def fee_history(self, count: object, newest: object, percentiles: object = None) -> dict[str, Any]:
        last = self._block(newest).number
        first = max(0, last - min(_int(count), 1024) + 1)
        headers = [block.header for block in self.chain.blocks[first : last + 1]]
        shares = min(len(percentiles), 100) if isinstance(percentiles, list) else 0
        following = self.chain.blocks[min(last + 1, len(self.chain.blocks) - 1)].header
        return {
            "oldestBlock": hex(first),
            "baseFeePerGas": [hex(header.base_fee_per_gas) for header in [*headers, following]],
            "gasUsedRatio": [header.gas_used / header.gas_limit for header in headers],
            "reward": [["0x0"] * shares for _ in headers],
        }

    def balance(self, wallet: object, block: object = "latest") -> str:
        return hex(self._state(block).get_balance(_address(wallet)))

    def nonce(self, wallet: object, block: object = "latest") -> str:
        return hex(self._state(block).get_nonce(_address(wallet)))

    def code(self, contract: object, block: object = "latest") -> str:
        return _data(self._state(block).get_code(_address(contract)))

    def storage(self, contract: object, slot: object, block: object = "latest") -> str:
        return _data(self._state(block).get_storage(_address(contract), _int(slot)).to_bytes(32, "big"))

    def call(self, message: object, block: object = "latest") -> str:
        return _data(self.chain.call(self._block(block).header, _message(message)))

    def estimate(self, message: object, block: object = "latest") -> str:
        return hex(self.chain.estimate_gas(_message(message)))

    def block_by_number(self, block: object, full: object = False) -> dict[str, Any] | None:
        number = self._number(block)
        return None if number >= len(self.chain.blocks) else self._describe(number, full)

    def block_by_hash(self, digest: object, full: object = False) -> dict[str, Any] | None:
        block = self.chain.by_hash.get(_bytes(digest))
        return None if block is None else self._describe(block.number, full)

    def transaction(self, digest: object) -> dict[str, Any] | None:
        mined = self.chain.mined.get(_bytes(digest))
        return None if mined is None else _describe_transaction(mined)

    def receipt(self, digest: object) -> dict[str, Any] | None:
        mined = self.chain.mined.get(_bytes(digest))
        if mined is None:
            return None
        transaction, header = mined.transaction, mined.block.header
        logs = [_describe_log(mined, index) for index in range(len(mined.receipt.logs))]
        return {
            "blockHash": _data(mined.block.hash),
            "blockNumber": hex(mined.block.number),
            "contractAddress": None if mined.contract is None else _data(mined.contract),
            "cumulativeGasUsed": hex(mined.receipt.gas_used),
            "effectiveGasPrice": hex(_gas_price(transaction, header)),
            "from": _data(transaction.sender),
            "gasUsed": hex(mined.gas_used),
            "logs": logs,
            "logsBloom": "0x" + mined.receipt.bloom.to_bytes(256, "big").hex(),
            "status": hex(int.from_bytes(mined.receipt.state_root, "big")),
            "to": _data(transaction.to) if transaction.to else None,
            "transactionHash": _data(transaction.hash),
            "transactionIndex": hex(mined.index),
            "type": hex(getattr(transaction, "type_id", None) or 0),
        }

    def logs(self, asked: object) -> list[dict[str, Any]]:
        if not isinstance(asked, dict):
            raise RefusedError("invalid filter", code=-32602)
        if "blockHash" in asked:
            block = self.chain.by_hash.get(_bytes(asked["blockHash"]))
            if block is None:
                raise RefusedError("unknown block")
            first = last = block.number
        else:
            first, last = self._number(asked.get("fromBlock", "latest")), self._number(asked.get("toBlock", "latest"))
        found: list[dict[str, Any]] = []
        for log in self._matching(asked, first, last):
            found.append(log)
            if len(found) > LOGS_MAX:
                raise RefusedError(f"query returned more than {LOGS_MAX} results", code=-32005)
        return found

    def _matching(self, asked: Mapping[str, Any], first: int, last: int) -> Iterator[dict[str, Any]]:
        addresses = asked.get("address")
        wanted = None if addresses is None else {_address(item) for item in (addresses if isinstance(addresses, list) else [addresses])}
        raw_topics = asked.get("topics") or []
        if not isinstance(raw_topics, list):
            raise RefusedError("invalid topics", code=-32602)
        topics = [None if item is None else {_int(one) for one in (item if isinstance(item, list) else [item])} for item in raw_topics]
        for mined in (item for transactions in self.chain.in_block[first : last + 1] for item in transactions):
            for index, log in enumerate(mined.receipt.logs):
                if wanted is not None and log.address not in wanted:
                    continue
                if len(log.topics) < len(topics):
                    continue
                if all(any_of is None or have in any_of for have, any_of in zip(log.topics, topics, strict=False)):
                    yield _describe_log(mined, index)

    # --- changes ------------------------------------------------------------------------------------------------

    async def send_raw(self, raw: object) -> str:
        signed = _bytes(raw)
        transaction = self.chain.decode(signed)
        if any(item.transaction.hash == transaction.hash for item in self._waiting):
            raise RefusedError("already known")
        return await self._include(transaction, signed)

    async def fund(self, wallet: object, amount: object) -> str:
        if _int(amount) > FUND_WEI_MAX:
            raise RefusedError(f"the faucet gives at most {FUND_WEI_MAX} wei at once", code=-32602)
        waiting = sum(item.transaction.sender == self.chain.faucet for item in self._waiting)
        return await self._include(*self.chain.fund(_address(wallet), _int(amount), waiting))

    def travel(self, seconds: object) -> str:
        return hex(self.chain.travel(_int(seconds)))

    def mine(self, *_options: object) -> str:
        self._make_block()
        return "0x0"

    def _number(self, block: object) -> int:
        if block == "earliest":
            return 0
        if block in ("latest", "pending", "safe", "finalized"):
            return len(self.chain.blocks) - 1
        return _int(block)

    def _block(self, block: object) -> Any:
        number = self._number(block)
        if number >= len(self.chain.blocks):
            raise RefusedError("unknown block")
        return self.chain.blocks[number]

    def _state(self, block: object) -> Any:
        return self.chain.state_at(self._block(block).header)

    def _describe(self, number: int, full: object) -> dict[str, Any]:
        block, mined = self.chain.blocks[number], self.chain.in_block[number]
        header = block.header
        return {
            "number": hex(number),
            "hash": _data(block.hash),
            "parentHash": _data(header.parent_hash),
            "timestamp": hex(header.timestamp),
            "gasLimit": hex(header.gas_limit),
            "gasUsed": hex(header.gas_used),
            "baseFeePerGas": hex(header.base_fee_per_gas),
            "miner": _data(header.coinbase),
            "difficulty": "0x0",
            "totalDifficulty": "0x0",
            "extraData": _data(header.extra_data),
            "nonce": _data(header.nonce),
            "mixHash": _data(header.mix_hash),
            "sha3Uncles": _data(header.uncles_hash),
            "stateRoot": _data(header.state_root),
            "transactionsRoot": _data(header.transaction_root),
            "receiptsRoot": _data(header.receipt_root),
            "logsBloom": "0x" + header.bloom.to_bytes(256, "big").hex() if header.bloom else _EMPTY_BLOOM,
            "size": "0x0",
            "uncles": [],
            "transactions": [_describe_transaction(item) if full else _data(item.transaction.hash) for item in mined],
        }


def _describe_transaction(mined: MinedTransaction) -> dict[str, Any]:
    transaction = mined.transaction
    typed = getattr(transaction, "type_id", None)
    fields = {
        "hash": _data(transaction.hash),
        "blockHash": _data(mined.block.hash),
        "blockNumber": hex(mined.block.number),
        "transactionIndex": hex(mined.index),
        "from": _data(transaction.sender),
        "to": _data(transaction.to) if transaction.to else None,
        "nonce": hex(transaction.nonce),
        "gas": hex(transaction.gas),
        "gasPrice": hex(_gas_price(transaction, mined.block.header)),
        "value": hex(transaction.value),
        "input": _data(transaction.data),
        "type": hex(typed or 0),
        "chainId": hex(transaction.chain_id) if transaction.chain_id is not None else None,
        "v": hex(transaction.y_parity if typed else transaction.v),
        "r": hex(transaction.r),
        "s": hex(transaction.s),
    }
    if typed is not None and typed > 1:
        fields["maxFeePerGas"] = hex(transaction.max_fee_per_gas)
        fields["maxPriorityFeePerGas"] = hex(transaction.max_priority_fee_per_gas)
    return fields


def _describe_log(mined: MinedTransaction, index: int) -> dict[str, Any]:
    log = mined.receipt.logs[index]
    return {
        "address": _data(log.address),
        "topics": ["0x" + topic.to_bytes(32, "big").hex() for topic in log.topics],
        "data": _data(log.data),
        "blockNumber": hex(mined.block.number),
        "blockHash": _data(mined.block.hash),
        "transactionHash": _data(mined.transaction.hash),
        "transactionIndex": hex(mined.index),
        "logIndex": hex(mined.first_log + index),
        "removed": False,
    }


def _gas_price(transaction: Any, header: Any) -> int:
    return int(min(transaction.max_fee_per_gas, transaction.max_priority_fee_per_gas + header.base_fee_per_gas))


def _message(message: object) -> dict[str, Any]:
    if not isinstance(message, dict):
        raise RefusedError("invalid call", code=-32602)
    data = message.get("data") or message.get("input") or "0x"
    return {
        "sender": _address(message["from"]) if message.get("from") else bytes(_ADDRESS_BYTES),
        "to": _address(message["to"]) if message.get("to") else b"",
        "value": _int(message.get("value") or "0x0"),
        "gas": _int(message.get("gas") or hex(GAS_LIMIT)),
        "data": _bytes(data),
    }


def _failure(asked_id: object, code: int, message: str, revert: bytes | None = None) -> dict[str, Any]:
    error: dict[str, Any] = {"code": code, "message": message}
    if revert is not None:
        error["data"] = _data(revert)
    return {"jsonrpc": "2.0", "id": asked_id if isinstance(asked_id, int | str) else None, "error": error}


def _data(value: bytes) -> str:
    return "0x" + bytes(value).hex()


def _bytes(value: object) -> bytes:
    try:
        return bytes.fromhex(str(value).removeprefix("0x"))
    except ValueError:
        raise RefusedError("invalid params: not hex data", code=-32602) from None


def _int(value: object) -> int:
    try:
        number = value if isinstance(value, int) else int(str(value)[:66], 16)
    except ValueError:
        raise RefusedError("invalid params: not a hex quantity", code=-32602) from None
    if not 0 <= number < 1 << 256:
        raise RefusedError("invalid params: quantity out of range", code=-32602)
    return number


def _address(value: object) -> bytes:
    wallet = _bytes(value)
    if len(wallet) != _ADDRESS_BYTES:
        raise RefusedError("invalid params: not an address", code=-32602)
    return wallet


_PLAIN: Mapping[str, Callable[..., Any]] = {
    "web3_clientVersion": lambda service: "learnae-chain/1",
    "net_version": lambda service: str(service.chain.chain_id),
    "eth_syncing": lambda service: False,
    "eth_accounts": lambda service: [],
    "eth_chainId": lambda service: hex(service.chain.chain_id),
    "eth_blockNumber": lambda service: hex(len(service.chain.blocks) - 1),
    "eth_gasPrice": lambda service: hex(service.chain.head.base_fee_per_gas),
    "eth_maxPriorityFeePerGas": lambda service: "0x0",
    "eth_feeHistory": ChainService.fee_history,
    "eth_getBalance": ChainService.balance,
    "eth_getTransactionCount": ChainService.nonce,
    "eth_getCode": ChainService.code,
    "eth_getStorageAt": ChainService.storage,
    "eth_call": ChainService.call,
    "eth_estimateGas": ChainService.estimate,
    "eth_getBlockByNumber": ChainService.block_by_number,
    "eth_getBlockByHash": ChainService.block_by_hash,
    "eth_getTransactionByHash": ChainService.transaction,
    "eth_getTransactionReceipt": ChainService.receipt,
    "eth_getLogs": ChainService.logs,
    "evm_increaseTime": ChainService.travel,
    "evm_mine": ChainService.mine,
}
_ASYNC: Mapping[str, Callable[..., Any]] = {"eth_sendRawTransaction": ChainService.send_raw, "learnae_fund": ChainService.fund}


