"""The control socket: how an operator on this machine asks a live process, and tells it to stop.

It is a Unix socket of mode 0600 in a folder of mode 0700, named after the database, and it answers
only its own user. One line of JSON comes in, one goes out. A lock beside it says whether the
process lives, so that a socket left behind by a dead one is replaced and a live one is not.

The server's threads touch nothing of the trading: they read a snapshot, or put a command into a
queue from which the trading thread takes it.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import fcntl
import hashlib
import json
import logging
import os
import queue
import shlex
import socket
import stat
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, Self

from clustercore.errors import ClusterCoreError

__all__ = [
    "COMMANDS",
    "Command",
    "CommandQueue",
    "ControlError",
    "ControlServer",
    "ask",
    "socket_path",
]

_LOG = logging.getLogger(__name__)

_Answer = dict[str, Any]


@dataclass(frozen=True)
class _Rule:
    arguments: tuple[str, ...]
    seconds: float


# What may be asked, and how long the trading thread has for it.
COMMANDS: Final[dict[str, _Rule]] = {
    "status": _Rule((), 5.0),
    "stop": _Rule((), 5.0),
    "reset-halt": _Rule(("root",), 5.0),
    "snapshot": _Rule((), 60.0),
}

_MOST_REQUEST: Final = 4_096
_MOST_ANSWER: Final = 4 * 1024 * 1024
_MOST_CONNECTIONS: Final = 8
# A connection beyond these fails at once, whatever the timeout of its asker.
_MOST_WAITING: Final = 128
_REQUEST_S: Final = 2.0
# How much longer the client waits than the server takes at most.
_MARGIN_S: Final = 3.0
_JOIN_S: Final = 1.0
_LONGEST_ADDRESS: Final = 107  # bytes of sun_path, without the zero at its end
_CREDENTIALS: Final = struct.Struct("3i")  # pid, uid, gid


class ControlError(ClusterCoreError):
    """A live process could not be reached, or did not do what it was asked.

    Parameters
    ----------
    problem : str
        What is wrong, and what to do next.
    reason : str
        One word for programs: ``not_running``, ``running`` (another process is there already),
        ``timeout``, ``refused`` (the process answered no), ``unsafe`` (others could reach the
        socket), ``broken`` (no answer that could be read).
    """

    def __init__(
        self,
        problem: str,
        *,
        reason: Literal["not_running", "running", "timeout", "refused", "unsafe", "broken"],
    ) -> None:
        self.problem = problem
        self.reason = reason
        super().__init__(problem)


def socket_path(database: str | Path, environ: Mapping[str, str] = os.environ) -> Path:
    """Return where the live process of a database listens.

    Parameters
    ----------
    database : path
        The store; the same file by another path has the same socket.
    environ : mapping
        ``XDG_RUNTIME_DIR`` names the folder above; ``~/.local/state`` where it is not set.

    Returns
    -------
    Path
        The socket, whether or not anybody listens.

    Examples
    --------
    >>> socket_path("/data/live.duckdb", {"XDG_RUNTIME_DIR": "/run/user/1000"}).parent.as_posix()
    '/run/user/1000/clustercore'
    """
    return next(_places(Path(database), environ))


def _places(database: Path, environ: Mapping[str, str]) -> Iterator[Path]:
    """Yield every place where the socket may be, the one to listen on first.

    A session that was opened by cron or sudo does not know the runtime folder that the service
    has, so a client looks in all of them.
    """
    name = hashlib.sha256(os.fsencode(database.resolve())).hexdigest()[:16] + ".sock"
    runtime = environ.get("XDG_RUNTIME_DIR", "")
    if runtime.startswith("/"):
        yield Path(runtime) / "clustercore" / name
    yield Path(environ.get("HOME") or Path.home()) / ".local" / "state" / "clustercore" / name
    yield Path(f"/run/user/{os.getuid()}/clustercore") / name


# The trading thread's side.


@dataclass(frozen=True, eq=False)
class Command:
    """One thing that an operator wants, to be answered once.

    Attributes
    ----------
    name : str
        ``stop``, ``reset-halt`` or ``snapshot``.
    arguments : dict
        ``root`` of ``reset-halt``, if one was named.
    """

    name: str
    arguments: dict[str, Any]
    future: concurrent.futures.Future[_Answer]

    def done(self, **answer: Any) -> None:  # noqa: ANN401 -- plain data for JSON
        """Answer that it is done."""
        self.future.set_result(answer)

    def fail(self, problem: str) -> None:
        """Answer that it could not be done, and what to do next."""
        self.future.set_exception(ControlError(problem, reason="refused"))


class CommandQueue:
    """Commands on their way from the socket to the trading thread.

    Parameters
    ----------
    wake : callable, optional
        Called after a command was put in, so that the trading thread looks.

    Examples
    --------
    >>> commands = CommandQueue()
    >>> future = commands.submit("reset-halt", {"root": "ES"})
    >>> for command in commands.take():
    ...     command.done(reset=command.arguments["root"])
    >>> future.result(timeout=0)
    {'reset': 'ES'}
    """

    def __init__(self, wake: Callable[[], None] | None = None) -> None:
        self._waiting: queue.SimpleQueue[Command] = queue.SimpleQueue()
        self._wake = wake
        self._closed = False

    def submit(self, name: str, arguments: dict[str, Any]) -> concurrent.futures.Future[_Answer]:
        """Put a command in; its future tells what became of it."""
        command = Command(name, arguments, concurrent.futures.Future())
        self._waiting.put(command)
        if self._closed:
            self.close()
        elif self._wake is not None:
            self._wake()
        return command.future

    def take(self) -> list[Command]:
        """Return what came in, each to be answered; what its asker gave up is left out."""
        commands = []
        with contextlib.suppress(queue.Empty):
            while True:
                command = self._waiting.get_nowait()
                if command.future.set_running_or_notify_cancel():
                    commands.append(command)
        return commands

    def close(self) -> None:
        """Refuse what waits and what still comes: the process ends."""
        self._closed = True
        for command in self.take():
            command.fail("the process is stopping; look again in a few seconds")


# The server.


class ControlServer:
    """Answers the operator until it is closed; a context manager.

    Parameters
    ----------
    path : Path
        The socket, from ``socket_path``.
    status : callable
        Returns the newest status as plain data; called on the server's threads.
    submit : callable
        Hands a command to the trading thread, such as ``CommandQueue.submit``.

    Raises
    ------
    ControlError
        Another live process has the socket, or its folder is open to others.
    """

    def __init__(
        self,
        path: Path,
        status: Callable[[], _Answer],
        submit: Callable[[str, dict[str, Any]], concurrent.futures.Future[_Answer]],
    ) -> None:
        self.path = path
        self._status = status
        self._submit = submit
        self._closing = False
        self._slots = threading.BoundedSemaphore(_MOST_CONNECTIONS)
        self._talks: set[threading.Thread] = set()
        with contextlib.ExitStack() as undo:
            _make_private(path.parent)
            self._lock = _take_lock(path)
            undo.callback(os.close, self._lock)
            self._socket = _listen(path)
            undo.callback(self._socket.close)
            self._thread = threading.Thread(
                target=self._accept, name="clustercore-control", daemon=True
            )
            self._thread.start()
            undo.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop listening, let answers that are due go out, and remove the socket."""
        if self._closing:
            return
        self._closing = True
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(_JOIN_S)
        self._socket.close()
        until = time.monotonic() + _JOIN_S
        for talk in tuple(self._talks):
            talk.join(max(0.0, until - time.monotonic()))
        with contextlib.suppress(OSError):
            self.path.unlink()
        # The lock's file stays: whoever removed it could remove that of the next process.
        os.close(self._lock)

    def _accept(self) -> None:
        while not self._closing:
            # The others wait in the kernel's queue; each talk ends by its own time limits.
            if not self._slots.acquire(timeout=_JOIN_S / 2):
                continue
            try:
                connection, _ = self._socket.accept()
            except OSError as error:
                self._slots.release()
                if self._closing:
                    return
                # Too many open files, for one; it passes.
                _LOG.warning("the control socket cannot accept: %s", error)
                threading.Event().wait(_JOIN_S)
                continue
            talk = threading.Thread(
                target=self._talk, args=(connection,), name="clustercore-control-talk", daemon=True
            )
            self._talks.add(talk)
            talk.start()

    def _talk(self, connection: socket.socket) -> None:
        try:
            with connection:
                self._serve(connection)
        except OSError as error:
            _LOG.debug("an asker went away: %s", error)
        finally:
            self._talks.discard(threading.current_thread())
            self._slots.release()

    def _serve(self, connection: socket.socket) -> None:
        pid, uid = _peer(connection)
        if uid != os.getuid():
            _LOG.warning("process %d of user %d was refused at the control socket", pid, uid)
            _send(connection, _refusal("this process answers only the user it runs as"))
            return
        try:
            name, arguments = _read_request(_read_line(connection, _MOST_REQUEST, _REQUEST_S))
            answer = self._answer(name, arguments, pid)
        except ClusterCoreError as error:
            _send(connection, _refusal(str(error)))
        except Exception as error:  # noqa: BLE001 -- it must not end the answering
            _LOG.exception("a request at the control socket failed")
            _send(connection, _refusal(f"it failed: {type(error).__name__}; see the log"))
        else:
            _send(connection, {"ok": True, "answer": answer})

    def _answer(self, name: str, arguments: dict[str, Any], pid: int) -> _Answer:
        if name == "status":
            return self._status()
        _LOG.info("process %d asks: %s %s", pid, name, arguments or "")
        future = self._submit(name, arguments)
        try:
            return future.result(COMMANDS[name].seconds)
        except concurrent.futures.TimeoutError:
            # A stop stays wanted. Anything else must not happen after it was said to have failed.
            dropped = name != "stop" and future.cancel()
            became = "it was given up; try again" if dropped else "it is still waiting to be done"
            raise ControlError(
                f"the trading thread did not answer {name} within {COMMANDS[name].seconds:g} s; "
                f"{became}, and look at `clustercore status` and the log",
                reason="timeout",
            ) from None


def _make_private(folder: Path) -> None:
    """Make the folder, or check that nobody else can put something into it or look inside."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        found = folder.lstat()
        if stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid():
            folder.chmod(0o700)
            return
    except OSError as error:
        raise ControlError(
            f"{folder} cannot be made: {error.strerror or error}; "
            "set XDG_RUNTIME_DIR to a folder of your own",
            reason="unsafe",
        ) from error
    raise ControlError(
        f"{folder} is not a folder of this user, so others could reach the control socket; "
        "remove it, or set XDG_RUNTIME_DIR to a folder of your own",
        reason="unsafe",
    )


def _take_lock(path: Path) -> int:
    """Return the lock that says this process lives; it ends with the process, however that ends."""
    file = path.with_suffix(".lock")
    try:
        lock = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ControlError(
            f"{file} cannot be opened: {error.strerror or error}; remove it", reason="unsafe"
        ) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        holder = os.pread(lock, 20, 0).decode("ascii", "replace").strip()
        os.close(lock)
        raise ControlError(
            f"another process{f' ({holder})' if holder else ''} runs on this database; "
            "see `clustercore status`, or end it with `clustercore stop`",
            reason="running",
        ) from None
    os.truncate(lock, 0)
    os.pwrite(lock, str(os.getpid()).encode(), 0)
    return lock


def _listen(path: Path) -> socket.socket:
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # We hold the lock, so a socket that is there belongs to a process that died.
        path.unlink(missing_ok=True)
        with _address(path) as address:
            listening.bind(address)
        path.chmod(0o600)
        listening.listen(_MOST_WAITING)
    except OSError as error:
        listening.close()
        raise ControlError(
            f"{path} cannot be listened on: {error.strerror or error}; "
            "set XDG_RUNTIME_DIR to a folder of your own",
            reason="unsafe",
        ) from error
    return listening


@contextlib.contextmanager
def _address(path: Path) -> Iterator[str]:
    """Yield an address of the socket that is short enough, whatever the length of its path."""
    if len(os.fsencode(path)) <= _LONGEST_ADDRESS:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def _peer(connection: socket.socket) -> tuple[int, int]:
    """Return process and user at the other end, as the kernel knows them."""
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, _ = _CREDENTIALS.unpack(raw)
    return pid, uid


def _read_line(connection: socket.socket, most: int, seconds: float) -> bytes:
    """Return one line, which must be whole after so many seconds, however slowly it comes."""
    until = time.monotonic() + seconds
    line = bytearray()
    while b"\n" not in line:
        left = until - time.monotonic()
        if left <= 0:
            raise ControlError(f"no whole line came within {seconds:g} s", reason="timeout")
        connection.settimeout(left)
        try:
            block = connection.recv(65_536)
        except TimeoutError:
            continue
        if not block:
            raise ControlError("the other end closed before its line was whole", reason="broken")
        line += block
        if len(line) > most:
            raise ControlError(f"the line is longer than {most} bytes", reason="broken")
    return bytes(line.partition(b"\n")[0])


def _send(connection: socket.socket, answer: _Answer) -> None:
    connection.settimeout(_REQUEST_S)
    connection.sendall(json.dumps(answer, default=str).encode() + b"\n")


def _refusal(problem: str) -> _Answer:
    return {"ok": False, "error": problem}


def _read_request(line: bytes) -> tuple[str, dict[str, Any]]:
    expected = 'one line of JSON such as {"command": "status"}'
    try:
        request = json.loads(line)
    except (ValueError, RecursionError):
        raise ControlError(f"that is not JSON; expected {expected}", reason="refused") from None
    if not isinstance(request, dict) or not isinstance(request.get("command"), str):
        raise ControlError(f"there is no command in it; expected {expected}", reason="refused")
    name = request.pop("command")
    _check_request(name, request)
    return name, request


def _check_request(name: str, arguments: Mapping[str, object]) -> None:
    if name not in COMMANDS:
        raise ControlError(
            f"there is no command {name!r}; there are {', '.join(COMMANDS)}", reason="refused"
        )
    for argument, value in arguments.items():
        if argument not in COMMANDS[name].arguments:
            raise ControlError(f"{name} takes no argument {argument!r}", reason="refused")
        if not isinstance(value, str):
            raise ControlError(f"{argument} of {name} must be text", reason="refused")


# The client.


def ask(database: str | Path, command: str, **arguments: str | None) -> _Answer:
    """Ask the live process of a database, and return its answer.

    Parameters
    ----------
    database : path
        The store of the live process.
    command : str
        ``status``, ``stop``, ``reset-halt`` or ``snapshot``.
    **arguments : str or None
        ``root`` of ``reset-halt``; None is left out.

    Returns
    -------
    dict
        What the process answered; for ``status`` that is ``Status.to_dict()``.

    Raises
    ------
    ControlError
        Nothing runs on this database, or the process refused or did not answer.

    Examples
    --------
    >>> ask("/nowhere/live.duckdb", "status")
    Traceback (most recent call last):
    clustercore.live.control.ControlError: nothing runs on /nowhere/live.duckdb; ...
    """
    given = {name: value for name, value in arguments.items() if value is not None}
    _check_request(command, given)
    with _connected(Path(database)) as connection:
        try:
            # Who refuses us may have closed already, and its answer can still be read.
            with contextlib.suppress(BrokenPipeError):
                _send(connection, {"command": command, **given})
            line = _read_line(connection, _MOST_ANSWER, COMMANDS[command].seconds + _MARGIN_S)
        except ControlError as error:
            raise ControlError(
                f"the live process did not answer {command}: {error.problem}; see its log",
                reason=error.reason,
            ) from None
        except OSError as error:
            raise ControlError(
                f"the live process went away before it answered {command} ({error.strerror}); "
                "see its log",
                reason="broken",
            ) from None
    return _read_answer(line)


def _connected(database: Path) -> socket.socket:
    for path in _places(database, os.environ):
        connection = _connect(path)
        if connection is None:
            continue
        if _peer(connection)[1] == os.getuid():
            return connection
        connection.close()
        raise ControlError(
            f"the process behind {path} belongs to another user; remove the socket",
            reason="unsafe",
        )
    raise ControlError(
        f"nothing runs on {database}; start it with: clustercore live --db "
        f"{shlex.quote(str(database))}",
        reason="not_running",
    )


def _connect(path: Path) -> socket.socket | None:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(_REQUEST_S)
    try:
        with _address(path) as address:
            connection.connect(address)
    except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError):
        connection.close()
        return None
    except OSError as error:
        connection.close()
        denied = isinstance(error, PermissionError)
        advice = "ask as the user that runs the live process" if denied else "try again"
        raise ControlError(
            f"{path} cannot be reached: {error.strerror or error}; {advice}",
            reason="unsafe" if denied else "timeout",
        ) from None
    return connection


def _read_answer(line: bytes) -> _Answer:
    try:
        answer = json.loads(line)
        if answer["ok"]:
            return dict(answer["answer"])
        problem = str(answer["error"])
    except (ValueError, KeyError, TypeError):
        raise ControlError(
            "the live process answered something else than clustercore does; "
            "is it of another version?",
            reason="broken",
        ) from None
    raise ControlError(problem, reason="refused")
