"""Every backend of the `Chain` port passes its conformance suite."""

from __future__ import annotations

import pytest
import trio

from tests.backends.chain_beds import make_memory_bed, open_ethereum_bed
from tests.backends.nodes import NODES
from tests.conformance.chain import check_chain, check_groups


def test_memory_chain__conforms() -> None:
    trio.run(check_chain, make_memory_bed())


def test_memory_chain__takes_signed_claims_and_ballots_in_groups() -> None:
    trio.run(check_groups, make_memory_bed())


def test_ethereum_chain__conforms_against_the_embedded_chain() -> None:
    async def run() -> None:
        async with open_ethereum_bed() as bed:
            await check_chain(bed)
            await check_groups(bed)

    trio.run(run)


@pytest.mark.parametrize("program", NODES)
def test_ethereum_chain__conforms_against_nodes_of_others(program: str) -> None:
    """Issue 3: one suite against three implementations of the virtual machine, each started and stopped here."""

    async def run() -> None:
        async with open_ethereum_bed(program) as bed:
            await check_chain(bed)
            await check_groups(bed)

    trio.run(run)
