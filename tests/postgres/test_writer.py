"""Work handed to a writer is done once the database lets it, whatever a lost session makes the driver say."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from ledger.db import coverage, refusals
from ledger.wire.postgres import UNSENT_BYTES, Writer, is_refusal, refusal
from tests.flows.mirrors import eventually
from tests.patience import stretched

ROUNDS = 20


async def test_a_session_the_server_ends_between_two_statements_is_work_done_again(
    database_url: str, conn: Any
) -> None:
    """The driver may already know of the end and not yet of the closed socket; it has an error of its own for that."""
    writer = Writer(database_url, application="tests writer")
    ended: list[int] = []

    async def work(session: Any) -> int:
        pid = session.get_server_pid()
        if len(ended) <= done:
            ended.append(pid)
            ending = asyncio.create_task(conn.execute("SELECT pg_terminate_backend($1)", pid))
            try:
                for _ in range(1000):
                    await session.execute("SELECT 1")
            finally:
                await ending
        return int(pid)

    try:
        for done in range(ROUNDS):
            assert await writer.run(work) != ended[done]
    finally:
        await writer.close()


async def test_an_error_of_the_drivers_own_costs_the_session_and_not_the_work(database_url: str) -> None:
    writer = Writer(database_url, application="tests writer")
    sessions: list[int] = []

    async def work(session: Any) -> int:
        sessions.append(session.get_server_pid())
        if len(sessions) == 1:
            raise asyncpg.InternalClientError("cannot switch to state 11; another operation (2) is in progress")
        return sessions[-1]

    try:
        assert await writer.run(work) == sessions[1] != sessions[0]
    finally:
        await writer.close()


def test_a_large_call_leaves_at_once_where_the_server_is_reached_by_a_file(conn: Any) -> None:
    stream = conn._transport.get_extra_info("socket")
    if stream.family != socket.AF_UNIX:
        pytest.skip("the server is reached over TCP, which holds what the line needs")
    allowed_bytes = int(Path("/proc/sys/net/core/wmem_max").read_text())
    assert stream.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) >= min(UNSENT_BYTES, allowed_bytes)


# --- what is content, and what is waited out

CONTENT = {
    "22012": "SELECT 1 / 0",
    "22P02": "SELECT 'x'::bigint",
    "22003": "SELECT 1e10::numeric::integer",
    "23514": "INSERT INTO ledger.transfers VALUES ('main', 'BTC', 1, 'gift', 1, 'stream', 1)",
    "23502": "INSERT INTO ledger.transfers VALUES ('main', 'BTC', 1, 'deposit', NULL, 'stream', 1)",
    "23505": "INSERT INTO ledger.observations SELECT 'main', 'snapshot', 'BTC', '1', 1, 1 FROM generate_series(1, 2)",
}
NO_CONTENT = {
    "42501": "DO $$ BEGIN SET LOCAL ROLE pg_monitor; DELETE FROM ledger.fills; END $$",
    "42883": "SELECT ledger.is_not_there(1)",
    "42P01": "SELECT 1 FROM ledger.is_not_there",
    "42703": "SELECT is_not_there FROM ledger.fills",
    "0A000": "SELECT 1 FROM other.ledger.fills",
    "53100": "DO $$ BEGIN RAISE 'no space left' USING ERRCODE = '53100'; END $$",
    "55000": "DO $$ BEGIN RAISE 'not ready' USING ERRCODE = '55000'; END $$",
    "57014": "DO $$ BEGIN PERFORM set_config('statement_timeout', '1', true); RAISE query_canceled; END $$",
    "P0001": "DO $$ BEGIN RAISE 'so it is'; END $$",
    "P0004": "DO $$ BEGIN ASSERT false, 'never'; END $$",
    "XX000": "DO $$ BEGIN RAISE 'cache lookup failed' USING ERRCODE = 'XX000'; END $$",
    "23503": "DO $$ BEGIN RAISE 'no such row' USING ERRCODE = '23503'; END $$",
    "23505": "DO $$ BEGIN RAISE 'twice' USING ERRCODE = '23505'; END $$",
    "23514": "DO $$ BEGIN CREATE TEMP TABLE fills (qty int CONSTRAINT fills_pkey CHECK (qty > 0));"
    " INSERT INTO pg_temp.fills VALUES (0); END $$",
    "23P01": "DO $$ BEGIN RAISE 'overlaps' USING ERRCODE = '23P01', CONSTRAINT = 'fills_pkey'; END $$",
}


async def said(conn: Any, sql: str) -> Exception:
    with pytest.raises(asyncpg.PostgresError) as caught:
        await conn.execute(sql)
    return caught.value


@pytest.mark.parametrize("sqlstate", CONTENT)
async def test_values_and_our_own_rules_are_content(conn: Any, sqlstate: str) -> None:
    error = await said(conn, CONTENT[sqlstate])
    assert (getattr(error, "sqlstate", None), is_refusal(error)) == (sqlstate, True)
    assert refusal(error).startswith(f"refused by the database ({sqlstate}): ")


@pytest.mark.parametrize("sqlstate", NO_CONTENT)
async def test_nothing_else_is_content(conn: Any, sqlstate: str) -> None:
    error = await said(conn, NO_CONTENT[sqlstate])
    assert (getattr(error, "sqlstate", None), is_refusal(error)) == (sqlstate, False)


async def test_a_rule_that_somebody_else_added_is_not_content(conn: Any) -> None:
    await conn.execute("ALTER TABLE ledger.transfers ADD CONSTRAINT no_gifts CHECK (amount < 5)")
    error = await said(conn, "INSERT INTO ledger.transfers VALUES ('main', 'BTC', 1, 'deposit', 7, 'stream', 1)")
    assert not is_refusal(error)


@pytest.mark.parametrize("value", ["a\ud800b", 10**30, "not a number"])
async def test_what_the_driver_cannot_send_is_content(conn: Any, value: object) -> None:
    with pytest.raises(asyncpg.DataError) as caught:
        await conn.fetchval("SELECT $1::text" if str(value).startswith("a") else "SELECT $1::bigint", value)
    assert is_refusal(caught.value)
    assert str(value) not in refusal(caught.value), "the value may be the account's"


def test_a_driver_without_a_connection_is_not_content() -> None:
    assert not is_refusal(asyncpg.InterfaceError("connection is closed"))
    assert not is_refusal(asyncpg.ClientConfigurationError("invalid DSN"))
    assert not is_refusal(TypeError("of our own"))


@asynccontextmanager
async def working(writer: Writer, sql: str) -> AsyncIterator[asyncio.Task[Any]]:
    """Work that a writer is at."""
    task = asyncio.create_task(writer.run(lambda session: session.fetchval(sql)))
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait((task,))
        await writer.close()


PAUSED = "SELECT paused_error FROM ledger.venue_state WHERE account = 'main'"


async def test_work_that_is_refused_waits_says_so_in_status_and_goes_on_by_itself(database_url: str, conn: Any) -> None:
    await coverage.register(conn, "main", rest_origin="http://127.0.0.1", key_fingerprint="k")
    async with working(
        Writer(database_url, application="tests writer", account="main"), "SELECT ledger.soon()"
    ) as task:
        told = await eventually(conn, PAUSED, lambda found: found is not None)
        assert told.startswith("the database refuses to work (42883): function ledger.soon() does not exist; ")
        assert "sdx-ledger db upgrade" in told
        assert await conn.fetchval("SELECT paused_since <= clock_timestamp() FROM ledger.venue_state")
        await conn.execute("CREATE FUNCTION ledger.soon() RETURNS integer LANGUAGE sql AS 'SELECT 7'")
        assert await asyncio.wait_for(task, stretched(30)) == 7
        assert await conn.fetchval(PAUSED) is None


async def test_a_status_that_is_refused_too_is_said_once_it_can_be_and_cleared(database_url: str, conn: Any) -> None:
    await coverage.register(conn, "main", rest_origin="http://127.0.0.1", key_fingerprint="k")
    await conn.execute("ALTER TABLE ledger.venue_state RENAME TO venue_gone")
    writer = Writer(database_url, application="tests writer", account="main")
    async with working(writer, "SELECT ledger.soon()") as task:
        await eventually(conn, "SELECT 1", lambda _: writer.waits)
        await conn.execute("ALTER TABLE ledger.venue_gone RENAME TO venue_state")
        await eventually(conn, PAUSED, lambda found: found is not None)
        await conn.execute("CREATE FUNCTION ledger.soon() RETURNS integer LANGUAGE sql AS 'SELECT 7'")
        assert await asyncio.wait_for(task, stretched(30)) == 7
        assert (writer.waits, await conn.fetchval(PAUSED)) == (False, None)


async def test_content_and_frames_that_overlap_are_raised_at_once(database_url: str) -> None:
    overlap = f"DO $$ BEGIN RAISE 'overlap' USING ERRCODE = '{refusals.FRAMES_OVERLAP}'; END $$"
    for sql, wanted in (("SELECT 1 / 0", "22012"), (overlap, refusals.FRAMES_OVERLAP)):
        async with working(Writer(database_url, application="tests writer"), sql) as task:
            with pytest.raises(asyncpg.PostgresError) as caught:
                await asyncio.wait_for(asyncio.shield(task), stretched(30))
            assert caught.value.sqlstate == wanted


async def test_a_mistake_in_python_is_raised(database_url: str) -> None:
    writer = Writer(database_url, application="tests writer")

    async def wrong(_: Any) -> None:
        raise KeyError("mistake")

    with pytest.raises(KeyError):
        await writer.run(wrong)
    await writer.close()
