"""What the same machine reaches when it does as little as can be done: COPY, and one commit."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from decimal import Decimal
from typing import Any
from uuid import uuid4

from ledger.facts.types import Fill
from ledger.stream.consumer import understand

_FILL_COLUMNS = [
    *("account", "first_seq", "first_index", "symbol", "order_id", "trade_id", "side", "price", "qty", "quote_qty"),
    *("quote_derived", "fee", "fee_asset", "is_maker", "executed_ms", "source", "state", "seq"),
]
_INBOX_COLUMNS = ["account", "seq", "source", "session_id", "frame_no", "received_at", "kind", "venue_ms", "raw"]


async def prepare(conn: Any) -> None:
    """Tables like the journal and the fills, with the same keys and indexes, and one for single commits."""
    await conn.execute(
        """
        CREATE SCHEMA bench;
        CREATE TABLE bench.inbox (LIKE ledger.inbox INCLUDING ALL);
        CREATE TABLE bench.fills (LIKE ledger.fills INCLUDING ALL);
        CREATE TABLE bench.one (n bigint, body bytea);
        """
    )


async def copy(conn: Any, account: str, first_seq: int, raws: Sequence[bytes], received: Any) -> None:
    """Journal and fills of these frames by COPY, in one transaction: no identity, no orders, no balances."""
    session = uuid4()
    rows: list[tuple[Any, ...]] = []
    fills: list[tuple[Any, ...]] = []
    for seq, raw in enumerate(raws, start=first_seq):
        frame, facts, _ = understand(raw)
        rows.append((account, seq, "stream", session, seq, received, frame.kind, frame.venue_ms, raw))
        for index, fact in enumerate(facts, start=1):
            if isinstance(fact, Fill):
                quote = fact.quote_qty or Decimal(fact.price) * Decimal(fact.qty)
                trade_id = fact.trade_id if fact.trade_id is not None else seq
                # The driver's COPY is binary: its fastest way wants Decimal for NUMERIC.
                fills.append(
                    (
                        account, seq, index, fact.symbol, fact.order_id, trade_id, fact.side, _decimal(fact.price),
                        _decimal(fact.qty), _decimal(quote), fact.quote_qty is None, _decimal(fact.fee), fact.fee_asset,
                        fact.is_maker, fact.executed_ms, "stream", "confirmed", seq,
                    )
                )  # fmt: skip
    async with conn.transaction():
        await conn.copy_records_to_table("inbox", schema_name="bench", records=rows, columns=_INBOX_COLUMNS)
        if fills:
            await conn.copy_records_to_table("fills", schema_name="bench", records=fills, columns=_FILL_COLUMNS)


async def commits_ms(conn: Any, count: int, *, per_s: float | None = None) -> list[float]:
    """How long each of ``count`` commits of a 500-byte row takes, ms; ``per_s`` is their pace, None: no pause."""
    body = bytes(500)
    taken = []
    due_s = time.perf_counter()
    for n in range(count):
        if per_s is not None:
            due_s += 1 / per_s
            await asyncio.sleep(max(0.0, due_s - time.perf_counter()))
        began_s = time.perf_counter()
        await conn.execute("INSERT INTO bench.one VALUES ($1, $2)", n, body)
        taken.append((time.perf_counter() - began_s) * 1000)
    return taken


def _decimal(text: str | Decimal | None) -> Decimal | None:
    return None if text is None else Decimal(text)
