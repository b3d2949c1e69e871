"""One member's part in the audits, from outside: what others say makes it say no more than the audits need."""

from __future__ import annotations

from dataclasses import replace

from learnae.protocol import events as ev
from learnae.protocol.calls import Stage
from learnae.protocol.messages import AuditVerdict, Checkpoint, Finding
from tests.protocol.builders import BOB, MALLORY, PEERS, RULES, TRAINING_ENDS_S, Author, Player, make_player, make_view

AUDITED = replace(RULES, audit_permille=100)
CLOSING = Checkpoint(closing=True, heads=())


def see_beacon(player: Player, beacon: bytes | None) -> None:
    """A look at the chain in the claiming stage, before or after the beacon."""
    player.now_s = float(TRAINING_ENDS_S + (5 if beacon is None else 25))
    player.handle(ev.ChainRead(make_view(Stage.CLAIMING, time_s=int(player.now_s), peers=PEERS, beacon=beacon)))


def close_often(player: Player, author: Author, times: int) -> list[object]:
    """What the player says to so many closing checkpoints of one member, without own introductions."""
    said: list[object] = []
    for number in range(times):
        vertex = author.write(CLOSING, time_ms=int(player.now_s * 1000) + number)
        said += player.say(player.handle(ev.VertexReceived(author.me, vertex.encoded)))
    return said


def test_late_row__is_accused_once_however_often_its_owner_closes_it() -> None:
    """An answer to each would use up the own budget, so that the claim that comes next is not heard for minutes."""
    player, mallory = make_player(rules=AUDITED), Author("mallory", AUDITED)
    see_beacon(player, None)
    see_beacon(player, bytes(32))
    assert close_often(player, mallory, 30) == [AuditVerdict(subject=mallory.log[0].cid, finding=Finding.LATE)]
    assert player.peer.lane.dag.length(MALLORY) == 30


def test_row_closed_in_time__is_not_late_when_its_owner_closes_it_again() -> None:
    player, bob = make_player(rules=AUDITED), Author("bob", AUDITED)
    see_beacon(player, None)
    assert close_often(player, bob, 1) == []
    see_beacon(player, bytes(32))
    assert close_often(player, bob, 5) == []
    assert player.peer.lane.dag.length(BOB) == 6
