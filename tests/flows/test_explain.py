"""Explained balances end to end: a movement nobody announced is found, classified by a person, and then explained."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from ledger.sandbox.server import Sandbox
from tests.flows.mirrors import DIALECTS, eventually, gaps_closed, mirroring, settings_for, venue
from tests.flows.processes import bench
from tests.histories import rows

OPEN = "SELECT count(*) FROM ledger_v1.discrepancies WHERE kind = 'unexplained_balance' AND resolved_at IS NULL"
FOUND = "SELECT subject, residual FROM ledger_v1.discrepancies WHERE kind = 'unexplained_balance' ORDER BY 1, 2"
JUDGED_AT = "SELECT min(through_ms) FROM ledger.explained"


def unannounced(sandbox: Sandbox, *, since: int) -> list[tuple[str, Decimal]]:
    """What moved without an event; the dialects but ``full`` announce nothing, the market's own deposits neither."""
    movements = sandbox.market.books.movements[since:]
    return sorted((one.asset, one.amount) for one in movements)


def summed(movements: list[tuple[str, Decimal]]) -> dict[str, Decimal]:
    return {asset: sum((amount for one, amount in movements if one == asset), Decimal(0)) for asset, _ in movements}


async def judged_after(conn: Any, now_ms: int) -> None:
    """Wait until every asset is explained past this instant."""
    await eventually(conn, JUDGED_AT, lambda through_ms: through_ms is not None and through_ms > now_ms)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dialect", "position"),
    [*((dialect, True) for dialect in DIALECTS), ("documented", False), ("full", False)],
)
async def test_a_deposit_nobody_announced_is_found_with_its_amount_and_settled_by_a_person(
    dialect: str, position: bool, database_url: str, conn: Any, tmp_path: Path
) -> None:
    async with venue(dialect) as sandbox:
        await sandbox.step(60)
        async with mirroring(settings_for(sandbox), database_url):
            await gaps_closed(conn, 1)
            # Nothing from before the start is in question any more: of what nobody can tell, anything may be the cause.
            await judged_after(conn, sandbox.now_ms())
            since = len(sandbox.market.books.movements)
            await sandbox.step(30)
            await judged_after(conn, sandbox.now_ms())
            told = len(sandbox.market.books.movements)
            spec = {"do": "move", "asset": "BTC", "amount": "1.25", "announce": False, "position": position}
            await sandbox.fault(spec)
            expected = unannounced(sandbox, since=told if dialect == "full" else since)
            await eventually(conn, OPEN, lambda count: count >= len(expected))
            assert await rows(conn, FOUND) == expected

            with bench(tmp_path, {"SDX_DATABASE_URL": database_url}) as programs:
                code, out, err = await programs.done("discrepancy", "list", "--json")
                assert (code, err) == (0, "")
                (mine,) = [one for one in json.loads(out)["discrepancies"] if one["subject"] == "BTC"]
                assert mine["residual"] == "1.25"
                number = str(mine["discrepancy_id"])
                words = ("discrepancy", "resolve", number, "--note", "from my other wallet", "--as")
                code, _, err = await programs.done(*words, "withdrawal")
                assert code == 2
                assert "rose by 1.25," in " ".join(err.split())
                code, out, err = await programs.done(*words, "deposit")
                assert (code, err) == (0, "")
                assert out == f"discrepancy {number} is settled, booked as a deposit of 1.25 BTC\n"
                code, _, err = await programs.done(*words, "deposit")
                assert code == 2
                assert "was settled on" in err

            await judged_after(conn, sandbox.now_ms())
            assert await rows(conn, FOUND) == expected, "nothing is told twice"
            assert await conn.fetchval("SELECT residual FROM ledger.explained WHERE asset = 'BTC'") == 0
            booked = await rows(conn, "SELECT asset, amount, kind FROM ledger_v1.transfers WHERE source = 'operator'")
            assert booked == [("BTC", Decimal("1.25"), "deposit")]


@pytest.mark.slow
@pytest.mark.parametrize("dialect", ["documented", "orders_quote", "mixed"])
async def test_trading_through_lost_connections_is_no_unexplained_movement(
    dialect: str, database_url: str, conn: Any
) -> None:
    """Fills that nobody can tell any more are known to be missing: no alarm, and a deposit is found all the same."""
    async with venue(dialect) as sandbox:
        await sandbox.step(60)
        async with mirroring(settings_for(sandbox), database_url):
            await gaps_closed(conn, 1)
            await judged_after(conn, sandbox.now_ms())
            since = len(sandbox.market.books.movements)
            for gap in (2, 3):
                await sandbox.fault({"do": "refuse_ws", "for_s": 0.5})
                await sandbox.fault({"do": "drop"})
                await sandbox.step(40)
                await gaps_closed(conn, gap)
                await judged_after(conn, sandbox.now_ms())
            found, true = summed(await rows(conn, FOUND)), summed(unannounced(sandbox, since=since))
            if dialect == "mixed":
                assert found == true
            assert found.keys() <= true.keys()
            await sandbox.fault({"do": "move", "asset": "USDT", "amount": "777.5", "announce": False})
            await eventually(conn, f"{OPEN} AND residual = 777.5", lambda count: count == 1)
