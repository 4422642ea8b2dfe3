"""DBN in Rust: the same columns as Databento's own reader, and every kind of damage refused."""

from __future__ import annotations

import copy
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clustercore._core import decode_dbn
from clustercore.errors import DataError
from clustercore.sources import read_definitions

BAR_COLUMNS = ("open", "high", "low", "close", "volume", "ts_event", "instrument_id")


def v3_header(schema: int = 6) -> bytes:
    """Return an empty header of version 3."""
    body = b"GLBX.MDP3".ljust(16, b"\0")
    body += schema.to_bytes(2, "little")
    body += (0).to_bytes(8, "little") + (2**64 - 1).to_bytes(8, "little") + bytes(8)
    body += bytes([2, 0, 0]) + (71).to_bytes(2, "little")
    body = body.ljust(100, b"\0") + bytes(4) + bytes(16)
    return b"DBN\x03" + len(body).to_bytes(4, "little") + body


def bars(count: int) -> bytes:
    """Return ohlcv-1m records of instrument 7."""
    record = np.dtype(
        [
            ("length", "u1"),
            ("rtype", "u1"),
            ("publisher_id", "<u2"),
            ("instrument_id", "<u4"),
            ("ts_event", "<u8"),
            ("prices", "<i8", 4),
            ("volume", "<u8"),
        ]
    )
    rows = np.zeros(count, dtype=record)
    rows["length"], rows["rtype"], rows["instrument_id"] = 14, 33, 7
    rows["ts_event"] = np.arange(count) * 60 * 10**9
    rows["prices"] = [[5000 * 10**9, 5001 * 10**9, 4999 * 10**9, 5000 * 10**9]]
    rows["volume"] = 1 + np.arange(count)
    return rows.tobytes()


def databento_rows(path: Path) -> Any:
    """Return the records as Databento's client reads them."""
    databento = pytest.importorskip("databento")
    # From bytes: a store made from a path leaves the file open.
    return databento.DBNStore.from_bytes(path.read_bytes()).to_ndarray()


def refused(path: Path, content: bytes) -> DataError:
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        decode_dbn(path)
    assert caught.value.file == str(path)
    return caught.value


def test_hand_made_bars(tmp_path: Path) -> None:
    path = tmp_path / "bars.dbn"
    path.write_bytes(v3_header() + bars(3))
    decoded = decode_dbn(path)
    columns = decoded["bars"]["ohlcv-1m"]
    assert columns["interval_ns"] == 60 * 10**9
    assert columns["volume"].tolist() == [1, 2, 3]
    assert columns["high"].tolist() == [5001 * 10**9] * 3
    assert columns["volume"].dtype == columns["ts_event"].dtype == np.int64
    assert decoded["metadata"]["schema"] == "ohlcv-1m"
    assert decoded["metadata"]["end"] is None


def test_errors_carry_place_and_values(tmp_path: Path) -> None:
    good = v3_header() + bars(3)
    cut = refused(tmp_path / "cut.dbn", good[:-10])
    assert (cut.row, cut.found, cut.expected) == (2, "46 bytes", "56 bytes")
    wrong = bytearray(good)
    wrong[-56] = 0
    length = refused(tmp_path / "length.dbn", bytes(wrong))
    assert (length.row, length.column, length.found) == (2, "length", "0 bytes")
    wrong = bytearray(good)
    wrong[-55] = 0x99
    rtype = refused(tmp_path / "rtype.dbn", bytes(wrong))
    assert (rtype.row, rtype.column, rtype.found) == (2, "rtype", "0x99")
    wrong = bytearray(good)
    wrong[-40:-32] = (2**63 - 1).to_bytes(8, "little")
    undefined = refused(tmp_path / "price.dbn", bytes(wrong))
    assert (undefined.row, undefined.column) == (2, "open")
    assert "UNDEF_PRICE" in str(undefined.found)
    assert str(copy.copy(undefined)) == str(undefined)


def test_other_kinds_say_what_they_are(tmp_path: Path) -> None:
    version = bytearray(v3_header())
    version[3] = 9
    assert refused(tmp_path / "nine.dbn", bytes(version)).found == "version 9"
    assert "empty" in refused(tmp_path / "empty.dbn", b"").problem
    assert "not a DBN" in refused(tmp_path / "png.dbn", b"\x89PNG\r\n\x1a\n" * 9).problem
    assert "fragment" in refused(tmp_path / "records.dbn", bars(2)).problem
    with pytest.raises(DataError, match="cannot be read"):
        decode_dbn(tmp_path / "nowhere.dbn")
    with pytest.raises(DataError, match="cannot be read"):
        decode_dbn(tmp_path)


def test_a_truncated_zstd_file_is_an_error_at_every_length(data_dir: Path, tmp_path: Path) -> None:
    whole = (data_dir / "dbn" / "es_1m_2019.dbn.zst").read_bytes()
    for share in (0.00001, 0.1, 0.5, 0.9, 0.999):
        error = refused(tmp_path / "cut.dbn.zst", whole[: int(len(whole) * share)])
        assert "cut off" in error.problem or "not a DBN" in error.problem
    damaged = bytearray(whole)
    for place in range(10_000, len(damaged), 500_000):
        damaged[place] ^= 0x55
    refused(tmp_path / "damaged.dbn.zst", bytes(damaged))


def test_same_columns_as_databento(data_dir: Path) -> None:
    compared = 0
    for path in sorted((data_dir / "dbn").rglob("*ohlcv*.dbn*")):
        if path.suffix == ".dbz":
            continue
        (columns,) = decode_dbn(path)["bars"].values()
        theirs = databento_rows(path)
        for name in BAR_COLUMNS:
            np.testing.assert_array_equal(columns[name], theirs[name], err_msg=f"{path} {name}")
        compared += len(theirs)
    assert compared > 100


def test_a_year_is_the_same_as_databentos(data_dir: Path) -> None:
    path = data_dir / "dbn" / "es_1m_2019.dbn.zst"
    columns = decode_dbn(path)["bars"]["ohlcv-1m"]
    theirs = databento_rows(path)
    assert len(theirs) == 349_335
    for name in BAR_COLUMNS:
        np.testing.assert_array_equal(columns[name], theirs[name], err_msg=name)


def test_trades_are_the_trades_of_every_schema(data_dir: Path) -> None:
    compared = 0
    for path in sorted((data_dir / "dbn").rglob("*.zst")):
        if not any(word in path.name for word in ("trades", "tbbo", "mbp-1_", "mbo")):
            continue
        found: dict[str, Any] = decode_dbn(path)["trades"]
        theirs = databento_rows(path)
        theirs = theirs[theirs["action"] == b"T"]
        if not len(theirs):
            assert not found
            continue
        (columns,) = found.values()
        for name in ("ts_recv", "ts_event", "instrument_id", "price", "size", "flags"):
            np.testing.assert_array_equal(columns[name], theirs[name], err_msg=f"{path} {name}")
        assert columns["side"].tobytes() == theirs["side"].tobytes()
        compared += len(theirs)
    assert compared > 3_000


def test_a_live_capture_has_mappings_and_every_group(data_dir: Path) -> None:
    decoded = decode_dbn(data_dir / "dbn" / "matrix" / "LIVE__test_data.live.dbn.zst")
    assert set(decoded["mappings"]["symbol_out"]) == {"ESZ4"}
    assert {name: len(columns["close"]) for name, columns in decoded["bars"].items()} == {
        "ohlcv-1s": 2,
        "ohlcv-1m": 2,
    }
    assert decoded["counts"]["symbol mapping"] == 20
    assert decoded["metadata"]["schema"] is None


def test_definitions(data_dir: Path) -> None:
    frame = read_definitions(data_dir / "dbn" / "glbx" / "definition-glbx-es-futspread.dbn.zst")
    assert frame["raw_symbol"].to_list() == ["ESH5-ESM5", "ESM4-ESU4"]
    assert frame["instrument_class"].to_list() == ["S", "S"]
    frame = read_definitions(data_dir / "dbn" / "glbx" / "definition-glbx-es-fut.dbn.zst")
    row = frame.row(0, named=True)
    assert (row["asset"], row["instrument_class"]) == ("ES", "F")
    assert (row["min_price_increment"], row["unit_of_measure_qty"]) == (0.25, 50.0)
    assert str(row["expiration"])[:10] == "2023-06-16"
    assert row["contract_multiplier"] is None


def test_other_threads_run_while_a_file_is_decoded(data_dir: Path) -> None:
    path = data_dir / "dbn" / "es_1m_2019.dbn.zst"
    results: list[int] = []

    def decode() -> None:
        results.append(decode_dbn(path)["records"])

    threads = [threading.Thread(target=decode) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [349_335] * 4
