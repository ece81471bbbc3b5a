"""Statements keep finding rows by their keys while the tables grow, before any statistics were gathered."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

from ledger.db import apply, coverage
from ledger.db.apply import Entry
from ledger.facts.decimals import exact
from ledger.facts.identity import SessionMemory
from ledger.facts.types import Fill, Order
from ledger.wire.postgres import Writer

BATCHES, FRAMES = 64, 50


def frame(number: int) -> Entry:
    """One trade of an order that gets five."""
    order_id = number // 5
    order = Order("BTCUSDT", order_id, "PARTIALLY_FILLED", "BUY", updated_ms=number)
    fill = Fill("BTCUSDT", order_id, "BUY", exact("64000"), exact("0.01"), number, trade_id=number)
    return Entry(number, number, "executionReport", number, b"{}", None, (order, fill))


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
