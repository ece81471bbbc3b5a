"""More frames at once than many calls hold: the service writes full calls, lays the next ones out meanwhile, and loses
and doubles nothing, also when the database ends its session in between."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from ledger.stream.consumer import FRAMES_PER_CALL_MAX
from tests.bench import latency, server
from tests.flows.processes import until

CALLS = 20
PER_S = 10_000_000
"""So that all of them are due at once."""
ENDINGS = 3


@pytest.mark.timeout(120)
async def test_a_burst_of_full_calls_is_written_once_although_the_writers_session_ends_in_between(
    server_url: str, tmp_path: Path
) -> None:
    async with server.database(server_url, "burst") as url, server.connected(url) as conn:
        with latency.venue(tmp_path) as address:
            async with latency.serving(tmp_path, address, url) as (_, commits), server.connected(url) as other:
                await latency.loaded(conn, address, commits, 500, 0.1)  # a session, plans, pages
                burst = asyncio.create_task(
                    latency.loaded(conn, address, commits, PER_S, CALLS * FRAMES_PER_CALL_MAX / PER_S)
                )
                for ending in range(1, ENDINGS + 1):
                    await until(lambda calls=3 * ending: len(commits) >= calls, "some calls are written")
                    await until(lambda: _ended(other), "the writer's session is ended")
                    assert not burst.done(), "in between, not afterwards"
                await burst
            full = await conn.fetchval(
                "SELECT count(*) FROM ledger.batches WHERE last_seq - first_seq + 1 = $1", FRAMES_PER_CALL_MAX
            )
            assert full > CALLS // 2, "most calls were full"
            await latency.exact(conn)
            assert not await conn.fetch("SELECT * FROM ledger.accounts a, ledger.broken_chain(a.account)")


async def _ended(conn: Any) -> bool:
    """Whether there was a session that writes the stream, and is no more."""
    ended = await conn.fetchval(
        """
        SELECT count(*) FILTER (WHERE pg_terminate_backend(pid)) FROM pg_stat_activity
        WHERE datname = current_database() AND application_name LIKE 'sdx-ledger stream %'
        """
    )
    return bool(ended)
