"""Paper 2.2 and 4.2: a stream of messages, each leading to the next; who is given one reads it and what follows, nothing before."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl.signing import SigningKey

from learnae.tangle import cbor, channel
from learnae.tangle.channel import (
    BODY_BYTES_MAX,
    SKIP_AT_ONCE,
    SKIP_MAX,
    ChannelMessage,
    ChannelMode,
    ChannelReader,
    ChannelWriter,
    Opening,
    Refused,
    WriterState,
    compute_address,
    compute_message_key,
    compute_next_key,
    create_succession,
    decode_state,
    find_public_opening,
    parse_message,
)

KEY = SigningKey(hashlib.sha256(b"channel").digest())
PUBLIC = bytes(KEY.verify_key)
SECRET = hashlib.sha256(b"k 1").digest()
SIDE = hashlib.sha256(b"side").digest()
MODES = list(ChannelMode)


def make_writer(mode: ChannelMode = ChannelMode.PRIVATE, state: WriterState | None = None, side_key: bytes = SIDE) -> ChannelWriter:
    return ChannelWriter(
        state or WriterState(1, SECRET),
        mode=mode,
        sign=lambda signed: KEY.sign(signed).signature,
        side_key=side_key if mode is ChannelMode.RESTRICTED else b"",
    )


def make_messages(mode: ChannelMode, count: int) -> list[ChannelMessage]:
    writer = make_writer(mode)
    return [writer.create(f"reading {n}".encode()) for n in range(1, count + 1)]


@pytest.mark.parametrize("mode", MODES)
def test_stream__is_read_from_its_first_message(mode: ChannelMode) -> None:
    reader = ChannelReader(Opening(1, SECRET), (SIDE,))
    bodies = [reader.read(message) for message in make_messages(mode, 5)]

    assert bodies == [f"reading {n}".encode() for n in range(1, 6)]


@given(st.sampled_from(MODES), st.integers(1, 30), st.integers(1, 30), st.randoms(use_true_random=False))
def test_reader__given_message_n_reads_n_and_what_follows_and_nothing_before(
    mode: ChannelMode, count: int, start: int, rng: Random
) -> None:
    """2.2, forward secrecy: in any order, with any losses."""
    writer = make_writer(mode)
    messages, opening = [], None
    for number in range(1, count + start):
        if number == start:
            opening = writer.compute_opening()
        messages.append(writer.create(b"%d" % number))
    assert opening is not None
    reader = ChannelReader(opening, (SIDE,))
    heard = [message for message in messages if rng.random() < 0.7]
    rng.shuffle(heard)

    for message in heard:
        body = reader.read(message)
        assert body == b"%d" % message.sequence if message.sequence >= start else isinstance(body, Refused)


@given(st.sampled_from([ChannelMode.PRIVATE, ChannelMode.RESTRICTED]), st.integers(2, 20))
def test_key__given_at_message_n_leads_to_no_key_before(mode: ChannelMode, start: int) -> None:
    """2.2, forward secrecy, without the reader's courtesy: no key that follows from k_n opens an earlier message."""
    messages = make_messages(mode, start)
    key, derived = SECRET, []
    for _ in range(start - 1):
        key = compute_next_key(key)
    for _ in range(50):
        derived.append(key)
        key = compute_next_key(key)

    for message in messages[:-1]:
        assert message.address not in {compute_address(key, mode) for key in derived}
        for candidate in derived:
            forced = ChannelReader(Opening(message.sequence, candidate), (SIDE,))
            assert isinstance(forced.read(replace(message, address=compute_address(candidate, mode))), Refused)


def test_public_channel__opens_itself_from_any_message() -> None:
    messages = make_messages(ChannelMode.PUBLIC, 6)
    opening = find_public_opening(messages[3:])
    assert opening is not None
    reader = ChannelReader(opening)

    assert [isinstance(reader.read(message), bytes) for message in messages] == [False] * 3 + [True] * 3


def test_private_channel__does_not_show_its_key() -> None:
    messages = make_messages(ChannelMode.PRIVATE, 3)
    assert find_public_opening(messages) is None
    stranger = ChannelReader(Opening(1, messages[0].address))
    assert all(isinstance(stranger.read(message), Refused) for message in messages)


def test_lost_messages__do_not_stop_the_reader() -> None:
    """tangle.md: a lost message does not blind the reader."""
    messages = make_messages(ChannelMode.PRIVATE, 500)
    reader = ChannelReader(Opening(1, SECRET))

    assert reader.read(messages[0]) == b"reading 1"
    assert reader.read(messages[499]) == b"reading 500"
    assert reader.read(messages[250]) == b"reading 251"


def test_side_key__changed_shuts_out_who_has_the_old_one() -> None:
    writer = make_writer(ChannelMode.RESTRICTED)
    before = writer.create(b"before")
    new = hashlib.sha256(b"new side key").digest()
    writer.change_side_key(new)
    after = writer.create(b"after")
    old_reader, new_reader = ChannelReader(Opening(1, SECRET), (SIDE,)), ChannelReader(Opening(1, SECRET), (new, SIDE))

    assert old_reader.read(before) == b"before"
    refused = old_reader.read(after)
    assert isinstance(refused, Refused) and "side key" in refused.why
    assert (new_reader.read(before), new_reader.read(after)) == (b"before", b"after")


@pytest.mark.parametrize("field", ["address", "previous", "nonce", "ciphertext", "signature"])
def test_changed_field__breaks_the_signature_and_the_cipher(field: str) -> None:
    message = make_messages(ChannelMode.PRIVATE, 2)[1]
    changed = replace(message, **{field: bytes([getattr(message, field)[0] ^ 1]) + getattr(message, field)[1:]})

    assert message.is_signed_by(PUBLIC)
    assert not changed.is_signed_by(PUBLIC)
    if field != "signature":
        assert isinstance(ChannelReader(Opening(1, SECRET)).read(changed), Refused)


@pytest.mark.parametrize("changes", [{"sequence": 3}, {"mode": ChannelMode.RESTRICTED}])
def test_changed_number_or_mode__breaks_the_signature_and_the_cipher(changes: dict[str, int]) -> None:
    message = make_messages(ChannelMode.PRIVATE, 2)[1]
    changed = replace(message, **changes)

    assert not changed.is_signed_by(PUBLIC)
    assert isinstance(ChannelReader(Opening(1, SECRET), (b"",)).read(changed), Refused)


def test_message__adds_at_most_160_bytes_to_its_body() -> None:
    """Issue: channel message at most 160 bytes over its body."""
    for size in (1, 20, 300, 5000):
        state = WriterState(2**20, SECRET, b"p" * 16)
        encoded = cbor.encode(make_writer(state=state).create(b"x" * size).to_body())
        assert len(encoded) - size <= 160


@pytest.mark.parametrize("mode", MODES)
def test_body__is_read_back_as_it_was(mode: ChannelMode) -> None:
    for message in make_messages(mode, 2):
        assert parse_message(cbor.decode(cbor.encode(message.to_body()))) == message


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (0, 2), (0, True), (1, 3), (1, False), (2, b"short"), (3, 0), (3, "1"), (3, 2**48 + 1), (4, b""), (5, b"x" * 13), (6, b"x" * 15),
        (6, b"x" * (BODY_BYTES_MAX + 17)), (7, b"x" * 63), (4, b"x" * 16),
    ],
)  # fmt: skip
def test_malformed_body__is_no_message(place: int, value: object) -> None:
    body = make_messages(ChannelMode.PRIVATE, 1)[0].to_body()
    assert parse_message(body) is not None
    body[place] = value
    assert parse_message(body) is None
    assert parse_message(body[:-1]) is None
    assert parse_message({}) is None


def test_first_message__has_no_previous_and_every_other_has() -> None:
    first, second = make_messages(ChannelMode.PRIVATE, 2)
    assert first.previous == bytes(16)
    assert second.previous == first.compute_hash()
    assert parse_message(replace(second, previous=bytes(16)).to_body()) is None


def test_far_number__is_not_walked_to() -> None:
    """A channel's owner may name any number; a reader does not hash for minutes."""
    message = make_writer(state=WriterState(SKIP_MAX + 2, SECRET, b"p" * 16)).create(b"x")
    refused = ChannelReader(Opening(1, SECRET)).read(message)

    assert isinstance(refused, Refused) and "more than" in refused.why


def count_derivations(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    derived: list[bytes] = []

    def derive(key: bytes) -> bytes:
        derived.append(key)
        return compute_next_key(key)

    monkeypatch.setattr(channel, "compute_next_key", derive)
    return derived


def write_at(sequence: int, mode: ChannelMode, key: bytes) -> ChannelMessage:
    return make_writer(mode, WriterState(sequence, key, b"p" * 16)).create(b"x")


def test_public_message__is_read_without_deriving_keys_however_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    messages = [write_at(1_000_000 * n, ChannelMode.PUBLIC, bytes([n]) * 32) for n in range(1, 5)]
    reader, derived = ChannelReader(Opening(1, SECRET)), count_derivations(monkeypatch)

    assert [reader.read(message) for message in messages] == [b"x"] * 4
    assert derived == []


def test_far_message__is_reached_in_bounded_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who comes late, or was away long, reads on after a few messages."""
    key = SECRET
    for _ in range(2 * SKIP_AT_ONCE + 9):
        key = compute_next_key(key)
    writer = make_writer(state=WriterState(2 * SKIP_AT_ONCE + 10, key, b"p" * 16))
    messages = [writer.create(b"x") for _ in range(3)]
    reader, derived = ChannelReader(Opening(1, SECRET)), count_derivations(monkeypatch)
    steps = []
    for message in messages:
        before = len(derived)
        said = reader.read(message)
        steps.append((said if isinstance(said, bytes) else "far ahead" in said.why, len(derived) - before))

    assert steps == [(True, SKIP_AT_ONCE), (True, SKIP_AT_ONCE), (b"x", 11)]


def test_foreign_channel__costs_a_reader_a_bounded_number_of_keys_in_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel, "SKIP_MAX", 1000)
    monkeypatch.setattr(channel, "SKIP_AT_ONCE", 100)
    messages = [write_at(99 * n, ChannelMode.PRIVATE, b"o" * 32) for n in range(1, 100)]
    reader, derived = ChannelReader(Opening(1, SECRET)), count_derivations(monkeypatch)

    assert all(isinstance(reader.read(message), Refused) for message in messages)
    assert 900 <= len(derived) <= 1000


@given(st.integers(1, 20))
def test_writer__goes_on_from_its_state_and_never_uses_a_number_twice(cut: int) -> None:
    """tangle.md, state rule: what is on disk before a message leaves is enough to go on."""
    whole = make_messages(ChannelMode.PRIVATE, 25)
    writer = make_writer()
    first = [writer.create(f"reading {n}".encode()) for n in range(1, cut + 1)]
    kept = decode_state(writer.state.encode())
    assert kept == writer.state
    again = make_writer(state=kept)
    rest = [again.create(f"reading {n}".encode()) for n in range(cut + 1, 26)]

    assert first + rest == whole


@pytest.mark.parametrize("content", [b"", b"\x80", cbor.encode([1, 0, SECRET, bytes(16)]), cbor.encode([2, 1, SECRET, bytes(16)])])
def test_damaged_state__is_none(content: bytes) -> None:
    assert decode_state(content) is None


def test_covered_fields__are_their_dag_cbor() -> None:
    for message in make_messages(ChannelMode.RESTRICTED, 40):
        assert message.compute_covered() == cbor.encode(message.to_body()[:5])


def test_nonce__follows_from_the_content() -> None:
    """tangle.md: a lost state leaks equality only."""
    one, same, other = (make_writer().create(body) for body in (b"a", b"a", b"b"))
    assert one == same
    assert one.nonce != other.nonce


def test_nonce__that_does_not_follow_from_the_content_is_refused() -> None:
    """Otherwise a channel key's holder could make two messages of one ciphertext."""
    from nacl.bindings import crypto_aead_chacha20poly1305_ietf_encrypt

    message = make_writer().create(b"a")
    covered = cbor.encode(message.to_body()[:5])
    nonce = b"n" * 12
    forged = crypto_aead_chacha20poly1305_ietf_encrypt(b"a", covered, nonce, compute_message_key(SECRET, b""))

    assert isinstance(ChannelReader(Opening(1, SECRET)).read(replace(message, nonce=nonce, ciphertext=forged)), Refused)


def test_succession__is_signed_by_the_old_key_for_one_successor() -> None:
    new = bytes(SigningKey(hashlib.sha256(b"new").digest()).verify_key)
    succession = create_succession(channel_key=PUBLIC, last=9, successor=new, sign=lambda signed: KEY.sign(signed).signature)

    assert succession.names(new)
    assert not succession.names(PUBLIC)
    assert not replace(succession, last=10).names(new)
