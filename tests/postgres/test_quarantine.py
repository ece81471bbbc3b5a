"""What is kept without its facts: listed, a hole in coverage, applied again by a row of its own, replayed alike."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import asyncpg
import pytest

from ledger import app, verify
from ledger.app import Database
from ledger.db import apply, code, coverage, quarantine, reads
from ledger.db.apply import Batch
from ledger.stream import consumer
from ledger.venue import requests
from ledger.wire import schema
from ledger.wire.postgres import is_refusal, refusal, sqlstate_of
from tests.histories import ACCOUNT, T_MS, Socket, Walker, known, read_over_rest, rows
from tests.postgres.test_replay import differences, frame, position, replayed

NARROW = """
    ALTER TABLE ledger.{table} DROP CONSTRAINT {table}_amounts_are_real;
    ALTER TABLE ledger.{table} ADD CONSTRAINT {table}_amounts_are_real CHECK ({column} <> 13) NOT VALID
"""
WIDE = "ALTER TABLE ledger.{table} DROP CONSTRAINT {table}_amounts_are_real"
FILLS, HISTORY = {"table": "fills", "column": "qty"}, {"table": "balance_history", "column": "free"}
FILLS_NOW = "SELECT qty::text, stream_ordinal, state, first_seq FROM ledger.fills ORDER BY first_seq, first_index"
LISTED = "SELECT seq, source, kind, sqlstate, tries FROM ledger_v1.quarantine ORDER BY seq"
THROUGH = "SELECT complete_through_ms FROM ledger_v1.coverage WHERE symbol = '*'"
HEAD = "SELECT head_seq FROM ledger.accounts"
LIVE_MS = T_MS + 60_000


async def send(conn: Any, batch: Batch) -> None:
    """As the service does it: the batch, else its frames singly, else what is refused without its facts."""
    try:
        await apply.apply(conn, batch)
    except asyncpg.PostgresError as error:
        if not is_refusal(error):
            raise
        for single in [consumer._quarantined(batch, error)] if len(batch.frames) == 1 else batch.split():
            await send(conn, single)


@pytest.fixture
async def live(conn: Any) -> Any:
    """A stream that is live and covered to ``LIVE_MS``."""
    await known(conn)
    gap = await coverage.open_gap(conn, ACCOUNT, cause="start", until_ms=T_MS - 1000)
    await coverage.close_gap(conn, ACCOUNT, gap.gap_id, complete_from_ms=None)
    await read_over_rest(conn, "BTCUSDT", "ETHUSDT")
    await conn.execute("SELECT ledger.beat($1, $2)", ACCOUNT, LIVE_MS)
    assert await conn.fetchval(THROUGH) == LIVE_MS
    return conn


async def broken_checks(conn: Any) -> dict[str, list[str]]:
    report = await verify.verify(conn, ACCOUNT, now_ms=LIVE_MS, head=None, strict=True)
    return {one.name: [row.key for row in one.first] for one in report.verdicts if not one.holds}


async def test_a_refused_frame_is_listed_named_and_a_hole_in_coverage_and_no_other_is(live: Any) -> None:
    await live.execute(NARROW.format(**FILLS))
    await send(live, Socket().received([frame(), frame(l="13", T=T_MS + 5), frame(l="2"), frame(l="13", T=T_MS + 9)]))
    assert await rows(live, LISTED) == [
        (2, "stream", "executionReport", "23514", 1),
        (4, "stream", "executionReport", "23514", 1),
    ]
    assert await rows(live, "SELECT seq, symbol, uncovered_from_ms, evidence_seq FROM ledger_v1.discrepancies") == [
        (2, "BTCUSDT", T_MS + 4, 2),
        (4, "BTCUSDT", T_MS + 8, 4),
    ]
    assert await live.fetchval(THROUGH) == T_MS + 4
    assert await broken_checks(live) == {"nothing_is_quarantined": ["journal row 2", "journal row 4"]}
    assert await rows(live, FILLS_NOW) == [("1", 1, "confirmed", 1), ("2", 1, "confirmed", 3)]


async def test_applied_again_it_is_as_if_it_had_been_taken_and_followers_of_seq_see_it(
    live: Any, database_url: str
) -> None:
    await live.execute(NARROW.format(**FILLS))
    socket = Socket()
    await send(live, socket.received([frame(), frame(l="13"), frame(l="13"), frame(l="13", X="FILLED", T=T_MS + 7)]))
    assert [one.problem is None for one in await app.retry_quarantined(database_url, None)] == [False] * 3
    assert await rows(live, LISTED) == [(n, "stream", "executionReport", "23514", 2) for n in (2, 3, 4)]
    assert await live.fetchval(HEAD) == 4, "a try that is refused leaves no journal row"

    await live.execute(WIDE.format(**FILLS))
    await send(live, socket.received([frame(l="13")]))
    told = await app.retry_quarantined(database_url, ACCOUNT)
    assert [(one.seq, one.applied_seq, one.fills_new, one.problem) for one in told] == [
        (2, 6, 1, None),
        (3, 7, 1, None),
        (4, 8, 1, None),
    ]
    assert await rows(live, FILLS_NOW) == [
        ("1", 1, "confirmed", 1),
        ("13", 3, "provisional", 5),
        ("13", 1, "confirmed", 6),
        ("13", 2, "provisional", 7),
        ("13", 1, "confirmed", 8),
    ]
    assert await rows(live, "SELECT DISTINCT source FROM ledger_v1.fills") == [("stream",)]
    assert await rows(live, "SELECT fills_qty::text, status, seq FROM ledger.orders") == [("27", "FILLED", 8)]
    assert await rows(live, "SELECT seq, source, kind, raw FROM ledger_v1.journal WHERE seq > 5 ORDER BY seq") == [
        (seq, "operator", "quarantine_retry", b'{"seq": %d}' % of) for seq, of in ((6, 2), (7, 3), (8, 4))
    ]
    assert await rows(live, "SELECT resolution, seq FROM ledger_v1.discrepancies ORDER BY seq") == [
        (f"applied by journal row {seq}", seq) for seq in (6, 7, 8)
    ]
    assert (await rows(live, LISTED), await live.fetchval(THROUGH)) == ([], LIVE_MS)
    assert await broken_checks(live) == {}
    assert differences(await replayed(database_url)) == []
    assert await app.retry_quarantined(database_url, None) == []


async def test_a_position_applied_late_is_older_than_what_came_after_it(live: Any, database_url: str) -> None:
    await live.execute(NARROW.format(**HISTORY))
    socket = Socket()
    await send(live, socket.received([position("13", u=T_MS), position("7", u=T_MS)]))
    assert await rows(live, "SELECT free::text, k FROM ledger.balances") == [("7", 2)]
    assert await live.fetchval(THROUGH) == T_MS - 1
    await live.execute(WIDE.format(**HISTORY))
    await app.retry_quarantined(database_url, None)
    assert await rows(live, "SELECT free::text, k, source, seq FROM ledger.balance_history ORDER BY k") == [
        ("13", 1, "stream", 3),
        ("7", 2, "stream", 2),
    ]
    assert await rows(live, "SELECT free::text, k FROM ledger.balances") == [("7", 2)]
    assert differences(await replayed(database_url)) == []
    assert await broken_checks(live) == {}


async def test_a_refused_page_is_applied_again_as_the_venue_said_it(live: Any, database_url: str) -> None:
    page = (
        b'[{"symbol":"BTCUSDT","id":5,"orderId":7,"price":"100","qty":"13","commission":"0.1","commissionAsset":"USDT",'
        b'"time":%d,"isBuyer":true,"isMaker":false}]' % (T_MS + 3)
    )
    await live.execute(NARROW.format(**FILLS))
    walk = Walker()
    call = walk.answered(requests.my_trades("BTCUSDT"), page, T_MS + 50, 0)
    with pytest.raises(asyncpg.CheckViolationError) as caught:
        await apply.apply(live, call)
    where = quarantine.Hole("BTCUSDT", T_MS + 2)
    error = caught.value
    await apply.apply(live, quarantine.refused(call, refusal(error), sqlstate_of(error), where))
    assert await rows(live, LISTED) == [(1, "rest", "myTrades", "23514", 1)]
    await live.execute(WIDE.format(**FILLS))
    await app.retry_quarantined(database_url, None)
    assert await rows(live, "SELECT trade_id, source, first_seq, qty::text FROM ledger.fills") == [(5, "rest", 2, "13")]
    assert (await broken_checks(live), differences(await replayed(database_url))) == ({}, [])


async def test_a_person_may_accept_that_a_row_stays_out(live: Any) -> None:
    await live.execute(NARROW.format(**FILLS))
    await send(live, Socket().received([frame(l="13")]))
    await live.execute("UPDATE ledger.discrepancies SET resolved_at = now(), resolution = 'accepted'")
    assert (await broken_checks(live), await live.fetchval(THROUGH)) == ({}, LIVE_MS)
    assert len(await rows(live, LISTED)) == 1, "it is listed all the same"


async def test_what_an_older_release_left_out_is_listed_by_the_upgrade_and_applied(
    conn: Any, database_url: str
) -> None:
    await known(conn)
    socket = Socket()
    batch = socket.received([frame(), frame(l="3"), frame(l="4")])
    for n, single in enumerate(batch.split()):
        problem = 'refused by the database: permission denied for table "fills"'
        await apply.apply(conn, single.without_facts(problem) if n else single)
    await apply.apply(
        conn,
        apply.build(
            ACCOUNT,
            UUID(int=5),
            "rest",
            [apply.Entry(1, T_MS, "note", T_MS, b"", "refused by the database: no", ())],
            socket.memory,
        ),
    )
    await schema.downgrade(database_url, "0005")
    db = Database(database_url, database_url, database_url, embedded=False)
    assert await app.upgrade(db) == code.REVISIONS[-1]
    assert await rows(conn, LISTED) == []
    assert await rows(conn, "SELECT seq, applied_seq, sqlstate, tries FROM ledger.quarantine ORDER BY seq") == [
        (2, 5, None, 2),
        (3, 6, None, 2),
    ]
    assert await rows(conn, "SELECT qty::text, first_seq FROM ledger.fills ORDER BY 2") == [
        ("1", 1),
        ("3", 5),
        ("4", 6),
    ]
    assert await rows(conn, "SELECT discrepancy_id, resolution FROM ledger.discrepancies ORDER BY 1") == [
        (1, "applied by journal row 5"),
        (2, "applied by journal row 6"),
    ]
    assert differences(await replayed(database_url)) == []
    assert await reads.head_seq(conn, ACCOUNT) == 6


async def test_a_retry_is_listed_in_json_and_an_unknown_row_is_no_retry(live: Any, database_url: str) -> None:
    await live.execute(NARROW.format(**FILLS))
    await send(live, Socket().received([frame(l="13")]))
    (row,) = await quarantine.listed(live, ACCOUNT, at_most=10)
    assert (row["account"], row["seq"], row["kind"], row["tries"]) == (ACCOUNT, 1, "executionReport", 1)
    assert await quarantine.listed(live, "other", at_most=10) == []
    assert await quarantine.waiting(live, None) == [(ACCOUNT, 1)]
    assert await quarantine.waiting(live, None, after=(ACCOUNT, 1)) == []
