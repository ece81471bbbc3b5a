"""The proof must be able to fail: each kind of difference between mirror and venue, one at a time."""

from __future__ import annotations

import copy
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from ledger.proof import Proof, prove

Rows = dict[str, list[dict[str, Any]]]
Truth = dict[str, Any]
ORDER = ("BTCUSDT", 7)


def truth(dialect: str = "full") -> Truth:
    """The venue's books: a filled order of two fills, a resting one, two assets."""
    whole = {"symbol": "BTCUSDT", "order_id": 7, "status": "FILLED", "side": "BUY", "type": "LIMIT"}
    rest = {"symbol": "ETHUSDT", "order_id": 8, "status": "NEW", "side": "SELL", "type": "LIMIT"}
    fill = {"symbol": "BTCUSDT", "order_id": 7, "side": "BUY", "price": "100.0", "fee": "0.1"}
    return {
        "dialect": dialect,
        "orders": [
            {**whole, "orig_qty": "3.00", "executed_qty": "3.00"},
            {**rest, "orig_qty": "5", "executed_qty": "0"},
        ],
        "fills": [
            {**fill, "qty": "1.00", "quote": "100.00", "time_ms": 1_000, "trade_id": 41},
            {**fill, "qty": "2.00", "quote": "200.00", "time_ms": 1_001, "trade_id": 42},
        ],
        "balances": {
            "BTC": {"free": "3.00", "locked": "0"},
            "USDT": {"free": "699.8", "locked": "0.0"},
            "GAS": {"free": "0", "locked": "0"},
        },
        "violations": [],
    }


def mirror() -> Rows:
    """The views' rows that agree with it."""
    whole = {"symbol": "BTCUSDT", "order_id": 7, "status": "FILLED", "side": "BUY", "type": "LIMIT"}
    rest = {"symbol": "ETHUSDT", "order_id": 8, "status": "NEW", "side": "SELL", "type": "LIMIT"}
    fill = {"symbol": "BTCUSDT", "order_id": 7, "side": "BUY", "price": Decimal(100), "fee": Decimal("0.10")}
    return {
        "orders": [
            {**whole, "orig_qty": Decimal(3), "executed_qty": Decimal("3.0")},
            {**rest, "orig_qty": Decimal(5), "executed_qty": Decimal("0.00")},
        ],
        "fills": [
            {**fill, "qty": Decimal(1), "quote_qty": Decimal(100), "executed_ms": 1_000, "trade_id": 41},
            {**fill, "qty": Decimal(2), "quote_qty": Decimal(200), "executed_ms": 1_001, "trade_id": None},
        ],
        "missing_executions": [],
        "balances": [
            {"asset": "BTC", "free": Decimal(3), "locked": Decimal(0)},
            {"asset": "USDT", "free": Decimal("699.80"), "locked": Decimal(0)},
        ],
        "gaps": [{"closed_at": datetime(2026, 1, 1, tzinfo=UTC)}],
    }


class Views:
    """Answers as a connection whose views hold these rows of account ``main``."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    async def fetch(self, query: str, account: str) -> list[dict[str, Any]]:
        assert account == "main"
        (view,) = [name for name in self._rows if f"ledger_v1.{name} " in query]
        return self._rows[view]


async def compared(rows: Rows, books: Truth) -> Proof:
    return await prove(Views(rows), "main", books)


async def test_equal_by_value_is_equal() -> None:
    proof = await compared(mirror(), truth())

    assert proof.differences == []
    assert proof.holds
    assert (proof.orders, proof.fills, proof.venue_fills, proof.balances, proof.missing) == (2, 2, 2, 2, 0)
    assert (proof.gaps_opened, proof.gaps_closed) == (1, 1)


Change = Callable[[Rows, Truth], object]
LONG = Decimal("699.8000000000000000000000000000000000000001")

CHANGES: dict[str, tuple[Change, str]] = {
    "an order is not here": (lambda rows, _: rows["orders"].pop(), "order ('ETHUSDT', 8) is only at the venue"),
    "an order is not there": (lambda _, books: books["orders"].pop(), "order ('ETHUSDT', 8) is only here"),
    "another status": (lambda rows, _: rows["orders"][1].update(status="CANCELED"), "status CANCELED here, NEW there"),
    "a status not told": (lambda rows, _: rows["orders"][1].update(status=None), "status None here, NEW there"),
    "another side": (lambda rows, _: rows["orders"][1].update(side="BUY"), "side BUY here, SELL there"),
    "another type": (lambda rows, _: rows["orders"][1].update(type="MARKET"), "type MARKET here, LIMIT there"),
    "another quantity": (lambda rows, _: rows["orders"][1].update(orig_qty=Decimal(6)), "orig_qty 6 here, 5 there"),
    "executed more": (lambda rows, _: rows["orders"][1].update(executed_qty=Decimal(1)), "executed_qty 1 here, 0"),
    "a quantity not told": (lambda rows, _: rows["orders"][1].update(orig_qty=None), "orig_qty None here, 5 there"),
    "a fill is not here": (lambda rows, _: rows["fills"].pop(), "fills lack {('BTCUSDT', 7): Decimal('2.00')}"),
    "a fill twice": (lambda rows, _: rows["fills"].append(rows["fills"][1]), "1 fill(s) here that the venue never"),
    "a fill at another price": (
        lambda rows, _: rows["fills"][0].update(price=Decimal(101)),
        "1 fill(s) here that the venue never made",
    ),
    "a fill of another side": (lambda rows, _: rows["fills"][0].update(side="SELL"), "1 fill(s) here that the venue"),
    "a fill with another fee": (lambda rows, _: rows["fills"][0].update(fee=Decimal(0)), "1 fill(s) here that the"),
    "a fill with another total": (
        lambda rows, _: rows["fills"][0].update(quote_qty=Decimal("100.0001")),
        "1 fill(s) here that the venue never made",
    ),
    "a fill a millisecond later": (
        lambda rows, _: rows["fills"][0].update(executed_ms=1_002),
        "1 fill(s) here that the venue never made",
    ),
    "a trade id of nobody": (lambda rows, _: rows["fills"][1].update(trade_id=99), "trade id 99 of order 7 is not"),
    "a missing execution that is none": (
        lambda rows, _: rows["missing_executions"].append(
            {"symbol": "BTCUSDT", "order_id": 7, "missing_qty": Decimal(1)}
        ),
        "missing_executions says",
    ),
    "a balance is off": (lambda rows, _: rows["balances"][1].update(free=LONG), "USDT: 699.80000000000000000000000"),
    "a locked balance is off": (lambda rows, _: rows["balances"][0].update(locked=Decimal(1)), "BTC: 3 free 1 locked"),
    "a balance is not here": (lambda rows, _: rows["balances"].pop(), "USDT: 0 free 0 locked here, 699.8 and 0.0"),
    "a balance is not there": (lambda _, books: books["balances"].pop("BTC"), "BTC: 3 free 0 locked here, 0 and 0"),
    "a gap is open": (lambda rows, _: rows["gaps"].append({"closed_at": None}), "1 gaps are open"),
    "the mirror tried to trade": (
        lambda _, books: books["violations"].append("POST /api/v1/order"),
        "the venue saw what a mirror must never do: POST /api/v1/order",
    ),
}


@pytest.mark.parametrize("name", CHANGES)
async def test_one_difference_is_found_and_named(name: str) -> None:
    change, told = CHANGES[name]
    rows, books = copy.deepcopy(mirror()), truth()
    change(rows, books)

    proof = await compared(rows, books)

    assert not proof.holds
    assert any(told in text for text in proof.differences), proof.differences


def without_a_fill(missing_qty: str) -> Rows:
    rows = mirror()
    rows["fills"].pop()
    rows["missing_executions"] = [{"symbol": "BTCUSDT", "order_id": 7, "missing_qty": Decimal(missing_qty)}]
    return rows


@pytest.mark.parametrize("dialect", ["documented", "orders_quote"])
async def test_a_lost_fill_that_stands_in_missing_executions_is_as_it_should_be_where_trades_cannot_be_read(
    dialect: str,
) -> None:
    proof = await compared(without_a_fill("2"), truth(dialect))

    assert proof.differences == []
    assert (proof.fills, proof.venue_fills, proof.missing) == (1, 2, 1)


async def test_the_missing_quantity_must_be_exact() -> None:
    proof = await compared(without_a_fill("1.9999999999999999999999999999999999"), truth("documented"))

    assert len(proof.differences) == 1


@pytest.mark.parametrize("dialect", ["mixed", "full"])
async def test_where_trades_can_be_read_nothing_may_be_missing(dialect: str) -> None:
    proof = await compared(without_a_fill("2"), truth(dialect))

    assert proof.differences == ["trades can be read over REST, yet 1 orders lack fills"]
