"""A server of the part of Kubo's RPC API v0 that a node uses, written from its published reference; no Kubo.

As the reference says: POST only, arguments in the query, blocks as multipart files, answers of one JSON object a line, HTTP 500 with a
JSON object for every error of a command. `peers` are other daemons that this one asks when it may (not `offline`).
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from email.parser import BytesParser
from email.policy import HTTP
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from learnae.ids import CODEC_DAG_CBOR, CODEC_DAG_PB, CODEC_RAW, Cid, cid_text, compute_cid, parse_cid

CODECS = {"raw": CODEC_RAW, "dag-pb": CODEC_DAG_PB, "dag-cbor": CODEC_DAG_CBOR}


class CommandError(Exception):
    """A command that fails: HTTP 500 with its text."""


class Daemon:
    """What one daemon holds. `lies`: bytes that it gives instead of a block."""

    def __init__(self) -> None:
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
            case "pin/add" | "pin/rm":
                return self._pin(command, [parse_cid(text) for text in query["arg"]], query)
        raise CommandError(f"no command {command}")

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


def _line(value: object) -> bytes:
    return json.dumps(value).encode() + b"\n"


@contextmanager
def open_daemon() -> Iterator[Daemon]:
    """A daemon on a free port of loopback."""
    daemon = Daemon()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            parts = urlsplit(self.path)
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            try:
                content, status = daemon.run(parts.path.removeprefix("/api/v0/"), parse_qs(parts.query), self._read_files(body)), 200
            except CommandError as error:
                content, status = _line({"Message": str(error), "Code": 0, "Type": "error"}), 500
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

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

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        daemon.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield daemon
        finally:
            server.shutdown()
            thread.join()
