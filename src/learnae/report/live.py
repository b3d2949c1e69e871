"""What one sees while a session runs: a table of peers that renews itself on a terminal, plain lines elsewhere.

Fed with plain values; reads nothing by itself but the clock that it is given. Texts from outside (names, events) are shown
without control letters, so no peer can write to the reader's terminal.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import median
from types import TracebackType
from typing import Self, TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from learnae.report.curves import error_digits
from learnae.report.words import clean_text, format_duration, format_percent, shorten

EVENTS_SHOWN = 6
SUMMARY_EVERY_S = 10.0  # How often a log without a terminal says how things are.
BAR_LETTERS = 18
_FULL_BAR = 0.99  # The bar is stretched like the report's plot: full at 99 %, half at 90 %.
_STATE_STYLES = {
    "training": "green",
    "averaging": "cyan",
    "evaluating": "cyan",
    "fetching": "cyan",
    "done": "bold green",
    "killed": "bold red",
    "failed": "bold red",
    "restarting": "yellow",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerLine:
    """What is shown of one peer."""

    state: str = "starting"
    cycles: int = 0
    accuracy: float | None = None
    adoptions: int = 0
    help_given: int = 0
    help_received: int = 0


class LiveView:
    """`with LiveView(names) as view:` then `update`, `event` and `stage` as things happen, from one thread.

    `plain` forces plain lines (True) or the table (False); by default the kind of `file` decides.
    """

    def __init__(
        self,
        names: Sequence[str],
        *,
        title: str = "learnae session",
        file: TextIO | None = None,
        plain: bool | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._console = Console(file=file or sys.stdout, highlight=False)
        self._plain = not self._console.is_terminal if plain is None else plain
        self._title = title
        self._clock = clock
        self._began_s = self._summary_s = clock()
        self._stage = ""
        self._stage_ends_s: float | None = None
        self._stage_length_s = 0.0
        self._lines = {name: PeerLine() for name in names}
        self._events: deque[tuple[float, str]] = deque(maxlen=EVENTS_SHOWN)
        self._live: Live | None = None

    def __enter__(self) -> Self:
        if not self._plain:
            self._live = Live(get_renderable=self.render, console=self._console, refresh_per_second=4, transient=False)
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def update(self, name: str, **values: str | int | float | None) -> None:
        """Set what is known of a peer: any of `state`, `cycles`, `accuracy`, `adoptions`, `help_given`, `help_received`.

        A name that was not given before joins at the end. Raises: TypeError: a value that is none of these.
        """
        self._lines[name] = replace(self._lines.get(name, PeerLine()), **values)  # type: ignore[arg-type]
        if self._plain and self._clock() - self._summary_s >= SUMMARY_EVERY_S:
            self._summary_s = self._clock()
            self._print(self._summarise())

    def event(self, words: str) -> None:
        """Something worth a line."""
        self._events.append((self._clock(), clean_text(words)))
        if self._plain:
            self._print(clean_text(words))

    def stage(self, name: str, remaining_s: float | None = None) -> None:
        """The stage of the session and how long it lasts from now on, where that is known."""
        begins = name != self._stage
        self._stage = clean_text(name)
        self._stage_ends_s = None if remaining_s is None else self._clock() + remaining_s
        if begins or self._stage_length_s < (remaining_s or 0.0):
            self._stage_length_s = remaining_s or 0.0
        if begins and self._plain:
            self._print(f"== {self._stage}" + (f", {format_duration(remaining_s)}" if remaining_s else ""))

    def render(self) -> Panel:
        """The view as it stands now; the table's own thread calls this four times a second."""
        parts: list[Text | Table] = [self._render_stage(), Text(""), self._render_peers()]
        if self._events:
            parts.append(Text(""))
            for at, words in tuple(self._events):
                parts.append(Text.assemble((f"{at - self._began_s:6.0f} s  ", "dim"), words, no_wrap=True, overflow="ellipsis"))
        return Panel(Group(*parts), title=Text(clean_text(self._title), style="bold"), border_style="blue", padding=(1, 2), expand=True)

    def _render_stage(self) -> Text:
        line = Text(self._stage or "Starting", style="bold")
        if self._stage_ends_s is not None and self._stage_length_s > 0:
            left_s = max(0.0, self._stage_ends_s - self._clock())
            done = 1 - min(1.0, left_s / self._stage_length_s)
            filled = round(30 * done)
            line.append("  ").append("━" * filled, style="blue").append("━" * (30 - filled), style="bright_black")
            line.append(f"  {format_duration(left_s)} left", style="dim")
        line.append(f"   {format_duration(self._clock() - self._began_s)} in all", style="dim")
        return line

    def _render_peers(self) -> Table:
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
        for head, where in (("peer", "left"), ("state", "left"), ("cycles", "right"), ("accuracy", "left")):
            table.add_column(head, justify="right" if where == "right" else "left", no_wrap=True)
        for head in ("adopted", "helped", "was helped"):
            table.add_column(head, justify="right", no_wrap=True)
        lines = tuple(self._lines.items())
        room = max(3, self._console.height - EVENTS_SHOWN - 10)
        for name, line in lines[:room]:
            counts = [f"{number:,}" for number in (line.adoptions, line.help_given, line.help_received)]
            table.add_row(
                Text(shorten(clean_text(name), 16), style="bold"),
                _render_state(line.state),
                f"{line.cycles}",
                _render_bar(line.accuracy),
                *counts,
            )
        if len(lines) > room:
            table.add_row(Text(f"and {len(lines) - room} more", style="dim"))
        return table

    def _summarise(self) -> str:
        lines = self._lines.values()
        known = [line.accuracy for line in lines if line.accuracy is not None]
        middle = format_percent(median(known)) if known else "not known yet"
        cycles, adoptions = sum(line.cycles for line in lines), sum(line.adoptions for line in lines)
        return f"{self._stage or 'Starting'}: median accuracy {middle}, {cycles} work cycles, {adoptions} adoptions, {len(lines)} peers"

    def _print(self, words: str) -> None:
        self._console.print(Text(f"[{self._clock() - self._began_s:5.0f} s] {words}"), soft_wrap=True)


def _render_state(state: str) -> Text:
    words = shorten(clean_text(state), 18)
    return Text(words, style=_STATE_STYLES.get(state.split(" ", maxsplit=1)[0].lower(), "default"))


def _render_bar(accuracy: float | None) -> Text:
    if accuracy is None:
        return Text("–", style="dim")
    share = min(1.0, max(0.0, error_digits(accuracy) / error_digits(_FULL_BAR)))
    filled = round(BAR_LETTERS * share)
    bar = Text("━" * filled, style="green").append("━" * (BAR_LETTERS - filled), style="bright_black")
    return bar.append(f" {format_percent(accuracy)}")
