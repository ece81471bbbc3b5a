"""A frame that comes alone takes a shorter way (alone.sql) to the rows it would have ended in beside others."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from ledger.facts.types import Exact, Fact
from tests.histories import T_MS, Session, fill, held, known, order, rows, settled, trade

OTHER_ORDER = 1
"""Told beside every frame of the second account, so that none of its frames is alone with its order."""

STATUSES = (None, "NEW", "PARTIALLY_FILLED", "FILLED", "CANCELED", "SOMETHING_NEW")
either = st.sampled_from

orders = st.builds(
    order,
    either(STATUSES),
    executed_qty=either((None, "0", "1", "2")),
    executed_quote=either((None, "100")),
    side=either((None, "BUY", "SELL")),
    type=either((None, "LIMIT", "MARKET")),
    time_in_force=either((None, "GTC")),
    client_order_id=either((None, "c1", "c2")),
    price=either((None, "100", "100.0", "101")),
    orig_qty=either((None, "2", "3")),
    created_ms=either((None, T_MS, T_MS + 1)),
    updated_ms=either((None, T_MS, T_MS + 1, T_MS + 2)),
)
stream_fills = st.builds(
    fill,
    either((0, 1)),
    either(("1", "2")),
    trade_id=either((None, None, 1, 2)),
    side=either((None, "BUY", "SELL")),
    quote_qty=either((None, Exact("100"))),
    is_maker=either((None, True)),
    fee=either((None, Exact("0.1"))),
    status=either(("PARTIALLY_FILLED", "FILLED")),
)
frames = st.tuples(orders, stream_fills) | st.tuples(orders)
answers = (
    st.tuples(orders)
    | st.tuples(st.builds(trade, either((1, 2)), either((0, 1))))
    | st.tuples(st.builds(settled, either("012")))
)
stories = st.lists(st.tuples(st.just("stream"), frames) | st.tuples(st.just("rest"), answers), min_size=1, max_size=8)

Story = list[tuple[str, tuple[Fact, ...]]]

EVERYTHING = {
    "orders": "to_jsonb(t) - 'account'",
    "order_amendments": "to_jsonb(t) - 'account'",
    "fills": "to_jsonb(t) - 'account'",
    "discrepancies": "to_jsonb(t) - 'account' - 'opened_at' - 'resolved_at' - 'digest'",
    "inbox": "to_jsonb(t) - 'account' - 'session_id'",
}


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(story=stories)
@example(story=[("stream", (order("FILLED"),)), ("stream", (order("CANCELED"),))])
@example(story=[("stream", (order("NEW", price="100"),)), ("stream", (order("NEW", price="101", updated_ms=T_MS),))])
@example(story=[("rest", (trade(1),)), ("stream", (order("NEW"), fill()))])
@example(story=[("stream", (order("NEW"), fill(trade_id=1))), ("stream", (order("NEW"), fill(trade_id=1, qty="2")))])
async def test_a_frame_alone_ends_in_the_rows_it_ends_in_beside_another_order(conn: Any, story: Story) -> None:
    await ends_the_same_alone_and_beside(conn, story)


@pytest.mark.parametrize(
    ("field", "one", "other"),
    [
        ("side", "BUY", "SELL"),
        ("type", "LIMIT", "MARKET"),
        ("time_in_force", "GTC", "IOC"),
        ("client_order_id", "c1", "c2"),
        ("price", "100", "101"),
        ("orig_qty", "2", "3"),
    ],
)
async def test_a_frame_alone_that_contradicts_its_order_opens_the_same_discrepancy(
    conn: Any, field: str, one: str, other: str
) -> None:
    told: list[dict[str, Any]] = [{field: one}, {field: other}]
    story: Story = [("stream", (order("NEW", **told[0]),)), ("stream", (order("FILLED", **told[1]),))]
    await ends_the_same_alone_and_beside(conn, story)
    assert {kind for (kind,) in await rows(conn, "SELECT kind FROM ledger.discrepancies")} == {"order_conflict"}


async def ends_the_same_alone_and_beside(conn: Any, story: Story) -> None:
    alone, beside = await known(conn, f"a{uuid4().hex}"), await known(conn, f"b{uuid4().hex}")
    for account, besides in ((alone, ()), (beside, (order("NEW", OTHER_ORDER),))):
        socket, walker = Session(account=account), Session("rest", account=account)
        for n, (source, facts) in enumerate(story):
            if source == "stream":
                await socket.tell(conn, *facts, *besides)
            else:
                await walker.tell(conn, *facts, asked_ms=n)

    for table, columns in EVERYTHING.items():
        query = f"SELECT ({columns})::text FROM ledger.{table} t WHERE account = $1 ORDER BY 1"
        assert await rows(conn, query, alone) == [
            row for row in await rows(conn, query, beside) if f'"order_id": {OTHER_ORDER},' not in row[0]
        ], table


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(told=st.lists(st.tuples(either("12"), either((0, 1)), st.integers(1, 3)), min_size=1, max_size=12))
async def test_balances_told_twice_or_known_before_are_kept_once_with_their_greatest_version(
    conn: Any, told: list[tuple[str, int, int]]
) -> None:
    """(free, clock, size of the call it comes in); clocks may go back, so one state may be told with two versions."""
    account = await known(conn, f"a{uuid4().hex}")
    socket, versions = Session(account=account), Session(account=account).memory
    expected: dict[tuple[str, int], int] = {}
    waiting = []
    for free, at_ms, size in told:
        k = versions.version("BTC", (Exact(free), Exact("0")), T_MS + at_ms)
        expected[free, at_ms] = max(k, expected.get((free, at_ms), 0))
        waiting.append(held("BTC", free, at_ms=at_ms))
        if len(waiting) >= size:
            await socket.tell(conn, *waiting)
            waiting = []
    await socket.tell(conn, *waiting)

    kept = await rows(conn, "SELECT free::text, as_of_ms, k FROM ledger.balance_history WHERE account = $1", account)
    assert {(free, as_of_ms - T_MS): k for free, as_of_ms, k in kept} == expected
    assert len(kept) == len(expected)
