"""The functions behind the commands. Each returns an exit status; what goes wrong for a user is one sentence on stderr."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from learnae.cli import INTERRUPTED, INTERRUPTED_TEXT, loading
from learnae.cli.amounts import parse_duration, parse_ether, parse_gwei
from learnae.cli.consent import agree
from learnae.cli.dao.runs import DAO_RUNS
from learnae.cli.doctor.parser import DOCTOR_RUNS
from learnae.cli.folder import NodeFolder, NodeSettings, read_ticket_text
from learnae.cli.ipfs_parser import IPFS_RUNS
from learnae.cli.lab_commands import LAB_RUNS
from learnae.cli.parser import Run, build_parser
from learnae.cli.sensor_commands import SENSOR_RUNS
from learnae.cli.signals import run_interruptible
from learnae.errors import FolderError, LearnaeError, MachineError, MissingExtraError, UsageError
from learnae.ids import Address, wei_text
from learnae.protocol.events import Tell, Topic
from learnae.protocol.rules import decode_ticket

PACE_S_MAX = 86_400.0  # A work cycle a day is a strange wish, but one.
STATUS_OLD_S = 10.0  # A running node writes every two seconds.


def run_command(words: Sequence[str]) -> int:
    """Run one command; returns the exit status. Raises: KeyboardInterrupt."""
    try:
        if words[:1] == ["chain"]:  # It has its own arguments, which argparse cannot pass through.
            return _chain(words[1:])
        options = build_parser(_RUNS).parse_args(words)
        run: Run = options.run
        return run(options)
    except BrokenPipeError:
        return _end_quietly()
    except BaseExceptionGroup as group:
        return _explain_group(group)
    except LearnaeError as error:
        return _explain(error)
    except ModuleNotFoundError as error:
        return _explain(_find_missing(error))
    except OSError as error:
        return _explain(MachineError(error))


def _end_quietly() -> int:
    """Whoever read the output has seen enough."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 1


def _explain(error: LearnaeError) -> int:
    print(f"learnae: {' '.join(str(error).split())}", file=sys.stderr)
    return error.exit_code


def _explain_group(group: BaseExceptionGroup[BaseException]) -> int:
    """Tasks run side by side, so their errors come in groups: a user hears the sentences, a bug keeps its traceback."""
    errors: dict[str, LearnaeError] = {}
    for error in _flatten(group):
        match error:
            case KeyboardInterrupt():
                raise KeyboardInterrupt
            case LearnaeError():
                errors.setdefault(str(error), error)
            case BrokenPipeError():
                return _end_quietly()
            case ModuleNotFoundError():
                missing = _find_missing(error)
                errors.setdefault(str(missing), missing)
            case OSError():
                machine = MachineError(error)
                errors.setdefault(str(machine), machine)
            case _:
                raise group
    return max(_explain(error) for error in errors.values())


def _flatten(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    found: list[BaseException] = []
    for error in group.exceptions:
        found += _flatten(error) if isinstance(error, BaseExceptionGroup) else [error]
    return found


def _find_missing(error: ModuleNotFoundError) -> MissingExtraError:
    """The sentence for a part that was not installed. A module of our own that is missing is a bug and keeps its traceback."""
    if error.name is None or error.name.partition(".")[0] == "learnae":
        raise error
    return MissingExtraError(error.name)


# --- sessions and nodes -----------------------------------------------------------------------------------------


def _session_new(options: argparse.Namespace) -> int:
    with loading():
        from learnae.cli import sessions

    plan = sessions.SessionPlan(
        name=options.name,
        deposit_wei=parse_ether(options.deposit),
        funding_s=parse_duration(options.funding),
        training_s=parse_duration(options.training),
        final_s=min(parse_duration(options.final), parse_duration(options.training) // 2),
        claiming_s=parse_duration(options.claiming),
        voting_s=parse_duration(options.voting),
        members_min=options.members_min,
        members_max=options.members_max,
        overuse_threshold=options.overuse,
        reward_rule=options.rule,
        reward_mode=options.mode,
        policy=options.policy,
        audit_permille=round(options.audit * 1000),
        model_codec=options.codec,
        seed=options.seed,
    )
    folder, settings = NodeFolder(Path(options.folder)), _read_settings(options)
    if folder.is_ready:
        raise UsageError(f"{options.folder} already holds a node; choose another --folder, or go on with `learnae node {options.folder}`")
    sessions.check_plan(plan, settings)
    keys = sessions.open_or_create_keys(folder.keystore, _read_password(options, is_new=not folder.keystore.exists()))
    print(f"founding {plan.name!r} from wallet {keys.wallet.address} on {settings.rpc} ...", flush=True)
    ticket = run_interruptible(partial(sessions.make_session, plan, folder, settings, keys))
    print(sessions.describe_ticket(ticket))
    print(f"\nThe ticket for the others (also in {options.folder}/ticket.txt):\n\n{ticket.to_text()}\n")
    print(f"Now start your own node:  learnae node {options.folder}")
    return 0


def _session_show(options: argparse.Namespace) -> int:
    with loading():
        from learnae.cli.sessions import describe_ticket

    print(describe_ticket(decode_ticket(read_ticket_text(options.ticket))))
    return 0


def _join(options: argparse.Namespace) -> int:
    with loading():
        from learnae.cli import sessions
        from learnae.cli.compose import check_task

    ticket = decode_ticket(read_ticket_text(options.ticket))
    folder, settings = NodeFolder(Path(options.folder)), _read_settings(options)
    print(sessions.describe_ticket(ticket), flush=True)
    folder.check_free(ticket)
    if settings.task:
        check_task(settings.task, ticket.rules)
    password = _read_password(options, is_new=not folder.keystore.exists())
    keys = sessions.open_or_create_keys(folder.keystore, password)
    print(f"your wallet is {keys.wallet.address}", flush=True)
    run_interruptible(partial(sessions.check_before_joining, ticket, settings, keys, show=print))
    if options.only_check:
        print("everything fits; nothing was paid")
        return 0
    if not options.yes and not agree(
        f"Pay the deposit of {wei_text(ticket.rules.deposit_wei)} and join? [y/N] ", otherwise="--yes to pay the deposit and join"
    ):
        print("nothing was paid")
        return 1
    folder.write(ticket, settings)
    return _run(folder, password)


def _node(options: argparse.Namespace) -> int:
    folder = NodeFolder(Path(options.folder))
    folder.read_ticket()  # Says what is missing before a password is asked for.
    return _run(folder, _read_password(options, is_new=False))


def _run(folder: NodeFolder, password: str) -> int:
    with loading():
        from learnae.cli.compose import NodeStarter, open_log
        from learnae.cli.status import format_result

    def on_tell(tell: Tell) -> None:
        event = tell.values.get("event")
        better = event == "adopted" and tell.values.get("gain") != 0
        if tell.topic is not Topic.TRAINING or better or event in ("opened", "pass"):
            print(f"{time.strftime('%H:%M:%S')}  {tell.topic.value:<8}  {tell.text}", flush=True)

    open_log(folder.log)
    starter = NodeStarter(folder, password, on_tell=on_tell)
    interrupted = False
    try:
        run_interruptible(starter.run, on_signal=starter.stop)
    except KeyboardInterrupt:
        interrupted = True
    stage = folder.read_stage()
    if stage in ("released", "refunded"):
        print(format_result(folder.read_status()), flush=True)
    else:
        print(f"the node ended; the session is in stage {stage}; `learnae node {folder.path}` goes on", flush=True)
    if interrupted:
        print(INTERRUPTED_TEXT, file=sys.stderr)
    return INTERRUPTED if interrupted else 0


def _status(options: argparse.Namespace) -> int:
    with loading():
        from learnae.cli.status import format_status

    status = NodeFolder(Path(options.folder)).read_status()
    now_s = time.time()
    try:
        if now_s - float(status["time_s"]) > STATUS_OLD_S and status["state"] == "running":
            status["state"] = "not running (it was killed, or its machine stopped)"
        text = json.dumps(status, indent=1) if options.json else format_status(status, now_s=now_s)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise FolderError(options.folder, "its status.json is damaged; start the node again") from error
    print(text)
    return 0


def _read_settings(options: argparse.Namespace) -> NodeSettings:
    with loading():
        from learnae.cli.dao.endpoints import check_confirmations, choose_endpoints
        from learnae.cli.sessions import choose_listen, read_bootstrap
        from learnae.learning.config import BUILT_IN

    if not 0.0 <= options.share <= 1.0:
        raise UsageError(f"--share is {options.share}, expected a part from 0 (nothing leaves this machine) to 1")
    if not 0.0 <= options.pace <= PACE_S_MAX:
        raise UsageError(f"--pace is {options.pace}, expected 0 to {PACE_S_MAX:.0f} seconds")
    if options.relay_gas_max < 0:
        raise UsageError(f"--relay-gas-max is {options.relay_gas_max}, expected 0 (this node sends only its own) or more gas")
    rpc, rpc_second = choose_endpoints(options.rpc)
    listen, announce = choose_listen(options)
    task = options.task
    return NodeSettings(
        task=task if task in BUILT_IN or not task else str(Path(task).resolve()),
        data=options.data,
        rpc=rpc,
        rpc_second=rpc_second,
        fee_cap_wei=parse_gwei(options.fee_cap),
        confirmations=check_confirmations(options.confirmations),
        listen=listen,
        announce=announce,
        mdns=not options.no_mdns,
        bootstrap=read_bootstrap(options),
        upnp=options.upnp,
        backend="kubo" if options.kubo else "libp2p",
        kubo=options.kubo,
        share_permille=round(options.share * 1000),
        device=options.device,
        reports_help=not options.never_report,
        pace_s=options.pace,
        tips_budget_wei=parse_ether(options.tips_budget),
        relay=not options.no_relay,
        relay_gas_max=options.relay_gas_max,
    )


def _read_password(options: argparse.Namespace, *, is_new: bool) -> str:
    with loading():
        from learnae.backends.private_files import read_password

    return read_password(Path(options.password_file) if options.password_file else None, confirm=is_new)


# --- the rest ---------------------------------------------------------------------------------------------------


def _chain(arguments: Sequence[str]) -> int:
    with loading():
        from learnae.backends.chain_server import main as serve

    return serve(arguments)


def _faucet(options: argparse.Namespace) -> int:
    with loading():
        from eth_utils.address import to_checksum_address

        from learnae.backends.ethereum import ask_faucet

    try:
        wallet = Address(to_checksum_address(options.wallet))
    except ValueError as error:
        raise UsageError(f"{options.wallet[:80]!r} is not the address of a wallet: 0x and 40 hex digits") from error
    amount = parse_ether(options.amount)
    run_interruptible(partial(ask_faucet, options.rpc, wallet, amount))
    print(f"{wallet} got {wei_text(amount)} of play money")
    return 0


def _demo(options: argparse.Namespace) -> int:
    with loading():
        from learnae.demo import DemoPlan, run_demo

    plan = DemoPlan(
        out=Path(options.out),
        seed=options.seed,
        funding_s=parse_duration(options.funding),
        training_s=parse_duration(options.training),
        plain=True if options.plain else None,
    )
    try:
        return run_demo(plan)
    except KeyboardInterrupt:
        print("the demo was interrupted; all that it started has ended", file=sys.stderr)
        return INTERRUPTED


def _sim_list(_options: argparse.Namespace) -> int:
    with loading():
        from learnae.sim.scenario import SCENARIOS

    for scenario in SCENARIOS.values():
        print(f"{scenario.name:<12} {scenario.about}")
    return 0


def _sim_run(options: argparse.Namespace) -> int:
    with loading():
        from learnae.cli.simulate import simulate

    return simulate(options)


def _paper(options: argparse.Namespace) -> int:
    with loading():
        from learnae.cli.paper import run_paper

    try:
        return run_paper(options)
    except KeyboardInterrupt:
        print("interrupted; the same command gives the same figures when it is run again", file=sys.stderr)
        return INTERRUPTED


def _task_check(options: argparse.Namespace) -> int:
    with loading():
        from learnae.learning.check import check_task

    report = check_task(options.task, options.data, device=options.device)
    for line in report.lines:
        print(f"  {line}")
    if report.fault is not None:
        raise report.fault
    print("the task is good")
    return 0


def _model(options: argparse.Namespace) -> int:
    with loading():
        from learnae.cli.model import write_model

    return write_model(options)


_RUNS: dict[str, Callable[[argparse.Namespace], int]] = {
    "demo": _demo,
    "session new": _session_new,
    "session show": _session_show,
    "join": _join,
    "node": _node,
    "status": _status,
    "model": _model,
    "faucet": _faucet,
    "sim list": _sim_list,
    "sim run": _sim_run,
    "paper": _paper,
    "task check": _task_check,
    **DOCTOR_RUNS,
    **IPFS_RUNS,
    **LAB_RUNS,
    **SENSOR_RUNS,
    **DAO_RUNS,
}
