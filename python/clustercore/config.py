"""The configuration: one frozen object, complete, validated by the core and identified by a hash.

Values come from a preset, a TOML file that names a preset, and overrides, in that order. Which
settings exist, their types, ranges and sentences are exported by the core (``config_fields``);
nothing of that is written again here.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import hashlib
import json
import tomllib
from collections.abc import Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clustercore import _core
from clustercore.errors import ConfigError

if TYPE_CHECKING:
    from clustercore.instruments import Instrument

__all__ = ["Config", "config_fields"]

_NOT_IDENTITY = frozenset({"statistics"})


@functools.cache
def config_fields() -> tuple[Mapping[str, Any], ...]:
    """Return every setting: section, name, kind, optional, choices, min, max, unit, sentence.

    Examples
    --------
    >>> [field["name"] for field in config_fields() if field["section"] == "account"]
    ['balance']
    """
    return tuple(_core.config_fields())


@functools.cache
def _kinds() -> Mapping[str, Mapping[str, Mapping[str, Any]]]:
    kinds: dict[str, dict[str, Mapping[str, Any]]] = {}
    for field in config_fields():
        kinds.setdefault(field["section"], {})[field["name"]] = field
    return kinds


@functools.cache
def _preset_file() -> Mapping[str, Any]:
    text = resources.files("clustercore").joinpath("presets.toml").read_text("utf-8")
    return tomllib.loads(text)


class Section(Mapping[str, Any]):
    """The settings of one section, read as attributes or as a mapping; they cannot be changed."""

    __slots__ = ("_name", "_settings")

    def __init__(self, name: str, settings: Mapping[str, Any]) -> None:
        object.__setattr__(self, "_name", name)
        object.__setattr__(self, "_settings", dict(settings))

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401  (a setting has the type of its field)
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"no setting {self._name}.{name}") from None

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(
            f"settings cannot be changed; use config.override({self._name}.{name})"
        )

    def __getitem__(self, name: str) -> Any:  # noqa: ANN401
        # A list is given out as a copy: what is done to it must not reach the configuration.
        return copy.deepcopy(self._settings[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._settings)

    def __len__(self) -> int:
        return len(self._settings)

    def __reduce__(self) -> tuple[object, ...]:
        return (Section, (self._name, self._settings))

    def __repr__(self) -> str:
        return f"Section({self._name!r}, {self._settings!r})"


class Config:
    """Every setting of a strategy, frozen.

    Make one with ``Config.preset`` or ``Config.load`` and vary it with ``override``.

    Examples
    --------
    >>> config = Config.preset("v6").override({"cluster.threshold": 3.0})
    >>> config.cluster.threshold
    3.0
    >>> config.override({"cluster.treshold": 3.0})
    Traceback (most recent call last):
    clustercore.errors.ConfigError: cluster.treshold: unknown setting ...
    """

    __slots__ = ("_sections", "name")

    name: str

    def __init__(self, sections: Mapping[str, Mapping[str, Any]], name: str = "custom") -> None:
        plain = {section: _plain(section, settings) for section, settings in sections.items()}
        _core.check_config(plain)
        ordered = {
            section: Section(section, {key: plain[section][key] for key in settings})
            for section, settings in _kinds().items()
        }
        object.__setattr__(self, "_sections", ordered)
        object.__setattr__(self, "name", name)

    def __getattr__(self, section: str) -> Section:
        sections: Mapping[str, Section] = object.__getattribute__(self, "_sections")
        try:
            return sections[section]
        except KeyError:
            raise AttributeError(f"no section {section!r} in the configuration") from None

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("a configuration cannot be changed; use config.override(...)")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Config) and self.to_dict() == other.to_dict()

    def __hash__(self) -> int:
        return hash(json.dumps(self.to_dict(), sort_keys=True))

    def __repr__(self) -> str:
        return f"Config({self.name!r})"

    def __reduce__(self) -> tuple[object, ...]:
        return (Config, (self.to_dict(), self.name))

    @staticmethod
    def presets() -> tuple[str, ...]:
        """Return the names of the presets.

        Examples
        --------
        >>> Config.presets()
        ('default', 'new-algo', 'new-algo-patient', 'v6', 'v6-live')
        """
        return tuple(name for name, value in _preset_file().items() if isinstance(value, dict))

    @classmethod
    def preset(cls, name: str = "default") -> Config:
        """Return a preset.

        Parameters
        ----------
        name : str
            One of ``Config.presets()``.

        Raises
        ------
        ConfigError
            When there is no such preset.

        Examples
        --------
        >>> Config.preset("new-algo").cluster.basis
        'minute'
        """
        return cls(_preset_sections(name), name)

    @classmethod
    def load(cls, path: str | Path) -> Config:
        """Return the configuration of a TOML file.

        The file's ``preset`` (``default`` when absent) gives what the file does not set. A
        table ``[live]`` is left to the live process: it is no part of a configuration or its id.

        Parameters
        ----------
        path : str or Path
            A TOML file with sections such as ``[cluster]``.

        Raises
        ------
        ConfigError
            When the file cannot be read, or a setting in it is unknown or out of its range.
        """
        path = Path(path)
        try:
            content = tomllib.loads(path.read_text("utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path}: cannot be read: {error}") from error
        except tomllib.TOMLDecodeError as error:
            raise ConfigError(f"{path}: not a TOML file: {error}") from error
        live = content.pop("live", {})
        if not isinstance(live, dict):
            raise ConfigError(
                f"{path}: not a table", field="live", found=repr(live), expected="[live]"
            )
        preset = content.pop("preset", "default")
        version = content.pop("schema_version", _preset_file()["schema_version"])
        if version != _preset_file()["schema_version"]:
            raise ConfigError(
                f"{path}: a file of another version",
                field="schema_version",
                found=repr(version),
                expected=str(_preset_file()["schema_version"]),
            )
        if not isinstance(preset, str):
            raise ConfigError("not a name", field="preset", found=repr(preset), expected="a text")
        base = _preset_sections(preset)
        try:
            return cls(_merge(base, content), path.stem)
        except ConfigError as error:
            raise ConfigError(
                f"{path}: {error.problem}",
                field=error.field,
                found=error.found,
                expected=error.expected,
            ) from None

    def override(self, changes: Mapping[str, Any]) -> Config:
        """Return the configuration with some settings changed.

        Parameters
        ----------
        changes : mapping of str to value
            Dotted names such as ``"cluster.threshold"`` and their values; ``None`` empties an
            optional setting.

        Raises
        ------
        ConfigError
            When a setting is unknown or its value not allowed.

        Examples
        --------
        >>> Config.preset().override({"risk.max_open_contracts": None}).risk.max_open_contracts
        """
        nested: dict[str, dict[str, Any]] = {}
        for path, value in changes.items():
            section, _, name = path.partition(".")
            if not name:
                raise ConfigError(
                    "not a dotted name", field=path, found=path, expected="section.setting"
                )
            nested.setdefault(section, {})[name] = value
        return Config(_merge(self.to_dict(), nested), self.name)

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """Return the settings as nested dictionaries, in the order of the reference."""
        return {name: dict(section) for name, section in self._sections.items()}

    def to_toml(self) -> str:
        """Return the settings as a TOML file that ``Config.load`` reads back.

        Examples
        --------
        >>> print(Config.preset().to_toml().splitlines()[0])
        preset = "default"
        """
        defaults = _preset_sections("default")
        lines = ['preset = "default"']
        for name, section in self._sections.items():
            lines.append(f"\n[{name}]")
            for key, value in section.items():
                if value is not None:
                    lines.append(f"{key} = {_toml(value)}")
                elif defaults[name][key] is not None:
                    lines.append(f'{key} = "off"')
        return "\n".join(lines) + "\n"

    def applied_to(self, instrument: Instrument) -> Instrument:
        """Return the instrument as it is traded: with what the section ``instrument`` changes.

        Examples
        --------
        >>> from clustercore.instruments import Instrument
        >>> config = Config.preset().override({"instrument.commission": 1.25})
        >>> config.applied_to(Instrument.builtin("ES")).commission
        1.25
        """
        own = self.instrument
        names = ("tick_size", "point_value", "commission", "margin")
        changes = {name: own[name] for name in names if own[name] is not None}
        return dataclasses.replace(
            instrument,
            **changes,
            check_tick=own.check_tick and instrument.check_tick,
            allow_negative=own.allow_negative or instrument.allow_negative,
        )

    def id_for(self, instrument: Instrument) -> str:
        """Return the SHA-256 that stands on every result row.

        It covers the settings of engine, costs and risk and the instrument with what the
        configuration changes of it, as canonical JSON: sorted keys, shortest floats.

        Examples
        --------
        >>> from clustercore.instruments import Instrument
        >>> len(Config.preset().id_for(Instrument.builtin("ES")))
        64
        """
        traded = self.applied_to(instrument)
        settings = {k: v for k, v in self.to_dict().items() if k not in _NOT_IDENTITY}
        settings["instrument"] = {
            "root": traded.root,
            "tick_size": traded.tick_size,
            "point_value": float(traded.point_value),
            "commission": float(traded.commission),
            "margin": traded.margin,
            "check_tick": traded.check_tick,
            "allow_negative": traded.allow_negative,
        }
        settings["schema_version"] = _preset_file()["schema_version"]
        text = json.dumps(settings, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return hashlib.sha256(text.encode("utf-8")).hexdigest()


def _preset_sections(name: str) -> dict[str, dict[str, Any]]:
    if name not in Config.presets():
        raise ConfigError(
            "no such preset", field="preset", found=name, expected=", ".join(Config.presets())
        )
    chain = [name]
    while chain[-1] != "default":
        chain.append(_preset_file()[chain[-1]].get("extends", "default"))
    empty = {s: dict.fromkeys(fields) for s, fields in _kinds().items()}
    sections: dict[str, dict[str, Any]] = empty
    for link in reversed(chain):
        own = {k: v for k, v in _preset_file()[link].items() if k != "extends"}
        sections = _merge(sections, own)
    return sections


def _merge(base: Mapping[str, Mapping[str, Any]], changes: Mapping[str, Any]) -> dict[str, Any]:
    merged: dict[str, Any] = {name: dict(section) for name, section in base.items()}
    for name, section in changes.items():
        if not isinstance(section, Mapping):
            raise ConfigError(
                "unknown setting outside a section",
                field=name,
                found=repr(section),
                expected=f"a section such as [{next(iter(base))}]",
            )
        merged[name] = {**merged.get(name, {}), **section}
    return merged


def _plain(section: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings in their own types, so that 2 and 2.0 are one value.

    TOML has no null: ``"off"`` empties an optional setting.
    """
    known = _kinds().get(section, {})
    plain: dict[str, Any] = {}
    for name, given in settings.items():
        kind = known[name]["kind"] if name in known else None
        is_emptied = given == "off" and name in known and known[name]["optional"]
        value = None if is_emptied else given
        if kind == "float" and isinstance(value, int) and not isinstance(value, bool):
            plain[name] = float(value)
        elif isinstance(value, (list, tuple)):
            plain[name] = [dict(v) if isinstance(v, Mapping) else v for v in value]
        else:
            plain[name] = value
    return plain


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, list):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{k} = {_toml(v)}" for k, v in value.items()) + " }"
    return repr(value)
