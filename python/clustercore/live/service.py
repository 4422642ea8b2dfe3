"""A systemd unit for the live process: started at boot, watched, and able to write little."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from clustercore.errors import ConfigError

__all__ = ["UNIT_NAME", "Installed", "check_folder", "install", "live_command", "unit_text"]

UNIT_NAME: Final = "clustercore-live.service"

_MARK: Final = "# Written by `clustercore service install`; changes belong in a drop-in file."
_SECRET: Final = re.compile(r"db-[A-Za-z0-9_-]{29}")
# What PrivateTmp hides.
_TEMPORARY: Final = ("/tmp", "/var/tmp")  # noqa: S108 -- refused, not used
_PLAIN: Final = re.compile(r"[A-Za-z0-9_@%+=:,./-]+")

_TEMPLATE: Final = """\
{mark}
# Drop-in file: systemctl --user edit {name}
[Unit]
Description=clustercore live trading
Documentation=https://www.freedesktop.org/software/systemd/man/systemd.service.html
StartLimitIntervalSec=600
StartLimitBurst=10

[Service]
Type=notify
NotifyAccess=main
ExecStart={command}
WorkingDirectory={folder}
{environment}\
# The data loop feeds the watchdog; when the loop hangs, the process is restarted.
WatchdogSec={watchdog_s}
TimeoutStartSec=1800
Restart=on-failure
RestartSec=5
# Somebody must look first: 1 is a refusal for good or a difference, 2 unusable input.
RestartPreventExitStatus=1 2
KillSignal=SIGTERM
KillMode=mixed
TimeoutStopSec=10
UMask=0077
# A memory image would hold the key.
LimitCORE=0
NoNewPrivileges=yes
ProtectSystem=strict
ReadWritePaths={writable}
RuntimeDirectory=clustercore
RuntimeDirectoryMode=0700
RuntimeDirectoryPreserve=yes
PrivateTmp=yes
LockPersonality=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK

[Install]
WantedBy=default.target
"""


@dataclass(frozen=True)
class Installed:
    """What ``install`` did, or would do.

    Attributes
    ----------
    path : Path
        The unit's file.
    text : str
        What is in it.
    changed : bool
        Whether the file was written, or would be.
    next_steps : tuple of str
        Commands that put it to use.
    """

    path: Path
    text: str
    changed: bool
    next_steps: tuple[str, ...]


def live_command(arguments: Sequence[str]) -> tuple[str, ...]:
    """Return the command that runs live with this installation of Python.

    Examples
    --------
    >>> live_command(["--symbol", "ES"])[1:]
    ('-m', 'clustercore', 'live', '--symbol', 'ES')
    """
    return (sys.executable, "-m", "clustercore", "live", *arguments)


def unit_text(
    arguments: Sequence[str],
    *,
    folder: str | Path,
    writable: Sequence[str | Path],
    environment_file: str | Path | None = None,
    watchdog_s: int = 60,
) -> str:
    """Return the text of the unit.

    Parameters
    ----------
    arguments : sequence of str
        What follows ``clustercore live``. A key among them is refused: everybody can read a
        command line.
    folder : path
        Working directory, which is where ``.env`` is looked for.
    writable : sequence of paths
        Folders that the process may write to: that of the database, and that of its output. They
        must exist when it starts. The rest of the disk is read-only.
    environment_file : path, optional
        A file of variables for the process, mode 0600; not needed where ``.env`` has the key.
    watchdog_s : int
        Seconds without a sign of life after which the process is restarted.

    Returns
    -------
    str
        The unit.

    Raises
    ------
    ConfigError
        A key is among the arguments, or a text cannot stand in a unit.

    Examples
    --------
    >>> text = unit_text(["--symbol", "ES"], folder="/srv/es", writable=["/srv/es"])
    >>> [line for line in text.splitlines() if line.startswith(("Type", "ReadWrite"))]
    ['Type=notify', 'ReadWritePaths=/srv/es']
    """
    for argument in arguments:
        if _SECRET.search(argument):
            raise ConfigError(
                "a key on the command line can be read by everybody on the machine; "
                "put it into .env in the working directory (mode 0600)",
                field="service",
            )
    environment = (
        "" if environment_file is None else f"EnvironmentFile={_single(environment_file)}\n"
    )
    return _TEMPLATE.format(
        mark=_MARK,
        name=UNIT_NAME,
        command=" ".join(map(_argument, live_command(arguments))),
        folder=_single(folder),
        environment=environment,
        watchdog_s=watchdog_s,
        writable=" ".join(_quoted(_absolute(path)) for path in writable),
    )


def check_folder(folder: Path) -> None:
    """Refuse a folder that the process would not find when it starts.

    Raises
    ------
    ConfigError
        It is not there, or it is one of temporary files, of which the process has its own.
    """
    if not folder.is_dir():
        raise ConfigError(
            "there is no such folder; make it first",
            field="service",
            found=str(folder),
            expected="a folder that is there when the process starts",
        )
    for temporary in _TEMPORARY:
        if folder.resolve().is_relative_to(temporary):
            raise ConfigError(
                f"the process has a {temporary} of its own, in which nothing of this is",
                field="service",
                found=str(folder),
                expected="a folder that lasts, for the database and as the working directory",
            )


def install(
    text: str, *, dry_run: bool = False, environ: Mapping[str, str] = os.environ
) -> Installed:
    """Write the unit to the user's own units.

    Parameters
    ----------
    text : str
        From ``unit_text``.
    dry_run : bool
        Write nothing.
    environ : mapping
        ``XDG_CONFIG_HOME`` and ``HOME`` say where the user's units are.

    Returns
    -------
    Installed
        What was done or would be, and what comes next. Nothing is enabled or started.

    Raises
    ------
    ConfigError
        There is a unit of this name that somebody else wrote, or it cannot be written.

    Examples
    --------
    >>> unit = unit_text([], folder="/srv", writable=["/srv"])
    >>> install(unit, dry_run=True, environ={"HOME": "/nowhere"}).path.as_posix()
    '/nowhere/.config/systemd/user/clustercore-live.service'
    """
    path = _units(environ) / UNIT_NAME
    try:
        there = path.read_text(encoding="utf-8") if path.exists() else None
        if there is not None and not there.startswith(_MARK):
            raise ConfigError(
                f"{path} was not written by this command; move it away first", field="service"
            )
        if there != text and not dry_run:
            path.parent.mkdir(parents=True, exist_ok=True)
            part = path.with_name(f".{path.name}.{os.getpid()}.part")
            part.write_text(text, encoding="utf-8")
            part.replace(path)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be written: {error}", field="service") from error
    return Installed(path, text, there != text, _next_steps())


def _next_steps() -> tuple[str, ...]:
    return (
        "systemctl --user daemon-reload",
        f"systemctl --user enable --now {UNIT_NAME}",
        "loginctl enable-linger",
    )


def _units(environ: Mapping[str, str]) -> Path:
    configured = environ.get("XDG_CONFIG_HOME", "")
    if configured.startswith("/"):
        return Path(configured) / "systemd" / "user"
    return Path(environ.get("HOME") or Path.home()) / ".config" / "systemd" / "user"


def _argument(text: str) -> str:
    # A dollar sign would begin a variable in a command, and only there.
    return _quoted(text.replace("$", "$$"))


def _quoted(text: str) -> str:
    plain = _checked(text).replace("%", "%%")
    if _PLAIN.fullmatch(plain):
        return plain
    escaped = plain.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _single(path: str | Path) -> str:
    """Return a path for a setting that takes one, and so knows no quotes."""
    return _checked(_absolute(path)).replace("%", "%%")


def _absolute(path: str | Path) -> str:
    return str(Path(path).absolute())


def _checked(text: str) -> str:
    if not text.isprintable():
        raise ConfigError(
            "a line break or an unprintable character cannot stand in a unit",
            field="service",
            found=repr(text),
        )
    return text
