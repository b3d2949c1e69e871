"""Session rules and tickets: one canonical document, one line that survives being pasted, one sentence for each fault."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from learnae.errors import RulesError, TicketError
from learnae.ids import Address
from learnae.protocol.rules import RULES_BYTES_MAX, TICKET_BYTES_MAX, Ticket, decode_rules, decode_ticket, describe_session
from learnae.tangle import cbor
from tests.protocol.builders import RULES

CONTRACT = Address("0x" + "Ab" * 20)
TICKET = Ticket(rules=RULES, contract=CONTRACT, addresses=("/ip4/10.0.0.1/tcp/4001/p2p/12D3KooW",))


def test_rules__are_read_back_as_they_were_written() -> None:
    assert decode_rules(RULES.encoded) == RULES
    assert RULES.digest == RULES.cid[4:]
    assert RULES.compute_terms().rules_digest == RULES.digest


def test_rules__every_difference_is_another_session() -> None:
    """No vertex counts in another session or lane: net and topic come from the rules' CID."""
    other = replace(RULES, reward_factor=1001)

    assert other.cid != RULES.cid
    assert len({rules.compute_net(lane) for rules in (RULES, other) for lane in ("control", "sensors")}) == 4
    assert len({rules.compute_topic(lane) for rules in (RULES, other) for lane in ("control", "sensors")}) == 4
    assert describe_session(RULES).startswith("test (bafy")


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"name": ""}, "name '' is not 1 to 64"),
        ({"name": "a" * 65}, "is not 1 to 64"),
        ({"codename": "a/b"}, "without a slash"),
        ({"codename": "a\n"}, "printable"),
        ({"task_digest": bytes(31)}, "task_digest is not 32 bytes"),
        ({"initial_model": b"x"}, "initial_model is not a CID"),
        ({"overuse_threshold": 0}, "overuse_threshold is 0, expected 1"),
        ({"train_permille": 1001}, "train_permille is 1001, expected 0 to 1000"),
        ({"slices_per_cycle": 1025}, "slices_per_cycle is 1025"),
        ({"reward_factor": 0}, "reward_factor is 0"),
        ({"deposit_wei": 0}, "deposit_wei is 0"),
        ({"members_min": 5, "members_max": 4}, "members_max is 4, expected 5"),
        ({"funding_ends_s": RULES.starts_s}, "funding_ends_s"),
        ({"training_ends_s": RULES.funding_ends_s}, "training_ends_s"),
        ({"claiming_ends_s": RULES.training_ends_s}, "claiming_ends_s"),
        ({"voting_ends_s": RULES.claiming_ends_s}, "voting_ends_s"),
        ({"final_s": 1001}, "final_s is 1001"),
        ({"reject_quorum_permille": 0}, "reject_quorum_permille is 0"),
        ({"extension_max_s": -1}, "extension_max_s is -1"),
        ({"proposal_deposit_wei": RULES.deposit_wei + 1}, "proposal_deposit_wei is"),
        ({"min_quorum_divisor": 1}, "min_quorum_divisor is 1, expected 2 to 10"),
        ({"debating_min_s": 0}, "debating_min_s is 0, expected 1 to 4838400"),
        ({"policy": "best"}, "policy is 'best', expected one of paired, paper"),
        ({"reducer": "sum"}, "reducer is 'sum'"),
        ({"model_codec": "zip"}, "model_codec is 'zip', expected one of raw, float16, int8, delta8, delta4, delta2"),
        ({"model_codec": "delta4", "audit_permille": 1}, "audits cannot tell how models were made that are rounded so much; use one of"),
        ({"reward_mode": "gift"}, "reward_mode is 'gift'"),
        ({"reward_rule": "equal"}, "reward_rule is 'equal'"),
    ],
)
def test_rules__each_fault_is_one_sentence(changes: dict[str, Any], why: str) -> None:
    with pytest.raises(RulesError, match="these session rules cannot be used: ") as caught:
        replace(RULES, **changes)
    assert why in str(caught.value)


@pytest.mark.parametrize(
    ("encoded", "why"),
    [
        (b"", "not dag-cbor"),
        (b"\x80", "version 1"),
        (cbor.encode([2, *cbor.decode(RULES.encoded)[1:]]), "a newer learnae"),
        (RULES.encoded[:-3], "not dag-cbor"),
        (RULES.encoded + b"\x00", ""),
        (bytes(RULES_BYTES_MAX + 1), "at most 8192"),
        (cbor.encode([1, 5, *cbor.decode(RULES.encoded)[2:]]), "name is a int, expected str"),
        (cbor.encode([*cbor.decode(RULES.encoded)[:-1], True]), "model_codec is a bool, expected str"),
        (RULES.encoded[:2] + b"\x18" + RULES.encoded[2:], "not the canonical encoding"),
    ],
)
def test_rules__bytes_that_are_no_rules_are_refused(encoded: bytes, why: str) -> None:
    with pytest.raises(RulesError) as caught:
        decode_rules(encoded)
    assert why in str(caught.value)


@given(data=st.data())
def test_rules__any_changed_byte_is_refused_or_another_session(data: st.DataObject) -> None:
    encoded = bytearray(RULES.encoded)
    encoded[data.draw(st.integers(0, len(encoded) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        rules = decode_rules(bytes(encoded))
    except RulesError:
        return
    assert rules.encoded == bytes(encoded) and rules.cid != RULES.cid


def test_ticket__survives_being_pasted() -> None:
    text = TICKET.to_text()
    broken_into_lines = "\n  ".join(text[i : i + 40] for i in range(0, len(text), 40))

    assert decode_ticket(text) == decode_ticket(f"  {broken_into_lines}\n") == TICKET
    assert text.startswith("learnae1") and text.isalnum() and text == text.lower()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "begins with ''"),
        ("hello", "begins with 'hello'"),
        (TICKET.to_text()[:-1], ""),
        (TICKET.to_text()[:-9], "cut off"),
        ("learnae1", "checksum"),
        ("learnae1" + "!" * 16, "characters that no ticket has"),
        ("learnae1" + "a" * TICKET_BYTES_MAX, "at most 16384"),
        (TICKET.to_text()[:30] + ("a" if TICKET.to_text()[30] != "a" else "b") + TICKET.to_text()[31:], "mistyped"),
        (Ticket(rules=RULES, contract=Address("0x12")).to_text(), "contract and addresses"),
        (Ticket(rules=RULES, contract=Address("0x" + "zz" * 20)).to_text(), "contract and addresses"),
        (Ticket(rules=RULES, contract=CONTRACT, addresses=("no multiaddr",)).to_text(), "contract and addresses"),
        (Ticket(rules=RULES, contract=CONTRACT, addresses=("/a",) * 9).to_text(), "contract and addresses"),
    ],
)
def test_ticket__each_fault_is_one_sentence(text: str, why: str) -> None:
    """Issue: a broken or foreign ticket is one clear sentence."""
    with pytest.raises(TicketError, match="ask the one who invited you to send it again") as caught:
        decode_ticket(text)
    assert why in str(caught.value)


@given(st.text(max_size=200) | st.text(alphabet="abcdefghijklmnopqrstuvwxyz234567", max_size=200).map(lambda text: "learnae1" + text))
def test_ticket__any_text_is_refused_with_a_sentence(text: str) -> None:
    with pytest.raises((TicketError, RulesError)):
        decode_ticket(text)


@given(position=st.integers(0, len(TICKET.to_text()) - 1), letter=st.sampled_from("abcdefghijklmnopqrstuvwxyz234567"))
def test_ticket__one_mistyped_letter_is_noticed(position: int, letter: str) -> None:
    text = TICKET.to_text()
    typed = text[:position] + letter + text[position + 1 :]
    if typed != text:
        with suppress(TicketError, RulesError):
            assert decode_ticket(typed) == TICKET  # Only letters of the padding may differ.
