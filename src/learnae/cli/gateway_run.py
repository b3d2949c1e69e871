"""`learnae gateway` while it runs: broker, mapping, outbox and line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, Protocol

import trio

from learnae.backends.disk_sensors import SensorJournal
from learnae.backends.mqtt import BrokerAddress, open_mqtt
from learnae.backends.sensor_folder import SensorFolder
from learnae.backends.sensor_link import keep_linked
from learnae.backends.sensor_outbox import SensorOutbox
from learnae.cli.sensor_run import now_ms, open_publisher, tell, tell_trouble
from learnae.ids import short_name
from learnae.sensors.gateway import Gateway, MakePlan
from learnae.sensors.mapping import MapRule
from learnae.sensors.publisher import Commit, SensorPlan
from learnae.sensors.readings import SensorField
from learnae.sensors.slices import RowType
from learnae.tangle.channel import ChannelMode

TELL_EVERY_S: Final = 10.0


@dataclass(frozen=True, kw_only=True)
class GatewayPlan:
    """What `learnae gateway` was asked for."""

    folder: Path
    node: str
    broker: BrokerAddress
    rules: tuple[MapRule, ...]
    mode: ChannelMode = ChannelMode.PUBLIC
    side_key: bytes = b""
    linger_s: float = 0.05


class Ready(Protocol):
    """Hears the broker's address when the gateway is subscribed: trio's task status."""

    def started(self, value: str) -> None: ...


async def run_gateway(
    plan: GatewayPlan, *, on_batch: Callable[[list[bytes]], None] = lambda payloads: None, task_status: Ready = trio.TASK_STATUS_IGNORED
) -> None:
    """Until cancelled. `on_batch` hears the payloads whose readings are on disk.

    Raises: LearnaeError leaves: no admission, a broker that refuses, a full disk.
    """
    folder = SensorFolder(plan.folder)
    journal = SensorJournal(plan.folder)
    try:
        publisher = open_publisher(folder, journal)
        gateway = Gateway(publisher, plan.rules, make_plans(folder, plan.mode, plan.side_key))
        gateway.restore(journal.records(), now_ms=now_ms())
        outbox = SensorOutbox(publisher, journal, me=folder.issuer.peer, on_trouble=tell_trouble)
        topics = sorted({rule.topic for rule in plan.rules})
        opened = open_mqtt(
            plan.broker, client_id=f"learnae-{short_name(folder.issuer.peer)}", topics=topics, on_trouble=outbox.tell
        )
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(keep_linked, plan.node, outbox.carry, on_trouble=tell_trouble))
            async with opened as source:
                await source.connected.wait()
                tell(f"connected to {plan.broker}, subscribed to {', '.join(topics)}")
                task_status.started(str(plan.broker))
                told_s = trio.current_time()
                while True:
                    batch = await source.receive(linger_s=plan.linger_s)
                    await outbox.wait_for_room()
                    if wait_ms := publisher.compute_wait_ms(now_ms=now_ms()):
                        await trio.sleep(wait_ms / 1000)
                    commits, troubles = gateway.take([message for message, _ in batch], now_ms=now_ms())
                    outbox.commit(_merge(commits))
                    source.acknowledge([receipt for _, receipt in batch])
                    on_batch([message.payload for message, _ in batch])
                    for text in troubles:
                        outbox.tell(text)
                    if trio.current_time() - told_s >= TELL_EVERY_S:
                        told_s = trio.current_time()
                        tell(f"{gateway.messages} messages, {gateway.readings} readings; {outbox.pending} vertices wait for the node")
    finally:
        journal.close()


def make_plans(folder: SensorFolder, mode: ChannelMode, side_key: bytes = b"") -> MakePlan:
    """The channels of this folder, in one mode."""

    def make(sensor: str, fields: tuple[SensorField, ...], generation: int, row_type: RowType) -> SensorPlan:
        return folder.make_plan(sensor, fields, mode=mode, side_key=side_key, generation=generation, row_type=row_type)

    return make


def _merge(commits: list[Commit]) -> Commit:
    """One transaction for all of them; of a record the newest value."""
    records = {name: content for commit in commits for name, content in commit.records}
    return Commit(tuple(vertex for commit in commits for vertex in commit.vertices), tuple(records.items()))
