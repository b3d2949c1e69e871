"""Whether others can reach this node: a member that answers is asked to dial back."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from typing import Any, Final

from learnae.cli.doctor.findings import Finding, care, good, note, skipped
from learnae.cli.status import format_ways
from learnae.ids import PeerId, parse_peer

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


async def check_reach(members: dict[str, list[str]], listen: Sequence[str], *, me: str, running: bool, relays: int) -> Finding | None:
    """Ask members to dial this machine, at the port of this node; None: nobody could be asked, which `peers` tells.

    While the node runs it must answer itself; otherwise somebody answers in its place for a moment, under an identity that is thrown away.
    """
    try:
        from learnae.backends.libp2p_dialback import Reached
        from learnae.backends.libp2p_probe_back import ask_members
    except ModuleNotFoundError as error:
        return skipped("reach", f"the Python package {error.name!r} is not installed, so nobody was asked; install learnae[net]")
    places = [address for address in listen if not address.endswith("/tcp/0")]
    if not places or not members:
        return None
    wanted: PeerId | None = parse_peer(me) if running and me else None
    addresses = [address for ways in list(members.values())[: 4 * ASKED_MAX] for address in ways]
    answer = await ask_members(addresses, places[0], wanted=wanted, asked_max=ASKED_MAX)
    if answer is None:
        return note("reach", "no member could be asked to dial back: none answers, or all are busy", "call again when one is up")
    port = places[0].rpartition("/")[2]
    is_near = not ipaddress.ip_address(answer.address).is_global
    seen = f"{'a member in the same network' if is_near else 'another member'} sees this machine as {answer.address}"
    if answer.reached is Reached.YES:
        return good("reach", f"{seen} and reaches it at port {port}" + ("; from further away it was not tried" if is_near else ""))
    if running and relays:
        text = f"{seen} and does not reach port {port}; others come in through relays ({relays}){_ROUTERS[answer.keeps_port]}"
        needed = f"only TCP {port} forwarded at the router (`upnp` in settings.json) makes it faster"
        optional = f"nothing must be done; TCP {port} forwarded at the router (`upnp` in settings.json) is faster"
        return note("reach", text, needed if answer.keeps_port is False else optional)
    text = f"{seen} and does not reach port {port}: a firewall or router is in the way{_ROUTERS[answer.keeps_port]}"
    remedy = f"set `upnp` in settings.json, or forward TCP {port} at the router and let it through the firewall; or leave it: members relay"
    return care("reach", text, remedy)
