"""MAM v0, Masked Authenticated Messaging as IOTA had it: create and parse, three modes, security 1 to 3. Insecure: compatibility only.

A channel is a seed. Its one-time keys are grouped into Merkle trees, whose roots name the messages; each message is encrypted
under its root (and a side key), names the root of the next tree and is signed with one leaf. Who has a root reads that
message and what follows. It rests on Curl-P-27, which is broken, so a message that parses here is never counted as signed;
learnae's own channels are `tangle.channel`.

Payload: index and length (Pascal numbers, in the clear), then masked: next root, message, nonce, signature, number of siblings,
siblings. The nonce makes the first `security` thirds of the signed hash sum to zero, none fewer. Payloads of two programs may
differ where they search nonces in another order; roots, addresses and meaning are equal, and bytes for an equal nonce.
Pure. Source: @iota/mam 0.7.3 (iota.rs) and @iota/mam.js 1.6.3, which judge this module in the tests; paper 2.2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from learnae.sensor_errors import MamError
from learnae.tangle.curl import STATE_TRITS, Curl, hash_chains, hash_once, permute_lanes
from learnae.tangle.trits import (
    HASH_TRITS,
    HASH_TRYTES,
    Trits,
    decode_number,
    encode_number,
    format_trytes,
    is_trytes,
    join,
    parse_trytes,
)

MODES: Final = ("public", "private", "restricted")
SECURITY_MAX: Final = 3
TREE_MAX: Final = 256  # Keys in one tree: making so many takes seconds, and nobody used more.
INDEX_MAX: Final = 2**30  # Number of a key in its channel.
MESSAGE_TRYTES_MAX: Final = 32_768  # Far above a bundle of the old network; bounds the time to parse a stranger's payload.
PAYLOAD_TRYTES_MAX: Final = MESSAGE_TRYTES_MAX + 3 * 27 * HASH_TRYTES + 16 * HASH_TRYTES
NONCE_TRITS: Final = 81

_FRAGMENTS: Final = 27  # Of a key, for each level of security.
_SIBLINGS_MAX: Final = 16
_SEARCH_LANES: Final = 27  # Nonces tried at a time; one in about ten to thirty fits.
_NO_KEY: Final = "9" * HASH_TRYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class MamDraft:
    """What a message is made from. A tree holds `count` keys from number `start` on; `index` is the key of this message in it.

    `next_start` and `next_count` are the tree after it. Using one key for two messages gives the key away.
    """

    seed: str  # 81 trytes
    message: str  # trytes
    security: int = 2
    mode: str = "public"
    side_key: str | None = None  # up to 81 trytes, in mode restricted
    start: int = 0
    count: int = 1
    index: int = 0
    next_start: int | None = None  # None: start + count
    next_count: int = 1


@dataclass(frozen=True, slots=True)
class MamMessage:
    """A message as it is attached: `payload` at `address`, to be read with `root`; all in trytes."""

    payload: str
    root: str
    next_root: str
    address: str


@dataclass(frozen=True, slots=True)
class MamContent:
    """What a payload said, in trytes, and where the channel goes on. `security` is a claim of a broken hash."""

    message: str
    next_root: str
    security: int


@dataclass(frozen=True, slots=True)
class _Tree:
    """A Merkle tree over addresses: `levels[0]` are the leaves, the last level is the root alone."""

    levels: tuple[tuple[Trits, ...], ...]
    keys: tuple[tuple[Trits, ...], ...]  # per leaf, the fragments of its private key

    @property
    def root(self) -> Trits:
        return self.levels[-1][0]

    def siblings(self, index: int) -> list[Trits]:
        """What, hashed with leaf `index` step by step, gives the root; the leaf's neighbour first."""
        return [level[(index >> depth) ^ 1] for depth, level in enumerate(self.levels[:-1])]


def create_message(draft: MamDraft, *, nonce: str | None = None) -> MamMessage:
    """Encrypt and sign one message. `nonce`: 27 trytes to use instead of searching, for comparing with other programs.

    Raises: MamError: the draft is not acceptable, or the nonce does not fit.
    """
    _check_draft(draft)
    next_start = draft.start + draft.count if draft.next_start is None else draft.next_start
    seed = parse_trytes(draft.seed)
    tree, next_tree = _make_trees(seed, ((draft.start, draft.count), (next_start, draft.next_count)), draft.security)
    message = parse_trytes(draft.message)
    curl = Curl()
    curl.absorb(parse_trytes(_pad_key(draft.side_key)))
    curl.absorb(tree.root)
    head = join([encode_number(draft.index), encode_number(message.size)])
    curl.absorb(head)
    masked = curl.mask(join([next_tree.root, message]))
    found = _search_nonce(curl.state(), draft.security) if nonce is None else parse_trytes(nonce)
    masked += curl.mask(found)
    digest = curl.rate()
    if found.size != NONCE_TRITS or _compute_security(digest) != draft.security:
        raise MamError(f"nonce {nonce!r} does not fit this message", "leave it out to have one searched")
    siblings = tree.siblings(draft.index)
    signature = hash_chains(tree.keys[draft.index], [13 - value for value in _tryte_values(digest, draft.security)])
    masked += curl.mask(join([*signature, encode_number(len(siblings)), *siblings]))
    root = format_trytes(tree.root)
    return MamMessage(
        payload=format_trytes(join([head, *masked])),
        root=root,
        next_root=format_trytes(next_tree.root),
        address=compute_address(root, draft.mode),
    )


def parse_message(payload: str, root: str, *, side_key: str | None = None) -> MamContent:
    """Decrypt a payload and check its signature against `root`.

    Raises: MamError: not trytes, cut off, another root or side key, or a signature that does not lead to the root.
    """
    if not 1 <= len(payload) <= PAYLOAD_TRYTES_MAX:
        raise MamError(f"a payload of {len(payload)} trytes", f"expected 1 to {PAYLOAD_TRYTES_MAX}")
    trits = parse_trytes(payload)
    index = decode_number(trits, 0)
    length = index and decode_number(trits, index[1])
    if index is None or length is None or length[0] > min(3 * MESSAGE_TRYTES_MAX, trits.size):
        raise MamError("the payload does not begin with an index and a length", "check that it is complete and unchanged")
    curl = Curl()
    curl.absorb(parse_trytes(_pad_key(side_key)))
    curl.absorb(parse_trytes(_check_hash("root", root)))
    curl.absorb(trits.slice(0, length[1]))
    next_root, message = _unmask_next(curl, trits, length[1], length[0])
    nonce_start = length[1] + HASH_TRITS + length[0]
    curl.unmask(trits.slice(nonce_start, NONCE_TRITS))
    digest = curl.rate()
    security = _compute_security(digest)
    if security == 0:
        raise MamError("the message's hash has no level of security", "check root, side key, and that the payload is unchanged")
    rest = join(curl.unmask(trits.slice(nonce_start + NONCE_TRITS, trits.size)))
    if _recompute_root(rest, digest, security, index[0]) != root:
        raise MamError("the signature does not lead to the root", "check the root, and that the payload is complete and unchanged")
    return MamContent(format_trytes(message), format_trytes(next_root), security)


def compute_address(root: str, mode: str) -> str:
    """Where a message of this root is attached: at its root if public, else at the root's Curl-P-81 hash."""
    return root if mode == "public" else format_trytes(hash_once(parse_trytes(_check_hash("root", root)), rounds=81))


# --- parts of a message -----------------------------------------------------------------------------------------


def _unmask_next(curl: Curl, trits: Trits, start: int, length: int) -> tuple[Trits, Trits]:
    """The next root and the message, which a writer masks in one go."""
    plain = join(curl.unmask(trits.slice(start, HASH_TRITS + length)))
    if plain.size < HASH_TRITS + length:
        raise MamError("the payload is cut off", "check that it is complete")
    return plain.slice(0, HASH_TRITS), plain.slice(HASH_TRITS, length)


def _recompute_root(rest: Trits, digest: Trits, security: int, index: int) -> str:
    """The root that signature and siblings lead to; empty if they are malformed."""
    fragments = security * _FRAGMENTS
    siblings = decode_number(rest, fragments * HASH_TRITS)
    if siblings is None or siblings[0] > _SIBLINGS_MAX or index >= 1 << siblings[0]:
        return ""
    if rest.size < siblings[1] + siblings[0] * HASH_TRITS:
        return ""
    signature = rest.slice(0, fragments * HASH_TRITS).chunks()
    ends = hash_chains(signature, [13 + value for value in _tryte_values(digest, security)])
    node = hash_once(hash_once(join(ends)))
    for depth in range(siblings[0]):
        sibling = rest.slice(siblings[1] + depth * HASH_TRITS, HASH_TRITS)
        node = hash_once(join([sibling, node] if index >> depth & 1 else [node, sibling]))
    return format_trytes(node)


def _tryte_values(digest: Trits, security: int) -> list[int]:
    return [digest.slice(3 * i, 3).value() for i in range(security * _FRAGMENTS)]


def _compute_security(digest: Trits) -> int:
    """The level that a hash carries: how many of its thirds, from the first on, sum to zero together; 0: none do."""
    for level in range(1, SECURITY_MAX + 1):
        if digest.slice(0, 81 * level).total() == 0:
            return level
    return 0


def _search_nonce(state: Trits, security: int) -> Trits:
    """A nonce with which the state's next hash carries exactly this level of security."""
    number = 0
    while True:
        nonces = [_number_nonce(number + lane) for lane in range(_SEARCH_LANES)]
        rest = state.slice(NONCE_TRITS, STATE_TRITS)
        for nonce, digest in zip(nonces, permute_lanes([join([nonce, rest]) for nonce in nonces]), strict=True):
            if _compute_security(digest) == security:
                return nonce
        number += _SEARCH_LANES


def _number_nonce(number: int) -> Trits:
    """Nonces counted in ternary: 0, 1, 2 stand for 0, 1, -1."""
    plus = minus = place = 0
    while number:
        number, digit = divmod(number, 3)
        plus |= (digit == 1) << place
        minus |= (digit == 2) << place
        place += 1
    return Trits(plus, minus, NONCE_TRITS)


# --- keys and trees ---------------------------------------------------------------------------------------------


def _make_trees(seed: Trits, spans: Sequence[tuple[int, int]], security: int) -> list[_Tree]:
    """The trees over keys [start, start + count) of a seed; all their key chains are hashed side by side."""
    numbers = [start + offset for start, count in spans for offset in range(count)]
    keys, heads = {}, []
    for number in numbers:
        curl = Curl()
        curl.absorb(_subseed(seed, number))
        heads += [curl.squeeze() for _ in range(security * _FRAGMENTS)]
    width = security * _FRAGMENTS
    privates = [key for start in range(0, len(heads), width) for key in hash_chains(heads[start : start + width], [1] * width)]
    publics = [end for start in range(0, len(heads), width) for end in hash_chains(privates[start : start + width], [26] * width)]
    addresses = {}
    for position, number in enumerate(numbers):
        part = slice(position * width, (position + 1) * width)
        keys[number] = tuple(privates[part])
        addresses[number] = hash_once(hash_once(join(publics[part])))
    trees = []
    for start, count in spans:
        span = range(start, start + count)
        trees.append(_build_tree([addresses[number] for number in span], tuple(keys[number] for number in span)))
    return trees


def _build_tree(leaves: Sequence[Trits], keys: tuple[tuple[Trits, ...], ...]) -> _Tree:
    levels = [tuple(leaves)]
    while len(levels[-1]) > 1:
        below = levels[-1]
        levels.append(tuple(hash_once(join(below[i : i + 2])) for i in range(0, len(below), 2)))
    return _Tree(tuple(levels), keys)


def _subseed(seed: Trits, number: int) -> Trits:
    """The hash of the seed plus the key's number; the sum wraps round."""
    total = (seed.value() + number + (3**HASH_TRITS - 1) // 2) % 3**HASH_TRITS - (3**HASH_TRITS - 1) // 2
    plus = minus = 0
    for place in range(HASH_TRITS):
        trit = (total + 1) % 3 - 1
        total = (total - trit) // 3
        plus |= (trit == 1) << place
        minus |= (trit == -1) << place
    return hash_once(Trits(plus, minus, HASH_TRITS))


# --- checks -----------------------------------------------------------------------------------------------------


def _check_draft(draft: MamDraft) -> None:
    _check_hash("seed", draft.seed)
    if draft.mode not in MODES:
        raise MamError(f"mode {draft.mode!r}", "expected public, private or restricted")
    if (draft.mode == "restricted") != bool((draft.side_key or "").strip("9")):
        raise MamError(f"mode {draft.mode} and side key {draft.side_key!r}", "mode restricted needs a side key, the others have none")
    _pad_key(draft.side_key)
    if not is_trytes(draft.message):
        raise MamError(f"message {draft.message[:40]!r} is not made of trytes", "give it as `text` to have it written in trytes")
    if len(draft.message) > MESSAGE_TRYTES_MAX:
        raise MamError(f"a message of {len(draft.message)} trytes", f"at most {MESSAGE_TRYTES_MAX} fit; send it in parts")
    next_start = 0 if draft.next_start is None else draft.next_start
    for name, number, least, most in (
        ("security", draft.security, 1, SECURITY_MAX),
        ("start", draft.start, 0, INDEX_MAX),
        ("next_start", next_start, 0, INDEX_MAX),
        ("count", draft.count, 1, TREE_MAX),
        ("next_count", draft.next_count, 1, TREE_MAX),
        ("index", draft.index, 0, draft.count - 1),
    ):
        if type(number) is not int or not least <= number <= most:
            raise MamError(f"{name} is {number!r}", f"expected a whole number from {least} to {most}")
        if name.endswith("count") and number & (number - 1):
            raise MamError(f"{name} is {number}", "the size of a tree is a power of two, or readers cannot verify its messages")


def _check_hash(name: str, trytes: str) -> str:
    if len(trytes) != HASH_TRYTES or not is_trytes(trytes):
        raise MamError(f"the {name} is {len(trytes)} characters, {trytes[:20]!r}...", f"expected {HASH_TRYTES} trytes: A to Z and 9")
    return trytes


def _pad_key(side_key: str | None) -> str:
    """A side key as it is absorbed: 81 trytes, padded with 9s; without one all 9s."""
    key = (side_key or "").ljust(HASH_TRYTES, "9") if side_key else _NO_KEY
    if len(key) != HASH_TRYTES or not is_trytes(key):
        raise MamError(f"side key {str(side_key)[:20]!r}...", f"expected up to {HASH_TRYTES} trytes: A to Z and 9")
    return key
