"""Puts a node's part for sensors together from the `sensors.toml` in its folder."""

from __future__ import annotations

from pathlib import Path
from random import SystemRandom
from typing import TYPE_CHECKING

from learnae.backends.disk_sensors import SensorJournal
from learnae.backends.sensor_link import serve_link
from learnae.backends.sensor_settings import SensorSettings
from learnae.node.station import SensorParts, SensorStation
from learnae.protocol.rules import SessionRules
from learnae.sensors.follower import FollowSettings, SensorFollower
from learnae.sensors.judge import LaneRules
from learnae.sensors.link import Hello
from learnae.sensors.messages import compute_tag

if TYPE_CHECKING:
    from learnae.backends.keystore import Keys


def make_sensor_parts(rules: SessionRules, keys: Keys, folder: Path, settings: SensorSettings) -> tuple[SensorParts, SensorJournal]:
    """What the node of this folder needs to follow sensors; the caller closes the journal. Raises: FolderInUseError and its like."""
    journal = SensorJournal(folder / "sensors")
    codename = settings.codename or rules.codename
    lane_rules = LaneRules(net=rules.compute_net("sensors"), tag=compute_tag(codename), starts_ms=rules.starts_s * 1000)
    follower = SensorFollower(
        rules=lane_rules,
        me=keys.identity.peer_id,
        sign=keys.identity.sign,
        rng=SystemRandom(),
        settings=FollowSettings(slice_bytes=rules.slice_bytes, openings=settings.openings, side_keys=settings.side_keys or (b"",)),
        read=journal.read,
    )
    host, _, port = settings.listen.rpartition(":")

    async def serve(station: SensorStation) -> None:
        await serve_link(station, host.strip("[]"), int(port))

    hello = Hello(
        net=lane_rules.net, codename=codename, starts_ms=lane_rules.starts_ms, slice_bytes=rules.slice_bytes, members=()
    )
    return SensorParts(follower=follower, journal=journal, hello=hello, serve=serve if settings.listen else None), journal
