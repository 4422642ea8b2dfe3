"""Every command does what its help says, for people and as JSON."""

from __future__ import annotations

import json
import math
import re
import shlex
import sys
from datetime import datetime
from pathlib import Path

import polars as pl
import pytest

import clustercore as cc
from clustercore.cli import main, output
from clustercore.cli.reference import json_schema
from tests.cli.conftest import Run

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = [
    ["backtest"],
    ["clusters"],
    ["sample"],
    ["versions"],
    *(["data", name] for name in ("check", "convert", "sessions", "contracts")),
    *(
        ["config", name]
        for name in ("show", "presets", "validate", "schema", "reference", "columns", "statistics")
    ),
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_has_examples_that_begin_with_the_command(cli: Run, command: list[str]) -> None:
    ran = cli(*command, "--help")
    assert ran.code == 0
    examples = re.findall(r"^  (clustercore .*)$", ran.out, re.MULTILINE)
    assert examples, ran.out
    assert all(example.startswith(f"clustercore {' '.join(command)}") for example in examples)


@pytest.mark.parametrize(
    "command",
    [
        *COMMANDS,
        [],
        ["data"],
        ["config"],
        ["db"],
        ["service"],
        ["live"],
        ["gateway"],
        ["db", "sql"],
    ],
    ids=" ".join,
)
def test_examples_can_be_copied_from_a_narrow_terminal(cli: Run, command: list[str]) -> None:
    shown = cli(*command, "--help").out
    examples = shown.partition("Examples:\n")[2].partition("\n\nExit codes")[0].splitlines()
    assert [line for line in examples if line.strip()]
    assert all(line.startswith("  clustercore") for line in examples if line.strip()), shown
    assert "('ES',)" not in shown


def test_sentences_of_help_flow(cli: Run) -> None:
    shown = cli("db", "sql", "--help").out
    assert "\nowns the store, its newest snapshot is asked.\n" in shown


def test_the_page_and_the_help_name_every_command(cli: Run) -> None:
    page = (ROOT / "docs/command-line.md").read_text("utf-8")
    for command in COMMANDS:
        assert f"`{' '.join(command)}" in page or f"{' '.join(command)}`" in page, command
        group = cli(*command[:-1], "--help").out
        assert command[-1] in group


def test_exit_codes_stand_in_help_and_page(cli: Run) -> None:
    page = (ROOT / "docs/command-line.md").read_text("utf-8")
    shown = " ".join(cli("--help").out.split())
    for code in (0, 1, 2, 3, 130, 141):
        assert f"| {code} |" in page
        assert re.search(rf"\b{code} \w", shown)


def test_every_option_of_the_help_stands_on_the_page(cli: Run) -> None:
    page = (ROOT / "docs/command-line.md").read_text("utf-8")
    options = set(re.findall(r"--[a-z]+", cli("backtest", "--help").out)) - {"--help", "--version"}
    assert len(options) > 10
    assert not {option for option in options if option not in page}


def commands_of_the_page() -> list[str]:
    blocks = re.findall(
        r"```console\n(.*?)```", (ROOT / "docs/command-line.md").read_text("utf-8"), re.DOTALL
    )
    return [line[2:] for block in blocks for line in block.splitlines() if line.startswith("$ ")]


def test_the_commands_of_the_page_run(
    cli: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cc.BacktestResult, "report", lambda _result, path: path.write_text("page"))
    commands = commands_of_the_page()
    assert len(commands) >= 12
    for command in commands:
        program, *arguments = shlex.split(command)
        assert program == "clustercore"
        ran = cli(*arguments)
        assert ran.code == 0, f"{command}: {ran.err}"
        if "--json" in arguments:
            assert isinstance(ran.json, dict)


def test_backtest_without_a_file_says_simulated(cli: Run) -> None:
    ran = cli("backtest")
    assert ran.code == 0
    assert "SIMULATED" in ran.out
    assert ran.err == ""


def test_backtest_equals_the_library(cli: Run, sample_file: Path) -> None:
    document = cli(
        "backtest", sample_file, "--preset", "new-algo", "--set", "cluster.threshold=3", "--json"
    ).json
    config = cc.Config.preset("new-algo").override({"cluster.threshold": 3.0})
    result = cc.backtest(cc.read_bars(sample_file), config)
    expected = {
        name: value if value is not None and math.isfinite(value) else None
        for name, value in result.stats.items()
    }
    assert document["statistics"] == expected
    assert document["simulated"] is True
    assert document["manifest"]["config_id"] == result.manifest["config_id"]
    assert [row["stage"] for row in document["funnel"]] == result.funnel["stage"].to_list()
    assert all(reason for reason in document["missing"].values())


def test_backtest_writes_a_result_that_loads(
    cli: Run, sample_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cc.BacktestResult, "report", lambda _result, path: path.write_text("page"))
    out = tmp_path / "new" / "results"
    ran = cli("backtest", sample_file, "--out", out)
    assert ran.code == 0, ran.err
    assert f"Report: {out / 'report.html'}" in ran.out
    loaded = cc.load_result(out)
    again = cc.backtest(cc.read_bars(sample_file))
    assert loaded.trades.equals(again.trades)
    assert [path.name for path in tmp_path.rglob(".*")] == []
    (out / "mine.txt").write_text("kept")
    ran = cli("backtest", sample_file, "--preset", "new-algo", "--out", out, "--json")
    assert ran.json["report"] == str(out / "report.html")
    assert cc.load_result(out).config.name == "new-algo"
    assert (out / "mine.txt").read_text() == "kept"


def test_backtest_writes_a_real_report(cli: Run, sample_file: Path, tmp_path: Path) -> None:
    ran = cli("backtest", sample_file, "--out", tmp_path / "results")
    assert ran.code == 0, ran.err
    page = (tmp_path / "results" / "report.html").read_text("utf-8")
    assert "SIMULATED" in page
    assert page.rstrip().endswith("</html>")


def test_clusters_on_the_screen_in_files_and_as_json(
    cli: Run, sample_file: Path, tmp_path: Path
) -> None:
    options = ("--set", "cluster.threshold=1.5", "--set", "baseline.mode=previous_session")
    document = cli("clusters", sample_file, *options, "--json").json
    count = len(document["clusters"])
    assert count > 20
    config = cc.Config.preset().override(
        {"cluster.threshold": 1.5, "baseline.mode": "previous_session"}
    )
    engine = cc.Engine(config, "ES")
    table = engine.run(cc.read_bars(sample_file), finish=True)["clusters"]
    assert table.height == count
    for name in ("clusters.csv", "clusters.parquet"):
        ran = cli("clusters", sample_file, *options, "--out", tmp_path / name)
        assert ran.code == 0
        assert "SIMULATED" in ran.out
    assert pl.read_parquet(tmp_path / "clusters.parquet").equals(table)
    assert pl.read_csv(tmp_path / "clusters.csv")["volume"].to_list() == table["volume"].to_list()
    shown = cli("clusters", sample_file, *options, "--limit", "3").out
    assert f"{count} clusters, the last 3" in shown
    assert len(re.findall(r"^  20\d\d-", shown, re.MULTILINE)) == 3
    everything = cli("clusters", sample_file, *options, "--limit", "0").out
    assert len(re.findall(r"^  20\d\d-", everything, re.MULTILINE)) == count


def test_a_table_is_not_cut_where_nobody_looks(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    output.emit_table(("name",), [("x" * 300,), ("[bold]not markup[/bold]",)])
    shown = capsys.readouterr().out
    assert "x" * 300 in shown
    assert "[bold]not markup[/bold]" in shown


@pytest.mark.parametrize("columns", [40, 80])
def test_nothing_is_broken_in_two_on_a_narrow_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    headers = [f"column_{place}" for place in range(9)]
    row = ["2024-12-16 09:56", "50,000.00", *["a reason of some length"] * 7]
    output.emit_rows(headers, [row])
    output.emit_table(headers, [row], or_fields=True)
    output.emit_wrapped("  taken    5 bars, 1 change of contract, " + "9 minutes of trades, " * 5)
    shown = capsys.readouterr().out
    assert shown.count("  column_0: 2024-12-16 09:56\n  column_1: 50,000.00\n") == 2
    assert max(map(len, shown.splitlines())) <= columns
    assert "change of contract" in " ".join(shown.split())


def test_a_table_in_a_pipe_ends_where_its_text_ends(capsys: pytest.CaptureFixture[str]) -> None:
    output.emit_table(("a", "b"), [("x" * 90, ""), ("y", "z")])
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line != line.rstrip()] == []


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_sample_is_read_back_without_options(cli: Run, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"sample{suffix}"
    ran = cli("sample", "--sessions", "2", "--seed", "5", "--out", path)
    assert ran.code == 0
    assert "SIMULATED" in ran.out
    bars = cc.read_bars(path)
    assert bars.simulated
    assert bars.frame.equals(cc.sample(sessions=2, seed=5).frame)


def test_convert_keeps_every_bar(cli: Run, sample_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "week.csv"
    span = ("--from", "2024-10-07", "--to", "2024-10-12T00:00Z")
    document = cli("data", "convert", sample_file, *span, "--out", out, "--json").json
    expected = cc.read_bars(sample_file, start="2024-10-07", end="2024-10-12")
    assert document["bars"] == len(expected)
    assert cc.read_bars(out).frame.equals(expected.frame)


def test_convert_of_several_months_says_what_it_left(
    cli: Run, months_file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "front.parquet"
    ran = cli("data", "convert", months_file, "--label", "start", "--out", out)
    assert ran.code == 0, ran.err
    assert "bars that inform the baseline of an incoming month" in ran.out
    bars = cc.read_bars(months_file, label="start")
    assert bars.frame["context"].any()
    assert cc.read_bars(out).frame.height == int((~bars.frame["context"]).sum())


def test_check_finds_nothing_wrong_with_the_sample(cli: Run, sample_file: Path) -> None:
    ran = cli("data", "check", sample_file)
    assert ran.code == 0
    assert "nothing to report" in ran.out


def test_check_exits_with_1_for_an_error(cli: Run, sample_file: Path, tmp_path: Path) -> None:
    frame = pl.read_parquet(sample_file)
    path = tmp_path / "twice.parquet"
    pl.concat([frame.head(200), frame.slice(199)]).write_parquet(path)
    ran = cli("data", "check", path)
    assert ran.code == 1
    assert "ERROR" in ran.out
    assert "repeat" in ran.out
    document = cli("data", "check", path, "--json").json
    assert document["ok"] is False
    assert document["counts"]["duplicates"] == 1


def test_check_exits_with_1_for_a_warning_when_strict(
    cli: Run, sample_file: Path, tmp_path: Path
) -> None:
    frame = pl.read_parquet(sample_file)
    path = tmp_path / "gap.parquet"
    pl.concat([frame.head(300), frame.slice(340)]).write_parquet(path)
    assert cli("data", "check", path).code == 0
    ran = cli("data", "check", path, "--strict")
    assert ran.code == 1
    assert "without a bar" in ran.out
    assert cli("data", "check", path, "--strict", "--gap-minutes", "60").code == 0


def test_sessions_show_half_days_and_hours(cli: Run) -> None:
    span = ("--from", "2025-11-24", "--to", "2025-12-01")
    shown = cli("data", "sessions", *span).out
    assert "Thanksgiving" in shown
    document = cli("data", "sessions", *span, "--preset", "v6", "--json").json
    assert document["count"] == 5
    friday = document["sessions"][-1]
    assert datetime.fromisoformat(friday["close"]).hour == 18
    assert friday["hours"][0]["start"] == "2025-11-28T14:30:00+00:00"


def test_contracts_show_the_roll(cli: Run, months_file: Path, tmp_path: Path) -> None:
    options = (months_file, "--label", "start")
    shown = cli("data", "contracts", *options).out
    assert "ESZ4" in shown
    assert "ESH5" in shown
    assert "removed" in shown
    document = cli("data", "contracts", *options, "--changes", "--json").json
    assert [row["symbol"] for row in document["sessions"][1:]] == ["ESZ4", "ESH5"]
    out = tmp_path / "contracts.csv"
    assert cli("data", "contracts", *options, "--out", out).code == 0
    assert pl.read_csv(out).height == 8


def test_show_prints_a_file_that_loads(cli: Run, tmp_path: Path) -> None:
    wanted = (
        *("--preset", "v6", "--set", "cluster.threshold=3", "--set", "risk.max_open_contracts=off"),
        *("--set", "retest.tolerance=3 ticks", "--set", "session.hours=10:00-15:00 UTC"),
    )
    path = tmp_path / "mine.toml"
    path.write_text(cli("config", "show", *wanted).out, "utf-8")
    config = cc.Config.load(path)
    assert config.cluster.threshold == 3.0
    assert config.risk.max_open_contracts is None
    assert config.retest.tolerance == "3 ticks"
    assert config.session.hours == ["10:00-15:00 UTC"]
    assert cli("config", "show", "--config", path, "--json").json == config.to_dict()
    ran = cli("config", "validate", path)
    assert ran.code == 0
    assert "valid" in ran.out


@pytest.mark.parametrize("name", cc.Config.presets())
def test_every_preset_survives_being_written_and_read(cli: Run, tmp_path: Path, name: str) -> None:
    path = tmp_path / "preset.toml"
    path.write_text(cli("config", "show", "--preset", name).out, "utf-8")
    assert cc.Config.load(path) == cc.Config.preset(name)


@pytest.mark.parametrize(
    ("text", "path", "value"),
    [
        ("cluster.minutes=30", ("cluster", "minutes"), 30),
        ("cluster.threshold = 3", ("cluster", "threshold"), 3.0),
        ("signal.shorts=false", ("signal", "shorts"), False),
        ("baseline.mode=rolling", ("baseline", "mode"), "rolling"),
        ('baseline.mode="rolling"', ("baseline", "mode"), "rolling"),
        ("stop.distance=12 ticks", ("stop", "distance"), "12 ticks"),
        ("momentum.start_minute=-15", ("momentum", "start_minute"), -15),
        ("risk.daily_loss_pct=2.5", ("risk", "daily_loss_pct"), 2.5),
        ("risk.max_open_contracts=", ("risk", "max_open_contracts"), None),
        ("risk.max_open_contracts=off", ("risk", "max_open_contracts"), None),
        ("session.hours=[]", ("session", "hours"), []),
        (
            "exit.scale_out=[{fraction = 0.5, reward = 1.0}]",
            ("exit", "scale_out"),
            [{"fraction": 0.5, "reward": 1.0}],
        ),
    ],
)
def test_set_takes_toml_and_bare_words(
    cli: Run, text: str, path: tuple[str, str], value: object
) -> None:
    document = cli("config", "show", "--set", text, "--json").json
    assert document[path[0]][path[1]] == value


def test_the_last_of_two_settings_wins(cli: Run) -> None:
    document = cli(
        "config", "show", "--set", "rank.top_n=2", "--set", "rank.top_n=3", "--json"
    ).json
    assert document["rank"]["top_n"] == 3


def test_an_instrument_that_is_not_built_in_is_described_by_settings(
    cli: Run, sample_file: Path, tmp_path: Path
) -> None:
    path = tmp_path / "other.parquet"
    pl.read_parquet(sample_file).with_columns(symbol=pl.lit("FDAXZ4")).write_parquet(path)
    assert cli("clusters", path).code == 2
    described = [
        *("--set", "instrument.tick_size=0.25", "--set", "instrument.point_value=25"),
        *("--set", "instrument.commission=2"),
    ]
    ran = cli("clusters", path, "--instrument", "FDAX", *described, "--json")
    assert ran.code == 0, ran.err
    assert cli("clusters", path, "--instrument", "FDAX").code == 2


def test_presets_list_what_differs(cli: Run) -> None:
    document = cli("config", "presets", "--json").json
    assert list(document) == list(cc.Config.presets())
    assert document["default"] == {}
    assert document["v6"]["cluster.threshold"] == {"value": 4.0, "default": 2.0}
    assert "cluster.threshold" in cli("config", "presets").out


def test_versions(cli: Run) -> None:
    document = cli("versions", "--json").json
    assert list(document)[:2] == ["clustercore", "python"]
    assert "clustercore" in cli("versions").out
    assert cli("--version").out.startswith("clustercore ")


def accepts(schema: dict[str, object], value: object) -> bool:
    """Judge a value by the few words of JSON Schema that ours uses."""
    alternatives = schema.get("anyOf")
    if isinstance(alternatives, list):
        return any(accepts(each, value) for each in alternatives)
    if "const" in schema:
        return value == schema["const"]
    kinds: dict[str, type | tuple[type, ...]] = {
        "boolean": bool,
        "string": str,
        "array": list,
        "object": dict,
        "integer": int,
        "number": (int, float),
    }
    kind = schema.get("type")
    if not isinstance(kind, str) or not isinstance(value, kinds[kind]):
        return False
    if isinstance(value, bool):
        return kind == "boolean"
    if isinstance(value, dict):
        known = schema["properties"]
        assert isinstance(known, dict)
        return all(name in known and accepts(known[name], item) for name, item in value.items())
    if isinstance(value, list):
        items = schema["items"]
        assert isinstance(items, dict)
        return all(accepts(items, item) for item in value)
    if isinstance(value, str):
        allowed = schema.get("enum", [value])
        assert isinstance(allowed, list)
        return value in allowed and bool(re.search(str(schema.get("pattern", "")), value))
    low, high = schema.get("minimum", -math.inf), schema.get("maximum", math.inf)
    assert isinstance(low, int | float)
    assert isinstance(high, int | float)
    assert isinstance(value, int | float)
    return low <= value <= high


def test_the_schema_accepts_every_preset_and_refuses_what_the_core_refuses(cli: Run) -> None:
    schema = cli("config", "schema").out
    assert json.loads(schema) == json_schema()
    for name in cc.Config.presets():
        given = {
            section: {key: value for key, value in values.items() if value is not None}
            for section, values in cc.Config.preset(name).to_dict().items()
        }
        assert accepts(json_schema(), {"preset": name, **given})
    assert accepts(json_schema(), {"risk": {"max_open_contracts": "off"}})
    for wrong in (
        {"preset": "v7"},
        {"cluster": {"treshold": 3.0}},
        {"cluster": {"threshold": -1.0}},
        {"cluster": {"minutes": 1.5}},
        {"cluster": {"frame": "tumbling"}},
        {"retest": {"tolerance": "3 pints"}},
        {"signal": {"shorts": "off"}},
    ):
        assert not accepts(json_schema(), wrong), wrong


def test_reference_as_json_and_to_a_file(cli: Run, tmp_path: Path) -> None:
    assert cli("config", "reference", "--json").json == json_schema()
    assert "trades" in cli("config", "columns", "--json").json
    out = tmp_path / "settings.md"
    assert cli("config", "reference", "--out", out).code == 0
    assert out.read_text("utf-8").startswith("# Settings")
    assert main(["config", "schema", "--out", str(tmp_path / "schema.json"), "--json"]) == 0
