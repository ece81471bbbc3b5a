"""Frames and answers kept without their facts, since their content was refused (quarantine.sql).

Always holds: what they say comes into the rows through ``ledger.apply`` alone, under a journal row of its own that
names the kept one: whoever follows seq sees it, and a replay applies it at that very place. ``conn`` is an asyncpg
connection outside a transaction.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from ledger.db.apply import Batch, Entry
from ledger.facts.types import Balance, Fact, Fill, Order, Settlement, Snapshot, Transfer

KIND = "quarantine_retry"
"""Kind of the journal row that applies a kept one again."""

READ_AT_ONCE = 200


@dataclass(frozen=True, slots=True)
class Hole:
    """Where coverage ends while the facts are not in the rows: at ``uncovered_from_ms`` of the venue's clock (None:
    nothing could be missing), in ``symbol`` or, where it is None, in every market."""

    symbol: str | None = None
    uncovered_from_ms: int | None = None


def hole(facts: Iterable[Fact], *, source: str, at_ms: int) -> Hole:
    """What is not known while these facts are left out. ``at_ms``: when the frame or the answer itself is of."""
    times: list[int] = []
    symbols: set[str | None] = set()
    for fact in facts:
        match fact:
            case Order():
                # A report tells of one change; a row of REST may be all that is known of the order.
                told = (fact.updated_ms, fact.created_ms) if source == "stream" else (fact.created_ms, fact.updated_ms)
                times.append(next((ms for ms in told if ms is not None), at_ms))
                symbols.add(fact.symbol)
            case Fill():
                times.append(fact.executed_ms)
                symbols.add(fact.symbol)
            case Settlement():
                times.append(at_ms)
                symbols.add(fact.symbol)
            case Balance() | Snapshot():
                times.append(at_ms if fact.as_of_ms is None else fact.as_of_ms)
                symbols.add(None)
            case Transfer():
                times.append(fact.at_ms)
                symbols.add(None)
            case _:
                continue
    if not times:
        return Hole()
    # What happened at that very instant is not known any more.
    return Hole(symbols.pop() if len(symbols) == 1 else None, max(min(times) - 1, 0))


def refused(batch: Batch, problem: str, sqlstate: str | None, where: Hole) -> Batch:
    """The one frame of ``batch`` without its facts, marked with ``problem`` and listed in quarantine."""
    bare = batch.without_facts(problem)
    return Batch(bare.header, bare.frames, (), (), (), {"quarantined": [{"frame": 1, **_row(sqlstate, where)}]})


def again(kept: Batch, seq: int, *, session_id: UUID, received_ms: int) -> Batch:
    """The call that applies what journal row ``seq`` says: ``kept`` is its frame with all its facts, as it was counted.

    ``received_ms`` is this machine's clock. Snapshots, settlements and orders are judged by when they were asked for.
    """
    account, _, source, _, asked_seq, _, clockless, lag_ms, _, _ = kept.header
    header = (account, session_id, "operator", None, asked_seq, None, clockless, lag_ms, None, None)
    (frame,) = kept.frames
    entry = Entry(1, received_ms, KIND, frame.venue_ms, encode(seq), None, ())
    rare = {**kept.rare, "source": source, "retried": [{"frame": 1, "seq": seq}]}
    return Batch(header, (entry,), kept.orders, kept.fills, kept.balances, rare)


def encode(seq: int) -> bytes:
    """The bytes of the journal row that applies row ``seq`` again."""
    return json.dumps({"seq": seq}).encode()


def decode(raw: bytes) -> int:
    """The seq of the row that such bytes apply again. Raises ValueError when they are none."""
    try:
        return int(json.loads(raw)["seq"])
    except (TypeError, KeyError) as error:
        raise ValueError(f"expected the number of a journal row, got {raw[:80]!r}") from error


async def waiting(conn: Any, account: str | None, *, after: tuple[str, int] = ("", 0)) -> list[tuple[str, int]]:
    """(account, seq) of what is quarantined, in order, at most ``READ_AT_ONCE`` after this one."""
    rows = await conn.fetch(
        "SELECT account, seq FROM ledger.quarantine WHERE applied_seq IS NULL AND ($1::text IS NULL OR account = $1)"
        " AND (account, seq) > ($2, $3) ORDER BY account, seq LIMIT $4",
        account,
        *after,
        READ_AT_ONCE,
    )
    return [(row["account"], row["seq"]) for row in rows]


async def listed(conn: Any, account: str | None, *, at_most: int) -> list[dict[str, Any]]:
    """What is quarantined, of one account or of all, the newest first; ``symbol`` is None where it is about several."""
    return [
        dict(row)
        for row in await conn.fetch(
            "SELECT q.*, d.symbol FROM ledger_v1.quarantine q LEFT JOIN ledger_v1.discrepancies d"
            " ON d.account = q.account AND d.kind = 'quarantined' AND d.evidence_seq = q.seq"
            " WHERE ($1::text IS NULL OR q.account = $1) ORDER BY q.account, q.seq DESC LIMIT $2",
            account,
            at_most,
        )
    ]


async def refused_again(
    conn: Any, account: str, seq: int, *, at: datetime, problem: str, sqlstate: str | None, where: Hole
) -> None:
    """Note that another try was refused."""
    row = json.dumps(_row(sqlstate, where))
    await conn.execute("SELECT ledger.stay_in_quarantine($1, $2, $3, $4, $5)", account, seq, at, problem, row)


def _row(sqlstate: str | None, where: Hole) -> dict[str, Any]:
    return {"sqlstate": sqlstate, "symbol": where.symbol, "uncovered_from_ms": where.uncovered_from_ms}
