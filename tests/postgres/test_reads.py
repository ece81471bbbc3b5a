"""What the program asks of the database to plan its next step."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from ledger.db import coverage, reads
from tests.histories import (
    ACCOUNT,
    ORDER_ID,
    SYMBOL,
    T_MS,
    Session,
    due_orders,
    fill,
    held,
    known,
    order,
    rest,
    settled,
    snapshot,
    trade,
)

KEY = (SYMBOL, ORDER_ID)


async def test_an_account_without_history_is_known_as_empty(conn: Any) -> None:
    await known(conn)
    state = await reads.known_state(conn, ACCOUNT)
    assert (state.head_seq, state.symbols, state.open_orders, state.untold, state.missing) == (0, (), (), (), ())


async def test_an_account_nobody_registered_is_empty_too(conn: Any) -> None:
    assert (await reads.known_state(conn, "nobody")).head_seq == 0


async def test_a_walk_is_planned_from_what_is_open_untold_or_missing(conn: Any) -> None:
    await known(conn)
    await known(conn, "other")
    await Session(account="other").tell(conn, order("NEW", 99, symbol="XRPUSDT"))
    await rest().tell(
        conn,
        order("NEW", 1, symbol="SOLUSDT", orig_qty="5", executed_qty="0"),
        order("FILLED", 2, symbol="BTCUSDT", orig_qty="5", executed_qty="5"),
        order("CANCELED", 3, symbol="BTCUSDT", orig_qty="5", executed_qty="0"),
    )
    await Session().tell(conn, order("PARTIALLY_FILLED", 4, symbol="ETHUSDT"), fill(order_id=4, symbol="ETHUSDT"))
    await rest().tell(conn, trade(7, symbol="ADAUSDT", order_id=5))
    state = await reads.known_state(conn, ACCOUNT)
    assert state.head_seq == 3
    assert state.symbols == ("ADAUSDT", "BTCUSDT", "ETHUSDT", "SOLUSDT")
    assert state.open_orders == (("ETHUSDT", 4), ("SOLUSDT", 1))
    assert state.untold == (("ADAUSDT", 5), ("ETHUSDT", 4))
    assert state.missing == (("BTCUSDT", 2),)


async def test_an_order_with_two_ends_is_disputed_until_get_order_decides(conn: Any) -> None:
    await known(conn)
    await Session().tell(conn, order("CANCELED"))
    await rest().tell(conn, order("EXPIRED"))
    assert (await reads.known_state(conn, ACCOUNT)).disputed == (KEY,)
    await rest().tell(conn, order("EXPIRED", decides=True))
    assert (await reads.known_state(conn, ACCOUNT)).disputed == ()


async def test_a_market_may_have_a_slash_in_its_name(conn: Any) -> None:
    await known(conn)
    await Session().tell(conn, order("CANCELED", symbol="BTC/USDT"))
    await rest().tell(conn, order("EXPIRED", symbol="BTC/USDT"))
    assert (await reads.known_state(conn, ACCOUNT)).disputed == (("BTC/USDT", KEY[1]),)
    await rest().tell(conn, order("EXPIRED", symbol="BTC/USDT", decides=True))
    assert (await reads.known_state(conn, ACCOUNT)).disputed == ()


async def test_symbols_active_lately_are_those_whose_orders_changed_since(conn: Any) -> None:
    await known(conn)
    for number, symbol in enumerate(("SOLUSDT", "BTCUSDT", "ETHUSDT"), start=1):
        await Session().tell(conn, order("NEW", number, symbol=symbol), order("NEW", 10 + number, symbol=symbol))
    assert await reads.active_symbols(conn, ACCOUNT, since_seq=1) == ["BTCUSDT", "ETHUSDT"]
    assert await reads.active_symbols(conn, ACCOUNT, since_seq=3) == []


async def test_an_order_is_settled_when_its_last_doubtful_fill_is_old_enough(conn: Any) -> None:
    await known(conn)
    session = Session()
    for at_ms in (0, 0, 500, 500):
        await session.tell(conn, fill(at_ms))
    assert await due_orders(conn, "provisional_fill", T_MS + 499) == []
    assert await due_orders(conn, "provisional_fill", T_MS + 500) == [KEY]
    for _ in range(2):
        await rest().tell(conn, order("NEW", executed_qty="2"), settled("2"))
    assert await due_orders(conn, "provisional_fill", T_MS + 500) == []


async def test_an_order_that_lost_fills_is_asked_again_once_it_moved_on_and_was_quiet(conn: Any) -> None:
    await known(conn)
    await rest().tell(conn, order("PARTIALLY_FILLED", executed_qty="5", updated_ms=T_MS))
    assert await wounded(conn, T_MS + 9999) == [], "it has not moved since it was told"
    await Session().tell(conn, order("PARTIALLY_FILLED", updated_ms=T_MS + 100), fill(100))
    assert await wounded(conn, T_MS + 99) == [], "REST may not know of it yet"
    assert await wounded(conn, T_MS + 100) == [KEY]
    await rest().tell(conn, order("PARTIALLY_FILLED", executed_qty="6", updated_ms=T_MS + 100), asked_ms=100)
    assert await wounded(conn, T_MS + 9999) == [], "asked and told"


async def test_asking_again_without_news_settles_an_order_that_moved_on(conn: Any) -> None:
    """Fills of the stream alone say nothing of what was lost beside them; the same answer as before does."""
    await known(conn)
    await rest().tell(conn, order("CANCELED", executed_qty="5", updated_ms=T_MS))
    await Session().tell(conn, fill(100))
    assert await wounded(conn, T_MS + 100) == [KEY]
    await rest().tell(conn, order("CANCELED", executed_qty="5", updated_ms=T_MS))
    assert await wounded(conn, T_MS + 9999) == []


async def test_an_order_that_lost_nothing_is_not_asked_again(conn: Any) -> None:
    await known(conn)
    await Session().tell(conn, order("PARTIALLY_FILLED", executed_qty="1", updated_ms=T_MS), fill())
    await Session().tell(conn, order("PARTIALLY_FILLED", updated_ms=T_MS + 100), fill(100))
    assert await wounded(conn, T_MS + 9999) == []


async def test_an_order_whose_lost_fill_came_after_all_is_healed_by_the_next_answer(conn: Any) -> None:
    await known(conn)
    await rest().tell(conn, order("FILLED", executed_qty="1", updated_ms=T_MS))
    await rest().tell(conn, trade(1))
    await rest().tell(conn, order("FILLED", executed_qty="1", updated_ms=T_MS))
    assert await wounded(conn, T_MS + 9999) == []
    assert (await reads.known_state(conn, ACCOUNT)).missing == ()


async def wounded(conn: Any, until_ms: int) -> list[tuple[str, int]]:
    return await due_orders(conn, "missing_fills", until_ms)


async def test_balances_are_exact_and_the_accounts_own(conn: Any) -> None:
    await known(conn)
    await known(conn, "other")
    digits = "1234567890123456789012345678901234567890.00000001"
    await Session().tell(conn, held("BTC", digits, "1"))
    await Session(account="other").tell(conn, held("ETH", "7"))
    assert await reads.balances(conn, ACCOUNT) == {"BTC": (Decimal(digits), Decimal(1))}


async def test_a_snapshot_is_in_doubt_while_it_waits_for_a_second_one(conn: Any) -> None:
    await known(conn)
    await Session().tell(conn, held("BTC", "1", at_ms=99))
    assert not await reads.snapshot_in_doubt(conn, ACCOUNT)
    await rest().tell(conn, snapshot(at_ms=1), asked_seq=1)
    assert await reads.snapshot_in_doubt(conn, ACCOUNT)
    await rest().tell(conn, snapshot(at_ms=1), asked_seq=2, asked_ms=5000)
    assert not await reads.snapshot_in_doubt(conn, ACCOUNT)


async def test_silence_the_venue_asked_for_is_remembered_and_never_shortened(conn: Any) -> None:
    await known(conn)
    assert await reads.blocked_until_ms(conn, ACCOUNT) is None
    for until_ms in (500, 900, 700):
        await coverage.set_block(conn, ACCOUNT, until_ms)
    assert await reads.blocked_until_ms(conn, ACCOUNT) == 900


async def test_a_key_is_recognised_by_any_order_of_symbol_and_id(conn: Any) -> None:
    await known(conn)
    await Session().tell(conn, order("NEW"))
    assert await reads.knows_any_order(conn, ACCOUNT, [("ETHUSDT", 1), KEY])
    assert not await reads.knows_any_order(conn, ACCOUNT, [("ETHUSDT", ORDER_ID), (SYMBOL, 1)])
    assert not await reads.knows_any_order(conn, ACCOUNT, [])


async def test_status_tells_each_accounts_health_and_counts(conn: Any) -> None:
    await known(conn)
    await known(conn, "other")
    session = Session()
    await session.tell(conn, fill(), fill(), order("FILLED", executed_qty="5"), order("CANCELED"))
    await coverage.open_gap(conn, ACCOUNT, cause="start", until_ms=T_MS)
    await coverage.set_mode(conn, ACCOUNT, "trades")
    await coverage.set_weight(conn, ACCOUNT, 30)
    await coverage.set_error(conn, ACCOUNT, "e" * 3000)
    ours, theirs = await reads.status(conn)
    told = (
        "mode",
        "live",
        "frames_seen",
        "unreadable_frames",
        "head_seq",
        "open_gaps",
        "gaps",
        "open_discrepancies",
        "missing_executions",
        "provisional_fills",
        "order_checks",
        "unknown_statuses",
        "weight_used",
        "last_error",
        "last_problem",
    )
    assert [ours[name] for name in told] == ["trades", True, 1, 0, 1, 1, 1, 1, 1, 1, 0, 0, 30, "e" * 2000, None]
    assert (theirs["account"], theirs["live"], theirs["open_gaps"]) == ("other", False, 0)
