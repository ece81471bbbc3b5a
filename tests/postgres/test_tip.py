"""What a process was answered of a journal, against a real database that holds it, lost it, or lost more than it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from ledger.db import coverage
from ledger.db.apply import Applied
from ledger.wire import postgres
from ledger.wire.clock import ManualClock
from ledger.wire.tip import Tip
from tests.histories import ACCOUNT, T_MS, Session, held, known

ROLLBACKS = "SELECT count(*) FROM ledger_v1.journal WHERE kind = 'rollback'"


@pytest.fixture
async def other(database_url: str) -> AsyncIterator[Any]:
    """The connection of another writer of the same process."""
    conn = await postgres.connect(database_url, application="tests other")
    yield conn
    await conn.close()


def tip_of(clock: ManualClock) -> Tip:
    return Tip(ACCOUNT, clock, rest_lag_s=1, register=lambda conn: coverage.register(conn, ACCOUNT))


async def told(tip: Tip, conn: Any, session: Session) -> Applied:
    """One more frame, and its answer noted; whether that showed a loss is not asked."""
    before_seq = tip.seq
    applied = await session.tell(conn, held("BTC", str(session.frame_no), at_ms=session.frame_no))
    assert not tip.lost_by(applied, before_seq)
    return applied


class Interrupted:
    """A connection beside which something else happens while one question is on its way."""

    def __init__(self, conn: Any, meanwhile: Callable[[], Awaitable[object]]) -> None:
        self._conn, self._meanwhile = conn, meanwhile

    def __getattr__(self, name: str) -> Any:
        return getattr(self._conn, name)

    async def fetchrow(self, *words: Any) -> Any:
        row = await self._conn.fetchrow(*words)
        meanwhile, self._meanwhile = self._meanwhile, nothing
        await meanwhile()
        return row


async def nothing() -> None:
    """Nothing else happens."""


async def test_what_another_writer_was_answered_while_one_looks_is_no_loss(conn: Any, other: Any) -> None:
    await known(conn)
    tip, session = tip_of(ManualClock(T_MS)), Session()
    await told(tip, conn, session)

    await tip.check(Interrupted(conn, lambda: told(tip, other, session)))

    assert (tip.seq, tip.generation, await conn.fetchval(ROLLBACKS)) == (2, 0, 0)
