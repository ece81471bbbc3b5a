"""Suite ``backfill``: how long live frames wait while a walk pours pages of 1,000 trades into the same account."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any
from uuid import uuid4

from ledger.db import apply
from ledger.db.apply import Entry
from ledger.db.rows import lay
from ledger.facts.identity import SessionMemory
from ledger.reconcile.runner import ROWS_PER_CALL_MAX
from ledger.venue import requests, rest_pages
from tests.bench import server
from tests.bench.apply import entries_of, new_account
from tests.bench.figures import Figure, Goal, Spread, percentile
from tests.bench.traffic import SYMBOLS, Traffic

SUITE = "backfill"
PAGE_ROWS = 1_000
PAGES_PER_S = 1.0
"""600 weight a minute at 10 a page: what the default budget allows."""
LIVE_PER_S = 200
P99_MORE_MS, P50_RATIO = 5.0, 1.2


async def run(server_url: str, *, quick: bool) -> list[Figure]:
    """Live frames at a steady pace, first alone, then beside the walk."""
    seconds, repeats = (2.0, 1) if quick else (30.0, 3)
    alone: list[list[float]] = []
    beside: list[list[float]] = []
    pages: list[float] = []
    async with (
        server.database(server_url, "backfill") as url,
        server.connected(url) as live,
        server.connected(url) as walk,
    ):
        account = await new_account(live)
        await _live(live, account, 0, 1.0)  # plans and pages as after a while
        await _walk(walk, account, 0, 2.0)
        for repeat in range(1, repeats + 1):
            alone.append(await _live(live, account, repeat * 2, seconds))
            taken_ms, walked = await asyncio.gather(
                _live(live, account, repeat * 2 + 1, seconds), _walk(walk, account, repeat, seconds)
            )
            beside.append(taken_ms)
            pages.append(walked / seconds)
    p50s = [Spread(tuple(percentile(one, 0.5) for one in each), "ms") for each in (beside, alone)]
    p99s = [Spread(tuple(percentile(one, 0.99) for one in each), "ms") for each in (beside, alone)]
    more = Spread(tuple(b - a for b, a in zip(p99s[0].values, p99s[1].values, strict=True)), "ms")
    return [
        Figure(
            SUITE, "a live frame beside the walk, p50", p50s[0], p50s[1], "alone", Goal("ratio", "at most", P50_RATIO)
        ),
        Figure(SUITE, "a live frame beside the walk, p99", p99s[0], p99s[1], "alone"),
        Figure(SUITE, "p99 beside the walk above p99 alone", more, goal=Goal("value", "at most", P99_MORE_MS)),
        Figure(
            SUITE,
            f"pages of {PAGE_ROWS:,} trades beside it",
            Spread(tuple(pages), "pages/s"),
            goal=Goal("value", "at least", PAGES_PER_S * 0.9),
        ),
    ]


async def _live(conn: Any, account: str, repeat: int, seconds: float) -> list[float]:
    """Milliseconds each live frame takes from being due to its commit; those that queue up go in one call."""
    raws = Traffic(full=True, first_order=1 + repeat * 1_000_000).frames(int(LIVE_PER_S * seconds))
    session, memory = uuid4(), SessionMemory()
    taken: list[float] = []
    began_s = time.perf_counter()
    while len(taken) < len(raws):
        due_s = began_s + len(taken) / LIVE_PER_S
        await asyncio.sleep(max(0.0, due_s - time.perf_counter()))
        due = min(len(raws), int((time.perf_counter() - began_s) * LIVE_PER_S) + 1)
        entries = entries_of(raws[len(taken) : due], len(taken) + 1, session)
        await apply.apply(conn, apply.build(account, session, "stream", entries, memory))
        done_s = time.perf_counter()
        taken += [(done_s - began_s - n / LIVE_PER_S) * 1000 for n in range(len(taken), due)]
    return taken


async def _walk(conn: Any, account: str, repeat: int, seconds: float) -> int:
    """Pages of the past of one market at the venue's pace, as the reconciler applies them. Returns how many."""
    session, memory = uuid4(), SessionMemory()
    pages = int(seconds * PAGES_PER_S)
    firsts = [5_000_000_000 + (repeat * 1_000 + page) * PAGE_ROWS for page in range(pages)]
    bodies = [json.dumps([_trade(first + n) for n in range(PAGE_ROWS)]).encode() for first in firsts]
    began_s = time.perf_counter()
    frame_no = 0
    for page, body in enumerate(bodies):
        await asyncio.sleep(max(0.0, began_s + page / PAGES_PER_S - time.perf_counter()))
        asked = requests.my_trades(SYMBOLS[0], start_ms=repeat * 1_000 + page)
        for part in rest_pages.parts(asked, body, ROWS_PER_CALL_MAX):
            frame_no += 1
            said = rest_pages.read_part(asked, part)
            entry = Entry(frame_no, _now_ms(), asked.kind, _now_ms(), part.body, None, lay(said.facts))
            batch = apply.build(account, session, "rest", [entry], memory, question=part.question, lag_ms=10_000)
            await apply.apply(conn, batch)
    return pages


def _trade(number: int) -> dict[str, Any]:
    """A trade of an order of two, as myTrades tells it: 280 bytes."""
    return {
        "symbol": SYMBOLS[0],
        "id": number,
        "orderId": number // 2,
        "orderListId": -1,
        "price": "100.50000000",
        "qty": "1.00000000",
        "quoteQty": "100.50000000",
        "commission": "0.10050000",
        "commissionAsset": "USDT",
        "time": 1_600_000_000_000 + number % 10_000_000,
        "isBuyer": True,
        "isMaker": False,
        "isBestMatch": True,
    }


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
