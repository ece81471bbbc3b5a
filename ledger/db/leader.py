"""The lead of an account: one process mirrors it, all others stand by. One SQL function per sentence (leader.sql).

Always holds: time is the database's alone; whoever takes the lead raises the account's fence, and from then on nothing
written under an older one lands, however late it wakes up. ``conn`` is an asyncpg connection outside a transaction.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

TTL_S = 6.0
"""How long a lead lasts without being renewed."""
RENEW_S = 2.0
POLL_S = 1.0
"""How often a standby looks: with the lease's time it leads at most 7 s after its leader died."""
ANSWER_WITHIN_S = 3.0
"""A connection that takes longer is made anew: it must not cost the lead."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """Who wants to lead ``account``, under a ``holder`` made for this one wish; ``host`` tells people who it is."""

    account: str
    holder: UUID
    host: str


async def led_by(conn: Any, account: str) -> str | None:
    """Host and process that lead the account now; None: nobody does."""
    host: str | None = await conn.fetchval(
        "SELECT host FROM ledger.leases WHERE account = $1 AND until_at > ledger.clock()",
        account,
        timeout=ANSWER_WITHIN_S,
    )
    return host


async def take(conn: Any, who: Candidate, *, ttl_s: float = TTL_S) -> int | None:
    """Lead if nobody does: the fence to write under. None: another leads."""
    fence: int | None = await conn.fetchval(
        "SELECT ledger.take_lead($1, $2, $3, $4)", who.account, who.holder, who.host, timedelta(seconds=ttl_s)
    )
    return fence


async def keep(conn: Any, who: Candidate, fence: int, *, ttl_s: float = TTL_S) -> bool:
    """Renew the lead. False: another took it."""
    kept: bool = await conn.fetchval(
        "SELECT ledger.keep_lead($1, $2, $3, $4)",
        who.account,
        who.holder,
        fence,
        timedelta(seconds=ttl_s),
        timeout=ANSWER_WITHIN_S,
    )
    return kept


async def leave(conn: Any, who: Candidate, fence: int) -> None:
    """Let another lead at once. Nothing happens where another leads already."""
    await conn.execute("SELECT ledger.leave_lead($1, $2, $3)", who.account, who.holder, fence, timeout=ANSWER_WITHIN_S)
