"""How much a venue tells at once, and how far back: pages of few rows, limits refused, a history that is cut."""

from __future__ import annotations

import os
from typing import Any

import pytest

from tests.flows.mirrors import gaps_closed, holds, mirroring, settings_for
from tests.flows.test_first_load import listening

DAY_MS = 86_400_000
ORDERS = int(os.environ.get("SDX_TEST_ORDERS", "260"))
"""Orders of the capped venue; 1,250 and more by hand."""
COVERED = "SELECT symbol, complete_from_ms, complete_through_ms FROM ledger_v1.coverage"
OPEN = "SELECT count(*) FROM ledger_v1.discrepancies WHERE resolved_at IS NULL"


@pytest.mark.parametrize(("rows", "refuse"), [(100, False), (20, False), (100, True), (30, True)])
async def test_a_venue_with_pages_of_few_rows_is_read_whole(
    rows: int, refuse: bool, database_url: str, conn: Any
) -> None:
    async with listening("full", history=ORDERS) as sandbox:
        await sandbox.fault({"do": "pages", "rows": rows, "refuse": refuse})
        async with mirroring(settings_for(sandbox), database_url):
            await gaps_closed(conn, 1)
            proof = await holds(conn, sandbox, gaps=1)
        assert proof.fills == proof.venue_fills > rows
        assert proof.missing == 0
        covered = {row["symbol"]: row for row in await conn.fetch(COVERED)}
        assert all(row["complete_from_ms"] is None and row["complete_through_ms"] for row in covered.values())
        assert await conn.fetchval(OPEN) == 0
        limits = {row["kind"]: row["rows"] for row in await conn.fetch("SELECT kind, rows FROM ledger.page_limits")}
        assert set(limits) == ({"allOrders", "myTrades"} if refuse else set())
        assert all(rows // 2 <= limit <= rows for limit in limits.values())


async def test_a_history_cut_by_age_is_covered_from_where_it_begins(database_url: str, conn: Any) -> None:
    async with listening("full", history=ORDERS, history_days=180) as sandbox:
        await sandbox.fault({"do": "pages", "rows": 100})
        await sandbox.fault({"do": "history", "days": 90})
        begin_ms = sandbox.now_ms()
        async with mirroring(settings_for(sandbox), database_url):
            await gaps_closed(conn, 1)
        end_ms = sandbox.now_ms()
        covered = {row["symbol"]: row for row in await conn.fetch(COVERED)}
        assert len(covered) > 3
        for row in covered.values():
            assert begin_ms - 90 * DAY_MS <= row["complete_from_ms"] - 60_000 <= end_ms - 90 * DAY_MS, row
            assert row["complete_through_ms"] is not None
        since_ms = max(row["complete_from_ms"] for row in covered.values())
        ours = await conn.fetchval("SELECT count(*) FROM ledger_v1.fills WHERE executed_ms >= $1", since_ms)
        theirs = sum(fill.time_ms >= since_ms for fill in sandbox.books.fills.values())
        assert ours == theirs > 100
