from __future__ import annotations

import logging
import os
import queue
import sys
import threading
import traceback
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from clustercore.errors import ConfigError
from clustercore.live import alerts
from clustercore.live.alerts import (
    VARIABLE,
    AlertSender,
    Channel,
    alert_text,
    alerts_of,
    read_channels,
)
from clustercore.live.logs import redact
from clustercore.recommendation import Recommendation
from clustercore.store import Alert

URL = "mailtos://trader:" + "opensesame42@mail.example.com?to=desk@example.com"
MAIL = Channel("mailtos-1", URL)
CHAT = Channel("json-1", "json://localhost")
SOUND = Channel("sound", "sound")
PATIENCE_S = 10.0

REC = Recommendation(
    id="a" * 32,
    seq=1,
    root="ES",
    epoch=1,
    timestamp=1_734_616_920_000_000_000,
    contract="ESZ4",
    action="BUY",
    quantity=2,
    order_type="MARKET",
    price=4574.25,
    price_is="indicative",
    validity="until 14:07:00 UTC",
    valid_until=1_734_617_220_000_000_000,
    max_hold_minutes=60,
    flat_by=1_734_645_540_000_000_000,
    stop_loss=4567.75,
    profit_target=4587.25,
    stop_distance=6.5,
    target_distance=13.0,
    confidence=0.56,
    confidence_low=0.29,
    confidence_high=0.81,
    signal_strength=0.69,
    bayesian_multiplier=1.33,
    modal_price=4574.75,
    modal_position=0.065,
    volume_ratio=2.29,
    risk_usd=697.5,
    reward_usd=1252.5,
    reasoning="2.3 times usual volume",
    simulated=False,
)


class Outbox:
    """An outbox as the store keeps it; it notes which thread came."""

    def __init__(self, *rows: Alert) -> None:
        self.rows = {row.id: row for row in rows}
        self.sent: dict[int, int] = {}
        self.failed: list[tuple[int, int, str]] = []
        self.threads: set[threading.Thread] = set()

    def pending(self) -> list[Alert]:
        self.threads.add(threading.current_thread())
        return [row for row in self.rows.values() if row.id not in self.sent]

    def mark_sent(self, alert_id: int, at: int) -> None:
        self.threads.add(threading.current_thread())
        self.sent[alert_id] = at

    def mark_failed(self, alert_id: int, at: int, error: str) -> None:
        self.threads.add(threading.current_thread())
        self.failed.append((alert_id, at, error))


class Service:
    """Takes texts, or refuses so many of them first."""

    def __init__(self, refusals: int = 0) -> None:
        self.refusals = refusals
        self.taken: list[tuple[str, str]] = []
        self.tries: queue.SimpleQueue[str] = queue.SimpleQueue()

    def __call__(self, channel: Channel, text: str, /) -> str:
        refused = self.refusals > 0
        self.refusals -= refused
        if not refused:
            self.taken.append((channel.name, text))
        self.tries.put(text)
        return "no" if refused else ""

    def wait(self, tries: int) -> None:
        for _ in range(tries):
            self.tries.get(timeout=PATIENCE_S)


def row(number: int, channel: str = "json-1") -> Alert:
    return Alert(
        id=number,
        recommendation_id=f"rec{number}",
        channel=channel,
        text=f"text {number}",
        created=1,
    )


def sender_of(outbox: Outbox, service: alerts.Deliver, *channels: Channel) -> AlertSender:
    return AlertSender(
        channels or (CHAT,),
        outbox.pending,
        outbox.mark_sent,
        outbox.mark_failed,
        deliver=service,
        first_delay_s=0.01,
        longest_delay_s=0.02,
    )


@pytest.fixture
def alone() -> Iterator[None]:
    yield
    assert not [thread for thread in threading.enumerate() if thread.name == "alerts"]


def test_each_row_is_sent_once_and_marked(alone: None) -> None:
    outbox, service = Outbox(row(1), row(2)), Service()
    sender = sender_of(outbox, service).start()
    sender.pump(10)
    sender.pump(11)
    service.wait(2)
    sender.close(12)
    assert service.taken == [("json-1", "text 1"), ("json-1", "text 2")]
    assert set(outbox.sent) == {1, 2}


def test_only_the_calling_thread_touches_the_store(alone: None) -> None:
    outbox, service = Outbox(row(1), row(2)), Service(refusals=1)
    sender = sender_of(outbox, service).start()
    sender.pump(10)
    service.wait(3)
    sender.close(11)
    assert outbox.threads == {threading.current_thread()}


def test_a_failure_is_recorded_and_tried_again(alone: None) -> None:
    outbox, service = Outbox(row(1)), Service(refusals=3)
    sender = sender_of(outbox, service).start()
    sender.pump(10)
    service.wait(4)
    sender.close(11)
    assert [failure[0::2] for failure in outbox.failed] == [(1, "no")] * 3
    assert outbox.sent == {1: 11}
    assert len(service.taken) == 1


def test_a_failing_channel_does_not_hold_up_another(alone: None) -> None:
    outbox = Outbox(row(1, "mailtos-1"), row(2), row(3))
    delivered: queue.SimpleQueue[str] = queue.SimpleQueue()

    def deliver(channel: Channel, text: str, /) -> str:
        if channel.name == "mailtos-1":
            raise ConnectionError(URL)
        delivered.put(text)
        return ""

    sender = sender_of(outbox, deliver, MAIL, CHAT).start()
    sender.pump(10)
    assert {delivered.get(timeout=PATIENCE_S) for _ in range(2)} == {"text 2", "text 3"}
    sender.close(11)
    assert set(outbox.sent) == {2, 3}
    assert {failure[2] for failure in outbox.failed} == {"ConnectionError in channel mailtos-1"}


def test_what_was_sent_but_not_marked_is_sent_again_after_a_restart(alone: None) -> None:
    outbox, service = Outbox(row(1)), Service()
    before = sender_of(outbox, service).start()
    before.pump(10)
    service.wait(1)
    # The process dies here: nobody marks.
    after = sender_of(outbox, service).start()
    after.pump(20)
    service.wait(1)
    after.close(21)
    before.close(22)
    assert [text for _, text in service.taken] == ["text 1", "text 1"]


def test_a_server_that_does_not_answer_blocks_nobody() -> None:
    release = threading.Event()
    outbox = Outbox(row(1), row(2))

    def hang(channel: Channel, text: str, /) -> str:
        release.wait(PATIENCE_S)
        return ""

    sender = sender_of(outbox, hang).start()
    sender.pump(10)
    sender.pump(11)
    sender.close(12, timeout_s=0.05)
    assert outbox.sent == {}
    release.set()
    for thread in threading.enumerate():
        if thread.name == "alerts":
            assert thread.daemon
            thread.join(PATIENCE_S)


def test_without_channels_nothing_starts_and_rows_stay(alone: None) -> None:
    outbox = Outbox(row(1))
    sender = AlertSender((), outbox.pending, outbox.mark_sent, outbox.mark_failed).start()
    sender.pump(10)
    sender.close(11)
    assert (outbox.sent, outbox.failed) == ({}, [])


def test_a_row_of_a_channel_that_is_not_configured_waits(
    alone: None, caplog: pytest.LogCaptureFixture
) -> None:
    outbox, service = Outbox(row(1, "tgram-1"), row(2)), Service()
    sender = sender_of(outbox, service).start()
    for now in (10, 11):
        sender.pump(now)
    service.wait(1)
    sender.close(12)
    said = [record.getMessage() for record in caplog.records]
    assert said == ["alerts wait for channel tgram-1, which is not configured"]
    assert set(outbox.sent) == {2}


def test_the_text_has_title_price_levels_and_id() -> None:
    text = alert_text(REC)
    title, *body = text.splitlines()
    assert title == "BUY 2 ESZ4 MARKET near 4574.25"
    assert "Price indicative" in body
    assert "Made 2024-12-19T14:02:00Z, valid until 2024-12-19T14:07:00Z" in body
    assert "Stop 4567.75, target 4587.25" in body
    assert "Exit 60 minutes after the fill, flat by 21:59:00 UTC" in body
    assert "Confidence 56%" in body
    assert body[-1] == f"id {REC.id}"
    assert alert_text(replace(REC, simulated=True)).startswith("SIMULATED BUY")
    assert "no record yet" in alert_text(replace(REC, confidence=None))


@pytest.mark.parametrize(
    ("confidence", "word"), [(None, "signal"), (0.79, "signal"), (0.8, "urgent")]
)
def test_the_sound_is_urgent_from_80_percent_on(confidence: float | None, word: str) -> None:
    (sound,) = alerts_of(replace(REC, confidence=confidence), [SOUND], 5)
    assert (sound.text, sound.channel, sound.created) == (f"{word} {REC.id}", "sound", 5)


def test_there_is_a_row_for_each_channel() -> None:
    rows = alerts_of(REC, [MAIL, CHAT], 5)
    assert [row.channel for row in rows] == ["mailtos-1", "json-1"]
    assert all(REC.id in row.text for row in rows)


def test_channels_come_from_the_environment_and_leave_it(tmp_path: Path) -> None:
    environ = {VARIABLE: f"{URL} sound mailtos://a:{'b'}@c json://localhost {URL}"}
    channels = read_channels(environ, tmp_path)
    schemes = [channel.name.partition("-")[0] for channel in channels]
    assert schemes == ["mailtos", "sound", "mailtos", "json"]
    assert len({channel.name for channel in channels}) == 4
    assert environ == {}


def test_a_channel_keeps_its_name_wherever_it_stands(alone: None) -> None:
    old, new = "json://old-phone.example", "json://new-phone.example"
    both = read_channels({VARIABLE: f"{old} {new}"})
    rows = [replace(one, id=number) for number, one in enumerate(alerts_of(REC, both, 1), 1)]
    for changed in (new, f"{new} {old}"):
        outbox = Outbox(*rows)
        outbox.sent[1] = 2
        addresses: queue.SimpleQueue[str] = queue.SimpleQueue()

        def deliver(channel: Channel, text: str, /, to: Any = addresses) -> str:
            to.put(channel.address)
            return ""

        sender = sender_of(outbox, deliver, *read_channels({VARIABLE: changed})).start()
        sender.pump(10)
        assert addresses.get(timeout=PATIENCE_S) == new
        sender.close(11)
        assert set(outbox.sent) == {1, 2}


def test_two_addresses_of_one_mark_are_two_channels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alerts, "_name", lambda _: "json-000000")
    names = [c.name for c in read_channels({VARIABLE: "json://one.example json://two.example"})]
    assert names == ["json-000000", "json-000000-2"]


def test_channels_come_from_the_file_of_the_folder(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text(f'OTHER=1\n{VARIABLE}="sound {URL}"\n')
    file.chmod(0o600)
    names = [channel.name for channel in read_channels({}, tmp_path)]
    assert [name.partition("-")[0] for name in names] == ["sound", "mailtos"]
    assert read_channels({}, tmp_path / "none") == ()


def test_an_address_shows_its_scheme_only(tmp_path: Path) -> None:
    channels = read_channels({VARIABLE: f"{URL} tokenwithoutscheme"}, tmp_path)
    sender = AlertSender(channels, list, lambda _i, _a: None, lambda _i, _a, _e: None)
    shown = f"{channels!r} {channels} {sender!r}"
    assert "Channel(mailtos-" in shown
    assert "Channel(unknown-" in shown
    for secret in ("opensesame42", "example.com", "tokenwithoutscheme"):
        assert secret not in shown
    assert redact(f"POST {URL} failed for opensesame42") == "POST [hidden] failed for [hidden]"


@pytest.mark.parametrize(
    "address",
    [
        "mailtos://trader:" + "open[sesame42@mail.example.com",
        "json://trader:" + "opensesame42@\u2100.example.com/sesame42tail",
        "json://[sesame42host/sesame42path?pass=sesame42",
    ],
)
def test_an_address_that_cannot_be_read_is_named_by_its_number(address: str) -> None:
    with pytest.raises(ConfigError, match="address 2 cannot be read") as caught:
        read_channels({VARIABLE: f"sound {address}"})
    shown = "".join(traceback.format_exception(caught.value))
    assert "sesame" not in shown
    assert "example" not in shown
    assert "sesame" not in redact(f"netloc {address} and {address.partition('://')[2]}")


def test_the_library_delivers_title_and_body(monkeypatch: pytest.MonkeyPatch) -> None:
    apprise = pytest.importorskip("apprise")
    taken: list[dict[str, object]] = []

    class Fake:
        def add(self, address: str) -> bool:
            return address.startswith("json://")

        def notify(self, **message: object) -> bool:
            taken.append(message)
            return len(taken) == 1

    monkeypatch.setattr(apprise, "Apprise", Fake)
    assert alerts._deliver(CHAT, "title\nbody\nid") == ""
    assert taken == [{"title": "title", "body": "body\nid"}]
    assert alerts._deliver(CHAT, "title") == "channel json-1 refused it"
    assert "is not one that apprise knows" in alerts._deliver(Channel("x-1", "x://"), "title")


def test_without_the_library_the_advice_is_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "apprise", None)
    assert "install clustercore[live]" in alerts._deliver(CHAT, "text")


# The library's own imports are deprecated.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_refusal_of_the_real_library_names_no_address(
    alone: None, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("apprise")
    # Nothing listens on this port.
    closed = Channel("json-1", "json://someone:" + "opensesame42@127.0.0.1:9/secretpath99")
    outbox = Outbox(row(1))
    tried: queue.SimpleQueue[str] = queue.SimpleQueue()

    def deliver(channel: Channel, text: str, /) -> str:
        error = alerts._deliver(channel, text)
        tried.put(error)
        return error

    with caplog.at_level(logging.WARNING, "clustercore"):
        sender = sender_of(outbox, deliver, closed).start()
        sender.pump(10)
        assert tried.get(timeout=PATIENCE_S) == "channel json-1 refused it"
        sender.close(11, timeout_s=PATIENCE_S)
    assert outbox.failed[0][0::2] == (1, "channel json-1 refused it")
    ours = [record.getMessage() for record in caplog.records if "clustercore" in record.name]
    assert ours == ["alert rec1 was not delivered: channel json-1 refused it"]


def test_a_sound_is_played_with_a_small_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    player = tmp_path / "player"
    player.write_text(f'#!/bin/sh\nenv > "{tmp_path}/environ"\necho "$1" > "{tmp_path}/played"\n')
    player.chmod(0o700)
    sound = tmp_path / "sound.oga"
    sound.touch()
    players = (("absent", "/absent"), ("player", str(sound)))
    monkeypatch.setattr(alerts, "_SOUNDS", {"urgent": players, "signal": ()})
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("SOME_SECRET", "opensesame42")
    assert alerts._deliver(SOUND, "urgent id") == ""
    assert (tmp_path / "played").read_text().strip() == str(sound)
    assert "opensesame42" not in (tmp_path / "environ").read_text()


def test_without_a_player_the_bell_rings_on_a_terminal_only(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(alerts, "_SOUNDS", {"signal": ()})
    assert "neither a player" in alerts._deliver(SOUND, "signal id")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert alerts._deliver(SOUND, "signal id") == ""
    assert capsys.readouterr().err == "\a"
