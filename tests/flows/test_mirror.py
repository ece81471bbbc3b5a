"""The whole mirror against the sandbox venue over real sockets, in every dialect, on a real PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from pydantic import SecretStr

from ledger import app
from ledger.app import Database, Mirror
from ledger.config import Settings
from ledger.proof import Proof, prove
from ledger.sandbox.server import Sandbox

DIALECTS = ("documented", "orders_quote", "mixed", "full")
WITHIN_S = 40.0


def settings_for(sandbox: Sandbox, **more: object) -> Settings:
    given: dict[str, Any] = {
        "account": "main",
        "api_key": SecretStr(sandbox.api_key),
        "api_secret": SecretStr(sandbox.api_secret),
        "rest_url": sandbox.rest_url,
        "stream_url": sandbox.stream_url,
        "rest_lag_s": 1,
        "weight_per_minute": 100_000,
        "silence_s": 3,
        "reconcile_every_s": 3,
        **more,
    }
    return Settings(**given)


@asynccontextmanager
async def venue(dialect: str, **options: Any) -> AsyncIterator[Sandbox]:
    sandbox = Sandbox(seed=7, dialect=dialect, **{"weight_per_minute": 120_000, **options})
    await sandbox.start()
    try:
        yield sandbox
    finally:
        await sandbox.stop()


@asynccontextmanager
async def mirroring(settings: Settings, database_url: str) -> AsyncIterator[Mirror]:
    """A mirror that runs in this loop, as the service runs it."""
    db = Database(database_url, database_url, database_url, embedded=False)
    async with app.mirrors(settings, db) as (mirror,):
        running = asyncio.create_task(mirror.run())
        try:
            yield mirror
        finally:
            running.cancel()
            await asyncio.wait([running])


async def eventually(conn: Any, sql: str, wanted: Callable[[Any], bool]) -> Any:
    """Wait until the database says so; it is asked again whenever it announces a change, at least every 100 ms."""
    changed = asyncio.Event()

    def note(*_: object) -> None:
        changed.set()

    await conn.add_listener("ledger_changed", note)
    await conn.add_listener("ledger_gaps", note)
    try:
        async with asyncio.timeout(WITHIN_S):
            while True:
                changed.clear()
                value = await conn.fetchval(sql)
                if wanted(value):
                    return value
                try:
                    await asyncio.wait_for(changed.wait(), 0.1)
                except TimeoutError:
                    continue
    finally:
        await conn.remove_listener("ledger_changed", note)
        await conn.remove_listener("ledger_gaps", note)


async def gaps_closed(conn: Any, count: int) -> None:
    closed = "SELECT count(*) FROM ledger_v1.gaps WHERE closed_at IS NOT NULL"
    await eventually(conn, closed, lambda found: found >= count)


async def proof_of(conn: Any, sandbox: Sandbox) -> Proof:
    """Compare until it holds or the time is up; the last comparison is what counts."""
    changed = asyncio.Event()
    await conn.add_listener("ledger_changed", lambda *_: changed.set())
    deadline_s = asyncio.get_running_loop().time() + WITHIN_S
    while True:
        changed.clear()
        proof = await prove(conn, "main", sandbox.truth())
        left_s = deadline_s - asyncio.get_running_loop().time()
        if proof.holds or left_s <= 0:
            return proof
        with suppress(TimeoutError):
            await asyncio.wait_for(changed.wait(), min(left_s, 1.0))


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_a_mirror_that_lost_its_connection_twice_equals_the_venue(
    dialect: str, database_url: str, conn: Any
) -> None:
    async with venue(dialect) as sandbox:
        await sandbox.step(60)
        async with mirroring(settings_for(sandbox), database_url):
            await gaps_closed(conn, 1)
            await sandbox.step(100)
            for gap in (2, 3):
                await sandbox.fault({"do": "refuse_ws", "for_s": 0.5})
                await sandbox.fault({"do": "drop"})
                await sandbox.step(60)
                await gaps_closed(conn, gap)
                await sandbox.step(60)
            proof = await proof_of(conn, sandbox)
            assert proof.differences == []
            assert (proof.gaps_opened, proof.gaps_closed) == (3, 3)
            if dialect in ("mixed", "full"):
                assert proof.missing == 0
                assert proof.fills == proof.venue_fills > 0
            else:
                assert proof.missing > 0, "sixty actions behind its back must have held a fill"
            assert sandbox.violations == []
