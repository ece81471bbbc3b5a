"""Suite ``latency``: from the venue's socket to a durable commit, through ``sdx-ledger run``, at rates nobody slows.

The moment a frame is handed to the socket is written down by the venue; the moment its commit is known is that of the
notification a listener of the database gets, so the figures hold that way too.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
import time
from array import array
from bisect import bisect_left
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ledger.wire import loopback
from tests.bench import reference, server
from tests.bench.figures import Figure, Goal, Spread, percentile
from tests.bench.traffic import FILLS_PER_ORDER, FRAMES_PER_ORDER, SYMBOLS
from tests.flows.processes import ROOT, Program, bench, until
from tests.histories import read_over_rest

SUITE = "latency"
RATES = (50, 500, 2_000, 8_000, 20_000)
P99_OF_COMMIT_AT_500 = 2.5
P99_MS_AT_20000 = 25.0
DRAIN_S = 60.0
REFERENCE_COMMITS_MAX = 5_000

Commits = list[tuple[int, int]]
"""(CLOCK_MONOTONIC in ns, seq of the newest row), as the notifications came."""


@dataclass
class FellBehind(Exception):
    """Not every frame was committed DRAIN_S after the last one left; a stream that is cut never gets them all.

    ``committed``: those that were when the last one left. Nothing can be measured on that service any more.
    """

    rate: int
    seconds: float
    committed: int

    def figure(self, suite: str) -> Figure:
        """What it managed while the load was on, against what was offered."""
        managed, offered = (Spread((each,), "events/s") for each in (self.committed / self.seconds, float(self.rate)))
        what = f"{self.rate:,}/s for {self.seconds:.0f} s: fell behind, committed meanwhile"
        return Figure(suite, what, managed, offered, "offered", Goal("ratio", "at least", 1.0))


async def run(server_url: str, *, quick: bool) -> list[Figure]:
    """One cell a rate, each beside single commits at the same pace. The first rate it cannot follow is the last."""
    seconds = 2.0 if quick else 60.0
    rates = (50, 2_000) if quick else RATES
    found: list[Figure] = []
    with tempfile.TemporaryDirectory(prefix="sdx-bench-") as folder, venue(Path(folder)) as address:
        async with server.database(server_url, "latency") as url, server.connected(url) as conn:
            await reference.prepare(conn)
            try:
                async with serving(Path(folder), address, url) as (_, commits):
                    await loaded(conn, address, commits, 500, 1.0)  # plans and pages as after a while
                    for rate in rates:
                        found += await _told(conn, address, commits, rate, seconds)
                await exact(conn)
            except FellBehind as behind:
                found.append(behind.figure(SUITE))
    return found


@asynccontextmanager
async def serving(folder: Path, address: str, url: str) -> AsyncIterator[tuple[Program, Commits]]:
    """The service, live, in a process of its own, and what the database says of its commits from then on."""
    settings = {
        "SDX_REST_URL": f"http://{address}",
        "SDX_STREAM_URL": f"ws://{address}",
        "SDX_API_KEY": "bench",
        "SDX_API_SECRET": "bench",
        "SDX_DATABASE_URL": url,
        "SDX_REST_LAG_S": "1",
        "SDX_RECONCILE_EVERY_S": "86400",
        "SDX_LOG_FORMAT": "json",
    }
    commits: Commits = []
    async with server.connected(url) as listener:
        with bench(folder, settings) as programs:
            service = programs.start("run")
            await service.says("gap closed")
            await read_over_rest(listener, *SYMBOLS)  # or each is read as soon as a frame names it
            await listener.add_listener("ledger_changed", lambda *told: commits.append(_noted(told[3])))
            yield service, commits
            assert await service.stopped() == 0, service.err[-2000:]


async def _told(conn: Any, address: str, commits: Commits, rate: int, seconds: float) -> list[Figure]:
    # Half of them before and half after: the machine may not be as fast then as it was.
    half = min(REFERENCE_COMMITS_MAX, int(rate * min(seconds, 20))) // 2
    single = await reference.commits_ms(conn, half, per_s=min(rate, 1000))
    taken_ms, behind_ms = await loaded(conn, address, commits, rate, seconds)
    single += await reference.commits_ms(conn, half, per_s=min(rate, 1000))
    at = f"{rate:,}/s for {seconds:.0f} s"
    p50, p99 = (Spread((percentile(single, share),), "ms") for share in (0.5, 0.99))
    of_commit = Goal("ratio", "at most", P99_OF_COMMIT_AT_500) if rate == 500 else None
    bound = Goal("value", "at most", P99_MS_AT_20000) if rate == 20_000 else None
    paced = "one commit, p{}, at that pace" if rate <= 1000 else "one commit, p{}, at 1,000/s"
    found = [
        Figure(SUITE, f"{at}, {name}", Spread((percentile(taken_ms, share),), "ms"), single_ms, said, goal, name, rate)
        for name, share, single_ms, said, goal in (
            ("p50", 0.5, p50, paced.format(50), None),
            ("p99", 0.99, p99, paced.format(99), of_commit or bound),
        )
    ]
    if rate == 20_000:
        found.append(Figure(SUITE, f"{at}, the last frame", Spread((behind_ms,), "ms"), goal=bound))
    return found


async def loaded(conn: Any, address: str, commits: Commits, rate: int, seconds: float) -> tuple[list[float], float]:
    """Milliseconds of every frame from the socket to the news of its commit, and of the last one. Raises FellBehind."""
    commits.clear()
    base = await conn.fetchval("SELECT head_seq FROM ledger.accounts")
    await loopback.post(f"http://{address}/bench/load?rate={rate}&seconds={seconds}", {})
    sent = await loopback.get(f"http://{address}/bench/sent", timeout_s=seconds + DRAIN_S)
    newest = base + sent["sent"]
    meanwhile = commits[-1][1] - base if commits else 0
    with suppress(AssertionError):  # that is a figure too
        await until(lambda: bool(commits) and commits[-1][1] >= newest, "every frame is committed", DRAIN_S)
    if not commits or commits[-1][1] != newest:  # more: what was asked of REST after the stream was cut
        raise FellBehind(rate, seconds, meanwhile)
    stamps = array("q", await asyncio.to_thread(Path(sent["stamps"]).read_bytes))
    seqs = [seq for _, seq in commits]
    taken_ms = [
        (commits[bisect_left(seqs, seq)][0] - stamp_ns) / 1e6 for seq, stamp_ns in enumerate(stamps, start=base + 1)
    ]
    return taken_ms, taken_ms[-1]


async def exact(conn: Any) -> None:
    """Every frame that was sent is in the tables, once."""
    orders, frames = await conn.fetchrow(
        "SELECT (SELECT count(*) FROM ledger.orders), (SELECT stream_frames FROM ledger.accounts)"
    )
    assert frames == orders * FRAMES_PER_ORDER, f"{frames} frames, {orders} orders"
    wrong = await conn.fetchval(
        """
        SELECT count(*) FROM ledger.orders o
        LEFT JOIN (SELECT symbol, order_id, count(*) AS n, sum(qty) AS qty FROM ledger.fills GROUP BY 1, 2) f
            USING (symbol, order_id)
        WHERE o.status <> 'FILLED' OR f.n IS DISTINCT FROM $1 OR f.qty IS DISTINCT FROM o.orig_qty
        """,
        FILLS_PER_ORDER,
    )
    assert wrong == 0, f"{wrong} orders are not what was sent"


def _noted(payload: str) -> tuple[int, int]:
    return time.monotonic_ns(), int(payload.rpartition(":")[2])


@contextmanager
def venue(folder: Path) -> Iterator[str]:
    """A venue in a process of its own; host and port."""
    command = [sys.executable, "-m", "tests.bench.venue", str(folder / "stamps")]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield f"127.0.0.1:{process.stdout.readline().strip()}"
        finally:
            process.kill()
