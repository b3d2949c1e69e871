"""Whether others can reach this node: a member that answers is asked to dial back."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from learnae.cli.doctor.findings import Finding, care, good, note, skipped
from learnae.cli.status import format_ways
from learnae.ids import PeerId, parse_peer

if TYPE_CHECKING:
    from learnae.backends.libp2p_dialback import DialbackAnswer

ASKED_MAX = 3
_FORWARD: Final = "set `upnp` in settings.json, or forward the node's port at the router: behind this router nothing else avoids relays"
_ROUTERS: Final = {
    None: "",
    True: "; its router shows one port to all, so others behind such routers are met directly (hole punching)",
    False: "; its router shows another port to each destination, so no holes can be punched: others behind routers stay on relays",
}


def check_ways(status: Mapping[str, Any]) -> Finding | None:
    """How the connections of a node that runs lead; None: it has none, or its status is of an older version."""
    ways = status.get("ways", {})
    if not any(ways.get(kind) for kind in ("direct", "punched", "relayed")):
        return None
    text = f"{status['connected']} connected{format_ways(ways) or ' directly'}"
    if not ways["relayed"]:
        return good("ways", text)
    return note("ways", text, "" if ways["keeps_port"] is not False else _FORWARD)


async def check_reach(
    members: dict[str, list[str]], listen: Sequence[str], *, me: str, running: bool, told: Sequence[str], upnp: bool
) -> Finding | None:
    """Ask members to dial this machine, at the port under which others find this node; None: nobody could be asked, as `peers` tells.

    `told`: the addresses that others are told, of a node that runs its relays too; `upnp`: whether it asks the router for a port while it
    runs. While the node runs it must answer itself; otherwise somebody answers in its place for a moment, under an identity that is
    thrown away.
    """
    try:
        from learnae.backends.libp2p_address import find_outside
        from learnae.backends.libp2p_probe_back import ask_members
    except ModuleNotFoundError as error:
        return skipped("reach", f"the Python package {error.name!r} is not installed, so nobody was asked; install learnae[net]")
    places = [address for address in listen if not address.endswith("/tcp/0")]
    if not places or not members:
        return None
    wanted: PeerId | None = parse_peer(me) if running and me else None
    addresses = [address for ways in list(members.values())[: 4 * ASKED_MAX] for address in ways]
    answer = await ask_members(addresses, places[0], told=told, wanted=wanted, asked_max=ASKED_MAX)
    if answer is None:
        return note("reach", "no member could be asked to dial back: none answers, or all are busy", "call again when one is up")
    seen = _describe_place(answer, find_outside(told)[0])
    inside = int(places[0].rpartition("/")[2])
    if answer.is_reached:
        return good("reach", seen)
    if upnp and not running and answer.port == inside and not _is_near(answer):
        return note("reach", f"{seen}; the router is asked for a port only while the node runs (`upnp`)", "start the node and call again")
    relays = sum("/p2p-circuit/" in address for address in told) if running else 0
    remedy = _choose_remedy(answer.port, inside, upnp=upnp)
    if not relays:
        text = f"{seen}: a firewall or router is in the way{_ROUTERS[answer.keeps_port]}"
        return care("reach", text, f"{remedy}; or leave it: members relay")
    text = f"{seen}; others come in through relays ({relays}){_ROUTERS[answer.keeps_port]}"
    return note("reach", text, f"{'relays carry on' if answer.keeps_port is False else 'nothing must be done'}; to be faster, {remedy}")


def _describe_place(answer: DialbackAnswer, told: str) -> str:
    """What was tried, and whether that is where others are told to find this node, `told`."""
    is_near = _is_near(answer)
    text = f"{'a member in the same network' if is_near else 'another member'} sees this machine as {answer.address} and "
    text += f"{'reaches it at' if answer.is_reached else 'does not reach'} port {answer.port}"
    if is_near:
        return text + ("; from further away it was not tried" if answer.is_reached else "")
    return text + (f"; others are told {told}, where it was not tried" if _is_another(told, answer.address) else "")


def _is_near(answer: DialbackAnswer) -> bool:
    return not ipaddress.ip_address(answer.address).is_global


def _is_another(told: str, seen: str) -> bool:
    """Whether two IP addresses of one version differ; a name may lead anywhere."""
    try:
        one, other = ipaddress.ip_address(told), ipaddress.ip_address(seen)
    except ValueError:
        return False
    return one.version == other.version and one != other


def _choose_remedy(port: int, inside: int, *, upnp: bool) -> str:
    if port != inside:
        return (
            f"look whether the router leads its TCP port {port} to port {inside} of this machine, whether another router stands before it, "
            f"and whether a firewall lets it in"
        )
    forward = f"forward TCP {inside} at the router and let it through the firewall"
    return forward if upnp else f"set `upnp` in settings.json, or {forward}"
