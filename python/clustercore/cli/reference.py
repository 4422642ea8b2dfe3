"""The JSON Schema and the reference pages, made from what the core says of itself."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["DERIVED", "columns_page", "json_schema", "settings_page", "statistics_page"]

_DISTANCE = r"^\s*[0-9.eE+-]+\s*(ticks?|points?)\s*$"
_LEG = {
    "type": "object",
    "properties": {
        "fraction": {"type": "number", "exclusiveMinimum": 0, "maximum": 1},
        "reward": {"type": "number", "exclusiveMinimum": 0, "maximum": 1000},
        "distance": {"type": "string", "pattern": _DISTANCE},
    },
    "required": ["fraction"],
    "oneOf": [{"required": ["reward"]}, {"required": ["distance"]}],
    "additionalProperties": False,
}
_WORDS = {
    "bool": "`true`, `false`",
    "distance": '`"2 ticks"`, `"0.75 points"`',
    "texts": "list of texts",
    "legs": "list of `{fraction, reward}` or `{fraction, distance}`",
}
_COLUMN_KINDS = {
    "time": "Datetime(ns, UTC)",
    "price": "Float64",
    "float": "Float64",
    "int": "Int64",
    "bool": "Boolean",
    "text": "String",
    "symbol": "String",
    "id": "String",
}
_COLUMNS_HEAD = ("| Column | Type | Unit | Empty | Meaning |", "|---|---|---|---|---|")
_DERIVED_HEAD = ("| Column | Type | Unit | Meaning |", "|---|---|---|---|")
_ON_EVERY_ROW = (
    ("config_id", "String", "", "Hash of every setting that decides a result."),
    ("engine_version", "String", "", "Changes when any result changes."),
)

# Frames that are made from the others, after the run: column, type, unit, sentence.
DERIVED: dict[str, tuple[tuple[str, str, str, str], ...]] = {
    "funnel": (
        ("stage", "String", "", "How far things got."),
        ("count", "Int64", "", "How many got there; empty in rows of losses."),
        ("lost", "Int64", "", "How many of the stage went no further for this reason."),
        ("reason", "String", "", "Why they went no further."),
    ),
    "daily": (
        ("trade_date", "Date", "", "Session; only those with a bar."),
        ("equity", "Float64", "USD", "Equity at the end of the session."),
        ("pnl", "Float64", "USD", "Change of equity since the session before."),
        ("trades", "Int64", "trades", "Trades decided in the session."),
    ),
    "contexts": (
        ("context", "Int64", "", "Number of the context; empty where there is none."),
        ("trades", "Int64", "trades", "Closed trades."),
        ("wins", "Int64", "trades", "Those with a net result above zero."),
        ("net", "Float64", "USD", "Sum of the net results."),
        ("mean_net", "Float64", "USD", "Mean net result."),
        ("losses", "Int64", "trades", "Those that are no wins."),
        ("posterior_mean", "Float64", "probability", "Mean of Beta(1 + wins, 1 + losses)."),
        ("posterior_low", "Float64", "probability", "Its 5 % quantile."),
        ("posterior_high", "Float64", "probability", "Its 95 % quantile."),
    ),
    "groups": (
        ("by", "String", "", "`direction`, `hour`, `weekday`, `exit_reason` or `context`."),
        ("label", "String", "", "The group, in words."),
        ("key", "Int64", "", "The group, as a number to sort by."),
        ("trades", "Int64", "trades", "Closed trades."),
        ("wins", "Int64", "trades", "Those with a net result above zero."),
        ("win_rate", "Float64", "share", "wins / trades."),
        ("win_rate_low", "Float64", "share", "Lower end of its 95 % interval."),
        ("win_rate_high", "Float64", "share", "Upper end of its 95 % interval."),
        ("net_usd", "Float64", "USD", "Sum of the net results."),
        ("expectancy_usd", "Float64", "USD per trade", "Mean net result."),
        ("expectancy_r", "Float64", "R", "Mean of net result / money at risk at entry."),
    ),
}


def json_schema() -> dict[str, Any]:
    """Return a JSON Schema of a settings file.

    Examples
    --------
    >>> json_schema()["properties"]["cluster"]["properties"]["frame"]["enum"]
    ['aligned', 'sliding']
    """
    from clustercore.config import Config, config_fields

    defaults = Config.preset("default").to_dict()
    sections: dict[str, Any] = {}
    for field in config_fields():
        section = sections.setdefault(
            field["section"], {"type": "object", "properties": {}, "additionalProperties": False}
        )
        described = _schema_of(field)
        if field["optional"]:
            described = {"anyOf": [described, {"const": "off"}]}
        described["description"] = _sentence(field)
        default = defaults[field["section"]][field["name"]]
        if default is not None:
            described["default"] = default
        section["properties"][field["name"]] = described
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "clustercore settings",
        "type": "object",
        "properties": {
            "preset": {
                "type": "string",
                "enum": list(Config.presets()),
                "default": "default",
                "description": "Gives every setting that the file leaves out.",
            },
            "schema_version": {"type": "integer"},
            **sections,
            "live": _live_schema(),
        },
        "additionalProperties": False,
    }


def _live_schema() -> dict[str, Any]:
    """Return the schema of the table that only the live process reads."""
    from clustercore.live.settings import live_fields

    types = {"str": "string", "int": "integer", "float": "number"}
    properties: dict[str, Any] = {}
    for field in live_fields():
        described = {
            "type": types[field["type"]],
            "description": field["sentence"],
            "default": field["default"],
        }
        if field["words"]:
            described["enum"] = list(field["words"])
        if field["low"] is not None:
            described |= {"minimum": field["low"], "maximum": field["high"]}
        properties[field["name"]] = described
    return {"type": "object", "properties": properties, "additionalProperties": False}


def _schema_of(field: Mapping[str, Any]) -> dict[str, Any]:
    kind = field["kind"]
    if kind == "choice":
        return {"type": "string", "enum": list(field["choices"])}
    if kind in {"int", "float"}:
        limits = {"minimum": _whole(field["min"]), "maximum": _whole(field["max"])}
        return {"type": "integer" if kind == "int" else "number", **limits}
    if kind == "bool":
        return {"type": "boolean"}
    if kind == "distance":
        return {"type": "string", "pattern": _DISTANCE}
    if kind == "texts":
        return {"type": "array", "items": {"type": "string"}}
    if kind == "legs":
        return {"type": "array", "items": _LEG}
    raise AssertionError(f"a kind of setting that the schema does not know: {kind}")


def settings_page() -> str:
    """Return the Markdown reference of every setting."""
    from clustercore.config import Config, config_fields

    presets = {name: Config.preset(name).to_dict() for name in Config.presets()}
    lines = [
        "# Settings",
        "",
        "Made from the core by `clustercore config reference`; do not edit it here.",
        "",
        "A settings file is TOML: the name of a preset, and what differs from it.",
        "",
        "```toml",
        'preset = "v6"',
        "",
        "[cluster]",
        "threshold = 3.0",
        "```",
        "",
        (
            "`clustercore config validate FILE` checks one, `--set cluster.threshold=3` changes "
            "one setting, and `Config.load(path)` reads one in Python. An unknown name and a value "
            'out of its range are errors. `"off"` empties an optional setting. Lengths in minutes '
            "become whole bars where bars are longer."
        ),
        "",
        "| Preset | Differs from `default` in |",
        "|---|---|",
    ]
    for name, sections in presets.items():
        different = sum(
            value != presets["default"][section][setting]
            for section, settings in sections.items()
            for setting, value in settings.items()
        )
        lines.append(f"| `{name}` | {f'{different} settings' if different else 'nothing'} |")
    section = ""
    for field in config_fields():
        if field["section"] != section:
            section = str(field["section"])
            lines += [
                "",
                f"## `[{section}]`",
                "",
                "| Setting | What it does | Allowed | Unit | `default` | Other presets |",
                "|---|---|---|---|---|---|",
            ]
        values = {name: settings[section][field["name"]] for name, settings in presets.items()}
        lines.append(_setting_row(field, values))
    return "\n".join(lines + _live_rows()) + "\n"


def _live_rows() -> list[str]:
    """Return the section of the live process, whose settings decide no result of a backtest."""
    from clustercore.live.settings import live_fields

    return [
        "",
        "## `[live]`",
        "",
        (
            "How the live process connects, waits and keeps. A table `[live]` of the same file, "
            "read by `clustercore live` and checked by `clustercore config validate`; `--live "
            "max_bar_age_s=5` changes one setting. A backtest does not read it, it is no part of "
            "`config_id`, and a preset has none."
        ),
        "",
        "| Setting | What it does | Allowed | Unit | Value when left out |",
        "|---|---|---|---|---|",
        *(_live_row(field) for field in live_fields()),
    ]


def _live_row(field: Mapping[str, Any]) -> str:
    if field["words"]:
        allowed = ", ".join(f"`{word}`" for word in field["words"])
    elif field["low"] is not None:
        allowed = f"{_number(field['low'])} to {_number(field['high'])}"
        allowed += ", whole" if field["type"] == "int" else ""
    else:
        allowed = "text"
    default = "empty" if field["default"] == "" else _shown(field["default"])
    name = f"`{field['name']}`"
    return _table_row((name, field["sentence"], allowed, field["unit"], default))


def _setting_row(field: Mapping[str, Any], values: Mapping[str, Any]) -> str:
    default = values["default"]
    by_value: dict[str, list[str]] = {}
    for name, value in values.items():
        if value != default:
            by_value.setdefault(_shown(value), []).append(f"`{name}`")
    others = "; ".join(f"{value} in {', '.join(names)}" for value, names in by_value.items())
    cells = (
        f"`{field['name']}`",
        _sentence(field),
        _allowed(field),
        field["unit"],
        _shown(default),
        others,
    )
    return _table_row(cells)


def _allowed(field: Mapping[str, Any]) -> str:
    if field["kind"] == "choice":
        words = ", ".join(f"`{choice}`" for choice in field["choices"])
    elif field["kind"] in {"int", "float"}:
        words = f"{_number(field['min'])} to {_number(field['max'])}"
        words += ", whole" if field["kind"] == "int" else ""
    else:
        words = _WORDS[field["kind"]]
    return f"{words}, or off" if field["optional"] else words


def _shown(value: object) -> str:
    if value is None:
        return "off"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, int | float):
        return _number(value)
    if isinstance(value, str):
        return f"`{value}`"
    return f"`{json.dumps(value)}`"


def _number(value: float) -> str:
    return f"{_whole(value):g}" if abs(value) < 1e6 else f"{_whole(value):,}"  # noqa: PLR2004


def _whole(value: float) -> float | int:
    return int(value) if float(value).is_integer() else value


def _sentence(field: Mapping[str, Any]) -> str:
    return str(field["sentence"])


def columns_page() -> str:
    """Return the Markdown reference of every column of the result frames."""
    from clustercore.engine import record_fields

    lines = [
        "# Columns of the results",
        "",
        "Made from the core by `clustercore config columns`; do not edit it here.",
        "",
        (
            "Times are UTC, prices and distances in points, money in US dollars. An empty cell "
            "of a column that may be empty means that the value does not exist; `reason` says why."
        ),
    ]
    for frame, columns in record_fields().items():
        lines += [
            "",
            f"## `{frame}`",
            "",
            "| Column | Type | Unit | Empty | Meaning |",
            "|---|---|---|---|---|",
        ]
        lines += [
            _table_row(
                (
                    f"`{column['name']}`",
                    _COLUMN_KINDS[column["kind"]],
                    _unit(column),
                    "may be" if column["nullable"] else "never",
                    column["sentence"],
                )
            )
            for column in columns
        ]
        lines += [
            _table_row((f"`{name}`", kind, unit, "never", sentence))
            for name, kind, unit, sentence in _ON_EVERY_ROW
        ]
    lines += ["", "The frames below are made from those above, after the run."]
    for frame, derived in DERIVED.items():
        lines += [
            "",
            f"## `{frame}`",
            "",
            "| Column | Type | Unit | Meaning |",
            "|---|---|---|---|",
        ]
        lines += [_table_row((f"`{name}`", *rest)) for name, *rest in derived]
    return "\n".join(lines) + "\n"


def statistics_page() -> str:
    """Return the Markdown reference of every statistic, with its definition."""
    from clustercore.backtest import backtest
    from clustercore.sample import sample

    # The definitions come with every result; the smallest one will do.
    statistics = backtest(sample(sessions=1)).statistics
    lines = [
        "# Statistics",
        "",
        "Made from the core by `clustercore config statistics`; do not edit it here.",
        "",
        (
            "`result.stats` holds them by name, `result.statistics` with unit and definition. One "
            "that cannot be computed is `None`, and its `reason` says why. A trade that is still "
            "open at the end counts in `open_trades` and `exposure` only."
        ),
        "",
        "| Statistic | Unit | Definition |",
        "|---|---|---|",
    ]
    lines += [_table_row((f"`{row.name}`", row.unit, row.definition)) for row in statistics]
    return "\n".join(lines) + "\n"


def _unit(column: Mapping[str, Any]) -> str:
    return str(column["unit"]) or ("points" if column["kind"] == "price" else "")


def _table_row(cells: Sequence[str]) -> str:
    escaped = (cell.replace("|", "\\|").replace("\n", " ") for cell in cells)
    return "| " + " | ".join(escaped).replace("|  |", "| |") + " |"
