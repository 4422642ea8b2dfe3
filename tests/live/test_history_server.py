"""The local historical server, asked by the vendor's client as it is."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import socket
import ssl
import time
import warnings
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import databento_dbn
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


def test_lists_of_what_is_served(client: Any) -> None:
    (publisher,) = client.metadata.list_publishers()
    assert (publisher["publisher_id"], publisher["dataset"]) == (1, DATASET)
    bars = client.metadata.list_fields("ohlcv-1m", "dbn")
    assert bars[0] == {"name": "length", "type": "uint8_t"}
    assert {"name": "close", "type": "int64_t"} in bars
    trades = client.metadata.list_fields("trades", "dbn")
    assert {"name": "side", "type": "char"} in trades
    assert {"name": "ts_in_delta", "type": "int32_t"} in trades
    prices = client.metadata.list_unit_prices(DATASET)
    assert {row["mode"] for row in prices} == {"historical", "historical-streaming"}
    assert prices[0]["unit_prices"] == {"ohlcv-1m": 28.0, "trades": 28.0}


def test_the_condition_of_days_that_there_are(client: Any) -> None:
    days = client.metadata.get_dataset_condition(DATASET, "2024-12-12", "2024-12-14")
    assert [day["date"] for day in days] == ["2024-12-12", "2024-12-13", "2024-12-14"]
    far = client.metadata.get_dataset_condition(DATASET, "0001-01-01", "9999-12-31")
    assert [far[0]["date"], far[-1]["date"]] == ["2024-12-11", "2024-12-24"]


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


@pytest.mark.parametrize(
    ("start", "end"),
    [
        ("2024-12-12T12:00", "2024-12-12T13:00"),
        ("2024-12-12T12:00:00Z", "2024-12-12T13:00:00+00:00"),
        ("2024-12-12T07:00-05:00", "2024-12-12T18:30+05:30"),
        ("2024-12-12T07:00:00.0-05:00", "2024-12-12T18:00:00.000000000+05:00"),
        (
            datetime(2024, 12, 12, 7, tzinfo=timezone(timedelta(hours=-5))),
            datetime(2024, 12, 12, 13, tzinfo=UTC),
        ),
        (1_734_004_800 * 10**9, 1_734_008_400 * 10**9),
    ],
)
def test_times_are_taken_with_their_zone(
    client: Any, data: GatewayData, start: Any, end: Any
) -> None:
    """Noon to one, UTC, however it is said."""
    noon = 1_734_004_800 * 10**9
    found = client.timeseries.get_range(**asked(data, start=start, end=end)).to_ndarray()
    hour = data.frame.filter(pl.col("ts_event").is_between(noon, noon + 60 * MINUTE, "left"))
    assert found["ts_event"].tolist() == hour["ts_event"].to_list()


def test_fractions_of_a_second_count(client: Any, data: GatewayData) -> None:
    counts = [
        client.metadata.get_record_count(**asked(data, start=f"2024-12-12T{start}", end=end))
        for start, end in (
            ("12:00:00.000000000", "2024-12-12T12:01:00.000000001"),
            ("12:00:00.000000001", "2024-12-12T12:01:00.000000000"),
            ("07:00:00.000000001-05:00", "2024-12-12T12:01:00.5"),
        )
    ]
    noon = pl.lit(1_734_004_800 * 10**9)
    first, second = (
        data.frame.filter(pl.col("ts_event") == noon + minute * MINUTE).height for minute in (0, 1)
    )
    assert counts == [first + second, 0, second]


def test_what_is_not_found_stands_in_the_header(client: Any, data: GatewayData) -> None:
    for symbols, stype_in in (("ESZ4", "raw_symbol"), ("ES.c.0", "continuous")):
        missing = "NQZ4" if stype_in == "raw_symbol" else "NQ.c.0"
        query = asked(data, symbols=[symbols, missing], stype_in=stype_in, limit=3)
        store = client.timeseries.get_range(**query)
        assert store.metadata.symbols == [symbols, missing]
        assert store.metadata.not_found == [missing]
        assert store.metadata.limit == len(store.to_ndarray()) == 3


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
        ({"start": "2025-03-01", "end": None}, "data_start_after_available_end"),
        ({"start": "2025-03-01", "end": "2025-03-02"}, "data_start_after_available_end"),
        ({"start": "2024-12-24T18:15", "end": None}, "data_start_after_available_end"),
        ({"limit": -1}, "invalid_parameter"),
        ({"limit": 0}, "invalid_parameter"),
        ({"limit": "abc"}, "invalid_parameter"),
        ({"symbols": "ES.OPT"}, "symbology_invalid_request"),
        ({"symbols": "ES.q.0", "stype_in": "continuous"}, "symbology_invalid_request"),
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
        if case.endswith("available_end"):
            assert detail["payload"]["available_end"] == "2024-12-24T18:15:00.000000000Z"


def raw(
    server: HistoricalServer, verb: str, path: str, body: str | None = None, **headers: str
) -> tuple[int, Any]:
    """Ask without the vendor's client; return the status and the document."""
    login = base64.b64encode(f"{REHEARSAL_KEY}:".encode()).decode()
    context = ssl.create_default_context(cafile=str(server.certificate))
    connection = http.client.HTTPSConnection(
        "127.0.0.1", server.port, context=context, timeout=20.0
    )
    with contextlib.closing(connection):
        connection.request(verb, path, body, {"Authorization": f"Basic {login}", **headers})
        answer = connection.getresponse()
        content = answer.read()
        assert answer.getheader("content-type") == "application/json"
        return answer.status, json.loads(content)


BARS = "dataset=GLBX.MDP3&symbols=ES.FUT&stype_in=parent&schema=ohlcv-1m"
HOUR = "&start=2024-12-12T12:00&end=2024-12-12T13:00"
RANGE = "/v0/timeseries.get_range"


@pytest.mark.parametrize(
    ("path", "body", "case"),
    [
        (RANGE, BARS, "missing_parameter"),
        (RANGE, BARS + HOUR + "&limit=abc", "invalid_parameter"),
        (RANGE, BARS + HOUR + "&encoding=csv", "invalid_parameter"),
        (RANGE, BARS + HOUR + "&compression=gzip", "invalid_parameter"),
        (RANGE, BARS + HOUR + "&stype_out=raw_symbol", "invalid_parameter"),
        (RANGE, BARS + HOUR.replace("12:00", "12:00:00.5x"), "data_time_range_invalid"),
        (RANGE, BARS + "&start=99999999999999999999", "data_time_range_invalid"),
        (RANGE, BARS + "&start=9223372036854775808", "data_time_range_invalid"),
        (RANGE, BARS + "&start=1800-01-01", "data_time_range_invalid"),
        (RANGE, BARS.replace("parent", "smart") + HOUR, "invalid_parameter"),
        ("/v0/symbology.resolve", BARS, "missing_parameter"),
        ("/v0/symbology.resolve", BARS + "&start_date=tomorrow", "invalid_parameter"),
        (
            "/v0/symbology.resolve",
            BARS + "&start_date=2024-12-12&stype_out=parent",
            "invalid_parameter",
        ),
    ],
)
def test_a_bad_request_is_answered(
    server: HistoricalServer, path: str, body: str, case: str
) -> None:
    status, document = raw(server, "POST", path, body)
    assert (status, document["detail"]["case"]) == (422, case)


@pytest.mark.parametrize(
    ("verb", "path", "body", "headers", "status"),
    [
        ("GET", f"{RANGE}?{BARS}{HOUR}", None, {}, 405),
        ("POST", "/v0/metadata.list_datasets", "", {}, 405),
        ("PUT", "/v0/metadata.list_datasets", "", {}, 405),
        ("DELETE", "/v0/metadata.list_datasets", None, {}, 405),
        ("GET", "/v0/metadata.list_everything", None, {}, 404),
        ("GET", "/metadata.list_datasets", None, {}, 404),
        ("POST", RANGE, "x" * 2_000_000, {}, 413),
        ("POST", RANGE, "x", {"Content-Length": "many"}, 400),
        ("POST", RANGE, "x", {"Content-Length": "-1"}, 400),
        ("GET", "/v0/metadata.get_dataset_condition?dataset=GLBX.MDP3&start_date=x", None, {}, 422),
    ],
)
def test_what_is_no_request_is_answered_in_json(
    server: HistoricalServer,
    verb: str,
    path: str,
    body: str | None,
    headers: dict[str, str],
    status: int,
) -> None:
    found, document = raw(server, verb, path, body, **headers)
    assert found == document["detail"]["status_code"] == status
    assert raw(server, "GET", "/v0/metadata.list_datasets") == (200, [DATASET])


def test_days_without_data_cost_no_time(server: HistoricalServer) -> None:
    asked = BARS.replace("ES.FUT", "ES.c.0").replace("parent", "continuous")
    dates = "&start_date=0001-01-01&end_date=9999-12-31"
    status, document = raw(server, "POST", "/v0/symbology.resolve", asked + dates)
    assert status == 200
    assert document["result"]["ES.c.0"][0]["d0"] == "2024-12-11"


def test_records_may_come_uncompressed(server: HistoricalServer, data: GatewayData) -> None:
    context = ssl.create_default_context(cafile=str(server.certificate))
    login = base64.b64encode(f"{REHEARSAL_KEY}:".encode()).decode()
    connection = http.client.HTTPSConnection(
        "127.0.0.1", server.port, context=context, timeout=20.0
    )
    with contextlib.closing(connection):
        headers = {"Authorization": f"Basic {login}"}
        connection.request("POST", RANGE, BARS + HOUR + "&compression=none", headers)
        content = connection.getresponse().read()
    assert content.startswith(b"DBN")
    noon = 1_734_004_800 * 10**9
    hour = data.frame.filter(pl.col("ts_event").is_between(noon, noon + 60 * MINUTE, "left"))
    store: Any = import_databento().DBNStore
    assert len(store.from_bytes(content).to_ndarray()) == len(hour)


@pytest.mark.parametrize("options", [{"port": 70_000}, {"port": -1}, {"lag_s": -1.0}])
def test_settings_that_make_no_server_are_refused(
    data: GatewayData, options: dict[str, Any]
) -> None:
    with pytest.raises(ConfigError, match="not an allowed value"):
        HistoricalServer(data, **options)


def test_another_key_is_refused(server: HistoricalServer, client: Any) -> None:
    client.metadata._key = "db-another-key-of-32-characters-"
    with pytest.raises(import_databento().BentoClientError, match="Authentication failed"):
        client.metadata.list_datasets()
    assert server.requests[-1].status == 401


def test_there_are_no_batch_jobs(client: Any, data: GatewayData) -> None:
    assert client.batch.list_jobs() == []
    questions: tuple[tuple[int, str, Callable[[], object]], ...] = (
        (422, "batch_not_available", lambda: client.batch.submit_job(**asked(data))),
        (404, "batch_job_not_found", lambda: client.batch.list_files("GLBX-1")),
        (404, "batch_job_not_found", lambda: client.batch.get_job_details("GLBX-1")),
    )
    for status, case, question in questions:
        with pytest.raises(import_databento().BentoClientError, match="no batch jobs") as caught:
            question()
        assert caught.value.http_status == status
        assert caught.value.json_body["detail"]["case"] == case


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


def test_the_client_does_not_notice_plain_data_that_is_cut(
    data: GatewayData, server: HistoricalServer, client: Any
) -> None:
    query = asked(data, minutes=6000)
    whole = len(client.timeseries.get_range(**query).to_ndarray())
    server.inject(HistoricalFault("plain_cut", share=0.25))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        part = len(client.timeseries.get_range(**query).to_ndarray())
    assert part == whole // 4


def test_the_client_wants_the_header_in_one_frame(
    data: GatewayData, server: HistoricalServer, client: Any
) -> None:
    server.inject(HistoricalFault("split_metadata"))
    with pytest.raises(databento_dbn.DBNError, match="while decoding metadata"):
        client.timeseries.get_range(**asked(data))
    assert server.requests[-1].status == 200
    assert len(client.timeseries.get_range(**asked(data)).to_ndarray())


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
    wrong: tuple[dict[str, Any], ...] = (
        {"times": 0},
        {"after": -1},
        {"share": 1.5},
        {"retry_after_s": -1.0},
        {"endpoint": "metadata.get_price"},
        {"endpoint": "metadata.get_cost"},
    )
    for options in wrong:
        with pytest.raises(ConfigError, match=next(iter(options))):
            HistoricalFault("lose_record", **options)
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
