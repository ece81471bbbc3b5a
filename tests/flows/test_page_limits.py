"""How much a venue tells at once, and how far back: pages of few rows, limits refused, a history that is cut."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

import pytest

from ledger.reconcile import holes, refusals
from ledger.sandbox.rest import Answer, Call
from tests.flows.mirrors import eventually, gap, gaps_closed, holds, mirroring, settings_for
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


# --- refusals are about their question -----------------------------------------------------------------------------

HOLES = "SELECT kind, symbol, uncovered_from_ms, resolved_at FROM ledger_v1.discrepancies WHERE kind = 'symbol_refused'"


async def test_a_refused_market_is_a_hole_of_its_own_and_everything_else_goes_on(
    database_url: str, conn: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refusals, "FIRST_PAUSE_MS", 500)
    monkeypatch.setattr(holes, "NEWS_EVERY_S", 0.1)
    async with listening("full", history=ORDERS) as sandbox:
        await sandbox.fault({"do": "refuse_market", "symbol": "ETHUSDT", "code": -4321})
        async with mirroring(settings_for(sandbox), database_url):
            await gaps_closed(conn, 1)
            (hole,) = await conn.fetch(HOLES)
            assert tuple(hole) == ("symbol_refused", "ETHUSDT", 0, None)
            through = {row["symbol"]: row["complete_through_ms"] for row in await conn.fetch(COVERED)}
            assert through.pop("*") is None
            assert "ETHUSDT" not in through
            assert len(through) > 3
            assert all(through.values())

            await eventually(conn, "SELECT max(tries) FROM ledger.refused_markets", lambda tries: (tries or 0) > 1)
            assert len(await conn.fetch(HOLES)) == 1, "told once"
            await sandbox.fault({"do": "refuse_market", "symbol": "ETHUSDT", "code": None})
            await eventually(conn, OPEN, lambda count: count == 0)
            await eventually(conn, "SELECT count(*) FROM ledger.refused_markets", lambda count: count == 0)
            await holds(conn, sandbox, gaps=1)
        through = {row["symbol"]: row["complete_through_ms"] for row in await conn.fetch(COVERED)}
        assert through["*"]
        assert through["ETHUSDT"]


async def test_a_market_refused_in_a_later_gap_is_covered_up_to_that_gap_and_a_restart_asks_at_once(
    database_url: str, conn: Any
) -> None:
    async with listening("full", history=ORDERS) as sandbox:
        async with mirroring(settings_for(sandbox), database_url):
            await gaps_closed(conn, 1)
            await sandbox.fault({"do": "refuse_market", "symbol": "BTCUSDT", "code": -9001})
            await sandbox.fault({"do": "drop"})
            await sandbox.step(30)
            await gaps_closed(conn, 2)
            second = await gap(conn, 2)
            (hole,) = await conn.fetch(HOLES)
            assert second["from_ms"] - 60_000 <= hole["uncovered_from_ms"] <= second["from_ms"]
            through = {row["symbol"]: row["complete_through_ms"] for row in await conn.fetch(COVERED)}
            assert through["BTCUSDT"] == through["*"] == hole["uncovered_from_ms"]
            assert through["ETHUSDT"] > second["until_ms"] - 1
        await sandbox.fault({"do": "refuse_market", "symbol": "BTCUSDT", "code": None})
        async with mirroring(settings_for(sandbox), database_url):
            await gaps_closed(conn, 3)
            await holds(conn, sandbox, gaps=3)
        assert await conn.fetchval(OPEN) == 0


async def test_a_guess_that_is_refused_is_no_market_and_no_hole(database_url: str, conn: Any) -> None:
    async with listening("documented", history=40) as sandbox:
        await sandbox.fault({"do": "move", "asset": "ODD", "amount": "8.5"})
        await sandbox.fault({"do": "refuse_market", "symbol": "ODDUSDT", "code": -1100})
        async with mirroring(settings_for(sandbox), database_url):
            await gaps_closed(conn, 1)
            await holds(conn, sandbox, gaps=1)
        assert any(question.symbol == "ODDUSDT" for question in sandbox.asked)
        assert await conn.fetchval("SELECT count(*) FROM ledger_v1.discrepancies WHERE symbol = 'ODDUSDT'") == 0
        assert await conn.fetchval("SELECT complete_through_ms FROM ledger_v1.coverage WHERE symbol = '*'")


@pytest.mark.parametrize("path", ["openOrders", "/account"])
async def test_a_refused_question_about_the_whole_account_ends_all_coverage_until_it_is_answered(
    path: str, database_url: str, conn: Any
) -> None:
    async with listening("full", history=60) as sandbox:
        await sandbox.fault({"do": "rest_status", "status": 400, "code": -4321, "path": path, "count": 100_000})
        async with mirroring(settings_for(sandbox), database_url, first_contact=False):
            await gaps_closed(conn, 1)
            open_ones = await conn.fetch(
                "SELECT kind, symbol, uncovered_from_ms FROM ledger_v1.discrepancies WHERE uncovered_from_ms = 0"
            )
            assert ("question_refused", None, 0) in [tuple(row) for row in open_ones]
            assert {row["complete_through_ms"] for row in await conn.fetch(COVERED)} == {None}
            sandbox.faults._spoilt.clear()
            await eventually(conn, OPEN, lambda count: count == 0)
            await holds(conn, sandbox, gaps=1)
        assert all(row["complete_through_ms"] for row in await conn.fetch(COVERED))


async def test_an_answer_that_cannot_be_read_at_all_is_a_hole_of_its_market_alone(
    database_url: str, conn: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refusals, "FIRST_PAUSE_MS", 500)
    monkeypatch.setattr(holes, "NEWS_EVERY_S", 0.1)
    async with listening("documented", history=60) as sandbox:
        answer = sandbox.rest.answer

        def odd(call: Call, *told: Any, **more: Any) -> Answer:
            true = answer(call, *told, **more)
            return replace(true, body=b'{"rows":{}}') if "allOrders" in call.path and "ETHUSDT" in call.query else true

        sandbox.rest.answer = odd  # type: ignore[method-assign]
        async with mirroring(settings_for(sandbox, symbols="ETHUSDT"), database_url):
            await gaps_closed(conn, 1)
            (hole,) = await conn.fetch(HOLES)
            assert tuple(hole) == ("symbol_refused", "ETHUSDT", 0, None)
            through = {row["symbol"]: row["complete_through_ms"] for row in await conn.fetch(COVERED)}
            assert through["BTCUSDT"]
            assert through["*"] is None
            sandbox.rest.answer = answer  # type: ignore[method-assign]
            await eventually(conn, OPEN, lambda count: count == 0)
            await holds(conn, sandbox, gaps=1)


async def test_a_row_that_cannot_be_read_ends_coverage_right_before_it_until_it_can(
    database_url: str, conn: Any
) -> None:
    async with listening("full", history=60) as sandbox:
        fill = list(sandbox.books.fills.values())[20]
        await sandbox.fault(
            {"do": "nonsense", "kind": "negative_qty", "symbol": fill.symbol, "order_id": fill.order_id, "count": 3}
        )
        async with mirroring(settings_for(sandbox), database_url):
            await gaps_closed(conn, 1)
            rows = await conn.fetch(
                "SELECT symbol, order_id, uncovered_from_ms FROM ledger_v1.discrepancies WHERE kind = 'rest_row'"
            )
            assert rows
            assert {(row["symbol"], row["order_id"]) for row in rows} == {(fill.symbol, fill.order_id)}
            created_ms = sandbox.books.orders[fill.symbol, fill.order_id].created_ms
            assert all(created_ms - 1 <= row["uncovered_from_ms"] < fill.time_ms for row in rows)
            await eventually(conn, OPEN, lambda count: count == 0)
            await holds(conn, sandbox, gaps=1)
