"""The commands, and the two that run the engine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter

from clustercore.cli import live as live_commands
from clustercore.cli import output, writing
from clustercore.cli.data import data
from clustercore.cli.db import db
from clustercore.cli.gateway import gateway
from clustercore.cli.help import HelpPage
from clustercore.cli.options import (
    ANY_DATA,
    AS_TEXT,
    NO_SETTINGS,
    OUTPUT,
    DataOptions,
    OutputOptions,
    SettingOptions,
    read,
    resolve_config,
)
from clustercore.cli.settings import settings
from clustercore.errors import ConfigError

if TYPE_CHECKING:
    import polars as pl

    from clustercore.bars import Bars
    from clustercore.config import Config
    from clustercore.result import BacktestResult

__all__ = ["app"]


def _exit_codes(found: str = "a check found something", *, stops_in_order: bool = False) -> str:
    """Return what exit codes mean; what Ctrl-C stops in order has not been interrupted."""
    done, interrupted = ("0 stopped, by Ctrl-C too", "") if stops_in_order else ("0 done", _CTRL_C)
    one = f"1 {found}, " if found else ""
    return (
        f"Exit codes: {done}, {one}2 bad input or usage, 3 a fault of clustercore, "
        f"{interrupted}141 the reader of the output went away."
    )


_CTRL_C = "130 interrupted, "
_EXIT_CODES = _exit_codes()


def _version() -> str:
    from importlib.metadata import version

    return f"clustercore {version('clustercore')}"


app = App(
    name="clustercore",
    help="Volume-cluster futures trading: backtests without look-ahead, from files to a report.",
    help_epilogue="""Examples:

  clustercore backtest
  clustercore gateway --speed 3000
  clustercore live --gateway 127.0.0.1:13000
  clustercore status
  clustercore backtest --help

"""
    + _EXIT_CODES,
    help_format="plaintext",
    help_formatter=HelpPage(),
    version=_version,
    help_on_error=False,
    print_error=False,
    exit_on_error=False,
    suppress_keyboard_interrupt=False,
)
app.command(data)
app.command(settings)
app.command(
    live_commands.live,
    help_epilogue="""Examples:

  clustercore live --gateway 127.0.0.1:13000
  clustercore live --symbol ES --symbol NQ --db es.duckdb --preset v6
  clustercore live --config es.toml --live max_bar_age_s=5

"""
    + _exit_codes("refused for good, or a difference", stops_in_order=True),
)
for _command, _name, _examples, _codes in (
    (live_commands.status, "status", ("status", "status --db es.duckdb --json"), _EXIT_CODES),
    (live_commands.stop, "stop", ("stop", "stop --db es.duckdb"), _EXIT_CODES),
    (
        live_commands.reset_halt,
        "reset-halt",
        ("reset-halt", "reset-halt --root ES"),
        _EXIT_CODES,
    ),
    (
        live_commands.doctor,
        "doctor",
        ("doctor", "doctor --symbol NQ --gateway 127.0.0.1:13000"),
        _exit_codes("a line fails"),
    ),
    (
        live_commands.parity,
        "parity",
        ("parity", "parity --db es.duckdb --json"),
        _exit_codes("a difference"),
    ),
    (
        gateway,
        "gateway",
        (
            "gateway",
            "gateway es_2019.dbn.zst --from 2019-03-04 --speed 600",
            "gateway --fault fin:after_bars=300 --fault rst:after_bars=900",
            "gateway --history-lag 8h --fault rate_limit:times=3",
        ),
        _exit_codes("", stops_in_order=True),
    ),
):
    app.command(
        _command,
        name=_name,
        help_epilogue="Examples:\n\n"
        + "".join(f"  clustercore {example}\n" for example in _examples)
        + f"\n{_codes}",
    )
app.command(db)
app.command(live_commands.service)


@app.command(
    help_epilogue="""Examples:

  clustercore backtest
  clustercore backtest es_2019.dbn.zst --preset v6 --out results
  clustercore backtest bars.csv --symbol ESZ5 --label start --tz UTC
  clustercore backtest es.parquet --from 2019-01-01 --to 2019-07-01
  clustercore backtest es.parquet --set cluster.threshold=3
  clustercore backtest es.parquet --json | jq .statistics.net_usd

"""
    + _EXIT_CODES,
)
def backtest(
    file: Path | None = None,
    /,
    *,
    out: Annotated[Path | None, Parameter(group=OUTPUT)] = None,
    settings: SettingOptions = NO_SETTINGS,
    data: DataOptions = ANY_DATA,
    shown: OutputOptions = AS_TEXT,
) -> int:
    """Run the strategy over bars and print what it came to.

    Parameters
    ----------
    file
        DBN, Parquet or CSV; the SIMULATED sample when left out.
    out
        Folder for the result (Parquet and JSON) and report.html.
    """
    config = resolve_config(settings)
    if out is not None:
        writing.check_folder(out)
    with output.progress("reading bars") as step:
        bars = read(file, data, config)
        step("running the strategy")
        result = _backtest(bars, config)
        if out is not None:
            step("writing the result and its report")
            _write_result(result, out)
    if shown.json:
        output.emit_json(_result_document(result, out))
        return 0
    output.emit_text(result.summary())
    if out is not None:
        output.emit_text(f"\nResult: {out}\nReport: {out / 'report.html'}")
    return 0


def _backtest(bars: Bars, config: Config) -> BacktestResult:
    from clustercore.backtest import backtest as run

    return run(bars, config)


def _write_result(result: BacktestResult, out: Path) -> None:
    with writing.staged_folder(out) as staged:
        result.save(staged)
        result.report(staged / "report.html")


def _result_document(result: BacktestResult, out: Path | None) -> dict[str, Any]:
    return {
        "simulated": result.simulated,
        "halted": result.halted,
        "verdict": result.verdict,
        "statistics": result.stats,
        "missing": {row.name: row.reason for row in result.statistics if row.value is None},
        "funnel": result.funnel,
        "manifest": result.manifest,
        "config": result.config.to_dict(),
        "out": out,
        "report": None if out is None else out / "report.html",
    }


@app.command(
    help_epilogue="""Examples:

  clustercore clusters
  clustercore clusters es_2019.dbn.zst --preset v6 --limit 0
  clustercore clusters es.parquet --set cluster.threshold=1.5 --out clusters.csv
  clustercore clusters es.parquet --json | jq '.clusters[].reason'

"""
    + _EXIT_CODES,
)
def clusters(
    file: Path | None = None,
    /,
    *,
    limit: int = 40,
    out: Annotated[Path | None, Parameter(group=OUTPUT)] = None,
    settings: SettingOptions = NO_SETTINGS,
    data: DataOptions = ANY_DATA,
    shown: OutputOptions = AS_TEXT,
) -> int:
    """List the volume clusters, each with the reason why it went no further.

    Parameters
    ----------
    file
        DBN, Parquet or CSV; the SIMULATED sample when left out.
    limit
        Show the last so many on the screen; 0 shows all. Files and JSON hold all.
    out
        Write them to this .csv or .parquet file.
    """
    _check_limit(limit)
    config = resolve_config(settings)
    if out is not None:
        writing.check_table(out)
    with output.progress("reading bars") as step:
        bars = read(file, data, config)
        step("looking for clusters")
        table = _clusters(bars, config)
        if out is not None:
            writing.write_table(table, out)
    if shown.json:
        output.emit_json(
            {"simulated": bars.simulated, "source": bars.source, "out": out, "clusters": table}
        )
    elif out is not None:
        output.emit_text(f"{_title(bars, table.height)}: {out}")
    else:
        _show_clusters(table, bars, limit)
    return 0


def _clusters(bars: Bars, config: Config) -> pl.DataFrame:
    from clustercore.engine import Engine
    from clustercore.errors import DataError

    engine = Engine(config, bars.instrument, interval=bars.interval_ns)
    try:
        return engine.run(bars, finish=True)["clusters"]
    except DataError as error:
        raise bars.in_source(error) from None


def _title(bars: Bars, count: int) -> str:
    label = "SIMULATED, " if bars.simulated else ""
    return f"{label}{bars.source}: {output.counted(count, 'cluster')}"


def _show_clusters(table: pl.DataFrame, bars: Bars, limit: int) -> None:
    shown = table.tail(limit) if limit else table
    title = _title(bars, table.height)
    if shown.height < table.height:
        title += f", the last {shown.height} (--limit 0 shows all)"
    decimals = max(2, len(f"{bars.instrument.tick_size:.9f}".rstrip("0").split(".")[1]))
    numbers = ("volume", "ratio", "rank", "modal", "position", "strength")
    output.emit_table(
        (
            "decided UTC",
            "symbol",
            "volume",
            "ratio",
            "rank",
            "modal",
            "position",
            "direction",
            "strength",
            "reason",
        ),
        (
            (
                row["decision_time"].strftime("%Y-%m-%d %H:%M"),
                row["symbol"],
                f"{row['volume']:,}",
                f"{row['volume_ratio']:.2f}",
                row["rank"],
                _fixed(row["modal_price"], decimals),
                _fixed(row["modal_position"], 2),
                row["direction"],
                _fixed(row["strength"], 2),
                row["reason"],
            )
            for row in shown.iter_rows(named=True)
        ),
        title=title,
        right=numbers,
        or_fields=True,
    )


def _fixed(value: float | None, decimals: int) -> str:
    return "" if value is None else f"{value:.{decimals}f}"


def _check_limit(limit: int) -> None:
    if limit < 0:
        raise ConfigError(
            "not an allowed value", field="--limit", found=str(limit), expected="0 or more"
        )


@app.command(
    help_epilogue="""Examples:

  clustercore sample --out sample.parquet
  clustercore sample --out nq.csv --sessions 5 --instrument NQ --interval 5m

"""
    + _EXIT_CODES,
)
def sample(
    *,
    out: Annotated[Path, Parameter(group=OUTPUT)],
    sessions: int = 60,
    seed: int = 1,
    instrument: str = "ES",
    interval: str = "1m",
    start: Annotated[str, Parameter(name="--from")] = "2024-10-02",
    shown: OutputOptions = AS_TEXT,
) -> int:
    """Write SIMULATED bars: the shape of a market with nothing in it to earn.

    Parameters
    ----------
    out
        The .parquet or .csv file to write.
    sessions
        How many sessions.
    seed
        The same seed gives the same bars.
    instrument
        Root of a built-in instrument.
    interval
        Length of a bar, whole minutes.
    start
        Trade date to begin at.
    """
    from clustercore.sample import sample as simulate

    writing.check_table(out)
    with output.progress("simulating"):
        bars = simulate(sessions, seed, instrument, interval, start=start)
        writing.write_table(bars.frame.drop("context"), out)
    document = {"simulated": True, "out": out, "bars": len(bars), "sessions": sessions}
    if shown.json:
        output.emit_json(document)
    else:
        output.emit_text(
            f"SIMULATED: {output.counted(len(bars), 'bar')} of "
            f"{output.counted(sessions, 'session')}: {out}"
        )
    return 0


@app.command(
    help_epilogue="""Examples:

  clustercore versions
  clustercore versions --json
""",
)
def versions(*, shown: OutputOptions = AS_TEXT) -> int:
    """Show the versions of clustercore, Python and the packages: what a bug report needs."""
    from clustercore.versions import show_versions
    from clustercore.versions import versions as found

    if shown.json:
        output.emit_json(found())
    else:
        show_versions()
    return 0
