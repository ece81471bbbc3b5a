"""The contract other people's queries rely on: names, types and order of views and functions, with comments on all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

GOLDEN = Path(__file__).with_name("contract_v1.txt")
GOLDEN_FUNCTIONS = Path(__file__).with_name("contract_v1_functions.txt")


async def test_the_views_are_as_promised(conn: Any) -> None:
    """A column more at the end of a view is a new line in the file; any other difference is a ledger_v2."""
    columns = await conn.fetch(
        """
        SELECT format('%s %s %s %s', c.relname, row_number() OVER (PARTITION BY c.oid ORDER BY a.attnum), a.attname,
                      format_type(a.atttypid, a.atttypmod)) AS line
        FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
        WHERE c.relnamespace = 'ledger_v1'::regnamespace AND a.attnum > 0 AND NOT a.attisdropped
        ORDER BY c.relname COLLATE "C", a.attnum
        """
    )
    assert "".join(row["line"] + "\n" for row in columns) == GOLDEN.read_text("utf-8")


async def test_the_functions_are_as_promised(conn: Any) -> None:
    functions = await conn.fetch(
        """
        SELECT format('%s(%s) %s', p.proname, pg_get_function_identity_arguments(p.oid), pg_get_function_result(p.oid))
                   AS line,
               p.prosecdef OR p.provolatile = 'v' AS is_risky, obj_description(p.oid, 'pg_proc') AS says,
               has_function_privilege('public', p.oid, 'EXECUTE') AS for_all
        FROM pg_proc p WHERE p.pronamespace = 'ledger_v1'::regnamespace ORDER BY p.proname, p.proargtypes::text
        """
    )
    assert "".join(row["line"] + "\n" for row in functions) == GOLDEN_FUNCTIONS.read_text("utf-8")
    assert [row["line"] for row in functions if row["is_risky"] or row["for_all"] or not row["says"]] == []


async def test_the_schema_of_the_contract_holds_no_table(conn: Any) -> None:
    kinds = await conn.fetch("SELECT relname, relkind FROM pg_class WHERE relnamespace = 'ledger_v1'::regnamespace")
    assert {row["relkind"] for row in kinds} == {b"v"}


async def test_no_view_asks_whoever_reads_it_for_a_right_on_what_is_beneath(conn: Any) -> None:
    asking = await conn.fetch(
        """
        SELECT relname FROM pg_class WHERE relnamespace = ANY ('{ledger_v1,ledger_read}'::regnamespace[])
        AND reloptions::text LIKE '%security_invoker%'
        """
    )
    assert asking == []


async def test_every_table_view_and_column_says_what_it_is(conn: Any) -> None:
    silent = await conn.fetch(
        """
        SELECT c.oid::regclass::text AS place, a.attname AS column FROM pg_class c
        LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum >= 0 AND NOT a.attisdropped
        WHERE c.relnamespace = ANY ('{ledger,ledger_v1,ledger_read}'::regnamespace[]) AND c.relkind IN ('r', 'p', 'v')
        AND c.relname <> 'alembic_version'
        AND coalesce(col_description(c.oid, a.attnum), '') = ''
        UNION ALL
        SELECT c.oid::regclass::text, NULL FROM pg_class c
        WHERE c.relnamespace = ANY ('{ledger,ledger_v1,ledger_read}'::regnamespace[]) AND c.relkind IN ('r', 'p', 'v')
        AND c.relname <> 'alembic_version' AND coalesce(obj_description(c.oid, 'pg_class'), '') = ''
        """
    )
    assert silent == []


async def test_a_number_that_is_a_time_says_its_unit(conn: Any) -> None:
    vague = await conn.fetch(
        """
        SELECT c.oid::regclass::text AS place, a.attname AS column, col_description(c.oid, a.attnum) AS says
        FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0
        WHERE c.relnamespace = ANY ('{ledger,ledger_v1,ledger_read}'::regnamespace[]) AND c.relkind IN ('r', 'v')
        AND a.attname LIKE '%\\_ms' AND col_description(c.oid, a.attnum) !~ '\\mms\\M'
        """
    )
    assert vague == []
