"""Gossip as other libp2p programs accept it: each message signed by its author (StrictSign), and forwarded as it came.

Kubo and most others drop a message without author, number and signature. Vertices are signed themselves, so nodes of a session need none
of it and do not verify it: judging the content decides, and a message with a false envelope goes no further than to the first program
that verifies. What comes without an envelope is forwarded without one.
Source: libp2p specs, pubsub (message signing).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from libp2p.pubsub.pb.rpc_pb2 import Message

from learnae.ids import PeerId

ED25519_PREFIX: Final = bytes.fromhex("002408011220")  # identity multihash of an Ed25519 key: verifiers need no other copy of it
ID_BYTES: Final = 46  # author and number, by which others name a message
_DOMAIN: Final = b"libp2p-pubsub:"
_NUMBER_BYTES: Final = 8
_SIGNATURE_BYTES: Final = 64


class Author:
    """Seals one peer's messages."""

    def __init__(self, peer_id: PeerId, sign: Callable[[bytes], bytes]) -> None:
        self._name, self._sign = ED25519_PREFIX + peer_id, sign
        self._number = 0

    def seal(self, topic: str, content: bytes) -> Message:
        """The message to publish. Its number is above all earlier ones, those before a restart too: Kubo ignores lower ones."""
        self._number = max(self._number + 1, time.time_ns())
        message = Message(from_id=self._name, data=content, seqno=self._number.to_bytes(_NUMBER_BYTES, "big"), topicIDs=[topic])
        message.signature = self._sign(_DOMAIN + message.SerializeToString())
        return message


def copy_to_forward(message: Message) -> Message:
    """What others get of an accepted message: with its envelope, if that has the shape of one; never an unknown field."""
    topic, content = message.topicIDs[0], message.data
    if compute_standard_id(message) is None:
        return Message(data=content, topicIDs=[topic])
    return Message(from_id=message.from_id, data=content, seqno=message.seqno, topicIDs=[topic], signature=message.signature)


def compute_standard_id(message: Message) -> bytes | None:
    """The name of a message among other libp2p programs: author and number. None: it has no envelope as Ed25519 peers write it."""
    name, number = bytes(message.from_id), bytes(message.seqno)
    is_whole = name.startswith(ED25519_PREFIX) and len(number) == _NUMBER_BYTES and len(message.signature) == _SIGNATURE_BYTES
    return name + number if is_whole and len(name) + len(number) == ID_BYTES else None
