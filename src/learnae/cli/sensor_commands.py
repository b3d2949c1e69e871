"""The functions behind the commands about sensors."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from learnae.cli import loading
from learnae.cli.mam import run_create, run_parse
from learnae.cli.signals import run_interruptible
from learnae.errors import UsageError

EVERY_S_MAX = 86_400.0


def _publish(options: argparse.Namespace) -> int:
    with loading():
        from learnae.backends.sensor_folder import SensorFolder
        from learnae.backends.sensor_sources import find_csv_fields, find_own_fields, parse_fields
        from learnae.cli.sensor_run import PublishPlan, publish
        from learnae.sensors.slices import RowType
        from learnae.tangle.channel import ChannelMode

    if not options.fields and options.source != "self" and not options.source.endswith(".csv"):
        raise UsageError("--fields is missing; name what each line holds, such as --fields temperature:Cel:2,humidity:%RH")
    if not 1 <= options.batch <= 4096 or not 0 <= options.every <= EVERY_S_MAX or not 0 < options.linger <= EVERY_S_MAX:
        raise UsageError("--batch is 1 to 4096; --every and --linger are seconds, up to a day")
    mode = ChannelMode[options.mode.upper()]
    side_key = _read_side_key(options.side_key)
    if (mode is ChannelMode.RESTRICTED) != bool(side_key):
        raise UsageError("--side-key belongs to --mode restricted, and it needs one")
    if options.fields:
        fields = parse_fields(options.fields)
    else:
        fields = find_own_fields() if options.source == "self" else find_csv_fields(Path(options.source), label=options.label)
    plan = PublishPlan(
        folder=Path(options.folder),
        sensor=options.name,
        node=options.node,
        source=options.source,
        fields=fields,
        row_type=RowType[options.row_type.upper()],
        label=options.label,
        mode=mode,
        side_key=side_key,
        every_s=options.every,
        batch=options.batch,
        linger_s=options.linger,
        baud=options.baud,
        new_key=options.new_key,
    )
    if options.admission:
        SensorFolder(plan.folder).write_admission(_read_text(options.admission))
    run_interruptible(partial(publish, plan))
    return 0


def _watch(options: argparse.Namespace) -> int:
    with loading():
        from learnae.backends.sensor_settings import parse_opening
        from learnae.cli.sensor_run import watch
        from learnae.sensors.follower import FollowSettings

    try:
        openings = {name: parse_opening(text) for name, _, text in (pair.partition("=") for pair in options.opening)}
    except ValueError as error:
        raise UsageError(f"--opening: {error}") from error
    side_keys = tuple(_read_side_key(key) for key in options.side_key) or (b"",)
    settings = FollowSettings(slice_bytes=1 << 16, openings=openings, side_keys=side_keys)
    run_interruptible(partial(watch, options.codename, options.node, settings, as_json=options.json, count=options.count))
    return 0


def _admit(options: argparse.Namespace) -> int:
    """Countersign a sensor's or gateway's id with the key of a member's node."""
    with loading():
        from learnae.backends.keystore import open_keystore
        from learnae.backends.private_files import read_password
        from learnae.backends.sensor_folder import format_admission
        from learnae.backends.sensor_settings import read_sensor_settings
        from learnae.cli.folder import NodeFolder
        from learnae.ids import parse_peer
        from learnae.sensors.link import Hello
        from learnae.sensors.messages import CHANNELS_MAX, RATE_MAX, create_admission

    try:
        issuer = parse_peer(options.id)
    except ValueError as error:
        raise UsageError(f"{options.id[:80]!r} is not the id of a sensor; `learnae sensor publish` prints it: 12D3Koo...") from error
    if not 1 <= options.rate <= RATE_MAX or not 1 <= options.channels <= CHANNELS_MAX:
        raise UsageError(f"--rate is 1 to {RATE_MAX} vertices a second, --channels 1 to {CHANNELS_MAX}")
    folder = NodeFolder(Path(options.folder))
    rules = folder.read_ticket().rules
    settings = read_sensor_settings(folder.path)
    keys = open_keystore(folder.keystore, read_password(Path(options.password_file) if options.password_file else None))
    codename = settings.codename if settings is not None and settings.codename else rules.codename
    net = rules.compute_net("sensors")
    admission = create_admission(
        net=net,
        issuer=issuer,
        member=keys.identity.peer_id,
        sign=keys.identity.sign,
        rate_per_s=options.rate,
        channels_max=options.channels,
        from_ms=max(rules.starts_s * 1000, time.time_ns() // 1_000_000 - 600_000),  # Its clock may be ten minutes behind ours.
    )
    hello = Hello(
        net=net,
        codename=codename,
        starts_ms=rules.starts_s * 1000,
        slice_bytes=rules.slice_bytes,
        members=(keys.identity.peer_id,),
    )
    print(format_admission(admission, hello))
    return 0


def _gateway(options: argparse.Namespace) -> int:
    with loading():
        from learnae.backends.mqtt import parse_broker
        from learnae.backends.private_files import read_private
        from learnae.backends.sensor_folder import SensorFolder
        from learnae.cli.gateway_run import GatewayPlan, run_gateway
        from learnae.sensors.mapping import parse_mapping
        from learnae.tangle.channel import ChannelMode

    mode, side_key = ChannelMode[options.mode.upper()], _read_side_key(options.side_key)
    if (mode is ChannelMode.RESTRICTED) != bool(side_key):
        raise UsageError("--side-key belongs to --mode restricted, and it needs one")
    if not 0 <= options.linger <= EVERY_S_MAX:
        raise UsageError("--linger is seconds, up to a day")
    password = read_private(Path(options.broker_password_file)).decode().rstrip("\r\n") if options.broker_password_file else ""
    plan = GatewayPlan(
        folder=Path(options.folder),
        node=options.node,
        broker=parse_broker(options.broker, password),
        rules=parse_mapping(Path(options.mapping).read_text(encoding="utf-8")),
        mode=mode,
        side_key=side_key,
        linger_s=options.linger,
    )
    if options.admission:
        SensorFolder(plan.folder).write_admission(_read_text(options.admission))
    run_interruptible(partial(run_gateway, plan))
    return 0


def _mam_serve(options: argparse.Namespace) -> int:
    with loading():
        from learnae.backends.sensor_folder import SensorFolder
        from learnae.cli.mam_serve import serve_mam
        from learnae.sensors.mam_lines import WARNING

    if not 0 <= options.port <= 65535:
        raise UsageError(f"--port is {options.port}, expected 0 to 65535")
    print(WARNING, file=sys.stderr)
    if options.admission:
        SensorFolder(Path(options.folder)).write_admission(_read_text(options.admission))
    run_interruptible(partial(serve_mam, Path(options.folder), options.node, options.host, options.port))
    return 0


def _read_side_key(text: str) -> bytes:
    try:
        key = bytes.fromhex(text)
    except ValueError:
        key = b"x"
    if len(key) not in (0, 32):
        raise UsageError("a side key is 64 hex digits; `openssl rand -hex 32` makes one")
    return key


def _read_text(text: str) -> str:
    """The text itself, or the content of the file that holds it."""
    path = Path(text)
    return path.read_text(encoding="utf-8") if len(text) < 256 and path.is_file() else text


SENSOR_RUNS: dict[str, Callable[[argparse.Namespace], int]] = {
    "mam create": run_create,
    "mam parse": run_parse,
    "mam serve": _mam_serve,
    "sensor publish": _publish,
    "sensor watch": _watch,
    "sensor admit": _admit,
    "gateway": _gateway,
}
