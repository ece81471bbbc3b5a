"""What the database itself refuses, whoever asks: numbers that are none, and what a role may not do."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from ledger.db import code, coverage
from ledger.db.apply import Batch, Entry, apply, build
from ledger.db.rows import lay
from ledger.facts import status
from ledger.facts.identity import SessionMemory
from ledger.facts.types import Balance, Doubt, Exact, Fact, Fill, Order, Snapshot, Transfer

SIGNED = {
    *("fills.fee", "transfers.amount", "discrepancies.residual"),
    *("explained.effects", "explained.residual"),
}
"""Amounts that may be negative: rebates, withdrawals, residuals, what fills add up to."""

EXPLAINED = """
    INSERT INTO ledger.explained (account, asset, base_ms, base_total, through_ms, total, effects, residual, seq)
    VALUES ('main', 'BTC', 1, 1, 2, 1, 0, 0, 1)
"""

STORY: tuple[Fact, ...] = (
    Order("BTCUSDT", 1, status="FILLED", executed_qty=Exact("0.01"), updated_ms=5),
    Fill("BTCUSDT", 1, "BUY", Exact("64000.00"), Exact("0.01"), 5, fee=Exact("-0.64"), trade_id=7),
    Balance("BTC", Exact("0.01"), Exact("0"), 5),
    Snapshot((Balance("BTC", Exact("2"), Exact("0")),), as_of_ms=1),
    Transfer("BTC", Exact("-1"), "withdrawal", 5),
    Doubt("rest_row", "a row", None, None),
)
"""Leaves a row in every table that holds an amount."""


def batch(frame_no: int = 1) -> Batch:
    entry = Entry(frame_no, 5, "told", 5, b"{}", None, lay(STORY))
    return build("main", UUID(int=1), "stream", [entry], SessionMemory())


@pytest.fixture
async def told(conn: Any) -> Any:
    """A connection to a database in which every table with an amount has a row."""
    await coverage.register(conn, "main", rest_origin="http://127.0.0.1", key_fingerprint="k")
    await apply(conn, batch())
    await conn.execute(EXPLAINED)
    return conn


async def amounts(conn: Any) -> list[str]:
    """Every numeric column of every table, from the catalogue, as table.column."""
    rows = await conn.fetch(
        """
        SELECT t.relname || '.' || a.attname AS name FROM pg_attribute a JOIN pg_class t ON t.oid = a.attrelid
        WHERE t.relnamespace = 'ledger'::regnamespace AND t.relkind = 'r' AND a.attnum > 0 AND NOT a.attisdropped
        AND a.atttypid = 'numeric'::regtype ORDER BY 1
        """
    )
    return [row["name"] for row in rows]


async def refusal(conn: Any, amount: str, value: str) -> str | None:
    """Name of the check that refuses the value; None when it was taken. Nothing stays changed."""
    table, column = amount.split(".")
    change = conn.transaction()
    await change.start()
    try:
        # Checks are looked at alone: the journal's own guard would refuse any change.
        await conn.execute("SET LOCAL session_replication_role = replica")
        done = await conn.execute(f"UPDATE ledger.{table} SET {column} = '{value}'")
        assert done != "UPDATE 0", f"no row of {table} to try {column} on"
        return None
    except asyncpg.CheckViolationError as error:
        name: str | None = error.constraint_name
        return name
    finally:
        await change.rollback()


async def refused(conn: Any, value: str) -> set[str]:
    """The amounts that refuse the value, by the check of their table's amounts."""
    checks = {one: await refusal(conn, one, value) for one in await amounts(conn)}
    for one, check in checks.items():
        assert check in (None, f"{one.partition('.')[0]}_amounts_are_real")
    return {one for one, check in checks.items() if check}


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity"])
async def test_no_amount_is_nan_or_infinite(told: Any, value: str) -> None:
    found = await amounts(told)
    assert len(found) >= 20
    assert await refused(told, value) == set(found)


async def test_every_amount_but_the_signed_ones_refuses_minus_one(told: Any) -> None:
    assert await refused(told, "-1") == set(await amounts(told)) - SIGNED
    assert await refused(told, "1") == set()


async def test_no_amount_has_a_scale_that_would_round(told: Any) -> None:
    digits = "1234567890123456789012345678901234567890.1234567890123456789012345678901234567890"
    for amount in await amounts(told):
        table, column = amount.split(".")
        kept = await told.fetchval(f"UPDATE ledger.{table} SET {column} = '{digits}' RETURNING {column}::text")
        assert (amount, kept) == (amount, digits)


async def test_a_fill_of_nothing_is_refused(told: Any) -> None:
    assert await refusal(told, "fills.qty", "0") == "fills_amounts_are_real"


@pytest.mark.parametrize("column", ["inbox.source", "fills.source", "fills.state", "transfers.kind", "balances.source"])
async def test_a_closed_set_of_words_is_closed(told: Any, column: str) -> None:
    assert await refusal(told, column, "rumour") == f"{column.replace('.', '_')}_is_known"


@pytest.mark.parametrize(
    "name", [None, "", "PENDING_NEW", "NEW", "PARTIALLY_FILLED", *sorted(status.TERMINAL), "PENDING_CANCEL", "new", "∞"]
)
async def test_sql_and_python_rank_a_status_alike(conn: Any, name: str | None) -> None:
    assert await conn.fetchval("SELECT ledger.status_rank($1)", name) == status.rank(name)


async def make_roles(conn: Any) -> None:
    for role in ("sdx_writer", "sdx_reader"):
        # Roles belong to the whole server, and another test may be making them now.
        with suppress(asyncpg.DuplicateObjectError, asyncpg.UniqueViolationError):
            await conn.execute(f"CREATE ROLE {role}")
    await conn.execute(code.text())


@asynccontextmanager
async def acting_as(conn: Any, role: str) -> AsyncIterator[None]:
    await make_roles(conn)
    await conn.execute(f"SET ROLE {role}")
    try:
        yield
    finally:
        await conn.execute("RESET ROLE")


@pytest.mark.parametrize(
    "sentence",
    [
        "UPDATE ledger.inbox SET raw = ''",
        "DELETE FROM ledger.inbox",
        "TRUNCATE ledger.inbox",
        "DROP TABLE ledger.inbox",
    ],
)
async def test_the_writer_cannot_rewrite_the_journal(told: Any, sentence: str) -> None:
    async with acting_as(told, "sdx_writer"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await told.execute(sentence)
    assert await told.fetchval("SELECT count(*) FROM ledger.inbox WHERE raw = '{}'") == 1


@pytest.mark.parametrize("table", ["fills", "orders", "transfers", "balance_history", "discrepancies", "accounts"])
async def test_the_writer_cannot_delete_facts(told: Any, table: str) -> None:
    async with acting_as(told, "sdx_writer"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await told.execute(f"DELETE FROM ledger.{table}")


async def test_the_writer_can_do_all_that_the_service_does(conn: Any) -> None:
    async with acting_as(conn, "sdx_writer"):
        await coverage.register(conn, "main", rest_origin="http://127.0.0.1", key_fingerprint="k")
        assert (await apply(conn, batch())).fills_new == 1
        assert (await apply(conn, batch())).repeated
        gap = await coverage.open_gap(conn, "main", cause="start", until_ms=9)
        assert await coverage.close_gap(conn, "main", gap.gap_id, complete_from_ms=None)
        await coverage.stream_down(conn, "main")
        await coverage.set_mode(conn, "main", "trades")
        await coverage.adopt_key(conn, "main", "k2")
        assert await conn.fetchval("SELECT count(*) FROM ledger_v1.fills") == 1


async def test_the_reader_reads_every_view_and_writes_nothing(told: Any) -> None:
    views = [row[0] for row in await told.fetch("SELECT viewname FROM pg_views WHERE schemaname = 'ledger_v1'")]
    tables = [row[0] for row in await told.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'ledger'")]
    assert (len(views) >= 10, len(tables) >= 13) == (True, True)
    async with acting_as(told, "sdx_reader"):
        for view in views:
            await told.fetch(f"SELECT * FROM ledger_v1.{view}")
        assert await told.fetchval("SELECT count(*) FROM ledger_v1.fills") == 1
        for table in tables:
            for sentence in (f"INSERT INTO ledger.{table} DEFAULT VALUES", f"DELETE FROM ledger.{table}"):
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    await told.execute(sentence)
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await told.execute("UPDATE ledger_v1.fills SET qty = 2")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await apply(told, batch(2))
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await told.execute("CREATE TABLE ledger.notes (account text)")


async def test_anyone_else_sees_nothing(told: Any) -> None:
    await make_roles(told)
    rights = await told.fetch(
        """
        SELECT c.oid::regclass::text AS place FROM pg_class c, aclexplode(c.relacl) a
        WHERE c.relnamespace = ANY ('{ledger,ledger_v1,ledger_read}'::regnamespace[]) AND a.grantee = 0
        UNION ALL
        SELECT p.oid::regprocedure::text FROM pg_proc p
        WHERE p.pronamespace = 'ledger'::regnamespace AND has_function_privilege('public', p.oid, 'EXECUTE')
        UNION ALL
        SELECT n.nspname FROM pg_namespace n
        WHERE n.nspname LIKE 'ledger%' AND has_schema_privilege('public', n.oid, 'USAGE')
        """
    )
    assert rights == []
