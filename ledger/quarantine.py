"""Applies again what was kept without its facts, since its content was refused.

Always holds: the kept bytes go through the functions that read them first, each row in a call of its own; what is
refused again stays where it is, with one more try.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any
from uuid import uuid4

import structlog

from ledger import kept
from ledger.db import apply, quarantine
from ledger.db.apply import Batch
from ledger.errors import DatabaseError
from ledger.wire.postgres import Writer, is_refusal, refusal, sqlstate_of

APPLIED_WITHIN_S = 30.0
"""How long one row may wait for a database that is away, busy or refuses to work."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Retried:
    """What came of one row. ``applied_seq``: the journal row that brought its facts; None: refused again, which
    ``problem`` says."""

    account: str
    seq: int
    applied_seq: int | None
    fills_new: int = 0
    orders_changed: int = 0
    problem: str | None = None


async def retry(writer: Writer, account: str | None, *, now_ms: int) -> list[Retried]:
    """Try every quarantined row of one account, or of all, in the order in which they came.

    ``now_ms``: this machine's clock. The service may run meanwhile. Raises DatabaseError where the database does not
    take a row for another reason than what it says; that row and those after it stay as they are.
    """
    done: list[Retried] = []
    after = ("", 0)
    while True:
        found = await writer.run(partial(quarantine.waiting, account=account, after=after))
        if not found:
            return done
        for name in dict.fromkeys(name for name, _ in found):
            seqs = [seq for of, seq in found if of == name]
            batches = await writer.run(partial(kept.rebuilt, account=name, seqs=seqs))
            done += [await _retry(writer, batches[seq], name, seq, now_ms) for seq in seqs if seq in batches]
        after = found[-1]


async def _retry(writer: Writer, batch: Batch, account: str, seq: int, now_ms: int) -> Retried:
    call = quarantine.again(batch, seq, session_id=uuid4(), received_ms=now_ms)
    try:
        async with asyncio.timeout(APPLIED_WITHIN_S):
            applied = await writer.run(lambda conn: apply.apply(conn, call))
    except TimeoutError:
        raise DatabaseError(
            f"journal row {seq} of account '{account}' could not be applied within {APPLIED_WITHIN_S:.0f} s, though "
            "its content is not refused; the log says why. Once that is mended, run: sdx-ledger quarantine retry"
        ) from None
    except Exception as error:
        if not is_refusal(error):
            raise
        problem, sqlstate = refusal(error), sqlstate_of(error)
    else:
        log.info("applied what was quarantined", account=account, seq=seq, by=applied.last_seq)
        return Retried(account, seq, applied.last_seq, applied.fills_new, applied.orders_changed)
    log.warning("still refused", account=account, seq=seq, error=problem)
    (frame,) = batch.frames
    row = await writer.run(partial(_row, account=account, seq=seq))
    await writer.run(
        partial(
            quarantine.refused_again,
            account=account,
            seq=seq,
            at=datetime.fromtimestamp(now_ms / 1000, UTC),
            problem=problem,
            sqlstate=sqlstate,
            where=quarantine.hole(kept.facts(row), source=row["source"], at_ms=frame.venue_ms or kept.received_ms(row)),
        )
    )
    return Retried(account, seq, None, problem=problem)


async def _row(conn: Any, account: str, seq: int) -> Any:
    return await conn.fetchrow(f"{kept.JOURNAL} AND i.seq = $2", account, seq)
