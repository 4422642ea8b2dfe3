"""What the historical server answers, without the network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cached_property
from typing import Any, Final

import numpy as np
import polars as pl

from clustercore.gateway.parameters import (
    date_of,
    instant_of,
    iso_nanos,
    limit_of,
    symbols_of,
    word_of,
)
from clustercore.gateway.records import (
    BAR,
    BARS,
    DATASET,
    MINUTE_NS,
    TRADE,
    TRADES,
    GatewayData,
    encode_bars,
    encode_dbn,
    encode_metadata,
    encode_trades,
)
from clustercore.gateway.replies import RefusalError, Reply, compressed, json_reply
from clustercore.gateway.symbols import STYPES, Resolver

__all__ = ["ENDPOINTS", "RANGE", "Answers", "time_column"]

RANGE: Final = "timeseries.get_range"
# Which verb asks for what.
ENDPOINTS: Final = {
    RANGE: "POST",
    "metadata.list_publishers": "GET",
    "metadata.list_datasets": "GET",
    "metadata.list_schemas": "GET",
    "metadata.list_fields": "GET",
    "metadata.list_unit_prices": "GET",
    "metadata.get_dataset_condition": "GET",
    "metadata.get_dataset_range": "GET",
    "metadata.get_record_count": "POST",
    "metadata.get_billable_size": "POST",
    "metadata.get_cost": "POST",
    "symbology.resolve": "POST",
    "batch.submit_job": "POST",
    "batch.list_jobs": "GET",
    "batch.get_job_details": "GET",
    "batch.list_files": "GET",
}

_DAY_NS: Final = 86_400 * 10**9
_RECORDS: Final = {BARS: BAR, TRADES: TRADE}
# Questions about no dataset in particular.
_OF_NO_DATASET: Final = (
    "metadata.list_publishers",
    "metadata.list_datasets",
    "metadata.list_fields",
)
_FIELD_TYPES: Final = {
    "u1": "uint8_t",
    "u2": "uint16_t",
    "u4": "uint32_t",
    "u8": "uint64_t",
    "i4": "int32_t",
    "i8": "int64_t",
    "S1": "char",
}
_CHARACTERS: Final = ("action", "side")


def time_column(schema: str) -> str:
    """Return by which column a schema is asked for."""
    return "ts_event" if schema == BARS else "ts_recv"


@dataclass(frozen=True)
class Answers:
    """The answers.

    Attributes
    ----------
    data : GatewayData
        What there is.
    now : callable
        Market time, ns UTC.
    lag_ns : int
        How far the end of what is available stays behind it.
    conditions : mapping of str to str
        Condition of days; every other is available.
    usd_per_gb : float
        Price of 2**30 bytes of records.
    """

    data: GatewayData
    now: Callable[[], int]
    lag_ns: int
    conditions: Mapping[str, str]
    usd_per_gb: float

    @cached_property
    def resolver(self) -> Resolver:
        """What symbols mean."""
        return Resolver(self.data)

    def available_start(self) -> int:
        """Return from when on there is history, ns UTC."""
        return self.data.span[0] // _DAY_NS * _DAY_NS

    def available_end(self) -> int:
        """Return until when there is history, ns UTC, exclusive."""
        end = (self.now() - self.lag_ns) // MINUTE_NS * MINUTE_NS
        return max(end, self.available_start())

    def answer(self, verb: str, endpoint: str, asked: dict[str, str]) -> Reply:
        """Return the answer to a request.

        Raises
        ------
        RefusalError
            The real service would refuse it, or this one cannot answer it.
        """
        if endpoint not in ENDPOINTS:
            raise RefusalError(404, "not_found", f"There is no endpoint {endpoint[:80]}.")
        if verb != ENDPOINTS[endpoint]:
            raise RefusalError(
                405, "method_not_allowed", f"{endpoint} answers {ENDPOINTS[endpoint]}, not {verb}."
            )
        if endpoint.startswith("batch."):
            return json_reply(_batch(endpoint))
        if endpoint not in _OF_NO_DATASET:
            _check_dataset(asked)
        if endpoint == RANGE:
            return self.range(asked)
        return json_reply(self._documents[endpoint](asked))

    @cached_property
    def _documents(self) -> dict[str, Callable[[dict[str, str]], Any]]:
        return {
            "metadata.list_publishers": lambda _: [_PUBLISHER],
            "metadata.list_datasets": lambda _: [DATASET],
            "metadata.list_schemas": lambda _: self.schemas(),
            "metadata.list_fields": self.fields,
            "metadata.list_unit_prices": lambda _: self.unit_prices(),
            "metadata.get_dataset_range": lambda _: self.dataset_range(),
            "metadata.get_dataset_condition": self.condition,
            "metadata.get_record_count": lambda asked: len(self.select(asked)),
            "metadata.get_billable_size": self.billable_size,
            "metadata.get_cost": self.cost,
            "symbology.resolve": self.resolve,
        }

    # -- metadata

    def schemas(self) -> list[str]:
        """Return what kinds of records there are."""
        frames = {BARS: self.data.frame, TRADES: self.data.trades}
        return [schema for schema, frame in frames.items() if len(frame)]

    def fields(self, asked: Mapping[str, str]) -> list[dict[str, str]]:
        """Return the fields of a schema's records."""
        word_of(asked, "encoding", ("dbn",))
        dtype = _RECORDS[word_of(asked, "schema", tuple(_RECORDS))]
        return [{"name": name, "type": _field_type(dtype, name)} for name in dtype.names or ()]

    def unit_prices(self) -> list[dict[str, Any]]:
        """Return what records cost, the same for all."""
        prices = dict.fromkeys(self.schemas(), self.usd_per_gb)
        return [
            {"mode": mode, "unit_prices": prices} for mode in ("historical", "historical-streaming")
        ]

    def dataset_range(self) -> dict[str, Any]:
        """Return from when until when there is what."""
        span = {
            "start": iso_nanos(self.available_start()),
            "end": iso_nanos(self.available_end()),
        }
        return {**span, "schema": dict.fromkeys(self.schemas(), span)}

    def condition(self, asked: Mapping[str, str]) -> list[dict[str, str]]:
        """Return the condition of every day that was asked for and that there is."""
        first, last = _day_of(self.available_start()), _day_of(self.available_end())
        if asked.get("start_date"):
            first = max(first, date_of(asked, "start_date"))
        if asked.get("end_date"):
            last = min(last, date_of(asked, "end_date"))
        days = [(first + timedelta(days=n)).isoformat() for n in range((last - first).days + 1)]
        return [
            {
                "date": day,
                "condition": self.conditions.get(day, "available"),
                "last_modified_date": day,
            }
            for day in days
        ]

    def billable_size(self, asked: Mapping[str, str]) -> int:
        """Return the bytes of the records, uncompressed."""
        return len(self.select(asked)) * int(_RECORDS[asked["schema"]].itemsize)

    def cost(self, asked: Mapping[str, str]) -> float:
        """Return the price of the records."""
        return self.billable_size(asked) * self.usd_per_gb / 2**30

    # -- records

    def range(self, asked: Mapping[str, str]) -> Reply:
        """Return records."""
        word_of(asked, "encoding", ("dbn",))
        word_of(asked, "stype_out", ("instrument_id",))
        content = self.encoded(self.select(asked), asked)
        if word_of(asked, "compression", ("zstd", "none")) == "none":
            return Reply(200, content, "application/octet-stream", chunked=True)
        return Reply(200, compressed(content), "application/zstd", chunked=True)

    def encoded(self, frame: pl.DataFrame, asked: Mapping[str, str]) -> bytes:
        """Return rows as the file that was asked for."""
        start, end = self.span(asked)
        symbols = symbols_of(asked)
        known = self.resolved_spans(asked, start, end)
        missing = [text for text, spans in known if not spans]
        if asked.get("stype_in") != "continuous":
            return encode_dbn(
                frame,
                schema=asked["schema"],
                start=start,
                end=end,
                symbols=symbols,
                stype_in=asked.get("stype_in", "raw_symbol"),
                not_found=missing,
                limit=limit_of(asked),
            )
        ids = self.data.ids
        header = encode_metadata(
            start=start,
            end=end,
            schema=asked["schema"],
            stype_in="continuous",
            symbols=symbols,
            not_found=missing,
            limit=limit_of(asked),
            mappings=[
                (text, [(first, until, str(ids[raw])) for first, until, raw in spans])
                for text, spans in known
                if spans
            ],
        )
        columns = {name: frame[name].to_numpy() for name in frame.columns if name != "symbol"}
        encode = encode_bars if asked["schema"] == BARS else encode_trades
        return header + encode(columns, slice(None), columns["instrument_id"]).tobytes()

    def span(self, asked: Mapping[str, str]) -> tuple[int, int]:
        """Return from when until when records are wanted, ns UTC, end exclusive."""
        if asked.get("schema") not in self.schemas():
            raise RefusalError(
                422, "data_schema_not_fully_available", f"No data of schema {asked.get('schema')}."
            )
        start = instant_of(asked, "start")
        end = instant_of(asked, "end") if asked.get("end") else self.available_end()
        self._check_start(start)
        if start >= end:
            raise self._out_of_range(
                "data_time_range_start_on_or_after_end",
                f"Invalid time range query, `start` {iso_nanos(start)} must be before "
                f"`end` {iso_nanos(end)}.",
            )
        if end > self.available_end():
            raise self._outside("end", end, after=True)
        return start, end

    def _check_start(self, start: int) -> None:
        # Before the end is looked at: a request wholly after what there is starts after it.
        if start >= self.available_end():
            raise self._outside("start", start, after=True)
        if start < self.available_start():
            raise self._outside("start", start, after=False)

    def _outside(self, name: str, ts: int, *, after: bool) -> RefusalError:
        limit = self.available_end() if after else self.available_start()
        word, reach = ("after", "up to") if after else ("before", "from")
        return self._out_of_range(
            f"data_{name}_{word}_available_{'end' if after else 'start'}",
            f"The dataset {DATASET} has data available {reach} '{iso_nanos(limit)}'. "
            f"The `{name}` in the query ('{iso_nanos(ts)}') is {word} the available range. "
            f"Try requesting with {'an earlier' if after else 'a later'} `{name}`.",
        )

    def _out_of_range(self, case: str, message: str) -> RefusalError:
        payload = {
            "dataset": DATASET,
            "available_start": iso_nanos(self.available_start()),
            "available_end": iso_nanos(self.available_end()),
        }
        return RefusalError(422, case, message, payload)

    def select(self, asked: Mapping[str, str]) -> pl.DataFrame:
        """Return the rows that are wanted."""
        start, end = self.span(asked)
        limit = limit_of(asked)
        frame = self.data.frame if asked["schema"] == BARS else self.data.trades
        time = time_column(asked["schema"])
        first, until = (frame[time].search_sorted(ts, side="left") for ts in (start, end))
        rows = frame.slice(first, until - first).filter(self._wanted(asked, time, start, end))
        return rows if limit is None else rows.head(limit)

    def _wanted(self, asked: Mapping[str, str], time: str, start: int, end: int) -> pl.Expr:
        """Return which rows are those of the symbols that were asked for."""
        spans = [span for _, spans in self.resolved_spans(asked, start, end) for span in spans]
        if not spans:
            raise RefusalError(
                422, "symbology_invalid_request", "None of the symbols could be resolved."
            )
        if asked.get("stype_in") != "continuous":
            return pl.col("symbol").is_in(sorted({raw for *_, raw in spans}))
        day = pl.col(time).cast(pl.Datetime("ns")).dt.date()
        return pl.any_horizontal(
            (pl.col("symbol") == raw) & (day >= first) & (day < until)
            for first, until, raw in spans
        )

    # -- symbols

    def resolve(self, asked: Mapping[str, str]) -> dict[str, Any]:
        """Return what symbols mean on which days."""
        first = date_of(asked, "start_date")
        until = first + timedelta(days=1)
        if asked.get("end_date"):
            until = date_of(asked, "end_date")
        by_id = word_of(asked, "stype_out", ("instrument_id", "raw_symbol")) == "instrument_id"
        found = {
            text: [
                {
                    "d0": start.isoformat(),
                    "d1": end.isoformat(),
                    "s": str(self.data.ids[raw]) if by_id else raw,
                }
                for start, end, raw in spans
            ]
            for text, spans in self.resolved_spans(asked, _ts_of(first), _ts_of(until))
        }
        missing = [text for text, spans in found.items() if not spans]
        return {
            "result": {text: spans for text, spans in found.items() if spans},
            "symbols": symbols_of(asked),
            "stype_in": asked.get("stype_in", "raw_symbol"),
            "stype_out": asked.get("stype_out", "instrument_id"),
            "start_date": first.isoformat(),
            "end_date": until.isoformat(),
            "partial": [],
            "not_found": missing,
            "message": "Not found" if missing else "OK",
            "status": 2 if missing else 0,
        }

    def resolved_spans(
        self, asked: Mapping[str, str], start: int, end: int
    ) -> list[tuple[str, list[tuple[date, date, str]]]]:
        """Return, by symbol asked for, from when until when it was which raw symbol."""
        kind = word_of(asked, "stype_in", STYPES)
        if kind == "continuous":
            return [(text, self._held(text, start, end)) for text in symbols_of(asked)]
        first, until = _day_of(start), _day_of(end - 1) + timedelta(days=1)
        return [
            (
                text,
                [
                    (first, until, self.data.symbols[place])
                    for place in self.resolver.resolve(text, kind, start)
                ],
            )
            for text in symbols_of(asked)
        ]

    def _held(self, text: str, start: int, end: int) -> list[tuple[date, date, str]]:
        """Return which month a continuous symbol was on which days, `until` exclusive."""
        spans: list[tuple[date, date, str]] = []
        first = max(start // _DAY_NS * _DAY_NS, self.available_start())
        for at in range(first, min(end, self.data.span[1]), _DAY_NS):
            day = _day_of(at)
            following = day + timedelta(days=1)
            for place in self.resolver.resolve(text, "continuous", at):
                raw = self.data.symbols[place]
                if spans and spans[-1][1:] == (day, raw):
                    day = spans.pop()[0]
                spans.append((day, following, raw))
        return spans


_PUBLISHER: Final = {
    "publisher_id": 1,
    "dataset": DATASET,
    "venue": "GLBX",
    "description": "CME Globex MDP 3.0",
}


def _batch(endpoint: str) -> list[Any]:
    """Return that there is no job; one that is submitted would never be done."""
    if endpoint == "batch.list_jobs":
        return []
    if endpoint == "batch.submit_job":
        raise RefusalError(
            422,
            "batch_not_available",
            f"This local server makes no batch jobs; ask {RANGE} for the records instead.",
        )
    raise RefusalError(404, "batch_job_not_found", "This local server makes no batch jobs.")


def _field_type(dtype: np.dtype[Any], name: str) -> str:
    return "char" if name in _CHARACTERS else _FIELD_TYPES[dtype[name].str[1:]]


def _check_dataset(asked: Mapping[str, str]) -> None:
    if asked.get("dataset") != DATASET:
        raise RefusalError(
            422, "data_dataset_not_found", f"There is no dataset {asked.get('dataset')}."
        )


def _ts_of(day: date) -> int:
    return (day - date(1970, 1, 1)).days * _DAY_NS


def _day_of(ts: int) -> date:
    return date(1970, 1, 1) + timedelta(days=ts // _DAY_NS)
