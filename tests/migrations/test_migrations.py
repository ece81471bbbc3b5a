"""The migrations: they build what ``ledger.db.tables`` describes, go down and up again, and keep the data."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import create_async_engine

from ledger.db import code
from ledger.db.apply import Entry, apply, build
from ledger.db.code import SCHEMA
from ledger.db.coverage import register
from ledger.db.rows import lay
from ledger.db.tables import metadata
from ledger.errors import DatabaseError
from ledger.facts.identity import SessionMemory
from ledger.facts.types import Balance, Exact, Fill, Order
from ledger.wire import postgres, schema
from tests.conftest import in_database
from tests.patience import stretched

UNASKED = {
    "require-lock-timeout": "the program's own connection sets one",
    "require-statement-timeout": "an index on a large table may take its time",
    "prefer-text-field": "alembic's own table",
    "prefer-bigint-over-int": "places in a frame, counts of one gap",
    "prefer-bigint-over-smallint": "ranks from -1 to 3",
    "require-concurrent-index-deletion": "in one transaction with the rest",
    "ban-drop-constraint": "the same statement puts another in its place",
    "constraint-missing-not-valid": "an upgrade reads the tables once",
    "ban-drop-function": "laid anew in the same transaction",
    "ban-drop-table": "its rows move into the table that takes its place",
    "ban-drop-column": "its values move into the table that takes its place",
}
"""Rules of squawk that do not fit here, and why."""

ROOT = Path(__file__).parents[2]

SHAPE = """
SELECT * FROM (
    SELECT format('%s.%s %s is a %s: %s', n.nspname, c.relname, a.attname, format_type(a.atttypid, a.atttypmod),
                  concat_ws(', ', CASE WHEN a.attnotnull THEN 'not null' END, pg_get_expr(d.adbin, d.adrelid),
                            col_description(c.oid, a.attnum))) AS line
    FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
    LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
    WHERE n.nspname = ANY ($1) AND a.attnum > 0 AND NOT a.attisdropped AND c.relkind IN ('r', 'v', 'p', 'm', 'f')
    UNION ALL
    SELECT format('%s %s: %s', o.conrelid::regclass, o.conname, pg_get_constraintdef(o.oid))
    FROM pg_constraint o WHERE o.connamespace = ANY ($1::regnamespace[]) AND o.contype <> 'n'
    UNION ALL
    SELECT pg_get_indexdef(i.indexrelid) FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
    WHERE c.relnamespace = ANY ($1::regnamespace[])
    UNION ALL
    SELECT format('%s %s: %s', c.relkind, c.oid::regclass, obj_description(c.oid, 'pg_class')) FROM pg_class c
    WHERE c.relnamespace = ANY ($1::regnamespace[]) AND c.relkind <> 'i'
    UNION ALL
    SELECT pg_get_viewdef(c.oid) FROM pg_class c WHERE c.relnamespace = ANY ($1::regnamespace[]) AND c.relkind = 'v'
    UNION ALL
    SELECT pg_get_functiondef(p.oid) FROM pg_proc p WHERE p.pronamespace = ANY ($1::regnamespace[])
    UNION ALL
    SELECT format('type %s', t.oid::regtype) FROM pg_type t
    WHERE t.typnamespace = ANY ($1::regnamespace[]) AND t.typtype <> 'b' AND t.typrelid = 0
) shape ORDER BY line COLLATE "C"
"""


async def shape(conn: Any, *schemas: str) -> list[str]:
    """Everything the catalogue knows of the schemas, alembic's own table left out."""
    rows = await conn.fetch(SHAPE, list(schemas))
    return [row["line"] for row in rows if "alembic_version" not in row["line"]]


@pytest.fixture
async def empty_url(server_url: str) -> AsyncIterator[str]:
    """A database nothing was done to."""
    name = f"sdx_empty_{uuid4().hex[:12]}"
    server = await postgres.connect(server_url, application="tests")
    await server.execute(f"CREATE DATABASE {name} ENCODING 'UTF8' TEMPLATE template0")
    yield in_database(server_url, name)
    await server.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await server.close()


@pytest.fixture
async def empty(empty_url: str) -> AsyncIterator[Any]:
    """A connection to it."""
    connection = await postgres.connect(empty_url, application="tests")
    yield connection
    await connection.close()


async def tell_a_story(conn: Any) -> None:
    await register(conn, "main", rest_origin="http://127.0.0.1", key_fingerprint="k")
    facts = (
        Order("BTCUSDT", 1, status="FILLED", side="BUY", executed_qty=Exact("0.01"), updated_ms=5),
        Fill("BTCUSDT", 1, "BUY", Exact("64000.00"), Exact("0.01"), 5, trade_id=7),
        Balance("BTC", Exact("0.01"), Exact("0"), 5),
    )
    entry = Entry(1, 5, "told", 5, b"{}", None, lay(facts))
    await apply(conn, build("main", UUID(int=1), "stream", [entry], SessionMemory()))


async def rows_of_every_table(conn: Any) -> dict[str, list[Any]]:
    names = [f"{SCHEMA}.{table.name}" for table in metadata.sorted_tables]
    return {name: await conn.fetch(f"SELECT * FROM {name} t ORDER BY t::text") for name in names}


def alembic(*words: str) -> str:
    """What alembic prints when it is run by hand in the repository, without any database."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SDX_")}
    done = subprocess.run(
        [sys.executable, "-m", "alembic", *words],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=stretched(60),
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


async def test_alembic_finds_no_difference_between_the_migrations_and_the_tables(database_url: str) -> None:
    def differences(connection: Connection) -> list[Any]:
        options = {
            "include_schemas": True,
            "include_name": lambda name, kind, _: kind != "schema" or name == SCHEMA,
            "include_object": lambda _, name, *__: name != "alembic_version",
            "compare_type": True,
            "compare_server_default": True,
        }
        found: list[Any] = compare_metadata(MigrationContext.configure(connection, opts=options), metadata)
        return found

    engine = create_async_engine(
        "postgresql+asyncpg://", async_creator=lambda: postgres.connect(database_url, application="tests")
    )
    async with engine.connect() as connection:
        assert await connection.run_sync(differences) == []
    await engine.dispose()


async def test_the_catalogue_shows_no_difference_either(conn: Any, empty_url: str, empty: Any) -> None:
    """Checks, comments, partial indexes: what alembic does not compare."""
    await empty.execute(f"CREATE SCHEMA {SCHEMA}")
    engine = create_async_engine(
        "postgresql+asyncpg://", async_creator=lambda: postgres.connect(empty_url, application="tests")
    )
    async with engine.begin() as connection:
        await connection.run_sync(metadata.create_all)
    await engine.dispose()
    described = await shape(empty, SCHEMA)
    # Functions and their types are code and no part of the metadata.
    migrated = [line for line in await shape(conn, SCHEMA) if not line.startswith(("CREATE OR REPLACE", "type", "c "))]
    migrated = [line for line in migrated if "order_standing" not in line]
    assert migrated == described
    assert sum(" CHECK " in line for line in described) >= 19


async def test_down_leaves_nothing_and_up_again_gives_the_same(empty_url: str, empty: Any) -> None:
    await schema.upgrade(empty_url)
    before = await shape(empty, "ledger", "ledger_v1", "ledger_read")
    await tell_a_story(empty)
    await schema.downgrade(empty_url, "base")
    assert await shape(empty, "ledger", "ledger_v1") == []
    assert await empty.fetchval("SELECT to_regnamespace('ledger_read')") is None
    assert await postgres.installed_revision(empty) is None
    assert await schema.upgrade(empty_url) == code.NEWEST
    assert await shape(empty, "ledger", "ledger_v1", "ledger_read") == before
    assert len(before) > 200


async def test_upgrading_again_lays_the_code_anew_and_keeps_the_data(conn: Any, database_url: str) -> None:
    await tell_a_story(conn)
    rows, before = await rows_of_every_table(conn), await shape(conn, "ledger", "ledger_v1", "ledger_read")
    await conn.execute("DROP VIEW ledger_v1.fills; DROP FUNCTION ledger.beat")
    await schema.upgrade(database_url)
    assert await shape(conn, "ledger", "ledger_v1", "ledger_read") != before, (
        "a start leaves a schema of its own version alone"
    )
    with_code = await schema.upgrade(database_url, anew=True)
    assert with_code == await postgres.installed_revision(conn) == code.NEWEST
    assert await shape(conn, "ledger", "ledger_v1", "ledger_read") == before
    assert await rows_of_every_table(conn) == rows
    assert len(rows["ledger.fills"]) == 1


async def test_a_journal_from_before_the_chain_is_sealed_as_it_stands(conn: Any, database_url: str) -> None:
    await tell_a_story(conn)
    await schema.downgrade(database_url, "0001")
    await conn.execute(
        "INSERT INTO ledger.inbox SELECT account, seq + 1, source, session_id, frame_no + 1, received_at, kind,"
        " venue_ms, asked_seq, question, raw, 'odd' FROM ledger.inbox; UPDATE ledger.accounts SET head_seq = 2"
    )
    await schema.upgrade(database_url)
    sealed = await conn.fetch("SELECT account, first_seq, last_seq FROM ledger.batches")
    assert [tuple(row) for row in sealed] == [("main", 1, 2)]
    assert await conn.fetch("SELECT * FROM ledger.broken_chain('main')") == []
    again = build("main", UUID(int=2), "stream", [Entry(1, 5, "told", 5, b"{}", None, ())], SessionMemory())
    assert (await apply(conn, again)).last_seq == 3
    assert await conn.fetch("SELECT * FROM ledger.broken_chain('main')") == []


async def test_the_code_of_another_program_is_replaced_by_itself(conn: Any, database_url: str) -> None:
    before = await shape(conn, "ledger", "ledger_v1", "ledger_read")
    await conn.execute("DROP FUNCTION ledger.beat; COMMENT ON SCHEMA ledger IS 'sdx-ledger code of-another-release'")
    await schema.upgrade(database_url)
    assert await shape(conn, "ledger", "ledger_v1", "ledger_read") == before
    await postgres.check_schema(conn)


async def test_two_services_that_start_at_once_upgrade_one_after_the_other(empty_url: str, empty: Any) -> None:
    both = await asyncio.gather(*(schema.upgrade(empty_url) for _ in range(2)))
    assert both == [code.NEWEST] * 2
    await postgres.check_schema(empty)


@pytest.mark.parametrize(
    "held",
    [f"SELECT pg_advisory_lock({schema.UPGRADE_LOCK})", "BEGIN; TABLE ledger_v1.fills"],
    ids=["the lock of upgrades", "a view"],
)
async def test_an_upgrade_that_somebody_keeps_waiting_ends_and_says_who(
    conn: Any, database_url: str, held: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres, "LOCK_WAIT_MS", 200)
    await conn.execute("SET idle_in_transaction_session_timeout = 0")
    await conn.execute("COMMENT ON SCHEMA ledger IS 'sdx-ledger code of-another-release'")
    await conn.execute(held)
    pid, role = await conn.fetchrow("SELECT pg_backend_pid(), current_user")
    with pytest.raises(DatabaseError) as told:
        await schema.upgrade(database_url)
    words = str(told.value)
    assert words == (
        f"cannot upgrade the database: it waited 0.2 s for a lock that is held by process {pid} (tests, as {role}); "
        "end that program, or SELECT pg_terminate_backend(process), then run it again"
    )

    await conn.execute("ROLLBACK; SELECT pg_advisory_unlock_all()")
    assert await schema.upgrade(database_url) == code.NEWEST


async def test_a_schema_newer_than_the_program_is_refused_and_left_alone(conn: Any, database_url: str) -> None:
    await conn.execute("UPDATE ledger.alembic_version SET version_num = '9999'")
    before = await shape(conn, "ledger", "ledger_v1", "ledger_read")
    for refused in (schema.upgrade(database_url), postgres.check_schema(conn)):
        with pytest.raises(DatabaseError, match=r"schema 9999, which is newer .* install a newer sdx-ledger"):
            await refused
    assert await shape(conn, "ledger", "ledger_v1", "ledger_read") == before


def test_the_versions_that_the_program_knows_are_those_of_the_migrations() -> None:
    scripts = ScriptDirectory(str(ROOT / "migrations"))
    assert tuple(reversed([script.revision for script in scripts.walk_revisions()])) == code.REVISIONS


async def test_a_database_without_a_ledger_is_told_how_to_get_one(empty: Any) -> None:
    with pytest.raises(DatabaseError, match="holds no ledger yet; run: sdx-ledger db upgrade"):
        await postgres.check_schema(empty)


async def test_a_database_with_the_code_of_another_version_is_told_to_upgrade(conn: Any, database_url: str) -> None:
    await postgres.check_schema(conn)
    await conn.execute("COMMENT ON SCHEMA ledger IS 'sdx-ledger code 0123456789abcdef'")
    with pytest.raises(DatabaseError, match="run: sdx-ledger db upgrade"):
        await postgres.check_schema(conn)
    await schema.upgrade(database_url)
    await postgres.check_schema(conn)
    assert await conn.fetchval(code.INSTALLED_DIGEST) == code.digest()


async def test_the_script_that_alembic_prints_builds_the_same_database(conn: Any, empty: Any) -> None:
    await empty.execute(alembic("upgrade", "head", "--sql"))
    assert await shape(empty, "ledger", "ledger_v1", "ledger_read") == await shape(
        conn, "ledger", "ledger_v1", "ledger_read"
    )
    await postgres.check_schema(empty)


def test_the_script_that_alembic_prints_passes_squawk(tmp_path: Path) -> None:
    squawk = shutil.which("squawk", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if squawk is None:
        assert not os.environ.get("CI"), "squawk is not installed"
        pytest.skip("squawk is not installed")
    script = tmp_path / "upgrade.sql"
    script.write_text(alembic("upgrade", "head", "--sql"), "utf-8")
    done = subprocess.run(
        [squawk, "--exclude", ",".join(UNASKED), str(script)], capture_output=True, text=True, timeout=stretched(60)
    )
    assert done.returncode == 0, done.stdout
