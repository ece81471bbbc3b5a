"""Statements keep finding rows by their keys while the tables grow, before any statistics were gathered."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

from ledger.db import apply, coverage, reads
from ledger.db.apply import Entry
from ledger.db.rows import lay
from ledger.facts.decimals import exact
from ledger.facts.identity import SessionMemory
from ledger.facts.types import Fill, Order
from ledger.wire.postgres import Writer
from tests.histories import Session, due_orders, fill, known, rest, trade

BATCHES, FRAMES = 64, 50


def frame(number: int) -> Entry:
    """One trade of an order that gets five."""
    order_id = number // 5
    order = Order("BTCUSDT", order_id, "PARTIALLY_FILLED", "BUY", updated_ms=number)
    fill = Fill("BTCUSDT", order_id, "BUY", exact("64000"), exact("0.01"), number, trade_id=number)
    return Entry(number, number, "executionReport", number, b"{}", None, lay((order, fill)))


async def test_a_lookup_by_key_never_reads_the_whole_account(database_url: str, conn: Any) -> None:
    await conn.execute("ALTER TABLE ledger.fills SET (autovacuum_enabled = false)")
    await conn.execute("ALTER TABLE ledger.orders SET (autovacuum_enabled = false)")
    writer = Writer(database_url, application="tests")
    try:
        await writer.run(lambda c: coverage.register(c, "main", rest_origin="https://x", key_fingerprint="k"))
        session, memory = uuid4(), SessionMemory()
        for start in range(1, BATCHES * FRAMES, FRAMES):
            batch = apply.build("main", session, "stream", map(frame, range(start, start + FRAMES)), memory)
            await writer.run(lambda c, batch=batch: apply.apply(c, batch))  # type: ignore[misc]
        await writer.run(lambda c: c.execute("SELECT pg_stat_force_next_flush()"))
    finally:
        await writer.close()

    read = await conn.fetchval(
        "SELECT sum(idx_tup_read) FROM pg_stat_user_indexes WHERE relname IN ('fills', 'orders')"
        " AND indexrelname NOT LIKE '%_key' AND indexrelname NOT LIKE '%_pkey'"
    )
    frames = BATCHES * FRAMES
    assert await conn.fetchval("SELECT count(*) FROM ledger_v1.fills") == frames
    assert read < frames * 50, f"{read} index entries read for {frames} fills"


async def test_what_a_quiet_mirror_asks_every_second_reads_no_order_that_needs_nothing(conn: Any) -> None:
    """Where the venue tells no trades, orders that lost fills stay so for ever: looking for work must not read them."""
    await conn.execute(
        "INSERT INTO ledger.accounts (account, created_at) VALUES ('main', now());"
        "INSERT INTO ledger.orders (account, symbol, order_id, status, status_rank, orig_qty, venue_executed_qty,"
        " wounded, told_seq, updated_ms, seq)"
        " SELECT 'main', 'BTCUSDT', n, 'FILLED', 3, 1, 1, true, n, n, n FROM generate_series(1, 20000) n;"
        "ANALYZE ledger.orders"
    )
    before = await whole_readings(conn)
    for _ in range(10):
        assert await due_orders(conn, "missing_fills", 10**12, account="main") == []
    state = await reads.known_state(conn, "main", missing=False)
    assert (state.symbols, state.untold, state.open_orders) == (("BTCUSDT",), (), ())
    assert await whole_readings(conn) == before


async def whole_readings(conn: Any) -> tuple[int, int]:
    """How often orders was read as a whole, and how many entries of the indexes of work to do were read."""
    await conn.execute("SELECT pg_stat_force_next_flush()")
    scans = await conn.fetchval("SELECT seq_scan FROM pg_stat_user_tables WHERE relname = 'orders'")
    names = ["orders_wounded_idx", "orders_untold_idx", "orders_open_idx", "orders_differing_idx"]
    read = await conn.fetchval(
        "SELECT sum(idx_tup_read) FROM pg_stat_user_indexes WHERE indexrelname = ANY ($1)", names
    )
    return scans, read


async def test_trades_of_rest_that_meet_fills_of_the_stream_read_their_own_orders_only(conn: Any) -> None:
    """A page of a thousand trades on an account of many fills: each looks at its order, never at the account."""
    await known(conn)
    stream, walker = Session(), rest()
    fills = [fill(n, order_id=n // 2) for n in range(2000)]
    for start in range(0, len(fills), 500):
        await apply.apply(conn, stream.batch(*(stream.entry(one) for one in fills[start : start + 500])))
    await conn.execute("SELECT pg_stat_force_next_flush()")
    before = await tuples_read(conn)
    page = [trade(n, n, order_id=n // 2) for n in range(1000)]
    assert (await walker.tell(conn, *page, asked_ms=9000)).fills_new == 0
    await conn.execute("SELECT pg_stat_force_next_flush()")
    assert await tuples_read(conn) - before < len(page) * 100


async def tuples_read(conn: Any) -> int:
    """Rows of fills and entries of their indexes read so far."""
    read: int = await conn.fetchval(
        "SELECT (SELECT seq_tup_read FROM pg_stat_user_tables WHERE relname = 'fills')"
        " + (SELECT sum(idx_tup_read) FROM pg_stat_user_indexes WHERE relname = 'fills')"
    )
    return read
