from __future__ import annotations

import io
import os
import pty
import re
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from clustercore.cli.live import _say_note, _Tries
from clustercore.live.console import (
    StatusLine,
    recommendation_block,
    recommendation_text,
    status_line,
)
from clustercore.live.status import RootStatus, Status
from clustercore.recommend import exit_text
from clustercore.recommendation import Recommendation
from clustercore.store import FeedEvent

AT = 1_734_616_920_000_000_000
PATIENCE_S = 10.0

REC = Recommendation(
    id="a" * 32,
    seq=1,
    root="ES",
    epoch=1,
    timestamp=AT,
    contract="ESZ4",
    action="BUY",
    quantity=2,
    order_type="MARKET",
    price=4574.25,
    price_is="indicative",
    validity="until 14:07:00 UTC",
    valid_until=AT + 300 * 10**9,
    max_hold_minutes=60,
    flat_by=1_734_645_540_000_000_000,
    stop_loss=4567.75,
    profit_target=4587.25,
    stop_distance=6.5,
    target_distance=13.0,
    confidence=0.556,
    confidence_low=0.289,
    confidence_high=0.807,
    signal_strength=0.69,
    bayesian_multiplier=1.333,
    modal_price=4574.75,
    modal_position=0.065,
    volume_ratio=2.29,
    risk_usd=697.5,
    reward_usd=1252.5,
    reasoning="2.3 times usual volume from 13:45 (decided 14:00 UTC), modal price 4574.75 in the "
    "lowest fifth of its range, retest held 14:01-14:02 UTC",
    simulated=False,
)
UNKNOWN = replace(REC, confidence=None, confidence_low=None, confidence_high=None)
FIRM = replace(REC, action="SELL", order_type="LIMIT", price_is="firm", validity="DAY")
ES = RootStatus(
    root="ES",
    contract="ESZ4",
    last_bar_start=AT - 60 * 10**9,
    last_bar_age_s=3.2,
    session_volume=812_345,
    baseline_volume=623_000.0,
    pending_retests=2,
    open_position="long 2 @ 4574.25",
    open_contracts=2,
    day_pnl=432.5,
    equity=50_432.5,
    risk_usd=697.5,
)
STATUS = Status(state="LIVE", since=AT, updated_at=AT, roots=(ES,))


def drawn(rec: Recommendation, width: int = 100) -> str:
    stream = io.StringIO()
    Console(file=stream, width=width, color_system=None).print(recommendation_block(rec))
    return stream.getvalue()


@pytest.mark.parametrize("rec", [REC, UNKNOWN, FIRM, replace(REC, simulated=True)])
@pytest.mark.parametrize("show", [drawn, recommendation_text])
def test_both_forms_say_everything(
    show: Callable[[Recommendation], str], rec: Recommendation
) -> None:
    text = " ".join(re.sub(r"[^\S ]|[^\x00-\x7f]", " ", show(rec)).split())
    facts = [
        "2024-12-19 14:02:00 UTC",
        "ESZ4",
        f"{rec.action} 2",
        f"{rec.order_type} ",
        "4574.25",
        rec.price_is,
        "valid DAY, until 14:07:00 UTC" if rec.validity == "DAY" else f"valid {rec.validity}",
        "exit 60 minutes after the fill, flat by 21:59:00 UTC",
        "4567.75",
        "6.50",
        "4587.25",
        "13.00",
        "$697.50",
        "$1,252.50",
        "0.69",
        "1.33",
        "1.80",
        rec.id,
        "2.3 times usual volume from 13:45",
        "no record yet" if rec.confidence is None else "56%, 90% interval 29% to 81%",
    ]
    assert [fact for fact in facts if fact not in text] == []
    assert ("SIMULATED" in text) == rec.simulated


@pytest.mark.parametrize("show", [drawn, recommendation_text])
def test_no_form_is_wider_than_80_columns(show: Callable[[Recommendation], str]) -> None:
    wide = replace(
        REC, simulated=True, contract="6EZ4.SIMULATED", price=123456.789, reasoning="x " * 300
    )
    assert max(map(len, show(wide).splitlines())) <= 80


def test_a_record_that_does_not_exist_has_no_gauge() -> None:
    assert "◆" in drawn(REC)
    assert "◆" not in drawn(UNKNOWN)


def test_a_block_fits_a_narrow_terminal() -> None:
    assert max(map(len, drawn(REC, width=50).splitlines())) <= 50


def test_the_line_has_what_a_trader_asks_for() -> None:
    assert status_line(STATUS, 200).plain == (
        " LIVE   ESZ4  bar 14:01, 3 s ago  vol 812k, 1.30x usual  2 retests  long 2 @ 4574.25  "
        "day +$432.50  at risk $697.50"
    )


@pytest.mark.parametrize("width", [20, 40, 60, 80, 100, 120])
@pytest.mark.parametrize("state", ["LIVE", "BACKOFF", "CATCHING_UP"])
def test_the_line_fits_and_keeps_what_matters(width: int, state: str) -> None:
    status = replace(STATUS, state=state, reason="no answer, next try in 12 s", simulated=True)
    line = status_line(status, width)
    assert len(line.plain) <= width
    assert f" {state} " in line.plain
    if width >= 40:
        assert "SIMULATED" in line.plain
        assert "ESZ4" in line.plain
    if width >= 80:
        assert "2 @ 4574.25" in line.plain


LONG_REASON = "neither bars nor an interval's end past the minute: 14:01, 14:02, x"


def test_80_columns_hold_what_a_trader_asks_for() -> None:
    for status in (STATUS, replace(STATUS, simulated=True)):
        line = status_line(status, 80).plain
        for part in ("LIVE", "ESZ4", "14:01 3s", "1.30x", "2 retests", "2 @ 4574.25", "+$432.50"):
            assert part in line, (part, line)


def test_a_reason_gives_way_before_what_is_at_stake_does() -> None:
    for width in (80, 100, 200):
        line = status_line(replace(STATUS, state="DEGRADED", reason=LONG_REASON), width).plain
        for part in ("DEGRADED", "neither bars nor an", "14:01", "2 @ 4574.25", "+$432.50"):
            assert part in line, (part, line)
        # It takes what room the others leave, and no room stays empty beside a cut word.
        assert LONG_REASON in line or len(line) == width


def test_60_columns_hold_the_bar_and_the_result() -> None:
    line = status_line(replace(STATUS, simulated=True), 60).plain
    for part in ("LIVE", "SIMULATED", "ESZ4", "14:01 3s", "2 @ 4574.25", "+$432.50"):
        assert part in line, (part, line)


def test_a_block_on_trade_is_shortened_too() -> None:
    blocked = replace(ES, blocked="halted: " + "max_drawdown_pct " * 5)
    line = status_line(replace(STATUS, roots=(blocked,)), 80).plain
    for part in ("halted: max_draw", "2 @ 4574.25", "+$432.50"):
        assert part in line, (part, line)


def test_several_instruments_have_a_line_each_and_a_sum() -> None:
    nq = replace(ES, root="NQ", contract="NQZ4", day_pnl=-500.0, blocked="paused: drawdown")
    first, second, third = status_line(replace(STATUS, roots=(ES, nq)), 200).plain.splitlines()
    assert first == " LIVE   day -$67.50  at risk $1,395.00"
    assert second.startswith("ESZ4")
    assert third.endswith("paused: drawdown")


def test_what_is_not_known_is_not_shown_as_a_number() -> None:
    line = status_line(replace(STATUS, roots=(RootStatus(root="ES"),)), 200).plain
    assert line == " LIVE   ES  no contract yet  vol 0  flat  day $0.00"
    chosen = RootStatus(root="ES", contract="ESZ4")
    line = status_line(replace(STATUS, roots=(chosen,)), 200).plain
    assert line == " LIVE   ESZ4  no bar yet  vol 0  flat  day $0.00"


@pytest.mark.parametrize(
    ("age", "shown"), [(-1.0, "0 s"), (119.0, "119 s"), (300.0, "5 min"), (7200.0, "2 h")]
)
def test_an_age_is_read_at_a_glance(age: float, shown: str) -> None:
    status = replace(STATUS, roots=(replace(ES, last_bar_age_s=age),))
    assert f"bar 14:01, {shown} ago" in status_line(status, 200).plain


def test_words_from_outside_cannot_move_the_cursor() -> None:
    evil = "\x1b[2J\x9b1;1H[red]no[/red]\r\n"
    status = replace(STATUS, state="DEGRADED", reason=evil, roots=(replace(ES, contract=evil),))
    shown = status_line(status, 300).plain + recommendation_text(replace(REC, reasoning=evil))
    assert "\x1b" not in shown
    assert "\x9b" not in shown
    assert "[red]no[/red]" in shown
    assert "\x1b" not in drawn(replace(REC, reasoning=evil, contract=evil))


def test_a_log_file_gets_blocks_and_sentences_only() -> None:
    stream = io.StringIO()
    with StatusLine(stream) as console:
        console.say("2024-12-19T14:02:00Z LIVE: bars come in time")
        for number in range(50):
            console.update(replace(STATUS, updated_at=AT + number))
            if number % 25 == 0:
                settle(console)
        console.show(REC)
        console.say("2024-12-19T14:02:01Z STOPPED: asked to")
    head, block, tail = stream.getvalue().partition(recommendation_text(REC))
    assert head == "2024-12-19T14:02:00Z LIVE: bars come in time\n"
    assert block
    assert tail == "\n2024-12-19T14:02:01Z STOPPED: asked to\n"


def settle(console: StatusLine) -> None:
    """Wait until what was given is drawn."""
    end = time.monotonic() + PATIENCE_S
    while console._drawn is not console._status and time.monotonic() < end:
        time.sleep(0.005)  # noqa: TID251 -- another thread draws
    assert console._drawn is console._status


def on_terminal(play: Callable[[StatusLine], Any]) -> str:
    """Play something on a terminal of 100 columns and return what came out of it."""
    ours, theirs = pty.openpty()
    chunks: list[bytes] = []

    def read() -> None:
        try:
            while chunk := os.read(ours, 65_536):
                chunks.append(chunk)
        except OSError:
            pass

    reader = threading.Thread(target=read)
    reader.start()
    try:
        with os.fdopen(theirs, "w", encoding="utf-8") as stream:
            with StatusLine(stream, live=True, width=100) as console:
                play(console)
            assert not console.is_gone
    finally:
        reader.join(PATIENCE_S)
        os.close(ours)
    return b"".join(chunks).decode()


def test_on_a_terminal_the_line_changes_in_place() -> None:
    def play(console: StatusLine) -> None:
        console.update(STATUS)
        settle(console)
        console.update(replace(STATUS, state="BACKOFF", reason="no answer"))
        settle(console)
        console.show(replace(REC, simulated=True))

    written = on_terminal(play)
    assert "\x1b[2K" in written
    assert written.index("LIVE") < written.index("BACKOFF") < written.index("SIMULATED")
    # The block is written above the line, which is drawn again below.
    assert "no answer" in written[written.index("SIMULATED") :]
    assert written.endswith(("\x1b[?25h", "\x1b[2K"))


def test_a_terminal_keeps_sentences_above_the_line() -> None:
    def play(console: StatusLine) -> None:
        console.update(STATUS)
        settle(console)
        tries = _Tries()
        _say_note(console.say, noted("state", "no answer", state="BACKOFF"), tries)
        _say_note(console.say, noted("risk", "halted: max_drawdown_pct"), tries)
        _say_note(console.say, noted("late", "not for the console"), tries)

    written = on_terminal(play)
    assert written.count("2024-12-19T14:02:00Z  BACKOFF: no answer\r\n") == 1, written
    assert written.count("2024-12-19T14:02:00Z  ES halted: max_drawdown_pct\r\n") == 1, written
    assert "not for the console" not in written


def test_of_many_tries_to_connect_some_are_shown() -> None:
    said: list[str] = []
    tries = _Tries()

    def goes(*states: str) -> None:
        for state in states:
            _say_note(said.append, noted("state", f"{len(said)}", state=state), tries)

    goes("CONNECTING", "CATCHING_UP", "LIVE", *("BACKOFF", "CONNECTING") * 9, "CATCHING_UP")
    assert [line.split()[1].rstrip(":") for line in said] == [
        *("CONNECTING", "CATCHING_UP", "LIVE"),
        # The first try in vain, and then the second, the fourth and the eighth.
        *("BACKOFF",) * 4,
        "CATCHING_UP",
    ]
    goes("BACKOFF", "CONNECTING")
    assert said[-1].split()[1] == "BACKOFF:"


def noted(kind: str, reason: str, state: str = "") -> FeedEvent:
    return FeedEvent(at=AT, kind=kind, root="ES", reason=reason, detail={"state": state})


def test_a_terminal_that_takes_nothing_holds_up_nobody() -> None:
    taken = threading.Event()

    class Stuck(io.StringIO):
        def write(self, text: str, /) -> int:
            taken.wait(PATIENCE_S)
            return len(text)

    console = StatusLine(Stuck()).start()
    begin = time.monotonic()
    for number in range(2_000):
        console.say(f"line {number}")
        console.update(replace(STATUS, updated_at=number))
    console.close()
    spent = time.monotonic() - begin
    waiting = len(console._waiting)
    taken.set()
    for thread in threading.enumerate():
        if thread.name == "console":
            assert thread.daemon
            thread.join(PATIENCE_S)
    assert spent < 3
    assert 0 < waiting <= 1_000


def test_a_terminal_that_is_closed_is_left_alone() -> None:
    stream = io.StringIO()
    console = StatusLine(stream).start()
    stream.close()
    console.say("nobody reads this")
    console.close()
    assert console.is_gone


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_stream_of_few_letters_is_written_in_them(encoding: str) -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding)
    with StatusLine(stream) as console:
        console.say("volume │ 4.2 ≈ usual")
    assert not console.is_gone
    assert b"4.2" in raw.getvalue()


def test_the_page_shows_what_its_code_makes() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "recommendations.md").read_text("utf-8")
    code, shown = re.findall(r"^```(?:python|text)\n(.*?)\n```$", page, re.MULTILINE | re.DOTALL)
    namespace: dict[str, Any] = {}
    exec(compile(code, "recommendations.md", "exec"), namespace)  # noqa: S102 -- our own page
    assert namespace["text"] == shown


def test_what_is_not_known_of_the_exit_is_left_out() -> None:
    assert exit_text(replace(REC, flat_by=None)) == "60 minutes after the fill"
    assert exit_text(replace(REC, max_hold_minutes=None)) == "flat by 21:59:00 UTC"
    nothing = replace(REC, flat_by=None, max_hold_minutes=None)
    assert "exit" not in recommendation_text(nothing)
    assert "exit" not in drawn(nothing)
