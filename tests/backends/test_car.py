"""CAR version 1: the example of its specification, and files that are broken or hostile."""

from __future__ import annotations

import io
from random import Random

import pytest

from learnae.backends.car import HEADER_BYTES_MAX, SECTION_BYTES_MAX, read_car, walk_file, write_car
from learnae.backends.errors import CarError
from learnae.backends.memory_blocks import MemoryBlocks
from learnae.backends.unixfs import LEAF_BYTES, build_blocks
from learnae.ids import CODEC_RAW, Cid, cid_text, compute_cid, is_cid
from tests.backends.builders_car import SPEC_CAR, SPEC_CIDV0_SECTION, SPEC_ROOTS


def read_all(car: bytes) -> tuple[tuple[Cid, ...], list[tuple[Cid, bytes]]]:
    roots, blocks = read_car(io.BytesIO(car), "x.car")
    return roots, list(blocks)


def test_car__of_the_specification_is_read() -> None:
    """IPLD's fixture carv1-basic: its roots, and its first three blocks."""
    roots, blocks = read_all(SPEC_CAR)

    assert [cid_text(root) for root in roots] == SPEC_ROOTS
    assert [block for _, block in blocks] == [b"aaaa", b"bbbb", b"cccc"]
    assert all(cid == compute_cid(block, CODEC_RAW) for cid, block in blocks)


def test_car__written_is_byte_for_byte_that_of_the_specification() -> None:
    roots, blocks = read_all(SPEC_CAR)
    out = io.BytesIO()

    assert write_car(out, roots, blocks) == len(SPEC_CAR)
    assert out.getvalue() == SPEC_CAR


@pytest.mark.parametrize("size", [0, 1, LEAF_BYTES, 3 * LEAF_BYTES + 1, 175 * LEAF_BYTES])
def test_car__of_a_file_holds_every_block_once_root_first(size: int) -> None:
    """`ipfs dag export`: depth first. The last size has two levels of nodes, and equal leaves that are written once."""
    content = Random(size).randbytes(min(size, 4 * LEAF_BYTES)) if size < 5 * LEAF_BYTES else bytes(size)
    store = MemoryBlocks()
    root = store.put_file(content)
    out = io.BytesIO()
    write_car(out, [root], [(cid, block or b"") for cid, block in walk_file(root, store)])

    roots, blocks = read_all(out.getvalue())

    assert roots == (root,)
    assert blocks[0][0] == root
    assert dict(blocks) == dict(build_blocks(content))
    assert len(blocks) == len(dict(build_blocks(content)))


def test_car__cut_short_anywhere_is_refused() -> None:
    """A download that broke off: every length but those between two blocks is an error, and those have fewer blocks."""
    _, whole = read_all(SPEC_CAR)
    ends = {len(SPEC_CAR)} | {len(SPEC_CAR) - 41 * number for number in (1, 2, 3)}
    for length in range(len(SPEC_CAR)):
        if length in ends:
            assert len(read_all(SPEC_CAR[:length])[1]) < len(whole)
        else:
            with pytest.raises(CarError, match=r"it ends in the middle|it is empty"):
                read_all(SPEC_CAR[:length])


def test_car__changed_bytes_of_a_block_are_refused() -> None:
    with pytest.raises(CarError, match=r"the bytes of block 3 do not hash to its CID bafkrei.*; get the file again; nothing was kept"):
        read_all(SPEC_CAR[:-1] + b"x")


def test_car__with_foreign_cids_says_how_to_make_a_better_one() -> None:
    """The fixture's fourth block is named by a CIDv0."""
    with pytest.raises(CarError, match=r"block 4 is named by a CIDv0.*ipfs add --cid-version=1 --raw-leaves"):
        read_all(SPEC_CAR + SPEC_CIDV0_SECTION)
    blake = b"\x01\x55\xb2\x20" + bytes(32)
    assert not is_cid(blake)
    with pytest.raises(CarError, match="block 4 is named by 0x0155b220"):
        read_all(SPEC_CAR + bytes((36,)) + blake)


@pytest.mark.parametrize(
    ("car", "why"),
    [
        (b"", "it is empty"),
        (b"\x05hello", "does not begin with the header"),
        (b"\x0a\xa1\x67version\x02", "it is CAR version 2; export it as version 1"),
        (b"\x0a\xa1\x67version\x01", "its header is not that of CAR version 1"),
        (b"\x12\xa2\x65roots\x81\x01\x67version\x01", "a root is no CID"),
        (b"\x00", "does not begin with the header"),
        (b"\x80\x80\x80\x80\x01", "a part of 256 MiB or more"),
        (b"\x81\x80\x04" + bytes(HEADER_BYTES_MAX + 1), f"a part of {HEADER_BYTES_MAX + 1} bytes"),
        (SPEC_CAR + b"\xff\xff\xff\x7f", f"at most {SECTION_BYTES_MAX} are kept here"),
    ],
    ids=range(9),
)
def test_car__hostile_header_or_length_is_refused(car: bytes, why: str) -> None:
    """protocol.md, Limits: no length of a stranger is believed before it is compared with a limit."""
    with pytest.raises(CarError, match=why):
        read_all(car)


def test_car__is_read_block_by_block() -> None:
    """Memory: reading one block takes no more of the file than that block."""

    class Counting(io.BytesIO):
        taken = 0

        def read(self, size: int | None = -1, /) -> bytes:
            content = super().read(size)
            self.taken += len(content)
            return content

    file = Counting(SPEC_CAR)
    _, blocks = read_car(file, "x.car")
    next(blocks)
    assert file.taken == len(SPEC_CAR) - 2 * 41
