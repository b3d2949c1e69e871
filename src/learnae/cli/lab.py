"""`learnae lab`: attacks against reward rules."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from learnae.errors import UsageError
from learnae.lab.attack import LedgerAttack
from learnae.lab.audits import AuditTerms
from learnae.lab.heatmap import compose_page, compose_svg
from learnae.lab.measure import Measure
from learnae.lab.parallel import count_cores
from learnae.lab.registry import find_attack, list_attacks, list_rules
from learnae.lab.table import ADAPTIVE, Plan, run_plan
from learnae.lab.trial import PERMILLE, Setting
from learnae.lab.words import format_csv, format_details, format_gains, format_json, format_promises
from learnae.report.files import replace_file

SHARE_MAX: Final = 0.5  # The vote assumes that most members are honest.
PEERS_MAX: Final = 1000
CYCLES_MAX: Final = 10_000
SEEDS_MAX: Final = 100_000


def show_lab(options: argparse.Namespace) -> int:
    """`learnae lab list`: the attacks and the rules, one line each."""
    for title, found in (("attacks", list_attacks()), ("rules", list_rules())):
        print(title)
        for name, item in found.items():
            level = getattr(item, "level", "")
            print(f"  {name:<18}  {level:<9}  {item.about}" if level else f"  {name:<18}  {item.about}")
    print(f"\n{ADAPTIVE!r} stands for an attacker that searches for the best mixture of the attacks on the ledger.")
    return 0


def run_lab(options: argparse.Namespace) -> int:
    """`learnae lab run`: one attack, every measure. Raises: LearnaeError."""
    setting = _read_setting(options, options.share, is_ledger=_is_ledger(options.attack))
    plan = Plan(
        attacks=(options.attack,),
        rules=tuple(options.rule or list_rules()),
        shares_permille=(setting.share_permille,),
        setting=setting,
        protocol_setting=setting,
        seed=_check(options.first_seed, "--first-seed", 10**6 - SEEDS_MAX, least=0),
        seeds=_check(options.seeds, "--seeds", SEEDS_MAX),
        protocol_seeds=options.seeds,
    )
    measures = _run(plan, options)
    print(format_json(measures) if options.json else "\n".join(filter(None, (format_details(measures), format_promises(measures)))))
    return 0


def run_table(options: argparse.Namespace) -> int:
    """`learnae lab table`: every attack against every rule. Raises: LearnaeError."""
    shares = tuple(_read_share(part) for part in options.shares.split(","))
    plan = Plan(
        attacks=tuple(options.attack or [*list_attacks(), ADAPTIVE]),
        rules=tuple(options.rule or list_rules()),
        shares_permille=shares,
        setting=_read_setting(options, shares[0] / PERMILLE, is_ledger=True),
        protocol_setting=_read_setting(options, shares[0] / PERMILLE, is_ledger=False),
        seed=_check(options.first_seed, "--first-seed", 10**6 - SEEDS_MAX, least=0),
        seeds=_check(options.seeds, "--seeds", SEEDS_MAX),
        protocol_seeds=_check(options.protocol_seeds, "--protocol-seeds", SEEDS_MAX),
    )
    folder = Path(options.out) if options.out else None
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    measures = _run(plan, options)
    promises = format_promises(measures)
    print(format_json(measures) if options.json else "\n\n".join(filter(None, (format_gains(measures), promises))))
    if folder is not None:
        _write(folder, measures, promises)
    return 0


def _run(plan: Plan, options: argparse.Namespace) -> list[Measure]:
    processes = _check(options.processes or count_cores(), "--processes", 1024)
    return run_plan(plan, processes=processes, cluster=options.cluster, progress=_show if sys.stderr.isatty() else _keep_quiet)


def _write(folder: Path, measures: Sequence[Measure], promises: str) -> None:
    texts = {"table.json": format_json(measures) + "\n", "table.csv": format_csv(measures), "table.html": compose_page(measures, promises)}
    for share in dict.fromkeys(measure.share for measure in measures):
        texts[f"gain-{round(100 * share)}.svg"] = compose_svg([measure for measure in measures if measure.share == share])
    for name, text in texts.items():
        replace_file(folder / name, text)
    print(f"written to {folder}: {', '.join(texts)}", file=sys.stderr)


# --- arguments ------------------------------------------------------------------------------------------------------


def _is_ledger(name: str) -> bool:
    return name == ADAPTIVE or isinstance(find_attack(name), LedgerAttack)


def _read_setting(options: argparse.Namespace, share: float, *, is_ledger: bool) -> Setting:
    """Sizes that were not given are those of section 7 for the ledger, a small swarm for real peers."""
    peers, cycles = (100, 50) if is_ledger else (20, 20)
    return Setting(
        share_permille=_read_share(share),
        peers=_check(options.peers or peers, "--peers", PEERS_MAX, least=4),
        cycles=_check(options.cycles or cycles, "--cycles", CYCLES_MAX),
        audits=AuditTerms(rate_permille=_read_rate(options.audits)),
    )


def _read_share(text: Any) -> int:
    try:
        share = float(text)
    except ValueError:
        raise UsageError(f"the share of attackers is {str(text).strip()!r}, expected a number such as 0.1") from None
    if not 0 < share <= SHARE_MAX:
        raise UsageError(f"the share of attackers is {share:g}, expected more than 0 and at most {SHARE_MAX}")
    return max(1, round(share * PERMILLE))


def _read_rate(rate: float) -> int:
    if not 0 <= rate <= 1:
        raise UsageError(f"--audits is {rate:g}, expected a part of all receipts, 0 to 1")
    return round(rate * PERMILLE)


def _check(value: int, name: str, most: int, *, least: int = 1) -> int:
    if not least <= value <= most:
        raise UsageError(f"{name} is {value}, expected {least} to {most}")
    return value


def _show(done: int, count: int) -> None:
    print(f"\r{done} of {count} jobs", end="" if done < count else "\r\x1b[K", file=sys.stderr, flush=True)


def _keep_quiet(done: int, count: int) -> None:
    return None


RUNS: Final = {"lab list": show_lab, "lab run": run_lab, "lab table": run_table}
