"""The local historical server, asked by the vendor's client as it is."""

from __future__ import annotations

import socket
import time
import warnings
from collections.abc import Iterator
from datetime import date
from typing import Any

import polars as pl
import pytest

from clustercore.errors import ConfigError
from clustercore.gateway import REHEARSAL_KEY
from clustercore.gateway.historical import FAULTS, HistoricalFault, HistoricalServer
from clustercore.gateway.records import GatewayData, sample_parent_data
from clustercore.live.vendor import import_databento

MINUTE = 60 * 10**9
DATASET = "GLBX.MDP3"


@pytest.fixture(scope="module")
def data() -> GatewayData:
    data = sample_parent_data(sessions=9, start="2024-12-12")
    rows = data.frame.head(500)
    trades = rows.select(
        pl.col("ts_event").alias("ts_recv"),
        pl.col("close").alias("price"),
        pl.col("volume").alias("size"),
        "symbol",
        "instrument_id",
    )
    return GatewayData.from_bars(data.frame, trades)


@pytest.fixture
def server(data: GatewayData) -> Iterator[HistoricalServer]:
    with HistoricalServer(data) as server:
        yield server


@pytest.fixture
def client(server: HistoricalServer, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(server.certificate))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return import_databento().Historical(REHEARSAL_KEY, gateway=server.url)


def asked(data: GatewayData, minutes: int = 300, **changes: Any) -> dict[str, Any]:
    start = data.span[0]
    given = {
        "dataset": DATASET,
        "symbols": "ES.FUT",
        "stype_in": "parent",
        "schema": "ohlcv-1m",
        "start": start,
        "end": start + minutes * MINUTE,
    }
    return given | changes


def test_lists_and_range(client: Any, data: GatewayData, server: HistoricalServer) -> None:
    assert client.metadata.list_datasets() == [DATASET]
    assert client.metadata.list_schemas(DATASET) == ["ohlcv-1m", "trades"]
    spans = client.metadata.get_dataset_range(DATASET)
    assert spans["end"] == spans["schema"]["trades"]["end"] == "2024-12-24T18:15:00.000000000Z"
    assert spans["start"] == "2024-12-11T00:00:00.000000000Z"
    assert server.available_end() == data.span[1]


def test_range_of_bars_and_its_price(client: Any, data: GatewayData) -> None:
    query = asked(data)
    store = client.timeseries.get_range(**query)
    rows = data.frame.filter(pl.col("ts_event") < query["end"])
    found = store.to_ndarray()
    assert found["close"].tolist() == rows["close"].to_list()
    assert found["instrument_id"].tolist() == rows["instrument_id"].to_list()
    assert {*store.metadata.mappings} == {*rows["symbol"].unique()}
    assert client.metadata.get_record_count(**query) == len(rows)
    assert client.metadata.get_billable_size(**query) == len(rows) * 56
    assert client.metadata.get_cost(**query) == pytest.approx(len(rows) * 56 * 28 / 2**30)


def test_range_of_trades_of_one_month(client: Any, data: GatewayData) -> None:
    query = asked(data, symbols="ESH5", stype_in="raw_symbol", schema="trades")
    found = client.timeseries.get_range(**query).to_ndarray()
    rows = data.trades.filter(pl.col("symbol") == "ESH5", pl.col("ts_recv") < query["end"])
    assert len(rows)
    assert found["price"].tolist() == rows["price"].to_list()
    assert found["size"].tolist() == rows["size"].to_list()


def test_times_may_be_text(client: Any, data: GatewayData) -> None:
    start, end = "2024-12-12T00:00", date(2024, 12, 13)
    count = client.metadata.get_record_count(**asked(data, start=start, end=end))
    day = pl.col("ts_event").cast(pl.Datetime("ns")).dt.date()
    assert count == len(data.frame.filter(day == date(2024, 12, 12)))
    # Without an end, up to what is available; with a limit, the first of it.
    rest = client.timeseries.get_range(**asked(data, start=start, end=None, limit=7))
    assert len(rest.to_ndarray()) == 7


def test_a_continuous_symbol_is_mapped_day_by_day(client: Any, data: GatewayData) -> None:
    query = asked(data, symbols="ES.v.0", stype_in="continuous", end=data.span[1])
    store = client.timeseries.get_range(**query)
    (spans,) = store.metadata.mappings.values()
    ids = [str(data.ids[name]) for name in ("ESZ4", "ESH5")]
    assert [span["symbol"] for span in spans] == ids
    assert spans[0]["end_date"] == spans[1]["start_date"]
    resolved = client.symbology.resolve(
        DATASET, "ES.v.0", "continuous", "raw_symbol", date(2024, 12, 11), date(2024, 12, 25)
    )
    assert [row["s"] for row in resolved["result"]["ES.v.0"]] == ["ESZ4", "ESH5"]
    assert resolved["result"]["ES.v.0"][1]["d0"] == str(spans[1]["start_date"])


def test_symbols_are_resolved(client: Any, data: GatewayData) -> None:
    found = client.symbology.resolve(
        DATASET, ["ESZ4", "XXZ4"], "raw_symbol", "instrument_id", date(2024, 12, 12)
    )
    span = {"d0": "2024-12-12", "d1": "2024-12-13", "s": str(data.ids["ESZ4"])}
    assert found["result"] == {"ESZ4": [span]}
    assert found["not_found"] == ["XXZ4"]


@pytest.mark.parametrize(
    ("changes", "case"),
    [
        ({"end": 2_000_000_000 * 10**9}, "data_end_after_available_end"),
        ({"start": 1_000_000_000 * 10**9}, "data_start_before_available_start"),
        ({"end": 1}, "data_time_range_start_on_or_after_end"),
        ({"symbols": "XX.FUT"}, "symbology_invalid_request"),
        ({"schema": "mbo"}, "data_schema_not_fully_available"),
        ({"dataset": "XNAS.ITCH"}, "data_dataset_not_found"),
        ({"start": "yesterday"}, "data_time_range_invalid"),
    ],
)
def test_refusals_have_the_shape_of_the_real_ones(
    client: Any, data: GatewayData, changes: dict[str, Any], case: str
) -> None:
    for question in (client.timeseries.get_range, client.metadata.get_cost):
        with pytest.raises(import_databento().BentoClientError) as caught:
            question(**asked(data, **changes))
        assert caught.value.http_status == 422
        detail = caught.value.json_body["detail"]
        assert (detail["case"], detail["status_code"]) == (case, 422)
        if case.startswith("data_end"):
            assert detail["payload"]["available_end"] == "2024-12-24T18:15:00.000000000Z"


def test_another_key_is_refused(server: HistoricalServer, client: Any) -> None:
    client.metadata._key = "db-another-key-of-32-characters-"
    with pytest.raises(import_databento().BentoClientError, match="Authentication failed"):
        client.metadata.list_datasets()
    assert server.requests[-1].status == 401
    with pytest.raises(import_databento().BentoClientError, match="404"):
        client.batch.list_jobs()


def test_nothing_later_than_market_time_is_served(
    data: GatewayData, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [data.span[0] + 100 * MINUTE + 5]
    with HistoricalServer(data, now=lambda: now[0], lag_s=60) as server:
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(server.certificate))
        client = import_databento().Historical(REHEARSAL_KEY, gateway=server.url)
        end = data.span[0] + 99 * MINUTE
        found = client.timeseries.get_range(**asked(data, end=None)).to_ndarray()
        assert found["ts_event"].max() == end - MINUTE
        now[0] += MINUTE
        assert server.available_end() == end + MINUTE
        # Before the market has begun there is nothing, and no time before 1970.
        now[0] = 0
        assert server.available_end() == data.span[0] // (1440 * MINUTE) * 1440 * MINUTE


def test_the_client_loses_data_of_a_body_that_ends_early(
    data: GatewayData, server: HistoricalServer, client: Any
) -> None:
    # Why downloads are verified: half of the body is taken for all of it.
    query = asked(data, minutes=6000)
    whole = len(client.timeseries.get_range(**query).to_ndarray())
    server.inject(HistoricalFault("truncate", share=0.5))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        part = len(client.timeseries.get_range(**query).to_ndarray())
    assert 0 < part < whole
    server.inject(HistoricalFault("drop"))
    with pytest.raises(import_databento().BentoError, match="Error streaming response"):
        client.timeseries.get_range(**query)


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("rate_limit", 429),
        ("server_error", 500),
        ("bad_gateway", 502),
        ("gateway_timeout", 504),
        ("unauthorized", 401),
        ("no_funds", 402),
        ("no_licence", 403),
        ("refused", 422),
    ],
)
def test_faults_with_a_status(
    data: GatewayData, server: HistoricalServer, client: Any, kind: str, status: int
) -> None:
    server.inject(HistoricalFault(kind, retry_after_s=2.5))
    with pytest.raises(import_databento().BentoHttpError) as caught:
        client.timeseries.get_range(**asked(data))
    assert caught.value.http_status == status
    assert caught.value.headers.get("Retry-After") == ("2.5" if status == 429 else None)
    assert len(client.timeseries.get_range(**asked(data)).to_ndarray())


def test_a_warning_reaches_the_client(
    data: GatewayData, server: HistoricalServer, client: Any
) -> None:
    server.inject(HistoricalFault("warning"))
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        client.timeseries.get_range(**asked(data))
    assert [str(warning.message) for warning in shown] == ["this is a rehearsal", "so is this"]


def test_a_fault_waits_for_its_turn(
    data: GatewayData, server: HistoricalServer, client: Any
) -> None:
    server.inject(HistoricalFault("refused", endpoint="metadata.get_cost", after=1, times=2))
    statuses = []
    for _ in range(4):
        try:
            client.metadata.get_cost(**asked(data))
        except import_databento().BentoClientError:
            pass
        statuses.append(server.requests[-1].status)
    assert statuses == [200, 422, 422, 200]


def test_an_unknown_fault_is_refused() -> None:
    with pytest.raises(ConfigError, match="no such fault"):
        HistoricalFault("earthquake")
    assert all(HistoricalFault(kind).kind == kind for kind in FAULTS)


def test_a_visitor_that_says_nothing_holds_nobody_up(server: HistoricalServer, client: Any) -> None:
    with socket.create_connection(("127.0.0.1", server.port)):
        begin = time.monotonic()
        assert client.metadata.list_datasets() == [DATASET]
        server.close()
        assert time.monotonic() - begin < 5


def test_it_listens_on_this_machine_only(server: HistoricalServer) -> None:
    assert server._server.server_address[0] == "127.0.0.1"


def test_a_port_in_use_is_named(data: GatewayData, server: HistoricalServer) -> None:
    with pytest.raises(ConfigError, match="choose another port"):
        HistoricalServer(data, port=server.port)
