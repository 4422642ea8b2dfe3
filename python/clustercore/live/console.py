"""What the trader sees: a block for each recommendation, and one line that says how things are.

On a terminal the line stays at the bottom and changes in place. Anywhere else there is no line:
only blocks and sentences, in plain text. Drawing has a thread of its own, so that a terminal that
does not take output cannot hold up trading.
"""

from __future__ import annotations

import collections
import contextlib
import os
import textwrap
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self, TextIO

from clustercore.live.status import utc_text
from clustercore.recommend import clock_text, exit_text, shown_price

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.live import Live
    from rich.table import Table
    from rich.text import Text

    from clustercore.live.status import RootStatus, Status
    from clustercore.recommendation import Recommendation

__all__ = [
    "StatusLine",
    "recommendation_block",
    "recommendation_text",
    "status_line",
]

_WIDTH: Final = 80
_LABEL: Final = 12
_GAUGE: Final = 20
_MINUTE_S: Final = 60
_HOUR_S: Final = 3600
# At most so many drawings a second.
_PAUSE_S: Final = 0.2
_CLOSE_S: Final = 1.0
_LINES_KEPT: Final = 1000

_STATE_STYLES: Final = {
    "IDLE": "black on bright_black",
    "CONNECTING": "black on cyan",
    "CATCHING_UP": "black on cyan",
    "LIVE": "bold black on green",
    "DEGRADED": "bold black on yellow",
    "BACKOFF": "bold black on yellow",
    "STOPPED": "black on bright_black",
    "FATAL": "bold white on red",
}

# Letters of a reason that are left when there is room for no more.
_FEWEST: Final = 20
_GAP: Final = 2


@dataclass(frozen=True)
class _Part:
    """A part of the line.

    Attributes
    ----------
    words : str
        What it says.
    style : str
        How it looks.
    rank : int
        The highest ranks go first when the terminal is too narrow; rank 0 never does.
    short : str
        The same in fewer letters.
    elastic : bool
        Whether it may be cut anywhere.
    """

    words: str
    style: str
    rank: int
    short: str = ""
    elastic: bool = False

    @property
    def least(self) -> str:
        """The fewest letters that it can be said in."""
        if self.elastic:
            return _cut(self.words, _FEWEST)
        return self.short or self.words

    def within(self, width: int) -> str:
        """Return what it says in at most so many letters, where it can."""
        if len(self.words) <= width:
            return self.words
        return _cut(self.words, max(width, _FEWEST)) if self.elastic else self.least


def recommendation_text(recommendation: Recommendation) -> str:
    """Return a recommendation as plain text of at most 80 columns.

    Parameters
    ----------
    recommendation : Recommendation
        What is told.
    """
    rec = recommendation
    lines = ["=" * _WIDTH, _title(rec), "-" * _WIDTH]
    for label, words in _rows(rec):
        lines += textwrap.wrap(
            words,
            _WIDTH,
            initial_indent=label.ljust(_LABEL),
            subsequent_indent=" " * _LABEL,
        )
    return "\n".join([*lines, "=" * _WIDTH])


def recommendation_block(recommendation: Recommendation) -> RenderableType:
    """Return a recommendation as a block for a terminal.

    Parameters
    ----------
    recommendation : Recommendation
        What is told.
    """
    from rich import box
    from rich.console import Group
    from rich.panel import Panel
    from rich.text import Text

    rec = recommendation
    colour = "green" if rec.action == "BUY" else "red"
    parts: list[RenderableType] = [_headline(rec, colour), Text(""), _levels(rec), Text("")]
    parts.append(_facts(rec))
    title = Text(f" {_when(rec)} ", style="bold")
    footer = Text(f" {rec.id} ", style="dim")
    return Panel(
        Group(*parts),
        box=box.HEAVY,
        title=title,
        title_align="left",
        subtitle=footer,
        subtitle_align="right",
        border_style=colour,
        padding=(0, 2),
        width=_WIDTH,
    )


def _title(rec: Recommendation) -> str:
    simulated = "SIMULATED  " if rec.simulated else ""
    return f"{simulated}{rec.action} {rec.quantity} {_clean(rec.contract)}   {_when(rec)}"


def _when(rec: Recommendation) -> str:
    return utc_text(rec.timestamp)[:19].replace("T", " ") + " UTC"


def _rows(rec: Recommendation) -> Iterator[tuple[str, str]]:
    yield "order", f"{_order(rec)} {shown_price(rec, rec.price)} ({_meaning(rec)})"
    yield "valid", _validity(rec)
    if exit_text(rec):
        yield "exit", exit_text(rec)
    yield "stop", _level(rec, rec.stop_loss, rec.stop_distance, "risk", rec.risk_usd)
    yield "target", _level(rec, rec.profit_target, rec.target_distance, "reward", rec.reward_usd)
    yield "reward/risk", _ratio(rec)
    yield "confidence", _confidence(rec)
    yield "strength", f"{rec.signal_strength:.2f}, multiplier {_multiplier(rec)}"
    yield "why", _clean(rec.reasoning)
    yield "id", rec.id


def _validity(rec: Recommendation) -> str:
    """Return until when the order may fill, with a time in any case."""
    if ":" in rec.validity:
        return rec.validity
    return f"{rec.validity}, until {clock_text(rec.valid_until)}"


def _order(rec: Recommendation) -> str:
    return f"{rec.order_type} {'at' if rec.price_is == 'firm' else 'near'}"


def _meaning(rec: Recommendation) -> str:
    if rec.price_is == "firm":
        return "firm"
    return "indicative; stop and target keep their distance from the fill"


def _level(
    rec: Recommendation, price: float | None, distance: float | None, word: str, usd: float | None
) -> str:
    points = "" if distance is None else f", {shown_price(rec, distance)} points"
    money = "" if usd is None else f", {word} {_usd(usd)} with costs"
    return f"{shown_price(rec, price)}{points}{money}"


def _ratio(rec: Recommendation) -> str:
    if rec.risk_usd is None or rec.reward_usd is None or rec.risk_usd <= 0:
        return "-"
    return f"{rec.reward_usd / rec.risk_usd:.2f}"


def _confidence(rec: Recommendation) -> str:
    if rec.confidence is None or rec.confidence_low is None or rec.confidence_high is None:
        return "no record yet"
    low, high = rec.confidence_low, rec.confidence_high
    return f"{rec.confidence:.0%}, 90% interval {low:.0%} to {high:.0%}"


def _multiplier(rec: Recommendation) -> str:
    return "-" if rec.bayesian_multiplier is None else f"{rec.bayesian_multiplier:.2f}"


def _usd(value: float) -> str:
    return f"{'-' if value < 0 else ''}${abs(value):,.2f}"


def _headline(rec: Recommendation, colour: str) -> Table:
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(expand=True, padding=(0, 1))
    grid.add_column()
    grid.add_column(justify="right")
    left = Text()
    left.append(f" {rec.action} {rec.quantity} ", style=f"bold black on {colour}")
    left.append(f" {_clean(rec.contract)}  ", style="bold")
    left.append(f"{_order(rec)} ", style="default")
    left.append(shown_price(rec, rec.price), style="bold")
    left.append(f" {rec.price_is}", style="dim" if rec.price_is == "firm" else "yellow")
    right = Text("")
    if rec.simulated:
        right.append(" SIMULATED ", style="bold black on yellow")
    grid.add_row(left, right)
    grid.add_row(Text(f"valid {_validity(rec)}", style="dim"), Text(""))
    return grid


def _levels(rec: Recommendation) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 3, 0, 0))
    table.add_column(style="dim", width=_LABEL - 2)
    for _ in range(3):
        table.add_column(justify="right", min_width=10)
    headers = ("", "price", "points", "USD with costs")
    table.add_row(*(Text(header, style="dim") for header in headers))
    rows = (
        ("target", "green", rec.profit_target, rec.target_distance, rec.reward_usd, 1),
        ("stop", "red", rec.stop_loss, rec.stop_distance, rec.risk_usd, -1),
    )
    for label, colour, price, distance, usd, sign in rows:
        table.add_row(
            label,
            Text(shown_price(rec, price), style="bold"),
            Text(shown_price(rec, distance)),
            Text("-" if usd is None else _signed(sign * usd), style=colour),
        )
    return table


def _facts(rec: Recommendation) -> Table:
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 1, 0, 0))
    grid.add_column(style="dim", width=_LABEL)
    grid.add_column()
    confidence = Text(_confidence(rec))
    if rec.confidence is not None:
        confidence = _gauge(rec) + Text("  ") + confidence
    if exit_text(rec):
        grid.add_row("exit", Text(exit_text(rec)))
    grid.add_row("confidence", confidence)
    grid.add_row(
        "signal",
        Text(
            f"strength {rec.signal_strength:.2f}   size multiplier {_multiplier(rec)}   "
            f"reward/risk {_ratio(rec)}"
        ),
    )
    grid.add_row("why", Text(_clean(rec.reasoning)))
    if rec.price_is != "firm":
        note = "Stop and target keep their distance from the fill."
        grid.add_row("", Text(note, style="dim"))
    return grid


def _gauge(rec: Recommendation) -> Text:
    """Return the interval and its mean on a scale from 0 to 100 %."""
    from rich.text import Text

    ends = [rec.confidence_low or 0.0, rec.confidence or 0.0, rec.confidence_high or 0.0]
    low, mean, high = (min(_GAUGE - 1, int(value * _GAUGE)) for value in ends)
    gauge = Text()
    for cell in range(_GAUGE):
        if cell == mean:
            gauge.append("◆", style="bold cyan")
        elif low <= cell <= high:
            gauge.append("━", style="cyan")
        else:
            gauge.append("─", style="bright_black")
    return gauge


def status_line(status: Status, width: int = _WIDTH) -> Text:
    """Return a status as one line for each engine, cut to a width by leaving out the least.

    Parameters
    ----------
    status : Status
        What is shown.
    width : int
        Columns of the terminal.
    """
    from rich.text import Text

    style = _STATE_STYLES.get(status.state, "reverse")
    state = [_Part(f" {status.state} ", style, 0)]
    if status.simulated:
        state.append(_Part("SIMULATED", "bold yellow", 0))
    tail: list[_Part] = []
    if status.reason and status.state != "LIVE":
        state.append(_Part(_clean(status.reason), "yellow", 1, elastic=True))
    if status.queue_depth:
        tail.append(_Part(f"queue {status.queue_depth:,}", "dim", 7))
    if len(status.roots) == 1:
        return _line([*state, *_root_parts(status.roots[0]), *tail], width)
    if status.roots:
        tail.insert(0, _day(status.day_pnl))
        tail.insert(1, _at_risk(status.risk_usd, 1))
    lines = [_line([*state, *tail], width)]
    lines += [_line(_root_parts(root), width) for root in status.roots]
    return Text("\n").join(lines)


def _root_parts(root: RootStatus) -> list[_Part]:
    parts = [_Part(_clean(root.contract or root.root), "bold", 0), _last_bar(root), _volume(root)]
    if root.pending_retests:
        noun = "retest" if root.pending_retests == 1 else "retests"
        parts.append(_Part(f"{root.pending_retests} {noun}", "cyan", 5))
    if root.open_position:
        position = _clean(root.open_position)
        brief = position.replace("long ", "L ").replace("short ", "S ")
        parts.append(_Part(position, "bold", 1, brief))
    else:
        parts.append(_Part("flat", "dim", 5))
    parts.append(_day(root.day_pnl))
    if root.risk_usd:
        parts.append(_at_risk(root.risk_usd, 6))
    if root.blocked:
        parts.append(_Part(_clean(root.blocked), "bold red", 1, elastic=True))
    return parts


def _day(pnl: float) -> _Part:
    return _Part(f"day {_signed(pnl)}", _money_style(pnl), 2, _signed(pnl))


def _at_risk(usd: float, rank: int) -> _Part:
    return _Part(f"at risk {_usd(usd)}", "default", rank, f"risk {_usd(usd)}")


def _last_bar(root: RootStatus) -> _Part:
    if root.last_bar_start is None:
        return _Part("no bar yet" if root.contract else "no contract yet", "dim", 3)
    clock = utc_text(root.last_bar_start)[11:16]
    if root.last_bar_age_s is None:
        return _Part(f"bar {clock}", "default", 3, clock)
    age = _age(root.last_bar_age_s)
    return _Part(f"bar {clock}, {age} ago", "default", 3, f"{clock} {age.replace(' ', '')}")


def _age(seconds: float) -> str:
    if seconds < 2 * _MINUTE_S:
        return f"{max(0.0, seconds):.0f} s"
    if seconds < 2 * _HOUR_S:
        return f"{seconds / _MINUTE_S:.0f} min"
    return f"{seconds / _HOUR_S:.0f} h"


def _volume(root: RootStatus) -> _Part:
    volume = f"vol {_short(root.session_volume)}"
    if not root.baseline_volume:
        return _Part(volume, "default", 4)
    usual = f"{root.session_volume / root.baseline_volume:.2f}x"
    return _Part(f"{volume}, {usual} usual", "default", 4, f"vol {usual}")


def _short(volume: int) -> str:
    if volume >= 1_000_000:  # noqa: PLR2004 -- a million
        return f"{volume / 1_000_000:.2f}M"
    return f"{volume / 1000:.0f}k" if volume >= 10_000 else f"{volume:,}"  # noqa: PLR2004


def _signed(value: float) -> str:
    return ("+" if value > 0 else "") + _usd(value)


def _money_style(value: float) -> str:
    if value > 0:
        return "green"
    return "red" if value < 0 else "dim"


def _line(parts: Sequence[_Part], width: int) -> Text:
    from rich.text import Text

    shown = _fitted(parts, width)
    line = Text(no_wrap=True, overflow="ellipsis")
    for place in sorted(shown):
        line.append(" " * _GAP if place else "")
        line.append(shown[place], style=parts[place].style)
    line.truncate(width, overflow="ellipsis")
    return line


def _fitted(parts: Sequence[_Part], width: int) -> dict[int, str]:
    """Return the words of the parts that fit, by their places.

    Every part is said in few letters, the least important ones are left out until the rest fits,
    and what room there is then goes to the most important.
    """
    by_rank = sorted(range(len(parts)), key=lambda place: (parts[place].rank, place))
    shown: dict[int, str] = {}
    for place in by_rank:
        tried = shown | {place: parts[place].least}
        if parts[place].rank == 0 or _length(tried) <= width:
            shown = tried
    for place in by_rank:
        if place in shown:
            room = width - _length(shown) + len(shown[place])
            shown[place] = max(shown[place], parts[place].within(room), key=len)
    return shown


def _length(shown: Mapping[int, str]) -> int:
    return sum(map(len, shown.values())) + _GAP * (len(shown) - 1)


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"


def _clean(text: str) -> str:
    """Return a text from outside without what a terminal would obey."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


def _draws(stream: TextIO) -> bool:
    """Return whether a line can change in place there, with the signs it is drawn with."""
    dumb = os.environ.get("TERM", "") in {"", "dumb", "unknown"}
    return stream.isatty() and not dumb and "utf" in (stream.encoding or "").lower()


class StatusLine:
    r"""The console of the live process.

    Every method returns at once; a thread of its own draws. A terminal that is gone is left alone.

    Parameters
    ----------
    stream : TextIO
        Usually standard output.
    live : bool, optional
        Whether there is a line that changes in place; by default on a terminal.
    width : int, optional
        Columns; by default the terminal's.

    Examples
    --------
    >>> import io
    >>> stream = io.StringIO()
    >>> with StatusLine(stream) as console:
    ...     console.say("The market opens at 23:00 UTC.")
    >>> stream.getvalue()
    'The market opens at 23:00 UTC.\n'
    """

    def __init__(
        self, stream: TextIO, *, live: bool | None = None, width: int | None = None
    ) -> None:
        self._stream = stream
        self._encoding = stream.encoding or "utf-8"
        self._is_live = _draws(stream) if live is None else live
        self._width = width
        # Oldest lines are given up when the terminal does not take them.
        self._waiting: collections.deque[Recommendation | str] = collections.deque(
            maxlen=_LINES_KEPT
        )
        self._status: Status | None = None
        self._drawn: Status | None = None
        self._console: Console | None = None
        self._live: Live | None = None
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self.is_gone = False

    def start(self) -> Self:
        """Begin to draw."""
        if self._thread is None:
            # A daemon: a terminal that does not take output must not keep the process alive.
            self._thread = threading.Thread(target=self._run, name="console", daemon=True)
            self._thread.start()
        return self

    def update(self, status: Status) -> None:
        """Show a status; one that comes before the last was drawn replaces it."""
        self._status = status
        self._wake.set()

    def show(self, recommendation: Recommendation) -> None:
        """Show a recommendation above the line."""
        self._waiting.append(recommendation)
        self._wake.set()

    def say(self, text: str) -> None:
        """Show a sentence above the line."""
        self._waiting.append(text)
        self._wake.set()

    def close(self) -> None:
        """Draw what is waiting and give the terminal back, within a second."""
        self._stopping.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(_CLOSE_S)
            self._thread = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *error: object) -> None:
        self.close()

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                self._wake.wait()
                self._wake.clear()
                self._draw()
                self._stopping.wait(_PAUSE_S)
            self._draw()
            if self._live is not None:
                self._live.stop()
        except (OSError, ValueError):
            # The terminal was closed. Trading goes on; the log has everything.
            self.is_gone = True
            with contextlib.suppress(OSError, ValueError):
                if self._live is not None:
                    self._live.stop()

    def _draw(self) -> None:
        status = self._status
        while self._waiting:
            self._print(self._waiting.popleft())
        if status is None or status is self._drawn:
            return
        if self._is_live:
            self._draw_line(status)
        self._drawn = status

    def _print(self, waiting: Recommendation | str) -> None:
        if isinstance(waiting, str):
            text = _clean(waiting)
            if self._is_live:
                from rich.text import Text

                self._terminal().print(Text(text))
            else:
                self._write(text)
        elif self._is_live:
            self._terminal().print(recommendation_block(waiting))
        else:
            self._write(recommendation_text(waiting))

    def _write(self, text: str) -> None:
        shown = text.encode(self._encoding, "replace").decode(self._encoding)
        self._stream.write(f"{shown}\n")
        self._stream.flush()

    def _terminal(self) -> Console:
        if self._console is None:
            from rich.console import Console

            self._console = Console(
                file=self._stream, width=self._width, force_terminal=True, highlight=False
            )
        return self._console

    def _draw_line(self, status: Status) -> None:
        from rich.live import Live

        console = self._terminal()
        line = status_line(status, console.width - 1)
        if self._live is None:
            self._live = Live(
                line,
                console=console,
                auto_refresh=False,
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._live.start(refresh=True)
        else:
            self._live.update(line, refresh=True)
