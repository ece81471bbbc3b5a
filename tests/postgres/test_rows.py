"""What is laid out as text, the server reads as the very same values."""

from __future__ import annotations

from itertools import product
from typing import Any
from uuid import UUID

import pytest
from msgspec.structs import replace

from ledger.db.rows import BalanceRow, FillRow, OrderRow, array, lay, numbers, words
from ledger.facts.identity import stream_key
from ledger.facts.types import Balance, Exact, Fact, Fill, Order
from tests.histories import fill, held, trade

MEANT = "a\",()\\{}' \n\tü"
"""One letter, and what may mean something in a row's text."""
TEXTS = ["", "NULL", "null", "\\N", *("".join(chars) for n in (1, 2, 3) for chars in product(MEANT, repeat=n))]

ORDER = Order(
    "BTCUSDT", 2**63 - 1, "NEW", "BUY", "LIMIT", "GTC", "mine",
    Exact("64000.10"), Exact("-0"), Exact(".5"), Exact("7."), -(2**63), 2**63 - 1, decides=True,
)  # fmt: skip


def in_full(fact: Fact, frame: int = 7, ordinal: int = 3, k: int = 2) -> str:
    (row,) = lay([fact])
    match row:
        case OrderRow():
            return row.text(frame)
        case FillRow():
            return row.text(frame, None if row.key is None else ordinal)
        case BalanceRow():
            return row.text(frame, row.as_of_ms or 0, k)
    raise AssertionError(row)


async def told(conn: Any, kind: str, *facts: Fact) -> list[tuple[Any, ...]]:
    rows = await conn.fetch(
        f"SELECT u.* FROM unnest($1::text::ledger.told_{kind}[]) u", array(in_full(fact) for fact in facts)
    )
    return [tuple(row) for row in rows]


async def test_an_order_is_read_as_told(conn: Any) -> None:
    assert await told(conn, "order", ORDER) == [in_order(ORDER)]


async def test_what_was_not_told_is_null_and_an_empty_text_is_not(conn: Any) -> None:
    bare, empty = Order("BTCUSDT", 1), Order("", 1, "", "", "", "", "")
    assert await told(conn, "order", bare, empty) == [
        (7, "BTCUSDT", 1, *(None,) * 11, False),
        (7, "", 1, "", "", "", "", "", *(None,) * 6, False),
    ]


@pytest.mark.parametrize("name", ["symbol", "status", "side", "type", "time_in_force", "client_order_id"])
async def test_any_text_of_an_order_stays_one_field(conn: Any, name: str) -> None:
    told_so = await told(conn, "order", *(replace(ORDER, **{name: text}) for text in TEXTS))
    assert told_so == [in_order(replace(ORDER, **{name: text})) for text in TEXTS]


def in_order(order: Order) -> tuple[Any, ...]:
    return (
        7, order.symbol, order.order_id, order.status, order.side, order.type, order.time_in_force,
        order.client_order_id, order.price, order.orig_qty, order.executed_qty, order.executed_quote, order.created_ms,
        order.updated_ms, order.decides,
    )  # fmt: skip


async def test_a_fill_is_read_as_told_with_its_key_and_its_ordinal(conn: Any) -> None:
    nameless, named = fill(symbol='A"B', fee=None, fee_asset=None), trade(9)
    assert await told(conn, "fill", nameless, named) == [
        in_fill(nameless, stream_key(nameless), 3),
        in_fill(named, None, None),
    ]


def in_fill(fill: Fill, key: UUID | None, ordinal: int | None) -> tuple[Any, ...]:
    return (
        7, 1, fill.symbol, fill.order_id, fill.trade_id, key, ordinal, fill.side, fill.price, fill.qty, fill.quote_qty,
        fill.fee, fill.fee_asset, fill.is_maker, fill.executed_ms,
    )  # fmt: skip


async def test_a_fill_knows_its_place_among_the_facts_of_its_frame() -> None:
    first, second = lay([held("BTC", "1"), trade(9)])
    assert isinstance(first, BalanceRow)
    assert isinstance(second, FillRow)
    assert second.text(1, None).startswith("(1,2,")


async def test_a_balance_is_read_as_told_whatever_its_asset_is_called(conn: Any) -> None:
    balances = [Balance(text, Exact("0.10"), Exact("-0"), 5) for text in TEXTS]
    assert await told(conn, "balance", *balances) == [(7, text, "0.10", "-0", 5, 2) for text in TEXTS]


async def test_texts_and_numbers_are_read_as_told(conn: Any) -> None:
    told_texts, told_numbers = [*TEXTS, "executionReport"], [0, -1, None, 2**63 - 1]
    assert await conn.fetchval("SELECT $1::text::text[]", words(told_texts)) == told_texts
    assert await conn.fetchval("SELECT $1::text::bigint[]", numbers(told_numbers)) == told_numbers
