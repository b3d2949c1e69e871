"""`learnae status`: what it says about how others reach a node."""

from __future__ import annotations

import pytest

from learnae.cli.status import format_status

OWN = "/ip4/192.168.1.7/tcp/4001/p2p/12D3KooWJzENDcYyqhw9jGbmNoU42fhZ6y6ctFKNPWnsaLuscK5U"
CIRCUIT = "/ip4/8.8.4.4/tcp/4001/p2p/12D3KooWK99VoVxNE7XzyBwXEzW7xhK7Gpv85r9F3V3fyKSUKPH5/p2p-circuit" + OWN[OWN.index("/p2p/") :]


@pytest.mark.parametrize(
    ("addresses", "reachable", "words"),
    [
        ([OWN], True, f"{OWN}; others tried, and got in"),
        ([OWN], None, OWN),
        ([OWN], False, f"{OWN}; others tried, and do not get in (`learnae doctor` says more)"),
        ([CIRCUIT, OWN], False, f"{CIRCUIT}, {OWN}; others tried, and get in through relays only (`learnae doctor` says more)"),
        ([CIRCUIT], None, CIRCUIT),
        ([], None, "nowhere: it only dials"),
    ],
)
def test_status__does_not_call_a_node_reached_where_others_did_not_get_in(
    addresses: list[str], reachable: bool | None, words: str
) -> None:
    """A node behind a router tells its private address, where nobody outside gets in."""
    status = {
        **dict.fromkeys(("session", "rules", "contract", "peer_id", "wallet", "stage", "phase"), "x"),
        **dict.fromkeys(("connected", "members", "help_given", "help_received", "vertices", "stored_bytes", "time_s"), 0),
        "state": "running",
        "member": True,
        "accuracy": None,
        "ends_s": {},
        "deposit_wei": "0",
        "payout_wei": "0",
        "relayed": {"gas_max": 0},
        "addresses": addresses,
        "reachable": reachable,
    }
    assert format_status(status, now_s=0.0).splitlines()[-1] == f"reached at  {words}"
