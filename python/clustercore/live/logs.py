"""The log file: rotated, in UTC, one line a message, and without a secret in it.

Secrets are registered where they are read. A filter on every handler takes them out of messages,
arguments, tracebacks and extra fields, those of libraries included.
"""

from __future__ import annotations

import base64
import contextlib
import json
import logging
import os
import re
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from io import TextIOWrapper
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Final, Self, cast
from urllib.parse import quote, quote_plus

from clustercore.errors import ConfigError

__all__ = [
    "FOR_THE_FILE",
    "Logs",
    "RedactingFilter",
    "catch_up",
    "configure_logs",
    "held_back",
    "redact",
    "register_secret",
]

_MAX_BYTES: Final = 10_000_000
_BACKUPS: Final = 5
_SHORTEST_SECRET: Final = 4
_HIDDEN: Final = "[hidden]"
# The shape of a Databento key, whether it was registered or not.
_KEY: Final = re.compile(r"db-[A-Za-z0-9]{29}")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_PLAIN_VALUE: Final = re.compile(r"[^\s\"=]+")
_OURS: Final = "clustercore"

_UNSHOWN: Final = "is_for_the_file"
# As `extra` of a record: what is said elsewhere is not shown on the console too.
FOR_THE_FILE: Final = {_UNSHOWN: True}
# What every record has; anything else was passed as `extra`.
_OWN: Final = frozenset(vars(logging.makeLogRecord({}))) | {
    "message",
    "asctime",
    "taskName",
    _UNSHOWN,
}


class _Secrets:
    """The texts that must not be shown, as one pattern."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._texts: set[str] = set()
        self.pattern = _KEY

    def add(self, text: str) -> None:
        with self._lock:
            self._texts |= _forms(text)
            # The longest first, so that none is left half shown behind one of its parts.
            known = sorted(self._texts, key=lambda known: (-len(known), known))
            self.pattern = re.compile("|".join([*map(re.escape, known), _KEY.pattern]))


_SECRETS: Final = _Secrets()


def register_secret(text: str) -> None:
    """Never show a text again, nor the forms in which it travels in addresses and headers.

    A text of fewer than four characters is left alone: hiding it would make the log unreadable.

    Examples
    --------
    >>> register_secret("correct horse")
    >>> redact("the password is correct horse")
    'the password is [hidden]'
    """
    if len(text) >= _SHORTEST_SECRET:
        _SECRETS.add(text)


def redact(text: str) -> str:
    """Return a text without registered secrets and without anything that looks like a key."""
    return _SECRETS.pattern.sub(_HIDDEN, text)


def _forms(secret: str) -> set[str]:
    basic = base64.b64encode(f"{secret}:".encode()).decode()
    return {
        secret,
        quote(secret),
        quote(secret, safe=""),
        quote_plus(secret),
        repr(secret)[1:-1],
        # As it is printed inside another text, of which one quotation mark may be escaped.
        repr(secret)[1:-1].replace("'", r"\'"),
        json.dumps(secret)[1:-1],
        # HTTP's basic authentication with the secret as the name and no password.
        basic,
    }


class RedactingFilter(logging.Filter):
    """Takes secrets out of a record; put it on a handler, as filters of loggers are not inherited.

    The message is put together here, so that later handlers cannot format the arguments again.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Change the record and let it pass."""
        record.msg = redact(_message(record))
        record.args = ()
        if record.exc_info:
            record.exc_text = _TRACES.formatException(record.exc_info)
            record.exc_info = None
        if record.exc_text:
            record.exc_text = redact(record.exc_text)
        if record.stack_info:
            record.stack_info = redact(record.stack_info)
        for name in _extras(record):
            setattr(record, name, _redacted_value(getattr(record, name)))
        return True


_TRACES: Final = logging.Formatter()


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception:  # noqa: BLE001 -- a library's bad format must not reach its caller
        return f"a message that cannot be formatted, {record.filename}:{record.lineno}"


def _extras(record: logging.LogRecord) -> list[str]:
    return [name for name in vars(record) if name not in _OWN]


def _redacted_value(value: object) -> object:
    if value is None or isinstance(value, bool | int | float):
        return value
    try:
        return redact(str(value))
    except Exception:  # noqa: BLE001 -- the same
        return "unreadable"


class _Lines(logging.Formatter):
    """Time, level, logger, message, extra fields as key=value; a traceback is indented below."""

    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created, UTC)
        head = f"{moment:%Y-%m-%dT%H:%M:%S}.{int(record.msecs):03d}Z {record.levelname}"
        # A message from outside must not look like a line of its own.
        message = _CONTROL.sub(lambda found: repr(found[0])[1:-1], record.getMessage())
        fields = "".join(f" {name}={_value(getattr(record, name))}" for name in _extras(record))
        below = [text for text in (record.exc_text, record.stack_info) if text]
        tail = "".join(f"\n  {line}" for text in below for line in text.splitlines())
        return f"{head} {record.name}: {message}{fields}{tail}"


def _value(value: object) -> str:
    text = str(value)
    return text if _PLAIN_VALUE.fullmatch(text) else json.dumps(text, ensure_ascii=True)


class _File(RotatingFileHandler):
    """A rotated file that only its owner reads, and that never speaks on the console."""

    failed: str = ""

    def _open(self) -> TextIOWrapper:
        def private(path: str, flags: int) -> int:
            return os.open(path, flags, 0o600)

        file = open(  # noqa: SIM115 -- the handler closes it
            self.baseFilename, self.mode, encoding=self.encoding, opener=private
        )
        return cast("TextIOWrapper", file)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 -- logging's name
        # A full disk is seen by whoever asks; a traceback for each line would bury the console.
        del record
        self.failed = type(sys.exc_info()[1]).__name__


class _Show(logging.Handler):
    """Our own warnings and errors for the console, in words only."""

    def __init__(self, show: Callable[[str], object]) -> None:
        super().__init__(logging.WARNING)
        self._show = show
        self.addFilter(RedactingFilter())

    def filter(self, record: logging.LogRecord) -> bool:
        # Libraries warn about themselves; that belongs into the file.
        ours = record.name == _OURS or record.name.startswith(f"{_OURS}.")
        return ours and not hasattr(record, _UNSHOWN) and bool(super().filter(record))

    def emit(self, record: logging.LogRecord) -> None:
        message = _CONTROL.sub(" ", record.getMessage())
        try:
            self._show(f"{record.levelname.lower()}: {message}")
        except Exception:  # noqa: BLE001 -- a console that is gone must not stop trading
            self.handleError(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 -- logging's name
        del record


class Logs:
    """Logging as ``configure_logs`` set it up; ``close`` takes it back."""

    def __init__(self, file: _File, others: list[logging.Handler], level_before: int) -> None:
        self._file = file
        self._handlers = [file, *others]
        self._level_before = level_before

    @property
    def failed(self) -> str:
        """Why a line could not be written, as the name of the error; empty when all were."""
        return self._file.failed

    def close(self) -> None:
        """Write what is waiting and close the file."""
        logging.captureWarnings(capture=False)
        root = logging.getLogger()
        for handler in self._handlers:
            root.removeHandler(handler)
            handler.close()
        root.setLevel(self._level_before)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class _Kept(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@contextlib.contextmanager
def held_back() -> Iterator[list[logging.LogRecord]]:
    """Keep what our loggers say before there is a log; give it to ``catch_up`` then."""
    kept, ours = _Kept(), logging.getLogger(_OURS)
    ours.addHandler(kept)
    try:
        yield kept.records
    finally:
        ours.removeHandler(kept)


def catch_up(records: Iterable[logging.LogRecord]) -> None:
    """Log what was held back."""
    for record in records:
        logging.getLogger(record.name).handle(record)


def configure_logs(
    path: Path,
    level: str | int = "INFO",
    *,
    console: Callable[[str], object] | None = None,
    max_bytes: int = _MAX_BYTES,
    backups: int = _BACKUPS,
) -> Logs:
    """Send every logger, and Python's warnings, to a rotated file.

    Parameters
    ----------
    path : Path
        The file; its folder is made when it is not there.
    level : str or int
        Least level that is written.
    console : callable, optional
        Shows a line to the operator; called for our own warnings and errors only.
    max_bytes, backups : int
        Size of a file, and how many older ones stay.

    Returns
    -------
    Logs
        To close at the end.

    Raises
    ------
    ConfigError
        The file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = _File(path, maxBytes=max_bytes, backupCount=backups, encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"the log cannot be written: {error.strerror or error}; pass another place with --log, "
            "or give this user the right to write there",
            field="--log",
            found=str(path),
            expected="a file in a folder that this user may write to",
        ) from error
    file.setFormatter(_Lines())
    file.addFilter(RedactingFilter())
    others: list[logging.Handler] = [] if console is None else [_Show(console)]
    root = logging.getLogger()
    logs = Logs(file, others, root.level)
    root.setLevel(level)
    for handler in (file, *others):
        root.addHandler(handler)
    logging.captureWarnings(capture=True)
    return logs
