"""JSON from strangers: parsed only if it is not nested too deeply.

Python's parser recurses once per level, and a library that raises the recursion limit (py-evm does) turns a megabyte of
opening brackets into a crash of the whole process instead of a RecursionError.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final

DEPTH_MAX: Final = 32  # JSON-RPC answers and keyfiles have fewer than ten levels.
_STRING: Final = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_BRACKET: Final = re.compile(rb"[\[\]{}]")


def parse_json(text: bytes) -> Any:
    """Parse JSON of at most `DEPTH_MAX` levels. The caller bounds its size. Raises: ValueError."""
    depth = 0
    for bracket in _BRACKET.finditer(_STRING.sub(b"", text)):
        depth += 1 if bracket.group() in b"[{" else -1
        if depth > DEPTH_MAX:
            raise ValueError(f"JSON is nested more than {DEPTH_MAX} levels deep")
    return json.loads(text)
