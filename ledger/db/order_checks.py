"""Orders that must be asked for again at REST: entered, looked for, put off, done.

One table (``ledger.order_checks``), a row for each order and reason. ``conn`` is an asyncpg connection outside a
transaction; times are the venue's clock in ms. Which order is asked when is decided in ``reconcile.order_checks``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal

from ledger.db.reads import OrderKey

Reason = Literal[
    "moved_in_gap",
    "provisional_fill",
    "missing_fills",
    "quantity_differs",
    "reported_again",
    "unknown_to_venue",
    "unknown_status",
    "refused",
    "unreadable_report",
    "absent",
]
MOVED_IN_GAP: Reason = "moved_in_gap"
"""It moved while a gap was backfilled: an answer of that time may not have known of it."""
PROVISIONAL_FILL: Reason = "provisional_fill"
"""One of its fills may be a doubled frame."""
MISSING_FILLS: Reason = "missing_fills"
"""Fills were missing when the venue last reported its executed quantity, and it has moved on since."""
QUANTITY_DIFFERS: Reason = "quantity_differs"
"""It is filled, with another quantity than it was for: an amendment of it was missed, or executions were."""
REPORTED_AGAIN: Reason = "reported_again"
"""The stream reported it once more without an execution or another status, and not what changed: it may be amended.
Entered by ledger.apply."""
UNKNOWN_TO_VENUE: Reason = "unknown_to_venue"
"""REST says that there is no such order."""
UNKNOWN_STATUS: Reason = "unknown_status"
"""Its status is one we do not know: it may be over."""
REFUSED: Reason = "refused"
"""The venue refused the question about it, or something about it could not be read: an open discrepancy says so."""
UNREADABLE_REPORT: Reason = "unreadable_report"
"""A report of the stream about it could not be read (entered by ledger.apply, due so much later as REST may trail)."""
ABSENT: Reason = "absent"
"""The venue has no such order, and that agrees with what is known of it: the answer stands."""


@dataclass(frozen=True, slots=True)
class OrderCheck:
    """One row that is due. ``status`` None: no status was reported, or no such order is stored."""

    symbol: str
    order_id: int
    reason: str
    tries: int
    ends_coverage: bool
    status: str | None
    executed_qty: Decimal

    @property
    def key(self) -> OrderKey:
        """(symbol, order id)"""
        return self.symbol, self.order_id


async def find(conn: Any, account: str, *, lag_ms: int) -> None:
    """Enter the orders whose own rows show that they must be asked for, take out those that show it no more."""
    await conn.execute("SELECT ledger.find_order_checks($1, $2)", account, lag_ms)


async def due(conn: Any, account: str, *, now_ms: int, lag_ms: int, longest_ms: int, limit: int) -> list[OrderCheck]:
    """At most ``limit`` checks whose time has come, those due longest first.

    What the stream moved within ``lag_ms`` waits: REST may not know of it. A time further ahead than ``longest_ms``
    was set by a wrong clock and counts as come.
    """
    rows = await conn.fetch(
        """
        SELECT c.symbol, c.order_id, c.reason, c.tries, c.ends_coverage, o.status,
               coalesce(greatest(o.venue_executed_qty, o.fills_qty), 0) AS executed_qty
        FROM ledger.order_checks c
        LEFT JOIN ledger.orders o ON o.account = c.account AND o.symbol = c.symbol AND o.order_id = c.order_id
        WHERE c.account = $1 AND (c.due_ms <= $2 OR c.due_ms > $2 + $4)
          AND (c.reason NOT IN ('moved_in_gap', 'provisional_fill', 'missing_fills', 'quantity_differs',
                                'reported_again')
               OR coalesce(o.updated_ms, 0) <= $2 - $3)
          AND (c.reason <> 'unreadable_report' OR c.tries > 0 OR c.due_ms <= $2 - $3 OR c.due_ms > $2 + $4)
        ORDER BY c.due_ms, c.symbol, c.order_id, c.reason LIMIT $5
        """,
        account,
        now_ms,
        lag_ms,
        longest_ms,
        limit,
    )
    return [OrderCheck(**dict(row)) for row in rows]


async def add(
    conn: Any,
    account: str,
    keys: Sequence[OrderKey],
    reason: Reason,
    *,
    due_ms: int | None,
    tries: int = 0,
    ends_coverage: bool = False,
) -> None:
    """These orders must be asked for; one that is entered already keeps its time. ``due_ms`` None: never again."""
    await conn.execute(
        "SELECT ledger.add_order_checks($1, $2, $3, $4, $5, $6, $7)",
        account,
        [symbol for symbol, _ in keys],
        [order_id for _, order_id in keys],
        reason,
        due_ms,
        tries,
        ends_coverage,
    )


async def put_off(conn: Any, account: str, key: OrderKey, reasons: Sequence[str], *, due_ms: int) -> None:
    """The order was asked for in vain, or in part: once more at ``due_ms``."""
    await conn.execute("SELECT ledger.put_off_order_checks($1, $2, $3, $4, $5)", account, *key, list(reasons), due_ms)


async def done(conn: Any, account: str, key: OrderKey, reasons: Sequence[str], *, quiet_ms: int) -> None:
    """The answer settles these reasons, unless the order moved after ``quiet_ms``, which it may not know of."""
    await conn.execute("SELECT ledger.end_order_checks($1, $2, $3, $4, $5)", account, *key, list(reasons), quiet_ms)


async def states(conn: Any, account: str, keys: Sequence[OrderKey]) -> dict[OrderKey, OrderCheck]:
    """What is known of these orders, as the check for ``unknown_to_venue`` that each has or would have."""
    rows = await conn.fetch(
        """
        SELECT u.symbol, u.order_id, 'unknown_to_venue' AS reason, coalesce(c.tries, 0) AS tries,
               coalesce(c.ends_coverage, false) AS ends_coverage, o.status,
               coalesce(greatest(o.venue_executed_qty, o.fills_qty), 0) AS executed_qty
        FROM unnest($2::text[], $3::bigint[]) AS u(symbol, order_id)
        LEFT JOIN ledger.orders o ON o.account = $1 AND o.symbol = u.symbol AND o.order_id = u.order_id
        LEFT JOIN ledger.order_checks c ON c.account = $1 AND c.symbol = u.symbol AND c.order_id = u.order_id
            AND c.reason = 'unknown_to_venue'
        """,
        account,
        [symbol for symbol, _ in keys],
        [order_id for _, order_id in keys],
    )
    return {(row["symbol"], row["order_id"]): OrderCheck(**dict(row)) for row in rows}


async def open_unknown(conn: Any, account: str, key: OrderKey) -> list[int]:
    """Numbers of the open discrepancies that an answer "there is no such order" settles."""
    rows = await conn.fetch(
        "SELECT discrepancy_id FROM ledger.discrepancies WHERE account = $1 AND symbol = $2 AND order_id = $3"
        " AND kind IN ('order_unknown', 'unreadable_report', 'order_refused', 'rest_row') AND resolved_at IS NULL"
        " ORDER BY discrepancy_id",
        account,
        *key,
    )
    return [row["discrepancy_id"] for row in rows]
