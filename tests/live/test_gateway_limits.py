from __future__ import annotations

import time

import databento
import databento_dbn as dbn
import pytest

from clustercore.errors import ConfigError
from clustercore.gateway import Gateway, GatewayData, sample_parent_data
from clustercore.gateway.limits import RateLimit
from tests.live.gateway_clients import Client, RawClient

MINUTE = 60 * 10**9
SECOND = 10**9


@pytest.fixture(scope="module")
def data() -> GatewayData:
    whole = sample_parent_data(1)
    return whole.before(whole.span[0] + 30 * MINUTE)


def is_greeted(port: int) -> bool:
    """Return whether a new connection is answered; it is closed at once otherwise."""
    with RawClient(port) as client:
        return client.line() != ""


def test_a_second_is_one_of_the_market_or_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    market, real = [0], [0]
    monkeypatch.setattr(time, "monotonic_ns", lambda: real[0])
    limit = RateLimit(2, lambda: market[0], "per_s")
    assert [limit.admits() for _ in range(3)] == [True, True, False]
    # What was refused does not count.
    market[0] = SECOND
    assert [limit.admits() for _ in range(3)] == [True, True, False]
    real[0] = SECOND
    assert [limit.admits() for _ in range(3)] == [True, True, False]
    market[0], real[0] = 2 * SECOND - 1, 2 * SECOND - 1
    assert not limit.admits()
    real[0] += 1
    assert limit.admits()


def test_no_limit_is_none() -> None:
    limit = RateLimit(None, lambda: 0, "per_s")
    assert all(limit.admits() for _ in range(1000))


@pytest.mark.parametrize("name", ["connections_per_s", "subscriptions_per_s"])
def test_a_limit_that_admits_nothing_is_refused(data: GatewayData, name: str) -> None:
    with pytest.raises(ConfigError, match=name):
        Gateway(data, **{name: 0})  # type: ignore[arg-type]


def test_one_connection_too_many_is_closed_at_once(
    data: GatewayData, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("databento.live.session.AUTH_TIMEOUT_SECONDS", 0.5)
    monkeypatch.setattr(time, "monotonic_ns", lambda: 0)
    with Gateway(data, connections_per_s=2) as gateway:
        assert [is_greeted(gateway.port) for _ in range(4)] == [True, True, False, False]
        # To the real client it is a silent wait.
        with (
            Client(gateway.port) as client,
            pytest.raises(databento.BentoError, match="timed out"),
        ):
            client.subscribe()
        monkeypatch.undo()
        with Client(gateway.port) as client:
            client.subscribe()


def test_by_default_there_is_no_limit(data: GatewayData) -> None:
    with Gateway(data) as gateway:
        assert all(is_greeted(gateway.port) for _ in range(50))


def test_one_subscription_too_many_is_answered_later(data: GatewayData) -> None:
    with (
        Gateway(data, subscriptions_per_s=1, at_end="close") as gateway,
        Client(gateway.port) as client,
    ):
        for symbol in ("ESZ4", "ESH5", "ESZ4-ESH5"):
            client.subscribe(symbol, stype_in="raw_symbol")
        begun = time.monotonic()
        client.run()
        # Market time stands still until the session is live.
        assert time.monotonic() - begun >= 2.0
    assert len(client.system(dbn.SystemCode.SUBSCRIPTION_ACK)) == 3
    assert not client.errors
    assert len(client.bars) == len(data.frame)
