"""Explained balances: which asset moved by more, or by less, than its fills, fees and transfers say (explain.sql).

Always holds: judging writes nothing but its own bookkeeping; what it finds becomes a discrepancy through ``apply``, as
everything else. ``conn`` is an asyncpg connection outside a transaction. Times are the venue's clock in ms.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Literal
from uuid import uuid4

from ledger.db import apply, decisions
from ledger.db.apply import Entry
from ledger.db.decisions import UNEXPLAINED, Decision, Meaning, MeaningDoesNotFit
from ledger.db.rows import lay
from ledger.facts.identity import SessionMemory
from ledger.facts.types import Doubt, Exact, Fact, Resolution

UNJUDGED = "unjudged_balance"
LOCK = "unexplained_lock"

SHOWN_MAX = 10_000
"""Discrepancies that are listed at once."""

Verdict = Literal["open", "resolve", "unjudged", "seen", "unsure"]
Source = Literal["venue", "setting", "inferred"]


@dataclass(frozen=True, slots=True)
class Finding:
    """What a judgement says of an asset that is not explained, or is explained again.

    ``open``: a residual seen twice; ``resolve``: discrepancy ``discrepancy_id`` is explained since; ``unjudged``:
    executions are missing, so nobody can say. These three are to be told. ``seen``: once so far, or ``actual`` says
    what may still come, look again at least 5 s later; ``unsure``: not now, ``actual`` says why. ``residual`` is
    signed as the balance moved.
    """

    asset: str
    verdict: Verdict
    discrepancy_id: int | None
    residual: Decimal
    at_ms: int | None
    evidence_seq: int | None
    expected: str | None
    actual: str | None


@dataclass(frozen=True, slots=True)
class Lock:
    """What is locked of an asset and what its open orders reserve; ``seq`` is the balance's journal row."""

    asset: str
    locked: Decimal
    reserved: Decimal
    as_of_ms: int
    seq: int


@dataclass(frozen=True, slots=True)
class OpenLock:
    """A lock that was told and is still open."""

    discrepancy_id: int
    asset: str
    residual: Decimal


async def explain(
    conn: Any, account: str, *, through_ms: int, now: datetime, fence: int | None = None
) -> list[Finding]:
    """Judge every asset at ``through_ms``, or at the end of what is covered where that comes first.

    Call it after an account snapshot that was asked later than ``through_ms``, by at least the lag of REST, is
    applied. ``now``: what tells two sightings of one residual apart. Call again once the findings are told.
    """
    rows = await conn.fetch("SELECT * FROM ledger.explain($1, $2, $3, $4)", account, through_ms, now, fence)
    return [Finding(**dict(row)) for row in rows]


def told(finding: Finding) -> Fact | None:
    """The fact that tells a finding; None where there is nothing to tell yet."""
    residual = Exact(format(finding.residual, "f"))
    match finding.verdict:
        case "open":
            return Doubt(
                UNEXPLAINED,
                finding.asset,
                finding.expected,
                finding.actual,
                residual,
                finding.at_ms,
                finding.evidence_seq,
                asset=finding.asset,
            )
        case "unjudged":
            return Doubt(
                UNJUDGED,
                finding.asset,
                finding.expected,
                finding.actual,
                residual,
                finding.at_ms,
                finding.evidence_seq,
                resolution="not judged: what is known of the missing executions is in missing_executions",
                asset=finding.asset,
            )
        case "resolve":
            assert finding.discrepancy_id is not None
            return Resolution(finding.discrepancy_id, finding.actual or "explained since")
        case "seen" | "unsure":
            return None


async def locks(conn: Any, account: str, *, through_ms: int) -> list[Lock]:
    """Every asset whose locked amount can be judged: its orders fully told, and nothing moved in the 2 s before."""
    rows = await conn.fetch("SELECT * FROM ledger.locks_at_rest($1, $2)", account, through_ms)
    return [Lock(**dict(row)) for row in rows]


async def lock_is_confirmed(conn: Any, account: str, lock: Lock, *, now_ms: int, after_ms: int) -> bool:
    """Whether this very difference was seen at least ``after_ms`` before ``now_ms`` (this machine's clock); the first
    sight of it is kept."""
    confirmed: bool | None = await conn.fetchval(
        "SELECT ledger.see_lock($1, $2, $3, $4, $5, $6)",
        account,
        lock.asset,
        lock.locked,
        lock.reserved,
        now_ms,
        after_ms,
    )
    return bool(confirmed)


async def forget_locks(conn: Any, account: str, *, but: Sequence[str]) -> None:
    """Locks of all other assets are not seen any more, or were told."""
    await conn.execute("SELECT ledger.forget_locks($1, $2)", account, list(but))


async def open_locks(conn: Any, account: str) -> list[OpenLock]:
    """The locks told and not settled yet."""
    rows = await conn.fetch(
        "SELECT discrepancy_id, asset, residual FROM ledger.discrepancies"
        " WHERE account = $1 AND resolved_at IS NULL AND kind = $2 ORDER BY discrepancy_id",
        account,
        LOCK,
    )
    return [OpenLock(**dict(row)) for row in rows]


def told_lock(lock: Lock) -> Doubt:
    """A lock that stays unexplained. The instant is part of the text: the same amount may come again."""
    return Doubt(
        LOCK,
        lock.asset,
        f"{lock.reserved:f} locked by the open orders",
        f"{lock.locked:f} locked since {lock.as_of_ms}: a lock of another kind, or an order that is not known",
        Exact(format(lock.locked - lock.reserved, "f")),
        lock.as_of_ms,
        lock.seq,
        asset=lock.asset,
    )


async def learn_markets(conn: Any, account: str, markets: Mapping[str, tuple[str, str]], *, source: Source) -> int:
    """Remember symbol -> (base, quote). Returns how many were new or changed."""
    if not markets:
        return 0
    bases = [base for base, _ in markets.values()]
    quotes = [quote for _, quote in markets.values()]
    changed: int = await conn.fetchval(
        "SELECT ledger.learn_markets($1, $2, $3, $4, $5)", account, list(markets), bases, quotes, source
    )
    return changed


async def infer_markets(conn: Any, account: str, symbols: Sequence[str]) -> int:
    """Split symbols nobody told the assets of, where two assets of the account make one up in one way only."""
    changed: int = await conn.fetchval("SELECT ledger.infer_markets($1, $2)", account, list(symbols))
    return changed


async def discrepancies(conn: Any, account: str | None, *, settled: bool) -> list[dict[str, Any]]:
    """The discrepancies of one account, or of all; the open ones alone unless ``settled``. Newest ``SHOWN_MAX``."""
    return [
        dict(row)
        for row in await conn.fetch(
            "SELECT * FROM ledger_v1.discrepancies WHERE ($1::text IS NULL OR account = $1)"
            " AND ($2 OR resolved_at IS NULL) ORDER BY account, discrepancy_id DESC LIMIT $3",
            account,
            settled,
            SHOWN_MAX,
        )
    ]


async def decide(
    conn: Any, account: str, discrepancy_id: int, meaning: Meaning, *, note: str, user: str, now_ms: int
) -> Decision:
    """Settle a discrepancy as a person says: one journal row, the transfer it means, the resolution.

    ``now_ms``: this machine's clock. Raises ValueError with one sentence where that cannot be: there is no such
    discrepancy, it is settled already, or (MeaningDoesNotFit) it contradicts ``meaning``.
    """
    async with conn.transaction():
        row = await conn.fetchrow("SELECT * FROM ledger.hold_discrepancy($1, $2)", account, discrepancy_id)
        if row is None:
            raise ValueError(f"account '{account}' has no discrepancy {discrepancy_id}; see: discrepancy list --all")
        if row["resolved_at"] is not None:
            raise ValueError(
                f"discrepancy {discrepancy_id} was settled on {row['resolved_at']:%Y-%m-%d %H:%M:%S} UTC: "
                f"{row['resolution']}"
            )
        amount = None if row["residual"] is None else Exact(format(row["residual"], "f"))
        decision = Decision(discrepancy_id, row["kind"], row["subject"], meaning, amount, row["at_ms"], note, user)
        problem = decisions.problem(decision)
        if problem is not None:
            raise MeaningDoesNotFit(problem)
        raw = decisions.encode(decision)
        entry = Entry(1, now_ms, decisions.KIND, None, raw, None, lay(decisions.facts(decision)))
        await apply.apply(conn, apply.build(account, uuid4(), "operator", [entry], SessionMemory()))
    return decision
