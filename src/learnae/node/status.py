"""What `status.json` says about a running node: who and where it is, how far its session and its model are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING

from learnae.ids import cid_text, peer_text

if TYPE_CHECKING:
    from learnae.node.runtime import NodeParts
    from learnae.node.station import SensorStation


def describe_node(parts: NodeParts, state: str, station: SensorStation | None) -> Mapping[str, object]:
    """The values of `status.json`; `state`: "running" or "stopped"."""
    peer, dao = parts.peer, parts.peer.dao
    local, ledger = peer.cycle.local, peer.lane.ledger
    view = dao.view
    return {
        "time_s": round((parts.wall_s or parts.now_s)(), 3),
        "state": state,
        "session": peer.rules.name,
        "rules": cid_text(peer.rules.cid),
        "peer_id": peer_text(peer.me),
        "wallet": parts.chain.wallet,
        "contract": parts.session,
        "stage": view.stage.value if view else "unknown",
        "phase": dao.compute_phase(parts.now_s()).value,
        "member": dao.is_member,
        "members": len(dao.membership.by_peer),
        "connected": len(peer.connected),
        "ways": asdict(parts.network.count_ways()),
        "addresses": [*parts.network.extra_addresses, *parts.addresses],
        "reachable": parts.network.is_reachable,
        "accuracy": local.accuracy if local else None,
        "maturity_cycles": local.maturity_cycles if local else 0,
        "cycles": peer.cycle.cycles,
        "vertices": len(peer.lane.dag),
        "sensors": [] if station is None else station.describe(),
        "help_given": ledger.profile(peer.me),
        "help_received": ledger.received(peer.me),
        "deposit_wei": str(peer.rules.deposit_wei),
        "payout_wei": str((view.paid_wei or {}).get(parts.chain.wallet, 0) if view else 0),
        "relayed": {
            "claims": dao.relay.claims_sent,
            "ballots": dao.relay.ballots_sent,
            "gas": dao.relay.gas_spent,
            "gas_max": dao.relay.gas_max,
        },
        "stored_bytes": parts.blocks.used_bytes,
        "ends_s": {"training": dao.settlement.deadlines.training_ends_s, "voting": dao.settlement.deadlines.voting_ends_s},
    }
