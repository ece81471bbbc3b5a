"""Gaps, coverage and the state of the venue: one SQL function per sentence (coverage.sql, venue_state.sql), each its
own transaction, those of gaps under the account's lock.

``conn`` is an asyncpg connection outside a transaction. Times are the venue's clock in ms.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ledger.db.apply import WalkStep
from ledger.errors import ConfigError

ASKED_FOR = "asked for"
"""Cause of a gap that is none: somebody wants the time to be read again."""


@dataclass(frozen=True, slots=True)
class Gap:
    """An outage still to be walked. ``from_ms`` None: from the beginning of the account's history; ``until_ms`` None:
    it goes on. ``is_new``: its row was written just now."""

    gap_id: int
    cause: str
    from_ms: int | None
    until_ms: int | None
    is_new: bool = False


@dataclass(frozen=True, slots=True)
class Registration:
    """What the database knows of an account: the REST origin it belongs to and the key it was last read with, each
    None as long as no venue has accepted it."""

    rest_origin: str | None
    key_fingerprint: str | None
    head_seq: int


async def register(
    conn: Any, account: str, *, rest_origin: str | None = None, key_fingerprint: str | None = None
) -> Registration:
    """Make the account known, or find it. ``rest_origin`` and ``key_fingerprint``: of the venue that has just accepted
    this key, kept if none did before (None: nothing was heard yet). The caller compares what is known.

    Raises ConfigError when the account belongs to another REST origin than the one that is told.
    """
    row = await conn.fetchrow("SELECT * FROM ledger.register($1, $2, $3)", account, rest_origin, key_fingerprint)
    known = Registration(row["rest_origin"], row["key_fingerprint"], row["head_seq"])
    if rest_origin is not None:
        belongs(known, account, rest_origin)
    return known


def belongs(known: Registration, account: str, rest_origin: str) -> None:
    """Raises ConfigError when the account belongs to another venue: a sandbox and a real account can never mix."""
    if known.rest_origin in (None, rest_origin):
        return
    way_out = (
        f"nothing is kept of it yet, so `sdx-ledger account forget {account}` makes the name free"
        if not known.head_seq
        else "choose another SDX_ACCOUNT name or another database"
    )
    raise ConfigError(
        f"SDX_ACCOUNT: account '{account}' in this database belongs to {known.rest_origin}, not to {rest_origin}; "
        f"{way_out}"
    )


async def adopt_key(conn: Any, account: str, key_fingerprint: str) -> None:
    """Remember the key the account is read with from now on."""
    await conn.execute("SELECT ledger.adopt_key($1, $2)", account, key_fingerprint)


async def stream_down(conn: Any, account: str, *, fence: int | None = None) -> None:
    """Nothing is live until the stream beats again."""
    await conn.execute("SELECT ledger.stream_down($1, $2)", account, fence)


async def open_gap(
    conn: Any,
    account: str,
    *,
    cause: str,
    until_ms: int | None,
    not_after_ms: int | None = None,
    live: bool = True,
    fence: int | None = None,
    now_ms: int | None = None,
    trail_ms: int = 0,
) -> Gap:
    """Open the gap of one outage, from what is covered to ``until_ms`` (None: the outage goes on), or end the one that
    goes on.

    ``not_after_ms``: what came later is in doubt although it was counted as covered. ``live``: the stream is up.
    ``now_ms``: the venue's clock, which what is covered is compared with, together with the database's own; it trails
    by ``trail_ms``. None: it is taken as it stands.
    """
    row = await conn.fetchrow(
        "SELECT * FROM ledger.open_gap($1, $2, $3, $4, $5, $6, $7, $8)",
        account,
        cause,
        until_ms,
        not_after_ms,
        live,
        fence,
        now_ms,
        trail_ms,
    )
    return Gap(row["gap_id"], cause, row["from_ms"], until_ms, row["is_new"])


async def close_gap(
    conn: Any,
    account: str,
    gap_id: int,
    *,
    complete_from_ms: int | None,
    moved_ms: int | None = None,
    fence: int | None = None,
) -> bool:
    """Every question of the walk was answered. False when another run closed it first.

    ``complete_from_ms``: how far back a gap from the beginning was walked; None: to the beginning. ``moved_ms``:
    orders that moved after this instant (venue clock) are asked for once more when they are quiet; None: none.
    """
    closed: bool = await conn.fetchval(
        "SELECT ledger.close_gap($1, $2, $3, $4, $5)", account, gap_id, complete_from_ms, moved_ms, fence
    )
    return closed


async def open_gaps(conn: Any, account: str) -> list[Gap]:
    """The gaps still open, oldest first."""
    rows = await conn.fetch(
        "SELECT gap_id, cause, from_ms, until_ms FROM ledger.gaps WHERE account = $1 AND closed_at IS NULL"
        " ORDER BY gap_id",
        account,
    )
    return [Gap(row["gap_id"], row["cause"], row["from_ms"], row["until_ms"]) for row in rows]


async def set_mode(conn: Any, account: str, mode: str) -> None:
    """What the venue lets us recover, as just probed."""
    await conn.execute("SELECT ledger.set_mode($1, $2)", account, mode)


async def set_block(conn: Any, account: str, until_ms: int) -> None:
    """The venue asked for silence until then (this machine's clock); kept so that a restart obeys it too."""
    await conn.execute("SELECT ledger.set_block($1, $2)", account, until_ms)


async def set_weight(conn: Any, account: str, weight_used: int) -> None:
    """REST weight spent in the last minute, for ``status``."""
    await conn.execute("SELECT ledger.set_weight($1, $2)", account, weight_used)


async def set_error(conn: Any, account: str, error: str) -> None:
    """The newest error of the service, without secrets, for ``status``."""
    await conn.execute("SELECT ledger.set_error($1, $2)", account, error[:2000])


async def set_paused(conn: Any, account: str, problem: str | None) -> None:
    """The database refuses the work of this account, and why; None: it works again. For ``status``."""
    await conn.execute("SELECT ledger.set_paused($1, $2)", account, None if problem is None else problem[:2000])


async def set_stream_error(conn: Any, account: str, error: str | None) -> None:
    """Why the stream could not be opened at the last attempt, without secrets; None: it is open."""
    await conn.execute("SELECT ledger.set_stream_error($1, $2)", account, None if error is None else error[:2000])


async def walked(conn: Any, account: str, gap_id: int) -> list[WalkStep]:
    """How far the walk of a gap had come when it was broken off; empty for one that never began."""
    rows = await conn.fetch(
        "SELECT symbol, kind, start_ms, end_ms, asked_ms, done, rows, served_from_ms FROM ledger.walks"
        " WHERE account = $1 AND gap_id = $2 ORDER BY symbol, kind",
        account,
        gap_id,
    )
    return [WalkStep(gap_id, **dict(row)) for row in rows]


async def page_limits(conn: Any, account: str) -> dict[str, int]:
    """Rows to ask for by kind of question, where the venue refused to be asked for as many as usual."""
    rows = await conn.fetch("SELECT kind, rows FROM ledger.page_limits WHERE account = $1", account)
    return {row["kind"]: row["rows"] for row in rows}


async def set_page_limit(conn: Any, account: str, kind: str, rows: int) -> None:
    """The venue refused to be asked for more rows than these in a page of this kind."""
    await conn.execute("SELECT ledger.set_page_limit($1, $2, $3)", account, kind, rows)


async def set_stream_key(conn: Any, account: str, digest: bytes, confirmed_ms: int, *, age_ms: int) -> None:
    """The stream hangs on the listen key with this SHA-256, which the venue confirmed then (venue clock), ``age_ms``
    ago."""
    await conn.execute("SELECT ledger.set_stream_key($1, $2, $3, $4)", account, digest, confirmed_ms, age_ms)
