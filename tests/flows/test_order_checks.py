"""Orders asked for again, through the whole mirror: what stands open afterwards, and what is held up by it."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from ledger.sandbox.market import ODD_STATUS
from tests.flows.mirrors import eventually, gap, gaps_closed, holds, mirroring, settings_for, venue

UNKNOWN = "SELECT count(*) FROM ledger_v1.discrepancies WHERE kind = 'order_unknown'"
ABSENT = "SELECT count(*) FROM ledger.order_checks WHERE reason = 'absent'"
JUDGED_AT = "SELECT min(through_ms) FROM ledger.explained"


async def cut(sandbox: Any, conn: Any, gaps: int) -> None:
    """The connection breaks and comes back, with orders on both sides of it and some that nobody hears of."""
    await sandbox.fault({"do": "refuse_ws", "for_s": 0.5})
    await sandbox.fault({"do": "drop"})
    await sandbox.step(60)
    await gaps_closed(conn, gaps)
    await sandbox.step(120)


@pytest.mark.parametrize("dialect", ["documented", "orders_quote"])
async def test_rejected_orders_that_rest_has_none_of_are_no_discrepancy_after_any_gap(
    dialect: str, database_url: str, conn: Any
) -> None:
    async with venue(dialect) as sandbox:
        await sandbox.fault({"do": "rest_forgets"})
        async with mirroring(settings_for(sandbox), database_url):
            await gaps_closed(conn, 1)
            await sandbox.step(200)
            for number in (2, 3):
                await cut(sandbox, conn, number)
            await holds(conn, sandbox, gaps=3)
            told = "SELECT count(*) FROM ledger_v1.orders WHERE status = 'REJECTED'"
            rejected = await conn.fetchval(told)
            assert rejected > 2, "the story rejects nothing: it shows nothing"
            await eventually(conn, ABSENT, lambda count: count == rejected)
            assert await conn.fetchval(UNKNOWN) == 0
            # Two more passes: nobody asks for them again.
            asked = [call for call in sandbox.calls if call[1].endswith("/order") and call[2] == 400]
            since = sum(call[1].endswith("/openOrders") for call in sandbox.calls)
            await sandbox.until(
                lambda: sum(call[1].endswith("/openOrders") for call in sandbox.calls) > since + 2, timeout_s=30
            )
            assert [call for call in sandbox.calls if call[1].endswith("/order") and call[2] == 400] == asked
            assert len(asked) <= 2 * rejected, "an order asked for by a gap and a check at once, no more"


async def test_an_archived_order_is_over_though_nobody_heard_how_it_ended(database_url: str, conn: Any) -> None:
    async with venue("documented") as sandbox:
        async with mirroring(settings_for(sandbox), database_url):
            await gaps_closed(conn, 1)
            await sandbox.step(60)
            await holds(conn, sandbox, gaps=1)
        await sandbox.step(200)
        await sandbox.fault({"do": "rest_forgets", "after_s": 0})
        async with mirroring(settings_for(sandbox), database_url):
            await gaps_closed(conn, 2)
            await holds(conn, sandbox, gaps=2)
            opened = "SELECT symbol, order_id FROM ledger_v1.orders WHERE is_open"
            resting = {order.key for order in sandbox.books.open_orders()}
            assert {tuple(row) for row in await conn.fetch(opened)} == resting
            ended = "SELECT count(*) FROM ledger_v1.orders WHERE status = 'NEW' AND NOT is_open"
            assert await conn.fetchval(ended) > 0, "no order ended unheard of: the test shows nothing"
            assert await conn.fetchval(UNKNOWN) == 0


async def test_an_order_in_a_status_nobody_knows_is_counted_and_asked_for_ever_more_seldom(
    database_url: str, conn: Any
) -> None:
    async with venue("documented") as sandbox, mirroring(settings_for(sandbox), database_url):
        await gaps_closed(conn, 1)
        await sandbox.fault({"do": "odd_endings", "n": 3})
        await sandbox.step(120)
        await holds(conn, sandbox, gaps=1)
        odd = f"SELECT count(*) FROM ledger_v1.orders WHERE status = '{ODD_STATUS}' AND is_open IS NULL"
        assert await conn.fetchval(odd) == 3
        tries = "SELECT min(tries) FROM ledger.order_checks WHERE reason = 'unknown_status'"
        await eventually(conn, tries, lambda least: least is not None and least >= 3)
        waits = "SELECT min(due_ms) FROM ledger.order_checks WHERE reason = 'unknown_status'"
        assert await conn.fetchval(waits) > sandbox.now_ms() + 5_000


@pytest.mark.parametrize("forgets", [False, True])
async def test_a_deposit_nobody_announced_is_a_row_within_two_passes_whatever_else_is_asked(
    forgets: bool, database_url: str, conn: Any
) -> None:
    """Of an asset never traded, with executions of other markets missing and orders that REST does not know."""
    async with venue("documented") as sandbox:
        if forgets:
            await sandbox.fault({"do": "rest_forgets"})
        await sandbox.step(60)
        async with mirroring(settings_for(sandbox, reconcile_every_s=8), database_url):
            await gaps_closed(conn, 1)
            for number in (2, 3):
                await cut(sandbox, conn, number)
            assert await conn.fetchval("SELECT count(*) FROM ledger_v1.missing_executions") > 0
            closed_ms = (await gap(conn, 3))["until_ms"]
            await eventually(conn, JUDGED_AT, lambda through_ms: through_ms is not None and through_ms > closed_ms)
            # The venue denies every order asked for singly from now on.
            await sandbox.fault({"do": "rest_not_found", "n": 10_000})
            passes = sum(call[1].endswith("/openOrders") for call in sandbox.calls)
            deposit = {"do": "move", "asset": "TIA", "amount": "12.34567890", "announce": False, "position": False}
            await sandbox.fault(deposit)
            found = "SELECT residual FROM ledger_v1.discrepancies WHERE kind = 'unexplained_balance' AND asset = 'TIA'"
            assert await eventually(conn, found, lambda amount: amount is not None) == Decimal("12.3456789")
            since = sum(call[1].endswith("/openOrders") for call in sandbox.calls) - passes
            assert since <= 3, "two passes, and one that had begun before REST was expected to know of it"
