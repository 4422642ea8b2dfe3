"""The commands of the live process: start it, ask it, stop it, check what it did."""

from __future__ import annotations

import contextlib
import logging
import os
import shlex
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

from cyclopts import App, Group, Parameter

from clustercore.cli import output
from clustercore.cli.options import (
    AS_TEXT,
    NO_SETTINGS,
    OutputOptions,
    SettingOptions,
    resolve_config,
)
from clustercore.cli.stores import owned, readable
from clustercore.errors import ClusterCoreError, ConfigError, EngineBusy, InternalError

if TYPE_CHECKING:
    from clustercore.config import Config
    from clustercore.live.doctor import Check
    from clustercore.live.key import Key
    from clustercore.live.runner import LiveRunner, SessionSummary
    from clustercore.live.settings import LiveSettings
    from clustercore.parity import Parity
    from clustercore.store import FeedEvent

__all__ = ["doctor", "live", "parity", "reset_halt", "service", "status", "stop"]

_DATABASE = Path("live.duckdb")
_LIVE = Group("Live", sort_key=0)
_FOUND = 1
_SECOND_NS: Final = 10**9

Database = Annotated[Path, Parameter(name="--db", help="The DuckDB file.")]
Symbols = Annotated[
    tuple[str, ...],
    Parameter(
        name="--symbol",
        negative="",
        show_default=" ".join,
        help="Product such as ES, of which the front month is followed, or one contract such as "
        "ESZ6; may be repeated.",
    ),
]


def live(
    *,
    symbol: Annotated[Symbols, Parameter(group=_LIVE)] = ("ES",),
    db: Annotated[Database, Parameter(group=_LIVE)] = _DATABASE,
    gateway: Annotated[str | None, Parameter(group=_LIVE)] = None,
    late: Annotated[str | None, Parameter(group=_LIVE)] = None,
    live_set: Annotated[
        tuple[str, ...],
        Parameter(name="--live", negative="", show_default=False, group=_LIVE),
    ] = (),
    log: Annotated[Path | None, Parameter(group=_LIVE)] = None,
    settings: SettingOptions = NO_SETTINGS,
    debug: Annotated[bool, Parameter(negative="", show_default=False, group=_LIVE)] = False,
) -> int:
    """Trade on paper, live: recommendations as they come, and everything in one database.

    Parameters
    ----------
    gateway
        Another gateway, such as 127.0.0.1:13000 (see `clustercore gateway`); Databento's when left
        out.
    late
        miss or act: what becomes of a signal whose bar came too late.
    live_set
        One setting of the live process, such as max_bar_age_s=5; may be repeated.
    log
        The log file; beside the database when left out.
    debug
        Write more into the log.
    """
    from clustercore.live.console import StatusLine
    from clustercore.live.logs import FOR_THE_FILE, catch_up, configure_logs, held_back
    from clustercore.recommend import ended_text

    config = resolve_config(settings)
    chosen = _live_settings(settings.config, gateway, late, live_set)
    # What is written is for its owner: positions, orders, addresses.
    os.umask(0o077)
    with held_back() as said:
        runner = _runner(config, symbol, db, chosen)
    # The log beside a database is its process's, of which there is one.
    _check_free(runner.database)
    console = StatusLine(sys.stdout)
    with (
        console,
        configure_logs(log or _log_of(db), "DEBUG" if debug else "INFO", console=console.say),
        _signals(runner),
    ):
        catch_up(said)
        runner.on_recommendation = console.show
        runner.on_end = lambda event: console.say(ended_text(event))
        runner.on_status = console.update
        tries = _Tries()
        runner.on_note = lambda event: _say_note(console.say, event, tries)
        runner.on_session = lambda summary: _say_lines(console.say, _session_lines(summary))
        try:
            code = runner.run()
        except Exception as error:
            logging.getLogger(__name__).error(  # noqa: TRY400 -- a traceback for a fault of ours only
                "the live process failed: %s",
                error,
                exc_info=not _is_expected(error),
                extra=FOR_THE_FILE,
            )
            raise
    if runner.parities:
        output.emit_text("Of the session that ended last (what came after it: clustercore parity):")
    for found in runner.parities.values():
        _show_certificate(found)
    counts = runner.status.counts
    told = (
        output.counted(counts[name], name.removesuffix("s"))
        for name in ("bars", "recommendations", "connections")
    )
    output.emit_wrapped(
        f"{runner.status.state}: {runner.status.reason}\n"
        f"{', '.join(told)}\n"
        f"Everything is in {db}; to check it:"
    )
    output.emit_text(f"  clustercore parity --db {shlex.quote(str(db))}")
    return code


def _runner(config: Config, symbols: Sequence[str], db: Path, chosen: LiveSettings) -> LiveRunner:
    from clustercore.live.alerts import read_channels
    from clustercore.live.runner import LiveRunner

    _check_symbols(symbols)
    _check_folder(db)
    # First: what is wrong with the file of both is said of the one that is needed.
    key = _key(chosen)
    channels = read_channels(os.environ, Path.cwd())
    if chosen.is_local and channels:
        output.note("a rehearsal: no alert is sent")
        channels = ()
    return LiveRunner(config, symbols, database=db, settings=chosen, key=key, channels=channels)


def _check_symbols(symbols: Sequence[str]) -> None:
    """Refuse what is neither a product nor one contract, and show what was found in quotes."""
    from clustercore.instruments import parse_symbol

    for symbol in symbols:
        if parse_symbol(symbol).kind not in {"root", "outright"}:
            raise ConfigError(
                "a live stream of such a symbol is not followed; ask for the product, and the "
                "month in front is chosen",
                field="--symbol",
                found=repr(symbol),
                expected="a product such as ES, or one contract such as ESZ6",
            )


def _check_folder(db: Path) -> None:
    """Refuse a database in a folder that is not there: a new account would begin unnoticed."""
    folder = db.expanduser().absolute().parent
    if not folder.exists():
        raise ConfigError(
            f"there is no such folder; make it with: mkdir -p {shlex.quote(str(folder))}",
            field="--db",
            found=str(db),
            expected="a file in a folder that is there",
        )


def _check_free(database: Path) -> None:
    """Refuse a database that another process owns."""
    from clustercore.store.files import connect

    if database.exists():
        connect(database, read_only=True).close()


def _log_of(db: Path) -> Path:
    beside = db.with_suffix(".log")
    return beside if beside != db else db.with_name(f"{db.name}.log")


def _is_expected(error: Exception) -> bool:
    """Return whether an error says itself what to do."""
    ours = isinstance(error, ClusterCoreError)
    return ours and not isinstance(error, EngineBusy | InternalError)


class _Tries:
    """How often it was tried in vain to connect: of many tries only some are worth a line."""

    def __init__(self) -> None:
        self._in_vain = 0

    def are_shown(self, state: str) -> bool:
        """Return whether a change of state is worth a line."""
        if state == "CONNECTING":
            return not self._in_vain
        self._in_vain = self._in_vain + 1 if state == "BACKOFF" else 0
        return self._in_vain & (self._in_vain - 1) == 0


def _say_note(
    say: Any,  # noqa: ANN401 -- a method of the console
    event: FeedEvent,
    tries: _Tries,
) -> None:
    from clustercore.live.status import utc_text

    at = utc_text(event.at - event.at % _SECOND_NS)
    if event.kind == "parity":
        say(f"parity {event.root}: {event.reason}")
    elif event.kind == "state" and tries.are_shown(event.detail["state"]):
        see = "; see: clustercore doctor" if event.detail["state"] == "FATAL" else ""
        say(f"{at}  {event.detail['state']}: {event.reason}{see}")
    elif event.kind == "risk":
        say(f"{at}  {event.root} {event.reason}")


def _say_lines(say: Any, lines: list[str]) -> None:  # noqa: ANN401 -- a method of the console
    for line in lines:
        say(line)


def _session_lines(summary: SessionSummary) -> list[str]:
    """Return what a session had as lines of at most 80 columns."""
    from clustercore.live.status import utc_text

    net = sum(trade.net for trade in summary.trades)
    clusters = output.counted(len(summary.clusters), "cluster")
    trades = output.counted(len(summary.trades), "trade")
    what = f"{clusters}, {trades}, net {net:+,.2f} USD"
    lines = [f"session to {utc_text(summary.close)}, {summary.root}: {what}"]
    if summary.warming_up:
        lines.append(
            f"  {summary.warming_up} of {summary.windows} windows warming up: too few sessions "
            "before them"
        )
    if summary.clusters:
        lines.append(f"  {'cluster':<17} {'ratio':>6} {'modal price':>12} {'strength':>8}  became")
    lines += [
        f"  {utc_text(c.window_start)[:16]:<17} {c.volume_ratio:>6.2f} "
        f"{_or_blank(c.modal_price, '12,.2f')} {_or_blank(c.strength, '8.2f')}  {c.reason}"
        for c in summary.clusters
    ]
    if summary.trades:
        lines.append(f"  {'trade':<17} {'side':>6} {'entry':>12} {'exit':>12}  net USD, why")
    lines += [
        f"  {utc_text(t.entry_time)[:16]:<17} {t.direction:>6} {t.entry_price:>12,.2f} "
        f"{t.exit_price:>12,.2f}  {t.net:+,.2f} {t.exit_reason}"
        for t in summary.trades
    ]
    return lines


def _or_blank(value: float | None, form: str) -> str:
    width = int(form.partition(".")[0].rstrip(","))
    return " " * width if value is None else format(value, form)


def _live_settings(
    file: Path | None, gateway: str | None, late: str | None, changes: tuple[str, ...]
) -> LiveSettings:
    from clustercore.live.settings import LiveSettings, read_live_table

    table = {} if file is None else read_live_table(file)
    for text in changes:
        table |= _assigned(text)
    if gateway is not None:
        table["gateway"] = gateway
    if late is not None:
        table["late"] = late
    return LiveSettings.from_table(table)


def _assigned(text: str) -> dict[str, Any]:
    import tomllib

    name, equals, value = text.partition("=")
    name = name.strip().removeprefix("live.")
    if not equals or not name:
        raise ConfigError(
            "not an assignment",
            field="--live",
            found=repr(text),
            expected="name=value, such as max_bar_age_s=5",
        )
    try:
        return {name: tomllib.loads(f"value = {value.strip()}")["value"]}
    except tomllib.TOMLDecodeError:
        return {name: value.strip()}


def _key(chosen: LiveSettings) -> Key | None:
    from clustercore.live.key import read_key, read_variable

    if chosen.is_local:
        # The rehearsal needs no key; no child of ours shall find one all the same.
        read_variable("DATABENTO_API_KEY")
        return None
    return read_key()


@contextlib.contextmanager
def _signals(runner: LiveRunner) -> Iterator[None]:
    """Let SIGTERM and SIGINT end the run in order; a second one as usual."""

    def stop_in_order(number: int, _frame: object) -> None:
        runner.stop()
        signal.signal(number, signal.SIG_DFL)

    before = {
        number: signal.signal(number, stop_in_order) for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def status(*, db: Database = _DATABASE, shown: OutputOptions = AS_TEXT) -> int:
    """Show what the live process of a database is doing."""
    from clustercore.live.control import ask

    answer = ask(db, "status")
    if shown.json:
        output.emit_json(answer)
        return 0
    output.emit_wrapped(f"{answer['state']} since {_at(answer['since'])}: {answer['reason']}")
    headers = tuple(_COLUMNS)
    rows = [tuple(shown(row) for shown in _COLUMNS.values()) for row in answer["roots"]]
    output.emit_table(headers, rows, right=_NUMBERS, or_fields=True)
    counts = ", ".join(
        output.counted(value, name.removesuffix("s"), name)
        for name, value in answer["counts"].items()
    )
    output.emit_wrapped(f"{counts}; sum at risk {answer['risk_usd']:,.2f} USD with costs")
    return 0


def _at(text: str) -> str:
    """Return an ISO time to the second, as people write it."""
    return f"{text[:19].replace('T', ' ')} UTC"


def _of_bar(text: str | None) -> str:
    """Return day and minute of a bar."""
    return text[5:16].replace("T", " ") if text else ""


# What is shown of an engine, and how.
_COLUMNS: Final[Mapping[str, Callable[[Mapping[str, Any]], str]]] = {
    "root": lambda row: row["root"],
    "contract": lambda row: row["contract"] or "",
    "last bar UTC": lambda row: _of_bar(row["last_bar_start"]),
    "volume": lambda row: f"{row['session_volume']:,}",
    "retests": lambda row: str(row["pending_retests"]),
    "position": lambda row: row["open_position"] or "",
    "day USD": lambda row: f"{row['day_pnl']:,.2f}",
    "equity USD": lambda row: f"{row['equity']:,.2f}",
    "at risk USD": lambda row: f"{row['risk_usd']:,.2f}",
    "blocked": lambda row: row["blocked"] or "",
}
_NUMBERS: Final = ("volume", "retests", "day USD", "equity USD", "at risk USD")


def stop(*, db: Database = _DATABASE, shown: OutputOptions = AS_TEXT) -> int:
    """Stop the live process of a database; nothing that it received is lost."""
    from clustercore.live.control import ask

    answer = ask(db, "stop")
    if shown.json:
        output.emit_json(answer)
    else:
        output.emit_text("stopping")
    return 0


def reset_halt(
    *,
    root: str | None = None,
    db: Database = _DATABASE,
    shown: OutputOptions = AS_TEXT,
) -> int:
    """End a halt or pause of the live process; the reset is stored as the operator's word.

    Parameters
    ----------
    root
        One product; all of them when left out.
    """
    from clustercore.live.control import ask

    answer = ask(db, "reset-halt", root=root)
    if shown.json:
        output.emit_json(answer)
    else:
        output.emit_text(f"reset: {', '.join(answer['reset']) or 'nothing'}")
    return 0


def parity(*, db: Database = _DATABASE, shown: OutputOptions = AS_TEXT) -> int:
    """Replay what the live process consumed, and compare every row that it stored.

    Prints a certificate for each engine and configuration, and ends with 1 at the first difference.
    What bars that came in time would have changed is listed apart. While a live process owns the
    file, its newest snapshot is checked.
    """
    from clustercore import parity as checks

    path, _ = readable(db)
    with owned(path, read_only=True) as store, output.progress("replaying the log"):
        found = checks.check(store)
        missed = {
            (root, epoch.number): checks.hindsight(store, root, epoch)
            for root in checks.roots(store)
            if _is_equal(found, root)
            for _, epoch in store.epochs(root)
        }
        slipped = checks.slippage(store)
    if shown.json:
        output.emit_json(
            {
                "database": path,
                "ok": all(one.ok for one in found),
                "certificates": [asdict(one) | {"ok": one.ok} for one in found],
                "complete_data": {f"{r}/{e}": frame for (r, e), frame in missed.items()},
                "slippage": slipped,
            }
        )
        return 0 if all(one.ok for one in found) else _FOUND
    if not found:
        output.emit_text(f"nothing to compare: {path} holds no input")
    for one in found:
        _show_certificate(one)
    _show_missed(missed)
    filled: list[float] = slipped["slippage_points"].drop_nulls().to_list()
    if filled:
        output.emit_wrapped(
            f"{len(filled)} of {slipped.height} recommendations were filled; at their commit the "
            f"market was {_signed(sum(filled) / len(filled))} points from the model's fill on "
            f"average (worst {_signed(max(filled))})"
        )
    return 0 if all(one.ok for one in found) else _FOUND


def _is_equal(found: list[Parity], root: str) -> bool:
    """Return whether all of an engine's log was replayed, and found equal."""
    own = [one for one in found if one.root == root]
    return bool(own) and all(one.ok and not one.note for one in own)


def _signed(points: float) -> str:
    """Return points with their sign; nothing is plus nothing, from whichever side it came."""
    return f"{round(points, 4) + 0.0:+.4f}"


def _show_missed(missed: dict[tuple[str, int], Any]) -> None:
    for (root, epoch), frame in missed.items():
        if frame.height:
            output.emit_table(
                frame.columns,
                frame.iter_rows(),
                title=f"\n{root}, epoch {epoch}: with complete data, in time, these differ:",
                right=("net",),
            )


def _show_certificate(found: Parity) -> None:
    output.emit_wrapped(_certificate(found), indent=11)


def _certificate(found: Parity) -> str:
    verdict = "EQUAL" if found.ok else f"DIFFERENT: {found.difference}"
    if not found.config_id:
        return f"parity {found.root}, epoch {found.epoch}: {verdict}"
    lines = [
        f"parity {found.root}, epoch {found.epoch}: {verdict}",
        f"  inputs   {found.inputs_hash[:32]}  up to {found.upto_seq:,}",
        f"  outputs  {found.outputs_hash[:32]}",
        (
            f"  config   {found.config_id[:32]}  engine {found.engine_version}, "
            f"clustercore {found.clustercore_version}"
        ),
        f"  taken    {_counted(found.counts, _INPUTS)}",
        f"  made     {_counted(found.counts, _ROWS)}",
    ]
    if found.note:
        lines.append(f"  {found.note}")
    return "\n".join(lines)


def _counted(counts: Mapping[str, int], names: Mapping[str, tuple[str, str]]) -> str:
    said = (output.counted(counts[kind], *name) for kind, name in names.items() if counts.get(kind))
    return ", ".join(said) or "nothing"


# Kinds of inputs and tables, in the words of a certificate.
_INPUTS: Final = {
    "bar": ("bar", "bars"),
    "bar kept": ("bar kept aside", "bars kept aside"),
    "prints": ("minute of trades", "minutes of trades"),
    "closed": ("closing", "closings"),
    "contract": ("change of contract", "changes of contract"),
    "operator": ("word of the operator", "words of the operator"),
    "epoch": ("epoch", "epochs"),
    "warm_up": ("warm-up", "warm-ups"),
    "carry": ("account taken over", "accounts taken over"),
}
_ROWS: Final = {
    "clusters": ("cluster", "clusters"),
    "signals": ("signal", "signals"),
    "orders": ("order", "orders"),
    "trades": ("trade", "trades"),
    "equity": ("equity mark", "equity marks"),
    "risk": ("halt or pause", "halts and pauses"),
}


def doctor(
    *,
    symbol: Symbols = ("ES",),
    db: Database = _DATABASE,
    gateway: str | None = None,
    settings: SettingOptions = NO_SETTINGS,
    shown: OutputOptions = AS_TEXT,
) -> int:
    """Check what a live day needs: key, data, clock, database, disk, sessions.

    Each line passes or says what to do. Ends with 1 when a line fails.

    Parameters
    ----------
    gateway
        Another gateway, such as 127.0.0.1:13000.
    """
    from clustercore.cli.doctor_probes import probes_of
    from clustercore.live.doctor import exit_code, run_doctor

    config = resolve_config(settings)
    chosen = _live_settings(settings.config, gateway, None, ())
    _check_live(config, symbol, db, chosen)
    with contextlib.ExitStack() as stack, output.progress("asking"):
        checks = run_doctor(probes_of(stack, config, symbol, db, chosen))
    if shown.json:
        output.emit_json({"ok": exit_code(checks) == 0, "checks": [asdict(c) for c in checks]})
    else:
        _show_checks(checks)
    return exit_code(checks)


def _show_checks(checks: Sequence[Check]) -> None:
    words = {True: "pass", False: "FAIL", None: "?"}
    name = max(len(check.name) for check in checks)
    indent = len("pass") + name + 4
    for check in checks:
        head = f"{words[check.ok]:<4}  {check.name:<{name}}  "
        output.emit_wrapped(f"{head}{check.found}", indent=indent)
        if check.advice:
            output.emit_wrapped(f"{'':{indent}}to do: {check.advice}", indent=indent)


service = App(
    name="service",
    help="Run the live process as a systemd service.",
    help_epilogue="""Examples:

  clustercore service install --dry-run
""",
)


@service.command(
    help_epilogue="""Examples:

  clustercore service install --dry-run
  clustercore service install --user --symbol ES --db ~/es/live.duckdb
"""
)
def install(
    *,
    user: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    dry_run: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    symbol: Symbols = ("ES",),
    db: Database = _DATABASE,
    late: str | None = None,
    live_set: Annotated[
        tuple[str, ...], Parameter(name="--live", negative="", show_default=False)
    ] = (),
    settings: SettingOptions = NO_SETTINGS,
    shown: OutputOptions = AS_TEXT,
) -> int:
    """Write a systemd unit for the live process; nothing is enabled or started.

    What `clustercore live` would refuse is refused here.

    Parameters
    ----------
    user
        Write it to your own units.
    dry_run
        Print it only.
    late
        miss or act: what becomes of a signal whose bar came too late.
    live_set
        One setting of the live process, such as max_bar_age_s=5; may be repeated.
    """
    from clustercore.live.service import check_folder, unit_text
    from clustercore.live.service import install as write

    if user == dry_run:
        raise ConfigError(
            "say what to do with the unit",
            field="service install",
            expected="--user to write it, or --dry-run to see it",
        )
    chosen = _live_settings(settings.config, None, late, live_set)
    _check_live(resolve_config(settings), symbol, db, chosen)
    database = db.expanduser().absolute()
    for folder in (Path.cwd(), database.parent):
        check_folder(folder)
    arguments = [part for name in symbol for part in ("--symbol", name)]
    arguments += ["--db", str(database)]
    if settings.preset is not None:
        arguments += ["--preset", settings.preset]
    if settings.config is not None:
        arguments += ["--config", str(settings.config.absolute())]
    arguments += [part for text in settings.set for part in ("--set", text)]
    if late is not None:
        arguments += ["--late", late]
    arguments += [part for text in live_set for part in ("--live", text)]
    text = unit_text(arguments, folder=Path.cwd(), writable=[database.parent])
    done = write(text, dry_run=dry_run)
    if shown.json:
        output.emit_json({"path": done.path, "text": done.text, "next": done.next_steps})
        return 0
    output.emit_text(text if dry_run else f"written: {done.path}")
    output.emit_text("next:\n  " + "\n  ".join(done.next_steps))
    return 0


def _check_live(config: Config, symbols: Sequence[str], db: Path, chosen: LiveSettings) -> None:
    """Refuse what the live process would refuse; its key is looked for when it starts."""
    from clustercore.live.runner import REHEARSAL_KEY, LiveRunner

    _check_symbols(symbols)
    LiveRunner(config, symbols, database=db.expanduser(), settings=chosen, key=REHEARSAL_KEY)
