"""The arguments of the commands about sensors, and of the old MAM format."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any, Final

Add = Callable[..., argparse.ArgumentParser]
DEFAULT_NODE: Final = "127.0.0.1:4480"
NODE_HELP: Final = f"a node that listens for sensors (default {DEFAULT_NODE})"


def add_sensor_commands(commands: Any, add: Add) -> None:
    """Add `learnae sensor`, `learnae gateway` and `learnae mam`."""
    sensor = commands.add_parser("sensor", help="Publish readings to a session, watch its sensors, admit new ones.")
    sensors = sensor.add_subparsers(dest="subcommand", metavar="COMMAND", required=True)
    _add_publish(add("publish", "Stream readings as a signed, encrypted channel.", sensors, "sensor publish"))
    _add_watch(add("watch", "Show live what a session's sensors say.", sensors, "sensor watch"))
    _add_admit(add("admit", "As a member, admit a sensor or gateway to the session.", sensors, "sensor admit"))
    _add_gateway(add("gateway", "Publish what an MQTT broker's devices say, by a mapping file."))
    _add_mam(commands, add)


def _add_publish(command: argparse.ArgumentParser) -> None:
    command.add_argument("--name", required=True, help="the sensor's name, for people")
    command.add_argument("--folder", default="learnae-sensor", help="folder of its keys and journal (default learnae-sensor)")
    command.add_argument("--node", default=DEFAULT_NODE, metavar="HOST:PORT", help=NODE_HELP)
    about = "what a member's `learnae sensor admit` printed, or a file with it; needed once"
    command.add_argument("--admission", default="", metavar="TEXT", help=about)
    about = "where readings come from: - (standard input, a sample a line), a .csv file, a serial device, or self (this machine)"
    command.add_argument("--from", dest="source", default="-", metavar="SOURCE", help=f"{about}; default -")
    about = "what a sample holds, in order: NAME:UNIT:DECIMALS,... (unit and decimals may be left out; of a CSV file: all its columns)"
    command.add_argument("--fields", default="", metavar="FIELDS", help=about)
    about = "what a value becomes in a dataslice, as the session's task expects it (default f32)"
    command.add_argument("--row-type", choices=("f32", "u8"), default="f32", help=about)
    command.add_argument("--label", default="", metavar="COLUMN", help="CSV column with the class to learn")
    command.add_argument("--mode", choices=("public", "private", "restricted"), default="public", help="who can read it (default public)")
    command.add_argument("--side-key", default="", metavar="HEX", help="of mode restricted: 64 hex digits")
    command.add_argument("--new-key", action="store_true", help="hand the channel over to a new key before anything else")
    command.add_argument("--every", type=float, default=1.0, metavar="SECONDS", help="pace of a CSV file and of self (default 1)")
    command.add_argument("--batch", type=int, default=1, metavar="N", help="samples in one message (default 1)")
    command.add_argument("--linger", type=float, default=1.0, metavar="SECONDS", help="longest wait for a full batch (default 1)")
    command.add_argument("--baud", type=int, default=9600, help="speed of a serial device (default 9600)")


def _add_watch(command: argparse.ArgumentParser) -> None:
    command.add_argument("codename", help="the session's codename, which heads of sensors carry as their tag")
    command.add_argument("--node", default=DEFAULT_NODE, metavar="HOST:PORT", help=NODE_HELP)
    command.add_argument("--opening", action="append", default=[], metavar="SENSOR=OPENING", help="key of a private sensor; repeatable")
    command.add_argument("--side-key", action="append", default=[], metavar="HEX", help="of restricted sensors; repeatable, newest first")
    command.add_argument("--count", type=int, default=0, metavar="N", help="end after so many messages (default: never)")
    command.add_argument("--json", action="store_true", help="one JSON object a line")


def _add_admit(command: argparse.ArgumentParser) -> None:
    command.add_argument("folder", help="the folder of the member's node")
    command.add_argument("id", help="the sensor's id, 12D3Koo..., which `learnae sensor publish` prints")
    command.add_argument("--rate", type=int, default=10, metavar="N", help="most vertices a second (default 10)")
    command.add_argument("--channels", type=int, default=1, metavar="N", help="most sensors that it speaks for (default 1)")
    command.add_argument("--password-file", metavar="FILE", help="file with the keystore's password (mode 600); otherwise you are asked")


def _add_gateway(command: argparse.ArgumentParser) -> None:
    command.add_argument("--broker", required=True, metavar="URL", help="mqtt://[USER@]HOST[:PORT], or mqtts://")
    command.add_argument("--broker-password-file", metavar="FILE", help="file with the broker's password (mode 600)")
    command.add_argument("--mapping", required=True, metavar="FILE", help="which topics are which sensors (TOML; docs/sensors.md)")
    command.add_argument("--folder", default="learnae-gateway", help="folder of its keys and journal (default learnae-gateway)")
    command.add_argument("--node", default=DEFAULT_NODE, metavar="HOST:PORT", help=NODE_HELP)
    about = "what a member's `learnae sensor admit --channels N` printed, or a file with it; needed once"
    command.add_argument("--admission", default="", metavar="TEXT", help=about)
    command.add_argument("--mode", choices=("public", "private", "restricted"), default="public", help="who can read it (default public)")
    command.add_argument("--side-key", default="", metavar="HEX", help="of mode restricted: 64 hex digits")
    command.add_argument("--linger", type=float, default=0.05, metavar="SECONDS", help="wait so long for more messages (default 0.05)")


def _add_mam(commands: Any, add: Add) -> None:
    mam = commands.add_parser("mam", help="Read and write messages of IOTA's old MAM v0 (insecure; for compatibility).")
    mams = mam.add_subparsers(dest="subcommand", metavar="COMMAND", required=True)
    about = "Make MAM v0 messages: JSON lines with seed, message (trytes) or text, mode, ... in; payload, root, next_root, address out."
    add("create", about, mams, "mam create")
    about = "Read MAM v0 messages: JSON lines with payload, root, side_key in; message, text, next_root, security (or error) out."
    add("parse", about, mams, "mam parse")
    serve = add("serve", "Serve the API of an old IOTA node here, in front of the session's Tangle (insecure).", mams, "mam serve")
    serve.add_argument("--folder", default="learnae-mam", help="folder of its keys and journal (default learnae-mam)")
    serve.add_argument("--node", default=DEFAULT_NODE, metavar="HOST:PORT", help=NODE_HELP)
    serve.add_argument("--admission", default="", metavar="TEXT", help="what a member's `learnae sensor admit` printed; needed once")
    serve.add_argument("--host", default="127.0.0.1", help="address to listen on (default 127.0.0.1)")
    serve.add_argument("--port", type=int, default=14265, help="port to listen on, 0 for a free one (default 14265)")
