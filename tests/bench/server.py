"""The PostgreSQL a bench runs on: durable, at rest, and rid of what an earlier run left."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

from ledger.wire import postgres, schema
from ledger.wire.embedded import Embedded

MARK = "sdx_bench_"
DURABLE = {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on", "commit_delay": "0"}
"""Settings without which a figure says nothing: none may flatter it, none may be left over."""


class Unfit(Exception):
    """This server cannot be measured; the text says why and what to do."""


@asynccontextmanager
async def server(url: str | None, *, busy: bool = False) -> AsyncIterator[str]:
    """URL of a fit server's maintenance database: the one named, or an embedded one started for the run. ``busy``:
    others may use it meanwhile, as nothing is measured."""
    if url is not None:
        await _refuse_unfit(url, busy=busy)
        yield url
        return
    with tempfile.TemporaryDirectory(prefix="sdx-bench-", ignore_cleanup_errors=True) as folder:
        async with Embedded(Path(folder)) as embedded:
            own = embedded.url("postgres")
            await _refuse_unfit(own, busy=busy)
            yield own


@asynccontextmanager
async def database(server_url: str, name: str) -> AsyncIterator[str]:
    """A database of its own with the whole schema and no rows; dropped in the end."""
    name = f"{MARK}{name}_{uuid4().hex[:6]}"
    await _execute(server_url, f"CREATE DATABASE {name} ENCODING 'UTF8' TEMPLATE template0")
    try:
        url = urlunsplit(urlsplit(server_url)._replace(path=f"/{name}"))
        await schema.upgrade(url)
        yield url
    finally:
        await _execute(server_url, f"DROP DATABASE {name} WITH (FORCE)")


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Any]:
    """One connection as the service makes it."""
    conn = await postgres.connect(url, application="sdx-ledger bench")
    try:
        yield conn
    finally:
        await conn.close()


async def about(url: str) -> str:
    """Version and the settings that matter, in a line."""
    async with connected(url) as conn:
        version = await conn.fetchval("SELECT current_setting('server_version')")
        buffers = await conn.fetchval("SELECT current_setting('shared_buffers')")
    return f"PostgreSQL {version}, shared_buffers {buffers}, durable"


async def _refuse_unfit(url: str, *, busy: bool) -> None:
    async with connected(url) as conn:
        for name, wanted in DURABLE.items():
            found = await conn.fetchval("SELECT current_setting($1)", name)
            if found != wanted:
                raise Unfit(f"{name} is {found}, expected {wanted}: a figure taken so would flatter; set it back")
        if busy:
            return
        left = await conn.fetch("SELECT datname FROM pg_database WHERE starts_with(datname, $1)", MARK)
        if left:
            names = ", ".join(row["datname"] for row in left)
            raise Unfit(f"an earlier run left {names}; make sure that it is over, then drop it")
        at_work = await conn.fetch(
            "SELECT DISTINCT application_name FROM pg_stat_activity WHERE backend_type = 'client backend'"
            " AND pid <> pg_backend_pid() AND state <> 'idle'"
        )
        if at_work:
            names = ", ".join(row["application_name"] or "somebody" for row in at_work)
            raise Unfit(f"the server is at work for {names}; wait, or use another")


async def _execute(url: str, sql: str) -> None:
    async with connected(url) as conn:
        await conn.execute(sql)
