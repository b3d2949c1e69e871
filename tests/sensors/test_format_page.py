"""docs/sensor-format.md: who follows the page makes the bytes of its vectors. The steps are done here by hand, as the page says them."""

from __future__ import annotations

import hashlib
import hmac
import json
from pathlib import Path
from typing import Any

import pytest
from nacl.bindings import crypto_aead_chacha20poly1305_ietf_encrypt, crypto_sign, crypto_sign_seed_keypair

from learnae.ids import cid_text
from learnae.sensors.judge import SensorCodec
from learnae.sensors.messages import ChannelMessages, SensorHead
from learnae.sensors.readings import Batch, Reading, SensorField, decode_readings
from learnae.tangle import cbor
from learnae.tangle.channel import ChannelReader, Opening, parse_message
from learnae.tangle.vertex import Vertex, compute_genesis
from tests.sensors.builders import make_lane

DOCS = Path(__file__).parents[2] / "docs"
VECTORS: dict[str, Any] = json.loads((DOCS / "sensor-vectors.json").read_text(encoding="utf-8"))


def unhex(name: str, part: str) -> bytes:
    return bytes.fromhex(VECTORS[part][name])


def sign(seed: str, content: bytes) -> bytes:
    signature: bytes = crypto_sign(content, crypto_sign_seed_keypair(bytes.fromhex(seed))[1])[:64]
    return signature


def varint(number: int) -> bytes:
    return bytes([number]) if number < 128 else bytes([number & 127 | 128]) + varint(number >> 7)


def zigzag(number: int) -> bytes:
    return varint(2 * number if number >= 0 else -2 * number - 1)


def test_ratchet_and_admission__are_as_the_page_says() -> None:
    k1 = unhex("k1", "ratchet")
    assert hmac.digest(k1, b"next", "sha256") == unhex("k2", "ratchet")
    assert hmac.digest(k1, b"msg", "sha256") == unhex("mk1", "ratchet")
    assert hmac.digest(k1, b"addr", "sha256") == unhex("address1_private", "ratchet")
    numbers = b"".join(VECTORS["admission"][name].to_bytes(8, "big") for name in ("rate_per_s", "channels_max", "from_ms"))
    signed = b"learnae sensor admission 1\n" + bytes.fromhex(VECTORS["net"]) + unhex("issuer", "keys") + numbers
    assert sign(VECTORS["keys"]["member_seed"], signed) == unhex("signature", "admission")
    assert hashlib.sha256(b"learnae codename\ngarden").hexdigest()[:32] == VECTORS["tag"]
    assert hashlib.sha256(unhex("channel_key", "keys")).hexdigest()[:32] == VECTORS["keys"]["channel"]


def test_readings__are_written_as_the_page_says() -> None:
    page = VECTORS["readings"]
    body = bytes([2]) + varint(3) + varint(1_795_000_000_000)
    body += zigzag(0) + varint(0 * 4 + 1) + zigzag(2150)
    body += zigzag(250) + varint(1 * 4 + 2 + 1) + zigzag(-400) + zigzag(3)
    body += zigzag(0) + varint(0) + bytes.fromhex("fca9f1d24d62503f")
    assert body.hex() == page["body"]
    assert (b"\1" + body[1:]).hex() == page["body_not_beginning"]
    fields = [SensorField(*field) for field in page["fields"]]
    assert decode_readings(body, fields) == Batch(tuple(Reading(*reading) for reading in page["readings"]), begins=True)


@pytest.mark.parametrize("number", range(6))
def test_message__is_made_as_the_page_says(number: int) -> None:
    page = VECTORS["messages"][number]
    key = unhex("k1" if page["sequence"] == 1 else "k2", "ratchet")
    body = bytes.fromhex(VECTORS["readings"]["body" if page["sequence"] == 1 else "body_not_beginning"])
    address = key if page["mode"] == 0 else hmac.digest(key, b"addr", "sha256")
    previous = bytes(16) if page["sequence"] == 1 else bytes.fromhex(VECTORS["messages"][number - 1]["hash"])
    message_key = hmac.digest(key, b"msg" + bytes.fromhex(page["side_key"]), "sha256")
    covered = cbor.encode([1, page["mode"], address, page["sequence"], previous])
    nonce = hmac.digest(message_key, covered + body, "sha256")[:12]
    sealed = crypto_aead_chacha20poly1305_ietf_encrypt(body, covered, nonce, message_key)
    signature = sign(VECTORS["keys"]["channel_seed"], b"learnae channel 1\n" + covered + nonce + sealed)

    made = {"address": address, "previous": previous, "nonce": nonce, "ciphertext": sealed, "signature": signature}
    assert {name: content.hex() for name, content in made.items()} == {name: page[name] for name in made}
    assert hashlib.sha256(covered + nonce + sealed + signature).hexdigest()[:32] == page["hash"]
    parsed = parse_message([1, page["mode"], address, page["sequence"], previous, nonce, sealed, signature])
    assert parsed is not None
    reader = ChannelReader(Opening(1, unhex("k1", "ratchet")), (bytes.fromhex(page["side_key"]),))
    assert reader.read(parsed) == body


def test_vertices__are_taken_by_a_node() -> None:
    lane = make_lane(members=frozenset({unhex("member", "keys")}))  # type: ignore[arg-type]
    lane.rules = type(lane.rules)(net=bytes.fromhex(VECTORS["net"]), tag=bytes.fromhex(VECTORS["tag"]), starts_ms=0)
    lane.tangle.net = lane.rules.net
    lane.tangle.genesis = compute_genesis(lane.rules.net)
    messages = []
    for page in VECTORS["vertices"]:
        encoded = bytes.fromhex(page["encoded"])
        assert lane.receive(encoded, now_ms=1_795_000_001_000).ruling.why == ""
        vertex = SensorCodec().decode(encoded)
        assert isinstance(vertex, Vertex) and cid_text(vertex.cid) == page["cid"]
        messages.append(SensorCodec().parse(vertex))
    head, attached = messages
    assert isinstance(head, SensorHead) and head.sensor == "s-01"
    assert isinstance(attached, ChannelMessages) and attached.messages[0].signature.hex() == VECTORS["messages"][0]["signature"]


def test_page__names_every_domain_and_kind() -> None:
    page = (DOCS / "sensor-format.md").read_text(encoding="utf-8")
    for text in ("channel 1", "sensor head 1", "sensor admission 1", "channel succession 1", "odd 1", "codename"):
        assert f"learnae {text}" in page
    for kind in ("16 `SensorHead`", "17 `ChannelMessages`", "18 `SliceReceipt`", "19 `LaneCheckpoint`", "7 `ForkProved`"):
        assert kind in page
