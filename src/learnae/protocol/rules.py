"""What all peers of a session agree on before they start: the SessionRules, and the ticket that invites to them.

The rules are a small canonical dag-cbor document. Its CID names the session; the contract holds the CID's digest, so that
nobody deposits into rules that it has not read. The ticket carries the whole rules, the contract and where to find peers.
Source: paper 4.1 (overuse threshold, dataslice size, codename), 4.3 (reward factor), 5.2, 6 (deposit, stages).
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, Final, TypeGuard, get_args, get_origin, get_type_hints

from learnae.errors import RulesError, TicketError
from learnae.ids import CODEC_DAG_CBOR, Address, Cid, Topic, Wei, cid_text, compute_cid, is_cid
from learnae.protocol.calls import SessionTerms
from learnae.tangle import cbor
from learnae.tangle.vertex import NET_BYTES

RULES_VERSION: Final = 1
RULES_BYTES_MAX: Final = 8 * 1024  # A ticket is a text that people paste.
TICKET_BYTES_MAX: Final = 16 * 1024
TICKET_PREFIX: Final = "learnae1"
ADDRESSES_MAX: Final = 8
ADDRESS_CHARS_MAX: Final = 256  # A circuit through a relay has 69 more than the relay's own address, and names are long.
_DIGEST_BYTES = 32
_NO_WEI = Wei(0)

REWARD_MODES: Final = ("dao", "tips")
REWARD_RULES: Final = ("budgeted", "raw")
POLICIES: Final = ("paired", "paper")
REDUCERS: Final = ("mean",)
MODEL_CODECS: Final = ("raw", "float16", "int8", "delta8", "delta4", "delta2")
AUDITABLE_CODECS: Final = ("raw", "float16", "int8", "delta8")
"""Codecs that bound how far a value is rounded, so that an audit can still tell how a model was made (docs/compression.md)."""


@dataclass(frozen=True, kw_only=True)
class SessionRules:
    """The shared rules. Times are Unix seconds; `*_permille` are thousandths; `*_s` durations are seconds."""

    name: str  # for people, 1 to 64 characters
    codename: str  # topic of the control lane and tag of the sensors (4.2)
    task_digest: bytes  # SHA-256 of the task file that everybody reads and runs
    initial_model: Cid  # all models of the session descend from it; its header is the session's manifest
    model_bytes: int  # size of the initial model; a stranger's may be 2 % larger
    slice_bytes: int  # size of a dataslice (4.1)
    overuse_threshold: int  # network-wide limit of uses of one slice (4.1)
    train_permille: int  # chance that a work cycle trains instead of averaging (4.1)
    slices_per_cycle: int  # dataslices consumed by one training cycle
    policy: str  # choice and acceptance of remote models: one of POLICIES
    reducer: str  # the averaging step, replaceable (section 1): one of REDUCERS
    reward_mode: str  # one of REWARD_MODES
    reward_rule: str  # one of REWARD_RULES
    reward_factor: int  # credits for an improvement of accuracy from 0 to 1 (Eq. 1)
    tip_wei_per_credit: int  # tips mode: Eq. 1 in money (4.3)
    chain_id: int
    deposit_wei: Wei
    members_min: int
    members_max: int
    starts_s: int  # no vertex of the session is older
    funding_ends_s: int
    training_ends_s: int
    claiming_ends_s: int
    voting_ends_s: int
    final_s: int  # last part of the training stage: averaging only, then the final optimisation (4.1)
    reject_quorum_permille: int
    extension_max_s: int = 0  # by which the members may put off the end of the vote, by a proposal (5.2)
    proposal_deposit_wei: Wei = _NO_WEI  # governance: deposit of a proposal, at first (Table 1)
    min_quorum_divisor: int = 5  # governance: d of Eq. 2, at first
    debating_min_s: int = 60  # governance: least time to vote on a proposal
    audit_permille: int = 0  # how many of a thousand receipts are audited; 0: none, and nobody opens a validation slice (docs/audits.md)
    model_codec: str = "raw"  # how models travel: one of MODEL_CODECS (docs/compression.md); the initial model always travels raw

    def __post_init__(self) -> None:
        fault = _find_fault(self)
        if fault:
            raise RulesError(fault)

    @cached_property
    def encoded(self) -> bytes:
        """The canonical document: a list of the version and the fields in their order here."""
        return cbor.encode([RULES_VERSION, *(getattr(self, f.name) for f in fields(self))])

    @cached_property
    def cid(self) -> Cid:
        return compute_cid(self.encoded, CODEC_DAG_CBOR)

    @property
    def digest(self) -> bytes:
        """What the contract stores: the 32 bytes of SHA-256 inside the CID."""
        return self.cid[4:]

    def compute_net(self, lane: str) -> bytes:
        """Field `net` of the vertices of one lane, `control` or `sensors`: no vertex counts in another session or lane."""
        return hashlib.sha256(b"learnae net 1\n" + self.cid + lane.encode()).digest()[:NET_BYTES]

    def compute_topic(self, lane: str) -> Topic:
        return Topic(f"/learnae/1/{self.codename}/{self.digest[:8].hex()}/{lane}")

    def compute_terms(self) -> SessionTerms:
        """What the contract of this session must have been created with."""
        return SessionTerms(
            rules_digest=self.digest,
            deposit_wei=self.deposit_wei,
            members_min=self.members_min,
            members_max=self.members_max,
            funding_ends_s=self.funding_ends_s,
            training_ends_s=self.training_ends_s,
            claiming_ends_s=self.claiming_ends_s,
            voting_ends_s=self.voting_ends_s,
            reject_quorum_permille=self.reject_quorum_permille,
            extension_max_s=self.extension_max_s,
            proposal_deposit_wei=self.proposal_deposit_wei,
            min_quorum_divisor=self.min_quorum_divisor,
            debating_min_s=self.debating_min_s,
        )


def _find_fault(rules: SessionRules) -> str:
    """The first thing that is wrong with the rules, in words, or an empty string."""
    for label, text in (("name", rules.name), ("codename", rules.codename)):
        if not 1 <= len(text) <= 64 or not text.isprintable() or "/" in text:
            return f"{label} {text[:70]!r} is not 1 to 64 printable characters without a slash"
    if len(rules.task_digest) != _DIGEST_BYTES:
        return "task_digest is not 32 bytes"
    if not is_cid(rules.initial_model):
        return "initial_model is not a CID"
    for label, value, least, most in (
        ("model_bytes", rules.model_bytes, 1, 2**40),
        ("slice_bytes", rules.slice_bytes, 64, 2**28),
        ("overuse_threshold", rules.overuse_threshold, 1, 2**32),
        ("train_permille", rules.train_permille, 0, 1000),
        ("slices_per_cycle", rules.slices_per_cycle, 1, 1024),
        ("reward_factor", rules.reward_factor, 1, 10**9),
        ("tip_wei_per_credit", rules.tip_wei_per_credit, 0, 10**24),
        ("chain_id", rules.chain_id, 1, 2**53),
        ("deposit_wei", rules.deposit_wei, 1, 10**27),
        ("members_min", rules.members_min, 1, 4095),
        ("members_max", rules.members_max, rules.members_min, 4095),
        ("starts_s", rules.starts_s, 0, 2**40),
        ("funding_ends_s", rules.funding_ends_s, rules.starts_s + 1, 2**40),
        ("training_ends_s", rules.training_ends_s, rules.funding_ends_s + 1, 2**40),
        ("claiming_ends_s", rules.claiming_ends_s, rules.training_ends_s + 1, 2**40),
        ("voting_ends_s", rules.voting_ends_s, rules.claiming_ends_s + 1, 2**40),
        ("final_s", rules.final_s, 0, rules.training_ends_s - rules.funding_ends_s),
        ("reject_quorum_permille", rules.reject_quorum_permille, 1, 1000),
        ("extension_max_s", rules.extension_max_s, 0, 10**8),
        ("proposal_deposit_wei", rules.proposal_deposit_wei, 0, rules.deposit_wei),
        ("min_quorum_divisor", rules.min_quorum_divisor, 2, 10),
        ("debating_min_s", rules.debating_min_s, 1, 56 * 86400),
        ("audit_permille", rules.audit_permille, 0, 1000 if rules.reward_mode == "dao" else 0),
    ):
        if not least <= value <= most:
            return f"{label} is {value}, expected {least} to {most}"
    for label, choice, known in (
        ("policy", rules.policy, POLICIES),
        ("reducer", rules.reducer, REDUCERS),
        ("reward_mode", rules.reward_mode, REWARD_MODES),
        ("reward_rule", rules.reward_rule, REWARD_RULES),
        ("model_codec", rules.model_codec, MODEL_CODECS),
    ):
        if choice not in known:
            return f"{label} is {choice[:40]!r}, expected one of {', '.join(known)}"
    if rules.audit_permille and rules.model_codec not in AUDITABLE_CODECS:
        codecs = ", ".join(AUDITABLE_CODECS)
        why = f"audits cannot tell how models were made that are rounded so much; use one of {codecs}, or no audits"
        return f"model_codec is {rules.model_codec!r}, but {why}"
    return ""


def decode_rules(encoded: bytes) -> SessionRules:
    """Read a rules document.

    Raises: RulesError: not canonical, another version, a field missing or out of its range.
    """
    if len(encoded) > RULES_BYTES_MAX:
        raise RulesError(f"{len(encoded)} bytes, at most {RULES_BYTES_MAX} are allowed")
    try:
        values = cbor.decode(encoded)
    except ValueError as error:
        raise RulesError(f"not dag-cbor ({str(error)[:80]})") from None
    names = [f.name for f in fields(SessionRules)]
    if not isinstance(values, list) or not values or values[0] != RULES_VERSION or len(values) != len(names) + 1:
        raise RulesError(f"not a rules document of version {RULES_VERSION}; a newer learnae may read it")
    types = {name: _plain_type(hint) for name, hint in get_type_hints(SessionRules).items() if name in names}
    for name, value in zip(names, values[1:], strict=True):
        if type(value) is not types[name]:
            raise RulesError(f"{name} is a {type(value).__name__}, expected {types[name].__name__}")
    rules = SessionRules(**dict(zip(names, values[1:], strict=True)))
    if rules.encoded != encoded:
        raise RulesError("not the canonical encoding")
    return rules


def _plain_type(hint: Any) -> type:
    while hasattr(hint, "__supertype__"):
        hint = hint.__supertype__
    assert isinstance(hint, type) and get_origin(hint) is None and not get_args(hint)
    return hint


@dataclass(frozen=True, kw_only=True)
class Ticket:
    """An invitation: the rules, the contract that holds the deposits, and peers that can be dialled (multiaddrs)."""

    rules: SessionRules
    contract: Address
    addresses: tuple[str, ...] = ()

    def to_text(self) -> str:
        """One line of letters and digits: `learnae1` and base32 of dag-cbor with a checksum."""
        body = cbor.encode([self.rules.encoded, self.contract, list(self.addresses)])
        check = hashlib.sha256(body).digest()[:4]
        return TICKET_PREFIX + base64.b32encode(body + check).decode().rstrip("=").lower()


def decode_ticket(text: str) -> Ticket:
    """Read a ticket as it was pasted.

    Raises: TicketError: not a ticket, cut off or mistyped; RulesError: its rules are not acceptable.
    """
    text = "".join(text.split())
    if not text.startswith(TICKET_PREFIX):
        raise TicketError(f"it begins with {text[:12]!r}, a ticket begins with {TICKET_PREFIX!r}")
    if len(text) > TICKET_BYTES_MAX:
        raise TicketError(f"it has {len(text)} characters, at most {TICKET_BYTES_MAX} are allowed")
    letters = text[len(TICKET_PREFIX) :].upper()
    try:
        raw = base64.b32decode(letters + "=" * (-len(letters) % 8))
    except ValueError:
        raise TicketError("it holds characters that no ticket has, or is cut off") from None
    body, check = raw[:-4], raw[-4:]
    if hashlib.sha256(body).digest()[:4] != check:
        raise TicketError("its checksum is wrong: it is cut off or mistyped")
    try:
        values = cbor.decode(body)
    except ValueError:
        values = None
    match values:
        case [bytes() as encoded, str() as contract, list() as addresses] if _are_addresses(contract, addresses):
            return Ticket(rules=decode_rules(encoded), contract=Address(contract), addresses=tuple(addresses))
    raise TicketError("its content is not a session's rules, contract and addresses")


def _are_addresses(contract: str, addresses: list[object]) -> bool:
    try:
        is_contract = len(bytes.fromhex(contract.removeprefix("0x"))) == 20 and contract.startswith("0x")
    except ValueError:
        is_contract = False
    return (
        is_contract
        and len(addresses) <= ADDRESSES_MAX
        and all(is_address(a) and a.startswith("/") for a in addresses)
    )


def is_address(value: object) -> TypeGuard[str]:
    """Whether a value may stand in a ticket or an introduction as one of the addresses; what is in it, only who dials it can tell."""
    return isinstance(value, str) and 1 <= len(value) <= ADDRESS_CHARS_MAX and value.isprintable()


def describe_session(rules: SessionRules) -> str:
    """One line that names a session for people: its name and the first letters of its CID."""
    return f"{rules.name} ({cid_text(rules.cid)[:16]}…)"
