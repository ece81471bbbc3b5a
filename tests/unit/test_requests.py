"""Requests are values that know their weight, and never show a listen key."""

from __future__ import annotations

from typing import Any

import pytest

from ledger.venue import requests
from ledger.venue.requests import Request


@pytest.mark.parametrize(
    ("request_", "question", "security", "weight", "kind"),
    [
        (requests.account(), "GET /api/v1/account", "signed", 10, "account"),
        (requests.open_orders(), "GET /api/v1/openOrders", "signed", 40, "openOrders"),
        (requests.open_orders("BTCUSDT"), "GET /api/v1/openOrders symbol=BTCUSDT", "signed", 3, "openOrders"),
        (
            requests.query_order("BTCUSDT", 7),
            "GET /api/v1/order symbol=BTCUSDT&orderId=7",
            "signed",
            2,
            "order",
        ),
        (
            requests.query_order("BTCUSDT", 7, settle=True),
            "GET /api/v1/order symbol=BTCUSDT&orderId=7",
            "signed",
            2,
            "order_settle",
        ),
        (
            requests.all_orders("BTCUSDT", start_ms=0, end_ms=9),
            "GET /api/v1/allOrders symbol=BTCUSDT&startTime=0&endTime=9&limit=1000",
            "signed",
            10,
            "allOrders",
        ),
        (
            requests.my_trades("BTCUSDT", order_id=7, from_id=0, limit=5),
            "GET /api/v1/myTrades symbol=BTCUSDT&orderId=7&fromId=0&limit=5",
            "signed",
            10,
            "myTrades",
        ),
        (requests.server_time(), "GET /api/v1/time", "public", 1, "time"),
        (requests.exchange_info(), "GET /api/v1/exchangeInfo", "public", 10, "exchangeInfo"),
        (requests.create_listen_key(), "POST /api/v1/userDataStream", "key", 1, "userDataStream"),
    ],
)
def test_what_is_asked(request_: Request, question: str, security: str, weight: int, kind: str) -> None:
    assert request_.question == question
    assert (request_.security, request_.weight, request_.kind) == (security, weight, kind)


@pytest.mark.parametrize("build", [requests.extend_listen_key, requests.delete_listen_key])
def test_a_listen_key_is_sent_and_never_shown(build: Any) -> None:
    request = build("pqia91ma19a5s61cv6a81va65sdf19v8")
    assert dict(request.params) == {"listenKey": "pqia91ma19a5s61cv6a81va65sdf19v8"}
    for text in (repr(request), str(request), f"{request}", request.question, repr([request])):
        assert "pqia91ma" not in text
        assert "/api/v1/userDataStream" in text


def test_the_same_question_is_the_same_value() -> None:
    assert requests.my_trades("A", from_id=3) == requests.my_trades("A", from_id=3)
    assert len({requests.account(), requests.account()}) == 1


@pytest.mark.parametrize(
    "cursor",
    [
        {},
        {"order_id": 1},
        {"start_ms": 1},
        {"end_ms": 1},
        {"from_id": 1},
        {"start_ms": 1, "end_ms": 1},
        {"order_id": 1, "from_id": 1},
    ],
)
def test_documented_cursors_of_my_trades(cursor: dict[str, int]) -> None:
    names = {"order_id": "orderId", "start_ms": "startTime", "end_ms": "endTime", "from_id": "fromId"}
    told = dict(requests.my_trades("BTCUSDT", **cursor).params)
    assert told == {"symbol": "BTCUSDT", "limit": "1000"} | {names[name]: "1" for name in cursor}


@pytest.mark.parametrize(
    "cursor",
    [
        {"from_id": 1, "start_ms": 1},
        {"from_id": 1, "end_ms": 1},
        {"order_id": 1, "start_ms": 1},
        {"order_id": 1, "from_id": 1, "end_ms": 1},
        {"start_ms": 2, "end_ms": 1},
        {"limit": 0},
        {"limit": 1001},
    ],
)
def test_undocumented_cursors_of_my_trades_are_refused(cursor: dict[str, int]) -> None:
    with pytest.raises(ValueError):
        requests.my_trades("BTCUSDT", **cursor)


@pytest.mark.parametrize(
    "cursor",
    [
        {"order_id": 1, "start_ms": 1},
        {"order_id": 1, "end_ms": 1},
        {"start_ms": 2, "end_ms": 1},
        {"limit": 0},
    ],
)
def test_contradicting_cursors_of_all_orders_are_refused(cursor: dict[str, int]) -> None:
    with pytest.raises(ValueError):
        requests.all_orders("BTCUSDT", **cursor)


@pytest.mark.parametrize(
    "asked",
    [
        requests.account(),
        requests.open_orders(),
        requests.open_orders("BTCUSDT"),
        requests.query_order("BTCUSDT", 7),
        requests.query_order("BTCUSDT", 7, settle=True),
        requests.all_orders("BTCUSDT", start_ms=1, end_ms=2, limit=5),
        requests.all_orders("币安USDT", order_id=7),
        requests.my_trades("BTCUSDT", order_id=7, from_id=9),
        requests.my_trades("BTCUSDT", start_ms=1),
        requests.my_trades("A&B=C USDT", start_ms=1),
        requests.exchange_info(),
        requests.server_time(),
    ],
    ids=repr,
)
def test_a_question_kept_in_the_journal_is_the_request_again(asked: Request) -> None:
    again = requests.from_question(asked.kind, asked.question)

    assert again.question == asked.question
    assert (again.kind, again.symbol, again.order_id) == (asked.kind, asked.symbol, asked.order_id)


@pytest.mark.parametrize("text", ["", "note symbol_refused BTCUSDT", "GET", "POST /api/v1/userDataStream"])
def test_what_is_no_question_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected a question such as GET /api/v1/account"):
        requests.from_question("account", text)
