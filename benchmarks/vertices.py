"""Vertices created and verified a second on one core, against bare PyNaCl on messages of the same length in the same run."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

from nacl.signing import SigningKey

from benchmarks import Result
from learnae.ids import CODEC_DAG_CBOR, PeerId, compute_cid
from learnae.protocol.messages import Kind, ModelAnnounced, Origin
from learnae.protocol.validation import ControlCodec
from learnae.tangle.vertex import Vertex, compute_genesis, create_vertex

COUNT = 1000
ROUNDS = 5


def run() -> list[Result]:
    key = SigningKey(bytes(range(32)))
    issuer = PeerId(bytes(key.verify_key))
    net, codec = b"benchmrk", ControlCodec()
    cid = compute_cid(b"model")
    body = ModelAnnounced(
        model=cid, size_bytes=400_000, correct=900, total=1000, maturity_cycles=7, examples=700, origin=Origin.AVERAGED, parents=(cid, cid)
    ).to_body()
    parents = (compute_genesis(net), *(compute_cid(bytes([n]), CODEC_DAG_CBOR) for n in range(3)))

    def create(number: int) -> Vertex:
        return create_vertex(
            net=net,
            parents=parents,
            issuer=issuer,
            sequence=number + 1,
            time_ms=number,
            kind=int(Kind.MODEL_ANNOUNCED),
            body=body,
            sign=lambda message: key.sign(message).signature,
        )

    encoded = [create(number).encoded for number in range(COUNT)]
    signed = [key.sign(content) for content in encoded]
    lane_verify = key.verify_key.verify

    def judge(number: int) -> None:
        vertex = codec.decode(encoded[number])
        assert isinstance(vertex, Vertex) and codec.verify(vertex) and codec.parse(vertex) is not None

    def bare_sign(number: int) -> None:
        key.sign(encoded[number])

    def bare_verify(number: int) -> None:
        lane_verify(signed[number])

    rates = measure(create, bare_sign, judge, bare_verify)
    size = len(encoded[0])
    return [
        Result(case=f"create a vertex of {size} bytes", value=rates[0], unit="1/s", reference="bare sign", reference_value=rates[1]),
        Result(case="decode, verify and parse it", value=rates[2], unit="1/s", reference="bare verify", reference_value=rates[3]),
    ]


def measure(*works: Callable[[int], object]) -> list[float]:
    """Calls a second of each work, the median of rounds in turn."""
    rates: list[list[float]] = [[] for _ in works]
    for _ in range(ROUNDS):
        for work, found in zip(works, rates, strict=True):
            began_s = time.perf_counter()
            for number in range(COUNT):
                work(number)
            found.append(COUNT / (time.perf_counter() - began_s))
    return [statistics.median(found) for found in rates]
