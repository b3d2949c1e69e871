"""What `learnae dao status` and `proposals` show, as plain values for programs and as lines for people."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from learnae.backends.ethereum.governance import GovernanceView, Proposal
from learnae.cli.amounts import format_duration
from learnae.ids import Address, peer_text, wei_text
from learnae.protocol.calls import ChainView, Member, SessionTerms, Stage

Values = dict[str, Any]


def describe_session(contract: Address, chain_id: int, terms: SessionTerms, view: ChainView, *, me: Address | None, now_s: float) -> Values:
    """The session as plain values; amounts are texts of wei, times Unix seconds. `now_s`: the chain's time."""
    ends_s = find_end(terms, view)
    points = sum(claim.points for claim in view.claims)
    claims = {claim.index: claim for claim in view.claims}

    def describe_member(member: Member) -> Values:
        claim = claims.get(member.index)
        return {
            "number": member.index,
            "wallet": member.wallet,
            "peer": "" if member.poid.fault else peer_text(member.poid.peer_id),
            "fault": member.poid.fault,
            "points": None if claim is None else claim.points,
            "evidence": None if claim is None else claim.evidence.hex(),
            "nays": None if view.nay_counts is None or claim is None else view.nay_counts.get(member.index, 0),
            "approved": member.index in view.approved if view.stage is Stage.RELEASED and claim is not None else None,
            "voted": member.index in view.ballots,
            "due_wei": str((view.due_wei or {}).get(member.wallet, 0)),
            "paid_wei": str((view.paid_wei or {}).get(member.wallet, 0)),
        }

    mine = next((member.index for member in view.members if member.wallet == me), None)
    return {
        "contract": contract,
        "chain_id": chain_id,
        "block": view.block_number,
        "block_time_s": view.time_s,
        "stage": view.stage.value,
        "stage_ends_s": ends_s,
        "stage_left_s": None if ends_s is None else max(0, round(ends_s - now_s)),
        "rules_sha256": terms.rules_digest.hex(),
        "deposit_wei": str(terms.deposit_wei),
        "fund_wei": str(view.fund_wei),
        "members_min": terms.members_min,
        "members_max": terms.members_max,
        "ballots": len(view.ballots),
        "points": points,
        "reject_quorum_permille": terms.reject_quorum_permille,
        "wallet": me,
        "number": mine,
        "members": [describe_member(member) for member in view.members],
    }


def find_end(terms: SessionTerms, view: ChainView) -> int | None:
    """When the stage ends, Unix seconds of block time; None if it ends otherwise or never."""
    ends = {
        Stage.FUNDING: terms.funding_ends_s,
        Stage.TRAINING: view.training_ends_s,
        Stage.CLAIMING: view.claiming_ends_s,
        Stage.VOTING: view.voting_ends_s,
    }
    return ends.get(view.stage)


def format_session(values: Mapping[str, Any], confirmations: int) -> str:
    """The session as aligned lines."""
    me, number = values["wallet"], values["number"]
    depth = "the newest" if confirmations == 1 else f"the newest with {confirmations} confirmations"
    lines = [
        ("session", f"{values['contract']} on chain {values['chain_id']}, as of block {values['block']} ({depth})"),
        ("stage", format_stage(values)),
        ("rules", f"SHA-256 {values['rules_sha256']}"),
        ("deposit", f"{wei_text(int(values['deposit_wei']))} from each member"),
        ("members", f"{len(values['members'])} ({values['members_min']} to {values['members_max']} wanted)"),
        ("fund", wei_text(int(values["fund_wei"]))),
        ("ballots", f"{values['ballots']} of {len(values['members'])}"),
    ]
    if me is not None:
        lines.append(("you", f"{me}, {'not a member' if number is None else f'member {number}'}"))
        collected, budget = int(values.get("tips_wei", 0)), int(values.get("tips_budget_wei", 0))
        if collected or budget:
            lines.append(("tips", f"{wei_text(collected)} collected for you, {wei_text(budget)} left in your budget"))
    text = "\n".join(f"{label:>10}  {line}" for label, line in lines)
    return "\n".join([text, *(_format_member(member, values["points"], number) for member in values["members"])])


def format_stage(values: Mapping[str, Any]) -> str:
    """The stage and what is left of it."""
    stage, ends_s, left_s = values["stage"], values["stage_ends_s"], values["stage_left_s"]
    if stage == "settling":
        return "settling: the votes are being counted; `learnae dao release` goes on with it"
    if ends_s is None:
        return f"{stage}: it is over"
    if left_s <= 0:
        return f"{stage}: its time is over, the next block ends it"
    return f"{stage}, {format_duration(left_s)} left (until {time.strftime('%Y-%m-%d %H:%M:%S UTC', time.gmtime(ends_s))})"


def _format_member(member: Mapping[str, Any], points: int, mine: int | None) -> str:
    parts = []
    if member["points"] is not None:
        share = 100 * member["points"] / points if points else 0.0
        parts.append(f"claims {member['points']} points ({share:.1f} % of all)")
    if member["nays"]:
        parts.append(f"{member['nays']} against it")
    if member["approved"] is not None:
        parts.append("approved" if member["approved"] else "rejected")
    if member["voted"]:
        parts.append("voted")
    for label in ("due", "paid"):
        if int(member[f"{label}_wei"]):
            parts.append(f"{label} {wei_text(int(member[f'{label}_wei']))}")
    who = f"not valid: {member['fault']}" if member["fault"] else f"peer ...{member['peer'][-6:]}"
    marker = "*" if member["number"] == mine else " "
    return f"{marker}{member['number']:>9}  {member['wallet']}  {', '.join([who, *parts])}"


# --- proposals ------------------------------------------------------------------------------------------------------


def describe_governance(view: GovernanceView, calls: Mapping[int, str], *, now_s: float) -> Values:
    """The governance as plain values. `calls`: what each proposal's call does, in words."""
    return {
        "contract": view.contract,
        "available_wei": str(view.available_wei),
        "proposal_deposit_wei": str(view.proposal_deposit_wei),
        "quorum_divisor": view.min_quorum_divisor,
        "count": view.count,
        "back_wei": str(view.back_wei),
        "proposals": [_describe_proposal(proposal, calls[proposal.number], now_s) for proposal in view.proposals],
    }


def _describe_proposal(proposal: Proposal, call: str, now_s: float) -> Values:
    return {
        "number": proposal.number,
        "state": _find_state(proposal, now_s),
        "recipient": proposal.recipient,
        "amount_wei": str(proposal.amount_wei),
        "call": call,
        "description": proposal.description,
        "creator": proposal.creator,
        "deposit_wei": str(proposal.deposit_wei),
        "voting_deadline_s": proposal.voting_deadline_s,
        "left_s": max(0, round(proposal.voting_deadline_s - now_s)),
        "yea": proposal.yea,
        "nay": proposal.nay,
        "min_quorum": proposal.min_quorum,
        "voted": proposal.voted,
    }


def _find_state(proposal: Proposal, now_s: float) -> str:
    if not proposal.is_open:
        return "passed" if proposal.passed else "failed"
    if now_s < proposal.voting_deadline_s:
        return "voting"
    return "approved, can be executed" if proposal.is_approved else "failed, can be closed"


def format_governance(values: Mapping[str, Any]) -> str:
    """The proposals as lines for people."""
    lines = [
        f"{'governance':>10}  {values['contract']}, may spend {wei_text(int(values['available_wei']))}",
        f"{'proposals':>10}  {values['count']} so far; a new one deposits {wei_text(int(values['proposal_deposit_wei']))} "
        f"and needs the votes of one member in {values['quorum_divisor']} at least",
    ]
    for one in values["proposals"]:
        left = f", {format_duration(one['left_s'])} left" if one["state"] == "voting" else ""
        voted = f"; you voted {one['voted']}" if one["voted"] else ""
        lines += [
            f"{one['number']:>10}  {one['state']}{left}: {one['yea']} for, {one['nay']} against, votes needed: {one['min_quorum']}{voted}",
            f"{'':>10}  {wei_text(int(one['amount_wei']))} to {one['recipient']}: {one['call']}",
            f"{'':>10}  \"{one['description']}\" says {one['creator']}",
        ]
    return "\n".join(lines)
