"""What gossip promises a session on whatever carries it, also where a neighbour forwards before anyone has judged.

Weaker than what `check_network` asks of a node's own gossip, which also says who brought a message and stops what is rejected.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from itertools import count

import trio

from learnae.backends.libp2p_gossip import MESSAGE_BYTES_MAX
from learnae.ids import PeerId, Topic
from learnae.ports import Network
from learnae.tangle.verdict import Verdict

TOPIC, OTHER = Topic("/learnae/test/control"), Topic("/learnae/test/sensors")
OpenMembers = Callable[[int], AbstractAsyncContextManager[Sequence[Network]]]


async def check_pubsub(open_members: OpenMembers) -> None:
    """`open_members(count)` gives networks that gossip reaches from each to each."""
    with trio.fail_after(30):
        async with open_members(3) as members:
            heard: list[list[tuple[Topic, bytes]]] = [[] for _ in members]
            arrived = trio.lowlevel.ParkingLot()
            numbers = count()

            def judge_for(number: int, topic: Topic) -> Callable[[PeerId, bytes], Verdict]:
                def judge(sender: PeerId, content: bytes) -> Verdict:
                    heard[number].append((topic, content))
                    arrived.unpark_all()
                    return Verdict.ACCEPT

                return judge

            async def publish_next(member: Network, topic: Topic, start: bytes) -> None:
                await member.publish(topic, start + b"%d" % next(numbers))

            async def until_heard(by: int, topic: Topic, publish: Callable[[], Awaitable[None]], start: bytes) -> None:
                while not any(name == topic and content.startswith(start) for name, content in heard[by]):
                    await publish()
                    with trio.move_on_after(0.05):
                        await arrived.park()

            for number, member in enumerate(members):
                await member.subscribe(TOPIC, judge_for(number, TOPIC))
            await members[0].subscribe(OTHER, judge_for(0, OTHER))
            for number, member in enumerate(members):
                for other in range(len(members)):
                    if other != number:
                        start = b"%d: " % number
                        publish = partial(publish_next, member, TOPIC, start)
                        await until_heard(other, TOPIC, publish, start)
            await until_heard(0, OTHER, partial(publish_next, members[1], OTHER, b"elsewhere "), b"elsewhere")
            assert all(topic == TOPIC for topic, _ in heard[2]), "a topic that was not joined is not heard"

            largest = bytes(range(256)) * (MESSAGE_BYTES_MAX // 256)
            for content in (b"\0", b"\n{\"from\"", largest):
                await members[0].publish(TOPIC, content)
                while not all((TOPIC, content) in heard[other] for other in (1, 2)):
                    await arrived.park()
            for number, found in enumerate(heard):
                assert len(found) == len(set(found)), "each is judged once"
                assert not any(content.startswith(b"%d: " % number) for _, content in found), "nobody hears itself"
