"""`learnae ipfs`: files of a node's block store, from the command line.

What only reads (`get`, `ls`, `export`) works beside a running node. What changes the store (`add`, `pin`, `unpin`, `import`) holds
the folder's lock, so it waits for nobody and says so when the node runs.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import BinaryIO, Final

import trio

from learnae.backends.car import read_car, walk_file, write_car
from learnae.backends.disk_blocks import QUOTA_BYTES, DiskBlocks, StoredBlock
from learnae.backends.errors import CarError, NotStoredError
from learnae.backends.folder_lock import lock_folder
from learnae.backends.unixfs import NodeError, collect_blocks
from learnae.cli import loading
from learnae.cli.folder import NodeFolder
from learnae.errors import DiskFullError, FolderError, UsageError
from learnae.ids import CODEC_DAG_PB, Cid, cid_text, parse_cid


def add(options: argparse.Namespace) -> int:
    """Store files; all of one file or nothing of it."""
    with _open_to_write(options.folder) as store:
        for name in options.files:
            cid = store.put_file(_read_source(name, store.quota_bytes), public=not options.private)
            if not options.no_pin:
                store.pin(cid)
            print(f"{cid_text(cid)}  {name}", flush=True)
    return 0


def get(options: argparse.Namespace) -> int:
    """Write a file out, leaf by leaf."""
    if bool(options.folder) == bool(options.source):
        raise UsageError("give either the folder of a node (`learnae ipfs get FOLDER CID`) or --from and the address of an IPFS node")
    if options.source:
        return _get_from(options.source, options)
    store, cid = _open_to_read(options.folder), _parse_cid(options.cid)
    leaves = collect_blocks(cid, store.get_block)
    if leaves is None:
        raise _explain_absent(cid, store, options.folder)
    with open_out(options.out or options.cid) as file:
        size_bytes = 0
        for leaf in leaves:
            block = store.get_block(leaf.cid)
            if block is None:
                raise _explain_absent(cid, store, options.folder)
            size_bytes += file.write(block)
    if options.out != "-":
        print(f"{options.out or options.cid}: {size_bytes} bytes")
    return 0


def _get_from(address: str, options: argparse.Namespace) -> int:
    """Write out a file that an IPFS node elsewhere gives."""
    with loading():
        from learnae.backends.libp2p_get import get_file
        from learnae.backends.unixfs_read import parse_any_cid

    try:
        cid = parse_any_cid(options.cid)
    except ValueError as error:
        raise UsageError(f"{options.cid[:80]!r} is not a CID with SHA-256 (bafy..., bafk..., Qm...)") from error
    on_progress = _show_progress if sys.stderr.isatty() else _keep_quiet
    with open_out(options.out or options.cid) as file:
        size_bytes = trio.run(partial(get_file, address, cid, file.write, bytes_max=QUOTA_BYTES, on_progress=on_progress))
    if options.out != "-":
        print(f"{options.out or options.cid}: {size_bytes} bytes")
    return 0


def _show_progress(written_bytes: int, file_bytes: int) -> None:
    print(f"\r{written_bytes / 1e6:.1f} of {file_bytes / 1e6:.1f} MB", end="" if written_bytes < file_bytes else "\n", file=sys.stderr)


def _keep_quiet(written_bytes: int, file_bytes: int) -> None:
    return


def pin(options: argparse.Namespace) -> int:
    cid = _parse_cid(options.cid)
    with _open_to_write(options.folder) as store:
        if not store.has_file(cid):
            raise _explain_absent(cid, store, options.folder)
        store.pin(cid)
    print(f"{options.cid} is pinned")
    return 0


def unpin(options: argparse.Namespace) -> int:
    cid = _parse_cid(options.cid)
    with _open_to_write(options.folder) as store:
        if cid not in store.pins:
            raise NotStoredError(options.cid, options.folder, "it is not pinned")
        store.unpin(cid)
    print(f"{options.cid} is no longer pinned; it stays until the store needs room")
    return 0


def ls(options: argparse.Namespace) -> int:
    """All files, or the blocks of one."""
    store = _open_to_read(options.folder)
    if options.cid:
        return _list_blocks(store, _parse_cid(options.cid), options)
    rows = _list_files(store)
    if options.json:
        print(json.dumps({"used_bytes": store.used_bytes, "quota_bytes": store.quota_bytes, "files": rows}, indent=1))
        return 0
    for row in rows:
        notes = ["pinned" if row["pinned"] else "", "public" if row["public"] else "private", "" if row["whole"] else "not all blocks"]
        print(f"{row['cid']}  {row['bytes']:>12}  {', '.join(note for note in notes if note)}")
    print(f"{len(rows)} files; {store.used_bytes / 1e6:.1f} MB of {store.quota_bytes / 1e6:.0f} MB used", file=sys.stderr)
    return 0


def export(options: argparse.Namespace) -> int:
    """Write one file as CAR version 1."""
    store, cid = _open_to_read(options.folder), _parse_cid(options.cid)
    count = 0

    def blocks() -> Iterator[tuple[Cid, bytes]]:
        nonlocal count
        try:
            for found, block in walk_file(cid, store):
                if block is None:
                    raise _explain_absent(cid, store, options.folder)
                count += 1
                yield found, block
        except NodeError as error:
            raise NotStoredError(options.cid, options.folder, str(error)) from error

    with open_out(options.car) as file:
        size_bytes = write_car(file, [cid], blocks())
    if options.car != "-":
        print(f"{options.car}: {size_bytes} bytes, {count} blocks, root {options.cid}")
    return 0


def import_car(options: argparse.Namespace) -> int:
    """Take in a CAR file: every block is verified before the first is kept, and all are kept or none."""
    with _open_to_write(options.folder) as store, open(options.car, "rb") as file:
        size_bytes = os.fstat(file.fileno()).st_size
        if size_bytes > store.quota_bytes:
            raise CarError(options.car, f"it has {size_bytes} bytes, and the store's quota is {store.quota_bytes}")
        roots, blocks = read_car(file, options.car)
        for _ in blocks:  # Once through, so that a file that is broken near its end costs no memory.
            pass
        file.seek(0)
        taken = list(read_car(file, options.car)[1])
        store.put_blocks(taken, public=not options.private)
        print(f"{len(taken)} blocks, {sum(len(block) for _, block in taken)} bytes")
        for root in roots:
            whole = store.has_file(root)
            if whole and not options.no_pin:
                store.pin(root)
            print(f"{cid_text(root)}  {'whole' if whole else 'not whole here, or no file that this program reads'}")
    return 0


RUNS: Final = {"add": add, "get": get, "pin": pin, "unpin": unpin, "ls": ls, "export": export, "import": import_car}


# --- the store --------------------------------------------------------------------------------------------------


def _open_to_read(name: str) -> DiskBlocks:
    folder = NodeFolder(Path(name))
    if not (folder.blocks / "packs").is_dir():
        raise FolderError(name, "there is no block store in it; give the folder of a node that has run, or was made by `session new`")
    return DiskBlocks(folder.blocks, read_only=True)


@contextmanager
def _open_to_write(name: str) -> Iterator[DiskBlocks]:
    folder = NodeFolder(Path(name))
    if not folder.is_ready and not (folder.blocks / "packs").is_dir():
        raise FolderError(name, "no node lives there; `learnae join TICKET` or `learnae session new` makes a node's folder")
    with lock_folder(folder.path):
        yield DiskBlocks(folder.blocks)


def _parse_cid(text: str) -> Cid:
    try:
        return parse_cid(text)
    except ValueError as error:
        hint = "; CIDv0 (Qm...) is not used here: add the file again with --cid-version=1" if text.startswith("Qm") else ""
        raise UsageError(f"{text[:80]!r} is not a CID as this program uses them (bafy..., bafk...: version 1, SHA-256){hint}") from error


def _explain_absent(cid: Cid, store: DiskBlocks, folder: str) -> NotStoredError:
    if not store.has_block(cid):
        return NotStoredError(cid_text(cid), folder, "it is not there")
    try:
        absent = sum(block is None for _, block in walk_file(cid, store))
    except NodeError as error:
        return NotStoredError(cid_text(cid), folder, str(error))
    return NotStoredError(cid_text(cid), folder, f"{absent} of its blocks are not there or were damaged")


def _list_files(store: DiskBlocks) -> list[dict[str, object]]:
    """Every block that is in no file above it, and every pinned one."""
    blocks, pins = store.list_blocks(), store.pins
    below: set[Cid] = set()
    for entry in blocks:
        if entry.cid[1] == CODEC_DAG_PB and entry.cid not in below:
            below.update(_walk_below(entry.cid, store))
    roots = [entry for entry in blocks if entry.cid not in below or entry.cid in pins]
    return [_describe_file(store, entry, is_pinned=entry.cid in pins) for entry in roots]


def _walk_below(root: Cid, store: DiskBlocks) -> Iterator[Cid]:
    try:
        yield from (cid for cid, _ in walk_file(root, store, leaves=False) if cid != root)
    except NodeError:
        return  # no file that this program reads: it stands for itself


def _describe_file(store: DiskBlocks, entry: StoredBlock, *, is_pinned: bool) -> dict[str, object]:
    leaves = collect_blocks(entry.cid, store.get_block)
    is_node = entry.cid[1] == CODEC_DAG_PB and leaves is not None
    return {
        "cid": cid_text(entry.cid),
        "bytes": sum(leaf.file_bytes for leaf in leaves or []) if is_node else entry.size_bytes,
        "pinned": is_pinned,
        "public": entry.public,
        "whole": leaves is not None and all(store.has_block(leaf.cid) for leaf in leaves),
    }


def _list_blocks(store: DiskBlocks, cid: Cid, options: argparse.Namespace) -> int:
    if not store.has_block(cid):
        raise _explain_absent(cid, store, options.folder)
    try:
        found = [{"cid": cid_text(cid), "bytes": None if block is None else len(block)} for cid, block in walk_file(cid, store)]
    except NodeError as error:
        raise NotStoredError(options.cid, options.folder, str(error)) from error
    if options.json:
        print(json.dumps({"blocks": found}, indent=1))
        return 0
    for row in found:
        print(f"{row['cid']}  {'not here' if row['bytes'] is None else row['bytes']:>12}")
    return 0


# --- files outside ----------------------------------------------------------------------------------------------


def _read_source(name: str, bytes_max: int) -> bytes:
    """A whole file; no more than the quota is read. Raises: DiskFullError."""
    if name == "-":
        content = sys.stdin.buffer.read(bytes_max + 1)
    else:
        with open(name, "rb") as file:
            content = file.read(bytes_max + 1)
    if len(content) > bytes_max:
        raise DiskFullError("the block store", len(content), f"its quota is {bytes_max} bytes")
    return content


@contextmanager
def open_out(name: str) -> Iterator[BinaryIO]:
    """Where a command writes: standard output, or a new file that appears when it is whole."""
    if name == "-":
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    path = Path(name)
    if path.exists():
        raise UsageError(f"{name} exists already and is not overwritten; name another file, or move it away")
    draft = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with draft.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        draft.rename(path)
    finally:
        draft.unlink(missing_ok=True)
