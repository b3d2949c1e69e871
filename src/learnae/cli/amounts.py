"""Amounts, durations and addresses as people write and read them."""

from __future__ import annotations

import re
from typing import Final

from learnae.errors import UsageError
from learnae.ids import WEI_PER_ETHER, Address, Wei

UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}
GWEI: Final = 10**9


def parse_duration(text: str) -> int:
    """Seconds of a text such as 90s, 15m, 2h, 1d, or 1h30m. Raises: UsageError."""
    parts = re.findall(r"([0-9]{1,9})([smhd])", text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise UsageError(f"{text!r} is not a duration; write for example 90s, 15m, 2h or 1h30m")
    return sum(int(number) * UNITS[unit] for number, unit in parts)


def format_duration(seconds: float) -> str:
    """The two largest units: 2 d 3 h, 9 min 12 s."""
    left = max(0, round(seconds))
    parts: list[str] = []
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min"), (1, "s")):
        count, left = divmod(left, size)
        if count or (unit == "s" and not parts):
            parts.append(f"{count} {unit}")
    return " ".join(parts[:2])


def parse_ether(text: str) -> Wei:
    """An amount in ether, or in wei with the unit: 0.01, 5wei. Raises: UsageError."""
    wei = re.fullmatch(r"([0-9]{1,40})wei", text)
    if wei:
        return Wei(int(wei[1]))
    ether = re.fullmatch(r"([0-9]{1,20})(?:\.([0-9]{1,18}))?", text)
    if not ether:
        raise UsageError(f"{text!r} is not an amount; write ether such as 0.01, or wei such as 10000wei")
    return Wei(int(ether[1]) * WEI_PER_ETHER + int((ether[2] or "0").ljust(18, "0")))


def parse_gwei(text: str) -> int:
    """Wei of a price in gwei, such as 200 or 0.5. Raises: UsageError."""
    gwei = re.fullmatch(r"([0-9]{1,9})(?:\.([0-9]{1,9}))?", text)
    wei = int(gwei[1]) * GWEI + int((gwei[2] or "0").ljust(9, "0")) if gwei else 0
    if not wei:
        raise UsageError(f"{text!r} is not a price of gas; write gwei such as 200 or 0.5")
    return wei


def parse_address(text: str) -> Address:
    """An Ethereum address with its checksum (EIP-55), which protects money from typing errors. Raises: UsageError."""
    from eth_utils.address import is_checksum_address, to_checksum_address

    if not re.fullmatch(r"0x[0-9a-fA-F]{40}", text):
        raise UsageError(f"{text[:80]!r} is not an address; expected 0x and 40 hex digits")
    if is_checksum_address(text):
        return Address(text)
    if text[2:] in (text[2:].lower(), text[2:].upper()):
        raise UsageError(f"{text} carries no checksum (EIP-55); if you are sure of every digit, write {to_checksum_address(text)}")
    raise UsageError(f"{text} has a wrong checksum (EIP-55): a digit is mistyped; copy the address again from where you have it")


def parse_digest(text: str, name: str) -> bytes:
    """32 bytes in hex. Raises: UsageError."""
    if not re.fullmatch(r"(0x)?[0-9a-fA-F]{64}", text):
        raise UsageError(f"{name} {text[:80]!r} is not 32 bytes in hex; expected 64 hex digits")
    return bytes.fromhex(text.removeprefix("0x"))


def parse_indices(text: str, count: int) -> tuple[int, ...]:
    """Numbers of members such as 3,5-7, each below `count`. Raises: UsageError."""
    found: set[int] = set()
    for part in text.split(","):
        match = re.fullmatch(r"\s*([0-9]{1,5})(?:-([0-9]{1,5}))?\s*", part)
        if not match:
            raise UsageError(f"{text[:80]!r} is not a list of members' numbers; write for example 3,5-7")
        first, last = int(match[1]), int(match[2] or match[1])
        if not first <= last < count:
            raise UsageError(f"{part.strip()} is not among the members' numbers 0 to {count - 1}")
        found.update(range(first, last + 1))
    return tuple(sorted(found))
