"""Suite ``apply``: raw frames to a durable commit, the whole contract, against COPY and against one commit."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from ledger.db import apply, coverage
from ledger.db.apply import Applied, Entry
from ledger.facts.identity import SessionMemory
from ledger.stream.consumer import read
from ledger.wire.socket import READ_AT_ONCE_MAX, Received
from tests.bench import reference, server
from tests.bench.figures import Figure, Goal, Spread, percentile
from tests.bench.traffic import Traffic

SUITE = "apply"
BATCHES = (1000, 100)
COPY_SHARE = 0.60
ONE_P50, ONE_P99 = 1.8, 2.0


async def run(server_url: str, *, quick: bool) -> list[Figure]:
    """Every form of frame at every size of call; each repeat beside its reference."""
    repeats, frames, singles = (2, 5_000, 100) if quick else (5, 60_000, 2_000)
    found: list[Figure] = []
    async with server.database(server_url, "apply") as url, server.connected(url) as conn:
        await reference.prepare(conn)
        for full in (True, False):
            form = "full" if full else "documented"
            traffic = Traffic(full)
            for batch in BATCHES:
                ours: list[float] = []
                copied: list[float] = []
                await _warm(conn, traffic, batch)
                for _ in range(repeats):
                    ours.append(frames / await _apply(conn, traffic.frames(frames), batch))
                    copied.append(frames / await _copy(conn, traffic.frames(frames), batch))
                found.append(
                    Figure(
                        SUITE,
                        f"{form} frames, {batch:,} a call",
                        Spread(tuple(ours), "events/s"),
                        Spread(tuple(copied), "events/s"),
                        "COPY of journal and fills",
                        Goal("ratio", "at least", COPY_SHARE),
                    )
                )
            found += await _one_by_one(conn, form, traffic, repeats, singles)
    return found


async def _one_by_one(conn: Any, form: str, traffic: Traffic, repeats: int, singles: int) -> list[Figure]:
    """One event, from its bytes to a durable commit, against one commit of one row."""
    figures = []
    events: list[list[float]] = []
    commits: list[list[float]] = []
    for _ in range(repeats):
        events.append(await _apply_singly(conn, traffic.frames(singles)))
        commits.append(await reference.commits_ms(conn, singles))
    for name, share, bound in (("p50", 0.5, ONE_P50), ("p99", 0.99, ONE_P99)):
        figures.append(
            Figure(
                SUITE,
                f"{form}, one event, {name}",
                Spread(tuple(percentile(one, share) for one in events), "ms"),
                Spread(tuple(percentile(one, share) for one in commits), "ms"),
                "one commit",
                Goal("ratio", "at most", bound),
            )
        )
    return figures


async def new_account(conn: Any) -> str:
    """An account of its own for one repeat."""
    account = f"bench-{uuid4().hex[:8]}"
    await coverage.register(conn, account, rest_origin="https://bench", key_fingerprint="bench")
    return account


def entries_of(raws: list[bytes], first_no: int, session: Any) -> list[Entry]:
    """Frames as the consumer reads them off its buffer."""
    now_ms = time.time_ns() // 1_000_000
    return [read(Received(session, no, raw, now_ms)) for no, raw in enumerate(raws, start=first_no)]


async def _warm(conn: Any, traffic: Traffic, batch: int) -> None:
    """Plans as a service has them after a while, and the first pages of every table."""
    await _apply(conn, traffic.frames(batch * 8), batch)
    await conn.execute("DISCARD PLANS")
    await _copy(conn, traffic.frames(batch * 2), batch)


async def _apply(conn: Any, raws: list[bytes], batch: int) -> float:
    """Seconds for all of them through ``ledger.apply``, decoding included."""
    account, session, memory = await new_account(conn), uuid4(), SessionMemory()
    began_s = time.perf_counter()
    call: asyncio.Task[Applied] | None = None
    for start in range(0, len(raws), batch):
        # As in the service, frames are read a few at a time, while the call before is on its way.
        entries: list[Entry] = []
        for first in range(start, min(start + batch, len(raws)), READ_AT_ONCE_MAX):
            last = min(first + READ_AT_ONCE_MAX, start + batch)
            entries += entries_of(raws[first:last], first + 1, session)
            await asyncio.sleep(0)
        if call is not None:
            await call
        built = apply.build(account, session, "stream", entries, memory, through_ms=None if start else 1)
        call = asyncio.create_task(apply.apply(conn, built))
        await asyncio.sleep(0)  # it is sent now
    assert call is not None
    await call
    taken_s = time.perf_counter() - began_s
    written = await conn.fetchval("SELECT head_seq FROM ledger.accounts WHERE account = $1", account)
    assert written == len(raws), f"{written} of {len(raws)} frames were written"
    return taken_s


async def _copy(conn: Any, raws: list[bytes], batch: int) -> float:
    """Seconds for all of them through COPY, decoding included."""
    account = f"copy-{uuid4().hex[:8]}"
    began_s = time.perf_counter()
    for start in range(0, len(raws), batch):
        await reference.copy(conn, account, start + 1, raws[start : start + batch], datetime.now(UTC))
    return time.perf_counter() - began_s


async def _apply_singly(conn: Any, raws: list[bytes]) -> list[float]:
    """Milliseconds of each frame in a call of its own; a live stream tells its coverage once a second, so here once."""
    account, session, memory = await new_account(conn), uuid4(), SessionMemory()
    taken = []
    for no, raw in enumerate(raws, start=1):
        began_s = time.perf_counter()
        (entry,) = entries_of([raw], no, session)
        built = apply.build(account, session, "stream", [entry], memory, through_ms=1 if no == 1 else None)
        await apply.apply(conn, built)
        taken.append((time.perf_counter() - began_s) * 1000)
    return taken
