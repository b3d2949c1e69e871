"""A second endpoint beside the first: before anything is signed, both must say the same about the same block.

A node can lie, or follow a fork of its own. Two that are run by different people and agree are hard to arrange for a liar. What is
compared is the hash of the newest block that counts, and the whole session as each of them shows it there.
"""

from __future__ import annotations

from dataclasses import fields

import trio

from learnae.backends.ethereum.reader import SessionFacts, SessionReader, read_block_hash, read_facts
from learnae.backends.ethereum.rpc import Endpoint
from learnae.errors import ChainUnreachableError, EndpointsDisagreeError
from learnae.ids import Address
from learnae.protocol.calls import ChainView


class Witness:
    """The second endpoint. Not for two callers at once."""

    def __init__(self, first: Endpoint, second: Endpoint, chain_id: int) -> None:
        self.endpoint = second
        self._first, self._chain_id = first, chain_id
        self._readers: dict[Address, SessionReader] = {}

    async def compare_block(self, number: int) -> None:
        """Raises: EndpointsDisagreeError."""
        mine = await self._first.surely(lambda: read_block_hash(self._first, number))
        theirs = await self._wait_for(number)
        if mine != theirs:
            raise EndpointsDisagreeError(self._first.name, self.endpoint.name, number, "its hash")

    async def compare(self, session: Address, facts: SessionFacts, view: ChainView) -> None:
        """Compare what the first endpoint said about a session. Raises: EndpointsDisagreeError, NotASessionError."""
        await self.compare_block(view.block_number)
        if session not in self._readers:
            theirs = await self.endpoint.surely(lambda: read_facts(self.endpoint, session))
            if theirs != facts:
                raise EndpointsDisagreeError(self._first.name, self.endpoint.name, view.block_number, "the session's terms")
            self._readers[session] = SessionReader(self.endpoint, session, facts, self._chain_id)
        reader = self._readers[session]
        seen = await self.endpoint.surely(lambda: reader.read_at(view.block_number))
        for field in fields(ChainView):
            if field.name != "newest_s" and getattr(seen, field.name) != getattr(view, field.name):  # Not of the block that is compared.
                what = field.name.replace("_", " ")
                raise EndpointsDisagreeError(self._first.name, self.endpoint.name, view.block_number, f"the session's {what}")

    async def _wait_for(self, number: int) -> bytes:
        """The hash of a block, as soon as the second endpoint has it."""

        async def ask() -> bytes:
            found = await read_block_hash(self.endpoint, number)
            if found is None:
                raise ChainUnreachableError(self.endpoint.name, f"it has no block {number} yet")
            return found

        found: bytes = await self.endpoint.surely(ask)
        await trio.lowlevel.checkpoint()
        return found
