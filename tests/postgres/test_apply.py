"""The journal and the orders: what is written, in which order, and what a merge never takes back."""

from __future__ import annotations

import asyncio
from decimal import Decimal, localcontext
from itertools import permutations
from typing import Any

import asyncpg
import pytest

from ledger.db import apply, refusals
from ledger.facts.types import Doubt, Exact, Transfer
from ledger.wire import postgres
from tests.histories import (
    ACCOUNT,
    ORDER_ID,
    SYMBOL,
    T_MS,
    Session,
    column,
    doubts,
    fill,
    fills_of,
    head_seq,
    held,
    known,
    order,
    order_of,
    rest,
    rows,
    settled,
    snapshot,
    trade,
)

FORTY_DIGITS = "1234567890123456789012345678901234567890"
SMALL = "0.0000000000000000000000000000000000000001"

# --- the journal


async def test_frames_are_kept_byte_for_byte_and_numbered_from_one(conn: Any) -> None:
    await known(conn)
    session = Session()
    raws = [b'{"e":"a"}', b"\x00\xff not json", b""]
    batch = session.batch(*(session.entry(raw=raw, kind="told") for raw in raws))
    applied = await apply.apply(conn, batch)
    assert (applied.first_seq, applied.last_seq) == (1, 3)
    assert await rows(conn, "SELECT seq, frame_no, raw FROM ledger_v1.journal ORDER BY seq") == [
        (1, 1, raws[0]),
        (2, 2, raws[1]),
        (3, 3, raws[2]),
    ]


async def test_an_account_nobody_registered_is_refused(conn: Any) -> None:
    with pytest.raises(asyncpg.NoDataFoundError, match="account main is not registered"):
        await Session().tell(conn, order("NEW"))


async def test_sending_a_batch_again_after_its_answer_was_lost_changes_nothing(conn: Any) -> None:
    await known(conn)
    session = Session()
    batch = session.batch(
        session.entry(order("PARTIALLY_FILLED"), fill(), fill()),
        session.entry(held("BTC", "1")),
        session.entry(Transfer("USDT", Exact("5"), "deposit", T_MS)),
    )
    first = await apply.apply(conn, batch)
    before = await everything(conn)
    again = await apply.apply(conn, batch)
    assert (again.first_seq, again.last_seq, again.repeated) == (first.first_seq, first.last_seq, True) == (1, 3, True)
    assert (again.fills_new, again.orders_changed, again.others_changed) == (0, 0, 0)
    assert await everything(conn) == before
    assert await head_seq(conn) == 3


async def test_a_batch_sent_again_later_still_answers_its_own_numbers(conn: Any) -> None:
    await known(conn)
    session, other = Session(), Session()
    batch = session.batch(session.entry(order("NEW")), session.entry(order("NEW")))
    await apply.apply(conn, batch)
    await other.tell(conn, fill())
    again = await apply.apply(conn, batch)
    assert (again.first_seq, again.last_seq) == (1, 2)


@pytest.mark.parametrize(("first", "size"), [(2, 1), (1, 3), (3, 2), (1, 5), (2, 2), (4, 2)])
async def test_no_frame_of_a_session_is_written_twice_whatever_call_it_comes_in(
    conn: Any, first: int, size: int
) -> None:
    """Written are the frames 2 and 3 in one call, and 4 in another. A call that begins as one of them, and is
    no longer, is that one; a longer one holds a frame that would be lost."""
    await known(conn)
    session = Session(frame_no=1)
    await apply.apply(conn, session.batch(session.entry(order("NEW")), session.entry(fill())))
    await apply.apply(conn, session.batch(session.entry(held("BTC", "1"))))
    before = await everything(conn)
    session.frame_no = first - 1
    batch = session.batch(*(session.entry(held("ETH", "1")) for _ in range(size)))
    if first == 2:
        assert (await apply.apply(conn, batch)).repeated
    else:
        with pytest.raises(asyncpg.PostgresError, match="in the journal, got") as refused:
            await apply.apply(conn, batch)
        assert refused.value.sqlstate == refusals.FRAMES_OVERLAP
        assert not postgres.is_refusal(refused.value), "a mistake of the caller, no content"
    assert await everything(conn) == before


async def test_a_rest_answer_like_the_last_one_that_changes_nothing_is_not_kept(conn: Any) -> None:
    await known(conn)
    reader = rest()
    ask: dict[str, Any] = {"question": "GET /api/v1/openOrders"}
    first = await reader.tell(conn, order("NEW", executed_qty="0"), **ask)
    again = await reader.tell(conn, order("NEW", executed_qty="0"), **ask)
    assert (first.first_seq, again.first_seq, again.last_seq) == (1, None, None)
    assert await column(conn, "SELECT seq FROM ledger_v1.journal") == [1]
    other = await reader.tell(conn, order("NEW", executed_qty="0"), question="GET /api/v1/allOrders")
    assert other.first_seq == 2, "another question's answer is evidence of its own"


async def test_a_rest_answer_like_the_last_one_is_kept_when_it_changes_something(conn: Any) -> None:
    await known(conn)
    reader = rest()
    ask: dict[str, Any] = {"question": "GET /api/v1/account"}
    await reader.tell(conn, snapshot(held("BTC", "1"), at_ms=5), **ask)
    await Session().tell(conn, held("BTC", "2", at_ms=3))
    assert (await reader.tell(conn, snapshot(held("BTC", "1"), at_ms=5), **ask)).first_seq is None
    await Session().tell(conn, held("BTC", "2", at_ms=9))
    assert (await reader.tell(conn, snapshot(held("BTC", "1"), at_ms=5), **ask)).first_seq == 4, "it is a vote now"


async def test_an_order_that_lost_fills_does_not_make_equal_answers_worth_keeping(conn: Any) -> None:
    await known(conn)
    reader = rest()
    told = [await reader.tell(conn, order("FILLED", executed_qty="2"), question="GET order") for _ in range(3)]
    assert [one.first_seq for one in told] == [1, None, None]


async def test_four_writers_at_once_number_the_journal_without_a_hole_in_commit_order(
    database_url: str, conn: Any
) -> None:
    await known(conn)

    async def write(number: int) -> list[int]:
        own = await postgres.connect(database_url, application="tests")
        session, seqs = Session(), []
        try:
            for step in range(40):
                # All writers tell the same fills, and each its own order.
                told = (fill(step), order("NEW", 1000 * number + step), held("BTC", str(step), at_ms=step))
                applied = await session.tell(own, *told)
                assert applied.first_seq is not None
                seqs.append(applied.first_seq)
        finally:
            await own.close()
        return seqs

    written = await asyncio.gather(*(write(number) for number in range(1, 5)))
    assert sorted(seq for seqs in written for seq in seqs) == list(range(1, 161))
    assert all(seqs == sorted(seqs) for seqs in written)
    assert await column(conn, "SELECT seq FROM ledger_v1.journal ORDER BY seq") == list(range(1, 161))
    assert len(await fills_of(conn)) == 40
    assert await order_of(conn, "executed_qty") == (40,)
    assert await rows(conn, "SELECT free FROM ledger_v1.balances") == [(39,)]


async def test_numbers_of_two_accounts_do_not_mix(conn: Any) -> None:
    await known(conn)
    await known(conn, "other")
    ours, theirs = Session(), Session(account="other")
    await ours.tell(conn, fill(), order("NEW"))
    assert (await theirs.tell(conn, fill(), fill(1))).first_seq == 1
    assert [len(await fills_of(conn, account=name)) for name in ("main", "other")] == [1, 2]


async def test_a_frame_with_a_problem_is_kept_and_counted(conn: Any) -> None:
    await known(conn)
    session = Session()
    good, bad = session.entry(order("NEW")), session.entry(raw=b"<html>", problem="not JSON")
    await apply.apply(conn, session.batch(good, bad))
    await rest().tell(conn, Doubt("rest_row", "GET /x row 0", None, "no id"))
    assert await rows(conn, "SELECT seq, problem FROM ledger_v1.journal WHERE problem IS NOT NULL") == [(2, "not JSON")]
    assert await rows(conn, "SELECT stream_frames, unreadable_frames FROM ledger.accounts") == [(2, 1)]


@pytest.mark.parametrize("nonsense", ["NaN", "Infinity", "-1", "0"])
async def test_a_quantity_no_venue_can_mean_is_refused_and_its_frame_kept(conn: Any, nonsense: str) -> None:
    """The edge refuses these; should one get through, it costs its own frame and no other."""
    await known(conn)
    session = Session()
    batch = session.batch(
        session.entry(order("NEW"), fill(1)), session.entry(fill(2, qty=nonsense)), session.entry(fill(3))
    )
    with pytest.raises(asyncpg.PostgresError) as refused:
        await apply.apply(conn, batch)
    assert postgres.is_refusal(refused.value)
    assert await head_seq(conn) == 0, "nothing of the batch was written"
    for single in batch.split():
        try:
            await apply.apply(conn, single)
        except asyncpg.PostgresError as error:
            await apply.apply(conn, single.without_facts(f"refused by the database: {error}"))
    assert await rows(conn, "SELECT seq, frame_no, problem IS NULL FROM ledger_v1.journal ORDER BY seq") == [
        (1, 1, True),
        (2, 2, False),
        (3, 3, True),
    ]
    assert await fills_of(conn, "executed_ms % 1000") == [(1,), (3,)]
    assert await column(conn, "SELECT unreadable_frames FROM ledger.accounts") == [1]


async def test_a_batch_split_into_frames_keeps_the_ordinals_it_was_counted_with(conn: Any) -> None:
    await known(conn)
    session = Session()
    whole = session.batch(session.entry(fill()), session.entry(fill()), session.entry(snapshot(held("BTC", "1"))))
    assert [row.split(",")[6] for row in whole.fills] == ["1", "2"]
    for single in reversed(whole.split()):
        await apply.apply(conn, single)
    assert await column(conn, "SELECT stream_ordinal FROM ledger.fills ORDER BY stream_ordinal") == [1, 2]
    assert await column(conn, "SELECT asset FROM ledger_v1.balances") == ["BTC"]


async def test_a_transfer_told_by_two_sockets_is_one(conn: Any) -> None:
    await known(conn)
    deposit = Transfer("USDT", Exact("5.0"), "deposit", T_MS)
    await Session().tell(conn, deposit)
    await Session().tell(conn, deposit, Transfer("USDT", Exact("-5.0"), "withdrawal", T_MS))
    assert await rows(conn, "SELECT amount, kind, source, seq FROM ledger_v1.transfers ORDER BY seq") == [
        (5, "deposit", "stream", 1),
        (-5, "withdrawal", "stream", 2),
    ]


async def test_equal_movements_of_one_millisecond_are_as_many_as_one_session_tells(conn: Any) -> None:
    await known(conn)
    credit = Transfer("BNB", Exact("0.00001202"), "deposit", T_MS)
    socket, other = Session(), Session()
    await socket.tell(conn, credit)
    await socket.tell(conn, Transfer("BNB", Exact("0.000012020"), "deposit", T_MS))
    await other.tell(conn, credit, credit)
    await Session().tell(conn, credit)
    assert await rows(conn, "SELECT amount, at_ms, seq FROM ledger_v1.transfers ORDER BY seq") == [
        (Decimal("0.00001202"), T_MS, 1),
        (Decimal("0.00001202"), T_MS, 2),
    ]
    await other.tell(conn, credit)
    assert await conn.fetchval("SELECT count(*) FROM ledger_v1.transfers") == 3


async def test_forty_digits_on_either_side_of_the_point_survive_digit_for_digit(conn: Any) -> None:
    await known(conn)
    await Session().tell(
        conn,
        trade(1, qty=FORTY_DIGITS, price=SMALL, quote_qty=None, fee=Exact(f"-{SMALL}")),
        order("NEW", orig_qty=FORTY_DIGITS, price="0.10"),
        held("BTC", f"{FORTY_DIGITS}.00", SMALL),
        Transfer("BTC", Exact(f"-{FORTY_DIGITS}"), "withdrawal", T_MS),
    )
    assert await fills_of(conn, "qty::text, price::text, fee::text, quote_qty::text") == [
        (FORTY_DIGITS, SMALL, f"-{SMALL}", f"0.{FORTY_DIGITS}")
    ]
    assert await order_of(conn, "orig_qty::text, price::text, executed_qty::text") == (
        FORTY_DIGITS,
        "0.10",
        FORTY_DIGITS,
    )
    total = f"{FORTY_DIGITS}.{SMALL[2:]}"
    assert await rows(conn, "SELECT total::text FROM ledger_v1.balances") == [(total,)]
    assert await rows(conn, "SELECT amount::text FROM ledger_v1.transfers") == [(f"-{FORTY_DIGITS}",)]


# --- orders


async def test_an_order_known_from_a_trade_only_tells_its_side_and_nothing_else(conn: Any) -> None:
    await known(conn)
    await rest().tell(conn, trade(1, side="SELL"))
    assert await order_of(conn, "side, status, type, price, orig_qty, executed_qty, updated_ms") == (
        "SELL",
        None,
        None,
        None,
        None,
        1,
        None,
    )


@pytest.mark.parametrize("end", ["FILLED", "CANCELED", "EXPIRED", "EXPIRED_IN_MATCH", "REJECTED"])
async def test_what_is_over_never_opens_again_whatever_the_clocks_say(conn: Any, end: str) -> None:
    await known(conn)
    await Session().tell(conn, order(end, updated_ms=T_MS))
    await Session().tell(conn, order("NEW", updated_ms=T_MS + 9))
    await rest().tell(conn, order("PARTIALLY_FILLED", updated_ms=T_MS + 99, executed_qty="1"))
    await Session().tell(conn, order("SOMETHING_NEW", updated_ms=T_MS + 999))
    assert await order_of(conn, "status, updated_ms") == (end, T_MS + 999)
    assert await doubts(conn) == []


async def test_statuses_end_the_same_in_every_order_of_arrival(conn: Any) -> None:
    told = [
        order("NEW", updated_ms=T_MS, executed_qty="0"),
        order("PARTIALLY_FILLED", updated_ms=T_MS + 1, executed_qty="1"),
        order("PARTIALLY_FILLED", updated_ms=T_MS + 2, executed_qty="2"),
        order("CANCELED", updated_ms=T_MS + 1, executed_qty="3"),
        order("PENDING_CANCEL", updated_ms=T_MS + 9),
    ]
    for number, arrival in enumerate(permutations(told)):
        account = await known(conn, f"a{number}")
        session = Session(account=account)
        # Half of them in one call, half one by one.
        await session.tell(conn, *arrival[:3])
        for one in arrival[3:]:
            await session.tell(conn, one)
    found = await rows(conn, "SELECT DISTINCT status, executed_qty, updated_ms FROM ledger_v1.orders")
    assert found == [("CANCELED", 3, T_MS + 9)]


async def test_a_late_fill_on_a_canceled_order_is_money_and_counts(conn: Any) -> None:
    await known(conn)
    await Session().tell(conn, order("CANCELED", executed_qty="1", orig_qty="5"), fill(qty="1"))
    late = await Session().tell(conn, fill(2, qty="0.5"))
    assert late.fills_new == 1
    assert await order_of(conn, "status, executed_qty, seq") == ("CANCELED", Decimal("1.5"), late.last_seq)


@pytest.mark.parametrize(("said", "counts"), [("5", 5), ("3", 3), ("2", 3), (None, 3)])
async def test_the_executed_quantity_is_the_larger_of_what_was_said_and_what_was_filled(
    conn: Any, said: str | None, counts: int
) -> None:
    await known(conn)
    await Session().tell(conn, order("PARTIALLY_FILLED", executed_qty=said), fill(1, qty="1"), fill(2, qty="2"))
    assert await order_of(conn, "executed_qty") == (counts,)


async def test_the_executed_total_is_the_venues_else_that_of_complete_fills_else_unknown(conn: Any) -> None:
    await known(conn)
    await Session().tell(
        conn,
        order("FILLED", 1, executed_qty="2", executed_quote="201"),
        order("FILLED", 2, executed_qty="2"),
        fill(order_id=2, qty="2", price="100"),
        order("FILLED", 3, executed_qty="2"),
        fill(order_id=3, qty="1", price="100"),
        fill(order_id=4, qty="1", price="100"),
    )
    assert await rows(conn, "SELECT order_id, executed_quote FROM ledger_v1.orders ORDER BY order_id") == [
        (1, 201),
        (2, 200),
        (3, None),
        (4, None),
    ]


async def test_what_the_venue_executed_and_no_fill_tells_is_missing_until_it_comes(conn: Any) -> None:
    await known(conn)
    missing = "SELECT missing_qty, missing_quote, average_price FROM ledger_v1.missing_executions"
    await rest().tell(conn, order("FILLED", executed_qty="3", executed_quote="301"))
    await Session().tell(conn, fill(qty="1", price="100"))
    assert await rows(conn, missing) == [(2, 201, Decimal("100.5"))]
    await rest().tell(conn, trade(7, 9, qty="2", price="100.5"))
    assert await rows(conn, missing) == []


@pytest.mark.parametrize(
    ("qty", "quote"),
    [
        ("2000000000", "0.00002397426713"),
        ("7", "1"),
        ("0.00003", "64000.1"),
        ("300000000000", "0.00000001"),
        ("3", "0"),
    ],
)
async def test_an_average_price_has_eighteen_significant_digits_however_small_it_is(
    conn: Any, qty: str, quote: str
) -> None:
    await known(conn)
    await rest().tell(conn, order("FILLED", executed_qty=qty, executed_quote=quote))
    price = await conn.fetchval("SELECT average_price FROM ledger_v1.missing_executions")
    with localcontext(prec=100):
        exact = Decimal(quote) / Decimal(qty)
        assert abs(price - exact) <= exact.scaleb(-17) / 2
        assert abs(price - exact) <= Decimal("5e-19")


async def test_without_a_total_of_the_venue_only_the_missing_quantity_is_known(conn: Any) -> None:
    await known(conn)
    await rest().tell(conn, order("FILLED", executed_qty="3"))
    missing = await rows(conn, "SELECT missing_qty, missing_quote, average_price FROM ledger_v1.missing_executions")
    assert missing == [(3, None, None)]


async def test_the_same_order_id_on_two_symbols_is_two_orders(conn: Any) -> None:
    await known(conn)
    await Session().tell(conn, order("NEW", symbol="BTCUSDT"), order("FILLED", symbol="ETHUSDT"))
    await Session().tell(conn, fill(symbol="ETHUSDT", qty="2"))
    found = await rows(conn, "SELECT symbol, status, executed_qty FROM ledger_v1.orders ORDER BY symbol")
    assert found == [("BTCUSDT", "NEW", 0), ("ETHUSDT", "FILLED", 2)]


async def test_describing_fields_are_filled_in_and_another_value_is_a_discrepancy(conn: Any) -> None:
    await known(conn)
    await Session().tell(conn, order("NEW", side="BUY"))
    await rest().tell(conn, order("NEW", price="100", orig_qty="2", type="LIMIT", client_order_id="a"))
    await rest().tell(conn, order("NEW", price="100.00", orig_qty="3", side="SELL"))
    assert await order_of(conn, "side, price, orig_qty, type, client_order_id") == ("BUY", 100, 2, "LIMIT", "a")
    assert await rows(conn, "SELECT kind, subject FROM ledger_v1.discrepancies") == [
        ("order_conflict", f"{SYMBOL}/{ORDER_ID}/side, orig_qty")
    ]


async def test_two_values_in_one_call_are_a_discrepancy_too(conn: Any) -> None:
    await known(conn)
    await Session().tell(conn, order("NEW", type="LIMIT"), order("NEW", type="MARKET"))
    assert await doubts(conn) == [("order_conflict", True)]


# --- two ends


async def test_get_order_decides_between_two_ends_and_settles_the_discrepancy(conn: Any) -> None:
    await known(conn)
    await Session().tell(conn, order("CANCELED", updated_ms=T_MS + 9))
    await rest().tell(conn, order("EXPIRED", updated_ms=T_MS))
    assert await doubts(conn) == [("terminal_conflict", True)]
    told = await rest().tell(conn, order("EXPIRED", updated_ms=T_MS, decides=True))
    assert await order_of(conn, "status") == ("EXPIRED",)
    assert await rows(conn, "SELECT resolution, seq FROM ledger_v1.discrepancies WHERE resolved_at IS NOT NULL") == [
        ("GET order says EXPIRED", told.last_seq)
    ]
    await Session().tell(conn, order("CANCELED", updated_ms=T_MS + 99, executed_qty="9"))
    assert await order_of(conn, "status") == ("EXPIRED",), "decided is decided"


async def test_an_end_told_after_get_order_decided_otherwise_leaves_nothing_open(conn: Any) -> None:
    await known(conn)
    await rest().tell(conn, order("EXPIRED", decides=True))
    await Session().tell(conn, order("CANCELED", updated_ms=T_MS + 9))
    assert await order_of(conn, "status") == ("EXPIRED",)
    assert await doubts(conn) == [("terminal_conflict", False)], "told, and already decided"


async def test_an_open_order_told_by_get_order_decides_nothing(conn: Any) -> None:
    await known(conn)
    await rest().tell(conn, order("NEW", decides=True, updated_ms=T_MS + 9))
    await Session().tell(conn, order("FILLED", updated_ms=T_MS))
    assert await order_of(conn, "status") == ("FILLED",)


async def test_two_ends_told_in_one_call_are_a_discrepancy(conn: Any) -> None:
    await known(conn)
    await Session().tell(conn, order("FILLED"), order("CANCELED"))
    assert await doubts(conn) == [("terminal_conflict", True)]


async def test_a_doubt_is_opened_once_per_content(conn: Any) -> None:
    await known(conn)
    doubt = Doubt("rest_row", "GET /api/v1/myTrades row 3", None, "field qty: got 'NaN'")
    await rest().tell(conn, doubt)
    await rest().tell(conn, doubt, Doubt("rest_row", "GET /api/v1/myTrades row 4", None, "field qty: got 'NaN'"))
    found = await rows(conn, "SELECT discrepancy_id, subject, evidence_seq FROM ledger_v1.discrepancies ORDER BY 1")
    assert found == [(1, "GET /api/v1/myTrades row 3", 1), (2, "GET /api/v1/myTrades row 4", 2)]


# --- readers that follow


VIEWS = {
    "orders": "symbol, order_id",
    "fills": "fill_id",
    "balances": "asset",
    "balance_history": "asset, as_of_ms, free, locked",
    "transfers": "asset, at_ms, kind, amount",
    "discrepancies": "discrepancy_id",
    "journal": "seq",
}


async def test_reading_each_view_from_the_last_seq_on_misses_no_change(conn: Any) -> None:
    await known(conn)
    stream, other, walk = Session(), Session(), rest()
    steps: list[tuple[Session, tuple[Any, ...]]] = [
        (stream, (order("NEW", side="BUY"), held("USDT", "10", "5", at_ms=1))),
        (stream, (order("PARTIALLY_FILLED"), fill(1), held("USDT", "9", "4", at_ms=2))),
        (stream, (order("PARTIALLY_FILLED"), fill(1), Transfer("BTC", Exact("1"), "deposit", T_MS))),
        (other, (fill(1), held("USDT", "9", "4", at_ms=2))),
        (walk, (trade(7, 3, side=None), order("PARTIALLY_FILLED", orig_qty="9", executed_qty="1"))),
        (walk, (order("PARTIALLY_FILLED", executed_qty="1"), settled("1"))),
        (walk, (order("PARTIALLY_FILLED", executed_qty="1"), settled("1"))),
        (walk, (trade(7, 3, price="1"), trade(8, 9, qty="5", fee=None, fee_asset=None))),
        (other, (fill(9, qty="5"), order("FILLED", side="SELL"))),
        (walk, (order("CANCELED"), snapshot(held("BTC", "3"), at_ms=9))),
        (walk, (order("FILLED", decides=True),)),
    ]
    seen: dict[str, dict[tuple[Any, ...], tuple[Any, ...]]] = {view: {} for view in VIEWS}
    last = dict.fromkeys(VIEWS, 0)
    for session, told in steps:
        await session.tell(conn, *told)
        for view, key in VIEWS.items():
            changed = await rows(
                conn, f"SELECT seq, ({key})::text, v::text FROM ledger_v1.{view} v WHERE seq > $1", last[view]
            )
            for seq, *row in changed:
                last[view] = max(last[view], seq)
                seen[view][row[0]] = row[1]
            now = dict(await rows(conn, f"SELECT ({key})::text, v::text FROM ledger_v1.{view} v"))
            for gone in seen[view].keys() - now.keys():
                assert view == "fills", "nothing but a voided fill ever leaves a view"
                del seen[view][gone]
            assert seen[view] == now, f"{view} after {told}"
    assert await column(conn, "SELECT count(*) FROM ledger.fills WHERE state = 'voided'") == [1]


async def everything(conn: Any) -> list[Any]:
    return [
        await rows(conn, f"SELECT t::text FROM ledger.{table} t WHERE account = $1 ORDER BY 1", ACCOUNT)
        for table in ("accounts", "inbox", "orders", "fills", "balances", "balance_history", "transfers")
    ]
