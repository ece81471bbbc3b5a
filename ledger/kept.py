"""What kept journal rows say, read again as the service read them.

Always holds: rows become facts through the functions the service itself uses, and are counted within their session as
they were; nothing is written here. ``conn`` is an asyncpg connection.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from ledger.db import apply, decisions
from ledger.db.apply import Batch, Entry
from ledger.db.rows import lay
from ledger.errors import UnreadableFrame
from ledger.facts.identity import SessionMemory
from ledger.facts.types import Fact
from ledger.stream import consumer
from ledger.venue import rest_pages
from ledger.venue.reading import is_remark
from ledger.wire.postgres import REFUSED

ROWS_READ_AT_ONCE = 500

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

JOURNAL = """
    SELECT i.seq, i.source, i.session_id, i.frame_no, i.received_at, i.kind, i.venue_ms, i.asked_seq, i.question, i.raw,
           i.problem, b.first_seq, b.last_seq, b.clockless, b.lag_ms
    FROM ledger.inbox i LEFT JOIN LATERAL (
        SELECT x.first_seq, x.last_seq, x.clockless, x.lag_ms FROM ledger.batches x
        WHERE x.account = i.account AND x.last_seq >= i.seq ORDER BY x.last_seq LIMIT 1
    ) b ON b.first_seq <= i.seq
    WHERE i.account = $1"""
"""Journal rows of account $1 with what was said of the call that wrote each; conditions and order are to follow."""


def entry(row: Mapping[str, Any]) -> Entry:
    """The journal row as it was handed to ``apply.build``, without its bytes: the scratch journal is of no interest."""
    return Entry(row["frame_no"], received_ms(row), row["kind"], row["venue_ms"], b"", None, lay(facts(row)))


def received_ms(row: Mapping[str, Any]) -> int:
    """When it arrived, by the clock of the machine that kept it."""
    return (row["received_at"] - _EPOCH) // timedelta(milliseconds=1)  # type: ignore[no-any-return]


def is_refused(row: Mapping[str, Any]) -> bool:
    """Whether it was kept without its facts, since the database refused what it says."""
    problem: str | None = row["problem"]
    return problem is not None and problem.startswith(REFUSED)


def facts(row: Mapping[str, Any]) -> tuple[Fact, ...]:
    """What a journal row says, read as the service read it; nothing where it could not.

    The facts of a row whose content was refused are among them: its session has counted them, and they may be applied
    later. Doubts are not: they become discrepancies, which depend on more than the journal.
    """
    if row["source"] == "stream":
        if row["problem"] is not None and not is_refused(row) and not is_remark(row["problem"]):
            return ()
        return tuple(consumer.understand(row["raw"])[1])
    if row["source"] == "operator":
        return decisions.facts(decisions.decode(row["raw"])) if row["kind"] == decisions.KIND else ()
    if row["kind"] == "note":
        return ()
    try:
        return rest_pages.read_kept(row["kind"], row["question"], row["raw"]).facts
    except UnreadableFrame:
        return ()


async def remember(conn: Any, account: str, memory: SessionMemory, session_id: UUID, *, before_seq: int) -> None:
    """Count what a session of the stream said before journal row ``before_seq``."""
    async for _ in _session(conn, account, memory, session_id, before_seq):
        pass


async def rebuilt(conn: Any, account: str, seqs: Sequence[int]) -> dict[int, Batch]:
    """These journal rows, each as a call with all its facts, counted as they were when it came."""
    rows = await conn.fetch(f"{JOURNAL} AND i.seq = ANY ($2::bigint[]) ORDER BY i.seq", account, list(seqs))
    made = {row["seq"]: _call(account, row, SessionMemory()) for row in rows if row["source"] != "stream"}
    newest: dict[UUID, int] = {row["session_id"]: row["seq"] for row in rows if row["source"] == "stream"}
    wanted = frozenset(seqs)
    for session_id, last_seq in newest.items():
        said = _session(conn, account, SessionMemory(), session_id, last_seq + 1)
        made |= {seq: batch async for seq, batch in said if seq in wanted}
    return made


async def _session(
    conn: Any, account: str, memory: SessionMemory, session_id: UUID, before_seq: int
) -> AsyncIterator[tuple[int, Batch]]:
    """What a session said before this row, frame by frame; counts in ``memory``."""
    last = 0
    while True:
        rows = await conn.fetch(
            f"{JOURNAL} AND i.session_id = $2 AND i.source = 'stream' AND i.seq > $3 AND i.seq < $4"
            " ORDER BY i.seq LIMIT $5",
            account,
            session_id,
            last,
            before_seq,
            ROWS_READ_AT_ONCE,
        )
        if not rows:
            return
        for row in rows:
            yield row["seq"], _call(account, row, memory)
        last = rows[-1]["seq"]


def _call(account: str, row: Mapping[str, Any], memory: SessionMemory) -> Batch:
    return apply.build(
        account,
        row["session_id"],
        row["source"],
        [entry(row)],
        memory,
        asked_seq=row["asked_seq"],
        clockless=bool(row["clockless"]),
        lag_ms=row["lag_ms"] or 0,
    )
