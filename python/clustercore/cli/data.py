"""Commands about market data: check it, convert it, see sessions and contracts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter

from clustercore.cli import output, writing
from clustercore.cli.options import (
    ANY_DATA,
    AS_TEXT,
    NO_SETTINGS,
    OUTPUT,
    DataOptions,
    OutputOptions,
    SettingOptions,
    check_span,
    read,
    reading_options,
    resolve_config,
)
from clustercore.errors import ConfigError

if TYPE_CHECKING:
    import polars as pl

    from clustercore.bars import Bars
    from clustercore.contracts import FrontSelection
    from clustercore.quality import QualityReport

__all__ = ["data"]

_FOUND = 1
_ROWS_SHOWN = 10
# Order and headings of the findings; each is a frame of the report.
_FINDINGS = {
    "gaps": "Longest stretches without a bar",
    "halted": "Bars inside a scheduled halt",
    "outside": "Bars outside every session",
    "duplicates": "Rows that repeat a time",
    "disorder": "Rows earlier than the one before",
    "off_tick": "Prices off the tick grid",
    "incoherent": "Rows whose prices contradict each other",
    "mixed": "Sessions with more than one symbol",
    "volumes": "Suspicious volumes",
    "thin_sessions": "Sessions with hardly any volume",
    "prices": "Prices far from their neighbours",
}

data = App(
    name="data",
    help="Check market data, convert it, and see its sessions and contracts.",
    help_epilogue="""Examples:

  clustercore data check bars.csv
  clustercore data convert es_2019.dbn.zst --out es.parquet
  clustercore data sessions
""",
)


@data.command(
    help_epilogue="""Examples:

  clustercore data check es_2019.dbn.zst
  clustercore data check bars.csv --symbol NQ --tz UTC --label start --strict
  clustercore data check es.parquet --json | jq .warnings

Exit codes: 0 nothing wrong, 1 an error was found (with --strict, a warning), 2 bad input or usage.
""",
)
def check(
    file: Path,
    /,
    *,
    strict: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    gap_minutes: float = 5.0,
    settings: SettingOptions = NO_SETTINGS,
    data: DataOptions = ANY_DATA,
    shown: OutputOptions = AS_TEXT,
) -> int:
    """Compare bars with the session table and with each other.

    Reports gaps, duplicates, off-tick prices, mixed symbols, suspicious volumes and prices, and
    bars outside the schedule. Nothing is changed.

    Parameters
    ----------
    file
        DBN, Parquet or CSV.
    strict
        Exit with 1 for warnings too.
    gap_minutes
        List stretches without a bar that are longer than this.
    """
    from clustercore.quality import check_bars
    from clustercore.sessions import load_sessions

    config = resolve_config(settings)
    if not gap_minutes >= 0:
        raise ConfigError(
            "not an allowed value",
            field="--gap-minutes",
            found=str(gap_minutes),
            expected="0 or more",
        )
    with output.progress("reading bars") as step:
        bars = read(file, data, config)
        step("checking")
        sessions = load_sessions(
            bars.instrument.calendar, hours=config.session.hours, day=config.session.day
        )
        report = check_bars(
            bars, sessions, bars.instrument, bars.interval_ns, gap_minutes=gap_minutes
        )
    if shown.json:
        document = {"source": bars.source, "simulated": bars.simulated, "notes": bars.notes}
        output.emit_json(document | report.to_dict())
    else:
        _show_report(report, bars)
    return _FOUND if report.errors or (strict and report.warnings) else 0


def _show_report(report: QualityReport, bars: Bars) -> None:
    label = "SIMULATED, " if bars.simulated else ""
    lines = [
        f"{label}{bars.source}: {report.bar_count:,} bars in {report.session_count:,} sessions",
        *(f"note: {text}" for text in bars.notes),
        *(f"warning: {text}" for text in report.warnings),
        *(f"ERROR: {text}" for text in report.errors),
    ]
    output.emit_text("\n".join(_printable(line) for line in lines))
    for name, heading in _FINDINGS.items():
        frame: pl.DataFrame = getattr(report, name)
        if frame.is_empty():
            continue
        if name == "gaps":
            frame = frame.sort("minutes", descending=True, maintain_order=True)
        first = f", the first {_ROWS_SHOWN}" if frame.height > _ROWS_SHOWN else ""
        _show_frame(frame.head(_ROWS_SHOWN), f"{heading}: {frame.height:,}{first}")
    if not report.errors and not report.warnings:
        output.emit_text("nothing to report")


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else "?" for char in text)


def _show_frame(frame: pl.DataFrame, title: str | None = None) -> None:
    right = [name for name, dtype in frame.schema.items() if dtype.is_numeric()]
    output.emit_table(
        frame.columns,
        ([_cell(value) for value in row] for row in frame.iter_rows()),
        title=title,
        right=right,
    )


def _cell(value: object) -> str:
    from datetime import datetime

    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.10g}"
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S}".removesuffix(":00")
    if isinstance(value, list):
        return ", ".join(_cell(item) for item in value)
    if isinstance(value, dict):
        return ("-" if "start" in value else " ").join(_cell(item) for item in value.values())
    return str(value)


@data.command(
    help_epilogue="""Examples:

  clustercore data convert es_2019.dbn.zst --out es_2019.parquet
  clustercore data convert trades.dbn.zst --interval 5m --out bars.csv
  clustercore data convert nq.csv --tz UTC --label start --out nq.parquet
""",
)
def convert(
    file: Path,
    /,
    *,
    out: Annotated[Path, Parameter(group=OUTPUT)],
    settings: SettingOptions = NO_SETTINGS,
    data: DataOptions = ANY_DATA,
    shown: OutputOptions = AS_TEXT,
) -> int:
    """Write bars of any source as Parquet or CSV that every command reads without options.

    A file of several months is reduced to the front month of each session.

    Parameters
    ----------
    file
        DBN, Parquet or CSV.
    out
        The .parquet or .csv file to write.
    """
    import polars as pl

    config = resolve_config(settings)
    writing.check_table(out)
    with output.progress("reading bars") as step:
        bars = read(file, data, config)
        step("writing")
        context = int(bars.frame["context"].sum())
        writing.write_table(bars.frame.filter(~pl.col("context")).drop("context"), out)
    notes = [*bars.notes]
    if context:
        notes.append(
            f"left {context} bars that inform the baseline of an incoming month; a backtest of the "
            "written file continues the old month's baseline at a roll"
        )
    rows = len(bars) - context
    if shown.json:
        output.emit_json({"simulated": bars.simulated, "out": out, "bars": rows, "notes": notes})
    else:
        label = "SIMULATED: " if bars.simulated else ""
        lines = [f"{label}{rows:,} bars: {out}", *(f"note: {text}" for text in notes)]
        output.emit_text("\n".join(_printable(line) for line in lines))
    return 0


@data.command(
    help_epilogue="""Examples:

  clustercore data sessions --from 2025-11-24 --to 2025-12-01
  clustercore data sessions --from 2024-07-01 --limit 5 --preset v6
  clustercore data sessions --from 2024-01-01 --to 2025-01-01 --limit 0 --json
""",
)
def sessions(
    *,
    start: Annotated[str | None, Parameter(name="--from")] = None,
    end: Annotated[str | None, Parameter(name="--to")] = None,
    calendar: str = "globex_equity",
    limit: int = 40,
    settings: SettingOptions = NO_SETTINGS,
    shown: OutputOptions = AS_TEXT,
) -> int:
    """Show the session table: open, close, scheduled halts and allowed hours, in UTC.

    Parameters
    ----------
    start
        First trade date.
    end
        Trade dates before this one.
    calendar
        Name of the table.
    limit
        Show the first so many; 0 shows all.
    """
    import polars as pl

    from clustercore.sessions import load_sessions

    config = resolve_config(settings)
    check_span(start, end)
    if limit < 0:
        raise ConfigError(
            "not an allowed value", field="--limit", found=str(limit), expected="0 or more"
        )
    table = load_sessions(calendar, hours=config.session.hours, day=config.session.day).frame
    if start is not None:
        table = table.filter(pl.col("trade_date") >= _date(start))
    if end is not None:
        table = table.filter(pl.col("trade_date") < _date(end))
    if table.is_empty():
        raise ConfigError(
            "no session lies in this span",
            field="--from",
            found=f"--from {start} --to {end}",
            expected="a span with a trading day inside the table",
        )
    listed = table.head(limit) if limit else table
    readable = listed.with_columns(
        pl.col(name).list.eval(
            pl.struct(
                pl.element().struct.field(side).cast(pl.Datetime("ns", "UTC"))
                for side in ("start", "end")
            )
        )
        for name in ("halts", "hours")
    )
    if shown.json:
        output.emit_json({"calendar": calendar, "count": table.height, "sessions": readable})
        return 0
    title = f"{calendar}: {table.height:,} sessions"
    if listed.height < table.height:
        title += f", the first {listed.height} (--from, --to and --limit choose others)"
    _show_frame(readable.drop("new_york_offset_s"), title)
    return 0


def _date(text: str) -> Any:  # noqa: ANN401 -- a date, which Polars takes as a literal
    from datetime import datetime

    return datetime.fromisoformat(text).date()


@data.command(
    help_epilogue="""Examples:

  clustercore data contracts es_parent.dbn.zst
  clustercore data contracts es_parent.dbn.zst --roll week --limit 0
  clustercore data contracts months.parquet --out contracts.csv
""",
)
def contracts(
    file: Path,
    /,
    *,
    changes: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    limit: int = 40,
    out: Annotated[Path | None, Parameter(group=OUTPUT)] = None,
    settings: SettingOptions = NO_SETTINGS,
    data: DataOptions = ANY_DATA,
    shown: OutputOptions = AS_TEXT,
) -> int:
    """Show which contract month each session takes, and why.

    Parameters
    ----------
    file
        A file with several months, such as one of a Databento parent symbol.
    changes
        Show only the sessions in which the month changes.
    limit
        Show the last so many; 0 shows all.
    out
        Write the table to this .csv or .parquet file.
    """
    import polars as pl

    from clustercore.sources import read_months

    config = resolve_config(settings)
    if limit < 0:
        raise ConfigError(
            "not an allowed value", field="--limit", found=str(limit), expected="0 or more"
        )
    if out is not None:
        writing.check_table(out)
    with output.progress("reading bars") as step:
        selection = read_months(file, **reading_options(data, config))
        step("choosing the front month")
        table = _within(selection.table, data.start, data.end)
        if changes:
            table = table.filter(pl.col("reason") != "held")
        if out is not None:
            flat = table if out.suffix.lower() != ".csv" else table.drop("volumes")
            writing.write_table(flat, out)
    _show_contracts(table, selection, file, limit, out, shown)
    return 0


def _within(table: pl.DataFrame, start: str | None, end: str | None) -> pl.DataFrame:
    import polars as pl

    check_span(start, end)
    if start is not None:
        table = table.filter(pl.col("trade_date") >= _date(start))
    if end is not None:
        table = table.filter(pl.col("trade_date") < _date(end))
    return table


def _show_contracts(
    table: pl.DataFrame,
    selection: FrontSelection,
    file: Path,
    limit: int,
    out: Path | None,
    shown: OutputOptions,
) -> None:
    if shown.json:
        output.emit_json({"dropped": selection.dropped, "out": out, "sessions": table})
        return
    if out is not None:
        output.emit_text(f"{table.height:,} sessions: {out}")
        return
    listed = table.tail(limit) if limit else table
    title = f"{file.name}: {table.height:,} sessions"
    if listed.height < table.height:
        title += f", the last {listed.height} (--limit 0 shows all)"
    _show_frame(listed.drop("open"), title)
    output.emit_text("\n".join(_printable(f"note: {text}") for text in selection.notes()))
