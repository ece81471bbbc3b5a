"""Stream events say what they say, and nothing is added to it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ledger.errors import UnreadableFrame
from ledger.facts.types import Balance, Exact, Fact, Fill, Order, Transfer
from ledger.venue.frames import FACTLESS, read
from ledger.venue.stream_events import CONTROLS, facts
from tests.samples import PAYLOADS, TEN_FIELDS, ten_fields

FULL_TRADE: dict[str, Any] = PAYLOADS["s037"]


def facts_of(payload: object) -> list[Fact]:
    return facts(read(json.dumps(payload).encode()))


def order_of(payload: object) -> Order:
    order = facts_of(payload)[0]
    assert isinstance(order, Order)
    return order


def fill_of(payload: object) -> Fill | None:
    fills = [fact for fact in facts_of(payload) if isinstance(fact, Fill)]
    assert len(fills) <= 1
    return fills[0] if fills else None


def refusal_of(payload: object) -> str:
    with pytest.raises(UnreadableFrame) as refusal:
        facts_of(payload)
    return str(refusal.value)


def test_the_venues_own_sample_is_one_order_and_one_fill() -> None:
    assert facts_of(TEN_FIELDS) == [
        Order(symbol="BTCUSDT", order_id=288274, status="FILLED", side="BUY", updated_ms=1717430400500),
        Fill(
            symbol="BTCUSDT",
            order_id=288274,
            side="BUY",
            price=Exact("64000.00"),
            qty=Exact("0.01000000"),
            executed_ms=1717430400500,
            fee=Exact("0.64"),
            fee_asset="USDT",
            status="FILLED",
        ),
    ]


def test_a_full_trade_tells_everything() -> None:
    assert facts_of(FULL_TRADE) == [
        Order(
            symbol="LTCBNB",
            order_id=32,
            status="PARTIALLY_FILLED",
            side="BUY",
            type="MARKET",
            time_in_force="GTC",
            client_order_id="8LGC97RRgNPVQk979VIhjt",
            price=Exact("0.00000000"),
            orig_qty=Exact("6.00000000"),
            executed_qty=Exact("2.00000000"),
            executed_quote=Exact("2.00000000"),
            created_ms=1719467634105,
            updated_ms=1719467634105,
        ),
        Fill(
            symbol="LTCBNB",
            order_id=32,
            side="BUY",
            price=Exact("1.00000000"),
            qty=Exact("2.00000000"),
            executed_ms=1719467634105,
            quote_qty=Exact("2.00000000"),
            fee=Exact("0.00100000"),
            fee_asset="BNB",
            trade_id=7,
            is_maker=False,
            status="PARTIALLY_FILLED",
        ),
    ]


@pytest.mark.parametrize("name", ["s034", "s036", "s039", "s040"])
def test_a_report_that_is_no_trade_makes_no_fill(name: str) -> None:
    assert [type(fact) for fact in facts_of(PAYLOADS[name])] == [Order]


@pytest.mark.parametrize(
    ("changed", "traded"),
    [
        ({"l": "0.01"}, True),
        ({"l": "0.00000000"}, False),
        ({"l": "-0"}, False),
        ({"l": None}, False),
        ({"l": "0.01", "x": "TRADE"}, True),
        ({"l": "0.01", "x": "TRADE", "t": -1}, True),
        ({"l": "0", "x": "TRADE"}, False),
        ({"l": "0.01", "x": "CANCELED"}, False),
        ({"l": "0", "x": "TRADE_PREVENTION"}, False),
        ({"l": "0.01", "X": "CANCELED"}, True),
    ],
)
def test_what_is_a_trade(changed: dict[str, Any], traded: bool) -> None:
    assert (fill_of(ten_fields(**changed)) is not None) == traded


def test_a_trade_that_does_not_say_how_much_is_not_taken_for_nothing() -> None:
    assert refusal_of(ten_fields(x="TRADE", l=None)) == (
        "executionReport BTCUSDT/288274: field l: expected a decimal, got null"
    )


@pytest.mark.parametrize(("t", "trade_id"), [(0, 0), (7, 7), (-1, None), (None, None)])
def test_a_trade_id_is_zero_or_more(t: int | None, trade_id: int | None) -> None:
    fill = fill_of(FULL_TRADE | {"t": t})
    assert fill is not None
    assert fill.trade_id == trade_id


@pytest.mark.parametrize(
    ("c", "other", "expected"),
    [("cancel-7", "mine", "mine"), ("mine", "", "mine"), ("mine", None, "mine"), ("", "", None), (None, None, None)],
)
def test_the_client_id_of_a_cancel_is_the_orders_own(c: str | None, other: str | None, expected: str | None) -> None:
    assert order_of(ten_fields(c=c, C=other)).client_order_id == expected


@pytest.mark.parametrize(
    ("n", "asset", "fee"),
    [
        ("0.64", "USDT", ("0.64", "USDT")),
        ("0", "BNB", ("0", "BNB")),
        ("-0.01", "USDT", ("-0.01", "USDT")),
        ("0", None, (None, None)),
        ("0.00000000", None, (None, None)),
        (None, None, (None, None)),
        ("0.64", None, ("0.64", None)),
    ],
)
def test_the_fee_is_the_venues(n: str | None, asset: str | None, fee: tuple[str | None, str | None]) -> None:
    fill = fill_of(ten_fields(n=n, N=asset))
    assert fill is not None
    assert (fill.fee, fill.fee_asset) == fee


def test_a_negative_cumulative_quote_is_not_known() -> None:
    assert order_of(FULL_TRADE | {"Z": "-1.00"}).executed_quote is None


def test_times_fall_back_to_when_the_event_was_sent() -> None:
    order, fill = facts_of(FULL_TRADE | {"T": None, "E": 9, "O": -1})
    assert isinstance(order, Order)
    assert isinstance(fill, Fill)
    assert (order.updated_ms, order.created_ms, fill.executed_ms) == (9, None, 9)


def test_a_trade_without_any_time_is_unreadable() -> None:
    assert "field T: expected the time of the trade" in refusal_of(ten_fields(T=None))
    assert order_of(ten_fields(T=None, l="0")).updated_ms is None


def test_new_words_of_the_venue_are_kept() -> None:
    order = order_of(FULL_TRADE | {"X": "FROZEN", "o": "ICEBERG_PLUS", "f": "GTX", "S": "SHORT"})
    assert (order.status, order.type, order.time_in_force, order.side) == ("FROZEN", "ICEBERG_PLUS", "GTX", "SHORT")


@pytest.mark.parametrize("text", ["", "NaN", "Infinity", "-0.01", "1,0", " 1 ", "1_000", "+1", "１", "1e999999999"])
@pytest.mark.parametrize("field", ["l", "L", "p", "q", "z", "Y"])
def test_a_number_that_is_none_is_refused_by_name(field: str, text: str) -> None:
    message = refusal_of(FULL_TRADE | {field: text})
    assert message.startswith(f"executionReport LTCBNB/32: field {field}: expected a decimal")
    assert message.endswith(f"got {text!a}")


@pytest.mark.parametrize("field", ["n", "Z"])
def test_numbers_that_may_be_negative_are_numbers_all_the_same(field: str) -> None:
    assert refusal_of(FULL_TRADE | {field: "NaN"}).endswith(f"field {field}: expected a decimal, got 'NaN'")


def test_digits_are_kept() -> None:
    fill = fill_of(ten_fields(l="1E-8", L="12345678901234567890123456789012.000000001"))
    assert fill is not None
    assert (fill.qty, fill.price) == ("0.00000001", "12345678901234567890123456789012.000000001")


def test_a_position_is_one_balance_per_asset() -> None:
    assert facts_of(PAYLOADS["s113"]) == [
        Balance("LTC", Exact("3011.11745670"), Exact("0.00000000"), 1719467634105),
        Balance("BNB", Exact("996.11865670"), Exact("0.00000000"), 1719467634105),
    ]


@pytest.mark.parametrize(("clocks", "as_of_ms"), [({"u": 5, "E": 6}, 5), ({"E": 6}, 6), ({}, None)])
def test_the_clock_of_a_position(clocks: dict[str, int], as_of_ms: int | None) -> None:
    payload = {"e": "outboundAccountPosition", "B": [{"a": "BTC", "f": "1", "l": "0"}]} | clocks
    assert facts_of(payload) == [Balance("BTC", Exact("1"), Exact("0"), as_of_ms)]


@pytest.mark.parametrize("row", [{"a": "BTC", "f": "-1", "l": "0"}, {"a": "BTC", "f": "0", "l": "NaN"}])
def test_a_balance_that_cannot_be_is_refused(row: dict[str, str]) -> None:
    field = "f" if row["f"] == "-1" else "l"
    message = refusal_of({"e": "outboundAccountPosition", "u": 1, "B": [{"a": "ETH", "f": "1", "l": "0"}, row]})
    assert message.startswith(f"outboundAccountPosition: field B[1].{field}: expected a decimal")


@pytest.mark.parametrize(
    ("moved", "kind"), [("100.00000000", "deposit"), ("-100.00000000", "withdrawal"), ("1E-8", "deposit")]
)
def test_a_balance_update_is_a_transfer(moved: str, kind: str) -> None:
    (transfer,) = facts_of({"e": "balanceUpdate", "E": 6, "T": 5, "a": "BTC", "d": moved})
    assert transfer == Transfer("BTC", Exact(moved if "E" not in moved else "0.00000001"), kind, 5)


def test_a_balance_update_of_nothing_says_nothing() -> None:
    assert facts_of({"e": "balanceUpdate", "T": 5, "a": "BTC", "d": "-0.000"}) == []


def test_a_balance_update_without_time_or_number_is_unreadable() -> None:
    assert refusal_of({"e": "balanceUpdate", "a": "BTC", "d": "1"}).startswith("balanceUpdate BTC: field T: ")
    assert refusal_of({"e": "balanceUpdate", "a": "BTC", "d": "x", "T": 5}).startswith("balanceUpdate BTC: field d: ")


@pytest.mark.parametrize("kind", sorted(FACTLESS))
def test_kinds_without_facts(kind: str) -> None:
    assert facts_of({"e": kind, "E": 6}) == []


def test_an_unknown_kind_has_no_facts_but_its_problem() -> None:
    assert refusal_of({"e": "tomorrow", "E": 6}) == "unknown event tomorrow"


def test_what_ends_a_socket() -> None:
    assert {"listenKeyExpired", "serverShutdown", "eventStreamTerminated"} == CONTROLS
    assert CONTROLS < FACTLESS
