"""What the program itself asks of the database. ``conn`` is an asyncpg connection; nothing here writes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

OrderKey = tuple[str, int]
"""(symbol, order id)"""

ASKED_ONE_BY_ONE_MAX = 10_000
"""Orders one pass may look at singly; beyond that the rest waits for the next pass."""


@dataclass(frozen=True, slots=True)
class Known:
    """What the mirror holds of an account when a walk starts.

    ``open_orders``: not terminal here. ``untold``: known from the stream or a trade only, so most fields are null.
    ``missing``: the venue executed more than the fills tell. ``disputed``: two terminal states were told, which only
    GET order can decide.
    """

    head_seq: int
    symbols: tuple[str, ...]
    open_orders: tuple[OrderKey, ...]
    untold: tuple[OrderKey, ...]
    missing: tuple[OrderKey, ...]
    disputed: tuple[OrderKey, ...] = ()


async def known_state(conn: Any, account: str, *, missing: bool = True) -> Known:
    """Everything a walk is planned from; the orders that moved last where there are too many.

    ``missing`` False leaves that part out: without trades over REST nothing could be done about it, and such orders
    only grow in number.
    """
    return Known(
        await head_seq(conn, account),
        tuple(await symbols(conn, account)),
        await _orders(conn, account, "status_rank < 3 AND status IS NOT NULL"),
        await _orders(conn, account, "status IS NULL OR orig_qty IS NULL"),
        await _orders(conn, account, "venue_executed_qty > fills_qty") if missing else (),
        await _disputed(conn, account),
    )


async def head_seq(conn: Any, account: str) -> int:
    """seq of the account's newest journal row, 0 before the first."""
    return await conn.fetchval("SELECT head_seq FROM ledger.accounts WHERE account = $1", account) or 0


async def _orders(conn: Any, account: str, condition: str) -> tuple[OrderKey, ...]:
    rows = await conn.fetch(
        f"SELECT symbol, order_id FROM ledger.orders WHERE account = $1 AND ({condition})"
        " ORDER BY updated_ms DESC NULLS LAST, symbol, order_id LIMIT $2",
        account,
        ASKED_ONE_BY_ONE_MAX,
    )
    return tuple((row["symbol"], row["order_id"]) for row in rows)


async def _disputed(conn: Any, account: str) -> tuple[OrderKey, ...]:
    rows = await conn.fetch(
        "SELECT split_part(subject, '/', 1) AS symbol, split_part(subject, '/', 2)::bigint AS order_id"
        " FROM ledger.discrepancies WHERE account = $1 AND kind = 'terminal_conflict' AND resolved_at IS NULL"
        " ORDER BY discrepancy_id LIMIT $2",
        account,
        ASKED_ONE_BY_ONE_MAX,
    )
    return tuple((row["symbol"], row["order_id"]) for row in rows)


async def symbols(conn: Any, account: str) -> list[str]:
    """Every symbol the account ever had an order on; one index probe per symbol, however many orders there are."""
    rows = await conn.fetch(
        """
        WITH RECURSIVE s AS (
            (SELECT symbol FROM ledger.orders WHERE account = $1 ORDER BY symbol LIMIT 1)
            UNION ALL
            SELECT (SELECT o.symbol FROM ledger.orders o WHERE o.account = $1 AND o.symbol > s.symbol
                    ORDER BY o.symbol LIMIT 1) FROM s WHERE s.symbol IS NOT NULL
        )
        SELECT symbol FROM s WHERE symbol IS NOT NULL
        """,
        account,
    )
    return [row["symbol"] for row in rows]


async def active_symbols(conn: Any, account: str, *, since_seq: int) -> list[str]:
    """Symbols whose orders changed after ``since_seq``."""
    rows = await conn.fetch(
        "SELECT DISTINCT symbol FROM ledger.orders WHERE account = $1 AND seq > $2 ORDER BY symbol",
        account,
        since_seq,
    )
    return [row["symbol"] for row in rows]


async def provisional_orders(conn: Any, account: str, *, until_ms: int) -> list[OrderKey]:
    """Orders with provisional fills, all of them executed at ``until_ms`` (venue clock) or before."""
    rows = await conn.fetch(
        """
        SELECT symbol, order_id FROM ledger.fills WHERE account = $1 AND state = 'provisional'
        GROUP BY symbol, order_id HAVING max(stream_ms) <= $2 ORDER BY max(stream_ms) LIMIT $3
        """,
        account,
        until_ms,
        ASKED_ONE_BY_ONE_MAX,
    )
    return [(row["symbol"], row["order_id"]) for row in rows]


async def wounded_orders(conn: Any, account: str, *, until_ms: int) -> list[OrderKey]:
    """Orders that had lost fills when the venue last told how much was executed, and have moved on since.

    Only those that were quiet since ``until_ms`` (venue clock): REST may not know of later changes yet.
    """
    rows = await conn.fetch(
        """
        SELECT symbol, order_id FROM ledger.orders WHERE account = $1 AND wounded AND seq > told_seq
        AND updated_ms <= $2 ORDER BY updated_ms LIMIT $3
        """,
        account,
        until_ms,
        ASKED_ONE_BY_ONE_MAX,
    )
    return [(row["symbol"], row["order_id"]) for row in rows]


async def balances(conn: Any, account: str) -> dict[str, tuple[Decimal, Decimal]]:
    """asset -> (free, locked)"""
    rows = await conn.fetch("SELECT asset, free, locked FROM ledger.balances WHERE account = $1", account)
    return {row["asset"]: (row["free"], row["locked"]) for row in rows}


async def snapshot_in_doubt(conn: Any, account: str) -> bool:
    """Whether a snapshot disagreed with a newer-looking stream state; a second one 5 s later decides."""
    found: bool = await conn.fetchval("SELECT EXISTS (SELECT FROM ledger.snapshot_votes WHERE account = $1)", account)
    return found


async def blocked_until_ms(conn: Any, account: str) -> int | None:
    """Until when the venue asked for silence (this machine's clock, ms); None: never."""
    until: int | None = await conn.fetchval(
        "SELECT blocked_until_ms FROM ledger.venue_state WHERE account = $1", account
    )
    return until


async def knows_any_order(conn: Any, account: str, keys: Sequence[OrderKey]) -> bool:
    """Whether one of these orders is in the mirror: a new API key must recognise its account."""
    found: bool = await conn.fetchval(
        """
        SELECT EXISTS (SELECT FROM ledger.orders o JOIN unnest($2::text[], $3::bigint[]) AS k(symbol, order_id)
                       ON o.symbol = k.symbol AND o.order_id = k.order_id WHERE o.account = $1)
        """,
        account,
        [symbol for symbol, _ in keys],
        [order_id for _, order_id in keys],
    )
    return found


async def status(conn: Any) -> list[dict[str, Any]]:
    """One row per account: health, gaps and counts, as ``status`` shows them."""
    rows = await conn.fetch(
        """
        SELECT a.account, a.rest_origin, v.mode, c.live, c.complete_from_ms, c.complete_through_ms,
               a.stream_frames AS frames_seen, a.unreadable_frames, a.head_seq,
               (SELECT count(*) FROM ledger.gaps g WHERE g.account = a.account AND g.closed_at IS NULL) AS open_gaps,
               a.head_gap AS gaps,
               (SELECT count(*) FROM ledger.discrepancies d WHERE d.account = a.account AND d.resolved_at IS NULL)
                   AS open_discrepancies,
               (SELECT count(*) FROM ledger.orders o WHERE o.account = a.account
                AND o.venue_executed_qty > o.fills_qty) AS missing_executions,
               (SELECT count(*) FROM ledger.fills f WHERE f.account = a.account AND f.state = 'provisional')
                   AS provisional_fills,
               v.weight_used, v.blocked_until_ms, v.last_error, v.last_error_at,
               (SELECT i.problem FROM ledger.inbox i WHERE i.account = a.account AND i.problem IS NOT NULL
                ORDER BY i.seq DESC LIMIT 1) AS last_problem
        FROM ledger.accounts a
        LEFT JOIN ledger_v1.coverage c ON c.account = a.account AND c.symbol = '*'
        LEFT JOIN ledger.venue_state v ON v.account = a.account
        ORDER BY a.account
        """
    )
    return [dict(row) for row in rows]
