"""Commands about the store of a live process: look into it, check it, copy it, make it again."""

from __future__ import annotations

import os
import shutil
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter

from clustercore.cli import output, writing
from clustercore.cli.options import AS_TEXT, OUTPUT, OutputOptions
from clustercore.cli.stores import (
    owned,
    private,
    readable,
    reading,
    silent,
    store_errors,
)
from clustercore.errors import ConfigError

if TYPE_CHECKING:
    import polars as pl

    from clustercore.store import Store
    from clustercore.store.sql import Answer, Deadline

__all__ = ["db"]

_FOUND = 1
_BAD_INPUT = 2
_NANOS = 10**9
# How long a query that was told to stop may take to do so.
_GRACE_S = 3.0

db = App(
    name="db",
    help="Look into the store of a live process, check it, copy it, ask it.",
    help_epilogue="""Examples:

  clustercore db info live.duckdb
  clustercore db sql live.duckdb "SELECT * FROM trades"
  clustercore db export live.duckdb --out bars.parquet
""",
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
    with reading(file) as (store, note):
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
        "bytes": _size(store.path),
        "schema_version": int(made["schema_version"]),
        "made_by": made.get("clustercore", "an unknown version"),
        "tables": {name: store.count(f'SELECT count(*) FROM "{name}"') for name in TABLES},  # noqa: S608
        "inputs": dict(log["kind"].value_counts(sort=True).iter_rows()),
        "engines": [
            _engine(store, root, bars.filter(bars["root"] == root))
            for root in log["root"].unique(maintain_order=True).to_list()
        ],
    }


def _size(path: Path) -> int:
    """Return the bytes of a store, with those that are in its log still."""
    from clustercore.store.places import log_path

    parts = (path, log_path(path))
    return sum(part.stat().st_size for part in parts if part.exists())


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

    with output.progress("reading every row") as step, owned(file, read_only=True) as store:
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
    if not parities:
        lines.append("nothing to replay: the store holds no input")
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
    """Make the derived tables again from the inputs, one epoch a transaction, and certify them.

    Stop the live process first. Epochs of another engine version stay as they are; rows of an
    instrument or an epoch that the log does not know are deleted.

    Parameters
    ----------
    file
        The store.
    """
    from clustercore.live.clock import SystemClock
    from clustercore.parity import rebuild as again

    with output.progress("replaying the log"), private(), owned(file) as store:
        made = again(store, SystemClock().now())
    if shown.json:
        epochs = map(asdict, made.epochs)
        output.emit_json({"file": file, "epochs": epochs, "deleted": made.deleted})
        return 0
    lines = [f"{file}: {output.counted(len(made.epochs), 'epoch')} made again"]
    if made.deleted:
        lines.append(f"{made.deleted:,} rows of no epoch of the log deleted")
    for parity in made.epochs:
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
    if bars_only:
        writing.check_table(out)
    else:
        writing.check_no_table(out)
        writing.check_folder(out)
        if root is not None:
            raise ConfigError(
                "a folder gets every table",
                field="--root",
                found=root,
                expected="--out with a name that ends with .parquet or .csv",
            )
    with output.progress("writing"), private(), reading(file) as (store, note):
        written = _export_bars(store, out, root) if bars_only else _export_tables(store, out)
    if shown.json:
        output.emit_json({"out": out, "rows": written} | note)
    elif bars_only:
        output.emit_text(f"{output.counted(written['bars'], 'bar')}: {out}")
    else:
        lines = (f"{name}: {output.counted(rows, 'row')}" for name, rows in written.items())
        output.emit_text("\n".join((f"{out}:", *lines)))
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
            found=root,
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
    it. A file that is there is replaced only when it is a snapshot of the same store.

    Parameters
    ----------
    file
        The store.
    out
        Where to; beside the store when left out.
    """
    with output.progress("copying"), private():
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
  clustercore db sql live.duckdb "SELECT count(*) FROM clusters" --json
  clustercore db sql live.duckdb "SUMMARIZE inputs"
  clustercore db sql live.duckdb "SELECT sum(net) FROM trades" --seconds 5
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
        Stop after this time, whether the query or the showing of its rows takes it. A query
        that goes on for three more seconds is ended with its process.
    memory
        What the query may use, and its rows once more.
    """
    from clustercore.store.sql import Deadline, ask, limited, memory_bytes

    _check_limits(limit, seconds)
    memory_bytes(memory)
    with store_errors():
        found, note = readable(file)
        deadline = Deadline(seconds)
        with limited(memory):
            with _ended_by_force(deadline):
                answer = ask(found, query, limit=limit, seconds=deadline, memory=memory)
            _show_answer(answer, {"file": found} | note, deadline, as_json=shown.json)
    if answer.cut and not shown.json:
        output.emit_text(f"the first {limit} rows (--limit 0 shows all)")
    return 0


@contextmanager
def _ended_by_force(deadline: Deadline) -> Iterator[None]:
    """End this process when a query is not over a few seconds after its deadline.

    The library looks for an interruption between two steps, and one function of one value may take
    hours. Nothing is lost: the file is read only. The showing of rows is not ended so, as a pager
    may wait for its reader.
    """
    timer = threading.Timer(deadline.left_s + _GRACE_S, _end, [deadline])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _end(deadline: Deadline) -> None:
    try:
        sys.stderr.write(
            f"clustercore: the query took longer than {deadline.seconds:g} seconds and did not "
            "stop when it was told to, so this process was ended; ask for less\n"
        )
        sys.stderr.flush()
    finally:
        os._exit(_BAD_INPUT)


def _show_answer(
    answer: Answer, about: dict[str, Any], deadline: Deadline, *, as_json: bool
) -> None:
    if as_json:
        names = _told_apart(answer.columns)
        rows = [dict(zip(names, row, strict=True)) for row in answer.rows]
        document = about | {"rows": rows, "cut": answer.cut}
        output.emit_json(document, between=deadline.check)
        return
    numbers = [
        place
        for place in range(len(answer.columns))
        if answer.rows and isinstance(answer.rows[0][place], int | float)
    ]
    output.emit_rows(answer.columns, answer.rows, right=numbers, between=deadline.check)


def _told_apart(columns: Sequence[str]) -> list[str]:
    """Return names of which none comes twice: ``a``, ``a_2``."""
    names: list[str] = []
    for column in columns:
        name, count = column, 1
        while name in names:
            count += 1
            name = f"{column}_{count}"
        names.append(name)
    return names


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


def _copied(file: Path, out: Path | None) -> Path:
    """Return a copy, made by the live process where one owns the store."""
    from clustercore.live.control import ControlError, ask
    from clustercore.store.files import check_target

    with store_errors():
        if out is not None and file.exists():
            check_target(file, out)
        try:
            made = Path(ask(file, "snapshot")["path"])
        except ControlError as error:
            if error.reason != "not_running":
                raise
            return _copied_from_file(file, out)
        return made if out is None else _copied_on(made, file, out)


def _copied_from_file(file: Path, out: Path | None) -> Path:
    from clustercore.store import Store, StoreError

    try:
        with Store.open(file, create=False, read_only=True) as store:
            return store.snapshot(out)
    except StoreError as error:
        if error.reason != "locked" or error.file != file:
            raise
        raise silent(error) from error


def _copied_on(made: Path, file: Path, out: Path) -> Path:
    """Copy the snapshot that a live process made to where it is wanted."""
    from clustercore.store import Store
    from clustercore.store.files import take_over

    with Store.open(made, create=False, read_only=True) as copy:
        take_over(file, out, copy.store_id)
    with writing.staged_file(out) as staged:
        shutil.copyfile(made, staged)
    return out
