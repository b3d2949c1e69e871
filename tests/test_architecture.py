"""ARCHITECTURE.md, kept: which module may import which, what the pure core may not touch, what nobody may import."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from importlinter.cli import lint_imports

ROOT = Path(__file__).parent.parent
SOURCES = sorted((ROOT / "src" / "learnae").rglob("*.py"))
PURE = ("protocol", "sensors", "tangle", "sim")
LISTENERS = (*PURE, "backends", "learning", "node")  # They read what strangers sent.
LINES_MAX = 400
FUNCTION_LINES_MAX = 60

# Outside systems, and the only packages that may name them.
KEEPERS = {
    "torch": ("learning",),
    "safetensors": ("learning",),
    "libp2p": ("backends",),
    "multiaddr": ("backends",),
    "zeroconf": ("backends",),
    "web3": ("backends",),
    "eth_account": ("backends",),
    "eth_keys": ("backends",),
    "eth_tester": ("backends",),
    "eth": ("backends",),
    "sqlite3": ("backends",),
    "paho": ("backends",),
    "cbor2": ("sensors",),
    "distributed": ("lab",),
}


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT / "src" / "learnae"))


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def imports_of(tree: ast.AST) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Every import anywhere in a module, inside functions too: the module, and the names taken from it ("" for all)."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, ("",)) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module, tuple(alias.name for alias in node.names)


def find_wrong_random(tree: ast.AST) -> list[str]:
    return [f"{module}: {names}" for module, names in imports_of(tree) if module == "random" and names != ("Random",)]


def find_pickles(tree: ast.AST) -> list[str]:
    wrong = {"pickle", "_pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
    return [module for module, names in imports_of(tree) if module.split(".")[0] in wrong or wrong.intersection(names)]


def find_unbounded_json(tree: ast.AST) -> list[str]:
    """Calls of `json.loads` and `json.load`, and imports of them."""
    wrong = {"load", "loads"}
    calls = [node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and node.attr in wrong and _is_json(node.value)]
    return calls + [module for module, names in imports_of(tree) if module == "json" and wrong.intersection(names)]


def _is_json(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id == "json"


def test_imports__follow_the_arrows() -> None:
    """ARCHITECTURE.md, "Arrows": rows import downwards only; the core and the simulator touch no outside system."""
    assert lint_imports(config_filename=str(ROOT / "pyproject.toml"), cache_dir=None, show_timings=False) == 0


@pytest.mark.parametrize("path", [path for path in SOURCES if name_of(path).startswith(PURE)], ids=name_of)
def test_pure_module__takes_randomness_only_as_a_given_generator(path: Path) -> None:
    """Same seed, same trace: module-level random functions share one hidden state, a `Random` is passed in."""
    assert find_wrong_random(parse(path)) == []


@pytest.mark.parametrize("path", sorted([*SOURCES, *ROOT.glob("benchmarks/*.py"), *ROOT.glob("examples/*.py")]), ids=lambda p: p.name)
def test_module__imports_nothing_that_executes_what_it_reads(path: Path) -> None:
    """A stranger's bytes never become code: no pickle or anything built on it."""
    assert find_pickles(parse(path)) == []


@pytest.mark.parametrize("path", [path for path in SOURCES if name_of(path).startswith(LISTENERS)], ids=name_of)
def test_module__parses_what_others_send_with_bounded_depth(path: Path) -> None:
    """py_ecc raises the recursion limit to 100,000: JSON of as many brackets then ends the process, not the call."""
    assert find_unbounded_json(parse(path)) == []


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_module__names_outside_systems_only_where_they_are_kept(path: Path) -> None:
    """torch lives in learning, networks, chains and databases in backends; a replacement touches one package."""
    package = name_of(path).split("/")[0]
    found = {module.split(".")[0] for module, _ in imports_of(parse(path))}

    assert [root for root in found if root in KEEPERS and package not in KEEPERS[root]] == []


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_module__reads_contract_artefacts_only_in_the_ethereum_backend(path: Path) -> None:
    """Contracts are data: only the Ethereum backend and their own build know them."""
    name = name_of(path)
    readers = name.startswith(("backends/ethereum", "contracts/"))
    found = [module for module, names in imports_of(parse(path)) if module.startswith("learnae.contracts") or "contracts" in names]

    assert readers or found == []


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_module__is_taken_in_at_one_sitting(path: Path) -> None:
    """CONTRIBUTING.md: at most 400 lines a module and 60 a function."""
    tree = parse(path)
    long = [
        f"{node.name}: {node.end_lineno - node.lineno + 1} lines"
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno
        and node.end_lineno - node.lineno >= FUNCTION_LINES_MAX
    ]

    assert long == []
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LINES_MAX


@pytest.mark.parametrize("line", ["import random", "from random import choice", "from random import Random, seed", "import random as r"])
def test_random_rule__finds_what_it_forbids(line: str) -> None:
    """The rule above is not vacuous."""
    assert find_wrong_random(ast.parse(f"def hidden():\n    {line}\n")) != []


def test_random_rule__lets_the_class_pass() -> None:
    assert find_wrong_random(ast.parse("from random import Random")) == []


@pytest.mark.parametrize("line", ["import pickle", "from pickle import loads", "import joblib.numpy_pickle", "from torch import _pickle"])
def test_pickle_rule__finds_what_it_forbids(line: str) -> None:
    """The rule above is not vacuous."""
    assert find_pickles(ast.parse(line)) != []


@pytest.mark.parametrize("line", ["import json\njson.loads(b'[')", "from json import loads", "import json\nread = json.load"])
def test_json_rule__finds_what_it_forbids(line: str) -> None:
    """The rule above is not vacuous."""
    assert find_unbounded_json(ast.parse(line)) != []
