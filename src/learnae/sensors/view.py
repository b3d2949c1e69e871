"""What a viewer of a session's sensors reads: every reading, who attached it, when it became a dataslice, whatever was odd.

A viewer follows the lane without being part of it: it judges everything itself and says nothing.
Pure. Source: paper 4.2; `learnae sensor watch`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final

from learnae.ids import Cid, PeerId, cid_text, short_name
from learnae.protocol import events as ev
from learnae.sensors.follower import FollowSettings, SensorFollower
from learnae.sensors.judge import LaneRules, SensorEntry
from learnae.sensors.messages import SensorHead, SliceReceipt
from learnae.sensors.readings import Batch
from learnae.sensors.witness import WitnessCounter
from learnae.tangle.channel import ChannelMessage
from learnae.tangle.vertex import Vertex

ODD_SHOWN_MAX: Final = 256  # The same sentence is shown again only after so many others.
READINGS_SHOWN_MAX: Final = 8  # Of one message; a picture of 64 values is no line.


@dataclass(slots=True)
class SensorCount:
    """What a viewer saw of one sensor."""

    sensor: str
    messages: int = 0
    readings: int = 0
    slices: int = 0
    newest: Cid | None = None
    newest_ms: int = 0
    odd: int = 0
    dataslices: set[Cid] = field(default_factory=set)


class SensorView:
    """Turns vertices into what people and programs read: lines as plain values with a `text`."""

    def __init__(self, rules: LaneRules, members: frozenset[PeerId], settings: FollowSettings) -> None:
        self._follower = SensorFollower(
            rules=rules, me=PeerId(bytes(32)), sign=lambda signed: bytes(64), rng=Random(0), settings=settings
        )
        self._follower.lane.members = members
        self._follower.observe = self._observe
        self._witnesses = WitnessCounter()
        self._lines: list[dict[str, Any]] = []
        self._shown: deque[str] = deque(maxlen=ODD_SHOWN_MAX)
        self.counts: dict[bytes, SensorCount] = {}

    @property
    def have(self) -> Mapping[PeerId, int]:
        return self._follower.lane.compute_have()

    def receive(self, encoded: bytes, now_s: float) -> list[dict[str, Any]]:
        """Take in a vertex; the lines to show."""
        effects = self._follower.receive(PeerId(bytes(32)), encoded, now_s)
        return self._describe(effects)

    def settle(self, now_s: float) -> list[dict[str, Any]]:
        """Time passes."""
        return self._describe(self._follower.tick(now_s))

    def _describe(self, effects: list[Any]) -> list[dict[str, Any]]:
        for effect in effects:
            match effect:
                case ev.SaveVertices(vertices=vertices):
                    for _, encoded in vertices:
                        self._take(encoded)
                case ev.Tell(topic=ev.Topic.TROUBLE, text=text, values=values):
                    self._count_odd(str(values.get("sensor", "")))
                    self._show_odd(text)
                case ev.Tell(text=text, values={"event": "sensor"} as values):
                    issuer = values["issuer"]
                    assert isinstance(issuer, bytes)
                    self._lines.append({"kind": "sensor", "text": f"{text}, attached by {short_name(PeerId(issuer))}"})
        lines, self._lines = self._lines, []
        return lines

    def hear(self, texts: Sequence[str]) -> list[dict[str, Any]]:
        """What the node found odd, refused vertices among it; what this view found itself is not shown twice."""
        for text in texts:
            self._show_odd(text)
        return self._describe([])

    def _show_odd(self, text: str) -> None:
        if text not in self._shown:
            self._shown.append(text)
            self._lines.append({"kind": "odd", "text": text})

    def _take(self, encoded: bytes) -> None:
        lane = self._follower.lane
        vertex = lane.codec.decode(encoded)
        assert isinstance(vertex, Vertex)
        self._witnesses.add(vertex)
        message = lane.codec.parse(vertex)
        if isinstance(message, SliceReceipt) and message.channel in lane.streams:
            count = self._find_count(lane.streams[message.channel].head)
            if message.dataslice not in count.dataslices:
                count.dataslices.add(message.dataslice)
                count.slices += 1
            text = (
                f"{count.sensor}: messages {message.first} to {message.last}, {message.rows} rows, became dataslice "
                f"{cid_text(message.dataslice)} at {short_name(vertex.issuer)}"
            )
            self._lines.append({"kind": "slice", "sensor": count.sensor, "dataslice": cid_text(message.dataslice), "text": text})

    def _observe(self, head: SensorHead, entry: SensorEntry, message: ChannelMessage, batch: Batch) -> None:
        count = self._find_count(head)
        count.messages += 1
        count.readings += len(batch.readings)
        count.newest, count.newest_ms = entry.vertex.cid, entry.vertex.time_ms
        fields = head.fields
        few = batch.readings[:READINGS_SHOWN_MAX]
        shown = [f"{fields[r.field].name} {r.value:g} {fields[r.field].shown_unit}".rstrip() for r in few]
        labels = sorted({reading.label for reading in batch.readings if reading.label is not None})
        more = f", and {len(batch.readings) - len(shown)} more" if len(batch.readings) > len(shown) else ""
        label = f"; label {', '.join(map(str, labels))}" if labels else ""
        self._lines.append({
            "kind": "reading",
            "sensor": head.sensor,
            "message": message.sequence,
            "time_ms": batch.readings[0].time_ms,
            "issuer": short_name(entry.vertex.issuer),
            "readings": [[head.fields[r.field].name, r.value, head.fields[r.field].unit, r.label, r.time_ms] for r in batch.readings],
            "text": f"{head.sensor} {message.sequence}: {', '.join(shown)}{more}{label} (by {short_name(entry.vertex.issuer)})",
        })  # fmt: skip

    def _find_count(self, head: SensorHead) -> SensorCount:
        return self.counts.setdefault(head.channel, SensorCount(head.sensor))

    def _count_odd(self, sensor: str) -> None:
        for count in self.counts.values():
            count.odd += count.sensor == sensor

    def summarise(self) -> list[str]:
        """A line for each sensor: how much it said, by how many others its newest vertex was witnessed, how many dataslices."""
        lines = []
        for count in self.counts.values():
            seen = self._witnesses.vertices.get(count.newest) if count.newest else None
            by, since = (0, None) if seen is None else (seen.count, seen.since_ms)
            within = "" if since is None else f" within {(since - count.newest_ms) / 1000:.1f} s"
            odd = f", {count.odd} odd" if count.odd else ""
            lines.append(
                f"{count.sensor}: {count.messages} messages, {count.readings} readings, newest witnessed by {by} others{within}, "
                f"{count.slices} dataslices{odd}"
            )
        return lines
