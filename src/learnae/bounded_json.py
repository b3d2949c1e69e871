"""JSON from strangers: parsed only if it is not nested too deeply. Pure.

Python's parser recurses once per level, and a library that raises the recursion limit (py-evm does) turns a megabyte of
opening brackets into a crash of the whole process instead of a RecursionError.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, Final

Pairs = Callable[[list[tuple[str, Any]]], Any]
DEPTH_MAX: Final = 32  # JSON-RPC answers and keyfiles have fewer than ten levels.
_STRING_OR_BRACKET: Final = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[\]{}]', re.DOTALL)


class JsonTooDeepError(ValueError):
    """More levels than are allowed; nothing was parsed."""


def parse_json(text: bytes, *, pairs: Pairs | None = None, constant: Callable[[str], Any] | None = None) -> Any:
    """Parse JSON of at most `DEPTH_MAX` levels. The caller bounds its size. Raises: ValueError, JsonTooDeepError.

    `pairs` makes something else than a dict of the names and values of an object; `constant` takes NaN and Infinity.
    """
    depth = 0
    for found in _STRING_OR_BRACKET.finditer(text):
        letter = text[found.start()]
        depth += (letter in b"[{") - (letter in b"]}")
        if depth > DEPTH_MAX:
            raise JsonTooDeepError(f"JSON is nested more than {DEPTH_MAX} levels deep")
    return json.loads(text, object_pairs_hook=pairs, parse_constant=constant)
