"""The end of an account's journal as this process was answered it: a database that went back shows less.

Always holds: before anything is written over a new connection, what was answered before is looked for; where it is not
there, a gap is open from the database's own last live instant and a journal row names what was lost. Whoever meant the
database as it was hears of it (WentBack) instead of writing.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple
from uuid import uuid4

import structlog

from ledger.db import apply, coverage, reads
from ledger.db.apply import Applied, Entry
from ledger.facts.identity import SessionMemory
from ledger.wire.clock import Clock

log = structlog.get_logger(__name__)

CAUSE = "database went back"
REMEMBERED_MAX = 4096


class _Answer(NamedTuple):
    """An end of the journal as it was confirmed, and up to when the stream was covered then (venue clock; None: it was
    not said)."""

    seq: int
    digest: bytes
    covered_ms: int | None


class Tip:
    """Shared by all writers of one process for one account. ``fence``: the number the newest lead writes under.

    ``register`` makes the account known again. ``is_up``: whether the stream is. ``generation`` counts how often the
    database went back.
    """

    def __init__(
        self,
        account: str,
        clock: Clock,
        *,
        rest_lag_s: float,
        register: Callable[[Any], Awaitable[object]],
        is_up: Callable[[], bool],
    ) -> None:
        self.seq = 0
        self.digest: bytes | None = None
        self.gap_id = 0
        """The newest gap that was opened: a row of its own, which no journal row goes with."""
        self.fence: int | None = None
        self.generation = 0
        self._account = account
        self._clock = clock
        self._rest_lag_s = rest_lag_s
        self._register = register
        self._is_up = is_up
        self._most_seq = 0
        """The newest row there ever was: a database may go back again before the head kept outside was replaced."""
        self._looking = asyncio.Lock()
        self._answers: list[_Answer] = []
        """All of late, fewer the older they are."""
        self._covered_ms: int | None = None

    def expect(self, seq: int, digest: bytes) -> None:
        """The journal had this row, as was kept outside the database."""
        if seq > self.seq:
            self.seq, self.digest = seq, digest

    def note_gap(self, gap: coverage.Gap) -> None:
        """Take note that this gap was opened or extended."""
        self.gap_id = max(self.gap_id, gap.gap_id)

    def lost_by(self, applied: Applied, before_seq: int) -> bool:
        """Take note of an answer. True: it shows less than what was answered before it was asked (``before_seq``)."""
        if applied.repeated or applied.first_seq is None or applied.last_seq is None or applied.digest is None:
            return False
        if applied.first_seq <= before_seq:
            return True
        self._covered_ms = applied.covered_ms or self._covered_ms
        if self._answers and self._answers[-1].seq == applied.last_seq:
            self._answers.pop()  # nothing was written since, but time went on
        self._answers.append(_Answer(applied.last_seq, applied.digest, self._covered_ms))
        if len(self._answers) > REMEMBERED_MAX:
            half = REMEMBERED_MAX // 2
            self._answers = self._answers[:half:2] + self._answers[half:]
        if applied.last_seq > self.seq:
            self.seq, self.digest = applied.last_seq, applied.digest
        return False

    async def check(self, conn: Any) -> None:
        """Is what was answered before still there? Where it is not, the gap is opened and the journal says so."""
        async with self._looking:
            if self.seq == 0 or self.digest is None:
                return
            # Another writer's answers move them on while this one asks.
            seq, digest, gap_id = self.seq, self.digest, self.gap_id
            found_seq, _, there = await reads.head(conn, self._account, seq)
            if there != digest.hex() or await reads.head_gap(conn, self._account) < gap_id:
                live_ms = await reads.live_through_ms(conn, self._account)
                await self._look_back(conn, found_seq, live_ms)

    async def replaced(self, conn: Any, applied: Applied, generation: int) -> None:
        """An answer showed less (``lost_by``), over a connection that stayed: something in between was led elsewhere.

        ``generation``: for which the work was meant; where another writer saw it first, there is nothing left to do.
        """
        async with self._looking:
            if generation == self.generation:
                assert applied.first_seq is not None
                await self._look_back(conn, applied.first_seq - 1, None)

    async def _look_back(self, conn: Any, found_seq: int, live_ms: int | None) -> None:
        """Find where the database left what was confirmed: what it says of itself (``found_seq``, ``live_ms``) may have
        moved on since, by the answers of connections that stayed."""
        held_seq = await reads.newest_held(conn, self._account, [(one.seq, one.digest) for one in self._answers])
        held = next((one for one in reversed(self._answers) if one.seq == held_seq), None)
        if held is not None:
            found_seq = held.seq
            known_ms = [ms for ms in (live_ms, held.covered_ms) if ms is not None]
            live_ms = min(known_ms, default=None)
        not_after_ms = 0 if live_ms is None else live_ms - int(self._rest_lag_s * 1000)
        await self._went_back(conn, found_seq, not_after_ms)

    async def _went_back(self, conn: Any, found_seq: int, not_after_ms: int) -> None:
        assert self.digest is not None
        await self._register(conn)
        log.error(
            "the database went back: it lost journal rows it had confirmed; a gap is opened and backfilled",
            account=self._account,
            confirmed_seq=self.seq,
            found_seq=found_seq,
        )
        now_ms = self._clock.venue_now_ms()
        gap = await coverage.open_gap(
            conn,
            self._account,
            cause=CAUSE,
            # While the stream is down this is part of its outage, which has one row.
            until_ms=now_ms if self._is_up() else None,
            not_after_ms=not_after_ms,
            live=False,
            fence=self.fence,
            now_ms=now_ms,
            trail_ms=self._trail_ms,
        )
        self._most_seq = max(self._most_seq, self.seq)
        said = {"lost_seq": self._most_seq, "lost_digest": self.digest.hex(), "found_seq": found_seq, "gap": gap.gap_id}
        raw = json.dumps(said, separators=(",", ":")).encode()
        entry = Entry(1, self._clock.now_ms(), reads.ROLLBACK, None, raw, None, ())
        batch = apply.build(self._account, uuid4(), "operator", [entry], SessionMemory())
        applied = await apply.apply(conn, batch, fence=self.fence)
        assert applied.last_seq is not None
        self.seq, self.digest, self.gap_id = applied.last_seq, applied.digest, gap.gap_id
        self._answers.clear()
        self._covered_ms = not_after_ms or None
        self.generation += 1

    @property
    def _trail_ms(self) -> int:
        return self._clock.trail_ms(self._rest_lag_s)
