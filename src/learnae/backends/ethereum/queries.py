"""Questions about one contract: its views and its events, in pieces that nodes accept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from learnae.backends.ethereum.abi import ContractAbi
from learnae.backends.ethereum.rpc import Endpoint, Fields, RpcError, read_bytes
from learnae.errors import ChainAnswerError
from learnae.ids import Address

_LOG_BLOCKS: Final = 5000  # Blocks in one log query; fewer when a node finds it too many.


def make_view_call(abi: ContractAbi, contract: Address, function: str, *values: object) -> dict[str, str]:
    """The message of an `eth_call` to a view."""
    return {"to": contract, "data": "0x" + abi.encode(function, *values).hex()}


async def call_view(endpoint: Endpoint, abi: ContractAbi, contract: Address, block: int, function: str, *values: object) -> tuple[Any, ...]:
    """What a view returned at a block. Raises: ChainAnswerError, RpcError."""
    message = make_view_call(abi, contract, function, *values)
    return abi.decode(function, read_bytes("eth_call", await endpoint.request("eth_call", message, hex(block))))


async def read_logs(
    endpoint: Endpoint, contract: Address, blocks: tuple[int, int], take: Callable[[Fields], None], topics: Sequence[bytes] = ()
) -> None:
    """Give `take` the contract's logs in the blocks from the first to the last, in their order. Raises: ChainAnswerError."""
    first, last = blocks
    span = _LOG_BLOCKS
    filtered: dict[str, object] = {"topics": ["0x" + topic.hex() for topic in topics]} if topics else {}
    while first <= last:
        upto = min(first + span - 1, last)
        asked = {"address": contract, "fromBlock": hex(first), "toBlock": hex(upto), **filtered}
        try:
            logs = await endpoint.request("eth_getLogs", asked)
        except RpcError:
            if span == 1:
                raise
            span = max(1, span // 4)
            continue
        if not isinstance(logs, list):
            raise ChainAnswerError("eth_getLogs", "it is no list")
        for log in logs:
            take(Fields("eth_getLogs", log))
        first = upto + 1


def read_topics(log: Fields) -> list[bytes]:
    return [read_bytes("eth_getLogs", topic) for topic in log.items("topics")]
