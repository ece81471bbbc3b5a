"""A mirror and a sandbox venue in one loop over real sockets, and ways to wait for what the database says."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from pydantic import SecretStr

from ledger import app
from ledger.app import Database, Mirror
from ledger.config import Settings
from ledger.proof import Proof, prove
from ledger.sandbox.books import PAIRS
from ledger.sandbox.market import Market
from ledger.sandbox.server import Sandbox
from tests.patience import Patience

DATA_DIR = TemporaryDirectory(prefix="sdx-mirrors-", ignore_cleanup_errors=True)
"""Where mirrors keep the heads of their journals; gone at the end of the run."""
DIALECTS = ("documented", "orders_quote", "mixed", "full")
WITHIN_S = 40.0
LOOK_AGAIN_S = 0.1


ALL_MARKETS = ",".join(PAIRS)
"""Named in ``symbols`` the first load reads them all, so that none is read when the stream first names it."""


def settings_for(sandbox: Sandbox, **more: object) -> Settings:
    """Settings that mirror a sandbox at a pace one can watch."""
    given: dict[str, Any] = {
        "account": "main",
        "api_key": SecretStr(sandbox.api_key),
        "api_secret": SecretStr(sandbox.api_secret),
        "rest_url": sandbox.rest_url,
        "stream_url": sandbox.stream_url,
        "rest_lag_s": 1,
        "weight_per_minute": 100_000,
        "silence_s": 10,
        "reconcile_every_s": 2,
        "data_dir": Path(DATA_DIR.name),
        **more,
    }
    return Settings(**given)


@asynccontextmanager
async def venue(dialect: str, **options: Any) -> AsyncIterator[Sandbox]:
    """A sandbox that listens and trades by ``step`` alone, one action a millisecond at most.

    Balances that come and go within one millisecond cannot be told from doubled frames; a snapshot settles those.
    """
    sandbox = Sandbox(seed=7, dialect=dialect, **{"weight_per_minute": 120_000, "now_ms": _advancing(), **options})
    await sandbox.start()
    try:
        yield sandbox
    finally:
        await sandbox.stop()


def without_movements(patch: pytest.MonkeyPatch) -> None:
    """The market only trades: a deposit that was lost with everything else would rightly stand as unexplained."""
    patch.setattr(Market, "_move_money", lambda _: None)


def _advancing() -> Callable[[], int]:
    """The wall clock in ms, each time it is read at least one more than before."""
    last_ms = 0

    def now_ms() -> int:
        nonlocal last_ms
        last_ms = max(last_ms + 1, time.time_ns() // 1_000_000)
        return last_ms

    return now_ms


@asynccontextmanager
async def mirroring(
    settings: Settings, database_url: str, *, first_contact: bool = True, adopt_key: bool = False
) -> AsyncIterator[Mirror]:
    """A mirror that runs in this loop, as the service runs it. A failure of its own fails the test."""
    db = Database(database_url, database_url, database_url, embedded=False)
    async with app.mirrors(settings, db, adopt_key=adopt_key) as (mirror,):
        if first_contact:
            await mirror.first_contact()
        running = asyncio.create_task(mirror.run())
        try:
            yield mirror
        finally:
            running.cancel()
            with suppress(asyncio.CancelledError):
                await running


async def eventually(conn: Any, sql: str, wanted: Callable[[Any], bool], within_s: float = WITHIN_S) -> Any:
    """Wait until the database says so; it is asked again whenever it announces a change, at least every 100 ms."""
    async with changes(conn) as changed:
        patience = Patience(within_s)
        while True:
            changed.clear()
            value = await conn.fetchval(sql)
            if wanted(value):
                return value
            assert not patience.is_over, f"not within {within_s:.0f} s of an idle machine; last {value!r} for {sql}"
            with suppress(TimeoutError):
                await asyncio.wait_for(changed.wait(), LOOK_AGAIN_S)


@asynccontextmanager
async def changes(conn: Any) -> AsyncIterator[asyncio.Event]:
    """An event that is set whenever the database announces a change."""
    changed = asyncio.Event()

    def note(*_: object) -> None:
        changed.set()

    channels = ("ledger_changed", "ledger_gaps")
    for channel in channels:
        await conn.add_listener(channel, note)
    try:
        yield changed
    finally:
        for channel in channels:
            await conn.remove_listener(channel, note)


async def gaps_closed(conn: Any, count: int) -> None:
    """Wait until so many gaps were opened and closed."""
    closed = "SELECT count(*) FROM ledger_v1.gaps WHERE closed_at IS NOT NULL"
    await eventually(conn, closed, lambda found: found >= count)


async def proof_of(conn: Any, sandbox: Sandbox, account: str = "main") -> Proof:
    """Compare until it holds or the time is up; the last comparison is what counts."""
    patience = Patience(WITHIN_S)
    async with changes(conn) as changed:
        while True:
            changed.clear()
            proof = await prove(conn, account, sandbox.truth())
            if proof.holds or patience.is_over:
                return proof
            with suppress(TimeoutError):
                await asyncio.wait_for(changed.wait(), 1.0)


async def holds(conn: Any, sandbox: Sandbox, *, gaps: int) -> Proof:
    """The proof that mirror = venue after exactly so many gaps, all of them closed."""
    proof = await proof_of(conn, sandbox)
    assert not proof.differences, "\n".join(proof.differences)
    found = await conn.fetch("SELECT gap_id, cause, from_ms, until_ms, closed_at FROM ledger_v1.gaps ORDER BY gap_id")
    assert (proof.gaps_opened, proof.gaps_closed) == (gaps, gaps), [tuple(row) for row in found]
    assert proof.orders > 0
    assert proof.venue_fills > 0
    return proof


async def gap(conn: Any, gap_id: int) -> Any:
    """One gap as its readers see it."""
    return await conn.fetchrow("SELECT * FROM ledger_v1.gaps WHERE gap_id = $1", gap_id)
