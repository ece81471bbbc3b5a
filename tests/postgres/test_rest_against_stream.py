"""What a REST answer says against what is held: an order that shrinks, and news the stream should have brought."""

from __future__ import annotations

from typing import Any

import pytest

from ledger.db import coverage, reads
from ledger.facts.types import Fill, Order
from tests.histories import (
    ACCOUNT,
    ORDER_ID,
    SYMBOL,
    T_MS,
    Session,
    doubts,
    fill,
    head_seq,
    held,
    known,
    order,
    order_of,
    rest,
    rows,
    snapshot,
    trade,
)

# --- orders that shrink


@pytest.mark.parametrize("updated_ms", [10, 11], ids=["as late", "later"])
async def test_an_order_told_as_late_with_less_executed_is_doubted_and_keeps_what_it_had(
    updated_ms: int, conn: Any
) -> None:
    await known(conn)
    await rest().tell(conn, order("PARTIALLY_FILLED", executed_qty="2", created_ms=T_MS, updated_ms=T_MS + 10))
    told = order("PARTIALLY_FILLED", executed_qty="1", created_ms=T_MS, updated_ms=T_MS + updated_ms)
    await rest().tell(conn, told)

    assert await order_of(conn, "executed_qty") == (2,)
    assert await rows(conn, "SELECT kind, subject, expected, actual, evidence_seq FROM ledger_v1.discrepancies") == [
        (
            "order_shrank",
            f"{SYMBOL}/{ORDER_ID}",
            "2",
            f"1 at {T_MS + updated_ms}",
            await head_seq(conn),
        )
    ]
    await rest().tell(conn, told)
    assert len(await doubts(conn)) == 1, "once per content"


@pytest.mark.parametrize(
    "told",
    [
        order("PARTIALLY_FILLED", executed_qty="1", created_ms=T_MS, updated_ms=T_MS + 9),
        order("PARTIALLY_FILLED", executed_qty="1", created_ms=T_MS),
        order("PARTIALLY_FILLED", executed_qty="2", created_ms=T_MS, updated_ms=T_MS + 20),
    ],
    ids=["earlier: REST lags", "no time told", "the same"],
)
async def test_what_a_lagging_venue_tells_is_not_doubted(told: Order, conn: Any) -> None:
    await known(conn)
    await rest().tell(conn, order("PARTIALLY_FILLED", executed_qty="2", created_ms=T_MS, updated_ms=T_MS + 10))
    await rest().tell(conn, told)

    assert await doubts(conn) == []


async def test_where_the_only_time_is_the_creation_less_executed_may_be_an_older_answer(conn: Any) -> None:
    await known(conn)
    for executed in ("2", "1"):
        await rest().tell(conn, order("PARTIALLY_FILLED", executed_qty=executed, created_ms=T_MS, updated_ms=T_MS))

    assert await doubts(conn) == []


async def test_between_two_executions_of_one_millisecond_less_executed_may_be_an_older_answer(conn: Any) -> None:
    await known(conn)
    await rest().tell(conn, trade(1, 10), trade(2, 10))
    for executed in ("2", "1"):
        await rest().tell(conn, order("PARTIALLY_FILLED", executed_qty=executed, created_ms=T_MS, updated_ms=T_MS + 10))

    assert await doubts(conn) == []


# --- what the stream should have brought


async def missed_ms(conn: Any, *facts: Order | Fill) -> int | None:
    """Since when, in ms after ``T_MS``; None: it missed nothing."""
    orders = [fact for fact in facts if isinstance(fact, Order)]
    fills = [fact for fact in facts if isinstance(fact, Fill)]
    since_ms = await reads.missed_since_ms(conn, ACCOUNT, orders, fills)
    return None if since_ms is None else since_ms - T_MS


async def live_since(conn: Any, until_ms: int = 0) -> None:
    """A stream that is live since ``T_MS`` + ``until_ms``, the gap before it walked."""
    await known(conn)
    gap = await coverage.open_gap(conn, ACCOUNT, cause="start", until_ms=T_MS + until_ms)
    await coverage.close_gap(conn, ACCOUNT, gap.gap_id, complete_from_ms=None)


def told(status: str, at_ms: int, **more: Any) -> Order:
    return order(status, created_ms=T_MS - 100, updated_ms=T_MS + at_ms, **more)


async def test_an_unknown_order_a_later_status_more_executed_and_an_unknown_trade_are_news(conn: Any) -> None:
    await live_since(conn)
    assert await missed_ms(conn, told("NEW", 50)) == 50
    await Session().tell(conn, told("PARTIALLY_FILLED", 50), fill(50))

    assert await missed_ms(conn, told("CANCELED", 60)) == 60
    assert await missed_ms(conn, told("PARTIALLY_FILLED", 70, executed_qty="1.5"), told("CANCELED", 60)) == 60
    assert await missed_ms(conn, trade(1, 2_000)) == 2_000


async def test_what_the_stream_brought_is_no_news(conn: Any) -> None:
    await live_since(conn)
    await Session().tell(conn, told("PARTIALLY_FILLED", 50), fill(50), fill(50))

    assert await missed_ms(conn, told("PARTIALLY_FILLED", 50, executed_qty="1")) is None
    assert await missed_ms(conn, told("PARTIALLY_FILLED", 50, executed_qty="2")) is None, "provisional fills came too"
    assert await missed_ms(conn, trade(1, 900)) is None, "the times of REST and stream may differ by a second"
    assert await missed_ms(conn) is None


async def test_what_happened_before_the_stream_was_live_is_no_news_of_it(conn: Any) -> None:
    await live_since(conn, 100)

    assert await missed_ms(conn, told("NEW", 50), trade(1, 60)) is None


async def test_a_change_without_a_time_counts_from_the_end_of_the_last_gap_where_the_order_was_held(conn: Any) -> None:
    """Such venues tell only when an order was created."""
    await known(conn)
    await rest().tell(conn, order("NEW", created_ms=T_MS - 900, updated_ms=T_MS - 900))
    await live_since(conn, 100)
    filled = order("FILLED", created_ms=T_MS - 900, updated_ms=T_MS - 900)
    assert await missed_ms(conn, filled) == 100
    assert await missed_ms(conn, order("NEW", 5, created_ms=T_MS - 900, updated_ms=T_MS - 900)) is None


async def test_an_order_that_lost_fills_before_is_judged_by_its_status_alone(conn: Any) -> None:
    await live_since(conn)
    await rest().tell(conn, told("PARTIALLY_FILLED", 10, executed_qty="3"))
    await Session().tell(conn, told("PARTIALLY_FILLED", 50), fill(50))

    assert await missed_ms(conn, told("PARTIALLY_FILLED", 50, executed_qty="4")) is None
    assert await missed_ms(conn, told("FILLED", 60, executed_qty="4")) == 60


async def test_nothing_is_news_while_a_gap_is_open_or_no_stream_is_live(conn: Any) -> None:
    await live_since(conn)
    await coverage.stream_down(conn, ACCOUNT)
    assert await missed_ms(conn, told("NEW", 50)) is None
    await coverage.open_gap(conn, ACCOUNT, cause="lost", until_ms=T_MS + 40)
    assert await missed_ms(conn, told("NEW", 50)) is None
    await coverage.close_gap(conn, ACCOUNT, 2, complete_from_ms=None)
    assert await missed_ms(conn, told("NEW", 50)) == 50


# --- balances the stream should have brought


async def balance_missed_ms(conn: Any) -> int | None:
    """Since when, in ms after ``T_MS``; None: it missed nothing."""
    since_ms = await reads.balance_missed_since_ms(conn, ACCOUNT, after_seq=0, until_ms=T_MS + 60_000)
    return None if since_ms is None else since_ms - T_MS


async def test_a_balance_that_rest_alone_tells_is_news(conn: Any) -> None:
    await live_since(conn)
    await Session().tell(conn, held("BTC", "5", at_ms=50))
    await rest().tell(conn, snapshot(held("BTC", "6"), at_ms=9_000), asked_seq=1)

    assert await balance_missed_ms(conn) == 9_000


async def test_a_state_that_the_stream_told_and_left_behind_is_news_when_rest_tells_it_again(conn: Any) -> None:
    await live_since(conn)
    await Session().tell(conn, held("BTC", "5", at_ms=50), held("BTC", "6", at_ms=3_000))
    await rest().tell(conn, snapshot(held("BTC", "5"), at_ms=9_000), asked_seq=1)

    assert await balance_missed_ms(conn) == 9_000


async def test_a_balance_that_came_and_went_in_one_instant_is_no_news_when_another_asset_moved_since(conn: Any) -> None:
    """Of equal clocks the last distinct state counts, so REST must say that it is the first one again."""
    await live_since(conn)
    await Session().tell(conn, *(held("BTC", free, at_ms=50) for free in ("5", "4", "5")))
    await Session().tell(conn, held("USDT", "7", at_ms=9_000))
    await rest().tell(conn, snapshot(held("BTC", "5"), held("USDT", "7"), at_ms=9_000), asked_seq=1)

    assert await rows(conn, "SELECT free, source FROM ledger.balances WHERE asset = 'BTC'") == [(5, "rest")]
    assert await balance_missed_ms(conn) is None
