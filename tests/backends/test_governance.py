"""Proposals as a reader sees them (5.2, Table 1), also when their creator or the node means harm; and what calls really cost."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import trio
from eth_abi.abi import encode

from learnae.backends.ethereum import EthereumChain, governance
from learnae.backends.ethereum.abi import governance_abi
from learnae.backends.ethereum.chain import make_creation
from learnae.backends.ethereum.costs import MEASURED_GAS
from learnae.backends.ethereum.governance import GovernanceReader, Proposal
from learnae.backends.ethereum.intents import Intent
from learnae.backends.ethereum.reader import SessionFacts
from learnae.backends.ethereum.tips import Tip, fill_budget, give_tips, take_tips
from learnae.errors import ChainAnswerError
from learnae.ids import Address, Wei
from learnae.protocol.calls import CastBallot, DeployPoid, Join, PayTip, Release, SubmitClaim, Tally
from tests.backends.chain_beds import open_ethereum_bed
from tests.backends.chain_bench import Faults, FaultyEndpoint
from tests.conformance.chain import EVIDENCE, STRANGER, ChainBed, make_terms


async def open_session(bed: ChainBed, members: int) -> tuple[EthereumChain, Address, SessionFacts]:
    """A session in TRAINING with so many members, seen by the first of them."""
    first = bed.chains[0]
    assert isinstance(first, EthereumChain)
    terms = make_terms(await bed.now_s(), members_min=1)
    session = await first.deploy_session(terms)
    for chain in bed.chains[:members]:
        poid = (await chain.submit(session, DeployPoid())).address
        assert poid is not None
        await chain.submit(session, Join(poid))
    await bed.travel_to(terms.funding_ends_s)
    return first, session, await first.read_facts(session)


async def propose_raw(chain: EthereumChain, facts: SessionFacts, description: bytes, call: bytes = b"") -> None:
    """A proposal whose description is any bytes, as a hostile member could send it."""
    values = (STRANGER, 0, description, call, 10)
    selector = governance_abi().encode("newProposal", STRANGER, 0, "", b"", 10)[:4]
    data = selector + encode(["address", "uint256", "bytes", "bytes", "uint256"], values)
    await chain.submit_intent(None, Intent("a trick", facts.governance, data))


async def read(chain: EthereumChain, session: Address, facts: SessionFacts) -> tuple[Proposal, ...]:
    block = (await chain.read(session)).block_number
    return (await GovernanceReader(chain.endpoint, facts, chain.wallet).read(block)).proposals


def test_proposals__with_hostile_text_are_shown_and_hide_nothing() -> None:
    """A description may be no text at all, or full of terminal codes; the other proposals are read all the same."""

    async def run() -> None:
        async with open_ethereum_bed() as bed:
            chain, session, facts = await open_session(bed, 1)
            await propose_raw(chain, facts, b"\xff\xfe\x00")
            await propose_raw(chain, facts, "a\x1b[2Jb\nc\u202e".encode(), b"\x01\x02\x03\x04")
            await propose_raw(chain, facts, b"honest")
            found = await read(chain, session, facts)
            assert [proposal.description for proposal in found] == ["\ufffd\ufffd\ufffd", "a\ufffd[2Jb\ufffdc\ufffd", "honest"]
            reader = GovernanceReader(chain.endpoint, facts, chain.wallet)
            block = (await chain.read(session)).block_number
            calls = [await reader.read_call(block, proposal) for proposal in found]
            assert calls == [b"", b"\x01\x02\x03\x04", b""]
            words = [governance.describe_call(facts, session, found[1].recipient, call) for call in calls[:2]]
            assert words == ["a plain payment", f"calls {STRANGER} with 0x01020304, which this program does not know"]

    trio.run(run)


@pytest.mark.parametrize("change", list(governance.OWN_CALLS))
def test_change__of_the_dao_is_told_only_for_the_right_contract(change: str) -> None:
    """The same bytes sent to a stranger's contract do something else."""
    facts = SessionFacts(make_terms(1), 1, Address("0x" + "11" * 20), Address("0x" + "22" * 20))
    session = Address("0x" + "33" * 20)
    recipient, call = governance.make_change(facts, session, change, 7)
    said = governance.describe_call(facts, session, recipient, call)
    assert "7" in said and "does not know" not in said
    assert "does not know" in governance.describe_call(facts, session, STRANGER, call)
    assert "does not know" in governance.describe_call(facts, session, recipient, call[:-1])
    assert "does not know" in governance.describe_call(facts, session, recipient, b"\xff" + call[1:])


def test_call__that_the_node_invents_is_not_believed() -> None:
    """Table 1, proposalHash: what is shown and executed is what was announced."""

    async def run() -> None:
        async with open_ethereum_bed() as bed:
            chain, session, facts = await open_session(bed, 1)
            await propose_raw(chain, facts, b"harmless", b"\x01" * 32)
            (proposal,) = await read(chain, session, facts)
            faults = Faults()
            url = chain.endpoint._url
            async with FaultyEndpoint(url, faults, lambda sentence: None) as endpoint:
                reader = GovernanceReader(endpoint, facts, chain.wallet)
                block = (await chain.read(session)).block_number
                assert await reader.read_call(block, proposal) == b"\x01" * 32

                def invent(asked: Any, answer: Any) -> Any:
                    for log in answer["result"] if isinstance(asked, dict) and asked["method"] == "eth_getLogs" else ():
                        log["data"] = log["data"].replace("01" * 32, "02" * 32)
                    return answer

                for lie in (invent, lambda asked, answer: {"result": []}):
                    faults.rewrite = lie
                    with pytest.raises(ChainAnswerError, match="the event of proposal 0 is missing"):
                        await reader.read_call(block, proposal)

    trio.run(run)


def test_view__shows_the_newest_proposals_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """A member may make many; what is read has a bound."""
    monkeypatch.setattr(governance, "PROPOSALS_SHOWN_MAX", 2)

    async def run() -> None:
        async with open_ethereum_bed() as bed:
            chain, session, facts = await open_session(bed, 1)
            for name in (b"first", b"second", b"third"):
                await propose_raw(chain, facts, name)
            assert [(one.number, one.description) for one in await read(chain, session, facts)] == [(1, "second"), (2, "third")]

    trio.run(run)


def test_measured_gas__is_what_the_calls_of_a_session_use() -> None:
    """What --dry-run and docs/testnet.md tell is true: never less than what is used, and not much more."""

    async def run() -> None:
        async with open_ethereum_bed() as bed:
            used: dict[str, int] = {}
            first = bed.chains[0]
            assert isinstance(first, EthereumChain)
            terms = replace(make_terms(await bed.now_s(), members_min=1), proposal_deposit_wei=Wei(1000))
            created = await first.submit_intent(None, make_creation(terms))
            used["session"], session = created.gas_used, created.address
            assert session is not None
            facts = await first.read_facts(session)
            for chain in bed.chains[:3]:
                deployed = await chain.submit(session, DeployPoid())
                assert deployed.address is not None
                used["proof of identity"] = deployed.gas_used
                used["join"] = (await chain.submit(session, Join(deployed.address))).gas_used
            await bed.travel_to(terms.funding_ends_s)
            used |= await govern(bed, first, session, facts)
            used["tip"] = (await first.submit(session, PayTip(STRANGER, Wei(5), EVIDENCE))).gas_used
            await bed.travel_to(terms.training_ends_s)
            used["claim"] = (await first.submit(session, SubmitClaim(100, EVIDENCE))).gas_used
            for chain in bed.chains[1:3]:
                await chain.submit(session, SubmitClaim(50, EVIDENCE))
            await bed.travel_to(terms.claiming_ends_s)
            used["ballot"] = (await first.submit(session, CastBallot((2,)))).gas_used
            await bed.chains[1].submit(session, CastBallot((2,)))
            await bed.travel_to((await first.read(session)).voting_ends_s)
            used["tally"] = (await first.submit(session, Tally())).gas_used
            used["withdrawal"] = (await first.submit(session, Release((bed.chains[1].wallet,)))).gas_used
            assert sorted(used) == sorted(MEASURED_GAS)
            assert {name: gas for name, gas in used.items() if not 0.85 * MEASURED_GAS[name] <= gas <= MEASURED_GAS[name]} == {}

    trio.run(run)


async def govern(bed: ChainBed, chain: EthereumChain, session: Address, facts: SessionFacts) -> dict[str, int]:
    """Gas of a proposal, a vote on it, and its execution."""
    reader = GovernanceReader(chain.endpoint, facts, chain.wallet)
    state = await reader.read((await chain.read(session)).block_number)
    recipient, call = governance.make_change(facts, session, "quorum-divisor", 4)
    proposed = await chain.submit_intent(session, governance.propose(state, recipient, Wei(0), "x" * 100, call, debating_s=10))
    voted = await chain.submit_intent(session, governance.vote(facts, 0, yes=True))
    await bed.travel_to(await bed.now_s() + 20)
    executed = await chain.submit_intent(session, governance.execute(facts, 0, call))
    return {"proposal": proposed.gas_used, "vote on a proposal": voted.gas_used, "execution of a proposal": executed.gas_used}


def test_tips__that_were_collected_are_sent_to_another_address() -> None:
    async def run() -> None:
        async with open_ethereum_bed() as bed:
            chain, _, facts = await open_session(bed, 1)
            await chain.submit_intent(None, fill_budget(facts, Wei(100)))
            await chain.submit_intent(None, give_tips(facts, [Tip(chain.wallet, Wei(55), EVIDENCE)]))
            before = await chain.balance_wei(STRANGER)
            await chain.submit_intent(None, take_tips(facts, chain.wallet, STRANGER))
            assert await chain.balance_wei(STRANGER) - before == 55

    trio.run(run)
