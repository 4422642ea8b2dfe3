"""What comes over the wire as messages: trades as columns, in their place among all others."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from clustercore.gateway.records import (
    encode_bars,
    encode_error,
    encode_mapping,
    encode_metadata,
    encode_system,
    encode_trades,
)
from clustercore.live import messages as msg
from clustercore.live.key import Key
from clustercore.live.settings import LiveSettings
from clustercore.live.stream import Connection, Subscription
from clustercore.live.vendor import record_decoder

MINUTE = 60 * 10**9
NOON = 1_733_842_800 * 10**9
POINT = 10**9
NUMBER = 7
UNDEFINED = 2**64 - 1
END_OF_INTERVAL = 4


@pytest.fixture
def connection() -> Iterator[Connection]:
    """Return a connection that was never opened and has heard the header."""
    made = Connection(
        Key("db-" + "AbCdEfGhIjKlMnOpQrStUvWxYz012"),
        LiveSettings(historical="none"),
        [Subscription("trades", ("ES.FUT",), "parent")],
    )
    made._received(encode_metadata(start=NOON, ts_out=True))
    yield made
    assert made.close()


def trade(place: int, *, sent: int | None = None, flags: int = 0, **values: int) -> bytes:
    """Return a trade of a place after noon; ``sent`` moves nothing but its time of sending."""
    columns = {
        "ts_event": NOON + place * 1_000,
        "ts_recv": NOON + place * 1_000 + 7,
        "price": 6_000 * POINT + place * POINT // 4,
        "size": 1 + place,
        "side": ord("B"),
        "sequence": 100 + place,
        "flags": flags,
        "ts_in_delta": 0,
    } | values
    types = {"ts_event": "<u8", "ts_recv": "<u8"}
    arrays = {name: np.array([value], types.get(name, "<i8")) for name, value in columns.items()}
    record = encode_trades(arrays, slice(None), np.array([NUMBER], np.uint32), ts_out=True)
    if sent is not None:
        record["ts_out"] = sent
    return record.tobytes()


def bar(minute: int) -> bytes:
    prices = {name: np.array([6_000 * POINT]) for name in ("open", "high", "low", "close")}
    columns = {
        "ts_event": np.array([NOON + minute * MINUTE]),
        **prices,
        "volume": np.array([100]),
    }
    sent = NOON + (minute + 1) * MINUTE + 5
    ids = np.array([NUMBER], np.uint32)
    return encode_bars(columns, slice(None), ids, sent).tobytes()


def said(connection: Connection, *records: bytes) -> list[msg.Message]:
    """Return what a connection makes of records that come at once."""
    for record in records:
        connection._received(record)
    # As the next record that is no trade would.
    connection._seal()
    return connection.take(0)


def trades_of(message: msg.Message) -> msg.MarketTrades:
    assert isinstance(message, msg.MarketTrades)
    return message


def test_trades_come_as_columns_with_every_field(connection: Connection) -> None:
    (message,) = said(connection, *(trade(place, price=-POINT * place) for place in range(5)))
    found = trades_of(message)
    places = np.arange(5)
    assert len(found) == 5
    assert found.symbol == ""
    assert found.rows["instrument_id"].tolist() == [NUMBER] * 5
    # Bars are formed by the time of receipt.
    assert found.ts.tolist() == (NOON + places * 1_000 + 7).tolist()
    assert found.rows["ts_event"].tolist() == (NOON + places * 1_000).tolist()
    assert found.price.tolist() == (-POINT * places).tolist()
    assert found.size.tolist() == (places + 1).tolist()
    assert found.rows["sequence"].tolist() == (100 + places).tolist()
    assert found.rows["side"].tolist() == [ord("B")] * 5
    assert found.volume == 15
    assert found.first == NOON + 7


def test_a_trade_that_was_sent_twice_is_the_same_whenever_it_was_sent(
    connection: Connection,
) -> None:
    (message,) = said(
        connection, trade(1), trade(1, sent=NOON + 5 * MINUTE), trade(1, sent=UNDEFINED), trade(2)
    )
    found = trades_of(message)
    assert len(found) == 4
    once = found.once()
    assert once.size.tolist() == [2, 3]
    # Another trade of the same size and price is another one by its sequence.
    blocks = said(connection, trade(1), trade(1, sequence=101), trade(1, sequence=102))
    assert len(msg.MarketTrades.joined([trades_of(block) for block in blocks]).once()) == 2


@pytest.mark.parametrize("time", [UNDEFINED, 2**63 - 1, 2**62])
@pytest.mark.parametrize("name", ["ts_event", "ts_recv"])
def test_a_trade_whose_time_cannot_be_is_said_and_takes_no_other_with_it(
    connection: Connection, name: str, time: int
) -> None:
    unreadable, message = said(connection, trade(0), trade(1, **{name: time}), trade(2))
    assert isinstance(unreadable, msg.Unreadable)
    assert str(time) in unreadable.text
    assert trades_of(message).size.tolist() == [1, 3]


def test_trades_none_of_whose_times_can_be_are_none(connection: Connection) -> None:
    *unreadable, message = said(connection, *(trade(k, ts_recv=UNDEFINED) for k in range(3)))
    assert [type(one) for one in unreadable] == [msg.Unreadable] * 3
    assert len(trades_of(message)) == 0


@pytest.mark.parametrize(("flags", "doubts"), [(8, 1), (8 | 128, 1), (128, 0), (0, 0)])
def test_a_doubt_of_the_vendor_is_said_once_and_the_trades_are_kept(
    connection: Connection, flags: int, doubts: int
) -> None:
    *others, message = said(
        connection, trade(0), *(trade(place, flags=flags) for place in range(1, 4))
    )
    assert [type(one) for one in others] == [msg.Doubt] * doubts
    assert len(trades_of(message)) == 4


def of_another_kind(kind: int) -> bytes:
    """Return a record of a kind that nobody asked for, of the size of a trade."""
    record = bytearray(trade(0))
    record[1] = kind
    return bytes(record)


def shortened(record: bytes) -> bytes:
    """Return a record without its last eight bytes, which says so itself."""
    return bytes([record[0] - 2]) + record[1:-8]


@pytest.mark.parametrize(
    ("record", "text"),
    [
        # An order of the book: known to the vendor, and never asked for.
        (lambda: bytes([16]) + b"\xa0" + trade(0)[2:] + bytes(8), "a record of type MBOMsg"),
        (lambda: of_another_kind(250), ""),
        (lambda: shortened(shortened(trade(0))), "40 bytes of trades of 40 each"),
    ],
    ids=["not asked for", "not known", "too short"],
)
def test_a_record_of_no_known_kind_is_an_oddity(
    connection: Connection, record: Callable[[], bytes], text: str
) -> None:
    (oddity,) = said(connection, record())
    assert isinstance(oddity, msg.Oddity)
    assert text in oddity.text


def test_trades_of_two_sizes_are_an_oddity_and_nothing_is_read_from_them(
    connection: Connection,
) -> None:
    (oddity,) = said(connection, trade(0), shortened(trade(1)))
    assert isinstance(oddity, msg.Oddity)


def everything() -> list[bytes]:
    """Return records of every kind, trades between all of them."""
    return [
        encode_mapping(NUMBER, "ES.FUT", "ESZ4", NOON, NOON),
        trade(0),
        trade(1),
        bar(0),
        trade(2),
        encode_system(END_OF_INTERVAL, "", NOON + MINUTE, NOON + MINUTE + 9),
        encode_system(0, "Heartbeat", NOON, NOON),
        trade(3),
        trade(4),
        trade(5),
        encode_error(4, "Failed to resolve symbol: X.FUT", NOON, NOON),
        bar(1),
        encode_system(3, "Finished", NOON, NOON),
        trade(6),
    ]


ORDER: list[Any] = [
    "Mapping",
    [0, 1],
    "MarketBar",
    [2],
    "EndOfInterval",
    "SignOfLife",
    [3, 4, 5],
    "GatewayError",
    "MarketBar",
    "ReplayCompleted",
    [6],
]


def in_words(messages: list[msg.Message]) -> list[Any]:
    """Return places of trades, and the names of all other messages."""
    return [
        (one.size - 1).tolist() if isinstance(one, msg.MarketTrades) else type(one).__name__
        for one in messages
    ]


def test_trades_keep_their_place_among_bars_and_all_others(connection: Connection) -> None:
    found = said(connection, *everything())
    assert in_words(found) == ORDER
    assert isinstance(found[2], msg.MarketBar)
    assert found[2][:7] == (NUMBER, NOON, *[6_000 * POINT] * 4, 100)
    assert found[2].sent == NOON + MINUTE + 5
    assert found[2].received > 0
    assert isinstance(found[4], msg.EndOfInterval)
    assert (found[4].ts_end, found[4].sent) == (NOON + MINUTE, NOON + MINUTE + 9)


@pytest.mark.parametrize("most", [1, 2, 3, 5])
def test_the_order_is_the_same_however_few_are_taken_at_a_time(
    connection: Connection, most: int
) -> None:
    for record in everything():
        connection._received(record)
    # As whatever comes next does.
    connection._seal()
    taken: list[Any] = []
    while connection.waiting:
        for word in in_words(connection.take(0, most)):
            if isinstance(word, list) and taken and isinstance(taken[-1], list):
                taken[-1] = taken[-1] + word
            else:
                taken.append(word)
    assert taken == ORDER
    # And the header.
    assert connection.depth == len(everything()) + 1


def test_the_columns_are_what_the_vendors_own_decoder_reads(connection: Connection) -> None:
    records = [trade(place, price=-3 * place, side=ord("A")) for place in range(1, 4)]
    (message,) = said(connection, *records)
    decoder = record_decoder(encode_metadata(start=NOON, ts_out=True))
    decoder.write(b"".join(records))
    read = [
        (
            one.instrument_id,
            one.ts_event,
            one.price,
            one.size,
            ord(str(one.side)),
            int(one.flags),
            one.ts_recv,
            one.sequence,
        )
        for one in decoder.decode()
    ]
    assert trades_of(message).rows.tolist() == read
