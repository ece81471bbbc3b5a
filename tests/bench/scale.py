"""Suite ``scale``: what an event costs where much is stored already, against what it costs where little is."""

from __future__ import annotations

import time
from typing import Any
from uuid import uuid4

from ledger.db import apply
from ledger.facts.identity import SessionMemory
from tests.bench import server
from tests.bench.apply import entries_of
from tests.bench.figures import Figure, Goal, Spread
from tests.bench.stored import store
from tests.bench.traffic import Traffic

SUITE = "scale"
STORED, STORED_QUICK = (10_000, 100_000, 1_000_000, 10_000_000), (2_000, 20_000)
GROWTH_MAX = 1.3
BATCH = 100
ACCOUNT = "a0"


async def run(server_url: str, *, quick: bool) -> list[Figure]:
    """The same new frames on top of more and more stored fills of the same account, half of it in orders."""
    found: list[Figure] = []
    reference: Spread | None = None
    for stored in STORED_QUICK if quick else STORED:
        async with server.database(server_url, "scale") as url, server.connected(url) as conn:
            await store(conn, stored, accounts=1)
            await conn.execute("CHECKPOINT")
            frames, repeats = (1_000, 2) if quick else (20_000, 5)
            await _apply(conn, 0, frames)  # plans and pages as after a while
            cost = Spread(tuple([await _apply(conn, n, frames) for n in range(1, repeats + 1)]), "us")
        what = f"an event, {BATCH} a call, on {stored:,} stored fills"
        goal = None if reference is None else Goal("ratio", "at most", GROWTH_MAX)
        found.append(
            Figure(
                SUITE, what, cost, reference, "" if reference is None else "on the fewest", goal, "one event", stored
            )
        )
        reference = reference or cost
    return found


async def _apply(conn: Any, repeat: int, frames: int) -> float:
    """Microseconds an event, decoding included."""
    raws = Traffic(full=True, first_order=2_000_000_000 + repeat * frames).frames(frames)
    session, memory = uuid4(), SessionMemory()
    began_s = time.perf_counter()
    for start in range(0, frames, BATCH):
        entries = entries_of(raws[start : start + BATCH], start + 1, session)
        await apply.apply(conn, apply.build(ACCOUNT, session, "stream", entries, memory))
    return (time.perf_counter() - began_s) / frames * 1e6
