"""What a check found, and how it is told."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

_WIDTH: Final = 100


class State(StrEnum):
    """GOOD: works. NOTE: works, and this is worth knowing. CARE: does not work, or soon will not. SKIPPED: could not be looked at."""

    GOOD = "good"
    NOTE = "note"
    CARE = "care"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Finding:
    """One sentence on what was seen, and one on what to do about it, if anything."""

    check: str
    state: State
    text: str
    remedy: str = ""


def good(check: str, text: str) -> Finding:
    return Finding(check, State.GOOD, text)


def note(check: str, text: str, remedy: str = "") -> Finding:
    return Finding(check, State.NOTE, text, remedy)


def care(check: str, text: str, remedy: str) -> Finding:
    return Finding(check, State.CARE, text, remedy)


def skipped(check: str, text: str) -> Finding:
    return Finding(check, State.SKIPPED, text)


def count_care(findings: Sequence[Finding]) -> int:
    return sum(finding.state is State.CARE for finding in findings)


def format_finding(finding: Finding) -> str:
    """The sentence behind its state and check, the remedy below it."""
    head = f"{finding.state.value:<8} {finding.check:<10} "
    parts = [finding.text, *([f"to do: {finding.remedy}"] if finding.remedy else [])]
    wrapper = textwrap.TextWrapper(_WIDTH, subsequent_indent=" " * len(head), break_long_words=False, break_on_hyphens=False)
    lines: list[str] = []
    for part in parts:
        wrapper.initial_indent = " " * len(head) if lines else head
        lines += wrapper.wrap(part)
    return "\n".join(lines)


def format_summary(findings: Sequence[Finding]) -> str:
    count = count_care(findings)
    return "all is well" if not count else f"{count} thing{'' if count == 1 else 's'} need{'s' if count == 1 else ''} care"
