"""Files as IPFS sees them: known CIDs, and hostile nodes."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from learnae.backends.unixfs import (
    LEAF_BYTES,
    LINKS_MAX,
    NODE_BYTES_MAX,
    NodeError,
    build_blocks,
    collect_all,
    collect_blocks,
    compute_child_sizes,
    compute_depth,
    compute_root,
    encode_node,
    parse_node,
    read_file,
    view_file,
)
from learnae.ids import CODEC_DAG_CBOR, CODEC_DAG_PB, CODEC_RAW, Cid, cid_text, compute_cid
from learnae.ports import FileLostError


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (0, "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku"),
        (1, "bafkreifmvsdmbzqjzkig6yzlbyw2ztfsw56sfmdcd4qox3hbusbvxe7w6a"),
        (LEAF_BYTES, "bafkreidphq64r7w43wzrbqlzdqbrhwppjr6vlo2nwwvvglesnb3smqqhvu"),
        (LEAF_BYTES + 1, "bafybeig65nf57o65erb3atczhf55kulyn7zgg5vfv3ypyes33tfkihctsm"),
        (174 * LEAF_BYTES, "bafybeib2g3l2kyqp7xu3ig35im4pcc76aitslpgfrgvhnnf2v4ybxzdhqa"),
        (174 * LEAF_BYTES + 1, "bafybeibpkro5kvntoar2fnzp2tiexokh2fpsadtefbob3tt27lmbilbjim"),
    ],
)
def test_root__of_known_content_is_what_ipfs_add_prints(size: int, expected: str) -> None:
    """protocol.md, Blocks. The shapes were compared with Kubo's own; a node with one link, at 174 leaves and one byte, is one."""
    content = (b"learnae" * (size // 7 + 1))[:size]
    assert cid_text(compute_root(content)) == expected


@pytest.mark.parametrize("size", [LEAF_BYTES + 1, 2 * LEAF_BYTES, 5 * LEAF_BYTES - 1, 173 * LEAF_BYTES])
def test_root__equals_that_of_another_implementation(size: int) -> None:
    """py-libp2p writes the same trees, except that it leaves out nodes with one link, which Kubo writes."""
    from libp2p.bitswap.dag_pb import balanced_layout

    content = Random(size).randbytes(size)
    leaves: list[tuple[bytes, bytes | None, int]] = []
    for cid, block in build_blocks(content):
        if cid[1] == CODEC_RAW:
            leaves.append((cid, block, len(block)))
    assert balanced_layout(leaves)[0] == compute_root(content)


@given(file_bytes=st.integers(LEAF_BYTES + 1, LEAF_BYTES * LINKS_MAX**2 * 3))
@settings(max_examples=30, deadline=None)
def test_node__read_back_is_what_was_written(file_bytes: int) -> None:
    depth = compute_depth(file_bytes)
    sizes = compute_child_sizes(file_bytes, depth)
    assert sum(sizes) == file_bytes
    codec = CODEC_RAW if depth == 1 else CODEC_DAG_PB
    cids = [compute_cid(b"%d" % number, codec) for number in range(len(sizes))]
    node = encode_node(cids, file_bytes, depth)
    assert len(node) <= NODE_BYTES_MAX
    children = parse_node(node)
    assert [child.cid for child in children] == cids
    assert [child.file_bytes for child in children] == sizes
    assert {child.depth for child in children} == {depth - 1}


@given(position=st.integers(0, 10**9), byte=st.integers(0, 255))
@settings(max_examples=300, deadline=None)
def test_node__changed_anywhere_but_in_a_cid_is_refused(position: int, byte: int) -> None:
    """threats.md: malformed bytes are a verdict. Only the 32 bytes of a hash may differ between two nodes of one shape."""
    block = _node(3)
    position %= len(block)
    changed = block[:position] + bytes((byte,)) + block[position + 1 :]
    try:
        children = parse_node(changed)
    except NodeError:
        assert changed != block
    else:
        assert encode_node([child.cid for child in children], 2 * LEAF_BYTES + 5, 1) == changed


@given(block=st.binary(max_size=300))
@settings(max_examples=300, deadline=None)
def test_node__of_random_bytes_is_refused(block: bytes) -> None:
    with pytest.raises(NodeError):
        parse_node(block)


@pytest.mark.parametrize(
    ("block", "why"),
    [
        (b"", "no UnixFS part"),
        (bytes(NODE_BYTES_MAX + 1), "at most 16384 are allowed"),
        (b"\x0a\x07\x08\x02\x18\x80\x80\x80\x01", "links of the wrong number"),
        (b"\x0a\x0c\x08\x02\x18" + b"\xff" * 8 + b"\x7f", "at most 1380"),
        (b"\x0a\x04\x08\x02\x18\x05", "one raw block, not a node"),
        (b"\x0a\x04\x08\x01\x18\x05", "not that of a file"),
        (b"\x12\x05\x0a\x24abc", "cut short|no UnixFS part"),
        (b"\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", "longer than 63 bits"),
    ],
)
def test_node__hostile_ones_are_refused_with_the_reason(block: bytes, why: str) -> None:
    with pytest.raises(NodeError, match=why):
        parse_node(block)


def test_node__that_differs_from_what_the_one_above_said_is_refused() -> None:
    block = _node(3)
    assert len(parse_node(block, file_bytes=2 * LEAF_BYTES + 5, depth=1)) == 3
    with pytest.raises(NodeError, match="the one above it says"):
        parse_node(block, file_bytes=3 * LEAF_BYTES, depth=1)
    with pytest.raises(NodeError, match="links of the wrong number or kind"):
        parse_node(block, file_bytes=2 * LEAF_BYTES + 5, depth=2)


def test_node__links_of_the_wrong_codec_are_refused() -> None:
    cids = [compute_cid(b"%d" % number, CODEC_DAG_CBOR) for number in range(2)]
    with pytest.raises(NodeError, match="of the wrong number or kind"):
        parse_node(encode_node(cids, 2 * LEAF_BYTES, 1))


def test_view__file_that_goes_while_it_is_read_is_told_and_never_cut_short() -> None:
    content = Random(1).randbytes(2 * LEAF_BYTES + 3)
    blocks = dict(build_blocks(content))
    root = compute_root(content)
    view = view_file(root, blocks.get, bytes_max=len(content))
    assert view is not None and len(view) == len(content)
    first = compute_cid(content[:LEAF_BYTES])
    for instead in (b"", content[: LEAF_BYTES - 1]):
        blocks[first] = instead
        with pytest.raises(FileLostError) as error:
            list(view)
        assert error.value.cid == root
    del blocks[first]
    with pytest.raises(FileLostError, match="has to be fetched again"):
        list(view)
    assert read_file(root, blocks.get, bytes_max=len(content)) is None
    assert view_file(root, {}.get, bytes_max=len(content)) is None


def test_collect__gives_leaves_in_order_and_none_if_a_node_is_absent_or_the_file_too_large() -> None:
    content = Random(1).randbytes(175 * LEAF_BYTES + 3)
    blocks = dict(build_blocks(content))
    root = compute_root(content)
    leaves = collect_blocks(root, blocks.get)
    assert leaves is not None
    assert b"".join(blocks[leaf.cid] for leaf in leaves) == content
    assert collect_blocks(root, blocks.get, bytes_max=len(content) - 1) is None
    everything = collect_all(root, blocks.get)
    assert everything is not None
    assert set(everything) == set(blocks)
    inner = next(cid for cid in blocks if cid[1] == CODEC_DAG_PB and cid != root)
    assert collect_blocks(root, {cid: block for cid, block in blocks.items() if cid != inner}.get) is None


def _node(links: int) -> bytes:
    cids: list[Cid] = [compute_cid(b"%d" % number, CODEC_RAW) for number in range(links)]
    return encode_node(cids, (links - 1) * LEAF_BYTES + 5, 1)
