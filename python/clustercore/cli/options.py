"""Options that several commands share, and what they come to."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Group, Parameter

from clustercore.errors import ConfigError

if TYPE_CHECKING:
    from clustercore.bars import Bars
    from clustercore.config import Config
    from clustercore.instruments import Instrument

__all__ = [
    "ANY_DATA",
    "AS_TEXT",
    "NO_SETTINGS",
    "OUTPUT",
    "DataOptions",
    "OutputOptions",
    "SettingOptions",
    "check_span",
    "read",
    "reading_options",
    "resolve_config",
    "resolve_instrument",
]

_SETTINGS = Group("Settings", sort_key=1)
_DATA = Group("Data", sort_key=2)
OUTPUT = Group("Output", sort_key=3)


@Parameter(name="*", group=_SETTINGS)
@dataclass(frozen=True, kw_only=True)
class SettingOptions:
    """Where the settings come from."""

    preset: Annotated[
        str | None,
        Parameter(help="Preset to use (see `clustercore config presets`); `default` if left out."),
    ] = None
    config: Annotated[
        Path | None,
        Parameter(help="TOML file with settings; its `preset` gives those it leaves out."),
    ] = None
    set: Annotated[
        tuple[str, ...],
        Parameter(
            name="--set",
            negative="",
            show_default=False,
            help="One setting, such as cluster.threshold=3; may be repeated, and wins over preset "
            "and file. Values as in TOML, words without quotes too; nothing after = empties an "
            "optional setting.",
        ),
    ] = ()


@Parameter(name="*", group=_DATA)
@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """How a file is to be read."""

    symbol: Annotated[
        str | None,
        Parameter(help="One contract (ESZ5), or a root (ES) to take its months only."),
    ] = None
    start: Annotated[
        str | None,
        Parameter(name="--from", help="First bar to keep: a date or an ISO time, UTC if naive."),
    ] = None
    end: Annotated[
        str | None, Parameter(name="--to", help="Keep bars before this date or time.")
    ] = None
    interval: Annotated[
        str | None, Parameter(help="Length of a bar (1m, 5m, 1h) where the file does not say.")
    ] = None
    label: Annotated[
        str | None,
        Parameter(help="What a timestamp means, where the file does not say: start or end."),
    ] = None
    tz: Annotated[
        str | None, Parameter(help="Time zone of timestamps without one, such as America/New_York.")
    ] = None
    roll: Annotated[
        str | None,
        Parameter(
            help="How often the front month is chosen in a file of several: session or week; "
            "none refuses such a file. The setting roll.every if left out."
        ),
    ] = None
    instrument: Annotated[
        str | None,
        Parameter(help="Root of a built-in instrument, where the symbol does not tell."),
    ] = None
    columns: Annotated[
        tuple[str, ...],
        Parameter(
            name="--column",
            negative="",
            show_default=False,
            help="A column that is named unusually, such as volume=contracts; may be repeated.",
        ),
    ] = ()


@Parameter(name="*", group=OUTPUT)
@dataclass(frozen=True, kw_only=True)
class OutputOptions:
    """How the result is shown."""

    json: Annotated[
        bool,
        Parameter(
            negative="",
            show_default=False,
            help="Write one JSON document to standard output, and nothing else.",
        ),
    ] = False
    debug: Annotated[
        bool,
        Parameter(
            negative="", show_default=False, help="Show the traceback of a fault of the program."
        ),
    ] = False


NO_SETTINGS = SettingOptions()
ANY_DATA = DataOptions()
AS_TEXT = OutputOptions()


def resolve_config(options: SettingOptions) -> Config:
    """Return the configuration that the options describe."""
    from clustercore.config import Config

    if options.preset is not None and options.config is not None:
        raise ConfigError(
            "a settings file names its own preset; pass one of the two",
            field="--preset",
            found=f"--preset {options.preset} and --config {options.config}",
            expected=f'--config alone, with preset = "{options.preset}" inside the file',
        )
    if options.config is not None:
        config = Config.load(options.config)
    else:
        config = Config.preset(options.preset or "default")
    changes = dict(_assignment(text) for text in options.set)
    return config.override(changes) if changes else config


def _assignment(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    name = name.strip()
    if not equals or not name:
        raise ConfigError(
            "not an assignment",
            field="--set",
            found=repr(text),
            expected="section.setting=value, such as cluster.threshold=3",
        )
    return name, _value(name, value.strip())


def _value(name: str, text: str) -> Any:  # noqa: ANN401 -- whatever TOML can say
    from clustercore.config import config_fields

    if not text:
        return None
    try:
        parsed: Mapping[str, Any] = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        parsed = {"value": text}
    value = parsed["value"]
    # TOML has dates and times, and a line break would start another key; settings have neither.
    if len(parsed) != 1 or not isinstance(value, bool | int | float | str | list | dict):
        value = text
    kinds = {f"{row['section']}.{row['name']}": row["kind"] for row in config_fields()}
    return [value] if kinds.get(name) == "texts" and isinstance(value, str) else value


def check_span(start: str | None, end: str | None) -> None:
    """Raise ``ConfigError`` when the span cannot hold a bar."""
    moments = [_moment("--from", start), _moment("--to", end)]
    if moments[0] is not None and moments[1] is not None and moments[0] >= moments[1]:
        raise ConfigError(
            "the span is empty",
            field="--from",
            found=f"--from {start} --to {end}",
            expected="--from before --to",
        )


def _moment(option: str, text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise ConfigError(
            "this is no time",
            field=option,
            found=repr(text),
            expected="ISO 8601 such as 2024-01-31 or 2024-01-31T14:30Z",
        ) from error
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def resolve_instrument(root: str | None, config: Config) -> Instrument | None:
    """Return the instrument that was named; one that is not built in is described by settings."""
    from clustercore.instruments import Instrument

    if root is None:
        return None
    own = config.instrument
    described = (own.tick_size, own.point_value, own.commission)
    if root in Instrument.roots() or None in described:
        return Instrument.builtin(root)
    return Instrument(root, *described, margin=own.margin)


def _resolve_roll(text: str | None, config: Config) -> Literal["session", "week"] | None:
    chosen = config.roll.every if text is None else text
    if chosen == "none":
        return None
    if chosen == "week":
        return "week"
    if chosen == "session":
        return "session"
    raise ConfigError(
        "no such rule", field="--roll", found=repr(chosen), expected="session, week or none"
    )


def reading_options(data: DataOptions, config: Config) -> dict[str, Any]:
    """Return what ``read_bars`` and ``read_months`` both take."""
    return {
        "symbol": data.symbol,
        "interval": data.interval,
        "label": data.label,
        "tz": data.tz,
        "columns": dict(_column(text) for text in data.columns) or None,
        "instrument": resolve_instrument(data.instrument, config),
        "roll": _resolve_roll(data.roll, config),
        "lookback_hours": config.roll.lookback_hours,
    }


def _column(text: str) -> tuple[str, str]:
    ours, equals, theirs = text.partition("=")
    if not equals or not ours or not theirs:
        raise ConfigError(
            "not a pair of names",
            field="--column",
            found=repr(text),
            expected="our name and the file's, such as volume=contracts",
        )
    return ours, theirs


def read(file: Path | None, data: DataOptions, config: Config) -> Bars:
    """Return the bars of a file, or the simulated sample when there is none."""
    check_span(data.start, data.end)
    if file is None:
        return _simulated(data, config)
    from clustercore.sources import read_bars

    return read_bars(file, start=data.start, end=data.end, **reading_options(data, config))


def _simulated(data: DataOptions, config: Config) -> Bars:
    from clustercore.sample import sample

    taken = {"instrument", "interval"}
    unused = [
        option.name
        for option in fields(data)
        if option.name not in taken and getattr(data, option.name) not in {None, ()}
    ]
    if unused:
        name = {"start": "--from", "end": "--to", "columns": "--column"}.get(
            unused[0], f"--{unused[0]}"
        )
        raise ConfigError(
            "without a FILE the simulated sample is used, and this option says nothing of it",
            field=name,
            found=str(getattr(data, unused[0])),
            expected="a FILE, or no such option",
        )
    return sample(
        instrument=resolve_instrument(data.instrument, config) or "ES",
        interval=data.interval or "1m",
    )
