"""What may change, changes: orders amended in place, and ids that begin anew after a relisting."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from itertools import permutations
from typing import Any

import msgspec
import pytest

from ledger.db import apply
from ledger.facts.types import Fact, Order
from ledger.sandbox.books import PAIRS
from ledger.sandbox.books import Order as Held
from ledger.sandbox.market import Market
from ledger.stream.consumer import read
from ledger.wire.socket import Received
from tests.histories import ORDER_ID, SYMBOL, T_MS, Session, doubts, fill, known, order, order_of, rest, rows, trade
from tests.postgres.test_verify import broken

AMENDMENTS = "SELECT field, value, reported_ms FROM ledger_v1.order_amendments ORDER BY 1, 2"
TERMS = "orig_qty, price, client_order_id"
DAY_MS = 86_400_000


def report(at_ms: int, **told: Any) -> dict[str, Any]:
    """One frame of the amended order of the field."""
    return {
        "e": "executionReport",
        "s": "BTCUSDT",
        "i": ORDER_ID,
        "S": "BUY",
        "o": "LIMIT",
        "f": "GTC",
        "p": "2.00",
        "l": "0.00",
        "z": "0.00",
        "t": -1,
        "T": T_MS + at_ms,
        "E": T_MS + at_ms,
        "O": T_MS,
        **told,
    }


FIELD = [
    report(0, x="NEW", X="NEW", q="10.00", c="old", C=""),
    report(1000, x="REPLACED", X="NEW", q="4.00", c="new", C="old"),
    report(
        2000, x="TRADE", X="FILLED", q="4.00", c="new", C="", l="4.00", z="4.00", L="2.00", Z="8.00", Y="8.00", n="0",
        N="USDT", t=88,
    ),
]  # fmt: skip


@pytest.mark.parametrize("order_of_arrival", list(permutations(range(3))))
@pytest.mark.parametrize("together", [False, True])
async def test_an_amended_order_has_its_newest_terms_whatever_comes_first(
    conn: Any, order_of_arrival: tuple[int, ...], together: bool
) -> None:
    await known(conn)
    socket = Session()
    entries = [
        read(Received(socket.session_id, number, json.dumps(FIELD[place]).encode(), T_MS))
        for number, place in enumerate(order_of_arrival, 1)
    ]
    for batch in [entries] if together else [[entry] for entry in entries]:
        await apply.apply(conn, socket.batch(*batch))
    await apply.apply(conn, Session().batch(read(Received(socket.session_id, 1, json.dumps(FIELD[0]).encode(), T_MS))))

    assert await order_of(conn, f"{TERMS}, status, executed_qty") == (4, 2, "new", "FILLED", 4)
    assert await rows(conn, AMENDMENTS) == [("client_order_id", "old", T_MS), ("orig_qty", "10", T_MS)]
    assert await doubts(conn) == []
    assert await broken(conn) == {}


async def test_rest_that_trails_does_not_take_an_amendment_back(conn: Any) -> None:
    await known(conn)
    first = order("NEW", orig_qty="10", price="2", client_order_id="old", created_ms=T_MS, updated_ms=T_MS)
    after = order("NEW", orig_qty="4", price="3", client_order_id="new", created_ms=T_MS, updated_ms=T_MS + 5)
    walker = rest()
    await Session().tell(conn, first)
    await Session().tell(conn, after)
    await walker.tell(conn, first, asked_ms=900)
    assert await order_of(conn, TERMS) == (4, 3, "new")
    await walker.tell(conn, after, asked_ms=2000)
    assert await order_of(conn, TERMS) == (4, 3, "new")
    assert await doubts(conn) == []


@pytest.mark.parametrize("later_first", [False, True])
async def test_where_rest_gives_no_time_but_the_creation_the_later_question_counts(
    conn: Any, later_first: bool
) -> None:
    await known(conn)
    walker = rest()
    answers = [
        (order("NEW", orig_qty=qty, client_order_id=client, created_ms=T_MS, updated_ms=T_MS), asked_ms)
        for qty, client, asked_ms in (("10", "old", 1000), ("4", "new", 2000))
    ]
    for fact, asked_ms in reversed(answers) if later_first else answers:
        await walker.tell(conn, fact, asked_ms=asked_ms)
    assert await order_of(conn, TERMS) == (4, None, "new")
    assert await doubts(conn) == []


async def test_two_values_of_one_instant_are_a_discrepancy(conn: Any) -> None:
    await known(conn)
    for qty in ("4", "10"):
        await Session().tell(conn, order("NEW", orig_qty=qty, created_ms=T_MS - 1, updated_ms=T_MS))
    assert await doubts(conn) == [("order_conflict", True)]
    assert await order_of(conn, "orig_qty") == (4,)


async def test_side_and_type_may_not_change(conn: Any) -> None:
    await known(conn)
    await Session().tell(conn, order("NEW", side="BUY", type="LIMIT", updated_ms=T_MS))
    await Session().tell(conn, order("NEW", side="SELL", type="MARKET", updated_ms=T_MS + 5))
    assert await order_of(conn, "side, type") == ("BUY", "LIMIT")
    assert await doubts(conn) == [("order_conflict", True)]


# --- ids that begin anew

OLD = (
    order(
        "FILLED", side="BUY", orig_qty="10.00", executed_qty="10.00", created_ms=T_MS - 50, updated_ms=T_MS,
        type="MARKET",
    ),
    fill(0, "10.00", trade_id=77, status="FILLED"),
)  # fmt: skip
LATER = 400 * DAY_MS
NEW = (
    order(
        "FILLED", side="SELL", orig_qty="3.00", executed_qty="3.00", created_ms=T_MS + LATER,
        updated_ms=T_MS + LATER + 5, type="MARKET",
    ),
    fill(LATER + 5, "3.00", trade_id=77, side="SELL", status="FILLED"),
)  # fmt: skip


def without_creation(facts: tuple[Fact, ...]) -> tuple[Fact, ...]:
    """As the ten-field stream tells it."""
    told = msgspec.structs.replace(facts[0], created_ms=None)
    return (told, msgspec.structs.replace(facts[1], trade_id=None))


@pytest.mark.parametrize("short", [False, True])
@pytest.mark.parametrize("trade_id", [77, 78])
async def test_ids_that_begin_anew_are_told_as_that_and_never_merged(conn: Any, short: bool, trade_id: int) -> None:
    await known(conn)
    old, new = OLD, (NEW[0], fill(LATER + 5, "3.00", trade_id=trade_id, side="SELL", status="FILLED"))
    if short:
        old, new = without_creation(old), without_creation(new)
    socket = Session()
    await socket.tell(conn, *old)
    for _ in range(2):
        await socket.tell(conn, *new)
    await rest().tell(conn, new[0], asked_ms=LATER + 9000)

    assert await order_of(conn, "side, orig_qty, executed_qty, status") == ("BUY", 10, 10, "FILLED")
    assert await rows(conn, "SELECT side, qty FROM ledger_v1.fills") == [("BUY", Decimal("10.00"))]
    ((kind, is_open),) = await doubts(conn)
    assert (kind, is_open) == ("ids_began_anew", True)
    row = await conn.fetchrow("SELECT * FROM ledger_v1.discrepancies")
    assert (row["symbol"], row["order_id"], row["subject"]) == (SYMBOL, ORDER_ID, SYMBOL)
    assert T_MS + LATER - 1 <= row["uncovered_from_ms"] < T_MS + LATER + 5, "coverage ends before what is not merged"
    assert "BUY 10" in row["expected"]
    assert "2024-06-03" in row["expected"]
    assert "SELL 3" in row["actual"]
    assert "2025-07-08" in row["actual"]
    assert [check for check in await broken(conn) if check != "nothing_is_set_aside"] == []


async def test_both_generations_in_one_answer_are_told_apart_too(conn: Any) -> None:
    await known(conn)
    walker = rest()
    await walker.tell(conn, NEW[0], OLD[0], asked_ms=LATER + 9000)
    await walker.tell(
        conn,
        trade(77, 0, "10.00"),
        trade(78, LATER + 5, "3.00", side="SELL"),
        trade(77, LATER + 5, "3.00", side="SELL"),
        asked_ms=LATER + 9001,
    )
    assert await order_of(conn, "side, orig_qty, executed_qty, status") == ("BUY", 10, 10, "FILLED")
    assert await doubts(conn) == [("ids_began_anew", True)]


async def test_the_older_generation_found_later_is_told_apart_too(conn: Any) -> None:
    await known(conn)
    await Session().tell(conn, *NEW)
    await rest().tell(conn, OLD[0], asked_ms=LATER + 9000)
    assert await order_of(conn, "side, orig_qty, status") == ("SELL", 3, "FILLED")
    assert await doubts(conn) == [("ids_began_anew", True)]


CREATED_ALONE = order("FILLED", side="BUY", orig_qty="10", executed_qty="10", created_ms=T_MS, updated_ms=T_MS)
"""Nobody knows when it ended, and none of its fills came."""
RESTING = order("NEW", side="BUY", orig_qty="10", executed_qty="0", created_ms=T_MS, updated_ms=T_MS)


@pytest.mark.parametrize("old", [CREATED_ALONE, RESTING], ids=["ended at some time", "resting"])
@pytest.mark.parametrize("is_first", [True, False], ids=["old first", "new first"])
async def test_an_order_of_the_other_side_is_another_order(conn: Any, old: Order, is_first: bool) -> None:
    """Where nothing else tells, the side does: it never changes."""
    await known(conn)

    async def tell_old() -> None:
        await rest().tell(conn, old, asked_ms=LATER + 9000)

    if is_first:
        await tell_old()
    await Session().tell(conn, *without_creation(NEW))
    if not is_first:
        await tell_old()

    sold = [("SELL", Decimal("3.00"))]
    assert await order_of(conn, "side, orig_qty") == (("BUY", 10) if is_first else ("SELL", 3))
    assert await rows(conn, "SELECT side, qty FROM ledger_v1.fills") == ([] if is_first else sold)
    assert await doubts(conn) == [("ids_began_anew", True)]


async def test_a_trade_of_the_other_side_is_of_another_order(conn: Any) -> None:
    await known(conn)
    await rest().tell(conn, CREATED_ALONE, asked_ms=LATER + 9000)
    await rest().tell(conn, trade(77, LATER, "3.00", side="SELL"), asked_ms=LATER + 9001)
    assert await rows(conn, "SELECT side, qty FROM ledger_v1.fills") == []
    assert await doubts(conn) == [("ids_began_anew", True)]


async def test_a_fill_that_comes_late_of_an_order_known_by_its_creation_alone_is_its_own(conn: Any) -> None:
    """Where REST tells no other time, an order may have been filled long after."""
    await known(conn)
    await rest().tell(conn, order("FILLED", orig_qty="3", executed_qty="3", created_ms=T_MS, updated_ms=T_MS))
    late = order("FILLED", updated_ms=T_MS + 60 * DAY_MS)
    await Session().tell(conn, late, fill(60 * DAY_MS, "3", status="FILLED"))
    assert await rows(conn, "SELECT qty FROM ledger_v1.fills") == [(3,)]
    assert await doubts(conn) == []


EXPIRED = order("EXPIRED", side="BUY", orig_qty="10", executed_qty="0", created_ms=T_MS, updated_ms=T_MS)
"""Over as soon as it was made, which looks as if its only time were its creation."""
ANOTHER = order("CANCELED", ORDER_ID + 1, side="BUY", created_ms=T_MS, updated_ms=T_MS + 5)


@pytest.mark.parametrize("by_rest", [False, True], ids=["frame", "trade"])
@pytest.mark.parametrize("old", [CREATED_ALONE, EXPIRED], ids=["filled at some time", "expired"])
async def test_where_ids_are_known_to_have_begun_anew_what_ended_before_gets_no_late_fill(
    conn: Any, old: Order, by_rest: bool
) -> None:
    """Another order of the market has shown it; of this one nothing but that tells the two apart."""
    await known(conn)
    await rest().tell(conn, old, ANOTHER, asked_ms=9000)
    socket = Session()
    await socket.tell(conn, msgspec.structs.replace(ANOTHER, status="NEW", created_ms=None, updated_ms=T_MS + LATER))
    assert await doubts(conn) == [("ids_began_anew", True)]
    if by_rest:
        await rest().tell(conn, trade(77, LATER + 10, "3"), asked_ms=LATER + 9000)
    else:
        await socket.tell(conn, order("FILLED", updated_ms=T_MS + LATER + 10), fill(LATER + 10, "3", status="FILLED"))

    assert await order_of(conn, "status, updated_at") == (old.status, datetime.fromtimestamp(T_MS / 1000, UTC))
    assert await rows(conn, "SELECT qty FROM ledger_v1.fills") == []
    assert await doubts(conn) == [("ids_began_anew", True)]


@pytest.mark.parametrize("old", [CREATED_ALONE, EXPIRED], ids=["filled at some time", "expired"])
async def test_what_is_new_after_rest_told_the_end_is_another_order(conn: Any, old: Order) -> None:
    await known(conn)
    await rest().tell(conn, old, asked_ms=LATER)
    new = [order("NEW", side="BUY", updated_ms=T_MS + LATER + 1), order("FILLED", updated_ms=T_MS + LATER + 1)]
    await Session().tell(conn, *new, fill(LATER + 1, "3", status="FILLED"))
    await rest().tell(conn, trade(77, LATER + 1, "3"), asked_ms=LATER + 9000)

    assert await order_of(conn, "status, updated_at") == (old.status, datetime.fromtimestamp(T_MS / 1000, UTC))
    assert await rows(conn, "SELECT qty FROM ledger_v1.fills") == []
    assert await doubts(conn) == [("ids_began_anew", True)]


async def test_an_amendment_that_comes_after_rest_told_the_end_is_the_order_s_own(conn: Any) -> None:
    """Of an order amended in place the ten-field stream tells that it is NEW once more."""
    await known(conn)
    await rest().tell(conn, EXPIRED, asked_ms=LATER + 1)
    await Session().tell(conn, order("NEW", side="BUY", updated_ms=T_MS + LATER))
    assert await order_of(conn, "status, updated_at") == (
        "EXPIRED",
        datetime.fromtimestamp((T_MS + LATER) / 1000, UTC),
    )
    assert await doubts(conn) == []


def test_the_sandbox_amends_an_order_as_the_venue_it_follows_does() -> None:
    market = Market(3)
    while not (resting := [one for one in market.books.open_orders() if one.left > PAIRS[one.symbol].step]):
        market.step(T_MS)
    before: Held = resting[0]
    report, *_ = market.amend(before, before.orig_qty - PAIRS[before.symbol].step, T_MS + 10)
    after = market.books.orders[before.key]
    assert (report.execution, report.previous_id) == ("REPLACED", before.client_order_id)  # type: ignore[union-attr]
    assert after.orig_qty < before.orig_qty
    assert after.client_order_id != before.client_order_id
    assert after.is_open
