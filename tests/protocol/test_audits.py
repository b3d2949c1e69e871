"""Audits: draws nobody can steer, jurors without a part in it, freezing by a majority of the others, tolerance."""

from __future__ import annotations

from collections import Counter

import pytest

from learnae.ids import Credits, PeerId
from learnae.protocol.audits import (
    JURORS,
    LIES,
    AuditBook,
    AuditedReceipt,
    Drawn,
    compute_beacon_s,
    compute_tolerance,
    draw_receipts,
    judge_counts,
)
from learnae.protocol.messages import AuditVerdict, Checkpoint, Finding, HelpReported, ValidationCommitted
from tests.protocol.builders import ALICE, BOB, CAROL, CLAIMING_ENDS_S, DAVE, ERIN, EVERYBODY, MALLORY, RULES, TRAINING_ENDS_S, make_cid

BEACON = bytes(range(32))


def make_receipt(number: int, *, credits: int = 10, reporter: PeerId = ALICE, helper: PeerId = BOB) -> AuditedReceipt:
    message = HelpReported(
        helper=helper,
        announcement=make_cid(f"announcement {number}"),
        before=make_cid(f"before {number}"),
        after=make_cid(f"after {number}"),
        correct_before=50,
        correct_after=60,
        total=1000,
        credits=Credits(credits),
        owed=Credits(credits),
    )
    return AuditedReceipt(make_cid(f"receipt {number}"), reporter, message, make_cid(f"remote {number}"))


def beacons(count: int) -> list[bytes]:
    return [number.to_bytes(32, "big") for number in range(count)]


def test_draw__takes_the_agreed_part_and_at_least_one() -> None:
    row = [make_receipt(number) for number in range(40)]
    assert draw_receipts(BEACON, [], EVERYBODY, permille=100) == []
    assert draw_receipts(BEACON, row, EVERYBODY, permille=0) == []
    assert len(draw_receipts(BEACON, row[:1], EVERYBODY, permille=1)) == 1
    assert {len(draw_receipts(beacon, row, EVERYBODY, permille=100)) for beacon in beacons(50)} <= {1, 2, 3, 4}
    assert max(len(draw_receipts(beacon, row, EVERYBODY, permille=100)) for beacon in beacons(50)) == 4
    assert draw_receipts(BEACON, row, EVERYBODY, permille=100) == draw_receipts(BEACON, row, sorted(EVERYBODY), permille=100)


def test_draw__is_likelier_the_more_a_receipt_claims() -> None:
    """One large lie among nineteen small truths."""
    row = [*(make_receipt(number, credits=10) for number in range(19)), make_receipt(19, credits=1000)]
    drawn = Counter(drawn.receipt for beacon in beacons(400) for drawn in draw_receipts(beacon, row, EVERYBODY, permille=50))
    assert drawn[row[19].cid] > 0.75 * 400
    assert drawn.total() == 400


def test_jurors__have_no_part_in_it_and_change_with_the_beacon() -> None:
    row = [make_receipt(0)]
    juries = [draw_receipts(beacon, row, EVERYBODY, permille=1000)[0].jurors for beacon in beacons(200)]
    assert all(len(set(jury)) == JURORS for jury in juries)
    asked = Counter(juror for jury in juries for juror in jury)
    assert set(asked) == {CAROL, DAVE, ERIN, MALLORY}, "neither the reporter nor the helper"
    assert min(asked.values()) > 100, "each of the four about 150 times"
    few = draw_receipts(BEACON, row, {ALICE, BOB, CAROL}, permille=1000)
    assert few[0].jurors == (CAROL,)


def accuse(
    book: AuditBook, auditor: PeerId, receipt: AuditedReceipt, *, finding: Finding = Finding.WRONG_COUNTS, sequence: int = 5
) -> None:
    verdict = AuditVerdict(subject=receipt.cid, finding=finding)
    book.add_verdict(auditor, sequence, verdict, issuer=receipt.reporter, subject=receipt.message)


def test_freeze__needs_more_than_half_of_the_others() -> None:
    """Six members: of the four that have no part in it, three must accuse the same receipt."""
    book, receipt, other = AuditBook(), make_receipt(0), make_receipt(1)
    accuse(book, CAROL, receipt)
    accuse(book, DAVE, receipt)
    accuse(book, ERIN, other)
    accuse(book, MALLORY, receipt, finding=Finding.UPHELD)
    assert book.compute_frozen(EVERYBODY, lambda auditor: 99) == frozenset()
    accuse(book, ERIN, receipt)
    assert book.compute_frozen(EVERYBODY, lambda auditor: 99) == {ALICE}


def test_lie__is_what_only_opened_files_can_show() -> None:
    """Who opened nothing is frozen and no more; a majority for a lie on one receipt is needed to call it one."""
    book, receipt = AuditBook(), make_receipt(0)
    for auditor in (CAROL, DAVE):
        accuse(book, auditor, receipt, finding=Finding.NOT_DERIVED)
    accuse(book, ERIN, receipt, finding=Finding.UNAVAILABLE)
    assert book.compute_frozen(EVERYBODY, lambda auditor: 99) == {ALICE}
    assert book.compute_frozen(EVERYBODY, lambda auditor: 99, findings=LIES) == frozenset()
    accuse(book, MALLORY, receipt, finding=Finding.WRONG_COUNTS)
    assert book.compute_frozen(EVERYBODY, lambda auditor: 99, findings=LIES) == {ALICE}


@pytest.mark.parametrize("why", ["no part", "not a member", "not heard of", "changed its mind"])
def test_freeze__does_not_count(why: str) -> None:
    book, receipt = AuditBook(), make_receipt(0)
    accuse(book, CAROL, receipt)
    accuse(book, DAVE, receipt)
    members = EVERYBODY
    match why:
        case "no part":
            accuse(book, BOB, receipt)
        case "not a member":
            members = EVERYBODY - {MALLORY}
            accuse(book, MALLORY, receipt)
            assert book.compute_frozen(members, lambda auditor: 99) == {ALICE}, "two of three"
            members = EVERYBODY - {MALLORY} | {PeerId(bytes(32))}
        case "not heard of":
            accuse(book, ERIN, receipt, sequence=100)
        case "changed its mind":
            accuse(book, ERIN, receipt, finding=Finding.UPHELD)
            accuse(book, ERIN, receipt)
    assert book.compute_frozen(members, lambda auditor: 99) == frozenset()


def test_freeze__of_a_row_that_was_closed_late() -> None:
    """Nobody helped it: five of six may judge, three must agree."""
    book, closing = AuditBook(), make_cid("closing")
    late = AuditVerdict(subject=closing, finding=Finding.LATE)
    for number, auditor in enumerate((BOB, CAROL, DAVE)):
        assert book.compute_frozen(EVERYBODY, lambda auditor: 99) == frozenset(), number
        book.add_verdict(auditor, 3, late, issuer=ALICE, subject=Checkpoint(closing=True, heads=()))
    assert book.compute_frozen(EVERYBODY, lambda auditor: 99) == {ALICE}
    assert book.compute_accused() == {BOB: 3, CAROL: 3, DAVE: 3}


def test_decided__when_all_jurors_uphold_or_a_majority_has_spoken() -> None:
    receipt = make_receipt(0)
    drawn = Drawn(receipt.cid, (CAROL, DAVE))
    book = AuditBook()

    def is_decided() -> bool:
        return book.is_decided(drawn, ALICE, BOB, EVERYBODY)

    assert not is_decided()
    accuse(book, CAROL, receipt, finding=Finding.UPHELD)
    assert not is_decided()
    accuse(book, DAVE, receipt)
    assert not is_decided() and book.is_accused_by(receipt.cid, drawn.jurors)
    accuse(book, ERIN, receipt)
    assert not is_decided(), "two of four"
    accuse(book, MALLORY, receipt)
    assert is_decided()
    calm = AuditBook()
    for juror in drawn.jurors:
        accuse(calm, juror, receipt, finding=Finding.UPHELD)
    assert calm.is_decided(drawn, ALICE, BOB, EVERYBODY) and not calm.is_accused_by(receipt.cid, drawn.jurors)


def test_commitment__only_the_first_counts() -> None:
    book = AuditBook()
    first = ValidationCommitted(slice=make_cid("easy"), total=10)
    book.add_commitment(ALICE, first)
    book.add_commitment(ALICE, ValidationCommitted(slice=make_cid("easier"), total=10))
    assert book.find_commitment(ALICE) == first and book.find_commitment(BOB) is None


def test_counts__may_differ_by_the_tolerance_and_not_by_more() -> None:
    message = make_receipt(0).message
    tolerance = compute_tolerance(1000)
    assert tolerance == 6

    def judge(before: int, after: int, total: int = 1000, *, derives: bool = True) -> Finding:
        return judge_counts(message, correct_before=before, correct_after=after, total=total, derives=derives)

    assert judge(50, 60) is judge(50 - tolerance, 60 + tolerance) is Finding.UPHELD
    assert judge(50 - tolerance - 1, 60) is judge(50, 60 + tolerance + 1) is Finding.WRONG_COUNTS
    assert judge(50, 60, total=999) is Finding.WRONG_COUNTS
    assert judge(50, 60, derives=False) is Finding.NOT_DERIVED


def test_beacon__comes_after_the_rows_are_closed_and_moves_with_the_stage() -> None:
    terms = RULES.compute_terms()
    assert TRAINING_ENDS_S < compute_beacon_s(terms, TRAINING_ENDS_S) < CLAIMING_ENDS_S
    assert compute_beacon_s(terms, TRAINING_ENDS_S + 50) == compute_beacon_s(terms, TRAINING_ENDS_S) + 50
