"""What the program itself asks of the database. ``conn`` is an asyncpg connection; nothing here writes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from ledger.facts.types import Fill, Order

OrderKey = tuple[str, int]
"""(symbol, order id)"""

ASKED_ONE_BY_ONE_MAX = 10_000
"""Orders one pass may look at singly; beyond that the rest waits for the next pass."""


@dataclass(frozen=True, slots=True)
class Known:
    """What the mirror holds of an account when a walk starts.

    ``open_orders``: not terminal here. ``untold``: known from the stream or a trade only, so most fields are null.
    ``missing``: the venue executed more than the fills tell. ``disputed``: two terminal states were told, which only
    GET order can decide. ``covered``: markets that were walked before, so that a gap is all there is to walk.
    """

    head_seq: int
    symbols: tuple[str, ...]
    open_orders: tuple[OrderKey, ...]
    untold: tuple[OrderKey, ...]
    missing: tuple[OrderKey, ...]
    disputed: tuple[OrderKey, ...] = ()
    covered: frozenset[str] = frozenset()


async def known_state(conn: Any, account: str, *, missing: bool = True, in_gap: bool = True) -> Known:
    """Everything a walk is planned from; the orders that moved last where there are too many.

    ``missing`` False leaves that part out: without trades over REST nothing could be done about it, and such orders
    only grow in number. Orders of which the venue said for good that there are none are left out, and with ``in_gap``
    False those that are asked for by their order checks, ever more seldom.
    """
    left_out = ("absent",) if in_gap else ("absent", "unknown_to_venue", "unknown_status", "refused")
    return Known(
        await head_seq(conn, account),
        tuple(await symbols(conn, account)),
        await _orders(conn, account, "status_rank < 3 AND status IS NOT NULL", left_out),
        await _orders(conn, account, "status IS NULL OR (orig_qty IS NULL AND price IS NULL)", left_out),
        await _orders(conn, account, "venue_executed_qty > fills_qty") if missing else (),
        await _disputed(conn, account),
        frozenset(await _covered(conn, account)),
    )


async def head_seq(conn: Any, account: str) -> int:
    """seq of the account's newest journal row, 0 before the first."""
    return await conn.fetchval("SELECT head_seq FROM ledger.accounts WHERE account = $1", account) or 0


async def head(conn: Any, account: str, seq: int) -> tuple[int, str | None, str | None]:
    """seq of the newest journal row, the digest of the journal up to it, and of that up to ``seq``; hex, or None where
    nothing is kept and where no batch ends there."""
    row = await conn.fetchrow(
        """
        SELECT a.head_seq, encode(a.head_digest, 'hex') AS newest, encode(b.digest, 'hex') AS there
        FROM ledger_read.accounts a LEFT JOIN ledger_read.batches b ON b.account = a.account AND b.last_seq = $2
        WHERE a.account = $1
        """,
        account,
        seq,
    )
    return (0, None, None) if row is None else (row["head_seq"], row["newest"], row["there"])


async def newest_held(conn: Any, account: str, ends: Sequence[tuple[int, bytes]]) -> int | None:
    """Of these ends of the journal, each a row and the digest up to it, the newest that it has; None: it has none."""
    found: int | None = await conn.fetchval(
        """
        SELECT max(b.last_seq) FROM unnest($2::bigint[], $3::bytea[]) AS u(seq, digest)
        JOIN ledger.batches b ON b.account = $1 AND b.last_seq = u.seq AND b.digest = u.digest
        """,
        account,
        [seq for seq, _ in ends],
        [digest for _, digest in ends],
    )
    return found


async def head_gap(conn: Any, account: str) -> int:
    """The newest gap of the account; 0: there is none."""
    newest: int | None = await conn.fetchval("SELECT max(gap_id) FROM ledger.gaps WHERE account = $1", account)
    return newest or 0


ROLLBACK = "rollback"
"""Kind of the journal row that says which rows a database that went back had lost."""


async def lost_row(conn: Any, account: str, seq: int, *, after_seq: int = 0) -> int | None:
    """The journal row after ``after_seq`` that names row ``seq`` as lost when the database went back; None: none does.

    Reads the journal from there on.
    """
    found: int | None = await conn.fetchval(
        """
        SELECT max(i.seq) FROM ledger_read.inbox i
        WHERE i.account = $1 AND i.seq > $4 AND i.source = 'operator' AND i.kind = $3
          AND $2 > (convert_from(i.raw, 'UTF8')::jsonb ->> 'found_seq')::bigint
          AND $2 <= (convert_from(i.raw, 'UTF8')::jsonb ->> 'lost_seq')::bigint
        """,
        account,
        seq,
        ROLLBACK,
        after_seq,
    )
    return found


async def live_through_ms(conn: Any, account: str) -> int | None:
    """Up to which instant the stream covered the account, venue clock; None: it never did."""
    found: int | None = await conn.fetchval(
        "SELECT live_through_ms FROM ledger.coverage WHERE account = $1 AND symbol = '*'", account
    )
    return found


async def database_id(conn: Any) -> str:
    """Tells this database from every other: the server's own number and the name. A copy elsewhere is another."""
    found: str = await conn.fetchval("SELECT system_identifier || '/' || current_database() FROM pg_control_system()")
    return found


async def _orders(conn: Any, account: str, condition: str, left_out: tuple[str, ...] = ()) -> tuple[OrderKey, ...]:
    """``left_out``: reasons of order checks; orders that have one of these are not wanted."""
    rows = await conn.fetch(
        f"SELECT symbol, order_id FROM ledger.orders o WHERE account = $1 AND ({condition})"
        " AND NOT EXISTS (SELECT FROM ledger.order_checks c WHERE c.account = $1 AND c.symbol = o.symbol"
        " AND c.order_id = o.order_id AND c.reason = ANY ($3))"
        " ORDER BY updated_ms DESC NULLS LAST, symbol, order_id LIMIT $2",
        account,
        ASKED_ONE_BY_ONE_MAX,
        list(left_out),
    )
    return tuple((row["symbol"], row["order_id"]) for row in rows)


async def _disputed(conn: Any, account: str) -> tuple[OrderKey, ...]:
    rows = await conn.fetch(
        "SELECT symbol, order_id FROM ledger.discrepancies WHERE account = $1 AND kind = 'terminal_conflict'"
        " AND resolved_at IS NULL AND order_id IS NOT NULL ORDER BY discrepancy_id LIMIT $2",
        account,
        ASKED_ONE_BY_ONE_MAX,
    )
    return tuple((row["symbol"], row["order_id"]) for row in rows)


async def _covered(conn: Any, account: str) -> list[str]:
    rows = await conn.fetch("SELECT symbol FROM ledger.coverage WHERE account = $1 AND symbol <> '*'", account)
    return [row["symbol"] for row in rows]


async def symbols(conn: Any, account: str) -> list[str]:
    """Every symbol the account ever had an order on; one index probe per symbol, however many orders there are."""
    rows = await conn.fetch(
        """
        WITH RECURSIVE s AS (
            (SELECT symbol FROM ledger_read.orders WHERE account = $1 ORDER BY symbol LIMIT 1)
            UNION ALL
            SELECT (SELECT o.symbol FROM ledger_read.orders o WHERE o.account = $1 AND o.symbol > s.symbol
                    ORDER BY o.symbol LIMIT 1) FROM s WHERE s.symbol IS NOT NULL
        )
        SELECT symbol FROM s WHERE symbol IS NOT NULL
        """,
        account,
    )
    return [row["symbol"] for row in rows]


async def unread_markets(conn: Any, account: str) -> list[str]:
    """Markets that orders name and that were never read over REST: coverage of all markets waits for them."""
    rows = await conn.fetch("SELECT * FROM ledger.unread_markets($1) AS symbol", account)
    return [row["symbol"] for row in rows]


async def active_symbols(conn: Any, account: str, *, since_seq: int) -> list[str]:
    """Symbols whose orders changed after ``since_seq``, and those of a report that named nothing else that can be
    read."""
    rows = await conn.fetch(
        "SELECT symbol FROM ledger.orders WHERE account = $1 AND seq > $2 UNION SELECT symbol FROM ledger.discrepancies"
        " WHERE account = $1 AND kind = 'unreadable_report' AND resolved_at IS NULL AND order_id IS NULL"
        " AND symbol IS NOT NULL ORDER BY symbol",
        account,
        since_seq,
    )
    return [row["symbol"] for row in rows]


async def to_do(conn: Any, account: str, *, now_ms: int, longest_ms: int) -> tuple[bool, bool]:
    """Whether a gap is open, and whether an order may have to be asked for: one look for a reconciler at rest.

    ``now_ms``: venue clock. ``longest_ms``: a check due later than that from now was put off by a wrong clock.
    """
    row = await conn.fetchrow(
        """
        SELECT EXISTS (SELECT FROM ledger.gaps WHERE account = $1 AND closed_at IS NULL) AS gaps,
               EXISTS (SELECT FROM ledger.fills WHERE account = $1 AND state = 'provisional')
               OR EXISTS (SELECT FROM ledger.orders WHERE account = $1 AND wounded AND seq > told_seq)
               OR EXISTS (SELECT FROM ledger.discrepancies d WHERE d.account = $1 AND d.resolved_at IS NULL
                          AND d.kind IN ('rest_row', 'order_refused')
                          AND d.symbol IS NOT NULL AND d.order_id IS NOT NULL AND NOT EXISTS (
                              SELECT FROM ledger.order_checks c WHERE c.account = $1 AND c.symbol = d.symbol
                              AND c.order_id = d.order_id AND c.reason = 'refused'))
               OR EXISTS (SELECT FROM ledger.order_checks
                          WHERE account = $1 AND (due_ms <= $2 OR due_ms > $2 + $3)) AS checks
        """,
        account,
        now_ms,
        longest_ms,
    )
    return row["gaps"], row["checks"]


@dataclass(frozen=True, slots=True)
class PastKey:
    """The listen key last used, by SHA-256, and when the venue last confirmed it: ``confirmed_ms`` by the venue's clock
    as it was believed then, ``age_ms`` ago by the database's own clock (None: not known)."""

    digest: bytes
    confirmed_ms: int
    age_ms: int | None

    def not_after_ms(self, now_ms: int) -> int:
        """The older of the two, where the venue's clock says ``now_ms``."""
        return self.confirmed_ms if self.age_ms is None else min(self.confirmed_ms, now_ms - self.age_ms)


async def stream_key(conn: Any, account: str) -> PastKey | None:
    """The listen key last used; None: none yet."""
    row = await conn.fetchrow(
        "SELECT key_digest, key_ms, (extract(epoch FROM ledger.clock() - key_at) * 1000)::bigint AS age_ms"
        " FROM ledger.venue_state WHERE account = $1 AND key_digest IS NOT NULL",
        account,
    )
    return None if row is None else PastKey(row["key_digest"], row["key_ms"], row["age_ms"])


async def clock_ms(conn: Any) -> int:
    """The database's own clock, ms UTC."""
    found: int = await conn.fetchval("SELECT (extract(epoch FROM ledger.clock()) * 1000)::bigint")
    return found


async def balances(conn: Any, account: str) -> dict[str, tuple[Decimal, Decimal]]:
    """asset -> (free, locked)"""
    rows = await conn.fetch("SELECT asset, free, locked FROM ledger_read.balances WHERE account = $1", account)
    return {row["asset"]: (row["free"], row["locked"]) for row in rows}


async def snapshot_in_doubt(conn: Any, account: str) -> bool:
    """Whether a snapshot disagreed with a newer-looking stream state; a second one 5 s later decides."""
    found: bool = await conn.fetchval(
        "SELECT EXISTS (SELECT FROM ledger.observations WHERE account = $1 AND kind = 'snapshot')", account
    )
    return found


async def balance_missed_since_ms(conn: Any, account: str, *, after_seq: int, until_ms: int) -> int | None:
    """Since when (venue clock, ms) REST alone has told a balance that the stream should have brought; None: it did.

    Looks at what was told after journal row ``after_seq`` and changed before ``until_ms``, outside any gap. A balance
    that comes and goes within one instant was brought, though REST had to say which state is the last. That instant is
    when the stream last told of the asset: the clock of a snapshot is the account's, moved by any other asset since.
    """
    since_ms: int | None = await conn.fetchval(
        """
        SELECT min(b.as_of_ms) FROM ledger.balances b
        CROSS JOIN LATERAL (
            SELECT max(h.as_of_ms) AS last_ms FROM ledger.balance_history h
            WHERE h.account = $1 AND h.asset = b.asset AND h.as_of_ms <= b.as_of_ms AND h.source = 'stream'
        ) brought
        WHERE b.account = $1 AND b.source = 'rest' AND b.seq > $2 AND b.as_of_ms < $3
          AND b.as_of_ms > (SELECT coalesce(max(coalesce(g.until_ms, 9223372036854775807)), 0)
                             FROM ledger.gaps g WHERE g.account = $1)
          AND NOT EXISTS (SELECT FROM ledger.balance_history h WHERE h.account = $1 AND h.asset = b.asset
                          AND h.as_of_ms BETWEEN brought.last_ms - 1000 AND brought.last_ms AND h.source = 'stream'
                          AND h.free = b.free AND h.locked = b.locked)
        """,
        account,
        after_seq,
        until_ms,
    )
    return since_ms


async def missed_since_ms(conn: Any, account: str, orders: Sequence[Order], fills: Sequence[Fill]) -> int | None:
    """Since when the stream, live all the time, cannot have told what REST tells here (venue clock, ms).

    None: nothing of it is news, or no stream was live without a gap since before it happened. Sources: the rows of one
    answer against what is stored. An order whose change has no time of its own (where REST gives only its creation)
    counts if it was stored before, since the last gap's end; orders that lost fills (``wounded``) may lag behind what
    the stream tells and are judged by their status alone.
    """
    since_ms: int | None = await conn.fetchval(
        """
        WITH steady AS (
            SELECT max(g.until_ms) AS since_ms FROM ledger.gaps g WHERE g.account = $1
            HAVING bool_and(g.closed_at IS NOT NULL)
               AND (SELECT c.live FROM ledger_v1.coverage c WHERE c.account = $1 AND c.symbol = '*')
        ), told AS (
            SELECT u.symbol, u.order_id, ledger.status_rank(u.status) AS rank, u.executed::numeric AS executed,
                   coalesce(u.updated_ms, u.created_ms) AS at_ms,
                   u.updated_ms IS NULL OR u.updated_ms <= u.created_ms AS timeless
            FROM unnest($2::text[], $3::bigint[], $4::text[], $5::text[], $6::bigint[], $7::bigint[])
                 AS u(symbol, order_id, status, executed, created_ms, updated_ms)
        ), traded AS (
            SELECT * FROM unnest($8::text[], $9::bigint[], $10::bigint[], $11::text[], $12::text[], $13::bigint[])
                 AS u(symbol, order_id, trade_id, price, qty, at_ms)
        )
        SELECT min(news.at_ms) FROM (
            SELECT t.symbol, t.order_id, greatest(t.at_ms, s.since_ms) AS at_ms FROM steady s CROSS JOIN told t
            LEFT JOIN ledger.orders o ON o.account = $1 AND o.symbol = t.symbol AND o.order_id = t.order_id
            WHERE (t.at_ms > s.since_ms OR (t.timeless AND o.account IS NOT NULL))
              AND (o.account IS NULL OR t.rank > o.status_rank
                   OR (NOT o.wounded AND t.executed > greatest(o.venue_executed_qty, (
                       SELECT coalesce(sum(f.qty), 0) FROM ledger.fills f WHERE f.account = $1
                       AND f.symbol = t.symbol AND f.order_id = t.order_id AND f.state <> 'voided'))))
            UNION ALL
            SELECT t.symbol, t.order_id, t.at_ms FROM steady s CROSS JOIN traded t
            WHERE t.at_ms > s.since_ms AND NOT EXISTS (
                SELECT FROM ledger.fills f WHERE f.account = $1 AND f.symbol = t.symbol AND f.order_id = t.order_id
                AND (f.trade_id = t.trade_id OR (f.trade_id IS NULL AND f.price = t.price::numeric
                     AND f.qty = t.qty::numeric AND abs(f.stream_ms - t.at_ms) <= 1000)))
        ) news
        -- A report of it came, which could not be read or is in quarantine, or ids of its market began anew: the socket
        -- is well.
        WHERE NOT EXISTS (SELECT FROM ledger.discrepancies d WHERE d.account = $1 AND d.symbol = news.symbol
                          AND (d.kind = 'ids_began_anew' OR (d.kind = 'quarantined' AND d.resolved_at IS NULL)
                               OR (d.kind = 'unreadable_report'
                               AND coalesce(d.order_id, news.order_id) = news.order_id)))
        """,
        account,
        [order.symbol for order in orders],
        [order.order_id for order in orders],
        [order.status for order in orders],
        [order.executed_qty for order in orders],
        [order.created_ms for order in orders],
        [order.updated_ms for order in orders],
        [fill.symbol for fill in fills],
        [fill.order_id for fill in fills],
        [fill.trade_id for fill in fills],
        [fill.price for fill in fills],
        [fill.qty for fill in fills],
        [fill.executed_ms for fill in fills],
    )
    return since_ms


async def mode(conn: Any, account: str) -> str | None:
    """What the venue let us recover when it was last probed; None: it never was."""
    found: str | None = await conn.fetchval("SELECT mode FROM ledger.venue_state WHERE account = $1", account)
    return found


async def blocked_until_ms(conn: Any, account: str) -> int | None:
    """Until when the venue asked for silence (this machine's clock, ms); None: never."""
    until: int | None = await conn.fetchval(
        "SELECT blocked_until_ms FROM ledger_read.venue_state WHERE account = $1", account
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
    """One row per account: health, gaps and counts, as ``status`` shows them.

    ``last_frame_at`` looks at the newest 10,000 journal rows. ``markets_walked`` of ``markets_known`` are through with
    every open gap; null while none is open.
    """
    rows = await conn.fetch(
        """
        SELECT a.account, ledger.clock() AS asked_at, a.rest_origin,
               l.host IS NOT NULL AS led, l.host AS leader, l.taken_at AS led_since,
               v.mode, c.live, c.complete_from_ms, c.complete_through_ms,
               a.stream_frames AS frames_seen, a.unreadable_frames, a.head_seq,
               (SELECT count(*) FROM ledger_read.gaps g WHERE g.account = a.account AND g.closed_at IS NULL)
                   AS open_gaps,
               a.head_gap AS gaps, o.cause AS outage_cause, o.opened_at AS outage_since, v.stream_error,
               (SELECT count(*) FROM ledger_read.discrepancies d WHERE d.account = a.account AND d.resolved_at IS NULL)
                   AS open_discrepancies,
               (SELECT count(*) FROM ledger_read.discrepancies d WHERE d.account = a.account AND d.resolved_at IS NULL
                AND d.uncovered_from_ms IS NOT NULL) AS coverage_holes,
               (SELECT min(d.uncovered_from_ms) FROM ledger_read.discrepancies d WHERE d.account = a.account
                AND d.resolved_at IS NULL) AS oldest_hole_ms,
               (SELECT count(*) FROM ledger_read.orders o WHERE o.account = a.account
                AND o.venue_executed_qty > o.fills_qty) AS missing_executions,
               (SELECT count(*) FROM ledger_read.fills f WHERE f.account = a.account AND f.state = 'provisional')
                   AS provisional_fills,
               (SELECT count(DISTINCT (c.symbol, c.order_id)) FROM ledger_read.order_checks c
                WHERE c.account = a.account AND c.due_ms IS NOT NULL) AS order_checks,
               (SELECT count(*) FROM ledger_read.order_checks c
                WHERE c.account = a.account AND c.reason = 'unknown_status') AS unknown_statuses,
               v.weight_used, v.blocked_until_ms, v.last_error, v.last_error_at, v.paused_error, v.paused_since,
               (SELECT i.problem FROM ledger_read.inbox i WHERE i.account = a.account AND i.problem IS NOT NULL
                AND i.source = 'stream' AND i.problem NOT LIKE 'remark: %' ORDER BY i.seq DESC LIMIT 1) AS last_problem,
               (SELECT i.received_at FROM ledger_read.inbox i WHERE i.account = a.account AND i.source = 'stream'
                AND i.seq > a.head_seq - 10000 ORDER BY i.seq DESC LIMIT 1) AS last_frame_at
        FROM ledger_read.accounts a
        LEFT JOIN ledger_v1.coverage c ON c.account = a.account AND c.symbol = '*'
        LEFT JOIN ledger_read.venue_state v ON v.account = a.account
        LEFT JOIN ledger_read.leases l ON l.account = a.account AND l.until_at > ledger.clock()
        LEFT JOIN ledger_read.gaps o ON o.account = a.account AND o.closed_at IS NULL AND o.until_ms IS NULL
        ORDER BY a.account
        """
    )
    return [dict(row) | await _markets(conn, row["account"], row["open_gaps"]) for row in rows]


async def _markets(conn: Any, account: str, open_gaps: int) -> dict[str, int | None]:
    """How many markets are through with every open gap, of how many there are."""
    if not open_gaps:
        return {"markets_walked": None, "markets_known": None}
    walked = await conn.fetch(
        "SELECT symbol, walked_gap >= (SELECT max(gap_id) FROM ledger_read.gaps WHERE account = $1"
        " AND closed_at IS NULL) AS is_through FROM ledger_read.coverage WHERE account = $1 AND symbol <> '*'",
        account,
    )
    known = {row["symbol"] for row in walked} | set(await symbols(conn, account))
    return {"markets_walked": sum(bool(row["is_through"]) for row in walked), "markets_known": len(known)}
