"""How data travels inside the page: escaped JSON, and bars as compressed whole numbers.

A bar block holds one session, column by column, as differences that are mostly small: the start
in bars after the one before, the open less the last close, the close less the open, the high above
and the low below the body, the volume. Each column is written as byte planes (all lowest bytes,
then all next ones) in a deflate block of its own, which brings a minute to about three bytes.
Nothing is rounded: `decode_bars` and its twin in the page give back what went in.
"""

from __future__ import annotations

import base64
import json
import math
import zlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "BarColumns",
    "decode_bars",
    "encode_bars",
    "pack",
    "price_unit",
    "script_json",
    "unpack",
]

_COLUMNS = 6
_PLANE_BITS = 8
_RAW_DEFLATE = -15


class BarColumns(NamedTuple):
    """Bars of one session as whole numbers.

    Attributes
    ----------
    start : ndarray of int64, shape (n_bars,)
        Starts in bar lengths since the session's first bar, ascending from 0.
    open, high, low, close : ndarray of int64, shape (n_bars,)
        Prices in the unit of `price_unit`.
    volume : ndarray of int64, shape (n_bars,)
        Contracts.
    """

    start: NDArray[np.int64]
    open: NDArray[np.int64]
    high: NDArray[np.int64]
    low: NDArray[np.int64]
    close: NDArray[np.int64]
    volume: NDArray[np.int64]


def script_json(value: object) -> str:
    r"""Return JSON that can stand inside a script element whatever texts it holds.

    Parameters
    ----------
    value : object
        Mappings, sequences, texts, numbers, None. Numbers that are not finite become null.

    Examples
    --------
    >>> print(script_json({"symbol": "</script>", "ratio": float("nan")}))
    {"symbol":"\u003c/script\u003e","ratio":null}
    """
    try:
        text = _json(value)
    except ValueError:  # a number that JSON has no word for; looking for it takes a second
        text = _json(_finite(value))
    # Only inside texts can these stand, and there the escape means the same character.
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def _finite(value: object) -> object:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_finite(item) for item in value]
    return value


def pack(data: bytes) -> str:
    """Return bytes as raw deflate in base64, which the page's `inflate` reads.

    Examples
    --------
    >>> unpack(pack(b"bars " * 1000)) == b"bars " * 1000
    True
    """
    engine = zlib.compressobj(6, zlib.DEFLATED, _RAW_DEFLATE)
    return base64.b64encode(engine.compress(data) + engine.flush()).decode("ascii")


def unpack(text: str) -> bytes:
    """Return what `pack` was given."""
    return zlib.decompress(base64.b64decode(text), _RAW_DEFLATE)


def price_unit(prices_nanos: NDArray[np.int64], tick_nanos: int) -> int:
    """Return the largest unit, in 1e-9 points, that every price is a whole multiple of.

    Examples
    --------
    >>> price_unit(np.array([4770_250_000_000, 4771_500_000_000]), 250_000_000)
    250000000
    >>> price_unit(np.array([4770_250_000_000, 4771_100_000_000]), 250_000_000)
    50000000
    """
    if not len(prices_nanos) or not (prices_nanos % tick_nanos).any():
        return tick_nanos
    return int(np.gcd(np.gcd.reduce(prices_nanos), tick_nanos))


def encode_bars(bars: BarColumns) -> bytes:
    """Return bars as one raw deflate stream.

    Examples
    --------
    >>> bar = (0, 19_080, 19_085, 19_079, 19_084, 1_200)
    >>> stream = encode_bars(BarColumns(*(np.array([value]) for value in bar)))
    >>> [int(column[0]) for column in decode_bars(stream)] == list(bar)
    True
    """
    body_high = np.maximum(bars.open, bars.close)
    body_low = np.minimum(bars.open, bars.close)
    columns = (
        np.diff(bars.start, prepend=0),
        _zigzag(bars.open - np.concatenate(([0], bars.close[:-1]))),
        _zigzag(bars.close - bars.open),
        bars.high - body_high,
        body_low - bars.low,
        bars.volume,
    )
    engine = zlib.compressobj(6, zlib.DEFLATED, _RAW_DEFLATE, 9, zlib.Z_FILTERED)
    parts = [engine.compress(len(bars.start).to_bytes(4, "little"))]
    for column in columns:
        parts.append(engine.compress(_planes(column)))
        # The end of a block: the next column gets codes of its own.
        parts.append(engine.flush(zlib.Z_PARTIAL_FLUSH))
    return b"".join([*parts, engine.flush()])


def decode_bars(stream: bytes) -> BarColumns:
    """Return the bars of `encode_bars`."""
    data = zlib.decompress(stream, _RAW_DEFLATE)
    count, place = int.from_bytes(data[:4], "little"), 4
    columns: list[NDArray[Any]] = []
    for _ in range(_COLUMNS):
        column = np.zeros(count, dtype=np.int64)
        for plane in range(data[place]):
            begin = place + 1 + plane * count
            values = np.frombuffer(data, dtype=np.uint8, count=count, offset=begin)
            column |= values.astype(np.int64) << (_PLANE_BITS * plane)
        place += 1 + data[place] * count
        columns.append(column)
    step, gap, body, above, below, volume = columns
    gap, body = _unzigzag(gap), _unzigzag(body)
    close = np.cumsum(gap + body)
    open_ = close - body
    return BarColumns(
        np.cumsum(step),
        open_,
        np.maximum(open_, close) + above,
        np.minimum(open_, close) - below,
        close,
        volume,
    )


def _zigzag(values: NDArray[np.int64]) -> NDArray[np.int64]:
    zigzag: NDArray[np.int64] = (values << 1) ^ (values >> 63)
    return zigzag


def _unzigzag(values: NDArray[np.int64]) -> NDArray[np.int64]:
    plain: NDArray[np.int64] = (values >> 1) ^ -(values & 1)
    return plain


def _planes(values: NDArray[np.int64]) -> bytes:
    most = int(values.max(initial=0))
    planes = -(-most.bit_length() // _PLANE_BITS)
    parts = ((values >> (_PLANE_BITS * place)).astype(np.uint8) for place in range(planes))
    return bytes([planes]) + b"".join(part.tobytes() for part in parts)
