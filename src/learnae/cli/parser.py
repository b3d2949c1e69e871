"""The arguments of every `learnae` command, with the words of its help."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any, Final

from learnae import __version__
from learnae.cli.dao.parser import DEFAULT_RPC, add_dao_commands, add_endpoint_options
from learnae.cli.doctor.parser import add_doctor
from learnae.cli.ipfs_parser import add_ipfs
from learnae.cli.lab_commands import add_lab
from learnae.cli.sensor_parser import add_sensor_commands
from learnae.protocol.calls import RELAY_GAS_MAX
from learnae.protocol.rules import MODEL_CODECS

ABOUT: Final = """\
Train one neural network together with others: no server, no owner, no global model.
Each peer keeps its own data and its own model, averages with models that others announce, and
reports who helped. A fund that all members locked up before is shared out by those reports."""
STEPS: Final = """\
first steps:
  learnae demo                          a whole session on this machine, with a report
  learnae task check my_task.py --data DATA
                                        try your own model and data before anything else
  learnae session new --name "my session" --task my_task.py --data DATA --folder me
                                        found a session; prints the ticket for the others
  learnae join TICKET --task my_task.py --data DATA --folder me
                                        become a member and start training
  learnae node me                       go on after a stop; `learnae status me` looks at it
Each command explains itself: learnae COMMAND --help"""

Run = Callable[[argparse.Namespace], int]


def build_parser(runs: dict[str, Run]) -> argparse.ArgumentParser:
    """The parser; `runs` maps a command's name to the function that carries it out."""
    parser = argparse.ArgumentParser(
        prog="learnae", description=ABOUT, epilog=STEPS, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--version", action="version", version=f"learnae {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    def add(name: str, about: str, where: Any = commands, key: str = "") -> argparse.ArgumentParser:
        command: argparse.ArgumentParser = where.add_parser(name, help=about, description=about)
        command.set_defaults(run=runs[key or name])
        return command

    _add_demo(add("demo", "Run a complete session on this machine: a chain, six peers, a report."))
    session = commands.add_parser("session", help="Found a session, or read a ticket.")
    sessions = session.add_subparsers(dest="subcommand", metavar="COMMAND", required=True)
    _add_new(add("new", "Found a session: initial model, rules and contract; prints the ticket.", sessions, "session new"))
    show = add("show", "Print the rules of a ticket in words.", sessions, "session show")
    show.add_argument("ticket", help="the ticket, or a file that holds it")
    _add_join(add("join", "Join the session of a ticket and start this member's node."))
    node = add("node", "Run the node of a folder, or go on after a stop or crash.")
    node.add_argument("folder", help="the folder that `session new` or `join` made")
    _add_password(node)
    status = add("status", "Show how a node is doing.")
    status.add_argument("folder")
    status.add_argument("--json", action="store_true", help="print the plain values")
    model = add("model", "Write a node's model to a safetensors file, as PyTorch and others load it.")
    model.add_argument("folder", help="folder of a node, which may run")
    about = "where to (default model.safetensors; - is standard output)"
    model.add_argument("--out", default="model.safetensors", metavar="FILE", help=about)
    commands.add_parser("chain", help="An Ethereum chain in one process, for trying things out.", add_help=False)
    faucet = add("faucet", "Give a wallet play money on an embedded chain.")
    faucet.add_argument("wallet", help="the address, 0x...")
    faucet.add_argument("amount", nargs="?", default="1", help="in ether (default 1)")
    faucet.add_argument("--rpc", default=DEFAULT_RPC, metavar="URL", help=f"Ethereum endpoint (default {DEFAULT_RPC})")
    _add_sim(commands, add)
    _add_paper(add("paper", "Do the paper's experiments (section 7) again and compare with what it published."))
    add_lab(commands, add)
    add_dao_commands(commands, add)
    add_sensor_commands(commands, add)
    add_ipfs(commands, add)
    add_doctor(add)
    task = commands.add_parser("task", help="Check a task file.")
    tasks = task.add_subparsers(dest="subcommand", metavar="COMMAND", required=True)
    check = add("check", "Try everything that a session will do with a task and its data.", tasks, "task check")
    check.add_argument("task", help="path of the task file, or the name of a built-in task (digits)")
    check.add_argument("--data", default="", help="what the task's load_data gets, for example a path")
    check.add_argument("--device", default="auto", help="cpu, cuda, or auto (default)")
    return parser


def _add_demo(command: argparse.ArgumentParser) -> None:
    command.add_argument("--out", default="learnae-demo", help="folder for the report and the peers (default learnae-demo)")
    command.add_argument("--seed", type=int, default=0, help="how the data are dealt (default 0)")
    command.add_argument("--training", default="75s", help="length of the training stage (default 75s)")
    command.add_argument("--funding", default="45s", help="time for all peers to start and join (default 45s)")
    command.add_argument("--plain", action="store_true", help="plain lines instead of the live table")


def _add_new(command: argparse.ArgumentParser) -> None:
    command.add_argument("--name", required=True, help="the session's name, for people")
    _add_own(command)
    command.add_argument("--deposit", default="0.01", metavar="ETHER", help="what each member locks up (default 0.01)")
    for stage, default, about in (
        ("funding", "15m", "time to join"),
        ("training", "2h", "length of the training stage"),
        ("final", "10m", "last part of training: averaging only"),
        ("claiming", "10m", "time to claim"),
        ("voting", "10m", "time to vote"),
    ):
        command.add_argument(f"--{stage}", default=default, metavar="TIME", help=f"{about}, as 90s, 15m, 2h (default {default})")
    command.add_argument("--members-min", type=int, default=2, metavar="N", help="with fewer, everybody is refunded (default 2)")
    command.add_argument("--members-max", type=int, default=100, metavar="N", help="most members (default 100)")
    about = "part of all receipts that is audited, 0 to 1; members then open their validation examples to auditors (default 0)"
    command.add_argument("--audit", type=float, default=0.0, metavar="PART", help=about)
    command.add_argument("--overuse", type=int, default=1000, metavar="N", help="most uses of one shared dataslice by all (default 1000)")
    about = "reward rule (default budgeted; raw is the paper's)"
    command.add_argument("--rule", choices=("budgeted", "raw"), default="budgeted", help=about)
    command.add_argument("--mode", choices=("dao", "tips"), default="dao", help="settle by the DAO (default), or pay tips at once")
    command.add_argument("--policy", choices=("paired", "paper"), default="paired", help="choice and acceptance of remote models")
    about = "how models travel: raw (default), or smaller and rounded (docs/compression.md)"
    command.add_argument("--codec", choices=MODEL_CODECS, default="raw", help=about)
    command.add_argument("--seed", type=int, default=0, help="of the initial model")


def _add_join(command: argparse.ArgumentParser) -> None:
    command.add_argument("ticket", help="the ticket, or a file that holds it")
    _add_own(command, votes_only=True)
    command.add_argument("--yes", action="store_true", help="pay the deposit without asking")
    about = "check ticket, contract, task and money, and tell what it would cost; do not join"
    command.add_argument("--only-check", "--dry-run", action="store_true", help=about)


def _add_own(command: argparse.ArgumentParser, *, votes_only: bool = False) -> None:
    task = "path of the task file, or a built-in task (digits)"
    if votes_only:
        command.add_argument("--task", default="", help=f"{task}; without it this member only votes")
    else:
        command.add_argument("--task", required=True, help=task)
    command.add_argument("--data", default="", help="what the task's load_data gets, for example a path; it stays on this machine")
    about = "part of the own training data opened to all, 0 to 1 (default 0)"
    command.add_argument("--share", type=float, default=0.0, metavar="PART", help=about)
    command.add_argument("--folder", default="learnae-node", help="folder of this node (default learnae-node)")
    add_endpoint_options(command)
    about = "where to listen, for example /ip4/0.0.0.0/tcp/4001; repeatable"
    command.add_argument("--listen", action="append", metavar="MULTIADDR", help=about)
    about = "how others reach this node, if it is behind a router; repeatable"
    command.add_argument("--announce", action="append", metavar="MULTIADDR", help=about)
    about = "use your own IPFS daemon (Kubo) too, for public blocks, gossip, and what no peer gives (default http://127.0.0.1:5001)"
    command.add_argument("--kubo", nargs="?", const="http://127.0.0.1:5001", default="", metavar="URL", help=about)
    about = "do not look for the session's peers in the local network, nor be found there"
    command.add_argument("--no-mdns", action="store_true", help=about)
    about = "a DHT server, for example another learnae node, where the session is looked for by its CID when nobody answers; repeatable"
    command.add_argument("--bootstrap", action="append", metavar="MULTIADDR", help=about)
    command.add_argument("--upnp", action="store_true", help="ask the router (UPnP) to let others in, and to forget it at the end")
    command.add_argument("--device", default="auto", help="cpu, cuda, or auto (default)")
    command.add_argument("--pace", type=float, default=0.25, metavar="SECONDS", help="least time between work cycles (default 0.25)")
    command.add_argument("--tips-budget", default="0", metavar="ETHER", help="tips mode: the most that this node pays in tips")
    about = "do not send others' signed claims and ballots (by default nodes take turns, many in one transaction)"
    command.add_argument("--no-relay", action="store_true", help=about)
    about = f"the most gas that this node spends on that in the session (default {RELAY_GAS_MAX})"
    command.add_argument("--relay-gas-max", type=int, default=RELAY_GAS_MAX, metavar="GAS", help=about)
    command.add_argument("--never-report", action="store_true", help="the paper's malicious peer: report no help (for experiments)")
    _add_password(command)


def _add_password(command: argparse.ArgumentParser) -> None:
    command.add_argument("--password-file", metavar="FILE", help="file with the keystore's password (mode 600); otherwise you are asked")


def _add_sim(commands: Any, add: Callable[..., argparse.ArgumentParser]) -> None:
    sim = commands.add_parser("sim", help="Simulate a session on a virtual clock.")
    sims = sim.add_subparsers(dest="subcommand", metavar="COMMAND", required=True)
    add("list", "List the scenarios.", sims, "sim list")
    run = add("run", "Run a scenario with the real peer code; equal seeds give equal traces.", sims, "sim run")
    run.add_argument("scenario", help="its name; `learnae sim list` shows them")
    run.add_argument("--seed", type=int, default=0, help="the only randomness of the run (default 0)")
    run.add_argument("--peers", type=int, help="how many peers")
    run.add_argument("--cycles", type=int, help="work cycles of an average peer")
    run.add_argument("--policy", choices=("paired", "paper"), help="choice and acceptance of remote models")
    about = "change something else of the scenario, e.g. link.loss=0.3, churn=0.5, silent=2; may be repeated"
    run.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help=about)
    run.add_argument("--json", action="store_true", help="print the summary as JSON")


def _add_paper(command: argparse.ArgumentParser) -> None:
    command.add_argument("--seeds", type=int, metavar="N", help="how many seeds (default 1000; through protocol or contract 1)")
    command.add_argument("--first-seed", type=int, default=0, metavar="SEED", help="the seeds are this one and those after it (default 0)")
    command.add_argument("--peers", type=int, default=100, metavar="N", help="how many peers (default 100, the paper's)")
    command.add_argument("--cycles", type=int, default=50, metavar="N", help="how many cycles (default 50, the paper's)")
    command.add_argument("--malicious", type=int, default=10, metavar="N", help="how many never report (default 10, the paper's)")
    about = "fast: on the ledger alone (default); protocol: by real peers in the simulator; contract: by them, on the real contract"
    command.add_argument("--through", choices=("fast", "protocol", "contract"), default="fast", help=about)
    command.add_argument("--out", metavar="DIR", help="folder for paper.html, paper.json and the figures (default learnae-paper)")
    command.add_argument("--json", action="store_true", help="print the figures as JSON; files are written only with --out")
