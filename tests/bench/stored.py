"""History as it lies in the tables after months: made by the server itself, since a bench has no months."""

from __future__ import annotations

from typing import Any

ACCOUNTS, SYMBOLS, DAYS = 20, 50, 365
LAST_MS = 1_780_444_800_000
"""Venue clock of the newest row: 2026-06-03 00:00 UTC."""

# Rows of an account lie in the order of time, as they came; accounts lie interleaved, as they came.
_FILLS = """
INSERT INTO ledger.fills (account, first_seq, first_index, symbol, order_id, trade_id, side, price, qty, quote_qty,
    quote_derived, fee, fee_asset, is_maker, executed_ms, source, state, seq)
SELECT 'a' || n % $2, n / $2 + 1, 1, 'S' || n / $2 / 2 % $3 || 'USDT', n / $2 / 2, n,
    CASE n % 2 WHEN 0 THEN 'BUY' ELSE 'SELL' END,
    (100 + n % 900)::numeric(20, 8), (1 + n % 97)::numeric(20, 8), ((100 + n % 900) * (1 + n % 97))::numeric(20, 8),
    false, (0.001 * (n % 1000))::numeric(20, 8), 'USDT', n % 3 = 0, $4 - (($1 - n) * ($5::bigint * 86400000) / $1),
    'stream', 'confirmed', n / $2 + 1
FROM generate_series(0, $1 - 1) n
"""
_ORDERS = """
INSERT INTO ledger.orders (account, symbol, order_id, side, type, price, orig_qty, venue_executed_qty, status,
    status_rank, status_decided, status_executed, status_ms, created_ms, updated_ms, fills_qty, fills_quote, told_seq,
    wounded, seq)
SELECT 'a' || n % $2, 'S' || n / $2 % $3 || 'USDT', n / $2, 'BUY', 'LIMIT', 100, 5, 5, 'FILLED', 3, false, 5, 1, 1,
    $4 - (($1 - 2 * n) * ($5::bigint * 86400000) / $1), 5, 500, n / $2 * 2 + 2, false, n / $2 * 2 + 2
FROM generate_series(0, $1 / 2 - 1) n
"""
_HISTORY = """
INSERT INTO ledger.balance_history (account, asset, as_of_ms, free, locked, k, source, seq)
SELECT 'a' || n % $2, 'A' || n / $2 % 20, $3 - (($1 - n) * ($4::bigint * 86400000) / $1), n, 0, 0, 'stream', n / $2 + 1
FROM generate_series(0, $1 - 1) n
"""


async def store(conn: Any, fills: int, *, accounts: int = ACCOUNTS, symbols: int = SYMBOLS, days: int = DAYS) -> None:
    """So many fills, half as many orders and as many balances, over ``accounts`` a0 … and ``days`` before LAST_MS."""
    await conn.execute(
        "INSERT INTO ledger.accounts (account, created_at, head_seq) SELECT 'a' || n, now(), 0"
        " FROM generate_series(0, $1::int - 1) n ON CONFLICT DO NOTHING",
        accounts,
    )
    for statement in (_FILLS, _ORDERS):
        await conn.execute(statement, fills, accounts, symbols, LAST_MS, days, timeout=3600)
    await conn.execute(_HISTORY, fills, accounts, LAST_MS, days, timeout=3600)
    await conn.execute(
        "INSERT INTO ledger.balances (account, asset, free, locked, as_of_ms, k, source, seq)"
        " SELECT DISTINCT ON (account, asset) account, asset, free, locked, as_of_ms, k, source, seq"
        " FROM ledger.balance_history ORDER BY account, asset, as_of_ms DESC ON CONFLICT DO NOTHING",
        timeout=3600,
    )
    await conn.execute("VACUUM ANALYZE", timeout=3600)
