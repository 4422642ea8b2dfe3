"""From arguments to an exit code: every way a command can end is decided here."""

from __future__ import annotations

import io
import logging
import os
import sys
from collections.abc import Sequence

from cyclopts import CycloptsError

from clustercore.cli.hints import hint
from clustercore.cli.wording import as_options, usage
from clustercore.errors import ClusterCoreError, ConfigError, DataError, EngineBusy, InternalError

__all__ = ["BAD_INPUT", "FAULT", "FOUND", "INTERRUPTED", "OK", "PIPE_CLOSED", "main"]

OK = 0
FOUND = 1
BAD_INPUT = 2
FAULT = 3
INTERRUPTED = 130
PIPE_CLOSED = 141

_QUERY_INTERRUPTED = "Query interrupted"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Parameters
    ----------
    arguments : sequence of str, optional
        What stands after the program's name; that of the process when left out.

    Returns
    -------
    int
        0 done, 1 a check found something, 2 bad input or usage, 3 a fault of the program,
        130 interrupted, 141 the reader of the output went away.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    _take_any_letter()
    debug = "--debug" in given
    # The live process has a log, which gets it all.
    if debug and given[:1] != ["live"]:
        _log_to_stderr()
    try:
        code = _dispatch(given)
        sys.stdout.flush()
    except GeneratorExit:
        raise
    except BaseException as error:  # noqa: BLE001 -- a panic in a compiled library is no Exception
        return _ended_by(error, debug=debug)
    return code


def _ended_by(error: BaseException, *, debug: bool) -> int:
    """Say what ended a command, and return its exit code."""
    if _is_closed_pipe(error):
        _forget_output()
        return PIPE_CLOSED
    if isinstance(error, SystemExit):
        raise error
    if _is_interrupt(error):
        _say("interrupted")
        return INTERRUPTED
    if isinstance(error, CycloptsError):
        _say(usage(error))
        return BAD_INPUT
    if isinstance(error, ClusterCoreError) and not isinstance(error, EngineBusy | InternalError):
        said = str(error)
        if isinstance(error, DataError | ConfigError):
            said = f"{as_options(said)}{hint(error)}"
        _say(said)
        return BAD_INPUT
    _report_fault(error, debug=debug)
    return FAULT


def _is_closed_pipe(error: BaseException) -> bool:
    """Return whether the reader went away; the library that draws tables makes an exit of that."""
    cause = error.__context__ if isinstance(error, SystemExit) else error
    return isinstance(cause, BrokenPipeError)


def _take_any_letter() -> None:
    """Let the streams write a sign for letters that their encoding does not have."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="replace")


def _is_interrupt(error: BaseException) -> bool:
    """Return whether it was Ctrl-C, of which the database library makes an error of its own."""
    made = isinstance(error, RuntimeError) and str(error) == _QUERY_INTERRUPTED
    return made or isinstance(error, KeyboardInterrupt)


def _log_to_stderr() -> None:
    """Show every log record on standard error, secrets taken out: libraries log what they send."""
    from clustercore.live.logs import RedactingFilter

    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(RedactingFilter())
    logging.basicConfig(level=logging.DEBUG, handlers=[handler])


def _dispatch(arguments: list[str]) -> int:
    from clustercore.cli.app import app

    code = app(arguments, result_action="return_value")
    return code if isinstance(code, int) else OK


def _report_fault(error: BaseException, *, debug: bool) -> None:
    from clustercore.live.logs import redact

    if debug:
        import traceback

        sys.stderr.write(redact("".join(traceback.format_exception(error))))
    busy = isinstance(error, EngineBusy)
    # Whatever failed may have been given an address or a key, and say it.
    _say(
        f"fault: {type(error).__name__}: {redact(str(error))}. "
        + ("" if busy else "This is a fault of clustercore, not of your input. ")
        + "Please report it with the output of `clustercore versions` and of this command "
        + ("above." if debug else "run again with --debug.")
    )


def _say(text: str) -> None:
    """Write one line to standard error; what comes from a file cannot steer the terminal."""
    one_line = " ".join(text.split())
    clean = "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in one_line
    )
    try:
        sys.stderr.write(f"clustercore: {clean}\n")
        sys.stderr.flush()
    except BrokenPipeError:
        _forget_output()


def _forget_output() -> None:
    """Send what is still buffered nowhere, so that the interpreter can end without a complaint."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        try:
            os.dup2(nowhere, stream.fileno())
        except (OSError, ValueError, AttributeError):
            continue
    os.close(nowhere)
