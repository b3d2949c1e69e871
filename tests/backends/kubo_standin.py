"""A server of the part of Kubo's RPC API v0 that a node uses, written from its published reference; no Kubo.

As the reference says: POST only, arguments in the query, blocks as multipart files, answers of one JSON object a line, HTTP 500 with a
JSON object for every error of a command, topics and contents as multibase base64url. `peers` are other daemons: this one asks them for
blocks when it may (not `offline`), and its PubSub reaches them and theirs; `dht` is what all daemons of a test know of providers.
"""

from __future__ import annotations

import base64
import json
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from email.parser import BytesParser
from email.policy import HTTP
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from queue import SimpleQueue
from urllib.parse import parse_qs, urlsplit

from learnae.ids import CODEC_DAG_CBOR, CODEC_DAG_PB, CODEC_RAW, Cid, PeerId, cid_text, compute_cid, parse_cid, peer_text

CODECS = {"raw": CODEC_RAW, "dag-pb": CODEC_DAG_PB, "dag-cbor": CODEC_DAG_CBOR}


class CommandError(Exception):
    """A command that fails: HTTP 500 with its text."""


class Daemon:
    """What one daemon holds. `lies`: bytes that it gives instead of a block."""

    def __init__(self, dht: dict[Cid, list[Daemon]] | None = None) -> None:
        self.peer_id = peer_text(PeerId(secrets.token_bytes(32)))
        self.dht: dict[Cid, list[Daemon]] = {} if dht is None else dht
        self.has_pubsub = True
        self.subscriptions: dict[str, list[SimpleQueue[bytes | None]]] = {}
        self.blocks: dict[Cid, bytes] = {}
        self.direct_pins: set[Cid] = set()
        self.users_pins: set[Cid] = set()  # below a recursive pin of the user's
        self.peers: list[Daemon] = []
        self.lies: dict[Cid, bytes] = {}
        self.calls: list[str] = []
        self.url = ""

    def collect_garbage(self) -> None:
        """`ipfs repo gc`."""
        self.blocks = {cid: block for cid, block in self.blocks.items() if cid in self.direct_pins | self.users_pins}

    def run(self, command: str, query: dict[str, list[str]], files: list[bytes]) -> bytes:
        self.calls.append(command)
        match command:
            case "version":
                return _line({"Version": "0.39.0", "Commit": "", "Repo": "16", "System": "amd64/linux", "Golang": "go1.25"})
            case "block/put":
                if query["mhtype"] != ["sha2-256"]:
                    raise CommandError("another hash")
                return b"".join(self._put(block, CODECS[query["cid-codec"][0]]) for block in files)
            case "block/get":
                return self._get(parse_cid(query["arg"][0]), offline=query.get("offline") == ["true"])
            case "pubsub/ls" | "pubsub/pub" if not self.has_pubsub:
                raise CommandError("experimental pubsub feature not enabled. Run daemon with --enable-pubsub-experiment to use.")
            case "pubsub/ls":
                return _line({"Strings": [_multibase(topic.encode()) for topic in self.subscriptions]})
            case "pubsub/pub":
                self.publish(_read_multibase(query["arg"][0]).decode(), files[0], author=self.peer_id)
                return b""
            case "routing/provide":
                return self._provide(parse_cid(query["arg"][0]))
            case "routing/findprovs":
                found = [{"ID": daemon.peer_id, "Addrs": []} for daemon in self.dht.get(parse_cid(query["arg"][0]), [])]
                asked = _line({"Extra": "", "ID": self.peer_id, "Responses": None, "Type": 0})
                return asked + b"".join(_line({"Extra": "", "ID": "", "Responses": [one], "Type": 4}) for one in found)
            case "swarm/connect":
                return self._connect(query["arg"][0].removeprefix("/p2p/"))
            case "pin/add" | "pin/rm":
                return self._pin(command, [parse_cid(text) for text in query["arg"]], query)
        raise CommandError(f"no command {command}")

    def publish(self, topic: str, content: bytes, *, author: str) -> None:
        """To all daemons that are connected, over others too; this one's own subscriptions get it as well."""
        reached: list[Daemon] = []
        waiting = [self]
        while waiting:
            daemon = waiting.pop()
            if daemon not in reached:
                reached.append(daemon)
                waiting += daemon.peers
        number = _multibase(secrets.token_bytes(8))
        line = _line({"from": author, "data": _multibase(content), "seqno": number, "topicIDs": [_multibase(topic.encode())]})
        for daemon in reached:
            daemon.give(topic, line)

    def give(self, topic: str, line: bytes) -> None:
        for queue in self.subscriptions.get(topic, []):
            queue.put(line)

    def end_subscriptions(self) -> None:
        for queues in self.subscriptions.values():
            for queue in queues:
                queue.put(None)
        self.subscriptions.clear()

    def _provide(self, cid: Cid) -> bytes:
        if cid not in self.blocks:
            raise CommandError(f"block {cid_text(cid)} not found locally, cannot provide")
        self.dht.setdefault(cid, []).append(self)
        return _line({"Extra": "", "ID": self.peer_id, "Responses": None, "Type": 0})

    def _connect(self, peer_id: str) -> bytes:
        others = [daemon for daemons in self.dht.values() for daemon in daemons if daemon.peer_id == peer_id and daemon is not self]
        if not others:
            raise CommandError(f"connect {peer_id} failure: no addresses")
        if others[0] not in self.peers:
            self.peers.append(others[0])
            others[0].peers.append(self)
        return _line({"Strings": [f"connect {peer_id} success"]})

    def _put(self, block: bytes, codec: int) -> bytes:
        cid = compute_cid(block, codec)
        self.blocks[cid] = block
        return _line({"Key": cid_text(cid), "Size": len(block)})

    def _get(self, cid: Cid, *, offline: bool) -> bytes:
        if cid in self.lies:
            return self.lies[cid]
        for daemon in (self, *([] if offline else self.peers)):
            if cid in daemon.blocks:
                self.blocks[cid] = daemon.blocks[cid]
                return daemon.blocks[cid]
        raise CommandError("block was not found locally (offline): ipld: could not find" if offline else "context deadline exceeded")

    def _pin(self, command: str, cids: list[Cid], query: dict[str, list[str]]) -> bytes:
        if query.get("recursive") != ["false"]:
            raise CommandError("a recursive pin would look for the blocks below")
        for cid in cids:
            if cid in self.users_pins:
                raise CommandError(f"{cid_text(cid)} already pinned recursively")
            if cid not in (self.blocks if command == "pin/add" else self.direct_pins):
                raise CommandError("not pinned or pinned indirectly")
        change = self.direct_pins.update if command == "pin/add" else self.direct_pins.difference_update
        change(cids)
        return _line({"Pins": [cid_text(cid) for cid in cids]})


def _multibase(raw: bytes) -> str:
    return "u" + base64.urlsafe_b64encode(raw).decode().rstrip("=")


def _read_multibase(text: str) -> bytes:
    return base64.urlsafe_b64decode(text[1:] + "=" * (-len(text[1:]) % 4))


def _line(value: object) -> bytes:
    return json.dumps(value).encode() + b"\n"


@contextmanager
def open_daemon(dht: dict[Cid, list[Daemon]] | None = None, *, port: int = 0) -> Iterator[Daemon]:
    """A daemon on a free port of loopback, or again on one that was free."""
    daemon = Daemon(dht)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            parts = urlsplit(self.path)
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if parts.path.removeprefix("/api/v0/") == "pubsub/sub" and daemon.has_pubsub:
                self._stream(_read_multibase(parse_qs(parts.query)["arg"][0]).decode())
                return
            try:
                content, status = daemon.run(parts.path.removeprefix("/api/v0/"), parse_qs(parts.query), self._read_files(body)), 200
            except CommandError as error:
                content, status = _line({"Message": str(error), "Code": 0, "Type": "error"}), 500
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def _stream(self, topic: str) -> None:
            queue: SimpleQueue[bytes | None] = SimpleQueue()
            daemon.subscriptions.setdefault(topic, []).append(queue)
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            while (line := queue.get()) is not None:
                self.wfile.write(b"%x\r\n%b\r\n" % (len(line), line))
            self.close_connection = True

        def do_GET(self) -> None:
            self.send_error(405)

        def _read_files(self, body: bytes) -> list[bytes]:
            kind = self.headers.get("Content-Type", "")
            if not kind.startswith("multipart/form-data"):
                return []
            boundary = BytesParser(policy=HTTP).parsebytes(f"Content-Type: {kind}\r\n\r\n".encode()).get_param("boundary")
            parts = body.split(b"--" + str(boundary).encode())[1:-1]
            return [part.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n") for part in parts]

        def log_message(self, format: str, *args: object) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", port), Handler) as server:
        server.daemon_threads = True
        server.handle_error = lambda request, client_address: None  # type: ignore[method-assign]  # a client that left in the middle
        daemon.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield daemon
        finally:
            daemon.end_subscriptions()
            server.shutdown()
            thread.join()
