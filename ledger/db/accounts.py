"""The accounts of this database: who they are, how a name of which nothing is kept becomes free again, and how a
silence that the venue asked for is ended.

``conn`` is an asyncpg connection outside a transaction; ``forget`` and ``unblock`` need that of the owner.
"""

from __future__ import annotations

from typing import Any

from ledger.errors import ConfigError, LedgerError


async def accounts(conn: Any) -> list[dict[str, Any]]:
    """One row per account: its venue (None: none has accepted its key yet), how much is kept, and who mirrors it."""
    rows = await conn.fetch(
        """
        SELECT a.account, a.rest_origin, a.created_at, a.head_seq AS journal_rows, l.host AS mirrored_by
        FROM ledger_read.accounts a
        LEFT JOIN ledger_read.leases l ON l.account = a.account AND l.until_at > ledger.clock()
        ORDER BY a.account
        """
    )
    return [dict(row) for row in rows]


async def named(conn: Any, name: str | None, *, said_by: str = "--account") -> list[str]:
    """The account of that name, or all. Raises ConfigError, naming what said it, when it is not mirrored here."""
    rows = await conn.fetch("SELECT account FROM ledger_read.accounts ORDER BY account")
    known = [row["account"] for row in rows]
    if name is None:
        return known
    if name not in known:
        there = ", ".join(known) or "none"
        raise ConfigError(f"{said_by}: account '{name}' is not mirrored in this database; there is: {there}")
    return [name]


async def forget(conn: Any, account: str) -> bool:
    """Take an account out of the database of which the journal holds nothing. False: there is none of that name.

    Raises LedgerError when something is kept of it, or somebody mirrors it now: what was recorded stays.
    """
    async with conn.transaction():
        row = await conn.fetchrow(
            "SELECT a.head_seq, EXISTS (SELECT FROM ledger.inbox i WHERE i.account = $1) AS is_kept, (SELECT l.host"
            " FROM ledger.leases l WHERE l.account = $1 AND l.until_at > ledger.clock()) AS mirrored_by"
            " FROM ledger.accounts a WHERE a.account = $1 FOR UPDATE OF a",
            account,
        )
        if row is None:
            return False
        if row["head_seq"] or row["is_kept"]:
            raise LedgerError(
                f"account '{account}' is not forgotten: its journal holds {row['head_seq']} rows, and a journal is "
                "never thrown away. To start anew choose another SDX_ACCOUNT name (this one stays readable), or an "
                "empty database: another SDX_DATA_DIR or SDX_DATABASE_URL"
            )
        if row["mirrored_by"] is not None:
            raise LedgerError(
                f"account '{account}' is not forgotten: it is mirrored by {row['mirrored_by']} now; stop that first"
            )
        tables = await conn.fetch(
            "SELECT c.relname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'account'"
            " WHERE c.relnamespace = 'ledger'::regnamespace AND c.relkind IN ('r', 'p') ORDER BY c.relname"
        )
        for (name,) in tables:
            await conn.execute(f'DELETE FROM ledger."{name}" WHERE account = $1', account)
    return True


async def unblock(conn: Any, account: str) -> int | None:
    """Forget until when the venue wanted no calls, and return it (ms of the service's clock); None: it wanted nothing.

    A service that runs has it in mind until it is started again.
    """
    until_ms: int | None = await conn.fetchval(
        "UPDATE ledger.venue_state v SET blocked_until_ms = NULL FROM ledger.venue_state before"
        " WHERE v.account = $1 AND before.account = $1 RETURNING before.blocked_until_ms",
        account,
    )
    return until_ms
