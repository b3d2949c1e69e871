"""What this machine offers a node: ports, addresses, disk, files, keystore, device. Every check tries the thing itself."""

from __future__ import annotations

import errno
import ipaddress
import os
import resource
import socket
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from learnae.backends.disk_blocks import QUOTA_BYTES, RESERVE_BYTES, DiskBlocks
from learnae.backends.folder_lock import lock_folder
from learnae.backends.private_files import read_private
from learnae.cli.doctor.findings import Finding, care, good, note, skipped
from learnae.cli.folder import NodeFolder
from learnae.errors import DeviceError, FolderInUseError, KeystoreError

FREE_BYTES_MIN: Final = 1 << 30  # A session of models of 10 MB writes about this much in a day.
FILES_MIN: Final = 512  # 128 connections, shaking hands with 32 more, block files, journal, and twice that for comfort.
_IMPORT_HINT: Final = "so this was not looked at; install learnae[demo] to have everything"


def check_keystore(folder: NodeFolder) -> Finding:
    """Whether the keystore is there and for its owner alone; its password is not needed."""
    try:
        read_private(folder.keystore)
        from learnae.backends.keystore import describe_keystore

        named = describe_keystore(folder.keystore)
    except KeystoreError as error:
        return care("keystore", str(error), "restore it from a backup if it was damaged; without it deposit and identity are lost")
    except ModuleNotFoundError as error:
        return skipped("keystore", f"its permissions are right; its inside was not looked at, because {error.name!r} is not installed")
    return good("keystore", f"only its owner reads {folder.keystore}; wallet {named['wallet_address']}, peer {named['peer_id']}")


def is_running(folder: NodeFolder) -> bool:
    """Whether a process holds the folder."""
    try:
        lock_folder(folder.path).close()
    except FolderInUseError:
        return True
    return False


def check_listen(listen: Sequence[str], *, running: bool) -> list[Finding]:
    """Open each port for a moment. While the node runs its ports are its own, and who answers there is looked at by `check_own`."""
    if not listen:
        text = "this node listens nowhere: it dials others, who reach it through relays only"
        return [note("listen", text, "give --listen to `learnae join`")]
    return [_check_port(address, running=running) for address in listen]


def _check_port(address: str, *, running: bool) -> Finding:
    try:
        _, _, host, kind, port_text = address.split("/")
        port = int(port_text)
        family = socket.AF_INET6 if ipaddress.ip_address(host).version == 6 else socket.AF_INET
        if kind != "tcp" or not 0 <= port < 65536:
            raise ValueError(address)
    except ValueError:
        return care("listen", f"{address[:80]!r} is no place to listen", "write one such as /ip4/0.0.0.0/tcp/4001 into settings.json")
    if port == 0:
        text = f"{address} takes another port at each start, so others cannot find this node again and no router can let it in"
        return note("listen", text, "choose a fixed port, such as /ip4/0.0.0.0/tcp/4001, in settings.json")
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        try:
            probe.bind((host, port))
            probe.listen(1)
        except OSError as error:
            if error.errno == errno.EADDRINUSE and running:
                return good("listen", f"{address} is in use, as it should be: a process of this folder runs")
            return _explain_port(address, error)
    if running:
        remedy = "wait a moment if it starts just now; otherwise look into its node.log and start it again"
        return care("listen", f"the node runs, but nothing listens on {address}", remedy)
    return good("listen", f"{address} is free")


def _explain_port(address: str, error: OSError) -> Finding:
    why = (error.strerror or str(error)).lower()
    remedy = {
        errno.EADDRINUSE: "stop the program that uses it, or choose another port in settings.json",
        errno.EACCES: "ports below 1024 are for administrators: choose one above in settings.json",
        errno.EADDRNOTAVAIL: "that is no address of this machine; choose 0.0.0.0 (all of them) in settings.json",
    }.get(error.errno or 0, "choose another address in settings.json")
    return care("listen", f"cannot listen on {address}: {why}", remedy)


def check_addresses(listen: Sequence[str], announce: Sequence[str], found: Sequence[str]) -> Finding:
    """Who can dial this node, by the addresses of this machine (`found`) and those that it tells others."""
    kinds: dict[str, list[str]] = {"public": [], "private": [], "this machine only": []}
    for text in found:
        kinds[_classify(text)].append(text)
    seen = "; ".join(f"{kind}: {', '.join(addresses)}" for kind, addresses in kinds.items() if addresses) or "none"
    told = list(dict.fromkeys(_host_of(address) for address in (announce or listen)))
    if not kinds["public"] and not kinds["private"]:
        return care("addresses", f"this machine has no network ({seen})", "connect it, or run all peers on this machine")
    if told and all(_is_kind(host, "this machine only") for host in told):
        return care(
            "addresses",
            f"others are told {', '.join(told)}, which only this machine can dial (it has {seen})",
            "listen on /ip4/0.0.0.0/tcp/PORT in settings.json, and let `announce` there name an address of this machine",
        )
    if any(_is_kind(host, "public") or not _is_ip(host) for host in told if host not in ("0.0.0.0", "::")):
        return good("addresses", f"others are told {', '.join(told)}; this machine has {seen}")
    if kinds["public"]:
        return good("addresses", f"this machine has {seen}")
    return note(
        "addresses",
        f"this machine has {seen}: members in the same network can dial it, others only if a router lets them in",
        "`upnp` in settings.json, or a port forwarded at your router and named in `announce` there, lets them in; without, members relay",
    )


def check_upnp(told: Sequence[str], announce: Sequence[str]) -> Finding:
    """Whether the router lets others in, by the addresses that the running node tells (`told`) and those that its user chose."""
    chosen = {_host_of(address) for address in announce}
    opened = [address for address in told if _is_kind(_host_of(address), "public") and _host_of(address) not in chosen]
    if opened:
        return good("upnp", f"the router opened port {opened[0].split('/')[4]} at {_host_of(opened[0])} for this node")
    return note(
        "upnp",
        "the router opened no port for this node that leads in from outside; node.log says why",
        "switch UPnP on at the router, or forward the port by hand; or leave it: members relay",
    )


def find_addresses() -> list[str]:
    """The IP addresses of this machine's interfaces. Raises: ModuleNotFoundError: psutil is not installed."""
    import psutil

    rows = [row for rows in psutil.net_if_addrs().values() for row in rows if row.family in (socket.AF_INET, socket.AF_INET6)]
    addresses = [ipaddress.ip_address(str(row.address).partition("%")[0]) for row in rows]
    return [str(address) for address in addresses if not address.is_link_local]  # nobody is told those


def _host_of(address: str) -> str:
    return address.split("/")[2] if address.count("/") > 1 else address


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _is_kind(host: str, kind: str) -> bool:
    return _is_ip(host) and host not in ("0.0.0.0", "::") and _classify(host) == kind


def _classify(text: str) -> str:
    address = ipaddress.ip_address(text)
    if address.is_loopback or address.is_link_local:
        return "this machine only"
    return "public" if address.is_global else "private"


def check_disk(folder: Path, *, quota_bytes: int = QUOTA_BYTES) -> Finding:
    """Free space where the node writes, and how full its block store is."""
    place = folder
    while not place.exists():
        place = place.parent
    disk = os.statvfs(place)
    free_bytes = disk.f_bavail * disk.f_frsize
    blocks = NodeFolder(folder).blocks
    used_bytes = DiskBlocks(blocks, read_only=True).used_bytes if (blocks / "packs").is_dir() else 0
    seen = f"{free_bytes / 1e9:.1f} GB free at {place}; the block store has {used_bytes / 1e9:.2f} of {quota_bytes / 1e9:.2f} GB"
    try:
        with tempfile.TemporaryFile(dir=place) as file:
            file.write(b"learnae")
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        return care("disk", f"{place} cannot be written to: {why}", "give this user the right to write there, or move the folder")
    if free_bytes < RESERVE_BYTES:
        return care("disk", f"{seen}; below {RESERVE_BYTES / 1e6:.0f} MB no models are stored any more", "free some space")
    if free_bytes < min(FREE_BYTES_MIN, max(RESERVE_BYTES, quota_bytes - used_bytes)):
        return care("disk", f"{seen}; that may not last for a session", "free some space, or move the folder to a larger disk")
    if used_bytes > quota_bytes * 9 // 10:
        return note("disk", f"{seen}; models that nobody pinned go first", "`learnae ipfs ls FOLDER` shows what is there")
    return good("disk", seen)


def check_files() -> Finding:
    """How many files and connections one process may have open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= FILES_MIN:
        return good("files", f"a process may open {'any number of' if soft == resource.RLIM_INFINITY else soft} files and connections")
    more = hard if hard != resource.RLIM_INFINITY else 4096
    remedy = f"run `ulimit -n {min(4096, more)}` before the node" if more >= FILES_MIN else "raise `nofile` in /etc/security/limits.conf"
    return care("files", f"a process may open {soft} files and connections only; a node with all its peers needs {FILES_MIN}", remedy)


def check_device(device: str) -> Finding:
    """Compute something on the device that the node trains on."""
    try:
        from learnae.learning.inline import describe_device

        return good("device", describe_device(device))
    except ModuleNotFoundError as error:
        return skipped("device", f"the Python package {error.name!r} is not installed, {_IMPORT_HINT}")
    except DeviceError as error:
        return care("device", str(error), "change `device` in settings.json, or install the driver and a build of PyTorch for it")
