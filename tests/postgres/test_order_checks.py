"""The table of orders that must be asked for again: what enters it, when it is due, what takes it out."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from ledger.db import coverage, order_checks, reads
from tests.histories import (
    ACCOUNT,
    ORDER_ID,
    SYMBOL,
    T_MS,
    Session,
    due_orders,
    fill,
    known,
    order,
    rest,
    rows,
)

KEY = (SYMBOL, ORDER_ID)
TABLE = "SELECT order_id, reason, due_ms, tries, ends_coverage FROM ledger.order_checks ORDER BY 1, 2"
DAY_MS = 86_400_000


async def due(conn: Any, now_ms: int, lag_ms: int = 0, limit: int = 100) -> list[order_checks.OrderCheck]:
    return await order_checks.due(conn, ACCOUNT, now_ms=now_ms, lag_ms=lag_ms, longest_ms=DAY_MS, limit=limit)


async def test_what_the_rows_show_is_entered_once_and_taken_out_again(conn: Any) -> None:
    await known(conn)
    session = Session()
    await session.tell(conn, order("NEW", updated_ms=T_MS), fill(), fill())
    for _ in range(2):
        await order_checks.find(conn, ACCOUNT, lag_ms=700)
    assert await rows(conn, TABLE) == [(ORDER_ID, "provisional_fill", T_MS + 700, 0, False)]
    await conn.execute("UPDATE ledger.fills SET state = 'voided' WHERE state = 'provisional'")
    await order_checks.find(conn, ACCOUNT, lag_ms=700)
    assert await rows(conn, TABLE) == []


async def test_a_check_is_due_at_its_time_and_once_the_order_has_been_quiet(conn: Any) -> None:
    await known(conn)
    await order_checks.add(conn, ACCOUNT, [KEY], "moved_in_gap", due_ms=T_MS)
    assert await due(conn, T_MS - 1) == []
    assert [check.key for check in await due(conn, T_MS)] == [KEY], "also of an order that is not stored"
    await Session().tell(conn, order("NEW", updated_ms=T_MS + 5000))
    assert await due(conn, T_MS + 5999, lag_ms=1000) == []
    (check,) = await due(conn, T_MS + 6000, lag_ms=1000)
    assert (check.status, check.executed_qty) == ("NEW", Decimal(0))


async def test_a_time_set_by_a_wrong_clock_counts_as_come(conn: Any) -> None:
    await known(conn)
    await order_checks.add(conn, ACCOUNT, [KEY], "refused", due_ms=T_MS + DAY_MS + 1)
    assert [check.key for check in await due(conn, T_MS)] == [KEY]
    assert await due(conn, T_MS + 1) == []
    looks = [
        await reads.to_do(conn, ACCOUNT, now_ms=now_ms, longest_ms=DAY_MS) for now_ms in (T_MS, T_MS + 1, T_MS + DAY_MS)
    ]
    assert looks == [(False, True), (False, False), (False, False)]


async def test_those_due_longest_come_first_and_no_more_than_wanted(conn: Any) -> None:
    await known(conn)
    for number in range(5):
        await order_checks.add(conn, ACCOUNT, [(SYMBOL, number)], "refused", due_ms=T_MS - number)
    assert [check.order_id for check in await due(conn, T_MS, limit=3)] == [4, 3, 2]


async def test_what_was_asked_in_vain_is_put_off_and_what_was_answered_is_done(conn: Any) -> None:
    await known(conn)
    await order_checks.add(conn, ACCOUNT, [KEY], "refused", due_ms=T_MS)
    await order_checks.put_off(conn, ACCOUNT, KEY, ["refused"], due_ms=T_MS + 9)
    await order_checks.add(conn, ACCOUNT, [KEY], "refused", due_ms=T_MS, ends_coverage=True)
    assert await rows(conn, TABLE) == [(ORDER_ID, "refused", T_MS + 9, 1, True)], "it keeps its time"
    await Session().tell(conn, order("NEW", updated_ms=T_MS + 20))
    await order_checks.done(conn, ACCOUNT, KEY, ["refused"], quiet_ms=T_MS + 19)
    assert len(await rows(conn, TABLE)) == 1, "the answer may not know of the newest move"
    await order_checks.done(conn, ACCOUNT, KEY, ["refused"], quiet_ms=T_MS + 20)
    assert await rows(conn, TABLE) == []


@pytest.mark.parametrize("reason", ["unknown_to_venue", "absent"])
async def test_an_order_that_rest_reports_is_not_unknown_any_more(conn: Any, reason: Any) -> None:
    await known(conn)
    await order_checks.add(conn, ACCOUNT, [KEY, (SYMBOL, 7)], reason, due_ms=T_MS)
    await Session().tell(conn, order("NEW"))
    assert len(await rows(conn, TABLE)) == 2, "the stream says nothing of REST"
    await rest().tell(conn, order("NEW", orig_qty="1"))
    assert [row[0] for row in await rows(conn, TABLE)] == [7]


async def test_a_report_that_says_nothing_new_of_an_order_makes_rest_be_asked_what_it_is_for(conn: Any) -> None:
    """Ten fields tell neither quantity nor price: an order amended in place shows as NEW once more."""
    await known(conn)
    stream = Session()
    for moved_ms in (T_MS, T_MS):
        await stream.tell(conn, order("NEW", updated_ms=moved_ms))
    assert await rows(conn, TABLE) == [], "a doubled frame is of the same instant"
    await stream.tell(conn, order("NEW", updated_ms=T_MS + 500))
    await stream.tell(conn, order("CANCELED", updated_ms=T_MS + 700))
    await order_checks.find(conn, ACCOUNT, lag_ms=0)
    assert [row[:2] for row in await rows(conn, TABLE)] == [(ORDER_ID, "reported_again")], "however it ended"
    await order_checks.done(conn, ACCOUNT, KEY, ["reported_again"], quiet_ms=T_MS + 600)
    assert len(await rows(conn, TABLE)) == 1, "an answer of before it ended settles nothing"
    await order_checks.done(conn, ACCOUNT, KEY, ["reported_again"], quiet_ms=T_MS + 700)
    assert await rows(conn, TABLE) == []


async def test_an_order_filled_with_another_quantity_than_it_was_for_is_asked_for(conn: Any) -> None:
    await known(conn)
    await rest().tell(conn, order("NEW", orig_qty="5", executed_qty="0", updated_ms=T_MS))
    await Session().tell(conn, order("FILLED", updated_ms=T_MS + 500), fill(500, "3"))
    await order_checks.find(conn, ACCOUNT, lag_ms=1000)
    assert await rows(conn, TABLE) == [(ORDER_ID, "quantity_differs", T_MS + 1500, 0, False)]
    await rest().tell(conn, order("FILLED", orig_qty="3", executed_qty="3", updated_ms=T_MS + 500))
    await order_checks.find(conn, ACCOUNT, lag_ms=1000)
    assert "quantity_differs" not in [row[1] for row in await rows(conn, TABLE)]


async def test_an_order_in_a_status_nobody_knows_is_neither_open_nor_over(conn: Any) -> None:
    await known(conn)
    await rest().tell(conn, order("LIQUIDATED", orig_qty="5", updated_ms=T_MS))
    await rest().tell(conn, order("NEW", 7, orig_qty="5"), order("FILLED", 8, orig_qty="5", executed_qty="5"))
    await order_checks.find(conn, ACCOUNT, lag_ms=0)
    assert await rows(conn, TABLE) == [(ORDER_ID, "unknown_status", T_MS, 0, False)]
    opened = "SELECT order_id, is_open FROM ledger_v1.orders ORDER BY 1"
    assert await rows(conn, opened) == [(7, True), (8, False), (ORDER_ID, None)]
    quiet = await reads.known_state(conn, ACCOUNT, in_gap=False)
    assert quiet.open_orders == ((SYMBOL, 7),), "it is asked for by its check, ever more seldom"
    (status,) = await reads.status(conn)
    assert (status["order_checks"], status["unknown_statuses"]) == (1, 1)
    await rest().tell(conn, order("CANCELED", orig_qty="5", updated_ms=T_MS + 1))
    await order_checks.find(conn, ACCOUNT, lag_ms=0)
    assert await rows(conn, TABLE) == []


async def test_an_order_the_venue_has_rightly_none_of_is_over_and_never_asked_for_again(conn: Any) -> None:
    await known(conn)
    await Session().tell(conn, order("NEW"))
    await order_checks.add(conn, ACCOUNT, [KEY], "absent", due_ms=None)
    assert await due(conn, T_MS + 99 * DAY_MS) == []
    state = await reads.known_state(conn, ACCOUNT)
    assert (state.open_orders, state.untold) == ((), ())
    assert await rows(conn, "SELECT is_open FROM ledger_v1.orders") == [(False,)]
    await Session().tell(conn, order("PARTIALLY_FILLED", updated_ms=T_MS), fill())
    await order_checks.find(conn, ACCOUNT, lag_ms=0)
    assert (await reads.known_state(conn, ACCOUNT)).open_orders == (KEY,), "it executed after all"


async def test_orders_that_moved_while_a_gap_was_backfilled_are_entered_as_it_closes(conn: Any) -> None:
    await known(conn)
    await coverage.open_gap(conn, ACCOUNT, cause="start", until_ms=T_MS)
    await Session().tell(conn, order("NEW", 1, updated_ms=T_MS - 50), order("NEW", 2, updated_ms=T_MS + 50))
    await coverage.close_gap(conn, ACCOUNT, 1, complete_from_ms=None, moved_ms=T_MS)
    assert await due_orders(conn, "moved_in_gap", T_MS + 50) == [(SYMBOL, 2)]
