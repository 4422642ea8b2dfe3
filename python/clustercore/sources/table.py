"""What a loader hands over: one table of bars or trades, with what the source says of itself."""

from __future__ import annotations

from dataclasses import dataclass, field

import polars as pl

from clustercore.errors import DataError
from clustercore.instruments import parse_symbol

__all__ = ["ROW", "Table", "distinct", "name_contracts"]

# The row of the input, kept until every refusal that names a row has been made.
ROW = "__row"


@dataclass(frozen=True)
class Table:
    """Bars or trades of any number of symbols.

    Parameters
    ----------
    frame : polars.DataFrame
        Bars: ``ts_event`` (Datetime ns UTC), ``open high low close`` Float64, ``volume`` Int64.
        Trades: ``ts_event`` (here the time that bars are formed on), ``price`` Float64, ``volume``.
        Both: ``symbol`` String (null where the source has none) and the row of the input.
    kind : {"bars", "trades"}
        What a row is.
    file : str
        Name for messages.
    interval_ns : int, optional
        Length of a bar where the source states it.
    label : {"start", "end"}, optional
        What the timestamp of a bar means where the source states it.
    notes : tuple of str
        What was removed or assumed so far.
    """

    frame: pl.DataFrame
    kind: str
    file: str
    interval_ns: int | None = None
    label: str | None = None
    notes: tuple[str, ...] = field(default=())

    def error(
        self,
        problem: str,
        *,
        row: int | None = None,
        column: str | None = None,
        found: str | None = None,
        expected: str | None = None,
    ) -> DataError:
        """Return a ``DataError`` that names the file."""
        return DataError(
            problem, file=self.file, row=row, column=column, found=found, expected=expected
        )


def distinct(symbols: pl.Series) -> list[str]:
    """Return the distinct symbols in the order of their first row; quick where there is one."""
    if len(symbols) and not symbols.null_count() and (symbols == symbols[0]).all():
        return [str(symbols[0])]
    return symbols.drop_nulls().unique(maintain_order=True).to_list()


def name_contracts(symbols: pl.Series, ids: pl.Series) -> pl.Series:
    """Tell apart the contracts that one continuous symbol stands for: ``ES.c.0@5602``.

    A continuous symbol of one contract, and every other symbol, stays as it is.
    """
    continuous = [name for name in distinct(symbols) if parse_symbol(name).kind == "continuous"]
    changing = [name for name in continuous if ids.filter(symbols == name).n_unique() > 1]
    if not changing:
        return symbols
    frame = pl.DataFrame({"symbol": symbols, "id": ids})
    named = pl.format("{}@{}", "symbol", "id")
    return frame.select(
        pl.when(pl.col("symbol").is_in(changing)).then(named).otherwise("symbol").alias("symbol")
    )["symbol"]
