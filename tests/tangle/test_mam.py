"""Paper 2.2: MAM streams. Bytes, roots and refusals of the old format, against vectors that the official libraries made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from learnae.sensor_errors import MamError
from learnae.tangle import curl, trits
from learnae.tangle.mam import MamDraft, MamMessage, compute_address, create_message, parse_message

VECTORS = json.loads((Path(__file__).parent / "mam-vectors.json").read_text(encoding="utf-8"))
MESSAGES = [(vector, message) for vector in VECTORS["vectors"] for message in vector["messages"]]
IDS = [f"{vector['name'][:1]}-{place}" for vector in VECTORS["vectors"] for place in range(len(vector["messages"]))]
SEED = "LEARNAE" + "9" * 74
TRYTES = st.text(trits.ALPHABET, max_size=60)


def make_draft(vector: dict[str, Any], message: dict[str, Any]) -> MamDraft:
    return MamDraft(
        seed=vector["seed"],
        message=message["messageTrytes"],
        security=vector["security"],
        mode=vector["mode"],
        side_key=vector.get("sideKey"),
        start=message["start"],
        count=vector["count"],
        index=message["index"],
        next_count=vector["next"],
    )


@pytest.mark.parametrize(("vector", "message"), MESSAGES, ids=IDS)
def test_vector__is_made_byte_for_byte_given_its_nonce(vector: dict[str, Any], message: dict[str, Any]) -> None:
    made = create_message(make_draft(vector, message), nonce=message["nonce"])

    assert made == MamMessage(message["payload"], message["root"], message["nextRoot"], message["address"])


@pytest.mark.parametrize(("vector", "message"), MESSAGES, ids=IDS)
def test_vector__parses_from_both_libraries_and_from_ourselves(vector: dict[str, Any], message: dict[str, Any]) -> None:
    own = create_message(make_draft(vector, message)).payload
    for payload in filter(None, (message["payload"], message.get("legacyPayload"), own)):
        content = parse_message(payload, message["root"], side_key=vector.get("sideKey"))
        assert (content.message, content.next_root) == (message["messageTrytes"], message["nextRoot"])
        assert content.security == vector["security"]


@pytest.mark.parametrize(("vector", "message"), MESSAGES, ids=IDS)
def test_text__is_written_in_trytes_as_the_libraries_do(vector: dict[str, Any], message: dict[str, Any]) -> None:
    assert trits.encode_text(message["text"]) == message["messageTrytes"]
    assert trits.decode_text(message["messageTrytes"]) == message["text"]


NEGATIVE = VECTORS["vectors"][1]["messages"][1]
RESTRICTED = VECTORS["vectors"][2]["messages"][0]


@pytest.mark.parametrize(
    ("place", "why"), [(0, "no level|begin with"), (10, "no level"), (120, "no level"), (1000, "signature"), (4520, "signature")]
)
def test_negative__a_changed_tryte_is_refused(place: int, why: str) -> None:
    """The negative vectors: tryte N of 4522 changed."""
    payload = NEGATIVE["payload"]
    other = "A" if payload[place] != "A" else "B"
    with pytest.raises(MamError, match=why):
        parse_message(payload[:place] + other + payload[place + 1 :], NEGATIVE["root"])


def test_negative__another_root_or_key_is_refused() -> None:
    """The negative vectors: previous root, with a side key, restricted read without key."""
    previous = VECTORS["vectors"][1]["messages"][0]["root"]
    wrong = ((NEGATIVE, previous, None), (NEGATIVE, NEGATIVE["root"], "KEY"), (RESTRICTED, RESTRICTED["root"], None))
    for message, root, side_key in wrong:
        with pytest.raises(MamError, match=r"no level|signature"):
            parse_message(message["payload"], root, side_key=side_key)


@pytest.mark.parametrize("end", [0, 1, 3, 100, 1000, 4000])
def test_negative__a_payload_that_is_cut_off_is_refused(end: int) -> None:
    with pytest.raises(MamError):
        parse_message(NEGATIVE["payload"][:end], NEGATIVE["root"])


@settings(max_examples=60)
@given(st.text(trits.ALPHABET, min_size=1, max_size=400))
def test_parse__answers_every_payload_with_a_sentence(payload: str) -> None:
    """Whatever a stranger sends: no other exception, no long time."""
    with pytest.raises(MamError, match=r"^MAM: "):
        parse_message(payload, "9" * 81)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"seed": "ABC"}, "the seed is 3 characters.*expected 81 trytes"),
        ({"seed": "a" * 81}, "the seed is 81 characters.*A to Z and 9"),
        ({"message": "hello"}, "message 'hello' is not made of trytes; give it as `text`"),
        ({"message": "A" * 32_769}, "a message of 32769 trytes; at most 32768 fit"),
        ({"mode": "open"}, "mode 'open'; expected public, private or restricted"),
        ({"mode": "restricted"}, "mode restricted and side key None"),
        ({"side_key": "ABC"}, "mode public and side key 'ABC'"),
        ({"mode": "restricted", "side_key": "A" * 82}, "side key .*expected up to 81 trytes"),
        ({"security": 4}, "security is 4; expected a whole number from 1 to 3"),
        ({"security": True}, "security is True; expected"),
        ({"count": 3}, "count is 3; the size of a tree is a power of two"),
        ({"next_count": 6}, "next_count is 6; the size of a tree is a power of two"),
        ({"index": 1}, "index is 1; expected a whole number from 0 to 0"),
        ({"start": -1}, "start is -1; expected"),
    ],
)
def test_create__says_what_is_wrong_with_a_draft(changes: dict[str, Any], why: str) -> None:
    with pytest.raises(MamError, match=why):
        create_message(MamDraft(**{"seed": SEED, "message": "ABC", **changes}))


def test_create__refuses_a_nonce_that_does_not_fit() -> None:
    """The nonce gives the hash its level of security; another level than the key's would not verify."""
    refused = 0
    for letter in "ABC":
        try:
            create_message(MamDraft(seed=SEED, message="ABC", security=1), nonce="9" * 26 + letter)
        except MamError as error:
            assert "does not fit this message" in str(error)
            refused += 1
    assert refused >= 2  # One in eighteen fits by chance.
    with pytest.raises(MamError, match="does not fit this message"):
        create_message(MamDraft(seed=SEED, message="ABC", security=1), nonce="ABC")


def test_tree__of_eight_names_every_leaf_and_a_chosen_next_tree() -> None:
    next_root = create_message(MamDraft(seed=SEED, message="A", security=1, start=40)).root
    roots = set()
    for index in range(8):
        made = create_message(MamDraft(seed=SEED, message="READING", security=1, count=8, index=index, next_start=40))
        assert parse_message(made.payload, made.root).message == "READING"
        assert made.next_root == next_root
        roots.add(made.root)
    assert len(roots) == 1


def test_signature__does_not_pass_as_another_leafs() -> None:
    """The index is authenticated: it decides on which side the siblings stand."""
    made = create_message(MamDraft(seed=SEED, message="A", security=1, count=2, index=1))
    payload, one, zero = trits.parse_trytes(made.payload), trits.encode_number(1), trits.encode_number(0)
    assert payload.slice(0, 4) == one
    moved = trits.join([zero, payload.slice(4, payload.size)])
    with pytest.raises(MamError):
        parse_message(trits.format_trytes(moved), made.root)


def test_address__is_the_root_only_in_public_mode() -> None:
    made = {mode: create_message(MamDraft(seed=SEED, message="A", security=1, mode=mode)) for mode in ("public", "private")}
    assert made["public"].address == made["public"].root == made["private"].root
    assert made["private"].address != made["private"].root
    assert compute_address(made["private"].root, "restricted") == made["private"].address


# --- ternary ----------------------------------------------------------------------------------------------------


def permute_plainly(state: list[int], rounds: int) -> list[int]:
    """Curl-P as its definition has it, trit by trit."""
    table = [1, 0, -1, 2, 1, -1, 0, 2, -1, 1, 0]
    for _ in range(rounds):
        place, after = 0, []
        for _ in range(729):
            next_place = place + 364 if place < 365 else place - 365
            after.append(table[state[place] + 4 * state[next_place] + 5])
            place = next_place
        state = after
    return state


def to_list(sequence: trits.Trits) -> list[int]:
    return [(sequence.plus >> i & 1) - (sequence.minus >> i & 1) for i in range(sequence.size)]


@pytest.mark.parametrize("rounds", [27, 81])
def test_curl__is_what_its_definition_says(rounds: int) -> None:
    sponge = curl.Curl(rounds)
    absorbed = trits.parse_trytes(NEGATIVE["payload"][:81])
    state = permute_plainly(to_list(absorbed) + [0] * 486, rounds)
    sponge.absorb(absorbed)

    assert to_list(sponge.state()) == state
    sponge.squeeze()
    assert to_list(sponge.state()) == permute_plainly(state, rounds)


@settings(max_examples=20)
@given(st.lists(st.tuples(st.text(trits.ALPHABET, min_size=81, max_size=81), st.integers(0, 4)), min_size=1, max_size=9))
def test_chains__side_by_side_are_the_chains_one_by_one(chains: list[tuple[str, int]]) -> None:
    starts, steps = [trits.parse_trytes(text) for text, _ in chains], [count for _, count in chains]
    expected = []
    for start, count in zip(starts, steps, strict=True):
        for _ in range(count):
            start = curl.hash_once(start)
        expected.append(start)

    assert curl.hash_chains(starts, steps) == expected


@given(TRYTES)
def test_trytes__survive_being_trits(text: str) -> None:
    assert trits.format_trytes(trits.parse_trytes(text)) == text


@given(st.integers(0, 27**5))
def test_number__is_read_back_where_it_ends(number: int) -> None:
    encoded = trits.encode_number(number)
    followed = trits.join([trits.parse_trytes("ABC"), encoded, trits.parse_trytes("XYZ")])

    assert trits.decode_number(followed, 9) == (number, 9 + encoded.size)


@given(st.text(st.characters(exclude_characters="\\", exclude_categories=["Cs"]), max_size=30).map(lambda text: text.rstrip("\0")))
def test_text__survives_being_trytes(text: str) -> None:
    assert trits.decode_text(trits.encode_text(text)) == text
