"""Settings for the reference engine: the presets file and the core's list of fields."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PRESETS = ROOT / "python" / "clustercore" / "presets.toml"
FIELDS = ROOT / "rust" / "core" / "src" / "config.rs"

Config = dict[str, dict[str, Any]]


def field_names() -> dict[str, list[str]]:
    """Return the settings of every section, from the table that declares them."""
    table = FIELDS.read_text(encoding="utf-8").split("\nsettings! {", 1)[1]
    fields: dict[str, list[str]] = {}
    section = ""
    for line in table.splitlines():
        if line.startswith("}"):
            break
        if match := re.match(r"    (\w+): \w+ \{", line):
            section = match[1]
            fields[section] = []
        elif match := re.match(r"        (\w+): [\w<>]+, \[", line):
            fields[section].append(match[1])
    return fields


def merged(base: Config, changes: Config) -> Config:
    """Return `base` with the settings of `changes` in their place."""
    result = {section: dict(values) for section, values in base.items()}
    for section, values in changes.items():
        result.setdefault(section, {}).update(values)
    return result


def preset(name: str, overrides: Config | None = None) -> Config:
    """Return a complete configuration; settings that a preset leaves empty are None."""
    presets = tomllib.loads(PRESETS.read_text(encoding="utf-8"))
    chain: list[Config] = []
    current: str | None = name
    while current is not None and current != "default":
        entry = dict(presets[current])
        current = entry.pop("extends", "default")
        chain.append(entry)
    config: Config = {section: dict.fromkeys(names) for section, names in field_names().items()}
    config = merged(config, presets["default"])
    for entry in reversed(chain):
        config = merged(config, entry)
    return merged(config, overrides or {})
