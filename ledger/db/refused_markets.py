"""Markets of which the venue refused to tell (``ledger.refused_markets``), and discrepancies that wait for an answer.

``conn`` is an asyncpg connection outside a transaction. Times are the venue's clock in ms.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class RefusedMarket:
    """``from_ms``: start of what could not be asked for, 0: the beginning. ``tries``: refusals so far, at least 1."""

    symbol: str
    from_ms: int
    tries: int
    due_ms: int
    refused_seq: int


@dataclass(frozen=True, slots=True)
class Waiting:
    """An open discrepancy that an answer of the venue settles; what it is about."""

    discrepancy_id: int
    kind: str
    subject: str
    symbol: str | None
    order_id: int | None
    uncovered_from_ms: int | None


async def markets(conn: Any, account: str) -> list[RefusedMarket]:
    """All of them. Those whose discrepancy a person has accepted are taken out: they are asked for like any other."""
    await conn.execute("SELECT ledger.leave_accepted_markets($1)", account)
    rows = await conn.fetch(
        "SELECT symbol, from_ms, tries, due_ms, refused_seq FROM ledger.refused_markets WHERE account = $1"
        " ORDER BY symbol",
        account,
    )
    return [RefusedMarket(**dict(row)) for row in rows]


async def refused(conn: Any, account: str, symbol: str, *, from_ms: int, due_ms: int) -> None:
    """The venue refused once more to tell of this market, of which nothing is known from ``from_ms`` on."""
    await conn.execute("SELECT ledger.market_refused($1, $2, $3, $4)", account, symbol, from_ms, due_ms)


async def answered(conn: Any, account: str, symbol: str) -> None:
    """The venue told everything that was asked for of this market."""
    await conn.execute("SELECT ledger.market_answered($1, $2)", account, symbol)


async def waiting(conn: Any, account: str, kinds: tuple[str, ...]) -> list[Waiting]:
    """The open discrepancies of these kinds, oldest first."""
    rows = await conn.fetch(
        "SELECT discrepancy_id, kind, subject, symbol, order_id, uncovered_from_ms FROM ledger.discrepancies"
        " WHERE account = $1 AND resolved_at IS NULL AND kind = ANY ($2) ORDER BY discrepancy_id",
        account,
        list(kinds),
    )
    return [Waiting(**dict(row)) for row in rows]
