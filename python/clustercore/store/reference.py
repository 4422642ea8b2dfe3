"""The reference page of the store, from the declarations of its tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from clustercore.store.schema import MIGRATIONS, TABLES, VIEWS, Table

__all__ = ["QUERIES", "store_page"]

# What a user asks most: a heading and one query each.
QUERIES: Final[tuple[tuple[str, str], ...]] = (
    (
        "The newest trades",
        """
SELECT symbol, direction, quantity, entry_time, entry_price, exit_price, exit_reason,
    net
FROM trades ORDER BY exit_time DESC LIMIT 20
""",
    ),
    (
        "Result by day",
        """
SELECT root, exit_time::DATE AS day, count(*) AS trades, sum(net) AS net_usd
FROM trades GROUP BY ALL ORDER BY day, root
""",
    ),
    (
        "The account now",
        """
SELECT root, arg_max(balance, seq) AS balance, arg_max(equity, seq) AS equity,
    max(drawdown) AS worst_drawdown
FROM equity GROUP BY root
""",
    ),
    (
        "Why clusters went no further",
        """
SELECT reason, count(*) AS clusters, avg(volume_ratio) AS mean_ratio
FROM clusters GROUP BY reason ORDER BY clusters DESC
""",
    ),
    (
        "What was recommended, and what became of it",
        """
SELECT timestamp, contract, action, recommendations.quantity, price, reason,
    entry_price
FROM recommendations LEFT JOIN orders ON trade_id = id
ORDER BY timestamp DESC LIMIT 20
""",
    ),
    (
        "The market at the commit against the model's fill, in points",
        """
SELECT contract, action, commits.price / 1e9 AS committed, entry_price,
    (commits.price / 1e9 - entry_price) * if(action = 'BUY', 1, -1) AS slippage
FROM commits JOIN recommendations ON id = recommendation_id
JOIN orders ON trade_id = id WHERE entry_price IS NOT NULL
""",
    ),
    (
        "Win rate by context, with the posterior",
        """
SELECT root, epoch, context, trades, wins, posterior_mean, posterior_low, posterior_high
FROM contexts ORDER BY trades DESC
""",
    ),
    (
        "How long after their end bars came, by origin",
        """
SELECT origin, count(*) AS bars, count(*) FILTER (NOT actionable) AS not_actionable,
    quantile_cont(date_diff('millisecond', ts, arrival) / 1000 - 60, 0.99) AS p99_seconds
FROM inputs WHERE kind = 'bar' AND consumed GROUP BY origin ORDER BY origin
""",
    ),
    (
        "Bars that were kept but not consumed",
        """
SELECT reason, symbol, count(*) AS bars, min(ts) AS first, max(ts) AS last
FROM inputs WHERE kind = 'bar' AND NOT consumed GROUP BY ALL ORDER BY bars DESC
""",
    ),
    (
        "What happened to the feed in the last sessions",
        """
SELECT "at", root, kind, reason, start, "end" FROM feed_events ORDER BY id DESC LIMIT 50
""",
    ),
)

_HEAD: Final = """# The store

Made from the code by `clustercore db reference --out docs/store.md`; do not edit it here.

A live process keeps everything in one [DuckDB](https://duckdb.org) file. The table `inputs` is the
truth: whatever the engines consumed, in the order they did. Derived tables are a fold of it and can
be made again with `clustercore db rebuild`. The journal says what happened around it.

- A bar and everything it caused are one transaction. After a crash the file holds whole
  transactions only, and the log has no gap.
- One process owns the file. While it does, others read the snapshot beside it
  (`<file>.snapshot.duckdb`), which is made at each session's end; `clustercore db info`, `export`
  and `sql` and `clustercore parity` turn to it by themselves and say so. Where there is none yet,
  they ask the live process for one. A snapshot that another store left there, or that has more than
  the store holds, is moved to `<file>.snapshot-1.duckdb` when the live process starts.
- A store, its snapshots and what is exported from it are readable by their owner alone. So is the
  log beside it (`<file>.wal`) in the live process and in every command; a program of your own has
  to set `os.umask(0o077)` for that.
- Times are `TIMESTAMP_NS` in UTC. Prices of the market (`inputs`, `commits`) are whole numbers of
  1e-9 points; prices of derived tables are points; money is US dollars.
- `root` names an engine and its account; `seq` is one number over all of them. Every derived row
  carries `seq`, `root` and `epoch` of the input that caused it.
- Schema version {version}. An older file is brought up to date when it is opened, in one
  transaction; a newer one is refused.

## A store to look at

The live process makes one. So does this, from the SIMULATED sample, in the same way: each input is
given to an engine and stored with what it caused.

```python
import clustercore as cc
from clustercore.fold import Fold, epoch_of
from clustercore.inputs import Bar, Closed, Entry
from clustercore.parity import StoredLog, recommender_of
from clustercore.sessions import load_sessions
from clustercore.store import Store

bars = cc.sample(sessions=8, seed=2)
config = cc.Config.preset("new-algo")
with Store.open("live.duckdb") as store:
    fold = Fold("ES", StoredLog(store))
    table = store.save_sessions(load_sessions())
    epoch = epoch_of(1, config, bars.instrument, table, bars.interval_ns)
    items = [epoch]
    columns = bars.columns_nanos().values()
    for symbol, (ts, *prices, volume) in zip(bars.frame["symbol"], zip(*columns)):
        end = int(ts) + bars.interval_ns
        bar = Bar(symbol, int(ts), *map(int, prices), int(volume), arrival=end)
        items += [bar, Closed(end, "eoi")]
    entries = [Entry(n, "ES", 1, item, fold.apply(item)) for n, item in enumerate(items, 1)]
    told = recommender_of(epoch, load_sessions())
    made = [one for entry in entries for one in told.take(entry.events, seq=entry.seq)]
    store.commit(entries, recommendations=made)
    print(store.derived("trades", "ES").height, "trades")
```

## Commands

```sh
clustercore db info live.duckdb
clustercore db check live.duckdb
clustercore db sql live.duckdb "SELECT count(*) FROM trades"
clustercore db snapshot live.duckdb --out copy.duckdb
clustercore db export live.duckdb --out bars.parquet
clustercore db export live.duckdb --out tables
clustercore db rebuild live.duckdb
```

## Going back to a snapshot

A snapshot is a whole store. To go back to it, stop the live process, move `live.duckdb` **and**
`live.duckdb.wal` away (the second is the newest part of the first and of no other file, so that a
snapshot beside it cannot be opened), put a copy of the snapshot in the place of `live.duckdb`, and
start again. What came after the snapshot is fetched again from the gateway or from history, as far
as they reach back, and is not acted on. `clustercore db snapshot --out` replaces a snapshot of the
same store and no other file.

## Queries

A query of `clustercore db sql` is one `SELECT` (or `DESCRIBE`, `SUMMARIZE`, `EXPLAIN`). It runs
read-only, without files, network or extensions, with its configuration locked, a limit on memory
(`--memory`, for the query and once more for its rows) and a limit on time (`--seconds`, the showing
of its rows included). A query that goes on three seconds after that, inside one function of one
value, is ended with its process. Instants with a time zone are shown in UTC. From Python,
`duckdb.connect("copy.duckdb", read_only=True)` opens a snapshot as any DuckDB file.
"""

_FAMILIES: Final = {
    "truth": "What is written once, and what everything else follows from.",
    "derived": "What the engines made of the inputs. `clustercore db rebuild` makes it again.",
    "journal": "What happened around the inputs. Nothing can make it again.",
}

_VIEWS: Final = "The tables above under the names and columns that users of older systems know."

_DURABILITY: Final = """## What a commit costs, and what survives

A commit returns when DuckDB has written its log (`<file>.wal`) and called `fsync` on it. So what
was committed survives the end of the process, by whatever means, and the loss of power as far as
the disk keeps its word: a disk with a volatile cache that ignores flushes can lose the last
commits, never a part of one. On start the log is applied to the file; a last record that is not
whole is dropped with its transaction.

On a virtual machine with two cores of a Xeon a bar with its closing is committed in 1.6 ms (median;
2.7 ms at the 99th percentile) while an `fsync` of the disk takes next to nothing, most of it
DuckDB's planning; each further table that gets rows adds 1 ms. What the disk's `fsync` takes is
added to that: 3.6 ms with a busy neighbour made it 5 ms. Catch-up writes batches: 170,000 bars a
second with everything they caused. To measure your own disk:

```sh
python -m clustercore.store.commit_cost .
```
"""


def store_page() -> str:
    """Return the Markdown reference of every table, column and view."""
    lines = [_HEAD.replace("{version}", str(len(MIGRATIONS)))]
    for heading, query in QUERIES:
        lines += [f"### {heading}", "", "```sql", query.strip(), "```", ""]
    for family, sentence in _FAMILIES.items():
        lines += [f"## Tables: {family}", "", sentence, ""]
        for table in TABLES.values():
            if table.family == family:
                lines += _table(table)
    lines += ["## Views", "", _VIEWS, ""]
    for view in VIEWS:
        rows = ((f"`{name}`", meaning) for name, meaning in view.columns)
        lines += [f"### `{view.name}`", "", view.sentence, "", *_grid(("Column", "Meaning"), rows)]
    lines.append(_DURABILITY)
    return "\n".join(lines)


def _table(table: Table) -> list[str]:
    key = f" Key: `{table.key}`." if table.key else ""
    rows = (
        (
            f"`{column.name}`",
            column.type.replace('"', ""),
            "may be" if column.nullable else "never",
            column.sentence,
        )
        for column in table.columns
    )
    grid = _grid(("Column", "Type", "Empty", "Meaning"), rows)
    return [f"### `{table.name}`", "", table.sentence + key, "", *grid]


def _grid(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return [
        f"| {' | '.join(heads)} |",
        "|" + "---|" * len(heads),
        *(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows),
        "",
    ]
