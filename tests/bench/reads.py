"""Suite ``reads``: the queries of the docs, through the views, on a year of twenty accounts."""

from __future__ import annotations

import time
from typing import Any

from tests.bench import server
from tests.bench.figures import Figure, Goal, Spread, percentile
from tests.bench.stored import ACCOUNTS, store
from tests.queries import documented

SUITE = "reads"
FILLS, FILLS_QUICK = 5_000_000, 20_000
GOALS_MS = {
    "The last fills": 1.0,
    "What was held at a time": 1.0,
    "What was held of one asset at a time": 1.0,
    "The first page of a month": 10.0,
    "The next page of a month": 10.0,
    "What changed since": 10.0,
}
"""Milliseconds a query of the docs may take at the median; the others have no goal."""


async def run(server_url: str, *, quick: bool) -> list[Figure]:
    """Each query, prepared, warm, for every account in turn; rows fetched into the program."""
    fills = FILLS_QUICK if quick else FILLS
    rounds = 2 if quick else 10
    async with server.database(server_url, "reads") as url, server.connected(url) as conn:
        await store(conn, fills)
        await conn.execute("SET max_parallel_workers_per_gather = 0")
        queries = documented(account="$1", symbol="'S7USDT'", asset="'A3'")
        return [await _figure(conn, what, sql, rounds, fills) for what, sql in queries.items()]


async def _figure(conn: Any, what: str, sql: str, rounds: int, fills: int) -> Figure:
    statement = await conn.prepare(sql)
    medians = []
    rows = 0
    for number in range(rounds + 1):
        taken_ms = []
        for account in range(ACCOUNTS):
            began_s = time.perf_counter()
            rows = max(rows, len(await statement.fetch(f"a{account}")))
            taken_ms.append((time.perf_counter() - began_s) * 1000)
        if number:  # the first round warms
            medians.append(percentile(taken_ms, 0.5))
    goal = Goal("value", "at most", GOALS_MS[what]) if what in GOALS_MS else None
    assert rows or goal is None, f"{what}: nothing was read, so nothing was measured"
    return Figure(SUITE, f"{what}: {rows:,} rows, of {fills:,} fills", Spread(tuple(medians), "ms"), goal=goal)
