from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import polars as pl
import pytest

from clustercore.backtest import backtest
from clustercore.bars import Bars
from clustercore.config import Config
from clustercore.errors import DataError
from clustercore.report import write_report
from clustercore.report.payload import build_payload
from clustercore.result import BacktestResult, load_result
from clustercore.sample import sample
from clustercore.sessions import Sessions
from tests.report.devtools import Browser

HOSTILE = (
    "</script><script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "<!--<script>\u2028alert(1)",
    "{{ 7 * 7 }}<b>&lt;",
)
CHARTS = ("equity-chart", "session-chart", "position-chart", "ratio-chart")
ALERTS = "window.alerts = []; window.alert = (text) => window.alerts.push(text);"


@pytest.fixture(scope="module")
def result() -> BacktestResult:
    return backtest(sample(), "default")


@pytest.fixture(scope="module")
def report(result: BacktestResult, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(result, tmp_path_factory.mktemp("report") / "report.html")


@pytest.fixture(scope="module")
def page(browser: str) -> Iterator[Browser]:
    with Browser(browser) as opened:
        opened.send("Page.addScriptToEvaluateOnNewDocument", source=ALERTS)
        yield opened


@pytest.fixture
def opened(page: Browser, report: Path) -> Browser:
    page.size(1280, 900)
    page.open(report)
    return page


def check_sound(page: Browser) -> None:
    """Check that no script failed, nothing was asked for and nothing hostile ran."""
    assert page.errors() == []
    assert [address for address in page.requests() if not address.startswith("data:")] == []
    assert page.evaluate("window.alerts") == []
    assert page.evaluate("document.documentElement.dataset.ready") == "true"


def with_texts(bars: Bars, text: str) -> Bars:
    return replace(
        bars,
        frame=bars.frame.with_columns(symbol=pl.lit(text)),
        source=text,
        notes=(text,),
    )


def cell_texts(page: Browser, name: str) -> list[str]:
    """Return a column of the trade table, as shown."""
    script = f"""(() => {{
      const table = document.getElementById("trade-table");
      const heads = [...table.tHead.rows[0].cells];
      const place = heads.findIndex((cell) => cell.dataset.name === "{name}");
      return [...table.tBodies[0].rows].map((row) => row.cells[place].textContent);
    }})()"""
    found: list[str] = page.evaluate(script)
    return found


def numbers(texts: list[str]) -> list[float]:
    return [float(text.replace("\N{MINUS SIGN}", "-").replace(",", "")) for text in texts]


def test_the_report_loads_without_error_and_draws_every_chart(opened: Browser) -> None:
    check_sound(opened)
    for chart in CHARTS:
        drawn = opened.evaluate(f"document.querySelectorAll('#{chart} svg.main-svg path').length")
        assert drawn > 5, chart
    candles = "document.querySelectorAll('#session-chart .trace.boxes path.box').length"
    assert opened.evaluate(candles) > 30


def test_an_error_in_the_script_is_seen(page: Browser, report: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.html"
    broken.write_text(report.read_text("utf-8").replace('id="trade-filter"', 'id="other"'), "utf-8")
    page.open(broken)
    assert page.errors()
    assert page.evaluate("document.getElementById('failure').hidden") is False


def test_the_page_forbids_every_request(report: Path) -> None:
    text = report.read_text("utf-8")
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)
    assert policy is not None
    rules = policy[1].replace("&#39;", "'")
    assert "default-src 'none'" in rules
    assert "http" not in rules
    script_rule = next(rule for rule in rules.split("; ") if rule.startswith("script-src"))
    assert "unsafe" not in script_rule
    assert set(re.findall(r"\b(?:src|href|action)=\"([^\"#]+)\"", text)) == set()
    assert "url(http" not in text
    assert "@import" not in text


def test_a_request_would_be_refused(opened: Browser) -> None:
    refused = "fetch('https://example.com/').then(() => 'sent', () => 'refused')"
    assert opened.evaluate(refused) == "refused"


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_texts_stay_text(page: Browser, tmp_path: Path, text: str) -> None:
    result = backtest(with_texts(sample(sessions=20), text), Config.preset("default"))
    assert result.trades.height
    path = write_report(result, tmp_path / "hostile.html")
    # Without the policy, so that nothing but the escaping stands between the text and the page.
    bare = tmp_path / "bare.html"
    bare.write_text(re.sub(r"<meta http-equiv[^>]*>", "", path.read_text("utf-8")), "utf-8")
    for file in (path, bare):
        page.open(file)
        check_sound(page)
        shown = page.evaluate("document.getElementById('session-name').textContent")
        assert text in shown
        assert text in cell_texts(page, "symbol")
        assert text in page.evaluate("document.getElementById('data').textContent")
        assert page.evaluate("document.querySelectorAll('img').length") == 0


def test_hostile_names_of_groups_and_reasons_stay_text(
    page: Browser, result: BacktestResult, tmp_path: Path
) -> None:
    text = HOSTILE[0]
    changed = replace(
        result,
        verdict=text,
        trades=result.trades.with_columns(exit_reason=pl.lit(text), direction=pl.lit(text)),
        groups=result.groups.with_columns(label=pl.lit(text)),
        clusters=result.clusters.with_columns(direction=pl.lit(text)),
        funnel=result.funnel.with_columns(
            reason=pl.when(pl.col("lost").is_not_null()).then(pl.lit(text))
        ),
    )
    page.open(write_report(changed, tmp_path / "hostile.html"))
    check_sound(page)
    assert page.evaluate("document.querySelector('.verdict p').textContent") == text
    assert set(cell_texts(page, "exit_reason")) == {text}


def test_no_clusters_and_no_trades(page: Browser, tmp_path: Path) -> None:
    config = Config.preset("default").override({"cluster.threshold": 1e6})
    result = backtest(sample(sessions=5), config)
    assert result.clusters.is_empty()
    page.open(write_report(result, tmp_path / "empty.html"))
    check_sound(page)
    text = page.evaluate("document.body.textContent")
    assert "No trade was made" in text
    assert "No window reached the threshold" in text
    assert page.evaluate("document.querySelectorAll('#session-chart svg.main-svg').length") > 0


def test_one_trade(page: Browser, result: BacktestResult, tmp_path: Path) -> None:
    bars = result.bars
    assert bars is not None
    last = result.trades.sort("exit_time")["exit_time"][0]
    cut = replace(bars, frame=bars.frame.filter(pl.col("ts_event") <= last))
    one = backtest(cut, "default")
    assert one.trades.height == 1
    page.open(write_report(one, tmp_path / "one.html"))
    check_sound(page)
    assert len(cell_texts(page, "net")) == 1


def test_a_loaded_result_has_levels_but_no_candles(
    page: Browser, result: BacktestResult, tmp_path: Path
) -> None:
    loaded = load_result(result.save(tmp_path / "saved"))
    page.open(write_report(loaded, tmp_path / "loaded.html"))
    check_sound(page)
    assert "loaded without its bars" in page.evaluate("document.body.textContent")
    assert page.evaluate("document.querySelectorAll('#session-chart .scatterlayer path').length")


@pytest.mark.parametrize("bar_length", ["5m", "15m"])
def test_longer_bars(page: Browser, tmp_path: Path, bar_length: str) -> None:
    config = Config.preset("default").override({"cluster.minutes": 60, "profile.end_minute": 60})
    page.open(write_report(backtest(sample(30, 1, "ES", bar_length), config), tmp_path / "a.html"))
    check_sound(page)


@pytest.mark.parametrize("preset", Config.presets())
def test_every_preset(page: Browser, tmp_path: Path, preset: str) -> None:
    page.open(write_report(backtest(sample(sessions=25), preset), tmp_path / "preset.html"))
    check_sound(page)


@pytest.mark.parametrize("width", [320, 390, 768])
def test_nothing_is_wider_than_the_screen(page: Browser, report: Path, width: int) -> None:
    page.size(width, 844, phone=True)
    page.open(report)
    check_sound(page)
    assert page.evaluate("document.scrollingElement.scrollWidth") <= width
    assert page.evaluate("innerWidth") == width


def test_the_trade_table_sorts_both_ways(opened: Browser, result: BacktestResult) -> None:
    head = "document.querySelector('#trade-table th[data-name=net] button').click()"
    opened.evaluate("document.getElementById('page-size').value = '500'")
    opened.evaluate("document.getElementById('page-size').dispatchEvent(new Event('change'))")
    expected = sorted(result.trades["net"].to_list())
    opened.evaluate(head)
    assert numbers(cell_texts(opened, "net")) == expected
    opened.evaluate(head)
    assert numbers(cell_texts(opened, "net")) == expected[::-1]
    sort = "document.querySelector('#trade-table th[data-name=net]').getAttribute('aria-sort')"
    assert opened.evaluate(sort) == "descending"


def test_the_trade_table_filters(opened: Browser, result: BacktestResult) -> None:
    def choose(name: str, value: str) -> None:
        opened.evaluate(f"document.getElementById('{name}').value = '{value}'")
        opened.evaluate("document.getElementById('trade-filter').dispatchEvent(new Event('input'))")

    choose("page-size", "500")
    choose("filter-direction", "short")
    choose("filter-outcome", "win")
    wanted = result.trades.filter(direction="short").filter(pl.col("net") > 0)
    assert sorted(numbers(cell_texts(opened, "net"))) == sorted(wanted["net"].to_list())
    summary = opened.evaluate("document.getElementById('trade-summary').textContent")
    assert f"{wanted.height} trades of {result.trades.height}" in summary
    choose("filter-text", "no such word")
    assert cell_texts(opened, "net") == []
    opened.evaluate("document.querySelector('#trade-filter button[type=reset]').click()")
    opened.wait("document.getElementById('trade-table').tBodies[0].rows.length > 20")


def test_pages_of_the_trade_table(opened: Browser, result: BacktestResult) -> None:
    assert len(cell_texts(opened, "net")) == 25
    opened.evaluate("document.getElementById('page-next').click()")
    assert len(cell_texts(opened, "net")) == result.trades.height - 25
    assert opened.evaluate("document.getElementById('page-next').disabled") is True


def test_a_trade_opens_its_session(opened: Browser, result: BacktestResult) -> None:
    opened.evaluate("document.querySelector('#trade-table tbody button').click()")
    payload = build_payload(result)
    session = payload.data["trades"]["session"][0]
    date = payload.data["sessions"]["date"][session]
    opened.wait(f"document.getElementById('session-chart').dataset.session === '{date}'")
    assert opened.evaluate("document.getElementById('session-date').value") == date
    decided = payload.data["trades"]["decision_time"][0]
    offset = payload.data["offsets"][0][1]
    low, high = opened.evaluate(
        "document.getElementById('session-chart').layout.xaxis.range.map(Number)"
    )
    assert low < decided + offset < high
    check_sound(opened)


def test_the_page_decodes_the_bars_that_went_in(opened: Browser, result: BacktestResult) -> None:
    assert result.bars is not None
    opened.evaluate("document.querySelector('[data-part=all]').click()")
    date = opened.evaluate("document.getElementById('session-chart').dataset.session")
    opened.wait("document.querySelector('[data-part=all]').getAttribute('aria-pressed') === 'true'")
    shown = opened.evaluate(
        "(() => { const trace = document.getElementById('session-chart').data[0];"
        "return ['x', 'open', 'high', 'low', 'close'].map((name) => Array.from(trace[name])); })()"
    )
    assert result.sessions is not None
    row = result.sessions.frame.filter(pl.col("trade_date").cast(pl.String) == date)
    expected = result.bars.frame.filter(
        pl.col("ts_event").is_between(row["open"][0], row["close"][0], closed="left")
    )
    local = expected["ts_event"].dt.convert_time_zone("America/New_York")
    middle = local.dt.replace_time_zone(None).dt.offset_by("30s").dt.epoch("ms")
    assert shown[0] == middle.to_list()
    for values, name in zip(shown[1:], ("open", "high", "low", "close"), strict=True):
        assert values == expected[name].to_list()


def test_any_session_can_be_chosen(opened: Browser, result: BacktestResult) -> None:
    quiet = str(result.daily["trade_date"][1])
    opened.evaluate(f"document.getElementById('session-date').value = '{quiet}'")
    opened.evaluate("document.getElementById('session-date').dispatchEvent(new Event('change'))")
    opened.wait(f"document.getElementById('session-chart').dataset.session === '{quiet}'")
    opened.evaluate("document.getElementById('trade-next').click()")
    opened.wait(f"document.getElementById('session-chart').dataset.session !== '{quiet}'")
    traded = result.daily.filter(pl.col("trades") > 0)["trade_date"].cast(pl.String)
    date = opened.evaluate("document.getElementById('session-chart').dataset.session")
    assert date == traded.filter(traded > quiet)[0]
    check_sound(opened)


def test_a_session_in_the_address(page: Browser, report: Path, result: BacktestResult) -> None:
    date = str(result.daily["trade_date"][7])
    page.open(report, f"#day={date}")
    assert page.evaluate("document.getElementById('session-chart').dataset.session") == date


def test_dark_and_light_differ(opened: Browser, report: Path) -> None:
    paper = "getComputedStyle(document.body).backgroundColor"
    light = opened.evaluate(paper)
    dark = {"name": "prefers-color-scheme", "value": "dark"}
    opened.send("Emulation.setEmulatedMedia", features=[dark])
    assert opened.evaluate(paper) != light
    opened.wait(
        "document.querySelector('#equity-chart .ytick text').style.fill !== 'rgb(92, 99, 109)'"
    )
    opened.send("Emulation.setEmulatedMedia", features=[])
    check_sound(opened)


class Outline(HTMLParser):
    """Sections with their first heading, and what a reader of the screen needs."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: dict[str, str] = {}
        self.section = ""
        self.heading = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag == "section":
            self.section = values["id"] or ""
        self.heading = tag == "h2" or (self.heading and tag == "span")

    def handle_data(self, data: str) -> None:
        if self.heading:
            self.texts[self.section] = self.texts.get(self.section, "") + data


def test_every_section_says_that_it_is_simulated(report: Path) -> None:
    outline = Outline()
    outline.feed(report.read_text("utf-8"))
    assert set(outline.texts) == {
        "equity", "session", "trades", "funnel", "distributions", "groups", "contexts",
        "statistics", "configuration", "data",
    }  # fmt: skip
    assert all("SIMULATED" in text for text in outline.texts.values())


def test_real_bars_do_not_say_simulated(result: BacktestResult, tmp_path: Path) -> None:
    assert result.bars is not None
    bars = with_texts(replace(result.bars, simulated=False), "ESZ4")
    text = write_report(backtest(bars, "default"), tmp_path / "real.html").read_text("utf-8")
    assert "SIMULATED" not in text


def test_a_halt_comes_first(page: Browser, tmp_path: Path) -> None:
    config = Config.preset("default").override({"risk.max_drawdown_pct": 0.5})
    result = backtest(sample(), config)
    assert result.halted
    page.open(write_report(result, tmp_path / "halted.html"))
    check_sound(page)
    first = page.evaluate("document.querySelector('header').firstElementChild.textContent")
    assert first == result.halted


def test_too_many_bars_leave_the_dullest_sessions_out(
    result: BacktestResult, monkeypatch: pytest.MonkeyPatch, page: Browser, tmp_path: Path
) -> None:
    monkeypatch.setattr("clustercore.report.payload._MOST_BAR_BYTES", 90_000)
    payload = build_payload(result)
    assert 0 < payload.charted < payload.session_count
    sessions = payload.data["sessions"]
    kept = [
        trades for trades, size in zip(sessions["trades"], sessions["length"], strict=True) if size
    ]
    assert sum(trades > 0 for trades in kept) == min(
        len(kept), sum(trades > 0 for trades in sessions["trades"])
    )
    page.open(write_report(result, tmp_path / "capped.html"))
    check_sound(page)
    assert "The page holds the bars of" in page.evaluate("document.body.textContent")


def test_the_deepest_drawdown_is_the_statistic(result: BacktestResult) -> None:
    deepest = max(build_payload(result).data["equity"]["drawdown"])
    assert deepest == pytest.approx(result.stats["max_drawdown_usd"])


def test_an_interrupted_write_leaves_what_was_there(
    result: BacktestResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "report.html"
    path.write_text("before")

    def fail(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="no space"):
        write_report(result, path)
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]
    assert path.read_text() == "before"


def test_a_year_of_real_bars(page: Browser, data_dir: Path, tmp_path: Path) -> None:
    from clustercore.sources import read_bars

    bars = read_bars(data_dir / "dbn" / "es_1m_2019.dbn.zst")
    path = write_report(backtest(bars, "default"), tmp_path / "year.html")
    assert path.stat().st_size < 6_000_000
    page.size(1280, 900)
    page.open(path)
    check_sound(page)


def test_a_loaded_result_of_another_session_table_is_refused(result: BacktestResult) -> None:
    moved = result.daily.with_columns(pl.col("trade_date").dt.offset_by("40y"))
    with pytest.raises(DataError, match="session table does not hold"):
        build_payload(replace(result, daily=moved, bars=None, sessions=None))


def test_sessions_of_ones_own(page: Browser, tmp_path: Path) -> None:
    """Two sessions of one trade date, which no calendar of ours has."""
    bars = sample(sessions=15)
    days = bars.frame["ts_event"].dt.date().unique().sort()
    opens = pl.concat(
        [
            days.cast(pl.Datetime("ns", "UTC")),
            days.cast(pl.Datetime("ns", "UTC")).dt.offset_by("12h"),
        ]
    ).sort()
    table = pl.DataFrame(
        {"open": opens, "close": opens.dt.offset_by("12h"), "trade_date": opens.dt.date()}
    )
    result = backtest(bars, "default", sessions=Sessions.from_frame(table))
    payload = build_payload(result)
    assert payload.charted == payload.session_count == result.daily.height
    assert sum(payload.data["sessions"]["bars"]) == result.stats["bars"]
    page.open(write_report(result, tmp_path / "own.html"))
    check_sound(page)
