"""The vendor's library, imported without what its import does to the rest of the process."""

from __future__ import annotations

import importlib
import logging
import threading
import warnings
from types import ModuleType
from typing import Any

from clustercore.errors import ConfigError

__all__ = ["import_databento", "record_decoder"]

_LOCK = threading.Lock()


class _WithoutLogin(logging.Filter):
    """Leaves out the records of a login: they show the answer and the end of the key."""

    def filter(self, record: logging.LogRecord) -> bool:
        return "CRAM challenge" not in str(record.msg)


_FILTER = _WithoutLogin()


def import_databento() -> ModuleType:
    """Return the module ``databento``; warning filters stay as they are, logins are not logged.

    Raises
    ------
    ConfigError
        The library is not installed.

    Examples
    --------
    >>> import_databento().__name__
    'databento'
    """
    with _LOCK:
        # The import shows every deprecation from then on, of any library, and pandas has some.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            module = _import()
        # A filter on a parent is not asked about the records of its children.
        logger = logging.getLogger("databento.live.protocol")
        if _FILTER not in logger.filters:
            logger.addFilter(_FILTER)
    return module


def record_decoder(header: bytes) -> Any:  # noqa: ANN401 -- the vendor's decoder
    """Return the vendor's decoder for the records that follow a header."""
    import_databento()
    decoder = importlib.import_module("databento_dbn").DBNDecoder()
    decoder.write(header)
    decoder.decode()
    return decoder


def _import() -> ModuleType:
    try:
        return importlib.import_module("databento")
    except ModuleNotFoundError as error:
        raise ConfigError(
            "live trading needs a library that is not installed; "
            "install it with: pip install 'clustercore[live]'",
            field="live",
            found=f"no module {error.name}",
        ) from None
