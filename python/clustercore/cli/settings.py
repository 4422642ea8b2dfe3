"""Commands about settings: show them, check a file, and describe every one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter

from clustercore.cli import output, writing
from clustercore.cli.options import (
    AS_TEXT,
    NO_SETTINGS,
    OUTPUT,
    OutputOptions,
    SettingOptions,
    resolve_config,
)
from clustercore.errors import ConfigError

if TYPE_CHECKING:
    from clustercore.config import Config

__all__ = ["settings"]

settings = App(
    name="config",
    help="Show settings, check a settings file, and describe every setting.",
    help_epilogue="""Examples:

  clustercore config presets
  clustercore config show --preset v6
  clustercore config validate es.toml
""",
)


@settings.command(
    help_epilogue="""Examples:

  clustercore config show --preset v6
  clustercore config show --preset v6 --set cluster.threshold=3 > mine.toml
  clustercore config show --config mine.toml --json
""",
)
def show(*, settings: SettingOptions = NO_SETTINGS, shown: OutputOptions = AS_TEXT) -> int:
    """Print every setting as a settings file, which `--config` reads back."""
    config = resolve_config(settings)
    if shown.json:
        output.emit_json(config.to_dict())
    else:
        output.emit_text(config.to_toml())
    return 0


@settings.command(
    help_epilogue="""Examples:

  clustercore config presets
  clustercore config presets --json
""",
)
def presets(*, shown: OutputOptions = AS_TEXT) -> int:
    """List the presets and what each changes of `default`."""
    from clustercore.config import Config

    default = Config.preset("default")
    found = {name: _differences(Config.preset(name), default) for name in Config.presets()}
    if shown.json:
        output.emit_json(found)
        return 0
    output.emit_table(
        ("preset", "setting", "value", "default"),
        (
            row
            for name, changes in found.items()
            for row in (
                [(name, "", "", "")]
                + [
                    ("", path, _shown(pair["value"]), _shown(pair["default"]))
                    for path, pair in changes.items()
                ]
            )
        ),
    )
    return 0


def _differences(config: Config, default: Config) -> dict[str, dict[str, object]]:
    base = default.to_dict()
    return {
        f"{section}.{name}": {"value": value, "default": base[section][name]}
        for section, values in config.to_dict().items()
        for name, value in values.items()
        if value != base[section][name]
    }


def _shown(value: object) -> str:
    return "off" if value is None else json.dumps(value, ensure_ascii=False)


@settings.command(
    help_epilogue="""Examples:

  clustercore config validate mine.toml
  clustercore config validate mine.toml --json

Exit codes: 0 the file can be used, 2 it cannot, and the message says why.
""",
)
def validate(file: Path, /, *, shown: OutputOptions = AS_TEXT) -> int:
    """Check a settings file: names, types, ranges, contradictions, allowed hours.

    Parameters
    ----------
    file
        A TOML file with settings.
    """
    from clustercore.config import Config
    from clustercore.sessions import load_sessions

    config = Config.load(file)
    _check_live(file)
    load_sessions(hours=config.session.hours, day=config.session.day)
    changes = _differences(config, Config.preset("default"))
    if shown.json:
        output.emit_json({"valid": True, "file": file, "differs_from_default": changes})
    else:
        output.emit_text(f"{file}: valid; {len(changes)} settings differ from default")
    return 0


def _check_live(file: Path) -> None:
    """Check the table of the live process, which is no part of a configuration."""
    from clustercore.live.settings import read_live_table

    try:
        read_live_table(file)
    except ConfigError as error:
        raise ConfigError(
            f"{file}: {error.problem}",
            field=error.field,
            found=error.found,
            expected=error.expected,
        ) from None


@settings.command(
    help_epilogue="""Examples:

  clustercore config schema
  clustercore config schema --out settings.schema.json
""",
)
def schema(
    *,
    out: Annotated[Path | None, Parameter(group=OUTPUT)] = None,
    shown: OutputOptions = AS_TEXT,
) -> int:
    """Print a JSON Schema of settings files, for editors and other programs.

    Parameters
    ----------
    out
        Write it to this file instead.
    """
    from clustercore.cli.reference import json_schema

    return _deliver(json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n", out, shown)


@settings.command(
    help_epilogue="""Examples:

  clustercore config reference
  clustercore config reference --out docs/configuration.md
""",
)
def reference(
    *,
    out: Annotated[Path | None, Parameter(group=OUTPUT)] = None,
    shown: OutputOptions = AS_TEXT,
) -> int:
    """Print the reference of every setting as Markdown.

    Parameters
    ----------
    out
        Write it to this file instead.
    """
    from clustercore.cli.reference import json_schema, settings_page

    if shown.json and out is None:
        output.emit_json(json_schema())
        return 0
    return _deliver(settings_page(), out, shown)


@settings.command(
    help_epilogue="""Examples:

  clustercore config columns
  clustercore config columns --out docs/columns.md
""",
)
def columns(
    *,
    out: Annotated[Path | None, Parameter(group=OUTPUT)] = None,
    shown: OutputOptions = AS_TEXT,
) -> int:
    """Print the reference of every column of the results as Markdown.

    Parameters
    ----------
    out
        Write it to this file instead.
    """
    from clustercore.cli.reference import columns_page
    from clustercore.engine import record_fields

    if shown.json and out is None:
        output.emit_json(record_fields())
        return 0
    return _deliver(columns_page(), out, shown)


@settings.command(
    help_epilogue="""Examples:

  clustercore config statistics
  clustercore config statistics --out docs/statistics.md
""",
)
def statistics(
    *,
    out: Annotated[Path | None, Parameter(group=OUTPUT)] = None,
    shown: OutputOptions = AS_TEXT,
) -> int:
    """Print the definition of every statistic as Markdown.

    Parameters
    ----------
    out
        Write it to this file instead.
    """
    from clustercore.cli.reference import statistics_page

    return _deliver(statistics_page(), out, shown)


def _deliver(text: str, out: Path | None, shown: OutputOptions) -> int:
    if out is None:
        output.emit_text(text)
        return 0
    writing.write_text(text, out)
    if shown.json:
        output.emit_json({"out": out})
    else:
        output.emit_text(f"written: {out}")
    return 0
