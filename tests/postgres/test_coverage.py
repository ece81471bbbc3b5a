"""Gaps and coverage: what a reader may take for complete, and what an outage leaves behind."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from msgspec import structs

from ledger.db import coverage, reads
from ledger.db.apply import WalkStep
from ledger.db.coverage import Gap
from ledger.errors import ConfigError
from ledger.facts.types import Doubt, Exact, Fill, Order, Resolution
from tests.histories import (
    ACCOUNT,
    SYMBOL,
    T_MS,
    Session,
    column,
    fill,
    known,
    order,
    read_over_rest,
    rest,
    rows,
    trade,
)
from tests.patience import stretched

COVERED = "SELECT symbol, complete_through_ms - $1 FROM ledger_v1.coverage ORDER BY symbol"
THROUGH = "SELECT complete_through_ms - $1, live FROM ledger_v1.coverage WHERE symbol = '*'"


async def through(conn: Any) -> tuple[Any, ...]:
    """(ms after ``T_MS`` up to which everything is known, live)"""
    (row,) = await rows(conn, THROUGH, T_MS)
    return row


async def outage(conn: Any, until_ms: int, *, cause: str = "lost", **more: Any) -> Gap:
    return await coverage.open_gap(conn, ACCOUNT, cause=cause, until_ms=T_MS + until_ms, **more)


async def lasting(conn: Any, *, cause: str = "lost", not_after_ms: int | None = None) -> Gap:
    return await coverage.open_gap(conn, ACCOUNT, cause=cause, until_ms=None, not_after_ms=not_after_ms, live=False)


async def beat(conn: Any, through_ms: int) -> None:
    """A quiet stream says that it is alive: no frames, only the instant up to which everything is written."""
    await Session().tell_nothing(conn, T_MS + through_ms)


async def test_nothing_is_known_before_the_first_stream(conn: Any) -> None:
    await known(conn)
    assert await through(conn) == (None, False)


async def test_an_account_of_another_venue_is_refused(conn: Any) -> None:
    await known(conn)
    with pytest.raises(ConfigError, match=r"belongs to http://127\.0\.0\.1, not to https://api\.spacedex\.com"):
        await coverage.register(conn, ACCOUNT, rest_origin="https://api.spacedex.com", key_fingerprint="k")


async def test_registering_again_tells_the_key_that_was_used_before(conn: Any) -> None:
    await known(conn)
    await coverage.adopt_key(conn, ACCOUNT, "k2")
    again = await coverage.register(conn, ACCOUNT, rest_origin="http://127.0.0.1", key_fingerprint="k3")
    assert (again.key_fingerprint, again.head_seq) == ("k2", 0)


async def test_the_first_gap_is_from_the_beginning_and_hides_everything_until_it_is_closed(conn: Any) -> None:
    await known(conn)
    gap = await outage(conn, 0, cause="start")
    assert (gap.gap_id, gap.from_ms, gap.until_ms) == (1, None, T_MS)
    await beat(conn, 5000)
    assert await through(conn) == (None, True), "live, and nothing known for sure"
    assert await coverage.close_gap(conn, ACCOUNT, 1, complete_from_ms=None)
    assert await through(conn) == (5000, True)


async def test_a_gap_from_the_beginning_walked_in_part_says_from_where(conn: Any) -> None:
    await known(conn)
    await outage(conn, 0)
    await coverage.close_gap(conn, ACCOUNT, 1, complete_from_ms=T_MS - 7)
    assert await column(conn, "SELECT complete_from_ms - $1 FROM ledger_v1.coverage", T_MS) == [-7]


async def test_a_gap_runs_from_the_last_covered_instant_to_when_the_stream_was_live_again(conn: Any) -> None:
    await running_since_the_beginning(conn)
    await coverage.stream_down(conn, ACCOUNT)
    gap = await outage(conn, 9000)
    assert (gap.from_ms, gap.until_ms) == (T_MS + 1000, T_MS + 9000)


async def test_what_came_after_the_stream_was_last_heard_is_in_doubt(conn: Any) -> None:
    await running_since_the_beginning(conn)
    gap = await outage(conn, 9000, not_after_ms=T_MS + 400)
    assert gap.from_ms == T_MS + 400, "a key may have died before we noticed"


async def test_a_gap_never_begins_after_it_ends(conn: Any) -> None:
    await running_since_the_beginning(conn)
    gap = await outage(conn, 800)
    assert (gap.from_ms, gap.until_ms) == (T_MS + 800, T_MS + 800)


async def test_coverage_never_goes_past_a_hole(conn: Any) -> None:
    await running_since_the_beginning(conn)
    for until_ms in (9000, 19_000):
        await coverage.stream_down(conn, ACCOUNT)
        await outage(conn, until_ms)
        await beat(conn, until_ms + 1000)
    assert await through(conn) == (1000, True), "the older hole"
    await coverage.close_gap(conn, ACCOUNT, 2, complete_from_ms=None)
    assert await through(conn) == (10_000, True), "the younger one"
    await coverage.close_gap(conn, ACCOUNT, 3, complete_from_ms=None)
    assert await through(conn) == (20_000, True)


async def test_closing_the_younger_of_two_holes_does_not_bridge_the_older(conn: Any) -> None:
    await running_since_the_beginning(conn)
    for until_ms in (9000, 19_000):
        await outage(conn, until_ms)
    await coverage.close_gap(conn, ACCOUNT, 3, complete_from_ms=None)
    assert (await through(conn))[0] == 1000


async def test_coverage_never_moves_back(conn: Any) -> None:
    await running_since_the_beginning(conn)
    await beat(conn, 600)
    assert await through(conn) == (1000, True)


async def test_a_stream_that_is_down_is_not_live_and_claims_no_more_time(conn: Any) -> None:
    await running_since_the_beginning(conn)
    assert await through(conn) == (1000, True)
    await coverage.stream_down(conn, ACCOUNT)
    assert await through(conn) == (1000, False)


async def test_live_turns_false_by_itself_three_seconds_after_the_last_beat(conn: Any) -> None:
    """A killed service cannot say that it is gone."""
    await running_since_the_beginning(conn)
    for seconds, live in ((2, True), (3, False)):
        await conn.execute(
            "UPDATE ledger.coverage SET beat_at = clock_timestamp() - make_interval(secs => $1)", seconds
        )
        assert (await through(conn))[1] is live


async def test_a_gap_opened_while_no_stream_is_up_does_not_make_it_live(conn: Any) -> None:
    await known(conn)
    await outage(conn, 0, live=False)
    assert (await through(conn))[1] is False


async def test_a_batch_of_frames_beats_too(conn: Any) -> None:
    await running_since_the_beginning(conn)
    await read_over_rest(conn, SYMBOL)
    await Session().tell(conn, order("NEW"), through_ms=T_MS + 3000)
    assert await through(conn) == (3000, True)


async def test_of_all_markets_nothing_is_claimed_while_one_that_the_stream_named_was_never_read(conn: Any) -> None:
    """It may have had orders before anybody named it."""
    await running_since_the_beginning(conn)
    await read_over_rest(conn, "ETHUSDT")
    await Session().tell(conn, order("NEW"), through_ms=T_MS + 3000)
    assert await reads.unread_markets(conn, ACCOUNT) == [SYMBOL]
    assert await rows(conn, COVERED, T_MS) == [("*", None), ("ETHUSDT", 3000)]

    read = WalkStep(None, SYMBOL, "allOrders", 0, None, T_MS + 3000, True, 1, covers=0)
    await rest().tell(conn, order("NEW"), walk=read)
    assert await reads.unread_markets(conn, ACCOUNT) == []
    assert await rows(conn, COVERED, T_MS) == [("*", 3000), (SYMBOL, 3000), ("ETHUSDT", 3000)]


@pytest.mark.parametrize("kind", ["symbol_refused", "history_unreachable"])
async def test_a_market_whose_history_is_refused_is_known_as_far_as_its_discrepancy_says(conn: Any, kind: str) -> None:
    await running_since_the_beginning(conn)
    await Session().tell(conn, order("NEW"), through_ms=T_MS + 3000)
    await rest().tell(conn, Doubt(kind, SYMBOL, None, "no", symbol=SYMBOL, uncovered_from_ms=T_MS - 10))
    assert await rows(conn, COVERED, T_MS) == [("*", -10)]
    await rest().tell(conn, Resolution(1, "accepted, says ada: too old to matter"))
    assert await rows(conn, COVERED, T_MS) == [("*", 3000)]


async def test_closing_twice_is_told_and_harmless(conn: Any) -> None:
    await known(conn)
    await outage(conn, 0)
    assert await coverage.close_gap(conn, ACCOUNT, 1, complete_from_ms=None)
    closed_at = await column(conn, "SELECT closed_at FROM ledger_v1.gaps")
    assert not await coverage.close_gap(conn, ACCOUNT, 1, complete_from_ms=5)
    assert await column(conn, "SELECT closed_at FROM ledger_v1.gaps") == closed_at
    assert await column(conn, "SELECT complete_from_ms FROM ledger_v1.coverage") == [None]


async def test_a_gap_counts_what_its_walk_found_and_nothing_else(conn: Any) -> None:
    await known(conn)
    gap = await outage(conn, 0)
    walk = rest()
    await Session().tell(conn, fill(), order("PARTIALLY_FILLED"))
    await walk.tell(conn, trade(1), trade(2, 9, qty="2"), gap_id=gap.gap_id)
    await walk.tell(conn, order("FILLED", executed_qty="3"), gap_id=gap.gap_id)
    await walk.tell(conn, order("FILLED", executed_qty="3"), trade(2, 9, qty="2"), gap_id=gap.gap_id)
    assert await rows(conn, "SELECT fills_found, orders_changed FROM ledger_v1.gaps") == [(1, 2)]


async def test_open_gaps_are_told_oldest_first(conn: Any) -> None:
    await known(conn)
    for until_ms in (1, 2, 3):
        await outage(conn, until_ms, cause=f"c{until_ms}")
    await coverage.close_gap(conn, ACCOUNT, 2, complete_from_ms=None)
    assert [(gap.gap_id, gap.cause) for gap in await coverage.open_gaps(conn, ACCOUNT)] == [(1, "c1"), (3, "c3")]


async def test_gaps_and_frames_wake_those_who_listen(conn: Any) -> None:
    await known(conn)
    heard: asyncio.Queue[tuple[str, str]] = asyncio.Queue()

    def note(_: object, __: int, channel: str, payload: str) -> None:
        heard.put_nowait((channel, payload))

    for channel in ("ledger_gaps", "ledger_changed"):
        await conn.add_listener(channel, note)
    try:
        await outage(conn, 0)
        await Session().tell(conn, order("NEW"))
        async with asyncio.timeout(stretched(10)):
            assert [await heard.get(), await heard.get()] == [("ledger_gaps", "main:1"), ("ledger_changed", "main:1")]
    finally:
        for channel in ("ledger_gaps", "ledger_changed"):
            await conn.remove_listener(channel, note)


async def running_since_the_beginning(conn: Any) -> None:
    """Live, with everything known up to 1000 ms after ``T_MS``."""
    await known(conn)
    await outage(conn, 0, cause="start")
    await coverage.close_gap(conn, ACCOUNT, 1, complete_from_ms=None)
    await beat(conn, 1000)


async def test_a_stream_that_is_behind_is_live_and_covers_nothing_more(conn: Any) -> None:
    await known(conn)
    await outage(conn, 0, cause="start")
    await coverage.close_gap(conn, ACCOUNT, 1, complete_from_ms=None)
    await beat(conn, 5000)
    await conn.execute("UPDATE ledger.coverage SET beat_at = beat_at - interval '1 minute'")
    assert await through(conn) == (5000, False)
    await Session().tell_nothing(conn, 0)
    assert await through(conn) == (5000, True)


async def test_coverage_of_a_market_and_of_all_ends_where_something_was_set_aside(conn: Any) -> None:
    await running_since_the_beginning(conn)
    await conn.execute("INSERT INTO ledger.coverage (account, symbol) VALUES ($1, 'BTCUSDT'), ($1, 'ETHUSDT')", ACCOUNT)
    row = Doubt("rest_row", "allOrders row 3", None, "odd", symbol="BTCUSDT", uncovered_from_ms=T_MS - 10)
    await rest().tell(conn, row)
    ends = "SELECT symbol, complete_through_ms - $1 FROM ledger_v1.coverage ORDER BY symbol"
    before = dict(await rows(conn, ends, T_MS))
    assert before["*"] == before["BTCUSDT"] == -10
    assert before["ETHUSDT"] > -10, "another market is not touched"

    await rest().tell(conn, Resolution(1, "read since"))
    assert set(dict(await rows(conn, ends, T_MS)).values()) == {before["ETHUSDT"]}


async def test_a_hole_that_was_filled_opens_again_when_it_is_told_again_and_a_decision_of_a_person_stands(
    conn: Any,
) -> None:
    await running_since_the_beginning(conn)
    row = Doubt("rest_row", "allOrders BTCUSDT/7", None, "odd", symbol="BTCUSDT", uncovered_from_ms=T_MS - 10)
    state = "SELECT resolution, uncovered_from_ms - $1 FROM ledger_v1.discrepancies"
    await rest().tell(conn, row)
    await rest().tell(conn, Resolution(1, "the venue told of the order"))
    await rest().tell(conn, structs.replace(row, uncovered_from_ms=T_MS))
    assert await rows(conn, state, T_MS) == [(None, 0)]
    await rest().tell(conn, structs.replace(row, uncovered_from_ms=T_MS - 5))
    assert await rows(conn, state, T_MS) == [(None, -5)], "the longer hole counts"

    await rest().tell(conn, Resolution(1, "accepted, says ada: too old to matter"))
    await rest().tell(conn, row)
    assert await rows(conn, state, T_MS) == [("accepted, says ada: too old to matter", -5)]


async def test_rows_set_aside_are_no_holes_any_more_once_the_order_and_the_trade_are_read(conn: Any) -> None:
    await running_since_the_beginning(conn)
    for subject, trade_id in (("allOrders BTCUSDT/7", None), ("myTrades BTCUSDT/7/9", 9)):
        hole = Doubt(
            "rest_row", subject, None, "odd", symbol="BTCUSDT", order_id=7, trade_id=trade_id, uncovered_from_ms=0
        )
        await rest().tell(conn, hole)
    still = "SELECT trade_id FROM ledger_v1.discrepancies WHERE resolved_at IS NULL ORDER BY 1"
    await rest().tell(conn, Order("BTCUSDT", 7, status="NEW"))
    assert await rows(conn, still) == [(9,)]
    await rest().tell(conn, Fill("BTCUSDT", 7, "BUY", Exact("1"), Exact("1"), T_MS, trade_id=9))
    assert await rows(conn, still) == []


async def test_where_not_even_the_market_is_known_every_market_ends_there(conn: Any) -> None:
    await running_since_the_beginning(conn)
    await conn.execute("INSERT INTO ledger.coverage (account, symbol) VALUES ($1, 'BTCUSDT')", ACCOUNT)
    await rest().tell(conn, Doubt("quarantined", "frame 3", None, "odd", uncovered_from_ms=0))
    assert await column(conn, "SELECT complete_through_ms FROM ledger_v1.coverage") == [None, None]


async def time_passes(conn: Any, seconds: float) -> None:
    """The database's own clock goes on by so much since the mark moved last."""
    await conn.execute("UPDATE ledger.coverage SET through_at = through_at - make_interval(secs => $1)", seconds)


MARK = "SELECT live_through_ms - $1 FROM ledger.coverage WHERE symbol = '*'"


@pytest.mark.parametrize("ahead_ms", [7_200_000, 250_000_000_000_000])
async def test_a_mark_that_ran_ahead_starts_the_gap_where_the_databases_clock_vouches(conn: Any, ahead_ms: int) -> None:
    await running_since_the_beginning(conn)
    await beat(conn, ahead_ms)
    await time_passes(conn, 3600)
    gap = await outage(conn, 3_602_000, now_ms=T_MS + 3_602_000, trail_ms=1000)
    assert gap.from_ms is not None
    assert 0 <= gap.from_ms - T_MS <= 1000
    assert await column(conn, MARK, T_MS) == [gap.until_ms - T_MS], "and the mark goes back"


async def test_a_mark_that_agrees_with_the_databases_clock_stays_as_it_is(conn: Any) -> None:
    await running_since_the_beginning(conn)
    await time_passes(conn, 3600)
    gap = await outage(conn, 3_602_000, now_ms=T_MS + 3_602_000, trail_ms=1000)
    assert gap.from_ms == T_MS + 1000


async def test_a_clock_that_is_ahead_moves_no_mark_further_than_time_has_passed(conn: Any) -> None:
    """As when somebody asks for a pass on a machine whose clock is wrong."""
    await running_since_the_beginning(conn)
    await time_passes(conn, 10)
    await outage(conn, 7_200_000, now_ms=T_MS + 7_200_000, trail_ms=1000, live=False)
    (mark_ms,) = await column(conn, MARK, T_MS)
    assert 11_000 <= mark_ms <= 15_000


async def test_an_outage_that_goes_on_is_one_row_with_no_end_whoever_asks(conn: Any) -> None:
    await known(conn)
    first = await outage(conn, 0, cause="start")
    await coverage.close_gap(conn, ACCOUNT, first.gap_id, complete_from_ms=None)
    await beat(conn, 5000)

    gap = await lasting(conn, cause="lost")
    assert (gap.gap_id, gap.from_ms, gap.until_ms, gap.is_new) == (2, T_MS + 5000, None, True)
    again = await lasting(conn, cause="start", not_after_ms=T_MS + 4000)
    assert (again.gap_id, again.from_ms, again.is_new) == (2, T_MS + 4000, False), "a restart goes on with it"
    assert [(one.gap_id, one.until_ms) for one in await coverage.open_gaps(conn, ACCOUNT)] == [(2, None)]
    row = await conn.fetchrow("SELECT live, complete_through_ms FROM ledger_v1.coverage WHERE symbol = '*'")
    assert tuple(row) == (False, T_MS + 4000)

    ended = await outage(conn, 9000, cause="start", not_after_ms=T_MS + 4500)
    assert (ended.gap_id, ended.from_ms, ended.until_ms, ended.is_new) == (2, T_MS + 4000, T_MS + 9000, False)
    (kept,) = await conn.fetch("SELECT cause, from_ms, until_ms FROM ledger_v1.gaps WHERE closed_at IS NULL")
    assert tuple(kept) == ("lost", T_MS + 4000, T_MS + 9000)
    assert (await lasting(conn)).gap_id == 3, "the next outage has a row of its own"


async def test_an_outage_from_the_beginning_has_no_start_whatever_is_learnt_later(conn: Any) -> None:
    await known(conn)
    assert (await lasting(conn, cause="start")).from_ms is None
    assert (await outage(conn, 9000, not_after_ms=T_MS + 4000)).from_ms is None


async def test_a_walk_that_somebody_asks_for_ends_the_outage_s_row_and_what_goes_on_gets_another(conn: Any) -> None:
    await known(conn)
    first = await outage(conn, 0, cause="start")
    await coverage.close_gap(conn, ACCOUNT, first.gap_id, complete_from_ms=None)
    lost = await lasting(conn)
    asked = await outage(conn, 3000, cause=coverage.ASKED_FOR, live=False)
    assert (asked.gap_id, asked.until_ms) == (lost.gap_id, T_MS + 3000)
    assert not await conn.fetchval("SELECT live FROM ledger_v1.coverage WHERE symbol = '*'")
    rest = await lasting(conn)
    assert (rest.gap_id, rest.from_ms) == (lost.gap_id + 1, T_MS + 3000)
