from __future__ import annotations

import base64
import contextlib
import logging
import re
import stat
import warnings
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from clustercore.live.logs import Logs, configure_logs, redact, register_secret

# Of the shape of a key, and made up.
KEY = "db-" + "0123456789abcdefghijABCDEFGHI"
SECRET = "p4ss/w0rd with 'quotes' & more"  # noqa: S105 -- made up
LINE = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (DEBUG|INFO|WARNING|ERROR) \S+: ")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "logs" / "live.log"


@pytest.fixture
def logs(path: Path) -> Iterator[Logs]:
    with configure_logs(path, "DEBUG") as configured:
        yield configured


def ours() -> logging.Logger:
    return logging.getLogger("clustercore.live.test")


def raise_with(text: str) -> None:
    raise RuntimeError(f"cannot connect with {text}")


def test_a_line_has_utc_time_level_name_message_and_fields(path: Path, logs: Logs) -> None:
    ours().info("connected to %s", "host", extra={"session_id": 7, "text": 'two "words"'})
    (line,) = path.read_text().splitlines()
    assert LINE.match(line)
    assert line.endswith(
        r'clustercore.live.test: connected to host session_id=7 text="two \"words\""'
    )


@pytest.mark.parametrize("name", ["clustercore.live.test", "databento.live", "urllib3"])
def test_a_secret_is_nowhere_in_the_log(path: Path, logs: Logs, name: str) -> None:
    register_secret(SECRET)
    log = logging.getLogger(name)
    basic = base64.b64encode(f"{SECRET}:".encode()).decode()
    for text in (SECRET, KEY, quote(SECRET), repr({"key": SECRET}), f"Basic {basic}"):
        log.debug("in the message %s" % text)  # noqa: G002, UP031 -- a secret in the format
        log.debug("as an argument %s %r", text, {"key": text})
        log.info("extra", extra={"header": text, "table": {"key": text}})
        try:
            raise_with(text)
        except RuntimeError as error:
            log.exception("failed")
            log.warning("failed: %s", error, stack_info=True)
            log.error("failed", exc_info=ValueError(text))  # noqa: TRY400 -- another one's
    written = path.read_text()
    assert "RuntimeError: cannot connect with [hidden]" in written
    assert written.count("[hidden]") >= 40
    for form in (SECRET, "w0rd", KEY, KEY[3:], basic):
        assert form not in written


def test_a_chained_exception_hides_its_cause_too(path: Path, logs: Logs) -> None:
    def fail() -> None:
        try:
            raise_with(KEY)
        except RuntimeError as error:
            raise ValueError("outer") from error

    try:
        fail()
    except ValueError:
        ours().exception("failed")
    written = path.read_text()
    assert "direct cause" in written
    assert KEY not in written


def test_a_short_text_is_no_secret() -> None:
    register_secret("")
    register_secret("abc")
    assert redact("abcdef") == "abcdef"


def test_the_longer_of_two_secrets_is_hidden_whole() -> None:
    register_secret("hunter22")
    register_secret("hunter22-and-more")
    assert redact("hunter22-and-more") == "[hidden]"


def test_a_message_cannot_forge_a_line(path: Path, logs: Logs) -> None:
    ours().info("%s", "gateway said\n2026-01-01T00:00:00.000Z ERROR root: forged\x1b[2J")
    (line,) = path.read_text().splitlines()
    assert r"gateway said\n2026" in line
    assert "\x1b" not in line


def test_a_traceback_is_indented_below_its_line(path: Path, logs: Logs) -> None:
    try:
        raise_with("host")
    except RuntimeError:
        ours().exception("failed")
    first, *rest = path.read_text().splitlines()
    assert LINE.match(first)
    assert all(line.startswith("  ") for line in rest)


def test_a_message_with_a_wrong_format_is_written_and_raises_nothing(
    path: Path, logs: Logs, capsys: pytest.CaptureFixture[str]
) -> None:
    ours().info("%d bars", "many")
    assert "cannot be formatted, test_logs.py" in path.read_text()
    assert capsys.readouterr().err == ""


def test_warnings_of_libraries_go_to_the_file_and_not_to_the_console(
    path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    shown: list[str] = []
    with warnings.catch_warnings(), configure_logs(path, "INFO", console=shown.append):
        warnings.simplefilter("always")
        warnings.warn("pandas will change", FutureWarning, stacklevel=1)
        logging.getLogger("databento").warning("reconnecting")
    assert "FutureWarning: pandas will change" in path.read_text()
    assert "reconnecting" in path.read_text()
    assert shown == []
    assert capfd.readouterr() == ("", "")


def test_our_own_warnings_reach_the_console_without_traceback_or_secret(path: Path) -> None:
    shown: list[str] = []
    with configure_logs(path, "INFO", console=shown.append):
        ours().info("connected")
        try:
            raise_with(KEY)
        except RuntimeError as error:
            ours().error("no connection: %s", error, exc_info=True)
    assert shown == ["error: no connection: cannot connect with [hidden]"]
    assert "Traceback" in path.read_text()


def test_a_console_that_is_gone_stops_nothing(path: Path) -> None:
    def gone(text: str) -> None:
        raise OSError(text)

    with configure_logs(path, "INFO", console=gone):
        ours().warning("still written")
    assert "still written" in path.read_text()


def test_the_file_is_rotated_and_private(path: Path) -> None:
    with configure_logs(path, "INFO", max_bytes=2_000, backups=2):
        for number in range(200):
            ours().info("line %d", number)
    files = sorted(path.parent.iterdir())
    assert [file.name for file in files] == ["live.log", "live.log.1", "live.log.2"]
    assert all(file.stat().st_size <= 2_000 for file in files)
    assert all(stat.S_IMODE(file.stat().st_mode) == 0o600 for file in files)
    assert "line 199" in path.read_text()


def test_a_failing_disk_is_noted_and_stays_off_the_console(
    path: Path, logs: Logs, capsys: pytest.CaptureFixture[str]
) -> None:
    assert logs.failed == ""
    full = open("/dev/full", "w", encoding="utf-8", buffering=1)  # noqa: SIM115, PTH123 -- below
    file = next(h for h in logging.getLogger().handlers if hasattr(h, "maxBytes"))
    before = file.stream  # type: ignore[attr-defined]
    file.stream = full  # type: ignore[attr-defined]
    try:
        file.maxBytes = 0
        ours().info("does not fit")
    finally:
        file.stream = before  # type: ignore[attr-defined]
        with contextlib.suppress(OSError):
            full.close()
    assert logs.failed == "OSError"
    assert capsys.readouterr().err == ""


def test_close_takes_everything_back(path: Path) -> None:
    root = logging.getLogger()
    before = (root.level, list(root.handlers))
    configure_logs(path, "DEBUG", console=lambda _: None).close()
    assert (root.level, list(root.handlers)) == before
