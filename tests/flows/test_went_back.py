"""The database is an older one than it was: restored before a start, under a running service, behind a pool."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from ledger import app
from ledger.app import Database
from ledger.config import Settings
from ledger.sandbox.server import Sandbox
from ledger.verify import Report
from ledger.wire import postgres
from ledger.wire.postgres import Writer
from tests.conftest import in_database
from tests.flows.mirrors import eventually, gaps_closed, mirroring, proof_of, settings_for, venue, without_movements

HEAD = "SELECT head_seq FROM ledger.accounts WHERE account = 'main'"
LIVE = "SELECT live_through_ms FROM ledger.coverage WHERE symbol = '*'"
SAID = "SELECT convert_from(raw, 'UTF8') FROM ledger_v1.journal WHERE kind = 'rollback' AND source = 'operator'"
CAUSES = "SELECT array_agg(cause ORDER BY gap_id) FROM ledger_v1.gaps WHERE closed_at IS NOT NULL"


class Store:
    """The database of a test and an older copy of it, which can take its place under the same name."""

    def __init__(self, url: str, server_url: str) -> None:
        self.url = url
        self.name = urlsplit(url).path[1:]
        self.copy = f"{self.name}_copy"
        self._server_url = server_url

    async def execute(self, *sentences: str) -> None:
        async with session(self._server_url) as conn:
            for sql in sentences:
                await conn.execute(sql)

    async def remember(self) -> None:
        """Copy it as it is now. Nobody may be connected."""
        await self.execute(
            f"DROP DATABASE IF EXISTS {self.copy}",
            f"CREATE DATABASE {self.copy} TEMPLATE {self.name} STRATEGY file_copy",
        )

    async def restore(self) -> None:
        """Put the copy in its place; whoever is connected is cut off."""
        await self.execute(
            f"DROP DATABASE {self.name} WITH (FORCE)",
            f"ALTER DATABASE {self.copy} RENAME TO {self.name}",
        )


@asynccontextmanager
async def session(url: str) -> AsyncIterator[Any]:
    conn = await postgres.connect(url, application="tests")
    try:
        yield conn
    finally:
        await conn.close()


@pytest.fixture(autouse=True)
def trades_only(monkeypatch: pytest.MonkeyPatch) -> None:
    without_movements(monkeypatch)


@pytest.fixture
async def store(database_url: str, server_url: str) -> AsyncIterator[Store]:
    made = Store(database_url, in_database(server_url, "postgres"))
    yield made
    await made.execute(f"DROP DATABASE IF EXISTS {made.copy} WITH (FORCE)")


async def verified(settings: Settings, url: str) -> Report:
    db = Database(url, url, url, embedded=False)
    (report,) = await app.verify_all(settings, db, None, strict=False, against_venue=True)
    return report


def broken(report: Report) -> dict[str, list[str]]:
    return {v.name: [f"{row.key}: {row.found}" for row in v.first] for v in report.verdicts if not v.holds}


async def traded(conn: Any, sandbox: Sandbox, rows: int = 40) -> int:
    """So many journal rows more, at least; how many there are then."""
    wanted = await conn.fetchval(HEAD) + rows
    while await conn.fetchval(HEAD) < wanted:
        await sandbox.step(5)
        await asyncio.sleep(0.01)
    return int(await conn.fetchval(HEAD))


async def healed(settings: Settings, url: str, sandbox: Sandbox, *causes: str) -> dict[str, Any]:
    """These gaps, and those of a lead that was lost too, are closed, mirror = venue, and verify is green; what the
    journal says of the rows that were lost."""
    async with session(url) as conn:
        await eventually(conn, CAUSES, lambda found: found is not None and found[: len(causes)] == list(causes))
        assert (await proof_of(conn, sandbox)).differences == []
        assert broken(await verified(settings, url)) == {}
        assert set(await conn.fetchval(CAUSES)) <= {"start", "database went back"}
        (said,) = await conn.fetch(SAID)
        told: dict[str, Any] = json.loads(said[0])
        return told


async def test_a_backup_restored_before_a_start_is_a_gap_since_the_backup_although_nobody_saw_it_happen(
    store: Store, tmp_path: Path
) -> None:
    async with venue("full") as sandbox:
        settings = settings_for(sandbox, data_dir=tmp_path)
        async with mirroring(settings, store.url), session(store.url) as conn:
            await gaps_closed(conn, 1)
            await traded(conn, sandbox)
        await store.remember()
        async with session(store.url) as conn:
            backup_seq, live_ms = await conn.fetchval(HEAD), await conn.fetchval(LIVE)
        async with mirroring(settings, store.url), session(store.url) as conn:
            await gaps_closed(conn, 2)
            await traded(conn, sandbox)
        async with session(store.url) as conn:
            lost_seq = await conn.fetchval(HEAD)
        await store.restore()

        found = broken(await verified(settings, store.url))
        assert found["head_is_kept"] == [
            f"row {lost_seq}: the journal ends at row {backup_seq}, it had {lost_seq} rows; "
            "a service that starts opens a gap for it"
        ]
        async with mirroring(settings, store.url):
            said = await healed(settings, store.url, sandbox, "start", "database went back")
        assert (said["found_seq"], said["lost_seq"]) == (backup_seq, lost_seq)
        async with session(store.url) as conn:
            from_ms = await conn.fetchval("SELECT from_ms FROM ledger_v1.gaps WHERE gap_id = 2")
            assert live_ms - 5000 < from_ms <= live_ms


async def test_a_backup_from_before_the_account_was_known_is_restored_under_a_running_service(
    store: Store, tmp_path: Path
) -> None:
    await store.remember()
    async with venue("full") as sandbox:
        settings = settings_for(sandbox, data_dir=tmp_path)
        async with mirroring(settings, store.url):
            async with session(store.url) as conn:
                await gaps_closed(conn, 1)
                confirmed = await traded(conn, sandbox)
            await store.restore()
            async with session(store.url) as conn:
                await eventually(conn, CAUSES, bool)
                await traded(conn, sandbox)
            said = await healed(settings, store.url, sandbox, "database went back")
            assert (said["found_seq"], said["lost_seq"] >= confirmed) == (0, True)
            async with session(store.url) as conn:
                assert await conn.fetchval("SELECT from_ms FROM ledger_v1.gaps WHERE gap_id = 1") is None
                assert await conn.fetchval("SELECT rest_origin FROM ledger.accounts") == sandbox.rest_url


# --- a pool between: connections that stay while the server behind them is another ----------------------------------


class Pool:
    """Gives every client a connection that stays, as a pooler does, whichever server is behind it."""

    def __init__(self) -> None:
        self._open = asyncio.Event()
        self._open.set()
        self._clients: list[Client] = []

    async def connect(self, url: str, *, application: str, writes: bool = True) -> Client:
        client = Client(self._open, url, application)
        self._clients.append(client)
        return client

    @asynccontextmanager
    async def paused(self) -> AsyncIterator[None]:
        """Calls wait, and no server is connected."""
        self._open.clear()
        for client in self._clients:
            await client.leave()
        yield
        self._open.set()


class Client:
    """As much of the driver's connection as a writer uses."""

    def __init__(self, is_open: asyncio.Event, url: str, application: str) -> None:
        self._is_open, self._url, self._application = is_open, url, application
        self._real: Any = None
        self._busy = asyncio.Lock()
        self._closed = False

    def __getattr__(self, name: str) -> Any:
        async def call(*words: Any, **options: Any) -> Any:
            await self._is_open.wait()
            async with self._busy:
                if self._real is None:
                    self._real = await postgres.connect(self._url, application=self._application)
                return await getattr(self._real, name)(*words, **options)

        assert name in ("execute", "fetch", "fetchrow", "fetchval"), name
        return call

    async def leave(self) -> None:
        """Let go of the server, once it has answered."""
        async with self._busy:
            real, self._real = self._real, None
            if real is not None:
                await real.close()

    def is_closed(self) -> bool:
        return self._closed

    async def close(self, timeout: float | None = None) -> None:
        self._closed = True
        await self.leave()

    def terminate(self) -> None:
        self._closed = True
        if self._real is not None:
            self._real.terminate()


@pytest.mark.parametrize("dialect", ["documented", "full"])
async def test_a_failover_behind_connections_that_stay_is_seen_by_the_first_answer(
    store: Store, tmp_path: Path, dialect: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = Pool()
    monkeypatch.setitem(Writer.__init__.__kwdefaults__, "connect", pool.connect)
    async with venue(dialect) as sandbox:
        await sandbox.step(20)
        settings = settings_for(sandbox, data_dir=tmp_path)
        async with mirroring(settings, store.url):
            async with session(store.url) as conn:
                await gaps_closed(conn, 1)
                await traded(conn, sandbox)
            async with pool.paused():
                await store.remember()
                async with session(store.url) as conn:
                    found_seq, live_ms = await conn.fetchval(HEAD), await conn.fetchval(LIVE)
            async with session(store.url) as conn:
                lost_seq = await traded(conn, sandbox)
                first_lost = "SELECT ledger_v1.ms(received_at) FROM ledger_v1.journal WHERE seq = $1"
                first_lost_ms = await conn.fetchval(first_lost, found_seq + 1)
            async with pool.paused():
                await store.restore()
                await sandbox.step(5)
            async with session(store.url) as conn:
                await eventually(conn, f"SELECT count(*) FROM ({SAID}) r", bool)
                await traded(conn, sandbox)
            said = await healed(settings, store.url, sandbox, "start", "database went back")
            assert (said["found_seq"], said["lost_seq"] >= lost_seq) == (found_seq, True)
            async with session(store.url) as conn:
                from_ms = await conn.fetchval("SELECT from_ms FROM ledger_v1.gaps WHERE gap_id = 2")
                assert live_ms - 5000 < from_ms < first_lost_ms, "whatever was said of it since"
