"""Who may do what in the database, as a matrix: role by object by verb, compared with a file that people read.

A difference is a decision: look at it, then write what is shown into ``roles.txt``.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit
from uuid import UUID

import asyncpg
import pytest

from ledger import verify
from ledger.db import coverage, explain, reads
from ledger.db.apply import Entry, apply, build
from ledger.export.csv_files import FORMATS
from ledger.facts.identity import SessionMemory
from ledger.wire import postgres
from ledger.wire.heads import Head
from tests.flows.processes import bench

GOLDEN = Path(__file__).with_name("roles.txt")
ROLES = ("sdx_writer", "sdx_reader")
MATRIX = """
    WITH objects AS (
        SELECT c.oid, c.relacl IS NOT NULL AS is_table, format('%s.%s', n.nspname, c.relname) AS name
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE n.nspname LIKE 'ledger%' AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
    ), verbs (verb) AS (
        VALUES ('SELECT'), ('INSERT'), ('UPDATE'), ('DELETE'), ('TRUNCATE'), ('REFERENCES'), ('TRIGGER')
    )
    SELECT o.name || ' ' || $1 || ' ' || coalesce(string_agg(
        CASE WHEN has_table_privilege($1, o.oid, v.verb) THEN v.verb
        ELSE (
            SELECT v.verb || ' but ' || string_agg(a.attname, ', ' ORDER BY a.attname)
                FILTER (WHERE NOT has_column_privilege($1, o.oid, a.attnum, v.verb))
            FROM pg_attribute a WHERE a.attrelid = o.oid AND a.attnum > 0 AND NOT a.attisdropped
            HAVING bool_or(has_column_privilege($1, o.oid, a.attnum, v.verb))
        ) END, ' ' ORDER BY v.verb COLLATE "C"
    ) FILTER (WHERE v.verb NOT IN ('DELETE', 'TRUNCATE', 'TRIGGER') OR has_table_privilege($1, o.oid, v.verb)), '-')
        AS line
    FROM objects o CROSS JOIN verbs v GROUP BY o.name, o.oid
    UNION ALL
    SELECT format('%s.%s() %s %s', n.nspname, p.proname, $1::text, coalesce(
        CASE WHEN bool_or(has_function_privilege($1, p.oid, 'EXECUTE')) THEN 'EXECUTE' END, '-')
        || CASE WHEN bool_or(p.prosecdef) THEN ' AS OWNER' ELSE '' END)
    FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname LIKE 'ledger%'
    GROUP BY n.nspname, p.proname
    UNION ALL
    SELECT format('schema %s %s %s', n.nspname, $1::text, coalesce(nullif(concat_ws(' ',
        CASE WHEN has_schema_privilege($1, n.oid, 'CREATE') THEN 'CREATE' END,
        CASE WHEN has_schema_privilege($1, n.oid, 'USAGE') THEN 'USAGE' END), ''), '-'))
    FROM pg_namespace n WHERE n.nspname LIKE 'ledger%'
"""
SHOWN = """
    SELECT format('%s shows %s', c.oid::regclass, string_agg(a.attname, ', ' ORDER BY a.attname COLLATE "C")) AS line
    FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0
    WHERE c.relnamespace = 'ledger_read'::regnamespace GROUP BY c.oid
"""
"""What the views show that are no contract, whoever may read them."""


async def matrix(conn: Any) -> str:
    lines = [row["line"] for row in await conn.fetch(SHOWN)]
    for role in ("public", *ROLES):
        if role != "public" and not await conn.fetchval("SELECT 1 FROM pg_roles WHERE rolname = $1", role):
            pytest.skip(f"this server has no role {role}")
        name = role if role != "public" else await stranger(conn)
        lines += [row["line"].replace(f" {name} ", f" {role} ") for row in await conn.fetch(MATRIX, name)]
    return "".join(f"{line}\n" for line in sorted(lines))


async def stranger(conn: Any) -> str:
    """A role without any right of its own."""
    await conn.execute("DROP ROLE IF EXISTS sdx_stranger; CREATE ROLE sdx_stranger")
    return "sdx_stranger"


async def test_who_may_do_what_is_as_written(conn: Any) -> None:
    async with conn.transaction():
        shown = await matrix(conn)

    assert shown == GOLDEN.read_text("utf-8"), f"what is true now:\n{shown}"


async def test_a_stranger_may_do_nothing(conn: Any) -> None:
    lines = [line for line in GOLDEN.read_text("utf-8").splitlines() if " public " in line]

    assert lines
    assert [line for line in lines if not line.endswith(("-", "- AS OWNER"))] == []


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT key_fingerprint FROM ledger.accounts",
        "SELECT account FROM ledger.accounts",
        "SELECT key_digest FROM ledger.venue_state",
        "TABLE ledger.fills",
        "INSERT INTO ledger.alembic_version VALUES ('9999')",
        "TABLE ledger.observations",
        "SELECT ledger.register('main', NULL, NULL)",
        "SELECT * FROM ledger.truth_at('main', 'BTC', 0)",
    ],
)
async def test_a_reader_sees_nothing_beneath_the_views(database_url: str, sql: str) -> None:
    async with connected(database_url, "sdx_reader") as reader:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await reader.fetch(sql)


async def test_no_view_shows_a_hash_of_a_key(conn: Any) -> None:
    hashes = await conn.fetch(
        """
        SELECT attrelid::regclass::text AS view, attname FROM pg_attribute
        WHERE attrelid::regclass::text ~ '^ledger_(v1|read)[.]' AND attname ~ 'fingerprint|key_'
        """
    )

    assert hashes == []


async def test_every_check_runs_with_the_readers_rights(database_url: str, conn: Any) -> None:
    await conn.execute("SELECT ledger.register('main', 'https://api.example.com', NULL)")

    async with connected(database_url, "sdx_reader") as reader:
        report = await verify.verify(reader, "main", now_ms=0, head=Head("main", 0, "", 0), strict=True)
        assert await reads.symbols(reader, "main") == []
        assert await reads.balances(reader, "main") == {}

    assert [verdict.name for verdict in report.verdicts[:-1]] == [check.name for check in verify.checks()]


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO ledger.alembic_version VALUES ('9999')",
        "UPDATE ledger.alembic_version SET version_num = '9999'",
        "INSERT INTO ledger.inbox SELECT * FROM ledger.inbox",
        "INSERT INTO ledger.batches SELECT * FROM ledger.batches",
        "UPDATE ledger.inbox SET problem = ''",
        "DELETE FROM ledger.inbox",
        "DELETE FROM ledger.gaps",
        "TRUNCATE ledger.fills",
        "ALTER TABLE ledger.inbox DISABLE TRIGGER ALL",
        "CREATE TABLE ledger.x ()",
        "UPDATE ledger.fills SET price = 1",
        "UPDATE ledger.gaps SET closed_at = now()",
        "UPDATE ledger.accounts SET fence = fence + 1",
        "DELETE FROM ledger.order_checks",
        # What the entry functions call is the owner's to call.
        "SELECT ledger.beat('main', 9)",
        "SELECT ledger.doubt('main', 'made_up', 's', NULL, NULL, 1, now())",
        "SELECT ledger.leave_quarantine('main', 1, 1, now())",
        "SELECT ledger.lock_account('main', NULL)",
    ],
)
async def test_the_writer_changes_nothing_but_through_entry_functions(database_url: str, sql: str) -> None:
    async with connected(database_url, "sdx_writer") as writer:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await writer.execute(sql)


async def test_a_journal_row_cannot_be_forged_and_one_of_the_entry_function_is_in_the_chain(
    database_url: str, conn: Any
) -> None:
    frame = Entry(1, 5, "told", 5, b"{}", None, ())
    async with connected(database_url, "sdx_writer") as writer:
        await coverage.register(writer, "main")
        await apply(writer, build("main", UUID(int=1), "stream", [frame], SessionMemory()))

        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="permission denied for table inbox"):
            await writer.execute(
                "INSERT INTO ledger.inbox (account, seq, source, session_id, frame_no, received_at, kind, raw)"
                " SELECT account, 2, source, session_id, 2, received_at, kind, raw FROM ledger.inbox"
            )
        assert await writer.fetch("SELECT * FROM ledger.broken_chain('main')") == []

    assert await conn.fetchval("SELECT count(*) FROM ledger.inbox") == 1


async def test_whoever_runs_as_the_owner_takes_no_name_from_the_callers_search_path(conn: Any) -> None:
    entries = await conn.fetch(
        "SELECT oid::regprocedure::text AS name, proconfig FROM pg_proc"
        " WHERE pronamespace::regnamespace::text LIKE 'ledger%' AND prosecdef"
    )

    assert len(entries) > 30
    assert [row["name"] for row in entries if "search_path=pg_catalog, pg_temp" not in (row["proconfig"] or ())] == []


async def test_what_a_role_may_call_runs_as_the_owner_or_writes_nothing(conn: Any) -> None:
    others = await conn.fetch(
        """
        SELECT DISTINCT p.proname FROM pg_proc p CROSS JOIN unnest($1::text[]) AS role
        WHERE p.pronamespace = 'ledger'::regnamespace AND has_function_privilege(role, p.oid, 'EXECUTE')
        AND NOT p.prosecdef AND (p.provolatile = 'v' OR p.prosrc ~* '\\m(insert|update|delete)\\M')
        """,
        list(ROLES),
    )

    # The clock alone changes from one look to the next.
    assert [row["proname"] for row in others] == ["clock"]


async def test_every_function_writes_the_schema_of_what_it_names(conn: Any) -> None:
    """The search path finds none of ours, so a name without its schema is a mistake that shows at the first call."""
    functions = await conn.fetch(
        "SELECT proname, prosrc FROM pg_proc WHERE pronamespace::regnamespace::text LIKE 'ledger%'"
    )
    tables = await conn.fetch("SELECT relname FROM pg_class WHERE relnamespace = 'ledger'::regnamespace")
    called = "|".join({row["proname"] for row in functions})
    looked_at = "|".join(row["relname"] for row in tables)
    bare = re.compile(rf"(?<![\w.])(?:{called})\(|\b(?:FROM|JOIN|INTO|UPDATE)\s+(?:{looked_at})\b")

    def code_of(body: str) -> str:
        return re.sub(r"--[^\n]*|'[^']*'", "", body)

    assert bare.search(code_of("PERFORM ledger.beat(1); SELECT 1 FROM ledger.fills -- beat(\n")) is None
    assert bare.search(code_of("PERFORM beat(1)"))
    assert bare.search(code_of("SELECT 1 FROM fills"))
    assert {row["proname"]: found[0] for row in functions if (found := bare.search(code_of(row["prosrc"])))} == {}


async def test_an_entry_function_runs_nothing_that_its_caller_put_into_the_search_path(
    database_url: str, conn: Any
) -> None:
    await conn.execute(
        """
        GRANT CREATE ON SCHEMA public TO PUBLIC;
        SET ROLE sdx_reader;
        CREATE FUNCTION public.array_position(text[], text) RETURNS integer LANGUAGE plpgsql AS $$
            BEGIN RAISE EXCEPTION 'shadow of array_position ran as %', current_user; END $$;
        RESET ROLE
        """
    )
    async with connected(database_url, "sdx_writer") as writer:
        await coverage.register(writer, "main")
        await writer.execute("SET search_path = public, pg_catalog")

        with pytest.raises(asyncpg.RaiseError, match="shadow of array_position ran as sdx_writer"):
            await writer.fetchval("SELECT array_position(ARRAY['a'], 'a'::text)")
        assert await explain.learn_markets(writer, "main", {"BTCUSDT": ("BTC", "USDT")}, source="venue") == 1


READING = [
    ("status",),
    ("account", "list"),
    ("discrepancy", "list"),
    ("quarantine", "list"),
    ("doctor",),
    *(("export", name, "--from", "2026-01-01", "--to", "2026-01-02") for name in FORMATS),
]


async def test_every_command_that_reads_works_with_the_readers_rights(
    database_url: str, conn: Any, tmp_path: Path
) -> None:
    await conn.execute("SELECT ledger.register('main', 'https://api.example.com', NULL)")
    settings = {
        "SDX_DATABASE_URL": "postgresql://nobody@127.0.0.1:9/none",
        "SDX_READ_DATABASE_URL": as_role(database_url, "sdx_reader"),
    }
    with bench(tmp_path, settings) as programs:
        for words in READING:
            code, out, err = await programs.done(*words)
            assert (code, "permission denied" in out + err) == (3 if words == ("doctor",) else 0, False), out + err


async def test_doctor_names_a_schema_public_that_is_open(database_url: str, conn: Any, tmp_path: Path) -> None:
    def of_public(found: str) -> list[str]:
        return [one["verdict"] for one in json.loads(found)["findings"] if one["what"] == "schema public"]

    with bench(tmp_path, {"SDX_DATABASE_URL": database_url}) as programs:
        _, shut, _ = await programs.done("doctor", "--json")
        await conn.execute("GRANT CREATE ON SCHEMA public TO PUBLIC")
        _, wide_open, _ = await programs.done("doctor", "--json")

    assert (of_public(shut), of_public(wide_open)) == ([], ["warning"])


# What somebody else put into the search path.

SHADOWS = """
    GRANT CREATE ON SCHEMA public TO PUBLIC;
    SET ROLE sdx_reader;
    CREATE FUNCTION public.unnest(text[]) RETURNS SETOF text LANGUAGE plpgsql AS $$
        BEGIN RAISE EXCEPTION 'shadow of unnest ran as %', current_user; END $$;
    CREATE FUNCTION public.cardinality(text[]) RETURNS integer LANGUAGE plpgsql AS $$
        BEGIN RAISE EXCEPTION 'shadow of cardinality ran as %', current_user; END $$;
    RESET ROLE
"""


async def test_nothing_that_others_put_into_public_runs_in_our_connections(database_url: str, conn: Any) -> None:
    await conn.execute(SHADOWS)

    for role in ("", "sdx_writer", "sdx_reader"):
        url = as_role(database_url, role) if role else database_url
        ours = await postgres.connect(url, application="test")
        try:
            assert await ours.fetchval("SHOW search_path") == "pg_catalog, pg_temp"
            assert [row["unnest"] for row in await ours.fetch("SELECT unnest($1::text[])", ["a", "b"])] == ["a", "b"]
            assert await ours.fetchval("SELECT cardinality($1::text[])", ["a"]) == 1
        finally:
            await ours.close()

    # The shadows are real: whoever has public in the path runs them.
    await conn.execute("SET search_path = public")
    with pytest.raises(asyncpg.RaiseError, match="shadow of cardinality ran as "):
        await conn.fetchval("SELECT cardinality($1::text[])", ["a"])


@asynccontextmanager
async def connected(url: str, role: str) -> AsyncIterator[Any]:
    """A connection as that role."""
    made = await postgres.connect(as_role(url, role), application="test")
    try:
        yield made
    finally:
        await made.close()


def as_role(url: str, role: str) -> str:
    """The URL of the same database for another role."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=f"{role}@{parts.netloc.rpartition('@')[2]}")).replace(
        "postgresql:///", f"postgresql://{role}@/"
    )
