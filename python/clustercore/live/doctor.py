"""What could keep tomorrow from working, asked today: a line each, pass or fail and what to do.

The questions come in as callables, so that each answer can be tried out. A question that could not
be asked, because it needs something that failed before, is neither a pass nor a fail.
"""

from __future__ import annotations

import email.utils
import http.client
import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from clustercore.errors import ClusterCoreError
from clustercore.live.disk import free_bytes
from clustercore.live.key import PRIVATE_MODES
from clustercore.live.status import utc_text

if TYPE_CHECKING:
    import polars as pl

    from clustercore.live.key import Key
    from clustercore.sessions import Sessions

__all__ = ["Check", "Probes", "exit_code", "run_doctor", "server_time"]

_NANOS: Final = 1_000_000_000
_DAY_NS: Final = 86_400 * _NANOS
_MB: Final = 1_000_000
_WORST_SKEW_S: Final = 2.0
_FEWEST_DAYS: Final = 30
# History of an exchange ends some hours back; a weekend with a holiday is the longest pause.
_OLDEST_END_NS: Final = 5 * _DAY_NS

# The vendor has no question for it.
_ENTITLEMENT: Final = (
    "that the plan has it live too, only a connection proves: `clustercore live` says FATAL if not"
)

_Found = TypeVar("_Found")


@dataclass(frozen=True)
class Check:
    """One line of the doctor.

    Attributes
    ----------
    name : str
        What was looked at.
    ok : bool or None
        None when it could not be asked.
    found : str
        What there is.
    advice : str
        What to do; empty on a pass.
    """

    name: str
    ok: bool | None
    found: str
    advice: str = ""


@dataclass(frozen=True, kw_only=True)
class Probes:
    """How each question is asked; a probe that is None is not asked.

    Attributes
    ----------
    key : callable
        Returns the API key, or raises.
    env_mode : callable
        Returns the mode of ``.env``, None when there is none.
    now : callable
        Returns the wall time, ns UTC.
    available_end : callable, optional
        Returns until when the account has history of the data set, ns UTC, or raises.
    leads : callable, optional
        Returns the month in front of each product, such as ``{"ES": "ESZ6"}``.
    server_time : callable, optional
        Returns the time of a server, ns UTC, to the second.
    database : Path
        The store; it need not exist.
    opened : callable
        Opens the store for writing and closes it again, or raises.
    history : callable, optional
        Returns how many sessions of each product the store holds.
    sessions_needed : int
        Sessions that the configuration asks for.
    bar_starts : callable, optional
        Returns the starts of the stored bars, Series of Int64, ns UTC.
    is_local : bool
        Whether a gateway on this machine is asked, which needs no key and no account.
    sessions : Sessions
        The session table.
    free : callable
        Returns the free bytes at a path.
    floor_bytes : int
        Free space below which nothing is acted on.
    """

    key: Callable[[], Key]
    env_mode: Callable[[], int | None]
    now: Callable[[], int]
    database: Path
    opened: Callable[[], None]
    sessions: Sessions
    available_end: Callable[[], int] | None = None
    leads: Callable[[], Mapping[str, str]] | None = None
    server_time: Callable[[], int] | None = None
    history: Callable[[], Mapping[str, int]] | None = None
    bar_starts: Callable[[], pl.Series] | None = None
    sessions_needed: int = 1
    is_local: bool = False
    free: Callable[[Path], int] = free_bytes
    floor_bytes: int = 500 * _MB


def run_doctor(probes: Probes) -> list[Check]:
    """Ask every question, whatever becomes of the others.

    Parameters
    ----------
    probes : Probes
        The questions.

    Returns
    -------
    list of Check
        One line each, in the order in which a failure explains those below it.
    """
    key = _asked("key", probes.key, _judge_key, "see Databento's portal, API keys")
    checks = [key, _check_env(probes)]
    checks += _check_account(probes, has_key=bool(key.ok))
    checks.append(_check_clock(probes))
    checks.append(_check_database(probes))
    checks.append(_check_history(probes))
    checks.append(_check_disk(probes))
    checks.append(_check_table_end(probes.sessions, probes.now()))
    checks.append(_check_bars(probes))
    return checks


def exit_code(checks: Sequence[Check]) -> int:
    """Return 1 when a check failed, else 0.

    Examples
    --------
    >>> exit_code([Check("key", True, "well-formed"), Check("clock", None, "not asked")])
    0
    >>> exit_code([Check("key", False, "none")])
    1
    """
    return int(any(check.ok is False for check in checks))


def server_time(connection: http.client.HTTPConnection, path: str = "/") -> int:
    """Return the time that a web server puts into its answers, ns UTC, cut to the second.

    Parameters
    ----------
    connection : HTTPConnection
        To the server, with a timeout; closed afterwards.
    path : str
        What is asked for; any answer will do.

    Raises
    ------
    OSError
        The server did not answer, or its answer has no time.
    """
    try:
        connection.request("HEAD", path)
        said = connection.getresponse().headers.get("Date", "")
        return int(email.utils.parsedate_to_datetime(said).timestamp()) * _NANOS
    except (http.client.HTTPException, ValueError) as error:
        raise OSError(f"no time in the answer of {connection.host}: {error}") from error
    finally:
        connection.close()


def _asked(
    name: str,
    probe: Callable[[], _Found] | None,
    judge: Callable[[_Found], Check],
    advice: str,
) -> Check:
    if probe is None:
        return Check(name, None, "not asked")
    try:
        return judge(probe())
    except ClusterCoreError as error:
        if getattr(error, "reason", "") == "locked":
            return Check(name, None, str(error), "nothing, if that is the live process")
        return Check(name, False, str(error), advice)
    except OSError as error:
        return Check(name, False, str(error.strerror or error), advice)
    except Exception as error:  # noqa: BLE001 -- the other lines matter all the more
        return Check(name, False, f"{type(error).__name__}: {error}", advice)


def _judge_key(key: Key) -> Check:
    return Check("key", True, f"well-formed, from {key.source}")


def _check_env(probes: Probes) -> Check:
    def judge(mode: int | None) -> Check:
        if mode is None:
            return Check(".env", True, "there is none")
        private = mode in PRIVATE_MODES
        return Check(".env", private, f"mode {mode:04o}", "" if private else "run: chmod 600 .env")

    return _asked(".env", probes.env_mode, judge, "check that this folder can be read")


def _check_account(probes: Probes, *, has_key: bool) -> list[Check]:
    if not has_key:
        return [Check(name, None, "not asked: no key") for name in ("data set", "contract")]

    def judge_end(end: int) -> Check:
        if probes.now() - end <= _OLDEST_END_NS:
            return Check("data set", True, f"history until {utc_text(end)}; {_ENTITLEMENT}")
        return Check(
            "data set",
            False,
            f"history only until {utc_text(end)}",
            "see the account's plan and the data set's condition at Databento",
        )

    def judge_leads(leads: Mapping[str, str]) -> Check:
        missing = [root for root, contract in leads.items() if not contract]
        found = ", ".join(f"{root}: {contract or 'none'}" for root, contract in leads.items())
        if leads and not missing:
            return Check("contract", True, found)
        return Check("contract", False, found or "none", "check --symbol and the data set")

    if probes.leads is None:
        contract = Check(
            "contract",
            None,
            "not asked: there is neither a store nor a historical server",
            "nothing: the live process chooses it, and `clustercore status` shows it",
        )
    else:
        advice = "check --symbol, and that history answers"
        contract = _asked("contract", probes.leads, judge_leads, advice)
    advice = "check the network, the key and the account's plan"
    if probes.is_local:
        advice = "start the gateway, or pass its address with --gateway"
    data_set = _asked("data set", probes.available_end, judge_end, advice)
    if data_set.ok is False and contract.found == data_set.found:
        # The same failure; once is enough.
        contract = Check("contract", None, "not asked: the line above says why")
    return [data_set, contract]


def _check_clock(probes: Probes) -> Check:
    if probes.server_time is None:
        return Check("clock", None, "not asked")
    ask = probes.server_time

    def measured() -> tuple[float, float]:
        before = probes.now()
        # A server cuts its time to the second, so half of one is the better guess.
        server = ask() + _NANOS // 2
        after = probes.now()
        skew = ((before + after) // 2 - server) / _NANOS
        return skew, 0.5 + (after - before) / 2 / _NANOS

    def judge(found: tuple[float, float]) -> Check:
        skew, doubt = found
        said = f"{abs(skew):.1f} s {'ahead' if skew > 0 else 'behind'}, give or take {doubt:.1f} s"
        if abs(skew) - doubt > _WORST_SKEW_S:
            return Check("clock", False, said, "switch time synchronisation on: timedatectl")
        if doubt > _WORST_SKEW_S:
            return Check("clock", None, f"the answer took too long: {said}", "try again")
        return Check("clock", True, said)

    return _asked("clock", measured, judge, "check the network; the clock was not compared")


def _check_database(probes: Probes) -> Check:
    if not probes.database.exists():
        return _check_new_database(probes.database)
    passed = Check("database", True, f"{probes.database} can be written")
    return _asked(
        "database", probes.opened, lambda _: passed, "see the part on the store in docs/failures.md"
    )


def _check_new_database(database: Path) -> Check:
    folder = database.absolute().parent
    if not folder.exists():
        return Check(
            "database",
            False,
            f"{database} cannot be made: there is no folder {folder}",
            f"make it: mkdir -p {shlex.quote(str(folder))}",
        )
    if folder.is_dir() and os.access(folder, os.W_OK | os.X_OK):
        return Check("database", True, f"{database} will be made")
    return Check(
        "database",
        False,
        f"{database} cannot be made: {folder} is not writable",
        "pass another path with --db, or give this user the right to write there",
    )


def _check_history(probes: Probes) -> Check:
    def judge(counts: Mapping[str, int]) -> Check:
        needed = probes.sessions_needed
        short = sorted(root for root, count in counts.items() if count < needed)
        found = ", ".join(f"{root}: {_sessions(count)}" for root, count in counts.items())
        found = f"{found or 'none stored'}; {needed} needed"
        if counts and not short:
            return Check("history", True, found)
        return Check(
            "history",
            None,
            found,
            "nothing: the live process fetches what is missing when it starts, within its budget",
        )

    return _asked("history", probes.history, judge, "see the line of the database")


def _sessions(count: int) -> str:
    return f"{count} session" if count == 1 else f"{count} sessions"


def _check_disk(probes: Probes) -> Check:
    def judge(free: int) -> Check:
        found = f"{free // _MB} MB free, floor {probes.floor_bytes // _MB} MB"
        if free >= probes.floor_bytes:
            return Check("disk", True, found)
        return Check("disk", False, found, "make room, or lower live.disk_floor_mb")

    return _asked(
        "disk", lambda: probes.free(probes.database), judge, "check that the disk is mounted"
    )


def _check_table_end(sessions: Sessions, now: int) -> Check:
    if not len(sessions):
        return Check("session table", False, "empty", "install clustercore again")
    end = int(sessions.close_ns[-1])
    days = (end - now) // _DAY_NS
    if days >= _FEWEST_DAYS:
        return Check("session table", True, f"until {utc_text(end)}, {days} days left")
    left = f"{days} days left" if days >= 0 else "which has passed"
    return Check(
        "session table",
        False,
        f"until {utc_text(end)}, {left}",
        "install a newer clustercore; no bar after that belongs to a session",
    )


def _check_bars(probes: Probes) -> Check:
    def judge(starts: pl.Series) -> Check:
        if not len(starts):
            return Check("bars in sessions", None, "no bars stored yet")
        rows = probes.sessions.locate(starts)
        outside = rows.is_null()
        inside = rows.drop_nulls()
        found = f"{len(inside)} bars in {inside.n_unique()} sessions"
        if not outside.any():
            return Check("bars in sessions", True, found)
        first = int(starts.filter(outside).sort()[0])
        return Check(
            "bars in sessions",
            False,
            f"{found}; {int(outside.sum())} in no session, the first at {utc_text(first)}",
            "these were not acted on; a newer clustercore may know the hours of that day, "
            "and instrument.calendar must be the product's",
        )

    return _asked("bars in sessions", probes.bar_starts, judge, "see the line of the database")
