"""Suite ``reads``: what people and programs ask most, through the views, on a year of twenty accounts."""

from __future__ import annotations

import time
from typing import Any

from tests.bench import server
from tests.bench.figures import Figure, Goal, Spread, percentile
from tests.bench.stored import ACCOUNTS, LAST_MS, store

SUITE = "reads"
FILLS, FILLS_QUICK = 5_000_000, 20_000
DAY_MS = 86_400_000
_MONTH = f"executed_ms >= {LAST_MS - 60 * DAY_MS} AND executed_ms < {LAST_MS - 30 * DAY_MS}"

QUERIES: tuple[tuple[str, str, float | None], ...] = (
    (
        "the last 100 fills",
        "SELECT * FROM ledger_v1.fills WHERE account = $1 ORDER BY executed_ms DESC LIMIT 100",
        1.0,
    ),
    (
        "the last 100 fills of a market",
        "SELECT * FROM ledger_v1.fills WHERE account = $1 AND symbol = 'S7USDT' ORDER BY executed_ms DESC LIMIT 100",
        None,
    ),
    (
        "a page of 1,000 of a month, by time",
        f"SELECT * FROM ledger_v1.fills WHERE account = $1 AND {_MONTH} ORDER BY executed_ms, first_seq LIMIT 1000",
        10.0,
    ),
    (
        "1,000 changes since a seq",
        "SELECT * FROM ledger_v1.fills WHERE account = $1 AND seq > 100 ORDER BY seq LIMIT 1000",
        10.0,
    ),
    (
        "what was held of 20 assets at a time",
        "SELECT a.asset, b.total FROM (SELECT asset FROM ledger_v1.balances WHERE account = $1) a"
        f" CROSS JOIN LATERAL ledger_v1.balance_at($1, a.asset, to_timestamp({LAST_MS - 100 * DAY_MS} / 1000.0)) b",
        None,
    ),
    (
        "what was held of one asset at a time",
        f"SELECT * FROM ledger_v1.balance_at($1, 'A3', to_timestamp({LAST_MS - 100 * DAY_MS} / 1000.0))",
        1.0,
    ),
    (
        "volume and fees of a month by day",
        "SELECT symbol, date_trunc('day', executed_at) AS day, sum(quote_qty), sum(fee) FROM ledger_v1.fills"
        f" WHERE account = $1 AND {_MONTH} GROUP BY 1, 2",
        None,
    ),
)
"""What is asked in words, as SQL of an account $1, and the milliseconds it may take at the median."""


async def run(server_url: str, *, quick: bool) -> list[Figure]:
    """Each query, prepared, warm, for every account in turn; rows fetched into the program."""
    fills = FILLS_QUICK if quick else FILLS
    rounds = 2 if quick else 10
    async with server.database(server_url, "reads") as url, server.connected(url) as conn:
        await store(conn, fills)
        await conn.execute("SET max_parallel_workers_per_gather = 0")
        return [await _figure(conn, what, sql, goal_ms, rounds, fills) for what, sql, goal_ms in QUERIES]


async def _figure(conn: Any, what: str, sql: str, goal_ms: float | None, rounds: int, fills: int) -> Figure:
    statement = await conn.prepare(sql)
    medians = []
    for number in range(rounds + 1):
        taken_ms = []
        for account in range(ACCOUNTS):
            began_s = time.perf_counter()
            rows = await statement.fetch(f"a{account}")
            taken_ms.append((time.perf_counter() - began_s) * 1000)
            assert rows, f"{what}: nothing was read, so nothing was measured"
        if number:  # the first round warms
            medians.append(percentile(taken_ms, 0.5))
    goal = None if goal_ms is None else Goal("value", "at most", goal_ms)
    return Figure(SUITE, f"{what}, of {fills:,} fills", Spread(tuple(medians), "ms"), goal=goal)
