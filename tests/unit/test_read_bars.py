"""Files and frames into bars: every file of the real data, every common form, every refusal."""

from __future__ import annotations

import gzip
from datetime import UTC, date, datetime, timedelta
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from clustercore.bars import SCHEMA, Bars, interval_text, parse_interval
from clustercore.errors import ConfigError, DataError
from clustercore.instruments import Instrument
from clustercore.sample import sample, sample_parent
from clustercore.sessions import load_sessions
from clustercore.sources import read_bars
from clustercore.sources.dbn import symbols_by_date

START = datetime(2024, 1, 2, 15, tzinfo=UTC)
NO_BARS = "holds no bars and no trades"
OPRA = Instrument("AAPL", 0.01, 100.0, 0.5)

# First pattern that fits: arguments, and the number of bars or a piece of the refusal.
FILES: list[tuple[str, dict[str, Any], int | str]] = [
    ("README.md", {}, "no table"),
    ("bars/es_1m_2015_2019.parquet", {}, 1_740_009),
    ("bars/es_5m_by_contract_*.parquet", {}, 98_955),
    ("bars/es_1m_2025-09-24_databento.csv", {}, 1_380),
    ("bars/mnq_1m_*.csv", {"tz": "UTC", "symbol": "MNQ", "label": "start"}, 16_320),
    (
        "bars/nq_1m_*_eastern.csv",
        {"tz": "America/New_York", "symbol": "NQ", "label": "start"},
        14_714,
    ),
    ("trades/nq_trades_2025-05-04_databento.csv", {}, "front month cannot be told"),
    ("dbn/es_1m_2019.dbn.zst", {}, 349_335),
    ("*.dbz", {}, "DBZ file"),
    ("*.frag*", {}, "DBN fragment"),
    ("dbn/*definition*", {}, NO_BARS),
    ("dbn/*bbo-1*", {}, NO_BARS),
    ("dbn/*statistics*", {}, NO_BARS),
    ("dbn/*status*", {}, NO_BARS),
    ("dbn/*mbp-10*", {}, NO_BARS),
    ("dbn/*cmbp-1*", {}, NO_BARS),
    ("dbn/glbx/esh4-glbx-mdp3-20231224.mbo.dbn.zst", {}, NO_BARS),
    ("dbn/glbx/esh4-glbx-mdp3-20231225.mbo.dbn.zst", {}, 60),
    ("dbn/glbx/orderbooks_mbo_*", {}, 1),
    ("dbn/glbx/futures_mbp-1_*", {}, 4),
    ("dbn/glbx/futures_trades_*", {}, 4),
    ("dbn/glbx/futures_ohlcv-1m_2026*", {}, 10),
    ("dbn/glbx/futures_ohlcv-1m_2024*", {}, "several products; pass symbol="),
    ("dbn/matrix/LIVE*", {}, "several lengths; pass interval="),
    ("dbn/matrix/*.mbo.*", {}, NO_BARS),
    ("dbn/matrix/*.mbp-1.*", {}, NO_BARS),
    ("dbn/matrix/OPRA*", {}, "pass instrument=Instrument"),
    ("dbn/matrix/GLBX*ohlcv-1d*", {}, 1),
    ("dbn/matrix/GLBX*ohlcv-1?.*", {}, 4),
    ("dbn/matrix/test_data.ohlcv-1m*", {}, 2),
    ("dbn/matrix/*trades*", {}, 1),
    ("dbn/matrix/*tbbo*", {}, 1),
]


def test_every_file_loads_or_says_what_to_pass(data_dir: Path) -> None:
    loaded = refused = 0
    for path in sorted(path for path in data_dir.rglob("*") if path.is_file()):
        name = path.relative_to(data_dir).as_posix()
        rules = [rule for rule in FILES if fnmatch(name, rule[0])]
        assert rules, f"no outcome is written down for {name}"
        _, arguments, outcome = rules[0]
        if isinstance(outcome, int):
            bars = read_bars(path, **arguments)
            assert len(bars) == outcome, name
            assert bars.source == path.name
            assert len(bars.source_hash) == 64
            loaded += 1
        else:
            with pytest.raises(DataError) as caught:
                read_bars(path, **arguments)
            assert outcome in str(caught.value), name
            assert caught.value.file == str(path), name
            refused += 1
    assert loaded >= 25
    assert refused >= 45


@pytest.mark.parametrize(
    ("name", "arguments", "count"),
    [
        ("trades/nq_trades_2025-05-04_databento.csv", {"symbol": "NQM5"}, 120),
        ("dbn/glbx/futures_ohlcv-1m_2024-05*", {"symbol": "NQ"}, 10),
        ("dbn/glbx/futures_ohlcv-1m_2024-05*", {"symbol": "ESM4"}, 10),
        ("dbn/glbx/futures_ohlcv-1m_2024-05*", {"symbol": "ES.FUT"}, 10),
        ("dbn/matrix/LIVE*", {"interval": "1m"}, 2),
        ("dbn/matrix/LIVE*", {"interval": "1s"}, 2),
        ("dbn/matrix/OPRA*ohlcv-1m*", {"instrument": OPRA}, 4),
    ],
)
def test_what_a_refusal_says_to_pass_works(
    data_dir: Path, name: str, arguments: dict[str, Any], count: int
) -> None:
    (path,) = data_dir.glob(name)
    assert len(read_bars(path, **arguments)) == count


def test_naive_files_say_what_to_pass_one_after_another(data_dir: Path) -> None:
    (path,) = (data_dir / "bars").glob("mnq*")
    arguments: dict[str, Any] = {}
    for message, argument, value in (
        ("pass tz=", "tz", "UTC"),
        ("pass symbol=", "symbol", "MNQ"),
        ("pass label=", "label", "start"),
    ):
        with pytest.raises(DataError, match=message):
            read_bars(path, **arguments)
        arguments[argument] = value
    assert len(read_bars(path, **arguments)) == 16_320


def test_bars_of_trades_are_databentos_bars(data_dir: Path) -> None:
    """The same minutes of the same contract: trades, the book that told them, and ohlcv-1m."""
    folder = data_dir / "dbn" / "glbx"
    (trades,) = folder.glob("futures_trades_*")
    (book,) = folder.glob("futures_mbp-1_*")
    (bars,) = folder.glob("futures_ohlcv-1m_2024-07*")
    ours = read_bars(trades).frame
    assert_frame_equal(ours, read_bars(book).frame)
    theirs = read_bars(bars, symbol="ESU4", start="2024-07-01T23:58", end="2024-07-02T00:02")
    assert_frame_equal(ours, theirs.frame)
    assert len(ours) == 4


def test_dbn_and_parquet_of_one_year_are_the_same_bars(data_dir: Path) -> None:
    dbn = read_bars(data_dir / "dbn" / "es_1m_2019.dbn.zst").frame.drop("symbol")
    parquet = read_bars(data_dir / "bars" / "es_1m_2015_2019.parquet", start="2019-01-01")
    assert_frame_equal(dbn, parquet.frame.drop("symbol"))


def test_eastern_times_open_the_session_at_its_open(data_dir: Path) -> None:
    (path,) = (data_dir / "bars").glob("nq_*eastern*")
    bars = read_bars(path, "NQ", label="start", tz="America/New_York")
    assert bars.frame["ts_event"][0] == datetime(2023, 11, 19, 23, tzinfo=UTC)
    assert load_sessions().locate(bars.frame["ts_event"]).null_count() == 0


# Frames made here ------------------------------------------------------------------------------


def frame(count: int = 120, minutes: int = 1) -> pl.DataFrame:
    """Return plain bars with Databento's names."""
    times = [START + timedelta(minutes=minutes * index) for index in range(count)]
    close = 5000 + 0.25 * np.arange(count)
    return pl.DataFrame(
        {
            "ts_event": pl.Series(times, dtype=pl.Datetime("ns", "UTC")),
            "open": close - 0.25,
            "high": close + 0.5,
            "low": close - 0.5,
            "close": close,
            "volume": pl.Series(range(1, count + 1), dtype=pl.Int64),
            "symbol": ["ESH4"] * count,
        }
    )


def refused(source: object, *arguments: Any, **named: Any) -> DataError:
    with pytest.raises(DataError) as caught:
        read_bars(source, *arguments, **named)
    return caught.value


def same_bars(bars: Bars, expected: pl.DataFrame | None = None) -> None:
    wanted = frame() if expected is None else expected
    assert_frame_equal(bars.frame.drop("context", "symbol"), wanted.drop("symbol"))


def test_a_plain_frame() -> None:
    bars = read_bars(frame())
    same_bars(bars)
    assert bars.frame.schema == pl.Schema(SCHEMA)
    assert bars.interval_ns == 60 * 10**9
    assert (bars.source, bars.source_hash, bars.simulated) == ("DataFrame", "", False)
    assert bars.instrument == Instrument.builtin("ES")
    columns = bars.columns_nanos()
    assert columns["close"][:2].tolist() == [5000 * 10**9, 5000_250_000_000]
    assert all(values.dtype == np.int64 for values in columns.values())


def test_lazy_arrow_and_pandas_frames_are_the_same() -> None:
    same_bars(read_bars(frame().lazy()))
    pytest.importorskip("pyarrow")
    same_bars(read_bars(frame().to_arrow()))
    pytest.importorskip("pandas")
    pandas = frame().to_pandas()
    same_bars(read_bars(pandas))
    same_bars(read_bars(pandas.set_index("ts_event")))
    unnamed = pandas.set_index("ts_event").rename_axis(None)
    same_bars(read_bars(unnamed, label="start"))


def test_a_frame_that_only_speaks_the_interchange_protocol() -> None:
    pytest.importorskip("pyarrow")
    table = frame().to_arrow()

    class Speaker:
        def __dataframe__(self, **arguments: Any) -> Any:
            return table.__dataframe__(**arguments)

    same_bars(read_bars(Speaker()))


@pytest.mark.parametrize("source", [None, 5, [1, 2], object(), {"open": [1]}])
def test_other_objects_are_refused(source: object) -> None:
    assert type(source).__name__ in str(refused(source))


@pytest.mark.parametrize(
    "names",
    [
        {"ts_event": "timestamp"},
        {"ts_event": "Datetime"},
        {"ts_event": "caldt"},
        {"ts_event": "DATE"},
        {"open": "Open", "high": "HIGH", "low": "low ", "close": "Close", "volume": "Vol"},
    ],
)
def test_common_names(names: dict[str, str]) -> None:
    same_bars(read_bars(frame().rename(names), label="start"))


def test_uncommon_names_are_passed() -> None:
    odd = frame().rename({"open": "first", "volume": "contracts"})
    error = refused(odd)
    assert "pass columns=" in error.problem
    assert error.column == "open, volume"
    same_bars(read_bars(odd, columns={"open": "first", "volume": "contracts"}))
    assert refused(odd, columns={"open": "missing"}).column == "missing"
    with pytest.raises(ConfigError, match="columns"):
        read_bars(odd, columns={"opening": "first"})
    twice = frame().with_columns(Close=pl.col("close"))
    assert "two columns could be close" in refused(twice).problem
    same_bars(read_bars(twice, columns={"close": "close"}))


# Text -------------------------------------------------------------------------------------------


def text(path: Path, times: pl.Expr, name: str = "timestamp", **rest: pl.Expr) -> Path:
    frame().with_columns(ts_event=times, **rest).rename({"ts_event": name}).write_csv(path)
    return path


TIME = pl.col("ts_event")
EPOCH = TIME.to_physical()
EASTERN = TIME.dt.convert_time_zone("America/New_York")


@pytest.mark.parametrize(
    ("times", "tz"),
    [
        (TIME.dt.strftime("%Y-%m-%dT%H:%M:%SZ"), None),
        (TIME.dt.strftime("%Y-%m-%dT%H:%M:%S.%9fZ"), None),
        (TIME.dt.strftime("%Y-%m-%d %H:%M:%S+00:00"), None),
        (EASTERN.dt.strftime("%Y-%m-%d %H:%M:%S%:z"), None),
        (EASTERN.dt.strftime("%Y-%m-%dT%H:%M%z"), None),
        (TIME.dt.strftime("%Y-%m-%d %H:%M:%S"), "UTC"),
        (EASTERN.dt.strftime("%Y-%m-%d %H:%M"), "America/New_York"),
        (EASTERN.dt.strftime("%Y/%m/%d %H:%M:%S"), "America/New_York"),
        (EASTERN.dt.strftime("%Y%m%d %H%M%S"), "America/New_York"),
        (EPOCH // 10**9, None),
        (EPOCH // 10**6, None),
        (EPOCH // 10**3, None),
        (EPOCH, None),
    ],
)
def test_time_formats(tmp_path: Path, times: pl.Expr, tz: str | None) -> None:
    path = text(tmp_path / "bars.csv", times)
    same_bars(read_bars(path, label="start", tz=tz))


def test_date_and_time_columns(tmp_path: Path) -> None:
    path = text(
        tmp_path / "bars.csv",
        EASTERN.dt.strftime("%Y-%m-%d"),
        "Date",
        Time=EASTERN.dt.strftime("%H:%M:%S"),
    )
    same_bars(read_bars(path, label="start", tz="America/New_York"))


@pytest.mark.parametrize("unit", ["ms", "us", "ns"])
def test_frame_time_types(unit: Any) -> None:
    naive = frame().with_columns(TIME.dt.replace_time_zone(None).cast(pl.Datetime(unit)))
    same_bars(read_bars(naive, tz="UTC"))
    assert "pass tz=" in refused(naive).problem
    same_bars(read_bars(frame().with_columns(EASTERN.dt.cast_time_unit(unit))))
    same_bars(read_bars(frame().with_columns(EPOCH // 10**9)))
    same_bars(read_bars(frame().with_columns((EPOCH // 10**9).cast(pl.Float64))))


@pytest.mark.parametrize(
    ("times", "message"),
    [
        (TIME.dt.strftime("%d.%m.%Y %H:%M"), "no time that can be read"),
        (TIME.dt.strftime("%m/%d/%Y %H:%M"), "no time that can be read"),
        (TIME.dt.strftime("%H:%M:%S"), "no time that can be read"),
        (TIME.dt.strftime("%Y-%m-%d %H:%M:%S"), "pass tz="),
        (EPOCH // 10**12, "no time that can be read"),
        (EPOCH // 10**11, "no time that can be read"),
    ],
)
def test_times_that_cannot_be_told(tmp_path: Path, times: pl.Expr, message: str) -> None:
    error = refused(text(tmp_path / "bars.csv", times), label="start")
    assert message in error.problem
    assert error.column == "timestamp"


def test_the_row_of_a_bad_time_is_named(tmp_path: Path) -> None:
    path = text(tmp_path / "bars.csv", TIME.dt.strftime("%Y-%m-%dT%H:%M:%SZ"))
    lines = path.read_text().splitlines()
    lines[8] = "yesterday" + lines[8][20:]
    path.write_text("\n".join(lines))
    error = refused(path, label="start")
    assert (error.row, error.found) == (7, "'yesterday'")


def test_a_local_time_that_comes_twice_is_refused() -> None:
    midnight = datetime(2024, 11, 3, tzinfo=UTC).replace(tzinfo=None)
    times = pl.datetime_range(midnight, midnight + timedelta(hours=3), "1m", eager=True)
    doubled = frame(len(times)).with_columns(ts_event=times)
    error = refused(doubled, tz="America/New_York")
    assert "comes twice" in error.problem
    assert error.row == 60


@pytest.mark.parametrize("tz", ["Mars/Olympus", "", "New York"])
def test_unknown_zones(tz: str) -> None:
    with pytest.raises(ConfigError, match="no such time zone"):
        read_bars(frame(), tz=tz)


def test_separators_and_compression(tmp_path: Path) -> None:
    semicolon = tmp_path / "semicolon.txt"
    frame().write_csv(semicolon, separator=";")
    same_bars(read_bars(semicolon))
    packed = tmp_path / "bars.csv.gz"
    packed.write_bytes(gzip.compress(frame().write_csv().encode()))
    same_bars(read_bars(packed))


def test_parquet_by_content(tmp_path: Path) -> None:
    path = tmp_path / "bars.data"
    frame().with_columns(pl.col("volume").cast(pl.UInt64)).write_parquet(path)
    same_bars(read_bars(str(path)))


# Databento's CSV --------------------------------------------------------------------------------


def databento_csv(path: Path, **columns: pl.Expr) -> Path:
    out = frame(10).with_columns(rtype=pl.lit(33), publisher_id=pl.lit(1), instrument_id=pl.lit(7))
    out.with_columns(**columns).write_csv(path)
    return path


def test_databento_csv_states_interval_and_label(tmp_path: Path) -> None:
    bars = read_bars(databento_csv(tmp_path / "bars.csv"))
    assert (len(bars), interval_text(bars.interval_ns)) == (10, "1m")
    assert not bars.notes


def test_databento_csv_in_integers(tmp_path: Path) -> None:
    prices = {
        name: (pl.col(name) * 10**9).cast(pl.Int64) for name in ("open", "high", "low", "close")
    }
    path = databento_csv(tmp_path / "bars.csv", ts_event=EPOCH, **prices)
    same_bars(read_bars(path), frame(10))
    prices["high"] = pl.lit(2**63 - 1)
    undefined = databento_csv(tmp_path / "undefined.csv", ts_event=EPOCH, **prices)
    error = refused(undefined)
    assert (error.row, error.column) == (0, "high")
    assert "UNDEF_PRICE" in str(error)


def test_databento_csv_contradictions(tmp_path: Path) -> None:
    path = databento_csv(tmp_path / "bars.csv")
    assert "states another interval" in refused(path, interval="5m").problem
    assert "start of a bar" in refused(path, label="end").problem
    mixed = databento_csv(
        tmp_path / "mixed.csv", rtype=pl.when(pl.int_range(pl.len()) < 5).then(32).otherwise(33)
    )
    assert "several types" in refused(mixed).problem
    two = pl.read_csv(path).drop("symbol").with_columns(instrument_id=pl.int_range(pl.len()))
    two.write_csv(tmp_path / "two.csv")
    assert "several instruments" in refused(tmp_path / "two.csv").problem


def trades(symbols: list[str]) -> pl.DataFrame:
    """Return trades 20 seconds apart, received a second after they happened."""
    times = [START + timedelta(seconds=20 * index) for index in range(len(symbols))]
    happened = pl.Series(times, dtype=pl.Datetime("ns", "UTC"))
    return pl.DataFrame(
        {
            "ts_recv": happened.dt.offset_by("1s"),
            "ts_event": happened,
            "rtype": 0,
            "action": "T",
            "price": [5000 + 0.25 * (index % 3) for index in range(len(symbols))],
            "size": list(range(1, len(symbols) + 1)),
            "symbol": symbols,
        }
    )


def test_trades_are_formed_on_their_receipt() -> None:
    bars = read_bars(trades(["ESH4"] * 6))
    assert bars.frame.row(0)[:6] == (START, 5000.0, 5000.5, 5000.0, 5000.5, 6)
    late = trades(["ESH4"] * 6).with_columns(pl.col("ts_recv").dt.offset_by("40s"))
    assert read_bars(late).frame["volume"].to_list() == [1, 9, 11]
    assert read_bars(late, interval="5m").frame["volume"].to_list() == [21]
    assert "trades by time of receipt" in bars.notes[0]


def test_trades_of_a_dbn_file_are_formed_on_their_receipt(tmp_path: Path) -> None:
    """The first trade happens in one minute and is received in the next."""
    record = np.dtype(
        [
            ("length", "u1"),
            ("rtype", "u1"),
            ("publisher_id", "<u2"),
            ("instrument_id", "<u4"),
            ("ts_event", "<u8"),
            ("price", "<i8"),
            ("size", "<u4"),
            ("action", "S1"),
            ("side", "S1"),
            ("flags_depth", "<u2"),
            ("ts_recv", "<u8"),
            ("rest", "<u8"),
        ]
    )
    rows = np.zeros(2, dtype=record)
    rows["length"], rows["action"], rows["size"] = 12, b"T", [3, 4]
    rows["ts_event"] = int(START.timestamp()) * 10**9 + np.array([59, 61]) * 10**9
    rows["ts_recv"] = rows["ts_event"] + 2 * 10**9
    rows["price"] = 5000 * 10**9
    header = b"GLBX.MDP3".ljust(16, b"\0") + (4).to_bytes(2, "little") + bytes(24)
    header += bytes([2, 0, 0]) + (71).to_bytes(2, "little")
    header = header.ljust(100, b"\0") + bytes(20)
    path = tmp_path / "trades.dbn"
    path.write_bytes(b"DBN\x03" + len(header).to_bytes(4, "little") + header + rows.tobytes())
    bars = read_bars(path, "ESH4")
    assert bars.frame.select("ts_event", "volume").rows() == [(START + timedelta(minutes=1), 7)]


def test_only_trades_of_an_order_file_count() -> None:
    orders = trades(["ESH4"] * 6).with_columns(
        action=pl.Series(["T", "F", "A", "T", "C", "T"]), rtype=pl.lit(160)
    )
    assert read_bars(orders).frame["volume"].sum() == 1 + 4 + 6


def test_spread_prints_are_dropped_and_months_are_not_mixed() -> None:
    with_spreads = trades(["ESH4", "ESH4-ESM4"] * 3)
    bars = read_bars(with_spreads)
    assert bars.symbols == ("ESH4",)
    assert "removed 3 trades of calendar spreads" in bars.notes
    months = trades(["ESH4", "ESM4"] * 3)
    assert "front month cannot be told" in refused(months).problem
    assert "several contract months" in refused(months, roll=None).problem
    assert read_bars(months, symbol="ESM4").symbols == ("ESM4",)
    assert "spreads only" in refused(trades(["ESH4-ESM4"] * 3)).problem


# Months and roots -------------------------------------------------------------------------------


def test_no_way_in_mixes_months_inside_a_session() -> None:
    parent = sample_parent(40)
    choices: list[dict[str, Any]] = [
        {},
        {"roll": "week"},
        {"symbol": "ES"},
        {"lookback_hours": 3.0},
    ]
    for arguments in choices:
        bars = read_bars(parent, interval="1m", **arguments)
        front = bars.frame.filter(~pl.col("context"))
        session = load_sessions().locate(front["ts_event"])
        counts = (
            front.with_columns(session=session).group_by("session").agg(pl.col("symbol").n_unique())
        )
        assert counts["symbol"].max() == 1
        assert bars.symbols == ("ESZ4", "ESH5")
    assert read_bars(parent, symbol="ESH5", interval="1m").symbols == ("ESH5",)
    assert "several contract months" in refused(parent, interval="1m", roll=None).problem


def test_two_roots_need_a_symbol() -> None:
    nq = frame().with_columns(symbol=pl.lit("NQH4"))
    both = pl.concat([frame(), nq])
    assert "several products" in refused(both).problem
    bars = read_bars(both, "NQ")
    assert (bars.symbols, bars.instrument.root) == (("NQH4",), "NQ")
    assert "removed 120 bars of other symbols" in bars.notes
    assert "nothing of this symbol" in refused(both, "CL").problem
    assert "nothing of this symbol" in refused(both, "ESM4").problem


def test_a_file_of_one_contract_a_session_is_taken_as_it_is(data_dir: Path) -> None:
    (path,) = (data_dir / "bars").glob("es_5m*")
    bars = read_bars(path)
    assert len(bars.symbols) == 7
    assert "7 contracts, one a session already" in bars.notes[-1]


def test_a_continuous_symbol_that_changes_inside_a_session_keeps_one_contract() -> None:
    two = (
        sample(3)
        .frame.drop("context")
        .with_columns(
            symbol=pl.lit("ES.c.0"),
            instrument_id=pl.when(pl.col("ts_event") < datetime(2024, 10, 3, tzinfo=UTC))
            .then(11)
            .otherwise(22),
        )
    )
    bars = read_bars(two)
    assert bars.symbols == ("ES.c.0@11", "ES.c.0@22")
    assert bars.instrument.root == "ES"
    # The second session opens at 22:00; its first two hours belong to the contract that leaves.
    assert any("outgoing" in note for note in bars.notes)
    session = load_sessions().locate(bars.frame["ts_event"])
    each = (
        bars.frame.with_columns(session=session)
        .group_by("session")
        .agg(pl.col("symbol").n_unique())
    )
    assert each["symbol"].to_list() == [1, 1, 1]
    assert 100 <= two.height - len(bars) <= 120
    assert read_bars(two.with_columns(instrument_id=pl.lit(11))).symbols == ("ES.c.0",)


def test_a_source_without_symbols_needs_one() -> None:
    nameless = frame().drop("symbol")
    assert "pass symbol=" in refused(nameless).problem
    assert read_bars(nameless, "ESH4").symbols == ("ESH4",)
    assert read_bars(nameless, instrument="MES").symbols == ("MES",)
    assert "no built-in instrument" in refused(nameless, "6EH4").problem
    euro = Instrument("6E", 0.00005, 125_000.0, 2.5)
    assert read_bars(nameless, "6EH4", instrument=euro).instrument is euro
    with pytest.raises(ConfigError, match="no built-in instrument"):
        read_bars(nameless, "6EH4", instrument="6E")


def mapped(mappings: list[tuple[str, str, str, str]], stype_in: str) -> pl.Series:
    """Return the symbols of id 7 on two dates and id 8 on the second."""
    decoded = {
        "metadata": {"mappings": mappings, "stype_in": stype_in},
        "mappings": {"instrument_id": np.array([], dtype=np.uint32), "symbol_out": []},
    }
    ids = np.array([7, 7, 8], dtype=np.uint32)
    times = np.array([0, 86_400 * 10**9, 86_400 * 10**9])
    return symbols_by_date(decoded, ids, times, "file")[0]


def test_an_instrument_number_means_what_its_date_says() -> None:
    reused = [
        ("ESZ4", "1970-01-01", "1970-01-02", "7"),
        ("ESZ5", "1970-01-02", "1970-01-03", "7"),
        ("ESH5", "1970-01-01", "1970-01-03", "8"),
    ]
    assert mapped(reused, "raw_symbol").to_list() == ["ESZ4", "ESZ5", "ESH5"]
    rolled = [
        ("ES.c.0", "1970-01-01", "1970-01-03", "7"),
        ("ES.c.0", "1970-01-02", "1970-01-03", "8"),
    ]
    assert mapped(rolled, "continuous").to_list() == ["ES.c.0@7", "ES.c.0@7", "ES.c.0@8"]
    with pytest.raises(DataError, match="does not say which symbol") as caught:
        mapped(reused[:2], "raw_symbol")
    assert (caught.value.row, caught.value.column) == (2, "instrument_id")
    assert mapped([], "raw_symbol").null_count() == 3


# Interval, label, grid --------------------------------------------------------------------------


def test_the_interval_is_the_smallest_spacing() -> None:
    assert read_bars(frame(120, 5)).interval_ns == 300 * 10**9
    assert "smallest spacing" in read_bars(frame(120, 5)).notes[-1]
    wrong = refused(frame(120, 5), interval="1m")
    assert (wrong.found, wrong.expected) == ("bars 5m apart", 'interval="1m"')
    assert "is not the interval" in refused(frame(120), interval="5m").problem
    assert "pass interval=" in refused(frame(99)).problem
    assert len(read_bars(frame(99), interval="1m")) == 99
    assert len(read_bars(frame(3, 5), interval="1m")) == 3
    assert "no interval" in refused(frame(120, 7)).problem


def test_times_lie_on_the_grid() -> None:
    shifted = frame().with_columns(TIME.dt.offset_by("30s"))
    error = refused(shifted)
    assert (error.row, error.column) == (0, "ts_event")
    assert "grid" in error.problem
    one = frame().with_columns(
        ts_event=pl.when(pl.int_range(pl.len()) == 119)
        .then(TIME.dt.offset_by("90s"))
        .otherwise(TIME)
    )
    assert refused(one).row == 119


def test_labels() -> None:
    plain = frame().rename({"ts_event": "timestamp"})
    assert "look-ahead" in refused(plain).problem
    same_bars(read_bars(plain, label="start"))
    ended = plain.with_columns(pl.col("timestamp").dt.offset_by("1m"))
    same_bars(read_bars(ended, label="end"))
    assert any("start of the bar" in note for note in read_bars(frame()).notes)
    with pytest.raises(ConfigError, match="label"):
        read_bars(plain, label="middle")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "interval", ["7m", "0m", "-1m", "1 week", "", "m", timedelta(0), "25h", 60]
)
def test_intervals_that_are_none(interval: Any) -> None:
    with pytest.raises(ConfigError, match="interval"):
        read_bars(frame(), interval=interval)


def test_intervals_as_text_and_back() -> None:
    for name in ("1s", "30s", "1m", "5m", "1h", "1d"):
        assert interval_text(parse_interval(name)) == name
    assert parse_interval(timedelta(minutes=5)) == parse_interval("5min")


# Values -----------------------------------------------------------------------------------------


def with_value(name: str, row: int, value: object, dtype: Any = None) -> pl.DataFrame:
    values = frame()[name].to_list()
    values[row] = value
    series = pl.Series(name, values, dtype=dtype or frame().schema[name], strict=False)
    return frame().with_columns(series)


def test_zero_volume_rows_leave_before_every_other_check() -> None:
    holes = with_value("volume", 4, 0)
    holes = holes.with_columns(
        close=pl.when(pl.int_range(pl.len()) == 4).then(None).otherwise("close")
    )
    bars = read_bars(holes)
    assert (len(bars), bars.notes[0]) == (119, "removed 1 bars of zero volume")


@pytest.mark.parametrize("name", ["ts_event", "open", "high", "low", "close", "volume", "symbol"])
def test_nulls_are_refused_by_row_and_column(name: str) -> None:
    error = refused(with_value(name, 7, None))
    assert (error.row, error.column, error.found) == (7, name, "null")


def test_rows_are_those_of_the_input_after_removals() -> None:
    holes = with_value("volume", 2, 0).with_columns(
        high=pl.when(pl.int_range(pl.len()) == 9).then(None).otherwise("high")
    )
    assert refused(holes).row == 9


def test_rows_of_bad_numbers_are_those_of_the_input() -> None:
    texts = with_value("volume", 2, 0).with_columns(pl.col("close", "volume").cast(pl.String))
    tenth = pl.int_range(pl.len()) == 9
    for column, bad in (("close", "much"), ("volume", "1.5"), ("volume", "many")):
        changed = texts.with_columns(
            pl.when(tenth).then(pl.lit(bad)).otherwise(column).alias(column)
        )
        error = refused(changed)
        assert (error.row, error.column) == (9, column)


def test_volume_types() -> None:
    for dtype in (pl.UInt64, pl.Int32, pl.UInt32, pl.Float64):
        same_bars(read_bars(frame().with_columns(pl.col("volume").cast(dtype))))
    fractional = refused(with_value("volume", 3, 1.5, pl.Float64))
    assert (fractional.row, fractional.found) == (3, "1.5")
    large = refused(with_value("volume", 3, 2**64 - 1, pl.UInt64))
    assert (large.row, large.column) == (3, "volume")
    assert refused(with_value("volume", 3, float("nan"), pl.Float64)).row == 3
    assert refused(frame().with_columns(volume=pl.lit(value=True))).found == "Boolean"


def test_price_types() -> None:
    same_bars(read_bars(frame().with_columns(pl.col("close").cast(pl.String))))
    assert refused(frame().with_columns(close=pl.lit(value=True))).column == "close"
    error = refused(with_value("close", 5, "five", pl.String))
    assert (error.row, error.column, error.found) == (5, "close", "'five'")
    with_nan = read_bars(with_value("close", 5, float("nan")))
    with pytest.raises(DataError) as caught:
        with_nan.columns_nanos()
    assert (caught.value.row, caught.value.column) == (5, "close")


def test_start_and_end() -> None:
    bars = read_bars(frame(), start="2024-01-02T15:10", end=START + timedelta(minutes=20))
    assert len(bars) == 10
    assert bars.notes[-1] == "left 110 bars outside start and end"
    assert len(read_bars(frame(), start=date(2024, 1, 2), end=date(2024, 1, 3))) == 120
    assert "no bar is left" in refused(frame(), start="2025-01-01").problem
    with pytest.raises(ConfigError, match="start"):
        read_bars(frame(), start="soon")


# Files that are none ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.csv", b"", "the file is empty"),
        ("empty.parquet", b"", "the file is empty"),
        ("empty.dbn.zst", b"", "the file is empty"),
        ("image.csv", b"\x89PNG\r\n\x1a\n" + bytes(99), "PNG image"),
        ("archive.csv", b"PK\x03\x04" + bytes(99), "ZIP archive"),
        ("binary.csv", bytes(range(256)), "binary data"),
        ("latin.csv", "ts_event,größe\n".encode("latin-1") * 9, "binary data"),
        ("cut.parquet", b"PAR1" + bytes(50), "Parquet file is damaged"),
        ("header.csv", b"ts_event,open,high,low,close,volume,symbol\n", "there is no bar"),
        ("prose.csv", b"once upon a time\nthere was a bar\n", "columns are missing"),
        ("ragged.csv", b"a,b\n1,2,3\n", "no table"),
        ("text.dbn", b"ts_event,open\n", "not a DBN file"),
        ("cut.dbn.zst", b"\x28\xb5\x2f\xfd\x04", "cut off|not a DBN"),
        ("broken.csv.gz", b"\x1f\x8b" + bytes(30), "no table|is empty"),
    ],
)
def test_files_of_the_wrong_kind(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        read_bars(path)
    assert caught.value.file == str(path)


def test_paths_that_cannot_be_read(tmp_path: Path) -> None:
    assert "cannot be read" in refused(tmp_path / "nowhere.csv").problem
    assert "directory" in refused(tmp_path).problem
    assert "cannot be read" in refused(tmp_path / "nowhere" / "bars.dbn.zst").problem


def test_a_damaged_parquet_file(tmp_path: Path) -> None:
    path = tmp_path / "bars.parquet"
    frame().write_parquet(path)
    content = path.read_bytes()
    path.write_bytes(content[:-20])
    assert "damaged" in refused(path).problem


# Bars -------------------------------------------------------------------------------------------


def test_bars_refuse_a_frame_of_other_columns() -> None:
    good = frame()
    bars = Bars.from_frame(good, interval="1m", instrument="ES")
    assert len(bars) == 120
    assert not bars.frame["context"].any()
    with pytest.raises(DataError, match="lacks a column") as caught:
        Bars.from_frame(good.drop("volume"), interval="1m", instrument="ES")
    assert caught.value.column == "volume"
    with pytest.raises(DataError, match="another type") as caught:
        Bars.from_frame(good.cast({"volume": pl.UInt64}), interval="1m", instrument="ES")
    assert caught.value.found == "UInt64"


def test_bars_of_several_chunks_cross_whole() -> None:
    chunks = pl.concat([frame()[:50], frame()[50:]], rechunk=False)
    bars = Bars.from_frame(chunks, interval="1m", instrument="ES")
    columns = bars.columns_nanos()
    assert columns["volume"].tolist() == list(range(1, 121))
    assert columns["ts_event"].flags.c_contiguous


def test_bars_say_what_they_are() -> None:
    bars = read_bars(frame()).with_notes("a note")
    assert bars.notes[-1] == "a note"
    assert repr(bars) == (
        "Bars(120 of 1m, ES, ESH4, 2024-01-02 15:00 to 2024-01-02 16:59 UTC, DataFrame)"
    )
    assert "SIMULATED" in repr(read_bars(frame(), simulated=True))
    assert read_bars(sample(1).frame).simulated
