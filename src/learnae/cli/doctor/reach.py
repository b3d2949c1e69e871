"""Whether others can reach this node: a member that answers is asked to dial back."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from learnae.cli.doctor.findings import Finding, care, good, note, skipped
from learnae.ids import PeerId, parse_peer

ASKED_MAX = 3


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
        text = f"{seen} and does not reach port {port}; others come in through relays ({relays})"
        return note("reach", text, f"nothing must be done; TCP {port} forwarded at the router (`upnp` in settings.json) is faster")
    text = f"{seen} and does not reach port {port}: a firewall or router is in the way"
    remedy = f"set `upnp` in settings.json, or forward TCP {port} at the router and let it through the firewall; or leave it: members relay"
    return care("reach", text, remedy)
