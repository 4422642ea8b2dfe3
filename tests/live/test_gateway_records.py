from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import databento
import databento_dbn as dbn
import numpy as np
import polars as pl
import pytest
import zstandard

import clustercore as cc
from clustercore.errors import DataError
from clustercore.gateway import GatewayData, encode_dbn, records, sample_parent_data, write_dbn

NOW = 1_733_900_000_123_456_789
U64 = 2**64 - 1


def trades_frame() -> pl.DataFrame:
    return pl.DataFrame(
        {
            "ts_recv": [NOW, NOW + 5, NOW + 7],
            "ts_event": [NOW - 9, NOW - 8, NOW - 1],
            "price": [5000.25, 5000.5, 49.95],
            "size": [3, 1, 2],
            "side": [ord("A"), ord("B"), ord("N")],
            "symbol": ["ESZ4", "ESZ4", "ESZ4-ESH5"],
        }
    )


@pytest.fixture(scope="module")
def sample() -> GatewayData:
    return sample_parent_data(2)


@pytest.mark.parametrize("ts_out", [None, NOW])
def test_records_are_those_of_the_vendor(sample: GatewayData, ts_out: int | None) -> None:
    frame = sample.frame
    rows = np.random.default_rng(3).choice(len(frame), 50, replace=False)
    columns = {name: frame[name].to_numpy() for name in frame.columns if name != "symbol"}
    ids = columns["instrument_id"][rows]
    ours = records.encode_bars(columns, rows, ids, ts_out)
    for place, row in enumerate(rows.tolist()):
        bar = frame.row(row, named=True)
        theirs = dbn.OHLCVMsg(
            33,
            1,
            bar["instrument_id"],
            bar["ts_event"],
            open=bar["open"],
            high=bar["high"],
            low=bar["low"],
            close=bar["close"],
            volume=bar["volume"],
            **({} if ts_out is None else {"ts_out": ts_out}),
        )
        assert ours[place].tobytes() == raw(theirs, ts_out)


def raw(record: Any, ts_out: int | None) -> bytes:
    """Return a record of the vendor; it always has room for the instant of sending."""
    content = bytes(record)
    return content if ts_out is not None or len(content) == content[0] * 4 else content[:-8]


def test_messages_are_those_of_the_vendor() -> None:
    assert records.encode_system(4, "End of interval", NOW) == bytes(
        dbn.SystemMsg(NOW, "End of interval", code=dbn.SystemCode.from_int(4))
    )
    assert records.encode_error(4, "Failed", NOW) == bytes(
        dbn.ErrorMsg(NOW, "Failed", code=dbn.ErrorCode.from_int(4))
    )
    mapping = records.encode_mapping(77, "ES.FUT", "ESZ4", NOW)
    parent, raw_symbol = dbn.SType.from_str("parent"), dbn.SType.from_str("raw_symbol")
    theirs = bytearray(
        bytes(dbn.SymbolMappingMsg(0, 77, NOW, parent, "ES.FUT", raw_symbol, "ESZ4", U64, U64))
    )
    # A live session leaves both kinds of symbol open, which the vendor's constructor cannot say.
    theirs[16] = theirs[16 + 1 + 71] = 255
    assert mapping == bytes(theirs)


def test_trades_are_those_of_the_vendor() -> None:
    data = GatewayData.from_bars(pl.DataFrame(), trades_frame())
    columns = {n: data.trades[n].to_numpy() for n in data.trades.columns if n != "symbol"}
    ids = data.trades["instrument_id"].to_numpy()
    ours = records.encode_trades(columns, slice(None), ids)
    theirs = dbn.TradeMsg(
        1,
        data.ids["ESZ4"],
        NOW - 9,
        5_000_250_000_000,
        3,
        dbn.Action("T"),
        dbn.Side("A"),
        0,
        NOW,
        flags=0,
        ts_in_delta=0,
        sequence=1,
    )
    assert ours[0].tobytes() == bytes(theirs)
    stamped = records.encode_trades(columns, slice(None), ids, ts_out=True)
    assert stamped["ts_out"].tolist() == [NOW, NOW + 5, NOW + 7]
    assert stamped["length"].tolist() == [14, 14, 14]


def test_metadata_is_that_of_the_vendor() -> None:
    ours = records.encode_metadata(
        start=NOW,
        end=NOW + 1,
        schema="trades",
        stype_in="parent",
        symbols=["ES.FUT"],
        mappings=[("ESZ4", [(date(2024, 12, 11), date(2024, 12, 12), "77")])],
    )
    metadata = dbn.Metadata.decode(ours)
    assert metadata.encode() == ours
    assert metadata.mappings["ESZ4"][0]["symbol"] == "77"
    live = dbn.Metadata.decode(records.encode_metadata(start=NOW, ts_out=True))
    assert [live.schema, live.stype_in, live.end, live.limit] == [None] * 4
    assert (live.version, live.start, live.ts_out, live.symbols) == (3, NOW, True, [])


@pytest.mark.parametrize("name", ["bars.dbn", "bars.dbn.zst"])
def test_a_written_file_is_read_by_everybody(
    tmp_path: Path, sample: GatewayData, name: str
) -> None:
    path = write_dbn(tmp_path / name, sample)
    # The vendor's `from_file` leaves the file open.
    store = databento.DBNStore.from_bytes(path.read_bytes())
    found = store.to_ndarray()
    assert len(found) == len(sample.frame)
    assert found["close"].tolist() == sample.frame["close"].to_list()
    assert set(store.metadata.mappings) == set(sample.symbols)
    again = GatewayData.from_files([path])
    assert again.frame.equals(sample.frame)
    assert again.ids == sample.ids
    front = cc.read_bars(path, symbol="ES")
    assert set(front.symbols) <= {"ESZ4", "ESH5"}


def test_trades_come_back_from_a_file(tmp_path: Path) -> None:
    data = GatewayData.from_bars(pl.DataFrame(), trades_frame())
    path = write_dbn(tmp_path / "trades.dbn.zst", data, schema="trades")
    again = GatewayData.from_files([path])
    assert again.trades.equals(data.trades)
    assert again.frame.is_empty()


def test_an_encoded_part_is_a_file(sample: GatewayData) -> None:
    day = sample.frame.head(100)
    content = encode_dbn(day, schema="ohlcv-1m", start=int(day["ts_event"][0]), end=NOW * 2)
    store = databento.DBNStore.from_bytes(zstandard.compress(content))
    assert len(store.to_ndarray()) == 100


def test_every_symbol_has_one_id_of_its_own() -> None:
    bars = pl.DataFrame(
        {
            "ts_event": [0, 60 * 10**9, 120 * 10**9],
            **{name: [100.0, 101.0, 102.0] for name in ("open", "high", "low", "close")},
            "volume": [1, 2, 3],
            "symbol": ["ESZ4", "ESH5", "NQZ4"],
            "instrument_id": [5, 5, 9],
        }
    )
    data = GatewayData.from_bars(bars)
    assert len(set(data.ids.values())) == 3
    assert data.ids["NQZ4"] == 9
    assert data.roots == {"ESH5": "ES", "ESZ4": "ES", "NQZ4": "NQ"}


def test_a_bar_that_two_files_hold_is_refused(tmp_path: Path, sample: GatewayData) -> None:
    path = write_dbn(tmp_path / "bars.dbn", sample)
    with pytest.raises(DataError, match="the same bar"):
        GatewayData.from_files([path, path])


def test_nothing_is_no_market() -> None:
    with pytest.raises(DataError, match="nothing to serve"):
        GatewayData.from_bars(pl.DataFrame())


def test_the_sample_is_the_same_every_time_and_says_what_it_is() -> None:
    first, second = sample_parent_data(1), sample_parent_data(1)
    assert first.frame.equals(second.frame)
    assert first.simulated
    two = sample_parent_data(1, instruments=("ES", "NQ"))
    assert set(two.roots.values()) == {"ES", "NQ"}


def test_a_continuous_file_becomes_its_months(data_dir: Path) -> None:
    data = GatewayData.from_files([data_dir / "dbn/es_1m_2019.dbn.zst"])
    assert data.symbols == ("ESH0", "ESH9", "ESM9", "ESU9", "ESZ9")
    assert len(data.frame) == 349_335
    firsts = data.frame.group_by("symbol").agg(pl.col("ts_event").min()).sort("ts_event")
    assert firsts["symbol"].to_list() == ["ESH9", "ESM9", "ESU9", "ESZ9", "ESH0"]


def test_real_trades_are_read(data_dir: Path) -> None:
    name = "dbn/glbx/futures_trades_2024-07-01T23-58_2024-07-02T00-02.dbn.zst"
    data = GatewayData.from_files([data_dir / name])
    assert len(data.trades) == 120
    assert data.ids == {"ESU4": 118}
