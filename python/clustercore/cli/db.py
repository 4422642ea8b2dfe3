"""Commands about the store of a live process: look into it, check it, copy it, make it again."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter

from clustercore.cli import output, writing
from clustercore.cli.options import AS_TEXT, OUTPUT, OutputOptions
from clustercore.errors import ConfigError, DataError

if TYPE_CHECKING:
    import polars as pl

    from clustercore.store import Store

__all__ = ["db"]

_FOUND = 1
_NANOS = 10**9

db = App(
    name="db",
    help="Look into the store of a live process, check it, copy it, ask it.",
)


@db.command(
    help_epilogue="""Examples:

  clustercore db info live.duckdb
  clustercore db info live.duckdb --json | jq .tables.trades
""",
)
def info(file: Path, /, *, shown: OutputOptions = AS_TEXT) -> int:
    """Show what a store holds: schema, epochs, ranges and counts.

    While a live process owns the file, its newest snapshot is shown.

    Parameters
    ----------
    file
        The store.
    """
    with _reading(file) as (store, note):
        document = _described(store) | note
    if shown.json:
        output.emit_json(document)
    else:
        _show_info(document)
    return 0


def _described(store: Store) -> dict[str, Any]:
    from clustercore.store.schema import TABLES

    log = store.inputs()
    made = dict(store.table("meta").iter_rows())
    bars = log.filter(log["kind"] == "bar")
    return {
        "file": store.path,
        "bytes": store.path.stat().st_size,
        "schema_version": int(made["schema_version"]),
        "made_by": made["clustercore"],
        "tables": {name: store.count(f'SELECT count(*) FROM "{name}"') for name in TABLES},  # noqa: S608
        "inputs": dict(log["kind"].value_counts(sort=True).iter_rows()),
        "engines": [
            _engine(store, root, bars.filter(bars["root"] == root))
            for root in log["root"].unique(maintain_order=True).to_list()
        ],
    }


def _engine(store: Store, root: str, bars: pl.DataFrame) -> dict[str, Any]:
    return {
        "root": root,
        "bars": bars.height,
        "consumed": int(bars["consumed"].sum()),
        "first_bar": bars["ts"].min(),
        "last_bar": bars["ts"].max(),
        "symbols": bars["symbol"].unique(maintain_order=True).to_list(),
        "epochs": [
            {
                "number": item.number,
                "seq": seq,
                "config_id": item.config_id,
                "engine_version": item.engine_version,
                "sessions_hash": item.sessions_hash,
            }
            for seq, item in store.epochs(root)
        ],
    }


def _show_info(document: dict[str, Any]) -> None:
    made = f"schema {document['schema_version']}, made by clustercore {document['made_by']}"
    lines = [f"{document['file']}: {document['bytes']:,} bytes, {made}"]
    for engine in document["engines"]:
        lines.append(
            f"{engine['root']}: {engine['bars']:,} bars ({engine['consumed']:,} consumed) of "
            f"{', '.join(engine['symbols']) or 'no contract'}, "
            f"{_moment(engine['first_bar'])} to {_moment(engine['last_bar'])}"
        )
        lines += [
            f"  epoch {epoch['number']} from input {epoch['seq']}: configuration "
            f"{epoch['config_id']}, engine {epoch['engine_version']}, sessions "
            f"{epoch['sessions_hash']}"
            for epoch in engine["epochs"]
        ]
    output.emit_text("\n".join(lines))
    output.emit_table(
        ("table", "rows"),
        ((name, f"{rows:,}") for name, rows in document["tables"].items()),
        right=("rows",),
    )


def _moment(moment: Any) -> str:  # noqa: ANN401 -- a datetime or nothing
    return "nothing" if moment is None else f"{moment:%Y-%m-%d %H:%M} UTC"


@db.command(
    help_epilogue="""Examples:

  clustercore db check live.duckdb
  clustercore db check live.duckdb --json | jq .findings

Exit codes: 0 nothing wrong, 1 something does not fit, 2 bad input or usage.
""",
)
def check(file: Path, /, *, shown: OutputOptions = AS_TEXT) -> int:
    """Read every row, ask whether the tables fit together, and replay the log.

    Nothing is changed. A store that a live process owns cannot be checked; its snapshot can.

    Parameters
    ----------
    file
        The store, or a snapshot.
    """
    from clustercore.parity import check as replay
    from clustercore.store.audit import audit

    with output.progress("reading every row") as step, _owned(file, read_only=True) as store:
        findings = audit(store)
        step("replaying the log")
        parities = replay(store)
    wrong = [parity for parity in parities if not parity.ok]
    if shown.json:
        document = {"findings": map(asdict, findings), "epochs": map(asdict, parities)}
        output.emit_json({"file": file, "ok": not findings and not wrong} | document)
    else:
        _show_check(file, findings, parities)
    return _FOUND if findings or wrong else 0


def _show_check(file: Path, findings: list[Any], parities: list[Any]) -> None:
    lines = [f"{file}"]
    lines += [f"ERROR: {row.table}: {row.problem}: {row.count:,}" for row in findings]
    for parity in parities:
        place = f"{parity.root} epoch {parity.epoch}, up to input {parity.upto_seq}"
        how = f" ({parity.note})" if parity.note else ""
        lines.append(
            f"{place}: the replay equals what is stored{how}"
            if parity.ok
            else f"ERROR: {place}: {parity.difference}{how}"
        )
    if not findings:
        lines.append("the tables fit together")
    output.emit_text("\n".join(lines))


@db.command(
    help_epilogue="""Examples:

  clustercore db rebuild live.duckdb
  clustercore db rebuild live.duckdb --json
""",
)
def rebuild(file: Path, /, *, shown: OutputOptions = AS_TEXT) -> int:
    """Make the derived tables again from the inputs, one epoch a transaction.

    Stop the live process first. Epochs of another engine version stay as they are.

    Parameters
    ----------
    file
        The store.
    """
    from clustercore.parity import rebuild as again

    with output.progress("replaying the log"), _owned(file) as store:
        parities = again(store)
    if shown.json:
        output.emit_json({"file": file, "epochs": map(asdict, parities)})
        return 0
    lines = [f"{file}: {len(parities)} epochs made again"]
    for parity in parities:
        changed = "as they were" if parity.ok else f"other than before: {parity.difference}"
        lines.append(f"{parity.root} epoch {parity.epoch}: {changed}")
    output.emit_text("\n".join(lines))
    return 0


@db.command(
    help_epilogue="""Examples:

  clustercore db export live.duckdb --out bars.parquet
  clustercore db export live.duckdb --root NQ --out nq.csv
  clustercore db export live.duckdb --out tables
""",
)
def export(
    file: Path,
    /,
    *,
    out: Annotated[Path, Parameter(group=OUTPUT)],
    root: str | None = None,
    shown: OutputOptions = AS_TEXT,
) -> int:
    """Write the consumed bars as a file that `backtest` reads, or every table to a folder.

    Parameters
    ----------
    file
        The store.
    out
        A .parquet or .csv file for the bars of one instrument; otherwise a folder, which gets every
        table as Parquet.
    root
        Instrument whose bars are written, when there are several.
    """
    bars_only = out.suffix.lower() in {".parquet", ".csv"}
    if not bars_only:
        writing.check_folder(out)
        if root is not None:
            raise ConfigError(
                "a folder gets every table",
                field="--root",
                found=root,
                expected="--out with a name that ends with .parquet or .csv",
            )
    with output.progress("writing"), _reading(file) as (store, note):
        written = _export_bars(store, out, root) if bars_only else _export_tables(store, out)
    if shown.json:
        output.emit_json({"out": out, "rows": written} | note)
    else:
        output.emit_text("\n".join(f"{rows:,} {name}: {out}" for name, rows in written.items()))
    return 0


def _export_bars(store: Store, out: Path, root: str | None) -> dict[str, int]:
    import polars as pl

    known = store.inputs()["root"].unique(maintain_order=True).to_list()
    if root is None and len(known) == 1:
        root = known[0]
    if root is None or root not in known:
        raise ConfigError(
            "say whose bars to write",
            field="--root",
            found=str(root),
            expected=" or ".join(known) or "a store that holds bars",
        )
    taken = store.inputs(root).filter(
        pl.col("kind") == "bar", pl.col("consumed"), ~pl.col("context")
    )
    bars = taken.select(
        pl.col("ts").alias("ts_event"),
        *((pl.col(name) / _NANOS).alias(name) for name in ("open", "high", "low", "close")),
        "volume",
        "symbol",
    )
    writing.write_table(bars, out)
    return {"bars": bars.height}


def _export_tables(store: Store, out: Path) -> dict[str, int]:
    import json

    from clustercore.store.schema import TABLES

    written = {}
    with writing.staged_folder(out) as staged:
        for name in TABLES:
            frame = store.table(name)
            frame.write_parquet(staged / f"{name}.parquet")
            written[name] = frame.height
        manifest = {"store": store.path.name, "rows": written}
        (staged / "manifest.json").write_text(json.dumps(manifest, indent=2), "utf-8")
    return written


@db.command(
    help_epilogue="""Examples:

  clustercore db snapshot live.duckdb
  clustercore db snapshot live.duckdb --out copy.duckdb
""",
)
def snapshot(
    file: Path,
    /,
    *,
    out: Annotated[Path | None, Parameter(group=OUTPUT)] = None,
    shown: OutputOptions = AS_TEXT,
) -> int:
    """Write a consistent copy, whole or not at all.

    A live process makes one by itself at each session's end; one that owns the store is asked for
    it.

    Parameters
    ----------
    file
        The store.
    out
        Where to; beside the store when left out.
    """
    with output.progress("copying"):
        written = _copied(file, out)
    size = written.stat().st_size
    if shown.json:
        output.emit_json({"out": written, "bytes": size})
    else:
        output.emit_text(f"{size:,} bytes: {written}")
    return 0


@db.command(
    help_epilogue="""Examples:

  clustercore db sql live.duckdb "SELECT * FROM trades ORDER BY exit_time DESC"
  clustercore db sql live.duckdb "SELECT reason, count(*) FROM clusters GROUP BY 1" --json
  clustercore db sql live.duckdb "SUMMARIZE inputs"
  clustercore db sql live.duckdb "SELECT sum(net) FROM trades" --seconds 5 --memory 256MB
""",
)
def sql(
    file: Path,
    query: str,
    /,
    *,
    limit: int = 40,
    seconds: float = 30.0,
    memory: str = "512MB",
    shown: OutputOptions = AS_TEXT,
) -> int:
    """Ask the store with one SELECT. Tables and columns: docs/store.md.

    It runs read-only, without files, network or extensions. While a live process owns the store,
    its newest snapshot is asked.

    Parameters
    ----------
    file
        The store, or a snapshot.
    query
        One SELECT, DESCRIBE, SUMMARIZE or EXPLAIN.
    limit
        Show the first so many rows; 0 shows all.
    seconds
        Stop the query after this time.
    memory
        What the query may use.
    """
    from clustercore.store.sql import ask, readable

    _check_limits(limit, seconds)
    with _store_errors():
        found = readable(file)
        note = _snapshot_note(file, found)
        answer = ask(found, query, limit=limit, seconds=seconds, memory=memory)
    if shown.json:
        rows = [dict(zip(answer.columns, row, strict=True)) for row in answer.rows]
        output.emit_json({"file": found, "rows": rows, "cut": answer.cut} | note)
        return 0
    numbers = [
        name
        for place, name in enumerate(answer.columns)
        if answer.rows and isinstance(answer.rows[0][place], int | float)
    ]
    output.emit_table(answer.columns, answer.rows, right=numbers)
    if answer.cut:
        output.emit_text(f"the first {limit} rows (--limit 0 shows all)")
    return 0


def _check_limits(limit: int, seconds: float) -> None:
    if limit < 0:
        raise ConfigError(
            "not an allowed value", field="--limit", found=str(limit), expected="0 or more"
        )
    if not 0 < seconds <= _LONGEST:
        raise ConfigError(
            "not an allowed value",
            field="--seconds",
            found=str(seconds),
            expected=f"more than 0, at most {_LONGEST}",
        )


_LONGEST = 86_400


@db.command(
    help_epilogue="""Examples:

  clustercore db reference
  clustercore db reference --out docs/store.md
""",
)
def reference(
    *,
    out: Annotated[Path | None, Parameter(group=OUTPUT)] = None,
    shown: OutputOptions = AS_TEXT,
) -> int:
    """Print the reference of every table and column, with ten queries.

    Parameters
    ----------
    out
        Write it to this file.
    """
    from clustercore.store.reference import store_page

    page = store_page()
    if out is not None:
        writing.write_text(page, out)
    if shown.json:
        output.emit_json({"out": out, "text": page})
    else:
        output.emit_text(page if out is None else str(out))
    return 0


@contextmanager
def _store_errors() -> Iterator[None]:
    """Say what is wrong with a store as any bad input is said."""
    from clustercore.store import StoreError

    try:
        yield
    except StoreError as error:
        file = None if error.file is None else str(error.file)
        raise DataError(error.problem, file=file) from error


def _copied(file: Path, out: Path | None) -> Path:
    """Return a copy, made by the live process where one owns the store."""
    from clustercore.live.control import ControlError, ask

    try:
        made = Path(ask(file, "snapshot")["path"])
    except ControlError as error:
        if error.reason != "not_running":
            raise
        with _owned(file, read_only=True) as store:
            return store.snapshot(out)
    if out is None:
        return made
    with writing.staged_file(out) as staged:
        shutil.copyfile(made, staged)
    return out


@contextmanager
def _owned(file: Path, *, read_only: bool = False) -> Iterator[Store]:
    from clustercore.store import Store

    with _store_errors(), Store.open(file, create=False, read_only=read_only) as store:
        yield store


@contextmanager
def _reading(file: Path) -> Iterator[tuple[Store, dict[str, Any]]]:
    """Give the store, or its snapshot while a process owns it, and what to say of that."""
    from clustercore.store.sql import readable

    with _store_errors():
        found = readable(file)
        note = _snapshot_note(file, found)
    with _owned(found, read_only=True) as store:
        yield store, note


def _snapshot_note(file: Path, found: Path) -> dict[str, Any]:
    from clustercore.live.clock import SystemClock

    if found == file:
        return {}
    age = max(0, SystemClock().now() - found.stat().st_mtime_ns) // _NANOS
    output.note(f"another process owns {file}; this is its snapshot {found}, {_age(age)} old")
    return {"snapshot_age_s": age}


def _age(seconds: int) -> str:
    for unit, length in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length} {unit}"
    return f"{seconds} seconds"
