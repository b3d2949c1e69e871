"""`learnae doctor`: every message by the condition that it is about."""

from __future__ import annotations

import json
import resource
import shutil
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import trio

from learnae.backends.chain_server import ServerOptions, serve_chain
from learnae.backends.disk_blocks import RESERVE_BYTES, DiskBlocks
from learnae.backends.disk_journal import DiskJournal
from learnae.backends.libp2p import Libp2pNetwork, open_libp2p_network
from learnae.backends.libp2p_probe import probe_addresses
from learnae.backends.memory_blocks import MemoryBlocks
from learnae.cli import main
from learnae.cli.doctor import machine, towards
from learnae.cli.doctor.findings import Finding, State, format_finding, format_summary
from learnae.cli.folder import NodeFolder
from learnae.ids import PeerId, peer_text
from learnae.protocol.messages import Joined
from tests.backends.kubo_standin import open_daemon
from tests.cli.conftest import World, start
from tests.protocol.builders import Author, make_key

GWEI = 10**9
CAP = 200 * GWEI


def tell(finding: Finding, state: State, text: str, remedy: str = "") -> None:
    assert finding.state is state, finding
    assert text in finding.text, finding
    assert remedy in finding.remedy, finding
    assert (finding.state is State.CARE) <= bool(finding.remedy), "who needs care is told what to do"


@pytest.fixture
def node(world: World, tmp_path: Path) -> Path:
    """A copy of the founder's folder, whose node does not run."""
    folder = tmp_path / "me"
    shutil.copytree(world.root / "founder", folder)
    return folder


# --- the machine ------------------------------------------------------------------------------------------------


@pytest.fixture
def few_files() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_files__too_few(few_files: None) -> None:
    tell(machine.check_files(), State.CARE, "may open 256 files and connections only", "ulimit -n")


def test_files__enough() -> None:
    tell(machine.check_files(), State.GOOD, "files and connections")


def test_disk__states(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Free space, quota, and a place where nothing can be written."""
    tell(machine.check_disk(tmp_path / "not" / "yet"), State.GOOD, f"GB free at {tmp_path}")
    DiskBlocks(tmp_path / "blocks", reserve_bytes=0).put_file(bytes(950_000))
    tell(machine.check_disk(tmp_path, quota_bytes=1_000_000), State.NOTE, "models that nobody pinned go first", "learnae ipfs ls")
    (tmp_path / "file").write_text("no folder")
    tell(machine.check_disk(tmp_path / "file"), State.CARE, "cannot be written to", "give this user the right")
    free_bytes = shutil.disk_usage(tmp_path).free
    monkeypatch.setattr(machine, "FREE_BYTES_MIN", free_bytes * 2)
    tell(machine.check_disk(tmp_path, quota_bytes=free_bytes * 4), State.CARE, "may not last for a session", "larger disk")
    monkeypatch.setattr(machine, "RESERVE_BYTES", free_bytes * 2)
    tell(machine.check_disk(tmp_path), State.CARE, "no models are stored any more", "free some space")
    assert free_bytes > RESERVE_BYTES


def test_keystore__states(world: World, tmp_path: Path) -> None:
    folder = NodeFolder(tmp_path)
    tell(machine.check_keystore(folder), State.CARE, "No such file", "restore it from a backup")
    shutil.copy(world.rich / "keystore.json", folder.keystore)
    folder.keystore.chmod(0o600)
    tell(machine.check_keystore(folder), State.GOOD, "only its owner reads")
    folder.keystore.chmod(0o644)
    tell(machine.check_keystore(folder), State.CARE, "others may read it (mode 644); run `chmod 600")
    folder.keystore.write_text("{}")
    folder.keystore.chmod(0o600)
    tell(machine.check_keystore(folder), State.CARE, "cannot be used")


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen(1)
        yield holder.getsockname()[1]


def test_listen__states(taken_port: int) -> None:
    here = f"/ip4/127.0.0.1/tcp/{taken_port}"
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        free = f"/ip4/127.0.0.1/tcp/{other.getsockname()[1]}"
    for address, running, state, text, remedy in (
        (free, False, State.GOOD, "is free", ""),
        (free, True, State.CARE, "the node runs, but nothing listens", "node.log"),
        (here, True, State.GOOD, "is in use, as it should be", ""),
        (here, False, State.CARE, "address already in use", "stop the program that uses it"),
        ("/ip4/203.0.113.1/tcp/4001", False, State.CARE, "cannot assign requested address", "no address of this machine"),
        ("/ip4/0.0.0.0/tcp/0", False, State.NOTE, "another port at each start", "fixed port"),
        ("/ip4/0.0.0.0/udp/4001", False, State.CARE, "is no place to listen", "/ip4/0.0.0.0/tcp/4001"),
        ("/ip4/example/tcp/4001", False, State.CARE, "is no place to listen", "settings.json"),
        ("nonsense", False, State.CARE, "is no place to listen", "settings.json"),
    ):
        (finding,) = machine.check_listen([address], running=running)
        tell(finding, state, text, remedy)
    (finding,) = machine.check_listen([], running=False)
    tell(finding, State.NOTE, "listens nowhere", "--listen")


def test_addresses__states() -> None:
    all_of_them = ["/ip4/0.0.0.0/tcp/4001"]
    check = machine.check_addresses
    tell(check(all_of_them, [], ["127.0.0.1", "::1"]), State.CARE, "no network (this machine only: 127.0.0.1, ::1)", "connect it")
    tell(check(all_of_them, [], ["127.0.0.1", "192.168.1.7"]), State.NOTE, "private: 192.168.1.7", "a port forwarded at your router")
    tell(check(all_of_them, [], ["127.0.0.1", "100.64.0.9"]), State.NOTE, "private: 100.64.0.9", "forward")
    tell(check(all_of_them, [], ["127.0.0.1", "8.8.4.4"]), State.GOOD, "public: 8.8.4.4")
    tell(check(all_of_them, ["/ip4/8.8.4.4/tcp/1"], ["192.168.1.7"]), State.GOOD, "others are told 8.8.4.4")
    tell(check(all_of_them, ["/dns4/me.example/tcp/1"], ["192.168.1.7"]), State.GOOD, "others are told me.example")
    finding = check(["/ip4/127.0.0.1/tcp/1"], [], ["127.0.0.1", "8.8.4.4"])
    tell(finding, State.CARE, "which only this machine can dial", "/ip4/0.0.0.0/tcp/PORT")
    assert "127.0.0.1" in machine.find_addresses()
    assert not any(address.startswith("fe80") for address in machine.find_addresses())


def test_device__states() -> None:
    """PyTorch itself is asked, and made to compute."""
    tell(machine.check_device("cpu"), State.GOOD, "models are trained on the CPU (PyTorch")
    tell(machine.check_device("cuda:63"), State.CARE, "cannot train on device 'cuda:63'", "change `device`")
    tell(machine.check_device("abacus"), State.CARE, "there is no device of that name", "settings.json")


# --- towards the others -----------------------------------------------------------------------------------------


@asynccontextmanager
async def open_peer(number: int) -> AsyncIterator[Libp2pNetwork]:
    async with open_libp2p_network(seed=bytes([number]) * 32, listen=["/ip4/127.0.0.1/tcp/0"], blocks=MemoryBlocks()) as network:
        yield network


def test_upnp__is_told_from_what_the_running_node_tells_others() -> None:
    """Seen with a real router: doctor said that the port must be forwarded by hand, although the router had opened it."""
    end = "/p2p/12D3KooWJzENDcYyqhw9jGbmNoU42fhZ6y6ctFKNPWnsaLuscK5U"
    own = ["/ip4/192.168.1.15/tcp/4001", "/ip4/9.9.9.9/tcp/4001"]
    opened = machine.check_upnp([f"/ip4/8.8.4.4/tcp/4002{end}", *(address + end for address in own)], own)
    tell(opened, State.GOOD, "the router opened port 4002 at 8.8.4.4 for this node")
    tell(machine.check_upnp([address + end for address in own], own), State.NOTE, "opened no port", "members relay")
    tell(machine.check_upnp([], []), State.NOTE, "node.log says why")


def set_addresses(folder: Path, addresses: Sequence[str]) -> None:
    ticket = NodeFolder(folder).read_ticket()
    (folder / "ticket.txt").write_text(replace(ticket, addresses=tuple(addresses)).to_text())


def test_probe__tells_who_answers() -> None:
    """A handshake, not a port that is open: another peer at the address does not count."""

    async def run() -> None:
        async with open_peer(1) as one:
            address = one.addresses[0]
            foreign = address.rpartition("/")[0] + "/" + peer_text(PeerId(bytes(32)))
            closed = address.replace(address.split("/")[4], "1", 1)
            faults = await probe_addresses([address, foreign, closed, "nonsense"])
            assert faults[address] == ""
            assert "another peer answers there" in faults[foreign]
            assert "connection refused" in faults[closed]
            assert "is not an address" in faults["nonsense"]
            with trio.fail_after(5):
                while one.connected():
                    await one.events.receive()

    trio.run(run)


def test_peers__of_ticket_and_journal_are_dialled(node: Path) -> None:
    """Members say where they are (4.4); the newest word counts, also while the node runs and holds its folder."""
    author = Author("alice")
    me = peer_text(PeerId(bytes(range(32))))

    async def run() -> None:
        check = partial(towards.check_peers, NodeFolder(node), me=me)
        set_addresses(node, [f"/ip4/127.0.0.1/tcp/1/p2p/{me}"])
        tell((await check())[0], State.NOTE, "no other member's address is known yet", "give the ticket to the others")
        async with open_peer(7) as one, open_libp2p_network(
            seed=bytes(make_key("alice")), listen=["/ip4/127.0.0.1/tcp/0"], blocks=MemoryBlocks()
        ) as alice:
            set_addresses(node, one.addresses)
            tell((await check())[0], State.GOOD, "1 of 1 other members answer")
            journal = DiskJournal(node)
            try:
                closed = f"/ip4/127.0.0.1/tcp/1/p2p/{peer_text(alice.peer_id)}"
                gone = author.write(Joined(poid=bytes(20), addresses=(closed, one.addresses[0])))
                journal.append([(gone.cid, gone.encoded)])
                tell((await check())[0], State.NOTE, "1 of 2 other members answer", "nobody waits for them")
                moved = author.write(Joined(poid=bytes(20), addresses=alice.addresses))
                journal.append([(moved.cid, moved.encoded)])
                tell((await check())[0], State.GOOD, "2 of 2 other members answer")
            finally:
                journal.close()
        tell((await check())[0], State.CARE, "0 of 2 other members answer; ", "firewall")

    trio.run(run)


def test_peers__damaged_journal_is_told(node: Path) -> None:
    (node / "journal.sqlite").write_bytes(b"this is no database" * 100)
    (finding,) = trio.run(partial(towards.check_peers, NodeFolder(node), me=""))
    tell(finding, State.CARE, "cannot be used", "restore journal.sqlite")


def test_own__answers_or_not() -> None:
    async def run() -> None:
        async with open_peer(3) as one:
            address = one.addresses[0]
            tell(await towards.check_own(address), State.GOOD, "this folder's node answers")
        tell(await towards.check_own(address), State.CARE, "runs and does not answer", "node.log")

    trio.run(run)


def run_chain(check: Callable[[str], object], *, clock: Callable[[], float] = time.time) -> None:
    async def run() -> None:
        async with trio.open_nursery() as nursery:
            url = await nursery.start(partial(serve_chain, options=ServerOptions(clock=clock)))
            await check(url)  # type: ignore[misc]
            nursery.cancel_scope.cancel()

    trio.run(run)


def test_chain__states() -> None:
    async def check(url: str) -> None:
        found, clock = await towards.check_chain(url, chain_id=1337, fee_cap_wei=CAP)
        tell(found, State.GOOD, f"{url} serves chain 1337, block ")
        tell(clock, State.GOOD, "s old by this machine's clock")
        found, _ = await towards.check_chain(url, chain_id=1, fee_cap_wei=CAP)
        tell(found, State.CARE, "but the session is on chain 1", "an endpoint of that chain")
        found, _ = await towards.check_chain(url, chain_id=1337, fee_cap_wei=1)
        tell(found, State.CARE, "above this node's cap of 1e-09 gwei", "fee_cap_wei")

    run_chain(check)


@pytest.mark.parametrize(("ahead_s", "text"), [(3600.0, "so the clock is slow"), (-3600.0, "has stopped following its chain")])
def test_clock__against_the_newest_block(ahead_s: float, text: str) -> None:
    """A chain whose clock is an hour off stands for a machine whose clock is an hour off the other way."""

    async def check(url: str) -> None:
        _, clock = await towards.check_chain(url, chain_id=1337, fee_cap_wei=CAP)
        tell(clock, State.CARE, text)

    run_chain(check, clock=lambda: time.time() + ahead_s)


def test_chain__nobody_answers_or_not_ethereum(taken_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A port that takes the connection and says nothing, one that is closed, an address that is none."""
    monkeypatch.setattr(towards, "ANSWER_S", 0.2)
    ask = partial(towards.check_chain, chain_id=1337, fee_cap_wei=CAP)
    (finding,) = trio.run(partial(ask, f"http://127.0.0.1:{taken_port}"))
    tell(finding, State.CARE, "gave no answer within", "another --rpc")
    monkeypatch.setattr(towards, "ANSWER_S", 5.0)
    (finding,) = trio.run(partial(ask, "http://127.0.0.1:1"))
    tell(finding, State.CARE, "does not answer", "`rpc` of settings.json")
    (finding,) = trio.run(partial(ask, "ftp://127.0.0.1"))
    tell(finding, State.CARE, "it is not an http:// or https:// address")

    async def speak_otherwise(stream: trio.SocketStream) -> None:
        await stream.receive_some(65536)
        await stream.send_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhello")

    async def run() -> None:
        async with trio.open_nursery() as nursery:
            listeners = await nursery.start(trio.serve_tcp, speak_otherwise, 0)
            (finding,) = await ask(f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}")
            tell(finding, State.CARE, "no usable answer to eth_chainId: it is not JSON", "another endpoint")
            nursery.cancel_scope.cancel()

    trio.run(run)


def test_ipfs_daemon__answers_or_not() -> None:
    with open_daemon() as daemon:
        tell(towards.check_kubo(daemon.url), State.GOOD, f"the IPFS daemon at {daemon.url} answers: Kubo 0.39.0, with PubSub")
        daemon.has_pubsub = False
        tell(towards.check_kubo(daemon.url), State.CARE, "Kubo 0.39.0, without PubSub", "--enable-pubsub-experiment")
    tell(towards.check_kubo(daemon.url), State.CARE, "it does not answer", '"backend": "libp2p"')


# --- the command ------------------------------------------------------------------------------------------------


def test_doctor__healthy_node(node: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit status 0 if nothing needs care; everything was looked at."""
    status = main(["doctor", str(node), "--json"])
    answer = json.loads(capsys.readouterr().out)
    found = {finding["check"]: finding["state"] for finding in answer["findings"]}

    assert found.keys() == {"keystore", "files", "disk", "listen", "addresses", "chain", "clock", "peers", "device"}
    hurt = {check for check, state in found.items() if state == "care"} - {"addresses"}  # the fixture listens on loopback
    assert hurt == set(), answer
    assert status == (1 if answer["care"] else 0)


def test_doctor__sick_node_says_what_to_do(node: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = json.loads((node / "settings.json").read_text())
    (node / "settings.json").write_text(json.dumps(settings | {"rpc": "http://127.0.0.1:1", "task": "", "device": "cuda:99"}))
    (node / "keystore.json").chmod(0o640)
    assert main(["doctor", str(node)]) == 1
    out = capsys.readouterr().out
    assert "care     keystore   " in out and "chmod 600" in out
    assert "care     chain      " in out and "to do: put another endpoint" in out
    assert "device" not in out, "a member that only votes needs none"
    assert "things need care" in out.splitlines()[-1]


def test_doctor__folder_without_a_node_still_looks_at_the_machine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", str(tmp_path / "nowhere")]) == 1
    out = capsys.readouterr().out
    assert out.startswith("care     folder ") and "there is no ticket.txt" in " ".join(out.split())
    assert "files and connections" in out


def test_doctor__without_what_the_extras_bring(node: Path, tmp_path: Path) -> None:
    """Where PyTorch, libp2p and the chain's libraries are not installed it says so and looks at the rest."""
    shadows = tmp_path / "shadows"
    shadows.mkdir()
    for name in ("torch", "libp2p", "httpx", "psutil", "eth_account"):
        (shadows / f"{name}.py").write_text(f"raise ModuleNotFoundError('no module', name={name!r})\n")
    set_addresses(node, [f"/ip4/127.0.0.1/tcp/1/p2p/{peer_text(PeerId(bytes(32)))}"])
    process = start(["doctor", str(node), "--json"], shadows=shadows)
    out, error = process.communicate(timeout=60)
    answer = json.loads(out)
    skipped = {finding["check"]: finding["text"] for finding in answer["findings"] if finding["state"] == "skipped"}

    assert (process.returncode, error) == (0, "")
    assert skipped.keys() == {"keystore", "addresses", "chain", "peers", "reach", "device"}
    assert all("is not installed" in text for text in skipped.values())


def test_finding__is_wrapped_under_its_check() -> None:
    text = format_finding(Finding("chain", State.CARE, "word " * 40, "do this"))
    assert all(len(line) <= 100 for line in text.splitlines())
    assert text.splitlines()[-1].strip() == "to do: do this"
    assert text.splitlines()[1].startswith(" " * 20)
    assert format_summary([Finding("a", State.NOTE, "")]) == "all is well"
    assert format_summary([Finding("a", State.CARE, "")]) == "1 thing needs care"
