"""The report of a finished session: `summary.json`, a self-contained `report.html`, a table for the terminal, and a live view.

Plain values in, text and files out; what a page shows from outside is escaped. The main doors: `write_report`, `format_table`
and `learnae.report.live.LiveView`.
"""

from learnae.report.files import compute_summary, write_report
from learnae.report.model import Adoption, PeerReport, SessionReport, StageMark
from learnae.report.table import format_table

__all__ = ["Adoption", "PeerReport", "SessionReport", "StageMark", "compute_summary", "format_table", "write_report"]
