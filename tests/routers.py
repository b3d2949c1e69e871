"""Private networks behind routers, on this machine: real network namespaces, the kernel's own NAT and connection tracking.

    with open_world([Public("relay"), Router("north"), Behind("north", "anna")]) as world:
        process = world.start("anna", [sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE)

Every place is a network namespace with a cable to the internet (60.N.0.2/24, each in a network of its own, routed) or to the bridge of its
router (192.168.1.x, in each private network the same, as at home). A router masquerades and drops what comes from outside unasked. All
live in one user namespace, so no rights of root are needed, and nothing of the machine itself is touched; they end with the block.
Linux only, where users may make namespaces: `find_obstacle` says why not.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import platform
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Final

_TUNSETIFF: Final = 0x400454CA
_IFF_TUN: Final = 0x0001
_IFF_NO_PI: Final = 0x1000
_ETH_P_IP: Final = 0x0800
_CLONE_NEWNET: Final = 0x40000000
_PR_SET_PDEATHSIG: Final = 1
_START_S: Final = 60.0


@dataclass(frozen=True)
class Public:
    """A machine with an address of its own in the internet."""

    name: str


@dataclass(frozen=True)
class Router:
    """`random_ports`: a new port outside for each connection ("symmetric"); otherwise the port inside, as long as it is free.

    `refuses`: answers what comes unasked with a refusal, and remembers it, instead of dropping it.
    """

    name: str
    random_ports: bool = False
    refuses: bool = False


@dataclass(frozen=True)
class Behind:
    """A machine in the private network of a router, which must come before it."""

    router: str
    name: str


Place = Public | Router | Behind


class World:
    """The places by name; made by `open_world`."""

    def __init__(self, pids: dict[str, int], addresses: dict[str, str]) -> None:
        self._pids = pids
        self.started: list[subprocess.Popen[Any]] = []
        self.addresses = addresses  # in the internet for `Public` and `Router`, in the private network for `Behind`

    def command(self, place: str, command: Sequence[str]) -> list[str]:
        """What to call so that `command` runs in `place`."""
        return ["nsenter", "--user", "--net", "--preserve-credentials", "--target", str(self._pids[place]), "--", *command]

    def start(self, place: str, command: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
        """A process in `place`, which ends with the world; `options` as for Popen."""
        self.started.append(subprocess.Popen(self.command(place, command), **options))
        return self.started[-1]


def find_obstacle() -> str:
    """Why there can be no routers on this machine; empty if there can."""
    if platform.system() != "Linux":
        return f"routers need the network namespaces of Linux, and this is {platform.system()}"
    try:
        tried = subprocess.run(["unshare", "-Urn", "nsenter", "--version"], check=False, capture_output=True, text=True, timeout=_START_S)
    except FileNotFoundError:
        return "routers need unshare and nsenter (util-linux), which are not installed"
    return "" if tried.returncode == 0 else f"this machine does not allow its users network namespaces: {tried.stderr.strip()}"


def can_delay() -> bool:
    """Whether `open_world` can delay packets: it needs TUN devices, which some containers lack."""
    return os.access("/dev/net/tun", os.R_OK | os.W_OK)


@contextmanager
def open_world(places: Sequence[Place], *, delay_s: float = 0.0) -> Iterator[World]:
    """Build the places; they and what was started there end with the block. `delay_s`: of each packet in the internet."""
    plan = json.dumps([[type(place).__name__, asdict(place)] for place in places])
    command = ["unshare", "-Urn", sys.executable, str(Path(__file__).resolve()), plan, str(delay_s)]
    builder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        assert builder.stdout is not None
        line = builder.stdout.readline()
        assert line, "the builder of the namespaces failed; its error is above"
        world = World(*json.loads(line))
        try:
            yield world
        finally:
            for process in world.started:
                process.kill()
                process.wait()
    finally:
        os.killpg(builder.pid, signal.SIGKILL)
        builder.communicate()


# --- in the user namespace: one process for the internet, one for each place, which keeps it alive ----------------


def _build(plan: list[list[Any]], delay_s: float) -> None:
    from pyroute2 import IPRoute

    places = [globals()[kind](**values) for kind, values in plan]
    holders = {place.name: _Holder() for place in places}
    addresses: dict[str, str] = {}
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
    with IPRoute() as internet:
        internet.link("set", index=1, state="up")
        for number, place in enumerate(places, 1):
            holder, cable = holders[place.name], f"to{number}"
            inside = {"ifname": "wan", "net_ns_pid": holder.pid, "address": _name_hardware(number)}
            if isinstance(place, Behind):
                addresses[place.name] = f"192.168.1.{9 + number}"
                internet.link("add", ifname=cable, kind="veth", peer=inside, net_ns_pid=holders[place.router].pid)
                holders[place.router].do("plug", cable)
                holder.do("configure", addresses[place.name], "192.168.1.1")
                continue
            addresses[place.name] = f"60.{number}.0.2"
            internet.link("add", ifname=cable, kind="veth", peer=inside)
            (index,) = internet.link_lookup(ifname=cable)
            internet.addr("add", index=index, address=f"60.{number}.0.1", prefixlen=32 if delay_s else 24)
            internet.link("set", index=index, state="up")
            holder.do("configure", addresses[place.name], f"60.{number}.0.1")
            if isinstance(place, Router):
                holder.do("masquerade", place.random_ports, place.refuses)
        if delay_s:
            _delay(internet, delay_s)
    print(json.dumps([{name: holder.pid for name, holder in holders.items()}, addresses]), flush=True)
    sys.stdin.read()


def _delay(internet: Any, delay_s: float) -> None:
    """Lead all that comes over the cables into a device of this program, which gives it to the cable of its address later."""
    device = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH", b"slow", _IFF_TUN | _IFF_NO_PI))
    (index,) = internet.link_lookup(ifname="slow")
    internet.link("set", index=index, state="up")
    internet.route("add", dst="60.0.0.0/8", oif=index)
    out = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM)
    waiting: SimpleQueue[tuple[float, bytes]] = SimpleQueue()

    def take() -> None:
        while True:
            waiting.put((time.monotonic() + delay_s, os.read(device, 65536)))

    def give() -> None:
        while True:
            due_s, packet = waiting.get()
            time.sleep(max(0.0, due_s - time.monotonic()))
            number = packet[17]  # Of the destination 60.NUMBER.0.2.
            with suppress(OSError):
                out.sendto(packet, (f"to{number}", _ETH_P_IP, 0, 0, bytes.fromhex(_name_hardware(number).replace(":", ""))))

    for task in (take, give):
        threading.Thread(target=task, daemon=True).start()


def _name_hardware(number: int) -> str:
    return f"02:00:00:00:00:{number:02x}"


class _Holder:
    """A child in a network namespace of its own, which does there what the builder says."""

    def __init__(self) -> None:
        ask, self._orders = os.pipe()
        self._answers, answer = os.pipe()
        self.pid = os.fork()
        if not self.pid:
            os.close(self._orders)
            libc = ctypes.CDLL(None, use_errno=True)
            libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if libc.unshare(_CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "unshare")
            _obey(os.fdopen(ask), os.fdopen(answer, "w", buffering=1))
            os._exit(0)
        os.close(ask)
        os.close(answer)
        assert os.read(self._answers, 3) == b"ok\n"

    def do(self, name: str, *arguments: object) -> None:
        os.write(self._orders, json.dumps([name, *arguments]).encode() + b"\n")
        assert os.read(self._answers, 3) == b"ok\n", f"{name} failed; its error is above"


def _obey(orders: Any, answers: Any) -> None:
    print("ok", file=answers)
    for line in orders:
        name, *arguments = json.loads(line)
        {"configure": _configure, "plug": _plug, "masquerade": _masquerade}[name](*arguments)
        print("ok", file=answers)


def _configure(address: str, gateway: str) -> None:
    from pyroute2 import IPRoute

    with IPRoute() as here:
        here.link("set", index=1, state="up")
        (index,) = here.link_lookup(ifname="wan")
        here.addr("add", index=index, address=address, prefixlen=24)
        here.link("set", index=index, state="up")
        here.route("add", dst="default", gateway=gateway)


def _plug(cable: str) -> None:
    from pyroute2 import IPRoute

    with IPRoute() as here:
        if not here.link_lookup(ifname="lan"):
            here.link("add", ifname="lan", kind="bridge")
            (bridge,) = here.link_lookup(ifname="lan")
            here.addr("add", index=bridge, address="192.168.1.1", prefixlen=24)
            here.link("set", index=bridge, state="up")
        (bridge,) = here.link_lookup(ifname="lan")
        (index,) = here.link_lookup(ifname=cable)
        here.link("set", index=index, master=bridge, state="up")


def _masquerade(random_ports: bool, refuses: bool) -> None:
    """What a router at home does: one address for all, and no answer to who was not asked."""
    from pyroute2.nftables.expressions import genex, ipv4addr, verdict
    from pyroute2.nftables.main import NFTables

    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
    from_inside = ipv4addr(src="192.168.0.0/16")
    flags = {"flags": {"NF_NAT_RANGE_PROTO_RANDOM_FULLY"}} if random_ports else {}
    with NFTables(nfgen_family=2) as rules:
        rules.table("add", name="home")
        rules.chain("add", table="home", name="out", hook="postrouting", type="nat", policy=1, priority=100)
        rules.rule("add", table="home", chain="out", expressions=(from_inside, [genex("masq", flags)]))
        rules.chain("add", table="home", name="in", hook="input", type="filter", policy=1 if refuses else 0)
        rules.rule("add", table="home", chain="in", expressions=(from_inside, verdict(1)))


if __name__ == "__main__":
    _build(json.loads(sys.argv[1]), float(sys.argv[2]))
