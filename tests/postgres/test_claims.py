"""When two tellings are one fill: equal frames over sessions, stream frames and REST trades, twins and doubles."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations
from typing import Any

import pytest

from ledger.facts.types import Exact, Fact, Fill
from tests.histories import (
    ORDER_ID,
    SYMBOL,
    T_MS,
    Session,
    column,
    doubts,
    due_orders,
    fill,
    fills_of,
    known,
    order,
    order_of,
    rest,
    settled,
    trade,
)

STATES = "SELECT state FROM ledger.fills ORDER BY stream_ordinal, first_seq"


# --- one stream, many sessions


async def test_the_same_frame_over_two_sockets_is_one_fill(conn: Any) -> None:
    await known(conn)
    first = await Session().tell(conn, fill())
    again = await Session().tell(conn, fill())
    assert (first.fills_new, again.fills_new) == (1, 0)
    assert await fills_of(conn) == [(None, 1)]


async def test_numbers_spelled_otherwise_are_the_same_fill(conn: Any) -> None:
    await known(conn)
    await Session().tell(conn, fill(qty="1.0", price="100.00"))
    await Session().tell(conn, fill(qty="1", price="100"))
    assert await fills_of(conn, "qty::text, price::text") == [("1.0", "100.00")], "digits as first told"


async def test_twin_fills_told_by_two_overlapping_sockets_in_other_order_are_two(conn: Any) -> None:
    await known(conn)
    twin, other = fill(qty="1"), fill(qty="2")
    left, right = Session(), Session()
    for session, told in ((left, twin), (right, other), (left, other), (right, twin), (right, twin), (left, twin)):
        await session.tell(conn, told)
    assert sorted(await column(conn, "SELECT qty FROM ledger_v1.fills")) == [1, 1, 2]


async def test_a_doubled_filled_is_one_fill(conn: Any) -> None:
    await known(conn)
    session = Session()
    last = fill(status="FILLED")
    await session.tell(conn, last)
    await session.tell(conn, last)
    assert await fills_of(conn) == [(None, 1)]
    assert await column(conn, STATES) == ["confirmed"]


async def test_equal_fills_of_two_orders_and_of_two_symbols_are_two_each(conn: Any) -> None:
    await known(conn)
    await Session().tell(conn, fill(), fill(order_id=ORDER_ID + 1), fill(symbol="ETHUSDT"))
    assert await rows_by_order(conn) == [(SYMBOL, ORDER_ID), (SYMBOL, ORDER_ID + 1), ("ETHUSDT", ORDER_ID)]


async def rows_by_order(conn: Any) -> list[tuple[Any, ...]]:
    return sorted(await fills_of(conn, "symbol, order_id"))


# --- twin or double


async def test_a_frame_doubled_in_one_session_is_provisional_and_does_not_raise_the_executed_quantity(
    conn: Any,
) -> None:
    await known(conn)
    session = Session()
    await session.tell(conn, order("PARTIALLY_FILLED"), fill())
    await session.tell(conn, order("PARTIALLY_FILLED"), fill())
    assert await column(conn, STATES) == ["confirmed", "provisional"]
    assert await order_of(conn, "executed_qty") == (1,)


async def test_a_double_is_voided_by_the_second_settling_read_that_does_not_need_it(conn: Any) -> None:
    await known(conn)
    session, reader = Session(), rest()
    await session.tell(conn, fill())
    await session.tell(conn, fill())
    await reader.tell(conn, order("NEW", executed_qty="1"), settled("1"))
    assert await column(conn, STATES) == ["confirmed", "provisional"], "one reading proves nothing"
    await reader.tell(conn, order("NEW", executed_qty="1"), settled("1"))
    assert await column(conn, STATES) == ["confirmed", "voided"], "kept in the table"
    assert await fills_of(conn) == [(None, 1)], "and out of the view"
    assert await doubts(conn) == [("double_frame", False)]


async def test_a_twin_is_confirmed_by_the_second_settling_read_that_needs_it(conn: Any) -> None:
    await known(conn)
    session, reader = Session(), rest()
    await session.tell(conn, fill())
    await session.tell(conn, fill())
    for _ in range(2):
        await reader.tell(conn, order("PARTIALLY_FILLED", executed_qty="2"), settled("2"))
    assert await column(conn, STATES) == ["confirmed", "confirmed"]
    assert await fills_of(conn) == [(None, 1), (None, 1)]
    assert await order_of(conn, "executed_qty") == (2,)
    assert await doubts(conn) == []


async def test_of_three_equal_frames_as_many_are_fills_as_the_executed_quantity_needs(conn: Any) -> None:
    await known(conn)
    session, reader = Session(), rest()
    for _ in range(3):
        await session.tell(conn, fill())
    for _ in range(2):
        await reader.tell(conn, order("PARTIALLY_FILLED", executed_qty="2"), settled("2"))
    assert await column(conn, STATES) == ["confirmed", "confirmed", "voided"]


async def test_of_a_twin_and_a_double_the_one_that_makes_the_sum_exact_is_the_fill(conn: Any) -> None:
    await known(conn)
    session, reader = Session(), rest()
    for told in (fill(0, qty="1"), fill(0, qty="1"), fill(5, qty="3"), fill(5, qty="3")):
        await session.tell(conn, told)
    for _ in range(2):
        await reader.tell(conn, order("FILLED", executed_qty="7"), settled("7"))
    assert await fills_of(conn, "qty") == [(1,), (3,), (3,)]


async def test_with_fills_lost_beside_them_doubtful_frames_count_as_far_as_they_fit(conn: Any) -> None:
    await known(conn)
    session, reader = Session(), rest()
    for told in (fill(0, qty="1"), fill(0, qty="1"), fill(5, qty="9"), fill(5, qty="9")):
        await session.tell(conn, told)
    for _ in range(2):
        await reader.tell(conn, order("FILLED", executed_qty="13"), settled("13"))
    assert await fills_of(conn, "qty") == [(1,), (1,), (9,)]
    assert await column(conn, "SELECT missing_qty FROM ledger_v1.missing_executions") == [2]


async def test_settling_reads_that_differ_judge_nothing_until_two_in_a_row_agree(conn: Any) -> None:
    await known(conn)
    session, reader = Session(), rest()
    await session.tell(conn, fill())
    await session.tell(conn, fill())
    for executed in ("1", "2"):
        await reader.tell(conn, order("PARTIALLY_FILLED", executed_qty=executed), settled(executed))
    assert await column(conn, STATES) == ["confirmed", "provisional"]
    await reader.tell(conn, order("PARTIALLY_FILLED", executed_qty="2"), settled("2"))
    assert await column(conn, STATES) == ["confirmed", "confirmed"]


async def test_a_voided_double_told_once_more_stays_voided(conn: Any) -> None:
    await known(conn)
    session, reader = Session(), rest()
    await session.tell(conn, fill())
    await session.tell(conn, fill())
    for _ in range(2):
        await reader.tell(conn, order("NEW", executed_qty="1"), settled("1"))
    replayed = Session()
    await replayed.tell(conn, fill())
    await replayed.tell(conn, fill())
    assert await fills_of(conn) == [(None, 1)]


async def test_voiding_is_a_change_that_readers_of_seq_see(conn: Any) -> None:
    await known(conn)
    session, reader = Session(), rest()
    await session.tell(conn, fill())
    await session.tell(conn, fill())
    for _ in range(2):
        last = await reader.tell(conn, order("NEW", executed_qty="1"), settled("1"))
    assert await column(conn, "SELECT seq FROM ledger.fills WHERE state = 'voided'") == [last.last_seq]


async def test_a_trade_does_not_bring_a_voided_frame_back(conn: Any) -> None:
    await known(conn)
    session, reader = Session(), rest()
    await session.tell(conn, fill())
    await session.tell(conn, fill())
    for _ in range(2):
        await reader.tell(conn, order("NEW", executed_qty="1"), settled("1"))
    assert (await reader.tell(conn, trade(1), trade(2))).fills_new == 1
    assert await fills_of(conn, "trade_id, source") == [(1, "stream"), (2, "rest")]
    assert await column(conn, "SELECT trade_id FROM ledger.fills WHERE state = 'voided'") == [None]


async def test_a_trade_confirms_the_twin_it_claims(conn: Any) -> None:
    await known(conn)
    session = Session()
    await session.tell(conn, fill())
    await session.tell(conn, fill())
    await rest().tell(conn, trade(1), trade(2))
    assert await column(conn, STATES) == ["confirmed", "confirmed"]
    assert await fills_of(conn) == [(1, 1), (2, 1)]


async def test_a_double_thought_a_twin_is_doubted_again_when_the_trades_leave_no_room_for_it(conn: Any) -> None:
    """A fill lost in silence made room for the double; then the trades of REST tell what really happened."""
    await known(conn)
    session, reader = Session(), rest()
    await session.tell(conn, fill())
    await session.tell(conn, fill())
    for _ in range(2):
        await reader.tell(conn, order("PARTIALLY_FILLED", executed_qty="3"), settled("3"))
    assert await column(conn, STATES) == ["confirmed", "confirmed"], "the lost fill of 2 made room for it"
    await reader.tell(conn, trade(1), trade(2, 5, qty="2"))
    assert await order_of(conn, "executed_qty") == (3,)
    for _ in range(2):
        await reader.tell(conn, order("PARTIALLY_FILLED", executed_qty="3"), settled("3"))
    assert await fills_of(conn) == [(1, 1), (2, 2)]


# --- stream and REST


async def test_a_trade_adopts_the_stream_fill_it_tells_again(conn: Any) -> None:
    await known(conn)
    streamed = await Session().tell(conn, fill(7))
    adopted = await rest().tell(conn, trade(41, 9, quote_qty=Exact("100.01"), is_maker=False))
    assert adopted.fills_new == 0
    assert await fills_of(conn, "trade_id, is_maker, executed_ms % 1000, source, quote_qty::text, quote_derived") == [
        (41, False, 9, "stream", "100.01", False)
    ]
    assert await fills_of(conn, "first_seq, seq") == [(streamed.first_seq, adopted.last_seq)]


async def test_a_stream_fill_told_after_its_trade_changes_nothing_that_can_be_seen(conn: Any) -> None:
    await known(conn)
    told = await rest().tell(conn, trade(41, 9))
    late = await Session().tell(conn, fill(7))
    assert late.fills_new == 0
    assert await fills_of(conn, "trade_id, executed_ms % 1000, source, seq") == [(41, 9, "rest", told.last_seq)]


async def test_a_trade_and_its_frame_in_one_call_are_one_fill(conn: Any) -> None:
    await known(conn)
    await Session().tell(conn, trade(41), fill())
    assert await fills_of(conn) == [(41, 1)]


@pytest.mark.parametrize("apart_ms", [-1000, 1000])
async def test_a_second_apart_is_one_fill(conn: Any, apart_ms: int) -> None:
    await known(conn)
    await Session().tell(conn, fill(2000))
    await rest().tell(conn, trade(41, 2000 + apart_ms))
    assert await fills_of(conn) == [(41, 1)]


@pytest.mark.parametrize("apart_ms", [-1001, 1001])
async def test_more_than_a_second_apart_are_two_fills(conn: Any, apart_ms: int) -> None:
    await known(conn)
    await Session().tell(conn, fill(2000))
    await rest().tell(conn, trade(41, 2000 + apart_ms))
    assert sorted(row[0] or 0 for row in await fills_of(conn)) == [0, 41]


@pytest.mark.parametrize(
    "other",
    [
        {"qty": "2"},
        {"price": "101"},
        {"fee": Exact("0.2")},
        {"fee_asset": "BNB"},
        {"side": "SELL"},
        {"order_id": ORDER_ID + 1},
        {"symbol": "ETHUSDT"},
    ],
)
async def test_a_trade_with_other_numbers_is_another_fill(conn: Any, other: dict[str, Any]) -> None:
    await known(conn)
    await Session().tell(conn, fill())
    await rest().tell(conn, trade(41, **other))
    assert len(await fills_of(conn)) == 2


async def test_the_nearest_stream_fill_is_adopted_first(conn: Any) -> None:
    await known(conn)
    await Session().tell(conn, fill(0), fill(600))
    await rest().tell(conn, trade(41, 500))
    assert await fills_of(conn, "trade_id, executed_ms % 1000") == [(None, 0), (41, 500)]


async def test_a_nearer_frame_takes_the_trade_from_one_farther_away(conn: Any) -> None:
    await known(conn)
    await rest().tell(conn, trade(41, 1000))
    await Session().tell(conn, fill(300))
    assert len(await fills_of(conn)) == 1, "for want of a nearer one"
    await Session().tell(conn, fill(1000))
    assert await fills_of(conn, "trade_id, executed_ms % 1000") == [(None, 300), (41, 0)]
    assert await fills_of(conn, "quote_derived, is_maker") == [(True, None), (False, True)], "each its own words"


S1, S2, S3 = (fill(at_ms) for at_ms in (0, 900, 1800))


@pytest.mark.parametrize("late_ms", [100, -100])
async def test_a_chain_of_equal_fills_ends_in_the_same_pairs_in_every_order_of_arrival(conn: Any, late_ms: int) -> None:
    """Each fill lies within a second of its neighbours, so all of them could be taken for one another."""
    trades = [trade(number, at_ms + late_ms) for number, at_ms in ((1, 0), (2, 900), (3, 1800))]
    for number, arrival in enumerate(permutations([S1, S2, S3, *trades])):
        assert await pairs_after(conn, f"a{number}", arrival) == [
            (1, 0, late_ms, 1),
            (2, 900, 900 + late_ms, 1),
            (3, 1800, 1800 + late_ms, 1),
        ]


async def test_a_chain_that_lost_a_frame_ends_in_the_same_rows_in_every_order_of_arrival(conn: Any) -> None:
    trades = [trade(number, at_ms) for number, at_ms in ((1, 0), (2, 900), (3, 1800))]
    for number, arrival in enumerate(permutations([S1, S3, *trades])):
        assert await pairs_after(conn, f"a{number}", arrival) == [(1, 0, 0, 1), (2, None, 900, 1), (3, 1800, 1800, 1)]


async def test_a_chain_whose_trades_are_not_all_told_ends_in_the_same_rows_in_every_order_of_arrival(
    conn: Any,
) -> None:
    trades = [trade(1, 0), trade(3, 1800)]
    for number, arrival in enumerate(permutations([S1, S2, S3, *trades])):
        assert await pairs_after(conn, f"a{number}", arrival) == [
            (1, 0, 0, 1),
            (3, 1800, 1800, 1),
            (None, 900, 900, 1),
        ]


async def pairs_after(conn: Any, account: str, arrival: Sequence[Fact]) -> list[tuple[Any, ...]]:
    """(trade id, ms of the frame, ms of the fill, quantity) of every row. The order's sum must be that of its rows."""
    stream, walk = Session(account=account), Session("rest", account)
    async with conn.transaction():  # one commit for all: thousands of arrivals
        await known(conn, account)
        for told in arrival:
            assert isinstance(told, Fill)
            await (stream if told.trade_id is None else walk).tell(conn, told)
    found = await conn.fetch(
        """
        SELECT f.trade_id, f.stream_ms - $2, f.executed_ms - $2, f.qty::integer, o.fills_qty
        FROM ledger.fills f JOIN ledger.orders o USING (account, symbol, order_id)
        WHERE f.account = $1 AND f.state = 'confirmed' ORDER BY 1
        """,
        account,
        T_MS,
    )
    assert {row[4] for row in found} == {len(found)}
    return [tuple(row)[:4] for row in found]


async def test_an_answer_that_may_not_know_of_the_newest_fill_judges_no_twin(conn: Any) -> None:
    """Two twins of 2, then 3 more; REST trails by a second and tells 4: that is the twins, not the first and the 3."""
    await known(conn)
    stream, reader = Session(), rest()
    for _ in range(2):
        await stream.tell(conn, order("PARTIALLY_FILLED", updated_ms=T_MS), fill(0, "2"))
    await stream.tell(conn, order("FILLED", updated_ms=T_MS + 3000), fill(3000, "3", status="FILLED"))
    for asked_ms in (3400, 3900):
        await reader.tell(conn, order("FILLED"), settled("4"), asked_ms=asked_ms, lag_ms=1000)
    assert await fills_of(conn, "qty") == [(2,), (2,), (3,)]
    for asked_ms in (4000, 5000):
        await reader.tell(conn, order("FILLED"), settled("7"), asked_ms=asked_ms, lag_ms=1000)
    assert await order_of(conn, "executed_qty") == (7,)
    assert await doubts(conn) == []


async def test_an_answer_that_may_not_know_of_the_newest_fill_leaves_the_order_to_be_asked_again(conn: Any) -> None:
    """5 were lost before the start; the stream tells the last 2, and an answer long on its way tells 5."""
    await known(conn)
    reader = rest()
    await Session().tell(conn, order("FILLED", updated_ms=T_MS + 3000), fill(3000, "2", status="FILLED"))
    await reader.tell(conn, order("PARTIALLY_FILLED", executed_qty="5"), asked_ms=3400, lag_ms=1000)
    assert await due_orders(conn, "missing_fills", T_MS + 3000) == [(SYMBOL, ORDER_ID)]
    await reader.tell(conn, order("FILLED", executed_qty="7"), asked_ms=4000, lag_ms=1000)
    assert await order_of(conn, "executed_qty") == (7,)
    assert await due_orders(conn, "missing_fills", T_MS + 9000) == []


async def test_a_self_trade_is_a_fill_of_each_of_its_orders(conn: Any) -> None:
    await known(conn)
    maker, taker = trade(41), trade(41, order_id=ORDER_ID + 1, side="SELL", is_maker=False)
    await rest().tell(conn, maker, taker)
    await rest().tell(conn, taker, maker)
    assert sorted(await fills_of(conn, "order_id, trade_id, side")) == [
        (ORDER_ID, 41, "BUY"),
        (ORDER_ID + 1, 41, "SELL"),
    ]


# --- the same key


async def test_the_same_trade_with_another_price_opens_a_discrepancy_and_the_first_stays(conn: Any) -> None:
    await known(conn)
    await rest().tell(conn, trade(41, price="100"))
    await rest().tell(conn, trade(41, price="99"))
    await rest().tell(conn, trade(41, price="99"))
    assert await fills_of(conn, "trade_id, price") == [(41, 100)]
    assert await doubts(conn) == [("fill_conflict", True)], "told once"


async def test_two_trades_of_one_id_and_other_content_on_one_page_are_a_discrepancy_too(conn: Any) -> None:
    await known(conn)
    await rest().tell(conn, trade(41, qty="1"), trade(41, qty="2"))
    assert await fills_of(conn) == [(41, 1)]
    assert await doubts(conn) == [("fill_conflict", True)]
    assert await order_of(conn, "executed_qty") == (1,)


async def test_a_second_telling_fills_in_what_the_first_left_out(conn: Any) -> None:
    await known(conn)
    await rest().tell(conn, trade(41, fee=None, fee_asset=None, is_maker=None, side=None, quote_qty=None))
    more = await rest().tell(conn, trade(41, quote_qty=Exact("100.5")))
    assert more.fills_new == 0
    assert await fills_of(conn, "fee::text, fee_asset, is_maker, side, quote_qty::text, quote_derived, seq") == [
        ("0.1", "USDT", True, "BUY", "100.5", False, more.last_seq)
    ]
    assert await doubts(conn) == []


async def test_the_time_of_rest_wins_over_the_time_of_the_stream(conn: Any) -> None:
    await known(conn)
    await Session().tell(conn, trade(41, 7))
    await rest().tell(conn, trade(41, 9))
    await Session().tell(conn, trade(41, 7))
    assert await fills_of(conn, "executed_ms % 1000") == [(9,)]
