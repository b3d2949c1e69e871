"""Writing a report: `summary.json` for programs, `report.html` for people."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

from learnae.report.model import SessionReport
from learnae.report.page import compose_page

Json = dict[str, object]


def compute_summary(report: SessionReport) -> Json:
    """The session as JSON values; wei as decimal strings, because many readers of JSON keep 53 bits only."""
    return {
        "session": report.session,
        "seconds": round(report.seconds, 3),
        "seed": report.seed,
        "version": report.version,
        "ticket_digest": report.ticket_digest,
        "machine": report.machine,
        "accuracy_pooled": _share(report.accuracy_pooled),
        "accuracy_median": _share(report.median_accuracy),
        "accuracy_alone_median": _share(report.median_accuracy_alone),
        "fund_wei": str(report.fund_wei),
        "paid_wei": str(report.paid_wei),
        "ledgers_equal": report.ledgers_equal,
        "stages": [{"name": mark.name, "start_s": round(mark.start_s, 3)} for mark in report.stages],
        "adoptions": len(report.adoptions),
        "ledger": [list(row) for row in report.ledger],
        "peers": [
            {
                "name": peer.name,
                "peer_id": peer.peer_id,
                "role": peer.role,
                "accuracy_alone": _share(peer.accuracy_alone),
                "accuracy": _share(peer.accuracy),
                "help_given": peer.help_given,
                "help_received": peer.help_received,
                "adoptions": peer.adoptions,
                "restarted_at_s": peer.restarted_at_s,
                "deposit_wei": str(peer.deposit_wei),
                "payout_wei": str(peer.payout_wei),
                "tips_balance_wei": str(peer.tips_balance_wei),
                "transactions": peer.transactions,
                "fees_wei": str(peer.fees_wei),
            }
            for peer in report.peers
        ],
    }


def _share(value: float) -> float | None:
    """JSON knows no NaN: what was not measured is null."""
    return round(value, 6) if math.isfinite(value) else None


def write_report(report: SessionReport, folder: Path) -> Path:
    """Write `summary.json` and `report.html` into `folder` (made if absent) and return the path of the page.

    Each file appears whole or not at all. Raises: OSError: the folder or disk does not take them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    replace_file(folder / "summary.json", json.dumps(compute_summary(report), indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    page = folder / "report.html"
    replace_file(page, compose_page(report))
    return page


def replace_file(path: Path, content: str) -> None:
    """Write a file that appears whole or not at all."""
    draft = path.with_name(path.name + ".part")
    draft.write_text(content, encoding="utf-8", errors="replace")
    os.replace(draft, path)
