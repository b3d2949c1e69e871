"""The arguments of `learnae dao`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any, Final

Add = Callable[..., argparse.ArgumentParser]

DEFAULT_RPC: Final = "http://127.0.0.1:8545"
ABOUT: Final = """\
Do by hand what a member's node does by itself: join a session, claim, vote, take the money out; and govern it.
SESSION is a ticket, a file that holds one, a node's folder, or the address of the contract.
The wallet is the keystore in --folder. Amounts are in ether, or in wei with the unit: 0.01, 5000wei.
Addresses must carry the right checksum (EIP-55). --dry-run tells what a command would cost and sends nothing."""
CHANGES: Final = ("proposal-deposit", "quorum-divisor", "extend")


def add_dao_commands(commands: Any, add: Add) -> None:
    """Add `learnae dao` and its commands."""
    dao = commands.add_parser(
        "dao", help="A session's contracts by hand: join, claim, vote, withdraw, govern, tip.", description=ABOUT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    group = dao.add_subparsers(dest="subcommand", metavar="COMMAND", required=True)

    def sending(name: str, about: str, *, session: bool = True) -> argparse.ArgumentParser:
        command = add(name, about, group, f"dao {name}")
        if session:
            command.add_argument("session", help="ticket, file that holds it, node's folder, or contract address")
        _add_wallet(command)
        return command

    about = "Create the contracts of a session. (`learnae session new` also makes rules, model and ticket.)"
    _add_deploy(sending("deploy", about, session=False))
    _add_status(add("status", "Show a session: stage and time left, members, claims, votes, money.", group, "dao status"))
    sending("join", "Pay the deposit and become a member, with a proof of identity.")
    sending("leave", "Take the deposit back while others are still joining.")
    claim = sending("claim", "Ask for a share of the fund; one per member, final.")
    claim.add_argument("--points", type=int, required=True, metavar="N", help="credits that were earned; shares are relative to all points")
    claim.add_argument("--evidence", required=True, metavar="HEX", help="32 bytes: digest of the member's newest checkpoint")
    _add_vote(sending("vote", "Vote on all claims with one ballot, or on one proposal."))
    sending("release", "Count the votes if that is due, and send all members what they are due; anybody may.")
    withdraw = sending("withdraw", "Take out what is due to you: share or deposit, collected tips, deposits of proposals.")
    withdraw.add_argument("--to", metavar="ADDRESS", help="pay everything to another wallet than the member's")
    _add_propose(sending("propose", "Propose to pay from the DAO's own money, or to change the DAO; costs a deposit."))
    proposals = add("proposals", "List the proposals, what they do and how the votes stand.", group, "dao proposals")
    _add_reading(proposals)
    for name, about in (
        ("execute", "Carry out a proposal that passed; anybody may."),
        ("close", "Close a proposal that failed, or that nobody executed in time; anybody may."),
    ):
        sending(name, about).add_argument("proposal", type=int, help="its number; `learnae dao proposals` shows them")
    _add_tip(sending("tip", "Pay a helper directly (Eq. 1), or several together out of your budget."))
    _add_budget(sending("budget", "Lock up money for tips, which they never pass, or take it back; `dao status` shows what is left."))


def add_endpoint_options(command: argparse.ArgumentParser) -> None:
    """Which Ethereum endpoints, what gas may cost, and how many blocks count as certain."""
    about = f"Ethereum endpoint (default {DEFAULT_RPC}); given twice, both must agree before anything is sent"
    command.add_argument("--rpc", action="append", metavar="URL", help=about)
    command.add_argument("--fee-cap", default="200", metavar="GWEI", help="most to pay for a unit of gas; above it, wait (default 200)")
    about = "blocks that must hold a transaction before it counts (default 1 on a development chain, 5 elsewhere)"
    command.add_argument("--confirmations", type=int, default=0, metavar="N", help=about)


def _add_wallet(command: argparse.ArgumentParser) -> None:
    command.add_argument("--folder", metavar="DIR", help="folder of the keystore (default: SESSION if it is a folder, else learnae-node)")
    command.add_argument("--password-file", metavar="FILE", help="file with the keystore's password (mode 600); otherwise you are asked")
    add_endpoint_options(command)
    command.add_argument("--dry-run", action="store_true", help="tell what it would cost and send nothing")
    command.add_argument("--yes", action="store_true", help="send money without asking")


def _add_reading(command: argparse.ArgumentParser) -> None:
    command.add_argument("session", help="ticket, file that holds it, node's folder, or contract address")
    command.add_argument("--folder", metavar="DIR", help="folder of the keystore whose wallet is you (default as in the other commands)")
    command.add_argument("--wallet", metavar="ADDRESS", help="the wallet that is you, instead of a keystore's")
    add_endpoint_options(command)
    command.add_argument("--json", action="store_true", help="print JSON; amounts are wei")


def _add_status(command: argparse.ArgumentParser) -> None:
    _add_reading(command)


def _add_deploy(command: argparse.ArgumentParser) -> None:
    about = "the document that the members agree on; its SHA-256 goes into the contract"
    command.add_argument("--rules", required=True, metavar="FILE", help=about)
    command.add_argument("--deposit", default="0.01", metavar="ETHER", help="what each member locks up (default 0.01)")
    for stage, default, about in (
        ("funding", "15m", "time to join"),
        ("training", "2h", "length of the training stage"),
        ("claiming", "10m", "time to claim"),
        ("voting", "10m", "time to vote"),
    ):
        command.add_argument(f"--{stage}", default=default, metavar="TIME", help=f"{about}, as 90s, 15m, 2h (default {default})")
    command.add_argument("--members-min", type=int, default=2, metavar="N", help="with fewer, everybody is refunded (default 2)")
    command.add_argument("--members-max", type=int, default=100, metavar="N", help="most members (default 100)")
    about = "of all members, to reject a claim (default 20)"
    command.add_argument("--reject-quorum", type=float, default=20.0, metavar="PERCENT", help=about)
    about = "by how much a proposal may put off the deadlines in all (default 0s)"
    command.add_argument("--extension", default="0s", metavar="TIME", help=about)
    command.add_argument("--proposal-deposit", default="0", metavar="ETHER", help="deposit of a proposal, at first (default 0)")
    about = "d of Eq. 2: a proposal needs the votes of one member in d, and more if it asks for money (default 5)"
    command.add_argument("--quorum-divisor", type=int, default=5, metavar="D", help=about)
    command.add_argument("--debating", default="1h", metavar="TIME", help="least time to vote on a proposal (default 1h)")


def _add_vote(command: argparse.ArgumentParser) -> None:
    what = command.add_mutually_exclusive_group(required=True)
    about = "the claims to vote against, by the members' numbers, as 3,5-7; the others you approve"
    what.add_argument("--reject", metavar="LIST", help=about)
    what.add_argument("--approve-all", action="store_true", help="vote against no claim")
    what.add_argument("--proposal", type=int, metavar="NUMBER", help="vote on this proposal, with --for or --against")
    side = command.add_mutually_exclusive_group()
    side.add_argument("--for", action="store_true", dest="in_favour", help="vote for the proposal")
    side.add_argument("--against", action="store_true", help="vote against the proposal")


def _add_tip(command: argparse.ArgumentParser) -> None:
    command.add_argument("helper", nargs="?", help="its wallet")
    command.add_argument("amount", nargs="?", help="in ether, or wei with the unit")
    command.add_argument("--receipt", metavar="HEX", help="32 bytes: digest of the receipt that earned it (default zeros)")
    command.add_argument("--budget", action="store_true", help="out of your budget: the helper collects it with `dao withdraw`")
    about = "several, out of your budget: a file with a line HELPER AMOUNT [RECEIPT] for each"
    command.add_argument("--list", metavar="FILE", help=about)


def _add_budget(command: argparse.ArgumentParser) -> None:
    what = command.add_mutually_exclusive_group(required=True)
    what.add_argument("--fill", metavar="AMOUNT", help="add so much, in ether, or wei with the unit")
    what.add_argument("--reclaim", metavar="AMOUNT", help="take back so much, or all")


def _add_propose(command: argparse.ArgumentParser) -> None:
    command.add_argument("--text", required=True, help="what it is about, for the members; 1,024 bytes at most")
    what = command.add_mutually_exclusive_group(required=True)
    what.add_argument("--pay", nargs=2, metavar=("ADDRESS", "ETHER"), help="pay so much to this address")
    about = "change the DAO: proposal-deposit ETHER, quorum-divisor N, or extend TIME (the session's deadlines)"
    what.add_argument("--change", nargs=2, metavar=("WHAT", "VALUE"), help=about)
    command.add_argument("--debate", default="", metavar="TIME", help="time to vote, as 2h or 3d (default: the least that the DAO allows)")
