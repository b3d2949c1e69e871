"""Files as other IPFS programs write them, and what is made of trees that lie."""

from __future__ import annotations

from random import Random

import pytest
from libp2p.bitswap.pb.dag_pb_pb2 import PBLink, PBNode
from libp2p.bitswap.pb.unixfs_pb2 import Data

from learnae.backends.unixfs import LEAF_BYTES, NodeError, build_blocks
from learnae.backends.unixfs_read import DEPTH_MAX, WINDOW, FileReader, parse_any_cid
from learnae.ids import CODEC_DAG_CBOR, CODEC_DAG_PB, Cid, compute_cid

Blocks = dict[Cid, bytes]


def make_leaf(blocks: Blocks, content: bytes, *, kind: Data.DataType.ValueType = Data.File) -> Cid:
    return keep(blocks, PBNode(Data=Data(Type=kind, Data=content, filesize=len(content)).SerializeToString()))


def make_node(blocks: Blocks, below: list[tuple[Cid, int]], *, inline: bytes = b"", version_0: bool = True) -> Cid:
    sizes = [size for _, size in below]
    told = Data(Type=Data.File, Data=inline, filesize=len(inline) + sum(sizes), blocksizes=sizes)
    return keep(blocks, PBNode(Data=told.SerializeToString(), Links=[PBLink(Hash=cid[2:] if version_0 else cid) for cid, _ in below]))


def keep(blocks: Blocks, node: PBNode) -> Cid:
    block = node.SerializeToString()
    cid = compute_cid(block, CODEC_DAG_PB)
    blocks[cid] = block
    return cid


def read_all(root: Cid, blocks: Blocks, *, bytes_max: int = 1 << 30, rng: Random | None = None, asks: int | None = None) -> bytes:
    """Read with the blocks of each request coming in any order; in `asks` requests, if that is given."""
    reader, out = FileReader(root, bytes_max=bytes_max), b""
    asked: list[Cid] = []
    count = 0
    while True:
        out += b"".join(reader.read())
        if reader.is_done:
            assert asks in (None, count)
            return out
        more = reader.take_wanted(WINDOW)
        asked, count = asked + more, count + len(more)
        assert asked, "something is missing, and nothing is wanted"
        cid = asked.pop(0 if rng is None else rng.randrange(len(asked)))
        reader.handle_block(cid, blocks[cid])


def test_file__of_wrapped_leaves_of_uneven_sizes_is_read_in_order() -> None:
    """CIDv0 as Kubo adds by default; other chunkers cut unevenly, and trickle trees have bytes in nodes."""
    rng, blocks = Random(1), Blocks()
    parts = [rng.randbytes(rng.randrange(1, 900_000)) for _ in range(50)]
    leaves = [(make_leaf(blocks, part, kind=rng.choice([Data.File, Data.Raw])), len(part)) for part in parts]
    left = make_node(blocks, leaves[:20])
    root = make_node(blocks, [(left, sum(size for _, size in leaves[:20])), *leaves[20:]], inline=b"head", version_0=False)
    assert read_all(root, blocks, rng=rng) == b"head" + b"".join(parts)


def test_file__of_this_program_is_read_too_and_a_repeated_block_is_fetched_once_while_it_is_in_use() -> None:
    content = bytes(20 * LEAF_BYTES) + b"end"
    blocks = dict(build_blocks(content))
    assert len(blocks) == 3 and read_all(list(blocks)[-1], blocks, asks=3) == content


def test_file__without_bytes_and_of_one_raw_block() -> None:
    blocks: Blocks = {}
    assert read_all(make_leaf(blocks, b""), blocks) == b""
    raw = compute_cid(b"raw")
    assert read_all(raw, {raw: b"raw"}) == b"raw"


def test_reader__asks_for_no_more_than_a_window_ahead() -> None:
    """What waits in memory is bounded, however many links a node has."""
    blocks: Blocks = {}
    leaves = [(make_leaf(blocks, b"%d" % number), len(b"%d" % number)) for number in range(500)]
    root = make_node(blocks, leaves)
    reader = FileReader(root, bytes_max=10_000)
    reader.handle_block(reader.take_wanted(9)[0], blocks[root])
    assert list(reader.read()) == []
    assert reader.take_wanted(1000) == [cid for cid, _ in leaves[:WINDOW]]
    assert reader.take_wanted(1000) == [], "each is told once"
    reader.handle_block(leaves[WINDOW][0], blocks[leaves[WINDOW][0]])
    for cid, _ in leaves[:WINDOW]:
        reader.handle_block(cid, blocks[cid])
    assert b"".join(reader.read()) == b"".join(b"%d" % number for number in range(WINDOW)), "what was not asked for is not held"


@pytest.mark.parametrize("case", ["too large", "wrong part", "deep", "no bytes", "directory", "nonsense", "sizes", "hash"])
def test_tree__that_lies_is_refused_in_words(case: str) -> None:
    """A tree can repeat a block without end: what counts are the sizes that each node was promised to have."""
    blocks: Blocks = {}
    leaf = make_leaf(blocks, b"leaf")
    words = "it has 4 bytes, at most 3 are taken"
    root = leaf
    match case:
        case "wrong part":
            root, words = make_node(blocks, [(leaf, 1)]), "a part of it has 4 bytes where the node above says 1"
        case "deep":
            for _ in range(DEPTH_MAX + 1):
                root = make_node(blocks, [(root, 4)])
            words = f"and {DEPTH_MAX} nodes above it"
        case "no bytes":
            root, words = make_node(blocks, [(leaf, 0)]), "a part of it has no bytes"
        case "directory":
            root, words = make_leaf(blocks, b"", kind=Data.Directory), "it is a directory, not a file"
        case "nonsense":
            root, words = compute_cid(b"\xff\xff", CODEC_DAG_PB), "neither dag-pb nor UnixFS"
            blocks[root] = b"\xff\xff"
        case "sizes":
            unsized = PBNode(Data=Data(Type=Data.File).SerializeToString(), Links=[PBLink(Hash=leaf)])
            root, words = keep(blocks, unsized), "has 1 links, 0 sizes"
        case "hash":
            root, words = make_node(blocks, [(Cid(b"\x01\x55\x1b\x20" + bytes(32)), 4)], version_0=False), "another hash than SHA-256"
    with pytest.raises(NodeError, match=words):
        read_all(root, blocks, bytes_max=3 if case == "too large" else 100)


def test_cid__of_both_versions_is_read() -> None:
    """`Qm...` of these bytes is the example of IPFS's introduction, hello world and a line end."""
    blocks: Blocks = {}
    assert parse_any_cid("QmT78zSuBmuS4z925WZfrqQ1qHaJ56DQaTfyMUF7F8ff5o") == make_leaf(blocks, b"hello world\n")
    for text in ("QmT78zSuBmuS4z925WZfrqQ1qHaJ56DQaTfyMUF7F8ff5", "Qm" + "0" * 44, "zdj7W", ""):
        with pytest.raises(ValueError, match="not a"):
            parse_any_cid(text)
    with pytest.raises(NodeError, match="of data, not of a file"):
        FileReader(compute_cid(b"", CODEC_DAG_CBOR), bytes_max=1)
