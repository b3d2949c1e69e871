"""Keeps a node's port open at the router while the node runs, by a process that speaks with the router (`upnp`).

Only when the user asked for it (`--upnp`), because it opens a port of the router for everybody. py-libp2p's own wrapper asks for a
port for ever, inside the node.
"""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Callable
from typing import Final

import trio

from learnae.backends import upnp
from learnae.bounded_json import parse_json

logger = logging.getLogger(__name__)

AGAIN_S: Final = 300.0  # Between questions: a router that started anew has forgotten the port, or has another address outside.
CLOSE_S: Final = 2.0
_LINE_BYTES_MAX: Final = 4096


async def keep_port_open(port: int, told: Callable[[int, str], None], *, interface: str = "") -> None:
    """Keep `port` of this machine open at the router, until cancelled; `told` hears the port and the address outside, or (0, "")."""
    said = ""

    def tell(outside: int, address: str, fault: str) -> None:
        nonlocal said
        told(outside, address)
        now = f"UPnP: {fault or _describe(outside, address)}"
        if now != said:
            logger.log(logging.WARNING if fault or not address else logging.INFO, "%s", now)
            said = now

    while True:
        await _keep_asking([sys.executable, "-m", upnp.__name__, str(port), interface, str(upnp.DISCOVER_MS)], tell)
        tell(0, "", "the router was too slow, or sent too much")
        await trio.sleep(AGAIN_S)


async def _keep_asking(command: list[str], tell: Callable[[int, str, str], None]) -> None:
    """Until the process ends by itself, or this is cancelled."""
    process = await trio.lowlevel.open_process(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdin is not None and process.stdout is not None
    try:
        while True:
            await process.stdin.send_all(b"open\n")
            line = await _read_line(process.stdout)
            if not line:
                return
            answer = parse_json(line)
            tell(answer["outside"], answer["address"], answer["fault"])
            await trio.sleep(AGAIN_S)
    except trio.BrokenResourceError:
        return
    finally:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + CLOSE_S):
            await process.stdin.aclose()  # It takes the port back.
            await process.wait()
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()
            await process.stdout.aclose()


async def _read_line(stream: trio.abc.ReceiveStream) -> bytes:
    """Empty: it ended before the line did."""
    line = b""
    while not line.endswith(b"\n") and len(line) < _LINE_BYTES_MAX:
        chunk = await stream.receive_some(_LINE_BYTES_MAX)
        if not chunk:
            return b""
        line += chunk
    return line


def _describe(outside: int, address: str) -> str:
    if address:
        return f"the router lets others in at {address}, port {outside}"
    return f"the router opened its port {outside}, but names no public address of its own: another router may stand before it"
