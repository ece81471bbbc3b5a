"""The database goes away, loses answers, refuses and runs full behind a living stream: nothing is lost or doubled."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest

from ledger import app
from ledger.app import Database
from ledger.sandbox.server import Sandbox
from ledger.wire import postgres
from ledger.wire.socket import FrameBuffer
from tests.flows.mirrors import ALL_MARKETS, eventually, gap, gaps_closed, holds, mirroring, settings_for, venue
from tests.flows.proxy import Proxy, before_database, through

STREAM_FRAMES = "SELECT stream_frames FROM ledger.accounts WHERE account = 'main'"
WAITING = (
    "SELECT query_start FROM pg_stat_activity WHERE datname = current_database()"
    " AND application_name = 'sdx-ledger stream main' AND state = 'active' AND wait_event_type = 'Lock'"
)
REFUSED = "problem LIKE 'refused by the database (23514):%fills_source_is_known%'"
NO_FEE_IN_BTC = """
    ALTER TABLE ledger.fills DROP CONSTRAINT fills_source_is_known;
    ALTER TABLE ledger.fills ADD CONSTRAINT fills_source_is_known
        CHECK (source IN ('stream', 'rest') AND fee_asset <> 'BTC') NOT VALID
"""
"""A rule of our own, made narrower: stands for whatever the reader lets through and a table does not take."""
FEE_IN_BTC = NO_FEE_IN_BTC.replace(" AND fee_asset <> 'BTC'", "")
FROM_REST = "SELECT count(*) FROM ledger_v1.fills WHERE source = 'rest'"


@asynccontextmanager
async def mirrored(
    database_url: str, conn: Any, dialect: str = "full", **settings: Any
) -> AsyncIterator[tuple[Sandbox, Proxy]]:
    """A mirror that reaches its database through a proxy, its first gap closed; REST heals nothing but gaps."""
    async with venue(dialect) as sandbox, before_database(database_url) as proxy:
        await sandbox.step(40)
        chosen = settings_for(sandbox, **{"reconcile_every_s": 300, "symbols": ALL_MARKETS, **settings})
        async with mirroring(chosen, through(proxy, database_url)):
            await gaps_closed(conn, 1)
            yield sandbox, proxy


@asynccontextmanager
async def locked_account(database_url: str) -> AsyncIterator[None]:
    """Somebody else holds the account's row: every call of the mirror waits for it."""
    other = await postgres.connect(database_url, application="tests lock")
    try:
        await other.execute("SET idle_in_transaction_session_timeout = 0")
        async with other.transaction():
            await other.execute("SELECT FROM ledger.accounts FOR UPDATE")
            yield
    finally:
        await other.close()


async def complete_through_ms(conn: Any, symbol: str) -> int:
    """Up to when a market is covered, 0 where nothing is."""
    sql = "SELECT complete_through_ms FROM ledger_v1.coverage WHERE symbol = $1"
    return await conn.fetchval(sql, symbol) or 0


async def nothing_but_the_stream(conn: Any, sandbox: Sandbox, from_rest: int) -> None:
    """Every frame is in the journal once, and the stream alone told every new fill."""
    await eventually(conn, STREAM_FRAMES, lambda found: found >= sandbox.frames_sent)
    assert await conn.fetchval(STREAM_FRAMES) == sandbox.frames_sent
    assert await conn.fetchval("SELECT count(*) FROM ledger_v1.journal WHERE source = 'stream'") == sandbox.frames_sent
    proof = await holds(conn, sandbox, gaps=1)
    assert proof.fills == proof.venue_fills > from_rest
    assert await conn.fetchval(FROM_REST) == from_rest


async def test_frames_wait_for_a_database_that_is_away(database_url: str, conn: Any) -> None:
    async with mirrored(database_url, conn) as (sandbox, proxy):
        from_rest, known = await conn.fetchval(FROM_REST), await conn.fetchval(STREAM_FRAMES)
        proxy.go_away()
        await sandbox.step(100)
        assert await conn.fetchval(STREAM_FRAMES) == known
        proxy.come_back()
        await nothing_but_the_stream(conn, sandbox, from_rest)


async def test_a_commit_whose_answer_was_lost_is_there_once(database_url: str, conn: Any) -> None:
    async with mirrored(database_url, conn) as (sandbox, proxy):
        from_rest = await conn.fetchval(FROM_REST)
        proxy.lose_answer_to(b"executionReport")
        await sandbox.step(60)
        await nothing_but_the_stream(conn, sandbox, from_rest)
        assert proxy.answers_lost == 1
        twice = "SELECT count(*) - count(DISTINCT (session_id, frame_no)) FROM ledger_v1.journal"
        assert await conn.fetchval(twice) == 0


async def test_a_backend_killed_in_the_middle_of_a_call_costs_nothing(database_url: str, conn: Any) -> None:
    async with mirrored(database_url, conn) as (sandbox, _):
        from_rest = await conn.fetchval(FROM_REST)
        async with locked_account(database_url):
            await sandbox.step(60)
            await eventually(conn, WAITING, lambda since: since is not None)
            killed = WAITING.replace("query_start", "bool_and(pg_terminate_backend(pid))")
            assert await conn.fetchval(killed)
            await sandbox.step(20)
        await nothing_but_the_stream(conn, sandbox, from_rest)


async def test_a_lock_that_outlasts_the_time_allowed_is_waited_for_again(database_url: str, conn: Any) -> None:
    async with mirrored(database_url, conn) as (sandbox, _):
        from_rest = await conn.fetchval(FROM_REST)
        async with locked_account(database_url):
            await sandbox.step(60)
            first = await eventually(conn, WAITING, lambda since: since is not None)
            await eventually(conn, WAITING, lambda since: since is not None and since > first)
        await nothing_but_the_stream(conn, sandbox, from_rest)


async def test_a_full_buffer_costs_the_socket_and_is_one_gap_written_before_what_came_after(
    database_url: str, conn: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ledger.stream.consumer.FrameBuffer", partial(FrameBuffer, 40_000))
    announced: list[tuple[str, int]] = []

    def note(_conn: Any, _pid: int, channel: str, payload: str) -> None:
        announced.append((channel, int(payload.rpartition(":")[2])))

    async with mirrored(database_url, conn) as (sandbox, proxy):
        for channel in ("ledger_gaps", "ledger_changed"):
            await conn.add_listener(channel, note)
        proxy.go_away()
        for _ in range(2):  # the second socket fills the buffer too, and is part of the same outage
            await sandbox.until(lambda: sandbox.sockets == 1)
            await sandbox.step(60)
            await sandbox.until(lambda: sandbox.sockets == 0)
        await sandbox.until(lambda: sandbox.sockets == 1)
        proxy.come_back()
        await gaps_closed(conn, 2)
        await sandbox.step(10)
        await holds(conn, sandbox, gaps=2)

        assert (await gap(conn, 2))["cause"] == "buffer_full"
        first_after = await conn.fetchval(
            "SELECT min(seq) FROM ledger_v1.journal WHERE source = 'stream' AND session_id ="
            " (SELECT session_id FROM ledger_v1.journal WHERE source = 'stream' ORDER BY seq DESC LIMIT 1)"
        )
        gap_at = announced.index(("ledger_gaps", 2))
        assert all(seq < first_after for channel, seq in announced[:gap_at] if channel == "ledger_changed")
        assert any(seq >= first_after for channel, seq in announced[gap_at:] if channel == "ledger_changed")
        for channel in ("ledger_gaps", "ledger_changed"):
            await conn.remove_listener(channel, note)


async def test_frames_the_database_refuses_are_kept_and_do_not_hold_up_the_others(database_url: str, conn: Any) -> None:
    async with mirrored(database_url, conn, "documented", reconcile_every_s=3) as (sandbox, _):
        before_us = len(sandbox.books.fills)
        await conn.execute(NO_FEE_IN_BTC)  # REST tells no fills in this dialect
        await sandbox.step(150)
        sent = sandbox.frames_sent
        await eventually(conn, STREAM_FRAMES, lambda found: found >= sent)
        refused = await conn.fetch(f"SELECT raw FROM ledger_v1.journal WHERE {REFUSED}")
        made = [fill for fill in sandbox.books.fills.values() if fill.fee_asset == "BTC"]
        assert 0 < len(refused) <= len(made)
        assert all(b'"N":"BTC"' in row["raw"] for row in refused)
        assert await conn.fetchval("SELECT unreadable_frames FROM ledger.accounts") == len(refused)
        proof = await holds(conn, sandbox, gaps=1)
        assert proof.fills > 0
        assert proof.missing > 0
        assert await conn.fetchval("SELECT count(*) FROM ledger_v1.quarantine") == len(refused)

        await conn.execute(FEE_IN_BTC)
        before = await conn.fetchval("SELECT head_seq FROM ledger.accounts")
        retried = await app.retry_quarantined(database_url, None)
        assert (len(retried), {one.problem for one in retried}) == (len(refused), {None})
        proof = await holds(conn, sandbox, gaps=1)
        assert proof.fills == proof.venue_fills - before_us, "no fill is lost"
        assert await conn.fetchval("SELECT count(*) FROM ledger_v1.quarantine") == 0
        seen = await conn.fetchval("SELECT count(*) FROM ledger_v1.fills WHERE seq > $1 AND fee_asset = 'BTC'", before)
        assert seen >= len(refused), "whoever follows seq sees them"
        (result,) = await app.replay_all(
            Database(database_url, database_url, database_url, embedded=False), None, swap=False
        )
        assert result.identical


async def test_a_page_the_database_refuses_is_kept_and_told_and_the_account_goes_on(
    database_url: str, conn: Any
) -> None:
    await conn.execute(NO_FEE_IN_BTC)
    async with venue("full") as sandbox:
        await sandbox.step(150)
        async with mirroring(settings_for(sandbox, reconcile_every_s=300), database_url):
            await gaps_closed(conn, 1)
            refused = await conn.fetch(f"SELECT * FROM ledger_v1.journal WHERE {REFUSED} AND kind <> 'note'")
            assert {(row["source"], row["kind"]) for row in refused} == {("rest", "myTrades")}
            assert all(b'"commissionAsset":"BTC"' in row["raw"] for row in refused)
            told = await conn.fetch("SELECT * FROM ledger_v1.discrepancies WHERE resolved_at IS NULL")
            assert {(row["kind"], row["symbol"]) for row in told} == {("quarantined", "ETHBTC")}
            assert {row["evidence_seq"] for row in told} == {row["seq"] for row in refused}
            first_ms = min(fill.time_ms for fill in sandbox.books.fills.values() if fill.fee_asset == "BTC")
            assert await complete_through_ms(conn, "ETHBTC") < first_ms
            assert await complete_through_ms(conn, "*") < first_ms
            assert await complete_through_ms(conn, "BTCUSDT") > first_ms, "other markets go on"

            await sandbox.step(20)
            await eventually(conn, STREAM_FRAMES, lambda found: found >= sandbox.frames_sent)
