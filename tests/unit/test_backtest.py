"""A backtest's frames agree with each other, with their files, and with what made them."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

import clustercore as cc
from clustercore.config import Config
from clustercore.engine import record_fields
from clustercore.errors import ConfigError, DataError
from tests.property.markets import YEARS

FRAMES = (
    "trades",
    "clusters",
    "signals",
    "orders",
    "equity",
    "risk",
    "funnel",
    "daily",
    "contexts",
    "groups",
)
STAGES = (
    "bars",
    "windows",
    "clusters",
    "inside_hours",
    "ranked",
    "with_direction",
    "strong_enough",
    "armed",
    "confirmed",
    "ordered",
    "entered",
    "closed",
)
BUSY = {
    "cluster.threshold": 1.2,
    "rank.top_n": 3,
    "signal.long_threshold": 0.35,
    "signal.short_threshold": 0.65,
    "risk.max_open_contracts": None,
}


@functools.cache
def busy() -> cc.BacktestResult:
    return cc.backtest(cc.sample(sessions=60, seed=3), Config.preset().override(BUSY))


@functools.cache
def of_years(preset: str, path: Path) -> cc.BacktestResult:
    bars = cc.read_bars(path, start="2017-01-01", end="2019-01-01")
    return cc.backtest(bars, preset)


def check_funnel(result: cc.BacktestResult) -> None:
    counts = result.funnel.filter(pl.col("count").is_not_null())
    assert tuple(counts["stage"]) == STAGES
    count = dict(counts.select("stage", "count").iter_rows())
    lost = dict(
        result.funnel.filter(pl.col("lost").is_not_null())
        .group_by("stage")
        .agg(pl.col("lost").sum())
        .iter_rows()
    )
    for before, after in itertools.pairwise(STAGES[1:]):
        assert count[before] - lost.get(before, 0) == count[after], (before, after)
    assert count["clusters"] == result.clusters.height
    assert count["armed"] >= result.signals.height
    assert count["armed"] == result.clusters.filter(pl.col("reason") == "armed").height
    assert count["confirmed"] == result.signals["confirmed_time"].is_not_null().sum()
    assert count["entered"] == result.orders.filter(pl.col("reason") == "filled").height
    assert count["entered"] == result.trades.height
    assert count["closed"] == result.stats["trades"]
    assert count["bars"] == result.stats["bars"]


@pytest.mark.parametrize("preset", Config.presets())
def test_funnel_adds_up_on_real_years(preset: str, data_dir: Path) -> None:
    result = of_years(preset, data_dir / YEARS)
    check_funnel(result)
    assert result.clusters.height >= 1000


@pytest.mark.parametrize("mode", ["next_open", "limit", "close"])
def test_funnel_adds_up_with_gates_and_blocks(mode: str) -> None:
    config = Config.preset().override(
        {
            **BUSY,
            "entry.mode": mode,
            "entry.validity_minutes": 5,
            "rank.cooldown_minutes": 20,
            "rank.max_per_session": 3,
            "risk.max_open_contracts": 2,
            "risk.max_trades_per_session": 2,
            "risk.max_consecutive_losses": 2,
            "risk.max_drawdown_pct": 2.0,
            "risk.on_halt": "next_session",
            "session.hours": ["09:30-16:00 America/New_York"],
            "hours.bind_entries": True,
        }
    )
    result = cc.backtest(cc.sample(sessions=60, seed=5), config)
    check_funnel(result)
    reasons = set(result.funnel["reason"].drop_nulls())
    assert {"hours", "rank", "quiet", "thin", "max_per_session"} & reasons
    assert result.orders.filter(pl.col("quantity") == 0).height > 0


def test_funnel_of_bars_that_end_in_mid_air() -> None:
    """Signals, orders and trades that are pending at the end are losses of their stage."""
    bars = cc.sample(sessions=20, seed=3)
    pending = set()
    for cut in range(24_000, 27_000, 37):
        part = dataclasses.replace(bars, frame=bars.frame.head(cut))
        result = cc.backtest(part, Config.preset().override(BUSY))
        check_funnel(result)
        pending |= set(result.funnel["reason"].drop_nulls()) & {"pending", "working", "open"}
    assert {"pending", "open"} <= pending


def test_columns_are_the_documented_ones() -> None:
    for name, fields in record_fields().items():
        frame = getattr(busy(), name)
        assert frame.columns == [f["name"] for f in fields] + ["config_id", "engine_version"]
        for field in fields:
            if not field["nullable"]:
                assert frame[field["name"]].null_count() == 0, (name, field["name"])
    assert busy().trades["config_id"].unique().to_list() == [busy().manifest["config_id"]]


def test_result_is_saved_and_loaded_unchanged(tmp_path: Path) -> None:
    result = busy()
    folder = result.save(tmp_path / "deep" / "run")
    loaded = cc.load_result(folder)
    for name in FRAMES:
        assert_frame_equal(getattr(loaded, name), getattr(result, name))
    for name in ("statistics", "stats", "verdict", "config", "instrument", "manifest"):
        assert getattr(loaded, name) == getattr(result, name), name
    assert loaded.summary() == result.summary()
    assert (loaded.simulated, loaded.halted) == (result.simulated, result.halted)
    assert loaded.bars is None
    with pytest.raises(DataError):
        loaded.quality()
    # Saved again over itself it is the same; no other file is left behind.
    cc.load_result(result.save(folder))
    assert sorted(p.name for p in folder.iterdir()) == sorted(
        ["manifest.json", *(f"{name}.parquet" for name in FRAMES)]
    )
    assert json.loads((folder / "manifest.json").read_text("utf-8"))["format"] == 1


def test_a_folder_in_use_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("dear", "utf-8")
    with pytest.raises(DataError):
        busy().save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]
    with pytest.raises(DataError):
        cc.load_result(tmp_path)


@pytest.mark.parametrize("damage", ["format", "frame", "json"])
def test_a_damaged_result_is_refused(damage: str, tmp_path: Path) -> None:
    folder = busy().save(tmp_path / "run")
    manifest = folder / "manifest.json"
    if damage == "format":
        manifest.write_text(
            manifest.read_text("utf-8").replace('"format": 1', '"format": 99'), "utf-8"
        )
    elif damage == "frame":
        (folder / "trades.parquet").write_bytes(b"PAR1")
    else:
        manifest.write_text("{", "utf-8")
    with pytest.raises(DataError):
        cc.load_result(folder)


def test_the_same_inputs_give_the_same_result() -> None:
    config = Config.preset().override(BUSY)
    first, second = (cc.backtest(cc.sample(sessions=25, seed=3), config) for _ in range(2))
    for name in FRAMES:
        assert_frame_equal(getattr(first, name), getattr(second, name))
    assert first.manifest == second.manifest
    assert first.statistics == second.statistics
    other = cc.backtest(cc.sample(sessions=25, seed=4), config)
    assert other.manifest["data"]["data_hash"] != first.manifest["data"]["data_hash"]
    assert other.manifest["config_id"] == first.manifest["config_id"]


def test_a_result_can_be_made_again_from_its_manifest(tmp_path: Path) -> None:
    path = tmp_path / "bars.parquet"
    cc.sample(sessions=25, seed=3).frame.drop("context").write_parquet(path)
    bars = cc.read_bars(path, label="start", simulated=True)
    first = cc.load_result(cc.backtest(bars, Config.preset().override(BUSY)).save(tmp_path / "run"))
    again = cc.backtest(
        cc.read_bars(path, label="start", simulated=True), first.config, instrument=first.instrument
    )
    assert again.manifest == first.manifest
    assert len(again.manifest["data"]["source_hash"]) == 64
    assert_frame_equal(again.trades, first.trades)


def test_identity_follows_settings_and_instrument() -> None:
    bars = cc.sample(sessions=8)
    config = Config.preset()
    plain = cc.backtest(bars, config).manifest["config_id"]
    reordered = Config(
        {
            name: dict(reversed(list(section.items())))
            for name, section in reversed(list(config.to_dict().items()))
        }
    )
    assert cc.backtest(bars, reordered).manifest["config_id"] == plain
    assert (
        cc.backtest(bars, config.override({"cluster.threshold": 2})).manifest["config_id"] == plain
    )
    assert cc.backtest(bars, config.override({"statistics.seed": 5})).manifest["config_id"] == plain
    micro = cc.backtest(bars, config, instrument=cc.Instrument.builtin("MES"))
    assert micro.manifest["config_id"] != plain


def test_groups_sum_to_the_whole() -> None:
    result = busy()
    assert set(result.groups["by"]) == {"direction", "hour", "weekday", "exit_reason", "context"}
    for (by,), rows in result.groups.group_by("by"):
        assert rows["trades"].sum() == result.stats["trades"], by
        assert rows["wins"].sum() == result.stats["wins"], by
        assert rows["net_usd"].sum() == pytest.approx(result.stats["net_usd"], abs=1e-6), by
    assert result.contexts["trades"].sum() == result.stats["trades"]
    assert result.contexts["net"].sum() == pytest.approx(result.stats["net_usd"], abs=1e-6)
    assert (result.contexts["wins"] + result.contexts["losses"]).equals(result.contexts["trades"])
    by_hand = result.trades.group_by("direction").agg(pl.len().cast(pl.Int64), pl.col("net").sum())
    found = result.groups.filter(pl.col("by") == "direction").select("label", "trades", "net_usd")
    assert dict(by_hand.select("direction", "len").iter_rows()) == dict(
        found.select("label", "trades").iter_rows()
    )
    assert result.trades.height >= 200


def test_daily_equity_is_that_of_each_sessions_close() -> None:
    result = busy()
    daily = result.daily
    assert daily.height == result.stats["sessions"] == 60
    assert daily["trade_date"].is_sorted()
    assert daily["trades"].sum() == result.trades.height
    start = result.config.account.balance
    assert start + daily["pnl"].sum() == pytest.approx(daily["equity"][-1], abs=1e-6)
    closes = (
        result.equity.filter(pl.col("open_contracts") == 0)
        .group_by(pl.col("time").dt.offset_by("1h").dt.date(), maintain_order=True)
        .agg(pl.col("equity").last())
    )
    assert closes["equity"][-1] == daily["equity"][-1]
    assert daily["equity"][-1] == pytest.approx(start + result.trades["net"].sum(), abs=1e-6)


def test_adverse_entries_never_help() -> None:
    result = busy()
    stats = result.stats
    assert stats["adverse_net_usd"] is not None
    assert stats["adverse_net_usd"] <= (stats["net_usd"] or 0.0)
    worse = cc.backtest(
        cc.sample(sessions=60, seed=3), result.config.override({"entry.adverse": True})
    )
    assert worse.stats["net_usd"] == pytest.approx(stats["adverse_net_usd"], abs=1e-6)
    assert worse.stats["adverse_net_usd"] is None
    both = result.trades.join(worse.trades, on="decision_time", suffix="_worse")
    assert both.height >= 200
    sign = pl.when(pl.col("direction") == "long").then(1.0).otherwise(-1.0)
    paid = both.select(sign * (pl.col("entry_price_worse") - pl.col("entry_price"))).to_series()
    assert (paid >= 0).all()
    assert (paid > 0).any()


def test_verdict_is_one_sentence_on_the_page() -> None:
    result = busy()
    assert result.verdict
    assert "luck" in result.verdict or result.verdict.startswith("No verdict")
    assert " ".join(result.summary().split()).endswith(" ".join(result.verdict.split()))
    quiet = cc.backtest(cc.sample(sessions=3))
    assert quiet.verdict.startswith("No verdict")
    assert quiet.trades.height == 0


def test_a_driftless_sample_is_told_from_no_luck() -> None:
    """On data without an edge the sentence says so for nearly every seed: it can say no."""
    verdicts = [
        cc.backtest(
            cc.sample(60, seed), Config.preset().override({**BUSY, "costs.slippage_ticks": 0.0})
        ).verdict
        for seed in range(20, 28)
    ]
    assert sum(" can be told from luck" in verdict for verdict in verdicts) <= 1
    assert sum("cannot be told from luck" in verdict for verdict in verdicts) >= 4


def test_simulated_data_says_so_everywhere(tmp_path: Path) -> None:
    result = busy()
    assert result.simulated
    assert "SIMULATED" in result.summary().splitlines()[0]
    assert result.manifest["data"]["simulated"] is True
    assert set(result.trades["symbol"]) == {"ES.SIMULATED"}
    assert cc.load_result(result.save(tmp_path / "run")).simulated


def test_real_data_is_not_called_simulated(data_dir: Path) -> None:
    result = of_years("v6", data_dir / YEARS)
    assert not result.simulated
    assert "SIMULATED" not in result.summary()


def test_a_halt_that_lasts_is_the_first_line() -> None:
    config = Config.preset().override(
        {**BUSY, "risk.max_drawdown_pct": 0.5, "risk.on_halt": "stop", "size.base": 3.0}
    )
    result = cc.backtest(cc.sample(sessions=60, seed=3), config)
    assert result.halted is not None
    assert result.summary().startswith("HALTED since")
    halted = result.risk.filter(pl.col("kind") == "halted")["time"][0]
    assert result.trades["entry_time"].max() <= halted
    resumed = cc.backtest(
        cc.sample(sessions=60, seed=3), config.override({"risk.on_halt": "next_session"})
    )
    assert resumed.halted is None or resumed.risk["kind"][-1] == "halted"
    assert resumed.trades.height > result.trades.height


def test_bars_outside_every_session_are_an_error() -> None:
    bars = cc.sample(sessions=5)
    shifted = dataclasses.replace(
        bars, frame=bars.frame.with_columns(pl.col("ts_event").dt.offset_by("10h"))
    )
    with pytest.raises(DataError, match="outside"):
        cc.backtest(shifted)
    assert (
        cc.backtest(shifted, Config.preset().override({"session.day": "utc"})).clusters.height >= 0
    )


def test_a_preset_name_or_a_frame_is_enough() -> None:
    assert cc.backtest(cc.sample(sessions=3), "v6").config.name == "v6"
    with pytest.raises(ConfigError):
        cc.backtest(cc.sample(sessions=3), "v66")


def test_no_bars_make_an_empty_result(tmp_path: Path) -> None:
    bars = cc.sample(sessions=1)
    empty = cc.backtest(dataclasses.replace(bars, frame=bars.frame.head(0)))
    assert empty.trades.is_empty()
    assert empty.stats["trades"] == 0
    assert empty.summary()
    assert cc.load_result(empty.save(tmp_path / "empty")).trades.is_empty()
