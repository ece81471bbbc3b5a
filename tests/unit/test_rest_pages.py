"""REST answers become the same facts as the stream; a bad row is set aside, a bad page is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.errors import UnreadableFrame
from ledger.facts.types import Balance, Exact, Fill, Order, Settlement, Snapshot
from ledger.venue import requests
from ledger.venue.requests import Request
from ledger.venue.rest_pages import Market, Page, SetAside, error, joined, parts, read, read_kept, read_part
from tests.samples import PAYLOADS, REST, name

ORDERS = requests.all_orders("BTCUSDT")
TRADES = requests.my_trades("BTCUSDT")
MINIMAL_ORDER: dict[str, Any] = {
    "orderId": 288274,
    "clientOrderId": "mine",
    "symbol": "BTCUSDT",
    "side": "BUY",
    "type": "LIMIT",
    "price": "64000.00",
    "origQty": "0.01000000",
    "executedQty": "0.00000000",
    "status": "NEW",
    "transactTime": 1717430400123,
}
FULL_ORDER: dict[str, Any] = PAYLOADS["s104"]
TRADE: dict[str, Any] = PAYLOADS["s050"][0]
BALANCE = {"asset": "BTC", "free": "0.50000000", "locked": "0.01000000"}


def page_of(request: Request, payload: object) -> Page:
    return read(request, json.dumps(payload).encode())


def problem_of(request: Request, row: dict[str, Any]) -> str:
    """The problem of one bad row between two good ones that are used."""
    good = TRADE if request.kind == "myTrades" else MINIMAL_ORDER
    page = page_of(request, [good, row, good])
    assert (page.rows, len(page.facts)) == (3, 2)
    ((index, problem),) = ((aside.index, aside.problem) for aside in page.set_aside)
    assert index == 1
    return problem


QUESTIONS = {
    "account": requests.account(),
    "order": requests.query_order("BTCUSDT", 1),
    "orders": ORDERS,
    "myTrade": TRADES,
    "myTrades": TRADES,
}


@pytest.mark.parametrize("sample", [one for one in REST if one["kind"] != "error"], ids=name)
def test_every_sample_is_read(sample: dict[str, Any]) -> None:
    payload: Any = [sample["payload"]] if sample["kind"] == "myTrade" else sample["payload"]
    request = QUESTIONS[sample["kind"]]
    if sample["kind"] == "order":
        request = requests.query_order(payload["symbol"], payload["orderId"])
    page = page_of(request, payload)
    if sample["id"] in ("s048", "s049"):
        # Allocations of a smart order router: they have no trade id, so they cannot be told apart.
        assert page.set_aside == (SetAside(0, "field id: expected one, got none"),)
        return
    assert page.set_aside == ()
    assert page.facts


def test_the_venues_minimal_order() -> None:
    page = page_of(ORDERS, [MINIMAL_ORDER])
    assert page.facts == (
        Order(
            symbol="BTCUSDT",
            order_id=288274,
            status="NEW",
            side="BUY",
            type="LIMIT",
            client_order_id="mine",
            price=Exact("64000.00"),
            orig_qty=Exact("0.01000000"),
            executed_qty=Exact("0.00000000"),
            created_ms=1717430400123,
            updated_ms=1717430400123,
        ),
    )
    assert page.fields == {"executedQty"}


def test_the_full_order() -> None:
    page = page_of(requests.query_order("BNBETH", 50167927), FULL_ORDER)
    assert page.facts == (
        Order(
            symbol="BNBETH",
            order_id=50167927,
            status="FILLED",
            side="SELL",
            type="LIMIT",
            time_in_force="GTC",
            client_order_id="NkQnNkdBV1RGjUALLhAzNy",
            price=Exact("0.04338000"),
            orig_qty=Exact("3.91000000"),
            executed_qty=Exact("3.91000000"),
            executed_quote=Exact("0.16961580"),
            created_ms=1547075007821,
            updated_ms=1547075016737,
            decides=True,
        ),
    )
    assert page.fields == {"executedQty", "cummulativeQuoteQty", "updateTime"}


def test_only_an_order_asked_for_by_itself_decides() -> None:
    pages = [
        page_of(requests.open_orders(), [MINIMAL_ORDER]),
        page_of(ORDERS, [MINIMAL_ORDER]),
        page_of(requests.query_order("BTCUSDT", 288274), MINIMAL_ORDER),
    ]
    assert [fact.decides for page in pages for fact in page.facts if isinstance(fact, Order)] == [False, False, True]


def test_an_order_asked_late_settles_its_provisional_fills() -> None:
    late = requests.query_order("BTCUSDT", 288274, settle=True)
    order, settlement = page_of(late, MINIMAL_ORDER | {"executedQty": "0.01"}).facts
    assert isinstance(order, Order)
    assert order.decides
    assert settlement == Settlement("BTCUSDT", 288274, Exact("0.01"))


def test_an_order_that_does_not_tell_its_quantity_settles_nothing() -> None:
    late = requests.query_order("BTCUSDT", 288274, settle=True)
    page = page_of(late, {"orderId": 288274, "status": "FILLED"})
    assert [type(fact) for fact in page.facts] == [Order]
    assert page.set_aside == (SetAside(0, "field executedQty: expected one to settle by, got none"),)


@pytest.mark.parametrize("other", [{"orderId": 7}, {"symbol": "ETHUSDT"}])
def test_another_order_than_the_one_asked_for_decides_nothing(other: dict[str, Any]) -> None:
    page = page_of(requests.query_order("BTCUSDT", 288274, settle=True), MINIMAL_ORDER | other)
    assert page.facts == ()
    assert page.set_aside[0].problem.startswith("expected order BTCUSDT/288274, got ")


def test_a_row_without_symbol_is_of_the_symbol_asked_for() -> None:
    row = {"orderId": 7, "status": "NEW"}
    assert page_of(requests.open_orders("BTCUSDT"), [row]).facts == (Order("BTCUSDT", 7, "NEW"),)
    assert page_of(requests.open_orders(), [row]).set_aside == (SetAside(0, "field symbol: expected one, got none"),)


@pytest.mark.parametrize(
    ("times", "created_ms", "updated_ms"),
    [
        ({"time": 1, "updateTime": 3, "transactTime": 2}, 1, 3),
        ({"time": 1, "transactTime": 2}, 1, 2),
        ({"time": 1, "transactTime": None}, 1, None),
        ({"updateTime": 3, "transactTime": None}, None, 3),
        ({"time": 0, "updateTime": -1}, 1717430400123, 1717430400123),
    ],
)
def test_the_times_of_an_order(times: dict[str, Any], created_ms: int | None, updated_ms: int | None) -> None:
    (order,) = page_of(ORDERS, [MINIMAL_ORDER | times]).facts
    assert isinstance(order, Order)
    assert (order.created_ms, order.updated_ms) == (created_ms, updated_ms)


def test_a_negative_cumulative_quote_is_not_known() -> None:
    page = page_of(ORDERS, [FULL_ORDER | {"cummulativeQuoteQty": "-1.00"}])
    assert [fact.executed_quote for fact in page.facts if isinstance(fact, Order)] == [None]
    assert page.fields == {"executedQty", "updateTime"}


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"executedQty": "-1"}, "field executedQty: expected a decimal of zero or more, got '-1'"),
        ({"executedQty": "NaN"}, "field executedQty: expected a decimal, got 'NaN'"),
        ({"executedQty": "0.011"}, "field executedQty: expected at most the ordered '0.01000000', got '0.011'"),
        ({"price": 1.5}, "field price: expected str | null, got the number 1.5"),
        ({"price": float("nan")}, "field price: expected str | null, got the number NaN"),
        ({"origQty": 1}, "field origQty: expected str | null, got 1"),
        ({"orderId": None}, "field orderId: expected int, got null"),
        ({"orderId": "1"}, "field orderId: expected int, got '1'"),
        ({"orderId": 2**63}, "field orderId: expected int <= 9223372036854775807, got 9223372036854775808"),
        ({"status": None}, "field status: expected str, got null"),
        ({"status": "X" * 65}, "field status: expected str of length <= 64, got "),
        ({"transactTime": 1717430400123000}, "field transactTime: expected "),
        ({"side": "a\0b"}, "expected text, got NUL or half a character in 'a\\x00b'"),
        ({"side": "a\ud800b"}, "expected text, got NUL or half a character in 'a\\ud800b'"),
        ({"side": ""}, "field side: expected str of length >= 1, got ''"),
    ],
)
def test_an_order_that_cannot_be_read_is_set_aside(changed: dict[str, Any], problem: str) -> None:
    assert problem_of(ORDERS, MINIMAL_ORDER | changed).startswith(problem)


EMPTY_TEXTS = {
    "symbol": "USDCUSDT",
    "orderId": 2878854890,
    "clientOrderId": "",
    "price": "1.1000",
    "origQty": "10.0",
    "executedQty": "10.0",
    "cummulativeQuoteQty": "11.0",
    "status": "FILLED",
    "timeInForce": "",
    "type": "LIMIT",
    "side": "SELL",
    "stopPrice": "",
    "icebergQty": "",
    "time": 1795974288000,
    "updateTime": 1795974288000,
}


@pytest.mark.parametrize(
    ("changed", "kept", "remark"),
    [
        ({}, {"timeInForce": None}, "row 0: field timeInForce: expected str of length >= 1, got ''"),
        ({"timeInForce": "GTC", "type": 5}, {"type": None}, "row 0: field type: expected str | null, got 5"),
        (
            {"timeInForce": "GTC", "clientOrderId": "a\0b"},
            {"clientOrderId": None},
            "row 0: field clientOrderId: expected text, got NUL or half a character in 'a\\x00b'",
        ),
        (
            {"timeInForce": "GTC", "type": "MARKET", "price": "0", "executedQty": "1250.0"},
            {"origQty": None},
            "row 0: field origQty: expected at least the executed '1250.0', got '10.0'",
        ),
    ],
    ids=["time in force", "type", "client id", "sized in quote"],
)
def test_a_field_that_only_describes_never_costs_the_order(
    changed: dict[str, Any], kept: dict[str, Any], remark: str
) -> None:
    row = EMPTY_TEXTS | changed
    page, plain = page_of(ORDERS, [row, MINIMAL_ORDER]), page_of(ORDERS, [row | kept, MINIMAL_ORDER])
    assert (page.facts, page.rows, page.set_aside) == (plain.facts, 2, ())
    assert page.facts[0].status == "FILLED"  # type: ignore[union-attr]
    assert (page.remark, plain.remark) == (f"remark: {remark}", None)


def test_what_a_limit_order_executed_beyond_what_was_ordered_is_no_description() -> None:
    assert problem_of(ORDERS, EMPTY_TEXTS | {"timeInForce": "GTC", "executedQty": "1250.0"}).startswith(
        "field executedQty: expected at most the ordered"
    )


def test_an_order_without_id_is_set_aside() -> None:
    row = {key: value for key, value in MINIMAL_ORDER.items() if key != "orderId"}
    assert problem_of(ORDERS, row) == "field orderId: expected one, got none"


@pytest.mark.parametrize("row", [None, 7, "x", []])
def test_what_is_no_row_is_set_aside(row: object) -> None:
    page = page_of(ORDERS, [row, MINIMAL_ORDER])
    assert [aside.index for aside in page.set_aside] == [0]
    assert page.set_aside[0].problem.startswith("expected object, got ")


def test_a_row_that_names_a_key_twice_is_set_aside() -> None:
    row = json.dumps(MINIMAL_ORDER)
    page = read(ORDERS, f'[{row},{row[:-1]},"executedQty":"5"}}]'.encode())
    assert page.set_aside == (SetAside(1, "expected every key once, got 'executedQty' twice"),)
    assert len(page.facts) == 1


def test_trades_tell_everything() -> None:
    page = page_of(TRADES, [TRADE])
    assert page.facts == (
        Fill(
            symbol="BTCUSDT",
            order_id=12569099453,
            side="SELL",
            price=Exact("23416.10000000"),
            qty=Exact("0.00635000"),
            executed_ms=1660801715793,
            quote_qty=Exact("148.69223500"),
            fee=Exact("0.00000000"),
            fee_asset="BNB",
            trade_id=1650422481,
            is_maker=True,
        ),
    )


def test_old_trades_name_neither_symbol_nor_total() -> None:
    (fill,) = page_of(requests.my_trades("BNBBTC"), [PAYLOADS["s046"]]).facts
    assert isinstance(fill, Fill)
    assert (fill.symbol, fill.quote_qty, fill.side, fill.trade_id) == ("BNBBTC", None, "BUY", 9572)


def test_a_trade_without_fee_asset_has_no_fee() -> None:
    (fill,) = page_of(TRADES, [TRADE | {"commission": "0", "commissionAsset": None, "isBuyer": None}]).facts
    assert isinstance(fill, Fill)
    assert (fill.fee, fill.fee_asset, fill.side) == (None, None, None)


@pytest.mark.parametrize(
    ("changed", "kept", "remark"),
    [
        (
            {"commission": "0", "commissionAsset": ""},
            {"commissionAsset": None},
            "field commissionAsset: expected str of length >= 1, got ''",
        ),
        ({"isMaker": "yes"}, {"isMaker": None}, "field isMaker: expected bool | null, got 'yes'"),
    ],
)
def test_a_field_that_only_describes_never_costs_the_fill(
    changed: dict[str, Any], kept: dict[str, Any], remark: str
) -> None:
    page = page_of(TRADES, [TRADE | changed])
    assert (page.facts, page.set_aside) == (page_of(TRADES, [TRADE | changed | kept]).facts, ())
    assert page.facts
    assert page.remark == f"remark: row 0: {remark}"
    assert problem_of(TRADES, TRADE | {"commission": "0.1", "commissionAsset": ""}).startswith(
        "field commissionAsset: "
    )


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"qty": "0.000"}, "field qty: expected more than zero, got '0.000'"),
        ({"qty": "-1"}, "field qty: expected a decimal of zero or more, got '-1'"),
        ({"price": "Infinity"}, "field price: expected a decimal, got 'Infinity'"),
        ({"commission": "x"}, "field commission: expected a decimal, got 'x'"),
        ({"quoteQty": "-1"}, "field quoteQty: expected a decimal of zero or more, got '-1'"),
        ({"id": -1}, "field id: expected int >= 0, got -1"),
        ({"id": None}, "field id: expected int, got null"),
        ({"time": 0}, "field time: expected int >= 1, got 0"),
        ({"isBuyer": "true"}, "field isBuyer: expected bool | null, got 'true'"),
    ],
)
def test_a_trade_that_cannot_be_read_is_set_aside(changed: dict[str, Any], problem: str) -> None:
    assert problem_of(TRADES, TRADE | changed) == problem


def test_a_page_knows_where_it_starts_and_ends() -> None:
    rows = [TRADE | {"id": 7, "time": 70}, TRADE | {"id": 9, "time": 90}, TRADE | {"id": 8, "time": 80}]
    page = page_of(TRADES, rows)
    assert (page.rows, page.first_ms, page.last_ms, page.first_id, page.last_id) == (3, 70, 90, 7, 9)


def test_rows_set_aside_count_for_where_a_page_ends() -> None:
    page = page_of(TRADES, [TRADE | {"id": 7, "time": 70}, TRADE | {"id": 9, "time": 90, "qty": "NaN"}, 5])
    assert (page.rows, page.last_ms, page.last_id) == (3, 90, 9)


def test_orders_are_placed_by_their_creation() -> None:
    rows = [
        MINIMAL_ORDER | {"orderId": 5, "time": 50, "updateTime": 99},
        {"orderId": 6, "status": "NEW", "updateTime": 60},
    ]
    page = page_of(ORDERS, rows)
    assert (page.first_ms, page.last_ms, page.first_id, page.last_id) == (50, 60, 5, 6)


def test_an_empty_page_is_empty() -> None:
    assert page_of(ORDERS, []) == Page()
    assert page_of(TRADES, []) == Page()


def test_the_venues_own_account() -> None:
    page = page_of(
        requests.account(),
        {
            "canTrade": True,
            "canWithdraw": True,
            "makerFee": "0.0000",
            "takerFee": "0.0010",
            "updateTime": 1717430400123,
            "balances": [BALANCE, {"asset": "USDT", "free": "1000.00", "locked": "640.00"}],
        },
    )
    assert page.facts == (
        Snapshot(
            (
                Balance("BTC", Exact("0.50000000"), Exact("0.01000000")),
                Balance("USDT", Exact("1000.00"), Exact("640.00")),
            ),
            1717430400123,
        ),
    )
    assert (page.rows, page.set_aside) == (2, ())


@pytest.mark.parametrize("clock", [{}, {"updateTime": None}, {"updateTime": 0}, {"updateTime": -1}])
def test_an_account_without_clock(clock: dict[str, Any]) -> None:
    assert page_of(requests.account(), {"balances": []} | clock).facts == (Snapshot((), None),)


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"asset": "ETH", "free": "-1", "locked": "0"}, "field free: expected a decimal of zero or more, got '-1'"),
        ({"asset": "ETH", "free": "1", "locked": 0}, "field locked: expected str, got 0"),
        ({"asset": "ETH", "free": "1"}, "field locked: expected one, got none"),
        ({"asset": "", "free": "1", "locked": "0"}, "field asset: expected str of length >= 1, got ''"),
        (BALANCE, "field asset: expected every asset once, got 'BTC' again"),
    ],
)
def test_an_account_with_one_bad_balance_is_no_snapshot_at_all(row: dict[str, Any], problem: str) -> None:
    """Absent means zero in a snapshot: leaving the row out would empty the asset."""
    page = page_of(requests.account(), {"balances": [BALANCE, row]})
    assert page.facts == ()
    assert page.set_aside == (SetAside(1, problem),)


def test_markets_and_time() -> None:
    page = page_of(
        requests.exchange_info(),
        {"symbols": [{"symbol": "BTCUSDT", "baseAsset": "BTC", "quoteAsset": "USDT", "filters": []}, {"symbol": "X"}]},
    )
    assert page.markets == (Market("BTCUSDT", "BTC", "USDT"),)
    assert page.set_aside == (SetAside(1, "field baseAsset: expected one, got none"),)
    assert page_of(requests.server_time(), {"serverTime": 1717430400500}).server_ms == 1717430400500


@pytest.mark.parametrize(
    ("request_", "body"),
    [
        (ORDERS, b""),
        (ORDERS, b"<html>"),
        (ORDERS, b"[{"),
        (ORDERS, b"{}"),
        (ORDERS, b"null"),
        (TRADES, b'{"code":-1000}'),
        (TRADES, b'[{"id":"\xff"}]'),
        (requests.query_order("A", 1), b"[]"),
        (requests.account(), b"[]"),
        (requests.account(), b"{}"),
        (requests.account(), b'{"balances":{}}'),
        (requests.exchange_info(), b"{}"),
        (requests.server_time(), b'{"serverTime":"1"}'),
    ],
)
def test_a_body_of_another_shape_is_never_taken_for_empty(request_: Request, body: bytes) -> None:
    with pytest.raises(UnreadableFrame, match=request_.path):
        read(request_, body)


def test_an_object_in_place_of_a_list_shows_its_code_and_message() -> None:
    with pytest.raises(UnreadableFrame) as told:
        read(ORDERS, b'{"code":700003,"msg":"Timestamp for this request is outside\\nof the window","data":null}')
    assert str(told.value) == (
        "GET /api/v1/allOrders: expected a list of rows, got a dict; the venue says "
        "'Timestamp for this request is outside of the window' (code 700003)"
    )
    with pytest.raises(UnreadableFrame, match=r"got a dict; the venue says \(code 0\)$"):
        read(ORDERS, b'{"code":0,"data":[]}')


@pytest.mark.parametrize("sample", [one for one in REST if one["kind"] == "error"], ids=name)
def test_every_sample_of_an_error_is_understood(sample: dict[str, Any]) -> None:
    payload = sample["payload"]
    assert error(400, json.dumps(payload).encode()) == (payload["code"], payload["msg"])


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b'{"code":-1121,"message":"no"}', (-1121, "no")),
        (b'{"error":{"code":-1121,"msg":"no"}}', (-1121, "no")),
        (b'{"code":"-1121","msg":"no"}', (None, "no")),
        (b'{"code":-1121}', (-1121, "HTTP 400 without a message")),
        (b'{"error":"no"}', (None, "HTTP 400 without a message")),
        (b"<html>Forbidden</html>", (None, "HTTP 400 with 22 bytes that are no error of the venue")),
        (b"", (None, "HTTP 400 with 0 bytes that are no error of the venue")),
        (b"\xff\xfe", (None, "HTTP 400 with 2 bytes that are no error of the venue")),
        (b"[]", (None, "HTTP 400 with 2 bytes that are no error of the venue")),
        (b"7", (None, "HTTP 400 with 1 bytes that are no error of the venue")),
        (b"[" * 100_000, (None, "HTTP 400 with 100000 bytes that are no error of the venue")),
        (b'{"code":1,"msg":"a\\nb\\u001b[31mc"}', (1, "a b [31mc")),
    ],
    ids=range(12),
)
def test_errors_in_any_form(body: bytes, told: tuple[int | None, str]) -> None:
    assert error(400, body) == told


@pytest.mark.parametrize(
    "message", ["bad /x?timestamp=1&signature=c8db56825ae", "listenKey=c8db56825ae gone", 'X-SDX-APIKEY: "c8db56825ae"']
)
def test_an_error_that_repeats_a_secret_does_not_show_it(message: str) -> None:
    _, told = error(400, json.dumps({"code": -1, "msg": message}).encode())
    assert "c8db" not in told
    assert "***" in told


def test_a_message_is_short() -> None:
    assert len(error(400, json.dumps({"code": -1, "msg": "x" * 10_000}).encode())[1]) == 200


rows = st.dictionaries(
    st.sampled_from([*MINIMAL_ORDER, *TRADE, "time"]),
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just("1.5"),
)


@given(st.lists(rows, max_size=5))
def test_each_row_is_used_or_set_aside(changes: list[dict[str, Any]]) -> None:
    orders = page_of(ORDERS, [MINIMAL_ORDER | changed for changed in changes])
    trades = page_of(TRADES, [TRADE | changed for changed in changes])
    for page in (orders, trades):
        assert len(page.facts) + len(page.set_aside) == page.rows == len(changes)
        assert all(0 < len(aside.problem.encode()) < 500 for aside in page.set_aside)


ROWS_OF_ALL_KINDS = st.sampled_from(
    [
        TRADE | {"id": 7},
        TRADE | {"id": 8, "note": 'a ] and a , and a " in a text'},
        TRADE | {"price": "much"},
        {"id": 9},
        [],
        "no row",
        None,
    ]
)


@given(st.lists(ROWS_OF_ALL_KINDS, max_size=12), st.integers(1, 5), st.sampled_from([None, 1]))
def test_an_answer_in_parts_is_the_answer(rows: list[Any], rows_max: int, indent: int | None) -> None:
    """Byte for byte; and each part, read again from the journal, says what it said as part of the whole."""
    asked = requests.my_trades("BTCUSDT")
    body = b" " + json.dumps(rows, indent=indent).encode() + b"\n"
    whole = read(asked, body)

    told = parts(asked, body, rows_max)
    said = [read_part(asked, part) for part in told]

    assert b"".join(part.body for part in told) == body
    assert joined(said) == whole
    assert [page.rows for page in said[:-1]] == [rows_max] * (len(told) - 1)
    assert len({part.question for part in told}) == len(told) == max(1, -(-len(rows) // rows_max))
    assert [read_kept(asked.kind, part.question, part.body) for part in told] == said


def test_the_question_of_a_part_names_its_rows() -> None:
    asked = requests.my_trades("BTCUSDT", limit=3)
    body = json.dumps([TRADE | {"id": n} for n in range(3)]).encode()

    told = [(part.question, part.body[:1]) for part in parts(asked, body, 2)]

    assert told == [
        ("GET#0-1/3 /api/v1/myTrades symbol=BTCUSDT&limit=3", b"["),
        ("GET#2-2/3 /api/v1/myTrades symbol=BTCUSDT&limit=3", b"{"),
    ]


def test_what_is_told_as_a_whole_is_never_cut() -> None:
    account = json.dumps({"balances": [{"asset": f"A{n}", "free": "1", "locked": "0"} for n in range(9)]}).encode()
    no_json_in_parts = b'[{"id": NaN}, {"id": NaN}]'
    for asked, body in ((requests.account(), account), (requests.my_trades("BTCUSDT"), no_json_in_parts)):
        (part,) = parts(asked, body, 1)
        assert (part.question, part.body) == (asked.question, body)
