"""What can be changed in a scenario from outside: single fields by name, and conditions that a seed draws.

The same words that the command line takes are printed when a run breaks a promise, so that it can be repeated.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields, replace
from random import Random
from typing import Any, Final

from learnae.sim.scenario import SCENARIOS, Link, Partition, Scenario

RANDOM: Final = "random"
"""The scenario whose conditions its seed draws."""

_OF_THEIR_OWN: Final = ("name", "about", "peers", "cycles")  # These have options of their own, or none.


def draw_conditions(scenario: Scenario, seed: int) -> Scenario:
    """Loss up to 30 %, up to two partitions that heal, up to half of the peers crashing once, slow links, a silent peer: by chance."""
    rng = Random(f"conditions {seed}")
    partitions, at_s = [], 1.0
    for _ in range(rng.randrange(3)):
        from_s = at_s + round(rng.uniform(0, 6), 1)
        at_s = from_s + round(rng.uniform(1, 6), 1)
        partitions.append(Partition(from_s=from_s, to_s=at_s, groups=rng.randrange(2, 4)))
    return replace(
        scenario,
        link=Link(loss=round(rng.uniform(0, 0.3), 2), delay_max_s=round(rng.uniform(0.05, 0.6), 2)),
        partitions=tuple(partitions),
        churn=round(rng.uniform(0, 0.5), 2),
        silent=rng.randrange(2),
        degree=rng.randrange(4, 9),
    )


def change_scenario(scenario: Scenario, changes: Iterable[str]) -> Scenario:
    """Set single fields: `churn=0.5`, `link.loss=0.3`.

    Raises: ValueError: the words are not NAME=VALUE, nothing of that name can be set, or its value is no such value.
    """
    for change in changes:
        name, equals, value = change.partition("=")
        target = scenario.link if name.startswith("link.") else scenario
        settable = _list_settable(target)
        field = name.removeprefix("link.")
        if not equals or field not in settable:
            known = [*_list_settable(scenario), *(f"link.{each}" for each in _list_settable(scenario.link))]
            raise ValueError(f"{change!r}, expected NAME=VALUE with one of the names {', '.join(known)}")
        try:
            read = type(settable[field])(value)
        except ValueError as error:
            raise ValueError(f"{change!r}, expected a value such as {settable[field]!r}") from error
        if (not isinstance(read, str) and read < 0) or (field in ("loss", "churn") and float(read) > 1):
            raise ValueError(f"{change!r}, expected {'0 to 1' if field in ('loss', 'churn') else '0 or more'}")
        changed: dict[str, Any] = {field: read}
        if target is scenario.link:
            changed = {"link": replace(scenario.link, **changed)}
        scenario = replace(scenario, **changed)
    return scenario


def format_command(scenario: Scenario, seed: int) -> str:
    """The command that runs a scenario again. What no option can say is named, for whoever wrote that scenario."""
    words = [f"learnae sim run {scenario.name} --seed {seed} --peers {scenario.peers} --cycles {scenario.cycles}"]
    base = SCENARIOS.get(scenario.name, Scenario(name=scenario.name, about=""))
    base = draw_conditions(base, seed) if scenario.name == RANDOM else base
    for prefix, ours, theirs in (("", scenario, base), ("link.", scenario.link, base.link)):
        known = _list_settable(theirs)
        words += [f"--set {prefix}{name}={value}" for name, value in _list_settable(ours).items() if value != known[name]]
    other = [name for name in ("partitions", "crashes") if getattr(scenario, name) != getattr(base, name)]
    return " ".join(words) + (f" (with its own {' and '.join(other)})" if other else "")


def _list_settable(part: Scenario | Link) -> Mapping[str, int | float | str]:
    values = {field.name: getattr(part, field.name) for field in fields(part) if field.name not in _OF_THEIR_OWN}
    return {name: value for name, value in values.items() if isinstance(value, int | float | str)}
