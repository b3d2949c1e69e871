"""`learnae mam serve`: the old IOTA node's API on this machine, in front of the session's Tangle. Off unless somebody starts it."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random
from typing import Final

import trio

from learnae.backends.disk_sensors import SensorJournal
from learnae.backends.loopback_http import LOOPBACK, Answer, HttpService, Request, serve_http
from learnae.backends.sensor_folder import SensorFolder
from learnae.backends.sensor_link import SensorLink, keep_linked
from learnae.backends.sensor_outbox import SensorOutbox
from learnae.cli.sensor_run import now_ms, open_publisher, tell, tell_trouble
from learnae.errors import ListenError
from learnae.ids import PeerId
from learnae.sensor_errors import AdmissionError
from learnae.sensors.follower import FollowSettings, SensorFollower
from learnae.sensors.iri import IriError, IriTangle
from learnae.sensors.link import Watch
from learnae.sensors.publisher import SensorPublisher
from learnae.sensors.readings import SensorField
from learnae.tangle.channel import ChannelMode

CHANNEL: Final = "mam v0"
BODY_BYTES_MAX: Final = 1 << 20
SETTLE_EVERY_S: Final = 1.0


@dataclass(kw_only=True)
class Facade:
    """The parts of a running facade."""

    publisher: SensorPublisher
    outbox: SensorOutbox
    follower: SensorFollower
    tangle: IriTangle = field(init=False)

    def __post_init__(self) -> None:
        self.tangle = IriTangle(self.publish, now_ms)
        self.follower.observe_other = lambda head, body: self.enter(body)

    def publish(self, bodies: Sequence[bytes]) -> None:
        """On disk, then on its way and visible here."""
        self.outbox.commit(self.publisher.publish_bodies(CHANNEL, bodies, now_ms=now_ms()))
        for body in bodies:
            self.enter(body)

    def enter(self, body: bytes) -> None:
        self.tangle.enter(body)

    async def answer(self, request: Request) -> Answer:
        await self.outbox.wait_for_room()
        if wait_ms := self.publisher.compute_wait_ms(now_ms=now_ms()):
            await trio.sleep(wait_ms / 1000)
        try:
            if request.target.startswith("/api/v1/"):
                found = self.tangle.rest(request.method, request.target, request.body)
            else:
                found = self.tangle.command(request.body)
        except IriError as error:
            return Answer(error.status, json.dumps({"error": str(error)}).encode())
        return Answer(201 if request.method == "POST" and request.target.startswith("/api/v1/") else 200, json.dumps(found).encode())

    async def follow(self, link: SensorLink) -> None:
        """Take in what others attached."""
        while True:
            page = await link.page(Watch(have=self.follower.lane.compute_have()))
            for encoded in page.vertices:
                self.follower.receive(PeerId(bytes(32)), encoded, time.time())
            self.follower.tick(time.time())


async def serve_mam(folder: Path, node: str, host: str, port: int) -> None:
    """Until cancelled; says its URL. Raises: LearnaeError leaves: no admission, a port that is taken, a full disk."""
    made = SensorFolder(folder)
    journal = SensorJournal(folder)
    try:
        publisher = open_publisher(made, journal)
        outbox = SensorOutbox(publisher, journal, me=made.issuer.peer, on_trouble=tell_trouble)
        facade = Facade(publisher=publisher, outbox=outbox, follower=_make_follower(made))
        for encoded in journal.vertices():
            facade.follower.receive(PeerId(bytes(32)), encoded, time.time())
        fields, generation = (SensorField("transactions", ""),), publisher.count_old_keys(CHANNEL)
        plan = made.make_plan(CHANNEL, fields, mode=ChannelMode.PUBLIC, generation=generation)
        outbox.commit(publisher.open(plan, now_ms=now_ms()))
        try:
            listeners = await trio.open_tcp_listeners(port, host=host)
        except OSError as error:
            raise ListenError(f"{host}:{port}", is_taken="in use" in str(error).lower(), reason=str(error)) from error
        service = HttpService(
            answer=facade.answer,
            what="this API",
            methods=("POST", "GET"),
            hint="send IRI commands with POST",
            body_bytes_max=BODY_BYTES_MAX,
        )
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(keep_linked, node, outbox.carry, on_trouble=tell_trouble))
            nursery.start_soon(partial(keep_linked, node, facade.follow, on_trouble=tell_trouble))
            await nursery.start(partial(serve_http, listeners, service, LOOPBACK | {host}))
            tell(f"IRI and REST API ready: http://{host}:{listeners[0].socket.getsockname()[1]}")
    finally:
        journal.close()


def _make_follower(folder: SensorFolder) -> SensorFollower:
    """A follower that only reads."""
    admitted = folder.read_admission()
    if admitted is None:
        raise AdmissionError(f"there is none in {folder.path}")
    admission, hello = admitted
    follower = SensorFollower(
        rules=hello.rules,
        me=PeerId(bytes(32)),
        sign=lambda signed: bytes(64),
        rng=Random(0),
        settings=FollowSettings(slice_bytes=hello.slice_bytes),
    )
    follower.lane.members = frozenset({admission.member})
    return follower
