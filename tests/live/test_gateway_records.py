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


def test_trades_keep_what_their_file_says(tmp_path: Path) -> None:
    told = trades_frame().with_columns(
        flags=pl.Series([128, 0, 130]),
        ts_in_delta=pl.Series([-5, 17_664, 3]),
        sequence=pl.Series([9_060_643, 9_060_678, 9_060_678]),
    )
    path = write_dbn(
        tmp_path / "t.dbn", GatewayData.from_bars(pl.DataFrame(), told), schema="trades"
    )
    again = GatewayData.from_files([path]).trades
    assert again.select("flags", "ts_in_delta", "sequence").rows() == [
        (128, -5, 9_060_643),
        (0, 17_664, 9_060_678),
        (130, 3, 9_060_678),
    ]
    columns = {name: again[name].to_numpy() for name in again.columns if name != "symbol"}
    sent = records.encode_trades(columns, slice(None), columns["instrument_id"])
    (_, _, theirs) = databento.DBNStore.from_bytes(path.read_bytes())
    assert sent[2].tobytes() == raw(theirs, None)


def recording(*contents: bytes, ts_out: bool = False) -> bytes:
    """Return a recording of a live session: a header without a schema, records of all kinds."""
    return records.encode_metadata(start=NOW, ts_out=ts_out) + b"".join(contents)


def session_of(data: GatewayData, ts_out: int | None = None) -> list[bytes]:
    """Return what a live session sends of this data: mappings, bars, trades, a heartbeat."""
    bars, trades = (
        {name: part[name].to_numpy() for name in part.columns if name != "symbol"}
        for part in (data.frame, data.trades)
    )
    stamped = ts_out is not None
    sent = [
        records.encode_system(0, "speed=600 simulated" if data.simulated else "", NOW, ts_out),
        *(records.encode_mapping(n, "ES.FUT", s, NOW, ts_out) for s, n in data.ids.items()),
    ]
    for place in range(len(data.trades)):
        row = slice(place, place + 1)
        ids = trades["instrument_id"][row]
        sent.append(records.encode_trades(trades, row, ids, ts_out=stamped).tobytes())
        ids = bars["instrument_id"][row]
        sent.append(records.encode_bars(bars, row, ids, ts_out).tobytes())
    return sent


@pytest.fixture
def both(sample: GatewayData) -> GatewayData:
    """Return three bars and three trades."""
    bars = sample.frame.head(3).with_columns(symbol=pl.Series(["ESZ4", "ESH5", "ESZ4"]))
    bars = bars.with_columns(ts_event=NOW - NOW % 60 + pl.int_range(3) * 60 * 10**9)
    told = trades_frame().with_columns(sequence=pl.Series([7, 7, 9]))
    return GatewayData.from_bars(bars.drop("instrument_id"), told, simulated=True)


@pytest.mark.parametrize("ts_out", [None, NOW])
def test_a_recording_of_bars_and_trades_is_served(
    tmp_path: Path, both: GatewayData, ts_out: int | None
) -> None:
    path = tmp_path / "raw.dbn"
    path.write_bytes(recording(*session_of(both, ts_out), ts_out=ts_out is not None))
    again = GatewayData.from_files([path])
    assert again.frame.equals(both.frame)
    assert again.trades.equals(both.trades)
    assert again.ids == both.ids
    assert again.simulated


def test_what_recordings_share_counts_once(tmp_path: Path, both: GatewayData) -> None:
    """A connection replays from before the end of the one before it."""
    sent = session_of(both)
    mappings, rows = sent[:4], sent[4:]
    first, second = tmp_path / "1.dbn", tmp_path / "2.dbn.zst"
    # The second trade twice: two fills that nothing tells apart.
    first.write_bytes(recording(*mappings, *rows[:4], rows[2]))
    second.write_bytes(zstandard.compress(recording(*mappings, *rows[2:], rows[2])))
    again = GatewayData.from_files([first, second])
    assert again.frame.equals(both.frame)
    assert again.trades["sequence"].to_list() == [7, 7, 7, 9]


def test_a_recording_without_symbols_is_refused(tmp_path: Path, both: GatewayData) -> None:
    path = tmp_path / "raw.dbn"
    path.write_bytes(recording(*session_of(both)[4:]))
    with pytest.raises(DataError, match="does not say which symbols"):
        GatewayData.from_files([path])


@pytest.mark.parametrize(
    "name",
    [
        "ohlcv-1h.dbn.zst",
        "mbp-1.dbn.zst",
        "tbbo.dbn.zst",
        "mbo.dbn.zst",
        "definition.dbn.zst",
    ],
)
def test_a_schema_that_is_not_served_is_named(data_dir: Path, name: str) -> None:
    path = data_dir / "dbn/matrix" / f"GLBX.MDP3__test_data.{name}"
    with pytest.raises(DataError, match="nothing that the gateway serves") as caught:
        GatewayData.from_files([path])
    assert f"schema {name.partition('.')[0]} with" in str(caught.value)
    assert "--interval" not in str(caught.value)


@pytest.mark.parametrize("kind", [34, 33])
def test_bars_of_another_length_are_refused(tmp_path: Path, sample: GatewayData, kind: int) -> None:
    path = write_dbn(tmp_path / "bars.dbn", sample)
    content = bytearray(path.read_bytes())
    head = 8 + int.from_bytes(content[4:8], "little")
    # One hour by the types of the records; and a file of no record at all.
    content[head + 1 :: 56] = bytes([kind]) * len(content[head + 1 :: 56])
    path.write_bytes(content if kind == 34 else content[:head])
    with pytest.raises(DataError, match="nothing that the gateway serves"):
        GatewayData.from_files([path])


def test_a_file_of_another_dataset_is_refused(tmp_path: Path, sample: GatewayData) -> None:
    path = write_dbn(tmp_path / "bars.dbn", sample)
    path.write_bytes(path.read_bytes().replace(b"GLBX.MDP3", b"XNAS.ITCH", 1))
    with pytest.raises(DataError, match=r"found XNAS\.ITCH, expected GLBX\.MDP3"):
        GatewayData.from_files([path])


@pytest.mark.parametrize("text", ["x" * 400, "\N{EURO SIGN}" * 200, "a" + "\N{EURO SIGN}" * 200])
def test_a_long_text_is_cut_where_the_client_can_read_it(text: str) -> None:
    decoder: Any = dbn.DBNDecoder()
    decoder.write(records.encode_metadata(start=NOW))
    decoder.write(records.encode_error(4, text, NOW) + records.encode_system(0, text, NOW))
    _, error, system = decoder.decode()
    assert len(error.err.encode()) in {299, 300, 301}
    assert len(system.msg.encode()) in {300, 301, 302}
    assert text.startswith(error.err)
    assert text.startswith(system.msg)


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
