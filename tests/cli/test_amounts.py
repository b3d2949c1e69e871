"""Amounts, durations, prices and addresses as people write and read them."""

from __future__ import annotations

import pytest

from learnae.cli.amounts import format_duration, parse_address, parse_digest, parse_gwei, parse_indices
from learnae.errors import UsageError
from learnae.ids import wei_text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (-5, "0 s"), (59.4, "59 s"), (60, "1 min"), (3601, "1 h 1 s"), (9 * 60 + 12, "9 min 12 s"), (180_061, "2 d 2 h")],
)
def test_duration__is_told_in_its_two_largest_units(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    ("wei", "text"),
    [(0, "0 ETH (0 wei)"), (1, "0.000000000000000001 ETH (1 wei)"), (10**16, "0.01 ETH (10000000000000000 wei)")],
)
def test_amount__is_exact_in_both_units(wei: int, text: str) -> None:
    assert wei_text(wei) == text


@pytest.mark.parametrize(("text", "wei"), [("200", 200 * 10**9), ("0.5", 5 * 10**8), ("0.000000001", 1)])
def test_gas_price__is_read_in_gwei(text: str, wei: int) -> None:
    assert parse_gwei(text) == wei


@pytest.mark.parametrize("text", ["", "0", "0.0", "-1", "1e3", "0.0000000001", "many"])
def test_gas_price__that_is_none_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is not a price of gas; write gwei"):
        parse_gwei(text)


@pytest.mark.parametrize(
    "address", ["0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed", "0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359", "0x" + "0" * 40]
)
def test_address__with_its_checksum_is_taken(address: str) -> None:
    """The examples of EIP-55."""
    assert parse_address(address) == address


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAeD", "has a wrong checksum"),
        ("0x5aeb6053F3E94C9b9A09f33669435E7Ef1BeAedd", "has a wrong checksum"),
        ("0x5aaeb6053f3e94c9b9a09f33669435e7ef1beaed", "carries no checksum .* write 0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed"),
        ("0x5AAEB6053F3E94C9B9A09F33669435E7EF1BEAED", "carries no checksum"),
        ("5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed", "is not an address"),
        ("0x12", "is not an address; expected 0x and 40 hex digits"),
        ("vitalik.eth", "is not an address"),
    ],
)
def test_address__with_a_typing_error_is_refused(address: str, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        parse_address(address)


def test_digest__is_read_with_and_without_prefix() -> None:
    assert parse_digest("0x" + "07" * 32, "--evidence") == parse_digest("07" * 32, "--evidence") == b"\x07" * 32
    with pytest.raises(UsageError, match="--evidence '07' is not 32 bytes in hex; expected 64 hex digits"):
        parse_digest("07", "--evidence")


@pytest.mark.parametrize(("text", "indices"), [("3", (3,)), ("3,5-7", (3, 5, 6, 7)), ("7-7, 1", (1, 7)), ("0-9", tuple(range(10)))])
def test_members_numbers__are_read_as_lists_and_ranges(text: str, indices: tuple[int, ...]) -> None:
    assert parse_indices(text, 10) == indices


@pytest.mark.parametrize(
    ("text", "sentence"),
    [("", "not a list"), ("a", "not a list"), ("1;2", "not a list"), ("10", "10 is not among"), ("7-5", "not among"), ("5-10", "5-10 is")],
)
def test_members_numbers__that_are_none_are_refused(text: str, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        parse_indices(text, 10)
