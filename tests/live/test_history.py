"""History is priced, verified, kept once, and asked for again when it fails."""

from __future__ import annotations

import io
import json
import logging
import socket
import subprocess
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pytest

from clustercore.errors import ConfigError
from clustercore.gateway import REHEARSAL_KEY
from clustercore.gateway.historical import HistoricalFault, HistoricalServer
from clustercore.gateway.records import GatewayData, sample_parent_data
from clustercore.live import history as module
from clustercore.live.history import (
    AccessRefused,
    BudgetExceeded,
    DayCondition,
    DownloadDamaged,
    History,
    HistoryClosed,
    HistoryError,
    HistoryUnavailable,
    RequestRefused,
)
from clustercore.live.vendor import import_databento

if TYPE_CHECKING:
    from clustercore.gateway.historical import AskedFor

MINUTE = 60 * 10**9
RANGE = "timeseries.get_range"
PARENT = ("ES.FUT", "parent")

Serve = Callable[..., HistoricalServer]
Connect = Callable[..., History]


@pytest.fixture(scope="module")
def data() -> GatewayData:
    # Six trade dates on both sides of the first of December.
    data = sample_parent_data(sessions=6, start="2024-11-26")
    rows = data.frame.filter(~pl.col("symbol").str.contains("-"))
    trades = rows.select(
        pl.col("ts_event").alias("ts_recv"),
        pl.col("close").alias("price"),
        pl.col("volume").alias("size"),
        "symbol",
        "instrument_id",
    )
    return GatewayData.from_bars(data.frame, trades.sort("ts_recv"))


@pytest.fixture
def serve(data: GatewayData) -> Iterator[Serve]:
    servers: list[HistoricalServer] = []

    def start(*faults: HistoricalFault, **options: Any) -> HistoricalServer:
        servers.append(HistoricalServer(data, faults=faults, **options))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def waits() -> list[float]:
    return []


@pytest.fixture
def connect(tmp_path: Path, waits: list[float]) -> Iterator[Connect]:
    opened: list[History] = []

    def start(server: HistoricalServer, **options: Any) -> History:
        given: dict[str, Any] = {
            "key": REHEARSAL_KEY,
            "folder": tmp_path / "history",
            "budget_usd": 5.0,
            "gateway": server.url,
            "wait": waits.append,
        }
        opened.append(History(**given | options))
        return opened[-1]

    yield start
    for client in opened:
        client.close()


def asked(server: HistoricalServer, endpoint: str = RANGE) -> list[AskedFor]:
    return [request for request in server.requests if request.endpoint == endpoint]


def outrights(data: GatewayData, start: int, end: int) -> pl.DataFrame:
    return data.frame.filter(
        ~pl.col("symbol").str.contains("-"),
        pl.col("ts_event") >= start,
        pl.col("ts_event") < end,
    ).select(module._NO_BARS.columns)


def test_bars_are_those_of_the_server_without_spreads(
    data: GatewayData, serve: Serve, connect: Connect
) -> None:
    start, end = data.span
    bars = connect(serve()).bars(*PARENT, start, end)
    assert bars.equals(outrights(data, start, end))
    assert bars.schema == module._NO_BARS.schema


def test_a_download_is_cut_at_the_first_of_a_month(
    data: GatewayData, serve: Serve, connect: Connect
) -> None:
    server = serve()
    steps: list[tuple[int, int]] = []
    paths = connect(server).fetch(
        *PARENT, "ohlcv-1m", *data.span, progress=lambda *step: steps.append(step)
    )
    december = np.datetime64("2024-12-01T00:00:00", "ns").astype(int)
    spans = [(int(r.parameters["start"]), int(r.parameters["end"])) for r in asked(server)]
    assert spans == [(data.span[0], december), (december, data.span[1])]
    assert steps == [(1, 2), (2, 2)]
    assert all(path.name.endswith(".dbn.zst") for path in paths)


def test_what_is_on_disk_is_not_bought_again(
    data: GatewayData, serve: Serve, connect: Connect
) -> None:
    server = serve()
    first = connect(server).bars(*PARENT, *data.span)
    server.close()
    # A later process, without any server.
    again = connect(server)
    assert again.bars(*PARENT, *data.span).equals(first)
    assert again.spent_usd == 0


def test_only_the_part_that_is_missing_is_bought(
    data: GatewayData, serve: Serve, connect: Connect
) -> None:
    start, end = data.span
    server = serve()
    client = connect(server)
    begin, until = start + 600 * MINUTE, start + 900 * MINUTE
    client.fetch(*PARENT, "ohlcv-1m", begin, until)
    before = len(asked(server))
    later = until + 100 * MINUTE
    assert client.bars(*PARENT, begin - MINUTE, later).equals(
        outrights(data, begin - MINUTE, later)
    )
    spans = [(int(r.parameters["start"]), int(r.parameters["end"])) for r in asked(server)[before:]]
    assert spans == [(begin - MINUTE, begin), (until, later)]
    # A part of what is there, across files that hold more on both sides.
    inner = (until - 50 * MINUTE, until + 50 * MINUTE)
    assert client.bars(*PARENT, *inner).equals(outrights(data, *inner))
    # Another schema, and other symbols, are other data.
    assert len(client.fetch("ESZ4", "raw_symbol", "ohlcv-1m", begin, until)) == 1
    assert len(asked(server)) == before + 3
    assert end > later


def test_the_end_is_clamped_to_what_is_available(
    data: GatewayData, serve: Serve, connect: Connect
) -> None:
    start, _ = data.span
    now = start + 300 * MINUTE + 7
    server = serve(now=lambda: now, lag_s=600)
    client = connect(server)
    available = start + 290 * MINUTE
    assert client.available_end("ohlcv-1m") == available == server.available_end()
    bars = client.bars(*PARENT, start, now)
    assert bars.equals(outrights(data, start, available))
    assert client.bars(*PARENT, available, now).is_empty()
    assert client.fetch(*PARENT, "ohlcv-1m", available + MINUTE, now + MINUTE) == []


def test_the_budget_is_asked_before_anything_is_bought(
    data: GatewayData, serve: Serve, connect: Connect
) -> None:
    server = serve()
    client = connect(server, budget_usd=0.001)
    cost = client.cost(*PARENT, "ohlcv-1m", *data.span)
    assert cost == pytest.approx(len(data.frame) * 56 * 28.0 / 2**30)
    with pytest.raises(BudgetExceeded, match=r"live\.budget_usd") as caught:
        client.bars(*PARENT, *data.span)
    assert caught.value.permanent
    assert caught.value.cost == pytest.approx(cost)
    assert "0.00 USD" in str(caught.value)
    assert not asked(server)
    assert client.spent_usd == 0


def test_a_download_that_failed_has_cost_its_price(
    data: GatewayData, serve: Serve, connect: Connect
) -> None:
    start = data.span[0]
    server = serve(HistoricalFault("truncate", times=9))
    client = connect(server)
    cost = client.cost(*PARENT, "ohlcv-1m", start, start + 60 * MINUTE)
    client.budget_usd = 2.5 * cost
    with pytest.raises(BudgetExceeded):
        client.fetch(*PARENT, "ohlcv-1m", start, start + 60 * MINUTE)
    assert client.spent_usd == pytest.approx(2 * cost)


def test_an_answer_without_data_costs_nothing(
    data: GatewayData, serve: Serve, connect: Connect
) -> None:
    start = data.span[0]
    client = connect(serve(HistoricalFault("server_error", times=2)))
    client.fetch(*PARENT, "ohlcv-1m", start, start + 60 * MINUTE)
    assert client.spent_usd == client.cost(*PARENT, "ohlcv-1m", start, start + 60 * MINUTE)


TRANSIENT = {
    "server_error": HistoryUnavailable,
    "bad_gateway": HistoryUnavailable,
    "gateway_timeout": HistoryUnavailable,
    "rate_limit": HistoryUnavailable,
    "reset": HistoryUnavailable,
    "drop": HistoryUnavailable,
    "not_json": DownloadDamaged,
    "truncate": DownloadDamaged,
    "cut_record": DownloadDamaged,
    "plain_cut": DownloadDamaged,
    "empty": DownloadDamaged,
    "metadata_only": DownloadDamaged,
    "lose_record": DownloadDamaged,
    "other_span": DownloadDamaged,
    "other_dataset": DownloadDamaged,
}
FAULTS = [(kind, 0.5) for kind in TRANSIENT] + [("truncate", 0.9), ("truncate", 0.999)]


@pytest.mark.parametrize(("kind", "share"), FAULTS)
def test_a_passing_fault_is_overcome(
    data: GatewayData, serve: Serve, connect: Connect, waits: list[float], kind: str, share: float
) -> None:
    fault = HistoricalFault(kind, times=2, share=share, retry_after_s=None)
    server = serve(fault)
    client = connect(server)
    start, end = data.span[0], data.span[0] + 300 * MINUTE
    assert client.bars(*PARENT, start, end).equals(outrights(data, start, end))
    assert len(asked(server)) == 3
    assert waits == [1.0, 2.0]


def test_a_download_in_two_frames_is_whole(
    data: GatewayData, serve: Serve, connect: Connect
) -> None:
    server = serve(HistoricalFault("split_metadata"))
    start, end = data.span[0], data.span[0] + 300 * MINUTE
    assert connect(server).bars(*PARENT, start, end).equals(outrights(data, start, end))
    assert len(asked(server)) == 1


@pytest.mark.parametrize(("kind", "share"), FAULTS)
def test_a_lasting_fault_leaves_nothing_behind(
    data: GatewayData,
    serve: Serve,
    connect: Connect,
    tmp_path: Path,
    waits: list[float],
    kind: str,
    share: float,
) -> None:
    server = serve(HistoricalFault(kind, times=3, share=share))
    client = connect(server, attempts=3)
    start, end = data.span[0], data.span[0] + 300 * MINUTE
    with pytest.raises(TRANSIENT[kind]) as caught:
        client.bars(*PARENT, start, end)
    assert not caught.value.permanent
    assert type(caught.value) is TRANSIENT[kind]
    assert list((tmp_path / "history").iterdir()) == []
    # The fault is over: nothing of it stands in the way.
    assert client.bars(*PARENT, start, end).equals(outrights(data, start, end))
    assert len(waits) == 2


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("unauthorized", AccessRefused),
        ("no_funds", AccessRefused),
        ("no_licence", AccessRefused),
        ("refused", RequestRefused),
    ],
)
def test_a_refusal_is_not_asked_again(
    data: GatewayData,
    serve: Serve,
    connect: Connect,
    waits: list[float],
    kind: str,
    error: type[HistoryError],
) -> None:
    server = serve(HistoricalFault(kind, times=9))
    with pytest.raises(error) as caught:
        connect(server).bars(*PARENT, data.span[0], data.span[0] + 60 * MINUTE)
    assert caught.value.permanent
    assert len(asked(server)) == 1
    assert waits == []
    if isinstance(caught.value, RequestRefused):
        assert caught.value.case == "dataset_unavailable_range"


def test_a_wrong_key_is_said_at_once(serve: Serve, connect: Connect, data: GatewayData) -> None:
    with pytest.raises(AccessRefused, match="check DATABENTO_API_KEY"):
        connect(serve(), key="db-another-key-of-32-characters-").bars(*PARENT, *data.span)


def test_questions_are_asked_again_too(
    data: GatewayData, serve: Serve, connect: Connect, waits: list[float]
) -> None:
    start, end = data.span[0], data.span[0] + 60 * MINUTE
    faults = [
        HistoricalFault(kind, endpoint=f"metadata.{endpoint}")
        for endpoint in (
            "get_cost",
            "get_record_count",
            "get_dataset_range",
            "get_dataset_condition",
        )
        for kind in ("not_json", "server_error", "reset")
    ]
    client = connect(serve(*faults))
    assert client.bars(*PARENT, start, end).equals(outrights(data, start, end))
    assert len(waits) == len(faults)


def test_the_pause_is_the_one_the_server_asks_for(
    data: GatewayData, serve: Serve, connect: Connect, waits: list[float]
) -> None:
    start = data.span[0]
    client = connect(serve(HistoricalFault("rate_limit", retry_after_s=7.5)))
    client.fetch(*PARENT, "ohlcv-1m", start, start + MINUTE)
    assert waits == [7.5]
    hour = connect(serve(HistoricalFault("rate_limit", retry_after_s=3600)))
    with pytest.raises(HistoryUnavailable) as caught:
        hour.fetch(*PARENT, "ohlcv-1m", start + MINUTE, start + 2 * MINUTE)
    assert caught.value.retry_after == 3600
    assert waits == [7.5]


def test_a_schema_without_history_is_named(serve: Serve, connect: Connect) -> None:
    with pytest.raises(RequestRefused, match="no history of ohlcv-1h"):
        connect(serve()).available_end("ohlcv-1h")
    with pytest.raises(ConfigError, match="cannot be verified"):
        connect(serve()).fetch(*PARENT, "mbo", 0, 1)


def test_what_a_killed_process_left_does_not_block(
    data: GatewayData, serve: Serve, connect: Connect, tmp_path: Path
) -> None:
    start, end = data.span[0], data.span[0] + 300 * MINUTE
    client = connect(serve())
    (path,) = client.fetch(*PARENT, "ohlcv-1m", start, end)
    receipt = path.with_name(path.name + ".json")
    whole = path.read_bytes()
    # Killed while it downloaded, and between the file and its receipt.
    path.with_name(path.name + ".part").write_bytes(whole[:100])
    receipt.unlink()
    assert client.bars(*PARENT, start, end).equals(outrights(data, start, end))
    assert sorted(tmp_path.joinpath("history").iterdir()) == [path, receipt]


@pytest.mark.parametrize("damage", ["file", "receipt", "no_file"])
def test_a_file_that_changed_is_downloaded_again(
    data: GatewayData,
    serve: Serve,
    connect: Connect,
    caplog: pytest.LogCaptureFixture,
    damage: str,
) -> None:
    start, end = data.span[0], data.span[0] + 300 * MINUTE
    server = serve()
    client = connect(server)
    (path,) = client.fetch(*PARENT, "ohlcv-1m", start, end)
    if damage == "file":
        path.write_bytes(path.read_bytes()[:-1])
    elif damage == "receipt":
        path.with_name(path.name + ".json").write_text("{", encoding="utf-8")
    else:
        path.unlink()
    assert client.bars(*PARENT, start, end).equals(outrights(data, start, end))
    assert len(asked(server)) == 2
    assert path.name in caplog.text


def test_a_receipt_says_what_the_file_holds(
    data: GatewayData, serve: Serve, connect: Connect
) -> None:
    start, end = data.span[0], data.span[0] + 60 * MINUTE
    (path,) = connect(serve()).fetch(*PARENT, "ohlcv-1m", start, end)
    said = json.loads(path.with_name(path.name + ".json").read_text(encoding="utf-8"))
    rows = data.frame.filter(pl.col("ts_event") < end)
    assert said["records"] == len(rows)
    assert (said["first"], said["last"]) == (rows["ts_event"].min(), rows["ts_event"].max())
    assert (said["start"], said["end"], said["symbols"]) == (start, end, ["ES.FUT"])


def test_trades_are_fetched_and_verified(data: GatewayData, serve: Serve, connect: Connect) -> None:
    start, end = data.span[0], data.span[0] + 60 * MINUTE
    server = serve(HistoricalFault("truncate", share=0.9))
    (path,) = connect(server).fetch(*PARENT, "trades", start, end)
    said = json.loads(path.with_name(path.name + ".json").read_text(encoding="utf-8"))
    assert said["records"] == len(data.trades.filter(pl.col("ts_recv") < end))
    assert len(asked(server)) == 2


def test_a_continuous_symbol_keeps_its_contracts_apart(serve: Serve, connect: Connect) -> None:
    data = sample_parent_data(sessions=9, start="2024-12-12")
    with HistoricalServer(data) as server:
        bars = connect(server).bars("ES.v.0", "continuous", *data.span)
    # By the volume of the day before, so the change of contract is at midnight UTC.
    assert bars["instrument_id"].n_unique() == 2
    assert bars["symbol"].unique().sort().to_list() == [
        f"ES.v.0@{number}" for number in sorted(bars["instrument_id"].unique())
    ]
    assert bars["ts_event"].is_unique().all()


def test_a_day_that_is_not_whole_is_said(
    data: GatewayData, serve: Serve, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    conditions = {"2024-11-27": "degraded", "2024-11-28": "missing", "2024-11-30": "missing"}
    client = connect(serve(conditions=conditions))
    found = client.conditions(*data.span)
    # The thirtieth is a Saturday.
    assert [str(day.day) for day in found] == ["2024-11-27", "2024-11-28"]
    assert found[0] == DayCondition(found[0].day, "degraded")
    client.fetch(*PARENT, "ohlcv-1m", *data.span)
    assert "2024-11-27 degraded" in caplog.text


def test_the_data_comes_where_its_condition_is_refused(
    data: GatewayData, serve: Serve, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    fault = HistoricalFault("refused", endpoint="metadata.get_dataset_condition")
    start, end = data.span[0], data.span[0] + 60 * MINUTE
    assert len(connect(serve(fault)).bars(*PARENT, start, end))
    assert "condition of the data is not known" in caplog.text


def test_a_warning_of_the_server_is_a_log_record(
    data: GatewayData, serve: Serve, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    client = connect(serve(HistoricalFault("warning")))
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        client.fetch(*PARENT, "ohlcv-1m", data.span[0], data.span[0] + MINUTE)
    assert not shown
    assert "this is a rehearsal" in caplog.text


def _failure(work: Callable[[], object]) -> HistoryError | None:
    try:
        work()
    except HistoryError as error:
        return error
    return None


def _shown_with_locals(error: HistoryError) -> str:
    trace = error.__traceback__
    # The frames of the test apart: they hold the key, and what was collected before.
    while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
        trace = trace.tb_next
    shown = io.StringIO()
    traceback.TracebackException(type(error), error, trace, capture_locals=True).print(file=shown)
    return shown.getvalue()


def test_the_key_is_in_no_message_log_or_file(
    data: GatewayData,
    serve: Serve,
    connect: Connect,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    caplog.set_level(logging.DEBUG)
    texts: list[str] = []
    kinds = [*TRANSIENT, "unauthorized", "no_funds", "no_licence", "refused", "warning"]
    for place, kind in enumerate(kinds):
        server = serve(HistoricalFault(kind, times=2))
        client = connect(server, attempts=2)
        texts.append(repr(client))
        span = (data.span[0] + place * MINUTE, data.span[0] + (place + 1) * MINUTE)
        failure = _failure(lambda: client.fetch(*PARENT, "ohlcv-1m", *span))  # noqa: B023
        if failure is not None:
            texts += [str(failure), repr(failure), _shown_with_locals(failure)]
            # The vendor's exceptions hold the request with its login.
            assert failure.__context__ is None
        texts += [repr(server), *map(repr, server.requests)]
    files = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    texts += [caplog.text, *capfd.readouterr()]
    assert len(texts) > len(kinds) * 3
    assert not any(REHEARSAL_KEY in text for text in texts)
    assert not any(REHEARSAL_KEY.encode() in content for content in files)


def test_a_guarded_key_is_taken(data: GatewayData, serve: Serve, connect: Connect) -> None:
    class Guarded:
        def reveal(self) -> str:
            return REHEARSAL_KEY

    assert connect(serve(), key=Guarded()).available_end("ohlcv-1m") == data.span[1]


def test_a_server_that_was_started_anew_is_trusted_anew(
    data: GatewayData, serve: Serve, connect: Connect
) -> None:
    first = serve()
    client = connect(first)
    client.available_end("ohlcv-1m")
    port = first.port
    first.close()
    with pytest.raises(HistoryUnavailable, match=f"no gateway listens on 127.0.0.1:{port} "):
        client.available_end("ohlcv-1m")
    serve(port=port)
    assert client.available_end("ohlcv-1m") == data.span[1]


def test_a_proxy_does_not_stand_before_this_machine(
    serve: Serve, connect: Connect, data: GatewayData, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nowhere")
    assert connect(serve()).available_end("ohlcv-1m") == data.span[1]


def test_another_certificate_than_the_one_seen_is_refused(
    serve: Serve, connect: Connect, data: GatewayData
) -> None:
    client = connect(serve(), attempts=1)
    client.available_end("ohlcv-1m")
    with HistoricalServer(data) as other:
        client._session.close()
        for api in (client._client.metadata, client._client.timeseries):
            api._base_url = api._base_url.replace(client._gateway or "", other.url)
        with pytest.raises(HistoryUnavailable, match="CERTIFICATE_VERIFY_FAILED"):
            client.available_end("ohlcv-1m")
        assert other.requests == []


@pytest.mark.parametrize(
    "gateway", ["http://127.0.0.1:1", "127.0.0.1:1", "https://", "https://a:b"]
)
def test_an_address_that_is_none_is_refused(gateway: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"https://127\.0\.0\.1:13001"):
        History(key="k", folder=tmp_path, budget_usd=1, gateway=gateway)


def test_a_folder_that_cannot_be_written_is_named(
    data: GatewayData, serve: Serve, connect: Connect, tmp_path: Path, waits: list[float]
) -> None:
    (tmp_path / "file").touch()
    client = connect(serve(), folder=tmp_path / "file")
    with pytest.raises(HistoryError, match="choose another folder") as caught:
        client.fetch(*PARENT, "ohlcv-1m", data.span[0], data.span[0] + MINUTE)
    assert caught.value.permanent
    assert waits == []


def test_a_full_disk_is_named(
    data: GatewayData,
    serve: Serve,
    connect: Connect,
    monkeypatch: pytest.MonkeyPatch,
    waits: list[float],
) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no device that is always full")
    monkeypatch.setattr(module, "_Writer", lambda _: _real_writer(Path("/dev/full")))
    client = connect(serve())
    with pytest.raises(HistoryError, match="No space left") as caught:
        client.fetch(*PARENT, "ohlcv-1m", data.span[0], data.span[1])
    assert caught.value.permanent
    assert waits == []


_real_writer = module._Writer


def test_close_ends_a_wait(data: GatewayData, serve: Serve, connect: Connect) -> None:
    fault = HistoricalFault("rate_limit", retry_after_s=500, endpoint="metadata.get_dataset_range")
    server = serve(fault)
    client = connect(server, wait=None)
    failures: list[Exception] = []

    def ask() -> None:
        try:
            client.available_end("ohlcv-1m")
        except HistoryClosed as error:
            failures.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    while not server.requests:
        thread.join(0.005)
    client.close()
    thread.join(5)
    assert not thread.is_alive()
    assert len(failures) == 1
    with pytest.raises(HistoryClosed):
        client.available_end("ohlcv-1m")


def test_nothing_is_left_after_close(data: GatewayData, tmp_path: Path) -> None:
    before = set(threading.enumerate())
    server = HistoricalServer(data)
    client = History(key=REHEARSAL_KEY, folder=tmp_path, budget_usd=1, gateway=server.url)
    client.available_end("ohlcv-1m")
    certificate, seen = server.certificate, client._certificate
    assert seen is not None
    assert seen.read_text() == certificate.read_text()
    client.close()
    server.close()
    assert set(threading.enumerate()) == before
    assert not certificate.exists()
    assert not certificate.parent.exists()
    assert not seen.exists()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", server.port), timeout=1).close()


def test_the_import_leaves_warnings_as_they_are() -> None:
    code = (
        "import warnings\n"
        "from clustercore.live.vendor import import_databento\n"
        "before = list(warnings.filters)\n"
        "import_databento()\n"
        "assert warnings.filters == before"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_login_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    import_databento()
    logger = logging.getLogger("databento.live.protocol")
    logger.debug("sending CRAM challenge response auth='%s'", "secret")
    logger.debug("read %d bytes from remote gateway", 7)
    assert caplog.messages == ["read 7 bytes from remote gateway"]
