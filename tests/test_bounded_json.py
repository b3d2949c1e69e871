"""JSON from strangers (threats.md, malformed bytes): nesting never ends the process."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from learnae.bounded_json import DEPTH_MAX, parse_json

leaves = st.none() | st.integers() | st.text()
values = st.recursive(leaves, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20)


@given(values)
def test_parse__gives_what_json_gives(value: object) -> None:
    assert parse_json(json.dumps(value).encode()) == value


def test_parse__brackets_in_strings_are_no_nesting() -> None:
    for text in (b'"[[[[' + b"[" * 99 + b'"', b'"\\"' + b"{" * 99 + b'"'):
        assert parse_json(text) == json.loads(text)


def test_parse__depth_is_bounded_exactly() -> None:
    assert parse_json(b"[" * DEPTH_MAX + b"]" * DEPTH_MAX)
    for opening in (b"[", b'{"a":'):
        with pytest.raises(ValueError, match="more than 32 levels"):
            parse_json(opening * (DEPTH_MAX + 1))


def test_parse__a_million_brackets_are_refused_under_any_recursion_limit() -> None:
    program = (
        "import sys; sys.setrecursionlimit(10**6)\nfrom learnae.bounded_json import parse_json\n"
        "try: parse_json(b'[' * 10**6)\nexcept ValueError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "nested more than" in done.stdout


def test_ethereum_backend__leaves_the_recursion_limit_of_the_process_alone() -> None:
    """A library of its own raises it a hundredfold, which turns nested bytes from strangers into crashes."""
    program = (
        "import sys; before = sys.getrecursionlimit()\nfrom learnae.backends.ethereum.wallet import load_accounts\n"
        "load_accounts(); print('py_ecc' in sys.modules and before == sys.getrecursionlimit())"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout == "True\n", done.stderr
