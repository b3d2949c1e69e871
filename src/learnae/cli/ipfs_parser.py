"""The arguments of `learnae ipfs`, and what they start. Light, because the parser is built for every command."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any, Final

from learnae.cli import loading

Add = Callable[..., argparse.ArgumentParser]


def add_ipfs(commands: Any, add: Add) -> None:
    """Add `learnae ipfs` and what is below it."""
    about = "Look into a node's block store, put files in, take them out; CIDs are those of `ipfs add --cid-version=1`."
    ipfs = commands.add_parser("ipfs", help="Files in a node's block store, as any IPFS program names them.", description=about)
    where = ipfs.add_subparsers(dest="subcommand", metavar="COMMAND", required=True)

    put = _add(add, where, "add", "Store files and print their CIDs.")
    put.add_argument("files", nargs="+", metavar="FILE", help="what to store; - is standard input")
    put.add_argument("--private", action="store_true", help="never give it to the network; without this any peer that knows the CID may")
    put.add_argument("--no-pin", action="store_true", help="let it go when the store needs room")

    get = add("get", "Write a file of the store, or of an IPFS node elsewhere, to this folder, each block verified.", where, "ipfs get")
    get.add_argument("folder", nargs="?", default="", help="folder of a node; left out with --from")
    get.add_argument("cid", metavar="CID", help="as IPFS programs print it (bafy..., bafk...; with --from also Qm...)")
    about = "fetch it by Bitswap from the IPFS node at this address, /ip4/.../tcp/.../p2p/12D3Koo...; nothing is kept in a store"
    get.add_argument("--from", dest="source", default="", metavar="MULTIADDR", help=about)
    get.add_argument("--out", default="", metavar="FILE", help="where to (default: a file named as the CID; - is standard output)")

    _add(add, where, "pin", "Keep a file when the store needs room.", cid=True)
    _add(add, where, "unpin", "Let a file go when the store needs room.", cid=True)

    ls = _add(add, where, "ls", "List the files of the store, or the blocks of one.")
    ls.add_argument("cid", nargs="?", default="", metavar="CID", help="list the blocks of this file")
    ls.add_argument("--json", action="store_true", help="print the plain values")

    export = _add(add, where, "export", "Write a file with all its blocks as a CAR file, which every IPFS program imports.", cid=True)
    export.add_argument("car", metavar="CAR", help="the file to write; - is standard output")

    get_in = _add(add, where, "import", "Take the blocks of a CAR file (version 1) into the store.")
    get_in.add_argument("car", metavar="CAR", help="the file, as `ipfs dag export` writes it")
    get_in.add_argument("--private", action="store_true", help="never give its blocks to the network")
    get_in.add_argument("--no-pin", action="store_true", help="do not pin its roots")


def _add(add: Add, where: Any, name: str, about: str, *, cid: bool = False) -> argparse.ArgumentParser:
    command = add(name, about, where, f"ipfs {name}")
    command.add_argument("folder", help="folder of a node")
    if cid:
        command.add_argument("cid", metavar="CID", help="as `learnae ipfs ls` or `ipfs add --cid-version=1` prints it (bafy..., bafk...)")
    return command


def _run(name: str) -> Callable[[argparse.Namespace], int]:
    def run(options: argparse.Namespace) -> int:
        with loading():
            from learnae.cli import ipfs

        return ipfs.RUNS[name](options)

    return run


IPFS_RUNS: Final = {f"ipfs {name}": _run(name) for name in ("add", "get", "pin", "unpin", "ls", "export", "import")}
