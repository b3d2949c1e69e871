"""`learnae doctor`: all checks in the order in which a user can put things right, each told as soon as it is known."""

from __future__ import annotations

import argparse
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict
from pathlib import Path

from learnae.cli.doctor import machine, towards
from learnae.cli.doctor.findings import Finding, care, count_care, format_finding, format_summary, skipped
from learnae.cli.doctor.reach import check_reach, check_ways
from learnae.cli.folder import NodeFolder, NodeSettings
from learnae.cli.signals import run_interruptible
from learnae.errors import FolderError, JournalDamagedError, KeystoreError, LearnaeError


def run_doctor(options: argparse.Namespace) -> int:
    """Exit status 0: nothing needs care."""
    findings: list[Finding] = []

    async def run() -> None:
        checks = look_at_machine() if not options.folder else look_at_node(NodeFolder(Path(options.folder)))
        async for finding in checks:
            findings.append(finding)
            if not options.json:
                print(format_finding(finding), flush=True)

    run_interruptible(run)
    if options.json:
        print(json.dumps({"care": count_care(findings), "findings": [asdict(finding) for finding in findings]}, indent=1))
    else:
        print(format_summary(findings))
    return 1 if count_care(findings) else 0


async def look_at_machine(device: str = "auto") -> AsyncIterator[Finding]:
    """What does not depend on a session."""
    yield machine.check_files()
    yield machine.check_disk(Path.cwd())
    yield _check_addresses((), ())
    yield machine.check_device(device)


async def look_at_node(folder: NodeFolder) -> AsyncIterator[Finding]:
    """A node's folder and everything that it needs."""
    try:
        ticket, settings = folder.read_ticket(), folder.read_settings()
    except LearnaeError as error:
        yield care("folder", str(error), "name the folder of a node, or call `learnae doctor` without one to look at the machine alone")
        async for finding in look_at_machine():
            yield finding
        return
    running = machine.is_running(folder)
    yield machine.check_keystore(folder)
    yield machine.check_files()
    yield machine.check_disk(folder.path)
    for finding in machine.check_listen(settings.listen, running=running):
        yield finding
    told = _read_told(folder) if running else settings.announce
    direct = [address for address in told if "/p2p-circuit/" not in address]
    yield _check_addresses(settings.listen, direct or settings.announce)
    if settings.upnp and running:
        yield machine.check_upnp(direct, settings.announce)
    me = _read_peer_id(folder)
    own = _find_own(settings.listen, me) if running else ""
    if own:
        yield await towards.check_own(own)
    if settings.daemon_url:
        yield towards.check_kubo(settings.daemon_url)
    endpoints = {"chain": settings.rpc, "chain 2": settings.rpc_second}
    for label, url in endpoints.items():
        if url:
            for finding in await towards.check_chain(url, chain_id=ticket.rules.chain_id, fee_cap_wei=settings.fee_cap_wei, label=label):
                yield finding
    for finding in await towards.check_peers(folder, me=me):
        yield finding
    ways = _check_ways(folder) if running else None
    if ways is not None:
        yield ways
    reach = await _check_reach(folder, settings, me=me, running=running, told=told)
    if reach is not None:
        yield reach
    if settings.task:
        yield machine.check_device(settings.device)


async def _check_reach(folder: NodeFolder, settings: NodeSettings, *, me: str, running: bool, told: Sequence[str]) -> Finding | None:
    try:
        members = towards.find_members(folder, me=me)
    except (FolderError, JournalDamagedError):
        return None  # told by other checks
    return await check_reach(members, settings.listen, me=me, running=running, told=told, upnp=settings.upnp)


def _check_ways(folder: NodeFolder) -> Finding | None:
    try:
        return check_ways(folder.read_status())
    except FolderError:
        return None  # it has only just started


def _read_told(folder: NodeFolder) -> tuple[str, ...]:
    """Where the running node says that it can be dialled, the ways through relays too."""
    try:
        return tuple(map(str, folder.read_status().get("addresses", [])))
    except FolderError:
        return ()  # it has only just started


def _check_addresses(listen: Sequence[str], announce: Sequence[str]) -> Finding:
    try:
        return machine.check_addresses(listen, announce, machine.find_addresses())
    except ModuleNotFoundError as error:
        return skipped("addresses", f"the Python package {error.name!r} is not installed, so they were not looked at; install learnae[net]")


def _read_peer_id(folder: NodeFolder) -> str:
    """This node's peer id, from its keystore or its last status; empty if neither can be read."""
    try:
        from learnae.backends.keystore import describe_keystore

        return str(describe_keystore(folder.keystore)["peer_id"])
    except (KeystoreError, ModuleNotFoundError):
        pass  # told by its own check
    try:
        return str(folder.read_status().get("peer_id", ""))
    except FolderError:
        return ""


def _find_own(listen: tuple[str, ...], me: str) -> str:
    """Where the running node can be dialled from here."""
    for address in listen:
        if me and not address.endswith("/tcp/0"):
            return f"{address.replace('/0.0.0.0/', '/127.0.0.1/').replace('/ip6/::/', '/ip6/::1/')}/p2p/{me}"
    return ""
