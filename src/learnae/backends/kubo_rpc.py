"""The few calls of Kubo's RPC API that a node needs: blocks and direct pins of the user's own IPFS daemon, and who else has a block.

Synchronous, because `BlockStore` is; safe to call from worker threads. Answers are bounded; a block's bytes are for the caller to
hash. Source: Kubo RPC API v0 (block, pin, pubsub/ls, routing, swarm/connect, version; the global options `offline` and `timeout`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any, Final
from urllib.parse import urlsplit

import httpx

from learnae.backends.errors import KuboError
from learnae.backends.unixfs import LEAF_BYTES
from learnae.bounded_json import parse_json
from learnae.ids import CODEC_DAG_CBOR, CODEC_DAG_PB, CODEC_RAW, Cid, PeerId, cid_text, parse_peer, peer_text

DEFAULT_URL: Final = "http://127.0.0.1:5001"
API_PATH: Final = "/api/v0/"
PUT_BYTES_MAX: Final = 8 << 20  # In one request: 32 leaves.
_PUT_BLOCKS: Final = 64
_CIDS: Final = 50  # In one address: 3 kB, below what HTTP servers take.
_ANSWER_BYTES_MAX: Final = 1 << 20
_LOCAL_S: Final = 10.0  # The node waits meanwhile: a healthy daemon answers in milliseconds, one that collects garbage in seconds.
_SEARCH_S: Final = 60.0  # For the DHT: a record is put to twenty nodes, some of which do not answer.
_DIAL_S: Final = 15.0
_PROVIDER: Final = 4  # The kind of a line of routing/findprovs that names providers.
_ALONE: Final = ("recursive", "false")
_CODECS: Final = {CODEC_RAW: "raw", CODEC_DAG_PB: "dag-pb", CODEC_DAG_CBOR: "dag-cbor"}


class KuboRpc:
    """One daemon. Raises (all calls): KuboError: it does not answer, or refuses."""

    def __init__(self, url: str = DEFAULT_URL) -> None:
        parts = urlsplit(url)
        self.name = f"{parts.scheme}://{parts.hostname}" + (f":{parts.port}" if parts.port else "")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise KuboError(url[:80], "it is not an http:// or https:// address")
        self.url = url
        self._client = httpx.Client(base_url=url.rstrip("/") + API_PATH, timeout=httpx.Timeout(_LOCAL_S, connect=5.0), trust_env=False)

    def close(self) -> None:
        self._client.close()

    def read_version(self) -> str:
        answer = self._read_lines(self._call("version", ()))
        version = answer[0].get("Version") if answer else None
        if not isinstance(version, str):
            raise KuboError(self.name, "something else than Kubo answers there")
        return version[:40]

    def has_pubsub(self) -> bool:
        """Whether the daemon runs with PubSub, which is an option of it."""
        return self._call("pubsub/ls", (), may_fail=True) is not None

    def provide(self, cid: Cid) -> None:
        """Say in the DHT that this daemon has a block. Nothing, if nobody can be told: the daemon says it again by itself."""
        how = (("arg", cid_text(cid)), ("recursive", "false"), ("timeout", f"{_SEARCH_S:g}s"))
        self._call("routing/provide", how, may_fail=True, more_s=_SEARCH_S)

    def find_providers(self, cid: Cid, *, count: int) -> list[PeerId]:
        """Daemons that say in the DHT that they have a block, at most `count`; those with an Ed25519 key."""
        how = (("arg", cid_text(cid)), ("num-providers", str(count)), ("timeout", f"{_SEARCH_S:g}s"))
        found: dict[PeerId, None] = {}
        for line in self._read_lines(self._call("routing/findprovs", how, may_fail=True, more_s=_SEARCH_S)):
            answers = line.get("Responses")
            for answer in answers if line.get("Type") == _PROVIDER and isinstance(answers, list) else ():
                with suppress(ValueError):
                    found[parse_peer(str(answer.get("ID") if isinstance(answer, dict) else ""))] = None
        return list(found)[:count]

    def connect_peer(self, peer: PeerId) -> bool:
        """Let the daemon connect to another, which it finds by its DHT; whether it has."""
        how = (("arg", f"/p2p/{peer_text(peer)}"), ("timeout", f"{_DIAL_S:g}s"))
        return self._call("swarm/connect", how, may_fail=True, more_s=_DIAL_S) is not None

    def put_blocks(self, blocks: Sequence[tuple[Cid, bytes]]) -> None:
        """Store blocks and pin each by itself, so that the daemon's garbage collection leaves them alone."""
        for codec, name in _CODECS.items():
            for batch in _split([entry for entry in blocks if entry[0][1] == codec]):
                files = [("data", ("block", block)) for _, block in batch]
                told = self._read_lines(self._call("block/put", (("cid-codec", name), ("mhtype", "sha2-256")), files=files))
                if [line.get("Key") for line in told] != [cid_text(cid) for cid, _ in batch]:
                    raise KuboError(self.name, "it stored blocks under other CIDs than theirs")
        for group in _group([cid for cid, _ in blocks]):
            if self._call("pin/add", (*(("arg", cid_text(cid)) for cid in group), _ALONE), may_fail=True) is None:
                for cid in group:  # One of them is below a pin of the user's: that keeps it as well.
                    self._call("pin/add", (("arg", cid_text(cid)), _ALONE), may_fail=True)

    def get_block(self, cid: Cid, *, search_s: float = 0.0) -> bytes | None:
        """The bytes of a block, not verified; None if it is not there. With `search_s` the daemon asks its network for so long."""
        how = (("timeout", f"{search_s:g}s"),) if search_s else (("offline", "true"),)
        return self._call("block/get", (("arg", cid_text(cid)), *how), bytes_max=LEAF_BYTES, may_fail=True, more_s=search_s)

    def unpin_blocks(self, cids: Iterable[Cid]) -> None:
        """Let the daemon's garbage collection have them. They are not removed here: files of the user's may share them."""
        for cid in cids:
            self._call("pin/rm", (("arg", cid_text(cid)), _ALONE), may_fail=True)

    def _call(
        self,
        command: str,
        params: Sequence[tuple[str, str]],
        *,
        files: Any = None,
        bytes_max: int = _ANSWER_BYTES_MAX,
        may_fail: bool = False,
        more_s: float = 0.0,
    ) -> bytes | None:
        """One command. None: the daemon says that it cannot, and `may_fail`."""
        timeout = httpx.Timeout(_LOCAL_S + more_s, connect=5.0)
        try:
            with self._client.stream("POST", command, params=list(params), files=files, timeout=timeout) as answer:
                body = bytearray()
                for chunk in answer.iter_bytes():
                    body += chunk
                    if len(body) > bytes_max:
                        if may_fail:
                            return None
                        raise KuboError(self.name, f"its answer to {command} is larger than {bytes_max} bytes")
                status = answer.status_code
        except (httpx.TransportError, httpx.DecodingError) as error:
            raise KuboError(self.name, f"it does not answer ({str(error) or type(error).__name__})") from error
        if status == 200:
            return bytes(body)
        if status == 500 and may_fail:  # Kubo's status for every error of a command.
            return None
        raise KuboError(self.name, f"it refused {command} (HTTP {status}: {bytes(body[:200]).decode(errors='replace').strip()})")

    def _read_lines(self, body: bytes | None) -> list[dict[str, Any]]:
        try:
            lines = [parse_json(line) for line in (body or b"").splitlines() if line.strip()]
        except ValueError as error:
            raise KuboError(self.name, "something else than Kubo answers there") from error
        if not all(isinstance(line, dict) for line in lines):
            raise KuboError(self.name, "something else than Kubo answers there")
        return lines


def _group(cids: Sequence[Cid]) -> Iterable[Sequence[Cid]]:
    return (cids[first : first + _CIDS] for first in range(0, len(cids), _CIDS))


def _split(blocks: Sequence[tuple[Cid, bytes]]) -> Iterable[list[tuple[Cid, bytes]]]:
    batch: list[tuple[Cid, bytes]] = []
    size_bytes = 0
    for cid, block in blocks:
        if batch and (size_bytes + len(block) > PUT_BYTES_MAX or len(batch) == _PUT_BLOCKS):
            yield batch
            batch, size_bytes = [], 0
        batch.append((cid, block))
        size_bytes += len(block)
    if batch:
        yield batch
