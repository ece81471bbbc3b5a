"""A real PostgreSQL for the whole run, one migrated template, a copy of it per test.

The server is the embedded one; ``SDX_TEST_SERVER_URL`` (a superuser's URL) or ``SDX_TEST_PG_BIN`` (a folder of
PostgreSQL binaries, so that the same suite runs on another major) choose another.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, settings

from ledger.wire import postgres, schema
from ledger.wire.embedded import Embedded

# No test is timed: a busy machine must not turn a slow example into a failure. On CI the library's own profile, which
# says the same, also repeats the same examples at every run.
if os.environ.get("CI") != "true":
    settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("untimed")


def in_database(url: str, name: str) -> str:
    return urlunsplit(urlsplit(url)._replace(path=f"/{name}"))


async def _execute(url: str, sql: str) -> None:
    conn = await postgres.connect(url, application="tests")
    try:
        await conn.execute(sql)
    finally:
        await conn.close()


@pytest.fixture(scope="session")
def server_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of the server's maintenance database, as superuser."""
    given = os.environ.get("SDX_TEST_SERVER_URL")
    if given:
        yield given
        return
    bin_dir = os.environ.get("SDX_TEST_PG_BIN")
    loop = asyncio.new_event_loop()
    server = Embedded(tmp_path_factory.mktemp("cluster"), bin_dir=Path(bin_dir) if bin_dir else None)
    loop.run_until_complete(server.start())
    try:
        yield server.url("postgres")
    finally:
        loop.run_until_complete(server.stop())
        loop.close()


@pytest.fixture(scope="session")
def template(server_url: str) -> Iterator[str]:
    """Name of a database with the whole schema and no rows."""
    name = f"sdx_template_{uuid4().hex[:8]}"

    async def make() -> None:
        await _execute(server_url, f"CREATE DATABASE {name} ENCODING 'UTF8' TEMPLATE template0")
        await schema.upgrade(in_database(server_url, name))

    asyncio.run(make())
    yield name
    asyncio.run(_execute(server_url, f"DROP DATABASE {name} WITH (FORCE)"))


@pytest.fixture
async def database_url(server_url: str, template: str) -> AsyncIterator[str]:
    """A database of this test's own."""
    name = f"sdx_{uuid4().hex[:12]}"
    await _execute(server_url, f"CREATE DATABASE {name} TEMPLATE {template}")
    yield in_database(server_url, name)
    await _execute(server_url, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
async def conn(database_url: str) -> AsyncIterator[Any]:
    """An asyncpg connection to it."""
    connection = await postgres.connect(database_url, application="tests")
    yield connection
    await connection.close()
