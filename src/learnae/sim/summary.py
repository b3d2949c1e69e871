"""What a simulated run came to: plain values for a program, a table for people. Reads the world, changes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import median
from typing import Any, Final

from learnae.ids import short_name
from learnae.protocol import events as ev
from learnae.sim.host import Host
from learnae.sim.scenario import EPOCH_S
from learnae.sim.world import World

ROWS_MAX: Final = 20  # Peers in the table for people; the plain values hold all.
WEI_PER_ETHER: Final = 10**18


def summarise(world: World) -> dict[str, Any]:
    """The run in plain values that JSON can hold; amounts of wei are decimal strings. Pure."""
    chain, scenario = world.chain, world.scenario
    up = [host.peer for host in world.hosts if host.peer is not None]
    accuracies = [peer.cycle.local.accuracy for peer in up if peer.cycle.local is not None]
    ledgers = [peer.lane.ledger.rows() for peer in up]
    return {
        "scenario": scenario.name,
        "seed": world.seed,
        "peers_count": len(world.hosts),
        "cycles": scenario.cycles,
        "policy": scenario.policy,
        "reward_mode": scenario.reward_mode,
        "reward_rule": scenario.reward_rule,
        "virtual_s": round(world.now_s - EPOCH_S, 3),
        "events": world.events,
        "stage": chain.fund.compute_stage(int(world.now_s)).value,
        "trace": world.trace,
        "accuracy_min": min(accuracies, default=None),
        "accuracy_median": median(accuracies) if accuracies else None,
        "accuracy_max": max(accuracies, default=None),
        "vertices": max((len(peer.lane.dag) for peer in up), default=0),
        "adoptions": _count(world, "adopted"),
        "reports": _count(world, "reported"),
        "troubles": sum(tell.topic is ev.Topic.TROUBLE for _, _, tell in world.told),
        "ledgers_equal": all(ledger == ledgers[0] for ledger in ledgers),
        "fund_wei": str(chain.fund.fund_wei),
        "paid_wei": str(sum(chain.paid_wei.values())),
        "peers": [_summarise_host(world, host) for host in world.hosts],
    }


def _summarise_host(world: World, host: Host) -> dict[str, Any]:
    """One peer. Help is in credits: given as all rows that this peer knows say, received as its own row says."""
    chain, peer = world.chain, host.peer
    wallet = chain.wallets[host.name]
    known = peer or next((other.peer for other in world.hosts if other.peer is not None), None)
    ledger = known.lane.ledger if known is not None else None
    local = peer.cycle.local if peer is not None else None
    role = "gone" if peer is None else "silent" if host.index < world.scenario.silent else "restarted" if host.incarnation else "honest"
    return {
        "index": host.index,
        "name": short_name(host.name),
        "role": role,
        "accuracy": local.accuracy if local is not None else None,
        "cycles": peer.cycle.cycles if peer is not None else 0,
        "help_given": ledger.profile(host.name) if ledger is not None else 0,
        "help_received": ledger.received(host.name) if ledger is not None else 0,
        "payout_wei": str(chain.paid_wei.get(wallet, 0)),
        "tips_wei": str(chain.tipped_wei[wallet]),
        "transactions": chain.sent[host.name],
    }


def _count(world: World, event: str) -> int:
    return sum(tell.values.get("event") == event for _, _, tell in world.told)


def format_summary(summary: Mapping[str, Any]) -> str:
    """A summary for a terminal: what the run was, what it came to, and the first peers one by one."""
    equal = "equal" if summary["ledgers_equal"] else "NOT EQUAL"
    lines = [
        f"{summary['scenario']}, seed {summary['seed']}: {summary['peers_count']} peers, {summary['cycles']} cycles, "
        f"{summary['virtual_s']:.0f} s of virtual time, {summary['events']} events",
        f"accuracy  {_part(summary['accuracy_min'])} lowest, {_part(summary['accuracy_median'])} median, "
        f"{_part(summary['accuracy_max'])} highest; {summary['adoptions']} adoptions, {summary['reports']} reports of help",
        f"ledgers   {equal}; {summary['vertices']} vertices; {summary['troubles']} troubles",
        f"money     {summary['stage']}: paid {_ether(summary['paid_wei'])} of {_ether(summary['fund_wei'])} ether",
        f"trace     {summary['trace']}",
        "",
        f"{'peer':<8}{'role':<11}{'accuracy':>9}{'help given':>12}{'received':>12}{'payout':>10}{'tips':>10}",
    ]
    peers = summary["peers"]
    for peer in peers[:ROWS_MAX]:
        lines.append(
            f"{peer['name']:<8}{peer['role']:<11}{_part(peer['accuracy']):>9}{peer['help_given']:>12}{peer['help_received']:>12}"
            f"{_ether(peer['payout_wei']):>10}{_ether(peer['tips_wei']):>10}"
        )
    if len(peers) > ROWS_MAX:
        lines.append(f"and {len(peers) - ROWS_MAX} more (--json shows all)")
    return "\n".join(lines)


def _part(accuracy: float | None) -> str:
    return "-" if accuracy is None else f"{accuracy:.3f}"


def _ether(wei: str) -> str:
    return f"{int(wei) / WEI_PER_ETHER:.4f}"
