"""Configurations: presets, files, ranges, and the hash that stands on every result."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clustercore import _core
from clustercore.config import Config, config_fields
from clustercore.errors import ConfigError
from clustercore.instruments import Instrument
from tests.property.families import random_settings

ES = Instrument.builtin("ES")
FIELDS = {f"{field['section']}.{field['name']}": field for field in config_fields()}
NUMERIC = [path for path, field in FIELDS.items() if field["kind"] in ("int", "float")]
# Settings whose range ends contradict another setting of the preset; the other is moved along.
COMPANIONS: dict[tuple[str, str], dict[str, Any]] = {
    ("baseline.sessions", "min"): {"baseline.min_sessions": 1},
    ("baseline.min_sessions", "max"): {"baseline.sessions": 260},
    ("profile.start_minute", "max"): {"profile.end_minute": 1441},
    ("profile.end_minute", "min"): {"profile.start_minute": -1440},
    ("momentum.start_minute", "max"): {"momentum.end_minute": 1441},
    ("momentum.end_minute", "min"): {"momentum.start_minute": -1440},
    ("signal.long_threshold", "max"): {"signal.shorts": False},
    ("signal.short_threshold", "min"): {"signal.shorts": False},
    ("volatility.minutes", "min"): {"volatility.min_minutes": 2},
    ("volatility.min_minutes", "max"): {"volatility.minutes": 100_000},
    ("volatility.atr_minutes", "min"): {"volatility.atr_min_minutes": 1},
    ("volatility.atr_min_minutes", "max"): {"volatility.atr_minutes": 100_000},
}
# The hash of each preset on ES. A change here changes the identity of everyone's results: it must
# be a deliberate act, with a new schema version or a line in the change log.
GOLDEN = {
    "default": "f37d8b3de31f1e4722a394f5c2475247fbfd14e6fcfb1732c80a86b7c0460b8a",
    "new-algo": "5ec963ef025a2cca42c9c55cd99d01b3b56b5a199de70ea98d63aa907a236cf3",
    "new-algo-patient": "c0683f965e63d893296f049cc818dfda7eb2e10684d28b75937bc7382e2a909f",
    "v6": "f49ea160dd838caae1fa20ba3bfe10fd613908707d3e995d280ea2f0fadbb395",
    "v6-live": "1824c07e6c6dac0d54d703e1ed936c896f9ed50b5c4f146949d513fe7eae5823",
}


@pytest.mark.parametrize("preset", Config.presets())
def test_hash_of_a_preset_is_pinned(preset: str) -> None:
    assert Config.preset(preset).id_for(ES) == GOLDEN[preset]


def test_presets_are_the_ones_of_the_specification() -> None:
    assert set(Config.presets()) == set(GOLDEN)
    v6, live = Config.preset("v6"), Config.preset("v6-live")
    assert (v6.cluster.minutes, live.cluster.minutes) == (15, 1)
    assert (v6.cluster.basis, live.cluster.basis) == ("window", "minute")
    assert (live.profile.start_minute, live.profile.end_minute) == (-14, 1)
    assert live.hours.bind_entries is True
    assert live.risk.max_drawdown_pct == 5.0
    patient, quick = Config.preset("new-algo-patient"), Config.preset("new-algo")
    assert (patient.stop.mode, patient.exit.max_hold_minutes) == ("fixed", 240)
    assert (quick.stop.mode, quick.stop.min_pct) == ("volatility", 0.5)
    assert Config.preset().baseline.mode == "time_of_day"
    assert len({Config.preset(name).id_for(ES) for name in GOLDEN}) == len(GOLDEN)


def test_unknown_preset_is_refused_with_the_names() -> None:
    with pytest.raises(ConfigError) as refused:
        Config.preset("v7")
    assert refused.value.found == "v7"
    assert "new-algo-patient" in str(refused.value)


@pytest.mark.parametrize("preset", Config.presets())
def test_a_file_written_is_read_back(preset: str, tmp_path: Path) -> None:
    config = Config.preset(preset).override(
        {"exit.scale_out": [{"fraction": 0.5, "reward": 1.0}], "session.hours": []}
    )
    path = tmp_path / "mine.toml"
    path.write_text(config.to_toml(), "utf-8")
    loaded = Config.load(path)
    assert loaded == config
    assert loaded.id_for(ES) == config.id_for(ES)
    assert loaded.name == "mine"


@pytest.mark.parametrize("seed", range(20))
def test_any_configuration_survives_a_file(seed: int, tmp_path: Path) -> None:
    config = Config(random_settings(seed))
    path = tmp_path / "random.toml"
    path.write_text(config.to_toml(), "utf-8")
    assert Config.load(path) == config
    assert Config(json.loads(json.dumps(config.to_dict()))) == config


def test_a_file_states_only_what_differs(tmp_path: Path) -> None:
    path = tmp_path / "small.toml"
    path.write_text(
        'preset = "v6"\n[risk]\nmax_drawdown_pct = "off"\n[cluster]\nthreshold = 3\n', "utf-8"
    )
    config = Config.load(path)
    changes = {"risk.max_drawdown_pct": None, "cluster.threshold": 3.0}
    assert config == Config.preset("v6").override(changes)


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("[cluster]\ntreshold = 3\n", "cluster.treshold"),
        ("[clutser]\nthreshold = 3\n", "clutser"),
        ('preset = "v9"\n', "preset"),
        ("preset = 6\n", "preset"),
        ("threshold = 3\n", "threshold"),
        ('[cluster]\nthreshold = "3"\n', "cluster.threshold"),
        ("[cluster]\nminutes = 1.5\n", "cluster.minutes"),
        ("[retest]\nenabled = 1\n", "retest.enabled"),
        ('[cluster]\nframe = "hopping"\n', "cluster.frame"),
        ('[retest]\ntolerance = "2"\n', "retest.tolerance"),
        ('[retest]\ntolerance = "-1 ticks"\n', "retest.tolerance"),
        ("[cluster]\nthreshold = nan\n", "cluster.threshold"),
        ("[cluster]\nthreshold = inf\n", "cluster.threshold"),
        ('[cluster]\nthreshold = "off"\n', "cluster.threshold"),
        (
            "[exit]\nscale_out = [{fraction = 0.7, reward = 1}, {fraction = 0.7, reward = 2}]\n",
            "exit.scale_out",
        ),
        ("[signal]\nlong_threshold = 0.8\n", "signal.long_threshold"),
        ("[profile]\nend_minute = 0\n", "profile.end_minute"),
        ("[baseline]\nmin_sessions = 21\n", "baseline.min_sessions"),
    ],
)
def test_a_bad_file_is_refused_by_field(text: str, field: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(text, "utf-8")
    with pytest.raises(ConfigError) as refused:
        Config.load(path)
    assert refused.value.field == field
    assert refused.value.found


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    broken = tmp_path / "broken.toml"
    broken.write_text("[cluster\n", "utf-8")
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"\xff\xfe\x00")
    for path in (tmp_path / "absent.toml", tmp_path, broken, binary):
        with pytest.raises(ConfigError, match=path.name):
            Config.load(path)


def _at(path: str, end: str) -> dict[str, Any]:
    field = FIELDS[path]
    value = field[end]
    return {
        **COMPANIONS.get((path, end), {}),
        path: int(value) if field["kind"] == "int" else float(value),
    }


@pytest.mark.parametrize("end", ["min", "max"])
@pytest.mark.parametrize("path", NUMERIC)
def test_a_range_ends_where_it_says(path: str, end: str) -> None:
    """The end itself is allowed; the next value beyond it is refused, and named."""
    base = Config.preset()
    changes = _at(path, end)
    section, name = path.split(".")
    assert getattr(base.override(changes), section)[name] == changes[path]
    outward = -1 if end == "min" else 1
    value = changes[path]
    if FIELDS[path]["kind"] == "int":
        changes[path] = value + outward
    else:
        changes[path] = math.nextafter(value, outward * math.inf)
    with pytest.raises(ConfigError) as refused:
        base.override(changes)
    assert refused.value.field == path
    assert refused.value.expected


@pytest.mark.parametrize(
    "path", [path for path, field in FIELDS.items() if field["kind"] == "choice"]
)
def test_every_choice_is_allowed_and_no_other(path: str) -> None:
    section, name = path.split(".")
    for choice in FIELDS[path]["choices"]:
        assert getattr(Config.preset().override({path: choice}), section)[name] == choice
    with pytest.raises(ConfigError) as refused:
        Config.preset().override({path: "Nothing"})
    assert refused.value.field == path


def test_sections_are_frozen() -> None:
    config = Config.preset()
    with pytest.raises(AttributeError):
        config.cluster.threshold = 9.0
    with pytest.raises(AttributeError):
        config.cluster = config.rank
    with pytest.raises(AttributeError, match="treshold"):
        _ = config.cluster.treshold
    given_out = config.to_dict()
    given_out["cluster"]["threshold"] = 9.0
    assert config.cluster.threshold == 2.0


def test_lists_given_out_or_in_cannot_change_a_configuration() -> None:
    legs = [{"fraction": 0.5, "reward": 1.0}]
    config = Config.preset().override({"exit.scale_out": legs})
    before = config.id_for(ES)
    legs[0]["fraction"] = 1.0
    legs.append({"fraction": 0.1, "reward": 3.0})
    config.to_dict()["exit"]["scale_out"].append({"fraction": 0.1, "reward": 3.0})
    config.exit.scale_out.append({"fraction": 0.1, "reward": 3.0})
    config.exit.scale_out[0]["fraction"] = 0.9
    assert config.id_for(ES) == before


def test_id_is_of_values_and_not_of_their_order_or_spelling() -> None:
    config = Config.preset()
    backwards = {
        section: dict(reversed(settings.items()))
        for section, settings in reversed(config.to_dict().items())
    }
    assert Config(backwards).id_for(ES) == config.id_for(ES)
    two, two_point = (config.override({"cluster.threshold": value}) for value in (2, 2.0))
    assert two.id_for(ES) == two_point.id_for(ES) == config.id_for(ES)
    assert hash(two) == hash(two_point)
    assert len(config.id_for(ES)) == 64


@pytest.mark.parametrize("path", sorted(FIELDS))
def test_every_setting_but_the_statistics_is_part_of_the_id(path: str) -> None:
    field = FIELDS[path]
    config = Config.preset()
    section, name = path.split(".")
    old = config.to_dict()[section][name]
    candidates: list[Any] = [
        *field["choices"],
        True,
        False,
        "7 ticks",
        ["10:00-11:00 America/New_York"],
        [{"fraction": 0.5, "reward": 1.0}],
    ]
    if field["kind"] in ("int", "float"):
        whole = field["kind"] == "int"
        low, high = field["min"], field["max"]
        base = old if old is not None else low
        candidates = [base + 1, base - 1, base * 0.5, low, high, base + 0.01]
        candidates = [int(v) if whole else float(v) for v in candidates]
    for value in candidates:
        if value == old:
            continue
        try:
            other = config.override({path: value})
        except ConfigError:
            continue
        assert (other.id_for(ES) == config.id_for(ES)) == (section == "statistics")
        return
    pytest.fail(f"no other value of {path} was allowed")


def test_id_changes_with_the_instrument() -> None:
    config = Config.preset()
    roots = ("ES", "MES", "NQ", "MNQ", "YM", "MYM", "RTY", "M2K", "CL", "GC")
    assert len({config.id_for(Instrument.builtin(root)) for root in roots}) == len(roots)
    cheaper = config.override({"instrument.commission": 0.5})
    assert cheaper.id_for(ES) != config.id_for(ES)
    # What the configuration says of the instrument is what the instrument itself may say.
    same = config.override({"instrument.commission": 2.5, "instrument.point_value": 50})
    assert same.id_for(ES) == config.id_for(ES)


def test_a_configuration_can_be_copied_whole() -> None:
    config = Config.preset("v6")
    again = copy.deepcopy(config)
    assert again is not config
    assert again == config
    assert again.name == "v6"


def test_fields_say_what_they_are() -> None:
    assert len(FIELDS) == len(config_fields())
    for path, field in FIELDS.items():
        assert field["sentence"].endswith("."), path
        assert field["kind"] in {"bool", "int", "float", "choice", "distance", "texts", "legs"}
        assert bool(field["choices"]) == (field["kind"] == "choice")


@given(
    st.dictionaries(
        st.text(max_size=8), st.integers() | st.text(max_size=4) | st.none(), max_size=3
    )
)
def test_nonsense_is_refused_and_never_crashes(changes: dict[str, Any]) -> None:
    if not changes:
        return
    with pytest.raises(ConfigError):
        Config.preset().override(changes)


def test_the_core_refuses_what_lacks_a_setting() -> None:
    settings = Config.preset().to_dict()
    del settings["cluster"]["threshold"]
    with pytest.raises(ConfigError) as refused:
        _core.check_config(settings)
    assert refused.value.field == "cluster.threshold"
