"""The text phase seen from a bare socket: what no client of the vendor would send."""

from __future__ import annotations

import databento_dbn as dbn
import pytest

from clustercore.gateway import Gateway, GatewayData, sample_parent_data
from tests.live.gateway_clients import Client, RawClient, wait_until

MINUTE = 60 * 10**9
BARS = "schema=ohlcv-1m|stype_in=parent|symbols=ES.FUT"


@pytest.fixture(scope="module")
def data() -> GatewayData:
    """Return half an hour."""
    whole = sample_parent_data(1)
    return whole.before(whole.span[0] + 30 * MINUTE)


def assert_serves(gateway: Gateway) -> None:
    """Assert that the next client is served."""
    gateway.check()
    with Client(gateway.port) as client:
        client.subscribe().start()
        wait_until(lambda: bool(client.bars))


@pytest.mark.parametrize(
    ("more", "named"),
    [
        ("|heartbeat_interval_s=abc", "heartbeat_interval_s"),
        ("|heartbeat_interval_s=0", "heartbeat_interval_s"),
        ("|heartbeat_interval_s=-5", "heartbeat_interval_s"),
        ("|heartbeat_interval_s=99999", "heartbeat_interval_s"),
        ("|heartbeat_interval_s=" + "9" * 400, "heartbeat_interval_s"),
        ("|encoding=csv", "encoding"),
        ("|compression=gzip", "compression"),
    ],
)
def test_an_answer_that_asks_for_too_much_is_refused_in_text(
    data: GatewayData, more: str, named: str
) -> None:
    with Gateway(data) as gateway:
        with RawClient(gateway.port) as client:
            reply = client.greet(more)
            assert reply.startswith("success=0|error=")
            assert named in reply
            assert len(reply) < 200
            assert client.read().ended == "fin"
            assert not client.content
        assert_serves(gateway)


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (f"{BARS}|id=x", "id"),
        (f"{BARS}|id=-1", "id"),
        (f"{BARS}|start=abc", "start"),
        (f"{BARS}|start=-5", "start"),
        (f"{BARS}|start={10**30}", "start"),
        (f"{BARS}|start={2**64 - 1}", "start"),
        (f"{BARS}|snapshot=1", "Snapshot"),
        ("schema=ohlcv-1m|stype_in=foo|symbols=ESZ4", "stype_in foo"),
        ("schema=ohlcv-1m|stype_in=parent|symbols=", "No symbols"),
        ("schema=|stype_in=parent|symbols=ES.FUT", "schema"),
        ("nonsense", "schema"),
    ],
)
def test_a_subscription_that_cannot_be_is_refused_in_a_stream(
    data: GatewayData, line: str, text: str
) -> None:
    """A client reads records from then on, and these begin with a header."""
    with Gateway(data) as gateway:
        with RawClient(gateway.port) as client:
            assert client.greet().startswith("success=1")
            client.say(line).say("start_session")
            assert client.read().ended == "fin"
        decoder = dbn.DBNDecoder()
        decoder.write(client.content)
        _, *errors = decoder.decode()
        assert [type(error) for error in errors] == [dbn.ErrorMsg]
        assert isinstance(errors[0], dbn.ErrorMsg)
        assert errors[0].code == dbn.ErrorCode.INVALID_SUBSCRIPTION
        assert text in errors[0].err
        assert_serves(gateway)


def test_a_line_without_end_is_no_line(data: GatewayData) -> None:
    with Gateway(data) as gateway:
        with RawClient(gateway.port) as client:
            client.socket.sendall(b"A" * 200_000)
            client.read()
        assert_serves(gateway)
