"""Finds attacks and rules: every class in the files of `lab.attacks` and `lab.rules`, or in one file of the user's own."""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
from collections.abc import Iterator
from hashlib import sha256
from inspect import getmembers, isabstract, isclass
from pathlib import Path
from types import ModuleType
from typing import TypeVar

import learnae.lab.attacks
import learnae.lab.rules
from learnae.lab.attack import Attack
from learnae.lab.errors import LabFileError, UnknownLabNameError
from learnae.lab.rule import Rule

Kind = TypeVar("Kind", Attack, Rule)


def list_attacks() -> dict[str, Attack]:
    """All attacks by name: the catalogue's first, then those beside it."""
    found = _find_all(learnae.lab.attacks, Attack)
    return {a.name: a for a in sorted(found, key=lambda a: (not a.in_catalogue, a.level, a.name))}


def list_rules() -> dict[str, Rule]:
    """All rules by name, in the order in which tables show them."""
    found = _find_all(learnae.lab.rules, Rule)  # type: ignore[type-abstract]
    return {rule.name: rule for rule in sorted(found, key=lambda rule: (rule.rank, rule.name))}


def find_attack(name: str) -> Attack:
    """An attack by its name, or the one in the file of that name. Raises: UnknownLabNameError, LabFileError."""
    return _find(name, list_attacks(), Attack, "attack")


def find_rule(name: str) -> Rule:
    """A rule by its name, or the one in the file of that name. Raises: UnknownLabNameError, LabFileError."""
    return _find(name, list_rules(), Rule, "rule")  # type: ignore[type-abstract]


def _find(name: str, known: dict[str, Kind], kind: type[Kind], what: str) -> Kind:
    if name.endswith(".py"):
        return _load_file(Path(name), kind, what)
    if name not in known:
        raise UnknownLabNameError(what, name, tuple(known))
    return known[name]


def _find_all(package: ModuleType, kind: type[Kind]) -> list[Kind]:
    modules = [importlib.import_module(f"{package.__name__}.{found.name}") for found in pkgutil.iter_modules(package.__path__)]
    return [made for module in modules for made in _make(module, kind)]


def _make(module: ModuleType, kind: type[Kind]) -> Iterator[Kind]:
    """One of each class that this module itself defines."""
    for _, found in getmembers(module, isclass):
        if issubclass(found, kind) and not isabstract(found) and found.__module__ == module.__name__:
            yield found()


def _load_file(path: Path, kind: type[Kind], what: str) -> Kind:
    """The one class in a file of the user's own. It is code that runs here, like a task file."""
    if not path.is_file():
        raise LabFileError(str(path), what, "there is no such file")
    spec = importlib.util.spec_from_file_location(f"learnae_lab_{sha256(str(path.resolve()).encode()).hexdigest()[:16]}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (SyntaxError, ImportError, NameError, TypeError, AttributeError) as error:
        raise LabFileError(str(path), what, f"it cannot be loaded: {type(error).__name__}: {error}") from error
    found = list(_make(module, kind))
    if len(found) != 1:
        raise LabFileError(str(path), what, f"it defines {len(found)} of them")
    return found[0]
