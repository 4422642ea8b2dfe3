"""Timestamps of any common form, as Datetime(ns, UTC). Nothing about a zone is guessed."""

from __future__ import annotations

from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import polars as pl

from clustercore.errors import ConfigError, DataError

__all__ = ["to_utc"]

_UTC_TIME = pl.Datetime("ns", "UTC")
# Years 1990 to 2100 in each unit; the ranges do not touch, so the size tells the unit.
_SECONDS = (631_152_000, 4_102_444_800)
_EPOCH_FACTORS = (1, 10**3, 10**6, 10**9)
_NAIVE_FORMATS = (
    "%Y-%m-%d %H:%M:%S%.f",
    "%Y-%m-%d %H:%M",
    "%Y/%m/%d %H:%M:%S%.f",
    "%Y/%m/%d %H:%M",
    "%Y%m%d %H:%M:%S%.f",
    "%Y%m%d %H:%M",
    "%Y%m%d %H%M%S",
    "%Y%m%d %H%M",
)
_DATE_FORMATS = ("%Y-%m-%d", "%Y/%m/%d")
_OFFSET = r"(?:[zZ]|[+-]\d{2}:?\d{2}|[+-]\d{2})$"
_SAY_ZONE = (
    'the times carry no time zone; pass tz="UTC" if they are UTC, or the zone they are in, such '
    'as tz="America/New_York" or tz="America/Chicago"'
)


def to_utc(times: pl.Series, tz: str | None, file: str, column: str) -> pl.Series:
    """Return times as Datetime(ns, UTC).

    Parameters
    ----------
    times : polars.Series
        Datetime, date, text, or int since 1970 in s, ms, us or ns. Nulls must be gone.
    tz : str, optional
        Zone of naive times; without it naive times are refused.
    file, column : str
        For the message.
    """
    _check_zone(tz)
    dtype = times.dtype
    if dtype == pl.String:
        return _from_text(times, tz, file, column)
    if isinstance(dtype, pl.Datetime):
        if dtype.time_zone is not None:
            return times.dt.convert_time_zone("UTC").cast(_UTC_TIME)
        return _localise(times.cast(pl.Datetime("ns")), tz, file, column)
    if dtype == pl.Date:
        return _localise(times.cast(pl.Datetime("ns")), tz, file, column)
    if dtype.is_integer():
        return _from_epoch(times.cast(pl.Int64), file, column)
    if dtype.is_float():
        whole = times.cast(pl.Int64, strict=False)
        if (whole.cast(pl.Float64) == times.cast(pl.Float64)).all():
            return _from_epoch(whole, file, column)
    raise DataError(
        "the timestamps have a type that is no time",
        file=file,
        column=column,
        found=str(dtype),
        expected="datetime, ISO text, or int since 1970 in s, ms, us or ns",
    )


def _check_zone(tz: str | None) -> None:
    if tz is None:
        return
    try:
        ZoneInfo(tz)
    except (ZoneInfoNotFoundError, ValueError, OSError, TypeError) as error:
        raise ConfigError(
            "there is no such time zone",
            field="tz",
            found=repr(tz),
            expected='a zone such as "UTC", "America/New_York" or "America/Chicago"',
        ) from error


def _from_text(times: pl.Series, tz: str | None, file: str, column: str) -> pl.Series:
    text = times.str.strip_chars()
    if text.str.contains(r"^\d{9,19}$").all():
        return _from_epoch(text.cast(pl.Int64), file, column)
    text = text.str.replace(r"^(\d{4}\D?\d{2}\D?\d{2})[T_]", "${1} ")
    aware = text.str.contains(r":.*" + _OFFSET)
    if aware.any():
        if not aware.all():
            row = int((~aware).arg_max() or 0)
            raise _bad_time("some times carry a zone and some do not", times, row, file, column)
        text = (
            text.str.replace(r"\s*[zZ]$", "+00:00")
            .str.replace(r"\s+([+-][0-9:]+)$", "${1}")
            .str.replace(r"([+-]\d{2})$", "${1}:00")
            .str.replace(r"([+-]\d{2})(\d{2})$", "${1}:${2}")
        )
        return _parse(times, text, ("%Y-%m-%d %H:%M:%S%.f%:z", "%Y-%m-%d %H:%M%:z"), file, column)
    formats = _NAIVE_FORMATS if text.str.contains(r"\s").any() else _DATE_FORMATS
    return _localise(_parse(times, text, formats, file, column), tz, file, column)


def _parse(
    times: pl.Series, text: pl.Series, formats: tuple[str, ...], file: str, column: str
) -> pl.Series:
    best: pl.Series | None = None
    for pattern in formats:
        dtype = pl.Date if pattern in _DATE_FORMATS else pl.Datetime("ns")
        head = text.head(1).str.strptime(dtype, pattern, strict=False)
        if head.null_count():
            continue
        parsed = text.str.strptime(dtype, pattern, strict=False).cast(
            _UTC_TIME if pattern.endswith("z") else pl.Datetime("ns")
        )
        if not parsed.null_count():
            return parsed
        if best is None or parsed.null_count() < best.null_count():
            best = parsed
    row = 0 if best is None else int(best.is_null().arg_max() or 0)
    raise _bad_time("the text is no time that can be read", times, row, file, column)


def _bad_time(problem: str, times: pl.Series, row: int, file: str, column: str) -> DataError:
    return DataError(
        problem,
        file=file,
        row=row,
        column=column,
        found=repr(times[row]),
        expected="ISO 8601 such as 2025-01-31T14:30:00Z, or int since 1970 in s, ms, us or ns",
    )


def _localise(times: pl.Series, tz: str | None, file: str, column: str) -> pl.Series:
    if tz is None:
        raise DataError(
            _SAY_ZONE,
            file=file,
            row=0,
            column=column,
            found=str(times[0]) if len(times) else "no rows",
            expected="tz=",
        )
    local = times.dt.replace_time_zone(tz, ambiguous="null", non_existent="null")
    if local.null_count():
        row = int(local.is_null().arg_max() or 0)
        raise DataError(
            f"this local time comes twice or not at all in {tz} (daylight saving); store the "
            "times in UTC",
            file=file,
            row=row,
            column=column,
            found=str(times[row]),
            expected="a time that exists once",
        )
    return local.dt.convert_time_zone("UTC").cast(_UTC_TIME)


def _from_epoch(times: pl.Series, file: str, column: str) -> pl.Series:
    if times.is_empty():
        return times.cast(pl.Datetime("ns")).dt.replace_time_zone("UTC")
    sorted_times = times.sort()
    smallest, largest = int(sorted_times[0]), int(sorted_times[-1])
    for factor in _EPOCH_FACTORS:
        low, high = (bound * factor for bound in _SECONDS)
        if low <= smallest and largest < high:
            nanos = times * (10**9 // factor)
            return nanos.cast(pl.Datetime("ns")).dt.replace_time_zone("UTC")
    row = int(times.arg_min() or 0)
    raise DataError(
        "the integers are no times between 1990 and 2100 in one unit",
        file=file,
        row=row,
        column=column,
        found=f"{smallest} to {largest}",
        expected="int since 1970, all in s, all in ms, all in us or all in ns",
    )
