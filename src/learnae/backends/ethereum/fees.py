"""What a unit of gas costs (EIP-1559): its price now, what this wallet offers, and what a replacement has to offer.

The offer for a unit of gas never exceeds the wallet's cap. Source: EIP-1559; geth's rule for replacements (a tenth more).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

import trio

from learnae.backends.ethereum.options import ChainOptions
from learnae.backends.ethereum.rpc import Endpoint, Fields, RpcError

_TIP_WEI: Final = 10**9  # Where a node does not say: a gwei was always enough.


@dataclass(frozen=True, slots=True)
class Price:
    """Of a unit of gas in the next block: the base fee, which is burned, and the tip to the block's maker, in wei."""

    base_wei: int
    tip_wei: int

    @property
    def wei(self) -> int:
        return self.base_wei + self.tip_wei


@dataclass(frozen=True, slots=True)
class Offer:
    """What a transaction offers for a unit of gas: at most `most_wei`, of which at most `tip_wei` are a tip."""

    most_wei: int
    tip_wei: int


class Fees:
    """Reads prices and makes offers below the cap."""

    def __init__(self, endpoint: Endpoint, options: ChainOptions, on_trouble: Callable[[str], None]) -> None:
        self._endpoint, self._cap_wei, self._poll_s = endpoint, options.fee_cap_wei, options.fee_poll_s
        self._on_trouble = on_trouble

    async def read(self) -> Price:
        """The price now."""
        asked = partial(self._endpoint.request, "eth_getBlockByNumber", "latest", False)
        base = Fields("eth_getBlockByNumber", await self._endpoint.surely(asked)).number("baseFeePerGas")
        try:
            tip = await self._endpoint.patiently(partial(self._endpoint.request_number, "eth_maxPriorityFeePerGas"))
        except RpcError:
            tip = _TIP_WEI
        return Price(base, tip)

    async def wait(self) -> Price:
        """The price, as soon as it is not above the cap; says so while it is."""
        told = False
        while True:
            price = await self.read()
            if price.wei <= self._cap_wei:
                return price
            if not told:
                told = True
                gwei, cap = price.wei / 1e9, self._cap_wei / 1e9
                self._on_trouble(f"gas costs {gwei:.1f} gwei, more than the cap of {cap:.1f}; waiting until it falls")
            await trio.sleep(self._poll_s)

    def offer(self, price: Price) -> Offer:
        """An offer that stays good while the base fee doubles, but for the cap."""
        most = min(2 * price.base_wei + price.tip_wei, self._cap_wei)
        return Offer(most, min(price.tip_wei, most))

    def outbid(self, offer: Offer, price: Price) -> Offer | None:
        """The least offer that replaces `offer` and is worth its price now; None if that is above the cap."""
        most = max(_raise(offer.most_wei), 2 * price.base_wei + price.tip_wei)
        if most > self._cap_wei:
            most = self._cap_wei
        if most < max(_raise(offer.most_wei), price.wei):
            return None
        return Offer(most, min(max(_raise(offer.tip_wei), price.tip_wei), most))


def _raise(wei: int) -> int:
    """An eighth more, and at least a wei: nodes ask for a tenth."""
    return wei + wei // 8 + 1
