"""`learnae status`: a node's own status file in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

SENSORS_SHOWN_MAX: Final = 16


def format_status(status: Mapping[str, Any], *, now_s: float) -> str:
    """The status as aligned lines; `now_s`: Unix seconds."""
    accuracy = status["accuracy"]
    left = {name: end - now_s for name, end in status["ends_s"].items() if end > now_s}
    lines = [
        ("node", f"{status['state']}, written {max(0.0, now_s - status['time_s']):.0f} s ago"),
        ("session", f"{status['session']} ({status['rules'][:16]}...), contract {status['contract']}"),
        ("peer", status["peer_id"]),
        ("wallet", f"{status['wallet']}, {'a member' if status['member'] else 'not a member yet'}"),
        ("stage", f"{status['stage']}, {status['phase']}" + "".join(f"; {name} ends in {s:.0f} s" for name, s in left.items())),
        ("peers", f"{status['connected']} connected{format_ways(status.get('ways', {}))}, {status['members']} members"),
        ("model", "none yet" if accuracy is None else f"accuracy {accuracy:.3f} on own validation data, {status['cycles']} work cycles"),
        ("help", f"given {status['help_given']} credits, received {status['help_received']}"),
        ("money", f"deposit {_to_ether(status['deposit_wei'])}, paid out {_to_ether(status['payout_wei'])}"),
        ("relayed", _describe_relayed(status["relayed"])),
        ("stored", f"{status['vertices']} messages, {status['stored_bytes'] / 1e6:.1f} MB of models and data"),
        *[("sensor", _describe_sensor(sensor)) for sensor in status.get("sensors", ())[:SENSORS_SHOWN_MAX]],
        ("reached at", _describe_places(status["addresses"], status.get("reachable"))),
    ]
    return "\n".join(f"{label:>10}  {text}" for label, text in lines)


def format_ways(ways: Mapping[str, Any]) -> str:
    """How many of the connections lead how, in brackets; empty if all are direct."""
    if not ways.get("punched") and not ways.get("relayed"):
        return ""
    kinds = {"direct": "direct", "punched": "through a hole in two routers", "relayed": "through a relay"}
    return " (" + ", ".join(f"{ways[kind]} {words}" for kind, words in kinds.items() if ways[kind]) + ")"


def _describe_places(addresses: Sequence[str], is_reachable: bool | None) -> str:
    """What others are told, and what became of it when some of them tried."""
    places = ", ".join(addresses) or "nowhere: it only dials"
    relays = sum("/p2p-circuit/" in address for address in addresses)
    if is_reachable:
        return f"{places}; others tried, and got in"
    if is_reachable is None or len(addresses) == relays:
        return places
    return f"{places}; others tried, and {'get in through relays only' if relays else 'do not get in'} (`learnae doctor` says more)"


def _describe_sensor(sensor: Mapping[str, Any]) -> str:
    dropped = f", {sensor['rows_dropped']} rows could not be learnt from" if sensor["rows_dropped"] else ""
    waiting = f"{sensor['slices']} dataslices, {sensor['rows_waiting']} rows on their way to the next"
    return f"{sensor['sensor']} ({sensor['mode']}): {sensor['messages']} messages, {waiting}{dropped}"


def _describe_relayed(relayed: Mapping[str, int]) -> str:
    if not relayed["gas_max"]:
        return "nothing: this node does not send others' claims and ballots"
    claims, ballots = (f"{relayed[kind]} {kind[:-1] if relayed[kind] == 1 else kind}" for kind in ("claims", "ballots"))
    return f"{claims} and {ballots} for all members, {relayed['gas']:,} gas of at most {relayed['gas_max']:,}"


def _to_ether(wei: str) -> str:
    return f"{int(wei) / 10**18:g} ETH"


def format_result(status: Mapping[str, Any]) -> str:
    """What became of a session that is over."""
    accuracy = "" if status["accuracy"] is None else f"; the model's accuracy on your validation data is {status['accuracy']:.3f}"
    paid, deposit = _to_ether(status["payout_wei"]), _to_ether(status["deposit_wei"])
    return f"the session is over ({status['stage']}): {paid} came back of a deposit of {deposit}{accuracy}"
