"""`learnae ipfs`: files of a node's block store, with the CIDs of IPFS, and whatever can go wrong with them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from learnae.backends.disk_blocks import DiskBlocks
from learnae.backends.disk_journal import DiskJournal
from learnae.backends.unixfs import LEAF_BYTES, build_blocks, compute_root
from learnae.cli import main
from learnae.cli.folder import NodeFolder
from learnae.ids import CODEC_RAW, cid_text, compute_cid, parse_cid
from tests.backends.builders_car import SPEC_CAR
from tests.cli.conftest import snapshot

Refuse = Callable[..., str]
HELLO = "bafkreifjjcie6lypi6ny7amxnfftagclbuxndqonfipmb64f2km2devei4"  # what Kubo's own pages print for "hello world" and a line end


@pytest.fixture
def node(tmp_path: Path) -> Path:
    """A node's folder with an empty block store."""
    folder = tmp_path / "node"
    DiskBlocks(NodeFolder(folder).blocks)
    return folder


@pytest.fixture
def large(tmp_path: Path) -> Path:
    path = tmp_path / "large.bin"
    path.write_bytes(Random(5).randbytes(3 * LEAF_BYTES + 17))
    return path


def add(node: Path, *words: str, capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["ipfs", "add", str(node), *words]) == 0
    return capsys.readouterr().out.split()[0]


def open_store(node: Path) -> DiskBlocks:
    return DiskBlocks(NodeFolder(node).blocks, read_only=True)


def test_add__prints_the_cid_that_ipfs_prints_and_pins(node: Path, large: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Issue, "learnae ipfs": CIDs are those of `ipfs add --cid-version=1 --raw-leaves`."""
    small = tmp_path / "hello.txt"
    small.write_text("hello world\n")

    assert main(["ipfs", "add", str(node), str(small), str(large)]) == 0

    lines = capsys.readouterr().out.splitlines()
    root = cid_text(compute_root(large.read_bytes()))
    assert lines == [f"{HELLO}  {small}", f"{root}  {large}"]
    assert open_store(node).pins == {parse_cid(HELLO), parse_cid(root)}
    assert open_store(node).get_public_block(parse_cid(HELLO)) == b"hello world\n"


def test_add__private_is_never_given_to_the_network(node: Path, large: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cid = parse_cid(add(node, "--private", "--no-pin", str(large), capsys=capsys))

    store = open_store(node)
    assert store.get_file(cid, bytes_max=1 << 20) == large.read_bytes()
    assert store.get_public_block(cid) is None
    assert store.pins == frozenset()


def test_get__gives_the_file_back(node: Path, large: Path, tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    main(["ipfs", "add", str(node), str(large)])
    cid = capsysbinary.readouterr().out.split()[0].decode()

    assert main(["ipfs", "get", str(node), cid, "--out", str(tmp_path / "back")]) == 0
    assert (tmp_path / "back").read_bytes() == large.read_bytes()
    capsysbinary.readouterr()
    assert main(["ipfs", "get", str(node), cid, "--out", "-"]) == 0
    assert capsysbinary.readouterr().out == large.read_bytes()


def test_get__does_not_overwrite(node: Path, large: Path, refuse: Refuse, capsys: pytest.CaptureFixture[str]) -> None:
    cid = add(node, str(large), capsys=capsys)
    before = large.read_bytes()
    assert "exists already and is not overwritten" in refuse(["ipfs", "get", str(node), cid, "--out", str(large)], status=2)
    assert large.read_bytes() == before


def test_get__from_elsewhere_needs_an_address_and_no_folder(node: Path, tmp_path: Path, refuse: Refuse) -> None:
    nobody = "/ip4/127.0.0.1/tcp/1/p2p/12D3KooWPjceQrSwdWXPyLLeABRXmuqt69Rg3sBYbU1Nft9HyQ6X"
    assert "give either the folder of a node" in refuse(["ipfs", "get", HELLO], status=2)
    assert "give either the folder of a node" in refuse(["ipfs", "get", str(node), HELLO, "--from", nobody], status=2)
    assert "'Qm1' is not a CID with SHA-256" in refuse(["ipfs", "get", "Qm1", "--from", nobody], status=2)
    assert "is not an address that can be used here" in refuse(["ipfs", "get", HELLO, "--from", "localhost:4001"])
    out = tmp_path / "out"
    assert "no peer answered at" in refuse(["ipfs", "get", HELLO, "--from", nobody, "--out", str(out)])
    assert not out.exists()


def test_get__of_a_damaged_file_leaves_nothing(
    node: Path, large: Path, tmp_path: Path, refuse: Refuse, capsys: pytest.CaptureFixture[str]
) -> None:
    """Bit rot: each block is hashed as it is read; the file appears only when it is whole."""
    cid = add(node, str(large), capsys=capsys)
    pack = next((node / "blocks" / "packs").iterdir())
    content = bytearray(pack.read_bytes())
    content[3 * LEAF_BYTES] ^= 1
    pack.write_bytes(content)

    error = refuse(["ipfs", "get", str(node), cid, "--out", str(tmp_path / "out" / "back")])
    assert "no such file or directory" in error
    assert "1 of its blocks are not there or were damaged" in refuse(["ipfs", "get", str(node), cid, "--out", str(tmp_path / "back")])
    assert not list(tmp_path.glob("back*"))


@pytest.mark.parametrize("command", ["get", "export", "pin", "ls", "unpin"])
def test_command__cid_that_is_not_there(node: Path, command: str, tmp_path: Path, refuse: Refuse) -> None:
    words = ["ipfs", command, str(node), HELLO, *([str(tmp_path / "x.car")] if command == "export" else [])]
    error = refuse(words)
    assert ("it is not pinned" if command == "unpin" else "it is not there") in error
    assert f"`learnae ipfs ls {node}` shows what is there" in error
    assert not list(tmp_path.glob("x.car*"))


@pytest.mark.parametrize("cid", ["QmPutGYjSUJ8ALZvZUDR1xpkTRpad8ko2MWi51Ybf11Gmm", "bafy", "hello", HELLO[:-1] + "j"])
def test_command__text_that_is_no_cid(node: Path, cid: str, refuse: Refuse) -> None:
    error = refuse(["ipfs", "get", str(node), cid], status=2)
    assert "is not a CID as this program uses them (bafy..., bafk...: version 1, SHA-256)" in error
    assert ("--cid-version=1" in error) == cid.startswith("Qm")


def test_command__folder_without_a_node(tmp_path: Path, large: Path, refuse: Refuse) -> None:
    """A mistyped folder is told, not made."""
    nowhere = tmp_path / "nod"
    assert "no node lives there" in refuse(["ipfs", "add", str(nowhere), str(large)])
    assert "there is no block store in it" in refuse(["ipfs", "ls", str(nowhere)])
    assert not nowhere.exists()


def test_pin_and_unpin__decide_what_stays_when_room_is_needed(node: Path, large: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cid = add(node, "--no-pin", str(large), capsys=capsys)
    for command, expected in (("pin", {parse_cid(cid)}), ("pin", {parse_cid(cid)}), ("unpin", set())):
        assert main(["ipfs", command, str(node), cid]) == 0
        assert open_store(node).pins == expected


def test_ls__shows_files_not_their_parts(node: Path, large: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = tmp_path / "small"
    small.write_bytes(b"few")
    roots = {add(node, str(large), capsys=capsys): large, add(node, "--private", "--no-pin", str(small), capsys=capsys): small}

    assert main(["ipfs", "ls", str(node), "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert {row["cid"]: row["bytes"] for row in listed["files"]} == {cid: path.stat().st_size for cid, path in roots.items()}
    assert {(row["pinned"], row["public"], row["whole"]) for row in listed["files"]} == {(True, True, True), (False, False, True)}

    assert main(["ipfs", "ls", str(node)]) == 0
    assert sorted(line.split()[2:] for line in capsys.readouterr().out.splitlines()) == [["pinned,", "public"], ["private"]]

    assert main(["ipfs", "ls", str(node), next(iter(roots))]) == 0
    sizes = [int(line.split()[1]) for line in capsys.readouterr().out.splitlines()]
    assert sorted(sizes[1:]) == [17, LEAF_BYTES, LEAF_BYTES, LEAF_BYTES], "the root, then its leaves"


def test_ls__tells_what_is_not_whole(node: Path, large: Path, capsys: pytest.CaptureFixture[str]) -> None:
    blocks = list(build_blocks(large.read_bytes()))
    DiskBlocks(NodeFolder(node).blocks).put_blocks(blocks[1:])
    assert main(["ipfs", "ls", str(node)]) == 0
    assert "public, not all blocks" in capsys.readouterr().out
    assert main(["ipfs", "ls", str(node), cid_text(blocks[-1][0])]) == 0
    assert capsys.readouterr().out.count("not here") == 1


def test_export_import__carries_a_file_to_another_node(
    node: Path, large: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cid, car, other = add(node, str(large), capsys=capsys), tmp_path / "x.car", tmp_path / "other"
    DiskBlocks(NodeFolder(other).blocks)

    assert main(["ipfs", "export", str(node), cid, str(car)]) == 0
    assert f"{car.stat().st_size} bytes, 5 blocks" in capsys.readouterr().out
    assert main(["ipfs", "import", str(other), str(car)]) == 0

    assert capsys.readouterr().out.splitlines()[-1] == f"{cid}  whole"
    assert open_store(other).get_file(parse_cid(cid), bytes_max=1 << 20) == large.read_bytes()
    assert open_store(other).pins == {parse_cid(cid)}


def test_import__that_ends_badly_keeps_nothing(
    node: Path, large: Path, tmp_path: Path, refuse: Refuse, capsys: pytest.CaptureFixture[str]
) -> None:
    """Blocks before the broken one are good, and are not kept either."""
    cid, car, other = add(node, str(large), capsys=capsys), tmp_path / "x.car", tmp_path / "other"
    main(["ipfs", "export", str(node), cid, str(car)])
    whole = car.read_bytes()
    DiskBlocks(NodeFolder(other).blocks)
    before = snapshot(other)
    for broken, why in ((whole[:-9], "it ends in the middle"), (whole[:-1] + bytes((whole[-1] ^ 1,)), "do not hash to its CID")):
        car.write_bytes(broken)
        error = refuse(["ipfs", "import", str(other), str(car)])
        assert why in error and "nothing was kept" in error
        assert {name: content for name, content in snapshot(other).items() if name != "lock"} == before


def test_import__blocks_of_the_specification_and_a_root_that_is_not_there(
    node: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    car = tmp_path / "spec.car"
    car.write_bytes(SPEC_CAR)
    assert main(["ipfs", "import", str(node), str(car)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "3 blocks, 12 bytes"
    assert all(line.endswith("not whole here, or no file that this program reads") for line in lines[1:]) and len(lines) == 3
    assert open_store(node).get_block(compute_cid(b"bbbb", CODEC_RAW)) == b"bbbb"
    assert open_store(node).pins == frozenset()


def test_running_node__is_read_but_not_changed(
    node: Path, large: Path, tmp_path: Path, refuse: Refuse, capsys: pytest.CaptureFixture[str]
) -> None:
    """A running node holds its folder: what reads works beside it, what writes says who is in the way."""
    cid = add(node, str(large), capsys=capsys)
    journal = DiskJournal(node)
    unfinished = node / "blocks" / "packs" / "9.unfinished"
    unfinished.write_bytes(b"what the node writes just now")
    try:
        car = str(tmp_path / "x.car")
        assert main(["ipfs", "get", str(node), cid, "--out", str(tmp_path / "back")]) == 0
        assert main(["ipfs", "export", str(node), cid, car]) == 0
        assert main(["ipfs", "ls", str(node)]) == 0
        capsys.readouterr()
        before = snapshot(node / "blocks")
        for words in (["add", str(node), str(large)], ["pin", str(node), cid], ["unpin", str(node), cid], ["import", str(node), car]):
            error = refuse(["ipfs", *words])
            assert f"the folder {node} is in use by another learnae process; stop that one first" in error
        assert snapshot(node / "blocks") == before
    finally:
        journal.close()
    assert main(["ipfs", "unpin", str(node), cid]) == 0
    assert not unfinished.exists(), "with the lock it is known that nobody writes it any more"


def test_add__more_than_the_quota_is_refused(
    node: Path, large: Path, refuse: Refuse, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    cid = add(node, str(large), capsys=capsys)
    monkeypatch.setattr("learnae.cli.ipfs.DiskBlocks", lambda folder, **options: DiskBlocks(folder, quota_bytes=1 << 20, **options))
    bigger = large.with_name("bigger")
    bigger.write_bytes(bytes((1 << 20) + 1))
    assert "its quota is 1048576 bytes" in refuse(["ipfs", "add", str(node), str(bigger)])
    assert "and the store's quota is 1048576" in refuse(["ipfs", "import", str(node), str(bigger)])
    assert open_store(node).has_file(parse_cid(cid))
