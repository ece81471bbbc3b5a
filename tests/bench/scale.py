"""Suite ``scale``: what an event and a query cost where much is stored already, against what they cost where little is.

Both stores are measured in turn, a round here and a round there, so that a machine whose speed drifts is the same for
both.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import uuid4

from ledger.db import apply
from ledger.facts.identity import SessionMemory
from tests.bench import server
from tests.bench.apply import entries_of
from tests.bench.figures import Figure, Goal, Spread, percentile
from tests.bench.stored import store
from tests.bench.traffic import Traffic
from tests.queries import documented

SUITE = "scale"
STORED, STORED_QUICK = (10_000, 100_000, 1_000_000, 10_000_000), (2_000, 20_000)
GROWTH_MAX = 1.3
BATCH = 100
ACCOUNT = "a0"
QUERIES = ("The last fills", "What was held of one asset at a time")
"""Those of the docs that read the same number of rows however many are stored."""
ASKED_A_ROUND = 200

Measure = Callable[[Any, int], Awaitable[float]]


async def run(server_url: str, *, quick: bool) -> list[Figure]:
    """The same new frames on top of more and more stored fills of the same account, and the same queries over them."""
    few, *more = STORED_QUICK if quick else STORED
    frames, repeats = (1_000, 2) if quick else (5_000, 9)
    texts = documented(account="$1", symbol="'S7USDT'", asset="'A3'")
    measures: dict[str, Measure] = {"an event": lambda conn, n: _event(conn, n, frames)}
    measures |= {name: _query(texts[name]) for name in QUERIES}
    found: list[Figure] = []
    for stored in more:
        async with (
            server.database(server_url, "scale_few") as few_url,
            server.database(server_url, "scale_many") as many_url,
            server.connected(few_url) as here,
            server.connected(many_url) as there,
        ):
            for conn, fills in ((here, few), (there, stored)):
                await store(conn, fills, accounts=1)
                await conn.execute("CHECKPOINT")
            for what, measure in measures.items():
                taken: dict[Any, list[float]] = {here: [], there: []}
                for n in range(repeats + 1):
                    for conn, rounds in taken.items():
                        rounds.append(await measure(conn, n))
                        if n == 0:
                            # The service makes its plans anew as tables grow (see ``Writer``): what was planned while
                            # the journal was empty would read the whole of it.
                            await conn.execute("DISCARD PLANS")
                costs = [Spread(tuple(rounds[1:]), "us") for rounds in taken.values()]  # the first one warms
                found += _figures(what, few, stored, *costs, is_first=stored == more[0])
    return found


def _figures(what: str, few: int, stored: int, on_few: Spread, on_many: Spread, *, is_first: bool) -> list[Figure]:
    name = f"{what}, {BATCH} a call" if what == "an event" else what
    goal = Goal("ratio", "at most", GROWTH_MAX) if what == "an event" else None
    many = Figure(
        SUITE, f"{name}, on {stored:,} stored fills", on_many, on_few, f"on {few:,}", goal, what, float(stored)
    )
    return [Figure(SUITE, f"{name}, on {few:,}", on_few, series=what, at=float(few)), many] if is_first else [many]


async def _event(conn: Any, repeat: int, frames: int) -> float:
    """Microseconds an event, decoding included."""
    raws = Traffic(full=True, first_order=2_000_000_000 + repeat * frames).frames(frames)
    session, memory = uuid4(), SessionMemory()
    began_s = time.perf_counter()
    for start in range(0, frames, BATCH):
        entries = entries_of(raws[start : start + BATCH], start + 1, session)
        await apply.apply(conn, apply.build(ACCOUNT, session, "stream", entries, memory))
    return (time.perf_counter() - began_s) / frames * 1e6


def _query(sql: str) -> Measure:
    async def measure(conn: Any, _: int) -> float:
        """Microseconds at the median, rows fetched into the program."""
        statement = await conn.prepare(sql)
        taken_us = []
        for _ in range(ASKED_A_ROUND):
            began_s = time.perf_counter()
            assert await statement.fetch(ACCOUNT)
            taken_us.append((time.perf_counter() - began_s) * 1e6)
        return percentile(taken_us, 0.5)

    return measure
