"""Which endpoints a command speaks to, and how many confirmations it waits for. Imports nothing that takes time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from learnae.cli.dao.parser import DEFAULT_RPC
from learnae.errors import UsageError

CONFIRMATIONS_MAX: Final = 1000  # More than three hours of Ethereum, whose blocks are final after 13 minutes.


def choose_endpoints(given: Sequence[str] | None, otherwise: Sequence[str] = ()) -> tuple[str, str]:
    """The endpoint and the second one, empty if there is none. Raises: UsageError."""
    urls = tuple(given or otherwise or (DEFAULT_RPC,))
    if len(urls) > 2:
        raise UsageError(f"--rpc is given {len(urls)} times, expected once, or twice to compare two endpoints")
    return urls[0], urls[1] if len(urls) == 2 else ""


def check_confirmations(confirmations: int) -> int:
    """Raises: UsageError."""
    if not 0 <= confirmations <= CONFIRMATIONS_MAX:
        raise UsageError(f"--confirmations is {confirmations}, expected 1 to {CONFIRMATIONS_MAX}, or 0 for what fits the chain")
    return confirmations
