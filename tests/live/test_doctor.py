"""Each question, answered well, badly and not at all."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import NoReturn

import polars as pl
import pytest

from clustercore.errors import ClusterCoreError, ConfigError
from clustercore.live.doctor import Check, Probes, exit_code, run_doctor, server_time
from clustercore.live.key import Key
from clustercore.sessions import Sessions, load_sessions

S = 10**9
DAY_NS = 86_400 * S
NOW = 1_704_207_600 * S  # 2024-01-02 15:00:00 UTC, in a session
KEY = Key("db-rehearsal-only-not-a-secret-0", "here")


class LockedError(ClusterCoreError):
    reason = "locked"


def failing(error: Exception) -> NoReturn:
    raise error


@pytest.fixture
def healthy(tmp_path: Path) -> Probes:
    database = tmp_path / "live.duckdb"
    database.touch()
    return Probes(
        key=lambda: KEY,
        env_mode=lambda: 0o600,
        now=lambda: NOW,
        database=database,
        opened=lambda: None,
        sessions=load_sessions(),
        available_end=lambda: NOW - 3_600 * S,
        leads=lambda: {"ES": "ESH4", "NQ": "NQH4"},
        server_time=lambda: NOW,
        history=lambda: {"ES": 30, "NQ": 21},
        bar_starts=lambda: pl.Series([NOW - DAY_NS * 14, NOW - 60 * S, NOW], dtype=pl.Int64),
        sessions_needed=20,
        free=lambda _: 10**10,
    )


def line(name: str, probes: Probes) -> Check:
    return next(check for check in run_doctor(probes) if check.name == name)


def test_a_healthy_machine_passes_every_line(healthy: Probes) -> None:
    checks = run_doctor(healthy)
    assert [check.name for check in checks] == [
        "key",
        ".env",
        "data set",
        "contract",
        "clock",
        "database",
        "history",
        "disk",
        "session table",
        "bars in sessions",
    ]
    assert [check.name for check in checks if check.ok is not True] == []
    assert [check.name for check in checks if check.advice] == []
    assert exit_code(checks) == 0


def test_whatever_fails_every_line_is_there_and_says_what_to_do(healthy: Probes) -> None:
    def broken(*_: object) -> NoReturn:
        raise ZeroDivisionError("a fault")

    probes = replace(
        healthy,
        env_mode=broken,
        opened=broken,
        available_end=broken,
        leads=broken,
        server_time=broken,
        history=broken,
        bar_starts=broken,
        free=broken,
    )
    checks = run_doctor(probes)
    failed = [check for check in checks if check.ok is False]
    assert len(checks) == 10
    # Of the month in front the same would be said as of the data set.
    assert len(failed) == 7
    assert all(check.advice for check in failed)
    assert failed[0].found == "ZeroDivisionError: a fault"
    assert exit_code(checks) == 1


def test_without_a_key_nobody_is_asked(healthy: Probes) -> None:
    checks = run_doctor(replace(healthy, key=lambda: failing(ConfigError("there is no API key"))))
    assert checks[0] == Check(
        "key", False, "there is no API key", "see Databento's portal, API keys"
    )
    assert [check.found for check in checks[2:4]] == ["not asked: no key"] * 2
    assert [check.ok for check in checks[2:4]] == [None, None]
    assert exit_code(checks) == 1


def test_what_is_not_given_is_not_asked(healthy: Probes) -> None:
    probes = replace(
        healthy, available_end=None, leads=None, server_time=None, history=None, bar_starts=None
    )
    checks = run_doctor(probes)
    assert sum(check.ok is None for check in checks) == 5
    assert exit_code(checks) == 0


@pytest.mark.parametrize(
    ("mode", "ok"), [(None, True), (0o600, True), (0o400, True), (0o644, False)]
)
def test_the_file_of_the_key_is_private(healthy: Probes, mode: int | None, ok: bool) -> None:
    check = line(".env", replace(healthy, env_mode=lambda: mode))
    assert check.ok is ok
    assert bool(check.advice) is not ok


@pytest.mark.parametrize(("days", "ok"), [(0, True), (4.9, True), (5.1, False)])
def test_history_ends_recently(healthy: Probes, days: float, ok: bool) -> None:
    check = line("data set", replace(healthy, available_end=lambda: NOW - int(days * DAY_NS)))
    assert check.ok is ok
    assert "history" in check.found


@pytest.mark.parametrize("leads", [{}, {"ES": "ESH4", "CL": ""}])
def test_every_product_has_a_month_in_front(healthy: Probes, leads: dict[str, str]) -> None:
    assert line("contract", replace(healthy, leads=lambda: leads)).ok is False


@pytest.mark.parametrize(
    ("ahead_s", "ok", "word"),
    [
        (0, True, ""),
        (2.4, True, "ahead"),
        (-2.4, True, "behind"),
        (3.1, False, "ahead"),
        (-3.1, False, "behind"),
    ],
)
def test_a_clock_that_is_off_is_seen(healthy: Probes, ahead_s: float, ok: bool, word: str) -> None:
    server = NOW - int(ahead_s * S) - S // 2
    check = line("clock", replace(healthy, server_time=lambda: server))
    assert check.ok is ok
    assert word in check.found


def test_a_slow_answer_says_nothing_about_the_clock(healthy: Probes) -> None:
    times = iter([NOW, NOW + 8 * S])
    probes = replace(
        healthy, server_time=lambda: NOW, now=lambda: next(times, NOW), available_end=None
    )
    assert line("clock", probes).ok is None


def test_a_database_that_is_in_use_is_no_failure(healthy: Probes) -> None:
    def locked() -> NoReturn:
        raise LockedError("process 7 owns it")

    checks = run_doctor(replace(healthy, opened=locked, history=locked, bar_starts=locked))
    assert [check.found for check in checks if check.ok is None] == ["process 7 owns it"] * 3
    assert exit_code(checks) == 0


def test_a_database_that_cannot_be_written_is_one(healthy: Probes) -> None:
    refuse = PermissionError(13, "Permission denied")
    check = line("database", replace(healthy, opened=lambda: failing(refuse)))
    assert (check.ok, check.found) == (False, "Permission denied")


def test_a_database_that_is_not_there_is_not_made(healthy: Probes, tmp_path: Path) -> None:
    def must_not() -> NoReturn:
        raise AssertionError

    database = tmp_path / "new.duckdb"
    assert line("database", replace(healthy, database=database, opened=must_not)).ok is True
    assert not database.exists()
    # What the live process would refuse.
    database = tmp_path / "new folder" / "live.duckdb"
    check = line("database", replace(healthy, database=database, opened=must_not))
    assert (check.ok, check.advice) == (False, f"make it: mkdir -p '{database.parent}'")
    assert not database.parent.exists()
    healthy.database.write_text("a file", encoding="utf-8")
    below = healthy.database / "live.duckdb"
    assert line("database", replace(healthy, database=below, opened=must_not)).ok is False


@pytest.mark.parametrize("counts", [{}, {"ES": 20, "NQ": 19}])
def test_short_history_will_be_fetched(healthy: Probes, counts: dict[str, int]) -> None:
    check = line("history", replace(healthy, history=lambda: counts))
    assert check.ok is None
    assert "20 needed" in check.found


@pytest.mark.parametrize(("free", "ok"), [(500_000_000, True), (499_999_999, False)])
def test_the_disk_has_room(healthy: Probes, free: int, ok: bool) -> None:
    assert line("disk", replace(healthy, free=lambda _: free)).ok is ok


@pytest.mark.parametrize(("days", "ok"), [(31, True), (30, True), (29, False), (-1, False)])
def test_the_session_table_reaches_far_enough(healthy: Probes, days: int, ok: bool) -> None:
    end = int(healthy.sessions.close_ns[-1])
    check = line("session table", replace(healthy, now=lambda: end - days * DAY_NS))
    assert check.ok is ok
    assert ("has passed" in check.found) is (days < 0)


def test_an_empty_session_table_is_a_failure(healthy: Probes) -> None:
    empty: Sessions = healthy.sessions.between("1999-01-01", "1999-01-02")
    assert line("session table", replace(healthy, sessions=empty)).ok is False


def test_bars_outside_of_sessions_are_counted(healthy: Probes) -> None:
    saturday = NOW + 4 * DAY_NS
    starts = pl.Series([NOW, saturday + 60 * S, saturday], dtype=pl.Int64)
    check = line("bars in sessions", replace(healthy, bar_starts=lambda: starts))
    assert check.ok is False
    assert check.found == (
        "1 bars in 1 sessions; 2 in no session, the first at 2024-01-06T15:00:00Z"
    )
    none = replace(healthy, bar_starts=starts.clear)
    assert line("bars in sessions", none).ok is None


class Answers(BaseHTTPRequestHandler):
    said: str | None = "Tue, 02 Jan 2024 15:00:00 GMT"

    def do_HEAD(self) -> None:
        self.send_response_only(404)
        if self.said is not None:
            self.send_header("Date", self.said)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def port() -> Iterator[int]:
    with HTTPServer(("127.0.0.1", 0), Answers) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def test_the_time_is_in_any_answer(port: int) -> None:
    assert server_time(HTTPConnection("127.0.0.1", port, timeout=5)) == NOW


@pytest.mark.parametrize("said", [None, "soon"])
def test_an_answer_without_a_time_is_an_error(
    port: int, said: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Answers, "said", said)
    with pytest.raises(OSError, match="no time in the answer"):
        server_time(HTTPConnection("127.0.0.1", port, timeout=5))
