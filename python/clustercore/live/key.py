"""The API key: read once at the edge, shown nowhere, inherited by nobody."""

from __future__ import annotations

import logging
import os
import re
import stat
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from typing import Final, NoReturn

from clustercore.errors import ConfigError
from clustercore.live.logs import register_secret

__all__ = [
    "KEY_VARIABLE",
    "PRIVATE_MODES",
    "SECRET_VARIABLES",
    "Key",
    "clean_environ",
    "file_mode",
    "read_key",
    "read_variable",
]

KEY_VARIABLE: Final = "DATABENTO_API_KEY"
# Addresses of alerts carry passwords and tokens in them.
SECRET_VARIABLES: Final = (KEY_VARIABLE, "CLUSTERCORE_ALERTS")

_LOG = logging.getLogger(__name__)
_LENGTH: Final = 32
_PREFIX: Final = "db-"
_MOST_BYTES: Final = 1_000_000
# What a file with a secret may be: readable by its owner alone.
PRIVATE_MODES: Final = frozenset({0o600, 0o400})


class Key:
    """An API key that shows itself only when asked to by name.

    Parameters
    ----------
    text : str
        The key: 32 characters that begin with ``db-``.
    source : str
        Where it was found, for messages.

    Raises
    ------
    ConfigError
        It is not well-formed. The message does not hold the key.

    Examples
    --------
    >>> key = Key("db-rehearsal-only-not-a-secret-0")
    >>> key
    Key(hidden)
    >>> f"{key}"
    'Key(hidden)'
    >>> len(key.reveal())
    32
    """

    __slots__ = ("_text", "source")

    def __init__(self, text: str, source: str = "given") -> None:
        # A key with a letter too many is still nearly a key; a short word is in every log.
        if len(text) >= _LENGTH // 2:
            register_secret(text)
        _check_form(text, source)
        self._text = text
        self.source = source

    def reveal(self) -> str:
        """Return the key itself, for the vendor's client."""
        return self._text

    def __repr__(self) -> str:
        return "Key(hidden)"

    __str__ = __repr__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Key) and other._text == self._text

    def __hash__(self) -> int:
        return hash(self._text)

    def __reduce__(self) -> NoReturn:
        # Whatever is pickled or copied ends up in a file or in another process.
        raise TypeError("a key cannot be pickled or copied; read it again where it is needed")


def read_key(
    environ: MutableMapping[str, str] = os.environ, folder: str | Path | None = None
) -> Key:
    """Read the key from the environment, or else from ``.env``, and take it out of the environment.

    Parameters
    ----------
    environ : mutable mapping
        Looked at first. The key is removed from it.
    folder : path, optional
        Folder of ``.env``; the working directory when absent. Only this variable is read from it,
        and nothing of it enters the environment.

    Returns
    -------
    Key
        The key; it knows where it came from.

    Raises
    ------
    ConfigError
        There is none, it is not well-formed, or ``.env`` cannot be read.

    Examples
    --------
    >>> environ = {"DATABENTO_API_KEY": "db-" + 29 * "x"}
    >>> read_key(environ).source, environ
    ('the environment', {})
    """
    text, source = read_variable(KEY_VARIABLE, environ, folder)
    if text is None:
        raise ConfigError(
            f"there is no API key; export {KEY_VARIABLE}, or write a line "
            f"{KEY_VARIABLE}=db-... to a file .env in the working directory (mode 0600)",
            field=KEY_VARIABLE,
        )
    return Key(text, source)


def read_variable(
    name: str,
    environ: MutableMapping[str, str] = os.environ,
    folder: str | Path | None = None,
) -> tuple[str | None, str]:
    """Return a secret and where it was found, and take it out of the environment.

    Parameters
    ----------
    name : str
        The variable.
    environ : mutable mapping
        Looked at first; an empty value counts as none.
    folder : path, optional
        Folder of ``.env``; the working directory when absent.

    Returns
    -------
    tuple of (str or None, str)
        The value, None when there is none, and its source for messages.

    Raises
    ------
    ConfigError
        ``.env`` is there and cannot be read.

    Examples
    --------
    >>> read_variable("ABSENT", {}, "/")
    (None, 'nowhere')
    """
    # Children are started with a copy of our environment, and crash reports print it. So a secret
    # leaves it as soon as it has been read. (The kernel keeps the block with which the process was
    # started in /proc/PID/environ, which only the same user can read; `.env` avoids that too.)
    exported = environ.pop(name, "").strip()
    if exported:
        return exported, "the environment"
    file = Path.cwd() / ".env" if folder is None else Path(folder) / ".env"
    written = _from_file(file, name)
    return (written, str(file)) if written else (None, "nowhere")


def clean_environ(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return an environment for a child process: the same without secrets.

    Examples
    --------
    >>> clean_environ({"PATH": "/bin", "DATABENTO_API_KEY": "db-..."})
    {'PATH': '/bin'}
    """
    return {name: value for name, value in environ.items() if name not in SECRET_VARIABLES}


def file_mode(folder: str | Path | None = None) -> int | None:
    """Return the mode of ``.env``, None when there is no such file.

    Examples
    --------
    >>> file_mode("/nowhere") is None
    True
    """
    file = Path.cwd() / ".env" if folder is None else Path(folder) / ".env"
    try:
        found = file.stat().st_mode
        return stat.S_IMODE(found) if stat.S_ISREG(found) else None
    except OSError:
        return None


def _check_form(text: str, source: str) -> None:
    """Refuse what cannot be a key; the vendor's client checks nothing and times out instead."""
    if not text.isascii() or not text.isprintable() or " " in text:
        found = "spaces or characters that no key has"
    elif not text.startswith(_PREFIX):
        found = "another beginning"
    elif len(text) != _LENGTH:
        found = f"{len(text)} characters"
    else:
        return
    raise ConfigError(
        f"the key from {source} is not well-formed; copy it again from Databento's portal",
        field=KEY_VARIABLE,
        found=found,
        expected=f"{_LENGTH} characters that begin with {_PREFIX}",
    )


def _from_file(file: Path, name: str) -> str | None:
    try:
        if file.exists() and not file.is_file():
            # Opening a pipe would wait for somebody to write to it.
            raise ConfigError(
                f"{file} is no file; write one, or export {name} instead",
                field=name,
                expected="a file of mode 0600",
            )
        with file.open("rb") as opened:
            mode = stat.S_IMODE(os.fstat(opened.fileno()).st_mode)
            written = opened.read(_MOST_BYTES)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigError(
            f"{file} cannot be read: {error.strerror or error}; "
            f"give this user the right to read it, or export {name} instead",
            field=name,
        ) from None
    found = _parse(written.decode("utf-8-sig", errors="replace"), name)
    if not found and b"\0" in written:
        # UTF-16, as some editors save it: no name would be found in it.
        raise ConfigError(
            f"{file} is not UTF-8 text; save it as UTF-8, or export {name} instead", field=name
        )
    if found and mode not in PRIVATE_MODES:
        _LOG.warning(
            "%s holds a secret and has mode %04o; keep it to yourself with: chmod 600 %s",
            file,
            mode,
            file,
        )
    return found


def _parse(text: str, name: str) -> str | None:
    """Return the last value of one variable; quotes, ``export`` and comments are understood."""
    line = re.compile(
        rf"""^[ \t]*(?:export[ \t]+)?{re.escape(name)}[ \t]*=[ \t]*
        (?: "(?P<double>[^"\n]*)" | '(?P<single>[^'\n]*)' | (?P<bare>[^\n]*?) )
        [ \t]*(?:(?<=[ \t"'])\#[^\n]*)?\r?$""",
        re.MULTILINE | re.VERBOSE,
    )
    values = [
        next(value for value in match.groups() if value is not None)
        for match in line.finditer(text)
    ]
    return values[-1].strip() or None if values else None
